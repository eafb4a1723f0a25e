"""How the error falls with the time step."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spyke_numba import Layer, models

DURATION, TAU, C = 0.064, 0.02, 0.281
EXPONENTIAL = {"delta_t": 2.0, "theta_rh": -50.0}


def exponential(u):
    return EXPONENTIAL["delta_t"] * math.exp((u - EXPONENTIAL["theta_rh"]) / EXPONENTIAL["delta_t"])


# model: parameters, start, mean input, and the differential equations (u, w, input) -> (du/dt, dw/dt) in
# seconds
CASES = {
    "IF": ({"C": C}, (-65.0,), 50.0, lambda u, w, i: (i / C, 0.0)),
    "LIF": ({"tau_rc": TAU, "C": C}, (-68.0,), 150.0, lambda u, w, i: ((-65 - u) / TAU + i / C, 0.0)),
    "LIF_ode": ({"tau_rc": TAU, "C": C}, (-68.0,), 150.0, lambda u, w, i: ((-65 - u) / TAU + i / C, 0.0)),
    "EIF": (
        {"tau_rc": TAU, "C": C, **EXPONENTIAL},
        (-58.0,),
        120.0,
        lambda u, w, i: ((-65 - u + exponential(u)) / TAU + i / C, 0.0),
    ),
    "QIF": (
        {"tau_rc": TAU, "C": C, "a": 0.1, "u_c": -50.0},
        (-60.0,),
        40.0,
        lambda u, w, i: (0.1 * (u + 65) * (u + 50) / TAU + i / C, 0.0),
    ),
    "AdEx": (
        {"tau_rc": TAU, "C": C, **EXPONENTIAL, "a": 6.0, "b": 0.0, "tau_w": 0.03},
        (-58.0, 20.0),
        150.0,
        lambda u, w, i: ((-65 - u + exponential(u)) / TAU + (i - w) / C, (6 * (u + 65) - w) / 0.03),
    ),
    "Izhikevich": (
        {},
        (-70.0, -13.5),
        0.8,
        lambda u, w, i: (1000 * (0.04 * u * u + 5 * u + 140 + i - w), 1000 * 0.02 * (0.2 * u - w)),
    ),
}


def drive(t, mean):
    return mean * (1 + 0.5 * np.sin(2 * np.pi * t / 0.04))


def exact(model: str) -> float:
    """The potential at the end by the classical fourth-order Runge-Kutta method at 32 us."""
    _, start, mean, slopes = CASES[model]
    h = 3.2e-5
    y = np.array([start[0], start[1] if len(start) > 1 else 0.0])

    def f(t, y):
        return np.array(slopes(y[0], y[1], float(drive(t, mean))))

    for step in range(round(DURATION / h)):
        t = step * h
        k1 = f(t, y)
        k2 = f(t + h / 2, y + h / 2 * k1)
        k3 = f(t + h / 2, y + h / 2 * k2)
        k4 = f(t + h, y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return float(y[0])


@pytest.mark.parametrize("model", CASES)
def test_first_order(model):
    params, start, mean, _ = CASES[model]
    truth = exact(model)
    assert abs(truth - start[0]) > 0.5
    initial = dict(zip(("u", "w"), start, strict=False))
    errors = []
    for halvings in range(4):
        steps = 1024 * 2**halvings
        ts = DURATION / steps
        neuron = models.get(model)(threshold=1e6, resting_potential=-65.0, ts=ts, **params)
        layer = Layer(neuron, shape=(1,), backend="cpu", dtype="float64", initial=initial)
        x = drive(np.arange(steps) * ts, mean)
        errors.append(abs(layer.run(x[:, None], record=("u",)).u[-1].item() - truth))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, 1.0, atol=0.06)


PULSES_S = (0.004, 0.011, 0.011, 0.03)
CHARGE, REST = 0.9, -65.0  # pA s, mV


def between_pulses(model: str, ts: float) -> float:
    """Largest error of the potential after instantaneous pulses of charge: exact is a sum of decays."""
    steps = round(0.08 / ts)
    x = np.zeros((steps, 1))
    t = np.arange(1, steps + 1) * ts
    truth = np.full(steps, REST)
    for pulse in PULSES_S:
        at = round(pulse / ts) - 1  # the step that ends at the pulse's time
        x[at] += CHARGE / ts
        truth[at:] += CHARGE / C * np.exp(-(t[at:] - t[at]) / TAU)
    neuron = models.get(model)(threshold=100.0, resting_potential=REST, tau_rc=TAU, C=C, ts=ts)
    layer = Layer(neuron, shape=(1,), backend="cpu", dtype="float64")
    return float(np.abs(layer.run(x, record=("u",)).u[:, 0] - truth).max())


@pytest.mark.parametrize("ts", [1e-3, 5e-4, 1e-4])
def test_exact_decay_has_no_error_between_pulses(ts):
    assert between_pulses("LIF", ts) < 1e-11
    assert between_pulses("LIF_ode", ts) > 1e-3  # Euler's decay does
