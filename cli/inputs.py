"""From ``--input`` and ``--stimulus`` to blocks of input of known shape and length."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spyke_numba.cli.arguments import INPUT_SUFFIXES, SAMPLE

if TYPE_CHECKING:
    from spyke_numba.cli.job import Job

IMAGE_STEPS = 100
STIMULUS_STEPS = 1000
LONGEST = 128
DOG = ((1.0, 2.0),)
#: (channels, samples a second) of the recordings among matplotlib's samples, whose files do not say it.
SAMPLE_LAYOUTS = {"eeg.dat": (4, 80.0), "membrane.dat": (1, None)}

Fill = Callable[[range, tuple[int, ...]], np.ndarray]


@dataclass(frozen=True)
class Source:
    """An input from a file: what it says of the layer, and `fill`, called for successive ranges of steps.

    ``fill(steps, (B, *shape))`` returns an array that broadcasts to (len(steps), B, *shape).
    """

    shape: tuple[int, ...]
    batch: int | None
    steps: int | None
    fill: Fill
    what: str
    features: tuple[str, ...] | None = None


def resolve_input(text: str) -> Path:
    """Return the path of an input: a file, or ``sample:NAME``.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file or sample, or its ending is not one that can be read.
    """
    if text.startswith(SAMPLE):
        from spyke_numba.inputs.files import sample

        path = sample(text[len(SAMPLE) :])
    else:
        path = Path(text)
        if not path.is_file():
            raise FileNotFoundError(f"there is no input file {text}; give an existing one, or {SAMPLE}NAME")
    if path.suffix.lower() not in INPUT_SUFFIXES:
        raise ValueError(f"the input {text} ends in {path.suffix!r}; allowed are {', '.join(INPUT_SUFFIXES)}")
    return path


def open_input(job: Job, ts: float, steps: int | None) -> Source:
    """Return the source that ``job.input`` names.

    Parameters
    ----------
    job : Job
        Its options of encoding and layout are obeyed.
    ts : float
        Time step (s).
    steps : int, optional
        Length of the run, where it was given.
    """
    from spyke_numba.inputs.files import IMAGE_SUFFIXES

    assert job.input is not None
    path = resolve_input(job.input)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _image(job, path, ts, IMAGE_STEPS if steps is None else steps)
    return _recording(job, path, ts)


def _image(job: Job, path: Path, ts: float, steps: int) -> Source:
    from spyke_numba.inputs.encoding import difference_of_gaussians, latencies, rate_code, spike_wave
    from spyke_numba.inputs.files import load_image

    if job.shape is not None and len(job.shape) != 3:
        raise ValueError(
            f"--shape {job.shape[0]} is a population, a picture drives feature maps; give F,H,W or no --shape"
        )
    size = None if job.shape is None else (job.shape[1], job.shape[2])
    image = load_image(path, size=size, longest=job.longest or LONGEST, ground=job.ground)
    sigmas = job.dog or DOG
    values = difference_of_gaussians(image, sigmas=sigmas, threshold=job.contrast)
    features = tuple(
        f"{kind} {centre:g}:{surround:g}" for centre, surround in sigmas for kind in ("on", "off")
    )
    if job.encode == "latency":
        first = latencies(values, steps, order=job.order)

        def fill(wanted: range, full: tuple[int, ...]) -> np.ndarray:
            return spike_wave(first, wanted, wave=job.wave, dtype=job.dtype)[:, None]
    else:
        generator = np.random.default_rng([job.seed, 1])

        def fill(wanted: range, full: tuple[int, ...]) -> np.ndarray:
            intensities = np.broadcast_to(values, full)
            return rate_code(intensities, len(wanted), rate=job.rate, ts=ts, seed=generator, dtype=job.dtype)

    what = f"picture of {image.shape[0]} x {image.shape[1]} pixels in {len(sigmas)} scale(s)"
    return Source(values.shape, None, None, fill, what, features)


def _recording(job: Job, path: Path, ts: float) -> Source:
    from spyke_numba.inputs.files import load_recording

    channels, sample_rate = job.channels, job.sample_rate
    if job.input is not None and job.input.startswith(SAMPLE):
        known = SAMPLE_LAYOUTS.get(path.name, (1, None))
        channels = channels or known[0]
        sample_rate = known[1] if sample_rate is None else sample_rate
    array = load_recording(path, channels=channels or 1, header=job.header)
    if array.ndim == 0 or array.ndim > 5:
        raise ValueError(
            f"{path} has the shape {array.shape}; "
            "give (T,), (T, C), (T, B, N), (T, F, H, W) or (T, B, F, H, W)"
        )
    if array.ndim > 2:
        if sample_rate is not None:
            raise ValueError(
                "--sample-rate is for recordings of shape (samples, channels); leave it out here"
            )
        batched = array.ndim in (3, 5)
        shape = array.shape[2:] if batched else array.shape[1:]

        def fill(wanted: range, full: tuple[int, ...]) -> np.ndarray:
            block = array[wanted.start : wanted.stop]
            return block if batched else block[:, None]

        return Source(shape, array.shape[1] if batched else None, len(array), fill, f"array {array.shape}")
    return _table(array[:, None] if array.ndim == 1 else array, sample_rate, ts)


def _table(table: np.ndarray, sample_rate: float | None, ts: float) -> Source:
    from spyke_numba.inputs.encoding import resample, spread

    length = len(table)
    if sample_rate is not None:
        # the ratio of a tiny rate is no number of steps
        if not (sample_rate > 0 and sample_rate * ts * sys.maxsize > length):
            raise ValueError(f"--sample-rate is {sample_rate}; give the samples a second, above 0")
        length = max(1, round(length / (sample_rate * ts)))

    def fill(wanted: range, full: tuple[int, ...]) -> np.ndarray:
        if sample_rate is None:
            rows = np.asarray(table[wanted.start : wanted.stop])
        else:
            rows = resample(table, sample_rate=sample_rate, ts=ts, steps=len(wanted), first=wanted.start)
        return spread(rows, full[1:])[:, None]

    return Source((table.shape[1],), None, length, fill, f"recording of {table.shape[1]} channel(s)")


def input_blocks(
    job: Job, source: Source | None, full: tuple[int, ...], steps: int, ts: float
) -> Iterator[np.ndarray]:
    """Return blocks (t, B, *shape) of a run's input: weight * file + the sum of the stimuli.

    Raises
    ------
    ValueError
        When a block holds NaN or an infinite number, while iterating.
    """
    from spyke_numba.inputs.stimuli import Sum, block_length, parse

    size = block_length(full, job.dtype)
    stimulus = None
    if job.stimulus:
        parts = Sum(tuple(parse(text) for text in job.stimulus))
        stimulus = parts.blocks(full, steps=steps, ts=ts, dtype=job.dtype, seed=job.seed, block_steps=size)

    def blocks() -> Iterator[np.ndarray]:
        for first in range(0, steps, size):
            wanted = range(first, min(first + size, steps))
            block = next(stimulus) if stimulus is not None else np.zeros((len(wanted), *full), job.dtype)
            if source is not None:
                part = np.asarray(source.fill(wanted, full))
                if part.dtype.kind == "f" and not np.isfinite(part).all():
                    raise ValueError(
                        f"the input {job.input} holds NaN or infinite numbers; mend or remove them"
                    )
                with np.errstate(over="ignore"):
                    block += part.astype(job.dtype, copy=False) * np.dtype(job.dtype).type(job.weight)
                if not np.isfinite(block).all():
                    raise ValueError(
                        f"--weight {job.weight:g} times the input {job.input} is beyond {job.dtype}; "
                        "give smaller numbers, or --dtype float64"
                    )
            yield block

    return blocks()
