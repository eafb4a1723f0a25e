"""The CUDA backend: numba kernels generated from the same statements, one launch for all steps."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np

from spyke_numba.backends import Launch, check_dense, contiguous
from spyke_numba.backends.cpu.launch import events
from spyke_numba.backends.cuda.ptx import compile_ptx, missing, too_new_to_link
from spyke_numba.backends.cuda.source import WIDTHS, Form, bounds, recorded, source
from spyke_numba.compile.cache import load_module
from spyke_numba.compile.program import Program


@dataclass(frozen=True)
class Limits:
    """What a device offers, and from which size on a layer takes it up.

    Attributes
    ----------
    multiprocessors : int
    shared_bytes : int
        Shared memory of a block.
    wide_neurons : int
        Neurons per multiprocessor from which a thread takes several: with fewer, more threads hide the memory's delay.
    block_neurons : int
        Neurons of a sample that make a further block worth the barrier.
    cooperative : bool
        Whether blocks can wait for each other, which takes the toolkit's device runtime.
    """

    multiprocessors: int
    shared_bytes: int
    wide_neurons: int = 1024
    block_neurons: int = 4096
    cooperative: bool = True


#: Shared memory of fixed size: where the warps of a block meet, and what the system keeps for itself.
_STATIC_BYTES = 2048
#: Ends a module that is launched. With its signature the kernel takes addresses as they are; without link-time
#: optimisation it is the PTX checked.
_COMPILED = "\ncompiled = cuda.jit(SIGNATURE, launch_bounds=BOUNDS, cache=True, lto=False)(run)\n"


class Device(Protocol):
    """Where kernels run: the GPU, or an emulator in tests."""

    def unavailable(self) -> str | None:
        """Return None when kernels can run here, else why not and what to do."""

    def limits(self, like: Any) -> Limits:
        """Return the limits of the device of the input `like`."""

    def kernel(self, label: str, source: str) -> Any:
        """Return the kernel of a generated module, launched as ``kernel[grid, block, stream, shared bytes](...)``."""

    def on(self, like: Any) -> AbstractContextManager[Any]:
        """Return a context in which the device of the input `like` is the current one."""

    def stream(self, like: Any) -> Any:
        """Return the stream on which work for the input `like` must be ordered."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return new device memory."""

    def upload(self, host: np.ndarray) -> Any:
        """Return a copy of a numpy array in device memory."""

    def fill(self, array: Any, host: np.ndarray) -> None:
        """Overwrite device memory with a numpy array's values, broadcast to its shape."""

    def download(self, array: Any) -> np.ndarray:
        """Return device memory as a numpy array."""

    def address(self, array: Any) -> Any:
        """Return what a kernel takes for memory of this device, or for None, which it does not touch."""

    def aligned(self, array: Any) -> bool:
        """Return whether an array starts where 16 bytes can be moved at once."""


class _Gpu:
    """The current GPU, through numba-cuda."""

    def unavailable(self) -> str | None:
        return _why_not()

    def limits(self, like: Any) -> Limits:
        from numba import cuda

        return _limits(like.device.index if _on_gpu(like) else cuda.get_current_device().id)

    def kernel(self, label: str, source: str) -> Any:
        import numba_cuda
        from numba.cuda.core import config

        # a small layer fills no GPU, and whoever runs one knows
        config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
        return load_module(label, source + _COMPILED, f"numba-cuda {numba_cuda.__version__}").compiled

    def on(self, like: Any) -> AbstractContextManager[Any]:
        if not _on_gpu(like):
            return nullcontext()
        from numba import cuda

        return cuda.gpus[like.device.index]

    def stream(self, like: Any) -> Any:
        if not _on_gpu(like):
            return _external_stream(None, 0)
        import torch

        return _external_stream(like.device.index, torch.cuda.current_stream(like.device).cuda_stream)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        from numba import cuda

        return cuda.device_array(shape, dtype)

    def upload(self, host: np.ndarray) -> Any:
        from numba import cuda

        return cuda.to_device(np.ascontiguousarray(host))

    def fill(self, array: Any, host: np.ndarray) -> None:
        if _is_tensor(array):
            import torch

            if host.ndim == 0:
                # a copy would first be made of the host's number, for every element
                array.fill_(host.item())
            else:
                array.copy_(torch.tensor(host))
        else:
            array.copy_to_device(np.ascontiguousarray(np.broadcast_to(host, array.shape)))

    def download(self, array: Any) -> np.ndarray:
        return array.cpu().numpy() if _is_tensor(array) else array.copy_to_host()

    def address(self, array: Any) -> int:
        if array is None:
            return 0
        return array.data_ptr() if _is_tensor(array) else array.device_ctypes_pointer.value or 0

    def aligned(self, array: Any) -> bool:
        return self.address(array) % 16 == 0


#: Said once.
_NO_RUNTIME = (
    "libcudadevrt.a, without which blocks cannot wait for each other, was not found, so that each sample is left to one"
    " block: pip install nvidia-cuda-runtime (or nvidia-cuda-runtime-cu12 of 12.9 or later)"
)
_EXTRAS = "pip install 'spyke_numba[cuda13]' (or [cuda12] for a CUDA 12 driver)"


@cache
def _why_not() -> str | None:
    # asked before anything is compiled: what is missing would show in the middle of the first run
    if importlib.util.find_spec("numba_cuda") is None:
        return f"numba-cuda is not installed: {_EXTRAS}"
    try:
        from numba import cuda

        if "numba_cuda" not in str(cuda.__file__):
            return (
                "numba-cuda is on the path, but its .pth file was not read, so that numba's own older numba.cuda is"
                f" imported: install it into this environment ({_EXTRAS}), or import _numba_cuda_redirector first"
            )
        from numba.cuda.core import config

        if config.ENABLE_CUDASIM:
            return "numba's CUDA simulator, which lacks what kernels use, is switched on: unset NUMBA_ENABLE_CUDASIM"
        if not cuda.is_available():
            return "no CUDA GPU and driver were found: install NVIDIA's driver, or use backend='cpu'"
        return missing() or _mismatch()
    except Exception as error:  # without the toolkit's libraries numba-cuda raises its own kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return f"numba-cuda cannot be used ({reason}): {_EXTRAS}"


def _mismatch() -> str | None:
    """Return None when GPU, driver and the installed toolkit's libraries go together, else what does not."""
    from numba import cuda
    from numba.cuda.cudadrv import driver, runtime

    nvrtc: Any = importlib.import_module("numba.cuda.cudadrv.nvrtc")
    toolkit, known = runtime.get_version(), driver.get_version()
    if toolkit[0] > known[0]:
        return (
            f"the driver knows CUDA {known[0]}.{known[1]}, but the installed libraries are of CUDA {toolkit[0]}:"
            f" pip install 'spyke_numba[cuda{known[0]}]', or install a newer driver"
        )
    capability, oldest = cuda.gpus[0].compute_capability, min(nvrtc.get_supported_ccs())
    if capability < oldest:
        return (
            f"the GPU has compute capability {capability[0]}.{capability[1]}, and CUDA {toolkit[0]} compiles from"
            f" {oldest[0]}.{oldest[1]} on: use backend='cpu', or an older toolkit if one knows it"
        )
    newest = max(known for known in nvrtc.get_supported_ccs() if known <= capability)
    return too_new_to_link(f"sm_{newest[0]}{newest[1]}")


@cache
def _limits(device: int) -> Limits:
    from numba import cuda
    from numba.cuda.cudadrv.libs import get_cudalib

    gpu = cuda.gpus[device]
    # numba's own search, which is not the one of cuda-pathfinder
    cooperative = os.path.isfile(get_cudalib("cudadevrt", static=True))
    return Limits(gpu.MULTIPROCESSOR_COUNT, gpu.MAX_SHARED_MEMORY_PER_BLOCK, cooperative=cooperative)


@cache
def _external_stream(device: int | None, pointer: int) -> Any:
    from numba import cuda

    return cuda.external_stream(pointer) if pointer else cuda.default_stream()


def _is_tensor(x: Any) -> bool:
    return hasattr(x, "detach")


def _on_gpu(x: Any) -> bool:
    return _is_tensor(x) and x.is_cuda


class _CudaKernel:
    def __init__(self, program: Program, device: Device):
        self.program = program
        self._device = device
        self._compiled: dict[Any, Any] = {}

    def run(self, launch: Launch) -> None:
        device, outputs = self._device, launch.outputs
        with device.on(launch.x):
            names = recorded(self.program)
            aligned = all(map(device.aligned, (launch.x, *outputs.values())))
            if launch.prepared is None:
                launch.prepared = {}
            if aligned not in launch.prepared:
                launch.prepared[aligned] = self._prepared(launch, aligned)
            kernel, (grid, block, shared), fixed, numbers = launch.prepared[aligned]
            kept = sum(1 << bit for bit, name in enumerate(names) if name in outputs)
            out = [device.address(outputs.get(name)) for name in names]
            configured = kernel[grid, block, device.stream(launch.x), shared]
            configured(device.address(launch.x), *out, *fixed, kept, *numbers)
            found = launch.scratch["not_finite"]
            launch.not_finite = lambda: bool(device.download(found)[0])

    def _prepared(
        self, launch: Launch, aligned: bool
    ) -> tuple[Any, tuple[int, int, int], list[Any], list[int]]:
        """Return what launches that are alike share: the kernel, its configuration, addresses and numbers."""
        program, device = self.program, self._device
        B, N = launch.states[0].shape
        if "not_finite" not in launch.scratch:
            # where the input is, so that it is ordered as the input is
            host = np.zeros(1, np.int32)
            launch.scratch["not_finite"] = (
                launch.x.new_tensor(host) if _on_gpu(launch.x) else device.upload(host)
            )
        arrays = [*launch.states, launch.refractory, launch.scalars, launch.arrays, launch.periods]
        arrays.append(launch.scratch["not_finite"])
        numbers = [0 if launch.constant_input else B * N, launch.steps, B, N]
        limits, width = device.limits(launch.x), WIDTHS[program.dtype]
        wide = aligned and N % width == 0
        if launch.winners is None:
            form = Form(wide and limits.wide_neurons * limits.multiprocessors <= B * N)
            threads, _ = bounds(program, form)
            configuration = (-(-B * N // (threads * (width if form.wide else 1))), threads, 0)
        else:
            k, most, radius, H, W = launch.winners
            size = H * W
            F = N // size
            sets, parts = 0, 1
            if program.compact:
                sets = launch.refractory.shape[1]
                # each block keeps its own maps' best and counters, which must not outweigh the neurons
                worth = min(limits.multiprocessors // B, -(-N // limits.block_neurons), 2 * N // (F + sets))
                parts = max(1, worth)
                if parts > 1 and not limits.cooperative:
                    warnings.warn(_NO_RUNTIME, RuntimeWarning, stacklevel=2)
                    parts = 1
            words = F + sets + 2 * most
            shared = 8 * (3 * F + words)
            form = Form(
                wide=wide and size % width == 0 and program.compact,
                scratch=parts > 1 or shared + _STATIC_BYTES > limits.shared_bytes,
                grid=parts > 1,
            )
            whole = "int32" if program.dtype == "float32" else "int64"
            needs_keys = radius > 0 or program.dtype == "float64"
            arrays.append(self._memory(launch, "keys", 2 * B * N, whole) if needs_keys else None)
            if form.scratch:
                arrays.append(self._memory(launch, "memory", B * (3 * F + parts * words), "int64"))
            numbers += [parts, size, W, k, most, radius]
            share = -(-N // (parts * (width if form.wide else 1)))
            threads = min(bounds(program, form)[0], -(-share // 32) * 32)
            configuration = (B * parts, threads, 0 if form.scratch else shared)
        return self._kernel(form, launch.x), configuration, [*map(device.address, arrays)], numbers

    def _kernel(self, form: Form, like: Any) -> Any:
        # for each GPU its own: they may differ
        key = form, like.device if _on_gpu(like) else None
        if key not in self._compiled:
            label = f"{self.program.label}_cuda_{form.label}"
            self._compiled[key] = self._device.kernel(label, source(self.program, form))
        return self._compiled[key]

    def _memory(self, launch: Launch, name: str, size: int, dtype: str) -> Any:
        key = ("cuda", name, size, dtype)
        if key not in launch.scratch:
            launch.scratch[key] = self._device.empty((size,), dtype)
        return launch.scratch[key]


class CudaBackend:
    """NVIDIA GPUs; numpy arrays are copied there and back, torch tensors on the GPU are shared.

    Parameters
    ----------
    device : Device, optional
        Where its kernels run; the current GPU unless given.
    """

    name = "cuda"
    compact = True
    lazy = False
    any_order = False
    emits = ("source", "ptx")

    def __init__(self, device: Device | None = None):
        self._device: Device = device or _Gpu()
        self._kernels: dict[Program, _CudaKernel] = {}

    def unavailable(self) -> str | None:
        """Return None when a GPU is usable, else what is missing."""
        return self._device.unavailable()

    def kernel(self, program: Program) -> _CudaKernel:
        """Return the program's kernel; numba compiles it for the device when it first runs."""
        if program not in self._kernels:
            self._kernels[program] = _CudaKernel(program, self._device)
        return self._kernels[program]

    def events(self, spikes: Any, batch: int, first_step: int) -> Any:
        """Return a list of spikes."""
        return events(spikes, batch, first_step)

    def emit(self, program: Program, kind: str, arch: str | None = None) -> str:
        """Return the text of the kernel for large layers, or its PTX for an architecture such as ``"sm_90"``."""
        text = source(program, Form(wide=program.inhibition is None or program.compact))
        return text if kind == "source" else compile_ptx(text, arch=arch or "sm_90")

    def place(self, x: Any) -> Any:
        """Return the GPU of the input; the current one for anything on the host."""
        return x.device if _on_gpu(x) else "current"

    def take(self, x: Any, dtype: str) -> Any:
        """Return a tensor on the GPU as it is, and anything else copied there."""
        if _is_tensor(x):
            check_dense(x)
        if _on_gpu(x):
            import torch

            return x.detach().to(getattr(torch, dtype)).contiguous()
        if _is_tensor(x):
            import torch

            x = x.detach().to("cpu", getattr(torch, dtype)).numpy()
        return self._device.upload(contiguous(x, dtype))

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        """Return new device memory: a tensor where the input is one on the GPU."""
        if _on_gpu(like):
            import torch

            return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)
        return self._device.empty(shape, dtype)

    def adopt(self, array: Any, like: Any) -> Any:
        """Return a tensor on the input's GPU as it is."""
        if not _on_gpu(like) or not _on_gpu(array) or array.device != like.device or array.requires_grad:
            raise ValueError(
                "out holds memory that the GPU does not write: give tensors on the GPU of the input"
            )
        return array

    def upload(self, host: np.ndarray, like: Any) -> Any:
        """Return a copy in device memory."""
        if _on_gpu(like):
            import torch

            return torch.tensor(np.ascontiguousarray(host), device=like.device)
        return self._device.upload(np.array(host))

    def fill(self, array: Any, host: np.ndarray) -> None:
        """Overwrite it."""
        self._device.fill(array, host)

    def download(self, array: Any) -> np.ndarray:
        """Return it as a numpy array."""
        return self._device.download(array)

    def giver(self, like: Any) -> Callable[[Any], Any]:
        """Return what leaves a tensor on the GPU as it is, and copies anything else to the host."""
        if _on_gpu(like):
            return lambda array: array
        if _is_tensor(like):
            import torch

            return lambda array: torch.from_numpy(self._device.download(array))
        return self._device.download


BACKEND = CudaBackend()
