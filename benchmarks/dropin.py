"""Time per step of the drop-in neurons against a plain eager-torch layer of the same semantics, in one run.

python -m spyke_numba.benchmarks.dropin --json benchmarks/results/dropin.json --table docs/dropin_speed.md
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from spyke_numba import neurons
from spyke_numba.benchmarks.eager_baseline import MODELS, EagerLayer
from spyke_numba.benchmarks.floor import SPINNING_SECONDS
from spyke_numba.benchmarks.measuring import first_call, interleaved, write_json

SHAPES = {(1, 30, 28, 28): 5, (1, 250, 14, 14): 8, (1, 64, 64, 64): 5, (1, 100, 128, 128): 5}
THRESHOLD = 10.0
#: Inputs at which 2 to 6 % of all neuron-steps spike.
DRIVE = {"LIF_Simple": 2.5, "LIF_ode": 500.0, "EIF": 450.0, "AdEx": 2000.0}
BLOCK = 20
#: Seconds for which a contestant is called again before the other's turn comes.
TURN = 0.1


def measure(
    model: str, shape: tuple[int, ...], k: int, seconds: float, backend: str = "cpu"
) -> dict[str, Any]:
    """Return microseconds per step of the eager layer, of the drop-in called step by step, and of its `run`."""
    inputs = torch.rand((BLOCK, *shape), generator=torch.Generator().manual_seed(0)) * DRIVE[model]
    eager = EagerLayer(model, THRESHOLD, k)
    eager.scope = "global" if model == "AdEx" else "feature"
    called, fused = (getattr(neurons, model)(THRESHOLD, backend=backend) for _ in range(2))
    spikes = {"eager": 0, "drop-in": 0}
    for x in inputs:
        spikes["eager"] += int((eager(x)[0] > 0).sum())
        spikes["drop-in"] += int((called(x, n_winners=k)[0] > 0).sum())
    compile_seconds = first_call(lambda: fused.run(inputs, k))

    def each(layer: Callable[[torch.Tensor], Any]) -> None:
        for x in inputs:
            layer(x)

    def eagerly() -> float:
        started = time.perf_counter()
        each(eager)
        seconds = time.perf_counter() - started
        # torch's threads keep the cores busy for a while, which the next contestant shall not pay for
        time.sleep(SPINNING_SECONDS)
        return seconds

    # turns of many steps, since a network calls its layer in a loop
    contestants = {
        "eager": eagerly,
        "call": lambda: each(lambda x: called(x, n_winners=k)),
        "run": lambda: fused.run(inputs, k),
    }
    medians = interleaved(contestants, seconds, turn=TURN)
    # the other way: each finds the caches full of the other's memory every time
    cold = interleaved(contestants, seconds / 2)
    return {
        "model": model,
        "shape": shape,
        "k": k,
        "eager_us": medians["eager"] * 1e6 / BLOCK,
        "call_us": medians["call"] * 1e6 / BLOCK,
        "run_us": medians["run"] * 1e6 / BLOCK,
        "cold_eager_us": cold["eager"] * 1e6 / BLOCK,
        "cold_call_us": cold["call"] * 1e6 / BLOCK,
        "first_run_s": compile_seconds,
        "spiking": spikes["drop-in"] / inputs.numel(),
        "spikes": spikes,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| model | shape | k | spiking | eager torch | call | ratio | `run` | ratio | call, cold: ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shape = "×".join(map(str, row["shape"]))
        lines.append(
            f"| {row['model']} | {shape} | {row['k']} | {100 * row['spiking']:.1f} % | {row['eager_us']:.0f} µs "
            f"| {row['call_us']:.0f} µs | {row['eager_us'] / row['call_us']:.1f} "
            f"| {row['run_us']:.1f} µs | {row['eager_us'] / row['run_us']:.1f} "
            f"| {row['cold_eager_us'] / row['cold_call_us']:.1f} |"
        )
    return "\n".join(lines)


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Results file to write.")
@click.option("--table", "table_path", type=click.Path(path_type=Path), help="Markdown file to write.")
@click.option("--seconds", default=2.0, show_default=True, help="Time for each row.")
@click.option("--backend", default="cpu", show_default=True, help="Backend of the drop-in.")
@click.option("--smallest", is_flag=True, help="Only the first shape, briefly.")
def main(
    json_path: Path | None, table_path: Path | None, seconds: float, backend: str, smallest: bool
) -> None:
    """Measure the drop-in against eager torch."""
    rows = []
    for model in MODELS:
        for shape, k in list(SHAPES.items())[: 1 if smallest else None]:
            rows.append(measure(model, shape, k, seconds, backend))
            click.echo(table(rows[-1:]).splitlines()[-1])
    if json_path is not None:
        write_json(json_path, {"threads": torch.get_num_threads(), "backend": backend, "rows": rows})
    if table_path is not None:
        results = json.loads(json_path.read_text()) if json_path is not None else None
        head = "# Time per step: the drop-in against eager torch\n\n"
        head += "One interleaved run, medians of 20 steps; eager torch is `benchmarks/eager_baseline.py`. "
        head += f"Turns last {TURN} s, so that each finds its own memory in the caches, as in a loop; in the last "
        head += "column they last 20 steps, so that each finds the other's. "
        head += f"Backend of the drop-in: {backend}. "
        if results is not None:
            info = results["machine"]
            head += f"{info['processor']}, {info['cores']} cores, torch {info['versions']['torch']}, "
            head += f"{info['date']}.\n\n"
        table_path.write_text(head + table(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
