"""Spike times and f-I curves that have a closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spyke_numba import Layer, models

TS, TAU, C, THRESHOLD, N = 0.001, 0.02, 0.281, 1.0, 2
CURRENTS = np.linspace(13.5, 90.0, 154)  # half a unit apart: 14, 15, 20, 30 and 60 are among them


def spikes(neuron, currents, steps: int) -> np.ndarray:
    """(steps, N) for a population with one constant current per neuron."""
    currents = np.atleast_1d(np.asarray(currents, float))
    layer = Layer(neuron, shape=currents.shape, backend="cpu", dtype="float64")
    return np.asarray(layer.run(currents, steps=steps).spikes)


def first_step(model: str, current: float) -> float:
    """Step (1-based, not yet rounded up) at which the threshold is crossed from rest, or infinity."""
    increment = current if model == "LIF_Simple" else current * TS / C
    if model == "IF":
        return THRESHOLD / increment
    q = math.exp(-TS / TAU) if model == "LIF" else 1 - TS / TAU
    remaining = 1 - THRESHOLD * (1 - q) / increment
    return math.log(remaining) / math.log(q) if remaining > 0 else math.inf


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("LIF_ode", {15: 54, 20: 24, 30: 13, 60: 6, 14: None}),
        ("LIF", {15: 49, 20: 24, 30: 13, 60: 6, 14: 78}),
        ("IF", {15: 19, 20: 15, 30: 10, 60: 5, 14: 21}),
    ],
)
def test_first_spike_steps(model, expected):
    ran = spikes(models.get(model)(threshold=THRESHOLD), list(expected), 300)
    for column, n in zip(ran.T, expected.values(), strict=True):
        assert (np.flatnonzero(column) + 1).tolist() == ([] if n is None else list(range(n, 301, n + N)))


@pytest.mark.parametrize("period", [0, 2, 7])
@pytest.mark.parametrize("model", ["LIF_ode", "LIF", "LIF_Simple", "IF"])
def test_every_spike_of_the_f_i_curve_to_the_step(model, period):
    currents = CURRENTS * (TS / C if model == "LIF_Simple" else 1.0)
    steps = 600
    ran = spikes(models.get(model)(threshold=THRESHOLD, refractory_timesteps=period), currents, steps)
    silent = 0
    for current, column in zip(currents, ran.T, strict=True):
        crossing = first_step(model, current)
        n = math.ceil(crossing) if crossing < steps else steps + 1
        silent += n > steps
        if n <= steps and abs(crossing - round(crossing)) < 1e-6:
            continue  # rounding decides which step it is
        assert (np.flatnonzero(column) + 1).tolist() == list(range(n, steps + 1, n + period))
    assert bool(silent) == (model != "IF")


def lif(**given):
    """Neuronal Dynamics: rest -70, threshold -50 mV, 10 MOhm, 8 ms, pA; doi:10.1017/CBO9781107447615."""
    return models.LIF(tau_rc=0.008, C=0.8, resting_potential=-70.0, threshold=-50.0, ts=1e-6, **given)


def mean_interval_s(column: np.ndarray) -> float:
    at = np.flatnonzero(column)
    assert at.size >= 3
    return (at[-1] - at[0]) / (at.size - 1) * 1e-6


CONTINUOUS_NA = np.array([2.1, 2.5, 3.0, 5.0, 10.0])


def test_continuous_lif_f_i_curve():
    ran = spikes(lif(v_reset=-65.0, refractory_timesteps=0), CONTINUOUS_NA * 1000, 130_000)
    # The layer rests at -70 mV while it is refractory, where the book holds at the reset: so its 2 ms are
    # added here.
    rates = [1 / (0.002 + mean_interval_s(column)) for column in ran.T]
    np.testing.assert_allclose(rates, [41.36, 76.39, 107.18, 190.70, 296.31], rtol=1e-3)


def test_continuous_lif_f_i_curve_with_refractoriness():
    ran = spikes(lif(refractory_timesteps=2000), CONTINUOUS_NA * 1000, 130_000)
    rates = [1 / mean_interval_s(column) for column in ran.T]
    drive = 10 * CONTINUOUS_NA
    np.testing.assert_allclose(rates, 1 / (0.002 + 0.008 * np.log(drive / (drive - 20))), rtol=1e-3)


def qif_period(drive, a=0.1, tau=0.02, rest=0.0, u_c=10.0, threshold=20.0, reset=0.0):
    """Seconds from reset to threshold at the input `drive` = R I, above the rheobase."""
    d = drive - a * (u_c - rest) ** 2 / 4
    k, middle = np.sqrt(a / d), (rest + u_c) / 2
    return tau / np.sqrt(a * d) * (np.arctan((threshold - middle) * k) - np.arctan((reset - middle) * k))


def qif(ts: float):
    return models.QIF(a=0.1, u_c=10.0, threshold=20.0, tau_rc=TAU, C=C, ts=ts, refractory_timesteps=0)


def test_qif_period():
    drive = 2 * 2.5  # twice the rheobase, a (u_c - rest)^2 / 4
    assert qif_period(drive) == pytest.approx(0.08138, abs=5e-6)
    for ts, first in ((1e-3, 83), (1e-5, 8139)):
        assert np.flatnonzero(spikes(qif(ts), drive * C / TAU, first + 5)[:, 0])[0] + 1 == first


def test_qif_f_i_curve():
    drives = 2.5 * np.array([1.05, 1.2, 1.5, 2.0, 4.0, 10.0])
    ran = spikes(qif(1e-5), drives * C / TAU, 160_000)
    periods = [np.diff(np.flatnonzero(column)).mean() * 1e-5 for column in ran.T]
    np.testing.assert_allclose(periods, qif_period(drives), rtol=1e-3)
