"""The CUDA backend on an emulated device, so that its kernels' own source runs without a GPU, or on a limited one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedCuda
from cuda_emulator import unavailable as emulator_unavailable

from spyke_numba.backends.cuda.launch import CudaBackend, Limits, _Gpu

EMULATED = "cuda-emulated"
#: Small layers are large on a small device.
LIMITS = Limits(multiprocessors=1, shared_bytes=48 * 1024, wide_neurons=16)

#: For tests that make their emulated device themselves; fixtures skip by `unavailable`.
needs_emulator = pytest.mark.skipif(emulator_unavailable() is not None, reason=str(emulator_unavailable()))


class EmulatedDevice:
    """Numpy arrays as device memory and greenlets as threads."""

    def __init__(self, seed: int | None = None, limits: Limits = LIMITS):
        self._emulated = EmulatedCuda(seed=seed)
        self._limits = limits
        #: What was compiled.
        self.labels: list[str] = []

    def unavailable(self) -> str | None:
        return emulator_unavailable()

    def limits(self, like: Any) -> Limits:
        return self._limits

    def kernel(self, label: str, source: str) -> Any:
        self.labels.append(label)
        return self._emulated.cuda.jit(self._emulated.load(source).run)

    def on(self, like: Any) -> AbstractContextManager[Any]:
        return nullcontext()

    def stream(self, like: Any) -> Any:
        return 0

    def empty(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        # garbage, as on a device: nothing may rely on fresh memory being zero
        return np.full(shape, np.frombuffer(b"\x5a" * 8, dtype)[0] if dtype != "bool" else True, dtype)

    def upload(self, host: np.ndarray) -> np.ndarray:
        return np.array(host)

    def fill(self, array: np.ndarray, host: np.ndarray) -> None:
        array[...] = host

    def download(self, array: np.ndarray) -> np.ndarray:
        return array

    def address(self, array: np.ndarray | None) -> np.ndarray:
        return np.empty(0) if array is None else array.reshape(-1)

    def aligned(self, array: np.ndarray) -> bool:
        return array.ctypes.data % 16 == 0


class LimitedGpu(_Gpu):
    """The GPU, on which small layers take the kernels of large ones."""

    def __init__(self, seed: int | None = None, limits: Limits = LIMITS):
        self._limits = limits
        #: What was compiled.
        self.labels: list[str] = []

    def limits(self, like: Any) -> Limits:
        return self._limits

    def kernel(self, label: str, source: str) -> Any:
        self.labels.append(label)
        return super().kernel(label, source)


@cache
def emulated_cuda(seed: int | None = None, limits: Limits = LIMITS) -> CudaBackend:
    """Return the CUDA backend on an emulated device; a seed shuffles the order of threads."""
    return CudaBackend(EmulatedDevice(seed, limits))
