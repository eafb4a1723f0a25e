"""The torch backend with a step's operations made into one loop by `torch.compile`, for the CPU.

A step takes a half to a tenth of the torch backend's time.  A model's first run takes seconds, in each process, and
again for a batch above 1.  On a GPU torch's compiler would fuse products into sums, and the spikes would be others.
"""

from __future__ import annotations

from spyke_numba.backends.torch.launch import TorchBackend

BACKEND = TorchBackend(compiled=True)
