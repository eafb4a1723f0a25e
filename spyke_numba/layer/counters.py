"""Refractory counters, one per neuron or one per set that winners inhibit.

Under one scope a winner always sets the counter of its whole set, so one number per feature map, location or sample is
enough; after another scope, or none, neurons of a set may differ, and each then keeps its own.
"""

from __future__ import annotations

import numpy as np

from spyke_numba.model.kwta import Scope


def spread(counters: np.ndarray, scope: Scope | None, maps: int, size: int) -> np.ndarray:
    """Return each neuron's counter, (B, maps * size), from counters kept per set of `scope` (None: per neuron)."""
    if scope == "feature":
        return np.repeat(counters, size, axis=1)
    if scope == "location":
        return np.tile(counters, (1, maps))
    if scope == "global":
        return np.repeat(counters, maps * size, axis=1)
    return counters


def gathered(counters: np.ndarray, scope: Scope, maps: int, size: int) -> np.ndarray | None:
    """Return one counter per set of `scope` from each neuron's, or None where neurons of a set differ."""
    batch = len(counters)
    if scope == "feature":
        sets = counters.reshape(batch, maps, size)[:, :, 0]
    elif scope == "location":
        sets = counters.reshape(batch, maps, size)[:, 0, :]
    else:
        sets = counters[:, :1]
    return np.ascontiguousarray(sets) if np.array_equal(spread(sets, scope, maps, size), counters) else None
