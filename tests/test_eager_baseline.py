"""The benchmarks' eager layer computes what it is timed for: the recorded trajectories, step by step."""

from __future__ import annotations

import numpy as np
import pytest
from golden_cases import NAMES, Golden, load

torch = pytest.importorskip("torch", reason="the eager layer needs torch")
eager_baseline = pytest.importorskip("spyke_numba.benchmarks.eager_baseline")

CASES = [name for name in NAMES if name.rpartition("_")[0] in eager_baseline.MODELS]


def layer_of(golden: Golden):
    params = dict(golden.params)
    threshold = params.pop("threshold")
    if golden.threshold_map is not None:
        threshold = torch.from_numpy(golden.threshold_map)
    return eager_baseline.EagerLayer(
        golden.model, threshold, golden.n_winners, scope=golden.inhibition_mode, **params
    )


def test_every_model_has_its_recordings():
    assert len(CASES) == 5 * len(eager_baseline.MODELS)


@pytest.mark.parametrize("name", CASES)
def test_recorded_trajectories(name):
    golden = load(name)
    layer = layer_of(golden)
    for step, current in enumerate(torch.from_numpy(golden.input)):
        spikes, state, winners = layer(current)
        expected = {
            key: array[step] for key, array in golden.arrays.items() if len(array) == len(golden.input)
        }
        assert spikes.dtype == state.dtype == current.dtype
        assert np.array_equal(spikes.numpy(), expected["spikes"]), step
        assert winners == golden.winners(step)
        assert np.array_equal(layer.refractory.numpy(), expected["refractory_steps"]), step
        np.testing.assert_allclose(state.numpy(), expected["state"], rtol=golden.tolerance, atol=1e-12)
        if golden.model == "AdEx":
            np.testing.assert_allclose(layer.w.numpy(), expected["w"], rtol=golden.tolerance, atol=1e-12)


def test_the_recordings_exercise_what_they_prove():
    """Several winners in a step, held neurons, losers, a reset away from rest, thresholds per neuron."""
    cases = [load(name) for name in CASES]
    assert any(len(case.winners(step)) > 1 for case in cases for step in range(len(case.input)))
    assert any((case.arrays["refractory_steps"] > 1).any() for case in cases)
    assert any(np.count_nonzero(case.arrays["spikes"]) > len(case.arrays["winners"]) for case in cases)
    assert any("v_reset" in case.params for case in cases)
    assert any(case.threshold_map is not None for case in cases)


@pytest.mark.parametrize(
    ("radius", "expected"), [(0, [(1, 0, 2), (0, 1, 2), (2, 4, 4)]), (1, [(1, 0, 2), (2, 4, 4), (0, 0, 0)])]
)
def test_radius_closes_a_square_in_all_maps(radius, expected):
    layer = eager_baseline.EagerLayer("LIF_Simple", 1.0, k=3, radius=radius)
    current = torch.zeros(1, 3, 5, 5)
    places = {(1, 0, 2): 9.0, (0, 1, 2): 8.0, (2, 4, 4): 7.0, (0, 0, 0): 6.0, (2, 1, 1): 5.0}
    for place, value in places.items():
        current[(0, *place)] = value
    assert layer(current)[2] == expected


def test_a_held_neuron_does_not_spike_even_if_rest_is_above_threshold():
    layer = eager_baseline.EagerLayer("LIF_ode", 1.0, k=1, resting_potential=2.0, refractory_timesteps=2)
    spikes = [bool(layer(torch.zeros(1, 1, 1, 1))[0].any()) for _ in range(6)]
    assert spikes == [True, False, False, True, False, False]


def test_reset_creates_the_state_anew():
    layer = eager_baseline.EagerLayer("AdEx", 10.0, k=1, scope="global")
    current = torch.full((1, 2, 2, 2), 50.0)
    first = [layer(current)[1].clone() for _ in range(5)]
    layer.reset()
    assert all(torch.equal(a, layer(current)[1]) for a in first)
    layer.reset()
    assert layer(torch.zeros(1, 1, 3, 3))[0].shape == (1, 1, 3, 3)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [({"model": "LIf"}, ValueError), ({"scope": "map"}, ValueError), ({"tau": 1.0}, TypeError)],
)
def test_wrong_arguments(wrong, error):
    with pytest.raises(error, match="allowed are"):
        eager_baseline.EagerLayer(**{"model": "EIF", "threshold": 1.0, "k": 1, **wrong})
