"""Pictures of a neuron's dynamics: du/dt against u, phase planes, and firing rate against current."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from spyke_numba import models
from spyke_numba.analysis.rates import Rates, firing_rates, has_closed_form, rheobase, theory
from spyke_numba.backends import Backend
from spyke_numba.layer import Layer
from spyke_numba.model.distributions import Distribution
from spyke_numba.model.resolve import resolve
from spyke_numba.model.spec import Neuron

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["du_dt", "fi_curve", "phase_plane", "plot_ode"]

INK, QUIET, BLUE, RED, ORANGE = "#222222", "#a9a9a9", "#1f5fa8", "#c8283c", "#e07b00"

#: A legend that hides what it covers, without a frame.
PLAIN: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "framealpha": 0.9}
DASHES, DOTS = (0, (4, 3)), (0, (1, 2))

#: Unit of the input: a current through a capacitance, or added to the potential as it is.
CURRENT, STEP, BARE = "pA", "mV per step", ""


def typical(neuron: Neuron) -> Neuron:
    """Return the neuron with one number for each parameter: the median of what varies."""
    given = {}
    for name, value in neuron.given.items():
        if isinstance(value, Distribution):
            value = value.draw(np.random.default_rng(0), (10_001,))
        given[name] = value if value is None else float(np.median(value))
    return Neuron(neuron.spec, given)


def current_unit(neuron: Neuron) -> str:
    """Return the unit of a neuron's input for potentials in mV, times in s and capacitances in nF."""
    names = neuron.spec.all_params
    return CURRENT if "C" in names else STEP if "tau_rc" in names else BARE


def _label(quantity: str, unit: str) -> str:
    return f"{quantity} ({unit})" if unit else quantity


def new_axes(figure: Figure | None, ax: Axes | None) -> tuple[Figure, Axes]:
    """Return where to draw: the axes given, or new ones of the figure given, or of a new one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if ax is not None:
        return figure if figure is not None else ax.figure, ax  # type: ignore[return-value]
    if figure is None:
        figure = Figure(figsize=(6.0, 4.0), layout="constrained", dpi=120)
        FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _name(neuron: Neuron) -> str:
    """Return a model's name, of a drop-in form that of the model."""
    return neuron.spec.name.removeprefix("DropIn")


def _bare(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)


def _of_one_variable(neuron: Neuron) -> Neuron:
    spec = neuron.spec
    if set(spec.states) == {"u_inj", "t_inj"}:
        # these two states only remember where and when a leaky neuron's decay began
        own = models.get("LIF").all_params
        neuron = Neuron(models.get("LIF"), {k: v for k, v in neuron.given.items() if k in own})
    elif spec.states:
        raise ValueError(
            f"{_name(neuron)} has the states {', '.join(spec.states)} beside u, so du/dt is no function of u alone: "
            "use spyke_numba.figures.dynamics.phase_plane"
        )
    return typical(neuron)


def du_dt(neuron: Neuron, u: Any, current: float = 0.0, **states: Any) -> np.ndarray:
    """Return the change of the potential over one step, divided by the step, in mV/ms.

    For a model stepped by Euler's method this is the right-hand side of its differential equation.

    Parameters
    ----------
    neuron : Neuron
        With one number for each parameter.
    u : array
        Potentials (mV).
    current : float
        Input.
    **states : array
        Values of the model's states beside ``u``.
    """
    values = {**resolve(neuron, (1,), 0), **states, "u": np.asarray(u, dtype=np.float64), "I": current}
    with np.errstate(over="ignore", invalid="ignore"):
        (new,) = neuron.spec.functions["membrane"].computed(values)
        return np.asarray((new - values["u"]) / (1e3 * values["ts"]))


def fixed_points(u: np.ndarray, change: np.ndarray) -> list[tuple[float, bool]]:
    """Return the zeros of `change` (du/dt at the potentials `u`), each with whether it is stable."""
    sign = np.sign(change)
    found = [(float(u[i]), bool(change[i - 1] > change[i + 1])) for i in np.flatnonzero(sign[1:-1] == 0) + 1]
    for i in np.flatnonzero(sign[:-1] * sign[1:] < 0):
        share = change[i] / (change[i] - change[i + 1])
        found.append((float(u[i] + share * (u[i + 1] - u[i])), bool(sign[i] > 0)))
    return sorted(found)


def plot_ode(
    neuron: Neuron, figure: Figure | None = None, ax: Axes | None = None, current: float = 0.0
) -> tuple[Figure, Axes]:
    """Draw du/dt against u, without and with a constant current, with resting points and threshold.

    A filled dot is a stable resting point, an open one an unstable one.  Parameters that vary between neurons are
    drawn at their median.

    Parameters
    ----------
    neuron : Neuron
        Of a model of one variable.
    figure, ax : optional
        Where to draw; a new figure unless given.
    current : float
        Constant input; with 0 there is one curve.

    Returns
    -------
    (Figure, Axes)

    Raises
    ------
    ValueError
        For a model of more than one variable.
    """
    neuron = _of_one_variable(neuron)
    p = resolve(neuron, (1,), 0)
    rest, threshold = p["resting_potential"], p["threshold"]
    span = threshold - rest
    u = np.linspace(rest - 0.3 * span, threshold + 0.08 * span, 2001)
    curves = {
        0.0: (INK, "no current"),
        float(current): (RED, f"I = {current:.4g} {current_unit(neuron)}".strip()),
    }
    if not current:
        curves = {0.0: (INK, "no current")}
    changes = {value: du_dt(neuron, u, value) for value in curves}
    figure, ax = new_axes(figure, ax)
    ax.axhline(0.0, color=QUIET, linewidth=0.8, zorder=1)
    ax.axvline(threshold, color=QUIET, linewidth=0.9, linestyle=DASHES, zorder=1, label="threshold")
    for value, (colour, label) in curves.items():
        ax.plot(u, changes[value], color=colour, linewidth=1.6, label=label, zorder=3)
        for at, stable in fixed_points(u, changes[value]) if np.ptp(changes[value]) > 0 else ():
            face = colour if stable else "white"
            ax.plot(at, 0.0, "o", markersize=6, color=colour, markerfacecolor=face, zorder=4, clip_on=False)
    # an upswing leaves every scale: what is shown is the part around the resting points
    below = u <= threshold
    typical_size = max(float(np.quantile(np.abs(change[below]), 0.6)) for change in changes.values())
    low = min(float(change[below].min()) for change in changes.values())
    high = max(float(change[below].max()) for change in changes.values())
    limit = 2.2 * typical_size or 1.0
    low, high = max(low, -limit), min(high, limit)
    margin = 0.12 * ((high - low) or limit)
    ax.set_ylim(min(low, 0.0) - margin, max(high, 0.0) + margin)
    ax.set_xlim(u[0], u[-1])
    ax.set_xlabel("u (mV)")
    ax.set_ylabel("du/dt (mV/ms)")
    ax.set_title(_name(neuron), fontsize=10)
    ax.legend(fontsize=7.5, **PLAIN)
    _bare(ax)
    return figure, ax


def phase_plane(
    neuron: Neuron,
    figure: Figure | None = None,
    ax: Axes | None = None,
    current: float = 0.0,
    duration: float = 0.3,
    *,
    initial: Mapping[str, float] | None = None,
    backend: str | Backend = "auto",
) -> tuple[Figure, Axes]:
    """Draw the phase plane of a model of two variables at a constant current, with a run of one neuron.

    The nullclines are where a variable stands still (du/dt = 0 also without the current, dashed); arrows give the
    direction of the flow; the trajectory is computed by a `Layer`, with its resets as dotted lines.

    Parameters
    ----------
    neuron : Neuron
        Of a model with one state beside ``u``.
    figure, ax : optional
        Where to draw; a new figure unless given.
    current : float
        Constant input.
    duration : float
        Length of the run (s).
    initial : mapping of str to number, optional
        Where the run starts; the model's own start unless given.
    backend
        As of `Layer`.

    Returns
    -------
    (Figure, Axes)

    Raises
    ------
    ValueError
        For a model of another number of variables.
    """
    spec = neuron.spec
    if len(spec.states) != 1 or spec.adaptation is None:
        raise ValueError(
            f"{_name(neuron)} has {len(spec.states)} states beside u: a phase plane takes a model with one that moves, "
            "such as AdEx or Izhikevich"
        )
    neuron = typical(neuron)
    (state,) = spec.states
    path = _trajectory(neuron, state, current, duration, initial, backend)
    figure, ax = new_axes(figure, ax)
    p = resolve(neuron, (1,), 0)
    top = p["threshold"]
    finite = path["u"][np.isfinite(path["u"])]
    left = min(float(finite.min()), p["resting_potential"] if "resting_potential" in neuron.given else np.inf)
    width = top - left
    w_low, w_high = np.nanmin(path["w"]), np.nanmax(path["w"])
    height = (w_high - w_low) or 1.0
    x, y = (left - 0.12 * width, top + 0.04 * width), (w_low - 0.35 * height, w_high + 0.2 * height)
    u, w = np.meshgrid(np.linspace(*x, 400), np.linspace(*y, 400))

    def flow(at_u: np.ndarray, at_w: np.ndarray, value: float) -> tuple[np.ndarray, np.ndarray]:
        signals = {**p, "u": at_u, "u_new": at_u, "I": value, state: at_w}
        (moved,) = spec.functions["adaptation"].computed(signals)
        return du_dt(neuron, at_u, value, **{state: at_w}), (moved - at_w) / (1e3 * p["ts"])

    du, dw = flow(u, w, current)
    ax.contour(u, w, du, levels=[0.0], colors=[BLUE], linewidths=1.8, zorder=3)
    if current:
        ax.contour(
            u,
            w,
            flow(u, w, 0.0)[0],
            levels=[0.0],
            colors=[BLUE],
            linewidths=1.0,
            linestyles="dashed",
            zorder=2,
        )
    ax.contour(u, w, dw, levels=[0.0], colors=[ORANGE], linewidths=1.8, zorder=3)
    _arrows(ax, x, y, lambda at_u, at_w: flow(at_u, at_w, current))
    ax.axvline(top, color=QUIET, linewidth=0.9, linestyle=DASHES, zorder=1)
    ax.plot(path["jump_u"], path["jump_w"], color=INK, linewidth=0.6, linestyle=DOTS, zorder=4)
    ax.plot(path["u"], path["w"], color=INK, linewidth=1.0, zorder=5)
    ax.plot(path["u"][0], path["w"][0], "o", color=INK, markersize=5, zorder=6)
    ax.set_xlim(*x)
    ax.set_ylim(*y)
    unit = "pA" if "C" in spec.params else ""
    ax.set_xlabel("u (mV)")
    ax.set_ylabel(_label(state, unit))
    ax.set_title(f"{_name(neuron)}, I = {current:.4g} {current_unit(neuron)}".rstrip(), fontsize=10)
    ax.legend(handles=phase_handles(state, bool(current)), fontsize=7, loc="upper right", **PLAIN)
    _bare(ax)
    return figure, ax


def phase_handles(state: str = "w", with_current: bool = True) -> list[Any]:
    """Return what a legend of a phase plane needs."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=BLUE, linewidth=1.8, label="du/dt = 0")]
    if with_current:
        handles.append(
            Line2D([], [], color=BLUE, linewidth=1.0, linestyle="--", label="the same, no current")
        )
    handles.append(Line2D([], [], color=ORANGE, linewidth=1.8, label=f"d{state}/dt = 0"))
    handles.append(Line2D([], [], color=INK, linewidth=1.0, marker="o", markersize=4, label="trajectory"))
    handles.append(Line2D([], [], color=INK, linewidth=0.6, linestyle=DOTS, label="reset"))
    handles.append(Line2D([], [], color=QUIET, linewidth=0.9, linestyle=DASHES, label="threshold"))
    return handles


def _trajectory(
    neuron: Neuron,
    state: str,
    current: float,
    duration: float,
    initial: Mapping[str, float] | None,
    backend: str | Backend,
) -> dict[str, np.ndarray]:
    """Run one neuron; its path is cut at each spike, and the resets are lines of their own."""
    layer = Layer(neuron, (1,), 1, backend=backend, dtype="float64", initial=initial)
    start = {name: float(layer.state[name].reshape(-1)[0]) for name in ("u", state)}
    steps = max(1, round(duration / layer.parameters["ts"]))
    run = layer.run(np.full((1, 1), float(current)), ("spikes", "u", "u_pre", state), steps=steps)
    u, w = run.u[:, 0, 0], run[state][:, 0, 0]
    at = np.flatnonzero(run.spikes[:, 0, 0])
    threshold = layer.parameters["threshold"]
    before_u = np.minimum(run.u_pre[at, 0, 0], threshold)  # the last step overshoots
    before_w = np.r_[start[state], w][at]
    rows_u, rows_w, gap = np.r_[start["u"], u], np.r_[start[state], w], np.full(at.size, np.nan)
    return {
        "u": np.insert(rows_u, np.repeat(at + 1, 2), np.c_[before_u, gap].ravel()),
        "w": np.insert(rows_w, np.repeat(at + 1, 2), np.c_[before_w, gap].ravel()),
        "jump_u": np.c_[before_u, u[at], gap].ravel(),
        "jump_w": np.c_[before_w, w[at], gap].ravel(),
    }


def _arrows(ax: Axes, x: tuple[float, float], y: tuple[float, float], flow: Any) -> None:
    """Draw the direction of the flow, each arrow as long as the others on the page."""
    wide, high = x[1] - x[0], y[1] - y[0]
    u, w = np.meshgrid(
        np.linspace(x[0] + wide / 30, x[1] - wide / 30, 15),
        np.linspace(y[0] + high / 24, y[1] - high / 24, 12),
    )
    du, dw = flow(u, w)
    right, up = du / wide, dw / high
    length = np.hypot(right, up)
    length[~(length > 0)] = 1.0
    style: dict[str, Any] = {"angles": "uv", "pivot": "mid", "scale": 26, "width": 0.0022, "headwidth": 4.5}
    ax.quiver(u, w, right / length, up / length, color="#cfcfcf", zorder=1, **style)


def fi_curve(
    neuron: Neuron,
    currents: Any,
    figure: Figure | None = None,
    ax: Axes | None = None,
    duration: float = 1.0,
    *,
    backend: str | Backend = "auto",
) -> tuple[Figure, Axes]:
    """Draw firing rate against constant current, with theory behind where there is one.

    Parameters
    ----------
    neuron : Neuron
    currents : array
        (N,) inputs, in ascending order.
    figure, ax : optional
        Where to draw; a new figure unless given.
    duration : float
        Length of the run (s).
    backend
        As of `Layer`.

    Returns
    -------
    (Figure, Axes)
    """
    neuron = typical(neuron)
    rates = firing_rates(neuron, currents, duration, backend=backend)
    figure, ax = new_axes(figure, ax)
    draw_rates(ax, neuron, rates)
    return figure, ax


def draw_rates(ax: Axes, neuron: Neuron, rates: Rates) -> None:
    """Draw measured rates of a neuron, with theory and rheobase."""
    low, high = float(rates.currents.min()), float(rates.currents.max())
    fine = np.linspace(low, high, 600)
    expected = theory(neuron, fine)
    onset = rheobase(neuron)
    if onset is not None and low < onset < high:
        style: dict[str, Any] = {"color": QUIET, "linewidth": 0.9, "linestyle": DASHES}
        ax.axvline(onset, ymax=0.72, zorder=1, label="rheobase", **style)
    if expected is not None:
        label = "closed form" if has_closed_form(neuron) else r"$\int\,\mathrm{d}u\,/\,\dot u$"
        ax.plot(fine, expected, color=ORANGE, linewidth=2.4, zorder=2, label=label, solid_capstyle="butt")
    dots: dict[str, Any] = {"linestyle": "", "markersize": 3.6, "zorder": 3}
    if neuron.spec.states:
        ax.plot(
            rates.currents,
            rates.first,
            "o",
            markerfacecolor="white",
            color=RED,
            label="1 / first interval",
            **dots,
        )
        ax.plot(rates.currents, rates.steady, "o", color=BLUE, label="steady", **dots)
    else:
        ax.plot(rates.currents, rates.steady, "o", color=BLUE, label="simulated", **dots)
    ax.set_xlim(low, high)
    ax.set_ylim(bottom=0)
    ax.set_xlabel(_label("I", current_unit(neuron)))
    ax.set_ylabel("rate (Hz)")
    ax.set_title(_name(neuron), fontsize=10)
    place = "upper left" if neuron.spec.states else "lower right"
    ax.legend(loc=place, **{**PLAIN, "fontsize": 7.5, "handletextpad": 0.5})  # type: ignore[call-overload]
    _bare(ax)
