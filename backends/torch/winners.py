"""The choice of winners on tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from spyke_numba.backends import Winners
from spyke_numba.backends.cpu.launch import ranks
from spyke_numba.backends.cpu.memory import address

if TYPE_CHECKING:
    import torch

#: Up to so many feature maps are sorted by their largest potential; of more, up to so many winners are found in turn.
MOST_SORTED, MOST_IN_TURN = 2048, 20


def on_cpu(array: torch.Tensor) -> bool:
    """Return whether a tensor is on the CPU."""
    return array.device.type == "cpu"


class Competition:
    """The choice of winners, up to k in each sample, and what they set.

    What is done to all neurons is torch's.  Maps and winners are numpy arrays on the CPU, where a call of numpy's takes
    a third of the time of torch's, and tensors elsewhere: only what both understand is done with them.

    Parameters
    ----------
    score : (B, N) tensor
        The potentials of the neurons that spiked, -inf elsewhere; the steps write it, and it stays until the next one.
    counters : (B, N) int32 tensor
        Refractory counters, of which those of the inhibited sets are set.
    periods : (1,) or (N,) int32 tensor
    scope : str
    winners : Winners
    amplitude : tensor of one number, optional
        Of the spikes, for SpykeTorch's order of winners; the exact one unless given.
    """

    def __init__(
        self,
        score: torch.Tensor,
        counters: torch.Tensor,
        periods: torch.Tensor,
        scope: str | None,
        winners: Winners,
        amplitude: torch.Tensor | None = None,
    ):
        import torch

        here = self.on_cpu = on_cpu(score)
        self._small: Callable[[Any], Any] = torch.Tensor.numpy if here else lambda array: array
        self._tensor: Callable[[Any], Any] = torch.from_numpy if here else lambda array: array
        self._order: Callable[[Any], Any] = partial(np.argsort, kind="stable")
        self._joined: Callable[..., Any] = np.concatenate
        self._where: Callable[..., Any] = np.where
        if not here:
            self._order = partial(torch.argsort, stable=True)
            self._joined, self._where = torch.concatenate, torch.where
        (B, N), (_, most, radius, H, W) = score.shape, winners
        self.B, self.F, self.size, self.H, self.W = B, N // (H * W), H * W, H, W
        self.score, self.counters, self.scope = score, counters, scope
        self.periods = self._small(periods)
        self.most, self.radius = most, radius
        self._rank = None if amplitude is None else _Rank(amplitude, B, here)
        #: A row for each map of each sample.
        self.maps = self._small(score.view(B * self.F, self.size))
        #: Whether the largest maps win, and nothing else keeps a neuron from it.
        self.each_map_once = radius == 0 and (self.F <= MOST_SORTED or most > MOST_IN_TURN)
        if not self.each_map_once:
            # who has won, or is near to who has, leaves a copy of the scores
            self.left = torch.empty_like(score)
            self.maps = self._small(self.left.view(B * self.F, self.size))
        self.counters_of_maps = self._small(counters.view(B * self.F, self.size))
        self.samples = self._small(torch.arange(B, device=score.device)[:, None])
        self.first_map = self.samples * self.F
        up, left = min(radius, H - 1), min(radius, W - 1)
        self.near_rows = self._small(torch.arange(-up, up + 1, device=score.device))
        self.near_columns = self._small(torch.arange(-left, left + 1, device=score.device))

    def decide(self, won: torch.Tensor | None) -> None:
        """Set the counters of the winners' sets, and write the winners to `won`, (B, k, 3), all -1."""
        import torch

        if not self.each_map_once:
            self.left.copy_(self.score)
        best = self._largest()
        # on a GPU this question would wait for the device
        if self.on_cpu and best.max() == -np.inf:
            return
        if self._rank is not None:
            self._rank.set_top(best)
        feature, place, potential = self._sorted(best) if self.each_map_once else self._one_by_one(best)
        valid = potential > -np.inf
        if won is not None:
            own = self._small(won)[:, : feature.shape[1]]
            own[..., 0], own[..., 1], own[..., 2] = feature, place // self.W, place % self.W
            own[~valid] = -1
        period = self.periods if len(self.periods) == 1 else self.periods[feature * self.size + place]
        # -1 where there is no winner: a period of 0 ends what a set was held for before
        period = valid * (period + 1) - 1
        counters = self.counters
        if self.scope == "global":
            longest = self._tensor(period).amax(dim=1, keepdim=True)
            torch.where(longest >= 0, longest, counters, out=counters)
        elif self.scope == "location":
            counters = counters.view(self.B, self.F, self.size)
            longest = self._longest(place, period, self.size)[:, None]
            torch.where(longest >= 0, longest, counters, out=counters)
        else:
            if not self.each_map_once:
                # what did not win may name a map that did: both then write the same
                period = self._small(self._longest(feature, period, self.F))[self.samples, feature]
            rows, held = self._rows(feature), self.counters_of_maps
            period = period.reshape(-1, 1)
            held[rows] = self._where(period >= 0, period, held[rows])

    def _longest(self, own_set: Any, period: Any, sets: int) -> torch.Tensor:
        """Return the longest period of each set's winners, (B, sets), -1 where it has none."""
        longest = self.counters.new_full((self.B, sets), -1)
        return longest.scatter_reduce_(1, self._tensor(own_set), self._tensor(period), "amax")

    def _rows(self, feature: Any) -> Any:
        """Return the rows of the samples' maps (B, k)."""
        return (feature + self.first_map).reshape(-1)

    def _largest(self) -> Any:
        """Return each map's largest potential, (B, F)."""
        score = self.score if self.each_map_once else self.left
        largest = score.view(self.B, self.F, self.size).amax(dim=2) if self.size > 1 else score
        return self._small(largest) + 0.0  # -0 becomes 0: equal in every order

    def _ranked(self, potentials: Any) -> Any:
        """Return what potentials (B, n), -inf for none, are ordered by."""
        return potentials if self._rank is None else self._rank(potentials)

    def _first_places(self, feature: Any) -> Any:
        """Return the first place with the largest potential of each map (B, k)."""
        maps = self._ranked(self.maps[self._rows(feature)].reshape(self.B, -1))
        return maps.reshape(-1, self.size).argmax(1).reshape(feature.shape)

    def _sorted(self, best: Any) -> tuple[Any, Any, Any]:
        """Return feature, place and potential of up to k winners per sample, each (B, k), potential -inf for none."""
        feature = self._order(-self._ranked(best))[:, : self.most]
        return feature, self._first_places(feature), best[self.samples, feature]

    def _one_by_one(self, best: Any) -> tuple[Any, Any, Any]:
        """Return the same where a winner takes others out of the competition, or where maps are too many to sort."""
        rounds: list[tuple[Any, Any, Any]] = []
        for _ in range(self.most):
            if rounds and self.on_cpu and best.max() == -np.inf:
                break
            feature = self._ranked(best).argmax(1)[:, None]  # the first of equal values
            place = self._first_places(feature)
            rounds.append((feature, place, best[self.samples, feature]))
            if self.radius == 0:
                best[self.samples, feature] = -np.inf
                continue
            self.maps[self._rows(feature)] = -np.inf
            # where nothing is left to win, there is nothing to remove either
            rows = (place // self.W + self.near_rows).clip(0, self.H - 1)
            columns = (place % self.W + self.near_columns).clip(0, self.W - 1)
            near = (rows[:, :, None] * self.W + columns[:, None, :]).reshape(self.B, 1, -1)
            scores = self.left.view(self.B, self.F, self.size)
            scores.scatter_(2, self._tensor(near).expand(-1, self.F, -1), -np.inf)
            best = self._largest()
        feature, place, potential = (self._joined(parts, 1) for parts in zip(*rounds, strict=True))
        return feature, place, potential


class _Rank:
    """SpykeTorch's order: what it makes of potentials (B, n), numpy arrays on the CPU and tensors elsewhere.

    Parameters
    ----------
    amplitude : tensor of one number
        Of the spikes.
    batch : int
    on_cpu : bool
    """

    def __init__(self, amplitude: torch.Tensor, batch: int, on_cpu: bool):
        self.amplitude, self.on_cpu = amplitude, on_cpu
        #: The amplitude, and then the largest potential of each sample.
        self.given = amplitude.expand(batch + 1).clone()
        self.host = self.given.numpy() if on_cpu else None
        self.loop = ranks(str(amplitude.dtype).removeprefix("torch.")) if on_cpu else None

    def set_top(self, best: Any) -> None:
        """Take the largest potentials of the step from those of maps (B, F)."""
        if self.host is not None:
            self.host[1:] = best.max(axis=1)
        else:
            self.given[1:] = best.amax(dim=1)

    def __call__(self, potentials: Any) -> Any:
        """Return each potential's sum, -inf where there is none."""
        if self.host is not None and self.loop is not None:
            potentials = np.ascontiguousarray(potentials)
            out = np.empty_like(potentials)
            B, n = out.shape
            self.loop(address(potentials), address(out), B, n, address(self.host))
            return out
        import torch

        from spyke_numba.backends.torch.fma import fma

        term = (self.amplitude * self.given[1:, None]).expand_as(potentials)
        total = fma(self.amplitude.expand_as(potentials), term, self.amplitude * potentials)
        least = torch.finfo(total.dtype).min
        total = torch.where(total > least, total, least)
        return torch.where(potentials > -np.inf, total, -np.inf)
