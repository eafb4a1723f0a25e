"""Spikes in less memory: eight to a byte, or as the list of those there are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

#: Records that are made from the spikes of a block of steps.
FORMS = ("packed_spikes", "events")


def packed(spikes: Any, neuron_axes: int) -> Any:
    """Return spikes (..., *shape) eight to a byte, (..., ceil(N / 8)) uint8, the first neuron in the highest bit."""
    lead = tuple(spikes.shape[: spikes.ndim - neuron_axes])
    flat = spikes.reshape(*lead, math.prod(spikes.shape[spikes.ndim - neuron_axes :]))
    if not hasattr(spikes, "detach"):
        return np.packbits(flat, axis=-1)
    import torch

    padded = torch.nn.functional.pad(flat.to(torch.uint8), (0, -flat.shape[-1] % 8))
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=spikes.device)
    return (padded.reshape(*lead, padded.shape[-1] // 8, 8) * weights).sum(-1).to(torch.uint8)
