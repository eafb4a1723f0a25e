"""The table of docs/spyketorch.md, row by row: what the drop-in neurons do, and what the native models do instead."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spyke_numba import KWTA, Layer, Uniform, models, neurons

TS, TAU, C = 0.001, 0.02, 0.281
ONE = (1, 1, 1)
#: The one that compiles nothing; other tests hold the backends to the same bits.
BACKEND = "torch"
#: Input of the models with a capacitance that moves the potential by about 1 in a step.
UNIT = C / TS


def drop_in(name, threshold=10.0, **more):
    return getattr(neurons, name)(threshold, dtype="float64", backend=BACKEND, **more)


def native(name, threshold=10.0, inhibition=None, **more):
    neuron = getattr(models, name)(threshold=threshold, **more)
    return Layer(neuron, inhibition=inhibition, dtype="float64", backend=BACKEND)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


def states(neuron, *values):
    """Potential of one drop-in neuron after each input."""
    return [float(neuron(tensor(value))[1]) for value in values]


def potentials(layer, *values):
    """Potential of one native neuron after each input."""
    return [float(layer.step(np.full((1, *ONE), value)).u.item()) for value in values]


# -- potentials


def test_lif_keeps_its_potential_through_a_spike():
    u = np.exp(-TS / TAU)
    dropped = drop_in("LIF", refractory_timesteps=0)
    # 12 fires and is reported as reset, but the next step decays from 12 all the same, and fires again
    assert states(dropped, 12 * UNIT) == [0.0]
    spikes, thresholded, _, _ = dropped(tensor(0.5), return_thresholded_potentials=True)
    assert spikes.item() == 1000.0 and thresholded.item() == pytest.approx(12 * u + 0.5 / UNIT)
    layer = native("LIF", refractory_timesteps=0)
    assert potentials(layer, 12 * UNIT, 0.5) == pytest.approx([0.0, 0.5 / UNIT])


def test_lif_feels_negative_input_for_one_step():
    assert states(drop_in("LIF"), 5 * UNIT, -3 * UNIT, 0.0) == pytest.approx(
        [5, 5 * np.exp(-TS / TAU) - 3, 5 * np.exp(-2 * TS / TAU)]
    )
    u = 5 * np.exp(-TS / TAU) - 3
    assert potentials(native("LIF"), 5 * UNIT, -3 * UNIT, 0.0) == pytest.approx([5, u, u * np.exp(-TS / TAU)])


def test_simple_models_decay_to_zero():
    assert states(drop_in("LIF_Simple", resting_potential=2.0), 0.0) == pytest.approx([2 * 0.95])
    assert potentials(native("LIF_Simple", resting_potential=2.0), 0.0) == pytest.approx([2])
    upswing = 0.5 * np.exp((2 - 7.5) / 0.5)
    assert states(drop_in("EIF_Simple", resting_potential=2.0), 0.0) == pytest.approx([1.9 + upswing])
    assert potentials(native("EIF_Simple", resting_potential=2.0), 0.0) == pytest.approx([2 + upswing])


@pytest.mark.parametrize("name", ["LIF_Simple", "EIF_Simple"])
def test_simple_models_need_a_long_time_constant(name):
    with pytest.raises(ValueError, match="above 3 ts"):
        drop_in(name, tau_rc=0.003)(tensor(0))
    with pytest.raises(ValueError, match="above 3 ts"):
        native(name, tau_rc=0.003).step(np.zeros((1, *ONE)))


def test_izhikevich_step_start_and_reset():
    for ts in (0.001, 0.0001):
        dropped = drop_in("Izhikevich", 30.0, ts=ts, c=-65.0)
        assert states(dropped, -139.0) == pytest.approx([1.0])  # from 0 by the whole of 140 + I, whatever ts
        assert dropped.w.item() == pytest.approx(0.02 * 0.2 * 1.0)
        layer = native("Izhikevich", 30.0, ts=ts, c=-65.0)
        h = 1000 * ts
        start = 0.04 * 65**2 - 5 * 65 + 140 + 0.2 * 65
        u = -65 + h * (start + 10)
        assert potentials(layer, 10.0) == pytest.approx([u])
        assert layer.state["w"].item() == pytest.approx(-13 + h * 0.02 * (0.2 * u + 13))
        spiking = drop_in("Izhikevich", 30.0, ts=ts, c=-65.0)
        assert states(spiking, 100.0) == [0.0]
        assert drop_in("Izhikevich", 30.0, v_reset=-50.0)(tensor(100.0))[1].item() == -50.0
        assert potentials(native("Izhikevich", 30.0, ts=ts, c=-65.0), 1e6) == [-65.0]


def test_izhikevich_starts_at_rest_with_its_recovery_there():
    for c in (0.0, None):
        neuron = drop_in("Izhikevich", 30.0, resting_potential=-65.0, c=c)
        _, state, dudt, _ = neuron(tensor(0.0), return_dudt=True)
        # 0.04 * 65^2 - 5 * 65 + 140 + 0.2 * 65 = -3
        assert state.item() == pytest.approx(-68.0) and dudt.item() == pytest.approx(-3.0)
        assert neuron.w.item() == pytest.approx(-13.012)
        assert neuron.c == (0.0 if c is not None else -65.0)
        assert neuron(tensor(300.0))[1].item() == neuron.v_reset == -65.0


def test_adaptation_follows_the_new_potential_of_held_neurons_too():
    for name in ("AdEx", "Izhikevich"):
        neuron = drop_in(name, 10.0, v_reset=5.0)
        neuron(tensor(1e5))
        before = neuron.w.item()
        neuron(tensor(1e5))
        assert neuron.refractory_periods.item() == pytest.approx(0.001)
        held = {"AdEx": before - before * TS, "Izhikevich": before * 0.98}[name]
        assert neuron.w.item() == pytest.approx(held)


def test_izhikevich_recovery_may_follow_the_old_potential():
    recovery = {}
    for w_from_new in (1, 0):
        layer = native("Izhikevich", 30.0, c=-65.0, w_from_new=w_from_new)
        (u,) = potentials(layer, 10.0)
        recovery[w_from_new] = layer.state["w"].item()
    assert recovery == {1: pytest.approx(-13 + 0.02 * (0.2 * u + 13)), 0: pytest.approx(-13)}


@pytest.mark.parametrize("name", ["EIF", "QIF", "AdEx"])
def test_floor_at_rest(name):
    assert states(drop_in(name, resting_potential=1.0), -1e4) == [1.0]
    assert potentials(native(name, resting_potential=1.0), -1e4) == [1.0]
    assert potentials(native(name, resting_potential=1.0, floor=-4.0), -1e4) == [-4.0]


@pytest.mark.parametrize("name", ["IF", "LIF", "LIF_ode", "LIF_Simple", "EIF_Simple"])
def test_no_floor(name):
    assert states(drop_in(name), -1e4)[0] < -10
    assert potentials(native(name), -1e4)[0] < -10
    assert potentials(native(name, floor=-2.0), -1e4) == [-2.0]


@pytest.mark.parametrize("name", models.names())
def test_a_held_neuron_is_at_rest_and_not_at_its_reset(name):
    dropped = drop_in(name, 10.0, v_reset=-1.0)
    assert states(dropped, 1e5, 0.0)[1] == 0.0
    layer = native(name, 10.0, v_reset=-1.0, refractory_timesteps=2)
    assert potentials(layer, 1e5, 0.0)[1] == (-65.0 if name == "Izhikevich" else 0.0)


def test_negative_potentials_spike_and_win():
    given = {"resting_potential": -70.0, "delta_t": 2.0, "theta_rh": -50.0}
    spikes, _, winners = drop_in("AdEx", -40.0, **given)(tensor(1.5e4, 0.0))
    assert spikes.flatten().tolist() == [1000.0, 0.0] and winners == [(0, 0, 0)]
    step = native("AdEx", -40.0, KWTA(1), **given).step(tensor(1.5e4, 0.0))
    assert step.spikes.flatten().tolist() == [True, False]
    assert step.winners.tolist() == [[[0, 0, 0]]]


# -- what a call returns


@pytest.mark.parametrize("name", models.names())
def test_amplitudes(name):
    amplitude = 1.0 if name in ("LIF_Simple", "EIF_Simple") else 1 / 0.002
    assert drop_in(name, ts=0.002, tau_rc=0.02)(tensor(1e5))[0].item() == amplitude
    assert native(name).step(tensor(1e5)).spikes.dtype == torch.bool


@pytest.mark.parametrize("name", models.names())
def test_state_and_dudt(name):
    neuron = drop_in(name, v_reset=-1.0)
    spikes, thresholded, state, dudt, _ = neuron(tensor(1e5), True, True)
    assert spikes.item() > 0
    assert neuron.previous_state.item() == -1.0
    assert state.item() == (thresholded.item() if name == "EIF_Simple" else -1.0)
    after = name in ("IF", "LIF_Simple", "EIF_Simple")
    assert dudt.item() == (-1.0 if after else thresholded.item())
    step = native(name, v_reset=-1.0).step(tensor(1e5), ("u", "u_pre"))
    assert step.u.item() == -1.0 and step.u_pre.item() > 10


def test_losers_are_reset_too():
    neuron = drop_in("LIF_Simple")
    spikes, state, winners = neuron(tensor(20.0, 30.0, 1.0))
    assert spikes.flatten().tolist() == [1, 1, 0] and state.flatten().tolist() == [0, 0, 1]
    assert winners == [(0, 0, 1)]
    step = native("LIF_Simple", inhibition=KWTA(1)).step(tensor(20.0, 30.0, 1.0))
    assert step.u.flatten().tolist() == [0, 0, 1]


# -- inhibition and refractoriness


@pytest.mark.parametrize("name", models.names())
def test_what_a_winner_inhibits_and_how_to_change_it(name):
    whole_layer = name in ("AdEx", "Izhikevich")
    x = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    x[0, 0, 0, 0] = 1e6

    def held(neuron):
        neuron(x)
        return int((neuron.refractory_periods > 0).sum())

    assert drop_in(name, 1000.0).inhibition_mode == "feature"
    for mode, expected in [("feature", 4), ("location", 2), ("global", 1), (None, 1)]:
        neuron = drop_in(name, 1000.0)
        neuron.inhibition_mode = mode
        assert held(neuron) == (8 if whole_layer else expected)
        assert neuron.inhibition_mode == mode
    for scope, expected in [("feature", 4), ("location", 2), ("global", 8)]:
        assert held(drop_in(name, 1000.0, inhibition_scope=scope)) == expected
    if whole_layer:
        assert held(drop_in(name, 1000.0, inhibition_mode="feature")) == 8
        with pytest.raises(ValueError, match="inhibits the whole layer whatever it is"):
            drop_in(name, 1000.0, inhibition_mode="location")
    else:
        assert held(drop_in(name, 1000.0, inhibition_mode="location")) == 2
    layer = native(name, 1000.0, inhibition=KWTA(1), refractory_timesteps=2)
    layer.step(x)
    assert int((layer.state["refractory"] > 0).sum()) == 4
    layer = native(name, 1000.0, refractory_timesteps=2)
    layer.step(x)
    assert int((layer.state["refractory"] > 0).sum()) == 1


def test_refractory_counters_are_whole_steps():
    neuron = drop_in("LIF_Simple", ts=0.0001, refractory_timesteps=7)
    layer = native("LIF_Simple", ts=0.0001, refractory_timesteps=7)
    fired = [neuron(tensor(20.0))[0].item() for _ in range(33)]
    assert [t for t, spike in enumerate(fired) if spike] == [0, 8, 16, 24, 32]
    run = layer.run(np.full((1, *ONE), 20.0), steps=33, record=("spikes", "refractory"))
    assert np.flatnonzero(run.spikes).tolist() == [0, 8, 16, 24, 32]
    assert run.refractory.dtype == np.int32 and run.refractory[:9].ravel().tolist() == [*range(7, -1, -1), 7]
    assert neuron.refractory_periods.item() == pytest.approx(0.0007)


def test_without_refractoriness():
    neuron = drop_in("LIF_Simple", refractory_timesteps=0)
    assert neuron.refractoriness == 0.0
    assert all(neuron(tensor(20.0))[0].item() for _ in range(5))
    neuron.refractoriness = 0.0021  # seconds, rounded up to whole steps
    assert [neuron(tensor(20.0))[0].item() for _ in range(6)] == [1, 0, 0, 0, 1, 0]
    neuron.reset()
    neuron.refractoriness = 0
    assert all(neuron(tensor(20.0))[0].item() for _ in range(5))
    layer = native("LIF_Simple", refractory_timesteps=0)
    assert layer.run(np.full((1, *ONE), 20.0), steps=5).spikes.all()


def test_order_of_winners():
    # two float32 numbers apart from 20: with the largest, 20 + 2e, added, both round to 40 + 4e
    e = np.spacing(np.float32(20.0), dtype=np.float32)
    x = torch.zeros(1, 3, 1, 2)
    x[0, :, 0, 1] = torch.from_numpy(np.float32(20.0) + e * np.array([1, 2, -40], np.float32))
    first = {"LIF_Simple": [(0, 0, 1), (1, 0, 1), (2, 0, 1)], "exact": [(1, 0, 1), (0, 0, 1), (2, 0, 1)]}
    neuron = neurons.LIF_Simple(10.0, backend=BACKEND)
    assert neuron(x, n_winners=3)[-1] == first["LIF_Simple"]
    exact = neurons.LIF_Simple(10.0, backend=BACKEND, exact_order=True)
    assert exact(x, n_winners=3)[-1] == first["exact"]
    layer = Layer(models.LIF_Simple(threshold=10.0), inhibition=KWTA(4), backend=BACKEND)
    step = layer.step(x)
    assert [tuple(w) for w in step.winners[0].tolist()] == [*first["exact"], (-1, -1, -1)]


def test_samples_have_winners_of_their_own():
    x = torch.zeros(3, 2, 1, 2, dtype=torch.float64)
    x[0, 1, 0, 0] = x[2, 0, 0, 1] = 20.0
    neuron = drop_in("LIF_Simple")
    assert neuron(x)[-1] == [[(1, 0, 0)], [], [(0, 0, 1)]]
    held = neuron.refractory_periods.flatten(2).amax(2) > 0
    assert held.tolist() == [[False, True], [False, False], [True, False]]
    step = native("LIF_Simple", inhibition=KWTA(1)).step(x)
    assert step.winners.tolist() == [[[1, 0, 0]], [[-1, -1, -1]], [[0, 0, 1]]]


# -- arguments


def test_threshold_may_change():
    neuron = drop_in("EIF")
    assert neuron(tensor(5 * UNIT))[0].item() == 0
    assert neuron.theta_rh == 7.5
    neuron.threshold = 4.0
    assert neuron(tensor(0.0))[0].item() > 0
    assert neuron.theta_rh == 3.0
    # the one that was set last holds
    neuron.per_neuron_thresh = tensor(6.0)
    assert neuron(tensor(0.0))[0].item() == 0 and neuron.theta_rh == 3.0
    neuron.threshold = 8.0
    assert neuron.per_neuron_thresh.item() == 8.0
    layer = native("EIF")
    assert not layer.step(tensor(5 * UNIT)).spikes.item()
    layer.set(threshold=4.0)
    assert layer.parameters["theta_rh"] == 3.0
    assert layer.step(tensor(0.0)).spikes.item()


@pytest.mark.parametrize("name", [name for name in models.names() if name != "Izhikevich"])
def test_threshold_of_each_neuron(name):
    levels = torch.tensor([5.0, 1e6], dtype=torch.float64).reshape(1, 1, 1, 2)
    for argument in ("per_neuron_thresh", "per_neuron_threshold"):
        given = {argument: levels}
        assert (drop_in(name, **given)(tensor(1e4, 1e4))[0] > 0).flatten().tolist() == [True, False]
    layer = native(name, levels[0])
    assert layer.step(tensor(1e4, 1e4)).spikes.flatten().tolist() == [True, False]


def test_no_threshold():
    with pytest.raises(TypeError, match="needs a threshold"):
        neurons.LIF(threshold=None)
    with pytest.raises((TypeError, ValueError), match="threshold"):
        Layer(models.LIF(), shape=ONE)


def test_theta_rh_is_kept():
    given = {"delta_t": 1.0, "theta_rh": 2.0}
    expected = 1.0 * np.exp((0 - 2.0) / 1.0)
    neuron = drop_in("EIF_Simple", **given)
    assert states(neuron, 0.0) == pytest.approx([expected]) and neuron.theta_rh == 2.0
    assert potentials(native("EIF_Simple", **given), 0.0) == pytest.approx([expected])


@pytest.mark.parametrize("name", ["LIF", "EIF", "QIF"])
def test_uniform_time_constants_act(name):
    x = torch.full((1, 5, 1, 2), 3 * UNIT, dtype=torch.float64)
    neuron = drop_in("Uniform" + name, tau_range=(0.005, 0.05), seed=2)
    neuron(x)
    state = neuron(x * 0 + UNIT)[1][0]
    assert (state[..., 0] == state[..., 1]).all() and len(state[..., 0].unique()) == 5
    layer = native(name, tau_rc=Uniform(0.005, 0.05, per="feature"))
    layer.step(x)
    u = layer.step(x * 0 + UNIT).u[0]
    assert (u[..., 0] == u[..., 1]).all() and len(u[..., 0].unique()) == 5
    layer = native(name, tau_rc=Uniform(0.005, 0.05))
    layer.step(x)
    assert len(layer.step(x * 0 + UNIT).u.unique()) == 10


def test_arguments_by_position():
    neuron = neurons.LIF(10.0, 0.03, 0.002, -1.0, 4, 0.5)
    assert (neuron.tau_rc, neuron.ts, neuron.resting_potential) == (0.03, 0.002, -1.0)
    assert (neuron.refractory_timesteps, neuron.C) == (4, 0.5)
    assert neurons.UniformLIF(10.0, (0.01, 0.02)).tau_range == (0.01, 0.02)
    with pytest.raises(TypeError, match="needs a tau_range"):
        neurons.UniformLIF(10.0)
    with pytest.raises(TypeError, match="positional"):
        models.LIF(10.0)


def test_state_begins_with_the_first_input():
    neuron = drop_in("LIF_Simple")
    assert neuron.previous_state is None
    neuron(torch.ones(1, 2, 3, 3))
    with pytest.raises(ValueError, match="call reset"):
        neuron(torch.ones(1, 2, 4, 4))
    neuron.reset()
    assert neuron(torch.ones(1, 2, 4, 4))[1].shape == (1, 2, 4, 4)
    layer = native("LIF_Simple")
    layer.step(np.ones((1, 2, 3, 3)))
    layer.reset()
    assert layer.shape == (2, 3, 3)
    with pytest.raises(ValueError, match="takes"):
        layer.step(np.ones((1, 2, 4, 4)))


@pytest.mark.parametrize("name", ["IF", "LIF"])
def test_time_since_spike(name):
    neuron = drop_in(name, ts=0.0001, refractory_timesteps=0)
    for _ in range(20):
        neuron(tensor(0.0, 0.0, 1.0))
    neuron(tensor(0.0, 1e6, 0.0))
    # a count of steps: 21 times 0.0001 added up in float64 is another number
    assert neuron.time_since_spike.flatten().tolist() == [21 * 0.0001, 0.0, 21 * 0.0001]


def test_if_keeps_its_dtype():
    assert states(drop_in("IF"), 0.1) == [0.1 * (TS / C)]
