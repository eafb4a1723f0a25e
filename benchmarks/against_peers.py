"""Other libraries against ours at the same work, interleaved in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from spyke_numba import KWTA, Layer, models
from spyke_numba.benchmarks import peers
from spyke_numba.benchmarks.bars import KWTA_SHAPES, PEER_SIZES
from spyke_numba.benchmarks.cases import STEPS, Case, busy_threshold, uniform
from spyke_numba.benchmarks.measuring import TURN, interleaved, processors, ready_memory
from spyke_numba.benchmarks.running import (
    Several,
    benchmark,
    conclude,
    count,
    default_threads,
    output,
    seconds_option,
)

OURS = "spyke_numba"
DECAY = 0.95  # of LIF_Simple with its default time constant and time step
WINNERS, HOLD = 5, 2
#: Spikes that may fall differently where a library rounds differently.
TOLERANCE = 1e-3


def ours(work: peers.Work) -> tuple[Callable[[], Any], Callable[[Any], int]]:
    """Return our own run and its count."""
    inhibition = KWTA(k=work.k) if work.k else None
    neuron = models.LIF_Simple(threshold=work.threshold, refractory_timesteps=work.hold)
    layer = Layer(neuron, work.x.shape[2:], work.x.shape[1], inhibition, backend="cpu", threads=work.threads)
    record = ("spikes", "winners") if work.k else ("spikes",)

    def run() -> Any:
        layer.reset()
        return layer.run(work.x, record=record)

    return run, lambda result: int(np.count_nonzero(result.spikes))


def compare(work: peers.Work, names: tuple[str, ...], seconds: float) -> list[dict[str, Any]]:
    """Return a row for ours and for every peer; one that is not installed, or fails, says so in its row."""
    builders: dict[str, Callable[[peers.Work], Any]] = {OURS: ours}
    missing: dict[str, str] = {}
    for name in names:
        peer = peers.get(name)
        if not peers.installed(peer):
            missing[peer.NAME] = f"{peer.PACKAGE} is not installed"
        elif work.k and not peer.KWTA:
            missing[peer.NAME] = "has no k-winners-take-all"
        else:
            builders[peer.NAME] = peer.build
    latest: list[Any] = [None]

    def keeping(run: Callable[[], Any]) -> Callable[[], float]:
        # the result stays until the next one has been made, as where a user keeps it
        def call() -> float:
            ready_memory(work.x.nbytes)
            started = time.perf_counter()
            latest[0] = run()
            taken = time.perf_counter() - started
            return latest[0] if isinstance(latest[0], float) else taken

        return call

    runs, firsts, counts = {}, {}, {}
    for name, build in builders.items():
        try:
            started = time.perf_counter()
            run, counted = build(work)
            latest[0] = run()
            firsts[name] = time.perf_counter() - started
            counts[name] = counted(latest[0])
            runs[name] = keeping(run)
        except Exception as error:
            if name == OURS:
                raise
            missing[name] = f"fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    medians = interleaved(runs, seconds, 3, TURN)
    latest[0] = None
    batch, shape = work.x.shape[1], list(work.x.shape[2:])
    about = {"batch": batch, "shape": shape, "steps": len(work.x), "k": work.k, "threads": work.threads}
    rows = [
        {
            "peer": name,
            **about,
            "ns": medians[name] * 1e9 / work.x.size,
            "over_ours": medians[name] / medians[OURS],
            "first_run_s": firsts[name],
            "spiking": counts[name] / work.x.size,
            "spikes": counts[name],
            "our_spikes": counts[OURS],
            "same_spikes": counts[name] == counts[OURS],
            "spikes_agree": abs(counts[name] - counts[OURS]) <= TOLERANCE * counts[OURS],
        }
        for name in runs
    ]
    return rows + [{"peer": name, **about, "ns": None, "why_not": why} for name, why in missing.items()]


def line(row: dict[str, Any]) -> str:
    """Return a row as a line to read."""
    where = "×".join(map(str, (row["steps"], row["batch"], *row["shape"])))
    if row["ns"] is None:
        return f"{row['peer']:<18} {where}: {row['why_not']}"
    agree = "same spikes" if row["same_spikes"] else f"{row['spikes']:,} spikes, ours {row['our_spikes']:,}"
    if not row["spikes_agree"]:
        agree += ": NOT THE SAME WORK"
    return (
        f"{row['peer']:<18} {where}: {row['ns']:.3f} ns per neuron-step, {row['over_ours']:.1f} times ours, "
        f"{agree}, spiking {100 * row['spiking']:.1f} %, first run {row['first_run_s']:.2f} s"
    )


@click.command("peers")
@click.option(
    "--peers", "names", type=Several(), metavar="NAME,…", help="Files of benchmarks/peers.  [default: all]"
)
@click.option(
    "--sizes", type=Several(count), metavar="N,…", help="Neurons without inhibition.  [default: 1e4,1e5,1e6]"
)
@click.option(
    "--kwta/--no-kwta", default=True, show_default=True, help="The shapes with k-winners-take-all too."
)
@click.option("--threads", type=int, metavar="N", help="Threads.  [default: all processors]")
@seconds_option
@benchmark
def main(
    names: tuple[str, ...] | None,
    sizes: tuple[int, ...] | None,
    kwta: bool,
    threads: int | None,
    seconds: float,
    smallest: bool,
    out: Path | None,
    plot: Path | None,
    force: bool,
) -> None:
    """Measure other libraries at the same work, each as its documentation recommends for speed."""
    path = output("peers", out, force)
    unknown = set(names or ()) - set(peers.names())
    if unknown:
        raise ValueError(f"unknown peers {sorted(unknown)}; the peers are {', '.join(peers.names())}")
    shapes: list[tuple[int, ...]] = [(1, n) for n in sizes or PEER_SIZES] + (
        list(KWTA_SHAPES) if kwta else []
    )
    if smallest:
        shapes, seconds = [(1, 10_000), (1, 30, 28, 28)], min(seconds, 0.1)
    (threads,) = default_threads([threads or processors()])
    rows = []
    for batch, *shape in shapes:
        x = uniform((STEPS, batch, *shape))
        k, hold = (WINNERS, HOLD) if len(shape) == 3 else (0, 0)
        case = Case("LIF_Simple", tuple(shape), batch, threads=threads, k=k, scope="feature" if k else None)
        threshold = busy_threshold(case, x[:50]).threshold if k else 150.0
        assert threshold is not None
        work = peers.Work(x, DECAY, threshold, k, hold, threads)
        measured = compare(work, names or peers.names(), seconds)
        for row in measured:
            click.echo(line(row))
        rows += measured
    packages = sorted({peers.get(name).PACKAGE for name in peers.names()})
    conclude("peers", {"seconds": seconds, "rows": rows}, path, plot, packages)
