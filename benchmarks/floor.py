"""What no layer can beat: the memory traffic of a step, and the arithmetic that a core can do.

A step must read a float32 input and write a byte of spikes.  The floor is the time of a copy that does only this,
over arrays of the same size and with as many threads, into output memory that exists already.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, prange, set_num_threads

from spyke_numba.backends.cpu.memory import address, aligned
from spyke_numba.backends.cpu.parts import atomic_add, use_widest_vectors, wait_until
from spyke_numba.backends.cpu.team import LINE
from spyke_numba.benchmarks.measuring import interleaved

#: Elements that a thread takes at a time.
PIECE = 16_384
#: For this long an idle OpenMP thread keeps a core busy, which the next contestant shall not pay for.
SPINNING_SECONDS = 0.002
#: Products and sums for each element of the arithmetic kernel.
CHAIN = 16


@njit(error_model="numpy")
def _copy_row(row, out):
    for j in range(row.size):
        out[j] = row[j] >= np.float32(0.5)


@njit(cache=True, error_model="numpy")
def copy(x, out):
    """Read every float of ``x`` and write a byte for it."""
    _copy_row(x, out)


@njit(cache=True, parallel=True, error_model="numpy")
def copy_on_threads(x, out):
    """Do the same on numba's threads."""
    for piece in prange((x.size + PIECE - 1) // PIECE):
        lo = piece * PIECE
        hi = min(lo + PIECE, x.size)
        _copy_row(x[lo:hi], out[lo:hi])


@njit(cache=True, error_model="numpy")
def copy_again(row, out, times):
    """Copy one row so often: it and its output stay in the cache."""
    for _ in range(times):
        _copy_row(row, out)


@njit(cache=True, error_model="numpy")
def arithmetic(x, out, times):
    """Do `CHAIN` products and sums for each element, in four chains that need not wait for each other.

    No compiler may contract or reorder them.
    """
    use_widest_vectors()  # type: ignore[call-arg]
    a, b = np.float32(0.999), np.float32(0.001)
    for _ in range(times):
        for j in range(x.size):
            p = x[j]
            q, r, s = p + a, p + b, p - a
            for _ in range(CHAIN // 4):
                p, q, r, s = p * a + b, q * a + b, r * a + b, s * a + b
            out[j] = (p + q) + (r + s)


def copying(x: np.ndarray, out: np.ndarray, threads: int) -> Callable[[], float]:
    """Return a contestant that copies ``x`` to ``out`` and times itself."""

    def run() -> float:
        if threads == 1:
            started = time.perf_counter()
            copy(x, out)
            return time.perf_counter() - started
        set_num_threads(threads)
        started = time.perf_counter()
        copy_on_threads(x, out)
        seconds = time.perf_counter() - started
        time.sleep(SPINNING_SECONDS)
        return seconds

    return run


def copying_on_gpu(x: Any, wait: Callable[[], None]) -> Callable[[], None]:
    """Return a contestant that moves as many bytes on the GPU that holds the tensor ``x``, by the device's own copy.

    It reads and writes 4 bytes for 5 of 8 elements, instead of reading 4 and writing 1 for each.
    """
    part = x.reshape(-1)[: x.numel() * 5 // 8]
    out = part.clone()

    def run() -> None:
        out.copy_(part)
        wait()

    return run


def copying_in_cache(neurons: int, steps: int) -> Callable[[], None]:
    """Return a contestant that copies as much, but always the same row."""
    row, out = np.random.default_rng(0).random(neurons, np.float32), np.empty(neurons, bool)
    return lambda: copy_again(row, out, steps)


@njit("void(int64, int64, int64)", cache=True, nogil=True)
def take_turns(number, me, turns):
    """Wait for each turn of one's own, and give it to the other thread, by a number at an address."""
    for i in range(turns):
        wait_until(number, 2 * i + me)
        atomic_add(number, 1)


def handover_ns(turns: int = 20_000) -> float:
    """Return the nanoseconds that a cache line takes from one core to another, by which threads meet; needs two cores.

    Those of a virtual machine lie together at one time, and apart at another.
    """
    number = aligned((LINE // 8,), "int64")
    number[...] = 0
    other = threading.Thread(target=take_turns, args=(address(number), 1, turns))
    other.start()
    started = time.perf_counter()
    take_turns(address(number), 0, turns)
    seconds = time.perf_counter() - started
    other.join()
    return seconds / (2 * turns) * 1e9


def peak_arithmetic(seconds: float = 0.3) -> float:
    """Return the operations a second of one thread on data in its cache."""
    x, out, times = np.ones(4096, np.float32), np.empty(4096, np.float32), 100
    arithmetic(x, out, 1)
    took = interleaved({"chain": lambda: arithmetic(x, out, times)}, seconds)["chain"]
    # and three sums to begin with, and three at the end
    return (2 * CHAIN + 6) * x.size * times / took
