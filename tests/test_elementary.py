"""exp, exp2, log and tanh against 40-digit arithmetic, on every backend, in a model that applies them to its input."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from spyke_numba import Layer, NeuronSpec
from spyke_numba.backends import Backend
from spyke_numba.ops import exp, exp2, log, maximum, minimum, sqrt, tanh

mpmath = pytest.importorskip("mpmath", reason="mpmath, the oracle, is not installed")


def _exp(I):
    return exp(I)


def _exp2(I):
    return exp2(I)


def _log(I):
    return log(I)


def _tanh(I):
    return tanh(I)


def _sqrt(I):
    return sqrt(I)


def _least(u, I):
    return minimum(I, 1.0) + maximum(I, 2.0)


FUNCTIONS = {"exp": _exp, "exp2": _exp2, "log": _log, "tanh": _tanh, "sqrt": _sqrt}
#: Greatest error in units in the last place. That of a float32 tanh is 2.57 in eight million numbers.
ULPS = {"exp": 1.0, "exp2": 1.0, "log": 1.0, "tanh": 2.6, "sqrt": 0.5}
#: What mpmath has no function for.
EXACT = {"exp2": lambda x: mpmath.mpf(2) ** x}


def apply(membrane: Any, x: np.ndarray, backend: Any) -> np.ndarray:
    spec = NeuronSpec(name="Applied", membrane=membrane)
    layer = Layer(
        spec(threshold=float(np.finfo(x.dtype).max)),
        (x.size,),
        backend=backend,
        dtype=x.dtype.name,
        nan="ignore",
    )
    return layer.run(x[None, None], ("u_pre",)).u_pre[0, 0]


@cache
def samples(name: str, dtype: str, count: int) -> np.ndarray:
    generator = np.random.default_rng(1)
    info = np.finfo(dtype)
    if name in ("exp", "exp2"):
        # below this it is 0
        unit = np.log(2) if name == "exp" else 1.0
        low, high = (info.minexp + 0.5) * unit + 1e-5, info.maxexp * unit - 1e-5
        x = np.concatenate([generator.uniform(low, high, count), generator.normal(0, 1, count)])
    elif name == "tanh":
        x = np.concatenate(
            [
                generator.normal(0, 3, count),
                generator.normal(0, 1, count) * 10.0 ** generator.uniform(-8, 0, count),
            ]
        )
    else:
        exponents = generator.uniform(np.log2(float(info.smallest_normal)) - 10, info.maxexp - 1, count)
        x = np.concatenate([2.0**exponents, generator.uniform(0.4, 2.5, count)])
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_in_units_in_the_last_place(name: str, dtype: str, backend: Backend) -> None:
    x = samples(name, dtype, 300 if backend.name == "cuda" else 5000)
    y = apply(FUNCTIONS[name], x, backend)
    with mpmath.workdps(40):
        exact = [EXACT.get(name, getattr(mpmath, name, None))(mpmath.mpf(float(value))) for value in x]
        errors = [
            abs(mpmath.mpf(float(got)) - want) / float(np.spacing(np.abs(got)))
            for got, want in zip(y, exact, strict=True)
        ]
    assert float(max(errors)) <= ULPS[name]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["exp", "exp2"])
def test_an_exponential_is_never_subnormal(name: str, dtype: str, backend: Backend) -> None:
    info = np.finfo(dtype)
    lowest, highest = (float(np.log2(end)) for end in (info.smallest_subnormal, info.smallest_normal))
    x = np.linspace(lowest - 1, highest + 1, 400) * (np.log(2) if name == "exp" else 1.0)
    y = apply(FUNCTIONS[name], x.astype(dtype), backend)
    assert ((y == 0) | (y >= info.smallest_normal)).all()
    assert (y == 0).any()
    assert (y > 0).any()
    assert (np.diff(y) >= 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_ends_of_the_range(dtype: str, backend: Backend) -> None:
    inf, nan, info = np.inf, np.nan, np.finfo(dtype)
    tables = {
        "exp": ([-inf, -800.0, 0.0, -0.0, 800.0, inf, nan], [0.0, 0.0, 1.0, 1.0, inf, inf, nan]),
        "exp2": (
            [-inf, -2000.0, 0.0, -0.0, 3.0, 2000.0, info.maxexp, info.maxexp - 1, inf, nan],
            [0.0, 0.0, 1.0, 1.0, 8.0, inf, inf, 2.0 ** (info.maxexp - 1), inf, nan],
        ),
        "log": ([-inf, -1.0, -0.0, 0.0, 1.0, inf, nan], [nan, nan, -inf, -inf, 0.0, inf, nan]),
        "tanh": ([-inf, -50.0, -0.0, 0.0, 50.0, inf, nan], [-1.0, -1.0, 0.0, 0.0, 1.0, 1.0, nan]),
    }
    for name, (arguments, values) in tables.items():
        # an infinite potential is above every threshold, but u_pre is read before the reset
        np.testing.assert_array_equal(
            apply(FUNCTIONS[name], np.array(arguments, dtype), backend), np.array(values, dtype), name
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_equal_bits_on_every_backend(name: str, dtype: str, other_backend: Backend) -> None:
    x = samples(name, dtype, 300 if other_backend.name == "cuda" else 5000)
    one, other = apply(FUNCTIONS[name], x, "cpu"), apply(FUNCTIONS[name], x, other_backend)
    np.testing.assert_array_equal(one.view(f"u{one.itemsize}"), other.view(f"u{other.itemsize}"))


def test_minimum_and_maximum_with_nan(backend: Backend) -> None:
    x = np.array([0.5, 1.5, 3.0, np.nan], np.float32)
    np.testing.assert_array_equal(apply(_least, x, backend), np.array([2.5, 3.0, 4.0, 3.0], np.float32))
    np.testing.assert_array_equal(_least(0.0, x), np.array([2.5, 3.0, 4.0, 3.0], np.float32))
