"""What generated CPU modules are put together from: intrinsics, and the functions that are the same for every program.

Their arrays are rows: a loop from 0 over a row vectorises, one from lo to hi over a matrix does not.

numba's cache on the disk sees no change of what a kernel calls in another file, so `COMPILER`, which goes into the
names of generated files, holds a digest of this one and of the values that it takes from others.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

from spyke_numba.backends.cpu.team import LINE
from spyke_numba.compile.formats import FLOAT_FORMATS

_DIGEST = hashlib.sha256(Path(__file__).read_bytes() + repr((LINE, FLOAT_FORMATS)).encode()).hexdigest()[:16]
#: What compiles a generated module.
COMPILER = f"numba {numba.__version__} llvmlite {llvmlite.__version__} parts {_DIGEST}"
#: Of functions that only others call: they count no references, and need no way in from Python, which would have to be
#: compiled too.
INNER: dict[str, Any] = {"_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

NO_STEPS, ONE_STEP = np.int32(0), np.int32(1)
#: Steps in which a neuron's hold fits into a byte. A neuron without inhibition is held until a step that a byte marks,
#: from the window's first step on; a mark that is larger than WINDOW holds to its end, and tells the step of the spike,
#: or is BEFORE for a hold from before the window.
WINDOW, BEFORE = 120, np.uint8(255)
#: Keys of maps of which the largest is known while winners are chosen, where there are more.
KEYS_OF_BLOCK = 256
#: Cache lines that `fetch` asks for.
FETCHED_LINES = 8
#: Looks before a thread that waits for others lets them have its core.
PATIENCE = 1000


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


@intrinsic
def address_of(context, array):
    """Return the address of an array's memory."""

    def generate(context, builder, signature, arguments):
        whole = arrayobj.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(whole.data, ir.IntType(64))

    return types.int64(array), generate


def _row_of(context, builder, array, value, first, lo, hi):
    # the elements from first + lo to first + hi of an array, as an array
    row = types.Array(array.dtype, 1, "C")
    whole = arrayobj.make_array(array)(context, builder, value)
    item = ir.Constant(ir.IntType(64), context.get_abi_sizeof(context.get_data_type(array.dtype)))
    result = arrayobj.make_array(row)(context, builder)
    data = builder.gep(whole.data, [builder.add(first, lo)])
    arrayobj.populate_array(result, data, [builder.sub(hi, lo)], [item], item, None)
    return result._getvalue()


@intrinsic
def part(context, array, place, lo, hi):
    """Return the elements from lo to hi of the row at a place, which is given but for its last index.

    They are not counted from the end, and nothing is checked: a slice's checks take longer than a short row.
    """

    def generate(context, builder, signature, arguments):
        whole = arrayobj.make_array(array)(context, builder, arguments[0])
        indices = cgutils.unpack_tuple(builder, arguments[1])
        sizes = cgutils.unpack_tuple(builder, whole.shape)
        first = ir.Constant(ir.IntType(64), 0)
        for index, size in zip(indices, sizes[1:], strict=True):
            first = builder.mul(builder.add(first, index), size)
        return _row_of(context, builder, array, arguments[0], first, *arguments[2:])

    row = types.Array(array.dtype, 1, "C")
    places = types.UniTuple(types.int64, array.ndim - 1) if array.ndim > 1 else types.Tuple(())
    return row(array, places, types.int64, types.int64), generate


@intrinsic
def own(context, values, lo, hi):
    """Return the part of a row that is the neurons' lo to hi, or one number as it is."""
    varies = isinstance(values, types.Array)

    def generate(context, builder, signature, arguments):
        if not varies:
            return arguments[0]
        return _row_of(context, builder, values, arguments[0], ir.Constant(ir.IntType(64), 0), *arguments[1:])

    return (types.Array(values.dtype, 1, "C") if varies else values)(
        values, types.int64, types.int64
    ), generate


# ---- What LLVM should know


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


@intrinsic
def fetch(context, address):
    """Ask for the FETCHED_LINES cache lines from an address on, into the second-level cache."""

    def generate(context, builder, signature, arguments):
        byte, flag, word = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        first = builder.inttoptr(arguments[0], byte)
        for line in range(FETCHED_LINES):
            place = builder.gep(first, [ir.Constant(word, line * LINE)])
            builder.call(function, [place, *(ir.Constant(flag, value) for value in (0, 2, 1))])
        return context.get_dummy_value()

    return types.none(types.int64), generate


@njit(forceinline=True, **INNER)
def fetch_row(address, size):
    """Ask for so many bytes, rounded up to what `fetch` asks for."""
    for at in range(0, size, FETCHED_LINES * LINE):
        fetch(address + at)


# ---- Operations that elementary functions are written in


def _operation(build: Callable[..., Any]) -> Any:
    # on a float: `build` is given the builder, the value, the integer type of as many bits, and what returns a number
    # of the float's format as such an integer
    def operation(context, x):
        def generate(context, builder, signature, arguments):
            layout = FLOAT_FORMATS[x.name]
            whole = ir.IntType(layout["bits"])
            return build(builder, arguments[0], whole, lambda name: ir.Constant(whole, layout[name]))

        return x(x), generate

    return intrinsic(operation)


def _llvm(name: str) -> Any:
    # what LLVM knows by name
    return _operation(lambda b, x, *_: b.call(b.module.declare_intrinsic(f"llvm.{name}", [x.type]), [x]))


abs = _llvm("fabs")
sqrt = _llvm("sqrt")
rint = _llvm("rint")


@intrinsic
def fma(context, a, b, c):
    """Return a * b + c, rounded once."""
    return a(a, a, a), lambda context, builder, signature, arguments: builder.fma(*arguments)


@_operation
def half_pow2(b, n, whole, number):
    """Return half of 2 to the power of a whole float."""
    biased = b.add(b.fptosi(n, whole), b.sub(number("bias"), ir.Constant(whole, 1)))
    return b.bitcast(b.shl(biased, number("mantissa_bits")), n.type)


@_operation
def exponent(b, x, whole, number):
    """Return the whole part of the logarithm of a positive float to the base 2."""
    return b.sitofp(b.sub(b.ashr(b.bitcast(x, whole), number("mantissa_bits")), number("bias")), x.type)


@_operation
def mantissa(b, x, whole, number):
    """Return a positive float over 2 to the power of its exponent."""
    return b.bitcast(b.or_(b.and_(b.bitcast(x, whole), number("mantissa_mask")), number("one_bits")), x.type)


@njit(forceinline=True, **INNER)
def where(condition, a, b):
    return a if condition else b


@intrinsic
def chosen(context, condition, a, b):
    """Choose without a branch, which could take the load of a value with it."""
    return a(condition, a, a), lambda context, builder, signature, arguments: builder.select(*arguments)


def _extreme(relation: str) -> Any:
    # of two keys; said to be no NaN, and -0 to be as good as 0, so that it vectorises
    def extreme(context, a, b):
        def generate(context, builder, signature, arguments):
            known = ("nnan", "nsz")
            first = builder.fcmp_ordered(relation, *arguments, flags=known)
            return builder.select(first, *arguments, flags=known)

        return a(a, b), generate

    return intrinsic(extreme)


larger = _extreme(">")
smaller = _extreme("<")


@intrinsic
def tainted(context, taint, x, factor):
    """Return a sum of products that is not finite once any x or factor was not, and else only where they are huge.

    It may be added in any order, so that the loop still vectorises, and fused: one operation for two numbers.
    """

    def generate(context, builder, signature, arguments):
        free = ("reassoc", "contract")
        product = builder.fmul(*arguments[1:], flags=free)
        return builder.fadd(arguments[0], product, flags=free)

    return taint(taint, taint, taint), generate


def _bound(relation: str) -> Any:
    # of two integers; numba's own would be compiled for each pair of types, literals being types of their own
    def bound(context, a, b):
        kinds = types.unliteral(a), types.unliteral(b)
        kind = kinds[0] if kinds[0] == kinds[1] else types.int64

        def generate(context, builder, signature, arguments):
            pairs = zip(arguments, signature.args, strict=True)
            first, second = (context.cast(builder, value, own, kind) for value, own in pairs)
            return builder.select(builder.icmp_signed(relation, first, second), first, second)

        return kind(*kinds), generate

    return intrinsic(bound)


min = _bound("<")
max = _bound(">")


# ---- Rows


@intrinsic
def each(context, values, j):
    """Return the number at a place of a row, or one number as it is."""
    varies = isinstance(values, types.Array)

    def generate(context, builder, signature, arguments):
        if not varies:
            return arguments[0]
        data = arrayobj.make_array(values)(context, builder, arguments[0]).data
        return builder.load(builder.gep(data, [arguments[1]]))

    return (values.dtype if varies else values)(values, types.int64), generate


@njit(**INNER)
def copy(row, out):
    for j in range(row.size):
        out[j] = row[j]


@njit(error_model="numpy", **INNER)
def copy_reset(u, threshold, v_reset, out):
    """Copy potentials as they are after the reset; threshold and reset are one number, or each neuron's own."""
    for j in range(u.size):
        out[j] = each(v_reset, j) if u[j] >= each(threshold, j) else u[j]


@njit(forceinline=True, **INNER)
def mark_of(period, now):
    """Return the mark of a spike in step `now` of the window; a period of 255 stands for all that are longer."""
    fits = period <= np.uint8(WINDOW - 1 - now)
    return where(fits, np.uint8(period + np.uint8(now + 1)), np.uint8(WINDOW + 1 + now))


@njit(**INNER)
def begin_window(r, marks):
    """Turn counters into marks."""
    for j in range(r.size):
        marks[j] = np.uint8(r[j]) if r[j] <= WINDOW else BEFORE


@njit(**INNER)
def end_window(marks, n, periods, before, r):
    """Turn marks after n steps of the window into counters, `before` being those at its begin."""
    for j in range(marks.size):
        m = np.int32(marks[j])
        within = max(np.int32(m - n), NO_STEPS)
        beyond = np.int32(before[j] - n) if m == BEFORE else np.int32(each(periods, j) + m - WINDOW - n)
        r[j] = within if m <= WINDOW else beyond


@njit(**INNER)
def remaining(until, t, out):
    """Turn the steps until which sets are held into counters of those from step t on."""
    for j in range(until.size):
        out[j] = max(np.int32(until[j] - t), NO_STEPS)


@njit(**INNER)
def held_at(until, t, held):
    """Tell which sets are held at step t, and return whether any is."""
    some = np.uint8(0)
    for j in range(until.size):
        held[j] = np.uint8(until[j] > np.int32(t))
        some |= held[j]
    return some > 0


# ---- The choice of winners


@njit(error_model="numpy", forceinline=True, **INNER)
def largest(keys, lowest):
    use_widest_vectors()
    best = lowest
    for j in range(keys.size):
        best = larger(keys[j], best)
        # there may be only a vector or two of them
        interleaved(1)
    return best


@njit(error_model="numpy", **INNER)
def largest_fired(u, threshold, lowest):
    use_widest_vectors()
    best = lowest
    for j in range(u.size):
        best = larger(chosen(u[j] >= each(threshold, j), u[j], lowest), best)
    return best


@njit(error_model="numpy", **INNER)
def copy_fired(u, threshold, lowest, keys):
    for j in range(u.size):
        keys[j] = u[j] if u[j] >= each(threshold, j) else lowest


def _ranked(builder, x, amplitude, term):
    # SpykeTorch's sum for a potential or a vector of them, as `KWTA` defines it, of the amplitude and its product with
    # the largest potential
    one, suffix = x.type, ""
    if isinstance(x.type, ir.VectorType):
        one, suffix = x.type.element, f"v{x.type.count}"
    least = float(-np.finfo(np.float32 if isinstance(one, ir.FloatType) else np.float64).max)
    least = ir.Constant(x.type, [least] * x.type.count if suffix else least)
    # llvmlite's own multiply-add is of numbers alone
    of_three = ir.FunctionType(x.type, [x.type] * 3)
    fused = cgutils.get_or_insert_function(builder.module, of_three, f"llvm.fma.{suffix}{one.intrinsic_name}")
    total = builder.call(fused, [amplitude, term, builder.fmul(amplitude, x)])
    return builder.select(builder.fcmp_ordered(">", total, least), total, least)


@intrinsic
def ranked(context, x, amplitude, term):
    """Return what SpykeTorch orders a potential by: the spikes' amplitude, and its product with the largest one."""
    return x(x, x, x), lambda context, builder, signature, arguments: _ranked(builder, *arguments)


def _search(bound: int | None = None, order: int | None = None) -> Callable[..., Any]:
    # four vectors at a time, since a loop that stops would compare one number after the other; where those hold the
    # key, a vector at a time, and what is left at the end one by one. `bound` and `order` are places among the
    # arguments: of what a potential must reach, and of the amplitude and the largest potential of SpykeTorch's order,
    # in which others may tie with the key
    def generate(context, builder, signature, arguments):
        kind = signature.args[0].dtype
        count, item = 512 // kind.bitwidth, kind.bitwidth // 8
        keys = arrayobj.make_array(signature.args[0])(context, builder, arguments[0])
        (size,) = cgutils.unpack_tuple(builder, keys.shape)
        word, real = ir.IntType(64), context.get_data_type(kind)

        def by_lanes(value):
            vector = ir.Constant(ir.VectorType(real, count), ir.Undefined)
            for lane in range(count):
                vector = builder.insert_element(vector, value, ir.Constant(ir.IntType(32), lane))
            return {1: value, count: vector}

        varies = bound is not None and isinstance(signature.args[bound], types.Array)
        if varies:
            bounds = arrayobj.make_array(signature.args[bound])(context, builder, arguments[bound]).data
        elif order is not None:
            # without a bound, all but minus infinity
            least = ir.Constant(real, -float(np.finfo(kind.name).max))
            bound_of_all = by_lanes(least if bound is None else arguments[bound])
        key = arguments[1]
        if order is not None:
            amplitude, top = arguments[order : order + 2]
            amplitudes, terms = by_lanes(amplitude), by_lanes(builder.fmul(amplitude, top))
            key = _ranked(builder, key, amplitude, terms[1])
        wanted = by_lanes(key)

        def loaded(array, at, lanes):
            kind = real if lanes == 1 else ir.VectorType(real, lanes)
            return builder.load(builder.bitcast(builder.gep(array, [at]), kind.as_pointer()), align=item)

        def equal(at, lanes):
            x = loaded(keys.data, at, lanes)
            if order is not None:
                x = _ranked(builder, x, amplitudes[lanes], terms[lanes])
            return builder.fcmp_ordered("==", x, wanted[lanes])

        def found(at, lanes):
            # of those that are equal, which reach their bounds; the key itself is known to reach that of all
            same = equal(at, lanes)
            if order is None and not varies:
                return same
            reached = loaded(bounds, at, lanes) if varies else bound_of_all[lanes]
            return builder.and_(same, builder.fcmp_ordered(">=", loaded(keys.data, at, lanes), reached))

        def loop(first, step, is_in):
            # a loop over places from the first one on, and its blocks: until none is left, or one is in
            before = builder.block
            head, body, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
            builder.branch(head)
            builder.position_at_end(head)
            at = builder.phi(word)
            at.add_incoming(first, before)
            full = builder.and_(size, ir.Constant(word, -step))
            builder.cbranch(builder.icmp_signed("<", at, full), body, end)
            builder.position_at_end(body)
            at.add_incoming(builder.add(at, ir.Constant(word, step)), body)
            return at, head, body, end, is_in(at)

        def any_of(at):
            masks = [equal(builder.add(at, ir.Constant(word, i * count)), count) for i in range(4)]
            return builder.or_(builder.or_(masks[0], masks[1]), builder.or_(masks[2], masks[3]))

        def none(mask):
            bits = builder.bitcast(mask, ir.IntType(count))
            return bits, builder.icmp_unsigned("==", bits, ir.Constant(bits.type, 0))

        four, head, body, end, mask = loop(ir.Constant(word, 0), 4 * count, any_of)
        builder.cbranch(none(mask)[1], head, end)
        builder.position_at_end(end)
        start = builder.phi(word)
        start.add_incoming(four, head)
        start.add_incoming(four, body)
        at, head, body, end, mask = loop(start, count, lambda at: found(at, count))
        after = builder.append_basic_block("after")
        bits, nothing = none(mask)
        builder.cbranch(nothing, head, after)
        builder.position_at_end(after)
        lane = builder.zext(builder.cttz(bits, ir.Constant(ir.IntType(1), 1)), word)
        in_vector = builder.add(at, lane)
        builder.position_at_end(end)
        one, head, body, end, hit = loop(at, 1, lambda at: found(at, 1))
        builder.cbranch(hit, end, head)
        builder.position_at_end(after)
        builder.branch(end)
        builder.position_at_end(end)
        place = builder.phi(word)
        place.add_incoming(in_vector, after)
        place.add_incoming(one, body)
        place.add_incoming(ir.Constant(word, -1), head)
        return place

    return generate


@intrinsic
def first_fired(context, u, key, threshold):
    """Return the first place of a potential that fired, or -1; the threshold is one number, or each neuron's own."""
    return types.int64(u, key, threshold), _search(bound=2)


@intrinsic
def first_place(context, keys, key, threshold, amplitude, top):
    """Return the first place of a key, of one that fired unless the threshold is None, or -1.

    With an amplitude that is not None it is the first of those that tie with the key in SpykeTorch's order.
    """
    bound = 2 if isinstance(threshold, (types.Float, types.Array)) else None
    order = 3 if isinstance(amplitude, types.Float) else None
    return types.int64(keys, key, threshold, amplitude, top), _search(bound, order)


@njit(error_model="numpy", **INNER)
def enters(key, front_runners):
    """Let a map's key enter the largest so far, in ascending order; the smallest makes room, without a branch."""
    last = front_runners.size - 1
    for i in range(last):
        front_runners[i] = larger(front_runners[i], smaller(front_runners[i + 1], key))
    front_runners[last] = larger(front_runners[last], key)


@njit(error_model="numpy", **INNER)
def find_places(u, threshold, map_keys, map_places, first_map, last_map, size, least):
    """Find where those maps that may win have their keys, while they are in this thread's cache."""
    for f in range(first_map, last_map):
        key, lo, hi = map_keys[f], f * size, f * size + size
        if key > -np.inf:
            own_u, own_threshold = part(u, (), lo, hi), own(threshold, lo, hi)
            map_places[f] = first_fired(own_u, key, own_threshold) if key >= least else -1


@njit(error_model="numpy", **INNER)
def look_at_blocks(map_keys, best_of_blocks, lowest):
    """Find the largest key of each block."""
    for block in range(best_of_blocks.size):
        lo = block * KEYS_OF_BLOCK
        hi = min(lo + KEYS_OF_BLOCK, map_keys.size)
        best_of_blocks[block] = largest(part(map_keys, (), lo, hi), lowest)


@njit(error_model="numpy", **INNER)
def select(
    u,
    threshold,
    map_keys,
    map_places,
    best_of_blocks,
    left,
    most,
    radius,
    W,
    size,
    won,
    lowest,
    amplitude=None,
):
    """Choose up to `most` winners, as (map, row, column) each, and return how many there are.

    A map's key is an upper bound, made exact only for a map that reaches the front; `left` has room for what may still
    win in one.  With the spikes' amplitude, which is above 0, the order is SpykeTorch's: as it never puts the larger of
    two potentials behind the other, keys are potentials here, too, and only where the first of those that tie is
    sought are they rounded, by the amplitude and the step's largest potential.
    """
    blocks, top = best_of_blocks.size, lowest
    if blocks > 1:
        look_at_blocks(map_keys, best_of_blocks, lowest)
    n = block = lo_key = 0
    keys = map_keys
    while n < most:
        best = largest(best_of_blocks if blocks > 1 else keys, lowest)
        if best == lowest:
            break
        if n == 0:
            top = best
        if blocks > 1:
            block = first_place(best_of_blocks, best, None, amplitude, top)
            lo_key = block * KEYS_OF_BLOCK
            keys = part(map_keys, (), lo_key, min(lo_key + KEYS_OF_BLOCK, map_keys.size))
        front = lo_key + first_place(keys, best, None, amplitude, top)
        place = map_places[front]
        lo, hi = front * size, front * size + size
        own_u, own_threshold = part(u, (), lo, hi), own(threshold, lo, hi)
        if place < 0:
            place = first_place(own_u, best, own_threshold, amplitude, top)
        row = place // W
        column = place - row * W
        allowed = True
        if radius > 0:
            for q in range(n):
                down, right = row - won[q, 1], column - won[q, 2]
                allowed &= max(down, -down) > radius or max(right, -right) > radius
        if not allowed:
            copy_fired(own_u, own_threshold, lowest, left)
            for q in range(n):
                for i in range(max(0, won[q, 1] - radius), min(size // W, won[q, 1] + radius + 1)):
                    for j in range(max(0, won[q, 2] - radius), min(W, won[q, 2] + radius + 1)):
                        left[i * W + j] = lowest
            best = largest(left, lowest)
            map_keys[front], map_places[front] = best, first_place(left, best, None, amplitude, top)
        else:
            map_keys[front] = lowest
            won[n, 0] = front
            won[n, 1] = row
            won[n, 2] = column
            n += 1
        if blocks > 1:
            best_of_blocks[block] = largest(keys, lowest)
    return n


# ---- Spikes as a list

#: Neurons whose spikes are bits of one number.
BITS = 64
NO_BITS, ONE_BIT = np.uint64(0), np.uint64(1)


@intrinsic
def _bits_of_block(context, row, at):
    # a whole block, compared at once
    def generate(context, builder, signature, arguments):
        flags = arrayobj.make_array(signature.args[0])(context, builder, arguments[0])
        kind = ir.VectorType(ir.IntType(8), BITS)
        place = builder.bitcast(builder.gep(flags.data, [arguments[1]]), kind.as_pointer())
        set_ = builder.icmp_unsigned("!=", builder.load(place, align=1), ir.Constant(kind, [0] * BITS))
        return builder.bitcast(set_, ir.IntType(BITS))

    return types.uint64(row, types.int64), generate


@intrinsic
def lowest_bit(context, bits):
    """Return the place of the lowest bit that is set."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@njit(**INNER)
def bits_of(row, at):
    """Return which of a row's bytes are not 0, from a place on, as the bits of a number; there may be no more."""
    use_widest_vectors()
    if at + BITS <= row.size:
        return _bits_of_block(row, at)
    bits = NO_BITS
    for j in range(at, row.size):
        bits |= np.uint64(row[j] != 0) << np.uint64(j - at)
    return bits


# ---- Threads that work together


def _atomic(result, count, build):
    # an operation on the 64-bit integer at an address, with up to two values
    def generate(context, builder, signature, arguments):
        return build(builder, builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()), *arguments[1:])

    def one(context, address):
        return result(types.int64), generate

    def two(context, address, value):
        return result(types.int64, types.int64), generate

    def three(context, address, old, new):
        return result(types.int64, types.int64, types.int64), generate

    return intrinsic((one, two, three)[count])


atomic_load = _atomic(types.int64, 0, lambda b, at: b.load_atomic(at, "acquire", 8, typ=ir.IntType(64)))
atomic_add = _atomic(types.int64, 1, lambda b, at, value: b.atomic_rmw("add", at, value, "acq_rel"))
atomic_replace = _atomic(
    types.boolean,
    2,
    lambda b, at, old, new: b.extract_value(b.cmpxchg(at, old, new, "acq_rel", "acquire"), 1),
)


@intrinsic
def call(context, function, first, second):
    """Call the compiled function of two integers at an address."""

    def generate(context, builder, signature, arguments):
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word, word])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, types.int64), generate


@intrinsic
def pause(context):
    """Tell the processor that this is a loop of looks."""

    def generate(context, builder, signature, arguments):
        if platform.machine() in ("x86_64", "AMD64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=kind), [])
        return context.get_dummy_value()

    return types.none(), generate


#: Let another thread have the core.
give_way = types.ExternalFunction("sched_yield", types.int32()) if os.name == "posix" else pause


if os.name == "posix":
    _read = types.ExternalFunction("read", types.intp(types.intc, types.intp, types.uintp))
    _write = types.ExternalFunction("write", types.intp(types.intc, types.intp, types.uintp))
    _usleep = types.ExternalFunction("usleep", types.intc(types.uintc))

    @njit(**INNER)
    def sleep(asleep, alarm):
        """Sleep until a file has a byte, and take it; the number at an address is 0 from then on."""
        while _read(np.int32(alarm), asleep + 8, np.uint64(1)) != 1:
            # a signal has come; or the file was closed, together with all others perhaps
            _usleep(np.uint32(1000))
            if atomic_load(asleep) == 0:
                break

    @njit(**INNER)
    def wake(memory, alarm, count):
        """Write so many bytes from anywhere."""
        _write(np.int32(alarm), memory, np.uint64(count))

else:
    _sleep = types.ExternalFunction("Sleep", types.void(types.uint32))

    @njit(**INNER)
    def sleep(asleep, alarm):
        """Sleep until the number at an address is 0."""
        while atomic_load(asleep) != 0:
            _sleep(np.uint32(1))

    @njit(**INNER)
    def wake(memory, alarm, count):
        """Do nothing: those that sleep look at their numbers."""


@njit(**INNER)
def wait_until(counter, least):
    """Wait until the number at an address is at least so large."""
    looks = 0
    while atomic_load(counter) < least:
        looks += 1
        if looks < PATIENCE:
            pause()
        else:
            give_way()


@njit(**INNER)
def claim(turns, t, me, owners, pieces):
    """Return a piece of step t that nobody has yet: of one's own, which are in one's cache, then of another's; or -1.

    The counts go on from step to step, so that a thread which comes late finds everything taken, and does no harm.
    """
    for i in range(owners):
        owner = (me + i) % owners
        lo, hi = pieces * owner // owners, pieces * (owner + 1) // owners
        taken = atomic_load(turns + owner * LINE)
        while taken < (t + 1) * (hi - lo):
            if atomic_replace(turns + owner * LINE, taken, taken + 1):
                return lo + taken - t * (hi - lo)
            taken = atomic_load(turns + owner * LINE)
    return -1
