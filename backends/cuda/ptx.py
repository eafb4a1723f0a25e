"""Compiles generated CUDA kernels to PTX, and links PTX into machine code, without a GPU or a driver."""

from __future__ import annotations

import importlib
import importlib.util
import linecache
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import Any

#: Libraries of NVIDIA's toolkit that compiling loads, and their distributions.
LIBRARIES = {"nvvm": "nvidia-nvvm", "nvrtc": "nvidia-cuda-nvrtc"}
LINKER = {"nvJitLink": "nvidia-nvjitlink"}

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
    launch_bounds: int | tuple[int, int] | None = None,
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
    launch_bounds : int or tuple of int, optional
        Threads of the largest block to be launched, and how many such blocks a multiprocessor must hold, which limits
        the registers per thread; what the module's ``BOUNDS`` or the kernel's ``launch_bounds`` say unless given.

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
            launch_bounds=launch_bounds or options.get("launch_bounds") or getattr(module, "BOUNDS", None),
        )
    return ptx


@dataclass(frozen=True)
class Usage:
    """What a kernel takes of a device: registers, stack and spills per thread, shared memory per block.

    Shared memory is that of fixed size, with the KiB that the system reserves on newer architectures; `cubin` is the
    machine code.
    """

    registers: int
    stack_bytes: int
    spill_bytes: int
    shared_bytes: int
    cubin: bytes = field(repr=False, compare=False)


def cannot_link() -> str | None:
    """Return None when PTX can be compiled and linked here, else what is missing, or does not go together."""
    return missing(LIBRARIES | LINKER) or too_new_to_link()


def ptx_version(arch: str = "sm_90") -> str:
    """Return the version of the PTX that NVVM writes, such as ``"9.0"``, which grows with each CUDA toolkit."""
    nvvm: Any = importlib.import_module("numba.cuda.cudadrv.nvvm")
    major, minor, debug_major, debug_minor = nvvm.NVVM().get_ir_version()
    empty = (
        'target triple = "nvptx64-nvidia-cuda"\n'
        f'target datalayout = "{nvvm.NVVM().data_layout}"\n'
        "!nvvmir.version = !{!0}\n"
        f"!0 = !{{i32 {major}, i32 {minor}, i32 {debug_major}, i32 {debug_minor}}}\n"
    )
    unit = nvvm.CompilationUnit({"arch": arch.replace("sm", "compute")})
    unit.add_module(empty.encode())
    found = re.search(rb"^\.version (\S+)", unit.compile(), re.MULTILINE)
    if found is None:
        raise RuntimeError("NVVM's PTX does not tell its version")
    return found[1].decode()


def too_new_to_link(arch: str = "sm_90") -> str | None:
    """Return None when nvJitLink reads the PTX that NVVM writes, or is not here, else which is too old for which."""
    if missing(LINKER) is not None:
        return None
    # about 30 ms; the libraries tell versions of their own, of which only a trial shows what goes together
    ptx = f".version {ptx_version(arch)}\n.target {arch}\n.address_size 64\n.visible .entry k() {{ ret; }}\n"
    try:
        link(ptx, arch)
    except RuntimeError as error:
        found = re.search(r"Unsupported \.version ([\d.]+); current version is '([\d.]+)'", str(error))
        if found is None:
            return None
        return (
            f"NVVM writes PTX {found[1]}, newer than the PTX {found[2]} that nvJitLink {linker_version()} reads"
            " (Unsupported .version): install both of one CUDA toolkit, such as with"
            " pip install --upgrade nvidia-nvjitlink (nvidia-nvjitlink-cu12 for CUDA 12)"
        )
    return None


def linker_version() -> str:
    """Return the version of nvJitLink, which is that of its CUDA toolkit."""
    from cuda.bindings import nvjitlink

    return ".".join(map(str, nvjitlink.version()))


def link(ptx: str, arch: str = "sm_90", max_registers: int | None = None) -> Usage:
    """Assemble the PTX of one kernel into machine code with nvJitLink, and return what the kernel takes.

    The limit of registers is for a kernel without launch bounds, which come before it.

    Raises
    ------
    RuntimeError
        With the linker's log, when it fails.
    """
    from cuda.bindings import nvjitlink

    options = [f"-arch={arch}", "-verbose", *([f"-maxrregcount={max_registers}"] if max_registers else [])]
    handle = nvjitlink.create(len(options), options)
    try:
        code = ptx.encode() + b"\0"
        try:
            nvjitlink.add_data(handle, nvjitlink.InputType.PTX, code, len(code), "kernel")
            if "cudaCGGetIntrinsicHandle" in ptx:
                nvjitlink.add_file(handle, nvjitlink.InputType.LIBRARY, _device_runtime())
            nvjitlink.complete(handle)
        except nvjitlink.nvJitLinkError as error:
            raise RuntimeError(_log(handle, "error")) from error
        cubin = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, cubin)
        return _usage(_log(handle, "info"), bytes(cubin))
    finally:
        nvjitlink.destroy(handle)


def no_device_runtime() -> str | None:
    """Return None when the library that a barrier of the whole grid needs is here, else what is missing."""
    try:
        _device_runtime()
    except RuntimeError as error:
        return str(error)
    return None


def _device_runtime() -> str:
    from cuda.pathfinder import StaticLibNotFoundError, find_static_lib

    try:
        return find_static_lib("cudadevrt")
    except StaticLibNotFoundError as error:
        raise RuntimeError(
            "libcudadevrt.a, which a kernel that waits for the whole grid needs, was not found:"
            " pip install nvidia-cuda-runtime"
        ) from error


def _log(handle: int, kind: str) -> str:
    from cuda.bindings import nvjitlink

    buffer = bytearray(getattr(nvjitlink, f"get_{kind}_log_size")(handle))
    if buffer:
        getattr(nvjitlink, f"get_{kind}_log")(handle, buffer)
    return buffer.decode(errors="replace").rstrip("\0")


def _usage(log: str, cubin: bytes) -> Usage:
    def largest(pattern: str, required: bool = True) -> int:
        found = [int(number) for number in re.findall(pattern, log, re.IGNORECASE)]
        if required and not found:
            raise RuntimeError(f"the linker's log does not tell {pattern!r}:\n{log}")
        return max(found, default=0)

    spills = largest(r"(\d+) bytes spill stores") + largest(r"(\d+) bytes spill loads")
    return Usage(
        registers=largest(r"used (\d+) registers"),
        stack_bytes=largest(r"(\d+) bytes stack frame"),
        spill_bytes=spills,
        shared_bytes=largest(r"(\d+) bytes smem", required=False),
        cubin=cubin,
    )
