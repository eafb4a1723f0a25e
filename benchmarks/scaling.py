"""Time per neuron-step of models and backends against the number of neurons, samples, steps, winners and threads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from spyke_numba import models
from spyke_numba.backends import choose
from spyke_numba.benchmarks import floor
from spyke_numba.benchmarks.cases import (
    DRIVEN,
    MOST_FOR_TORCH,
    Case,
    measure,
    say,
    usable_backends,
)
from spyke_numba.benchmarks.running import (
    Several,
    benchmark,
    conclude,
    count,
    default_threads,
    output,
    seconds_option,
    threads_option,
)
from spyke_numba.compile.program import Program
from spyke_numba.compile.step import operations_of

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
#: Models of which more than the size is varied: the cheapest and the dearest.
VARIED = ("LIF", "AdEx")
#: Models whose time has a bound, measured into memory that exists too, as the floor is.
HELD_TO_THE_FLOOR = ("LIF", "Izhikevich", "AdEx", "EIF")
BATCHES = (1, 10, 100)
LENGTHS = (20, 200, 2000)
WINNERS = (1, 2, 4, 8, 16)
#: Sizes at which the number of threads is varied.
THREADED = (10_000, 100_000, 1_000_000)


def cases_of(
    names: tuple[str, ...], sizes: tuple[int, ...], threads: tuple[int, ...], backends: tuple[str, ...]
) -> list[Case]:
    """Return the points of all sweeps; a point of several sweeps is measured once."""
    most = max(threads)
    points = []
    for backend in backends:
        for model in names:
            points += [Case(model, (n,), threads=most, backend=backend) for n in sizes]
    if "cpu" in backends:
        varied = [model for model in names if model in VARIED]
        points += [
            Case(model, (n,), threads=t) for model in names for n in sizes if n in THREADED for t in threads
        ]
        for model in [name for name in names if name in HELD_TO_THE_FLOOR]:
            points += [
                Case(model, (n,), threads=most, reuse=True) for n in sizes if n in (100_000, 1_000_000)
            ]
        if "LIF" in names and 10_000 in sizes:
            points.append(Case("LIF", (10_000,), constant=True))
        middle = [n for n in sizes if n in (10_000, 100_000)]
        points += [Case(m, (n,), batch=b, threads=most) for m in varied for n in middle[:1] for b in BATCHES]
        points += [Case(m, (n,), steps=t, threads=most) for m in varied for n in middle[-1:] for t in LENGTHS]
        maps = Case("LIF", (30, 28, 28), threads=most)
        if "LIF" in names and middle:
            points += [maps, *(replace(maps, k=k, scope="feature") for k in WINNERS)]
    return [
        case for case in points if not case.backend.startswith("torch") or case.neuron_steps <= MOST_FOR_TORCH
    ]


@click.command("scaling")
@click.option("--models", "names", type=Several(), metavar="NAME,…", help="Models.  [default: all]")
@click.option("--sizes", type=Several(count), metavar="N,…", help="Neurons.  [default: 1e3 to 1e7]")
@click.option(
    "--backends", type=Several(), metavar="NAME,…", help="Backends.  [default: all that can run here]"
)
@threads_option
@seconds_option
@benchmark
def main(
    names: tuple[str, ...] | None,
    sizes: tuple[int, ...] | None,
    backends: tuple[str, ...] | None,
    threads: tuple[int, ...] | None,
    seconds: float,
    smallest: bool,
    out: Path | None,
    plot: Path | None,
    force: bool,
) -> None:
    """Measure time per neuron-step against the number of neurons, samples, steps, winners and threads."""
    path = output("scaling", out, force)
    chosen = tuple(models.get(name).name for name in names or models.names())
    used = default_threads(threads)
    ran = tuple(choose(name).name for name in backends) if backends else usable_backends()
    cases = cases_of(chosen, sizes or SIZES, used, ran)
    if smallest:
        cases, seconds = [Case("LIF", (1_000,), backend=ran[0])], min(seconds, 0.1)
    rows = [row for run in measure(cases, seconds) for row in say(run)]
    most = max(row["threads"] for row in rows)
    for row in rows:
        row["most_threads"] = row["threads"] == most
    roofline = {
        "operations": {name: operations_of(Program.of(models.get(name)(**DRIVEN[name]))) for name in chosen},
        "peak_of_one_thread": floor.peak_arithmetic(),
    }
    conclude("scaling", {"seconds": seconds, "roofline": roofline, "rows": rows}, path, plot)
