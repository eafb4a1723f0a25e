"""Checks of what users give."""

from __future__ import annotations

import operator
import sys
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


def is_tensor(value: Any) -> bool:
    """Return whether a value is a torch tensor, without importing torch, which takes a second."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def check_no_gradient(what: str, value: Any) -> None:
    """Raise a TypeError for a tensor whose gradient is wanted: it would end here, and training would not notice."""
    if is_tensor(value) and value.requires_grad and sys.modules["torch"].is_grad_enabled():
        raise TypeError(
            f"{what} requires a gradient, which ends at a compiled layer: give x.detach(), or use torch.no_grad()"
        )
