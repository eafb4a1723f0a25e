"""The drop-in neurons: the recorded trajectories, spike for spike, and what a call takes and gives."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import golden_cases
import numpy as np
import pytest
import torch
from emulated import EMULATED

from spyke_numba import Layer, backends, models, neurons
from spyke_numba.backends import Backend

SHAPE = (1, 3, 4, 5)


def inputs(steps: int, scale: float, seed: int = 0, batch: int = 1) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield torch.rand((batch, *SHAPE[1:]), generator=generator) * scale


#: Inputs at which each class spikes a good deal with a threshold of 10.
DRIVE = dict.fromkeys(neurons.CLASSES, 900.0) | {"Izhikevich": 40.0, "AdEx": 2500.0}
DRIVE |= {"LIF_Simple": 3.0, "EIF_Simple": 3.0}
CLASSES = [name for name in neurons.CLASSES if name not in ("Neuron", "HeterogeneousNeuron")]


def made(name: str, **more: Any) -> Any:
    """Return a neuron of a class, on the cpu if no backend is given."""
    given = {"threshold": 10.0, "backend": "cpu"}
    if name.startswith("Uniform"):
        given["tau_range"] = (0.01, 0.03)
    return getattr(neurons, name)(**{**given, **more})


@pytest.fixture(params=["torch", pytest.param("cpu", marks=pytest.mark.exhaustive)])
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return what makes a neuron: on the backend that compiles nothing, and with --exhaustive on the cpu too."""
    return partial(made, backend=request.param)


def ordered(backend: Backend) -> dict[str, bool]:
    """Ask for the exact order where there is no other."""
    return {} if backend.any_order else {"exact_order": True}


def _first_of_each(name: str, backend: str) -> bool:
    """All of them where nothing is compiled, and one of each model, the next for the next, elsewhere."""
    model, _, number = name.rpartition("_")
    return backend == "torch" or int(number) == models.names().index(model) % 5


@pytest.mark.exhaustive(but=_first_of_each)
@pytest.mark.parametrize("name", golden_cases.NAMES)
def test_recorded_trajectories(name: str, backend: Backend) -> None:
    case = golden_cases.load(name)
    recorded, model = case.arrays, case.model
    params = dict(case.params)
    if case.threshold_map is not None:
        argument = "per_neuron_threshold" if model == "LIF_Simple" else "per_neuron_thresh"
        params[argument] = torch.as_tensor(case.threshold_map)
    if model not in ("AdEx", "Izhikevich"):
        params["inhibition_mode"] = case.inhibition_mode
    neuron = getattr(neurons, model)(**params, backend=backend, **ordered(backend))
    flags = {"return_winning_spikes": True} if "winning_spikes" in recorded else {}
    for t, potentials in enumerate(torch.as_tensor(case.input)):
        spikes, thresholded, state, dudt, winners, *winning = neuron(
            potentials,
            return_thresholded_potentials=True,
            return_dudt=True,
            n_winners=case.n_winners,
            **flags,
        )
        assert winners == case.winners(t)
        counters = np.rint(np.asarray(neuron.refractory_periods) / params["ts"])
        exact = {"spikes": spikes, "refractory_steps": counters}
        close = {"thresholded": thresholded, "state": state, "dudt": dudt}
        if winning:
            exact["winning_spikes"] = winning[0]
        if "w" in recorded:
            close["w"] = neuron.w
        for key, value in exact.items():
            np.testing.assert_array_equal(value, recorded[key][t], f"{key} at step {t}")
        for key, value in close.items():
            np.testing.assert_allclose(
                value, recorded[key][t], case.tolerance, case.tolerance, err_msg=f"{key} at step {t}"
            )


def test_the_recordings_hold_winners_and_losers() -> None:
    cases = [golden_cases.load(name) for name in golden_cases.NAMES]
    assert len(cases) == 45
    assert all(len(case.arrays["winners"]) > 0 for case in cases)
    assert sum((case.arrays["spikes"] > 0).sum() > 2 * len(case.arrays["winners"]) for case in cases) > 20


def _beside_the_recorded(name: str, backend: str) -> bool:
    """One of a kind, and those without recordings; where the order is the exact one, the cpu compiles anew too."""
    if backend == EMULATED:
        return name == "UniformQIF"
    return name in ("UniformLIF", "UniformQIF")


@pytest.mark.exhaustive(but=_beside_the_recorded)
@pytest.mark.parametrize("name", CLASSES)
def test_every_class_runs_on_every_backend(name: str, backend: Backend) -> None:
    expected, other = (made(name, backend=where, **ordered(backend)) for where in ("cpu", backend))
    spiked = 0
    for potentials in inputs(12, DRIVE[name]):
        a, b = expected(potentials, True, True, n_winners=2), other(potentials, True, True, n_winners=2)
        spiked += int((a[0] > 0).sum())
        assert a[-1] == b[-1]
        for x, y in zip(a[:-1], b[:-1], strict=True):
            assert x.dtype is y.dtype is torch.float32
            np.testing.assert_array_equal(x, y)
    assert spiked > 5


@pytest.mark.parametrize("name", CLASSES)
def test_a_batch_is_samples_of_their_own(name: str, make: Callable[..., Any]) -> None:
    batched, singles = make(name), [make(name) for _ in range(3)]
    for potentials in inputs(10, DRIVE[name], batch=3):
        spikes, state, winners = batched(potentials, n_winners=2)
        assert len(winners) == 3
        for b, single in enumerate(singles):
            alone = single(potentials[b : b + 1], n_winners=2)
            np.testing.assert_array_equal(spikes[b : b + 1], alone[0])
            np.testing.assert_array_equal(state[b : b + 1], alone[1])
            assert winners[b] == alone[2]


def test_run_is_the_calls_in_one(make: Callable[..., Any]) -> None:
    stepped, fused = make("LIF"), make("LIF")
    sequence = torch.stack(list(inputs(15, DRIVE["LIF"])))
    recording = fused.run(sequence, n_winners=2, record=("spikes", "u", "winners"))
    for t, potentials in enumerate(sequence):
        spikes, state, winners = stepped(potentials, n_winners=2)
        np.testing.assert_array_equal(spikes > 0, recording.spikes[t])
        np.testing.assert_array_equal(state, recording.u[t])
        assert winners == [tuple(w) for w in recording.winners[t, 0].tolist() if w[0] >= 0]
    assert recording.spikes.any()


def test_what_a_call_returns_and_in_which_order(make: Callable[..., Any]) -> None:
    neuron = make("LIF")
    potentials = next(inputs(1, DRIVE["LIF"]))
    assert [type(x) for x in neuron(potentials)] == [torch.Tensor, torch.Tensor, list]
    assert len(neuron(potentials, return_winners=False)) == 2
    results = neuron(potentials * 100, True, True, True, 3, True)
    spikes, thresholded, state, _dudt, winners, winning = results
    assert len(winners) == 3 and all(len(winner) == 3 for winner in winners)
    assert (spikes[thresholded != 0] == np.float32(1) / np.float32(0.001)).all()
    assert int((winning > 0).sum()) == 3 and all(winning[0][winner] == spikes.max() for winner in winners)
    assert (state[spikes > 0] == neuron.v_reset).all()
    np.testing.assert_array_equal(thresholded, neuron.get_thresholded_potentials())


def test_attributes(make: Callable[..., Any]) -> None:
    neuron = make("AdEx", tau_rc=0.03)
    assert neuron.previous_state is None and neuron.w is None and neuron.refractory_periods is None
    assert (neuron.tau_rc, neuron.C, neuron.ts, neuron.resting_potential) == (0.03, 0.281, 0.001, 0.0)
    assert (neuron.v_reset, neuron.refractory_timesteps, neuron.inhibition_mode) == (0.0, 2, "feature")
    assert neuron.get_params()["tau_rc"] == 0.03 and str(neuron) == "AdEx_Neuron_rt2_C0.281"
    for potentials in inputs(5, DRIVE["AdEx"]):
        neuron(potentials)
    assert neuron.previous_state.shape == neuron.w.shape == torch.Size(SHAPE)
    assert neuron.layer is not None and neuron.layer.shape == SHAPE[1:]
    neuron.reset()
    assert neuron.previous_state is None
    with pytest.raises(AttributeError, match="no attribute 'tau'"):
        _ = neuron.tau
    with pytest.raises(AttributeError, match="'w'"):
        _ = make("LIF").w


def test_time_since_spike(make: Callable[..., Any]) -> None:
    neuron = make("IF")
    x = torch.tensor([0.0, 1e5]).reshape(1, 1, 1, 2)
    for _ in range(4):
        neuron(x)
    # the second spikes at once, holds its map for two steps and spikes again
    np.testing.assert_allclose(neuron.time_since_spike.flatten(), [0.004, 0.0], atol=1e-6)
    np.testing.assert_allclose(neuron.refractory_periods.flatten(), [0.002, 0.002])


def test_settings_hold_from_the_next_step_on(make: Callable[..., Any]) -> None:
    neuron = make("LIF_Simple")
    x = torch.full(SHAPE, 5.0)
    assert not neuron(x)[0].any()
    neuron.threshold = 4.0
    assert neuron(x)[0].all()
    neuron.reset()
    neuron.per_neuron_thresh = torch.linspace(1, 60, 60).reshape(SHAPE)
    assert int(neuron(x)[0].sum()) == 5
    neuron.inhibition_mode = "location"
    neuron.reset()
    _, _, winners = neuron(x, n_winners=1)
    held = neuron.refractory_periods[0] > 0
    assert held[:, winners[0][1], winners[0][2]].all() and int(held.sum()) == 3
    with pytest.raises(TypeError, match="needs a threshold"):
        make("LIF", threshold=5.0).threshold = None


@pytest.mark.parametrize("name", ["UniformLIF", "UniformEIF", "UniformQIF"])
def test_heterogeneous_time_constants(name: str, make: Callable[..., Any]) -> None:
    neuron = make(name, tau_range=(0.01, 0.02), seed=3)
    neuron(next(inputs(1, 1.0)))
    tau = neuron.tau_rc
    assert tau.shape == SHAPE[1:] and len(torch.unique(tau)) == 3 and (tau == tau[:, :1, :1]).all()
    assert tau.min() >= 0.01 and tau.max() < 0.02
    again = make(name, tau_range=(0.01, 0.02), seed=3)
    again(next(inputs(1, 1.0)))
    np.testing.assert_array_equal(tau, again.tau_rc)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: neurons.LIF(), TypeError, "LIF needs a threshold"),
        (lambda: neurons.LIF(threshold=None), TypeError, "LIF needs a threshold"),
        (lambda: neurons.Neuron(0.001)(torch.zeros(SHAPE)), NotImplementedError, "use LIF, AdEx or another"),
        (lambda: neurons.LIF(10.0, tau=0.02), TypeError, r"no parameter 'tau'"),
        (lambda: neurons.LIF(10.0, inhibition_scope="map"), ValueError, "allowed are 'feature'"),
        (lambda: made("LIF")(torch.zeros(3, 4, 5)), ValueError, r"give a torch tensor \(B, F, H, W\)"),
        (lambda: made("LIF")(torch.zeros(SHAPE), n_winners=-1), ValueError, "n_winners is -1: it must be at"),
        (lambda: made("LIF_Simple", tau_rc=0.002)(torch.zeros(SHAPE)), ValueError, "above 3 ts"),
    ],
)
def test_a_wrong_use_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_dtype_is_the_first_inputs_or_the_one_given(make: Callable[..., Any]) -> None:
    assert make("LIF")(torch.zeros(SHAPE, dtype=torch.float64))[0].dtype is torch.float64
    assert make("LIF", dtype=torch.float64)(torch.zeros(SHAPE))[0].dtype is torch.float64
    assert make("LIF")(torch.zeros(SHAPE, dtype=torch.int64))[0].dtype is torch.float32


def test_backends_are_as_named() -> None:
    assert {*backends.names(), EMULATED} >= {"cpu", "torch", "cuda", EMULATED}
    neuron = made("EIF", backend="torch")
    neuron(torch.zeros(SHAPE))
    assert isinstance(neuron.layer, Layer) and neuron.layer.backend == "torch"


def test_parameters_can_be_assigned(make: Callable[..., Any]) -> None:
    neuron = make("LIF_ode", tau_rc=0.02)
    x = next(inputs(1, 900.0))
    neuron(x)
    neuron.refractory_timesteps = 5
    neuron.tau_rc = 0.05
    assert (neuron.refractory_timesteps, neuron.tau_rc) == (5, 0.05)
    assert neuron.layer.parameters["tau_rc"] == 0.05
    while not neuron(x)[2]:
        pass
    assert round(float(neuron.refractory_periods.max()) / neuron.ts) == 5
    assert neuron.refractoriness == 5 * 0.001
    neuron.refractoriness = 0.0
    assert neuron.layer.parameters["refractory_timesteps"] == 0
    with pytest.raises(ValueError, match="tau_rc of LIF_ode is -1"):
        neuron.tau_rc = -1.0
    assert neuron.tau_rc == neuron.layer.parameters["tau_rc"] == 0.05


@pytest.mark.parametrize("name", CLASSES)
def test_copies_and_pickles_go_on_alike(name: str, make: Callable[..., Any]) -> None:
    neuron = make(name)
    sequence = list(inputs(12, DRIVE[name]))
    for potentials in sequence[:6]:
        neuron(potentials, n_winners=2)
    copied, pickled = copy.deepcopy(neuron), pickle.loads(pickle.dumps(neuron))
    for potentials in sequence[6:]:
        spikes, state, winners = neuron(potentials, n_winners=2)
        for other in (copied, pickled):
            again = other(potentials, n_winners=2)
            np.testing.assert_array_equal(spikes, again[0])
            np.testing.assert_array_equal(state, again[1])
            assert winners == again[2]


def test_another_batch_needs_a_reset(make: Callable[..., Any]) -> None:
    neuron = make("LIF")
    neuron(torch.zeros(SHAPE))
    with pytest.raises(ValueError, match=r"call reset\(\) first"):
        neuron(torch.zeros(2, *SHAPE[1:]))
    neuron.reset()
    neuron(torch.zeros(2, *SHAPE[1:]))


def test_dudt_of_the_first_step_is_from_the_initial_potential(make: Callable[..., Any]) -> None:
    x = torch.full(SHAPE, 1.0)
    for name in ("Izhikevich", "LIF_ode"):
        neuron = make(name, threshold=30.0, resting_potential=-65.0)
        _, thresholded, _, dudt, _ = neuron(x, return_thresholded_potentials=True, return_dudt=True)
        u_pre = torch.where(thresholded != 0, thresholded, neuron.previous_state)
        np.testing.assert_array_equal(dudt, u_pre + 65.0)
