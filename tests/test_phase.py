"""Pictures of dynamics against equations written here by hand, and rates against counting and published figures."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from spyke_numba import Layer, NeuronSpec, Param, State, Uniform, models
from spyke_numba.analysis import patterns
from spyke_numba.analysis.rates import firing_rates, has_closed_form, rheobase, theory
from spyke_numba.figures.dynamics import du_dt, fi_curve, fixed_points, phase_plane, plot_ode, typical

CELL = {"resting_potential": -70.0, "threshold": -50.0, "tau_rc": 0.02, "C": 0.2, "ts": 1e-4}
ONE_VARIABLE = [name for name in models.names() if not models.get(name).states]
MORE = [name for name in models.names() if models.get(name).states]
U = np.linspace(-80.0, -45.0, 71)

#: du/dt in mV/ms, with tau 20 ms and C 0.2 nF = 200 pF, I in pA.
BY_HAND = {
    "IF": lambda u, i: i / 200 + 0 * u,
    "LIF": lambda u, i: (-70 - u) * (1 - math.exp(-0.1 / 20)) / 0.1 + i / 200,
    "LIF_ode": lambda u, i: (-70 - u) / 20 + i / 200,
    "EIF": lambda u, i: (-70 - u + 2 * np.exp((u + 55) / 2)) / 20 + i / 200,
    "QIF": lambda u, i: 0.1 * (u + 70) * (u + 55) / 20 + i / 200,
    "LIF_Simple": lambda u, i: (-70 - u) / 20 + i / 0.1,
    "EIF_Simple": lambda u, i: (-70 - u) / 20 + (2 * np.exp((u + 55) / 2) + i) / 0.1,
}
OWN = {
    "EIF": {"theta_rh": -55.0, "delta_t": 2.0},
    "EIF_Simple": {"theta_rh": -55.0, "delta_t": 2.0},
    "QIF": {"u_c": -55.0, "a": 0.1},
}


def cell(name, **own):
    spec = models.get(name)
    return spec(**{k: v for k, v in {**CELL, **OWN.get(name, {}), **own}.items() if k in spec.all_params})


def curve(ax, label):
    (line,) = [line for line in ax.lines if line.get_label().startswith(label)]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def test_every_model_is_covered():
    assert set(BY_HAND) == set(ONE_VARIABLE)


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("current", [0.0, 150.0])
def test_du_dt(name, current):
    np.testing.assert_allclose(du_dt(cell(name), U, current), BY_HAND[name](U, current), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("points", [401, 400])  # the zeros among the potentials, and between them
def test_fixed_points(points):
    u = np.linspace(-80, -40, points)
    assert fixed_points(u, BY_HAND["LIF_ode"](u, 0.0)) == [(pytest.approx(-70.0, abs=1e-3), True)]
    found = fixed_points(u, BY_HAND["QIF"](u, 0.0))
    assert found == [(pytest.approx(-70.0, abs=1e-3), True), (pytest.approx(-55.0, abs=1e-3), False)]
    assert fixed_points(u, BY_HAND["QIF"](u, 1000.0)) == []


@pytest.mark.parametrize("name", ONE_VARIABLE)
def test_plot_ode(name):
    figure, ax = plot_ode(cell(name), current=120.0)
    assert isinstance(figure, Figure)
    for label, current in (("no current", 0.0), ("I = 120", 120.0)):
        u, change = curve(ax, label)
        np.testing.assert_allclose(change, BY_HAND[name](u, current), rtol=1e-6, atol=1e-9)
        assert u.min() < -70 < -50 < u.max()
    assert ax.get_ylabel() == "du/dt (mV/ms)" and ax.get_xlabel() == "u (mV)"
    low, high = ax.get_ylim()
    assert low < 0 < high < 1e4  # an upswing leaves the picture, the zero does not
    figure.canvas.draw()


def test_plot_ode_without_current_is_one_curve():
    _, ax = plot_ode(cell("LIF"))
    assert not [line for line in ax.lines if line.get_label().startswith("I =")]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [float(dot.get_xdata()[0]) for dot in dots] == [pytest.approx(-70.0, abs=1e-6)]


def test_plot_ode_draws_where_it_is_told():
    own = Figure()
    first, second = own.subplots(1, 2)
    assert plot_ode(cell("LIF"), own, second) == (own, second)
    assert plot_ode(cell("LIF"), ax=second) == (own, second)
    assert not first.lines and second.lines
    other = Figure()
    figure, ax = plot_ode(cell("LIF"), other)
    assert figure is other and ax in other.axes


@pytest.mark.parametrize("name", MORE)
def test_plot_ode_refuses_more_variables(name):
    with pytest.raises(ValueError, match=f"{name} has the states w beside u.*phase_plane"):
        plot_ode(models.get(name)(threshold=30.0))


def test_varying_parameters_are_drawn_at_their_median():
    neuron = cell("LIF_ode", tau_rc=Uniform(0.01, 0.03), C=[0.1, 0.2, 0.9])
    assert typical(neuron).given["tau_rc"] == pytest.approx(0.02, rel=0.02)
    assert typical(neuron).given["C"] == 0.2
    plot_ode(neuron, current=100.0)


def test_the_drop_in_is_drawn_as_the_leaky_neuron():
    neurons = pytest.importorskip("spyke_numba.neurons", reason="the drop-in needs torch")
    for neuron in (neurons.LIF(15.0), neurons.UniformLIF(15.0, (0.0199, 0.0201))):
        _, ax = neuron.plot_ode(current=5.0)
        u, change = curve(ax, "I = 5")
        by_hand = u * (math.exp(-1 / 20) - 1) + 5.0 / 281.0  # R I = 5 tau / C; in mV/ms at a step of 1 ms
        np.testing.assert_allclose(change, by_hand, rtol=2e-3, atol=2e-3)
        assert ax.get_title() == "LIF"
    with pytest.raises(ValueError, match="AdEx has the states w"):
        neurons.AdEx(15.0).plot_ode()


# -- phase planes


def nullcline(ax, colour, linestyle="solid"):
    """(n, 2) points of the contour drawn in this colour."""
    from matplotlib.colors import same_color

    for collection in ax.collections:
        colours = collection.get_edgecolor()
        dashed = collection.get_linestyle()[0][1] is not None
        if len(colours) and same_color(colours[0], colour) and dashed == (linestyle == "dashed"):
            points = np.concatenate([path.vertices for path in collection.get_paths()])
            if len(points) > 10:
                return points
    raise AssertionError(f"no {linestyle} contour in {colour}")


def test_phase_plane_of_adex():
    from spyke_numba.figures.dynamics import BLUE, ORANGE

    pattern = patterns.NEURONAL_DYNAMICS["bursting"]
    figure, ax = phase_plane(pattern.neuron(), current=65.0, duration=0.25, backend="cpu")

    def at_rest(u, current):  # w at which du/dt is 0: 2 nS, in pA
        return 2.0 * (-70 - u + 2 * np.exp((u + 50) / 2)) + current

    for points, current in ((nullcline(ax, BLUE), 65.0), (nullcline(ax, BLUE, "dashed"), 0.0)):
        u, w = points.T
        slope = np.abs(2.0 * (np.exp((u + 50) / 2) - 1))
        assert (np.abs(w - at_rest(u, current)) < 0.05 + 0.02 * slope).all()
    u, w = nullcline(ax, ORANGE).T
    np.testing.assert_allclose(w, -0.5 * (u + 70), atol=1e-6)
    spikes = int(pattern.run(("spikes",), backend="cpu").spikes[: round(0.25 / 1e-5)].sum())
    path = max(ax.lines, key=lambda line: len(line.get_xdata()))
    u = np.asarray(path.get_xdata())
    cuts = np.flatnonzero(np.isnan(u))
    assert cuts.size == spikes > 10  # the path is cut at each reset
    assert (u[cuts - 1] == -30.0).all() and (u[cuts + 1] == -46.0).all()
    figure.canvas.draw()


def test_phase_plane_of_izhikevich():
    from spyke_numba.figures.dynamics import BLUE, ORANGE

    pattern = patterns.IZHIKEVICH_2003["RS"]
    _, ax = phase_plane(pattern.neuron(), current=10.0, initial=pattern.initial, backend="cpu")
    u, w = nullcline(ax, BLUE).T
    assert (np.abs(w - (0.04 * u**2 + 5 * u + 150)) < 0.05).all()
    u, w = nullcline(ax, ORANGE).T
    np.testing.assert_allclose(w, 0.2 * u, atol=1e-6)
    path = max(ax.lines, key=lambda line: len(line.get_xdata()))
    assert (path.get_xdata()[0], path.get_ydata()[0]) == (-63.0, pytest.approx(-12.6))


def fitzhugh_membrane(u, I, v, ts):
    return u + ts * (u - u * u * u / 3.0 - v + I)


def fitzhugh_recovery(u, v, ts, eps):
    return v + ts * eps * (u + 0.7 - 0.8 * v)


def test_phase_plane_of_a_users_model():
    fitzhugh = NeuronSpec(
        name="FitzHughNagumo",
        membrane=fitzhugh_membrane,
        adaptation=fitzhugh_recovery,
        params={"eps": Param(0.08)},
        states={"v": State(0.0)},
    )
    figure, ax = phase_plane(
        fitzhugh(threshold=3.0, ts=0.1, refractory_timesteps=0), current=0.5, duration=80.0, backend="cpu"
    )
    assert ax.get_ylabel() == "v"
    figure.canvas.draw()


@pytest.mark.parametrize("name", ONE_VARIABLE)
def test_phase_plane_refuses_one_variable(name):
    with pytest.raises(ValueError, match="has 0 states beside u"):
        phase_plane(cell(name))


# -- rates


def counted(neuron, currents, duration):
    """Rates from the intervals of spikes stepped one by one."""
    layer = Layer(neuron, (len(currents),), 1, backend="cpu", dtype="float64")
    ts = layer.parameters["ts"]
    at = [[] for _ in currents]
    for step in range(round(duration / ts)):
        for place in np.flatnonzero(layer.step(np.asarray(currents, float)[None]).spikes):
            at[place].append(step * ts)
    return [len(one) > 1 and (len(one) - 1) / (one[-1] - one[0]) for one in at]


def test_firing_rates_are_those_counted():
    currents = [100.0, 210.0, 300.0, 600.0]
    rates = firing_rates(cell("LIF"), currents, 0.4, backend="cpu")
    np.testing.assert_allclose(rates.steady, counted(cell("LIF"), currents, 0.4))
    np.testing.assert_allclose(rates.first, rates.steady)
    assert rates.steady[0] == 0


def input_less_w(I, w):
    return I - w


def lasting_jump(w):
    return w + 1.0


def test_adaptation_slows_and_a_transient_falls_silent():
    adapting = firing_rates(patterns.NAUD_2008["adaptation"].neuron(), [500.0], 0.6, backend="cpu")
    assert adapting.first[0] == pytest.approx(1 / 0.0116, rel=0.05)
    assert adapting.steady[0] == pytest.approx(1 / 0.0761, rel=0.02)
    bursting = patterns.NAUD_2008["initial burst"].neuron()
    assert firing_rates(bursting, [250.0], 3.0, backend="cpu").steady[0] < 20
    twice = NeuronSpec(  # fires until its adaptation, which never fades, has won
        name="FallsSilent",
        membrane=input_less_w,
        on_spike=lasting_jump,
        states={"w": State(0.0)},
    )
    silent = firing_rates(twice(threshold=1.0, refractory_timesteps=0), [5.5], 1.0, backend="cpu")
    assert silent.first[0] == pytest.approx(1000.0) and silent.steady[0] == 0.0


@pytest.mark.parametrize("period", [0, 20])
@pytest.mark.parametrize("name", ["IF", "LIF", "LIF_ode", "LIF_Simple"])
def test_closed_forms_are_exact_to_the_step(name, period):
    # uneven, so that no threshold is met exactly, where rounding decides the step
    currents = np.linspace(0.0, 0.299 if name == "LIF_Simple" else 598.0, 38) * (1 + 1e-4 * math.pi)
    for reset in (-70.0, -62.0):
        neuron = cell(name, refractory_timesteps=period, v_reset=reset)
        simulated, expected = firing_rates(neuron, currents, 4.0, backend="cpu"), theory(neuron, currents)
        fast = expected > 2.0
        np.testing.assert_allclose(simulated.steady[fast], expected[fast], rtol=1e-9)
        assert fast.sum() > 15 and has_closed_form(neuron)


def test_theory_gives_the_published_rates():
    # Neuronal Dynamics: rest -70, reset -65, threshold -50 mV, 10 MOhm, 8 ms; the 2 ms of refractoriness apart
    neuron = models.LIF(
        tau_rc=0.008,
        C=0.8,
        resting_potential=-70.0,
        v_reset=-65.0,
        threshold=-50.0,
        ts=1e-7,
        refractory_timesteps=0,
    )
    rates = 1 / (0.002 + 1 / theory(neuron, [2100.0, 2500.0, 3000.0, 5000.0, 10000.0]))
    np.testing.assert_allclose(rates, [41.36, 76.39, 107.18, 190.70, 296.31], rtol=1e-4)
    quadratic = models.QIF(a=0.1, u_c=10.0, threshold=20.0, tau_rc=0.02, C=0.281, refractory_timesteps=0)
    assert rheobase(quadratic) == pytest.approx(2.5 * 0.281 / 0.02)
    assert 1 / theory(quadratic, [2 * rheobase(quadratic)])[0] == pytest.approx(0.08138, abs=5e-6)
    assert theory(cell("QIF"), [0.0])[0] == 0.0


def fine(name, ts):
    """With an upswing from -55 mV on; that of EIF_Simple is not scaled by the leak of a step."""
    moved = {"theta_rh": -55.0 + 2.0 * math.log(0.02 / ts)} if name == "EIF_Simple" else {}
    return cell(name, threshold=-30.0, ts=ts, refractory_timesteps=0, **moved)


@pytest.mark.parametrize("name", ["EIF", "EIF_Simple", "QIF"])
def test_theory_agrees_with_fine_steps(name):
    neuron = fine(name, 1e-5)
    currents = rheobase(neuron) * np.array([0.9, 1.2, 2.0, 4.0])
    simulated = firing_rates(neuron, currents, 0.5, backend="cpu").steady
    expected = theory(neuron, currents)
    np.testing.assert_allclose(simulated, expected, rtol=5e-3)
    assert expected[0] == 0 and (expected[1:] > 5).all()


@pytest.mark.parametrize("name", patterns.NAUD_2008)
def test_rheobase_of_adex_is_that_of_touboul_and_brette(name):
    p = patterns.NAUD_2008[name].params
    c, a = p["C"] / p["tau_rc"], p["a"]
    rest, soft, delta = p["resting_potential"], p["theta_rh"], p["delta_t"]
    if a <= -c:
        pytest.skip("any current at all fires it")
    # the resting point is lost where the nullclines touch, or earlier where it turns unstable
    u = np.linspace(rest, soft + 20, 2_000_001)
    needed = (c + a) * (u - rest) - c * delta * np.exp((u - soft) / delta)
    stable = np.exp((u - soft) / delta) - 1 < p["tau_rc"] / p["tau_w"]
    before_fold = u <= u[np.argmax(needed)]
    expected = needed[stable & before_fold].max()
    assert rheobase(patterns.NAUD_2008[name].neuron()) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", models.names())
def test_rheobase_divides_silence_from_firing(name):
    if name == "IF":
        assert rheobase(cell(name)) == 0.0
        pytest.skip("IF fires at any current")
    if name == "AdEx":
        neuron = patterns.NAUD_2008["adaptation"].neuron()
    elif name == "Izhikevich":
        neuron = patterns.IZHIKEVICH_2003["RS"].neuron()
    else:
        neuron = fine(name, 2e-5) if name in OWN else cell(name, ts=2e-5)
    currents = rheobase(neuron) * np.array([0.97, 1.03])
    rates = firing_rates(neuron, currents, 3.0, backend="cpu")
    assert rates.steady[0] == 0 < rates.steady[1]


@pytest.mark.parametrize("name", models.names())
def test_fi_curve(name):
    neuron = {"Izhikevich": patterns.IZHIKEVICH_2003["RS"], "AdEx": patterns.NAUD_2008["adaptation"]}
    neuron = neuron[name].neuron() if name in neuron else cell(name)
    currents = np.linspace(0, 20 if name == "Izhikevich" else 700, 8)
    figure, ax = fi_curve(neuron, currents, duration=0.3, backend="cpu")
    labels = {line.get_label() for line in ax.lines}
    drawn = curve(ax, "steady" if name in MORE else "simulated")[1]
    np.testing.assert_array_equal(drawn, firing_rates(neuron, currents, 0.3, backend="cpu").steady)
    assert ("closed form" in labels) == has_closed_form(neuron)
    assert any("\\int" in label for label in labels) == (name in ("EIF", "EIF_Simple"))
    figure.canvas.draw()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (([[1.0]], 1.0), "the currents have the shape"),
        (([], 1.0), "the currents have the shape"),
        (([1.0], 0.0), "the duration is 0 s"),
    ],
)
def test_firing_rates_refuses(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        firing_rates(cell("LIF"), *given, backend="cpu")


def test_pyplot_is_left_alone():
    code = (
        "import sys; from spyke_numba import models; from spyke_numba.figures.dynamics import plot_ode; "
        "plot_ode(models.LIF(threshold=1.0)); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
