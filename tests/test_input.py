"""Input that must not pass in silence: not finite, with a gradient, not of the shape that it names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from spyke_numba import KWTA, Layer, State, models
from spyke_numba.backends import Backend
from spyke_numba.model.spec import NeuronSpec

SHAPE = (2, 3, 4)
X = np.random.default_rng(0).uniform(0, 1, (20, 2, *SHAPE)).astype(np.float32)
LIF = models.LIF(threshold=1.0, C=0.002)


def spoiled(value: float, at: tuple[int, ...] = (7, 1, 1, 2, 3)) -> np.ndarray:
    x = X.astype(float)
    x[at] = value
    return x


def states(layer: Layer) -> dict[str, np.ndarray]:
    return {name: np.asarray(value).copy() for name, value in layer.state.items()}


# -- not finite


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("inhibition", [None, KWTA(2), KWTA(1, "location"), KWTA(1, "global")])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_a_run_refuses_it_and_leaves_the_layer_as_it_was(
    value: float, inhibition: KWTA | None, kind: Any, backend: Backend
) -> None:
    layer = Layer(LIF, SHAPE, 2, inhibition, backend)
    first = layer.run(kind(X))
    assert np.asarray(first.spikes).any()
    shown = f"{value:g}" if not np.isfinite(value) else "1e+300, which float32 takes for infinite,"
    sentence = (
        f"the input is {shown} at t = 12, b = 0, f = 0, r = 0, c = 0: give finite numbers, or nan='ignore'"
    )
    every = X.astype(float)
    every[12:] = value  # whatever is held then, some of it is read
    for record, more in ((("events", "u"), {"every": 2}), (("spikes",), {})):
        before = states(layer)
        with pytest.raises(ValueError, match="the input is") as caught:
            layer.run(kind(every), record, **more)
        assert str(caught.value).startswith(sentence) and "\n" not in str(caught.value)
        if backend.name == "cuda" and not more:
            with pytest.raises(RuntimeError, match="call reset"):
                layer.run(kind(X))
            layer.reset()
            continue
        after = states(layer)
        assert all(np.array_equal(before[name], after[name]) for name in before)
    twin = Layer(LIF, SHAPE, 2, inhibition, backend)
    if backend.name != "cuda":
        twin.run(kind(X))
    np.testing.assert_array_equal(layer.run(kind(X)).spikes, twin.run(kind(X)).spikes)


def test_a_refused_run_holds_nobody(backend: Backend) -> None:
    """Without refractoriness nothing counts, and there are no counters to put back from an earlier run."""
    layer = Layer(LIF, SHAPE, 2, backend=backend)
    layer.run(X)
    assert (np.asarray(layer.state["refractory"]) > 0).any()
    layer.set(refractory_timesteps=0)
    layer.run(X[:3])
    before = states(layer)
    assert not before["refractory"].any()
    with pytest.raises(ValueError, match="the input is nan"):
        layer.run(spoiled(np.nan))
    if backend.name == "cuda":
        return
    after = states(layer)
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 9])
def test_each_step_and_neuron_is_looked_at(steps: int, backend: Backend) -> None:
    """Steps go several at once, and neurons in vectors."""
    layer = Layer(models.IF(threshold=1e30, C=1.0), (37,), 1, backend=backend)
    places = [(t, n) for t in range(steps) for n in (0, 15, 16, 31, 36)]
    for t, n in places if backend.name == "cpu" else places[:: len(places) // 4]:
        x = np.zeros((steps, 1, 37), np.float32)
        x[t, 0, n] = -np.inf
        with pytest.raises(ValueError, match=f"is -inf at t = {t}, b = 0, neuron = {n}:"):
            layer.run(x)
        layer.reset()


@pytest.mark.parametrize("threads", [1, 2])
def test_each_thread_tells(threads: int) -> None:
    layer = Layer(LIF, (50_000,), 1, backend="cpu", threads=threads)
    x = np.zeros((20, 1, 50_000), np.float32)
    for n in (0, 24_999, 49_999):
        x[:] = 0
        x[13, 0, n] = np.nan
        with pytest.raises(ValueError, match=f"t = 13, b = 0, neuron = {n}:"):
            layer.run(x)


def test_huge_numbers_are_finite(backend: Backend) -> None:
    layer = Layer(models.IF(threshold=1e30, C=1.0), (8,), 1, backend=backend)
    x = np.full((6, 1, 8), 3e38, np.float32)
    assert layer.run(x).spikes.all(axis=2).any()


def test_a_step_refuses_it(backend: Backend) -> None:
    layer = Layer(LIF, SHAPE, 2, backend=backend)
    layer.step(X[0])
    before = states(layer)
    with pytest.raises(
        ValueError, match="the input is nan at b = 1, f = 1, r = 2, c = 3: give finite numbers"
    ):
        layer.step(spoiled(np.nan)[7])
    if backend.name != "torch":
        with pytest.raises(RuntimeError, match="call reset"):
            layer.step(X[0])
    layer.state = before
    np.testing.assert_array_equal(
        layer.step(X[1]).u, Layer(LIF, SHAPE, 2, backend=backend).run(X[:2], ("u",)).u[1]
    )


def test_a_constant_input_is_refused_too(backend: Backend) -> None:
    layer = Layer(LIF, SHAPE, 2, backend=backend)
    with pytest.raises(ValueError, match="the input is inf at b = 0, f = 1, r = 0, c = 0"):
        layer.run(np.where(np.arange(24).reshape(SHAPE) == 12, np.inf, 0.0) + np.zeros((2, 1, 1, 1)), steps=9)


def test_ignore_computes_with_it(backend: Backend) -> None:
    layer = Layer(LIF, SHAPE, 2, backend=backend, nan="ignore")
    u = layer.run(spoiled(np.nan), ("u",)).u
    assert np.isnan(u[7:, 1, 1, 2, 3]).all() and np.isnan(u).sum() == 13
    layer.state = layer.state


def test_a_first_call_that_is_refused_fixes_no_shape(backend: Backend) -> None:
    layer = Layer(LIF, backend=backend)
    with pytest.raises(ValueError, match="the input is nan"):
        layer.run(spoiled(np.nan))
    assert layer.shape is None and layer.batch is None
    layer.run(X[:, :1, :, 0, 0])


def test_a_later_block_of_steps_is_named_by_its_step(backend: Backend) -> None:
    layer = Layer(LIF, SHAPE, 2, backend=backend)
    with pytest.raises(ValueError, match="t = 17, b = 1"):
        list(layer.stream(spoiled(np.nan, (17, 1, 0, 0, 0)), block_steps=5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layer(LIF, nan="no"), "nan is 'no': allowed are 'raise' and 'ignore'"),
        (lambda: Layer(LIF, SHAPE, initial={"u": 1e300}), "initial u is not finite in float32"),
        (lambda: State(np.nan), "initial value nan of a state is not finite"),
        (lambda: State(-np.inf), "initial value -inf of a state is not finite"),
        (lambda: models.LIF(threshold=1.0, tau_rc=np.inf), "tau_rc of LIF is inf: give finite numbers"),
        (lambda: Layer(models.LIF(threshold=1e300), SHAPE), "in float32"),
        (lambda: _with_state(u=np.nan), "u of the state holds nan: give finite numbers"),
        (lambda: _with_state(u=1e300), r"u of the state holds 1e\+300, which is inf in float32: give finite"),
        (
            lambda: Layer(NeuronSpec(name="S", membrane=_add, states={"w": 1e300})(threshold=1.0), (2,)),
            "float32",
        ),
        (
            lambda: Layer(
                NeuronSpec(name="S", membrane=_add, states={"w": lambda u: u / 0})(threshold=1.0), (2,)
            ),
            "initial w of S is not finite in float32",
        ),
    ],
)
def test_other_numbers_that_are_not_finite(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def _add(u, I):
    return u + I


def _with_state(u: float) -> None:
    layer = Layer(LIF, (2,), backend="cpu")
    before = states(layer)
    try:
        layer.state = {"u": np.array([[0.0, u]]), "refractory": np.zeros((1, 2), int)}
    finally:
        after = states(layer)
        assert all(np.array_equal(before[name], after[name]) for name in before)


# -- gradients


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda layer, wanted: layer.run(wanted), "the input"),
        (lambda layer, wanted: layer.step(wanted[0]), "the input"),
        (lambda layer, wanted: list(layer.stream(wanted)), "the input"),
        (lambda layer, wanted: layer.run(iter([wanted])), "the input"),
        (lambda layer, wanted: layer.set(tau_rc=wanted[0, 0]), "tau_rc of LIF"),
        (lambda layer, wanted: Layer(LIF, SHAPE, initial={"u": wanted[0, 0]}), "initial u"),
        (
            lambda layer, wanted: setattr(layer, "state", {**layer.state, "u": wanted[0]}),
            "u of the state",
        ),
    ],
)
def test_a_gradient_that_would_end_here_is_refused(call: Any, what: str, backend: Backend) -> None:
    layer = Layer(LIF, SHAPE, 2, backend=backend)
    layer.step(torch.from_numpy(X[0]))
    before = states(layer)
    wanted = torch.from_numpy(X).clone().requires_grad_()
    with pytest.raises(TypeError, match=rf"{what} requires a gradient.*give x.detach\(\)") as caught:
        call(layer, wanted)
    assert "\n" not in str(caught.value)
    after = states(layer)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    with torch.no_grad():
        assert not layer.run(wanted).spikes.requires_grad
    layer.run(wanted.detach())


@pytest.mark.parametrize(
    "call",
    [
        lambda layer, wanted: layer.run(wanted),
        lambda layer, wanted: layer.step(wanted[0]),
        lambda layer, wanted: layer.set(tau_rc=wanted[0][0]),
        lambda layer, wanted: Layer(LIF, SHAPE, initial={"u": wanted[0][0]}, backend="cpu"),
        lambda layer, wanted: setattr(layer, "state", {**layer.state, "u": wanted[0]}),
    ],
)
def test_a_list_of_what_requires_a_gradient_is_refused(call: Any) -> None:
    layer = Layer(LIF, SHAPE, 2, backend="cpu")
    scalars = [[[[[torch.ones((), requires_grad=True)] * 4] * 3] * 2] * 2] * 2
    with pytest.raises((TypeError, ValueError), match="give"):
        call(layer, scalars)


def test_inference_mode_and_then_another(backend: Backend) -> None:
    """What is made in inference mode can be changed outside of it, and the other way round."""
    if backend.name == "cuda":
        pytest.skip("tensors on a GPU alone are torch's there")
    for modes in ((True, False, True), (False, True, False)):
        layer = Layer(LIF, SHAPE, 2, KWTA(2), backend=backend)
        twin = Layer(LIF, SHAPE, 2, KWTA(2), backend=backend)
        for t, mode in enumerate(modes):
            with torch.inference_mode(mode):
                x = torch.from_numpy(X[t])
                recording = layer.step(x) if t < 2 else layer.run(x[None], ("spikes", "u"))
            expected = twin.step(X[t])
            np.testing.assert_array_equal(np.asarray(recording.u).reshape(expected.u.shape), expected.u)
        layer.reset()
        layer.set(tau_rc=0.01)
        layer.step(torch.from_numpy(X[0]))


# -- not what it says


@pytest.mark.parametrize("name", ["events", "packed_spikes"])
def test_a_step_records_no_lists_of_spikes(name: str, backend: Backend) -> None:
    layer = Layer(LIF, SHAPE, 2, backend=backend)
    before = states(layer)
    with pytest.raises(ValueError, match=f"record names '{name}', which only run and stream give"):
        layer.step(X[0], record=(name,))
    assert all(np.array_equal(before[name], states(layer)[name]) for name in before)


class Liar:
    """Says another shape than its array has."""

    def __init__(self, array: np.ndarray, shape: tuple[int, ...]):
        self.array, self.shape, self.dtype, self.ndim = array, shape, array.dtype, len(shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Liar:
        return Liar(self.array[:1], self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.array, dtype, copy=copy)


class Lying(np.ndarray):
    """An array that says another shape than its memory has."""

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (20, 2, *SHAPE)


@pytest.mark.parametrize("call", ["run", "step", "stream", "events"])
def test_an_input_is_as_large_as_its_memory(call: str, backend: Backend) -> None:
    layer = Layer(LIF, SHAPE, 2, backend=backend)
    for lie in (Liar(np.zeros((1, 1), np.float32), (20, 2, *SHAPE)), np.zeros(3, np.float32).view(Lying)):
        with pytest.raises(ValueError, match="the input has the shape"):
            if call == "stream":
                list(layer.stream(lie))
            elif call == "step":
                layer.step(lie)
            else:
                layer.run(lie, ("events",) if call == "events" else ("spikes",))


def test_memory_for_results_is_as_large_as_it_says(backend: Backend) -> None:
    layer = Layer(LIF, SHAPE, 2, backend=backend)
    lie = Liar(np.zeros(1, bool), X.shape)
    with pytest.raises(TypeError, match=r"out\['spikes'\] is a Liar: give contiguous bool"):
        layer.run(X, out={"spikes": lie})
    small = np.zeros(3, bool).view(Lying)
    with pytest.raises((TypeError, ValueError), match=r"out\['spikes'\]"):
        layer.run(X, out={"spikes": small})
