"""What `functional` computes for tensors on the CPU: compiled loops, each once through the waves.

Every function takes contiguous tensors of float32 or float64 that need no gradient, checked by its caller, and gives
bit for bit what the torch operations of `functional_torch` and `functional` give. The loops are compiled when they are
first needed, each by itself in about 0.1 s, and lie in the cache of generated code afterwards.
"""

from __future__ import annotations

import ctypes
import math
import struct
import textwrap
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch

from spyke_numba.backends.cpu.memory import BUFFERS, address
from spyke_numba.backends.cpu.team import LINE, TEAMS, Kernel
from spyke_numba.compile.cache import load_module
from spyke_numba.spyketorch.functional_torch import LEAST, MOST, added_in_order

Tensor = torch.Tensor

#: Types that there are compiled loops for, and what numpy calls them.
COMPILED = {torch.float32: "float32", torch.float64: "float64"}

_HEADER = '''\
"""Generated for {name} of {dtype}. Do not edit."""

import numpy as np
from numba import njit

from spyke_numba.backends.cpu.parts import array_at, atomic_add, fma, part, use_widest_vectors

real = np.{dtype}
NONE, ONE, LOWEST = real(0), real(1), real(-np.inf)


@njit("void(int64, int64)", cache=True, nogil=True, error_model="numpy", _nrt=False)
def run(table, me):
    use_widest_vectors()
    numbers = array_at(table, np.float64, ({end},))
    given = array_at(table, np.int64, ({end},))
    {arguments}
    # threads take pieces until none is left
    while True:
        piece = atomic_add(table, 1)
        if piece >= pieces:
            break
{body}
    if me > 0:
        atomic_add(table + {ended}, 1)
'''
#: Where a table has the count of threads that have ended, in a cache line of its own, and the arguments.
_ENDED, _ARGUMENTS = LINE, 2 * LINE // 8

# a target that is the source: LLVM vectorises what reads and writes one array, not two that may be the same
_FIRE = """
    lo = piece * TILE
    n = min(TILE, size - lo)
    x = part(array_at(source, real, (size,)), (), lo, lo + n)
    limit = real(level)
    if kept == source:
        for j in range(n):
            x[j] = x[j] if x[j] > limit else NONE
        continue
    row = array_at(scratch + me * 8 * TILE, real, (n,))
    if kept != 0:
        row = part(array_at(kept, real, (size,)), (), lo, lo + n)
    for j in range(n):
        row[j] = x[j] if x[j] > limit else NONE
    if spikes != 0:
        s = part(array_at(spikes, real, (size,)), (), lo, lo + n)
        for j in range(n):
            s[j] = ONE if row[j] > NONE else (-ONE if row[j] < NONE else NONE)
"""

# a piece is a part of a sample's locations
_POINTWISE = """
    size = F * S
    whole = array_at(source, real, (B * T * size,))
    out = array_at(target, real, (B * T * size,))
    peaks = array_at(scratch + me * 16 * TILE, real, (TILE,))
    signs = array_at(scratch + me * 16 * TILE + 8 * TILE, real, (TILE,))
    tiles = pieces // B
    lo = piece // tiles * T * size + piece % tiles * TILE
    n = min(TILE, S - piece % tiles * TILE)
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
    here = scratch + me * words * 8
    counts = array_at(here, real, (N,))
    values = array_at(here + 8 * N, real, (N,))
    highest = array_at(here + 16 * N, real, (TILE,))
    lowest = array_at(here + 16 * N + 8 * TILE, real, (TILE,))
    smallest = array_at(here + 16 * (N + TILE), real, (TILE,))
    here += 16 * (N + TILE) + 8 * TILE
    totals = array_at(here, real, (F,))
    places = array_at(here + 8 * F, np.int64, (F,))
    steps = array_at(here + 16 * F, real, (T,))
    out = array_at(target, np.int64, (B * k,))
    first = piece * T * N
    peak, high, low, least_height, largest = NONE, NONE, NONE, -LOWEST, NONE
    for lo in range(0, N, TILE):
        n = min(TILE, N - lo)
        count = part(counts, (), lo, lo + n)
        for j in range(n):
            count[j] = highest[j] = lowest[j] = NONE
            smallest[j] = -LOWEST
        for at in range(first + lo, first + lo + T * N, N):
            row = part(spiking, (), at, at + n)
            for j in range(n):
                s = row[j]
                count[j] += ONE if s > NONE else (-ONE if s < NONE else NONE)
                highest[j] = s if s > highest[j] else highest[j]
                lowest[j] = s if s < lowest[j] else lowest[j]
                height = abs(s) if s > NONE or s < NONE else -LOWEST
                smallest[j] = height if height < smallest[j] else smallest[j]
        for j in range(n):
            # without branches: which neurons spike cannot be foreseen
            x = whole[first + min(T - np.int64(count[j]), T - 1) * N + lo + j]
            values[lo + j] = x
            product = x * (highest[j] if x >= NONE else lowest[j])
            peak = product if product > peak else peak
            size = abs(x) if count[j] > NONE else NONE
            largest = size if size > largest else largest
            high = highest[j] if highest[j] > high else high
            low = lowest[j] if lowest[j] < low else low
            least_height = smallest[j] if smallest[j] < least_height else least_height
    if high <= NONE:
        continue
    v, top = peak * real(T), max(high, -low)
    if not (v >= real(least) and (v + v) * real(T) * max(top, ONE) <= real(most)):
        out[piece * k] = -2
        continue
    # by how much totals may differ from what count * (v + value) says of them, if all spikes are equally high
    slack = real(4 * (T + 4)) * real(epsilon) * real(T) * (v + largest) if least_height == top else -LOWEST
    for j in range(N):
        counts[j] = counts[j] * (v + values[j]) if counts[j] > NONE else LOWEST
    for f in range(F):
        places[f] = -2
    for i in range(piece * k, piece * k + k):
        winner, best = -1, NONE
        for f in range(F):
            if places[f] == -2:
                about = LOWEST
                for j in range(f * S, f * S + S):
                    about = counts[j] if counts[j] > about else about
                worth = about - slack if about + slack < -LOWEST else LOWEST
                totals[f], places[f] = NONE, -1
                for j in range(f * S, f * S + S):
                    if counts[j] >= worth and counts[j] > LOWEST:
                        for t in range(T):
                            s = spiking[first + t * N + j]
                            steps[t] = fma(s, v, s * values[j]) if s > NONE or s < NONE else NONE
                        # the last neurons of a sample in four lanes
                        lanes = 1 if j < IN_ORDER else 4
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
                        counts[f * S + r * W + j] = LOWEST
                if places[f] >= 0 and counts[places[f]] == LOWEST:
                    places[f] = -2
"""

_PAD = """
    size, row = (top + H + bottom) * (left + W + right), left + W + right
    lo, hi = piece * group, min(maps, piece * group + group)
    out = part(array_at(target, real, (maps * size,)), (), lo * size, hi * size)
    for j in range((hi - lo) * size):
        out[j] = NONE
    for i in range(lo * H, hi * H):
        at = (i // H - lo) * size + (top + i % H) * row + left
        y, x = part(out, (), at, at + W), part(array_at(source, real, (maps * H * W,)), (), i * W, i * W + W)
        for j in range(W):
            y[j] = x[j]
"""

# without branches, which are foreseen badly: NaN is kept apart, and of equal values the first is taken
_POOLING = """
    whole = array_at(source, real, (maps * H * W,))
    out = array_at(target, real, (maps * OH * OW,))
    for i in range(piece * group, min(maps, piece * group + group)):
        for r in range(OH):
            begin, end = max(r * down - top, 0), min(r * down - top + rows, H)
            for c in range(OW):
                most, odd = LOWEST, NONE
                lo, hi = max(c * right - left, 0), min(c * right - left + columns, W)
                for p in range(begin, end):
                    x = part(whole, (), (i * H + p) * W + lo, (i * H + p) * W + hi)
                    for j in range(hi - lo):
                        most = x[j] if x[j] > most else most
                        odd = odd if x[j] == x[j] else x[j]
                out[(i * OH + r) * OW + c] = most if odd == odd else odd
"""

# the maps have borders, so that no window ends at an edge; several rows with theirs are one, for the sake of small maps
_NEIGHBOURS = """
    height, row = H + 2 * above, W + 2 * beside
    whole = array_at(source, real, (maps * height * row,))
    out = array_at(target, real, (maps, H, W))
    lines = max(TILE // row, 1)
    sums = array_at(scratch + me * 8 * (TILE + row), real, (TILE + row,))
    for i in range(piece * group, min(maps, piece * group + group)):
        for first in range(0, H, lines):
            size = min(lines, H - first) * row - 2 * beside
            at = (i * height + first) * row
            x = part(whole, (), at + above * row + beside, at + above * row + beside + size)
            for j in range(size):
                sums[j] = NONE
            for p in range(2 * above + 1):
                for q in range(2 * beside + 1):
                    z = part(whole, (), at + p * row + q, at + p * row + q + size)
"""

_LATERAL = (
    "\n    weights = array_at(weights_at, real, (2 * above + 1, 2 * beside + 1))"
    + _NEIGHBOURS
    + """\
                    weight = part(weights, (p,), q, q + 1)[0]
                    for j in range(size):
                        sums[j] += weight if x[j] > z[j] else NONE
            for r in range(first, min(first + lines, H)):
                y, lo = part(out, (i, r), 0, W), (r - first) * row
                u, z = part(x, (), lo, lo + W), part(sums, (), lo, lo + W)
                for j in range(W):
                    y[j] = u[j] * (ONE + z[j])
"""
)

_NORMALIZATION = (
    "\n    more, window = real(eps), real((2 * above + 1) * (2 * beside + 1))"
    + _NEIGHBOURS
    + """\
                    for j in range(size):
                        sums[j] += z[j]
            for r in range(first, min(first + lines, H)):
                y, lo = part(out, (i, r), 0, W), (r - first) * row
                u, z = part(x, (), lo, lo + W), part(sums, (), lo, lo + W)
                for j in range(W):
                    y[j] = u[j] / (z[j] / window + more)
"""
)

#: Numbers from which a further thread is worth waking, and those of a piece of maps.
PARALLEL, LARGEST_PIECE = 100_000, 50_000
#: Steps of a wave that the compiled loops add up.
LONGEST = 255
#: Neurons at a time, so that what is counted of them stays in the first-level cache.
_TILE = 2048
#: Each function's arguments, all of them whole numbers but those that start with a star, and what it does with a piece.
_FUNCTIONS = {
    "fire": ("pieces source spikes kept scratch size TILE *level", _FIRE),
    "pointwise": ("pieces source target scratch B T F S TILE", _POINTWISE),
    "winners": (
        "pieces source spikes target scratch words B T F S W k radius TILE IN_ORDER *least *most *epsilon",
        _WINNERS,
    ),
    "pad": ("pieces source target maps group H W top bottom left right", _PAD),
    "pooling": ("pieces source target maps group H W OH OW rows columns down right top left", _POOLING),
    "lateral": ("pieces source target scratch weights_at maps group TILE H W above beside", _LATERAL),
    "normalization": ("pieces source target scratch maps group TILE H W above beside *eps", _NORMALIZATION),
}


@cache
def _kernel(name: str, dtype: torch.dtype) -> tuple[Kernel, Callable[..., bytes]]:
    """Return a compiled function, and what packs its table: counts of taken pieces and ended threads, and arguments."""
    # numba takes a while to import
    from spyke_numba.backends.cpu.parts import COMPILER

    arguments, body = _FUNCTIONS[name]
    names = arguments.split()
    lines = [
        f"{argument[1:]} = numbers[{i}]" if argument.startswith("*") else f"{argument} = given[{i}]"
        for i, argument in enumerate(names, start=_ARGUMENTS)
    ]
    text = _HEADER.format(
        name=name,
        dtype=COMPILED[dtype],
        end=_ARGUMENTS + len(lines),
        ended=_ENDED,
        arguments="\n    ".join(lines),
        body=textwrap.indent(body.strip("\n"), "    "),
    )
    kernel = Kernel(load_module(f"{name}_{COMPILED[dtype]}", text, COMPILER).run)
    kinds = "".join("d" if argument.startswith("*") else "q" for argument in names)
    return kernel, partial(struct.pack, f"={8 * _ARGUMENTS}x{kinds}")


def _run(name: str, dtype: torch.dtype, threads: int, *arguments: float) -> None:
    """Run a function on its arguments, on up to so many threads."""
    kernel, packed = _kernel(name, dtype)
    table = bytearray(packed(*arguments))
    at = ctypes.addressof(ctypes.c_char.from_buffer(table))
    if threads > 1:
        TEAMS.run(kernel, at, threads, at + _ENDED)
    else:
        kernel.run(at, 0)


def _threads(elements: int) -> int:
    """Return how many threads work on so many numbers."""
    return max(1, min(torch.get_num_threads(), elements // PARALLEL))


def _groups(maps: int, elements: int, threads: int) -> tuple[int, int]:
    """Return pieces of maps, and how many maps are in each."""
    wanted = max(elements // LARGEST_PIECE, 4 * threads if threads > 1 else 1)
    group = -(-maps // min(maps, wanted))
    return -(-maps // group), group


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
    size = potentials.numel()
    threads = _threads(size)
    # signs are taken of a row that is still in the first-level cache
    tile = LARGEST_PIECE if spikes is None else 2 * _TILE
    scratch = _scratch(threads * 2 * _TILE)
    targets = [0 if target is None else target.data_ptr() for target in (spikes, kept)]
    addresses = (potentials.data_ptr(), *targets, BUFFERS.address(scratch))
    _run("fire", potentials.dtype, threads, -(-size // tile), *addresses, size, tile, level)


def pointwise(potentials: Tensor) -> Tensor:
    """Return potentials (T, F, H, W) or (B, T, F, H, W) with one surviving feature at each location."""
    T, F, H, W = potentials.shape[-4:]
    B, S = len(potentials) if potentials.ndim == 5 else 1, H * W
    threads = _threads(potentials.numel())
    # whole cache lines, so that threads do not write into one
    tile = min(_TILE, -(-S // (2 * threads if threads > B else 1) // 16) * 16)
    pieces = B * -(-S // tile)
    target, scratch = new(potentials.shape, potentials.dtype), _scratch(2 * threads * tile)
    addresses = (potentials.data_ptr(), target.data_ptr(), BUFFERS.address(scratch))
    _run("pointwise", potentials.dtype, threads, pieces, *addresses, B, T, F, S, tile)
    return target


def winners(potentials: Tensor, spikes: Tensor, k: int, radius: int) -> np.ndarray:
    """Return the flat indices (B, k) of the winners of potentials (B, T, F, H, W) in SpykeTorch's order, -1 for none.

    There are at most LONGEST steps. A sample for which that order is not defined begins with -2.
    """
    B, T, F, H, W = potentials.shape
    dtype = potentials.dtype
    threads = min(B, _threads(potentials.numel()))
    chosen = np.full((B, k), -1, np.int64)
    words = 2 * (F * H * W + _TILE + F) + _TILE + T
    scratch = _scratch(threads * words)
    addresses = (potentials.data_ptr(), spikes.data_ptr(), address(chosen), BUFFERS.address(scratch))
    sizes = (words, B, T, F, H * W, W, k, radius, _TILE, added_in_order(F * H * W, dtype))
    limits = (LEAST[dtype], MOST[dtype], torch.finfo(dtype).eps)
    _run("winners", dtype, threads, B, *addresses, *sizes, *limits)
    return chosen


def pad(input: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Return maps (..., H, W) with a border of zeros."""
    *others, H, W = input.shape
    target = new((*others, top + H + bottom, left + W + right), input.dtype)
    _run_on_maps("pad", input, target, _threads(target.numel()), (), H, W, top, bottom, left, right)
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
    _run_on_maps(
        "pooling", input, target, _threads(input.numel()), (), H, W, OH, OW, *kernel, *stride, *padding
    )
    return target


def lateral(intensities: Tensor, weights: Tensor) -> Tensor:
    """Return intensities (..., H, W) changed by their weaker neighbours, by contiguous weights of an odd shape."""
    above, beside = (size // 2 for size in weights.shape)
    return _of_neighbours("lateral", intensities, above, beside, (weights.data_ptr(),))


def normalization(input: Tensor, radius: int, eps: float) -> Tensor:
    """Return values (..., H, W) over the mean of the square around each."""
    return _of_neighbours("normalization", input, radius, radius, (), eps)


def _of_neighbours(
    name: str, input: Tensor, above: int, beside: int, more: tuple[int, ...], *numbers: float
) -> Tensor:
    target = new(input.shape, input.dtype)
    H, W = input.shape[-2:]
    near = torch.nn.functional.pad(input, (beside, beside, above, above))
    threads = _threads(near.numel())
    scratch = _scratch(threads * (_TILE + W + 2 * beside))
    more = (BUFFERS.address(scratch), *more)
    _run_on_maps(name, near, target, threads, more, _TILE, H, W, above, beside, *numbers)
    return target


def _run_on_maps(
    name: str, source: Tensor, target: Tensor, threads: int, more: tuple[int, ...], *sizes: float
) -> None:
    maps = math.prod(source.shape[:-2])
    threads = min(maps, threads)
    pieces, group = _groups(maps, source.numel(), threads)
    addresses = (source.data_ptr(), target.data_ptr(), *more)
    _run(name, source.dtype, threads, pieces, *addresses, maps, group, *sizes)
