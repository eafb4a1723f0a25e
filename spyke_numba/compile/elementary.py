"""``exp``, ``exp2``, ``log`` and ``tanh`` from plain IEEE operations, written once for every backend.

A library's exponential differs in the last bit from one platform to the next, and two backends then spike at different
steps.  These functions use only operations that IEEE 754 rounds in one way (+, -, *, /, comparisons, and in float32 the
fused multiply-add) and three that take a float's bits apart, so that each backend gives the same bits; without a table
or a call they also vectorise.  They are written in a model's own vocabulary plus the primitives that a backend
supplies: ``fma`` (a*b + c rounded once), ``rint`` (ties to even), ``half_pow2`` (2**(n - 1) for whole n of a normal
result; 0 for the n just below), ``exponent`` and ``mantissa`` (x = mantissa * 2**exponent, mantissa in [1, 2), of a
positive normal x).

Greatest errors, against 40-digit arithmetic in the tests: 1 ulp for ``exp``, ``exp2`` and ``log``, 2.6 for ``tanh``.
Where an exponential is below 2**-125.5 (float64: 2**-1021.5) it is 0: processors take long over subnormal numbers, and
no neuron notices an exponential that small.

Almost every processor has an instruction for ``fma``; where there is none, as in x86-64 before 2013, it is computed in
software, with the same bits and in about twenty times the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from spyke_numba.model.expressions import PRIMITIVES, Function, read

# ruff: noqa: F821 - the primitives are bound in the generated code

# Each exponential is 2**n times one of an argument near 0, computed as twice that times 2**(n - 1), since 2**n itself
# may be too large; where n is least, 2**(n - 1) is 0.


# 2 (exp(r) - 1) / r on |r| <= ln(2)/2, so that exp(r) is off by 4e-9 at most.  One fused operation after the other:
# more of them at once (Estrin 1960) would be more operations, and several neurons go side by side in any case.
def _twice_slope32(r):
    p = fma(fma(r, 0.00276291721, 0.0167374361), r, 0.0833367766)
    return fma(fma(fma(p, r, 0.333330412), r, 0.999999869), r, 2.0)


# exp(r) - 1 on the same range, by Taylor's series: the first neglected term is below a tenth of an ulp.
def _expm1_reduced64(r):
    p = ((r * (1 / 6227020800) + (1 / 479001600)) * r + (1 / 39916800)) * r + (1 / 3628800)
    p = (((p * r + (1 / 362880)) * r + (1 / 40320)) * r + (1 / 5040)) * r + (1 / 720)
    p = (((p * r + (1 / 120)) * r + (1 / 24)) * r + (1 / 6)) * r + 0.5
    return p * (r * r) + r


# A polynomial of its own, since x - n is exact: 2**f on |f| <= 1/2, off by 2e-9 at most.
def _exp2_32(x):
    x = where(x < -126.0, -126.0, x)
    x = where(x > 128.0, 128.0, x)
    n = rint(x)
    f = x - n
    p = fma(fma(f, 3.07067119e-4, 2.67977541e-3), f, 1.92368748e-2)
    p = fma(fma(fma(p, f, 0.111006649), f, 0.480452958), f, 1.3862944)
    return fma(p, f, 2.0) * half_pow2(n)


def _exp2_64(x):
    x = where(x < -1022.0, -1022.0, x)
    x = where(x > 1024.0, 1024.0, x)
    n = rint(x)
    m = expm1_reduced((x - n) * 0.6931471805599453) + 1.0
    return (m + m) * half_pow2(n)


# x = n*ln(2) + r with ln(2) in two parts, the first short enough for n times it to be exact (Cody & Waite 1980).
def _exp32(x):
    x = where(x < -87.5, -87.5, x)
    x = where(x > 89.0, 89.0, x)
    n = rint(x * 1.4426950408889634)
    r = fma(n, 2.1219444005469057e-4, fma(n, -0.693359375, x))
    return fma(twice_slope(r), r, 2.0) * half_pow2(n)


def _exp64(x):
    x = where(x < -708.5, -708.5, x)
    x = where(x > 710.0, 710.0, x)
    n = rint(x * 1.4426950408889634)
    r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10
    m = expm1_reduced(r) + 1.0
    return (m + m) * half_pow2(n)


# tanh|x| = -m / (m + 2) with m = exp(-2|x|) - 1, which keeps its digits near 0.
def _tanh32(x):
    y = -2.0 * abs(x)
    y = where(y < -20.0, -20.0, y)
    n = rint(y * 1.4426950408889634)
    r = fma(n, 2.1219444005469057e-4, fma(n, -0.693359375, y))
    half = half_pow2(n)
    m = fma(twice_slope(r), half * r, (half + half) - 1.0)
    t = -m / (m + 2.0)
    return where(x < 0.0, -t, t)


def _tanh64(x):
    y = -2.0 * abs(x)
    y = where(y < -40.0, -40.0, y)
    n = rint(y * 1.4426950408889634)
    r = (y - n * 0.6931471803691238) - n * 1.9082149292705877e-10
    scale = half_pow2(n + 1.0)
    m = scale * expm1_reduced(r) + (scale - 1.0)
    t = -m / (m + 2.0)
    return where(x < 0.0, -t, t)


# log(m) = 2 artanh(s), s = (m - 1)/(m + 1), m in [sqrt(1/2), sqrt(2)], |s| < 0.172: the odd series in s.
def _log32(x):
    tiny = x < 1.1754943508222875e-38
    y = where(tiny, x * 33554432.0, x)
    m = mantissa(y)
    high = m > 1.4142135623730951
    m = where(high, m * 0.5, m)
    n = exponent(y) + where(high, 1.0, 0.0) - where(tiny, 25.0, 0.0)
    f = m - 1.0
    s = f / (m + 1.0)
    z = s * s
    tail = ((z * (2 / 9) + (2 / 7)) * z + (2 / 5)) * z + (2 / 3)
    correction = 0.5 * (f * f)
    # 2 artanh(s) = f - (f^2/2 - s (f^2/2 + tail z)): f is exact, and the rest is small beside it
    result = n * 0.693359375 + (f - (correction - (s * (correction + tail * z) + n * -2.1219444005469057e-4)))
    result = where(x == 0.0, -1e999, result)
    result = where(x < 0.0, 1e999 - 1e999, result)
    return where(x < 1e999, result, x)


def _log64(x):
    tiny = x < 2.2250738585072014e-308
    y = where(tiny, x * 18014398509481984.0, x)
    m = mantissa(y)
    high = m > 1.4142135623730951
    m = where(high, m * 0.5, m)
    n = exponent(y) + where(high, 1.0, 0.0) - where(tiny, 54.0, 0.0)
    f = m - 1.0
    s = f / (m + 1.0)
    z = s * s
    tail = (((z * (2 / 23) + (2 / 21)) * z + (2 / 19)) * z + (2 / 17)) * z + (2 / 15)
    tail = ((((tail * z + (2 / 13)) * z + (2 / 11)) * z + (2 / 9)) * z + (2 / 7)) * z + (2 / 5)
    tail = tail * z + (2 / 3)
    correction = 0.5 * (f * f)
    result = n * 0.6931471803691238 + (
        f - (correction - (s * (correction + tail * z) + n * 1.9082149292705877e-10))
    )
    result = where(x == 0.0, -1e999, result)
    result = where(x < 0.0, 1e999 - 1e999, result)
    return where(x < 1e999, result, x)


def _minimum(a, b):
    return where(a < b, a, b)


def _maximum(a, b):
    return where(a > b, a, b)


_BY_DTYPE = {
    "float32": {
        "twice_slope": _twice_slope32,
        "exp": _exp32,
        "exp2": _exp2_32,
        "log": _log32,
        "tanh": _tanh32,
    },
    "float64": {
        "expm1_reduced": _expm1_reduced64,
        "exp": _exp64,
        "exp2": _exp2_64,
        "log": _log64,
        "tanh": _tanh64,
    },
}


@cache
def functions(dtype: str) -> Mapping[str, Function]:
    """Return the elementary functions of a dtype (``"float32"`` or ``"float64"``), each before those that call it."""
    chosen: dict[str, Any] = {**_BY_DTYPE[dtype], "minimum": _minimum, "maximum": _maximum}
    return {name: read(function, f"elementary.{name}", PRIMITIVES) for name, function in chosen.items()}
