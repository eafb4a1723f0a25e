"""The functions between the layers, against what their definitions say in plain Python loops."""

from __future__ import annotations

import copy
import inspect
import math
import platform
import subprocess
import sys
import time
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="spyke_numba.functional works on torch tensors")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from spyke_numba.benchmarks import functional_baseline  # noqa: E402
from spyke_numba.benchmarks.functional import calls, digest  # noqa: E402
from spyke_numba.spyketorch import functional as sf  # noqa: E402
from spyke_numba.spyketorch import functional_cpu, functional_torch  # noqa: E402

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int32, torch.int64]
NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_CUDA])]
#: What may not happen while winners are chosen: one number, or an unknown count of them, asked of the device.
TRANSFERS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2")


# ------------------------------------------------------------------------------------------------------------
# Oracles: nested lists and loops, nothing of torch


def first_spikes(potentials, spikes):
    """Return {(f, r, c): (step of its first spike, potential then)} of one sample, for those that fire."""
    steps, *space = potentials.shape
    found = {}
    for f, r, c in product(*map(range, space)):
        fires = [t for t in range(steps) if spikes[t, f, r, c] > 0]
        if fires:
            found[f, r, c] = (fires[0], potentials[fires[0], f, r, c].item())
    return found


def slow_winners(potentials, k, radius, spikes):
    candidates = first_spikes(potentials, spikes)
    winners = []
    while candidates and len(winners) < k:
        f, r, c = min(candidates, key=lambda place: (candidates[place][0], -candidates[place][1], place))
        winners.append((f, r, c))
        candidates = {
            (g, i, j): value
            for (g, i, j), value in candidates.items()
            if g != f and not (radius > 0 and abs(i - r) <= radius and abs(j - c) <= radius)
        }
    return winners


def rounded(exact, bits):
    """Return a fraction rounded to so many bits, half to even."""
    if exact == 0:
        return exact
    exponent = math.floor(math.log2(abs(exact)))
    exponent += (abs(exact) >= Fraction(2) ** (exponent + 1)) - (abs(exact) < Fraction(2) ** exponent)
    last = Fraction(2) ** (exponent - bits + 1)
    return round(exact / last) * last


def slow_original_winners(potentials, k, radius, spikes, bits):
    """Return the winners by the sum over t of fma(s, v, s * p), each operation rounded to so many bits."""
    exactly = np.vectorize(Fraction, otypes=[object])
    steps, *space = potentials.shape
    p, s = exactly(potentials), exactly(spikes)
    counts = np.vectorize(lambda x: (x > 0) - (x < 0))(s).sum(0)
    first = np.clip(steps - counts, 0, steps - 1).astype(int)
    value = np.take_along_axis(p, first[None], 0)[0]
    reached = np.array([[rounded(x, bits) for x in (row * value).flat] for row in s]).reshape(p.shape)
    v = rounded(reached.max() * steps, bits)
    neurons = math.prod(space)
    # four vectors of 32 bytes are added up in the order of steps (four numbers, if there are fewer than a vector
    # has), the rest of a sample in four lanes
    vector = 8 if bits == 24 else 4
    whole = neurons - neurons % (4 * vector if neurons >= vector else 4)
    totals = {}
    for n, place in enumerate(np.ndindex(*space)):
        added = [rounded(s[t][place] * v + reached[t][place], bits) for t in range(steps)]

        def summed(numbers):
            # sixteen steps make a sum of their own
            before = total = Fraction(0)
            for done, number in enumerate(numbers, start=1):
                total = rounded(total + number, bits)
                if done % 16 == 0:
                    before, total = rounded(before + total, bits), Fraction(0)
            return rounded(total + before, bits)

        if n < whole:
            total = summed(added)
        else:
            length = steps // 4 * 4
            lanes = [summed(added[lane:length:4]) for lane in range(4)]
            lanes[0] = summed([lanes[0], *added[length:]])
            total = summed(lanes)
        if counts[place] > 0 and total > 0:
            totals[place] = total
    winners = []
    while totals and len(winners) < k:
        f, r, c = min(totals, key=lambda place: (-totals[place], place))
        winners.append((f, r, c))
        totals = {
            (g, i, j): value
            for (g, i, j), value in totals.items()
            if g != f and not (radius > 0 and abs(i - r) <= radius and abs(j - c) <= radius)
        }
    return winners


def slow_pointwise(potentials):
    """Return the wave of the survivors: the largest at step T - (steps in which anything fires there)."""
    result = np.zeros_like(potentials)
    steps, _, rows, columns = potentials.shape
    for r, c in product(range(rows), range(columns)):
        largest = [max(potentials[t, :, r, c]) for t in range(steps)]
        if largest[-1] > 0:
            fired = sum(peak > 0 for peak in largest) - sum(peak < 0 for peak in largest)
            survivor = list(potentials[steps - max(fired, 1), :, r, c])
            survivor = survivor.index(max(survivor))
            result[:, survivor, r, c] = potentials[:, survivor, r, c]
    return result


def window_of(image, r, c, rows, columns, outside):
    """Return {(i, j): value} of the window around (r, c), `outside` beyond the border."""
    height, width = image.shape
    window = {}
    for i, j in product(range(rows), range(columns)):
        y, x = r + i - rows // 2, c + j - columns // 2
        window[i, j] = image[y, x] if 0 <= y < height and 0 <= x < width else outside
    return window


def on_each_map(function, waves):
    """Apply a function of an image to each map of waves (..., H, W)."""
    images = waves.reshape(-1, *waves.shape[-2:])
    results = np.stack([function(image) for image in images])
    return results.reshape(*waves.shape[:-2], *results.shape[-2:])


# ------------------------------------------------------------------------------------------------------------
# Inputs: few distinct values, so that ties and plateaus are the rule


@st.composite
def waves(draw, dtypes=tuple(DTYPES), batched=False):
    """Return potentials and spikes (or None), with ties, negative values, silent neurons, odd strides."""
    batch = draw(st.integers(1, 3)) if batched else 1
    shape = (batch, *(draw(st.integers(1, high)) for high in (4, 5, 5, 6)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(dtypes))
    levels = draw(st.integers(1, 6))
    values = rng.integers(-levels, levels + 1, shape).astype(float)
    if dtype.is_floating_point:
        values *= draw(st.sampled_from([0.25, 1.0, 1.0 + 2**-7]))
        values[values == 0] *= -1.0
    kind = draw(st.sampled_from(["cumulative", "any", "sparse", "silent", "all"]))
    if kind == "cumulative":
        values = np.maximum.accumulate(values, axis=1)
    elif kind == "sparse":
        values[rng.random(shape) < 0.9] = 0
    elif kind == "silent":
        values = -np.abs(values)
    elif kind == "all":
        values = np.abs(values) + 1
    potentials = torch.from_numpy(values).to(dtype)
    spikes = None
    if draw(st.booleans()):
        fires = np.maximum.accumulate(rng.random(shape) < draw(st.sampled_from([0.0, 0.1, 0.6])), axis=1)
        spikes = torch.from_numpy(fires).to(draw(st.sampled_from([torch.bool, torch.uint8, dtype])))
    if draw(st.booleans()):
        # The same values on strides that are not contiguous.
        potentials = potentials.permute(4, 2, 0, 3, 1).contiguous().permute(2, 4, 1, 3, 0)
    if not batched:
        potentials = potentials[0]
        spikes = None if spikes is None else spikes[0]
    return potentials, spikes


def as_numpy(tensor):
    return tensor.to(torch.float64).numpy() if tensor.is_floating_point() else tensor.numpy()


radii = st.integers(0, 3)
counts = st.integers(0, 7)


# ------------------------------------------------------------------------------------------------------------
# Winners


@settings(max_examples=400, deadline=None)
@given(waves(), counts, radii)
def test_winners_are_those_of_the_definition(given_waves, k, radius):
    potentials, spikes = given_waves
    before = copy.deepcopy((potentials, spikes))
    found = sf.get_k_winners(potentials, k, radius, spikes, exact_order=True)
    values = as_numpy(potentials)
    assert found == slow_winners(values, k, radius, values if spikes is None else as_numpy(spikes))
    assert all(type(winner) is tuple and all(type(index) is int for index in winner) for winner in found)
    assert torch.equal(potentials, before[0])
    assert spikes is None or torch.equal(spikes, before[1])


@settings(max_examples=100, deadline=None)
@given(waves(batched=True), counts, radii, st.booleans())
def test_a_batch_is_its_samples(given_waves, k, radius, exact):
    potentials, spikes = given_waves
    alone = [
        sf.get_k_winners(sample, k, radius, None if spikes is None else spikes[b], exact_order=exact)
        for b, sample in enumerate(potentials)
    ]
    assert sf.get_k_winners(potentials, k, radius, spikes, exact_order=exact) == alone


@st.composite
def near_ties(draw, dtypes=(torch.float32, torch.float64)):
    """Return firing waves of potentials that differ by a few units in the last place, and their spikes."""
    shape = tuple(draw(st.integers(1, high)) for high in (20, 5, 4, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(dtypes))
    scale = draw(st.sampled_from([1.0, 6.4, 0.37, 1e3]))
    last_places = rng.integers(-40, 41, shape) * torch.finfo(dtype).eps / 4
    potentials = torch.from_numpy(scale * (1 + rng.integers(0, 2, shape) / 8) * (1 + last_places)).to(dtype)
    # many that fire first in the same step
    latest = rng.integers(0, draw(st.sampled_from([2, shape[0] + 1])), shape[1:])
    fires = torch.from_numpy(np.arange(shape[0])[:, None, None, None] >= latest)
    gaps = draw(st.sampled_from([0.0, 0.05]))
    fires &= torch.from_numpy(rng.random(shape) >= gaps)
    height = draw(st.sampled_from([1.0, 1 / 0.001, 3.0, 0.3]))
    return potentials * fires, fires.to(dtype) * height


@settings(max_examples=150, deadline=None)
@given(near_ties(), counts, radii)
def test_the_usual_order_is_the_originals_rounded_one(given_waves, k, radius):
    potentials, spikes = given_waves
    bits = 24 if potentials.dtype == torch.float32 else 53
    with np.errstate(all="raise"):
        expected = slow_original_winners(as_numpy(potentials), k, radius, as_numpy(spikes), bits)
    # of waves with gaps, the step taken for the first may hold no potential at all: then the sum says nothing
    assume(expected or k == 0 or not (spikes > 0).any())
    assert sf.get_k_winners(potentials, k, radius, spikes) == expected
    given = (potentials[None], spikes[None], min(k, len(potentials[0])), radius, False)
    if k:
        found = functional_torch.winners(*given)[0].tolist()
        rows, columns = potentials.shape[2:]
        assert [sf._position(index, rows, columns) for index in found if index >= 0] == expected


def test_orders_differ_where_the_sum_rounds():
    potentials = torch.full((4, 2, 1, 1), 6.4)
    potentials[:, 1] = 6.4 + 2**-21
    assert sf.get_k_winners(potentials, 2) == [(0, 0, 0), (1, 0, 0)]
    assert sf.get_k_winners(potentials, 2, exact_order=True) == [(1, 0, 0), (0, 0, 0)]
    for dtype in (torch.float16, torch.bfloat16):
        # 16 bits are added up in 32, where their neighbours differ
        low = torch.full((4, 2, 1, 1), 6.5, dtype=dtype)
        low[:, 1] = torch.nextafter(low[0, 0, 0, 0], torch.tensor(9.0, dtype=dtype))
        assert sf.get_k_winners(low, 2) == [(1, 0, 0), (0, 0, 0)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32, torch.int64])
def test_negative_potentials_that_fire_win_in_the_exact_order(dtype):
    potentials = torch.tensor([-70, -50, -60]).to(dtype).view(1, 3, 1, 1)
    assert sf.get_k_winners(potentials, 3, spikes=potentials != 0) == [(1, 0, 0), (2, 0, 0), (0, 0, 0)]


def test_winners_of_signs_at_the_end():
    """Negative potentials do not win, but count in the largest of the sum, and so in how it rounds."""
    potentials = torch.tensor([[0.0, 0.0, 0.0], [6.4, 6.4 + 2**-18, -3e4]]).view(2, 3, 1, 1)
    spikes, kept = sf.fire(potentials, None, return_thresholded_potentials=True)
    assert spikes[-1].flatten().tolist() == [1.0, 1.0, -1.0]
    assert sf.get_k_winners(kept, 3, 0, spikes) == [(0, 0, 0), (1, 0, 0)]
    kept[:, 2], spikes[:, 2] = 0.0, 0.0
    assert sf.get_k_winners(kept, 3, 0, spikes) == [(1, 0, 0), (0, 0, 0)]


HARD = [0.0, -0.0, 1.0, 1.0 + 2**-23, -1.0, 2.5, 1e-45, 1e-310, 3e38, 1e300, np.inf, -np.inf, np.nan]


@st.composite
def hard_waves(draw):
    """Return a batch of waves of numbers that no wave should hold, and spikes or None."""
    shape = tuple(draw(st.integers(1, high)) for high in (2, 6, 4, 3, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    values = draw(st.lists(st.sampled_from(HARD), min_size=1, max_size=6))
    potentials = torch.from_numpy(rng.choice(values, shape)).to(dtype)
    if draw(st.booleans()):
        return potentials, None
    heights = draw(st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.3, 999.99994, np.inf, np.nan]), min_size=1))
    return potentials, torch.from_numpy(rng.choice(heights, shape)).to(dtype)


@settings(max_examples=400, deadline=None)
@given(hard_waves(), counts, radii)
def test_compiled_loops_and_torch_agree_on_whatever_numbers(given_waves, k, radius):
    potentials, spikes = given_waves
    kwta = min(k, potentials.shape[2])
    found = sf.get_k_winners(potentials, k, radius, spikes)
    if kwta:
        chosen = functional_torch.winners(potentials, spikes, kwta, radius, False).tolist()
        rows, columns = potentials.shape[3:]
        assert found == [[sf._position(n, rows, columns) for n in sample if n >= 0] for sample in chosen]
    compiled = sf.pointwise_inhibition(potentials)
    survives = functional_torch.survivors(potentials).unsqueeze(1)
    assert same(compiled, torch.where(survives, potentials, 0))
    kernel = torch.tensor([[-0.3, 0.1, 0.2], [0.7, 0.0, -0.9], [0.1, 0.1, 1e30]], dtype=potentials.dtype)
    assert same(
        sf.intensity_lateral_inhibition(potentials, kernel), functional_torch.lateral(potentials, kernel)
    )
    needing = potentials.clone().requires_grad_()
    for function in (
        lambda x: sf.pooling(x, 2, 1, 1),
        lambda x: sf.pooling(x, (1, 3), (2, 3), (0, 1)),
        lambda x: sf.local_normalization(x, 1),
        lambda x: sf.pad(x, (1, 2, 0, 3)),
        sf.pointwise_inhibition,
    ):
        assert same(function(potentials), function(needing).detach())
    for level in (0.0, 1.0, -2.0, 1e300, -np.inf, np.inf):
        below = ~(potentials > level)
        kept = potentials.masked_fill(below, 0)
        assert all(map(same, sf.fire(potentials, level, True), (kept.sign(), kept)))
        assert same(sf.threshold(potentials, level), kept)
        assert same(sf.threshold_(potentials.clone(), level), kept)
        assert same(sf.fire_(potentials.clone(), level), kept.sign())


def same(a, b):
    """Return whether tensors are equal bit for bit, any NaN being equal to any NaN."""
    signs = torch.equal(torch.signbit(a) & (a == a), torch.signbit(b) & (b == b))
    return signs and torch.equal(a.nan_to_num(0.125), b.nan_to_num(0.125)) and torch.equal(a != a, b != b)


def test_the_comparison_sees_a_sign_and_a_nan():
    zero, nan = torch.tensor([0.0]), torch.tensor([np.nan])
    assert same(zero, zero) and same(nan, -nan)
    assert not same(zero, -zero) and not same(zero, nan) and not same(zero, zero + 1e-45)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the order is that of x86")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 9, 15, 16, 17, 33, 40, 64, 70, 255, 300])
def test_steps_are_added_up_as_torch_does(steps, dtype):
    for neurons in (*range(1, 40), 47, 363, 3 * 11 * 11 + 64):
        rows = torch.rand(steps, neurons, dtype=dtype, generator=torch.Generator().manual_seed(steps))
        whole = functional_torch.added_in_order(neurons, dtype)
        added = [
            functional_torch._added_up(list(part.unbind(0)), lanes)
            for part, lanes in ((rows[:, :whole], 1), (rows[:, whole:], 4))
        ]
        # a row alone would be one number, which torch adds up in another way, but which has no rival
        if neurons > 1:
            assert torch.equal(torch.cat(added), rows.sum(0))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([torch.float32, torch.float64]))
def test_a_product_and_sum_are_rounded_once(seed, dtype):
    rng = np.random.default_rng(seed)
    bits = 24 if dtype == torch.float32 else 53
    a, b = (
        torch.from_numpy(rng.standard_normal(40) * 2.0 ** rng.integers(-20, 20, 40)).to(dtype) for _ in "ab"
    )
    # sums that nearly cancel, and such that lie near the middle of two numbers
    c = torch.from_numpy(rng.choice([-1.0, 1.0, 2.0**bits, 2.0**-bits, 0.0], 40)).to(dtype) * (a * b)
    c = torch.nextafter(c, torch.from_numpy(rng.choice([-np.inf, np.inf], 40)).to(dtype))
    found = functional_torch._fma(a, b, c).tolist()
    expected = [
        float(rounded(Fraction(x) * Fraction(y) + Fraction(z), bits))
        for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    ]
    assert found == expected


@pytest.mark.parametrize("shape", [(15, 9, 13, 11), (15, 30, 28, 28)])
def test_results_are_those_of_plain_torch(shape, monkeypatch):
    """Bit for bit, on all that the benchmark measures."""
    ours, plain = (calls(functions, shape, 5, 2) for functions in (sf, functional_baseline))
    for name, call in plain.items():
        assert digest(ours[name]()) == digest(call()), name


def test_the_benchmark_sees_another_result():
    assert digest(torch.tensor([0.0])) == digest(torch.tensor([-0.0])) != digest(torch.tensor([1e-45]))
    assert digest([(0, 1, 2)]) != digest([(0, 1, 3)])


@settings(max_examples=40, deadline=None)
@given(waves(dtypes=(torch.float32,)), counts, radii)
def test_plain_torch_is_the_definition(given_waves, k, radius):
    """What ours is compared with, by the slow definitions."""
    potentials = given_waves[0].clamp(min=0).contiguous()
    values = as_numpy(potentials)
    assert np.array_equal(
        as_numpy(functional_baseline.pointwise_inhibition(potentials)), slow_pointwise(values)
    )
    expected = slow_original_winners(values, k, radius, np.sign(values), 24)
    assert functional_baseline.get_k_winners(potentials, k, radius) == expected
    kept = np.where(values > 1, values, 0)
    spikes, thresholded = functional_baseline.fire(potentials, 1.0, True)
    assert np.array_equal(as_numpy(spikes), np.sign(kept)) and np.array_equal(as_numpy(thresholded), kept)


def test_threads_share_what_is_large(monkeypatch):
    """Two threads, and pieces small enough for both, give what one gives."""
    potentials = torch.rand(3, 4, 5, 9, 70, generator=torch.Generator().manual_seed(5)).cumsum(1)

    def results():
        kept = sf.threshold(potentials, 1.5)
        return [
            kept,
            sf.fire(potentials, 1.0),
            sf.pointwise_inhibition(kept),
            sf.pointwise_inhibition(kept[0]),
            sf.pad(kept, (1, 2, 3, 0)),
            sf.pooling(kept, 3, 2, 1),
            sf.local_normalization(kept, 2),
            sf.intensity_lateral_inhibition(kept, [[0.1, 0.2, 0.3]]),
            torch.tensor(sf.get_k_winners(kept, 3, 1)),
        ]

    alone = results()
    monkeypatch.setattr(functional_cpu, "PARALLEL", 100)
    monkeypatch.setattr(functional_cpu, "LARGEST_PIECE", 500)
    monkeypatch.setattr(functional_cpu, "_TILE", 128)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for _ in range(20):
        assert all(map(torch.equal, results(), alone))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("steps", "radius"), [(1, 0), (1, 2), (15, 0), (15, 3)])
def test_winners_of_a_layer_of_usual_size(device, dtype, steps, radius):
    generator = torch.Generator().manual_seed(0)
    waves = (torch.rand(2, steps, 12, 20, 18, generator=generator, dtype=dtype) - 0.97).clamp(min=0)
    waves = waves.cumsum(1)
    expected = [slow_winners(sample, 8, radius, sample) for sample in waves.numpy()]
    assert sf.get_k_winners(waves.to(device), 8, radius, exact_order=True) == expected
    # no two of these potentials are so near to each other that rounding would matter
    assert sf.get_k_winners(waves.to(device), 8, radius) == expected
    assert all(len(winners) == 8 for winners in expected)


@pytest.mark.parametrize("steps", [255, 256, 300])
def test_long_waves(steps):
    potentials = torch.zeros(steps, 3, 1, 2)
    potentials[steps - 1 :, 0, 0, 1] = 9.0
    potentials[steps - 2 :, 1, 0, 0] = 1.0
    potentials[0, 2, 0, 1] = 0.5
    assert sf.get_k_winners(potentials, 3, exact_order=True) == [(2, 0, 1), (1, 0, 0), (0, 0, 1)]
    # SpykeTorch counts spikes
    assert sf.get_k_winners(potentials, 3) == [(1, 0, 0), (0, 0, 1), (2, 0, 1)]
    potentials[:, 2, 0, 1] = 0.5
    assert sf.get_k_winners(potentials, 3) == [(2, 0, 1), (1, 0, 0), (0, 0, 1)]


@pytest.mark.parametrize("radius", [0, 1])
def test_many_equal_maps_win_in_their_order(radius):
    potentials = torch.ones(2, 300, 5, 100)
    winners = sf.get_k_winners(potentials, 30, radius)
    assert winners == [(f, 0, 2 * f if radius else 0) for f in range(30)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 2])
def test_order_is_exact_over_the_whole_range_of_numbers(dtype, steps):
    """Neighbouring numbers do not tie, +0 and -0 do, infinities are in order, NaN comes last."""
    info = torch.finfo(dtype)
    one = torch.tensor(1.0, dtype=dtype)
    ascending = [
        -np.inf, info.min, -1.0 - info.eps, -1.0, -info.tiny, 0.0, info.tiny,
        1.0, torch.nextafter(one, one + 1).item(), 65.0, info.max, np.inf,
    ]  # fmt: skip
    values = torch.tensor(ascending, dtype=dtype)
    shuffled = torch.randperm(len(values), generator=torch.Generator().manual_seed(1))
    potentials = values[shuffled].view(1, -1, 1, 1).repeat(steps, 1, 1, 1)
    winners = sf.get_k_winners(potentials, len(values), spikes=torch.ones_like(potentials), exact_order=True)
    assert [ascending[shuffled[f]] for f, _, _ in winners] == ascending[::-1]
    zeros = torch.tensor([np.nan, -0.0, 0.0, -np.nan, -np.inf], dtype=dtype).view(1, -1, 1, 1)
    ones = torch.ones(steps, 5, 1, 1)
    winners = sf.get_k_winners(zeros.repeat(steps, 1, 1, 1), 5, spikes=ones, exact_order=True)
    assert [f for f, _, _ in winners] == [1, 2, 0, 3, 4]


def test_the_range_of_whole_numbers():
    info = torch.iinfo(torch.int64)
    potentials = torch.tensor([info.min, info.min + 1, info.max - 1, info.max]).view(1, 4, 1, 1)
    assert [f for f, _, _ in sf.get_k_winners(potentials, 4, spikes=potentials.bool())] == [3, 2, 1, 0]


def test_winners_of_potentials_that_require_a_gradient():
    potentials = torch.rand(2, 2, 3, 3).requires_grad_()
    assert sf.get_k_winners(potentials, 2, 1) == sf.get_k_winners(potentials.detach(), 2, 1)
    assert sf.pointwise_inhibition(potentials).requires_grad


def test_defaults_are_one_winner_and_no_radius():
    potentials = torch.rand(3, 2, 4, 4)
    assert sf.get_k_winners(potentials) == slow_winners(potentials.numpy(), 1, 0, potentials.numpy())


@pytest.mark.parametrize("shape", [(0, 2, 3, 3), (2, 0, 3, 3), (2, 2, 0, 3)])
def test_nothing_has_no_winner(shape):
    assert sf.get_k_winners(torch.zeros(shape), 2, 1) == []
    assert sf.get_k_winners(torch.zeros(2, *shape), 2, 1) == [[], []]


class Operations(TorchDispatchMode):
    """Counts the operations that torch runs."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.__name__.partition(".")[0])
        return function(*args, **(kwargs or {}))

    @property
    def transfers(self):
        return [name for name in self.names if name in TRANSFERS]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", [0, 2])
def test_selection_stays_on_the_device(radius, dtype, exact):
    """No number is asked for while winners are chosen, and a batch takes no more operations than a sample."""
    waves = torch.rand(6, 4, 8, 9, 9, dtype=dtype).cumsum(1)
    counted = []
    for potentials in (waves, waves[:1]):
        with Operations() as operations:
            winners = functional_torch.winners(potentials, None, 5, radius, exact)
            functional_torch.survivors(potentials)
        # five that lie three apart do not fit into every draw
        assert (winners[:, 0] >= 0).all()
        assert operations.transfers == []
        counted.append(len(operations.names))
    assert counted[0] == counted[1] > 5


def test_the_count_of_transfers_sees_one():
    with Operations() as operations:
        torch.ones(3).max().item()
        torch.ones(3).nonzero()
    assert operations.transfers == ["_local_scalar_dense", "nonzero"]


def test_selection_is_quick():
    """It takes milliseconds: the wide bound finds nothing but loops over neurons, and no busy machine."""
    waves = torch.rand(8, 15, 30, 28, 28).sub(0.9).clamp(min=0).cumsum(1)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        sf.get_k_winners(waves, 5, 3)
        times.append(time.perf_counter() - start)
    assert min(times) < 5.0


# ------------------------------------------------------------------------------------------------------------
# Inhibition


@settings(max_examples=200, deadline=None)
@given(waves())
def test_pointwise_inhibition_is_its_definition(given_waves):
    potentials, _ = given_waves
    before = potentials.clone()
    found = sf.pointwise_inhibition(potentials)
    assert found.dtype == potentials.dtype
    assert np.array_equal(as_numpy(found), slow_pointwise(as_numpy(potentials)))
    assert torch.equal(potentials, before)


@settings(max_examples=50, deadline=None)
@given(waves(batched=True))
def test_pointwise_inhibition_of_a_batch_is_that_of_its_samples(given_waves):
    potentials, _ = given_waves
    assert torch.equal(
        sf.pointwise_inhibition(potentials), torch.stack([sf.pointwise_inhibition(one) for one in potentials])
    )


def test_a_location_silent_at_the_end_is_zeroed():
    potentials = torch.tensor([[3.0, 0.0], [0.0, 0.0]]).view(2, 2, 1, 1)
    assert not sf.pointwise_inhibition(potentials).any()
    potentials[1, 1] = 1.0
    assert sf.pointwise_inhibition(potentials).flatten().tolist() == [3.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("features", "zeroed"),
    [
        ([0, 2], {0, 2}),
        ((1,), {1}),
        (2, {2}),
        (-1, {3}),
        ([], set()),
        (torch.tensor([3, 1]), {1, 3}),
        (np.int64(1), {1}),
        (np.array([2]), {2}),
        (torch.tensor([False, True, False, True]).nonzero(), {1, 3}),
        (torch.tensor([False] * 4).nonzero(), set()),
        (torch.tensor([False, True, False, True]), {1, 3}),
        (np.array([True, False, False, False]), {0}),
        ([False, False, True, True], {2, 3}),
        (torch.tensor([[2], [0]]).int(), {0, 2}),
        (np.array([[1]]), {1}),
        (range(1, 3), {1, 2}),
        (list(range(4)) * 5, {0, 1, 2, 3}),
    ],
)
def test_feature_inhibition(features, zeroed):
    # three samples: as many as (n, 1) never has here, and twice
    for shape in [(2, 4, 3, 2), (3, 2, 4, 3, 2), (2, 2, 4, 3, 2)]:
        potentials = torch.rand(shape) + 0.1
        before = potentials.clone()
        found = sf.feature_inhibition(potentials, features)
        for f in range(4):
            part = (..., f, slice(None), slice(None))
            assert torch.equal(found[part], torch.zeros_like(found[part]) if f in zeroed else before[part])
        assert torch.equal(potentials, before)
        assert sf.feature_inhibition_(potentials, features) is potentials
        assert torch.equal(potentials, found)


def test_feature_inhibition_of_each_sample():
    potentials = torch.ones(3, 2, 2, 1, 1)
    found = sf.feature_inhibition(potentials, [[0], [], [1, 0]])
    assert found[:, :, :, 0, 0].tolist() == [[[0, 1], [0, 1]], [[1, 1], [1, 1]], [[0, 0], [0, 0]]]


@pytest.mark.parametrize(
    ("features", "zeroed"),
    [
        ([(2, 0, 1), (0, 2, 1)], {0, 2}),
        ([[3, 1, 1]], {3}),
        (np.array([(1, 0, 0), (-1, -1, -1)], np.int32), {1}),
        (torch.tensor([(1, 2, 2), (1, 0, 0), (3, 0, 0)]), {1, 3}),
        ([[0], [2]], {0, 2}),
        ([torch.tensor(1), np.int64(2)], {1, 2}),
        ([torch.tensor([3])], {3}),
    ],
)
def test_feature_inhibition_of_winners_and_columns(features, zeroed):
    potentials = torch.ones(2, 4, 3, 2)
    found = sf.feature_inhibition(potentials, features)
    assert {f for f in range(4) if not found[:, f].any()} == zeroed
    assert found.sum() == 12 * (4 - len(zeroed))


def test_feature_inhibition_of_each_samples_winners():
    potentials = torch.zeros(2, 3, 4, 4, 4)
    potentials[0, 1:, 2, 1, 1], potentials[1, 2:, 3, 0, 2] = 5.0, 4.0
    winners = sf.get_k_winners(potentials, 2, 1)
    assert winners == [[(2, 1, 1)], [(3, 0, 2)]]
    assert not sf.feature_inhibition(potentials, winners).any()
    recorded = np.full((2, 2, 3), -1)
    recorded[:, 0] = (2, 1, 1), (3, 0, 2)
    assert not sf.feature_inhibition(potentials, recorded).any()
    assert sf.feature_inhibition(potentials, recorded[::-1].copy()).sum() == potentials.sum()
    one = potentials[:1]
    assert not sf.feature_inhibition(one, winners[:1]).any()


def test_shallow_networks_inhibit_by_a_mask():
    """What crashed: the maps of a mask, as `nonzero` lists them."""
    potentials = torch.rand(2, 5, 3, 3) + 0.1
    mask = torch.tensor([True, False, False, True, False])
    assert sf.feature_inhibition_(potentials, mask.nonzero()) is potentials
    assert (potentials.amax((0, 2, 3)) == 0).tolist() == mask.tolist()


# ------------------------------------------------------------------------------------------------------------
# Firing


@settings(max_examples=150, deadline=None)
@given(waves(batched=True), st.sampled_from([None, -1.0, 0.0, 0.5, 1, 2.0, "tensor"]), st.booleans())
def test_fire_and_threshold_are_their_definitions(given_waves, level, batched):
    potentials, _ = given_waves
    if not batched:
        potentials = potentials[0]
    if level == "tensor":
        maps = potentials.shape[-3]
        level = torch.linspace(-1, 3, maps).view(-1, 1, 1)
    values = as_numpy(potentials)
    thresholded = np.zeros_like(values)
    steps = values.shape[-4]
    for place in np.ndindex(values.shape):
        if level is None:
            passes = place[-4] == steps - 1
        else:
            passes = values[place] > (
                level if not isinstance(level, torch.Tensor) else level[place[-3]].item()
            )
        if passes:
            thresholded[place] = values[place]
    before = potentials.clone()
    spikes, kept = sf.fire(potentials, level, return_thresholded_potentials=True)
    for result, expected in [
        (kept, thresholded),
        (sf.threshold(potentials, level), thresholded),
        (spikes, np.sign(thresholded)),
        (sf.fire(potentials, level), np.sign(thresholded)),
    ]:
        assert result.dtype == potentials.dtype
        assert np.array_equal(as_numpy(result), expected)
    assert torch.equal(potentials, before)
    changed, fired = potentials.clone(), potentials.clone()
    assert sf.threshold_(changed, level) is changed
    assert sf.fire_(fired, level) is fired
    assert torch.equal(changed, kept)
    assert torch.equal(fired, spikes)


def test_a_spike_has_the_sign_of_its_potential():
    assert sf.fire(torch.tensor([-3.0, -1.0, 0.0, 1.0]), -2.0).tolist() == [0.0, -1.0, 0.0, 1.0]


def test_threshold_is_strict_and_nan_does_not_fire():
    potentials = torch.tensor([1.0, 2.0, 2.0 + 2**-20, np.nan])
    assert sf.fire(potentials, 2.0).tolist() == [0.0, 0.0, 1.0, 0.0]
    assert sf.fire(torch.full((2, 1, 1, 1), np.nan)).tolist() == [[[[0.0]]], [[[0.0]]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("level", [0.25, None, torch.tensor(0.25, requires_grad=True)])
def test_results_are_detached(dtype, level):
    potentials = torch.rand(2, 3, 4, 4, requires_grad=True).to(dtype)
    assert potentials.requires_grad
    results = [*sf.fire(potentials, level, True), sf.fire(potentials, level), sf.threshold(potentials, level)]
    results.append(sf.feature_inhibition(potentials, [1]))
    assert not any(result.requires_grad for result in results)
    expected = [*sf.fire(potentials.detach(), level, True), sf.fire(potentials.detach(), level)]
    assert all(map(torch.equal, results, expected))


def test_what_is_changed_in_place_is_known_to_autograd():
    """A tensor that a product keeps for its gradient must not change unseen."""
    for change in (lambda x: sf.fire_(x, 0.5), lambda x: sf.threshold_(x, 0.5)):
        x, weight = torch.rand(2, 2, 3, 3), torch.rand(1, requires_grad=True)
        product = (x * weight).sum()
        change(x)
        with pytest.raises(RuntimeError, match="inplace"):
            product.backward()
    leaf = torch.rand(2, 2, 3, 3, requires_grad=True)
    for change in (lambda x: sf.fire_(x, 0.5), lambda x: sf.threshold_(x, 0.5)):
        with pytest.raises(RuntimeError, match="in-place"):
            change(leaf)


def test_in_inference_mode():
    potentials = torch.rand(2, 3, 4, 4)
    spikes = sf.fire(potentials, 0.5)
    with torch.inference_mode():
        assert torch.equal(sf.fire(potentials.clone(), 0.5), spikes)
        assert torch.equal(sf.fire_(potentials.clone(), 0.5), spikes)
        assert sf.get_k_winners(potentials.clone(), 2) == sf.get_k_winners(potentials, 2)


def test_thresholds_are_compared_in_the_dtype_of_the_potentials():
    near = torch.tensor([0.1, 0.1 + 2**-27, 0.1 - 2**-27])
    assert sf.fire(near, 0.1).tolist() == (near > 0.1).float().tolist()
    whole = torch.tensor([2**53, 2**53 + 1])
    assert sf.fire(whole, 2**53).tolist() == [0, 1]


# ------------------------------------------------------------------------------------------------------------
# Space

SHAPES = [(7, 6), (2, 7, 6), (3, 2, 7, 6), (2, 3, 2, 7, 6)]


def random_maps(shape, dtype):
    values = torch.randint(-4, 9, shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)
    return values.transpose(-1, -2).contiguous().transpose(-1, -2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.bool])
def test_pad_puts_a_border_around(shape, dtype):
    maps = random_maps(shape, dtype)
    for sides, value in [((1, 2, 0, 3), 0), ((2, 2, 1, 1), 1), ((-1, 0, 2, -2), 1)]:
        found = sf.pad(maps, sides, value)
        left, right, top, bottom = sides
        expected = on_each_map(
            lambda image: np.array(
                [
                    [
                        image[y, x] if 0 <= y < image.shape[0] and 0 <= x < image.shape[1] else value  # noqa: B023
                        for x in range(-left, image.shape[1] + right)  # noqa: B023
                    ]
                    for y in range(-top, image.shape[0] + bottom)  # noqa: B023
                ]
            ),
            as_numpy(maps),
        )
        assert found.dtype == dtype
        assert np.array_equal(as_numpy(found), expected)
    assert torch.equal(sf.pad(maps, (1, 1, 1, 1)), sf.pad(maps, (1, 1, 1, 1), 0))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.bool])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(2, None, 0), (3, 2, 1), ((2, 3), (1, 2), (1, 0)), ((4, 5), 1, 2), (6, None, 3), (1, 3, 0)],
)
def test_pooling_takes_the_maximum_of_each_window(shape, dtype, kernel, stride, padding):
    maps = random_maps(shape, dtype)
    pair = lambda value: value if isinstance(value, tuple) else (value, value)  # noqa: E731
    (rows, columns), (down, right), (above, beside) = pair(kernel), pair(stride or kernel), pair(padding)

    def pooled(image):
        height, width = image.shape
        return np.array(
            [
                [
                    image[max(y, 0) : y + rows, max(x, 0) : x + columns].max()
                    for x in range(-beside, width + beside - columns + 1, right)
                ]
                for y in range(-above, height + above - rows + 1, down)
            ]
        )

    for waves in (maps, maps if dtype == torch.bool else maps - 10):
        before = waves.clone()
        found = sf.pooling(waves, kernel, stride, padding)
        assert found.dtype == dtype
        assert np.array_equal(as_numpy(found), on_each_map(pooled, as_numpy(waves)))
        assert torch.equal(waves, before)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("dtype", "rtol"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)],
)
@pytest.mark.parametrize("radius", [0, 1, 2, 9])
def test_local_normalization_divides_by_the_mean_of_the_square(shape, dtype, rtol, radius):
    maps = random_maps(shape, dtype).abs()
    side = 2 * radius + 1

    def normalized(image):
        result = np.zeros(image.shape)
        for r, c in np.ndindex(image.shape):
            mean = sum(window_of(image, r, c, side, side, 0.0).values()) / side**2
            result[r, c] = image[r, c] / (mean + 1e-12)
        return result

    before = maps.clone()
    found = sf.local_normalization(maps, radius)
    assert found.dtype == dtype
    np.testing.assert_allclose(as_numpy(found), on_each_map(normalized, as_numpy(maps)), rtol=rtol)
    assert torch.equal(maps, before)


def test_local_normalization_of_darkness_is_dark():
    for dtype in (torch.float16, torch.float32, torch.float64):
        assert not sf.local_normalization(torch.zeros(1, 1, 4, 4, dtype=dtype), 1).any()
    assert sf.local_normalization(torch.ones(1, 1), 0, eps=1.0).item() == 0.5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 3), (9, 9)])
def test_intensity_lateral_inhibition_is_its_definition(shape, dtype, size):
    maps = random_maps(shape, dtype)
    kernel = -torch.rand(size, generator=torch.Generator().manual_seed(3), dtype=dtype) / 4

    def inhibited(image):
        result = np.zeros(image.shape)
        for r, c in np.ndindex(image.shape):
            x = image[r, c]
            weaker = [place for place, y in window_of(image, r, c, *size, 0.0).items() if x > y]
            result[r, c] = x * (1 + sum(kernel[place].item() for place in weaker))
        return result

    before = maps.clone()
    found = sf.intensity_lateral_inhibition(maps, kernel)
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    expected = on_each_map(inhibited, as_numpy(maps))
    np.testing.assert_allclose(as_numpy(found), expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(sf.intensity_lateral_inhibition(maps, kernel.tolist()), found)
    assert torch.equal(sf.intensity_lateral_inhibition(maps, kernel[None, None]), found)
    assert torch.equal(maps, before)


@pytest.mark.parametrize("device", DEVICES)
def test_results_stay_on_the_device(device):
    waves = torch.rand(2, 3, 4, 6, 6, device=device)
    results = {
        "pointwise": sf.pointwise_inhibition(waves),
        "feature": sf.feature_inhibition(waves, [1]),
        "fire": sf.fire(waves, 0.5),
        "fire at the end": sf.fire(waves),
        "threshold": sf.threshold(waves, torch.full((4, 1, 1), 0.5)),
        "pad": sf.pad(waves, (1, 1, 1, 1)),
        "pooling": sf.pooling(waves, 2),
        "normalization": sf.local_normalization(waves, 1),
        "lateral": sf.intensity_lateral_inhibition(waves, [[-0.1, 0.0, -0.1]]),
    }
    for name, result in results.items():
        assert result.device == waves.device, name


# ------------------------------------------------------------------------------------------------------------
# Errors

WAVE = torch.zeros(2, 3, 4, 4)
WRONG = {
    "winners of an array": (TypeError, lambda: sf.get_k_winners(np.zeros((1, 1, 2, 2)))),
    "winners of an image": (ValueError, lambda: sf.get_k_winners(torch.zeros(3, 4))),
    "winners of six axes": (ValueError, lambda: sf.get_k_winners(torch.zeros(1, 1, 1, 1, 2, 2))),
    "half a winner": (TypeError, lambda: sf.get_k_winners(WAVE, 1.5)),
    "minus one winner": (ValueError, lambda: sf.get_k_winners(WAVE, -1)),
    "negative radius": (ValueError, lambda: sf.get_k_winners(WAVE, 1, -1)),
    "radius in words": (TypeError, lambda: sf.get_k_winners(WAVE, 1, "one")),
    "spikes of another shape": (ValueError, lambda: sf.get_k_winners(WAVE, 1, 0, WAVE[:1])),
    "spikes in a list": (TypeError, lambda: sf.get_k_winners(WAVE, 1, 0, [0])),
    "pointwise of a list": (TypeError, lambda: sf.pointwise_inhibition([1.0])),
    "pointwise of an image": (ValueError, lambda: sf.pointwise_inhibition(WAVE[0])),
    "no such feature": (ValueError, lambda: sf.feature_inhibition(WAVE, [3])),
    "half a feature": (TypeError, lambda: sf.feature_inhibition(WAVE, [0.5])),
    "feature in words": (TypeError, lambda: sf.feature_inhibition_(WAVE, "0")),
    "features of two columns": (ValueError, lambda: sf.feature_inhibition(WAVE, torch.zeros(3, 2))),
    "no such winner": (ValueError, lambda: sf.feature_inhibition(WAVE, [(7, 1, 2)])),
    "a mask of too few features": (ValueError, lambda: sf.feature_inhibition(WAVE, [True, False])),
    "a feature of a fraction": (TypeError, lambda: sf.feature_inhibition(WAVE, torch.tensor([[0.5]]))),
    "features for too few samples": (ValueError, lambda: sf.feature_inhibition(WAVE[None], [[0], [1]])),
    "threshold in words": (TypeError, lambda: sf.fire(WAVE, "high")),
    "threshold NaN": (ValueError, lambda: sf.fire(WAVE, float("nan"))),
    "threshold that does not fit": (ValueError, lambda: sf.threshold(WAVE, torch.zeros(5))),
    "threshold that is larger": (ValueError, lambda: sf.threshold(WAVE, torch.zeros(2, 2, 3, 4, 4))),
    "firing at the end of no wave": (ValueError, lambda: sf.fire(torch.zeros(3))),
    "firing array": (TypeError, lambda: sf.fire(np.zeros(3), 1.0)),
    "firing array in place": (TypeError, lambda: sf.fire_(np.zeros(3), 1.0)),
    "firing list at the end": (TypeError, lambda: sf.fire([1.0])),
    "threshold of a list": (TypeError, lambda: sf.threshold([1.0], 0.5)),
    "feature of an array": (TypeError, lambda: sf.feature_inhibition(np.zeros((1, 1, 2, 2)), [0])),
    "feature of an array in place": (TypeError, lambda: sf.feature_inhibition_(np.zeros((1, 1, 2, 2)), [0])),
    "pad by one number": (TypeError, lambda: sf.pad(WAVE, 2)),
    "pad by halves": (TypeError, lambda: sf.pad(WAVE, (0.5, 1, 1, 1))),
    "pad by three": (ValueError, lambda: sf.pad(WAVE, (1, 1, 1))),
    "pad cuts too much": (ValueError, lambda: sf.pad(WAVE, (-3, -2, 0, 0))),
    "pad a vector": (ValueError, lambda: sf.pad(WAVE[0, 0, 0], (1, 1))),
    "window of nothing": (ValueError, lambda: sf.pooling(WAVE, 0)),
    "window with three sides": (ValueError, lambda: sf.pooling(WAVE, (2, 2, 2))),
    "stride 0": (ValueError, lambda: sf.pooling(WAVE, 2, 0)),
    "padding too wide": (ValueError, lambda: sf.pooling(WAVE, 2, 2, 2)),
    "window too large": (ValueError, lambda: sf.pooling(WAVE, 5)),
    "half a window": (TypeError, lambda: sf.pooling(WAVE, 2.5)),
    "normalize whole numbers": (TypeError, lambda: sf.local_normalization(WAVE.int(), 1)),
    "normalize by a negative radius": (ValueError, lambda: sf.local_normalization(WAVE, -1)),
    "inhibit whole numbers": (TypeError, lambda: sf.intensity_lateral_inhibition(WAVE.int(), [[1.0]])),
    "even kernel": (ValueError, lambda: sf.intensity_lateral_inhibition(WAVE, [[1.0, 1.0]])),
    "kernel of one axis": (ValueError, lambda: sf.intensity_lateral_inhibition(WAVE, [1.0])),
    "kernel for each map": (
        ValueError,
        lambda: sf.intensity_lateral_inhibition(WAVE, torch.ones(2, 1, 3, 3)),
    ),
    "kernel in words": (TypeError, lambda: sf.intensity_lateral_inhibition(WAVE, "kernel")),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_told_in_one_sentence(case):
    error, call = WRONG[case]
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "give" in message
    assert "\n" not in message
    assert not message.endswith(".")
    assert not WAVE.any()


def test_without_torch_the_module_says_what_to_install():
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import spyke_numba\n"
        "try:\n    import spyke_numba.functional\n"
        "except ImportError as error:\n    print(error)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "spyke_numba.functional needs torch: pip install spyke_numba[torch]"


def test_everything_public_is_listed():
    defined = {
        name
        for name, value in vars(sf).items()
        if getattr(value, "__module__", None) == sf.__name__ and not name.startswith("_")
    }
    assert set(sf.__all__) == defined | {"torch", "nn", "fn", "np"}


SIGNATURES = {
    "pad": ("input", "pad", "value"),
    "pooling": ("input", "kernel_size", "stride", "padding"),
    "fire": ("potentials", "threshold", "return_thresholded_potentials"),
    "fire_": ("potentials", "threshold"),
    "threshold": ("potentials", "threshold"),
    "threshold_": ("potentials", "threshold"),
    "pointwise_inhibition": ("thresholded_potentials",),
    "get_k_winners": ("potentials", "kwta", "inhibition_radius", "spikes", "exact_order"),
    "feature_inhibition": ("potentials", "inhibited_features"),
    "feature_inhibition_": ("potentials", "inhibited_features"),
    "intensity_lateral_inhibition": ("intencities", "inhibition_kernel"),
    "local_normalization": ("input", "normalization_radius", "eps"),
    "to_pair": ("data",),
}


def test_names_of_arguments_are_spyketorchs():
    found = {name: tuple(inspect.signature(getattr(sf, name)).parameters) for name in SIGNATURES}
    assert found == SIGNATURES


def test_import_of_everything_brings_what_programs_rely_on():
    names = {}
    exec("from spyke_numba.functional import *", names)
    assert names["torch"] is torch and names["nn"] is torch.nn and names["fn"] is torch.nn.functional
    assert names["np"] is np
    assert names["to_pair"](3) == (3, 3) and names["to_pair"]((1, 2, 9)) == (1, 2)
