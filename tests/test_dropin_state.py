"""What users see of a drop-in neuron's state, and write into it, against a plain numpy layer."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from spyke_numba import backends, neurons

SHAPE = (1, 3, 2, 4)
TS, TAU = 0.001, 0.02
BACKENDS = ["cpu", "torch"]


class Plain:
    """LIF_Simple with winners, one sample: u' = u (1 - ts / tau) + I, one neuron after the other."""

    def __init__(self, thresholds: float, hold: int):
        self.u = np.zeros(SHAPE[1:])
        self.held = np.zeros(SHAPE[1:], int)
        self.thresholds = np.full(SHAPE[1:], thresholds)
        self.hold, self.mode = hold, "feature"

    def step(self, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, list[tuple[int, ...]]]:
        """Return the spikes, the potentials before the reset and the winners."""
        u = np.where(self.held > 0, 0.0, self.u * (1 - TS / TAU) + x)
        spiked = (self.held == 0) & (u >= self.thresholds)
        winners: list[tuple[int, ...]] = []
        places = sorted(zip(*np.nonzero(spiked), strict=True), key=lambda at: -u[at])
        for at in places:
            if len(winners) < k and at[0] not in [f for f, _, _ in winners]:
                winners.append(tuple(map(int, at)))
        self.u = np.where(spiked, 0.0, u)
        self.held = np.maximum(self.held - 1, 0)
        for f, r, c in winners:
            everywhere = slice(None)
            if self.mode == "feature":
                self.held[f] = self.hold
            else:
                self.held[everywhere if self.mode == "location" else f, r, c] = self.hold
        return spiked.astype(float), u, winners


@pytest.mark.exhaustive(but=lambda on: on == "torch")
@pytest.mark.parametrize("on", BACKENDS)
@pytest.mark.parametrize("seed", range(4))
def test_what_is_written_and_assigned_acts_on_the_next_step(on: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    plain = Plain(2.0, 3)
    neuron = neurons.LIF_Simple(
        2.0, TAU, TS, 0.0, 3, backend=on, dtype="float64", exact_order=True, inhibition_mode="feature"
    )
    place = [(slice(None), 0), (0, 1, 1), (slice(None), slice(None), 0)]
    written = dict.fromkeys(("state", "previous_state", "refractory_periods", "thresholds"), 0)
    spikes_seen, state = 0, None
    for t in range(120):
        x = random.uniform(-0.5, 1.5, SHAPE[1:])
        k = int(random.integers(0, 4))
        if t % 30 == 29:
            neuron.reset()
            plain.u[:], plain.held[:], state = 0.0, 0, None
        kind = random.integers(0, 9) if state is not None else -1
        at = place[random.integers(len(place))]
        if kind == 0:
            state[(0, *at)] = 1.5
            plain.u[at] = 1.5
            written["state"] += 1
        elif kind == 1:
            neuron.previous_state[(0, *at)] -= 0.75
            plain.u[at] -= 0.75
            written["previous_state"] += 1
        elif kind == 2:
            new = random.uniform(0, 1.9, SHAPE[1:])
            neuron.previous_state = torch.tensor(new)[None]
            plain.u = new.copy()
        elif kind == 3:
            seconds = random.choice([0.0, 0.001, 0.0014, 0.0035])
            neuron.refractory_periods[(0, *at)] = seconds
            plain.held[at] = math.ceil(seconds / TS - 1e-3)
            written["refractory_periods"] += 1
        elif kind == 4:
            neuron.refractory_periods = torch.zeros(SHAPE, dtype=torch.float64)
            plain.held[:] = 0
        elif kind == 5:
            neuron.per_neuron_thresh[(0, *at)] = 1.0
            plain.thresholds[at] = 1.0
            written["thresholds"] += 1
        elif kind == 6:
            neuron.threshold = 2.5
            plain.thresholds[:] = 2.5
        elif kind == 7:
            plain.mode = neuron.inhibition_mode = random.choice(["feature", "location", "nothing"])
        elif kind == 8:
            neuron.refractoriness = 0.0021
            plain.hold = 3
        spikes, thresholded, state, dudt, winners = neuron(
            torch.tensor(x)[None], return_thresholded_potentials=True, return_dudt=True, n_winners=k
        )
        before = plain.u
        expected, u_pre, expected_winners = plain.step(x, k)
        np.testing.assert_array_equal(spikes[0], expected, f"spikes of step {t}")
        np.testing.assert_array_equal(thresholded[0], expected * u_pre)
        np.testing.assert_array_equal(state[0], plain.u)
        np.testing.assert_array_equal(dudt[0], plain.u - before)
        assert winners == expected_winners
        assert neuron.previous_state is state
        np.testing.assert_array_equal(np.rint(np.asarray(neuron.refractory_periods[0]) / TS), plain.held)
        spikes_seen += int(spikes.sum())
    assert spikes_seen > 50 and all(count > 2 for count in written.values()), (spikes_seen, written)


@pytest.mark.parametrize("on", BACKENDS)
def test_a_state_that_is_a_copy_does_not_act(on: str) -> None:
    neuron = neurons.EIF_Simple(10.0, backend=on)
    x = torch.ones(SHAPE)
    neuron(x)[1].fill_(5.0)
    assert float(neuron(x)[1].max()) < 2.0
    neuron.previous_state.fill_(5.0)
    assert float(neuron(x)[1].min()) > 5.0


def test_an_earlier_steps_state_is_no_longer_the_layers() -> None:
    neuron = neurons.LIF_Simple(10.0, backend="cpu")
    x = torch.ones(SHAPE)
    first = neuron(x)[1]
    kept = first.clone()
    second = neuron(x)[1].clone()
    assert torch.equal(first, kept)
    first.fill_(9.0)
    assert torch.equal(neuron(x)[1], second * 0.95 + 1)


def test_the_adaptation_can_be_written_too() -> None:
    for assigned in (False, True):
        neuron = neurons.Izhikevich(30.0, resting_potential=-65.0, backend="cpu", dtype="float64")
        x = torch.zeros(SHAPE, dtype=torch.float64)
        neuron(x)
        if assigned:
            neuron.w = torch.zeros(SHAPE, dtype=torch.float64)
        else:
            neuron.w.zero_()
        u = float(neuron.previous_state[0, 0, 0, 0])
        expected = u + 0.04 * u**2 + 5 * u + 140
        assert neuron(x)[1].flatten().tolist() == pytest.approx([expected] * 24)


def test_a_state_may_be_set_before_the_first_call_and_none_is_the_first_again() -> None:
    neuron = neurons.LIF_Simple(10.0, backend="cpu")
    neuron.previous_state = torch.full(SHAPE, 4.0)
    neuron.refractory_periods = torch.tensor([0.0, 0.002, 0.0]).reshape(1, 3, 1, 1)
    x = torch.ones(SHAPE)
    assert neuron(x)[1][0, :, 0, 0].tolist() == pytest.approx([4.8, 0.0, 4.8])
    neuron.previous_state = None
    assert neuron.previous_state is None
    neuron.refractory_periods = None
    assert neuron(torch.ones(1, 2, 5, 5))[1].unique().tolist() == [1.0]  # another shape: a new state
    neuron.refractory_periods[:] = 1.0
    neuron.refractory_periods = None
    assert (neuron(torch.ones(1, 2, 5, 5))[1] == 1.95).all()


def test_state_that_cannot_be_is_refused_and_changes_nothing() -> None:
    neuron = neurons.LIF_Simple(10.0, backend="cpu")
    x = torch.ones(SHAPE)
    before = neuron(x)[1].clone()
    for attribute in ("previous_state", "refractory_periods"):
        with pytest.raises(ValueError, match=f"{attribute} has the shape"):
            setattr(neuron, attribute, torch.zeros(2, 2))
        with pytest.raises(TypeError, match=f"{attribute} is a str"):
            setattr(neuron, attribute, "much")
    neuron.refractory_periods[:] = math.nan
    with pytest.raises(ValueError, match="refractory_periods holds NaN"):
        neuron(x)
    neuron.refractory_periods[:] = math.inf
    neuron.refractory_periods[0, 0] = -1.0
    assert torch.equal(neuron(x)[1][0, 0], before[0, 0] * 0.95 + 1) and not neuron.previous_state[0, 1:].any()


def test_long_periods_keep_their_steps_though_float32_seconds_cannot_tell_them_apart() -> None:
    neuron = neurons.LIF_Simple(1.0, refractory_timesteps=2**25 + 1, backend="cpu")
    neuron(torch.ones(SHAPE), n_winners=3)
    neuron.refractory_periods[0, 0] = 0.0
    neuron(torch.zeros(SHAPE))
    assert neuron.layer.state["refractory"].flatten(2).amax(2).tolist() == [[0, 2**25, 2**25]]


def test_copies_and_pickles_take_what_was_written() -> None:
    neuron = neurons.LIF(10.0, backend="cpu")
    x = torch.full(SHAPE, 900.0)
    neuron(x)
    neuron.refractory_periods[0, 1] = 0.005
    neuron.per_neuron_thresh[0, 2] = 1.0
    copies = [copy.deepcopy(neuron), pickle.loads(pickle.dumps(neuron))]
    spiked = torch.zeros(3, dtype=torch.bool)
    for _ in range(6):
        spikes, state, winners = neuron(x, n_winners=2)
        for other in copies:
            again = other(x, n_winners=2)
            assert torch.equal(spikes, again[0]) and torch.equal(state, again[1]) and winners == again[2]
            assert torch.equal(other.time_since_spike, neuron.time_since_spike)
        spiked |= spikes[0].flatten(1).any(1)
    assert spiked.tolist() == [True, False, True]  # the second is held by what was written


# -- time since the last spike


@pytest.mark.exhaustive(but=lambda on, name: on == "torch" or name == "LIF")
@pytest.mark.parametrize("on", BACKENDS)
@pytest.mark.parametrize("name", ["IF", "LIF", "UniformLIF"])
def test_time_since_spike_counts_calls(name: str, on: str) -> None:
    more = {"tau_range": (0.01, 0.03)} if name == "UniformLIF" else {}
    neuron = getattr(neurons, name)(10.0, **more, backend=on)
    assert not hasattr(neuron, "time_since_spike")
    random = np.random.default_rng(3)
    count = np.zeros(SHAPE, int)
    for _ in range(40):
        spikes = neuron(torch.tensor(random.uniform(0, 2000, SHAPE), dtype=torch.float32))[0]
        count = np.where(np.asarray(spikes) != 0, 0, count + 1)
        np.testing.assert_array_equal(neuron.time_since_spike, np.float32(count) * np.float32(0.001))
    assert (count == 0).any() and (count > 3).any()
    before = neuron.time_since_spike.clone()
    neuron.reset()
    neuron.reset()
    assert torch.equal(neuron.time_since_spike, before)
    neuron(torch.zeros(1, 2, 2, 2))
    assert neuron.time_since_spike.shape == (1, 2, 2, 2) and neuron.time_since_spike.unique().numel() == 1
    neuron.time_since_spike[0, 0] = 0.5
    neuron(torch.zeros(1, 2, 2, 2))
    assert neuron.time_since_spike.unique().tolist() == pytest.approx([0.002, 0.501])


# -- thresholds


def test_thresholds_are_a_filled_tensor_after_a_call_and_the_users_own_if_given() -> None:
    neuron = neurons.LIF_Simple(10.0, backend="cpu")
    assert neuron.per_neuron_thresh is None
    neuron(torch.zeros(2, *SHAPE[1:]))
    assert neuron.per_neuron_thresh.shape == SHAPE and neuron.per_neuron_thresh.unique().tolist() == [10.0]
    assert neuron.per_neuron_thresh is neuron.per_neuron_thresh
    levels = torch.nn.Parameter(torch.full(SHAPE, 10.0))
    neuron = neurons.LIF_Simple(per_neuron_thresh=levels, backend="cpu")
    x = torch.ones(SHAPE)
    assert not neuron(x)[0].any()
    with torch.no_grad():
        levels[0, 1] -= 9.5
    assert neuron(x)[0].flatten(2).any(2).tolist() == [[False, True, False]]
    assert not neuron.per_neuron_thresh.requires_grad


def test_get_thresholded_potentials_of_given_ones() -> None:
    neuron = neurons.LIF_Simple(2.0, backend="cpu")
    given = torch.tensor([1.0, 2.0, -3.0, 5.0], requires_grad=True)
    result = neuron.get_thresholded_potentials(given)
    assert result.tolist() == [0.0, 2.0, 0.0, 5.0] and not result.requires_grad
    assert given.tolist() == [1.0, 2.0, -3.0, 5.0]
    assert neuron.get_thresholded_potentials(torch.tensor([1, 2, 5])).tolist() == [0, 2, 5]
    neuron.threshold = -40.0  # in mV
    neuron.resting_potential = -70.0
    assert neuron.get_thresholded_potentials(torch.tensor([-50.0, -30.0])).tolist() == [0.0, -30.0]
    assert neuron.get_thresholded_potentials() is None
    neuron(torch.full(SHAPE, 50.0))
    assert torch.equal(
        neuron.get_thresholded_potentials(), neuron.get_thresholded_potentials(torch.full(SHAPE, -16.5))
    )


# -- gradients, inference mode, 16 bits


@pytest.mark.parametrize("on", BACKENDS)
def test_results_are_detached(on: str) -> None:
    x = torch.full(SHAPE, 900.0, requires_grad=True)
    learnt = torch.nn.Parameter(torch.tensor(10.0))
    neuron = neurons.LIF(learnt, backend=on)
    plain = neurons.LIF(10.0, backend=on)
    for t in range(4):
        if t == 2:
            for each in (neuron, plain):
                each.previous_state = torch.ones(SHAPE, requires_grad=True)
                each.refractory_periods = torch.zeros(SHAPE, requires_grad=True)
        results = neuron(x * 1.5, True, True, True, 2, True)
        for result, expected in zip(results, plain(x.detach() * 1.5, True, True, True, 2, True), strict=True):
            if isinstance(result, torch.Tensor):
                assert not result.requires_grad and torch.equal(result, expected)
            else:
                assert result == expected
    assert not neuron.run((x * 1.5)[None], record=("u",)).u.requires_grad
    neuron.tau_rc = torch.nn.Parameter(torch.tensor(0.03))
    neuron(x)


@pytest.mark.parametrize("on", BACKENDS)
def test_inference_mode_first_and_then_not(on: str) -> None:
    neuron, plain = (neurons.LIF_Simple(2.0, backend=on) for _ in range(2))
    x = torch.ones(SHAPE)
    with torch.inference_mode():
        state = neuron(x * 1)[1]
        state[0, 0] = 1.5
        neuron.refractory_periods[0, 1] = 0.002
        inside = torch.full(SHAPE, 0.25)
    neuron(x)
    neuron.previous_state = inside
    plain(x)[1][0, 0] = 1.5
    plain.refractory_periods[0, 1] = 0.002
    plain(x)
    plain.previous_state = inside.clone()
    for _ in range(3):
        for result, expected in zip(neuron(x), plain(x), strict=True):
            assert result == expected if isinstance(result, list) else torch.equal(result, expected)


@pytest.mark.exhaustive(but=lambda on: on == "torch")
@pytest.mark.parametrize("on", BACKENDS)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_16_bit_input_is_computed_in_float32(kind: torch.dtype, on: str) -> None:
    half, single = (neurons.LIF_ode(10.0, backend=on) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    spiked = 0
    for _ in range(12):
        x = (torch.rand(SHAPE, generator=generator) * 2000).to(kind)
        results = half(x, True, True, n_winners=3)
        expected = single(x.float(), True, True, n_winners=3)
        spiked += len(results[-1])
        assert results[-1] == expected[-1]
        for result, wide in zip(results[:-1], expected[:-1], strict=True):
            assert result.dtype is kind and torch.equal(result, wide.to(kind))
        assert half.previous_state.dtype is torch.float32
        assert torch.equal(half.previous_state, single.previous_state)
    assert spiked > 3
    results[2].fill_(9.0)  # a copy
    assert torch.equal(half(x)[1], single(x.float())[1].to(kind))


def test_an_amplitude_beyond_float16_is_refused() -> None:
    x = torch.zeros(SHAPE, dtype=torch.float16)
    neuron = neurons.LIF(10.0, ts=1e-5, backend="cpu")
    with pytest.raises(ValueError, match=r"1 / ts = 100000, which float16 cannot hold"):
        neuron(x)
    assert neuron.layer is None
    assert neuron(x.bfloat16())[0].dtype is torch.bfloat16
    neurons.LIF_Simple(10.0, ts=1e-5, backend="cpu")(x)
    assert neurons.LIF(10.0, ts=1e-5, backend="cpu", dtype="float32")(x)[0].dtype is torch.float32


# -- order of winners where there is only the exact one


def test_a_backend_that_knows_the_exact_order_alone_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backends.get("torch")
    monkeypatch.setattr(type(backend), "any_order", False)
    x = torch.full(SHAPE, 50.0)
    neuron = neurons.LIF_Simple(10.0, backend="torch")
    with pytest.warns(RuntimeWarning, match="orders winners exactly.* give exact_order=True") as caught:
        neuron(x)
    assert len(caught) == 1 and caught[0].filename == __file__ and "\n" not in str(caught[0].message)
    neuron(x, n_winners=3)
    neuron.reset()
    neuron(x)
    neurons.LIF_Simple(10.0, backend="torch", exact_order=True)(x)


def run_of(neuron: Any, inputs: torch.Tensor, k: int) -> Any:
    return neuron.run(inputs, k, ("spikes", "u", "refractory", "winners"))


@pytest.mark.exhaustive(but=lambda mode, k: mode == "feature" and k > 0)
@pytest.mark.parametrize(("mode", "k"), [("feature", 2), (None, 2), ("feature", 0)])
def test_a_run_is_its_calls_also_where_winners_hold_themselves_alone(mode: Any, k: int) -> None:
    inputs = torch.rand((12, 1, *SHAPE[1:]), generator=torch.Generator().manual_seed(1)) * 3
    called, run = (neurons.LIF_Simple(2.0, inhibition_mode=mode, backend="cpu") for _ in range(2))
    recording = run_of(run, inputs[:8], k)
    for t, x in enumerate(inputs[:8]):
        spikes, state, winners = called(x, n_winners=k)
        assert torch.equal(recording.spikes[t], spikes > 0) and torch.equal(recording.u[t], state)
        assert torch.equal(recording.refractory[t] * 0.001, called.refractory_periods)
        assert [tuple(won) for won in recording.winners[t, 0].tolist() if won[0] >= 0] == winners
    assert recording.spikes.any() and (k == 0) == (not (recording.winners >= 0).any())
    run.previous_state[0, 0] = called.previous_state[0, 0] = 1.9
    for x in inputs[8:]:
        assert torch.equal(called(x, n_winners=k)[0] > 0, run_of(run, x[None], k).spikes[0])
