"""Time per step of the drop-in neurons against a plain eager-torch layer of the same semantics, in one run.

python -m spyke_numba.benchmarks.dropin --json benchmarks/results/dropin.json --table docs/dropin_speed.md
python -m spyke_numba.benchmarks.dropin --backends torch,torch_compiled --json benchmarks/results/dropin_torch.json \\
    --table docs/dropin_speed_torch.md
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from spyke_numba import neurons
from spyke_numba.benchmarks.eager_baseline import MODELS, EagerLayer
from spyke_numba.benchmarks.floor import SPINNING_SECONDS
from spyke_numba.benchmarks.measuring import interleaved, write_json
from spyke_numba.benchmarks.running import Several

SHAPES = {(1, 30, 28, 28): 5, (1, 250, 14, 14): 8, (1, 64, 64, 64): 5, (1, 100, 128, 128): 5}
THRESHOLD = 10.0
#: Inputs at which 2 to 6 % of all neuron-steps spike.
DRIVE = {"LIF_Simple": 2.5, "LIF_ode": 500.0, "EIF": 450.0, "AdEx": 2000.0}
BLOCK = 20
#: Seconds for which a contestant is called again before the other's turn comes.
TURN = 0.1


def measure(
    model: str, shape: tuple[int, ...], k: int, seconds: float, backends: Sequence[str] = ("cpu",)
) -> list[dict[str, Any]]:
    """Return a row per backend: microseconds per step of the eager layer, of the drop-in's calls and of its `run`."""
    inputs = torch.rand((BLOCK, *shape), generator=torch.Generator().manual_seed(0)) * DRIVE[model]
    eager = EagerLayer(model, THRESHOLD, k)
    eager.scope = "global" if model == "AdEx" else "feature"
    eager_spikes = sum(int((eager(x)[0] > 0).sum()) for x in inputs)

    def each(layer: Callable[[torch.Tensor], Any]) -> None:
        for x in inputs:
            layer(x)

    def paused(run: Callable[[], Any]) -> Callable[[], float]:
        """Return the same, timed, and without torch's threads when the next contestant's turn comes."""

        def timed() -> float:
            started = time.perf_counter()
            run()
            seconds = time.perf_counter() - started
            time.sleep(SPINNING_SECONDS)
            return seconds

        return timed

    # turns of many steps, since a network calls its layer in a loop
    contestants: dict[Any, Callable[[], Any]] = {"eager": paused(lambda: each(eager))}
    rows = []
    for backend in backends:
        called, fused = (getattr(neurons, model)(THRESHOLD, backend=backend) for _ in range(2))
        spikes, first_call_s = 0, 0.0
        for x in inputs:
            started = time.perf_counter()
            spikes += int((called(x, n_winners=k)[0] > 0).sum())
            first_call_s = first_call_s or time.perf_counter() - started
        pause = paused if backend.startswith("torch") else lambda run: run
        contestants[backend, "call"] = pause(partial(each, partial(called, n_winners=k)))
        contestants[backend, "run"] = pause(partial(fused.run, inputs, k))
        contestants[backend, "run"]()
        rows.append(
            {
                "backend": backend,
                "model": model,
                "shape": shape,
                "k": k,
                "first_call_s": first_call_s,
                "spiking": spikes / inputs.numel(),
                "spikes": {"eager": eager_spikes, "drop-in": spikes},
            }
        )
    medians = interleaved(contestants, seconds, turn=TURN)
    # the other way: each finds the caches full of the others' memory every time
    cold = interleaved(contestants, seconds / 2)
    for row in rows:
        call, run_key = (row["backend"], "call"), (row["backend"], "run")
        row |= {
            "eager_us": medians["eager"] * 1e6 / BLOCK,
            "call_us": medians[call] * 1e6 / BLOCK,
            "run_us": medians[run_key] * 1e6 / BLOCK,
            "cold_eager_us": cold["eager"] * 1e6 / BLOCK,
            "cold_call_us": cold[call] * 1e6 / BLOCK,
            "over_call": medians["eager"] / medians[call],
            "over_run": medians["eager"] / medians[run_key],
            "over_cold_call": cold["eager"] / cold[call],
        }
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| backend | model | shape | k | spiking | first call | eager torch | call | ratio | `run` | ratio "
        "| call, cold: ratio |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shape = "×".join(map(str, row["shape"]))
        lines.append(
            f"| {row['backend']} | {row['model']} | {shape} | {row['k']} | {100 * row['spiking']:.1f} % "
            f"| {row['first_call_s']:.2f} s | {row['eager_us']:.0f} µs | {row['call_us']:.0f} µs "
            f"| {row['over_call']:.1f} | {row['run_us']:.1f} µs | {row['over_run']:.1f} "
            f"| {row['over_cold_call']:.1f} |"
        )
    return "\n".join(lines)


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Results file to write.")
@click.option("--table", "table_path", type=click.Path(path_type=Path), help="Markdown file to write.")
@click.option("--seconds", default=2.0, show_default=True, help="Time for each model and shape.")
@click.option(
    "--backends", default="cpu", show_default=True, type=Several(), metavar="NAME,…", help="Of the drop-in."
)
@click.option("--smallest", is_flag=True, help="Only the first shape, briefly.")
def main(
    json_path: Path | None,
    table_path: Path | None,
    seconds: float,
    backends: tuple[str, ...],
    smallest: bool,
) -> None:
    """Measure the drop-in against eager torch."""
    rows = []
    for model in MODELS:
        for shape, k in list(SHAPES.items())[: 1 if smallest else None]:
            more = measure(model, shape, k, seconds, backends)
            click.echo("\n".join(table(more).splitlines()[2:]))
            rows += more
    if json_path is not None:
        write_json(json_path, {"benchmark": json_path.stem, "threads": torch.get_num_threads(), "rows": rows})
    if table_path is not None:
        results = json.loads(json_path.read_text()) if json_path is not None else None
        head = "# Time per step: the drop-in against eager torch\n\n"
        head += "One interleaved run, medians of 20 steps; eager torch is `benchmarks/eager_baseline.py`. "
        head += f"Turns last {TURN} s, so that each finds its own memory in the caches, as in a loop; in the last "
        head += "column they last 20 steps, so that each finds the others'. "
        head += "The first call may compile, or find what an earlier process compiled. "
        if results is not None:
            info = results["machine"]
            head += f"{info['processor']}, {info['cores']} cores, torch {info['versions']['torch']}, "
            head += f"{info['date']}.\n\n"
        table_path.write_text(head + table(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
