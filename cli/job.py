"""A run as data, and carrying it out: ``simulate`` reads it from the command line, ``repeat`` from a file."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spyke_numba.cli.arguments import find_model, parse_assignments
from spyke_numba.cli.inputs import (
    IMAGE_STEPS,
    STIMULUS_STEPS,
    Source,
    input_blocks,
    open_input,
    resolve_input,
)

if TYPE_CHECKING:
    from spyke_numba import Layer, NeuronSpec
    from spyke_numba.figures.run import RunSummary
    from spyke_numba.inputs.encoding import Order, Wave
    from spyke_numba.model.kwta import Scope


@dataclass(frozen=True)
class Job:
    """Everything that decides a run's numbers, JSON-able; the fields are the options of ``simulate``."""

    model: str
    params: tuple[str, ...] = ()
    initial: tuple[str, ...] = ()
    shape: tuple[int, ...] | None = None
    batch: int | None = None
    steps: int | None = None
    duration: float | None = None
    backend: str = "auto"
    dtype: str = "float32"
    threads: int | None = None
    k: int | None = None
    scope: Scope | None = None
    radius: int | None = None
    seed: int = 0
    input: str | None = None
    stimulus: tuple[str, ...] = ()
    weight: float = 1.0
    encode: Literal["latency", "rate"] = "latency"
    wave: Wave = "one-shot"
    order: Order = "rank"
    rate: float = 100.0
    dog: tuple[tuple[float, float], ...] = ()
    contrast: float = 0.05
    longest: int | None = None
    ground: str = "white"
    header: bool | None = None
    channels: int | None = None
    sample_rate: float | None = None
    record: tuple[str, ...] = ("spikes",)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Job:
        """Return the job that `as_dict` described.

        Raises
        ------
        ValueError
            If a field is unknown.
        """
        known = {item.name for item in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown or "model" not in values:
            raise ValueError(
                f"the run's description names {', '.join(unknown) or 'no model'}; another version wrote it"
            )
        return cls(**{name: _frozen(value) for name, value in values.items()})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


@dataclass(frozen=True)
class Prepared:
    """A job with everything checked and built, before its first step."""

    job: Job
    spec: NeuronSpec
    layer: Layer
    shape: tuple[int, ...]
    batch: int
    steps: int
    ts: float
    source: Source | None

    @property
    def neuron_steps(self) -> int:
        """Neurons times samples times steps."""
        return math.prod(self.shape) * self.batch * self.steps


def prepare(job: Job) -> Prepared:
    """Check a job and build its layer.

    Raises
    ------
    ValueError, TypeError, KeyError, OSError, RuntimeError
        One sentence for whatever cannot be done.
    """
    from spyke_numba import KWTA, Layer

    spec = find_model(job.model)
    neuron = spec(**parse_assignments(job.params, "--param", header=job.header))
    initial = parse_assignments(job.initial, "--initial", header=job.header)
    for text in initial:
        if not isinstance(initial[text], float | np.ndarray):
            raise ValueError(f"--initial {text} takes a number or @FILE.npy")
    ts = neuron.given.get("ts", spec.all_params["ts"].default)
    if not isinstance(ts, float | int):
        raise ValueError(
            "ts differs between neurons; give one time step for the layer, such as --param ts=0.001"
        )
    if job.k is None and (job.scope is not None or job.radius is not None):
        raise ValueError("--scope and --radius belong to k-winners-take-all; give --k as well")
    inhibition = None
    if job.k is not None:
        inhibition = KWTA(k=job.k, scope=job.scope or "feature", radius=job.radius or 0)
    steps = _steps(job, ts)
    if job.input is None and not job.stimulus:
        raise ValueError("there is no input; give --input FILE or --stimulus, such as --stimulus constant:5")
    source = None if job.input is None else open_input(job, ts, steps)
    shape, batch, steps = _extent(job, source, steps, ts)
    layer = Layer(
        neuron,
        shape=shape,
        batch=batch,
        inhibition=inhibition,
        backend=job.backend,
        dtype=job.dtype,
        seed=job.seed,
        initial=initial or None,
        threads=job.threads,
    )
    for name in job.record:
        if name not in layer.recordable or (name == "winners" and inhibition is None):
            allowed = [known for known in layer.recordable if known != "winners" or inhibition is not None]
            raise ValueError(f"--record names {name!r}; allowed here are {', '.join(allowed)}")
    # a wrong stimulus is refused now, not when the run has begun
    input_blocks(job, source, (batch, *shape), steps, ts)
    return Prepared(job, spec, layer, shape, batch, steps, float(ts), source)


def _steps(job: Job, ts: float) -> int | None:
    if job.steps is not None and job.duration is not None:
        raise ValueError("--steps and --duration both say how long the run is; give one of them")
    if job.duration is not None:
        if not (job.duration > 0 and math.isfinite(job.duration)):
            raise ValueError(f"--duration is {job.duration:g}; give seconds above 0")
        if not math.isfinite(job.duration / ts):
            raise ValueError(
                f"--duration is {job.duration:g}, which is too many steps of {ts:g} s; give less"
            )
        return max(1, round(job.duration / ts))
    if job.steps is not None and job.steps < 1:
        raise ValueError(f"--steps is {job.steps}; give 1 or more")
    return job.steps


def _extent(
    job: Job, source: Source | None, steps: int | None, ts: float
) -> tuple[tuple[int, ...], int, int]:
    """Return shape, batch and steps, from the options and from what the input file says."""
    shape = job.shape
    batch = job.batch
    if batch is not None and batch < 1:
        raise ValueError(f"--batch is {batch}; give 1 or more")
    if shape is not None and min(shape) < 1:
        raise ValueError(f"--shape is {_commas(shape)}; every size must be 1 or more")
    if source is None:
        return shape or (100,), batch or 1, steps or STIMULUS_STEPS
    recording = source.what.startswith("recording")
    if shape is None:
        shape = source.shape
    elif shape != source.shape and not recording:
        raise ValueError(
            f"--shape is {_commas(shape)}, but the {source.what} gives {_commas(source.shape)}; "
            "give that or leave --shape out"
        )
    if recording and source.shape[0] > math.prod(shape):
        raise ValueError(
            f"{source.shape[0]} channels cannot drive {math.prod(shape)} neuron(s); "
            f"give a --shape of at least {source.shape[0]}"
        )
    if source.batch is not None and batch not in (None, source.batch):
        raise ValueError(
            f"--batch is {batch}, but the input holds {source.batch} sample(s); leave --batch out"
        )
    if steps is not None and source.steps is not None and steps > source.steps:
        raise ValueError(
            f"the run has {steps} steps ({steps * ts:g} s), but the input has {source.steps} "
            f"({source.steps * ts:g} s); give at most these"
        )
    return shape, source.batch or batch or 1, steps or source.steps or IMAGE_STEPS


def _commas(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape))


@dataclass
class Clock:
    """Where the time of a run went (s)."""

    compile: float = 0.0
    input: float = 0.0
    run: float = 0.0
    results: float = 0.0


@dataclass(frozen=True)
class Result:
    """A finished run, as it is reported."""

    prepared: Prepared
    summary: RunSummary
    clock: Clock
    digest: str

    def as_dict(self) -> dict[str, Any]:
        """Return what is reported, for JSON."""
        prepared, summary, layer = self.prepared, self.summary, self.prepared.layer
        inhibition = layer.inhibition
        return {
            "model": prepared.spec.name,
            "backend": layer.backend,
            "dtype": prepared.job.dtype,
            "shape": list(prepared.shape),
            "batch": prepared.batch,
            "steps": prepared.steps,
            "ts": prepared.ts,
            "seed": prepared.job.seed,
            "inhibition": None if inhibition is None else dataclasses.asdict(inhibition),
            "spikes": summary.spikes,
            "rate_hz": summary.rate,
            "active_fraction": summary.active,
            "winners": summary.winner_count if summary.has_winners else None,
            "spikes_sha256": self.digest,
            "compile_seconds": self.clock.compile,
            "input_seconds": self.clock.input,
            "run_seconds": self.clock.run,
            "neuron_steps_per_second": prepared.neuron_steps / self.clock.run if self.clock.run else None,
        }


def execute(
    prepared: Prepared,
    *,
    out: Path | None = None,
    plot: Path | None = None,
    neurons: tuple[int, ...] | None = None,
    force: bool = False,
    advance: Callable[[int], None] = lambda steps: None,
) -> Result:
    """Run a job and write what was asked for, in memory that does not grow with the number of steps.

    Parameters
    ----------
    prepared : Prepared
    out : Path, optional
        The .npz file to write.
    plot : Path, optional
        The figure to draw.
    neurons : tuple of int, optional
        Neurons whose potentials the figure shows.
    force : bool
        Replace existing files.
    advance : function
        Called with the number of steps after each block.
    """
    from spyke_numba.figures.run import RunSummary, check_figure
    from spyke_numba.results.runfile import RunWriter

    job, layer = prepared.job, prepared.layer
    full = (prepared.batch, *prepared.shape)
    if plot is not None:
        check_figure(plot, force=force)
    summary = RunSummary(
        prepared.shape, steps=prepared.steps, ts=prepared.ts, batch=prepared.batch, neurons=neurons
    )
    traced = ("u", *prepared.spec.states) if plot is not None else ()
    needed = ("spikes", *(("winners",) if layer.inhibition is not None else ()), *traced)
    record = tuple(dict.fromkeys((*job.record, *needed)))
    clock = Clock()
    digest = hashlib.sha256()
    with contextlib.ExitStack() as stack:
        writer = None if out is None else stack.enter_context(RunWriter(out, force=force))
        last: list[np.ndarray] = [np.empty(0)]

        def timed_input() -> Iterator[np.ndarray]:
            blocks = input_blocks(job, prepared.source, full, prepared.steps, prepared.ts)
            while True:
                began = time.perf_counter()
                block = next(blocks, None)
                clock.input += time.perf_counter() - began
                if block is None:
                    return
                last[0] = block
                yield block

        began = time.perf_counter()
        layer.run(np.zeros((1, *full), job.dtype), record=record)
        layer.reset()
        clock.compile = time.perf_counter() - began

        stream = layer.stream(timed_input(), record=record)
        while True:
            began, before = time.perf_counter(), clock.input
            block = next(stream, None)
            clock.run += time.perf_counter() - began - (clock.input - before)
            if block is None:
                break
            began = time.perf_counter()
            spikes = block["spikes"]
            # packed step by step, so that the digest does not depend on the length of the blocks
            digest.update(np.packbits(spikes.reshape(len(spikes), -1), axis=1).tobytes())
            traces = (
                {"input": last[0], **{name: block[name] for name in traced}} if plot is not None else None
            )
            summary.add(spikes, winners=block["winners"] if layer.inhibition else None, traces=traces)
            if writer is not None:
                writer.append({name: block[name] for name in job.record})
            clock.results += time.perf_counter() - began
            advance(len(spikes))
        result = Result(prepared, summary, clock, digest.hexdigest())
        if writer is not None:
            writer.finish(description(result))
    if plot is not None:
        _draw(result, plot, force)
    return result


def description(result: Result) -> dict[str, Any]:
    """Return what a run's file says of the run: the job, the versions, the input's digest and the outcome."""
    from importlib.metadata import PackageNotFoundError, version

    import spyke_numba

    versions = {"spyke_numba": spyke_numba.__version__}
    for package in ("numpy", "numba", "torch", "numba-cuda", "matplotlib"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    job = result.prepared.job
    values = result.prepared.layer.parameters
    return {
        "job": job.as_dict(),
        "input_sha256": None if job.input is None else file_digest(resolve_input(job.input)),
        "parameters": {
            name: float(values[name]) if np.ndim(values[name]) == 0 else "varies"
            for name in result.prepared.spec.all_params
            if values[name] is not None
        },
        "versions": versions,
        "result": result.as_dict(),
    }


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _digest(file)
        )


def _digest(file: Any) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _draw(result: Result, path: Path, force: bool) -> None:
    from spyke_numba.figures.run import draw, save

    prepared, layer = result.prepared, result.prepared.layer
    shape = " x ".join(map(str, prepared.shape))
    title = f"{prepared.spec.name}, {shape} neurons"
    if prepared.batch > 1:
        title += f", sample {result.summary.sample} of {prepared.batch}"
    if layer.inhibition is not None:
        k = layer.inhibition
        title += f", k-WTA k = {k.k}, scope {k.scope}, radius {k.radius}"
    title += f": {result.summary.spikes:,} spikes, {result.summary.rate:.3g} Hz"
    unit = prepared.spec.all_params["threshold"].unit
    features = None if prepared.source is None else prepared.source.features
    save(draw(result.summary, title=title, units={"u": unit}, features=features), path, force=force)
