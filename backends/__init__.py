"""The backends, discovered from the files of this folder: one file, one `BACKEND`.

A backend owes what `Backend` and `Kernel` say: to move arrays between the user's kind and its own, and to run T steps
of a `Program` on its own kind.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from spyke_numba.compile.program import Program
from spyke_numba.model.expressions import listing, suggest

_FOLDER = __path__
#: Numbers that are scanned at once.
_SCANNED = 2**20


class Winners(NamedTuple):
    """k-winners-take-all of F maps of H rows and W columns: N = F*H*W.

    Attributes
    ----------
    k : int
        Winners that are recorded.
    most : int
        Winners that a step of a sample can have, which may be fewer.
    radius, H, W : int
    """

    k: int
    most: int
    radius: int
    H: int
    W: int


@dataclass(slots=True)
class Launch:
    """What a kernel runs on, all of it in the backend's own memory; calls that are alike share one.

    Attributes
    ----------
    x : array
        C-contiguous, of T * B * N elements in any shape, or B * N where `constant_input`.
    states : list of (B, N) arrays
        In the order of `Program.states`; updated.
    refractory : (B, N) int32 array, or (B, sets) where `Program.compact`
        Refractory counters, of neurons or of the scope's sets (F maps, H*W locations, or 1); updated.
    scalars, arrays : (len(Program.scalars),) and (len(Program.arrays), N) arrays of the program's dtype
    periods : (1,) or (N,) int32 array
        Refractory period in steps.
    outputs : dict of str to array
        What to record, C-contiguous arrays of T * B * N elements in any shape: ``"spikes"`` bool, a state, ``"pulses"``
        or ``"u_pre"`` of the program's dtype, ``"refractory"`` int32; ``"winners"`` of T * B * k * 3, int32.
    constant_input : bool
    steps : int
        T.
    winners : Winners, optional
        For a program with inhibition.
    threads : int
        The most threads that a CPU backend may use.
    scratch : dict
        The layer's own, for memory that its kernels can use again at the next call, and what one step leaves for the
        next; the layer empties it when its state or constants become others.
    prepared : object
        The kernel's own, None at first: what it can keep while only `x`, `outputs` and `unsettled` change, as they do
        at each call.
    unsettled : bool
        For a `LazyKernel`: whether the last step's potentials wait for their reset.
    finite : {None, "tell", "undo"}
        Whether the kernel must tell if an input is not finite, and leave states and counters as they were, too.
    undone : bool
        Set by the kernel: whether it left them so.
    not_finite : int, callable or None
        Set by the kernel: the flat index in `x` of the first infinite or NaN number, if it read any; on a device that
        is not waited for, a function that waits and returns whether there was one since the scratch is as it is.
    """

    x: Any
    states: list[Any]
    refractory: Any
    scalars: Any
    arrays: Any
    periods: Any
    outputs: dict[str, Any]
    constant_input: bool
    steps: int
    winners: Winners | None
    threads: int
    scratch: dict[Any, Any]
    prepared: Any = None
    unsettled: bool = False
    finite: Literal["tell", "undo"] | None = None
    undone: bool = False
    not_finite: int | Callable[[], bool] | None = None


class Kernel(Protocol):
    """A compiled `Program`."""

    def run(self, launch: Launch) -> None:
        """Advance every neuron by ``launch.steps`` steps, in place."""


class LazyKernel(Kernel, Protocol):
    """A kernel that leaves the potentials which crossed the threshold in the state, to be reset by the next step.

    That may be another such kernel's on the same state, with the same `Launch.scratch`.
    """

    def settle(self, launch: Launch) -> None:
        """Reset them now, since what comes next will not."""

    def settled(self, launch: Launch) -> np.ndarray:
        """Return the potentials (B, N) after the reset, on the host; the state stays."""

    def thresholded(self, launch: Launch) -> np.ndarray:
        """Return the potentials (B, N) that crossed the threshold in the last step, 0 elsewhere, on the host."""


@runtime_checkable
class Backend(Protocol):
    """How to run programs somewhere."""

    name: str
    #: Whether its kernels can make use of `Program.compact`.
    compact: bool
    #: Whether its kernels of programs with inhibition are `LazyKernel`.
    lazy: bool
    #: Whether its kernels know SpykeTorch's order of winners, too: programs without `Program.exact_order`.
    any_order: bool
    #: Kinds of generated text that `emit` knows.
    emits: tuple[str, ...]

    def unavailable(self) -> str | None:
        """Return None when it can run here, else one sentence: why not, and what to do."""

    def kernel(self, program: Program) -> Kernel:
        """Return the compiled program, compiling it on first use."""

    def events(self, spikes: Any, batch: int, first_step: int) -> Any:
        """Return spikes (T, B, N), of whatever shape, as rows (step, sample, neuron), (n, 3) int64, in this order."""

    def emit(self, program: Program, kind: str, arch: str | None = None) -> str:
        """Return the generated text of a program: one of `emits`, for a device architecture where that matters."""

    def place(self, x: Any) -> Any:
        """Return a key of the memory where results for this input live, such as a device."""

    def take(self, x: Any, dtype: str) -> Any:
        """Return a user's array as a C-contiguous array of this backend, without a copy where possible."""

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        """Return a new array of this backend where results for the input `like` live."""

    def adopt(self, array: Any, like: Any) -> Any:
        """Return a user's C-contiguous array as one of this backend, never a copy.

        Raises
        ------
        ValueError
            When it cannot be written, or is not where results for the input `like` live.
        """

    def upload(self, host: np.ndarray, like: Any) -> Any:
        """Return a numpy array's copy where results for the input `like` live."""

    def fill(self, array: Any, host: np.ndarray) -> None:
        """Overwrite an array of this backend with a numpy array's values, broadcast to its shape."""

    def download(self, array: Any) -> np.ndarray:
        """Return an array of this backend as a numpy array."""

    def giver(self, like: Any) -> Callable[[Any], Any]:
        """Return what turns arrays of this backend into the kind of the input `like`, without a copy where possible."""


def check_dense(tensor: Any) -> None:
    """Raise a TypeError or a ValueError for a tensor whose numbers do not lie in memory one after the other."""
    layout = str(tensor.layout).removeprefix("torch.")
    if layout != "strided":
        raise TypeError(f"the input is a tensor of the layout {layout}: give x.to_dense()")
    if tensor.is_meta:
        raise ValueError(
            "the input is on the device 'meta', which keeps no numbers: give a tensor that has some"
        )


def contiguous(x: np.ndarray, dtype: str) -> np.ndarray:
    """Return an array in C order and a dtype; numbers beyond the dtype become infinite, which kernels tell."""
    if x.dtype == dtype:
        return np.ascontiguousarray(x)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(x, dtype=dtype)


def first_not_finite(x: np.ndarray) -> int | None:
    """Return the flat index of the first infinite or NaN number of a C-contiguous array, None if there is none."""
    flat = x.reshape(-1)
    for at in range(0, flat.size, _SCANNED):
        finite = np.isfinite(flat[at : at + _SCANNED])
        if not finite.all():
            return at + int(finite.argmin())
    return None


def names() -> tuple[str, ...]:
    """Return the names of the backends."""
    return tuple(sorted(info.name for info in pkgutil.iter_modules(_FOLDER) if not info.name.startswith("_")))


def get(name: str) -> Backend:
    """Return a backend by name, whether or not it can run here.

    Raises
    ------
    KeyError
        When there is no such backend.
    """
    if name not in names():
        raise KeyError(
            f"unknown backend {name!r}{suggest(str(name), names())}: allowed are {listing((*names(), 'auto'))}"
        )
    return importlib.import_module(f"{__name__}.{name}").BACKEND


def choose(backend: str | Backend) -> Backend:
    """Return the backend asked for; ``"auto"`` is cuda where a GPU is usable, else cpu.

    Raises
    ------
    KeyError
        When there is no such backend.
    RuntimeError
        When a backend asked for by name cannot run here: what is missing, and what to install.
    """
    if not isinstance(backend, str):
        if not isinstance(backend, Backend):
            raise TypeError(
                f"backend is {backend!r}: give one of {listing((*names(), 'auto'))}, or a Backend"
            )
        return backend
    if backend == "auto":
        cuda = get("cuda")
        return cuda if cuda.unavailable() is None else get("cpu")
    chosen = get(backend)
    why_not = chosen.unavailable()
    if why_not is not None:
        raise RuntimeError(f"backend {backend!r} cannot run here: {why_not}")
    return chosen
