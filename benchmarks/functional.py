"""The functions between the layers against plain torch, each side in a process of its own, turn by turn."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import spyke_numba
from spyke_numba.benchmarks.bars import WAVES
from spyke_numba.benchmarks.running import (
    Several,
    benchmark,
    conclude,
    count,
    default_threads,
    output,
)

#: Waves (T, F, H, W) with the winners and the radius of published networks, and one of a camera's size.
SHAPES: dict[tuple[int, ...], tuple[int, int]] = dict(zip(WAVES, ((5, 3), (8, 1), (5, 3)), strict=True))
#: What a step adds at most, and the threshold: the last steps are those in which most neurons fire first.
THRESHOLD = 7.0
#: Seconds of a turn, in which the same call is repeated.
TURN = 0.05
SIDES = {"ours": "spyke_numba.functional", "plain": "spyke_numba.benchmarks.functional_baseline"}


def calls(functions: Any, shape: tuple[int, ...], k: int, radius: int) -> dict[str, Callable[[], Any]]:
    """Return what is measured: the functions of a module on the same waves, by name."""
    import torch

    generator = torch.Generator().manual_seed(0)
    potentials = torch.rand(shape, generator=generator).cumsum_(0)
    spikes, thresholded = functions.fire(potentials, THRESHOLD, True)
    single = functions.pointwise_inhibition(thresholded)
    single_spikes = single.sign()
    images = torch.rand((1, *shape[1:]), generator=generator)
    # sixty-fourths, whose sums are exact in whatever order
    kernel = torch.randint(-4, 0, (1, 1, 5, 5), generator=generator) / 64
    fired, changed, inhibited = (potentials.clone() for _ in range(3))
    features = [1, 4, 8]

    def three() -> Any:
        kept = functions.pointwise_inhibition(functions.fire(potentials, THRESHOLD, True)[1])
        return functions.get_k_winners(kept, k, radius, kept.sign())

    return {
        "fire": lambda: functions.fire(potentials, THRESHOLD),
        "fire, and thresholded": lambda: functions.fire(potentials, THRESHOLD, True),
        "fire at the end": lambda: functions.fire(potentials),
        "fire_": lambda: functions.fire_(fired, THRESHOLD),
        "threshold": lambda: functions.threshold(potentials, THRESHOLD),
        "threshold_": lambda: functions.threshold_(changed, THRESHOLD),
        "pointwise_inhibition": lambda: functions.pointwise_inhibition(thresholded),
        "get_k_winners, one a location": lambda: functions.get_k_winners(single, k, radius, single_spikes),
        "get_k_winners": lambda: functions.get_k_winners(thresholded, k, radius, spikes),
        "fire, pointwise, winners": three,
        "feature_inhibition": lambda: functions.feature_inhibition(potentials, features),
        "feature_inhibition_": lambda: functions.feature_inhibition_(inhibited, features),
        "pad": lambda: functions.pad(spikes, (2, 2, 2, 2)),
        "pooling 2": lambda: functions.pooling(spikes, 2, 2),
        "pooling 3, stride 2": lambda: functions.pooling(spikes, 3, 2, 1),
        "local_normalization": lambda: functions.local_normalization(images, 4),
        "intensity_lateral_inhibition": lambda: functions.intensity_lateral_inhibition(images, kernel),
    }


def digest(result: Any) -> str:
    """Return what stands for a result: winners, or tensors, bit for bit but for the sign of zeros."""
    if isinstance(result, tuple):
        return " ".join(map(digest, result))
    if isinstance(result, list):
        return repr([tuple(map(int, winner)) for winner in result])
    return hashlib.sha256((result + 0.0).contiguous().numpy()).hexdigest()[:16]


def serve() -> None:
    """Answer the lines of a `Contestant`, one JSON each, until there are no more."""
    import importlib

    import torch

    functions: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if "side" in asked:
            torch.set_num_threads(asked["threads"])
            module = importlib.import_module(SIDES[asked["side"]])
            functions = calls(module, tuple(asked["shape"]), asked["k"], asked["radius"])
            answer: Any = list(functions)
        elif "first" in asked:
            started = time.perf_counter()
            result = functions[asked["first"]]()
            answer = {"first_call_s": time.perf_counter() - started, "digest": digest(result)}
        else:
            answer = timed(functions[asked["call"]], asked["seconds"])
        print(json.dumps(answer), flush=True)


def timed(call: Callable[[], Any], seconds: float) -> float:
    """Return the median seconds of a call that is repeated for a while; its result lives until the next is there."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        started = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - started)
    del result
    return statistics.median(times)


@contextmanager
def contestant(side: str, shape: tuple[int, ...], threads: int) -> Iterator[Callable[..., Any]]:
    """Start a process of one side, and give what asks it something."""
    path = os.pathsep.join([str(Path(spyke_numba.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )

    def ask(**question: Any) -> Any:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process of {side} ended: see its message above")
        return json.loads(answer)

    k, radius = SHAPES[shape]
    try:
        ask(side=side, shape=shape, k=k, radius=radius, threads=threads)
        yield ask
    finally:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.wait()
        process.stdout.close()


def measure(shape: tuple[int, ...], threads: int, turns: int, turn: float = TURN) -> list[dict[str, Any]]:
    """Return a row for each function; its ratio is the median of those of neighbouring turns."""
    rows = []
    with contestant("ours", shape, threads) as ours, contestant("plain", shape, threads) as plain:
        k, radius = SHAPES[shape]
        names = ours(side="ours", shape=shape, k=k, radius=radius, threads=threads)
        for name in names:
            first, other = ours(first=name), plain(first=name)
            pairs = []
            for i in range(turns):
                # who comes second in one turn is first in the next
                order = (ours, plain) if i % 2 else (plain, ours)
                times = {side: side(call=name, seconds=turn) for side in order}
                pairs.append((times[ours], times[plain]))
            rows.append(
                {
                    "function": name,
                    "shape": shape,
                    "threads": threads,
                    "ours_us": statistics.median(pair[0] for pair in pairs) * 1e6,
                    "plain_us": statistics.median(pair[1] for pair in pairs) * 1e6,
                    "over_plain": statistics.median(pair[1] / pair[0] for pair in pairs),
                    "turns": turns,
                    "first_call_s": first["first_call_s"],
                    "equal": first["digest"] == other["digest"],
                }
            )
    return rows


def line(row: dict[str, Any]) -> str:
    """Return a row as a line to read."""
    equal = "equal" if row["equal"] else "NOT EQUAL"
    shape = "×".join(map(str, row["shape"]))
    return (
        f"{row['function']:<30} {shape:<14} {row['threads']} thread(s): plain torch {row['plain_us']:9.1f} µs, "
        f"ours {row['ours_us']:9.1f} µs, {row['over_plain']:.2f} times as fast, {equal}"
    )


def table(results: dict[str, Any]) -> str:
    """Return the page of results: a row for each function, a column for each shape and number of threads."""
    info, rows = results["machine"], results["rows"]
    columns = list(dict.fromkeys((tuple(row["shape"]), row["threads"]) for row in rows))
    found = {(row["function"], tuple(row["shape"]), row["threads"]): row for row in rows}
    lines = [
        "# The functions between the layers: plain torch against `spyke_numba.functional`",
        "",
        "How many times as fast as `benchmarks/functional_baseline.py`, and our microseconds, for float32 waves",
        "(T, F, H, W), torch having one thread or more. Each side has a process of its own; they take turns of",
        f"{1000 * TURN:.0f} ms, and the ratio is the median over {rows[0]['turns']} pairs of turns. All results were "
        + ("equal bit for bit." if all(row["equal"] for row in rows) else "NOT ALL EQUAL."),
        f"{info['processor']}, {info['cores']} cores, torch {info['versions']['torch']}, {info['date']}.",
        "",
        "| function | "
        + " | ".join(
            f"{'×'.join(map(str, shape))}, {threads} thread{'s' * (threads > 1)}"
            for shape, threads in columns
        )
        + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name in dict.fromkeys(row["function"] for row in rows):
        cells = []
        for shape, threads in columns:
            row = found[name, shape, threads]
            cells.append(f"{row['over_plain']:.2f} ({row['ours_us']:,.0f} µs)")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


@click.command("functional")
@click.option(
    "--threads",
    type=Several(count),
    metavar="N,…",
    help="Threads of torch.  [default: one, and as many as there are processors]",
)
@click.option("--turns", default=11, show_default=True, help="Pairs of turns for each function.")
@click.option(
    "--table", "table_path", type=click.Path(path_type=Path), metavar="FILE.md", help="Markdown to write."
)
@benchmark
def main(
    threads: tuple[int, ...] | None,
    turns: int,
    table_path: Path | None,
    smallest: bool,
    out: Path | None,
    plot: Path | None,
    force: bool,
) -> None:
    """Measure the functions between the layers against plain torch, which must give the same."""
    path = output("functional", out, force)
    shapes, numbers, turn = list(SHAPES), default_threads(threads), TURN
    if smallest:
        shapes, numbers, turns, turn = shapes[:1], numbers[:1], 1, 0.0
    rows: list[dict[str, Any]] = []
    for shape in shapes:
        for number in numbers:
            measured = measure(shape, number, turns, turn)
            for row in measured:
                click.echo(line(row))
            rows += measured
    conclude("functional", {"turns": turns, "turn_s": turn, "rows": rows}, path, plot)
    if table_path is not None:
        table_path.write_text(table(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
