"""One point of a benchmark, the input that drives it, and how points that share their input are measured."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

import click
import numpy as np

from spyke_numba import KWTA, Layer, backends, models
from spyke_numba.benchmarks import floor
from spyke_numba.benchmarks.measuring import TURN, memory, ready_memory, repeats

#: Input is uniform in [0, AMPLITUDE), and these parameters make 2 to 5 % of all neuron-steps spike.
AMPLITUDE = 20.0
DRIVEN: dict[str, dict[str, float]] = {
    "AdEx": {"threshold": 10.0, "C": 0.015},
    "EIF": {"threshold": 10.0, "C": 0.018},
    "EIF_Simple": {"threshold": 200.0, "delta_t": 6.0},
    "IF": {"threshold": 10.0, "C": 0.0281},
    "Izhikevich": {"threshold": 30.0, "refractory_timesteps": 2},
    "LIF": {"threshold": 10.0, "C": 0.016},
    "LIF_Simple": {"threshold": 150.0},
    "LIF_ode": {"threshold": 10.0, "C": 0.016},
    "QIF": {"threshold": 10.0, "C": 0.0281},
}
STEPS = 200
#: Least turns of each contestant: one burst on a shared machine moves the median of three.
TURNS = 7
#: Above so many neuron-steps the torch backend, one tensor operation after the other, is left out.
MOST_FOR_TORCH = 20_000_000
#: Input, the floor's output, two results and memory made ready, for each neuron-step of an interleaved run.
BYTES_HELD = 8
#: A copy in the cache is measured where a row of input and spikes fits there.
MOST_IN_CACHE = 20_000


@dataclass(frozen=True)
class Case:
    """One point: a layer, its batch and steps, and where it runs; `k` 0 is a layer without inhibition.

    `reuse` writes the spikes into memory that exists, as the floor does; `constant` holds one step's input, so that it
    stays in the cache.
    """

    model: str
    shape: tuple[int, ...]
    batch: int = 1
    steps: int = STEPS
    threads: int = 1
    backend: str = "cpu"
    k: int = 0
    scope: str | None = None
    radius: int = 0
    threshold: float | None = None
    reuse: bool = False
    constant: bool = False

    @property
    def neuron_steps(self) -> int:
        """Steps of all neurons of all samples."""
        return self.steps * self.batch * prod(self.shape)

    def layer(self) -> Layer:
        """Return the layer at rest."""
        inhibition = KWTA(k=self.k, scope=self.scope, radius=self.radius) if self.k else None  # type: ignore[arg-type]
        own = {} if self.threshold is None else {"threshold": self.threshold}
        neuron = models.get(self.model)(**{**DRIVEN[self.model], **own})
        return Layer(neuron, self.shape, self.batch, inhibition, backend=self.backend, threads=self.threads)


def uniform(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return float32 input, uniform in [0, AMPLITUDE), without a second array of that size."""
    x = np.empty(shape, np.float32)
    np.random.default_rng(seed).random(out=x, dtype=np.float32)
    x *= np.float32(AMPLITUDE)
    return x


def busy_threshold(case: Case, x: np.ndarray, target: float = 0.035) -> Case:
    """Return the case with the threshold at which this fraction of the neuron-steps of ``x`` spikes.

    Winners hold others at rest, so with inhibition the threshold that suits a layer without it leaves silence.
    """
    low, high = 0.0, DRIVEN[case.model]["threshold"]
    for _ in range(10):
        case = replace(case, threshold=(low + high) / 2)
        spikes = case.layer().run(x).spikes
        if np.count_nonzero(spikes) > target * spikes.size:
            low = (low + high) / 2
        else:
            high = (low + high) / 2
    return case


def usable_backends() -> tuple[str, ...]:
    """Return the backends that can run here."""
    return tuple(name for name in backends.names() if backends.get(name).unavailable() is None)


def measure(cases: Iterable[Case], seconds: float, least: int = TURNS) -> Iterator[list[dict[str, Any]]]:
    """Measure cases, those of equal input on the same backend interleaved in one run, and yield each run's rows."""

    def run_of(case: Case) -> tuple[tuple[int, ...], str]:
        return (case.steps, case.batch, *case.shape), case.backend

    unique = sorted(dict.fromkeys(cases), key=run_of)
    for (shape, _), group in itertools.groupby(unique, run_of):
        needed = prod(shape) * BYTES_HELD
        if needed > 0.75 * memory():
            click.echo(f"{'×'.join(map(str, shape))} is left out: it needs {needed / 1e9:.0f} GB of memory")
            continue
        yield measure_group(uniform(shape), list(group), seconds, least)


def measure_group(
    x: np.ndarray, cases: list[Case], seconds: float, least: int = TURNS
) -> list[dict[str, Any]]:
    """Measure cases of one backend whose input is ``x``, interleaved with the floor, and return their rows."""
    given, wait = _given(x, cases[0].backend)
    latest: list[Any] = [None]
    contestants: dict[Any, Callable[[], Any]] = {}
    about: dict[Case, tuple[float, float]] = {}
    flat, on_host = given.reshape(-1), given is x
    copied = np.empty(x.size, bool) if on_host else flat.new_empty(x.size, dtype=bool)
    for case in cases:
        run = contestants[case] = _run(case, given, wait, latest, copied.reshape(x.shape))
        first = run()
        spikes = latest[0].spikes
        total = np.count_nonzero(spikes) if isinstance(spikes, np.ndarray) else int(spikes.sum())
        about[case] = first, total / case.neuron_steps
    for threads in sorted({case.threads for case in cases}):
        copying = floor.copying(flat, copied, threads) if on_host else floor.copying_on_gpu(flat, wait)
        contestants["floor", threads] = copying
        copying()
    size = prod(x.shape[1:])
    if size <= MOST_IN_CACHE and on_host:
        contestants["in cache"] = floor.copying_in_cache(size, len(x))
        contestants["in cache"]()
    timed = repeats(contestants, seconds, least, TURN)
    times = {key: statistics.median(taken) for key, taken in timed.items()}
    latest[0] = None
    rows = []
    for case in cases:
        first, spiking = about[case]
        per_step = 1e9 / case.neuron_steps
        least_time = times["floor", case.threads]
        in_cache = times.get("in cache") if case.threads == 1 and case.backend == "cpu" else None
        rows.append(
            {
                **asdict(case),
                "neurons": prod(case.shape),
                "threshold": case.threshold or DRIVEN[case.model]["threshold"],
                "ns": times[case] * per_step,
                "floor_ns": least_time * per_step,
                "over_floor": times[case] / least_time,
                "cache_floor_ns": None if in_cache is None else in_cache * per_step,
                "over_cache_floor": None if in_cache is None else times[case] / in_cache,
                "spiking": spiking,
                "first_run_s": first,
                "repeats": len(timed[case]),
            }
        )
    return rows


def _given(x: np.ndarray, backend: str) -> tuple[Any, Callable[[], None]]:
    """Return the input where a network's would be, and what waits for results."""
    if backend != "cuda":
        return x, lambda: None
    import torch

    return torch.from_numpy(x).cuda(), torch.cuda.synchronize


def _run(
    case: Case, given: Any, wait: Callable[[], None], latest: list[Any], memory: np.ndarray
) -> Callable[[], float]:
    """Return a contestant that runs from rest and keeps the result, as a user would, until the next one has run."""
    layer = case.layer()
    potentials, steps = (given[0], case.steps) if case.constant else (given, None)
    out = {"spikes": memory} if case.reuse else None

    def run() -> float:
        if case.backend != "cuda":
            ready_memory(case.neuron_steps)
        layer.reset()
        wait()
        started = time.perf_counter()
        latest[0] = layer.run(potentials, steps=steps, out=out)
        wait()
        return time.perf_counter() - started

    return run


def line(row: dict[str, Any]) -> str:
    """Return a row as a line to read while the rest is measured."""
    shape = "×".join(map(str, (row["steps"], row["batch"], *row["shape"])))
    where = ", spikes into memory that exists" if row["reuse"] else ""
    where += ", constant input" if row["constant"] else ""
    inhibition = f", k {row['k']} {row['scope']} radius {row['radius']}" if row["k"] else ""
    return (
        f"{row['model']:<11}{row['backend']:<6}{row['threads']} thread(s)  {shape}{inhibition}{where}: "
        f"{row['ns']:.3f} ns per neuron-step, floor {row['floor_ns']:.3f}, ratio {row['over_floor']:.2f}, "
        f"spiking {100 * row['spiking']:.1f} %, first run {row['first_run_s']:.2f} s"
    )


def say(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print rows and return them."""
    for row in rows:
        click.echo(line(row))
    return rows
