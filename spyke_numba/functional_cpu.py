"""What `functional` computes for tensors on the CPU: compiled loops, each once through the waves.

Every function takes contiguous tensors of float32 or float64 that need no gradient, checked by its caller, and gives
bit for bit what the torch operations of `functional_torch` and `functional` give. The loops are compiled when they are
first needed, each by itself in about 0.1 s, and lie in the cache of generated code afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from spyke_numba.buffers import BUFFERS, address
from spyke_numba.functional_torch import LEAST, MOST, columns_in_order
from spyke_numba.generated import load_module

Tensor = torch.Tensor

#: Types that there are compiled loops for, and what numpy calls them.
COMPILED = {torch.float32: "float32", torch.float64: "float64"}

_HEADER = '''\
"""Generated for {name} of {dtype}. Do not edit."""

import numpy as np
from numba import njit

from spyke_numba.backends._cpu_parts import array_at, fma, part, use_widest_vectors

real = np.{dtype}
NONE, ONE, LOWEST, HIGHEST = real(0), real(1), real(-np.inf), real(np.inf)


@njit("void({types})", cache=True, nogil=True, error_model="numpy", _nrt=False)
def run({arguments}):
    use_widest_vectors()
'''

# through a row in the cache, so that the source may be one of the targets
_FIRE = """
    x = array_at(source, real, (size,))
    limit = real(level)
    row = array_at(scratch, real, (TILE,))
    for lo in range(0, size, TILE):
        n = min(TILE, size - lo)
        given = part(x, (), lo, lo + n)
        for j in range(n):
            row[j] = given[j] if given[j] > limit else NONE
        if kept != 0:
            y = part(array_at(kept, real, (size,)), (), lo, lo + n)
            for j in range(n):
                y[j] = row[j]
        if spikes != 0:
            s = part(array_at(spikes, real, (size,)), (), lo, lo + n)
            for j in range(n):
                s[j] = ONE if row[j] > NONE else (-ONE if row[j] < NONE else NONE)
"""

_POINTWISE = """
    size = F * S
    whole = array_at(source, real, (B * T * size,))
    out = array_at(target, real, (B * T * size,))
    peaks = array_at(scratch, real, (TILE,))
    signs = array_at(scratch + 8 * TILE, real, (TILE,))
    for b in range(B):
        for lo in range(b * T * size, b * T * size + S, TILE):
            n = min(TILE, b * T * size + S - lo)
            for j in range(n):
                signs[j] = NONE
            for t in range(T):
                for j in range(n):
                    peaks[j] = LOWEST
                for at in range(lo + t * size, lo + (t + 1) * size, S):
                    x, y = part(whole, (), at, at + n), part(out, (), at, at + n)
                    for j in range(n):
                        peaks[j] = x[j] if x[j] > peaks[j] else peaks[j]
                        y[j] = NONE
                for j in range(n):
                    signs[j] += ONE if peaks[j] > NONE else (-ONE if peaks[j] < NONE else NONE)
            # the peaks of the last step say where anything survives
            for j in range(n):
                if peaks[j] > NONE:
                    first = lo + j + min(max(T - np.int64(signs[j]), 0), T - 1) * size
                    front, best = first, LOWEST
                    for at in range(first, first + size, S):
                        if whole[at] > best:
                            front, best = at, whole[at]
                    for at in range(lo + j + front - first, lo + j + front - first + T * size, size):
                        out[at] = whole[at]
"""

# a total is summed only where `count * (v + value)` says that it may be the largest of its map
_WINNERS = """
    N = F * S
    whole = array_at(source, real, (B * T * N,))
    spiking = array_at(spikes, real, (B * T * N,))
    counts = array_at(scratch, real, (N,))
    values = array_at(scratch + 8 * N, real, (N,))
    highest = array_at(scratch + 16 * N, real, (TILE,))
    lowest = array_at(scratch + 16 * N + 8 * TILE, real, (TILE,))
    scratch += 16 * (N + TILE)
    totals = array_at(scratch, real, (F,))
    places = array_at(scratch + 8 * F, np.int64, (F,))
    steps = array_at(scratch + 16 * F, real, (T,))
    out = array_at(target, np.int64, (B * k,))
    for b in range(B):
        first = b * T * N
        peak, high, low, largest = NONE, NONE, NONE, NONE
        for lo in range(0, N, TILE):
            n = min(TILE, N - lo)
            count = part(counts, (), lo, lo + n)
            for j in range(n):
                count[j] = highest[j] = lowest[j] = NONE
            for at in range(first + lo, first + lo + T * N, N):
                row = part(spiking, (), at, at + n)
                for j in range(n):
                    s = row[j] if row[j] == row[j] else NONE
                    count[j] += s
                    highest[j] = s if s > highest[j] else highest[j]
                    lowest[j] = s if s < lowest[j] else lowest[j]
            for j in range(n):
                if highest[j] > lowest[j]:
                    step, back = 0, real(T) - count[j]
                    if back >= real(T):
                        step = T - 1
                    elif back > NONE:
                        step = np.int64(back)
                    x = whole[first + step * N + lo + j]
                    values[lo + j] = x
                    product = x * (highest[j] if x >= NONE else lowest[j])
                    if product > peak:
                        peak = product
                    if abs(x) > largest:
                        largest = abs(x)
                    high = max(high, highest[j])
                    low = min(low, lowest[j])
        if high <= NONE:
            continue
        v, top = peak * real(T), max(high, -low)
        if not (v >= real(least) and (v + v) * real(T) * max(top, ONE) <= real(most)):
            out[b * k] = -2
            continue
        # by how much totals may differ from what count * (v + value) says of them
        slack = real(4 * (T + 4)) * real(epsilon) * real(T) * top * (v + largest)
        for f in range(F):
            places[f] = -2
        for i in range(b * k, b * k + k):
            winner, best = -1, NONE
            for f in range(F):
                if places[f] == -2:
                    about = LOWEST
                    for j in range(f * S, f * S + S):
                        if counts[j] > NONE and counts[j] * (v + values[j]) > about:
                            about = counts[j] * (v + values[j])
                    totals[f], places[f] = NONE, -1
                    for j in range(f * S, f * S + S):
                        if counts[j] > NONE and counts[j] * (v + values[j]) >= about - slack:
                            for t in range(T):
                                s = spiking[first + t * N + j]
                                steps[t] = fma(s, v, s * values[j]) if s > NONE or s < NONE else NONE
                            # the last neurons of a sample in four lanes
                            lanes = 1 if j < N - N % LANES else 4
                            total = NONE
                            for lane in range(lanes):
                                sixteens = some = NONE
                                for r in range(T // lanes):
                                    some += steps[lane + lanes * r]
                                    if r % 16 == 15:
                                        sixteens += some
                                        some = NONE
                                some += sixteens
                                # the first lane has what is left of the steps, too
                                if lane == 0:
                                    for t in range(T - T % lanes, T):
                                        some += steps[t]
                                total += some
                            if total > totals[f]:
                                totals[f], places[f] = total, j
                if totals[f] > best:
                    winner, best = f, totals[f]
            if winner < 0:
                break
            out[i] = places[winner]
            line, column = places[winner] % S // W, places[winner] % W
            totals[winner], places[winner] = NONE, -1
            if radius > 0:
                for f in range(F):
                    for r in range(max(line - radius, 0), min(line + radius + 1, S // W)):
                        for j in range(max(column - radius, 0), min(column + radius + 1, W)):
                            counts[f * S + r * W + j] = NONE
                    if places[f] >= 0 and counts[places[f]] == NONE:
                        places[f] = -2
"""

_PAD = """
    whole = array_at(source, real, (maps, H, W))
    out = array_at(target, real, (maps, top + H + bottom, left + W + right))
    for i in range(maps):
        for r in range(top + H + bottom):
            y = part(out, (i, r), 0, left + W + right)
            for j in range(left + W + right):
                y[j] = NONE
            if top <= r < top + H:
                x, y = part(whole, (i, r - top), 0, W), part(out, (i, r), left, left + W)
                for j in range(W):
                    y[j] = x[j]
"""

# a value is the maximum until a greater one, or NaN, comes, in the order of the window's rows
_POOLING = """
    whole = array_at(source, real, (maps, H, W))
    out = array_at(target, real, (maps, OH, OW))
    for i in range(maps):
        for r in range(OH):
            y = part(out, (i, r), 0, OW)
            for j in range(OW):
                y[j] = LOWEST
            for p in range(max(r * down - top, 0), min(r * down - top + rows, H)):
                for q in range(columns):
                    # the first and the last window whose column q lies in the map
                    lo = max((left - q + right - 1) // right, 0)
                    hi = min((W - 1 - q + left) // right + 1, OW)
                    if hi > lo:
                        m = part(out, (i, r), lo, hi)
                        x = part(whole, (i, p), lo * right + q - left, W)
                        for j in range(hi - lo):
                            z = x[right * j]
                            m[j] = z if z > m[j] or z != z else m[j]
"""

# the maps have borders, so that no window ends at an edge
_NEIGHBOURS = """
    near = array_at(source, real, (maps, H + 2 * above, W + 2 * beside))
    out = array_at(target, real, (maps, H, W))
    for i in range(maps):
        for r in range(H):
            x = part(near, (i, r + above), beside, beside + W)
            y = part(out, (i, r), 0, W)
            for j in range(W):
                y[j] = NONE
            for p in range(2 * above + 1):
                for q in range(2 * beside + 1):
                    z = part(near, (i, r + p), q, q + W)
"""

_LATERAL = (
    "\n    weights = array_at(weights_at, real, (2 * above + 1, 2 * beside + 1))"
    + _NEIGHBOURS
    + """\
                    weight = part(weights, (p,), q, q + 1)[0]
                    for j in range(W):
                        y[j] += weight if x[j] > z[j] else NONE
            for j in range(W):
                y[j] = x[j] * (ONE + y[j])
"""
)

_NORMALIZATION = (
    "\n    more, window = real(eps), real((2 * above + 1) * (2 * beside + 1))"
    + _NEIGHBOURS
    + """\
                    for j in range(W):
                        y[j] += z[j]
            for j in range(W):
                y[j] = x[j] / (y[j] / window + more)
"""
)

#: Steps of a wave that the compiled loops add up.
LONGEST = 255
#: Neurons at a time, so that what is counted of them stays in the first-level cache.
_TILE = 2048
#: Each function's arguments, all of them whole numbers but those that start with a star, and its text.
_FUNCTIONS = {
    "fire": ("source spikes kept scratch size TILE *level", _FIRE),
    "pointwise": ("source target scratch B T F S TILE", _POINTWISE),
    "winners": (
        "source spikes target scratch B T F S W k radius TILE LANES *least *most *epsilon",
        _WINNERS,
    ),
    "pad": ("source target maps H W top bottom left right", _PAD),
    "pooling": ("source target maps H W OH OW rows columns down right top left", _POOLING),
    "lateral": ("source target weights_at maps H W above beside", _LATERAL),
    "normalization": ("source target maps H W above beside *eps", _NORMALIZATION),
}


@cache
def _function(name: str, dtype: str) -> Callable[..., None]:
    # numba takes a while to import
    from spyke_numba.backends._cpu_parts import COMPILER

    arguments, body = _FUNCTIONS[name]
    names = arguments.split()
    types = ", ".join("float64" if argument.startswith("*") else "int64" for argument in names)
    listed = ", ".join(argument.lstrip("*") for argument in names)
    head = _HEADER.format(name=name, dtype=dtype, types=types, arguments=listed)
    return load_module(f"{name}_{dtype}", head + body, COMPILER).run


def suits(tensor: Tensor) -> bool:
    """Return whether there are compiled loops for a tensor's memory, once it is contiguous."""
    return (
        tensor.dtype in COMPILED
        and type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and not tensor.is_neg()
        and not torch.compiler.is_compiling()
    )


def new(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor that is not yet written, in memory that the system need not clear page by page."""
    return torch.from_numpy(BUFFERS.empty(tuple(shape), COMPILED[dtype]))


def _scratch(words: int) -> np.ndarray:
    return BUFFERS.empty((words,), "float64")


def fire(potentials: Tensor, level: float, spikes: Tensor | None, kept: Tensor | None) -> None:
    """Write the signs of the potentials above the level, the potentials themselves, or both, each unless it is None."""
    scratch = _scratch(_TILE)
    _function("fire", COMPILED[potentials.dtype])(
        potentials.data_ptr(),
        0 if spikes is None else spikes.data_ptr(),
        0 if kept is None else kept.data_ptr(),
        BUFFERS.address(scratch),
        potentials.numel(),
        _TILE,
        level,
    )


def pointwise(potentials: Tensor) -> Tensor:
    """Return potentials (T, F, H, W) or (B, T, F, H, W) with one surviving feature at each location."""
    T, F, H, W = potentials.shape[-4:]
    target, scratch = new(potentials.shape, potentials.dtype), _scratch(2 * _TILE)
    batch = len(potentials) if potentials.ndim == 5 else 1
    _function("pointwise", COMPILED[potentials.dtype])(
        potentials.data_ptr(), target.data_ptr(), BUFFERS.address(scratch), batch, T, F, H * W, _TILE
    )
    return target


def winners(potentials: Tensor, spikes: Tensor, k: int, radius: int) -> np.ndarray:
    """Return the flat indices (B, k) of the winners of potentials (B, T, F, H, W) in SpykeTorch's order, -1 for none.

    There are at most LONGEST steps. A sample for which that order is not defined begins with -2.
    """
    B, T, F, H, W = potentials.shape
    dtype = potentials.dtype
    chosen = np.full((B, k), -1, np.int64)
    scratch = _scratch(2 * (F * H * W + _TILE + F) + T)
    _function("winners", COMPILED[dtype])(
        potentials.data_ptr(),
        spikes.data_ptr(),
        address(chosen),
        BUFFERS.address(scratch),
        *(B, T, F, H * W, W, k, radius, _TILE, columns_in_order(dtype)),
        *(LEAST[dtype], MOST[dtype], torch.finfo(dtype).eps),
    )
    return chosen


def pad(input: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Return maps (..., H, W) with a border of zeros."""
    *others, H, W = input.shape
    target = new((*others, top + H + bottom, left + W + right), input.dtype)
    maps = math.prod(others)
    _function("pad", COMPILED[input.dtype])(
        input.data_ptr(), target.data_ptr(), maps, H, W, top, bottom, left, right
    )
    return target


def pooling(
    input: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Return the maximum over windows of maps (..., H, W)."""
    *others, H, W = input.shape
    OH, OW = (
        (size + 2 * border - window) // step + 1
        for size, window, step, border in zip((H, W), kernel, stride, padding, strict=True)
    )
    target = new((*others, OH, OW), input.dtype)
    _function("pooling", COMPILED[input.dtype])(
        input.data_ptr(), target.data_ptr(), math.prod(others), H, W, OH, OW, *kernel, *stride, *padding
    )
    return target


def lateral(intensities: Tensor, weights: Tensor) -> Tensor:
    """Return intensities (..., H, W) changed by their weaker neighbours, by contiguous weights of an odd shape."""
    target = new(intensities.shape, intensities.dtype)
    above, beside = (size // 2 for size in weights.shape)
    near = _bordered(intensities, above, beside)
    *others, H, W = intensities.shape
    _function("lateral", COMPILED[intensities.dtype])(
        near.data_ptr(), target.data_ptr(), weights.data_ptr(), math.prod(others), H, W, above, beside
    )
    return target


def normalization(input: Tensor, radius: int, eps: float) -> Tensor:
    """Return values (..., H, W) over the mean of the square around each."""
    target, near = new(input.shape, input.dtype), _bordered(input, radius, radius)
    *others, H, W = input.shape
    _function("normalization", COMPILED[input.dtype])(
        near.data_ptr(), target.data_ptr(), math.prod(others), H, W, radius, radius, eps
    )
    return target


def _bordered(input: Tensor, above: int, beside: int) -> Tensor:
    return torch.nn.functional.pad(input, (beside, beside, above, above))
