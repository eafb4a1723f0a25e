"""SpykeTorch's ``functional`` module: what networks do between their spiking layers, on torch tensors."""

from spyke_numba.spyketorch.functional import *  # noqa: F403
from spyke_numba.spyketorch.functional import __all__  # noqa: F401
