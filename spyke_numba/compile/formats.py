"""How floating-point types are laid out in bits."""

from __future__ import annotations

#: How a dtype's floats are laid out in bits: what the generated ``pow2``, ``exponent``, ``mantissa`` and keys use.
FLOAT_FORMATS: dict[str, dict[str, object]] = {
    "float32": {
        "real": "float32",
        "whole": "int32",
        "bits": 32,
        "bias": 127,
        "mantissa_bits": 23,
        "mantissa_mask": 0x007FFFFF,
        "one_bits": 0x3F800000,
        "sign_shift": 31,
        "largest": 0x7FFFFFFF,
    },
    "float64": {
        "real": "float64",
        "whole": "int64",
        "bits": 64,
        "bias": 1023,
        "mantissa_bits": 52,
        "mantissa_mask": 0x000FFFFFFFFFFFFF,
        "one_bits": 0x3FF0000000000000,
        "sign_shift": 63,
        "largest": 0x7FFFFFFFFFFFFFFF,
    },
}
