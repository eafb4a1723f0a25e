"""One figure of a run: raster, population rate, potentials and winners, gathered in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spyke_numba.results.runfile import check_output, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FIGURE_SUFFIXES", "RunSummary", "check_figure", "draw", "save"]

FIGURE_SUFFIXES = (".png", ".pdf", ".svg")

MOST_EVENTS = 60_000  # marks at which a raster is still marks, and not a surface
MOST_WINNERS = 200_000
MOST_BINS = 250
TRACE_STEPS = 20_000  # potentials are drawn for so many steps from the start
TRACE_VALUES = 2_000_000
SHOWN_TRACES = 3


class RunSummary:
    """What a figure needs of a run, gathered block by block; its memory does not grow with the run.

    Counts and the rate are of the whole batch; raster, potentials, maps and winners are of one sample.
    When there are too many spikes to draw, every other neuron leaves the raster, as often as it takes.

    Parameters
    ----------
    shape : sequence of int
        The layer's shape, (N,) or (F, H, W).
    steps : int
        Steps of the whole run.
    ts : float
        Time step (s).
    batch : int
        Samples in the batch.
    sample : int
        The one to draw.
    neurons : sequence of int, optional
        Flat indices of the neurons whose potentials are drawn; by default three that spike often are
        chosen from an even selection.

    Raises
    ------
    ValueError
        If `sample` or one of `neurons` does not exist.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        steps: int,
        ts: float,
        batch: int = 1,
        sample: int = 0,
        neurons: Sequence[int] | None = None,
    ):
        self.shape, self.steps, self.ts, self.batch, self.sample = tuple(shape), steps, ts, batch, sample
        self.size = math.prod(self.shape)
        if not 0 <= sample < batch:
            raise ValueError(f"sample is {sample} in a batch of {batch}; give 0 to {batch - 1}")
        if neurons is not None:
            for neuron in neurons:
                if not 0 <= neuron < self.size:
                    raise ValueError(
                        f"there is no neuron {neuron} among {self.size}; give 0 to {self.size - 1}"
                    )
        self.done = 0
        self.spikes = 0  # whole batch
        self.winner_count = 0  # whole batch
        self.has_winners = False
        self.counts = np.zeros(self.size, np.int64)
        self.first_step = np.full(self.size, -1, np.int64)
        self.bin_steps = max(1, -(-steps // MOST_BINS))
        self.binned = np.zeros(-(-steps // self.bin_steps), np.int64)
        features = self.shape[0] if len(self.shape) == 3 else 1
        self.binned_winners = np.zeros((features, len(self.binned)), np.int64)
        self.stride = 1
        self._events: list[tuple[np.ndarray, np.ndarray]] = []
        self._event_count = 0
        self._winners: list[np.ndarray] = []
        self._winner_events = 0
        self.trace_steps = min(steps, TRACE_STEPS)
        if neurons is None:
            pool = min(self.size, 1024, max(SHOWN_TRACES, TRACE_VALUES // self.trace_steps))
            self.pool = np.unique(np.linspace(0, self.size - 1, pool).astype(np.int64))
        else:
            self.pool = np.array(list(neurons), np.int64)
        self.chosen = None if neurons is None else len(self.pool)
        self.traces: dict[str, np.ndarray] = {}
        self.pool_spikes = np.zeros((self.trace_steps, len(self.pool)), bool)

    def add(
        self,
        spikes: np.ndarray,
        *,
        winners: np.ndarray | None = None,
        traces: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Take in the next block.

        Parameters
        ----------
        spikes : ndarray
            (t, B, \\*shape) bool.
        winners : ndarray, optional
            (t, B, k, 3) int32, -1 where there is none.
        traces : mapping of str to ndarray, optional
            Potentials, inputs and the like by name, each (t, B, \\*shape).
        """
        length = len(spikes)
        spikes = np.ascontiguousarray(spikes, bool).reshape(length, self.batch, self.size)
        steps = np.arange(self.done, self.done + length)
        # one search of the whole block, then work on the few that spiked
        at, place = np.divmod(np.flatnonzero(spikes), self.batch * self.size)
        sample, neuron = np.divmod(place, self.size)
        self.spikes += len(at)
        self.binned += np.bincount((at + self.done) // self.bin_steps, minlength=len(self.binned))
        at, neuron = at[sample == self.sample] + self.done, neuron[sample == self.sample]
        self.counts += np.bincount(neuron, minlength=self.size)
        fresh = self.first_step[neuron] < 0
        # they come step by step: in the reversed order the last assignment is the earliest step
        self.first_step[neuron[fresh][::-1]] = at[fresh][::-1]
        self._keep_events(at, neuron)
        if winners is not None:
            self._keep_winners(winners, steps)
        self._keep_traces(traces or {}, spikes, length)
        self.done += length

    def _keep_events(self, at: np.ndarray, neuron: np.ndarray) -> None:
        keep = neuron % self.stride == 0
        self._events.append((at[keep].astype(np.int32), neuron[keep].astype(np.int32)))
        self._event_count += len(self._events[-1][0])
        while self._event_count > MOST_EVENTS and self.stride < self.size:
            self.stride *= 2
            self._events = [(a[n % self.stride == 0], n[n % self.stride == 0]) for a, n in self._events]
            self._event_count = sum(len(a) for a, _ in self._events)

    def _keep_winners(self, winners: np.ndarray, steps: np.ndarray) -> None:
        self.has_winners = True
        valid = winners[..., 0] >= 0
        self.winner_count += int(valid.sum())
        at, place = np.nonzero(valid[:, self.sample])
        won = winners[:, self.sample][at, place]
        feature = won[:, 0] if len(self.shape) == 3 else np.zeros(len(won), np.int64)
        np.add.at(self.binned_winners, (feature, steps[at] // self.bin_steps), 1)
        room = max(0, MOST_WINNERS - self._winner_events)
        self._winners.append(np.column_stack([steps[at], won])[:room])
        self._winner_events += len(self._winners[-1])

    def _keep_traces(self, traces: Mapping[str, np.ndarray], spikes: np.ndarray, length: int) -> None:
        room = min(length, self.trace_steps - self.done)
        if room <= 0:
            return
        self.pool_spikes[self.done : self.done + room] = spikes[:room, self.sample][:, self.pool]
        for name, values in traces.items():
            if name not in self.traces:
                self.traces[name] = np.full((self.trace_steps, len(self.pool)), np.nan, np.float32)
            block = values[:room, self.sample].reshape(room, self.size)[:, self.pool]
            self.traces[name][self.done : self.done + room] = block

    @property
    def seconds(self) -> float:
        """Simulated time so far."""
        return self.done * self.ts

    @property
    def rate(self) -> float:
        """Mean spikes a second of a neuron (Hz)."""
        return self.spikes / (self.size * self.batch * self.seconds) if self.done else 0.0

    @property
    def active(self) -> float:
        """Share of the drawn sample's neurons that spiked at all."""
        return float((self.counts > 0).mean())

    def events(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (steps, flat neuron indices) of the spikes that the raster shows."""
        if not self._events:
            return np.zeros(0, np.int32), np.zeros(0, np.int32)
        steps, neurons = zip(*self._events, strict=True)
        return np.concatenate(steps), np.concatenate(neurons)

    def winner_events(self) -> np.ndarray:
        """Return rows (step, f, r, c), in the order in which they won."""
        return np.concatenate(self._winners) if self._winners else np.zeros((0, 4), np.int64)

    def shown(self) -> np.ndarray:
        """Return places in the pool of the neurons whose traces are drawn."""
        if self.chosen is not None:
            return np.arange(self.chosen)
        counts = self.counts[self.pool]
        thirds = np.array_split(np.arange(len(self.pool)), min(SHOWN_TRACES, len(self.pool)))
        return np.array([third[np.argmax(counts[third])] for third in thirds])


INK, SPIKE, LOSER, WINNER = "#222222", "#1f3b63", "#9fb2cc", "#d1203a"
COLOURS = ("#1f77b4", "#d95f02", "#2a9d5c", "#7b4fa3", "#b58900", "#8c564b")


def draw(
    summary: RunSummary,
    *,
    title: str = "",
    units: Mapping[str, str] | None = None,
    features: Sequence[str] | None = None,
) -> Figure:
    """Draw a run.

    From the top: raster (winners in red), population rate, winners of each feature map, then the traces of
    the chosen neurons, the potential ``u`` in a row for each with its spikes as ticks above; beside them,
    for a layer of feature maps, the time of each location's first spike and the winners' locations.

    Parameters
    ----------
    summary : RunSummary
        The whole run.
    title : str
        Line above the figure.
    units : mapping of str to str, optional
        Units of the traces by name, such as ``{"u": "mV"}``.
    features : sequence of str, optional
        Names of the feature maps; their numbers unless given.

    Returns
    -------
    matplotlib.figure.Figure
        Made without pyplot: no window, no global state.
    """
    from matplotlib.figure import Figure

    maps = len(summary.shape) == 3 and summary.shape[1] * summary.shape[2] > 1
    by_feature = summary.has_winners and maps and summary.shape[0] > 1
    names = [str(feature) for feature in range(summary.shape[0])] if features is None else list(features)
    chosen = summary.shown()
    traces = []
    for name in summary.traces:
        traces += (
            [(name, chosen[i : i + 1], i) for i in range(len(chosen))] if name == "u" else [(name, chosen, 0)]
        )
    heights = [3.0, 1.0] + [0.3 + 0.1 * min(summary.shape[0], 12)] * by_feature
    heights += [0.7 if name == "u" else 1.0 for name, _, _ in traces]
    width = 13.0 if maps else 9.0
    figure = Figure(figsize=(width, 1.3 + 1.05 * sum(heights)), layout="constrained", dpi=110)
    grid = figure.add_gridspec(1, 2 if maps else 1, width_ratios=(1.5, 1.0) if maps else (1.0,))
    column = grid[0].subgridspec(len(heights), 1, height_ratios=heights)
    axes = [figure.add_subplot(column[0])]
    axes += [figure.add_subplot(column[row], sharex=axes[0]) for row in range(1, len(heights))]
    rows = iter(axes)

    scale, unit = (1e3, "ms") if summary.steps * summary.ts < 2.0 else (1.0, "s")
    time = summary.ts * scale
    _raster(next(rows), summary, time)
    _rate(next(rows), summary, time)
    if by_feature:
        _winners_by_feature(next(rows), summary, time, names)
    for name, places, colour in traces:
        _traces(next(rows), summary, name, places, colour, time, (units or {}).get(name, ""))
    axes[0].set_xlim(0, summary.steps * time)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelbottom=axis is axes[-1])
    axes[-1].set_xlabel(f"time ({unit})")
    figure.align_ylabels(axes)
    if maps:
        panels = grid[1].subgridspec(1 + summary.has_winners, 1)
        _first_spikes(figure.add_subplot(panels[0]), summary, time, unit)
        if summary.has_winners:
            _winner_map(figure.add_subplot(panels[1]), summary, names)
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    return figure


def _raster(axis: Any, summary: RunSummary, time: float) -> None:
    at, neuron = summary.events()
    rows = min(summary.size, max(60, summary.size // summary.stride))
    size = float(np.clip(18000.0 / (rows * max(1, len(at)) ** 0.25), 0.3, 14.0))
    axis.scatter(
        at * time,
        neuron,
        s=size,
        c=LOSER if summary.has_winners else SPIKE,
        marker="|" if rows <= 400 else ".",
        linewidths=0.7,
        rasterized=True,
    )
    label = "neuron" if summary.stride == 1 else f"neuron (1 in {summary.stride} shown)"
    if summary.winner_count:
        won = summary.winner_events()
        index = np.ravel_multi_index(tuple(won[:, 1:4].T), _three(summary.shape)) if len(won) else np.zeros(0)
        axis.scatter(
            won[:, 0] * time,
            index,
            s=max(2.0, size),
            c=WINNER,
            marker=".",
            linewidths=0,
            label="winner",
            rasterized=True,
        )
        axis.legend(loc="upper right", fontsize=8, frameon=True, framealpha=0.9, markerscale=2.5)
    if len(summary.shape) == 3:
        plane = summary.shape[1] * summary.shape[2]
        if 1 < summary.shape[0] <= 12 and plane > 1:
            for feature in range(1, summary.shape[0]):
                axis.axhline(feature * plane - 0.5, color=INK, linewidth=0.5, alpha=0.5)
            label += f", {summary.shape[0]} feature maps"
    axis.set_ylim(-0.5, summary.size - 0.5)
    axis.set_ylabel(label)


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the shape in which winners are counted: a population is N maps of one neuron."""
    return shape if len(shape) == 3 else (shape[0], 1, 1)


def _rate(axis: Any, summary: RunSummary, time: float) -> None:
    edges = np.arange(len(summary.binned) + 1) * summary.bin_steps
    edges[-1] = summary.steps
    seconds = np.diff(edges) * summary.ts
    rate = summary.binned / (seconds * summary.size * summary.batch)
    axis.stairs(rate, edges * time, fill=True, color=SPIKE, alpha=0.85)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("rate (Hz)")


def _winners_by_feature(axis: Any, summary: RunSummary, time: float, names: Sequence[str]) -> None:
    edges = np.arange(len(summary.binned) + 1) * summary.bin_steps * time
    features, most = summary.shape[0], max(1, summary.binned_winners.max())
    mesh = axis.pcolormesh(
        edges,
        np.arange(features + 1) - 0.5,
        summary.binned_winners,
        cmap="magma_r",
        vmin=0,
        vmax=most,
        rasterized=True,
    )
    axis.set_ylabel("winning\nfeature")
    if features <= 12:
        axis.set_yticks(range(features), names)
    bar = axis.figure.colorbar(mesh, ax=axis, pad=0.01, aspect=8)
    bar.set_label("winners", fontsize=8)


def _traces(
    axis: Any, summary: RunSummary, name: str, places: np.ndarray, colour: int, time: float, unit: str
) -> None:
    steps = np.arange(summary.trace_steps) * time
    for number, place in enumerate(places, start=colour):
        neuron = summary.pool[place]
        where = np.unravel_index(neuron, summary.shape)
        label = f"neuron {neuron}" if len(where) == 1 else f"neuron ({', '.join(map(str, where))})"
        line = {"color": COLOURS[number % len(COLOURS)], "linewidth": 0.8}
        axis.plot(steps, summary.traces[name][:, place], label=label, rasterized=True, **line)
        if name == "u":
            at = steps[summary.pool_spikes[:, place]]
            ticks = {
                "marker": "|",
                "markersize": 5,
                "markeredgewidth": 0.7,
                "linestyle": "",
                "clip_on": False,
            }
            if len(at):
                above = axis.get_xaxis_transform()
                axis.plot(at, np.full(len(at), 1.08), transform=above, color=line["color"], **ticks)
    text = f"{name} ({unit})" if unit else name
    if name == "u":
        axis.set_ylabel(text)
        axis.set_title(label, fontsize=8, loc="right", color=line["color"], pad=9)
        return
    axis.set_ylabel(text)
    if name == next(iter(summary.traces)):
        axis.legend(loc="upper right", fontsize=7, ncols=len(places), framealpha=0.8, borderpad=0.2)


def _first_spikes(axis: Any, summary: RunSummary, time: float, unit: str) -> None:
    first = summary.first_step.reshape(summary.shape).astype(float)
    first[first < 0] = np.inf
    earliest = first.min(axis=0)
    earliest[np.isinf(earliest)] = np.nan
    image = axis.imshow(earliest * time, cmap="viridis", interpolation="nearest", rasterized=True)
    if np.isnan(earliest).all():
        image.set_clim(0, summary.steps * time)
    axis.set_title("first spike of each location", fontsize=10)
    _rows_and_columns(axis)
    axis.figure.colorbar(image, ax=axis, shrink=0.8, label=f"time ({unit})")


def _winner_map(axis: Any, summary: RunSummary, names: Sequence[str]) -> None:
    won = summary.winner_events()
    _, rows, columns = summary.shape
    few = summary.shape[0] <= len(COLOURS)
    for feature in range(summary.shape[0]) if few else ():
        mine = won[won[:, 1] == feature]
        axis.scatter(mine[:, 3], mine[:, 2], s=6, c=COLOURS[feature], linewidths=0, label=names[feature])
    if few:
        axis.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8, ncols=3, frameon=False, markerscale=2
        )
    else:
        mark = axis.scatter(won[:, 3], won[:, 2], s=6, c=won[:, 1], cmap="turbo", linewidths=0)
        axis.figure.colorbar(mark, ax=axis, shrink=0.8, label="feature")
    which = "first " if len(won) == MOST_WINNERS else ""
    axis.set_title(f"locations of the {which}{len(won):,} winners", fontsize=10)
    axis.set_xlim(-0.5, columns - 0.5)
    axis.set_ylim(rows - 0.5, -0.5)
    axis.set_aspect("equal")
    _rows_and_columns(axis)


def _rows_and_columns(axis: Any) -> None:
    axis.set_xlabel("column")
    axis.set_ylabel("row")
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.get_major_locator().set_params(integer=True)


def check_figure(path: str | Path, *, force: bool = False) -> Path:
    """Return the path of a figure to be written, having checked its ending and that it can be.

    Raises
    ------
    ValueError
        For an ending other than .png, .pdf and .svg.
    OSError
        See `spyke_numba.results.runfile.check_output`.
    """
    if Path(path).suffix.lower() not in FIGURE_SUFFIXES:
        raise ValueError(
            f"the figure {path} does not end in one of {', '.join(FIGURE_SUFFIXES)}; give such a name"
        )
    return check_output(path, force=force)


def save(figure: Figure, path: str | Path, *, force: bool = False) -> None:
    """Write a figure to a .png, .pdf or .svg file; an existing one is replaced only with `force`."""
    path = check_figure(path, force=force)
    with replacing(path) as temporary:
        figure.savefig(temporary)
