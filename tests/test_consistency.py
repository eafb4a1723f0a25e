"""Every backend gives the same bits: all models, types, scopes and kinds of parameters."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from cases import INHIBITIONS, assert_same, input_for, is_typical, neuron_of, run_case
from emulated import emulated_cuda, needs_emulator

from spyke_numba import NeuronSpec, Param, Recording, models
from spyke_numba.backends import Backend

DTYPES = ("float32", "float64")


@cache
def on_cpu(name: str, dtype: str, inhibition: str, varying: bool, batch: int) -> Recording:
    neuron = neuron_of(models.get(name), varying)
    return run_case(neuron, input_for(name, batch), "cpu", dtype, INHIBITIONS[inhibition])


def _typical(name: str, dtype: str, inhibition: str, varying: bool, batch: int) -> bool:
    if inhibition == "none" and dtype == "float64":
        return False
    return batch == (1 if inhibition == "none" else 3) and is_typical(name, dtype, inhibition, varying)


@pytest.mark.exhaustive(but=_typical)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("varying", [False, True], ids=["scalar", "varying"])
@pytest.mark.parametrize("inhibition", INHIBITIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", models.names())
def test_backends_agree(
    name: str, dtype: str, inhibition: str, varying: bool, batch: int, other_backend: Backend
) -> None:
    expected = on_cpu(name, dtype, inhibition, varying, batch)
    assert expected.spikes.any()
    if inhibition != "none":
        assert (expected.winners[..., 0] >= 0).sum() >= 2 * batch
    neuron = neuron_of(models.get(name), varying)
    assert_same(
        expected, run_case(neuron, input_for(name, batch), other_backend, dtype, INHIBITIONS[inhibition])
    )


@needs_emulator
@pytest.mark.parametrize("inhibition", INHIBITIONS)
def test_emulated_threads_in_any_order(inhibition: str) -> None:
    expected = on_cpu("AdEx", "float32", inhibition, True, 3)
    neuron = neuron_of(models.get("AdEx"), True)
    for seed in range(3):
        shuffled = run_case(
            neuron, input_for("AdEx", 3), emulated_cuda(seed), "float32", INHIBITIONS[inhibition]
        )
        assert_same(expected, shuffled)


def _wrong_membrane(u, I, resting_potential, decay):
    return resting_potential + (u * decay - resting_potential * decay) + I


def test_the_comparison_sees_one_rounding_too_many(other_backend: Backend) -> None:
    right = models.get("LIF_Simple")
    wrong = NeuronSpec(
        name="LIF_Simple", membrane=_wrong_membrane, params={"tau_rc": Param(0.02)}, derived=right.derived
    )
    values = {"threshold": 1.0, "resting_potential": 0.1}
    x = input_for("LIF_Simple", 1)
    expected = run_case(right(**values), x, "cpu", "float32", None)
    with pytest.raises(AssertionError, match="differs in"):
        assert_same(expected, run_case(wrong(**values), x, other_backend, "float32", None))


def test_the_comparison_sees_a_missing_spike_and_a_swapped_winner() -> None:
    expected = on_cpu("LIF", "float32", "feature", False, 3)
    for name in ("spikes", "winners"):
        changed = {key: np.array(value) for key, value in expected.items()}
        changed[name].flat[0] = not changed[name].flat[0] if name == "spikes" else 99
        with pytest.raises(AssertionError, match=name):
            assert_same(expected, Recording(changed))


def _fitzhugh_nagumo_membrane(u, I, w, h):
    return u + h * (u - u**3 / 3 - w + I)


def _fitzhugh_nagumo_adaptation(u_new, w, h, a, b, epsilon):
    return w + h * epsilon * (u_new + a - b * w)


def test_a_users_model_runs_everywhere(backend: Backend) -> None:
    spec = NeuronSpec(
        name="FitzHughNagumo",
        membrane=_fitzhugh_nagumo_membrane,
        adaptation=_fitzhugh_nagumo_adaptation,
        params={"a": 0.7, "b": 0.8, "epsilon": Param(0.08, "1/ms", "slowness of the recovery", above=0)},
        states={"w": -0.62},
        derived={"h": lambda ts: 1000 * ts},
        defaults={"resting_potential": -1.2, "refractory_timesteps": 0, "ts": 0.0001},
    )
    neuron = spec(threshold=1.0)
    x = np.full((400, 1, 3, 4, 5), 0.5) + np.linspace(0, 0.3, 60).reshape(3, 4, 5)
    recording = run_case(neuron, x, backend, "float32", None)
    assert_same(run_case(neuron, x, "cpu", "float32", None), recording)
    assert recording.spikes.any(axis=(0, 1)).all()
    assert recording.w.max() > 0
