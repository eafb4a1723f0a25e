"""What a layer refuses: one sentence that helps, and the layer stays as it was."""

from __future__ import annotations

import copy
import pickle
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from spyke_numba import KWTA, Layer, Recording, models, neurons
from spyke_numba.backends import Backend
from spyke_numba.layer import layer as layer_module

SHAPE = (2, 3, 4)
X = np.full((5, 1, *SHAPE), 0.4, np.float32)
U = np.zeros((1, *SHAPE), np.float32)
HELD = np.zeros((1, *SHAPE), np.int32)


def lif(**settings: Any) -> Layer:
    neuron = models.LIF_Simple(threshold=1.0)
    return Layer(**{"neuron": neuron, "shape": SHAPE, "batch": 1, "backend": "cpu", **settings})


def refused_by(call: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the caller looks at it
        call()
    sentence = caught.value.args[0]
    assert "\n" not in sentence
    return caught.value


class Slow:
    """An input that takes as long as the test wants, or fails."""

    def __init__(self, array: np.ndarray, error: BaseException | None = None):
        self.array, self.error = array, error
        self.shape, self.dtype = array.shape, array.dtype
        self.asked, self.answer = threading.Event(), threading.Event()

    def __getitem__(self, steps: slice) -> Slow:
        return self

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        self.asked.set()
        if self.error is not None:
            raise self.error
        assert self.answer.wait(30)
        return self.array


def in_another_thread(call: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


# -- one layer, two threads


@pytest.mark.parametrize(
    "use",
    [
        lambda layer: layer.step(X[0]),
        lambda layer: layer.run(X),
        lambda layer: layer.run(X, ("events",)),
        lambda layer: list(layer.stream(X)),
        lambda layer: layer.reset(),
        lambda layer: layer.reset(batch=2),
        lambda layer: layer.set(threshold=2.0),
        lambda layer: layer.state,
        lambda layer: layer.last_thresholded,
        lambda layer: setattr(layer, "state", {"u": U, "refractory": HELD}),
        copy.deepcopy,
        pickle.dumps,
    ],
)
def test_a_layer_that_runs_in_another_thread_is_refused(use: Any) -> None:
    layer, expected = lif(inhibition=KWTA(2)), lif(inhibition=KWTA(2))
    layer.step(X[0])
    expected.step(X[0])
    slow, results = Slow(X), []
    thread = in_another_thread(lambda: results.append(layer.run(slow, ("spikes", "u"))))
    try:
        assert slow.asked.wait(30)
        error = refused_by(lambda: use(layer))
    finally:
        slow.answer.set()
        thread.join()
    assert isinstance(error, RuntimeError)
    assert str(error) == "the layer is running in another thread: give each thread a layer of its own"
    # the run of the other thread is whole, and the layer then everybody's
    np.testing.assert_array_equal(results[0].u, expected.run(X, ("u",)).u)
    np.testing.assert_array_equal(layer.run(X).spikes, expected.run(X).spikes)
    use(layer)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), MemoryError()])
def test_a_call_that_raised_leaves_the_layer_to_other_threads(error: BaseException) -> None:
    layer, results = lif(), []
    for call in (
        lambda: layer.run(Slow(X, error)),
        lambda: layer.run(Slow(X, error), ("events",)),
        lambda: layer.step(X),
        lambda: layer.set(threshold=-1.0),
        lambda: layer.reset(batch=0),
    ):
        with pytest.raises((type(error), ValueError)):
            call()
    in_another_thread(lambda: results.append(layer.run(X))).join()
    assert len(results) == 1


def test_copies_have_a_lock_of_their_own() -> None:
    layer = lif()
    layer.run(X)
    slow = Slow(X)
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    thread = in_another_thread(lambda: layer.run(slow))
    try:
        assert slow.asked.wait(30)
        assert all(other.run(X).spikes.any() for other in copies)
    finally:
        slow.answer.set()
        thread.join()


def test_blocks_may_come_from_a_generator_that_looks_at_the_layer() -> None:
    layer, seen = lif(), []

    def blocks() -> Any:
        for t in range(0, 4, 2):
            seen.append(layer.state["u"].max())
            yield X[t : t + 2]

    layer.run(blocks(), ("events",))
    assert seen[0] == 0 < seen[1]


# -- a first call that is refused


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize(
    "call",
    [
        lambda layer: layer.run(np.ones((5, 3, 7)), out={"spikes": np.empty(3, bool)}),
        lambda layer: layer.run(Slow(np.ones((5, 3, 7)), MemoryError())),
        lambda layer: layer.run(np.ones((3, 100_000), np.float32), steps=2**30 - 1),
        lambda layer: layer.run(
            np.ones((3, 100_000), np.float32), ("u", "spikes"), steps=2**30 - 1, every=2**29
        ),
        lambda layer: layer.step(Slow(np.ones((3, 7)), KeyboardInterrupt())),
    ],
)
def test_a_refused_first_call_fixes_nothing(call: Any, batch: int | None) -> None:
    layer = lif(shape=None, batch=batch)
    with pytest.raises((ValueError, MemoryError, KeyboardInterrupt)):
        call(layer)
    assert (layer.shape, layer.batch) == (None, batch)
    with pytest.raises(RuntimeError, match="no shape yet"):
        _ = layer.parameters
    x = np.full((5, batch or 1, 4, 1, 1), 0.4, np.float32)
    expected = lif(shape=(4, 1, 1), batch=batch).run(x, ("u", "spikes"))
    np.testing.assert_array_equal(layer.run(x, ("u", "spikes")).u, expected.u)


def test_a_later_call_that_is_refused_leaves_the_state() -> None:
    layer = lif()
    layer.run(X[:2])
    before = layer.state["u"]
    with pytest.raises(ValueError, match="no"):
        layer.run(Slow(X, ValueError("no")))
    np.testing.assert_array_equal(layer.state["u"], before)
    assert before.any()


def test_a_refused_first_call_of_a_drop_in_fixes_nothing() -> None:
    for call in ("__call__", "run"):
        neuron = neurons.LIF(1.0, backend="cpu")
        shape = (2, 3, 4, 5) if call == "__call__" else (6, 2, 3, 4, 5)
        with pytest.raises(TypeError, match="give real numbers"):
            getattr(neuron, call)(torch.zeros(shape, dtype=torch.complex64))
        assert neuron.layer is None and neuron.previous_state is None
        neuron(torch.zeros(1, 2, 2, 2, dtype=torch.float64))
        assert neuron.layer.batch == 1 and neuron.layer.dtype == "float64"


# -- calls that are remembered


def test_calls_of_many_lengths_are_remembered_and_the_oldest_forgotten() -> None:
    layer = lif()
    most = layer_module._MOST_PLANS
    for steps in range(1, most + 4):
        layer.run(X[0], steps=steps)
    assert [plan.call.steps for plan in layer._plans.values()] == list(range(4, most + 4))
    assert most >= 200 and all(plan.bound is not None for plan in layer._plans.values())


def test_a_large_layer_remembers_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_module, "_LARGE", 23)
    layer = lif()
    for steps in range(1, 41):
        layer.run(X[0], steps=steps)
    assert [plan.call.steps for plan in layer._plans.values()] == list(range(9, 41))


# -- sentences

WRONG_CALLS: list[tuple[Callable[[Layer], Any], type[Exception], str]] = [
    (
        lambda it: it.run(X, "spikes"),
        TypeError,
        "record is 'spikes': give a tuple of names, such as ('spikes',)",
    ),
    (lambda it: it.step(X[0], "u"), TypeError, "record is 'u': give a tuple of names, such as ('u',)"),
    (lambda it: list(it.stream(X, "u")), TypeError, "record is 'u': give a tuple of names, such as ('u',)"),
    (lambda it: it.run(X, None), TypeError, "record is None: give a tuple of names, such as ('spikes', 'u')"),
    (lambda it: it.run(X, [1]), TypeError, "record names 1: give a tuple of names, such as ('spikes', 'u')"),
    (
        lambda it: it.step(X[0], [1]),
        TypeError,
        "record names 1: give a tuple of names, such as ('spikes', 'u')",
    ),
    (lambda it: it.step(X[0], (1,)), TypeError, "record names 1: give names, of events, "),
    (
        lambda it: list(it.stream(3)),
        ValueError,
        "the input has the shape (), but the layer takes (T, 1, 2, 3, 4)",
    ),
    (
        lambda it: list(it.stream(np.float32(3))),
        ValueError,
        "the input has the shape (), but the layer takes (T, 1, 2, 3, 4)",
    ),
    (lambda it: list(it.stream(object())), TypeError, "the input is object: give an array, a tensor or an"),
    (
        lambda it: list(it.stream([[1], [1, 2]])),
        TypeError,
        "the input is list: give an array or a tensor of numbers",
    ),
    (
        lambda it: it.run(X, out={"spikes": [1]}),
        TypeError,
        "out['spikes'] is a list: give contiguous bool (5, 1, 2, 3, 4)",
    ),
    (
        lambda it: it.run(X, out=np.empty(X.shape, bool)),  # type: ignore[arg-type]
        TypeError,
        "out is a ndarray: give a mapping of what is recorded to its memory",
    ),
    (
        lambda it: it.run(X, ("spikes", "u"), out={"spikes": np.empty(X.shape, bool), "U": X.copy()}),
        ValueError,
        "out names 'U', which is not recorded: it must name spikes and u alone",
    ),
    (
        lambda it: it.run(X, out={"spikes": np.empty(X.shape, bool), "spike": X.copy()}),
        ValueError,
        "out names 'spike' (did you mean 'spikes'?), which is not recorded: it must name spikes alone",
    ),
    (
        lambda it: it.run(np.ones((5, 2, *SHAPE))),
        ValueError,
        "takes (T, 1, 2, 3, 4): reset(batch=...) changes the",
    ),
    (
        lambda it: it.run(X[0], steps=2**30),
        ValueError,
        "steps is 1073741824: give",
    ),
    (
        lambda it: it.run(np.zeros(X.shape, "V4")),
        TypeError,
        "the input holds |V4: give real numbers or booleans",
    ),
    (
        lambda it: it.run(np.zeros(X.shape, [("a", "f4")])),
        TypeError,
        "the input holds [('a', '<f4')]: give real numbers or booleans",
    ),
    (
        lambda it: it.run(np.ma.masked_array(X, X > 0)),
        TypeError,
        "the input is a masked array: give numbers for what is masked, such as x.filled(0)",
    ),
    (
        lambda it: it.step(torch.quantize_per_tensor(torch.zeros(SHAPE), 0.1, 0, torch.quint8)),
        TypeError,
        "the input holds quint8: give real numbers or booleans",
    ),
    (
        lambda _: lif(shape=(10**5,)).run(np.ones((1, 10**5)), ("spikes", "u"), steps=2**30 - 1),
        MemoryError,
        "the record 'u' of (1073741823, 1, 100000) takes 4e+05 GiB, which is more than there is: "
        "record less, states with every=, or block by block with stream",
    ),
]


@pytest.mark.parametrize(("call", "error", "sentence"), WRONG_CALLS)
def test_a_wrong_call_says_what_to_do(call: Any, error: type[Exception], sentence: str) -> None:
    layer = lif()
    layer.run(X[:2])
    before = layer.state["u"]
    caught = refused_by(lambda: call(layer))
    assert type(caught) is error
    assert sentence in str(caught)
    np.testing.assert_array_equal(layer.state["u"], before)
    assert before.any()


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.parametrize("layout", ["sparse_coo", "sparse_csr"])
def test_a_sparse_tensor_is_refused_after_a_dense_one_too(backend: Backend, layout: str) -> None:
    layer = lif(shape=(7,), backend=backend)
    dense = torch.full((1, 7), 0.4)
    layer.step(dense)
    before = layer.state["u"]
    caught = refused_by(lambda: layer.step(dense.to_sparse(layout=getattr(torch, layout))))
    assert type(caught) is TypeError
    assert str(caught) == f"the input is a tensor of the layout {layout}: give x.to_dense()"
    assert torch.equal(layer.state["u"], before)


def test_reset_is_proposed_only_where_it_helps() -> None:
    for x in (np.ones((5, 2, 2, 3, 5)), np.ones((5, 1, 3, 3, 4)), np.ones((5, 0, *SHAPE)), np.ones(SHAPE)):
        with pytest.raises(ValueError, match=r"the layer takes \(T, 1, 2, 3, 4\)$"):
            lif().run(x)


@pytest.mark.parametrize(
    ("state", "error", "sentence"),
    [
        ([1, 2], TypeError, "the state is a list: give a mapping that names refractory and u"),
        (None, TypeError, "the state is a NoneType: give a mapping that names refractory and u"),
        ({1: U}, ValueError, "the state names 1: it must name refractory and u"),
        (
            {"u": U[:0], "refractory": HELD[:0]},
            ValueError,
            "u of the state has the shape (0, 2, 3, 4): it must be (B, *(2, 3, 4)), B at least 1",
        ),
        ({"u": U.astype(str), "refractory": HELD}, TypeError, "u of the state holds <U"),
        ({"u": U.astype(object), "refractory": HELD}, TypeError, "u of the state holds object: give real"),
        ({"u": U + 1j, "refractory": HELD}, TypeError, "u of the state holds complex64: give real numbers"),
        ({"u": U, "refractory": HELD + 0j}, TypeError, "refractory of the state holds complex128: give real"),
        ({"u": [[1], [1, 2]], "refractory": HELD}, TypeError, "u of the state is list: give an array or a"),
        (
            {"u": U, "refractory": HELD * np.nan},
            ValueError,
            "refractory of the state must hold whole numbers",
        ),
    ],
)
def test_a_wrong_state_says_what_to_do(state: Any, error: type[Exception], sentence: str) -> None:
    layer = lif()
    layer.run(X[:2])
    before = layer.state["u"]
    with pytest.raises(error, match=re.escape(sentence)) as caught:
        layer.state = state
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(layer.state["u"], before)
    assert before.any()


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: lif(shape=3.0), TypeError, "a size in shape is 3.0: give a whole number of at least 1"),
        (lambda: lif(initial=1.0), TypeError, "initial is 1.0: give states by name, such as {'u': 0.5}"),
        (lambda: lif(initial=np.ones(3)), TypeError, "give states by name"),
        (
            lambda: lif(initial={"u": 1e300}),
            ValueError,
            "initial u is not finite in float32: give finite numbers",
        ),
        (lambda: lif(initial={"u": [0, 0, 0, -1e39]}), ValueError, "initial u is not finite in float32"),
        (
            lambda: Layer(models.LIF(threshold=1 + 1e-9, resting_potential=1.0), (3,)),
            ValueError,
            "threshold 1 of LIF is equal to resting_potential in float32: "
            "raise the threshold, lower the resting potential or use float64",
        ),
        (
            lambda: lif(neuron=models.LIF(threshold=[3, 1, 2, 4], floor=[0, 1, 0, 0])),
            ValueError,
            "threshold 1..4 of LIF is not above floor 0..1: raise the threshold or lower the floor",
        ),
        (
            lambda: lif(neuron=models.LIF(threshold=1 + 1e-9, floor=1.0)),
            ValueError,
            "threshold 1 of LIF is equal to floor in float32: raise the threshold, lower the floor or use float64",
        ),
        (
            lambda: lif(neuron=models.LIF_Simple(threshold=[1, 1e39, 1, 1])),
            ValueError,
            "threshold of LIF_Simple is 1e+39, which is inf in float32: give a number that it holds, or use float64",
        ),
        (
            lambda: lif(neuron=models.LIF(threshold=1, C=1e-46)),
            ValueError,
            "C of LIF is 1e-46, which is 0 in float32: give a number that it holds, or use float64",
        ),
        (
            lambda: lif(neuron=models.LIF(threshold=1, C=1e-44)),
            ValueError,
            "gain of LIF is 1e+41, which is inf in float32: check C, exact_input, tau_rc and ts, "
            "from which it is computed, or use float64",
        ),
        (lambda: neurons.UniformLIF(1.0, 0.1), ValueError, "tau_range is 0.1: give two numbers of seconds"),
        (lambda: neurons.UniformEIF(1.0, (1, 2, 3)), ValueError, "tau_range is (1, 2, 3): give two numbers"),
        (
            lambda: neurons.UniformQIF(1.0, ("a", "b")),
            ValueError,
            "tau_range is ('a', 'b'): give two numbers",
        ),
        (
            lambda: neurons.LIF(1.0, backend="cudaa"),
            KeyError,
            "unknown backend 'cudaa' (did you mean 'cuda'?)",
        ),
        (lambda: neurons.LIF(1.0, seed=-1), ValueError, "seed is -1: it must be at least 0"),
        (
            lambda: neurons.LIF(per_neuron_thresh=torch.ones(2, *SHAPE)),
            ValueError,
            "the threshold of LIF has the shape (2, 2, 3, 4): give a number or (1, F, H, W), which all samples share",
        ),
        (
            lambda: neurons.LIF(torch.ones(2, *SHAPE)),
            ValueError,
            "the threshold of LIF has the shape (2, 2, 3",
        ),
        (
            lambda: neurons.LIF(torch.ones(1, 1, *SHAPE)),
            ValueError,
            "the threshold of LIF has the shape (1, 1",
        ),
    ],
)
def test_a_wrong_layer_says_what_to_do(make: Any, error: type[Exception], sentence: str) -> None:
    caught = refused_by(make)
    assert type(caught) is error
    assert sentence in str(caught.args[0])


def test_what_a_precision_can_tell_apart_is_taken() -> None:
    neuron = models.LIF(threshold=1 + 1e-9, resting_potential=1.0)
    assert not Layer(neuron, (3,), dtype="float64").run(np.zeros((5, 3))).spikes.any()
    assert lif(dtype="float64", initial={"u": -1e300}).state["u"].max() == -1e300
    layer = Layer(models.LIF(threshold=2.0, resting_potential=1.0), (3,))
    with pytest.raises(ValueError, match="in float32"):
        layer.set(threshold=1 + 1e-9)
    assert layer.parameters["threshold"] == 2.0


def test_what_was_not_recorded_is_named_by_item_too() -> None:
    recording = lif().run(X)
    sentence = "'u' was not recorded: recorded are spikes; name it in record="
    for call in (lambda: recording["u"], lambda: recording.u):
        assert refused_by(call).args[0] == sentence
    assert "u" not in recording and "spikes" in recording and recording.get("u") is None


def test_thresholds_of_all_samples_are_shared() -> None:
    thresholds = torch.ones(1, *SHAPE)
    thresholds[0, 1] = 50.0
    neuron = neurons.LIF_Simple(per_neuron_thresh=thresholds, backend="cpu")
    spikes = neuron(torch.full((2, *SHAPE), 10.0), n_winners=2)[0]
    assert spikes[:, 0].any() and not spikes[:, 1].any()
    with pytest.raises(ValueError, match=r"has the shape \(2, 2, 3, 4\)"):
        neuron.per_neuron_thresh = torch.ones(2, *SHAPE)
    assert neuron.per_neuron_thresh is thresholds


def test_none_is_as_if_not_given() -> None:
    neuron = neurons.LIF(1.0, ts=None, tau_rc=None, backend="cpu")
    assert (neuron.ts, neuron.tau_rc, neuron.v_reset) == (0.001, 0.02, 0.0)
    neuron.ts = 0.002
    neuron.ts = None
    neuron(torch.zeros(1, *SHAPE))
    assert neuron.layer.parameters["ts"] == 0.001
    assert float(neuron.time_since_spike.max()) == pytest.approx(0.001)


# -- lists of blocks


def test_a_list_of_blocks_is_streamed_block_by_block() -> None:
    expected = lif().run(X, ("spikes", "u"))
    for blocks in ([X[:2], X[2:]], (X[:2], X[2:]), [torch.from_numpy(X[:2]), torch.from_numpy(X[2:])]):
        recordings = list(lif().stream(blocks, ("spikes", "u")))
        assert [len(recording.u) for recording in recordings] == [2, 3]
        joined = Recording.joined(recordings)
        np.testing.assert_array_equal(joined.u, expected.u)
    numbers = list(lif().stream(X.tolist(), ("u",)))
    np.testing.assert_array_equal(numbers[0].u, expected.u)
    assert list(lif().stream([])) == []
