"""Random parameter values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Per = Literal["neuron", "feature"]


@dataclass(frozen=True)
class Distribution:
    """A random parameter value, drawn once from the layer's seed; use `Uniform`, `Normal` or `LogNormal`."""

    def _draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        raise NotImplementedError

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Return float64 values that broadcast to `shape`: one per neuron, or one per feature map (axis 0)."""
        per = self.per  # type: ignore[attr-defined]
        return self._draw(generator, shape if per == "neuron" else (shape[0],) + (1,) * (len(shape) - 1))

    def _check(self, ordered: bool, sentence: str) -> None:
        values = [v for k, v in vars(self).items() if k != "per"]
        if self.per not in ("neuron", "feature"):  # type: ignore[attr-defined]
            raise ValueError(f"per is {self.per!r}: allowed are 'neuron' and 'feature'")  # type: ignore[attr-defined]
        if not (all(isinstance(v, (int, float)) and np.isfinite(v) for v in values) and ordered):
            raise ValueError(f"{self!r} is no distribution: {sentence}")


@dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform on [low, high), per ``"neuron"`` or per ``"feature"`` map.

    >>> Uniform(0.01, 0.03).draw(np.random.default_rng(0), (2, 1, 1)).shape
    (2, 1, 1)
    """

    low: float
    high: float
    per: Per = "neuron"

    def __post_init__(self) -> None:
        self._check(self.low <= self.high, "give two finite numbers, the lower first")

    def _draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return generator.uniform(self.low, self.high, shape)


@dataclass(frozen=True)
class Normal(Distribution):
    """Normal with a mean and a standard deviation, per ``"neuron"`` or per ``"feature"`` map."""

    mean: float
    sd: float
    per: Per = "neuron"

    def __post_init__(self) -> None:
        self._check(self.sd >= 0, "give a finite mean and a standard deviation of at least 0")

    def _draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return generator.normal(self.mean, self.sd, shape)


@dataclass(frozen=True)
class LogNormal(Distribution):
    """exp(X) with X normal of mean `mu` and standard deviation `sigma` (so the median is exp(mu))."""

    mu: float
    sigma: float
    per: Per = "neuron"

    def __post_init__(self) -> None:
        self._check(self.sigma >= 0, "give a finite mu and a sigma of at least 0")

    def _draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return generator.lognormal(self.mu, self.sigma, shape)
