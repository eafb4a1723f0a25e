"""The CPU backend: one numba loop per program over tiles of neurons and all steps, run on a few threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from spyke_numba.backends import Launch
from spyke_numba.backends._threads import ATOMICS, LINE, TEAMS
from spyke_numba.buffers import BUFFERS, address, aligned
from spyke_numba.engine import (
    FLOAT_FORMATS,
    MOST_STEPS,
    RECORDS,
    REFRACTORY,
    Counters,
    Program,
    Writer,
    helper_lines,
    step_lines,
)
from spyke_numba.generated import load_module

#: Neurons whose state stays in the second-level cache while the input streams past, in rows as long as possible.
LARGEST_TILE = 65_536
#: A tile of half so many neurons is worth a thread, but not two tiles per thread.
SMALLEST_TILE = 8192
#: Neurons of a tile for few steps, which the passes before and after them then find in the first-level cache.
TILE_OF_FEW_STEPS = 4096
#: Steps by which a neuron is advanced before the next one is: several streams of input hide the memory's latency, and
#: the state goes through the registers once.
TOGETHER = 4
#: Neurons that are advanced before more of the input is asked for, and how far ahead that lies; and bytes of input
#: below which it may well be in the second-level cache.
BLOCK, AHEAD, FETCHED = 512, 1024, 2**20
#: Vectors of neurons that go side by side through a row, each operation for all of them. An operation that waits takes
#: one of the few places from which the processor chooses what to do next, and a single vector's would fill them all.
INTERLEAVED = 4
#: Steps in which a neuron's hold fits into a byte; `_MARKS` says how.
WINDOW = 120
#: Neurons of maps that are advanced together before their winners are looked for, in the first-level cache.
GROUP = 4096
#: Neurons that a thread takes at once from a sample that it shares with others.
PIECE = 16_384
#: Below this many neuron-steps a second thread costs more than it gives.
PARALLEL_NEURON_STEPS = 800_000
#: From this many neurons per sample threads share one sample's maps, and wait for each other at every step.
PARALLEL_NEURONS = 16_384

_HEADER = '''\
"""Generated for {label}. Do not edit."""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

#: Of functions that only others call: they count no references, and need no way in from Python, which would have to be
#: compiled too.
INNER = {{"_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}}
real, whole = np.{real}, np.{whole}
NO_STEPS, ONE_STEP = np.int32(0), np.int32(1)
LOWEST_KEY = real(-np.inf)
#: Of a neuron's last step: whether it spiked, and may win; or spiked too near to a winner.
NOT_FIRED, FIRED, EXCLUDED = np.uint8(0), np.uint8(1), np.uint8(2)
#: Keys of a vector, and bytes of one.
LANES, WIDTH = 512 // {bits}, {bits} // 8


@intrinsic
def array_at(context, address, dtype, shape):
    """Return the memory at an address as an array; numba's own `carray` would count references to it."""
    array = types.Array(dtype.dtype, len(shape), "C")

    def generate(context, builder, signature, arguments):
        item = context.get_abi_sizeof(context.get_data_type(array.dtype))
        sizes = cgutils.unpack_tuple(builder, arguments[2])
        strides = [ir.Constant(ir.IntType(64), item)]
        for size in reversed(sizes[1:]):
            strides.insert(0, builder.mul(strides[0], size))
        result = arrayobj.make_array(array)(context, builder)
        data = builder.inttoptr(arguments[0], context.get_data_type(array.dtype).as_pointer())
        arrayobj.populate_array(result, data, sizes, strides, ir.Constant(ir.IntType(64), item), None)
        return result._getvalue()

    return array(types.int64, dtype, shape), generate


def _unary(result, argument, build):
    @intrinsic
    def operation(context, value):
        def generate(context, builder, signature, arguments):
            return build(builder, arguments[0])

        return result(argument), generate

    return operation


@intrinsic
def use_widest_vectors(context):
    """Let the function in which it stands use 512-bit vectors, which LLVM avoids of itself."""

    def generate(context, builder, signature, arguments):
        # llvmlite knows only attributes without a value by name; LLVM takes this one as it is written
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic
def rows_lie_apart(context):
    """Promise that none of the function's arrays overlaps another, so that LLVM need not compare them at every call."""

    def generate(context, builder, signature, arguments):
        for argument in builder.function.args:
            if isinstance(argument.type, ir.PointerType):
                argument.add_attribute("noalias")
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic(prefer_literal=True)
def interleaved(context, vectors):
    """Let so many vectors go side by side through the loop whose body ends here, each operation for all of them."""
    count = vectors.literal_value

    def generate(context, builder, signature, arguments):
        def branch(target):
            # the way back to the loop's head: LLVM looks there for what it should do with the loop
            del builder.branch
            back, module = builder.branch(target), builder.module
            wish = module.add_metadata(["llvm.loop.interleave.count", ir.Constant(ir.IntType(32), count)])
            loop = module.add_metadata([None, wish])
            loop.operands = (loop, wish)
            back.set_metadata("llvm.loop", loop)
            return back

        builder.branch = branch
        return context.get_dummy_value()

    return types.none(vectors), generate


_ir_real, _ir_whole = ir.{ir_real}(), ir.IntType({bits})
_bits_of = _unary(types.{whole}, types.{real}, lambda builder, value: builder.bitcast(value, _ir_whole))
_of_bits = _unary(types.{real}, types.{whole}, lambda builder, value: builder.bitcast(value, _ir_real))
_as_whole = _unary(types.{whole}, types.{real}, lambda builder, value: builder.fptosi(value, _ir_whole))
_as_real = _unary(types.{real}, types.{whole}, lambda builder, value: builder.sitofp(value, _ir_real))
_rint = _unary(
    types.{real}, types.{real}, lambda b, value: b.call(b.module.declare_intrinsic("llvm.rint", [_ir_real]), [value])
)
_sqrt = _unary(
    types.{real}, types.{real}, lambda b, value: b.call(b.module.declare_intrinsic("llvm.sqrt", [_ir_real]), [value])
)
_fabs = _unary(
    types.{real}, types.{real}, lambda b, value: b.call(b.module.declare_intrinsic("llvm.fabs", [_ir_real]), [value])
)


@njit(forceinline=True, **INNER)
def where(condition, a, b):
    return a if condition else b


@intrinsic
def chosen(context, condition, a, b):
    """Choose without a branch, which could take the load of a value with it."""
    return a(condition, a, a), lambda context, builder, signature, arguments: builder.select(*arguments)


@intrinsic
def _fetch(context, address):
    """Ask for a cache line, into the second-level cache."""

    def generate(context, builder, signature, arguments):
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        place = builder.inttoptr(arguments[0], byte)
        builder.call(function, [place, *(ir.Constant(flag, value) for value in (0, 2, 1))])
        return context.get_dummy_value()

    return types.none(types.int64), generate


# a loop from 0 over rows vectorises; one from lo to hi over matrices does not
@njit(**INNER)
def copy(row, out):
    for j in range(row.size):
        out[j] = row[j]


@njit(forceinline=True, **INNER)
def abs(x):
    return _fabs(x)


@njit(forceinline=True, **INNER)
def sqrt(x):
    return _sqrt(x)


@njit(forceinline=True, **INNER)
def rint(x):
    return _rint(x)


@njit(forceinline=True, **INNER)
def pow2(n):
    return _of_bits(whole((_as_whole(n) + whole({bias})) << whole({mantissa_bits})))


@njit(forceinline=True, **INNER)
def exponent(x):
    return _as_real(whole((_bits_of(x) >> whole({mantissa_bits})) - whole({bias})))


@njit(forceinline=True, **INNER)
def mantissa(x):
    return _of_bits(whole((_bits_of(x) & whole({mantissa_mask})) | whole({one_bits})))


@intrinsic
def larger(context, a, b):
    """Return the larger of two keys; said to be no NaN, and -0 to be as good as 0, so that a maximum vectorises."""

    def generate(context, builder, signature, arguments):
        known = ("nnan", "nsz")
        first = builder.fcmp_ordered(">", *arguments, flags=known)
        return builder.select(first, *arguments, flags=known)

    return a(a, b), generate


'''

_IR_REAL = {"float32": "FloatType", "float64": "DoubleType"}

# an explicit signature: it is compiled, or comes from the disk, when the module is loaded
_JIT = '@njit("void(int64[::1], int64)", cache=True, nogil=True, error_model="numpy", _nrt=False)'
_JIT_ROW = '@njit(error_model="numpy", **INNER)'

_COMPETITION = '''\
@njit(**INNER)
def remaining(until, t, out):
    # how many steps are left of those from t on
    for j in range(until.size):
        out[j] = max(np.int32(until[j] - t), NO_STEPS)


@njit(**INNER)
def mark(until, t, held):
    for j in range(until.size):
        held[j] = np.uint8(until[j] > np.int32(t))


@njit(**INNER)
def claim(turns, t, me, owners, pieces):
    """Return a piece of step t that nobody has yet: of one's own, which are in one's cache, then of another's; or -1.

    The counts go on from step to step, so that a thread which comes late finds everything taken, and does no harm.
    """
    for i in range(owners):
        owner = (me + i) % owners
        lo, hi = pieces * owner // owners, pieces * (owner + 1) // owners
        taken = _load(turns + owner * LINE)
        while taken < (t + 1) * (hi - lo):
            if _replace(turns + owner * LINE, taken, taken + 1):
                return lo + taken - t * (hi - lo)
            taken = _load(turns + owner * LINE)
    return -1


@njit(**INNER)
def completes(turns, t, owners, done, pieces):
    """Count pieces as done, and return whether they were the last of step t."""
    return _add(turns + owners * LINE, done) + done == (t + 1) * pieces


@njit(**INNER)
def next_step(turns, owners):
    _add(turns + (owners + 1) * LINE, 1)


@njit(error_model="numpy", **INNER)
def largest(keys):
    use_widest_vectors()
    best = LOWEST_KEY
    for j in range(keys.size):
        best = larger(keys[j], best)
    return best


@njit(error_model="numpy", **INNER)
def largest_fired(u, fired, lowest):
    use_widest_vectors()
    best = lowest
    for j in range(u.size):
        best = larger(chosen(fired[j] == FIRED, u[j], lowest), best)
    return best


@njit(error_model="numpy", **INNER)
def copy_fired(u, fired, keys):
    for j in range(u.size):
        keys[j] = u[j] if fired[j] == FIRED else LOWEST_KEY


@njit(**INNER)
def fill(value, out):
    for j in range(out.size):
        out[j] = value


@njit(error_model="numpy", **INNER)
def copy_reset(u, fired, v_reset, out):
    for j in range(u.size):
        out[j] = {v_reset} if fired[j] != NOT_FIRED else u[j]


def _search(flagged):
    # a vector at a time, since a loop that stops would compare one after the other
    def generate(context, builder, signature, arguments):
        array = arrayobj.make_array(signature.args[0])(context, builder, arguments[0])
        (size,) = cgutils.unpack_tuple(builder, array.shape)
        flags = arrayobj.make_array(signature.args[2])(context, builder, arguments[2]).data if flagged else None
        count, word, byte = LANES, ir.IntType(64), ir.IntType(8)
        vector, bytes_of_it = ir.VectorType(_ir_real, count), ir.VectorType(byte, count)
        wanted = ir.Constant(vector, ir.Undefined)
        for lane in range(count):
            wanted = builder.insert_element(wanted, arguments[1], ir.Constant(ir.IntType(32), lane))
        before = builder.block
        whole_vectors, compare, after, singles, single, next_single, end = (
            builder.append_basic_block(name)
            for name in ("vectors", "compare", "after", "singles", "single", "next", "end")
        )
        full = builder.and_(size, ir.Constant(word, -count))
        builder.branch(whole_vectors)

        def equal(at, kind, kind_of_flags, ones, align):
            place = builder.bitcast(builder.gep(array.data, [at]), kind.as_pointer())
            same = builder.fcmp_ordered("==", builder.load(place, align=align), wanted if ones > 1 else arguments[1])
            if flags is None:
                return same
            place = builder.bitcast(builder.gep(flags, [at]), kind_of_flags.as_pointer())
            fired = ir.Constant(kind_of_flags, [int(FIRED)] * ones if ones > 1 else int(FIRED))
            return builder.and_(same, builder.icmp_unsigned("==", builder.load(place, align=1), fired))

        builder.position_at_end(whole_vectors)
        at = builder.phi(word)
        at.add_incoming(ir.Constant(word, 0), before)
        builder.cbranch(builder.icmp_signed("<", at, full), compare, singles)
        builder.position_at_end(compare)
        mask = builder.bitcast(equal(at, vector, bytes_of_it, count, WIDTH), ir.IntType(count))
        at.add_incoming(builder.add(at, ir.Constant(word, count)), compare)
        none = builder.icmp_unsigned("==", mask, ir.Constant(mask.type, 0))
        builder.cbranch(none, whole_vectors, after)
        builder.position_at_end(after)
        lane = builder.zext(builder.cttz(mask, ir.Constant(ir.IntType(1), 1)), word)
        in_vector = builder.add(at, lane)
        builder.branch(end)

        builder.position_at_end(singles)
        one = builder.phi(word)
        one.add_incoming(full, whole_vectors)
        builder.cbranch(builder.icmp_signed("<", one, size), single, end)
        builder.position_at_end(single)
        builder.cbranch(equal(one, _ir_real, byte, 1, WIDTH), end, next_single)
        builder.position_at_end(next_single)
        one.add_incoming(builder.add(one, ir.Constant(word, 1)), next_single)
        builder.branch(singles)
        builder.position_at_end(end)
        found = builder.phi(word)
        found.add_incoming(in_vector, after)
        found.add_incoming(one, single)
        found.add_incoming(ir.Constant(word, -1), singles)
        return found

    return generate


@intrinsic
def first_place(context, keys, key):
    """Return the first place of a key, or -1."""
    return types.int64(keys, key), _search(False)


@intrinsic
def first_fired(context, u, key, fired):
    """Return the first place of a potential among those that fired, or -1."""
    return types.int64(u, key, fired), _search(True)


@njit(error_model="numpy", **INNER)
def enters(key, front_runners):
    # whether fewer maps than can win have had a larger key so far; the smallest then makes room
    if key < front_runners[0]:
        return False
    i = 0
    while i + 1 < front_runners.size and front_runners[i + 1] < key:
        front_runners[i] = front_runners[i + 1]
        i += 1
    front_runners[i] = key
    return True


@njit(forceinline=True, **INNER)
def near(a, b, radius):
    return a - b <= radius and b - a <= radius


@njit(error_model="numpy", **INNER)
def select(u, fired, map_keys, map_places, k, radius, W, size, won, lowest):
    # a map's key is an upper bound, made exact only for a map that reaches the front
    n = 0
    while n < k:
        best = largest(map_keys)
        if best == LOWEST_KEY:
            break
        front = first_place(map_keys, best)
        place = map_places[front]
        own_u, own_fired = u[front * size:front * size + size], fired[front * size:front * size + size]
        if place < 0:
            place = first_fired(own_u, best, own_fired)
        allowed = True
        if radius > 0:
            for q in range(n):
                if near(place // W, won[q, 1], radius) and near(place % W, won[q, 2], radius):
                    allowed = False
                    for row in range(max(0, won[q, 1] - radius), min(size // W, won[q, 1] + radius + 1)):
                        for column in range(max(0, won[q, 2] - radius), min(W, won[q, 2] + radius + 1)):
                            if own_fired[row * W + column] == FIRED:
                                own_fired[row * W + column] = EXCLUDED
        if not allowed:
            map_keys[front], map_places[front] = largest_fired(own_u, own_fired, lowest), -1
            continue
        map_keys[front] = LOWEST_KEY
        won[n, 0] = front
        won[n, 1] = place // W
        won[n, 2] = place % W
        n += 1
    return n


'''

#: A neuron without inhibition is held until a step that a byte marks, from the window's first step on; a mark that is
#: larger than WINDOW holds to its end, and tells the step of the spike, or is BEFORE for a hold from before the window.
_MARKS = '''\
WINDOW, BEFORE = {window}, np.uint8(255)


@njit(forceinline=True, **INNER)
def mark_of(period, now):
    """Return the mark of a spike in step `now` of the window; a period of 255 stands for all that are longer."""
    fits = period <= np.uint8(WINDOW - 1 - now)
    return where(fits, np.uint8(period + np.uint8(now + 1)), np.uint8(WINDOW + 1 + now))


@njit(**INNER)
def mark(r, marks):
    for j in range(r.size):
        marks[j] = np.uint8(r[j]) if r[j] <= WINDOW else BEFORE


@njit(**INNER)
def remaining(marks, n, periods, before, r):
    # how long each neuron is held after n steps of the window
    for j in range(marks.size):
        m = np.int32(marks[j])
        period = periods[{place}]
        within = max(np.int32(m - n), NO_STEPS)
        beyond = np.int32(before[j] - n) if m == BEFORE else np.int32(period + m - WINDOW - n)
        r[j] = within if m <= WINDOW else beyond


'''

_FREE = """\
tiles = (N + tile - 1) // tile
{marks}
while True:
    item = _add(progress, 1)
    if item >= B * tiles:
        break
    b = item // tiles
    lo = (item % tiles) * tile
    hi = min(lo + tile, N)
    for first in range(0, steps, WINDOW):
        last = min(first + WINDOW, steps)
        {mark}
        t = first
        while t < last:
            if together > 0 and last - t >= {times}:
                {advance_together}
                t += {times}
            else:
                {advance}
                {record}
                t += 1
        {remaining}
"""

_COMPETING = """\
size = H * W
F = N // size
# maps advanced together, and neurons at a time: small maps several at once, and large ones in parts
group = grouped // size if size < grouped // 8 else 1
row = group * size if size <= grouped else grouped
front_runners, lowest = front_runners_of[me, :k], lowest_key[0]
# with many winners it takes longer to tell whether a map can win than to find its place
prune = k <= 32
{prepare}
b = -1
while True:
    # samples one after the other where threads share each, else whichever has not been taken
    b = b + 1 if owners > 0 else _add(progress, 1)
    if b >= B:
        break
    turns_b = progress + (2 + b * (owners + 2)) * LINE
    for t in range(steps):
        piece = claim(turns_b, t, me, owners, pieces) if owners > 0 else 0
        done = 0
        if piece >= 0:
            {tiling}
            front_runners[:] = LOWEST_KEY
        while piece >= 0:
            first_map, last_map = F * piece // pieces, F * (piece + 1) // pieces
            f = first_map
            while f < last_map:
                end = min(f + group, last_map)
                {alike}
                {rest}
                best, best_place = LOWEST_KEY, -1
                for lo in range(f * size, end * size, row):
                    hi, offset = min(lo + row, end * size), lo - f * size
                    {next_at}
                    best_of_row = {advance}
                    {record}
                    if size > row:
                        if best_of_row > best and (best_of_row >= front_runners[0] or not prune):
                            best_place = offset + first_fired(g_u[b, lo:hi], best_of_row, fired[b, lo:hi])
                    best = larger(best_of_row, best)
                if size > row:
                    map_keys[b, f], map_places[b, f] = best, best_place
                    if prune and best > LOWEST_KEY:
                        enters(best, front_runners)
                    f = end
                    continue
                if size == 1:
                    # a population: each neuron is a map of its own
                    copy_fired(g_u[b, lo:hi], fired[b, lo:hi], map_keys[b, lo:hi])
                    map_places[b, lo:hi] = 0
                    f = end
                    continue
                for g in range(f, end):
                    map_keys[b, g], map_places[b, g] = best, -1
                    if best > LOWEST_KEY:
                        u_of_g, fired_of_g = g_u[b, g * size:(g + 1) * size], fired[b, g * size:(g + 1) * size]
                        if end - f > 1:
                            map_keys[b, g] = largest_fired(u_of_g, fired_of_g, lowest)
                        if not prune or enters(map_keys[b, g], front_runners):
                            map_places[b, g] = first_fired(u_of_g, map_keys[b, g], fired_of_g)
                f = end
            done += 1
            piece = claim(turns_b, t, me, owners, pieces) if owners > 0 else -1
        concludes = owners == 0 or (done > 0 and completes(turns_b, t, owners, done, pieces))
        if not concludes:
            wait_until(turns_b + (owners + 1) * LINE, t + 1)
            continue
        n = select(g_u[b], fired[b], map_keys[b], map_places[b], k, radius, W, size, won[b], lowest)
        for q in range(n):
            front = won[b, q, 0]
            place = won[b, q, 1] * W + won[b, q, 2]
            period = {period}
            start, stop, stride = {inhibited}
            for j in range(start, stop, stride):
                g_r[b, j] = max(g_r[b, j], period)
                {rests}
        if winners.shape[0] > 0:
            for q in range(k):
                for i in range(3):
                    winners[t, b, q, i] = won[b, q, i] if q < n else -1
        if out_refractory.shape[0] > 0:
            for j in range(N):
                out_refractory[t, b, j] = {counter}
        {settle}
        if owners > 0:
            next_step(turns_b, owners)
"""

#: Where the input goes on after a row: of the next map, or of the first one in the next step, of the sample or of the
#: only piece that the thread has of it.
_NEXT_MAP = """\
next_at = 0
if fetches > 0:
    again = hi == last_map * size and (pieces <= max(owners, 1) or hi == N)
    following = first_map * size if again else hi
    if {wanted}:
        next_at = x_at + ((t + again) * B * N + b * N + following) * {item}
"""

#: Where the group ends so that all its maps are held, or none is; and if so, for the first time or not.
_ALIKE = """\
held, resting = g_r[b, f] > t, t >= rest_from[b, f]
for g in range(f + 1, end):
    if (g_r[b, g] > t) != held or (held and (t >= rest_from[b, g]) != resting):
        end = g
        break
"""

#: Held maps need neither input nor membrane, and lie at rest from the first such step on. Nothing is written that
#: another thread reads at every step: the line that holds it would go from one core to the other and back.
_REST = """\
if g_r[b, {set}] > t:
    for lo in range(f * size, end * size, row):
        hi = min(lo + row, end * size)
        if t >= rest_from[b, {set}]:
            {stay}
            {record_stay}
        else:
            {rest}
            {record}
    for g in range(f, end):
        if map_keys[b, g] != LOWEST_KEY:
            map_keys[b, g] = LOWEST_KEY
    f = end
    continue
"""

#: While a block of neurons is advanced, the input of a later one is on its way.
_FETCHING = f"""\
best = lowest
if next_at == 0:
    return {{inner}}({{whole}})
for at in range(0, x0.size, {BLOCK}):
    to = min(at + {BLOCK}, x0.size)
    later = at + {AHEAD}
    place = row_at + later * {{item}}
    if later >= x0.size:
        place = next_at + (later - x0.size) * {{item}}
    for line in range(0, (to - at) * {{item}}, LINE):
        _fetch(place + line)
    best = larger({{inner}}({{part}}), best)
return best
"""

#: First and last counter of a winner's inhibited set and their stride, for counters of neurons and of sets.
_INHIBITED = {
    ("feature", False): "front * size, (front + 1) * size, 1",
    ("location", False): "place, F * size, size",
    ("global", False): "0, F * size, 1",
    ("feature", True): "front, front + 1, 1",
    ("location", True): "place, place + 1, 1",
    ("global", True): "0, 1, 1",
}

#: The counter of neuron j.
_COUNTER = {
    ("feature", False): "j",
    ("location", False): "j",
    ("global", False): "j",
    ("feature", True): "j // size",
    ("location", True): "j % size",
    ("global", True): "0",
}


def _filled(template: str, **blocks: list[str]) -> list[str]:
    # The lines of a template; a block of several lines, or none, stands alone in its line and takes its indentation.
    lines = []
    for line in template.splitlines():
        indent, name = line[: len(line) - len(line.lstrip())], line.strip()[1:-1]
        if name in blocks and line.strip() == f"{{{name}}}":
            lines += [indent + block_line for block_line in blocks[name]]
        else:
            single = {name: block[0] for name, block in blocks.items() if len(block) == 1}
            lines.append(line.format(**single))
    return lines


#: Progress holds who has taken what, and who has ended.
_END = """\
if me > 0:
    _add(progress + LINE, 1)
"""


def _body(lines: list[str]) -> list[str]:
    return [*(f"    {line}" for line in [*lines, *_END.splitlines()]), ""]


class _Source:
    # Writes a program's module: rows of neurons first, then the loop over samples, steps and tiles or maps.

    def __init__(self, program: Program):
        self.program = program
        self.writer = Writer()
        self.scalars = [f"p_{name}" for name in program.scalars]
        self.varying_period = REFRACTORY in program.varying
        #: Recorded arrays by name, and their types: what the rows write of themselves, and what is copied after them.
        self.written = {name: "np.bool_" if name == "spikes" else "real" for name in program.records}
        self.copied = {**dict.fromkeys(program.states, "real"), "refractory": "np.int32"}
        #: Bytes of a potential.
        self.item = np.dtype(program.dtype).itemsize
        self.counters: Counters = "own"
        if program.compact:
            self.counters = "shared" if program.inhibition == "location" else "free"
        elif program.inhibition is None:
            self.counters = "until"

    def row(self, name: str, counters: Counters, times: int = 1, at_rest: bool = False) -> list[str]:
        # a function that advances the neurons of one row by one step, or by so many before it goes to the next
        program, steps = self.program, range(times)
        spikes, competes = counters != "held", counters != "held" and program.inhibition is not None
        arguments = [f"x{i}" for i in steps] + [f"row_{state}" for state in program.states]
        arguments += ["row_fired"] if program.inhibition is not None else []
        arguments += ["row_r"] if counters in ("own", "until", "shared") else []
        arguments += [f"row_out_{name}{i}" for i in steps for name in program.records]
        arguments += [f"row_p_{constant}" for constant in program.arrays]
        rows = list(arguments)
        arguments += self.scalars
        arguments += ["now0", "row_period"] if counters == "until" else []
        # not as a constant: LLVM would merge the choice of the key with the maximum, and then find no maximum
        arguments += ["lowest"] if competes else []
        before = ["best = lowest"] if competes else []
        body = [f"s_{state} = row_{state}[j]" for state in program.states]
        body += ["r = row_r[j]"] if counters in ("own", "until", "shared") else []
        body += [f"p_{constant} = row_p_{constant}[j]" for constant in program.arrays]
        if at_rest:
            # as the step before has left it, and leaves it again
            body.append("s_u = p_resting_potential")
            body += ["s_u = where(s_u < p_floor, p_floor, s_u)"] if program.floor else []
        elif program.inhibition is not None:
            body.append("s_u = chosen(row_fired[j] != NOT_FIRED, p_v_reset, s_u)")
        for i in steps:
            body.append(f"i_in = x{i}[j]")
            if counters == "until":
                before.append(f"now{i} = np.uint8(now0 + {i})")
                # what does not vary is computed once
                marks, period = (body, "row_period[j]") if self.varying_period else (before, "row_period[0]")
                marks.append(f"mark{i} = mark_of({period}, now{i})")
                body.append(f"now = now{i}")
            body += step_lines(program, self.writer, counters)
            body += [f"r = where(spiked, mark{i}, r)"] if counters == "until" else []
            nothing = self.writer.constant(0.0)
            quiet = {**dict.fromkeys(RECORDS, nothing), "spikes": "False", "u_pre": "new_u"}
            for record in program.records:
                body.append(f"row_out_{record}{i}[j] = {(RECORDS if spikes else quiet)[record]}")
        kept = ("u",) if competes or at_rest else ()
        body += [f"row_{state}[j] = s_{state}" for state in program.states if state not in kept]
        body += ["row_r[j] = r"] if counters in ("own", "until") else []
        if competes:
            # the potential is the key of a neuron that spiked, and is reset by the next step
            body += ["row_u[j] = new_u", "row_fired[j] = spiked"]
            body.append("best = larger(chosen(spiked, new_u, lowest), best)")
        elif program.inhibition is not None and not at_rest:
            body.append("row_fired[j] = NOT_FIRED")
        body += [f"interleaved({INTERLEAVED})"] if counters != "held" else []
        inner = f"{name}_block" if competes else name
        lines = [_JIT_ROW, f"def {inner}({', '.join(arguments)}):"]
        lines += ["    use_widest_vectors()", "    rows_lie_apart()"]
        lines += [*(f"    {line}" for line in before), "    for j in range(x0.size):"]
        lines += [f"        {line}" for line in body]
        if not competes:
            return [*lines, "", ""]
        whole = ", ".join(arguments)
        part = ", ".join(f"{name}[at:to]" if name in rows else name for name in arguments)
        fetching = _filled(_FETCHING, inner=[inner], whole=[whole], part=[part], item=[str(self.item)])
        lines += ["    return best", "", "", _JIT_ROW, f"def {name}({whole}, row_at, next_at):"]
        return [*lines, *(f"    {line}" for line in fetching), "", ""]

    def call(self, name: str, counters: Counters, times: int = 1) -> str:
        # a call of such a function for the neurons lo to hi
        program = self.program
        at = ["t"] + [f"t + {i}" for i in range(1, times)]
        arguments = [f"x[({t}) % x.shape[0], b, lo:hi]" for t in at]
        arguments += [f"g_{state}[b, lo:hi]" for state in program.states]
        arguments += ["fired[b, lo:hi]"] if program.inhibition is not None else []
        own = {"own": ["g_r[b, lo:hi]"], "until": ["marks[:hi - lo]"]}
        arguments += {**own, "shared": ["held_r[offset:offset + hi - lo]"]}.get(counters, [])
        arguments += [
            f"out_{name}[({t}) % out_{name}.shape[0], b, lo:hi]" for t in at for name in program.records
        ]
        arguments += [f"arrays[{i}, lo:hi]" for i in range(len(program.arrays))] + self.scalars
        if counters == "until":
            arguments += ["np.uint8(t - first)", f"byte_periods{'[lo:hi]' if self.varying_period else ''}"]
        if counters != "held" and program.inhibition is not None:
            arguments += ["lowest", f"x_at + ((t * B + b) * N + lo) * {self.item}", "next_at"]
        return f"{name}({', '.join(arguments)})"

    @property
    def v_reset(self) -> str:
        """The potential after a spike: a number, or the neurons' own at the places to be filled in."""
        arrays = self.program.arrays
        return f"arrays[{arrays.index('v_reset')}, {{}}]" if "v_reset" in arrays else "p_v_reset"

    def remaining(self, step: str, out: str) -> str:
        # a call of what turns marks into counters
        periods = f"periods{'[lo:hi]' if self.varying_period else ''}"
        return f"remaining(marks[:hi - lo], {step} - first, {periods}, g_r[b, lo:hi], {out})"

    def copies(self, at_rest: bool = False) -> list[str]:
        # record what stands in the state of the neurons lo to hi
        held = {f"out_{state}": f"g_{state}" for state in self.program.states}
        lines = []
        for out, array in held.items():
            copied = f"copy({array}[b, lo:hi], {out}[t, b, lo:hi])"
            if array == "g_u" and self.program.inhibition is not None:
                reset = self.v_reset.format("lo:hi")
                copied = f"copy_reset({array}[b, lo:hi], fired[b, lo:hi], {reset}, {out}[t, b, lo:hi])"
                if at_rest and not {"resting_potential", "floor"} & set(self.program.arrays):
                    floored = "p_resting_potential"
                    if self.program.floor:
                        floored = "where(p_resting_potential < p_floor, p_floor, p_resting_potential)"
                    copied = f"fill({floored}, {out}[t, b, lo:hi])"
            lines += [f"if {out}.shape[0] > 0:", f"    {copied}"]
        if self.counters == "until":
            lines += [
                "if out_refractory.shape[0] > 0:",
                f"    {self.remaining('t + 1', 'out_refractory[t, b, lo:hi]')}",
            ]
        elif self.program.inhibition is None:
            lines += [
                "if out_refractory.shape[0] > 0:",
                "    copy(g_r[b, lo:hi], out_refractory[t, b, lo:hi])",
            ]
        return lines

    @property
    def table(self) -> dict[str, str | None]:
        """What the table of a launch holds, in order: integers, and addresses of arrays with their dtype and shape."""
        program = self.program
        scalars, arrays = len(program.scalars), len(program.arrays)
        integers = "B N sets periods_given steps steps_of_x progress"
        table: dict[str, str | None] = dict.fromkeys(integers.split())
        states = {f"g_{state}": "real, (B, N)" for state in program.states}
        table.update(states, g_r="np.int32, (B, sets)", periods="np.int32, (periods_given,)")
        table.update(
            scalars=f"real, ({scalars},)", arrays=f"real, ({arrays}, N)", x="real, (steps_of_x, B, N)"
        )
        for output, dtype in {**self.written, **self.copied}.items():
            table.update({f"steps_of_{output}": None, f"out_{output}": f"{dtype}, (steps_of_{output}, B, N)"})
        if program.inhibition is None:
            table.update(dict.fromkeys(["tile", "slots", "together"]))
            return {
                **table,
                "byte_periods": "np.uint8, (periods_given,)",
                "marks_of": "np.uint8, (slots, tile)",
            }
        integers = "k radius H W grouped maps pieces owners slots most_runners longest fetches"
        table.update(dict.fromkeys(integers.split()))
        table.update(steps_of_winners=None, winners="np.int32, (steps_of_winners, B, k, 3)")
        table.update(lowest_key="real, (1,)", won="np.int32, (B, k, 3)", fired="np.uint8, (B, N)")
        table.update(dict.fromkeys(["rest_from"] * (self.counters == "free"), "np.int32, (B, sets)"))
        table.update(map_keys="real, (B, maps)", map_places="np.int64, (B, maps)")
        # what a thread has for itself; memory that numba manages would have its references counted at every map
        table.update(front_runners_of="real, (slots, most_runners)", held_of="np.uint8, (slots, longest)")
        return table

    def head(self) -> list[str]:
        lines = [_JIT, "def run(at, me):", "    use_widest_vectors()"]
        for i, (name, array) in enumerate(self.table.items()):
            lines.append(
                f"    {name} = at[{i}]" if array is None else f"    {name} = array_at(at[{i}], {array})"
            )
        lines.append(f"    x_at = at[{list(self.table).index('x')}]")
        return [*lines, *(f"    p_{name} = scalars[{i}]" for i, name in enumerate(self.program.scalars))]

    def free(self) -> list[str]:
        # every neuron for itself: tiles of neurons stay in the cache while all steps stream past
        counters = self.counters
        place = "j" if self.varying_period else "0"
        functions = [_MARKS.format(window=WINDOW, place=place), *self.row("advance", counters)]
        names = ("marks", "mark", "remaining")
        blocks: dict[str, list[str]] = {name: [] for name in names}
        if counters == "until":
            blocks["mark"] = ["mark(g_r[b, lo:hi], marks[:hi - lo])"]
            blocks["remaining"] = [self.remaining("last", "g_r[b, lo:hi]")]
            blocks["marks"] = ["marks = marks_of[me]"]
        functions += self.row("advance_together", counters, TOGETHER)
        loop = _filled(
            _FREE,
            times=[str(TOGETHER)],
            advance_together=[self.call("advance_together", counters, TOGETHER)],
            advance=[self.call("advance", counters)],
            record=self.copies(),
            **blocks,
        )
        return [*functions, *self.head(), *_body(loop)]

    def competing(self) -> list[str]:
        # groups of maps one after the other, then the winners; threads that share a sample ask for each alone
        program, counters = self.program, self.counters
        scope, compact = program.inhibition, program.compact
        assert scope is not None
        functions = self.row("advance", counters)
        names = ("prepare", "tiling", "alike", "rest", "rests", "settle", "next_at")
        blocks: dict[str, list[str]] = {name: [] for name in names}
        sets: list[str] = []
        if counters == "free":
            # of map f, or of the whole sample
            sets = ["f" if scope == "feature" else "0"]
            functions += [*self.row("rest", "held"), *self.row("stay", "held", at_rest=True)]
            blocks["alike"] = _ALIKE.splitlines() if "f" in sets else []
            blocks["rest"] = _filled(
                _REST,
                set=sets,
                rest=[self.call("rest", "held")],
                stay=[self.call("stay", "held")],
                record_stay=self.copies(at_rest=True),
                record=self.copies(),
            )
            # from the second step that it is held on
            blocks["rests"] = ["rest_from[b, j] = t + 2"]
        # held maps need no input
        wanted = "g_r[b, following // size] <= t + again" if "f" in sets else "True"
        blocks["next_at"] = _filled(_NEXT_MAP, wanted=[wanted], item=[str(self.item)])
        if counters == "shared":
            blocks["prepare"] = ["held_r = held_of[me]"]
            blocks["tiling"] = [
                "mark(g_r[b], t, held_r[:size])",
                "for i in range(1, group):",
                "    copy(held_r[:size], held_r[i * size:i * size + size])",
            ]
        period = f"periods[{'front * size + place' if self.varying_period else '0'}]"
        counter = f"g_r[b, {_COUNTER[scope, compact]}]"
        if compact:
            # sets are held until a step: what is not counted down need not go from one core's cache to another's
            period = f"np.int32(t + 1 + {period})"
            counter = f"max(np.int32({counter} - t - 1), NO_STEPS)"
            ends = ["g_r"] + ["rest_from"] * (counters == "free")
            blocks["settle"] = [
                "if t + 1 == steps:",
                *(f"    remaining({n}[b], steps, {n}[b])" for n in ends),
            ]
        loop = _filled(
            _COMPETING,
            **blocks,
            advance=[self.call("advance", counters)],
            record=self.copies(),
            period=[period],
            inhibited=[_INHIBITED[scope, compact]],
            counter=[counter],
        )
        competition = _COMPETITION.replace(
            "{v_reset}", "v_reset[j]" if "v_reset" in program.arrays else "v_reset"
        )
        return [competition, *functions, *self.head(), *_body(loop)]

    def text(self) -> str:
        body = self.free() if self.program.inhibition is None else self.competing()
        lines = [line for line in body if not line.startswith("@")]
        helpers = helper_lines(lines, self.program.dtype, self.writer, "@njit(forceinline=True, **INNER)")
        constants = [f"{name} = real({_literal(value)})" for value, name in self.writer.constants.items()]
        header = _HEADER.format(
            label=self.program.label,
            ir_real=_IR_REAL[self.program.dtype],
            **FLOAT_FORMATS[self.program.dtype],
        )
        return "\n".join([header, ATOMICS, *constants, "", "", *helpers, "", *body])


def source(program: Program) -> str:
    """Return the text of a program's module; its function ``run`` advances samples, or tiles of them, by all steps."""
    return _Source(program).text()


_ELEMENTWISE = """\
@njit("void(int64, int64, int64)", cache=True, nogil=True, error_model="numpy", _nrt=False)
def run(source, target, size):
    use_widest_vectors()
    x, y = array_at(source, real, (size,)), array_at(target, real, (size,))
    for j in range(size):
        y[j] = {name}(x[j])
        interleaved({vectors})
"""


@cache
def elementwise(name: str, dtype: str) -> Callable[[int, int, int], None]:
    """Return an elementary function over memory: addresses of the arguments and the results, and how many."""
    import llvmlite
    import numba

    writer = Writer()
    helpers = helper_lines([f"y = {name}(x)"], dtype, writer, "@njit(forceinline=True, **INNER)")
    constants = [f"{key} = real({_literal(value)})" for value, key in writer.constants.items()]
    header = _HEADER.format(label=f"{name}_{dtype}", ir_real=_IR_REAL[dtype], **FLOAT_FORMATS[dtype])
    text = "\n".join(
        [header, *constants, "", "", *helpers, "", _ELEMENTWISE.format(name=name, vectors=INTERLEAVED)]
    )
    versions = f"numba {numba.__version__} llvmlite {llvmlite.__version__}"
    return load_module(f"{name}_{dtype}_cpu", text, versions).run


def _literal(value: str) -> str:
    return f'"{value}"' if value in ("inf", "-inf", "nan") else value


@cache
def _module(program: Program) -> ModuleType:
    import llvmlite
    import numba

    return load_module(
        f"{program.label}_cpu", source(program), f"numba {numba.__version__} llvmlite {llvmlite.__version__}"
    )


def _tile(B: int, N: int, threads: int, steps: int) -> int:
    # large tiles of equal size; two per thread where they are long, since the cores of a shared machine are not equal
    wanted = -(-threads // B) if threads > 1 else 1
    largest = LARGEST_TILE if steps > TOGETHER else TILE_OF_FEW_STEPS
    shared = max(min(wanted, 2 * N // SMALLEST_TILE), min(2 * wanted, N // SMALLEST_TILE))
    tiles = max(-(-N // largest), shared, 1)
    return -(-N // (tiles * 64)) * 64


class _CpuKernel:
    def __init__(self, program: Program):
        self.program = program
        self._run = _module(program).run
        source = _Source(program)
        self._table, self._counters = tuple(source.table), source.counters
        self._x = self._table.index("x")

    def run(self, launch: Launch) -> None:
        prepared = launch.prepared
        if prepared is None:
            prepared = launch.prepared = self._prepare(launch)
        table, asked, threads, progress, _ = prepared
        x, outputs = launch.x, launch.outputs
        table[self._x] = x.data_ptr() if hasattr(x, "data_ptr") else address(x)
        for i, name in asked:
            table[i] = BUFFERS.address(outputs[name])
        progress[:] = 0
        if threads == 1:
            self._run(table, 0)
        else:
            TEAMS.run(lambda me: self._run(table, me), threads, address(progress) + LINE)

    def _prepare(self, launch: Launch) -> tuple[Any, ...]:
        """Return the table, the places of outputs in it, the threads, their progress, and what must stay alive."""
        program = self.program
        if launch.steps > MOST_STEPS:
            raise ValueError(f"the input has {launch.steps} steps: give at most {MOST_STEPS} at once")
        B, N = launch.states[0].shape
        threads = launch.threads if launch.steps * B * N >= PARALLEL_NEURON_STEPS else 1
        values = {"B": B, "N": N, "steps": launch.steps, "g_r": launch.refractory, "scalars": launch.scalars}
        values.update(zip([f"g_{state}" for state in program.states], launch.states, strict=True))
        values.update(sets=launch.refractory.shape[1], arrays=launch.arrays)
        values.update(periods=launch.periods, periods_given=launch.periods.size)
        values.update(x=0, steps_of_x=1 if launch.constant_input else launch.steps)
        for name in (*program.records, *program.states, "refractory", "winners"):
            out = name if name == "winners" else f"out_{name}"
            values.update({f"steps_of_{name}": launch.steps if name in launch.outputs else 0, out: 0})
        for name in set(program.records) - set(launch.outputs):
            # the rows write it in any case: memory for the steps that go together takes what nobody asked for
            steps = min(launch.steps, TOGETHER)
            kind = "bool" if name == "spikes" else program.dtype
            values.update({f"steps_of_{name}": steps, f"out_{name}": np.empty((steps, B, N), kind)})
        owners = 0
        size_of_x = 0 if launch.constant_input else launch.steps * B * N * np.dtype(program.dtype).itemsize
        values.update(fetches=int(size_of_x >= FETCHED))
        if launch.winners is None:
            tile = _tile(B, N, threads, launch.steps)
            threads = min(threads, B * -(-N // tile))
            marks = np.empty((threads, tile), np.uint8)
            byte_periods = np.minimum(launch.periods, 255).astype(np.uint8)
            after_each = {*program.states, "refractory"}.intersection(launch.outputs)
            values.update(tile=tile, slots=threads, together=int(not after_each))
            values.update(byte_periods=byte_periods, marks_of=marks)
        else:
            k, radius, H, W = launch.winners
            F = N // (H * W)
            owners = threads if threads > B and N >= PARALLEL_NEURONS else 0
            threads = owners or min(threads, B)
            pieces = min(F, owners * max(1, round(N / (owners * PIECE)))) if owners else 1
            values.update(k=k, radius=radius, H=H, W=W, grouped=GROUP, maps=F, owners=owners, pieces=pieces)
            if "rest_from" in self._table:
                if "rest_from" not in launch.scratch:
                    launch.scratch["rest_from"] = np.ones(launch.refractory.shape, np.int32)
                values.update(rest_from=launch.scratch["rest_from"])
            values.update(fired=self._fired(launch), lowest_key=np.full(1, -np.inf, program.dtype))
            values.update(self._scratch(launch, B, N, F, threads))
        progress = aligned((2 + B * (owners + 2 if owners else 0), LINE // 8), "int64")
        values["progress"] = progress
        entries = [values[name] for name in self._table]
        numbers = [address(entry) if isinstance(entry, np.ndarray) else entry for entry in entries]
        asked = []
        for name in launch.outputs:
            asked.append((self._table.index(name if name == "winners" else f"out_{name}"), name))
        return np.array(numbers, np.int64), asked, threads, progress, entries

    def _fired(self, launch: Launch) -> np.ndarray:
        """Return what each neuron did in the layer's last step: where it is not 0, the potential is to be reset."""
        if "fired" not in launch.scratch:
            launch.scratch["fired"] = np.zeros(launch.states[0].shape, np.uint8)
        return launch.scratch["fired"]

    def _v_reset(self, launch: Launch) -> Any:
        program = self.program
        if "v_reset" in program.arrays:
            return launch.arrays[program.arrays.index("v_reset")]
        return launch.scalars[program.scalars.index("v_reset")]

    def settle(self, launch: Launch) -> None:
        """Reset the potentials that wait for the next step."""
        fired = self._fired(launch)
        np.copyto(launch.states[0], self._v_reset(launch), where=fired != 0)
        fired[...] = 0

    def settled(self, launch: Launch) -> np.ndarray:
        """Return the potentials as they are after the reset."""
        return np.where(self._fired(launch) != 0, self._v_reset(launch), launch.states[0])

    def thresholded(self, launch: Launch) -> np.ndarray:
        """Return the potentials that wait for their reset, and 0 elsewhere."""
        return np.where(self._fired(launch) != 0, launch.states[0], launch.states[0].dtype.type(0))

    def _scratch(self, launch: Launch, B: int, N: int, F: int, slots: int) -> dict[str, Any]:
        assert launch.winners is not None
        k = launch.winners[0]
        dtype = self.program.dtype
        longest = max(N // F, GROUP) if self._counters == "shared" else 0
        key = ("kwta", k, slots, longest)
        if key not in launch.scratch:
            # rows of whole lines: threads that write into one line would wait for each other
            per_line = LINE // np.dtype(dtype).itemsize
            most_runners, longest = -(-k // per_line) * per_line, -(-longest // LINE) * LINE
            launch.scratch[key] = {
                "won": np.empty((B, k, 3), np.int32),
                "map_keys": aligned((B, F), dtype),
                "map_places": aligned((B, F), "int64"),
                "slots": slots,
                "most_runners": most_runners,
                "front_runners_of": aligned((slots, most_runners), dtype),
                "longest": longest,
                "held_of": aligned((slots, longest), "uint8"),
            }
        return launch.scratch[key]


class _Torch(NamedTuple):
    """What of torch is needed at every step: to import it and to look it up would take a while."""

    from_numpy: Callable[[np.ndarray], Any]
    #: Kinds of tensors: others may have no memory of their own.
    plain: tuple[type, ...]
    dtypes: dict[str, Any]
    strided: Any


@cache
def _torch() -> _Torch:
    import torch

    dtypes = {"float32": torch.float32, "float64": torch.float64}
    return _Torch(torch.from_numpy, (torch.Tensor, torch.nn.Parameter), dtypes, torch.strided)


class CpuBackend:
    """Numba loops on the host's processors, numpy arrays; torch tensors on the CPU come and go without a copy."""

    name = "cpu"
    compact = True
    lazy = True
    emits = ("source", "llvm", "asm")

    def unavailable(self) -> str | None:
        """Return None: numba is always installed."""
        return None

    @cache  # noqa: B019 - the one instance lives as long as the process
    def kernel(self, program: Program) -> _CpuKernel:
        """Return the compiled program."""
        return _CpuKernel(program)

    def emit(self, program: Program, kind: str, arch: str | None = None) -> str:
        """Return the module's text, or its LLVM or assembly for this processor."""
        text = source(program)
        if kind == "source":
            return text
        # compiled afresh: numba keeps neither in its cache
        namespace: dict[str, Any] = {"__name__": f"emitted_{program.label}"}
        exec(compile(text.replace("cache=True, ", ""), f"<{program.label}>", "exec"), namespace)
        run = namespace["run"]
        return next(iter((run.inspect_llvm() if kind == "llvm" else run.inspect_asm()).values()))

    def place(self, x: Any) -> Any:
        """Return the one place: the host."""
        return "host"

    def take(self, x: Any, dtype: str) -> Any:
        """Return a contiguous numpy array, or a tensor on the CPU as it is where it is contiguous and of this type."""
        if hasattr(x, "detach"):
            torch = _torch()
            kind = torch.dtypes[dtype]
            if (
                x.dtype is kind
                and type(x) in torch.plain
                and x.is_cpu
                and x.layout is torch.strided
                and x.is_contiguous()
                and not x.is_neg()
            ):
                return x
            x = x.detach().to("cpu", kind).numpy(force=True)
        return np.ascontiguousarray(x, dtype=dtype)

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> np.ndarray:
        """Return a numpy array that nobody else holds."""
        return BUFFERS.empty(shape, dtype)

    def adopt(self, array: Any, like: Any) -> np.ndarray:
        """Return a tensor on the CPU as a numpy array, and a numpy array as it is."""
        if hasattr(array, "detach"):
            if not array.is_cpu or array.requires_grad:
                raise ValueError(
                    f"out holds a tensor on {array.device}: give one on the CPU without a gradient"
                )
            return array.numpy()
        if not array.flags.writeable:
            raise ValueError("out holds a read-only array: give one that can be written")
        return array

    def upload(self, host: np.ndarray, like: Any) -> np.ndarray:
        """Return a copy."""
        copied = aligned(host.shape, host.dtype.name)
        copied[...] = host
        return copied

    def fill(self, array: np.ndarray, host: np.ndarray) -> None:
        """Overwrite it."""
        array[...] = host

    def download(self, array: np.ndarray) -> np.ndarray:
        """Return the array itself."""
        return array

    def giver(self, like: Any) -> Callable[[np.ndarray], Any]:
        """Return what makes an array a tensor on the input's device if the input was one."""
        if not hasattr(like, "detach"):
            return lambda array: array
        from_numpy = _torch().from_numpy
        return from_numpy if like.is_cpu else lambda array: from_numpy(array).to(like.device)


BACKEND = CpuBackend()
