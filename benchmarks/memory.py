"""How much memory `run` holds beyond input and outputs, and that of `stream` while a long input goes by."""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import click
import numpy as np

from spyke_numba import Layer, models
from spyke_numba.benchmarks.cases import AMPLITUDE, DRIVEN
from spyke_numba.benchmarks.running import benchmark, conclude, count, output
from spyke_numba.benchmarks.startup import new_process

MIB = 2**20
STATUS = Path("/proc/self/status")
#: Points of the record of memory over time.
POINTS = 200

#: The baseline is what a process holds that has imported all and run the same kernel on a few steps.
RUN = """
import json, sys
import numpy
from spyke_numba import KWTA, Layer, models
from spyke_numba.benchmarks.cases import uniform
from spyke_numba.benchmarks.memory import held
model, params, shape, k, record = json.loads(sys.argv[1])
neuron = models.get(model)(**params)
def layer():
    return Layer(neuron, tuple(shape[2:]), shape[1], KWTA(k=k) if k else None, backend="cpu")
layer().run(numpy.zeros((2, *shape[1:]), numpy.float32), record=record)
before = held("VmRSS")
x = uniform(tuple(shape))
result = layer().run(x, record=record)
print(json.dumps([before, held("VmHWM"), x.nbytes, sum(array.nbytes for array in result.values())]))
"""

#: Model, shape (T, B, ...), k and what is recorded.
RUNS: tuple[tuple[str, tuple[int, ...], int, tuple[str, ...]], ...] = (
    ("LIF", (200, 1, 100_000), 0, ("spikes",)),
    ("LIF", (200, 1, 1_000_000), 0, ("spikes",)),
    ("AdEx", (200, 1, 1_000_000), 0, ("spikes", "u")),
    ("LIF", (200, 32, 30, 28, 28), 5, ("spikes", "winners")),
)


def held(what: str) -> int:
    """Return bytes of this process's memory: ``"VmRSS"`` now, ``"VmHWM"`` at most so far.

    Raises
    ------
    RuntimeError
        On a system that does not say.
    """
    try:
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith(what))
    except (OSError, StopIteration):
        raise RuntimeError(f"{STATUS} does not give {what}: measure memory on Linux") from None
    return int(line.split()[1]) * 1024


def of_run(model: str, shape: tuple[int, ...], k: int, record: tuple[str, ...]) -> dict[str, Any]:
    """Return the row of a run in a new process."""
    before, most, given, made = new_process(RUN, [model, DRIVEN[model], shape, k, record])
    return {
        "kind": "run",
        "model": model,
        "shape": list(shape),
        "k": k,
        "record": list(record),
        "before_mib": before / MIB,
        "peak_mib": most / MIB,
        "input_mib": given / MIB,
        "outputs_mib": made / MIB,
        "beyond_mib": (most - before - given - made) / MIB,
    }


def of_stream(neurons: int, steps: int, block: int, *, hidden: bool) -> dict[str, Any]:
    """Return the row of a stream from a generator, with the memory held over time."""
    from rich.console import Console
    from rich.progress import track

    rng = np.random.default_rng(0)
    # a step's input is a window of this, at a random place: drawing all of it would take longer than the layer
    pool = rng.random(2 * neurons, np.float32) * np.float32(AMPLITUDE)

    def blocks() -> Iterator[np.ndarray]:
        for begin in range(0, steps, block):
            size = min(block, steps - begin)
            x = np.empty((size, 1, neurons), np.float32)
            for row, at in zip(x, rng.integers(neurons, size=size), strict=True):
                row[0] = pool[at : at + neurons]
            yield x

    layer = Layer(models.LIF(**DRIVEN["LIF"]), (neurons,), backend="cpu")
    total, every = -(-steps // block), max(1, -(-steps // block) // POINTS)
    trace, spikes, done = [], 0, 0
    before, began = held("VmRSS"), time.perf_counter()
    console = Console(stderr=True)
    bar = track(layer.stream(blocks()), "streaming", total, console=console, disable=hidden, transient=True)
    for number, recording in enumerate(bar):
        done += len(recording.spikes)
        spikes += int(np.count_nonzero(recording.spikes))
        if number % every == 0 or done == steps:
            trace.append([done, held("VmRSS") / MIB])
    seconds = time.perf_counter() - began
    middle = len(trace) // 2
    return {
        "kind": "stream",
        "model": "LIF",
        "shape": [steps, 1, neurons],
        "block_steps": block,
        "block_mib": block * neurons * 4 / MIB,
        "before_mib": before / MIB,
        "trace": trace,
        "growth_mib": max(m for _, m in trace[middle:]) - max(m for _, m in trace[: middle or 1]),
        "ns": seconds * 1e9 / (neurons * steps),
        "spiking": spikes / (neurons * steps),
    }


@click.command("memory")
@click.option(
    "--neurons", type=count, default="1e6", show_default=True, help="Neurons of the stream.", metavar="N"
)
@click.option(
    "--steps", type=count, default="2e3", show_default=True, help="Its steps; 1e5 take minutes.", metavar="T"
)
@click.option(
    "--block", type=count, default="8", show_default=True, help="Steps in a block of it.", metavar="T"
)
@benchmark
def main(
    neurons: int, steps: int, block: int, smallest: bool, out: Path | None, plot: Path | None, force: bool
) -> None:
    """Measure the memory that `run` holds beyond input and outputs, and that of `stream` over time."""
    path = output("memory", out, force)
    held("VmHWM")
    runs = RUNS
    if smallest:
        runs, neurons, steps = (("LIF", (20, 1, 100_000), 0, ("spikes",)),), 10_000, 400
    rows = []
    for run in runs:
        rows.append(of_run(*run))
        click.echo(
            f"run {'×'.join(map(str, run[1]))} ({prod(run[1]):.2g} neuron-steps), {', '.join(run[3])}: "
            f"{rows[-1]['beyond_mib']:.1f} MiB beyond input and outputs"
        )
    rows.append(of_stream(neurons, steps, block, hidden=smallest))
    first, last = rows[-1]["trace"][0][1], rows[-1]["trace"][-1][1]
    click.echo(
        f"stream of {neurons:,} neurons, {steps:,} steps: {first:.0f} MiB at first, {last:.0f} MiB at last"
    )
    conclude("memory", {"rows": rows}, path, plot)
