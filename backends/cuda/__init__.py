"""The CUDA backend."""

from spyke_numba.backends.cuda.launch import BACKEND

__all__ = ["BACKEND"]
