"""What a run recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np


class Recording(Mapping[str, Any]):
    """The arrays that a run or a step recorded, by name: ``recording.spikes`` or ``recording["spikes"]``.

    Attributes
    ----------
    spikes : (T, B, *shape) bool
    u, u_pre, pulses, thresholded and the model's states : (T, B, *shape)
    refractory : (T, B, *shape) int32
    winners : (T, B, k, 3) int32
        Feature, row and column in the order in which they were picked, -1 where there is none.
    """

    def __init__(self, arrays: Mapping[str, Any], give: Callable[[Any], Any] | None = None):
        self._arrays = dict(arrays)
        # a backend's arrays become the user's when they are asked for: not all of them are, and a GPU need not wait
        self._give = give
        self._given: dict[str, Any] = self._arrays if give is None else {}

    @property
    def names(self) -> tuple[str, ...]:
        """What was recorded."""
        return tuple(self._arrays)

    def __getitem__(self, name: str) -> Any:
        given = self._given.get(name)
        if given is None:
            if name not in self._arrays:
                raise KeyError(self._missing(name))
            given = self._arrays[name] if self._give is None else self._give(self._arrays[name])
            self._given[name] = self._arrays[name] = given
        return given

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def _missing(self, name: str) -> str:
        recorded = ", ".join(self._arrays) or "nothing"
        return f"{name!r} was not recorded: recorded are {recorded}; name it in record="

    def __reduce__(self) -> tuple[Any, ...]:
        return Recording, (dict(self),)

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._arrays:
            raise AttributeError(self._missing(name))
        return self[name]

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(array.shape)}" for name, array in self.items())
        return f"Recording({shapes})"

    @classmethod
    def joined(cls, blocks: Iterable[Recording], lengths: Mapping[str, int] | None = None) -> Recording:
        """Return the recording of blocks that follow each other in time.

        Parameters
        ----------
        blocks : iterable of Recording
            Blocks that nobody else refers to are freed on the way: no record is in memory twice.
        lengths : mapping of str to int, optional
            How long records will be, of those of which it is known: their blocks need not wait for the last one.
        """
        lengths = {} if lengths is None else lengths
        whole: dict[str, Any] = {}
        filled = dict.fromkeys(lengths, 0)
        waiting: dict[str, list[Any]] = {}
        for block in blocks:
            for name in block.names:
                array = block[name]
                if name not in lengths:
                    waiting.setdefault(name, []).append(array)
                    continue
                if name not in whole:
                    whole[name] = _empty_like(array, lengths[name])
                at = filled[name]
                filled[name] += len(array)
                whole[name][at : filled[name]] = array
            names = block.names
        if not waiting and not whole:
            raise ValueError("the input has no blocks: give at least one")
        return cls({name: whole[name] if name in whole else _joined(waiting[name]) for name in names})


def _empty_like(array: Any, length: int) -> Any:
    shape = (length, *array.shape[1:])
    return array.new_empty(shape) if hasattr(array, "detach") else np.empty(shape, array.dtype)


def _joined(parts: list[Any]) -> Any:
    """Return arrays one behind the other, and let go of each when it is copied."""
    if len(parts) == 1:
        return parts[0]
    whole = _empty_like(parts[0], sum(map(len, parts)))
    at = 0
    for i, part in enumerate(parts):
        whole[at : at + len(part)] = part
        at += len(part)
        parts[i] = None
    return whole
