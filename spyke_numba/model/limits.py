"""What holds for every model and every backend."""

from __future__ import annotations

DTYPES = ("float32", "float64")
#: Of a refractory period, and of one launch: so that the sum of two fits into an int32.
MOST_STEPS = 2**30 - 1
