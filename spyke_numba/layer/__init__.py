"""A layer of neurons with its state, and what a run of it records."""

from spyke_numba.layer.layer import Layer

__all__ = ["Layer"]
