"""The CUDA backend on an emulated device, so that its kernels' own source runs without a GPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import numpy as np
from cuda_emulator import EmulatedCuda

from spyke_numba.backends.cuda import CudaBackend

EMULATED = "cuda-emulated"


class EmulatedDevice:
    """Numpy arrays as device memory and greenlets as threads."""

    def __init__(self, seed: int | None = None):
        self._emulated = EmulatedCuda(seed=seed)

    def unavailable(self) -> str | None:
        return None

    def load(self, label: str, source: str) -> Any:
        return self._emulated.load(source)

    def on(self, like: Any) -> AbstractContextManager[Any]:
        return nullcontext()

    def stream(self, like: Any) -> Any:
        return 0

    def empty(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        # garbage, as on a device: nothing may rely on fresh memory being zero
        return np.full(shape, np.frombuffer(b"\x5a" * 8, dtype)[0] if dtype != "bool" else True, dtype)

    def upload(self, host: np.ndarray) -> np.ndarray:
        return np.array(host)

    def download(self, array: np.ndarray) -> np.ndarray:
        return array

    def wrap(self, array: np.ndarray) -> np.ndarray:
        return array


@cache
def emulated_cuda(seed: int | None = None) -> CudaBackend:
    """Return the CUDA backend on an emulated device; a seed shuffles the order of threads."""
    return CudaBackend(EmulatedDevice(seed))
