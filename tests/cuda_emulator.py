"""A small CUDA emulator: runs the text of generated kernel modules on numpy arrays, without a GPU and without numba-cuda.

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

Kernels run as plain Python on numpy scalars, so every operation rounds as IEEE 754 says and nothing is contracted. A
thread is a plain call until it waits for others; only then does its greenlet stay behind. Blocks run one after another
until they end or wait for the whole grid.

What it checks: divergent barriers (`DivergentBarrierError`); the types of the operands of `libdevice` functions, so that
a float64 among float32 does not go unseen; fresh shared and local memory holds garbage; and with a seed, blocks and
threads run in a shuffled order, which makes a missing barrier show as a changed result. What it does not: negative
indices count from the end (in numba too), and a write race without consequences in the orders tried is not seen.
"""

from __future__ import annotations

import builtins
import inspect
import linecache
import math
import operator
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from itertools import count
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from greenlet import getcurrent, greenlet

WARP_SIZE = 32
LARGEST_BLOCK = 1024
#: Every byte of fresh shared and local memory: nothing may rely on its being zero.
GARBAGE = 0x5A


class DivergentBarrierError(RuntimeError):
    """Threads that ought to meet at one barrier wait at different ones, or have left the kernel."""


class EmulatedCuda:
    """An emulated device.

    Parameters
    ----------
    seed : int, optional
        Shuffles the order of blocks and threads, anew for each launch and after each barrier; in index order unless given.
    """

    def __init__(self, seed: int | None = None):
        self._random = None if seed is None else np.random.default_rng(seed)
        self.cuda = _Cuda(self)

    def load(self, source: str) -> ModuleType:
        """Return a kernel module's names, its kernels ready for launch as ``kernel[grid, block](*arguments)``.

        Parameters
        ----------
        source : str
            Python text, of which ``from numba import cuda`` and ``from numba.cuda import libdevice`` give the emulator's
            own; anything else is imported as usual.
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

    def _import(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] = (), level: int = 0
    ) -> Any:
        if level == 0 and name == "numba":
            return SimpleNamespace(cuda=self.cuda) if set(fromlist or ()) <= {"cuda"} else _NumbaWith(self.cuda)
        if level == 0 and name.split(".")[:2] == ["numba", "cuda"]:
            found: Any = SimpleNamespace(cuda=self.cuda)
            if not fromlist:
                return found
            for part in name.split(".")[1:]:
                found = getattr(found, part)
            return found
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
    """A kernel, launched as ``kernel[grid, block](*arguments)``; called from other device code, a device function."""

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
            raise ValueError(f"a block of {block} threads: at most {LARGEST_BLOCK} are allowed, use a larger grid")

        def launch(*arguments: Any) -> None:
            inspect.signature(self.py_func).bind(*arguments)
            typed = [_argument(value) for value in arguments]
            _Launch(self._device, self.py_func, typed, grid, block, shared_bytes).run()

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
    __slots__ = ("block", "done", "index", "lane", "paused", "value", "warp")

    def __init__(self, block: _Block, index: int):
        self.block = block
        self.index = Index(index)
        self.warp, self.lane = divmod(index, WARP_SIZE)
        self.paused: greenlet | None = None
        self.value: Any = None
        self.done = False


class _Barrier(NamedTuple):
    """What a waiting thread waits for; threads with equal ones wait for each other."""

    scope: str
    operation: str
    place: tuple[CodeType, int] | None = None
    warp: int | None = None
    mask: int = 0
    line: int = 0

    def __str__(self) -> str:
        where = f"{self.operation} (line {self.line})"
        return where if self.scope != "warp" else f"{where} of warp {self.warp} with mask {self.mask:#x}"


class _Block:
    def __init__(self, index: int, size: int, shared_bytes: int):
        self.index = Index(index)
        self.threads = [_Thread(self, i) for i in range(size)]
        self.warps = [self.threads[i : i + WARP_SIZE] for i in range(0, size, WARP_SIZE)]
        self.dynamic = bytearray([GARBAGE]) * shared_bytes
        self.shared: dict[tuple[CodeType, int], np.ndarray] = {}
        self.waiting: defaultdict[_Barrier, list[_Thread]] = defaultdict(list)
        self.running = size

    def ready(self) -> list[_Barrier]:
        """Return the barriers of a warp or of the block at which all have arrived."""
        return [barrier for barrier, arrived in self.waiting.items() if len(arrived) == self._expected(barrier)]

    def _expected(self, barrier: _Barrier) -> int:
        if barrier.scope == "warp":
            threads = self.warps[barrier.warp or 0]
            return sum(not thread.done and barrier.mask >> thread.lane & 1 for thread in threads)
        return self.running if barrier.scope == "block" else -1

    def states(self) -> str:
        """Return where the threads are, for an error."""
        parts = [f"{len(arrived)} wait at {barrier}" for barrier, arrived in self.waiting.items()]
        left = len(self.threads) - self.running
        return f"block {self.index.x}: " + ", ".join(parts + ([f"{left} have left the kernel"] if left else []))


class _Launch:
    """One launch of a kernel: the scheduler of its threads."""

    def __init__(
        self,
        device: EmulatedCuda,
        function: Callable[..., None],
        arguments: list[Any],
        grid: int,
        block: int,
        shared_bytes: int,
    ):
        self.function = function
        self.arguments = arguments
        self.gridDim, self.blockDim = Index(grid, 1, 1), Index(block, 1, 1)
        self.thread: _Thread | None = None
        self._device = device
        self._shared_bytes = shared_bytes
        self._scheduler = getcurrent()

    def run(self) -> None:
        """Run every thread to its end."""
        cuda = self._device.cuda
        outer, cuda.launch = cuda.launch, self
        try:
            waiting = []
            for i in self._device.ordered(range(self.gridDim.x)):
                block = _Block(i, self.blockDim.x, self._shared_bytes)
                self._start(block)
                self._advance(block)
                if block.waiting:
                    waiting.append(block)
            while waiting:
                self._meet(waiting)
                for block in self._device.ordered(waiting):
                    (arrived,) = block.waiting.values()
                    block.waiting.clear()
                    self._resume(arrived, None)
                    self._advance(block)
                waiting = [block for block in waiting if block.waiting]
        finally:
            cuda.launch = outer

    def _start(self, block: _Block) -> None:
        pending = deque(self._device.ordered(block.threads))
        while pending:
            greenlet(self._call_each).switch(pending)

    def _call_each(self, pending: deque[_Thread]) -> None:
        """Call the kernel for thread after thread; a greenlet in which one waits becomes its, and others get a new one."""
        # entered here: a greenlet does not inherit the scheduler's context
        with np.errstate(all="ignore"):
            while pending:
                thread = self.thread = pending.popleft()
                try:
                    self.function(*self.arguments)
                except Exception as error:
                    if hasattr(error, "add_note"):
                        where = f"thread {thread.index.x} of block {thread.block.index.x}"
                        error.add_note(f"in {where}, kernel {self.function.__name__}")
                    raise
                thread.done = True
                thread.block.running -= 1

    def wait(self, barrier: _Barrier, value: Any, combine: Callable[[list[_Thread]], Any] | None) -> Any:
        """Stop the running thread at a barrier; return what the values of all who meet there are combined into."""
        thread = self.running
        thread.value = value
        thread.paused = getcurrent()
        thread.block.waiting[barrier].append(thread)
        combined = self._scheduler.switch(combine)
        thread.paused = None
        return combined

    @property
    def running(self) -> _Thread:
        """The thread that runs."""
        assert self.thread is not None
        return self.thread

    def _resume(self, threads: list[_Thread], combined: Any) -> None:
        for thread in self._device.ordered(threads):
            self.thread = thread
            assert thread.paused is not None
            thread.paused.switch(combined)

    def _advance(self, block: _Block) -> None:
        """Run a block until all its threads have left or wait for the grid."""
        while ready := block.ready():
            for barrier in self._device.ordered(ready):
                arrived = block.waiting.pop(barrier)
                self._resume(arrived, _COMBINE[barrier.operation](arrived))
        if block.running and not (len(block.waiting) == 1 and next(iter(block.waiting)).scope == "grid"):
            self._divergent([block])

    def _meet(self, waiting: list[_Block]) -> None:
        """Check that the whole grid has arrived at one barrier."""
        barriers = {barrier for block in waiting for barrier in block.waiting}
        arrived = sum(len(threads) for block in waiting for threads in block.waiting.values())
        if len(barriers) != 1 or arrived != self.gridDim.x * self.blockDim.x:
            self._divergent(waiting)

    def _divergent(self, blocks: Iterable[_Block]) -> None:
        blocks = list(blocks)
        left = self.gridDim.x - len(blocks)
        states = "; ".join(block.states() for block in blocks)
        note = f"; {left} blocks have left" if left and any(
            barrier.scope == "grid" for block in blocks for barrier in block.waiting
        ) else ""
        raise DivergentBarrierError(
            f"threads of kernel {self.function.__name__} wait for each other in vain: {states}{note};"
            " every thread must reach the same barrier"
        )
