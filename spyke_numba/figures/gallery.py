"""The gallery: published firing patterns, f-I curves and phase planes, all computed by a `Layer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from spyke_numba import backends, models
from spyke_numba.analysis import patterns
from spyke_numba.analysis.patterns import Pattern
from spyke_numba.figures.dynamics import (
    BLUE,
    DASHES,
    INK,
    ORANGE,
    QUIET,
    RED,
    current_unit,
    fi_curve,
    phase_handles,
    phase_plane,
    plot_ode,
)
from spyke_numba.model.expressions import listing, suggest
from spyke_numba.model.spec import Neuron

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "figure", "write"]

#: Rest -70 mV, 20 ms, 100 MOhm, 2 ms of refractoriness; currents in pA.
_CELL: Mapping[str, Any] = {
    "resting_potential": -70.0,
    "threshold": -50.0,
    "tau_rc": 0.02,
    "C": 0.2,
    "ts": 1e-4,
    "refractory_timesteps": 20,
}

#: The same refractoriness in steps short enough for an exponential upswing.
_FINE: Mapping[str, Any] = {"ts": 2e-5, "refractory_timesteps": 100}


def _cell(name: str, **own: Any) -> Neuron:
    spec = models.get(name)
    return spec(**{k: v for k, v in {**_CELL, **own}.items() if k in spec.all_params})


#: For the f-I curves: the neuron and its largest current.
FI_NEURONS: Mapping[str, tuple[Neuron, float]] = MappingProxyType(
    {
        "IF": (_cell("IF"), 600.0),
        "LIF": (_cell("LIF"), 600.0),
        "LIF_ode": (_cell("LIF_ode"), 600.0),
        "LIF_Simple": (_cell("LIF_Simple"), 0.3),
        "EIF": (_cell("EIF", **_FINE, threshold=-30.0, theta_rh=-50.0, delta_t=2.0), 600.0),
        # its upswing acts as one whose soft threshold is delta_t ln(tau_rc / ts) = 13.8 mV lower
        "EIF_Simple": (_cell("EIF_Simple", **_FINE, threshold=-30.0, theta_rh=-36.2, delta_t=2.0), 0.06),
        "QIF": (_cell("QIF", threshold=-30.0, u_c=-50.0, a=0.1), 600.0),
        # the regular spiking neuron of Brette & Gerstner 2005, doi:10.1152/jn.00686.2005
        "AdEx": (
            models.get("AdEx")(
                resting_potential=-70.6,
                threshold=-40.4,
                theta_rh=-50.4,
                delta_t=2.0,
                tau_rc=0.281 / 30.0,
                C=0.281,
                a=4.0,
                b=80.5,
                tau_w=0.144,
                ts=5e-5,
                refractory_timesteps=0,
            ),
            1500.0,
        ),
        "Izhikevich": (patterns.IZHIKEVICH_2003["RS"].neuron(), 20.0),
    }
)

#: For the phase planes: a pattern, its current, and what the picture shows of it.
_PLANES: tuple[tuple[Pattern, float, float, str], ...] = (
    (patterns.NEURONAL_DYNAMICS["initial burst"], 65.0, 0.25, "initial burst"),
    (patterns.NEURONAL_DYNAMICS["bursting"], 65.0, 0.25, "bursting"),
    (patterns.IZHIKEVICH_2003["RS"], 10.0, 0.3, "regular spiking"),
    (patterns.IZHIKEVICH_2003["CH"], 10.0, 0.15, "chattering"),
)


def _new(width: float, height: float, layout: str | None = "constrained") -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), dpi=120, layout=layout)  # type: ignore[arg-type]
    FigureCanvasAgg(made)
    return made


def with_peaks(u: np.ndarray, spikes: np.ndarray, peak: float) -> np.ndarray:
    """Return the potential with each spike drawn as one step at `peak`: the state there is after the reset."""
    return np.where(spikes, peak, u)


def izhikevich_patterns(backend: str | backends.Backend = "auto") -> Figure:
    """Draw the 20 patterns of Izhikevich 2004, Fig. 1: potential above, input below."""
    made = _new(10.0, 9.6)
    made.get_layout_engine().set(w_pad=0.06, h_pad=0.05, wspace=0.03, hspace=0.03)  # type: ignore[union-attr, call-arg]
    axes = made.subplots(5, 4).ravel()
    for ax, (letter, pattern) in zip(axes, patterns.IZHIKEVICH_2004.items(), strict=True):
        _izhikevich_panel(ax, letter, pattern, backend)
    axes[0].plot([-2.5, -2.5], [-20, 0], color=INK, linewidth=1.4, solid_capstyle="butt", clip_on=False)
    axes[0].text(-5, -10, "20 mV", rotation=90, ha="right", va="center", fontsize=7.5)
    made.suptitle(
        "The 20 patterns of Izhikevich 2004: potential, and the input below", fontsize=11.5, color=INK
    )
    return made


def _izhikevich_panel(ax: Axes, letter: str, pattern: Pattern, backend: str | backends.Backend) -> None:
    peak, floor, band = 30.0, -122.0, 17.0
    run, current = pattern.run(("spikes", "u"), backend=backend), pattern.input()
    time = np.arange(pattern.steps) * pattern.params["ts"] * 1e3
    ax.plot(time, with_peaks(run.u[:, 0], run.spikes[:, 0], peak), color=BLUE, linewidth=0.9)
    low, high = float(current.min()), float(current.max())
    ax.step(time, floor + band * (current - low) / (high - low), where="post", color=INK, linewidth=0.9)
    end = time[-1]
    ends = [f"{value:.3g}" for value in (low, high)]
    for height, text in zip((floor, floor + band), ends, strict=True):
        ax.text(end * 1.01, height, text, fontsize=6.5, color="#777777", va="center", clip_on=False)
    bar = 10.0 if end < 60 else 20.0 if end <= 250 else 50.0
    ax.plot([end - bar, end], [floor - 11] * 2, color=INK, linewidth=1.4, solid_capstyle="butt")
    ax.text(end - bar / 2, floor - 15, f"{bar:g} ms", fontsize=7.5, ha="center", va="top")
    ax.set_xlim(0, end)
    ax.set_ylim(floor - 14, peak + 4)
    ax.set_axis_off()
    ax.set_title(f"({letter}) {pattern.name}", fontsize=9, color=INK)


def adex_naud2008(backend: str | backends.Backend = "auto") -> Figure:
    """Draw the eight patterns of Naud et al. 2008, Table 1: potential above, adaptation current below."""
    return _adex("AdEx: the patterns of Naud et al. 2008", patterns.NAUD_2008, 4, 2, backend)


def adex_neuronal_dynamics(backend: str | backends.Backend = "auto") -> Figure:
    """Draw the six patterns of Neuronal Dynamics, Table 6.1: potential above, adaptation current below."""
    return _adex("AdEx: the patterns of Neuronal Dynamics", patterns.NEURONAL_DYNAMICS, 3, 2, backend)


def _adex(
    title: str, chosen: Mapping[str, Pattern], rows: int, columns: int, backend: str | backends.Backend
) -> Figure:
    peak = 0.0
    height = 0.9 + 2.05 * rows
    made = _new(10.0, height, layout=None)
    # placed by hand, so that all panels are equally wide whatever their labels need
    edges = {"left": 0.07, "right": 0.985, "bottom": 0.45 / height, "top": 1 - 0.65 / height}
    grid = made.add_gridspec(rows, columns, hspace=0.26, wspace=0.12, **edges)
    run = patterns.run_together(chosen.values(), ("spikes", "u", "w"), backend=backend)
    u = with_peaks(run.u, run.spikes, peak)
    for place, pattern in enumerate(chosen.values()):
        row, column = divmod(place, columns)
        cell = grid[row, column].subgridspec(2, 1, height_ratios=(2.6, 1.0), hspace=0.12)
        top = made.add_subplot(cell[0])
        below = made.add_subplot(cell[1], sharex=top)
        time = np.arange(pattern.steps) * pattern.params["ts"] * 1e3
        top.plot(time, u[:, place], color=BLUE, linewidth=0.8)
        below.plot(time, run.w[:, place], color=ORANGE, linewidth=1.0)
        current = pattern.input()[-1]
        top.set_title(f"{pattern.name}, I = {current:g} pA", fontsize=9.5, color=INK)
        top.set_ylim(u.min() - 4, peak + 4)
        top.set_yticks([-70, -35, 0])
        top.set_xlim(0, pattern.duration * 1e3)
        top.tick_params(labelbottom=False, bottom=False, labelsize=7.5)
        below.tick_params(labelsize=7.5, labelbottom=row == rows - 1)
        below.locator_params(axis="y", nbins=3)
        below.margins(y=0.12)
        top.spines[["top", "right", "bottom"]].set_visible(False)
        below.spines[["top", "right"]].set_visible(False)
        if column == 0:
            top.set_ylabel("u (mV)", fontsize=8.5)
            below.set_ylabel("w (pA)", fontsize=8.5)
        if row == rows - 1:
            below.set_xlabel("time (ms)", fontsize=8.5)
    made.align_ylabels()
    made.suptitle(f"{title} (spikes are drawn to {peak:g} mV)", fontsize=11.5, color=INK, y=1 - 0.1 / height)
    return made


def fi_curves(backend: str | backends.Backend = "auto") -> Figure:
    """Draw firing rate against constant current for every built-in model, with theory behind."""
    made = _new(10.0, 8.4)
    axes = made.subplots(3, 3).ravel()
    for ax, (neuron, largest) in zip(axes, FI_NEURONS.values(), strict=True):
        fi_curve(neuron, np.linspace(0.0, largest, 41), made, ax, duration=2.0, backend=backend)
    for ax in axes:
        if ax.get_subplotspec().colspan.start:
            ax.set_ylabel("")
    made.suptitle("Firing rate under constant input", fontsize=11.5, color=INK)
    return made


def odes(backend: str | backends.Backend = "auto") -> Figure:
    """Draw du/dt against u of every model of one variable, without and with a current above the rheobase."""
    chosen = {name: pair for name, pair in FI_NEURONS.items() if not pair[0].spec.states}
    made = _new(11.0, 5.6)
    axes = made.subplots(2, 4).ravel()
    for ax, (neuron, largest) in zip(axes, chosen.values(), strict=False):
        current = 0.5 * largest
        plot_ode(neuron, made, ax, current=current)
        ax.get_legend().remove()
        ax.set_title(f"{neuron.spec.name}, I = {current:g} {current_unit(neuron)}", fontsize=9.5)
    for ax in axes[len(chosen) :]:
        ax.set_axis_off()
    axes[-1].legend(handles=_ode_handles(), frameon=False, fontsize=9, loc="center left")
    for ax in axes[: len(chosen)]:
        if ax.get_subplotspec().colspan.start:
            ax.set_ylabel("")
    made.suptitle(
        "du/dt of the models of one variable, without and with a constant current", fontsize=11.5, color=INK
    )
    return made


def _ode_handles() -> list[Any]:
    from matplotlib.lines import Line2D

    dot: dict[str, Any] = {"marker": "o", "linestyle": "", "color": INK}
    return [
        Line2D([], [], color=INK, label="no current"),
        Line2D([], [], color=RED, label="constant current"),
        Line2D([], [], label="stable resting point", **dot),
        Line2D([], [], label="unstable point", markerfacecolor="white", **dot),
        Line2D([], [], color=QUIET, linestyle=DASHES, label="threshold"),
    ]


def phase_planes(backend: str | backends.Backend = "auto") -> Figure:
    """Draw phase planes of AdEx and Izhikevich with nullclines, the flow's direction and a trajectory."""
    made = _new(10.0, 8.2)
    axes = made.subplots(2, 2).ravel()
    for ax, (pattern, current, duration, name) in zip(axes, _PLANES, strict=True):
        phase_plane(pattern.neuron(), made, ax, current, duration, initial=pattern.initial, backend=backend)
        ax.set_title(
            f"{pattern.model}, {name}, I = {current:g}" + " pA" * (pattern.model == "AdEx"), fontsize=10
        )
        ax.get_legend().remove()
    made.legend(handles=phase_handles(), loc="outside lower center", ncols=6, frameon=False, fontsize=8.5)
    return made


#: What the gallery draws, by the name of the file.
FIGURES: Mapping[str, Callable[..., Figure]] = MappingProxyType(
    {
        "izhikevich_patterns": izhikevich_patterns,
        "adex_naud2008": adex_naud2008,
        "adex_neuronal_dynamics": adex_neuronal_dynamics,
        "fi_curves": fi_curves,
        "odes": odes,
        "phase_planes": phase_planes,
    }
)


def figure(name: str, backend: str | backends.Backend = "auto") -> Figure:
    """Return a figure of the gallery, computed on a backend.

    Raises
    ------
    KeyError
        When there is no such figure; the message names the closest one.
    """
    if name not in FIGURES:
        raise KeyError(f"unknown figure {name!r}{suggest(name, FIGURES)}: the figures are {listing(FIGURES)}")
    return FIGURES[name](backend)


def write(
    folder: str | Path,
    names: Sequence[str] | None = None,
    *,
    backend: str | backends.Backend = "auto",
    suffix: str = ".png",
    force: bool = False,
    progress: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Write figures of the gallery into a folder, which is made if there is none.

    Parameters
    ----------
    folder : str or Path
    names : sequence of str, optional
        Of `FIGURES`; all unless given.
    backend
        As of `spyke_numba.Layer`.
    suffix : {".png", ".pdf", ".svg"}
    force : bool
        Replace existing files.
    progress : function, optional
        Called with each file written.

    Returns
    -------
    list of Path

    Raises
    ------
    KeyError, ValueError, OSError, RuntimeError
        One sentence, before anything is drawn or written.
    """
    from spyke_numba.figures.run import FIGURE_SUFFIXES, check_figure, save

    folder = Path(folder)
    names = tuple(FIGURES) if names is None else tuple(names)
    for name in names:
        if name not in FIGURES:
            raise KeyError(
                f"unknown figure {name!r}{suggest(name, FIGURES)}: the figures are {listing(FIGURES)}"
            )
    if suffix not in FIGURE_SUFFIXES:
        raise ValueError(f"the suffix is {suffix!r}: allowed are {listing(FIGURE_SUFFIXES)}")
    backend = backends.choose(backend)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: give the name of a folder")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [check_figure(folder / f"{name}{suffix}", force=force) for name in names]
    for name, path in zip(names, paths, strict=True):
        save(figure(name, backend), path, force=force)
        if progress is not None:
            progress(path)
    return paths
