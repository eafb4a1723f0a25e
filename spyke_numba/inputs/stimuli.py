"""Input currents, described in one line and made block by block: ``parse("poisson:rate=50,weight=2")``."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field
from typing import Any, ClassVar

import numpy as np

__all__ = ["Constant", "Noise", "Poisson", "Ramp", "Step", "Stimulus", "Sum", "block_length", "parse"]

# What one pass over a stimulus is: called for successive ranges (first step, past the last step, dtype).
Take = Callable[[int, int, np.dtype], np.ndarray]

BLOCK_BYTES = 8 << 20  # long enough to hide the cost of a call, short enough for the cache


def block_length(shape: Sequence[int], dtype: str | np.dtype) -> int:
    """Number of steps of input of one step's `shape` that fill a block of about 8 MiB (at least one step)."""
    return max(1, BLOCK_BYTES // (math.prod(shape) * np.dtype(dtype).itemsize))


@dataclass(frozen=True)
class Stimulus(ABC):
    """An input current for every neuron and step.

    A stimulus is a description; `blocks` makes the numbers. They depend on the seed, the shape and ``ts``
    alone, never on the length of the blocks, so a run in blocks equals a run in one piece.
    """

    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            object.__setattr__(self, item.name, self._checked(item, getattr(self, item.name)))
        start, stop = getattr(self, "start", 0.0), getattr(self, "stop", None)
        if stop is not None and stop <= start:
            raise ValueError(
                f"{self.kind}: stop ({stop:g} s) is not after start ({start:g} s); give a later stop or none"
            )

    def _checked(self, item: dataclasses.Field, value: Any) -> float | None:
        if value is None and item.default is None:
            return None
        try:
            value = float(value)
        except (TypeError, ValueError):
            raise TypeError(
                f"{self.kind}: {item.name} is {value!r}, which is not a number; give a finite number"
            ) from None
        if not math.isfinite(value):
            raise ValueError(f"{self.kind}: {item.name} is {value}; give a finite number")
        if item.metadata["positive"] and value < 0:
            raise ValueError(f"{self.kind}: {item.name} is {value:g}, which is negative; give 0 or more")
        return value

    @abstractmethod
    def start_pass(self, shape: tuple[int, ...], steps: int, ts: float, rng: np.random.Generator) -> Take:
        """Return the function that `blocks` calls for successive ranges of steps."""

    def blocks(
        self,
        shape: Sequence[int],
        *,
        steps: int,
        ts: float = 0.001,
        dtype: str | np.dtype = "float32",
        seed: int = 0,
        block_steps: int | None = None,
    ) -> Iterator[np.ndarray]:
        """Yield the input as arrays of shape (block, \\*shape), in memory that does not grow with `steps`.

        Parameters
        ----------
        shape : sequence of int
            Shape of one step: (B, N) or (B, F, H, W).
        steps : int
            Number of steps in all; the last block may be shorter than the others.
        ts : float
            Time step (s).
        dtype : str or dtype
            float32 or float64. Random numbers are drawn the same way for both.
        seed : int
            Seed of everything random.
        block_steps : int, optional
            Steps in a block; by default what fills about 8 MiB.

        Raises
        ------
        ValueError
            If `steps` or `block_steps` is below 1 or `ts` is not above 0.
        """
        if steps < 1:
            raise ValueError(f"steps is {steps}: a stimulus lasts at least 1 step; give 1 or more")
        if not ts > 0:
            raise ValueError(f"ts is {ts}: the time step must be above 0 s; give a positive time in seconds")
        if block_steps is None:
            block_steps = block_length(shape, dtype)
        if block_steps < 1:
            raise ValueError(f"block_steps is {block_steps}: a block holds at least 1 step; give 1 or more")
        take = self.start_pass(tuple(shape), steps, ts, np.random.default_rng(seed))
        ranges = range(0, steps, block_steps)
        return (take(first, min(first + block_steps, steps), np.dtype(dtype)) for first in ranges)

    def array(self, shape: Sequence[int], **options: Any) -> np.ndarray:
        """Return the whole input in one array of shape (steps, \\*shape); takes the options of `blocks`."""
        return np.concatenate(list(self.blocks(shape, **options)))


def _same_for_all(shape: tuple[int, ...], values: Callable[[np.ndarray], np.ndarray]) -> Take:
    """Return a pass in which every neuron gets ``values(steps)``."""

    def take(first, last, dtype):
        block = np.empty((last - first, *shape), dtype)
        # what is beyond the dtype becomes infinite, which layers refuse
        with np.errstate(over="ignore"):
            block[...] = values(np.arange(first, last)).reshape((-1,) + (1,) * len(shape))
        return block

    return take


def _number(default: Any = MISSING, *, time: bool = False, positive: bool = False) -> Any:
    """Declare a number of a stimulus; a time takes the suffixes s and ms in the text form."""
    return field(default=default, metadata={"time": time, "positive": positive})


@dataclass(frozen=True)
class Constant(Stimulus):
    """The same current at every step: ``constant:5``."""

    kind: ClassVar[str] = "constant"
    value: float = _number()

    def start_pass(self, shape, steps, ts, rng):
        return _same_for_all(shape, lambda t: np.full(t.shape, self.value))


@dataclass(frozen=True)
class Step(Stimulus):
    """A current that is switched on at `start` and off at `stop` (s): ``step:5,start=100ms,stop=0.4``."""

    kind: ClassVar[str] = "step"
    value: float = _number()
    start: float = _number(0.0, time=True, positive=True)
    stop: float | None = _number(None, time=True, positive=True)
    base: float = _number(0.0)

    def start_pass(self, shape, steps, ts, rng):
        on = round(self.start / ts)
        off = steps if self.stop is None else round(self.stop / ts)
        return _same_for_all(shape, lambda t: np.where((t >= on) & (t < off), self.value, self.base))


@dataclass(frozen=True)
class Ramp(Stimulus):
    """A current that goes in a straight line from `first` to `last` between `start` and `stop` (s).

    It is `first` before the ramp and `last` after it; without `stop` the ramp ends with the run:
    ``ramp:first=0,last=10,start=0.1``.
    """

    kind: ClassVar[str] = "ramp"
    last: float = _number()
    first: float = _number(0.0)
    start: float = _number(0.0, time=True, positive=True)
    stop: float | None = _number(None, time=True, positive=True)

    def start_pass(self, shape, steps, ts, rng):
        stop = steps * ts if self.stop is None else self.stop
        if stop <= self.start:
            raise ValueError(
                f"ramp: start ({self.start:g} s) lies at or after the end of the run ({stop:g} s); "
                "give an earlier start or a longer run"
            )
        return _same_for_all(shape, lambda t: np.interp(t * ts, (self.start, stop), (self.first, self.last)))


@dataclass(frozen=True)
class Poisson(Stimulus):
    """Independent Poisson spike trains, one for every neuron: ``poisson:rate=50,weight=2``.

    In a step of length ts the current is `weight` times a Poisson number of mean ``rate * ts``;
    `rate` is in Hz (the sum over all synapses of a neuron).
    """

    kind: ClassVar[str] = "poisson"
    rate: float = _number(positive=True)
    weight: float = _number(1.0)

    def start_pass(self, shape, steps, ts, rng):
        mean = self.rate * ts
        if mean > 10.0:
            return lambda first, last, dtype: (
                self.weight * rng.poisson(mean, (last - first, *shape))
            ).astype(dtype)
        # Inverting the distribution function costs one uniform number and a few comparisons per neuron and
        # step, a third of what Generator.poisson takes.
        terms = np.cumsum([math.exp(-mean) * mean**n / math.factorial(n) for n in range(60)])
        table = terms[terms < 1.0 - 2.0**-25].astype(np.float32)

        def take(first, last, dtype):
            uniform = rng.random((last - first, *shape), dtype=np.float32)
            counts = np.zeros(uniform.shape, np.uint8)
            reached = np.empty(uniform.shape, bool)
            for level in table:
                counts += np.greater_equal(uniform, level, out=reached)
            return np.multiply(counts, self.weight, dtype=dtype)

        return take


@dataclass(frozen=True)
class Noise(Stimulus):
    """Gaussian noise, independent between neurons: ``noise:mean=2,sd=0.5`` or ``noise:sd=1,tau=5ms``.

    Without `tau` the steps are independent (`sd` is that of one step, whatever ts is). With `tau` (s) it is
    an Ornstein-Uhlenbeck process of standard deviation `sd` and correlation time `tau`, started in its
    stationary state and discretised exactly.
    """

    kind: ClassVar[str] = "noise"
    mean: float = _number(0.0)
    sd: float = _number(1.0, positive=True)
    tau: float = _number(0.0, time=True, positive=True)

    def start_pass(self, shape, steps, ts, rng):
        keep = math.exp(-ts / self.tau) if self.tau > 0 else 0.0
        fresh = math.sqrt(1.0 - keep * keep)
        level = None

        def take(first, last, dtype):
            nonlocal level
            block = rng.standard_normal((last - first, *shape), dtype=np.float32)
            if keep:
                for row in block:
                    if level is not None:
                        row *= np.float32(fresh)
                        row += np.float32(keep) * level
                    level = row
                level = block[-1].copy()
            block *= np.float32(self.sd)
            block += np.float32(self.mean)
            return block.astype(dtype, copy=False)

        return take


@dataclass(frozen=True)
class Sum(Stimulus):
    """The sum of several stimuli, each with its own random numbers."""

    kind: ClassVar[str] = "sum"
    parts: tuple[Stimulus, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("a sum of no stimuli was given; give at least one stimulus")

    def start_pass(self, shape, steps, ts, rng):
        generators = rng.spawn(len(self.parts))
        sources = [
            part.start_pass(shape, steps, ts, own) for part, own in zip(self.parts, generators, strict=True)
        ]

        def take(first, last, dtype):
            block = sources[0](first, last, dtype)
            for source in sources[1:]:
                block += source(first, last, dtype)
            return block

        return take


KINDS: dict[str, type[Stimulus]] = {kind.kind: kind for kind in (Constant, Step, Ramp, Poisson, Noise)}


def usage(kind: type[Stimulus]) -> str:
    """Return how a kind is written, such as ``poisson:rate=…,weight=1``."""
    parts = []
    for item in dataclasses.fields(kind):
        default = "…" if item.default is MISSING else "end" if item.default is None else f"{item.default:g}"
        parts.append(f"{item.name}={default}")
    return f"{kind.kind}:" + ",".join(parts)


def parse(text: str) -> Stimulus:
    """Make a stimulus from its text form ``kind:value,name=value,…``.

    Values without a name are taken in the order of the fields; times are in seconds, or in milliseconds
    with the suffix ``ms``.

    Raises
    ------
    ValueError
        If the kind or a name is unknown, a value is no number, or a required one is missing.

    Examples
    --------
    >>> parse("poisson:rate=50,weight=2")
    Poisson(rate=50.0, weight=2.0)
    >>> parse("step:5,start=100ms")
    Step(value=5.0, start=0.1, stop=None, base=0.0)
    """
    name, _, rest = text.strip().partition(":")
    kind = KINDS.get(name.strip().lower())
    if kind is None:
        raise ValueError(
            f"the stimulus {text!r} is unknown; allowed are {' | '.join(map(usage, KINDS.values()))}"
        )
    known = {item.name: item for item in dataclasses.fields(kind)}
    given: dict[str, float] = {}
    for position, part in enumerate(part.strip() for part in rest.split(",") if part.strip()):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            if position >= len(known):
                raise ValueError(f"the stimulus {text!r} has too many values; write {usage(kind)}")
            key, value = list(known)[position], key
        if key not in known:
            raise ValueError(f"the stimulus {text!r} has no {key!r}; write {usage(kind)}")
        if key in given:
            raise ValueError(f"the stimulus {text!r} gives {key} twice; write {usage(kind)}")
        given[key] = _value(text, kind, known[key], value)
    missing = [key for key, item in known.items() if item.default is MISSING and key not in given]
    if missing:
        raise ValueError(f"the stimulus {text!r} lacks {' and '.join(missing)}; write {usage(kind)}")
    return kind(**given)


def _value(text: str, kind: type[Stimulus], item: dataclasses.Field, value: str) -> float:
    scale = 1.0
    if item.metadata["time"]:
        for suffix, factor in (("ms", 1e-3), ("s", 1.0)):
            if value.endswith(suffix):
                value, scale = value[: -len(suffix)].strip(), factor
                break
    try:
        number = float(value)
    except ValueError:
        raise ValueError(
            f"the stimulus {text!r} has {item.name}={value!r}, which is not a number; write {usage(kind)}"
        ) from None
    return number if scale == 1.0 else number * scale
