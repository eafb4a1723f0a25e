"""SpykeTorch's order of winners, against its definition in exact arithmetic."""

from __future__ import annotations

import dataclasses
import importlib
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from cases import assert_same
from emulated import EMULATED, emulated_cuda
from reference import choose_winners, inhibited_set

from spyke_numba import KWTA, Layer, Uniform, backends, models
from spyke_numba.backends.cpu import ranks
from spyke_numba.buffers import address

RECORD = ("spikes", "u_pre", "winners", "refractory")
KNOWING = [name for name in backends.names() if backends.get(name).any_order]
#: Of the drop-in, as SpykeTorch divides it in each type.
AMPLITUDES = {"float32": float(np.float32(1) / np.float32(0.001)), "float64": 1 / 0.001}


def rounded(exact: Fraction, dtype: str) -> Any:
    """The nearest number of a type, of two the one whose last bit is 0: a way through float64 would round twice."""
    real = np.dtype(dtype).type
    try:
        near = real(float(exact))
    except OverflowError:
        return real(np.inf if exact > 0 else -np.inf)
    if not np.isfinite(near):
        return near
    around = [near, np.nextafter(near, real(-np.inf)), np.nextafter(near, real(np.inf))]
    bits = {"float32": np.int32, "float64": np.int64}[dtype]
    finite = [one for one in around if np.isfinite(one)]
    return min(finite, key=lambda one: (abs(Fraction(float(one)) - exact), int(one.view(bits)) & 1))


def fused(a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""
    if not (np.isfinite(a) and np.isfinite(b) and np.isfinite(c)):
        return a * b + c
    return rounded(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)), a.dtype.name)


def sums_of(u: np.ndarray, spiked: np.ndarray, amplitude: float) -> np.ndarray:
    """What SpykeTorch orders the neurons of one sample by in one step, where they spiked."""
    s = u.dtype.type(amplitude)
    sums = np.full_like(u, -np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        largest = s * u[spiked].max(initial=-np.inf)
        for place in zip(*np.nonzero(spiked), strict=True):
            # the drop-in's potentials may be all negative: the original has no winners then
            total = fused(s, largest, s * u[place])
            sums[place] = total if total > np.finfo(u.dtype).min else np.finfo(u.dtype).min
    return sums


def in_flat_maps(array: np.ndarray) -> np.ndarray:
    """(T, B, F, H, W) of this, or of a population (T, B, N)."""
    return array if array.ndim == 5 else array[..., None, None]


def check(run: Any, inhibition: KWTA, amplitude: float, periods: np.ndarray | int) -> list[int]:
    """Assert that winners and counters are those of the definition, and return in how many steps of how many they are
    others than those of the exact order."""
    spikes, u, won, counters = (in_flat_maps(np.asarray(run[n])) for n in ("spikes", "u_pre", "winners", "refractory"))
    won = np.asarray(run["winners"])
    different = [0, 0]
    periods = np.broadcast_to(periods, u.shape[2:])
    for t, b in np.ndindex(u.shape[:2]):
        spiked = spikes[t, b]
        keys = u[t, b] if inhibition.exact_order else sums_of(u[t, b], spiked, amplitude)
        expected = choose_winners(spiked, keys, inhibition.k, inhibition.radius)
        got = [tuple(map(int, winner)) for winner in won[t, b] if winner[0] >= 0]
        assert got == expected, f"step {t}, sample {b}"
        assert (won[t, b, len(got) :] == -1).all()
        exact = choose_winners(spiked, u[t, b], inhibition.k, inhibition.radius)
        different[0] += exact != expected
        different[1] += bool(expected)
        counter = np.maximum(counters[t - 1, b] - 1, 0) if t else np.zeros(u.shape[2:], int)
        longest = np.full(u.shape[2:], -1)
        for winner in expected:
            members = inhibited_set(winner, inhibition.scope, u.shape[2:])
            longest[members] = np.maximum(longest[members], periods[winner])
        assert (counters[t, b] == np.where(longest >= 0, longest, counter)).all()
    return different


def near_ties(seed: int, T: int, B: int, shape: tuple[int, ...], dtype: str, kind: str = "convolved") -> np.ndarray:
    """Inputs (T, B, *shape) of which many are almost equal."""
    generator = np.random.default_rng(seed)
    if kind == "convolved":
        # of waves of 0 and 1 with weights that are alike, as a network's are before it has learnt
        F, H, W = shape if len(shape) == 3 else (shape[0], 1, 1)
        spread = 1e-3 if dtype == "float32" else 2e-12
        waves = generator.random((T, B, 4, H + 2, W + 2)) < 0.4
        weights = generator.normal(0.8, spread, (F, 4, 3, 3)).astype(dtype)
        windows = np.lib.stride_tricks.sliding_window_view(waves, (3, 3), axis=(3, 4))
        return np.einsum("tbchwij,fcij->tbfhw", windows.astype(dtype), weights).reshape(T, B, *shape)
    # a few levels, and numbers a few roundings from them
    levels = generator.uniform([5, 12, 12, 12], [10, 13, 15, 15]).astype(dtype)
    bits = levels.view({"float32": np.int32, "float64": np.int64}[dtype])
    place = (T, B, *shape)
    return (bits[generator.integers(0, 4, place)] + generator.integers(-2000, 2000, place, bits.dtype)).view(dtype)


def neuron_of(dtype: str, threshold: Any = 11.0, **more: Any) -> Any:
    """One whose potential is its input in the step after a reset, and leaks."""
    given = {"refractory_timesteps": 1, "spike_amplitude": AMPLITUDES[dtype], **more}
    return models.LIF_Simple(threshold=threshold, **given)


@pytest.mark.parametrize("kind", ["convolved", "levels"])
@pytest.mark.parametrize("scope", ["feature", "location", "global"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_winners_are_those_of_the_definition(dtype: str, scope: Any, kind: str) -> None:
    """Every backend that knows the order, radius and several k, in batches; some in both orders."""
    differ, same = np.zeros((2, 2)), 0
    for i, (shape, B, k, radius) in enumerate(
        [
            ((5, 6, 7), 3, 1, 0),
            ((12, 5, 6), 2, 8, 0),
            ((8, 7, 9), 1, 5, 1),
            ((8, 7, 9), 2, 8, 2),
            ((6, 9, 5), 1, 4, 3),
            ((60,), 2, 5, 0),
        ]
    ):
        x = near_ties(i, 12, B, shape, dtype, kind)
        for exact in (False, True):
            inhibition = KWTA(k, scope, radius, exact_order=exact)
            runs = [
                Layer(neuron_of(dtype), shape, B, inhibition, name, dtype).run(x, RECORD)
                for name in ("cpu", "torch")
            ]
            assert_same(*runs)
            changed, steps = check(runs[0], inhibition, AMPLITUDES[dtype], 1)
            if exact:
                assert changed == 0
                same += steps
            else:
                differ[:, int(radius > 0)] += changed, steps
    assert same > 40, differ
    # else this test could not fail
    assert (differ[0] > 0.05 * differ[1]).all(), differ
