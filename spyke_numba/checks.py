"""Checks of what users give."""

from __future__ import annotations

import operator
from typing import Any


def whole_number(name: str, value: Any, least: int) -> int:
    """Return a value as an int of at least `least`.

    Raises
    ------
    TypeError, ValueError
        One sentence that names the value and what is allowed.
    """
    try:
        whole = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}: give a whole number of at least {least}") from None
    if whole < least:
        raise ValueError(f"{name} is {whole}: it must be at least {least}, so give a larger whole number")
    return whole
