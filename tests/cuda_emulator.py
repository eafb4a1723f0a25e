"""A small CUDA emulator: runs generated kernel modules on numpy arrays, without a GPU and without numba-cuda.

    >>> emulated = EmulatedCuda()
    >>> module = emulated.load('''
    ... from numba import cuda
    ...
    ... @cuda.jit
    ... def double(values):
    ...     i = cuda.grid(1)
    ...     if i < values.size:
    ...         values[i] *= 2
    ... ''')
    >>> values = np.arange(5, dtype="float32")
    >>> module.double[2, 4](values)
    >>> values
    array([0., 2., 4., 6., 8.], dtype=float32)

Kernels run as plain Python on numpy scalars: every operation rounds as IEEE 754 says and nothing is
contracted. A thread is a plain call until it waits for others; only then does its greenlet stay behind.
Blocks run one after another until they end or wait for the whole grid.

It finds divergent barriers (`DivergentBarrierError`); operands of `libdevice` functions of another type, so
that a float64 among float32 does not go unseen; reliance on fresh memory being zero, which here is garbage;
and, with seeds, missing barriers, for blocks and threads then run in a shuffled order and the result changes.

It does not find negative indices, which count from the end as in numba; races without consequences in the
orders tried; a constant that numba makes a float64 where numpy keeps float32, such as that of ``0.5 * u``.
"""

from __future__ import annotations

import builtins
import functools
import importlib.util
import inspect
import linecache
import math
import operator
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from greenlet import greenlet

WARP_SIZE = 32
LARGEST_BLOCK = 1024
#: Every byte of fresh shared and local memory: nothing may rely on its being zero.
GARBAGE = 0x5A
#: So many threads never arrive: a block alone does not open the grid's barrier.
NOT_HERE = -1


def unavailable() -> str | None:
    """Return None when kernels can be emulated here, else what is missing."""
    if importlib.util.find_spec("greenlet") is None:
        return "greenlet, as which emulated threads run, is not installed: pip install 'spyke_numba[test]'"
    return None


class DivergentBarrierError(RuntimeError):
    """Threads that ought to meet at one barrier wait at different ones, or have left the kernel."""


class EmulatedCuda:
    """An emulated device.

    Parameters
    ----------
    seed : int, optional
        Shuffles the order of blocks and threads, anew for each launch, and lets a warp run on while others
        stay behind; they run in the order of their indices unless given.
    """

    def __init__(self, seed: int | None = None):
        self._random = None if seed is None else np.random.default_rng(seed)
        self._warp = 0
        self.cuda = _Cuda(self)

    def load(self, source: str) -> ModuleType:
        """Return a kernel module, its kernels ready for launch as ``kernel[grid, block](*arguments)``.

        Parameters
        ----------
        source : str
            Python text. In it ``from numba import cuda`` and ``from numba.cuda import libdevice`` give the
            emulator's own; anything else is imported as usual.
        """
        filename = f"<emulated kernels {next(_module_numbers)}>"
        # tracebacks then show the lines of the text
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        module = ModuleType(filename)
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._import}
        exec(compile(source, filename, "exec", dont_inherit=True), module.__dict__)
        return module

    def ordered(self, items: Sequence[Any]) -> list[Any]:
        """Return the items in the order in which to run them."""
        if self._random is None:
            return list(items)
        return [items[i] for i in self._random.permutation(len(items))]

    @property
    def shuffled(self) -> bool:
        """Whether the order is not that of the indices."""
        return self._random is not None

    def favour_a_warp(self, runnable: list[tuple[_Thread, Any]]) -> None:
        """Put the thread to run next last: of the same warp as before, so that it runs far ahead of others."""
        assert self._random is not None
        places = [i for i, (thread, _) in enumerate(runnable) if thread.warp == self._warp] or range(
            len(runnable)
        )
        chosen = places[int(self._random.integers(len(places)))]
        self._warp = runnable[chosen][0].warp
        runnable[chosen], runnable[-1] = runnable[-1], runnable[chosen]

    def _import(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] = (), level: int = 0
    ) -> Any:
        package, *inner = name.split(".")
        if level == 0 and package == "numba" and inner[:1] in ([], ["cuda"]):
            found: Any = _NumbaWith(self.cuda)
            # as Python's own: the outermost package for `import a.b`, the innermost for `from a.b import c`
            return functools.reduce(getattr, inner, found) if fromlist else found
        return builtins.__import__(name, globals, locals, fromlist, level)


_module_numbers = count(1)


class _NumbaWith:
    """The numba package, with another `cuda`."""

    def __init__(self, cuda: _Cuda):
        self.cuda = cuda

    def __getattr__(self, name: str) -> Any:
        import numba

        return getattr(numba, name)


class Kernel:
    """A kernel, launched as ``kernel[grid, block](*arguments)``; other device code calls it as a function."""

    def __init__(self, device: EmulatedCuda, function: Callable[..., None]):
        self._device = device
        self.py_func = function
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Any) -> Any:
        return self.py_func(*arguments)

    def __getitem__(self, configuration: tuple[Any, ...]) -> Callable[..., None]:
        """Return the launch for (grid, block), or (grid, block, stream, bytes of dynamic shared memory)."""
        if not isinstance(configuration, tuple) or not 2 <= len(configuration) <= 4:
            raise TypeError(
                f"kernel {self.__name__}[{configuration!r}]: give [grid, block], [grid, block, stream] or"
                " [grid, block, stream, shared bytes]"
            )
        grid, block = (_extent(name, n) for name, n in zip(("grid", "block"), configuration, strict=False))
        shared_bytes = operator.index(configuration[3]) if len(configuration) == 4 else 0
        if block > LARGEST_BLOCK:
            raise ValueError(
                f"a block of {block} threads: at most {LARGEST_BLOCK} are allowed, use a larger grid"
            )

        def launch(*arguments: Any) -> None:
            inspect.signature(self.py_func).bind(*arguments)
            typed = [_argument(value) for value in arguments]
            launched = _Launch(self._device, self.py_func, typed, grid, block, shared_bytes)
            self._device.cuda.launch = launched
            try:
                launched.run()
            finally:
                self._device.cuda.launch = None

        return launch


def _extent(name: str, n: Any) -> int:
    if isinstance(n, tuple):
        if len(n) != 1:
            raise ValueError(f"{name} {n!r}: only one dimension is emulated, give an int")
        (n,) = n
    n = operator.index(n)
    if n < 1:
        raise ValueError(f"{name} {n}: at least 1 is allowed")
    return n


def _argument(value: Any) -> Any:
    """Return an argument with the type that numba gives it."""
    if isinstance(value, np.ndarray | np.generic):
        return value
    for kind, scalar in ((bool, np.bool_), (int, np.int64), (float, np.float64)):
        if isinstance(value, kind):
            return scalar(value)
    raise TypeError(f"a kernel got {type(value).__name__}: numpy arrays and numbers are allowed")


class Index(NamedTuple):
    """A place or an extent in three dimensions, of which only x is used."""

    x: int
    y: int = 0
    z: int = 0


class _Thread:
    __slots__ = ("block", "index", "lane", "paused", "value", "warp")

    def __init__(self, block: _Block, index: int):
        self.block = block
        self.index = Index(index)
        self.warp, self.lane = divmod(index, WARP_SIZE)
        self.paused: greenlet | None = None
        self.value: Any = None


class _Barrier(NamedTuple):
    """What a thread waits at; threads at equal ones wait for each other."""

    scope: str
    operation: str
    warp: int = 0
    mask: int = 0
    #: Identity of the code and offset in it, for barriers that all must reach at the same place.
    place: tuple[int, int] | None = None
    line: int = 0

    def __str__(self) -> str:
        if self.scope == "warp":
            return f"{self.operation} of warp {self.warp} with mask {self.mask:#x}"
        return self.operation if self.place is None else f"{self.operation} in line {self.line}"


@functools.cache
def _warp_barrier(operation: str, warp: int, mask: int) -> _Barrier:
    return _Barrier("warp", operation, warp, mask)


class _Block:
    def __init__(self, index: int, size: int, shared_bytes: int):
        self.index = Index(index)
        self.threads = [_Thread(self, i) for i in range(size)]
        self.dynamic = bytearray([GARBAGE]) * shared_bytes
        self.static: dict[tuple[int, int], np.ndarray] = {}
        self.waiting: defaultdict[_Barrier, list[_Thread]] = defaultdict(list)
        #: Per warp, the lanes that have not left.
        self.alive = [(1 << min(WARP_SIZE, size - i)) - 1 for i in range(0, size, WARP_SIZE)]

    def leave(self, thread: _Thread) -> None:
        self.alive[thread.warp] &= ~(1 << thread.lane)

    def remaining(self) -> int:
        """Return how many threads have not left."""
        return sum(map(int.bit_count, self.alive))

    def ready(self) -> list[_Barrier]:
        """Return the barriers of a warp or of the block at which all have arrived."""
        return [
            barrier for barrier, arrived in self.waiting.items() if len(arrived) == self._expected(barrier)
        ]

    def _expected(self, barrier: _Barrier) -> int:
        if barrier.scope == "warp":
            return (barrier.mask & self.alive[barrier.warp]).bit_count()
        return self.remaining() if barrier.scope == "block" else NOT_HERE

    def waits_for_grid(self) -> bool:
        """Whether all threads that have not left wait for the grid."""
        return [barrier.scope for barrier in self.waiting] == ["grid"]

    def states(self) -> str:
        """Return where the threads are, for an error."""
        parts = [f"{len(arrived)} at {barrier}" for barrier, arrived in self.waiting.items()]
        left = len(self.threads) - self.remaining()
        return f"block {self.index.x} has {', '.join(parts + ([f'{left} that left'] if left else []))}"


class _Launch:
    """One launch of a kernel: the scheduler of its threads."""

    def __init__(
        self,
        device: EmulatedCuda,
        function: Callable[..., None],
        arguments: list[Any],
        grid: int,
        block: int,
        shared: int,
    ):
        self.grid, self.block = Index(grid, 1, 1), Index(block, 1, 1)
        self.thread: _Thread | None = None
        self._device = device
        self._function = function
        self._arguments = arguments
        self._shared_bytes = shared
        # imported here, so that tests on a GPU run where it is not installed
        from greenlet import getcurrent, greenlet

        self._current, self._greenlet = getcurrent, greenlet
        self._scheduler = getcurrent()

    def run(self) -> None:
        """Run every thread to its end."""
        waiting = []
        for i in self._device.ordered(range(self.grid.x)):
            block = _Block(i, self.block.x, self._shared_bytes)
            self._start(block)
            self._advance(block)
            if block.waiting:
                waiting.append(block)
        while waiting:
            self._check_all_wait(waiting)
            for block in self._device.ordered(waiting):
                ((_, arrived),) = block.waiting.items()
                block.waiting.clear()
                self._advance(block, arrived)
            waiting = [block for block in waiting if block.waiting]

    def wait(self, barrier: _Barrier, value: Any = None) -> Any:
        """Stop the running thread at a barrier; return what the values of all who meet there combine to."""
        thread = self.thread
        assert thread is not None
        thread.value = value
        thread.paused = self._current()
        thread.block.waiting[barrier].append(thread)
        return self._scheduler.switch()

    def _start(self, block: _Block) -> None:
        pending = deque(self._device.ordered(block.threads))
        while pending:
            self._greenlet(self._call_each).switch(pending)

    def _call_each(self, pending: deque[_Thread]) -> None:
        """Call the kernel for thread after thread; the first that waits keeps this greenlet to itself."""
        # entered here, for a greenlet does not inherit the scheduler's context
        with np.errstate(all="ignore"):
            while pending:
                thread = self.thread = pending.popleft()
                try:
                    self._function(*self._arguments)
                except Exception as error:
                    if hasattr(error, "add_note"):
                        where = f"thread {thread.index.x} of block {thread.block.index.x}"
                        error.add_note(f"in {where} of kernel {self._function.__name__}")
                    raise
                thread.block.leave(thread)

    def _advance(self, block: _Block, released: Sequence[_Thread] = ()) -> None:
        """Run a block until all its threads have left or wait for the grid."""
        runnable: list[tuple[_Thread, Any]] = [(thread, None) for thread in reversed(released)]
        shuffled = self._device.shuffled
        while True:
            if shuffled or not runnable:
                for barrier in reversed(block.ready()):
                    arrived = block.waiting.pop(barrier)
                    combined = _COMBINE[barrier.operation](arrived)
                    runnable += [(thread, combined) for thread in reversed(arrived)]
            if not runnable:
                break
            if shuffled:
                self._device.favour_a_warp(runnable)
            thread, combined = runnable.pop()
            self.thread = thread
            assert thread.paused is not None
            thread.paused.switch(combined)
        if block.waiting and not block.waits_for_grid():
            raise self._divergent([block])

    def _check_all_wait(self, waiting: list[_Block]) -> None:
        arrived = sum(len(threads) for block in waiting for threads in block.waiting.values())
        if arrived != self.grid.x * self.block.x:
            raise self._divergent(waiting)

    def _divergent(self, blocks: list[_Block]) -> DivergentBarrierError:
        states = [block.states() for block in blocks]
        if blocks[0].waits_for_grid() and len(blocks) < self.grid.x:
            states.append(f"{self.grid.x - len(blocks)} blocks have left")
        return DivergentBarrierError(
            f"threads of kernel {self._function.__name__} wait for each other in vain: {'; '.join(states)};"
            " lead all of them to the same barrier"
        )


def _values(threads: list[_Thread]) -> dict[int, Any]:
    return {thread.lane: thread.value for thread in threads}


def _lanes(lanes: Iterable[int]) -> np.int32:
    """Return the mask of these lanes, as the signed integer that numba makes of it."""
    return np.uint32(sum(1 << lane for lane in lanes)).view(np.int32)


def _matches(threads: list[_Thread]) -> dict[int, np.int32]:
    return {
        thread.lane: _lanes(other.lane for other in threads if other.value == thread.value)
        for thread in threads
    }


#: What the threads that meet at a barrier are told, from the values that they brought.
_COMBINE: dict[str, Callable[[list[_Thread]], Any]] = {
    "syncthreads": lambda threads: None,
    "syncthreads_or": lambda threads: np.int32(any(thread.value for thread in threads)),
    "syncthreads_and": lambda threads: np.int32(all(thread.value for thread in threads)),
    "syncthreads_count": lambda threads: np.int32(sum(bool(thread.value) for thread in threads)),
    "syncwarp": lambda threads: None,
    "shfl_sync": _values,
    "shfl_up_sync": _values,
    "shfl_down_sync": _values,
    "shfl_xor_sync": _values,
    "ballot_sync": lambda threads: _lanes(thread.lane for thread in threads if thread.value),
    "any_sync": lambda threads: any(thread.value for thread in threads),
    "all_sync": lambda threads: all(thread.value for thread in threads),
    "match_any_sync": _matches,
}


class _Cuda:
    """What a kernel module knows as `cuda`."""

    warpsize = WARP_SIZE

    def __init__(self, device: EmulatedCuda):
        self._device = device
        self.launch: _Launch | None = None
        self.libdevice = _Libdevice()
        self.atomic = SimpleNamespace(
            **{name: _atomic(name, operation) for name, operation in _ATOMIC.items()},
            cas=_cas,
            compare_and_swap=_swap,
        )
        self.shared = SimpleNamespace(array=self._shared_array)
        self.local = SimpleNamespace(
            array=lambda shape, dtype, alignment=None: _garbage(shape, _dtype(dtype))
        )
        self.const = SimpleNamespace(array_like=_read_only)
        self.extending = SimpleNamespace(intrinsic=_emulated_intrinsic)
        self.cg = SimpleNamespace(this_grid=lambda: SimpleNamespace(sync=self._sync_grid))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"cuda.{name} is not emulated: add it to the emulator, or do without it")

    def jit(self, signature: Any = None, device: bool = False, **options: Any) -> Any:
        """Make a kernel or a device function, with or without a signature and options."""

        def made(function: Callable[..., Any]) -> Callable[..., Any]:
            return function if device else Kernel(self._device, function)

        return made(signature) if inspect.isfunction(signature) else made

    @property
    def threadIdx(self) -> Index:
        return self._thread.index

    @property
    def blockIdx(self) -> Index:
        return self._thread.block.index

    @property
    def blockDim(self) -> Index:
        return self._running.block

    @property
    def gridDim(self) -> Index:
        return self._running.grid

    @property
    def laneid(self) -> int:
        return self._thread.lane

    def grid(self, dimensions: int) -> int:
        _one_dimension(dimensions)
        thread = self._thread
        return thread.block.index.x * self._running.block.x + thread.index.x

    def gridsize(self, dimensions: int) -> int:
        _one_dimension(dimensions)
        return self._running.grid.x * self._running.block.x

    def syncthreads(self) -> None:
        self._meet_block("syncthreads", None)

    def syncthreads_or(self, predicate: Any) -> np.int32:
        return self._meet_block("syncthreads_or", predicate)

    def syncthreads_and(self, predicate: Any) -> np.int32:
        return self._meet_block("syncthreads_and", predicate)

    def syncthreads_count(self, predicate: Any) -> np.int32:
        return self._meet_block("syncthreads_count", predicate)

    def syncwarp(self, mask: int = 0xFFFFFFFF) -> None:
        self._meet_warp("syncwarp", mask, None)

    def shfl_sync(self, mask: int, value: Any, source: int) -> Any:
        return self._shuffle("shfl_sync", mask, value, lambda lane: int(source) % WARP_SIZE)

    def shfl_up_sync(self, mask: int, value: Any, delta: int) -> Any:
        return self._shuffle("shfl_up_sync", mask, value, lambda lane: lane - int(delta))

    def shfl_down_sync(self, mask: int, value: Any, delta: int) -> Any:
        return self._shuffle("shfl_down_sync", mask, value, lambda lane: lane + int(delta))

    def shfl_xor_sync(self, mask: int, value: Any, lane_mask: int) -> Any:
        return self._shuffle("shfl_xor_sync", mask, value, lambda lane: lane ^ int(lane_mask))

    def ballot_sync(self, mask: int, predicate: Any) -> np.int32:
        return self._meet_warp("ballot_sync", mask, predicate)

    def any_sync(self, mask: int, predicate: Any) -> bool:
        return self._meet_warp("any_sync", mask, predicate)

    def all_sync(self, mask: int, predicate: Any) -> bool:
        return self._meet_warp("all_sync", mask, predicate)

    def match_any_sync(self, mask: int, value: Any) -> np.int32:
        return self._meet_warp("match_any_sync", mask, value)[self.laneid]

    def threadfence(self) -> None:
        """Do nothing, as writes are seen at once."""

    threadfence_block = threadfence_system = threadfence

    def popc(self, value: Any) -> int:
        return _bits(value)[0].bit_count()

    def ffs(self, value: Any) -> int:
        bits, _ = _bits(value)
        return (bits & -bits).bit_length()

    def clz(self, value: Any) -> int:
        bits, width = _bits(value)
        return width - bits.bit_length()

    def selp(self, condition: Any, a: Any, b: Any) -> Any:
        return a if condition else b

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return _fused(a, b, c)

    @property
    def _running(self) -> _Launch:
        if self.launch is None:
            raise RuntimeError("no kernel is running: launch one as kernel[grid, block](*arguments)")
        return self.launch

    @property
    def _thread(self) -> _Thread:
        thread = (self.launch or self._running).thread
        assert thread is not None
        return thread

    def _meet_block(self, operation: str, value: Any) -> Any:
        caller = sys._getframe(2)
        place = id(caller.f_code), caller.f_lasti
        return self._running.wait(_Barrier("block", operation, place=place, line=caller.f_lineno), value)

    def _meet_warp(self, operation: str, mask: int, value: Any) -> Any:
        thread, mask = self._thread, mask & 0xFFFFFFFF
        if not mask >> thread.lane & 1:
            raise ValueError(
                f"{operation} with mask {mask:#x} called by lane {thread.lane}: name it in the mask"
            )
        return self._running.wait(_warp_barrier(operation, thread.warp, mask), value)

    def _shuffle(self, operation: str, mask: int, value: Any, source_of: Callable[[int], int]) -> Any:
        lane = self._thread.lane
        source = source_of(lane)
        values = self._meet_warp(operation, mask, value)
        if not 0 <= source < WARP_SIZE:
            return value
        if source not in values:
            raise ValueError(
                f"{operation}: lane {lane} reads lane {source}, which takes no part: read another"
            )
        return values[source]

    def _sync_grid(self) -> None:
        self._running.wait(_Barrier("grid", "the grid's barrier"))

    def _shared_array(self, shape: Any, dtype: Any, alignment: int | None = None) -> np.ndarray:
        block, kind = self._thread.block, _dtype(dtype)
        if shape == 0:
            return np.frombuffer(block.dynamic, kind)
        # one allocation for each place in the source, as in compiled code
        caller = sys._getframe(1)
        place = id(caller.f_code), caller.f_lasti
        if place not in block.static:
            block.static[place] = _garbage(shape, kind)
        return block.static[place]


def _emulated_intrinsic(definition: Callable[..., Any]) -> Callable[..., Any]:
    """Return the emulator's own function of that name: what an intrinsic builds for the compiler cannot run here."""
    name = definition.__name__
    if name not in _INTRINSICS:
        raise AttributeError(f"intrinsic {name} is not emulated: add it to the emulator, or do without it")
    return _INTRINSICS[name](definition.__globals__)


def _neighbours(array: np.ndarray, index: Any, width: int) -> slice:
    if index % width or not 0 <= index <= array.size - width:
        raise IndexError(f"{width} neighbours at {index} of {array.size}: give a multiple of {width} inside")
    return slice(index, index + width)


def _load(module: dict[str, Any]) -> Callable[[np.ndarray, Any], tuple[Any, ...]]:
    return lambda array, index: tuple(array[_neighbours(array, index, module["WIDTH"])])


def _store(module: dict[str, Any]) -> Callable[[np.ndarray, Any, tuple[Any, ...]], None]:
    def store(array: np.ndarray, index: Any, values: tuple[Any, ...]) -> None:
        array[_neighbours(array, index, module["WIDTH"])] = values

    return store


def _one_dimension(dimensions: int) -> None:
    if dimensions != 1:
        raise ValueError(f"{dimensions} dimensions: only 1 is emulated")


def _dtype(dtype: Any) -> np.dtype:
    """Return the numpy dtype of a numpy or numba type."""
    try:
        return np.dtype(dtype)
    except TypeError:
        return np.dtype({"boolean": "bool"}.get(str(dtype), str(dtype)))


def _garbage(shape: Any, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "b":
        return np.ones(shape, bool)
    array = np.empty(shape, dtype)
    array.view(np.uint8).fill(GARBAGE)
    return array


def _read_only(array: np.ndarray) -> np.ndarray:
    result = array.copy()
    result.flags.writeable = False
    return result


def _bits(value: Any) -> tuple[int, int]:
    """Return an integer's bits as a natural number, and their width; a Python integer is an int64."""
    width = 8 * value.itemsize if isinstance(value, np.integer) else 64
    return int(value) & ((1 << width) - 1), width


def _fused(a: Any, b: Any, c: Any) -> Any:
    """Return a*b + c rounded once, in the operands' type."""
    kind = type(a)
    if kind not in (np.float32, np.float64) or not type(b) is type(c) is kind:
        raise AssertionError(
            f"cuda.fma got {type(a).__name__}, {type(b).__name__} and {type(c).__name__}: give one type"
        )
    if not (np.isfinite(a) and np.isfinite(b) and np.isfinite(c)):
        return a * b + c
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    try:
        near = float(exact)
    except OverflowError:
        return kind(math.inf if exact > 0 else -math.inf)
    if exact == 0:
        return a * b + c
    if kind is np.float32 and Fraction(near) != exact and not np.float64(near).view(np.int64) & 1:
        # rounded to odd first, a second rounding cannot meet a tie that is none
        near = math.nextafter(near, math.inf if Fraction(near) < exact else -math.inf)
    return kind(near)


_ATOMIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "and_": operator.and_,
    "or_": operator.or_,
    "xor": operator.xor,
    "max": max,
    "min": min,
    "exch": lambda old, value: value,
}
_ATOMIC_KINDS = frozenset(map(np.dtype, ("int32", "int64", "uint32", "uint64", "float32", "float64")))


def _atomic(name: str, operation: Callable[[Any, Any], Any]) -> Callable[[np.ndarray, Any, Any], Any]:
    def atomic(array: np.ndarray, index: Any, value: Any) -> Any:
        old = _atomic_target(name, array, index)
        array[index] = operation(old, np.asarray(value).astype(array.dtype)[()])
        return old

    return atomic


def _atomic_target(name: str, array: np.ndarray, index: Any) -> Any:
    if array.dtype not in _ATOMIC_KINDS:
        raise TypeError(f"cuda.atomic.{name} on {array.dtype}: 32- and 64-bit numbers are allowed")
    old = array[index]
    if isinstance(old, np.ndarray):
        raise IndexError(
            f"cuda.atomic.{name} with index {index!r} of a {array.ndim}-dimensional array: name one element"
        )
    return old


def _cas(array: np.ndarray, index: Any, expected: Any, value: Any) -> Any:
    old = _atomic_target("cas", array, index)
    if old == expected:
        array[index] = value
    return old


def _swap(array: np.ndarray, expected: Any, value: Any) -> Any:
    return _cas(array, (0,) * array.ndim, expected, value)


#: The intrinsics of generated modules, made for a module's globals.
_INTRINSICS: dict[str, Callable[[dict[str, Any]], Callable[..., Any]]] = {
    "load": _load,
    "store": _store,
    "pointer": lambda module: lambda array: array,
    "atomic_max": lambda module: _atomic("max", max),
}


class _Libdevice:
    """What a kernel module knows as `libdevice`: the functions whose bits are the host's."""

    def __init__(self) -> None:
        for name, (operand, compute) in _LIBDEVICE.items():
            setattr(self, name, _typed(name, operand, compute))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"libdevice.{name} is not emulated: only functions with the same bits on host and GPU are"
        )


def _typed(name: str, operand: type, compute: Callable[..., Any]) -> Callable[..., Any]:
    def function(*operands: Any) -> Any:
        for value in operands:
            if type(value) is not operand:
                raise AssertionError(
                    f"libdevice.{name} got {type(value).__name__}: {operand.__name__} is allowed"
                )
        return compute(*operands)

    return function


def _to_whole(kind: type[np.integer], not_a_number: int) -> Callable[[Any], Any]:
    """Return the conversion that rounds to nearest, ties to even, and saturates."""
    lowest, highest = np.iinfo(kind).min, np.iinfo(kind).max

    def convert(x: Any) -> Any:
        if math.isnan(x):
            return kind(not_a_number)
        if x <= lowest or x >= highest:
            return kind(lowest if x < 0 else highest)
        return kind(int(np.rint(x)))

    return convert


_LOWEST_32, _LOWEST_64 = int(np.iinfo(np.int32).min), int(np.iinfo(np.int64).min)

#: Type of the operands, and what to do with them. NaN becomes what PTX's cvt makes of it.
_LIBDEVICE: dict[str, tuple[type, Callable[..., Any]]] = {
    "float_as_int": (np.float32, lambda x: x.view(np.int32)),
    "int_as_float": (np.int32, lambda x: x.view(np.float32)),
    "double_as_longlong": (np.float64, lambda x: x.view(np.int64)),
    "longlong_as_double": (np.int64, lambda x: x.view(np.float64)),
    "float2int_rn": (np.float32, _to_whole(np.int32, 0)),
    "float2ll_rn": (np.float32, _to_whole(np.int64, _LOWEST_64)),
    "double2int_rn": (np.float64, _to_whole(np.int32, _LOWEST_32)),
    "double2ll_rn": (np.float64, _to_whole(np.int64, _LOWEST_64)),
    "int2float_rn": (np.int32, np.float32),
    "ll2float_rn": (np.int64, np.float32),
    "int2double_rn": (np.int32, np.float64),
    "ll2double_rn": (np.int64, np.float64),
    "min": (np.int32, min),
    "max": (np.int32, max),
    "llmin": (np.int64, min),
    "llmax": (np.int64, max),
}
for _letter, _suffix, _real in (("f", "f", np.float32), ("d", "", np.float64)):
    _LIBDEVICE |= {
        f"{_letter}add_rn": (_real, operator.add),
        f"{_letter}mul_rn": (_real, operator.mul),
        f"{_letter}div_rn": (_real, operator.truediv),
        f"{_letter}sqrt_rn": (_real, np.sqrt),
        f"fabs{_suffix}": (_real, np.abs),
        f"rint{_suffix}": (_real, np.rint),
        f"nearbyint{_suffix}": (_real, np.rint),
        f"floor{_suffix}": (_real, np.floor),
        f"ceil{_suffix}": (_real, np.ceil),
        f"trunc{_suffix}": (_real, np.trunc),
        f"fmin{_suffix}": (_real, np.fmin),
        f"fmax{_suffix}": (_real, np.fmax),
    }
