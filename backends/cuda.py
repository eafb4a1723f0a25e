"""The CUDA backend: numba kernels generated from the same statements, one launch for all steps."""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from spyke_numba.backends import Launch
from spyke_numba.backends._ptx import compile_ptx
from spyke_numba.engine import FLOAT_FORMATS, RECORDS, REFRACTORY, Program, Writer, helper_lines, step_lines
from spyke_numba.generated import load_module

#: Threads per block; 128 registers are left for each thread of the larger.
THREADS_FREE = 256
THREADS_KWTA = 512

# Products go through libdevice's fmul_rn, which the compiler never contracts with a sum into a fused multiply-add (the
# host's processors round twice, and so must the GPU); so do quotients, since one by a power of two becomes a product.
_HEADER = '''\
"""Generated for {label}: all steps in one launch. Do not edit."""

import numpy as np
from numba import cuda
from numba.cuda import libdevice

real, whole = np.{real}, np.{whole}
NO_STEPS, ONE_STEP = np.int32(0), np.int32(1)
LOWEST_KEY = np.{whole}(np.iinfo(np.{whole}).min)
ZERO = np.{real}(0)
BIAS, MANTISSA_BITS, ONE_BIT = np.{whole}({bias}), np.{whole}({mantissa_bits}), np.{whole}(1)
MANTISSA_MASK, ONE_BITS = np.{whole}({mantissa_mask}), np.{whole}({one_bits})
SIGN_SHIFT, LARGEST = np.{whole}({sign_shift}), np.{whole}({largest})


@cuda.jit(device=True)
def where(condition, a, b):
    return a if condition else b


@cuda.jit(device=True)
def product(a, b):
    return libdevice.{multiply}(a, b)


@cuda.jit(device=True)
def quotient(a, b):
    return libdevice.{divide}(a, b)


@cuda.jit(device=True)
def abs(x):
    return libdevice.{fabs}(x)


@cuda.jit(device=True)
def sqrt(x):
    return libdevice.{sqrt}(x)


@cuda.jit(device=True)
def rint(x):
    return libdevice.{rint}(x)


@cuda.jit(device=True)
def pow2(n):
    return libdevice.{of_bits}(whole((whole(libdevice.{to_whole}(n)) + BIAS) << MANTISSA_BITS))


@cuda.jit(device=True)
def exponent(x):
    return real(whole((libdevice.{bits_of}(x) >> MANTISSA_BITS) - BIAS))


@cuda.jit(device=True)
def mantissa(x):
    return libdevice.{of_bits}(whole((libdevice.{bits_of}(x) & MANTISSA_MASK) | ONE_BITS))


@cuda.jit(device=True)
def order_key(x):
    """An integer in the order of x, for integer atomics. Adding 0 makes -0 and 0 equal."""
    q = whole(libdevice.{bits_of}(x + ZERO))
    return whole(q ^ (whole(q >> SIGN_SHIFT) & LARGEST))


'''

#: Names of libdevice's functions.
_FUNCTIONS: dict[str, dict[str, str]] = {
    "float32": {
        "multiply": "fmul_rn",
        "divide": "fdiv_rn",
        "fabs": "fabsf",
        "sqrt": "fsqrt_rn",
        "rint": "rintf",
        "bits_of": "float_as_int",
        "of_bits": "int_as_float",
        "to_whole": "float2int_rn",
    },
    "float64": {
        "multiply": "dmul_rn",
        "divide": "ddiv_rn",
        "fabs": "fabs",
        "sqrt": "dsqrt_rn",
        "rint": "rint",
        "bits_of": "double_as_longlong",
        "of_bits": "longlong_as_double",
        "to_whole": "double2ll_rn",
    },
}

# the bound lets the compiler count on 128 registers or more for each thread of a block
_JIT = "@cuda.jit(launch_bounds={threads})"

_OUTSIDE = '''\
@cuda.jit(device=True)
def outside(place, W, radius, won, b, n):
    """Whether a place is out of the squares around the n winners so far."""
    row, column = place // W, place % W
    free = True
    for q in range(n):
        down, right = row - won[b, q, 1], column - won[b, q, 2]
        if -radius <= down and down <= radius and -radius <= right and right <= radius:
            free = False
    return free


'''

# A block per sample. Per-map maxima are collected while updating; they are upper bounds once a radius excludes
# places, and only a map that reaches the front is searched again.
_COMPETE = """\
n = 0
if cuda.syncthreads_or(fired):
    while n < k:
        if tid == 0:
            best[0] = LOWEST_KEY
            front[0] = F
            front[1] = size
        cuda.syncthreads()
        for f in range(tid, F, width):
            if map_keys[b, f] > LOWEST_KEY:
                cuda.atomic.max(best, 0, map_keys[b, f])
        cuda.syncthreads()
        top = best[0]
        if top == LOWEST_KEY:
            break
        for f in range(tid, F, width):
            if map_keys[b, f] == top:
                cuda.atomic.min(front, 0, f)
        cuda.syncthreads()
        winner = front[0]
        for place in range(tid, size, width):
            if keys[b, winner * size + place] == top:
                if radius == 0 or outside(place, W, radius, won, b, n):
                    cuda.atomic.min(front, 1, place)
        cuda.syncthreads()
        if tid == 0:
            map_keys[b, winner] = LOWEST_KEY
        found = front[1]
        if found < size:
            if tid == 0:
                won[b, n, 0] = winner
                won[b, n, 1] = found // W
                won[b, n, 2] = found % W
            n += 1
        else:
            cuda.syncthreads()
            for place in range(tid, size, width):
                key = keys[b, winner * size + place]
                if key > LOWEST_KEY and outside(place, W, radius, won, b, n):
                    cuda.atomic.max(map_keys, (b, winner), key)
        cuda.syncthreads()
    cuda.syncthreads()
    for q in range(n):
        winner = won[b, q, 0]
        found = won[b, q, 1] * W + won[b, q, 2]
        period = periods[{period}]
        first, stop, stride = {inhibited}
        for j in range(first + tid * stride, stop, width * stride):
            if g_r[b, j] < period:
                g_r[b, j] = period
        cuda.syncthreads()
if keep_winners:
    for q in range(tid, k, width):
        for i in range(3):
            winners[row, q, i] = won[b, q, i] if q < n else -1
"""


#: First and last neuron and stride of a winner's inhibited set.
_INHIBITED = {
    "feature": "winner * size, (winner + 1) * size, 1",
    "location": "found, N, size",
    "global": "0, N, 1",
}


def source(program: Program) -> str:
    """Return the text of a program's module; its kernel ``run`` advances all steps."""
    writer = Writer(product="product", quotient="quotient")
    lines = step_lines(program, writer)
    helpers = helper_lines(lines, program.dtype, writer, "@cuda.jit(device=True)")
    constants = [f"{name} = real('{value}')" for value, name in writer.constants.items()]
    varying_period = REFRACTORY in program.varying
    recorded = _recorded(program)

    signature = [*_parameters(program)]
    load = ["B, N = g_r.shape", *(f"p_{name} = scalars[{i}]" for i, name in enumerate(program.scalars))]

    def neuron(spikes: str) -> list[str]:
        """Lines that advance neuron j of sample b by a step and record it, its state being in registers."""
        record = [spikes]
        for name in recorded:
            value = {**RECORDS, "refractory": "r"}.get(name, f"s_{name}")
            if not (program.inhibition and name == "refractory"):
                record += [f"if keep_{name}:", f"    out_{name}[row, j] = {value}"]
        return ["i_in = x[b if constant_input else row, j]", *lines, *record]

    get = [*(f"s_{state} = g_{state}[b, j]" for state in program.states), "r = g_r[b, j]"]
    get += [f"p_{name} = arrays[{i}, j]" for i, name in enumerate(program.arrays)]
    put = [*(f"g_{state}[b, j] = s_{state}" for state in program.states), "g_r[b, j] = r"]
    spikes = "if keep_spikes:\n    spikes[row, j] = spiked"
    if program.inhibition:
        body = [
            "b, tid, width = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x",
            f"best = cuda.shared.array(1, np.{'int32' if program.dtype == 'float32' else 'int64'})",
            "front = cuda.shared.array(2, np.int32)",
            *load,
            "size = H * W",
            "F = N // size",
            "for t in range(steps):",
            "    row = t * B + b",
            "    for f in range(tid, F, width):",
            "        map_keys[b, f] = LOWEST_KEY",
            "    cuda.syncthreads()",
            "    fired = 0",
            "    for j in range(tid, N, width):",
            *_indented(2, [*get, *neuron(spikes), *put]),
            "        key = LOWEST_KEY",
            "        if spiked:",
            "            key = order_key(new_u)",
            "            fired = 1",
            "            cuda.atomic.max(map_keys, (b, j // size), key)",
            "        keys[b, j] = key",
            *_indented(
                1,
                [
                    _COMPETE.format(
                        period="winner * size + found" if varying_period else "0",
                        inhibited=_INHIBITED[program.inhibition],
                    )
                ],
            ),
            "    if keep_refractory:",
            "        cuda.syncthreads()",
            "        for j in range(tid, N, width):",
            "            out_refractory[row, j] = g_r[b, j]",
            "    cuda.syncthreads()",
        ]
    else:
        period = "periods[j]" if varying_period else "periods[0]"
        body = [
            "i = cuda.grid(1)",
            *load,
            "if i < B * N:",
            "    b = i // N",
            "    j = i % N",
            *_indented(1, [*get, f"p_{REFRACTORY} = {period}"]),
            "    for t in range(steps):",
            "        row = t * B + b",
            *_indented(2, neuron(spikes)),
            *_indented(1, put),
        ]
    header = _HEADER.format(label=program.label, **FLOAT_FORMATS[program.dtype], **_FUNCTIONS[program.dtype])
    parts = [
        header,
        "\n".join(constants),
        "\n",
        "\n".join(helpers),
        "\n",
        _OUTSIDE if program.inhibition else "",
    ]
    kernel = [
        _JIT.format(threads=THREADS_FREE if program.inhibition is None else THREADS_KWTA),
        f"def run({', '.join(signature)}):",
        *_indented(1, body),
        "",
    ]
    return "\n".join([*parts, *kernel])


def _indented(levels: int, lines: list[str]) -> list[str]:
    return ["    " * levels + line for block in lines for line in block.splitlines()]


def _recorded(program: Program) -> tuple[str, ...]:
    return (*program.states, "refractory", *(name for name in program.records if name != "spikes"))


def _parameters(program: Program) -> dict[str, str]:
    """Return the kernel's parameters and their numba types, for compiling without arguments."""
    real = program.dtype
    matrix, row = f"{real}[:, ::1]", f"{real}[::1]"
    result = {"x": matrix, "constant_input": "boolean", "steps": "int64"}
    result.update({f"g_{state}": matrix for state in program.states})
    result.update({"g_r": "int32[:, ::1]", "scalars": row, "arrays": matrix, "periods": "int32[::1]"})
    result.update({"keep_spikes": "boolean", "spikes": "boolean[:, ::1]"})
    for name in _recorded(program):
        result.update(
            {f"keep_{name}": "boolean", f"out_{name}": "int32[:, ::1]" if name == "refractory" else matrix}
        )
    if program.inhibition:
        whole = "int32" if real == "float32" else "int64"
        result.update({"keep_winners": "boolean", "winners": "int32[:, :, ::1]", "won": "int32[:, :, ::1]"})
        result.update({"keys": f"{whole}[:, ::1]", "map_keys": f"{whole}[:, ::1]"})
        result.update(dict.fromkeys(("k", "radius", "H", "W"), "int64"))
    return result


class Device(Protocol):
    """Where kernels run: the GPU, or an emulator in tests."""

    def unavailable(self) -> str | None:
        """Return None when kernels can run here, else why not and what to do."""

    def load(self, label: str, source: str) -> Any:
        """Return a generated module, whose kernels are launched as ``run[grid, block, stream](*arguments)``."""

    def on(self, like: Any) -> AbstractContextManager[Any]:
        """Return a context in which the device of the input `like` is the current one."""

    def stream(self, like: Any) -> Any:
        """Return the stream on which work for the input `like` must be ordered."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return new device memory."""

    def upload(self, host: np.ndarray) -> Any:
        """Return a copy of a numpy array in device memory."""

    def download(self, array: Any) -> np.ndarray:
        """Return device memory as a numpy array."""

    def wrap(self, array: Any) -> Any:
        """Return what a kernel takes for an array of this device or for a tensor on it, sharing memory."""


class _Gpu:
    """The current GPU, through numba-cuda."""

    def unavailable(self) -> str | None:
        if importlib.util.find_spec("numba_cuda") is None:
            return "numba-cuda is not installed: pip install 'spyke_numba[cuda13]' (or [cuda12] for a CUDA 12 driver)"
        try:
            from numba import cuda
        except Exception as error:  # numba-cuda without the toolkit's libraries raises its own kinds
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return (
                f"numba-cuda cannot be imported ({reason}): pip install 'spyke_numba[cuda13]' (or [cuda12])"
            )
        if not cuda.is_available():
            return "no CUDA GPU and driver were found: install NVIDIA's driver, or use backend='cpu'"
        return None

    def load(self, label: str, source: str) -> ModuleType:
        import numba_cuda
        from numba.cuda.core import config

        # a small layer fills no GPU, and whoever runs one knows
        config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
        return load_module(label, source, f"numba-cuda {numba_cuda.__version__}")

    def on(self, like: Any) -> AbstractContextManager[Any]:
        if not _on_gpu(like):
            return nullcontext()
        from numba import cuda

        return cuda.gpus[like.device.index]

    def stream(self, like: Any) -> Any:
        from numba import cuda

        if _on_gpu(like):
            import torch

            return _external_stream(like.device.index, torch.cuda.current_stream(like.device).cuda_stream)
        return cuda.default_stream()

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        from numba import cuda

        return cuda.device_array(shape, dtype)

    def upload(self, host: np.ndarray) -> Any:
        from numba import cuda

        return cuda.to_device(np.ascontiguousarray(host))

    def download(self, array: Any) -> np.ndarray:
        return array.cpu().numpy() if _is_tensor(array) else array.copy_to_host()

    def wrap(self, array: Any) -> Any:
        from numba import cuda

        return cuda.as_cuda_array(array, sync=False) if _is_tensor(array) else array


@cache
def _external_stream(device: int, pointer: int) -> Any:
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
        self._run = device.load(f"{program.label}_cuda", source(program)).run

    def run(self, launch: Launch) -> None:
        with self._device.on(launch.x):
            self._launch(launch)

    def _launch(self, launch: Launch) -> None:
        device, wrap, outputs = self._device, self._device.wrap, launch.outputs
        B, N = launch.refractory.shape
        rows, real = launch.steps * B, self.program.dtype
        arguments = [wrap(launch.x).reshape(-1, N), launch.constant_input, launch.steps]
        arguments += map(
            wrap, (*launch.states, launch.refractory, launch.scalars, launch.arrays, launch.periods)
        )

        def output(name: str, dtype: str, *shape: int) -> None:
            kept = name in outputs
            arguments.append(kept)
            arguments.append(
                wrap(outputs[name]).reshape(rows, *shape) if kept else device.empty((1, *shape), dtype)
            )

        output("spikes", "bool", N)
        for name in _recorded(self.program):
            output(name, "int32" if name == "refractory" else real, N)
        stream = device.stream(launch.x)
        if launch.winners is None:
            self._run[-(-B * N // THREADS_FREE), THREADS_FREE, stream](*arguments)
            return
        k, radius, H, W = launch.winners
        whole = "int32" if real == "float32" else "int64"
        output("winners", "int32", k, 3)
        arguments += [device.empty((B, k, 3), "int32"), device.empty((B, N), whole)]
        arguments += [device.empty((B, N // (H * W)), whole), k, radius, H, W]
        self._run[B, min(THREADS_KWTA, -(-N // 32) * 32), stream](*arguments)


class CudaBackend:
    """NVIDIA GPUs; numpy arrays are copied there and back, torch tensors on the GPU are shared.

    Parameters
    ----------
    device : Device, optional
        Where its kernels run; the current GPU unless given.
    """

    name = "cuda"
    compact = False
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

    def emit(self, program: Program, kind: str, arch: str | None = None) -> str:
        """Return the module's text, or the PTX of its kernel for an architecture such as ``"sm_90"``."""
        text = source(program)
        if kind == "source":
            return text
        return compile_ptx(text, "run", ", ".join(_parameters(program).values()), arch or "sm_90")

    def place(self, x: Any) -> Any:
        """Return the GPU of the input; the current one for anything on the host."""
        return x.device if _on_gpu(x) else "current"

    def take(self, x: Any, dtype: str) -> Any:
        """Return a tensor on the GPU as it is, and anything else copied there."""
        if _on_gpu(x):
            import torch

            return x.detach().to(getattr(torch, dtype)).contiguous()
        if _is_tensor(x):
            import torch

            x = x.detach().to("cpu", getattr(torch, dtype)).numpy()
        return self._device.upload(np.ascontiguousarray(x, dtype=dtype))

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        """Return new device memory: a tensor where the input is one on the GPU."""
        if _on_gpu(like):
            import torch

            return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)
        return self._device.empty(shape, dtype)

    def upload(self, host: np.ndarray, like: Any) -> Any:
        """Return a copy in device memory."""
        if _on_gpu(like):
            import torch

            return torch.tensor(host, device=like.device)
        return self._device.upload(np.array(host))

    def download(self, array: Any) -> np.ndarray:
        """Return it as a numpy array."""
        return self._device.download(array)

    def give(self, array: Any, like: Any) -> Any:
        """Return a tensor on the GPU as it is, and anything else copied to the host."""
        if _on_gpu(like):
            return array
        host = self._device.download(array)
        if _is_tensor(like):
            import torch

            return torch.from_numpy(host)
        return host


BACKEND = CudaBackend()
