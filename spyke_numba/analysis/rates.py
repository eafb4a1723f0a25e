"""Firing rates under constant input: measured on a layer, and in theory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spyke_numba.backends import Backend
from spyke_numba.layer import Layer
from spyke_numba.model.resolve import resolve
from spyke_numba.model.spec import Neuron

__all__ = ["Rates", "firing_rates", "has_closed_form", "rheobase", "theory"]


@dataclass(frozen=True)
class Rates:
    """Firing rates at each current, in Hz; 0 where there are fewer than two spikes.

    Parameters
    ----------
    currents : ndarray
        (N,) constant inputs.
    first : ndarray
        (N,) one over the first interval.
    steady : ndarray
        (N,) one over the mean interval of the second half of the run.
    """

    currents: np.ndarray
    first: np.ndarray
    steady: np.ndarray


def firing_rates(
    neuron: Neuron,
    currents: Any,
    duration: float = 1.0,
    *,
    backend: str | Backend = "auto",
    dtype: str = "float64",
) -> Rates:
    """Return a neuron's firing rates at constant currents, from one layer with a neuron for each.

    Parameters
    ----------
    neuron : Neuron
    currents : array
        (N,) inputs, in the model's unit.
    duration : float
        Length of the run (s).
    backend, dtype
        As of `Layer`.

    Raises
    ------
    ValueError
        When `currents` is no list of numbers or `duration` is shorter than two steps.

    Examples
    --------
    >>> from spyke_numba import models
    >>> from spyke_numba.analysis.rates import firing_rates
    >>> firing_rates(models.IF(threshold=1.0), [281.0 * 0.11], backend="cpu").steady.round(1).tolist()
    [83.3]
    """
    currents = np.asarray(currents, dtype=np.float64)
    if currents.ndim != 1 or not currents.size:
        raise ValueError(f"the currents have the shape {currents.shape}: give a list of one or more numbers")
    layer = Layer(neuron, currents.shape, 1, backend=backend, dtype=dtype)
    ts = float(np.max(layer.parameters["ts"]))
    steps = round(duration / ts)
    if steps < 2:
        raise ValueError(f"the duration is {duration:g} s: give at least two steps of {ts:g} s")
    spikes = np.asarray(layer.run(currents[None], steps=steps).spikes)[:, 0]
    first, steady = np.zeros(currents.size), np.zeros(currents.size)
    for place, column in enumerate(spikes.T):
        at = np.flatnonzero(column) * ts
        if at.size >= 2:
            first[place] = 1 / (at[1] - at[0])
            # the last interval that began in the first half is kept: a slow neuron has no other
            late = at[max(0, min(np.searchsorted(at, duration / 2), at.size - 2)) :]
            silent = duration - at[-1] > 2 * (at[-1] - at[0]) / (at.size - 1) and at[-1] < duration / 2
            steady[place] = 0.0 if silent else (late.size - 1) / (late[-1] - late[0])
    return Rates(currents, first, steady)


def _geometric(decay: float, increment: float, start: float, p: Mapping[str, float]) -> float:
    """Steps from `start` to the threshold of u' = rest + (u - rest) decay + increment."""
    end = p["resting_potential"] + increment / (1 - decay)
    if end <= p["threshold"]:
        return math.inf
    return math.ceil(math.log((end - p["threshold"]) / (end - start)) / math.log(decay) - 1e-9)


def _perfect(current: float, start: float, p: Mapping[str, float]) -> float:
    climb = current * p["gain"]
    return math.ceil((p["threshold"] - start) / climb - 1e-9) if climb > 0 else math.inf


def _quadratic(current: float, start: float, p: Mapping[str, float]) -> float:
    """Steps of the parabola's tangent solution (an arctangent on each side of its foot)."""
    a, rest, u_c, tau = p["a"], p["resting_potential"], p["u_c"], p["tau_rc"]
    drive = current * tau / p["C"] - a * (u_c - rest) ** 2 / 4
    if drive <= 0:
        return math.inf
    slope, foot = math.sqrt(a / drive), (rest + u_c) / 2
    angle = math.atan((p["threshold"] - foot) * slope) - math.atan((start - foot) * slope)
    return tau / math.sqrt(a * drive) * angle / p["ts"]


#: Steps between two spikes by model, from the current, the potential at the start and the parameters.
_CLOSED_FORMS: Mapping[str, Callable[[float, float, Mapping[str, float]], float]] = {
    "IF": _perfect,
    "LIF": lambda current, start, p: _geometric(p["decay"], current * p["gain"], start, p),
    "LIF_ode": lambda current, start, p: _geometric(1 - p["leak"], current * p["gain"], start, p),
    "LIF_Simple": lambda current, start, p: _geometric(p["decay"], current, start, p),
    "QIF": _quadratic,
}


def _integral(neuron: Neuron, current: float, start: float, p: Mapping[str, float]) -> float:
    """Steps from the integral of du / (du/dt), for a model of one variable."""
    u = np.linspace(start, p["threshold"], 20_001)
    with np.errstate(over="ignore"):
        change = neuron.spec.functions["membrane"].computed({**p, "u": u, "I": current})[0] - u
    if (change <= 0).any():
        return math.inf
    pace = 1 / change
    return float((pace[1:] + pace[:-1]).sum() / 2 * (u[1] - u[0]))


def has_closed_form(neuron: Neuron) -> bool:
    """Return whether `theory` has a formula for this neuron, rather than an integral or nothing."""
    return neuron.spec.name in _CLOSED_FORMS


def theory(neuron: Neuron, currents: Any) -> np.ndarray | None:
    """Return the rates (Hz) that theory gives at constant currents, or None for a model of more than one variable.

    IF, LIF, LIF_ode and LIF_Simple: the closed form of the stepped equation, exact to the step.  QIF: that of its
    differential equation.  Other models of one variable: the integral of du / (du/dt) from the reset to the
    threshold.  The refractory period is added; a neuron of one starts from rest, as the layer does.

    Parameters
    ----------
    neuron : Neuron
        With one number for each parameter.
    currents : array
        (N,) inputs.

    Returns
    -------
    ndarray or None
        (N,) float64.
    """
    if neuron.spec.states:
        return None
    p = resolve(neuron, (1,), 0)
    held = p["refractory_timesteps"]
    start = p["resting_potential"] if held else p["v_reset"]
    form = _CLOSED_FORMS.get(neuron.spec.name, lambda *given: _integral(neuron, *given))
    steps = np.array([form(float(current), start, p) for current in np.asarray(currents, dtype=np.float64)])
    return 1 / ((steps + held) * p["ts"])


def rheobase(neuron: Neuron) -> float | None:
    """Return the smallest constant current that fires a built-in neuron for ever, or None for a user's model.

    In the limit of a small step and a threshold well above ``theta_rh``.  AdEx: Touboul & Brette 2008,
    doi:10.1007/s00422-008-0267-4; Izhikevich: where the resting point is lost or turns unstable.

    Parameters
    ----------
    neuron : Neuron
        With one number for each parameter.
    """
    p = resolve(neuron, (1,), 0)
    name, span = neuron.spec.name, p["threshold"] - p["resting_potential"]
    if name == "IF":
        return 0.0
    if name == "LIF_Simple":
        return span * (1 - p["decay"])
    if name in ("LIF", "LIF_ode"):
        return span * (1 - p["decay"] if name == "LIF" else p["leak"]) / p["gain"]
    if name == "QIF":
        return p["a"] * (p["u_c"] - p["resting_potential"]) ** 2 / 4 * p["C"] / p["tau_rc"]
    if name == "EIF":
        return (p["theta_rh"] - p["resting_potential"] - p["delta_t"]) * p["C"] / p["tau_rc"]
    if name == "EIF_Simple":
        # its upswing is not scaled by the leak of a step, which moves the soft threshold down
        leak = 1 - p["decay"]
        soft = p["theta_rh"] + p["delta_t"] * math.log(leak)
        return (soft - p["resting_potential"] - p["delta_t"]) * leak
    if name == "AdEx":
        conductance = p["C"] / p["tau_rc"]
        ratio, times, delta = p["a"] / conductance, p["tau_rc"] / p["tau_w"], p["delta_t"]
        span = p["theta_rh"] - p["resting_potential"] - delta
        if ratio > times:
            lift = (1 + ratio) * (span + delta * math.log1p(times)) + delta * (ratio - times)
        elif ratio > -1:
            lift = (1 + ratio) * (span + delta * math.log1p(ratio))
        else:
            return None
        return conductance * lift
    if name == "Izhikevich":
        c2, slope = p["c2"], p["c1"] - p["b"]
        # the branch of resting points ends at its fold, or earlier where 2 c2 u + c1 = a makes it unstable
        lost = min(-slope / (2 * c2), (p["a"] - p["c1"]) / (2 * c2))
        return -(c2 * lost**2 + slope * lost + p["c0"] - p["b"] * p["w_offset"])
    return None
