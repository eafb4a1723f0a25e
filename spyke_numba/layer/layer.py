"""The layer: a neuron, its state, its inhibition, and one call to advance it on any backend."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import os
import threading
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spyke_numba import backends
from spyke_numba.compile.program import RECORDS, REFRACTORY, Program, check_constants
from spyke_numba.layer.call import (
    Call,
    as_array,
    as_input,
    check_amplitude,
    check_apart,
    check_finite,
    check_numbers,
    checked_call,
    checked_dtype,
    checked_inhibition,
    checked_shape,
    given_outputs,
    is_array,
    no_memory,
    record_names,
)
from spyke_numba.layer.counters import gathered, spread
from spyke_numba.layer.recording import Recording
from spyke_numba.layer.spike_forms import FORMS, packed
from spyke_numba.model.checks import check_no_gradient, is_tensor, whole_number
from spyke_numba.model.expressions import listing, suggest
from spyke_numba.model.kwta import KWTA, Scope
from spyke_numba.model.resolve import call_by_name, resolve
from spyke_numba.model.spec import Neuron, NeuronSpec

_UNSET: Any = object()
#: Most bytes of input that `Layer.stream` hands to a kernel at once when it chooses the blocks.
_BLOCK_BYTES = 32 * 2**20
#: Most bytes of spikes that wait for their other form.
_SPIKE_BYTES = 8 * 2**20
#: Kinds of calls whose checks are remembered; a call that differs in its number of steps is another kind.
_MOST_PLANS = 256
#: The same where a layer has many neurons, since each kind may hold memory of a few steps.
_MOST_LARGE_PLANS, _LARGE = 32, 2**17
_BROKEN_OFF = "the last call broke off, perhaps within a step: call reset(), or set a state that you kept"
_ELSEWHERE = "the layer is running in another thread: give each thread a layer of its own"


@dataclass
class _Plan:
    """A checked call, and the kernel with what it ran on last; None once state or constants have moved."""

    call: Call
    bound: tuple[backends.Kernel, backends.Launch] | None = None


class Layer:
    """A layer of spiking neurons with its state, advanced step by step or for a whole sequence in one compiled call.

    Parameters
    ----------
    neuron : Neuron
        Such as ``models.AdEx(threshold=10.0)``.
    shape : tuple of int, optional
        ``(F, H, W)``, or ``(N,)`` for a population (N maps of one neuron); taken from the first input if left out.
    batch : int, optional
        Samples B, each with its own state; taken from the first input if left out.
    inhibition : KWTA, optional
        Winners-take-all inhibition, one competition per sample; None: each neuron has its own refractory period.
    backend : {"auto", "cpu", "cuda", "torch", "torch_compiled"} or Backend
        ``"auto"`` is cuda where a GPU is usable, else cpu.  A backend asked for by name is that or an error.
    dtype : {"float32", "float64"}
    seed : int
        Seed of parameters given as distributions.
    initial : mapping of str to number or array, optional
        Initial values of states that differ from the model's.
    threads : int, optional
        The most threads for the cpu backend; all of this process's processors unless given.
    nan : {"raise", "ignore"}
        What to do about input that is infinite or NaN in the layer's dtype, as far as kernels read it (what is held
        may not be read): refuse it, or compute with it as IEEE 754 says.

    Raises
    ------
    TypeError, ValueError, KeyError
        One sentence, for a value that is not allowed.
    RuntimeError
        When the backend asked for cannot run here.

    Notes
    -----
    What requires a gradient is refused while gradients are enabled, since none passes through a compiled layer.

    Input that is not finite is refused by `run` before anything has changed; `step`, and any call on a GPU, may have
    gone on when it is noticed, at the latest when the state is read: the layer then asks for `reset` or a state that
    you kept.

    Threads take turns: a layer that runs in one is refused to the others with a RuntimeError.

    Examples
    --------
    >>> import numpy as np
    >>> from spyke_numba import Layer, models
    >>> layer = Layer(models.LIF_Simple(threshold=1.0), shape=(3,), backend="cpu")
    >>> layer.run(np.full((4, 1, 3), 0.4), record=("spikes",)).spikes.any(axis=(1, 2)).tolist()
    [False, False, True, False]
    """

    def __init__(
        self,
        neuron: Neuron,
        shape: Sequence[int] | None = None,
        batch: int | None = None,
        inhibition: KWTA | None = None,
        backend: str | backends.Backend = "auto",
        dtype: str = "float32",
        seed: int = 0,
        initial: Mapping[str, Any] | None = None,
        threads: int | None = None,
        nan: str = "raise",
    ):
        if isinstance(neuron, NeuronSpec):
            raise TypeError(
                f"{neuron.name} has no parameter values yet: call it, as in {neuron.name}(threshold=1.0)"
            )
        if not isinstance(neuron, Neuron):
            raise TypeError(
                f"neuron is {neuron!r}: give a model with its parameters, such as models.LIF(threshold=1.0)"
            )
        self._neuron = neuron
        self._inhibition = checked_inhibition(inhibition)
        self._dtype = checked_dtype(dtype)
        check_constants(neuron.spec, self._dtype)
        if nan not in ("raise", "ignore"):
            raise ValueError(f"nan is {nan!r}: allowed are 'raise' and 'ignore'")
        self._refuses_nan = nan == "raise"
        self._seed = whole_number("seed", seed, 0)
        self._threads = (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )
        if threads is not None:
            self._threads = whole_number("threads", threads, 1)
        try:
            self._initial = dict({} if initial is None else initial)
        except (TypeError, ValueError):
            raise TypeError(f"initial is {initial!r}: give states by name, such as {{'u': 0.5}}") from None
        for name in self._initial:
            allowed = ("u", *neuron.spec.states)
            if name not in allowed:
                raise ValueError(
                    f"initial names {name!r}{suggest(name, allowed)}: the states are {listing(allowed)}"
                )
        self._backend = backends.choose(backend)
        self._check_order(self._inhibition)
        self._shape: tuple[int, ...] | None = None
        self._batch = None if batch is None else whole_number("batch", batch, 1)
        self._values: dict[str, Any] = {}
        self._states: list[Any] | None = None
        self._refractory: Any = None
        #: Tells whether an input was not finite, where to ask would have meant to wait for the device.
        self._ask: Any = None
        #: What the last step left for the next one to reset.
        self._unsettled: tuple[backends.LazyKernel, backends.Launch] | None = None
        self._counted_by: Scope | None = None
        self._like: Any = None
        self._place: Any = None
        self._give: Any = None
        self._starts: list[np.ndarray] = []
        self._constants: Any = None
        self._plans: dict[Any, _Plan] = {}
        self._scratch: dict[Any, Any] = {}
        #: Whether a call broke off between two steps, or within one; and how often a kernel has run.
        self._broken_off = False
        self._launches = 0
        # reentrant: a call that takes the layer again, as blocks do that come from a generator, is no other thread
        self._lock = threading.RLock()
        if shape is not None:
            self._build(checked_shape(shape))

    # -- what it is

    @property
    def neuron(self) -> Neuron:
        """The model and the parameters given."""
        return self._neuron

    @property
    def backend(self) -> str:
        """Name of the backend in use."""
        return self._backend.name

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of one sample, ``(F, H, W)`` or ``(N,)``; None before the first input."""
        return self._shape

    @property
    def batch(self) -> int | None:
        """Samples; None before the first input if not given."""
        return self._batch

    @property
    def dtype(self) -> str:
        """Floating-point type of potentials, ``"float32"`` or ``"float64"``."""
        return self._dtype

    @property
    def seed(self) -> int:
        """Seed of parameters given as distributions."""
        return self._seed

    @property
    def inhibition(self) -> KWTA | None:
        """The inhibition of `step`, and of `run` unless told otherwise; may be set between calls."""
        return self._inhibition

    @inhibition.setter
    def inhibition(self, inhibition: KWTA | None) -> None:
        inhibition = checked_inhibition(inhibition)
        self._check_order(inhibition)
        self._inhibition = inhibition

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Every parameter's and derived constant's value, a float or an array of the layer's shape."""
        self._need_shape("its parameters")
        return types.MappingProxyType(self._values)

    @property
    def recordable(self) -> tuple[str, ...]:
        """Names that `run` can record."""
        return ("u", *self._neuron.spec.states, *RECORDS, *FORMS, "refractory", "winners")

    def __repr__(self) -> str:
        return (
            f"Layer({self._neuron!r}, shape={self._shape}, batch={self._batch}, inhibition={self._inhibition}, "
            f"backend={self.backend!r}, dtype={self._dtype!r}, seed={self._seed})"
        )

    def set(self, /, **parameters: Any) -> None:
        """Change parameters from the next step on; the state stays.

        Raises
        ------
        TypeError, ValueError
            One sentence; the layer then stays as it was.
        """
        with self._alone():
            neuron = Neuron(self._neuron.spec, {**self._neuron.given, **parameters})
            if self._shape is not None:
                values = resolve(neuron, self._shape, self._seed, self._dtype)
                self._starts = self._initial_states(values, self._shape)
                self._values = values
            self._neuron = neuron
            self._constants = None

    def __getstate__(self) -> dict[str, Any]:
        """Return everything but what belongs to a process: memory of a device, compiled code."""
        with self._alone():
            self._raise_if_tainted()
            kept = {
                name: value
                for name, value in vars(self).items()
                if name not in ("_ask", "_constants", "_give", "_lock", "_plans", "_scratch", "_unsettled")
            }
            kept["_like"] = kept["_place"] = None
            if self._backend.name in backends.names() and backends.get(self._backend.name) is self._backend:
                kept["_backend"] = self._backend.name
            if self._states is not None:
                kept["_states"] = [np.array(host) for host in self._hosts()]
                kept["_refractory"] = np.array(self._backend.download(self._refractory))
        return kept

    def __deepcopy__(self, memo: dict[int, Any]) -> Layer:
        memo[id(self._backend)] = self._backend
        twin = object.__new__(type(self))
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self._refuses_nan = True  # of layers that were pickled before it could be chosen
        vars(self).update(
            kept, _ask=None, _constants=None, _give=None, _plans={}, _scratch={}, _unsettled=None
        )
        self._lock = threading.RLock()
        if isinstance(self._backend, str):
            self._backend = backends.choose(self._backend)
        if self._states is not None:
            self._states = [self._backend.upload(host, None) for host in self._states]
            self._refractory = self._backend.upload(self._refractory, None)
            self._place = self._backend.place(None)

    # -- state

    @property
    def state(self) -> Mapping[str, Any]:
        """Copies of ``u``, the model's other states and the ``refractory`` counters, each ``(B, *shape)``.

        In the kind of the last input (numpy before any); setting it replaces the state.
        """
        self._need_shape("a state")
        with self._alone():
            self._need_whole_steps()
            if self._states is None:
                self._start(self._like)
            names = ("u", *self._neuron.spec.states, "refractory")
            full = (self._batch, *self._shape)  # type: ignore[misc]
            copies, give = {}, self._backend.giver(self._like)
            hosts = [*self._hosts(), self._counters()]
            for name, host in zip(names, hosts, strict=True):
                copies[name] = give(self._backend.upload(host.reshape(full), self._like))
        return types.MappingProxyType(copies)

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self._need_shape("a state")
        names = ("u", *self._neuron.spec.states, "refractory")
        if not isinstance(state, Mapping):
            raise TypeError(
                f"the state is a {type(state).__name__}: give a mapping that names {listing(names)}"
            )
        if set(state) != set(names):
            raise ValueError(f"the state names {listing(map(str, state))}: it must name {listing(names)}")
        hosts = []
        batch = None
        for name in names:
            value = state[name]
            check_no_gradient(f"{name} of the state", value)
            try:
                host = np.asarray(value.detach().cpu().numpy() if is_tensor(value) else value)
            except (TypeError, ValueError, RuntimeError):
                raise TypeError(
                    f"{name} of the state is {type(value).__name__}: give an array or a tensor of numbers"
                ) from None
            check_numbers(f"{name} of the state", host)
            if host.ndim != len(self._shape) + 1 or host.shape[1:] != self._shape or not len(host):  # type: ignore[arg-type]
                raise ValueError(
                    f"{name} of the state has the shape {host.shape}: it must be (B, *{self._shape}), B at least 1"
                )
            if batch not in (None, host.shape[0]):
                raise ValueError(
                    f"{name} of the state has {host.shape[0]} samples and another has {batch}: give as many"
                )
            batch = host.shape[0]
            if name == "refractory":
                with np.errstate(invalid="ignore"):
                    counters = np.clip(host, 0, 2**31 - 1).astype(np.int32)
                if not np.array_equal(host, counters):
                    raise ValueError("refractory of the state must hold whole numbers of steps from 0")
                hosts.append(counters.reshape(batch, -1))
            else:
                with np.errstate(over="ignore"):
                    cast = host.reshape(batch, -1).astype(self._dtype)
                if self._refuses_nan:
                    check_finite(f"{name} of the state", host.reshape(batch, -1), cast)
                hosts.append(cast)
        with self._alone():
            self._replace(hosts)

    def _replace(self, hosts: list[np.ndarray]) -> None:
        """Replace states and counters, (B, N) each on the host."""
        self._batch = len(hosts[0])
        self._ask = self._unsettled = None
        self._plans.clear()
        self._scratch.clear()
        *states, self._refractory = (self._backend.upload(host, self._like) for host in hosts)
        self._states, self._counted_by = states, None
        self._broken_off = False

    @property
    def keeps_thresholded(self) -> bool:
        """Whether `last_thresholded` can be asked for after a step, since it costs nothing here."""
        return self._backend.lazy and self._inhibition is not None

    @property
    def last_thresholded(self) -> Any:
        """The potentials that reached the threshold in the last step, 0 elsewhere, ``(B, *shape)``.

        None before the first step, and where they are not kept: see `keeps_thresholded`, or record ``"thresholded"``.
        """
        with self._alone():
            self._need_whole_steps()
            if self._unsettled is None:
                return None
            kernel, launch = self._unsettled
            host = kernel.thresholded(launch).reshape(self._batch, *self._shape)  # type: ignore[arg-type, misc]
            return self._give(self._backend.upload(host, self._like))

    def reset(self, batch: int | None = None) -> None:
        """Return every neuron to its initial state, for another number of samples if given."""
        with self._alone():
            other = batch is not None and whole_number("batch", batch, 1) != self._batch
            if other or self._broken_off:
                self._batch = int(batch) if batch is not None else self._batch
                self._broken_off = False
                self._ask = self._unsettled = None
                self._plans.clear()
                self._scratch.clear()
                self._states = None
            elif self._states is not None:
                # in place: what kernels know of the state stays true
                if self._ask is not None:
                    self._ask = None
                    self._unbind()
                self._unsettled = None
                for array, value in zip(self._states, self._starts, strict=True):
                    self._backend.fill(array, value)
                self._backend.fill(self._refractory, np.zeros((), np.int32))

    # -- running

    def step(self, potentials: Any, record: Sequence[str] | None = None) -> Recording:
        """Advance the layer by one step.

        Parameters
        ----------
        potentials : array or tensor, (B, F, H, W) or (B, N)
            Input of the step (post-synaptic potentials); without the batch axis where B is 1.
        record : sequence of str, optional
            What to return, of `recordable`; spikes, ``u``, the model's states and winners (if any) unless given.

        Returns
        -------
        Recording
            ``.spikes`` (B, *shape) bool, ``.u`` after the reset, states by name, ``.winners`` (B, k, 3) int32.
        """
        if record is None:
            record = ("spikes", "u", *self._neuron.spec.states) + (("winners",) if self._inhibition else ())
        elif type(record) is not tuple:
            record = record_names(record)
        return self._advance(potentials, None, record, self._inhibition, single=True)

    def run(
        self,
        potentials: Any,
        record: Sequence[str] = ("spikes",),
        *,
        steps: int | None = None,
        every: int = 1,
        inhibition: KWTA | None = _UNSET,
        out: Mapping[str, Any] | None = None,
    ) -> Recording:
        """Advance the layer by T steps in one compiled call; equal to T calls of `step`.

        Parameters
        ----------
        potentials : array, tensor or iterable of blocks
            (T, B, F, H, W) or (T, B, N), a memory map too; with `steps` one step's input, held constant.  An
            iterable yields such blocks one after the other.
        record : sequence of str
            Of `recordable`: ``"spikes"``, ``"u"`` (after the reset), ``"u_pre"`` (before it), a state of the model,
            ``"pulses"`` (``spike_amplitude`` where a neuron spikes, else 0), ``"thresholded"`` (``u_pre`` where it
            spikes, else 0), ``"refractory"`` (counters after the step) and ``"winners"`` (feature, row, column; -1
            where there is none); ``"packed_spikes"`` (T, B, ceil(N / 8)) uint8 as of `numpy.packbits`, and ``"events"``
            (n, 3) int64, a row (step, sample, neuron) for each spike, take the place of large ``"spikes"``.
        steps : int, optional
            T for a constant input.
        every : int
            Record ``u``, the model's states and ``refractory`` after every such number of steps, (T // every, B,
            *shape); everything else is recorded at each step.
        inhibition : KWTA or None, optional
            Instead of the layer's own for this call; None: each neuron has its own refractory period.
        out : mapping of str to array or tensor, optional
            Memory for what is recorded, by name: C-contiguous, of the shape and dtype of the result, where the backend
            works (the host for cpu and torch on numpy input), apart from the input and from each other.  An earlier
            recording will do, whose contents are then lost; new memory for large results takes the system as long to
            provide as a fifth of the run.

        Returns
        -------
        Recording

        Raises
        ------
        TypeError, ValueError, MemoryError
            One sentence for what cannot be run; the state stays, unless it was a later block of an iterable.
        RuntimeError
            After a call that broke off (by an interrupt, for want of memory, at a later block): the state is then that
            of some step, and `reset` or a state that you kept comes first.
        """
        chosen = self._inhibition if inhibition is _UNSET else checked_inhibition(inhibition)
        if type(record) is not tuple:
            record = record_names(record)
        if out is not None:
            if not isinstance(out, Mapping):
                raise TypeError(
                    f"out is a {type(out).__name__}: give a mapping of what is recorded to its memory"
                )
            if not is_array(potentials) or every != 1 or not set(FORMS).isdisjoint(record):
                raise ValueError(
                    "out= was given: it goes with an input in one piece, every=1 and a record without "
                    f"{listing(FORMS)}"
                )
            steps = None if steps is None else whole_number("steps", steps, 1)
            return self._advance(potentials, steps, record, chosen, out=out)
        if steps is not None:
            steps = whole_number("steps", steps, 1)
        elif not is_array(potentials):
            with self._alone(), self._all_or_nothing():
                return Recording.joined(self.stream(potentials, record, every=every, inhibition=chosen))
        return self._record(potentials, steps, record, chosen, whole_number("every", every, 1), 0)

    def stream(
        self,
        potentials: Any,
        record: Sequence[str] = ("spikes",),
        *,
        block_steps: int | None = None,
        every: int = 1,
        inhibition: KWTA | None = _UNSET,
    ) -> Iterator[Recording]:
        """Advance the layer block by block and yield each block's recording, in memory that does not grow with T.

        Parameters
        ----------
        potentials : array, memory map, or iterable of blocks (t, B, *shape), such as a list of arrays
        record, every, inhibition
            As for `run`; the steps of ``"events"`` count from the first block.  Every block but the last has a
            multiple of `every` steps.
        block_steps : int, optional
            Steps per block of an array; as many as fill 32 MiB unless given.
        """
        every = whole_number("every", every, 1)
        chosen = self._inhibition if inhibition is _UNSET else checked_inhibition(inhibition)
        record = record_names(record)
        if isinstance(potentials, (list, tuple)):
            # of arrays: blocks; of numbers: an array
            listed = bool(potentials) and not any(hasattr(block, "shape") for block in potentials)
        else:
            listed = is_array(potentials) and not hasattr(potentials, "shape")
        if listed:
            potentials = as_array(potentials)
        blocks: Iterable[Any] = potentials
        if hasattr(potentials, "shape") and not potentials.shape:
            blocks = (potentials,)  # which is refused with the shape that it has to have
        elif not isinstance(potentials, (list, tuple)) and is_array(potentials):
            per_step = max(1, math.prod(potentials.shape[1:]) * np.dtype(self._dtype).itemsize)
            size = (
                max(1, _BLOCK_BYTES // per_step // every) * every
                if block_steps is None
                else whole_number("block_steps", block_steps, 1)
            )
            blocks = (potentials[t : t + size] for t in range(0, len(potentials), size))
        elif not isinstance(potentials, Iterable):
            raise TypeError(
                f"the input is {type(potentials).__name__}: give an array, a tensor or an iterable of blocks"
            )
        done = 0
        for block in blocks:
            if done % every:
                raise ValueError(
                    f"a block ended after step {done}, but every={every}: give blocks of a multiple of {every} steps"
                )
            yield self._record(block, None, record, chosen, every, done)
            done += len(block)

    # -- inside

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads from what follows: they are refused, for a wait would hide that steps get mixed."""
        if not self._lock.acquire(False):
            raise RuntimeError(_ELSEWHERE)
        try:
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Break the call off if what follows fails when the layer has advanced: its recording is lost."""
        launches = self._launches
        try:
            yield
        except BaseException:
            self._broken_off |= self._launches != launches
            raise

    def _forget(self, shape: tuple[int, ...] | None, batch: int | None) -> None:
        """Return to what was known before a first call that was refused."""
        if (shape, batch) == (self._shape, self._batch):
            return
        self._shape, self._batch = shape, batch
        if shape is None:
            self._values = {}
        self._broken_off = False
        self._states = self._refractory = self._unsettled = self._counted_by = None
        self._constants = self._give = self._like = self._place = None
        self._plans.clear()
        self._scratch.clear()

    def _check_order(self, inhibition: KWTA | None) -> None:
        if inhibition is not None and not (inhibition.exact_order or self._backend.any_order):
            raise ValueError(
                f"inhibition is {inhibition}, but kernels of the backend {self.backend!r} know the exact order of "
                "winners alone: give exact_order=True, or another backend"
            )

    def _need_shape(self, what: str) -> None:
        if self._shape is None:
            raise RuntimeError(f"the layer has no shape yet, hence not {what}: give shape=, or run it once")

    def _need_whole_steps(self) -> None:
        if self._broken_off:
            raise RuntimeError(_BROKEN_OFF)
        self._raise_if_tainted()

    def _raise_if_tainted(self) -> None:
        """Wait for the device where it has not been asked yet, and refuse to go on from input that was not finite."""
        if self._ask is not None:
            tainted, self._ask = self._ask(), None
            if tainted:
                self._broken_off = True
                raise ValueError(
                    f"an input since then was infinite or NaN in {self._dtype}: call reset(), or set a state that you "
                    "kept, and give finite numbers, or nan='ignore' to the layer"
                )

    def _build(self, shape: tuple[int, ...]) -> None:
        values = resolve(self._neuron, shape, self._seed, self._dtype)
        for name, value in self._initial.items():
            check_no_gradient(f"initial {name}", value)
            try:
                with np.errstate(over="ignore"):
                    start = np.asarray(value, dtype=np.float64).astype(self._dtype)
                finite = np.all(np.isfinite(np.broadcast_to(start, shape)))
            except (TypeError, ValueError, RuntimeError):
                raise ValueError(
                    f"initial {name} is {value!r}: give numbers that broadcast to {shape}"
                ) from None
            if not finite:
                raise ValueError(f"initial {name} is not finite in {self._dtype}: give finite numbers")
        self._starts = self._initial_states(values, shape)
        self._values, self._shape = values, shape

    def _initial_states(self, values: Mapping[str, Any], shape: tuple[int, ...]) -> list[np.ndarray]:
        """Return the initial value of each state, a number or one per neuron, in the layer's dtype."""
        spec, values = self._neuron.spec, dict(values)
        initial_u = spec.initial_u if spec.initial_u is not None else values["resting_potential"]
        starts = []
        defaults = {"u": initial_u, **{name: state.initial for name, state in spec.states.items()}}
        with np.errstate(all="ignore"):
            for name, default in defaults.items():
                value = self._initial.get(name, default)
                values[name] = np.asarray(
                    call_by_name(value, values) if callable(value) else value, dtype=np.float64
                )
                start = values[name].astype(self._dtype)
                if not np.all(np.isfinite(start)):
                    raise ValueError(
                        f"initial {name} of {spec.name} is not finite in {self._dtype}: give finite numbers, or float64"
                    )
                starts.append(np.broadcast_to(start, shape).reshape(-1) if start.ndim else start)
        return starts

    def _start(self, like: Any) -> None:
        """Make the initial state where results for the input `like` live."""
        assert self._shape is not None
        if self._batch is None:
            self._batch = 1
        full = (self._batch, math.prod(self._shape))
        self._states = [self._backend.upload(np.broadcast_to(start, full), like) for start in self._starts]
        self._refractory = self._backend.upload(np.zeros(full, np.int32), like)
        self._counted_by = None
        self._place = self._backend.place(like)
        self._unbind()

    def _maps(self) -> tuple[int, int]:
        """Return the number of feature maps, and of neurons in one."""
        assert self._shape is not None
        return self._shape[0], math.prod(self._shape[1:])

    def _counters(self) -> np.ndarray:
        """Return each neuron's refractory counter, (B, N), on the host."""
        return spread(self._backend.download(self._refractory), self._counted_by, *self._maps())

    def _count_by(self, scope: Scope | None, like: Any) -> None:
        """Keep one refractory counter per set of a scope, where backend and state allow it, else one per neuron."""
        wanted = scope if self._backend.compact else None
        if wanted == self._counted_by:
            return
        host = self._counters()
        sets = gathered(host, wanted, *self._maps()) if wanted is not None else host
        if sets is None:
            wanted, sets = None, host
        if wanted != self._counted_by:
            self._refractory = self._backend.upload(sets, like)
            self._counted_by = wanted
            self._unbind()

    def _program(
        self,
        inhibition: Scope | None = None,
        compact: bool = False,
        records: tuple[str, ...] = (),
        exact_order: bool = True,
    ) -> Program:
        varying = {name for name, value in self._values.items() if isinstance(value, np.ndarray)}
        program = Program(
            self._neuron.spec,
            self._dtype,
            inhibition,
            compact,
            self._neuron.has_floor,
            frozenset(),
            records,
            exact_order,
        )
        return replace(program, varying=frozenset(varying & {*program.constants, REFRACTORY}))

    def _settle(self) -> None:
        """Reset what the last step has left for the next one, which will not do it."""
        if self._unsettled is not None:
            kernel, launch = self._unsettled
            kernel.settle(launch)
            self._unsettled = None

    def _hosts(self) -> list[np.ndarray]:
        """Return the states after the last step, (B, N) each, on the host."""
        assert self._states is not None
        hosts = [self._backend.download(array) for array in self._states]
        if self._unsettled is not None:
            kernel, launch = self._unsettled
            hosts[0] = kernel.settled(launch)
        return hosts

    def _unbind(self) -> None:
        """Let no kernel use state or constants that are about to be others."""
        self._raise_if_tainted()
        self._settle()
        for plan in self._plans.values():
            plan.bound = None
        self._scratch.clear()

    def _bind(self, like: Any) -> None:
        """Put constants and state where results for the input `like` live."""
        place = self._backend.place(like)
        moved = place != self._place
        if self._states is not None and moved:
            self._settle()
            *states, self._refractory = (
                self._backend.upload(self._backend.download(array), like)
                for array in (*self._states, self._refractory)
            )
            self._states = states
        if self._states is None:
            self._start(like)
        if self._constants is None or moved:
            program = self._program()
            size = math.prod(self._shape)  # type: ignore[arg-type]
            scalars = np.array([self._values[name] for name in program.scalars], dtype=self._dtype)
            arrays = np.empty((len(program.arrays), size), dtype=self._dtype)
            for row, name in zip(arrays, program.arrays, strict=True):
                row[:] = self._values[name].reshape(-1)
            periods = np.atleast_1d(np.asarray(self._values[REFRACTORY])).astype(np.int32).reshape(-1)
            self._constants = tuple(self._backend.upload(host, like) for host in (scalars, arrays, periods))
            self._unbind()
        if moved or self._give is None or hasattr(like, "detach") != hasattr(self._like, "detach"):
            # an empty one: the input itself may be large
            self._like = like.new_empty(0) if hasattr(like, "detach") else None
            self._give = self._backend.giver(self._like)
        self._place = place

    def _bound(self, plan: _Plan) -> tuple[backends.Kernel, backends.Launch]:
        """Return the plan's kernel, and what it runs on but input and outputs."""
        assert self._states is not None
        compact = self._counted_by is not None
        if plan.call.scope is None and self._backend.compact:
            compact = not np.any(self._values[REFRACTORY]) and not self._counters().any()
        if not plan.call.exact_order:
            check_amplitude(self._values["spike_amplitude"], self._dtype)
        kernel = self._backend.kernel(
            self._program(plan.call.scope, compact, plan.call.records, plan.call.exact_order)
        )
        launch = backends.Launch(
            x=None,
            states=self._states,
            refractory=self._refractory,
            scalars=self._constants[0],
            arrays=self._constants[1],
            periods=self._constants[2],
            outputs={},
            constant_input=plan.call.constant_input,
            steps=plan.call.steps,
            winners=plan.call.winners,
            threads=self._threads,
            scratch=self._scratch,
        )
        return kernel, launch

    def _advance(
        self,
        x: Any,
        steps: int | None,
        record: tuple[str, ...],
        inhibition: KWTA | None,
        single: bool = False,
        out: Mapping[str, Any] | None = None,
        first_step: int = 0,
    ) -> Recording:
        if not self._lock.acquire(False):
            raise RuntimeError(_ELSEWHERE)
        before = None
        try:
            if self._broken_off:
                raise RuntimeError(_BROKEN_OFF)
            if type(x) is not np.ndarray:
                x = as_input(x)
            # a call like an earlier one needs no second check: this is what step by step use spends its time on
            key = (record, inhibition, type(x), x.shape, x.dtype, steps, single)
            plan = self._plans.get(key)
            if plan is None:
                before = self._shape, self._batch
                plan = _Plan(self._checked(x, steps, record, inhibition, single))
                self._remember(key, plan)
            backend = self._backend
            native = backend.take(x, self._dtype)
            if out is not None:
                outputs = {
                    name: backend.adopt(array, x) for name, array in given_outputs(out, plan.call).items()
                }
                check_apart(
                    {"the input": native, **{f"out[{name!r}]": array for name, array in outputs.items()}}
                )
            self._bind(x)
            if plan.call.scope != self._counted_by:
                self._count_by(plan.call.scope, x)
            if plan.bound is None:
                plan.bound = self._bound(plan)
            if out is None:
                try:
                    outputs = {
                        name: backend.empty(shape, dtype, x) for name, shape, dtype in plan.call.outputs
                    }
                except MemoryError:
                    raise no_memory(plan.call) from None
            if plan.call.steps:
                kernel, launch = plan.bound
                if plan.call.scope is None:
                    self._settle()
                unsettled = self._unsettled
                if plan.call.scope is not None and backend.lazy:
                    launch.unsettled = unsettled is not None
                    self._unsettled = plan.bound  # type: ignore[assignment]
                launch.x, launch.outputs = native, outputs
                launch.finite = None if not self._refuses_nan else "tell" if single else "undo"
                launch.undone = False
                self._broken_off = True
                self._launches += 1
                kernel.run(launch)
                launch.x, launch.outputs = None, {}
                if launch.not_finite is not None and launch.finite is not None:
                    self._refuse(launch, x, first_step, unsettled)
                self._broken_off = False
            return Recording(outputs, self._give)
        except BaseException:
            if before is not None:
                self._forget(*before)
            raise
        finally:
            self._lock.release()

    def _refuse(self, launch: backends.Launch, x: Any, first_step: int, unsettled: Any) -> None:
        """Raise a ValueError for input that was not finite, or remember to ask whether it was."""
        found = launch.not_finite
        if callable(found):
            if is_tensor(x) and not x.is_cpu:
                self._ask = found
                return
            # input on the host has been waited for already
            if not found():
                return
            host = x.numpy(force=True) if is_tensor(x) else x
            found = backends.first_not_finite(backends.contiguous(host, self._dtype))
        assert found is not None and self._shape is not None and self._batch is not None
        if launch.undone:
            self._broken_off, self._unsettled = False, unsettled
        T = 1 if launch.constant_input else launch.steps
        place = np.unravel_index(found, (T, self._batch, *self._shape))
        given = x.reshape(-1)[found].item()
        axes = ("t", "b", *(("f", "r", "c") if len(place) == 5 else ("neuron",)))
        where = [
            f"{axis} = {int(i) + (first_step if axis == 't' else 0)}"
            for axis, i in zip(axes, place, strict=True)
            if axis != "t" or not launch.constant_input
        ]
        shown = (
            f"{given:g}, which {self._dtype} takes for infinite," if math.isfinite(given) else f"{given:g}"
        )
        advice = "" if launch.undone else ", and call reset() or set a state that you kept"
        raise ValueError(
            f"the input is {shown} at {', '.join(where)}: give finite numbers, or nan='ignore' to the layer{advice}"
        )

    def _checked(
        self, x: Any, steps: int | None, record: tuple[str, ...], inhibition: KWTA | None, single: bool
    ) -> Call:
        """Return a checked call; a layer without a shape takes the call's."""
        self._check_order(inhibition)
        call = checked_call(
            x,
            steps,
            record,
            inhibition,
            single,
            recordable=self.recordable,
            dtype=self._dtype,
            known_shape=self._shape,
            known_batch=self._batch,
        )
        if self._shape is None:
            self._build(call.shape)
        self._batch = call.batch
        return call

    def _remember(self, key: Any, plan: _Plan) -> None:
        assert self._shape is not None and self._batch is not None
        large = self._batch * math.prod(self._shape) > _LARGE
        if len(self._plans) >= (_MOST_LARGE_PLANS if large else _MOST_PLANS):
            del self._plans[next(iter(self._plans))]
        self._plans[key] = plan

    def _record(
        self,
        x: Any,
        steps: int | None,
        record: tuple[str, ...],
        inhibition: KWTA | None,
        every: int,
        first_step: int,
    ) -> Recording:
        """Advance the layer, piece by piece where something is not recorded as the kernels do."""
        held = [
            name for name in record if every > 1 and name in ("u", *self._neuron.spec.states, "refractory")
        ]
        forms = [name for name in record if name in FORMS]
        if not held and not forms:
            return self._advance(x, steps, record, inhibition, first_step=first_step)
        x = as_input(x)
        wanted = tuple(name for name in record if name not in held and name not in forms)
        wanted += ("spikes",) if forms and "spikes" not in wanted else ()
        if not x.shape:
            return self._advance(x, steps, wanted, inhibition)  # which refuses it

        def piece(t: int, n: int, whole: bool) -> Recording:
            block = x[t : t + n] if steps is None else x
            run = self._advance(
                block, None if steps is None else n, wanted, inhibition, first_step=first_step + t
            )
            has_batch = len(x.shape) - (steps is None) > len(self._shape or ())
            arrays = {}
            for name in record:
                if name in held:
                    arrays[name] = self._snapshot(name, whole, has_batch)
                elif name == "events":
                    arrays[name] = self._backend.events(run.spikes, self._batch or 1, first_step + t)
                elif name == "packed_spikes":
                    arrays[name] = packed(run.spikes, len(self._shape or ()))
                else:
                    arrays[name] = run[name]
            return Recording(arrays)

        with self._alone():
            before = self._shape, self._batch
            # no steps at all: everything is checked before the state is touched, and shapes are known
            nothing = piece(0, 0, False)
            T = len(x) if steps is None else steps
            assert self._shape is not None and self._batch is not None
            size = every if held else max(1, _SPIKE_BYTES // (self._batch * math.prod(self._shape)))
            kept: list[np.ndarray] = []
            try:
                with self._all_or_nothing():
                    if size >= T:
                        return piece(0, T, size == T)
                    kept = [np.array(host) for host in (*self._hosts(), self._counters())]
                    lengths = {name: T // every if name in held else T for name in record if name != "events"}
                    pieces = (piece(t, min(size, T - t), t + size <= T) for t in range(0, T, size))
                    # what is kept of every few steps has its shape from no steps
                    return Recording.joined(itertools.chain([nothing], pieces), lengths)
            except BaseException as error:
                # all else that is refused was refused with no steps
                if kept and isinstance(error, ValueError):
                    self._replace(kept)
                self._forget(*before)
                raise

    def _snapshot(self, name: str, kept: bool, has_batch: bool) -> Any:
        """Return what a state is now as the record of one step, or of none."""
        assert self._states is not None and self._shape is not None
        names = ("u", *self._neuron.spec.states)
        host = self._counters() if name == "refractory" else self._hosts()[names.index(name)]
        shape = (1, *((self._batch,) if has_batch else ()), *self._shape)
        one = host.reshape(shape)[: int(kept)]
        return self._give(self._backend.upload(one, self._like))
