"""The torch backend in tiles, and models whose states are each other's."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from cases import INHIBITIONS, assert_same, input_for, neuron_of, run_case

from spyke_numba import KWTA, Layer, NeuronSpec, models

pytest.importorskip("torch", reason="torch is not installed")


@pytest.mark.parametrize("tile", [7, 60, 130])
@pytest.mark.parametrize("inhibition", INHIBITIONS)
def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch, inhibition: str, tile: int) -> None:
    import torch

    backend = importlib.import_module("spyke_numba.backends.torch")
    monkeypatch.setattr(backend, "TILE", max(1, tile // torch.get_num_threads()))
    neuron, x = neuron_of(models.get("AdEx"), True), input_for("AdEx", 3)
    expected = run_case(neuron, x, "cpu", "float32", INHIBITIONS[inhibition])
    assert_same(expected, run_case(neuron, x, "torch", "float32", INHIBITIONS[inhibition]))


@pytest.mark.parametrize("most_sorted", [0, 10])
@pytest.mark.parametrize("scope", ["feature", "location"])
def test_equal_potentials_are_won_in_order(
    monkeypatch: pytest.MonkeyPatch, scope: str, most_sorted: int
) -> None:
    backend = importlib.import_module("spyke_numba.backends.torch")
    monkeypatch.setattr(backend, "MOST_SORTED", most_sorted)
    x = np.random.default_rng(0).integers(0, 3, (20, 2, 3, 4, 5)).astype(np.float32)
    neuron = models.get("IF")(threshold=2.0, C=0.001, refractory_timesteps=np.arange(1, 4).reshape(3, 1, 1))
    inhibition = KWTA(k=8, scope=scope)
    expected = run_case(neuron, x, "cpu", "float32", inhibition)
    assert (expected.winners[..., 0] >= 0).any()
    assert_same(expected, run_case(neuron, x, "torch", "float32", inhibition))


def _keep(u, I):
    return u + I


def _follow(u, u_new, w):
    return u


def _remember(u, w):
    return u


@pytest.mark.parametrize("inhibition", INHIBITIONS)
def test_states_that_are_each_others(inhibition: str) -> None:
    spec = NeuronSpec(
        name="Remembering", membrane=_keep, adaptation=_follow, on_spike=_remember, states={"w": 0.0}
    )
    x = input_for("LIF_Simple", 2)
    expected = run_case(spec(threshold=1.0), x, "cpu", "float32", INHIBITIONS[inhibition])
    assert expected.w.any()
    assert_same(expected, run_case(spec(threshold=1.0), x, "torch", "float32", INHIBITIONS[inhibition]))


def test_a_population_has_winners() -> None:
    x = np.random.default_rng(1).uniform(0, 1, (10, 2, 5000)).astype(np.float32)
    runs = [
        Layer(models.get("LIF_Simple")(threshold=1.0), (5000,), 2, KWTA(k=3), backend).run(
            x, ("spikes", "winners")
        )
        for backend in ("cpu", "torch")
    ]
    assert_same(*runs)
