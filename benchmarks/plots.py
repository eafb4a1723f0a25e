"""Figures of results, drawn from their JSON alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spyke_numba.figures.run import COLOURS, INK, SPIKE, WINNER, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Results = Mapping[str, Any]
BYTES = 5  # of a neuron-step: a float32 in, a byte out
MARKS = "osD^v<>PX"
MODEL_COLOURS = (*COLOURS, "#e377c2", "#17becf", "#7f7f7f")
#: Neurons at which the arithmetic of models is set against the roof.
ROOFLINE_SIZES = (10_000, 1_000_000)


def draw(results: Mapping[str, Results], folder: Path) -> Iterator[Path]:
    """Draw every figure whose results are given by benchmark, replacing earlier ones, and yield their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (benchmark, figure_of) in FIGURES.items():
        if benchmark in results:
            path = folder / f"{name}.png"
            save(figure_of(results[benchmark]), path, force=True)
            yield path


def _figure(
    results: Results, title: str, size: tuple[float, float] = (9.0, 5.4), panels: int = 1
) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=110)
    axes = list(figure.subplots(1, panels, squeeze=False, sharey=True)[0])
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, which="both", linewidth=0.5)
    about = results["machine"]
    numba, cores = about["versions"]["numba"], about["cores"]
    where = f"{about['processor']}, {cores} core{'s' * (cores > 1)}, numba {numba}, float32, {about['date']}"
    figure.suptitle(f"{title}\n", fontsize=11, color=INK)
    figure.text(0.5, 1 - 0.26 / size[1], where, fontsize=8, color=INK, ha="center", va="top")
    return figure, axes


def _plain(results: Results, **wanted: Any) -> list[dict[str, Any]]:
    """Return rows on the CPU, one sample, no inhibition, populations of neurons, and what else is wanted."""
    wanted = {"backend": "cpu", "batch": 1, "k": 0, "reuse": False, "constant": False, **wanted}
    rows = [row for row in results["rows"] if all(row[name] == value for name, value in wanted.items())]
    return sorted((row for row in rows if len(row["shape"]) == 1), key=lambda row: row["neurons"])


def _styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return a colour and mark for each name."""
    return {
        name: {
            "color": MODEL_COLOURS[i % len(MODEL_COLOURS)],
            "marker": MARKS[i % len(MARKS)],
            "markersize": 5,
        }
        for i, name in enumerate(sorted(set(names)))
    }


def _longest_common(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with the number of steps that most of them have."""
    lengths = [row["steps"] for row in rows]
    common = max(set(lengths), key=lengths.count, default=0)
    return [row for row in rows if row["steps"] == common]


def size_figure(results: Results) -> Figure:
    """Draw time per neuron-step against the number of neurons, with the floor."""
    rows = _longest_common(_plain(results, most_threads=True))
    threads, steps = rows[0]["threads"], rows[0]["steps"]
    figure, (axis,) = _figure(results, f"time per neuron-step, {_threads(threads)}, {steps} steps")
    for model, style in _styles(row["model"] for row in rows).items():
        mine = [row for row in rows if row["model"] == model]
        axis.plot([row["neurons"] for row in mine], [row["ns"] for row in mine], label=model, **style)
    floors = {row["neurons"]: row["floor_ns"] for row in rows}
    axis.plot(
        list(floors),
        list(floors.values()),
        "--",
        color=INK,
        label="floor: a copy, 4 bytes in, 1 out",
        linewidth=1.8,
    )
    cached = {row["neurons"]: row["cache_floor_ns"] for row in _longest_common(_plain(results, threads=1))}
    cached = {n: ns for n, ns in cached.items() if ns is not None}
    if cached:
        axis.plot(
            list(cached),
            list(cached.values()),
            ".:",
            color=INK,
            label="the same in cache, 1 thread",
            linewidth=1.8,
        )
    axis.set(xscale="log", yscale="log", xlabel="neurons N", ylabel="time per neuron-step (ns)")
    _plain_ticks(axis.yaxis)
    axis.legend(fontsize=8, ncols=2)
    return figure


def _threads(number: int) -> str:
    return f"{number} thread{'s' * (number > 1)}"


def _plain_ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter("")


def threads_figure(results: Results) -> Figure:
    """Draw the speed-up over one thread at equal size."""
    rows = _longest_common(_plain(results))
    threads = sorted({row["threads"] for row in rows})
    sizes = sorted({row["neurons"] for row in rows if row["threads"] == threads[-1]})
    # sizes that were measured with every number of threads
    sizes = [n for n in sizes if {row["threads"] for row in rows if row["neurons"] == n} == set(threads)][-3:]
    figure, axes = _figure(results, "strong scaling: speed-up over one thread", (11.0, 4.6), len(sizes))
    for axis, size in zip(axes, sizes, strict=True):
        at = {(row["model"], row["threads"]): row for row in rows if row["neurons"] == size}
        axis.plot(threads, threads, color="#bbbbbb", linewidth=6, alpha=0.5, label="ideal")
        for model, style in _styles(row["model"] for row in rows).items():
            if (model, 1) in at:
                times = [at[model, t]["ns"] for t in threads]
                axis.plot(threads, [times[0] / ns for ns in times], label=model, **style)
        floors = {t: row["floor_ns"] for (_, t), row in at.items()}
        speedup = [floors[threads[0]] / floors[t] for t in threads]
        axis.plot(threads, speedup, "--", color=INK, linewidth=1.8, label="floor: a copy")
        axis.set(title=f"N = {size:,}", xlabel="threads", xticks=threads)
    axes[0].set_ylabel("speed-up")
    axes[-1].legend(fontsize=8, bbox_to_anchor=(1.01, 1.0), loc="upper left")
    return figure


def roofline_figure(results: Results) -> Figure:
    """Draw operations a second of one thread against operations a byte, under the roof of this machine."""
    rows = [row for row in _longest_common(_plain(results, threads=1)) if row["neurons"] in ROOFLINE_SIZES]
    rows = rows or _longest_common(_plain(results))
    operations, peak = results["roofline"]["operations"], results["roofline"]["peak_of_one_thread"] / 1e9
    figure, (axis,) = _figure(results, "roofline of one thread")
    span = [0.5, 1.6 * max(operations[row["model"]] for row in rows) / BYTES]
    roofs = {f"copy, N = {row['neurons']:,}": (BYTES / row["floor_ns"], row["neurons"]) for row in rows}
    for line, (label, (bandwidth, _)) in zip(("--", "-", ":"), roofs.items(), strict=False):
        knee = peak / bandwidth
        points = [span[0], min(knee, span[1]), span[1]]
        axis.plot(
            points,
            [min(peak, bandwidth * p) for p in points],
            line,
            color=INK,
            linewidth=1.6,
            label=f"{label}: {bandwidth:.1f} GB/s",
        )
    axis.axhline(peak, color="#bbbbbb", linewidth=4, alpha=0.5, zorder=0)
    axis.annotate(
        f"products and sums in cache: {peak:.0f} Gop/s",
        (span[0] * 1.05, peak),
        xytext=(0, 5),
        textcoords="offset points",
        fontsize=8,
        color=INK,
    )
    sizes = sorted({row["neurons"] for row in rows})
    for model, style in _styles(row["model"] for row in rows).items():
        for row in (row for row in rows if row["model"] == model):
            filled = row["neurons"] == sizes[-1]
            axis.plot(
                operations[model] / BYTES,
                operations[model] / row["ns"],
                linestyle="",
                **{**style, "markersize": 8},
                markerfacecolor=style["color"] if filled else "none",
                label=model if filled else None,
            )
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="operations per byte (arithmetic, comparisons, selections; 4 bytes in, 1 out)",
        ylabel="operations a second (10⁹)",
        xlim=span,
    )
    _plain_ticks(axis.xaxis)
    _plain_ticks(axis.yaxis)
    filled = f"filled: N = {sizes[-1]:,}" + (f"; open: N = {sizes[0]:,}" if len(sizes) > 1 else "")
    axis.legend(fontsize=8, ncols=2, title=filled, title_fontsize=8)
    return figure


def peers_figure(results: Results) -> Figure:
    """Draw how many times our time each library takes at the same work."""
    rows = [row for row in results["rows"] if row["ns"] is not None]
    works = list(dict.fromkeys((row["batch"], *row["shape"]) for row in rows))
    names = [name for name in dict.fromkeys(row["peer"] for row in rows) if name != "spyke_numba"]
    blues, oranges = (
        itertools.cycle((SPIKE, "#4a6fa5", "#9fb2cc")),
        itertools.cycle(("#8a2d1c", "#d95f02", "#f2b178")),
    )
    shades = {work: next(blues if len(work) == 2 else oranges) for work in works}
    title = f"time of other libraries over ours at the same work, {_threads(rows[0]['threads'])}"
    figure, (axis,) = _figure(results, title, (9.5, 1.3 + 0.13 * (len(rows) + len(names))))
    labels = {w: f"N = {w[1]:,}" if len(w) == 2 else f"k-WTA, {'×'.join(map(str, w))}" for w in works}
    ticks, y = [], 0.0
    for name in names:
        mine = [row for row in rows if row["peer"] == name]
        ticks.append(y + (len(mine) - 1) / 2)
        for row in mine:
            work = (row["batch"], *row["shape"])
            bar = axis.barh(y, row["over_ours"], 0.9, color=shades[work], label=labels.pop(work, None))
            axis.bar_label(bar, [f"{row['over_ours']:.1f}"], fontsize=7, padding=2)
            y += 1
        y += 1
    axis.axvline(1.0, color=WINNER, linewidth=1.2)
    axis.grid(visible=False, axis="y")
    axis.set(xscale="log", xlabel="times ours (red: as fast)", yticks=ticks, yticklabels=names)
    axis.invert_yaxis()
    _plain_ticks(axis.xaxis)
    axis.legend(fontsize=8, bbox_to_anchor=(1.01, 1.0), loc="upper left", title="LIF")
    return figure


#: Figures by the name of their file: the benchmark that they need, and how they are drawn.
FIGURES = {
    "bench_scaling": ("scaling", size_figure),
    "bench_threads": ("scaling", threads_figure),
    "bench_roofline": ("scaling", roofline_figure),
    "bench_peers": ("peers", peers_figure),
}
