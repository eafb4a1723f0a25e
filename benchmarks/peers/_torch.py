"""k-winners-take-all on tensors, as users of the torch libraries write it, without asking for single values."""

from __future__ import annotations

import torch


def compete(u, spiked, counters, k, hold):
    """Return each sample's winners (B, k, 2), map and place, -1 where there is none, and the new counters (B, F)."""
    best, place = torch.where(spiked, u, -torch.inf).flatten(2).max(dim=2)
    top, features = best.topk(k, dim=1)
    won = top > -torch.inf
    counters = (counters - 1).clamp(min=0)
    held = torch.where(won, hold, counters.gather(1, features))
    counters = counters.scatter(1, features, held)
    winners = torch.stack((features, place.gather(1, features)), dim=2)
    return torch.where(won[..., None], winners, -1), counters


def start(x):
    """Return the potentials and the maps' counters at rest, for input (T, B, F, ...)."""
    return torch.zeros_like(x[0]), torch.zeros(x.shape[1:3], dtype=torch.int64)


def over_maps(held, u):
    """Return a flag per map (B, F) in a shape that broadcasts to the potentials."""
    return held.reshape(held.shape + (1,) * (u.ndim - 2))
