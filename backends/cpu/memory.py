"""Output memory that is used again once nobody holds it.

The system takes back large blocks when they are freed, and a page fault for each 4 KiB of a new one can cost more than
filling it.  The arrays handed out here are kept, and handed out again when nothing else refers to them (a view or a
tensor of an array refers to it).
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading

import numpy as np

_LINE = 64
#: Larger arrays, and more of them, would hold too much memory.
_LARGEST = 2**25
_MOST_BYTES = 56 * 2**20
#: Arrays of one shape and dtype: going through more would take longer than a new one.
_MOST_ALIKE = 8


def _references() -> int:
    """Return how many references an array has that only the pool holds, counted as the pool does.

    They are its tuple, and in most versions of Python the loop's variable and the count's argument.
    """
    count = 0
    for array in (np.empty(0),):
        count = sys.getrefcount(array)
    return count


_UNUSED = _references()


class Buffers:
    """A pool of arrays; safe to share between threads."""

    def __init__(self) -> None:
        self._kept: dict[tuple[tuple[int, ...], str], tuple[np.ndarray, ...]] = {}
        self._addresses: dict[int, int] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Return an uninitialised array of this shape and dtype that nobody else holds.

        A user gets a view of it: what is done to its shape, dtype or flags would be found by the next one.
        """
        # without the lock: a thread that looks at an array refers to it, so that no other finds it unused
        for array in self._kept.get((shape, dtype), ()):
            if sys.getrefcount(array) == _UNUSED:
                return array
        array = aligned(shape, dtype)
        if array.nbytes <= _LARGEST:
            with self._lock:
                if self._bytes + array.nbytes > _MOST_BYTES:
                    # the addresses first: an array that is gone gives its identity to another
                    self._addresses = {}
                    self._kept, self._bytes = {}, 0
                alike = self._kept.get((shape, dtype), ())
                if len(alike) < _MOST_ALIKE:
                    self._addresses[id(array)] = address(array)
                    # a new tuple, since another thread may be going through the old one
                    self._kept[shape, dtype] = (*alike, array)
                    self._bytes += array.nbytes
        return array

    def address(self, array: np.ndarray) -> int:
        """Return where the array's memory starts, which takes a while for one that is not of the pool."""
        return self._addresses.get(id(array)) or address(array)


def aligned(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return an uninitialised array that starts with a cache line, so that no vector of it lies in two.

    Views of it refer to it, as they do to an array that owns its memory.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize + _LINE
    # through an object that is no array: numpy would let views of this one refer to the owner, past it
    memory = (ctypes.c_char * size).from_buffer(np.empty(size, np.uint8))  # type: ignore[arg-type]
    return np.ndarray(shape, dtype, memory, -ctypes.addressof(memory) % _LINE)  # type: ignore[arg-type]


def address(array: np.ndarray) -> int:
    """Return where the array's memory starts."""
    try:
        # three times quicker than array.ctypes.data, but not for what is read-only or empty
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return array.ctypes.data


#: The pool that all layers share.
BUFFERS = Buffers()
