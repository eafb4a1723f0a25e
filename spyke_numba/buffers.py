"""Output memory that is used again once nobody holds it.

The system takes back large blocks when they are freed, and a page fault for each 4 KiB of a new one can cost more than
filling it.  The arrays handed out here are kept, and handed out again when nothing else refers to them (a view or a
tensor of an array refers to it).
"""

from __future__ import annotations

import sys
import threading

import numpy as np

#: Smaller arrays come from the heap without faults; larger ones, and more of them, would hold too much memory.
_SMALLEST, _LARGEST = 2**16, 2**24
_MOST_BYTES = 56 * 2**20
#: References to an array that only the pool holds: its list, the loop's variable and the count's argument.
_UNUSED = 3


class Buffers:
    """A pool of arrays; safe to share between threads."""

    def __init__(self) -> None:
        self._kept: dict[tuple[tuple[int, ...], str], list[np.ndarray]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Return an uninitialised array of this shape and dtype that nobody else holds."""
        kind = self._kept.get((shape, dtype))
        if kind is not None:
            with self._lock:
                for array in kind:
                    if sys.getrefcount(array) == _UNUSED:
                        return array
        array = np.empty(shape, dtype)
        if _SMALLEST <= array.nbytes <= _LARGEST:
            with self._lock:
                if self._bytes + array.nbytes > _MOST_BYTES:
                    self._kept.clear()
                    self._bytes = 0
                self._kept.setdefault((shape, dtype), []).append(array)
                self._bytes += array.nbytes
        return array


#: The pool that all layers share.
BUFFERS = Buffers()
