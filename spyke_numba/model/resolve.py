"""Parameter values: numbers, arrays, or distributions, resolved to a layer's shape."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from spyke_numba.engine import MOST_STEPS
from spyke_numba.expressions import listing
from spyke_numba.spec import Neuron, Param

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


def check_values(model: str, name: str, parameter: Param, value: Any) -> None:
    """Raise a ValueError when any of a parameter's values is not finite or out of its bounds."""
    values = np.asarray(value, dtype=np.float64)

    def refuse(bad: np.ndarray, allowed: str) -> None:
        if bad.any():
            number = values[bad][0] if values.ndim else values[()]
            count = f" in {int(bad.sum())} place(s)" if values.ndim else ""
            raise ValueError(f"{name} of {model} is {number:g}{count}: {allowed}")

    refuse(~np.isfinite(values), "give finite numbers")
    if parameter.above is not None:
        refuse(values <= parameter.above, f"it must be above {parameter.above:g}")
    if parameter.at_least is not None:
        refuse(values < parameter.at_least, f"it must be at least {parameter.at_least:g}")
    if parameter.whole:
        refuse(values != np.floor(values), "it must be a whole number")
        refuse(values > MOST_STEPS, f"it must be at most {MOST_STEPS}")


def call_by_name(rule: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    """Call `rule` with the values that its argument names name.

    One number is numpy's, too, for which a comparison or a division by 0 means what it means for arrays.
    """
    given = (values[name] for name in inspect.signature(rule).parameters)
    with np.errstate(all="ignore"):
        return rule(*(np.float64(value) if isinstance(value, float) else value for value in given))


def _needs(rule: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(rule).parameters)


def resolve(neuron: Neuron, shape: tuple[int, ...], seed: int, dtype: str = "float64") -> dict[str, Any]:
    """Return every parameter and derived constant of a layer as a float or a float64 array of `shape`.

    Parameters
    ----------
    neuron : Neuron
    shape : tuple of int
        The layer's shape, ``(N,)`` or ``(F, H, W)``.
    seed : int
        Seed of the distributions; each parameter has a stream of its own, so that adding one leaves the others.
    dtype : {"float64", "float32"}
        In which the threshold has to be above the resting potential, too.

    Raises
    ------
    ValueError
        One sentence for a value that is out of bounds or does not broadcast to `shape`.
    """
    spec = neuron.spec
    parameters = spec.all_params
    values: dict[str, Any] = {}
    waiting: dict[str, Callable[..., Any]] = {}
    for name, parameter in parameters.items():
        value = neuron.given.get(name, parameter.default)
        if isinstance(value, Distribution):
            values[name] = value.draw(np.random.default_rng([seed, zlib.crc32(name.encode())]), shape)
        elif callable(value):
            waiting[name] = value
        else:
            values[name] = value
    while waiting:
        ready = [name for name, rule in waiting.items() if _needs(rule) <= values.keys()]
        if not ready:
            raise ValueError(
                f"the defaults of {spec.name} wait for each other: give {' or '.join(sorted(waiting))}"
            )
        for name in ready:
            values[name] = call_by_name(waiting.pop(name), values)
    for name, parameter in parameters.items():
        if values[name] is not None:
            values[name] = _shaped(spec.name, name, values[name], shape)
            check_values(spec.name, name, parameter, values[name])
    _check_order(spec.name, values, "resting_potential", dtype, "lower the resting potential")
    if values.get("floor") is not None:
        _check_order(spec.name, values, "floor", dtype, "lower the floor")
    for requirement in spec.requires:
        if not np.all(call_by_name(requirement.holds, values)):
            shown = ", ".join(f"{name} = {_show(values[name])}" for name in sorted(_needs(requirement.holds)))
            raise ValueError(f"{shown} of {spec.name}: {requirement.message}")
    with np.errstate(all="ignore"):
        for name, rule in spec.derived.items():
            values[name] = _shaped(spec.name, name, call_by_name(rule, values), shape)
            if not np.all(np.isfinite(values[name])):
                raise ValueError(
                    f"{name} of {spec.name} is not finite: check {listing(_needs(rule))}, "
                    "from which it is computed"
                )
    for name, value in values.items():
        if value is not None and name in parameters:
            _check_cast(
                f"{name} of {spec.name}", value, dtype, "give a number that it holds", parameters[name].above
            )
        elif value is not None:
            source = f"check {listing(_needs(spec.derived[name]))}, from which it is computed"
            _check_cast(f"{name} of {spec.name}", value, dtype, source)
    return values


def _check_order(model: str, values: Mapping[str, Any], lower: str, dtype: str, advice: str) -> None:
    # a neuron that is held stands at rest, or at its floor, and must not be at the threshold
    threshold, low = values["threshold"], values[lower]
    if np.any(threshold <= low):
        raise ValueError(
            f"threshold {_show(threshold)} of {model} is not above {lower} {_show(low)}: "
            f"raise the threshold or {advice}"
        )
    with np.errstate(over="ignore"):
        equal = np.asarray(threshold).astype(dtype) <= np.asarray(low).astype(dtype)
    if np.any(equal):
        raise ValueError(
            f"threshold {_show(threshold)} of {model} is equal to {lower} in {dtype}: "
            f"raise the threshold, {advice} or use float64"
        )


def _check_cast(what: str, value: Any, dtype: str, advice: str, above: float | None = None) -> None:
    # a finite number may be infinite in fewer bits, and a positive one 0
    values = np.asarray(value)
    with np.errstate(over="ignore"):
        cast = values.astype(dtype)
    bad = ~np.isfinite(cast)
    if above is not None:
        bad |= cast <= above
    if bad.any():
        raise ValueError(
            f"{what} is {values[bad].flat[0]:g}, which is {cast[bad].flat[0]:g} in {dtype}: {advice}, or use float64"
        )


def _show(value: Any) -> str:
    array = np.asarray(value)
    return f"{array:g}" if array.ndim == 0 else f"{array.min():g}..{array.max():g}"


def _shaped(model: str, name: str, value: Any, shape: tuple[int, ...]) -> Any:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim == 0:
        return float(array)
    try:
        return np.ascontiguousarray(np.broadcast_to(array, shape))
    except ValueError:
        raise ValueError(
            f"{name} of {model} has the shape {array.shape}: "
            f"give a number or an array that broadcasts to the layer's {shape}"
        ) from None
