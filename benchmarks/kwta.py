"""k-winners-take-all against the same layer without inhibition, interleaved in one run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from spyke_numba.benchmarks import floor
from spyke_numba.benchmarks.bars import KWTA_SHAPES
from spyke_numba.benchmarks.cases import STEPS, Case, busy_threshold, measure_group, say, uniform
from spyke_numba.benchmarks.measuring import processors
from spyke_numba.benchmarks.running import (
    Several,
    benchmark,
    conclude,
    count,
    default_threads,
    output,
    seconds_option,
)

KS = (1, 5, 8)
RADII = (0, 2)
SCOPES = ("feature", "location", "global")
#: Steps on which a threshold is sought.
SOUGHT = 50


@click.command("kwta")
@click.option(
    "--k", "ks", type=Several(count), default="1,5,8", show_default=True, metavar="K,…", help="Winners."
)
@click.option("--threads", type=int, metavar="N", help="Threads.  [default: all processors]")
@seconds_option
@benchmark
def main(
    ks: tuple[int, ...],
    threads: int | None,
    seconds: float,
    smallest: bool,
    out: Path | None,
    plot: Path | None,
    force: bool,
) -> None:
    """Measure k-winners-take-all against the same layer without inhibition.

    Winners hold others at rest, so each layer's threshold is sought at which 2 to 5 % of its own neuron-steps spike.
    """
    path = output("kwta", out, force)
    (threads,) = default_threads([threads or processors()])
    shapes, radii, scopes = list(KWTA_SHAPES), list(RADII), list(SCOPES)
    if smallest:
        shapes, ks, radii, scopes, seconds = shapes[:1], (5,), [2], ["feature"], min(seconds, 0.1)
    rows: list[dict[str, Any]] = []
    for batch, *shape in shapes:
        x = uniform((STEPS, batch, *shape))
        # into memory that exists, since new memory takes the same time with winners and without
        free = Case("LIF", tuple(shape), batch, threads=threads, reuse=True)
        cases = [free]
        for scope in scopes:
            for k in ks:
                sought = busy_threshold(replace(free, k=k, scope=scope), x[:SOUGHT])
                cases += [replace(sought, radius=radius) for radius in radii]
        # threads that share a sample meet at every step, and how long that takes is the machine's affair
        meets = min(threads, processors()) > 1
        handover = [floor.handover_ns()] if meets else []
        measured = measure_group(x, cases, seconds)
        handover += [floor.handover_ns()] if meets else []
        for row in say(measured)[1:]:
            row["over_free"] = row["ns"] / measured[0]["ns"]
            row["handover_ns"] = handover
        if handover:
            click.echo(f"from core to core: {handover[0]:.0f} ns before, {handover[1]:.0f} ns after")
        rows += measured
    conclude("kwta", {"seconds": seconds, "rows": rows}, path, plot)
