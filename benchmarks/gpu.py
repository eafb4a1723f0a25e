"""Large layers on a GPU against its own copy, winners against none, and every spike against the cpu backend's."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from spyke_numba import backends
from spyke_numba.benchmarks.bars import GPU_BATCH, GPU_MODELS, GPU_NEURONS, GPU_WINNERS
from spyke_numba.benchmarks.cases import STEPS, Case, busy_threshold, measure_group, say, uniform
from spyke_numba.benchmarks.kwta import RADII, SCOPES, SOUGHT
from spyke_numba.benchmarks.measuring import processors
from spyke_numba.benchmarks.running import benchmark, conclude, output, seconds_option

SHAPE = (30, 28, 28)
#: Samples for which the threshold is sought.
SAMPLES = 4


@click.command("gpu")
@click.option("--backend", default="cuda", show_default=True, help="Another one tries the benchmark itself.")
@seconds_option
@benchmark
def main(
    backend: str, seconds: float, smallest: bool, out: Path | None, plot: Path | None, force: bool
) -> None:
    """Measure large layers on a GPU, with torch tensors that live there, and compare every spike with the CPU's.

    Takes 25 GB of the GPU's memory, and 15 GB of the machine's.
    """
    path = output("gpu", out, force)
    name = backends.choose(backend).name
    if name == "cuda":
        check_torch()
    neurons, batch, steps = GPU_NEURONS, GPU_BATCH, STEPS
    if smallest:
        neurons, batch, steps, seconds = 1_000, 4, 50, min(seconds, 0.1)
    x = uniform((steps, 1, neurons))
    free = [Case(model, (neurons,), steps=steps, backend=name, reuse=True) for model in GPU_MODELS]
    rows = measured(x, free, seconds)
    x = uniform((steps, batch, *SHAPE))
    without = Case("LIF", SHAPE, batch, steps, backend=name, reuse=True)
    cases = [without]
    for scope in SCOPES:
        few = replace(without, batch=SAMPLES, backend="cpu", k=GPU_WINNERS, scope=scope)
        threshold = busy_threshold(few, np.ascontiguousarray(x[:SOUGHT, :SAMPLES])).threshold
        cases += [
            replace(without, k=GPU_WINNERS, scope=scope, threshold=threshold, radius=radius)
            for radius in RADII
        ]
    competing = measured(x, cases, seconds)
    for row in competing[1:]:
        row["over_free"] = row["ns"] / competing[0]["ns"]
    conclude("gpu", {"seconds": seconds, "rows": rows + competing}, path, plot)


def check_torch() -> None:
    """Raise a RuntimeError, before any input is made, where there is no torch that sees the GPU."""
    found = importlib.util.find_spec("torch") is not None
    if found:
        import torch

        if torch.cuda.is_available():
            return
    raise RuntimeError(
        f"{'this torch sees no GPU' if found else 'torch is not installed'}, and the input of bench gpu is torch"
        " tensors on it: install a torch built for CUDA, or give --backend cpu to try the benchmark itself"
    )


def measured(x: np.ndarray, cases: list[Case], seconds: float) -> list[dict[str, Any]]:
    """Return the cases' rows, with the share of neuron-steps that spike, or do not, as on the cpu backend."""
    rows = say(measure_group(x, cases, seconds))
    for row, case in zip(rows, cases, strict=True):
        expected = replace(case, backend="cpu", threads=processors()).layer().run(x).spikes
        row["same_spikes"] = np.count_nonzero(case.layer().run(x).spikes == expected) / expected.size
    return rows
