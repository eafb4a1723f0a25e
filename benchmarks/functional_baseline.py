"""What networks do between their spiking layers in plain torch operations, as a user would write it.

From the definitions, for waves (T, F, H, W) alone: what the functions of `spyke_numba.functional` are timed against,
and must equal bit for bit (`intensity_lateral_inhibition` up to the order of its sum).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

Tensor = torch.Tensor


def threshold_(potentials: Tensor, level: float | None) -> Tensor:
    """Set to 0 what is not above the level; without one, all steps but the last."""
    if level is None:
        potentials[:-1] = 0
        return potentials
    return torch.threshold_(potentials, level, 0)


def threshold(potentials: Tensor, level: float | None = None) -> Tensor:
    """Return the potentials above the level, 0 elsewhere."""
    if level is None:
        return threshold_(potentials.clone().detach(), None)
    return F.threshold(potentials.detach(), level, 0)


def fire_(potentials: Tensor, level: float | None = None) -> Tensor:
    """Turn potentials into spikes."""
    return threshold_(potentials, level).sign_()


def fire(potentials: Tensor, level: float | None = None, return_thresholded: bool = False) -> Any:
    """Return spikes, or spikes and thresholded potentials."""
    thresholded = threshold(potentials, level)
    return (thresholded.sign(), thresholded) if return_thresholded else thresholded.sign()


def pointwise_inhibition(potentials: Tensor) -> Tensor:
    """Keep at each location the feature with the largest potential when the first one fires there."""
    steps = len(potentials)
    peaks, features = potentials.max(1, keepdim=True)
    fires = peaks.sign()
    first = (steps - fires.sum(0, keepdim=True)).long().clamp(0, steps - 1)
    kept = torch.zeros_like(potentials[:1]).scatter_(1, features.gather(0, first), fires[-1:])
    return potentials * kept


def get_k_winners(
    potentials: Tensor, k: int = 1, radius: int = 0, spikes: Tensor | None = None
) -> list[tuple[int, int, int]]:
    """Return (f, r, c) of up to k neurons by the sum over time of spikes * (v + first potential), one a map."""
    spikes = potentials.sign() if spikes is None else spikes
    steps, _, rows, columns = potentials.shape
    first = (steps - spikes.sum(0, keepdim=True)).long().clamp(0, steps - 1)
    reached = spikes * potentials.gather(0, first)
    total = reached.addcmul_(spikes, reached.max() * steps).sum(0)
    winners = []
    for _ in range(k):
        value, index = total.view(-1).max(0)
        if value.item() <= 0:
            break
        f, location = divmod(int(index), rows * columns)
        r, c = divmod(location, columns)
        winners.append((f, r, c))
        total[f] = 0
        if radius:
            total[:, max(r - radius, 0) : r + radius + 1, max(c - radius, 0) : c + radius + 1] = 0
    return winners


def feature_inhibition_(potentials: Tensor, features: list[int]) -> Tensor:
    """Set maps to 0."""
    if len(features):
        potentials[:, features] = 0
    return potentials


def feature_inhibition(potentials: Tensor, features: list[int]) -> Tensor:
    """Return the potentials with maps set to 0."""
    return feature_inhibition_(potentials.clone().detach(), features)


def pad(input: Tensor, sides: tuple[int, int, int, int], value: float = 0) -> Tensor:
    """Put a border around each map."""
    return F.pad(input, sides, value=value)


def pooling(input: Tensor, kernel: int, stride: int | None = None, padding: int = 0) -> Tensor:
    """Return the maximum of each window."""
    return F.max_pool2d(input, kernel, stride, padding)


def local_normalization(input: Tensor, radius: int, eps: float = 1e-12) -> Tensor:
    """Divide by the mean of the square around each value."""
    return input / (F.avg_pool2d(input, 2 * radius + 1, 1, radius) + eps)


def intensity_lateral_inhibition(intensities: Tensor, kernel: Tensor) -> Tensor:
    """Return x * (1 + sum of kernel * [x > neighbour])."""
    rows, columns = kernel.shape[-2:]
    padded = F.pad(intensities, (columns // 2, columns // 2, rows // 2, rows // 2))
    windows = padded.unfold(-2, rows, 1).unfold(-2, columns, 1)
    weaker = intensities[..., None, None] > windows
    change = (weaker.to(intensities.dtype).flatten(-2) * kernel.flatten()).sum(-1)
    return intensities * (1 + change)
