"""SpykeTorch-Extended's ``neurons`` module, on compiled layers: change the import, keep the network."""

from spyke_numba.spyketorch.neurons import *  # noqa: F403
from spyke_numba.spyketorch.neurons import CLASSES, __all__  # noqa: F401
