"""The libraries that `spyke-numba bench peers` is compared with, discovered from the files of this folder.

A file says the peer's ``NAME``, the ``PACKAGE`` it needs, whether it is compared at k-winners-take-all (``KWTA``), and
how to ``build`` the work, in the way its own documentation recommends for speed.  All do the same: from rest, T
steps of ``u = decay * u + I``, a spike where ``u`` reaches the threshold, ``u = 0`` there, and every spike returned.
No refractory period, which not every peer has.  With winners, each step's up to k feature maps with the largest
potentials among the spiked win, and stay at rest for the next `hold` steps.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, cast

import numpy as np


@dataclass(frozen=True)
class Work:
    """What every peer does; `k` 0 is a layer without inhibition."""

    x: np.ndarray  # (T, B, N) or (T, B, F, H, W) float32
    decay: float
    threshold: float
    k: int
    hold: int
    threads: int

    @property
    def maps(self) -> tuple[int, int, int, int]:
        """Steps, samples, feature maps and neurons of a map."""
        steps, batch, features, *plane = self.x.shape
        return steps, batch, features, prod(plane)


class Peer(Protocol):
    """A file of this folder."""

    NAME: str
    PACKAGE: str
    KWTA: bool

    def build(self, work: Work) -> tuple[Callable[[], Any], Callable[[Any], int]]:
        """Return a call that does the work from rest, and what counts the spikes of its result.

        A call that returns a float has timed itself.
        """


def names() -> tuple[str, ...]:
    """Return the names of the files."""
    found = (info.name for info in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def get(name: str) -> Peer:
    """Return a peer by the name of its file, whether or not what it needs is installed."""
    return cast(Peer, importlib.import_module(f"{__name__}.{name}"))


def installed(peer: Peer) -> bool:
    """Return whether the peer's package can be found."""
    return importlib.util.find_spec(peer.PACKAGE) is not None
