"""Which feature maps are meant by indices, masks or winners, for one wave or for each sample of a batch."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np


def listed_maps(features: Any, shape: Sequence[int]) -> list[list[int]]:
    """Return indices of maps of waves (T, F, H, W) or (B, T, F, H, W): one list for all samples, or one for each.

    Raises
    ------
    TypeError, ValueError
        If something is no index of a map, or there are not as many lists as samples.
    """
    maps = shape[-3]
    if len(shape) == 4 or not _is_for_each_sample(features):
        return [_indices(features, maps)]
    if len(features) != shape[0]:
        raise ValueError(
            f"there are {len(features)} lists of features, but {shape[0]} samples; give one list of indices, or one"
            " for each sample"
        )
    return [_indices(sample, maps) for sample in features]


def _is_for_each_sample(features: Any) -> bool:
    shape = getattr(features, "shape", None)
    if shape is not None:
        # (n, 1) is what nonzero() gives, for all samples
        return len(shape) == 3 or (len(shape) == 2 and shape[1] != 1)
    return isinstance(features, Sequence) and any(_has_items(item) for item in features)


def _has_items(item: Any) -> bool:
    if hasattr(item, "shape"):
        return len(item.shape) > 0
    return isinstance(item, Sequence) and not isinstance(item, str)


def _indices(features: Any, maps: int) -> list[int]:
    """Return the maps that indices, a mask or winners name, from 0."""
    if type(features) is list and all(type(item) is int and 0 <= item < maps for item in features):
        return features
    listed = features.tolist() if hasattr(features, "tolist") else features
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        listed = [listed]
    if listed and all(isinstance(item, (bool, np.bool_)) for item in listed):
        if len(listed) != maps:
            raise ValueError(
                f"the mask of features has {len(listed)} entries; give one for each of the {maps} maps"
            )
        return [feature for feature, inhibited in enumerate(listed) if inhibited]
    found = set()
    for item in listed:
        row = list(item) if _has_items(item) else [item]
        if len(row) not in (1, 3):
            raise ValueError(
                f"{item!r} names no feature; give whole numbers from 0 to {maps - 1} or winners (f, r, c)"
            )
        # how layers record that there was no winner
        if row != [-1, -1, -1]:
            found.add(_index(row[0], maps))
    return sorted(found)


def _index(item: Any, maps: int) -> int:
    try:
        index = operator.index(item)
    except TypeError:
        raise TypeError(f"{item!r} is no feature; give whole numbers from 0 to {maps - 1}") from None
    if not -maps <= index < maps:
        raise ValueError(f"there is no feature {index}; give whole numbers from 0 to {maps - 1}")
    return index % maps
