"""The CPU backend."""

from spyke_numba.backends.cpu.launch import BACKEND

__all__ = ["BACKEND"]
