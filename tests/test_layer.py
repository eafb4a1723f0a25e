"""The layer: step and run, state, kinds of input and output, and refusals that leave everything as it was."""

from __future__ import annotations

import copy
import pickle
import sys
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
import reference
import torch
from cases import SHAPE, assert_same, input_for, neuron_of

from spyke_numba import KWTA, Layer, Recording, backends, models
from spyke_numba.backends import Backend
from spyke_numba.backends.torch.launch import TorchBackend
from spyke_numba.compile.program import Program
from spyke_numba.model.kwta import SCOPES, Scope

EVERYTHING = ("spikes", "u", "w", "u_pre", "pulses", "thresholded", "refractory", "winners")


def adex(backend: Any = "cpu", **more: Any) -> Layer:
    settings: dict[str, Any] = {"inhibition": KWTA(2, radius=1), "batch": 3, **more}
    return Layer(neuron_of(models.get("AdEx"), True), SHAPE, backend=backend, seed=5, **settings)


@pytest.mark.parametrize("inhibition", [None, KWTA(2, radius=1)])
def test_run_equals_steps(backend: Backend, inhibition: KWTA | None) -> None:
    x = input_for("AdEx", 3)
    names = EVERYTHING if inhibition else EVERYTHING[:-1]
    whole, stepped = adex(backend, inhibition=inhibition), adex(backend, inhibition=inhibition)
    expected = whole.run(x, names)
    steps = [stepped.step(x[t], names) for t in range(len(x))]
    assert_same(expected, Recording({name: np.stack([step[name] for step in steps]) for name in names}))
    for name, value in whole.state.items():
        np.testing.assert_array_equal(value, stepped.state[name])


def test_state_goes_on_between_calls(backend: Backend) -> None:
    x = input_for("AdEx", 3)
    whole, parts, streamed = adex(backend), adex(backend), adex(backend)
    expected = whole.run(x, EVERYTHING)
    assert_same(expected, Recording.joined([parts.run(x[:7], EVERYTHING), parts.run(x[7:], EVERYTHING)]))
    assert_same(expected, Recording.joined(list(streamed.stream(x, EVERYTHING, block_steps=5))))
    streamed.reset()
    assert_same(expected, streamed.run((x[t : t + 10] for t in range(0, len(x), 10)), EVERYTHING))
    assert expected.spikes.any()


def test_defaults_of_step_and_run() -> None:
    layer = adex()
    assert layer.step(input_for("AdEx", 3)[0]).names == ("spikes", "u", "w", "winners")
    assert layer.run(input_for("AdEx", 3)).names == ("spikes",)
    assert Layer(models.LIF(threshold=1.0), (3,)).step(np.zeros((1, 3))).names == ("spikes", "u")


def test_constant_input(backend: Backend) -> None:
    x = input_for("AdEx", 3)[0]
    expected = adex(backend).run(np.broadcast_to(x, (9, *x.shape)), EVERYTHING)
    assert_same(expected, adex(backend).run(x, EVERYTHING, steps=9))


def test_resets_wait_for_the_next_step_whatever_it_is(backend: Backend) -> None:
    """Other records, another inhibition, a look at the state, a copy, a new v_reset: all see what a single run does."""
    x = 3 * input_for("AdEx", 3)
    whole, stepped = adex(backend), adex(backend)
    expected = whole.run(x, EVERYTHING)
    for t in range(0, len(x), 6):
        names = iter([("u",), ("spikes", "u"), EVERYTHING, ("u", "pulses"), ("u",), ("u", "winners")])
        for i, record in enumerate(names):
            step = stepped.step(x[t + i], record)
            np.testing.assert_array_equal(step.u, expected.u[t + i])
            if backend.lazy:
                assert stepped.keeps_thresholded
                np.testing.assert_array_equal(stepped.last_thresholded, expected.thresholded[t + i])
            else:
                assert stepped.last_thresholded is None
            if i == 2:
                np.testing.assert_array_equal(stepped.state["u"], expected.u[t + i])
            if i == 4:
                stepped = pickle.loads(pickle.dumps(stepped)) if backend.name != "cuda" else stepped
                np.testing.assert_array_equal(stepped.state["u"], expected.u[t + i])
    assert expected.thresholded.any()

    # what spiked is reset to the v_reset of its own step, and without inhibition goes on from there
    for layer in (whole, stepped):
        layer.reset()
        layer.run(x[:5])
        layer.set(v_reset=-0.7)
    whole.state = dict(whole.state)
    for layer in (whole, stepped):
        layer.inhibition = None
    assert_same(whole.run(x[5:9], EVERYTHING[:-1]), stepped.run(x[5:9], EVERYTHING[:-1]))
    # also where counters are each neuron's own before and after
    held = np.random.default_rng(0).integers(0, 3, whole.state["refractory"].shape)
    for layer in (whole, stepped):
        layer.state = {**layer.state, "refractory": held}
        layer.run(x[9:12], inhibition=KWTA(2, radius=1))
    whole.state = dict(whole.state)
    assert_same(whole.run(x[12:], EVERYTHING[:-1]), stepped.run(x[12:], EVERYTHING[:-1]))
    # reset forgets what waits
    stepped.inhibition = KWTA(2, radius=1)
    stepped.step(x[0])
    stepped.reset()
    fresh = adex(backend)
    fresh.set(v_reset=-0.7)
    assert_same(fresh.run(x, EVERYTHING), stepped.run(x, EVERYTHING))


def test_inhibition_may_change_between_calls(backend: Backend) -> None:
    """Whatever the scope before, the counters are each neuron's own."""
    x = input_for("AdEx", 3)

    def run(backend: Any) -> Recording:
        layer = adex(backend, inhibition=KWTA(1, "global"))
        parts = [layer.run(x[:5], EVERYTHING[:-1]), layer.run(x[5:10], EVERYTHING[:-1], inhibition=None)]
        layer.inhibition = KWTA(3, "location")
        return Recording.joined([*parts, layer.run(x[10:], EVERYTHING[:-1])])

    assert_same(run("cpu"), run(backend))


def test_a_population_is_maps_of_one_neuron() -> None:
    x = np.random.default_rng(0).uniform(0, 1, (20, 2, 6))
    neuron = models.LIF_Simple(threshold=1.0)
    flat = Layer(neuron, (6,), inhibition=KWTA(1), backend="cpu").run(x, ("spikes", "winners"))
    maps = Layer(neuron, (6, 1, 1), inhibition=KWTA(1), backend="cpu").run(
        x[..., None, None], ("spikes", "winners")
    )
    np.testing.assert_array_equal(flat.spikes, maps.spikes[..., 0, 0])
    np.testing.assert_array_equal(flat.winners, maps.winners)
    assert flat.spikes.any()


@pytest.mark.parametrize(
    ("given", "shape", "batch"),
    [((7, 2, 3, 4, 5), (3, 4, 5), 2), ((7, 3, 4, 5), (3, 4, 5), 1), ((7, 2, 9), (9,), 2), ((7, 9), (9,), 1)],
)
def test_shape_from_the_first_input(given: tuple[int, ...], shape: tuple[int, ...], batch: int) -> None:
    layer = Layer(models.LIF(threshold=1.0), backend="cpu")
    assert layer.shape is None
    recording = layer.run(np.zeros(given), ("spikes", "u"))
    assert (layer.shape, layer.batch) == (shape, batch)
    assert recording.spikes.shape == recording.u.shape == given
    stepped = Layer(models.LIF(threshold=1.0), backend="cpu")
    assert stepped.step(np.zeros(given[1:])).spikes.shape == given[1:]
    assert (stepped.shape, stepped.batch) == (shape, batch)


def test_kinds_of_input(backend: Backend) -> None:
    x = np.random.default_rng(0).integers(0, 2, (20, 1, 6))
    neuron = models.LIF_Simple(threshold=1.4)

    def run(given: Any) -> Recording:
        return Layer(neuron, (6,), inhibition=KWTA(2), backend=backend).run(given, ("spikes", "u", "winners"))

    expected = run(x.astype(np.float32))
    assert expected.spikes.any() and expected.spikes.dtype == bool and expected.u.dtype == np.float32
    strided = np.zeros((20, 1, 12), np.float32)[:, :, ::2]
    strided[:] = x
    read_only = x.astype(np.float32)
    read_only.flags.writeable = False
    for given in (
        x.astype(bool),
        x,
        x.astype(np.float64),
        x.astype(">f4"),
        np.asfortranarray(x),
        strided,
        read_only,
        x.tolist(),
    ):
        assert_same(expected, run(given))
    tensor = torch.from_numpy(x).float()
    for given in (tensor, tensor.double(), tensor.bool(), tensor.to(torch.bfloat16)):
        recording = run(given)
        assert all(
            isinstance(value, torch.Tensor) and not value.requires_grad for value in recording.values()
        )
        assert_same(expected, Recording({name: value.numpy() for name, value in recording.items()}))


def test_torch_on_the_cpu_is_shared_not_copied() -> None:
    x = torch.rand(4, 1, 6)
    backend = backends.get("cpu")
    assert backend.take(x, "float32").data_ptr() == x.data_ptr()
    array = np.zeros(3)
    assert backend.giver(x)(array).data_ptr() == array.ctypes.data
    assert backends.get("torch").take(x, "float32").data_ptr() == x.data_ptr()


def test_input_is_not_changed(backend: Backend) -> None:
    x = input_for("AdEx", 3)
    before = x.copy()
    adex(backend).run(x)
    np.testing.assert_array_equal(x, before)


def test_memory_map(tmp_path: Any) -> None:
    x = input_for("AdEx", 3).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = adex().run(x, EVERYTHING)
    assert_same(expected, adex().run(mapped, EVERYTHING))
    assert_same(expected, Recording.joined(list(adex().stream(mapped, EVERYTHING, block_steps=7))))


def test_state_can_be_kept_and_put_back(backend: Backend) -> None:
    x = input_for("AdEx", 3)
    layer = adex(backend)
    layer.run(x[:10])
    kept = layer.state
    rest = layer.run(x[10:], EVERYTHING)
    layer.state = kept
    assert_same(rest, layer.run(x[10:], EVERYTHING))
    other = adex("cpu")
    other.state = kept
    assert_same(rest, other.run(x[10:], EVERYTHING))
    with pytest.raises(ValueError, match="must name refractory, u and w"):
        layer.state = {"u": kept["u"]}
    with pytest.raises(ValueError, match="w of the state has the shape"):
        layer.state = {**kept, "w": np.zeros(3)}
    with pytest.raises(ValueError, match="whole numbers of steps"):
        layer.state = {**kept, "refractory": np.asarray(kept["refractory"]) - 1}


class _BreaksOff:
    """A kernel that is interrupted, or out of memory, when the state is no longer what it was."""

    def __init__(self, kernel: Any, error: type[BaseException]):
        self.kernel, self.error = kernel, error

    def run(self, launch: Any) -> None:
        self.kernel.run(launch)
        raise self.error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernel, name)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_call_that_breaks_off_is_not_gone_on_from(
    backend: Backend, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = input_for("AdEx", 3)
    layer = adex(backend)
    layer.run(x[:10])
    kept = layer.state
    rest = layer.run(x[10:], EVERYTHING)

    def break_off() -> None:
        with monkeypatch.context() as patched:
            kernel = backend.kernel
            patched.setattr(backend, "kernel", lambda program: _BreaksOff(kernel(program), error))
            layer.set(tau_w=0.1)
            with pytest.raises(error):
                layer.run(x[10:])
        for call in (lambda: layer.run(x[10:]), lambda: layer.step(x[0]), lambda: layer.state):
            with pytest.raises(RuntimeError, match=r"the last call broke off.*call reset\(\)"):
                call()
        layer.set(tau_w=models.get("AdEx").params["tau_w"].default)

    break_off()
    layer.state = kept
    assert_same(rest, layer.run(x[10:], EVERYTHING))
    break_off()
    with pytest.raises(RuntimeError, match="broke off"):
        copy.deepcopy(layer).step(x[0])
    layer.reset()
    assert_same(adex(backend).run(x, EVERYTHING), layer.run(x, EVERYTHING))


@pytest.mark.exhaustive(
    but=lambda varying, change, backend: not varying and (backend != "cpu" or change != "scope")
)
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("change", ["initial", "state", "threshold", "scope", "none"])
def test_a_potential_above_the_threshold_is_reset_only_where_it_spiked(
    backend: Backend, varying: bool, change: str
) -> None:
    """A spike's potential may wait in the state for its reset, and others that stand there as high may not."""
    threshold = np.linspace(0.8, 1.2, 60).reshape(SHAPE) if varying else 1.0
    x = np.random.default_rng(4).uniform(-1, 2, (12, 2, *SHAPE))
    runs = []
    for kind in (backend, "torch"):
        given = {"threshold": threshold, "resting_potential": -1.0, "v_reset": -0.5, "tau_rc": 0.004}
        neuron = models.LIF_Simple(**given, refractory_timesteps=1)
        initial = {"u": 1.5} if change == "initial" else None
        layer = Layer(neuron, SHAPE, 2, KWTA(1), kind, "float64", initial=initial)
        first = layer.run(x, ("spikes", "u", "winners"))
        if change == "state":
            layer.state = {**layer.state, "u": np.where(x[0] > 0, 1.5, 0.0)}
        elif change == "threshold":
            layer.set(threshold=threshold - 0.5)
        elif change == "scope":
            layer.inhibition = KWTA(2, "location", radius=1)
        last = first.u[-1]
        assert ((last > np.max(threshold) - 0.5) & (last < np.min(threshold))).any()
        second = layer.run(x, ("spikes", "u", "winners"))
        assert first.spikes.any()
        assert (second.u < first.u.max()).any()
        runs.append([first, second, Recording(dict(layer.state))])
    for own, other in zip(*runs, strict=True):
        assert_same(own, other)


def test_state_copies_are_the_users(backend: Backend) -> None:
    layer = adex(backend)
    state = layer.state
    np.asarray(state["u"])[...] = 99.0
    assert np.asarray(layer.state["u"]).max() < 99.0


def test_initial_values_and_reset() -> None:
    layer = Layer(models.Izhikevich(threshold=30.0, c=-65.0), (4,), backend="cpu", initial={"u": -63.0})
    np.testing.assert_allclose(layer.state["u"], np.full((1, 4), -63.0))
    np.testing.assert_allclose(layer.state["w"], np.full((1, 4), 0.2 * -63.0), rtol=1e-6)
    layer.run(np.full((10, 1, 4), 20.0))
    layer.reset(batch=2)
    np.testing.assert_allclose(layer.state["u"], np.full((2, 4), -63.0))
    with pytest.raises(ValueError, match="initial names 'v'"):
        Layer(models.LIF(threshold=1.0), (4,), initial={"v": 0.0})


def test_parameters_change_from_the_next_step_on() -> None:
    layer = Layer(models.IF(threshold=100.0), (2,), backend="cpu")
    x = np.full((1, 2), 281.0)
    assert not layer.step(x).spikes.any()
    layer.set(threshold=[1.5, 100.0])
    assert layer.step(x).spikes.tolist() == [[True, False]]
    with pytest.raises(ValueError, match="is not above"):
        layer.set(threshold=-1.0)
    np.testing.assert_array_equal(layer.parameters["threshold"], [1.5, 100.0])


def test_backend_is_a_contract() -> None:
    assert Layer(models.LIF(threshold=1.0), backend="auto").backend in ("cuda", "cpu")
    assert Layer(models.LIF(threshold=1.0), backend="torch").backend == "torch"
    with pytest.raises(
        KeyError, match=r"unknown backend 'gpu'.*allowed are auto, cpu, cuda, torch and torch_compiled"
    ):
        Layer(models.LIF(threshold=1.0), backend="gpu")
    if (why_not := backends.get("cuda").unavailable()) is not None:
        with pytest.raises(RuntimeError, match=r"backend 'cuda' cannot run here: .*install") as caught:
            Layer(models.LIF(threshold=1.0), backend="cuda")
        assert why_not in str(caught.value)


def test_many_threads_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from spyke_numba.backends.cpu import launch as cpu

    x = np.random.default_rng(0).uniform(0, 40, (12, 3, 5000)).astype(np.float32)

    def run(threads: int, inhibition: KWTA | None) -> Recording:
        layer = Layer(models.LIF(threshold=1.0), (5000,), 3, inhibition, "cpu", threads=threads)
        return layer.run(x, ("spikes", "u"))

    for inhibition in (None, KWTA(5)):
        expected = run(1, inhibition)
        assert expected.spikes.any()
        monkeypatch.setattr(cpu, "PARALLEL_NEURON_STEPS", 0)
        monkeypatch.setattr(cpu, "LARGEST_TILE", 512)
        monkeypatch.setattr(cpu, "SMALLEST_TILE", 64)
        assert_same(expected, run(4, inhibition))
        monkeypatch.undo()


@pytest.mark.sampled("scope shape", "shape k")
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("shape", [(23, 5, 7), (40, 2, 3), (3, 40, 50), (300,)], ids=str)
@pytest.mark.parametrize(("k", "radius"), [(1, 0), (4, 0), (4, 1), (40, 1)])
def test_threads_that_share_samples_give_the_same(
    scope: Scope, shape: tuple[int, ...], k: int, radius: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps in groups, one by one and in parts, on more threads than cores, with equal potentials in many maps."""
    from spyke_numba.backends.cpu import launch as cpu

    x = np.random.default_rng(0).integers(0, 4, (25, 2, *shape)).astype(np.float32)

    def run(threads: int) -> Recording:
        inhibition = KWTA(k, scope, radius)
        layer = Layer(models.LIF_Simple(threshold=5.0), shape, 2, inhibition, "cpu", threads=threads)
        return layer.run(x, ("spikes", "u", "refractory", "winners"))

    expected = run(1)
    assert (expected.winners[..., 0] >= 0).any()
    monkeypatch.setattr(cpu, "GROUP", 64)
    assert_same(expected, run(1))
    monkeypatch.setattr(cpu, "PARALLEL_NEURON_STEPS", 0)
    monkeypatch.setattr(cpu, "PARALLEL_NEURONS", 0)
    for _ in range(3):
        assert_same(expected, run(3))


def test_results_go_into_memory_that_is_given(backend: Backend) -> None:
    if backend.name == "cuda":
        pytest.skip("memory of the GPU is given as tensors on it")
    x = np.random.default_rng(0).uniform(0, 40, (8, 2, 3, 4, 5)).astype(np.float32)
    layer = Layer(models.LIF(threshold=1.0), inhibition=KWTA(2), backend=backend)
    names = ("spikes", "u", "winners")
    expected = layer.run(x, names)
    layer.reset()
    out = {name: np.empty_like(array) for name, array in expected.items()}
    again = layer.run(x, names, out=out)
    assert_same(expected, again)
    for name in names:
        assert np.shares_memory(again[name], out[name])
    layer.reset()
    given = torch.from_numpy(x)
    tensors = layer.run(given, names)
    address = tensors.u.data_ptr()
    tensors.u.zero_()
    layer.reset()
    assert layer.run(given, names, out=tensors).u.data_ptr() == address
    np.testing.assert_array_equal(tensors.u.numpy(), expected.u)


@pytest.mark.parametrize(
    ("out", "more", "message"),
    [
        ({}, {}, "it must name 'spikes'"),
        ({"spikes": np.empty((4, 1, 6), np.uint8)}, {}, r"is uint8 \(4, 1, 6\): give contiguous bool"),
        ({"spikes": np.empty((4, 6), bool)}, {}, r"give contiguous bool \(4, 1, 6\)"),
        ({"spikes": np.empty((4, 1, 12), bool)[..., ::2]}, {}, "not contiguous"),
        ({"spikes": np.broadcast_to(np.False_, (4, 1, 6)).copy()}, {"every": 2}, "every=1"),
        ({"spikes": np.empty((4, 1, 6), bool)}, {"record": ("spikes", "events")}, "events"),
    ],
)
def test_memory_that_does_not_fit_is_refused(out: Any, more: dict[str, Any], message: str) -> None:
    layer = Layer(models.LIF(threshold=1.0), (6,), 1, backend="cpu")
    before = layer.state["u"]
    with pytest.raises(ValueError, match=message):
        layer.run(np.ones((4, 1, 6), np.float32), out=out, **more)
    np.testing.assert_array_equal(layer.state["u"], before)


def test_read_only_memory_is_refused() -> None:
    spikes = np.empty((4, 1, 6), bool)
    spikes.flags.writeable = False
    for backend in ("cpu", "torch"):
        with pytest.raises(ValueError, match="read-only"):
            Layer(models.LIF(threshold=1.0), (6,), 1, backend=backend).run(
                np.ones((4, 1, 6), np.float32), out={"spikes": spikes}
            )


@pytest.mark.parametrize("as_tensors", [False, True])
def test_memory_that_is_in_use_is_refused(as_tensors: bool) -> None:
    memory = np.ones((9, 1, 6), np.float32)
    x, u, behind, w = memory[:4], memory[3:7], memory[4:8], np.ones((4, 1, 6), np.float32)
    spikes = np.empty((4, 1, 6), bool)
    if as_tensors:
        x, u, behind, w, spikes = map(torch.from_numpy, (x, u, behind, w, spikes))
    for backend in ("cpu", "torch"):
        layer = Layer(models.AdEx(threshold=1.0), (6,), 1, backend=backend)
        before = layer.state["u"]
        with pytest.raises(
            ValueError, match=r"^out\['u'\] shares memory with the input: give memory of its own"
        ):
            layer.run(x, ("spikes", "u"), out={"spikes": spikes, "u": u})
        with pytest.raises(ValueError, match="shares memory with out"):
            layer.run(x, ("u", "w"), out={"u": w, "w": w})
        np.testing.assert_array_equal(layer.state["u"], before)
        layer.run(x, ("u", "w"), out={"u": behind, "w": w})
    assert (memory[:4] == 1).all()


def kernel_of(layer: Layer) -> Any:
    """Return the kernel of the layer's only call so far."""
    (plan,) = layer._plans.values()
    return plan.bound[0]


def test_no_recompilation_for_another_size() -> None:
    """Another shape, batch, k, value or number of steps finds the same kernel."""
    kernels = set()
    for shape, batch, k, steps, threshold in (((3, 4, 5), 1, 1, 4, 1.0), ((2, 7, 3), 3, 5, 9, 2.0)):
        layer = Layer(models.LIF(threshold=threshold), shape, batch, KWTA(k), "cpu")
        layer.run(np.zeros((steps, batch, *shape)))
        run = kernel_of(layer)._kernel.run
        kernels.add(run)
        assert len(run.signatures) == 1
    assert layer._counted_by == "feature"
    assert len(kernels) == 1


WRONG_CALLS: list[tuple[str, Any, type[Exception], str]] = [
    ("run", (np.zeros((4, 2, 3, 4, 5)),), ValueError, r"layer takes \(T, 3, 3, 4, 5\): reset\(batch="),
    ("run", (np.zeros((4, 3, 3, 4, 6)),), ValueError, "has the shape"),
    ("run", (np.zeros(()),), ValueError, "has the shape"),
    ("step", (np.zeros((3, 4, 5)),), ValueError, "has the shape"),
    ("run", (np.zeros((1, 3, 3, 4, 5)), ("spike",)), ValueError, r"'spike' \(did you mean 'spikes'\?\)"),
    ("run", ("potentials",), TypeError, "array|block"),
    ("run", (object(),), TypeError, "give an array"),
    ("run", (np.zeros((1, 3, 3, 4, 5), complex),), TypeError, "give real numbers"),
    ("run", (np.array([["a"]]),), TypeError, "real numbers"),
]


@pytest.mark.parametrize(("method", "arguments", "error", "message"), WRONG_CALLS)
def test_a_refused_call_leaves_the_state(
    method: str, arguments: Any, error: type[Exception], message: str
) -> None:
    layer = adex()
    layer.run(input_for("AdEx", 3)[:5])
    before = layer.state
    with pytest.raises(error, match=message) as caught:
        getattr(layer, method)(*arguments)
    assert "\n" not in str(caught.value)
    for name, value in layer.state.items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Layer(models.LIF), TypeError, r"call it, as in LIF\(threshold=1.0\)"),
        (lambda: Layer("LIF"), TypeError, "give a model with its parameters"),  # type: ignore[arg-type]
        (
            lambda: Layer(models.LIF(threshold=1.0), (3, 4)),
            ValueError,
            r"shape is \(3, 4\): give \(F, H, W\)",
        ),
        (lambda: Layer(models.LIF(threshold=1.0), (3, 0, 1)), ValueError, "must be at least 1"),
        (lambda: Layer(models.LIF(threshold=1.0), (3,), batch=0), ValueError, "batch is 0"),
        (
            lambda: Layer(models.LIF(threshold=1.0), (3,), dtype="float16"),
            ValueError,
            "allowed are 'float32' and",
        ),
        (lambda: Layer(models.LIF(threshold=1.0), (3,), inhibition=5), TypeError, "give KWTA"),  # type: ignore[arg-type]
        (lambda: Layer(models.LIF(threshold=1.0), (3,), seed="x"), TypeError, "seed is 'x'"),  # type: ignore[arg-type]
        (lambda: KWTA(k=0), ValueError, "k of KWTA is 0: it must be at least 1"),
        (lambda: KWTA(k=1.5), TypeError, "whole number"),  # type: ignore[arg-type]
        (lambda: KWTA(radius=-1), ValueError, "radius of KWTA is -1"),
        (lambda: KWTA(scope="map"), ValueError, "allowed are 'feature', 'location', 'global'"),  # type: ignore[arg-type]
        (lambda: Layer(models.LIF(threshold=1.0)).state, RuntimeError, "no shape yet"),
    ],
)
def test_a_wrong_layer_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_what_was_not_recorded_is_named() -> None:
    recording = adex().run(input_for("AdEx", 3))
    with pytest.raises(AttributeError, match="'u' was not recorded: recorded are spikes"):
        _ = recording.u
    with pytest.raises(ValueError, match="no inhibition"):
        adex().run(input_for("AdEx", 3), ("winners",), inhibition=None)


@pytest.mark.parametrize("name", models.names())
def test_a_program_made_from_a_neuron_is_the_layers(name: str) -> None:
    for varying in (False, True):
        neuron = neuron_of(models.get(name), varying)
        layer = Layer(neuron, SHAPE, inhibition=KWTA(1), backend="torch")
        layer.step(input_for(name, 1)[0])
        assert kernel_of(layer).program == Program.of(neuron, inhibition="feature")


def test_copies_and_pickles_go_on_alike(backend: Backend) -> None:
    x = input_for("AdEx", 3)
    layer = adex(backend)
    layer.run(x[:8])
    copied = copy.deepcopy(layer)
    expected = layer.run(x[8:], EVERYTHING)
    assert_same(expected, copied.run(x[8:], EVERYTHING))
    if backend is backends.get(backend.name):
        again = adex(backend)
        again.run(x[:8])
        assert_same(expected, pickle.loads(pickle.dumps(again)).run(x[8:], EVERYTHING))


def test_the_layer_lets_go_of_its_input() -> None:
    layer = adex()
    x = input_for("AdEx", 3).astype(np.float32)
    held = sys.getrefcount(x)
    layer.run(x)
    assert sys.getrefcount(x) == held
    tensor = torch.from_numpy(x)
    layer.run(tensor)
    assert sys.getrefcount(tensor) == 2
    assert isinstance(layer.state["u"], torch.Tensor)
    layer.run(x)
    assert isinstance(layer.state["u"], np.ndarray)


def test_everything_moves_with_the_input_after_a_reset() -> None:
    class TwoPlaces(TorchBackend):
        def place(self, x: Any) -> str:
            return "there" if isinstance(x, torch.Tensor) else "here"

    layer = adex(TwoPlaces())
    x = input_for("AdEx", 3)
    layer.run(x)
    here = layer._constants
    layer.reset()
    layer.run(torch.from_numpy(x))
    assert layer._place == "there"
    assert all(new is not old for new, old in zip(layer._constants, here, strict=True))


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("with_batch", [True, False])
def test_states_after_every_few_steps(backend: Backend, kind: str, with_batch: bool) -> None:
    """They are those of a run that records each step, and spikes are recorded at each."""
    x = input_for("AdEx", 1).astype(np.float32)
    x = x if with_batch else x[:, 0]
    x = torch.from_numpy(x) if kind == "torch" else x

    def layer() -> Layer:
        return Layer(models.AdEx(threshold=1.0), SHAPE, inhibition=KWTA(2), backend=backend)

    record = ("spikes", "w", "refractory", "u", "winners")
    full = layer().run(x, record)
    for every in (1, 5, 24, 25):
        few = layer().run(x, record, every=every)
        assert few.names == record
        for name in record:
            kept = full[name] if name in ("spikes", "winners") else full[name][every - 1 :: every]
            assert few[name].dtype == full[name].dtype
            np.testing.assert_array_equal(few[name], kept, f"{name} every {every}")
    constant = layer().run(x[0], ("u",), steps=12, every=4).u
    np.testing.assert_array_equal(constant, layer().run(x[0], ("u",), steps=12).u[3::4])
    blocks = layer().run((x[t : t + 10] for t in range(0, 24, 10)), ("u", "events"), every=5)
    np.testing.assert_array_equal(blocks.u, full.u[4::5])
    np.testing.assert_array_equal(blocks.events, layer().run(x, ("events",)).events)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_spikes_in_other_forms(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = input_for("LIF", 3)
    x = torch.from_numpy(x) if kind == "torch" else x
    layer = Layer(models.LIF(threshold=1.0), SHAPE, backend="cpu")
    spikes = np.asarray(layer.run(x).spikes).reshape(24, 3, 60)
    for most in (2**23, 400):
        monkeypatch.setattr("spyke_numba.layer.layer._SPIKE_BYTES", most)
        layer.reset()
        run = layer.run(x, ("events", "packed_spikes"))
        assert type(run.events) is type(x)
        assert run.names == ("events", "packed_spikes")
        np.testing.assert_array_equal(run.events, np.argwhere(spikes))
        np.testing.assert_array_equal(np.unpackbits(np.asarray(run.packed_spikes), axis=-1, count=60), spikes)
    single = Layer(models.LIF(threshold=1.0), SHAPE, backend="cpu").run(x[:, 0], ("events", "packed_spikes"))
    assert single.packed_spikes.shape == (24, 8)
    np.testing.assert_array_equal(single.events[:, 2], np.argwhere(spikes[:, :1])[:, 2])


def test_blocks_that_break_the_count_are_refused() -> None:
    layer = Layer(models.LIF(threshold=1.0), (3,), backend="cpu")
    with pytest.raises(ValueError, match=r"ended after step 3, but every=2: give blocks of a multiple of 2"):
        layer.run((np.zeros((3, 1, 3)) for _ in range(2)), ("u",), every=2)
    with pytest.raises(RuntimeError, match="broke off"):
        layer.step(np.zeros(3))
    layer.reset()
    with pytest.raises(ValueError, match="every"):
        layer.run(np.zeros((3, 1, 3)), ("u",), every=0)
    with pytest.raises(ValueError, match="has the shape"):
        layer.run(np.zeros(()), ("events",))


def test_without_refractoriness_only_a_state_that_is_held_is_held(backend: Backend) -> None:
    x = input_for("LIF", 1)
    neuron = models.LIF(threshold=1.0, refractory_timesteps=0)

    def layer(kind: Backend) -> Layer:
        return Layer(neuron, SHAPE, 1, backend=kind, dtype="float64")

    expected = reference.simulate("LIF", {"threshold": 1.0, "refractory_timesteps": 0}, x)
    run = layer(backend).run(x, ("spikes", "refractory"))
    np.testing.assert_array_equal(run.spikes, expected["spikes"])
    assert not np.asarray(run.refractory).any()
    held = layer(backend)
    held.run(x[:0])
    held.state = {**held.state, "refractory": np.full((1, *SHAPE), 3, np.int32)}
    after = held.run(x, ("spikes", "refractory"))
    assert not np.asarray(after.spikes[:3]).any()
    assert np.asarray(after.refractory)[:4].max(axis=(1, 2, 3, 4)).tolist() == [2, 1, 0, 0]
    counters = np.full((1, *SHAPE), 3)
    expected = reference.simulate(
        "LIF", {"threshold": 1.0, "refractory_timesteps": 0}, x, initial={"refractory": counters}
    )
    np.testing.assert_array_equal(after.spikes, expected["spikes"])


@pytest.mark.parametrize(
    ("shape", "radius", "most"),
    [
        ((30, 4, 5), 0, 7),
        ((5, 4, 5), 0, 5),
        ((30, 4, 5), 1, 6),
        ((30, 4, 5), 2, 4),
        ((30, 1, 9), 4, 2),
        ((30,), 1, 1),
    ],
)
def test_as_many_win_as_can(backend: Backend, shape: tuple[int, ...], radius: int, most: int) -> None:
    """Where one neuron of each map spikes, on places as close as the radius allows, their number is reached."""
    inhibition = KWTA(k=7, radius=radius)
    F, H, W = shape if len(shape) == 3 else (*shape, 1, 1)
    assert inhibition.most(F, H, W) == most
    places = [(row, column) for row in range(0, H, radius + 1) for column in range(0, W, radius + 1)]
    x = np.zeros((1, 1, F, H, W))
    for f in range(F):
        x[(0, 0, f, *places[f % len(places)])] = 3000 - f
    recording = Layer(models.LIF(threshold=1.0), shape, 1, inhibition, backend).run(
        x.reshape(1, 1, *shape), ("spikes", "winners")
    )
    assert recording.spikes.sum() == F
    winners = np.asarray(recording.winners)[0, 0]
    assert winners.shape == (7, 3)
    assert [tuple(winner) for winner in winners[:most]] == [
        (f, *places[f % len(places)]) for f in range(most)
    ]
    assert (winners[most:] == -1).all()


def test_neurons_of_a_population_that_exclude_each_other_are_not_tried_one_by_one() -> None:
    N = 1_000_000
    layer = Layer(models.LIF(threshold=1.0), (N,), 1, KWTA(k=5, radius=1), "cpu")
    started = time.perf_counter()
    recording = layer.run(np.full((1, 1, N), 3000.0, np.float32), ("spikes", "winners"))
    assert recording.spikes.all()
    assert recording.winners[0, 0].tolist() == [[0, 0, 0], *[[-1, -1, -1]] * 4]
    # a million looks at a million keys take a minute
    assert time.perf_counter() - started < 20


def test_more_steps_than_counters_hold(backend: Backend) -> None:
    layer = Layer(models.LIF(threshold=1.0), (3,), backend=backend)
    with pytest.raises(ValueError, match=r"steps is 1073741824: give at most 1073741823 at once"):
        layer.run(np.zeros((1, 3)), steps=2**30)
    assert layer.run(np.zeros((1, 3)), steps=2).spikes.shape == (2, 1, 3)


@pytest.mark.sampled("backend scope", "backend uniform order")
@pytest.mark.parametrize(
    ("scope", "expected"),
    [("feature", [[3, 3], [1, 1]]), ("location", [[3, 8], [3, 8]]), ("global", [[3, 3], [3, 3]])],
)
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("uniform", [False, True])
def test_winners_hold_their_set_for_their_period_whatever_held_it_before(
    backend: Backend, scope: Scope, expected: list[list[int]], order: int, uniform: bool
) -> None:
    """Of the periods of a step's winners a set takes the longest, but an earlier hold is over."""
    periods: Any = 3 if uniform else np.array([3, 1]).reshape(2, 1, 1)
    neuron = models.LIF_Simple(threshold=1.0, refractory_timesteps=periods)
    layer = Layer(neuron, (2, 1, 2), 1, KWTA(2, scope), backend)
    layer.reset()
    layer.state = {**layer.state, "refractory": np.array([0, 9, 0, 9]).reshape(1, 2, 1, 2)}
    x = np.array([3.0, 0.0, 3.0 + order, 0.0]).reshape(1, 1, 2, 1, 2)
    recording = layer.run(x, ("spikes", "refractory", "winners"))
    assert np.asarray(recording.winners)[0, 0, :, 0].tolist() == ([1, 0] if order > 0 else [0, 1])
    if uniform:
        expected = [[3 if value == 1 else value for value in row] for row in expected]
    assert np.asarray(recording.refractory).reshape(2, 2).tolist() == expected
    assert layer.state["refractory"].reshape(2, 2).tolist() == expected


def test_a_winner_that_stands_behind_all_maps_best(backend: Backend) -> None:
    """Every map's best lies near the first winner; the second is the best of what they have elsewhere."""
    F = 300
    x = np.zeros((1, 1, F, 1, 4))
    x[0, 0, :, 0, 0] = 5 - 0.01 * np.arange(F)
    x[0, 0, :, 0, 3] = 1.5 + 0.001 * np.arange(F)
    layer = Layer(models.LIF_Simple(threshold=1.0), (F, 1, 4), 1, KWTA(3, radius=1), backend)
    winners = np.asarray(layer.run(x, ("winners",)).winners)[0, 0]
    assert winners.tolist() == [[0, 0, 0], [F - 1, 0, 3], [-1, -1, -1]]


@pytest.mark.parametrize("record", [("spikes", "packed_spikes"), ("spikes", "u", "refractory")])
def test_records_of_pieces_are_in_memory_once(record: tuple[str, ...]) -> None:
    layer = Layer(models.LIF(threshold=1.0), (50_000,), backend="cpu")
    every = 10 if "u" in record else 1
    tracemalloc.start()
    try:
        run = layer.run(np.full((1, 50_000), 30.0, np.float32), record, steps=1200, every=every)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = sum(run[name].nbytes for name in record)
    assert size > 60e6
    assert peak < size + 25e6
