"""The reference itself against closed forms and cases computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from reference import MODELS, choose_winners, simulate

TS, TAU, C, THRESHOLD, N = 0.001, 0.02, 0.281, 1.0, 2
LINEAR = ("IF", "LIF", "LIF_ode", "LIF_Simple")


def closed_form(model: str, current: float) -> int | None:
    """The step (1-based) of the first spike from rest = reset = 0, or None."""
    increment = current if model == "LIF_Simple" else current * TS / C
    if model == "IF":
        return math.ceil(THRESHOLD / increment)
    q = math.exp(-TS / TAU) if model == "LIF" else 1 - TS / TAU
    if increment / (1 - q) <= THRESHOLD:
        return None
    return math.ceil(math.log(1 - THRESHOLD * (1 - q) / increment) / math.log(q))


def constant(value, steps: int, shape=(1, 1, 1, 1)) -> np.ndarray:
    return np.full((steps, *shape), value, float)


def spike_steps(result) -> list[int]:
    """The 1-based steps at which the single neuron spiked."""
    return [int(t) + 1 for t in np.flatnonzero(result["spikes"].reshape(len(result["spikes"])))]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("model", "current", "n"),
    [
        *[("LIF_ode", i, n) for i, n in {14: None, 15: 54, 20: 24, 30: 13, 60: 6}.items()],
        *[("LIF", i, n) for i, n in {14: 78, 15: 49, 20: 24, 30: 13, 60: 6}.items()],
        *[("IF", i, n) for i, n in {14: 21, 15: 19, 20: 15, 30: 10, 60: 5}.items()],
        *[("LIF_Simple", i, n) for i, n in {0.05: None, 15 * TS / C: 54, 0.3: 4}.items()],
    ],
)
def test_spike_times_are_the_closed_form(model, current, n, dtype):
    assert closed_form(model, current) == n
    steps = 300
    result = simulate(model, {"threshold": THRESHOLD}, constant(current, steps), dtype=dtype)
    expected = [] if n is None else list(range(n, steps + 1, n + N))
    assert spike_steps(result) == expected


@pytest.mark.parametrize("delay", [0, 1, 5])
@pytest.mark.parametrize("model", LINEAR)
def test_interval_is_n_plus_refractory_steps(model, delay):
    current = 0.2 if model == "LIF_Simple" else 40.0
    n = closed_form(model, current)
    result = simulate(model, {"threshold": 1.0, "refractory_timesteps": delay}, constant(current, 120))
    assert spike_steps(result) == list(range(n, 121, n + delay))
    after = result["refractory"].ravel()[n - 1 : n - 1 + delay + 1]
    assert after.tolist() == list(range(delay, -1, -1))
    assert (result["u_pre"].ravel()[n : n + delay] == 0.0).all()


@pytest.mark.parametrize("model", ["IF", "LIF", "LIF_ode", "LIF_Simple", "EIF", "QIF", "AdEx"])
def test_potentials_are_relative_to_rest(model):
    x = np.random.default_rng(0).uniform(0, 0.6 if model == "LIF_Simple" else 90.0, (80, 1, 2, 1, 1))
    inner = {"EIF": {"theta_rh": 0.75}, "AdEx": {"theta_rh": 0.75}, "QIF": {"u_c": 0.75}}.get(model, {})
    shifted = {name: value - 64.0 for name, value in inner.items()}
    at_zero = simulate(model, {"threshold": 1.0, **inner}, x)
    at_rest = simulate(model, {"threshold": -63.0, "resting_potential": -64.0, **shifted}, x)
    assert at_zero["spikes"].sum() > 5
    np.testing.assert_array_equal(at_zero["spikes"], at_rest["spikes"])
    np.testing.assert_allclose(at_zero["u_pre"], at_rest["u_pre"] + 64.0, atol=1e-10)


# One step of each model with the numbers written out; u = 0.5, rest 0.1, threshold 2 (so theta_rh = u_c =
# 1.5).
UPSWING = 0.5 * math.exp((0.5 - 1.5) / 0.5)
ONE_STEP = {
    "IF": (10.0, 0.5 + 10 * 0.001 / 0.281),
    "LIF": (10.0, 0.1 + 0.4 * math.exp(-0.05) + 10 * 0.001 / 0.281),
    "LIF_ode": (10.0, 0.5 - 0.4 * 0.05 + 10 * 0.001 / 0.281),
    "LIF_Simple": (0.7, 0.1 + 0.4 * 0.95 + 0.7),
    "EIF": (10.0, 0.5 + 0.001 * ((0.1 - 0.5 + UPSWING) / 0.02 + 10 / 0.281)),
    "EIF_Simple": (0.7, 0.1 + 0.4 * 0.95 + UPSWING + 0.7),
    "QIF": (10.0, 0.5 + 0.001 * (0.001 * 0.4 * (0.5 - 1.5) / 0.02 + 10 / 0.281)),
    "AdEx": (10.0, 0.5 + 0.05 * (0.1 - 0.5 + UPSWING + 0.02 / 0.281 * (10 - 0.25))),
    "Izhikevich": (-140.0, 0.5 + (0.04 * 0.25 + 5 * 0.5 + 140 - 140 - 0.25)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("model", MODELS)
def test_one_step_by_hand(model, dtype):
    current, expected = ONE_STEP[model]
    params = {"threshold": 4.0 if model == "Izhikevich" else 2.0, "resting_potential": 0.1}
    initial = {"u": 0.5, **({"w": 0.25} if MODELS[model].adaptation else {})}
    result = simulate(model, params, constant(current, 1), initial=initial, dtype=dtype)
    assert result["u_pre"].dtype == dtype
    assert result["u_pre"].item() == pytest.approx(expected, rel=1e-12 if dtype == "float64" else 1e-5)
    assert not result["spikes"].any()
    if model == "AdEx":
        assert result["w"].item() == pytest.approx(0.25 + (0.6 * (expected - 0.1) - 0.25) * 0.001, rel=1e-5)
    elif model == "Izhikevich":
        assert result["w"].item() == pytest.approx(0.25 + 0.02 * (0.2 * expected - 0.25), rel=1e-4)
    else:
        assert result["w"] is None


@pytest.mark.parametrize(("model", "floored"), [(m, m in ("EIF", "QIF", "AdEx")) for m in MODELS])
def test_floor_at_rest(model, floored):
    params = {"threshold": 2.0, "resting_potential": -1.0}
    result = simulate(model, params, constant(-1e4, 1), initial={"u": 0.0})
    assert (result["u_pre"].item() == -1.0) == floored
    assert floored or result["u_pre"].item() < -1.0


@pytest.mark.parametrize("model", MODELS)
def test_the_threshold_itself_spikes(model):
    current, expected = ONE_STEP[model]
    rest = {"resting_potential": 0.1}
    initial = {"u": 0.5, **({"w": 0.25} if MODELS[model].adaptation else {})}
    inner = {"theta_rh": 1.5} if "theta_rh" in MODELS[model].defaults else {}
    inner = {"u_c": 1.5} if model == "QIF" else inner
    reached = simulate(model, {"threshold": 1e9, **inner, **rest}, constant(current, 1), initial=initial)[
        "u_pre"
    ].item()
    assert reached == pytest.approx(expected, rel=1e-12)
    for threshold, spikes in ((reached, True), (np.nextafter(reached, np.inf), False)):
        result = simulate(
            model, {"threshold": threshold, **inner, **rest}, constant(current, 1), initial=initial
        )
        assert result["spikes"].item() is spikes


def test_reset_goes_to_v_reset_and_hold_to_rest():
    params = {"threshold": 1.0, "v_reset": -0.5, "resting_potential": 0.2, "refractory_timesteps": 2}
    result = simulate("LIF_ode", params, constant(600.0, 4))
    np.testing.assert_array_equal(result["spikes"].ravel(), [True, False, False, True])
    np.testing.assert_array_equal(result["u"].ravel(), [-0.5, 0.2, 0.2, -0.5])
    np.testing.assert_array_equal(result["refractory"].ravel(), [2, 1, 0, 2])


def test_adaptation_goes_on_while_held_and_jumps_at_a_spike():
    params = {"threshold": 1.0, "tau_w": 0.01, "a": 2.0, "b": 3.0, "refractory_timesteps": 1, "v_reset": 0.5}
    result = simulate("AdEx", params, constant(600.0, 2), initial={"w": 1.0})
    assert result["u_pre"].ravel()[0] > 2.0
    at_spike = 1.0 + (2.0 * 1.0 - 1.0) * 0.1  # from the threshold: the overshoot is cut
    np.testing.assert_allclose(result["w"].ravel(), [at_spike + 3.0, (at_spike + 3.0) * 0.9])


@pytest.mark.parametrize("model", ["EIF", "EIF_Simple", "AdEx"])
def test_the_upswing_of_a_step_is_at_most_a_thousand_spans(model):
    params = {"threshold": 2.0, "resting_potential": 1.0, "refractory_timesteps": 0}
    result = simulate(model, params, constant(0.0, 1), initial={"u": 1e6})
    left = 1e6 - 0.05 * (1e6 - 1)  # by the leak
    assert result["u_pre"].item() == pytest.approx(left + 1000, rel=1e-14)
    # exp((5 - 1.5) / .5) is not that large yet
    result = simulate(model, params, constant(0.0, 1), initial={"u": 5.0})
    upswing = 0.5 * math.exp(7) * (1 if model == "EIF_Simple" else 0.05)
    assert result["u_pre"].item() == pytest.approx(4.8 + upswing, rel=1e-14)


def test_exact_input_ends_at_r_i():
    for exact, share in ((1.0, 1.0), (0.0, 0.05 / (1 - math.exp(-0.05)))):
        result = simulate("LIF", {"threshold": 1e9, "exact_input": exact}, constant(3.0, 1000))
        assert result["u"].ravel()[-1] == pytest.approx(3 * 0.02 / 0.281 * share, rel=1e-12)


def test_izhikevich_start_reset_and_step_in_ms():
    params = {"threshold": 30.0, "c": -65.0, "ts": 0.0005, "refractory_timesteps": 0}
    quiet = simulate("Izhikevich", params, constant(0.0, 1))
    u = -65 + 0.5 * (0.04 * 65**2 - 325 + 140 + 13)  # w starts at 0.2 * -65
    assert quiet["u_pre"].item() == pytest.approx(u)
    assert quiet["w"].item() == pytest.approx(-13 + 0.5 * 0.02 * (0.2 * u + 13))
    spiking = simulate("Izhikevich", params, constant(400.0, 1))
    assert spiking["u"].item() == -65.0
    assert spiking["w"].item() == pytest.approx(-13 + 0.01 * (0.2 * spiking["u_pre"].item() + 13) + 8)
    elsewhere = simulate("Izhikevich", params, constant(0.0, 1), initial={"u": -70.0})
    assert elsewhere["u_pre"].item() == pytest.approx(-70 + 0.5 * (0.04 * 4900 - 350 + 140 + 14))


def test_izhikevich_coefficients_offset_and_order():
    params = {"threshold": 30.0, "a": 0.1, "b": 0.5, "c2": 0.02, "c1": 3.0, "c0": 90.0, "w_offset": 65.0}
    start = {"u": -60.0, "w": 1.5}
    u = -60 + (0.02 * 3600 - 180 + 90 + 4 - 1.5)
    new = simulate("Izhikevich", params, constant(4.0, 1), initial=start)
    assert new["u_pre"].item() == pytest.approx(u)
    assert new["w"].item() == pytest.approx(1.5 + 0.1 * (0.5 * (u + 65) - 1.5))
    old = simulate("Izhikevich", {**params, "w_from_new": 0.0}, constant(4.0, 1), initial=start)
    assert old["u_pre"].item() == new["u_pre"].item()
    assert old["w"].item() == pytest.approx(1.5 + 0.1 * (0.5 * 5 - 1.5))


def test_parameters_per_neuron_equal_separate_neurons():
    values = {"threshold": np.array([0.8, 1.0, 1.3]), "tau_rc": np.array([0.01, 0.02, 0.03])}
    x = np.random.default_rng(1).uniform(0, 90, (60, 2, 3, 1, 1))
    together = simulate("LIF", {name: v[:, None, None] for name, v in values.items()}, x)
    for f in range(3):
        alone = simulate("LIF", {name: v[f] for name, v in values.items()}, x[:, :, f : f + 1])
        np.testing.assert_array_equal(together["u"][:, :, f : f + 1], alone["u"])
    assert len({int(together["spikes"][:, :, f].sum()) for f in range(3)}) == 3


# ------------------------------------------------------------------------------------------------------------
# Winners. An IF layer with ts = C = 1, threshold 1: from rest, u' of the first step is the input itself.

ACCUMULATE = {"threshold": 1.0, "ts": 1.0, "C": 1.0}


def drive(first, *later) -> np.ndarray:
    """(T, 1, F, H, W) from nested lists (F, H, W), the first step and what follows."""
    return np.array([first, *later], float)[:, None]


@pytest.mark.parametrize(
    ("u", "k", "radius", "expected"),
    [
        # largest first, one per map
        ([[[1.0, 3.0]], [[2.0, 1.0]]], 2, 0, [(0, 0, 1), (1, 0, 0)]),
        ([[[5.0, 4.0]], [[2.0, 1.0]]], 2, 0, [(0, 0, 0), (1, 0, 0)]),
        # ties: lowest map, then row, then column
        ([[[2.0, 2.0], [2.0, 2.0]], [[2.0, 2.0], [2.0, 2.0]]], 3, 0, [(0, 0, 0), (1, 0, 0)]),
        ([[[0.0, 1.0], [3.0, 3.0]], [[3.0, 0.0], [0.0, 0.0]]], 1, 0, [(0, 1, 0)]),
        # adjacent floats are not a tie
        ([[[2.0, np.nextafter(2.0, 3.0)]], [[2.0, 0.0]]], 2, 0, [(0, 0, 1), (1, 0, 0)]),
        # fewer candidates than k, and none
        ([[[1.0, 0.0]], [[0.0, 0.0]]], 2, 0, [(0, 0, 0)]),
        ([[[0.5, 0.0]], [[0.0, 0.9]]], 2, 0, []),
        # radius 1 clears the square in every map, clipped at the border; radius 0 clears no square
        ([[[9.0, 0, 0, 0]], [[8.0, 7, 6, 0]], [[5.0, 5, 5, 5]]], 3, 1, [(0, 0, 0), (1, 0, 2)]),
        ([[[9.0, 0, 0, 0]], [[8.0, 7, 6, 0]], [[5.0, 5, 5, 5]]], 3, 0, [(0, 0, 0), (1, 0, 0), (2, 0, 0)]),
        ([[[9.0, 0, 0, 0]], [[8.0, 7, 6, 0]], [[5.0, 5, 5, 5]]], 3, 2, [(0, 0, 0), (2, 0, 3)]),
        # the square spans rows and columns alike, corners included
        ([[[0, 0, 0], [0, 9.0, 0], [0, 0, 0]], [[8.0, 8, 8], [8, 8, 8], [8, 8, 8]]], 2, 1, [(0, 1, 1)]),
        ([[[9.0, 0, 0], [0] * 3, [0] * 3], [[8, 8, 1], [8, 8, 1], [1, 1, 3]]], 2, 1, [(0, 0, 0), (1, 2, 2)]),
    ],
)  # fmt: skip
def test_winners_by_hand(u, k, radius, expected):
    u = np.array(u, float)
    assert choose_winners(u >= 1.0, u, k, radius) == expected
    result = simulate("IF", ACCUMULATE, drive(u), kwta={"k": k, "radius": radius})
    assert result["winners"].dtype == np.int32
    assert result["winners"][0, 0].tolist() == [list(w) for w in expected] + [[-1, -1, -1]] * (
        k - len(expected)
    )


@pytest.mark.parametrize(
    ("scope", "counters"),
    [
        ("feature", [[[2, 2]], [[0, 0]], [[0, 0]]]),
        ("location", [[[0, 2]], [[0, 2]], [[0, 2]]]),
        ("global", [[[2, 2]], [[2, 2]], [[2, 2]]]),
        (None, [[[2, 2]], [[0, 2]], [[0, 0]]]),
    ],
)
def test_losers_are_reset_but_only_the_winners_set_is_refractory(scope, counters):
    u = [[[1.5, 3.0]], [[0.5, 2.0]], [[0.25, 0.75]]]
    kwta = None if scope is None else {"k": 1, "scope": scope}
    result = simulate("IF", {**ACCUMULATE, "v_reset": -0.5}, drive(u, np.full((3, 1, 2), 0.125)), kwta=kwta)
    np.testing.assert_array_equal(result["spikes"][0, 0], [[[1, 1]], [[0, 1]], [[0, 0]]])
    np.testing.assert_array_equal(result["u"][0, 0], [[[-0.5, -0.5]], [[0.5, -0.5]], [[0.25, 0.75]]])
    np.testing.assert_array_equal(result["refractory"][0, 0], counters)
    held = np.array(counters) > 0  # they rest in the next step, whether they had spiked or not
    following = np.where(held, 0.0, result["u"][0, 0] + 0.125)
    np.testing.assert_array_equal(result["u"][1, 0], following)
    np.testing.assert_array_equal(result["refractory"][1, 0], np.where(held, 1, 0))


def test_a_set_is_held_for_exactly_n_steps():
    x = np.full((9, 1, 2, 1, 1), 1.0)
    x[:, :, 1] = 2.0
    result = simulate("IF", {**ACCUMULATE, "refractory_timesteps": 3}, x, kwta={"k": 1, "scope": "global"})
    assert np.flatnonzero(result["spikes"][:, 0, 1]).tolist() == [0, 4, 8]
    assert result["winners"][:, 0, 0, 0].tolist() == [1, -1, -1, -1, 1, -1, -1, -1, 1]
    zero = simulate("IF", {**ACCUMULATE, "refractory_timesteps": 0}, x, kwta={"k": 1, "scope": "global"})
    assert zero["spikes"].all() and not zero["refractory"].any()


@pytest.mark.parametrize(
    ("scope", "k", "counters"),
    [
        ("feature", 1, [[[5, 5]], [[0, 0]]]),
        ("feature", 2, [[[5, 5]], [[7, 7]]]),
        ("location", 1, [[[5, 0]], [[5, 0]]]),
        ("location", 2, [[[7, 0]], [[7, 0]]]),  # both win at column 0: the longer period
        ("global", 2, [[[7, 7]], [[7, 7]]]),
    ],
)
def test_a_set_takes_the_winners_period_and_overlaps_the_longest(scope, k, counters):
    delay = np.array([[[5, 3]], [[7, 1]]])
    u = [[[3.0, 2.0]], [[2.5, 0.0]]]
    result = simulate(
        "IF", {**ACCUMULATE, "refractory_timesteps": delay}, drive(u), kwta={"k": k, "scope": scope}
    )
    np.testing.assert_array_equal(result["refractory"][0, 0], counters)


@pytest.mark.parametrize("scope", ["location", "global"])
@pytest.mark.parametrize("delay", [[[[7, 0]], [[5, 0]]], [[[5, 0]], [[7, 0]]], [[[0, 7]], [[7, 0]]]])
def test_the_longest_period_holds_whoever_won_first(delay, scope):
    params = {**ACCUMULATE, "refractory_timesteps": np.array(delay)}
    result = simulate("IF", params, drive([[[3.0, 0.0]], [[2.5, 0.0]]]), kwta={"k": 2, "scope": scope})
    assert (result["refractory"][0, 0, :, 0, 0] == 7).all()


@pytest.mark.parametrize("scope", ["feature", "location", "global"])
@pytest.mark.parametrize("model", ["LIF", "AdEx", "Izhikevich"])
def test_each_sample_has_its_own_winners(model, scope):
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 60.0, (40, 3, 3, 2, 2))
    params = (
        {"threshold": 30.0, "c": -65.0, "ts": 0.0005, "resting_potential": -65.0}
        if model == "Izhikevich"
        else {"threshold": 1.0}
    )
    kwta = {"k": 2, "scope": scope, "radius": 1}
    together = simulate(model, params, x, kwta=kwta)
    assert (together["winners"][:, :, 0, 0] >= 0).any(axis=0).all()
    for b in range(3):
        alone = simulate(model, params, x[:, b : b + 1], kwta=kwta)
        for name in ("spikes", "winners", "u", "refractory"):
            np.testing.assert_array_equal(together[name][:, b : b + 1], alone[name])
    assert (together["winners"][:, 0] != together["winners"][:, 1]).any()
