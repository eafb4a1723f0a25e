"""What the first result of a new process costs, compiled before or not, and what a single step costs."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

import spyke_numba
from spyke_numba import KWTA, Layer, models
from spyke_numba.benchmarks.cases import DRIVEN
from spyke_numba.benchmarks.measuring import interleaved
from spyke_numba.benchmarks.running import Several, benchmark, conclude, output

SHAPE = (6, 8, 8)
STEPS_IN_A_TURN = 200

NEW_PROCESS = """
import json, sys, time
model, params, scope, shape = json.loads(sys.argv[1])
began = time.perf_counter()
import numba
numba_there = time.perf_counter()
import numpy
from spyke_numba import KWTA, Layer, models
ours_there = time.perf_counter()
inhibition = None if scope is None else KWTA(k=2, scope=scope)
layer = Layer(models.get(model)(**params), tuple(shape), inhibition=inhibition, backend="cpu")
layer.run(numpy.ones((20, 1, *shape), numpy.float32))
done = time.perf_counter()
print(json.dumps([numba_there - began, ours_there - numba_there, done - ours_there]))
"""


def new_process(code: str, argument: Any, **environment: str) -> Any:
    """Return what a fresh interpreter prints as JSON, with this package on its path."""
    path = os.pathsep.join([str(Path(spyke_numba.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(argument)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"a new process failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def first_results(model: str, scope: str | None, repeats: int) -> dict[str, Any]:
    """Return the row of one model: a process that compiles, then processes that find the code."""
    argument = [model, DRIVEN[model], scope, SHAPE]
    with tempfile.TemporaryDirectory() as cache:
        # where each system's cache folder is looked for
        where = {"XDG_CACHE_HOME": cache, "LOCALAPPDATA": cache, "HOME": cache}
        _, _, cold = new_process(NEW_PROCESS, argument, **where)
        warm = [new_process(NEW_PROCESS, argument, **where) for _ in range(repeats)]
    numba, ours, first = (statistics.median(part) for part in zip(*warm, strict=True))
    return {
        "kind": "process",
        "model": model,
        "scope": scope,
        "import_numba_s": numba,
        "import_s": ours,
        "first_run_s": first,
        "warm_beyond_numba_s": statistics.median(part[1] + part[2] for part in warm),
        "compile_s": cold,
        "repeats": repeats,
    }


def steps(seconds: float) -> list[dict[str, Any]]:
    """Return a row for a step of eight neurons, given numpy arrays and torch tensors."""
    one = np.ones((1, 8, 1, 1), np.float32)
    inputs: dict[str, Any] = {"numpy": one}
    try:
        import torch

        inputs["torch"] = torch.from_numpy(one)
    except ImportError:
        click.echo("torch is not installed: no steps with tensors")
    layers = {}
    for arrays, x in inputs.items():
        for scope in (None, "feature"):
            inhibition = KWTA(k=2) if scope else None
            layer = Layer(models.LIF(threshold=10.0), (8, 1, 1), inhibition=inhibition, backend="cpu")
            layer.step(x)
            layers[arrays, scope] = (layer, x)

    def turn(layer: Layer, x: Any) -> None:
        for _ in range(STEPS_IN_A_TURN):
            layer.step(x)

    times = interleaved({key: partial(turn, *given) for key, given in layers.items()}, seconds)
    return [
        {
            "kind": "step",
            "model": "LIF",
            "arrays": arrays,
            "scope": scope,
            "step_us": times[arrays, scope] * 1e6 / STEPS_IN_A_TURN,
        }
        for arrays, scope in layers
    ]


@click.command("startup")
@click.option("--models", "names", type=Several(), metavar="NAME,…", help="Models.  [default: all]")
@click.option(
    "--repeats", default=3, show_default=True, help="New processes that find the code, for each row."
)
@benchmark
def main(
    names: tuple[str, ...] | None,
    repeats: int,
    smallest: bool,
    out: Path | None,
    plot: Path | None,
    force: bool,
) -> None:
    """Measure the first result of a new process, compiled before or not, and a single step."""
    path = output("startup", out, force)
    chosen = tuple(models.get(name).name for name in names or models.names())
    scopes: tuple[str | None, ...] = (None, "feature")
    if smallest:
        chosen, scopes, repeats = ("IF",), (None,), 1
    rows = steps(0.1 if smallest else 2.0)
    for row in rows:
        click.echo(
            f"a step of 8 neurons, {row['arrays']}, inhibition {row['scope']}: {row['step_us']:.1f} µs"
        )
    for model in chosen:
        for scope in scopes:
            row = first_results(model, scope, repeats)
            rows.append(row)
            click.echo(
                f"{model:<11} inhibition {row['scope']!s:<8} import numba {row['import_numba_s']:.2f} s, then import "
                f"{row['import_s']:.2f} s and first run {row['first_run_s']:.2f} s; compiling {row['compile_s']:.2f} s"
            )
    conclude("startup", {"rows": rows}, path, plot)
