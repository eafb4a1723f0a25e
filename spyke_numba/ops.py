"""The vocabulary of a neuron model's functions, here as numpy functions.

A model imports these names so that its functions also run as ordinary Python on numbers and arrays (plots, phase
planes, host-side constants).  Inside generated code each backend binds the same names to its own versions.

>>> from spyke_numba.ops import exp, where
>>> float(where(1.0 < 2.0, exp(0.0), 5.0))
1.0
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["abs", "exp", "exp2", "log", "maximum", "minimum", "sqrt", "tanh", "where"]

exp = np.exp
exp2 = np.exp2
log = np.log
sqrt = np.sqrt
tanh = np.tanh
where = np.where
abs = np.abs


def minimum(a: Any, b: Any) -> Any:
    """Return ``a`` where ``a < b``, else ``b`` (so a NaN in either gives ``b``), on every backend."""
    return np.where(a < b, a, b)[()]


def maximum(a: Any, b: Any) -> Any:
    """Return ``a`` where ``a > b``, else ``b`` (so a NaN in either gives ``b``), on every backend."""
    return np.where(a > b, a, b)[()]
