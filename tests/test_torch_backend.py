"""The torch backend in tiles and compiled, and models that ask more of it than the registered ones."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from cases import INHIBITIONS, SHAPE, assert_same, input_for, neuron_of, run_case

from spyke_numba import KWTA, Layer, NeuronSpec, backends, models
from spyke_numba.backends.cpu.parts import fma
from spyke_numba.compile.program import Program

# ruff: noqa: F821 - a model's functions are bound in the generated code
pytest.importorskip("torch", reason="torch is not installed")


@pytest.mark.parametrize("tile", [7, 60, 130])
@pytest.mark.parametrize("inhibition", INHIBITIONS)
def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch, inhibition: str, tile: int) -> None:
    import torch

    backend = importlib.import_module("spyke_numba.backends.torch.launch")
    monkeypatch.setattr(backend, "TILE", max(1, tile // torch.get_num_threads()))
    neuron, x = neuron_of(models.get("AdEx"), True), input_for("AdEx", 3)
    expected = run_case(neuron, x, "cpu", "float32", INHIBITIONS[inhibition])
    assert_same(expected, run_case(neuron, x, "torch", "float32", INHIBITIONS[inhibition]))


@pytest.mark.exhaustive(but=lambda scope: scope == "feature")
@pytest.mark.parametrize("most_sorted", [0, 10])
@pytest.mark.parametrize("scope", ["feature", "location"])
def test_equal_potentials_are_won_in_order(
    monkeypatch: pytest.MonkeyPatch, scope: str, most_sorted: int
) -> None:
    winners = importlib.import_module("spyke_numba.backends.torch.winners")
    monkeypatch.setattr(winners, "MOST_SORTED", most_sorted)
    x = np.random.default_rng(0).integers(0, 3, (20, 2, 3, 4, 5)).astype(np.float32)
    neuron = models.get("IF")(threshold=2.0, C=0.001, refractory_timesteps=np.arange(1, 4).reshape(3, 1, 1))
    inhibition = KWTA(k=8, scope=scope)
    expected = run_case(neuron, x, "cpu", "float32", inhibition)
    assert (expected.winners[..., 0] >= 0).any()
    assert_same(expected, run_case(neuron, x, "torch", "float32", inhibition))


@pytest.mark.exhaustive(but=lambda name: name == "AdEx")
@pytest.mark.parametrize("most_sorted", [0, 10])
@pytest.mark.parametrize("inhibition", INHIBITIONS)
@pytest.mark.parametrize("name", ["AdEx", "LIF"])
def test_what_a_gpu_is_given(
    monkeypatch: pytest.MonkeyPatch, name: str, inhibition: str, most_sorted: int
) -> None:
    backend = importlib.import_module("spyke_numba.backends.torch.launch")
    winners = importlib.import_module("spyke_numba.backends.torch.winners")
    monkeypatch.setattr(winners, "MOST_SORTED", most_sorted)
    for module in (backend, winners):
        monkeypatch.setattr(module, "on_cpu", lambda array: False)
    neuron, x = neuron_of(models.get(name), True), input_for(name, 3)
    expected = run_case(neuron, x, "cpu", "float32", INHIBITIONS[inhibition])
    assert_same(expected, run_case(neuron, x, backend.TorchBackend(), "float32", INHIBITIONS[inhibition]))


def test_a_multiply_add_is_rounded_once() -> None:
    """Against the processor's own; where torch has operations alone, it is put together from those of float64."""
    import torch

    @numba.njit
    def fused(a, b, c, out):
        for i in range(a.size):
            out[i] = fma(a[i], b[i], c[i])

    generator = np.random.default_rng(6)
    a, b = generator.normal(size=(2, 20_000)).astype(np.float32)
    c = (-a * b * (1 + generator.normal(size=a.size) * 1e-6)).astype(np.float32)
    # ties between two float32 numbers, which only a third operand breaks that is too small for a float64 sum
    signs = np.array([1, 1, -1, -1, 1, -1], np.float32)
    a[:6], b[:6] = signs * np.float32(1 + 2.0**-12), 1 + 2.0**-12
    c[:6] = np.array([1, -1, 1, -1, 0, 0]) * 2.0**-70
    expected = np.empty_like(a)
    fused(a, b, c, expected)
    assert len(set(np.abs(expected[:6]))) == 2
    program = Program.of(models.get("EIF")(threshold=1.0))
    composed = importlib.import_module("spyke_numba.backends.torch.launch")._module(program).fma
    got = composed(*map(torch.from_numpy, (a, b, c))).numpy()
    np.testing.assert_array_equal(got.view(np.int32), expected.view(np.int32))
    twice = (a.astype(float) * b.astype(float) + c).astype(np.float32)
    assert (twice != expected).any()


def _keep(u, I):
    return u + I


def _follow(u, u_new, w):
    return u


def _remember(u, w):
    return u


@pytest.mark.exhaustive(but=lambda inhibition: inhibition == "none")
@pytest.mark.parametrize("inhibition", INHIBITIONS)
def test_states_that_are_each_others(inhibition: str) -> None:
    spec = NeuronSpec(
        name="Remembering", membrane=_keep, adaptation=_follow, on_spike=_remember, states={"w": 0.0}
    )
    x = input_for("LIF_Simple", 2)
    expected = run_case(spec(threshold=1.0), x, "cpu", "float32", INHIBITIONS[inhibition])
    assert expected.w.any()
    assert_same(expected, run_case(spec(threshold=1.0), x, "torch", "float32", INHIBITIONS[inhibition]))


# torch compiles nothing itself
@pytest.mark.parametrize("known", ["torch", pytest.param("cpu", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("name", models.names())
def test_compiled(name: str, known: str) -> None:
    if (why_not := backends.get("torch_compiled").unavailable()) is not None:
        pytest.skip(why_not)
    i = models.names().index(name)
    scope, dtype = list(INHIBITIONS)[i % 4], ("float32", "float64")[i // 4 % 2]
    neuron, inhibition = neuron_of(models.get(name), i % 3 > 0), INHIBITIONS[scope]
    for batch in (1, 3):
        x = input_for(name, batch)
        expected = run_case(neuron, x, known, dtype, inhibition)
        assert expected.spikes.any()
        assert_same(expected, run_case(neuron, x, "torch_compiled", dtype, inhibition))


def _every_function(u, I):
    size = sqrt(abs(I)) + tanh(u) * 0.3 - log(abs(I) + 1.0) / (1.0 + abs(u))
    return where((u > 0.2) & (I < 0.5), size * size, size - u * 0.7) * 1e-36 + exp(-abs(u)) * I


def _nothing(threshold, v_reset):
    return threshold + v_reset


@pytest.mark.exhaustive(but=lambda inhibition: inhibition == "none")
@pytest.mark.parametrize("inhibition", ["none", "feature"])
@pytest.mark.parametrize("membrane", [_every_function, _nothing])
@pytest.mark.parametrize("name", ["torch", "torch_compiled"])
def test_a_users_membrane(name: str, membrane: Callable[..., Any], inhibition: str) -> None:
    if (why_not := backends.get(name).unavailable()) is not None:
        pytest.skip(why_not)
    neuron = NeuronSpec(name="Users", membrane=membrane)(threshold=np.linspace(0.3, 0.4, 5))
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(20, 2, *SHAPE)) * np.exp(rng.normal(size=(20, 2, *SHAPE)) * 9)).astype(np.float32)
    expected = run_case(neuron, x, "cpu", "float32", INHIBITIONS[inhibition])
    assert expected.spikes.any()
    assert_same(expected, run_case(neuron, x, name, "float32", INHIBITIONS[inhibition]))


def test_compiled_once_for_every_shape_and_length() -> None:
    import torch

    if (why_not := backends.get("torch_compiled").unavailable()) is not None:
        pytest.skip(why_not)
    neuron = models.get("LIF")(threshold=1.0)
    Layer(neuron, (3, 4, 5), backend="torch_compiled").run(torch.rand(2, 1, 3, 4, 5))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape, steps in (((3, 4, 5), 7), ((2, 9, 9), 3), ((100,), 1)):
            x = torch.rand(steps, 1, *shape)
            runs = [Layer(neuron, shape, backend=name).run(x) for name in ("cpu", "torch_compiled")]
            assert torch.equal(*(run.spikes for run in runs))
            layer = Layer(neuron, shape, backend="torch_compiled")
            assert torch.equal(torch.stack([layer.step(one).spikes for one in x]), runs[0].spikes)


def test_compiled_is_for_the_cpu() -> None:
    import torch

    with pytest.raises(ValueError, match="works on the CPU: use 'cuda' or 'torch' there"):
        backends.get("torch_compiled").take(torch.zeros(1, device="meta"), "float32")


def test_compiled_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler: install g\+\+"):
        Layer(models.get("LIF")(threshold=1.0), backend="torch_compiled")


def test_a_population_has_winners() -> None:
    x = np.random.default_rng(1).uniform(0, 1, (10, 2, 5000)).astype(np.float32)
    runs = [
        Layer(models.get("LIF_Simple")(threshold=1.0), (5000,), 2, KWTA(k=3), backend).run(
            x, ("spikes", "winners")
        )
        for backend in ("cpu", "torch")
    ]
    assert_same(*runs)
