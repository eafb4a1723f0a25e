"""The torch backend."""

from spyke_numba.backends.torch.launch import BACKEND

__all__ = ["BACKEND"]
