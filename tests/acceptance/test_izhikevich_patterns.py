"""The 28 published patterns of Izhikevich's neuron, to the step."""

from __future__ import annotations

import numpy as np
import pytest
from published import IZHIKEVICH_STIMULI, SPIKE_TIMES, izhikevich_params

from spyke_numba import Layer, models

PATTERNS = SPIKE_TIMES["izhikevich"]
# Published without the recovery's own decay, w' = w + h a b (u + 65).
UNDECAYING = {"R accommodation"}


def spike_steps(name: str, dt_ms: float, **changed) -> np.ndarray:
    """Steps, counted from 0, at which the native neuron spikes."""
    pattern = PATTERNS[name]
    params = {**izhikevich_params(name, dt_ms), **changed}
    initial = {"u": pattern["V0"]}
    if pattern["u0"] is not None:
        initial["w"] = pattern["u0"]
    if name in UNDECAYING:
        params["w_decay"] = 0.0
    t = np.arange(round(pattern["T"] / dt_ms) + 1) * dt_ms
    layer = Layer(models.Izhikevich(**params), shape=(1,), backend="cpu", dtype="float64", initial=initial)
    return np.flatnonzero(layer.run(IZHIKEVICH_STIMULI[name][0](t)[:, None]).spikes)


def test_every_pattern_is_here():
    assert set(IZHIKEVICH_STIMULI) == set(PATTERNS)
    assert len(PATTERNS) == 28


@pytest.mark.parametrize("name", PATTERNS)
def test_spike_times_to_the_step(name):
    dt = PATTERNS[name]["dt"]
    expected = np.rint(np.array(PATTERNS[name]["spike_times_ms"]) / dt).astype(int)
    assert len(expected) == IZHIKEVICH_STIMULI[name][1]
    assert spike_steps(name, dt).tolist() == expected.tolist()


@pytest.mark.parametrize(
    "name", ["I spike latency", "K resonator", "M rebound spike", "N rebound burst", "Q DAP"]
)
def test_a_step_of_one_ms_is_too_long(name):
    assert spike_steps(name, 1.0).size == 0


@pytest.mark.parametrize("name", ["Q DAP", "T inh-ind bursting"])
def test_the_old_potential_in_the_recovery_breaks(name):
    dt = PATTERNS[name]["dt"]
    assert spike_steps(name, dt, w_from_new=0.0).size > IZHIKEVICH_STIMULI[name][1] + 2
