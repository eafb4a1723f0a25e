"""Compiles generated CUDA kernels to PTX without a GPU or a driver."""

from __future__ import annotations

import importlib
import importlib.util
import linecache
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import Any

#: Libraries of NVIDIA's toolkit that compiling loads, and their distributions.
LIBRARIES = {"nvvm": "nvidia-nvvm", "nvrtc": "nvidia-cuda-nvrtc"}

_module_numbers = count(1)


def missing(libraries: dict[str, str] = LIBRARIES) -> str | None:
    """Return None when numba-cuda and these libraries are installed, else what is not."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed: pip install 'spyke_numba[cuda13]' (or [cuda12] for a CUDA 12 driver)"
    from cuda.pathfinder import DynamicLibNotFoundError, load_nvidia_dynamic_lib

    for library, distribution in libraries.items():
        try:
            load_nvidia_dynamic_lib(library)
        except DynamicLibNotFoundError:
            return f"library {library} of the CUDA toolkit was not found: pip install {distribution}"
    return None


def capability(arch: str) -> tuple[int, int]:
    """Return the compute capability of an architecture: (9, 0) for ``"sm_90"``."""
    match = re.fullmatch(r"sm_(\d+)(\d)", arch)
    if match is None:
        raise ValueError(f"architecture {arch!r}: give one such as 'sm_90'")
    return int(match[1]), int(match[2])


@contextmanager
def pretended_device(arch: str) -> Iterator[None]:
    """Let numba-cuda compile as if a GPU of this architecture were the current device.

    For each device function that a kernel calls, numba asks the current device for its capability, though it was told
    what to compile for.
    """
    from numba.cuda import compiler, dispatcher

    device = SimpleNamespace(compute_capability=capability(arch))
    modules: tuple[Any, ...] = (compiler, dispatcher)
    real = [module.get_current_device for module in modules]
    for module in modules:
        module.get_current_device = lambda: device
    try:
        yield
    finally:
        for module, function in zip(modules, real, strict=True):
            module.get_current_device = function


def load(source: str) -> ModuleType:
    """Return a kernel module from its text, with numba's own `cuda`."""
    filename = f"<generated kernels {next(_module_numbers)}>"
    # numba's errors then show the lines of the text
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    module = ModuleType("generated_kernels")
    exec(compile(source, filename, "exec", dont_inherit=True), module.__dict__)
    return module


def compile_ptx(
    source: str,
    kernel: str = "run",
    signature: str | tuple[Any, ...] | None = None,
    arch: str = "sm_90",
    max_threads: int | None = None,
) -> str:
    """Return the PTX of one kernel of a generated module.

    Parameters
    ----------
    source : str
        The module's text.
    kernel : str
        The kernel's name in it.
    signature : str or tuple of numba types, optional
        Types of the arguments, such as ``"float32[:, ::1], int64"``; what the module's ``SIGNATURE`` says unless given.
    arch : str
        Such as ``"sm_90"``.
    max_threads : int, optional
        The largest block to be launched, which limits the registers per thread; what the module's ``THREADS`` or the
        kernel's ``launch_bounds`` say unless given.

    Raises
    ------
    RuntimeError
        When numba-cuda or a library of the toolkit is missing.
    """
    why_not = missing()
    if why_not is not None:
        raise RuntimeError(f"PTX cannot be compiled here: {why_not}")
    cuda: Any = importlib.import_module("numba.cuda")
    if isinstance(signature, str) and not signature.startswith("void("):
        signature = f"void({signature})"
    with pretended_device(arch):
        # a new module each time: device functions stay compiled for the first architecture asked for
        module = load(source)
        function = getattr(module, kernel)
        options = getattr(function, "targetoptions", {})
        ptx, _ = cuda.compile(
            getattr(function, "py_func", function),
            signature or module.SIGNATURE,
            cc=capability(arch),
            device=False,
            abi="numba",
            fastmath=options.get("fastmath", False),
            launch_bounds=max_threads or options.get("launch_bounds") or getattr(module, "THREADS", None),
        )
    return ptx
