"""Parameter values resolved to a layer's shape, from numbers, arrays, distributions and rules."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from spyke_numba.model.distributions import Distribution
from spyke_numba.model.expressions import listing
from spyke_numba.model.spec import Neuron, check_values


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
