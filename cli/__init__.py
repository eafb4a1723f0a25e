"""The command line, ``spyke-numba``."""
