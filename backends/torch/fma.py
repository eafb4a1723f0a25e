"""A multiply-add that is rounded once, of torch tensors: torch has none."""

from __future__ import annotations

import torch

#: What cuts a float64 number into two halves, whose products are exact (Dekker 1971, doi:10.1007/BF01397083).
_CUT = 2.0**27 + 1.0


def _sum_and_lost(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    total = a + b
    added = total - a
    return total, (a - (total - added)) + (b - added)


def _sum_to_odd(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # the neighbour whose last bit is 1 where the sum is inexact
    total, lost = _sum_and_lost(a, b)
    more, less = lost > 0, lost < 0
    bits = total.view(torch.int64)
    even_and_inexact = (bits & 1 == 0) & (more | less)
    outwards = torch.where(more == (total > 0), 1, -1)
    return torch.where(even_and_inexact, bits + outwards, bits).view(torch.float64)


def _halves(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scaled = a * _CUT
    high = scaled - (scaled - a)
    return high, a - high


def fma(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Return a * b + c, rounded once, of tensors of one type, float32 or float64.

    A last sum in more digits is rounded to odd, so that its own rounding sees what it lost (Boldo & Melquiond 2008,
    doi:10.1109/TC.2007.70819).  In float64 it is rounded twice where a product is above 1e290 or below 1e-290.
    """
    if c.dtype == torch.float32:
        # in float64 a product of float32 numbers is exact
        return _sum_to_odd(a.double() * b.double(), c.double()).float()
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    lost = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    rest, least = _sum_and_lost(c, lost)
    total, more = _sum_and_lost(product, rest)
    total = total + _sum_to_odd(more, least)
    return torch.where(total.isfinite(), total, product + c)
