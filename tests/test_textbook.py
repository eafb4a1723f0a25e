"""Textbook parameters give textbook behaviour, and nothing leaves the range of floats within the stated bounds.

Nothing here is compared with the package's own equations: each is written out again as the loop of a textbook.
"""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
from cases import assert_same
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from spyke_numba import KWTA, Layer, NeuronSpec, Normal, Param, Recording, State, Uniform, models
from spyke_numba.backends import Backend
from spyke_numba.cli.main import main
from spyke_numba.figures.dynamics import typical

DTYPES = ["float64", "float32"]


# -- Izhikevich 2003, doi:10.1109/TNN.2003.820440: a .02, b .2, c -65, d 8 (regular spiking), v in mV, time in ms


def regular_spiking(current: float, ms: float, h: float) -> list[int]:
    """Steps at which the published neuron spikes, v before u."""
    v, u, spikes = -65.0, 0.2 * -65.0, []
    for step in range(round(ms / h)):
        v = v + h * (0.04 * v * v + 5 * v + 140 - u + current)
        u = u + h * 0.02 * (0.2 * v - u)
        if v >= 30:
            v, u = -65.0, u + 8
            spikes.append(step)
    return spikes


@pytest.mark.parametrize("given", [{}, {"threshold": 30, "c": -65}], ids=["defaults", "named"])
@pytest.mark.parametrize("ts", [1e-3, 5e-4, 1e-4])
def test_izhikevich_fires_regularly(ts: float, given: dict[str, float]) -> None:
    expected = regular_spiking(10.0, 1000.0, ts * 1e3)
    assert 20 <= len(expected) <= 23
    for dtype in DTYPES:
        layer = Layer(models.Izhikevich(ts=ts, **given), (1,), backend="cpu", dtype=dtype)
        spikes = np.flatnonzero(layer.run(np.array([10.0]), steps=round(1 / ts)).spikes)
        assert 20 <= spikes.size <= 23
        if dtype == "float64":
            assert spikes.tolist() == expected


def test_izhikevich_stands_at_c_when_it_starts_is_reset_and_is_held(backend: Backend) -> None:
    c = np.array([-65.0, -55.0, -50.0])
    layer = Layer(models.Izhikevich(c=c, refractory_timesteps=2), (3,), backend=backend, dtype="float64")
    np.testing.assert_array_equal(layer.state["u"], [c])
    run = layer.run(np.full((3, 1, 3), 400.0), ("spikes", "u", "w"))
    assert run.spikes.tolist() == [[[True] * 3], [[False] * 3], [[False] * 3]]
    np.testing.assert_array_equal(run.u, [[c]] * 3)
    # while held it recovers towards b c, in the order of the published scheme
    np.testing.assert_allclose(run.w[2], run.w[1] + 0.02 * (0.2 * c - run.w[1]), rtol=1e-14)


# -- a resting potential that was forgotten


def _leak_membrane(u, I, ts, e_l):
    return u + ts * 100 * (e_l - u) + I


MINE = NeuronSpec(name="Mine", membrane=_leak_membrane, params={"e_l": Param(-65.0, "mV", "leak")})
RESTING = NeuronSpec(
    name="Resting",
    membrane=_leak_membrane,
    params={"e_l": Param(-65.0, "mV", "leak")},
    defaults={"resting_potential": lambda e_l: e_l},
)
FORGOTTEN = {
    "AdEx with a peak": (models.AdEx, {"threshold": 20.0, "theta_rh": -50.4, "v_reset": -70.6}, "v_reset"),
    "EIF": (models.EIF, {"threshold": 10.0, "theta_rh": -50.0}, "theta_rh"),
    "EIF_Simple": (models.EIF_Simple, {"threshold": 10.0, "theta_rh": np.full(3, -36.2)}, "theta_rh"),
    "QIF": (models.QIF, {"threshold": 30.0, "u_c": -50.0}, "u_c"),
    "LIF with a reset": (models.LIF, {"threshold": 30.0, "v_reset": Uniform(-70.0, -60.0)}, "v_reset"),
    "a user's model": (MINE, {"threshold": 30.0}, "e_l"),
}
ORDINARY = {
    **{f"{name} of SpykeTorch's size": (models.get(name), {"threshold": 10.0}) for name in models.names()},
    "no capital": (models.LIF, {"threshold": 30.0}),
    "Izhikevich": (models.Izhikevich, {}),
    "Izhikevich, named": (models.Izhikevich, {"threshold": 30.0, "c": -65.0}),
    "after-hyperpolarisation": (models.LIF, {"threshold": 15.0, "v_reset": -5.0}),
    "inhibition's floor": (models.LIF, {"threshold": 10.0, "floor": -100.0}),
    "rest of 0 meant": (
        models.AdEx,
        {"threshold": 20.0, "theta_rh": -50.4, "v_reset": -70.6, "resting_potential": 0.0},
    ),
    "rest given": (models.AdEx, {"threshold": 20.0, "theta_rh": -50.4, "resting_potential": -70.6}),
    "around 0": (models.LIF, {"threshold": 1.0, "v_reset": Normal(-0.1, 0.01)}),
    "a user's model": (RESTING, {"threshold": 30.0}),
}


@pytest.mark.parametrize("case", FORGOTTEN)
def test_a_forgotten_resting_potential_is_told_once(case: str) -> None:
    spec, values, named = FORGOTTEN[case]
    with pytest.warns(UserWarning, match=f"{named} of {spec.name} is -.* mV") as told:
        neuron = spec(**values)
    assert len(told) == 1
    message = str(told[0].message)
    assert "\n" not in message and "resting_potential" in message
    assert told[0].filename == __file__  # the line that made the neuron
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # and none of what is done with it later
        layer = Layer(neuron, (3,), backend="cpu")
        layer.set(threshold=40.0)
        typical(neuron)


@pytest.mark.parametrize("case", ORDINARY)
def test_ordinary_values_raise_no_warning(case: str) -> None:
    spec, values = ORDINARY[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Layer(spec(**values), (3,), backend="cpu")


def test_a_threshold_in_mv_below_a_forgotten_rest_is_refused() -> None:
    for name in set(models.names()) - {"Izhikevich"}:
        with pytest.raises(ValueError, match=r"not above resting_potential 0: raise .* or lower the rest"):
            Layer(models.get(name)(threshold=-50.0), (3,), backend="cpu")


def test_the_command_tells_it_in_one_line() -> None:
    command = "simulate AdEx --shape 2 --duration 0.002 --stimulus constant:1 --param threshold=9 --param theta_rh=-50"
    result = CliRunner().invoke(main, command.split())
    assert result.exit_code == 0
    assert result.stderr.startswith("spyke-numba: warning: theta_rh of AdEx is -50 mV")
    assert result.stderr.count("\n") == 1


def test_the_drop_in_raises_no_warning() -> None:
    neurons = pytest.importorskip("spyke_numba.neurons")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        neurons.AdEx(20.0, theta_rh=-50.4, v_reset=-70.6)
        neurons.Izhikevich(30.0, c=-65.0)
        neurons.QIF(30.0, u_c=-50.0)


# -- AdEx: Brette & Gerstner 2005, doi:10.1152/jn.00686.2005, in mV, pA, nS, pF and ms

BRETTE_GERSTNER: dict[str, Any] = {
    "ts": 1e-4,
    "tau_rc": 0.281 / 30,
    "C": 0.281,
    "resting_potential": -70.6,
    "v_reset": -70.6,
    "theta_rh": -50.4,
    "delta_t": 2.0,
    "a": 4.0,
    "b": 80.5,
    "tau_w": 0.144,
}


def regular_adex(current: float, peak: float, held: int, ms: float = 1000.0, h: float = 0.1):
    """Steps at which Brette & Gerstner's neuron spikes, its spike cut at the peak, and w after each step."""
    v, w, left, spikes, course = -70.6, 0.0, 0, [], []
    for step in range(round(ms / h)):
        upswing = 30 * 2 * math.exp(min((v + 50.4) / 2, 700.0))
        v = v + h / 281 * (-30 * (v + 70.6) + upswing - w + current)
        v = -70.6 if left else max(v, -70.6)
        spiked = not left and v >= peak
        w = w + h / 144 * (4 * (min(v, peak) + 70.6) - w)
        left = max(left - 1, 0)
        if spiked:
            v, w, left = -70.6, w + 80.5, held
            spikes.append(step)
        course.append(w)
    return spikes, course


@pytest.mark.parametrize("held", [0, 2])
@pytest.mark.parametrize("peak", [0.0, 20.0])
def test_adex_of_brette_and_gerstner(peak: float, held: int) -> None:
    currents = np.array([1000.0, 700.0])
    counts = {1000.0: (30, 31), 700.0: (9,)}
    for dtype in DTYPES:
        neuron = models.AdEx(threshold=peak, refractory_timesteps=held, **BRETTE_GERSTNER)
        layer = Layer(neuron, (2,), backend="cpu", dtype=dtype)
        run = layer.run(currents, ("spikes", "w"), steps=10_000)
        for place, current in enumerate(currents):
            spikes, course = regular_adex(current, peak, held)
            assert len(spikes) in counts[current]
            found = np.flatnonzero(run.spikes[:, place])
            assert found.size in counts[current]
            assert run.w[:, place].max() <= 428.5
            if dtype == "float64":
                assert found.tolist() == spikes
                np.testing.assert_allclose(run.w[:, place], course, rtol=1e-6, atol=1e-6)


# -- what adaptation and a spike see of the last step


def _add(u, I):
    return u + I


def _follow(u_new, w):
    return w + u_new


def _jump(u_new, w):
    return w + 100 * u_new


def overshooting(**more: Any) -> NeuronSpec:
    return NeuronSpec(
        name="Overshooting",
        membrane=_add,
        states={"w": State(0.0)},
        adaptation=_follow,
        on_spike=_jump,
        **more,
    )


@pytest.mark.exhaustive(but=lambda overshoot, backend: overshoot == "cut" or backend != "cpu")
@pytest.mark.parametrize("overshoot", ["kept", "cut"])
def test_overshoot_is_kept_or_cut(overshoot: str, backend: Backend) -> None:
    """The second neuron overshoots most, at the higher threshold; the third stays below its own."""
    threshold = np.array([2.0, 4.0, 8.0])
    spec = overshooting(overshoot=overshoot)
    neuron = spec(threshold=threshold.reshape(3, 1, 1), refractory_timesteps=2)
    layer = Layer(neuron, (3, 1, 1), 1, KWTA(k=2), backend=backend, dtype="float64")
    x = np.array([3.0, 9.0, 7.0]).reshape(1, 1, 3, 1, 1)
    run = layer.run(np.concatenate([x, x]), ("w", "u_pre", "thresholded", "winners", "spikes"))
    u = np.array([3.0, 9.0, 7.0])
    seen = np.minimum(u, threshold) if overshoot == "cut" else u
    w = np.where(u >= threshold, seen + 100 * seen, seen)
    np.testing.assert_array_equal(run.w[0].ravel(), w)
    np.testing.assert_array_equal(run.u_pre[0].ravel(), u)
    np.testing.assert_array_equal(run.thresholded[0].ravel(), [3.0, 9.0, 0.0])
    assert run.winners[0, 0].tolist() == [[1, 0, 0], [0, 0, 0]]
    # winners are held at 0, and the third neuron goes over its threshold
    third = min(14.0, 8.0) * 101 if overshoot == "cut" else 14.0 * 101
    np.testing.assert_array_equal(run.w[1].ravel(), [w[0], w[1], w[2] + third])


def test_overshoot_is_kept_unless_a_model_says_otherwise() -> None:
    assert overshooting().overshoot == "kept"
    assert {name for name in models.names() if models.get(name).overshoot == "cut"} == {"AdEx"}
    for wrong in ("cutt", None, True):
        with pytest.raises(ValueError, match=r"overshoot of Overshooting is .*'kept', or 'cut'"):
            overshooting(overshoot=wrong)


def test_a_nan_is_not_cut_away() -> None:
    layer = Layer(
        overshooting(overshoot="cut")(threshold=1.0), (1,), backend="cpu", initial={"u": 0.5}, nan="ignore"
    )
    layer.state = {**layer.state, "u": np.full((1, 1), np.nan)}
    assert np.isnan(layer.step(np.zeros((1, 1)), ("w",)).w).all()


# -- nothing of a built-in model becomes NaN or infinite for |I|, |u|, |w| up to 1e6

EXTREMES = [-1e6, -3e3, -1.0, 0.0, 0.7, 90.0, 2e4, 1e6]
MILLIVOLTS: dict[str, Any] = {"resting_potential": -70.0, "threshold": -30.0, "ts": 1e-4}
REGIMES: dict[str, dict[str, Any]] = {
    "EIF": {**MILLIVOLTS, "theta_rh": -50.0, "delta_t": 2.0},
    "EIF_Simple": {**MILLIVOLTS, "theta_rh": -50.0, "delta_t": 2.0},
    "QIF": {**MILLIVOLTS, "u_c": -50.0, "a": 0.1},
    "AdEx": {**BRETTE_GERSTNER, "threshold": 20.0},
    "Izhikevich": {"ts": 5e-4},
}
CONFIGURED = [(name, {"threshold": 10.0}) for name in models.names() if name != "Izhikevich"] + [
    ("Izhikevich", {}),
    *REGIMES.items(),
    *((name, {**REGIMES[name], "floor": None}) for name in ("EIF", "QIF", "AdEx")),
]


def extremes(name: str) -> dict[str, np.ndarray]:
    """u, w (where the model has one) and I of every neuron: all combinations."""
    columns = ("u", "I", *models.get(name).states)
    table = np.array(list(itertools.product(EXTREMES, repeat=len(columns)))).T
    return dict(zip(columns, table, strict=True))


def everything(name: str, values: dict[str, Any], start: dict[str, np.ndarray], backend: Any, dtype: str):
    states = {key: value for key, value in start.items() if key != "I"}
    layer = Layer(models.get(name)(**values), start["u"].shape, backend=backend, dtype=dtype, initial=states)
    return layer.run(start["I"], ("spikes", "u", "u_pre", *models.get(name).states), steps=40)


@pytest.mark.exhaustive(but=lambda dtype: dtype == "float32")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "values"), CONFIGURED, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CONFIGURED)]
)
def test_everything_stays_finite(name: str, values: dict[str, Any], dtype: str) -> None:
    runs = [everything(name, values, extremes(name), backend, dtype) for backend in ("cpu", "torch")]
    for run in runs:
        for key in run.names:
            assert np.isfinite(np.asarray(run[key])).all(), key
        assert run.spikes.any()
    assert_same(*(Recording({key: np.asarray(run[key]) for key in run.names}) for run in runs))


bounded = st.floats(-1e6, 1e6, width=32)


@pytest.mark.exhaustive(but=lambda dtype: dtype == "float32")
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(bounded, bounded, bounded), min_size=4, max_size=4))
def test_everything_stays_finite_anywhere(dtype: str, rows: list[tuple[float, float, float]]) -> None:
    u, w, current = np.array(rows).T
    for name in models.names():
        start = {"u": u, "I": current} | ({"w": w} if models.get(name).states else {})
        run = everything(name, REGIMES.get(name, {"threshold": 10.0}), start, "cpu", dtype)
        assert all(np.isfinite(run[key]).all() for key in run.names), name


@pytest.mark.exhaustive(but=lambda backend: backend != "cpu")
@pytest.mark.sampled("name backend")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["EIF", "EIF_Simple", "AdEx"])
def test_the_upswing_of_a_step_is_capped(name: str, dtype: str, backend: Backend) -> None:
    """By 1e3 (threshold - rest); neurons that are cut there still differ by their input, and win by it."""
    values = REGIMES[name]
    rest, threshold = values["resting_potential"], values["threshold"]
    u = 10.0 if name == "AdEx" else -31.0
    u = {"float64": u, "float32": float(np.float32(u))}[dtype]
    spread = 1.0 if name == "EIF_Simple" else values["ts"] / values.get("C", 0.281)
    current = np.array([5.0, 0.0, 7.0, 2.0]) / spread
    leaking = values["ts"] / values.get("tau_rc", 0.02) * (rest - u)
    for soft, capped in ((-50.0, False), (-90.0 if name == "EIF_Simple" else -110.0, True)):
        neuron = models.get(name)(**{**values, "theta_rh": soft, "delta_t": 2.0})
        layer = Layer(neuron, (4, 1, 1), 1, KWTA(k=4), backend=backend, dtype=dtype, initial={"u": u})
        step = layer.step(current.reshape(1, 4, 1, 1), ("u_pre", "winners"))
        free = 2.0 * math.exp((u - soft) / 2) * (1 if name == "EIF_Simple" else leaking / (rest - u))
        cap = 1e3 * (threshold - rest)
        if capped:
            assert free > cap
            expected = u + leaking + cap + current * spread
            got = np.asarray(step.u_pre).ravel()
            np.testing.assert_allclose(got, expected, rtol=1e-12 if dtype == "float64" else 2e-7)
            assert len(set(got.tolist())) == 4
            assert np.asarray(step.winners)[0, :, 0].tolist() == [2, 0, 3, 1]
        elif free < cap:
            expected = u + leaking + free + current * spread
            np.testing.assert_allclose(
                np.asarray(step.u_pre).ravel(), expected, rtol=1e-12 if dtype == "float64" else 1e-5
            )


def test_izhikevichs_parabola_is_capped_far_beyond_what_a_step_needs() -> None:
    """From |u| up to 1e6 a step is the published one; only a runaway of Euler's method is stopped, at 1e9 (thr - c)."""
    u = np.array([-1e6, -3e3, -65.0, 29.0, 1e6, 1e8])
    layer = Layer(models.Izhikevich(), u.shape, backend="cpu", dtype="float64", initial={"u": u, "w": 5.0})
    step = layer.step(np.full((1, 6), 10.0), ("u_pre",))
    expected = u + (0.04 * u * u + 5 * u + 140 + 10 - 5)
    expected[-1] = 1e8 + 1e9 * (30 + 65) + 140 + 10 - 5
    np.testing.assert_allclose(step.u_pre[0], expected, rtol=1e-14)


# -- LIF: how the input enters


def potentials(steps: int, **values: Any) -> np.ndarray:
    layer = Layer(models.LIF(threshold=1e9, **values), (1,), backend="cpu", dtype="float64")
    return layer.run(np.array([50.0]), ("u",), steps=steps).u.ravel()


@pytest.mark.parametrize(("ts", "too_high"), [(1e-3, 1.0252083), (1e-4, 1.0025021)])
def test_lif_adds_its_input_as_it_is_unless_told(ts: float, too_high: float) -> None:
    """Added once a step, input acts as pulses: the steady state is R I (ts/tau) / (1 - exp(-ts/tau))."""
    steps = round(0.6 / ts)
    end = 50.0 * 0.02 / 0.281  # R I
    assert potentials(steps, ts=ts)[-1] == pytest.approx(too_high * end, rel=1e-7)
    exact = end * (1 - np.exp(-ts * np.arange(1, steps + 1) / 0.02))
    np.testing.assert_allclose(potentials(steps, ts=ts, exact_input=1), exact, rtol=1e-12)


def test_exact_input_of_each_neuron_and_of_long_steps() -> None:
    values = {"tau_rc": np.array([1e-3, 0.02, 1e9]), "exact_input": np.array([1, 0, 1]), "ts": 0.01}
    layer = Layer(models.LIF(threshold=1e9, **values), (3,), backend="cpu", dtype="float64")
    u = layer.step(np.full((1, 3), 2.0), ("u",)).u[0]
    tau = values["tau_rc"]
    expected = np.array([2 * tau[0] / 0.281 * (1 - np.exp(-10.0)), 2 * 0.01 / 0.281, 2 * 0.01 / 0.281])
    np.testing.assert_allclose(u, expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "flag"), [("LIF", "exact_input"), ("AdEx", "w_from_new"), ("Izhikevich", "w_from_new")]
)
def test_switches_are_0_or_1(name: str, flag: str) -> None:
    for wrong in (0.5, 2, -1):
        with pytest.raises(ValueError, match=f"{flag} = {wrong:g} of {name}: give 0 or 1"):
            Layer(models.get(name)(threshold=40.0, **{flag: wrong}), (2,), backend="cpu")
