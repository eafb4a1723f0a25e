"""Writes the CUDA kernels: the engine's statements for each neuron, and around them what moves data and picks winners.

A module holds one kernel ``run`` for one `Program` in one `Form`, its signature and its launch bounds. Kernels take
addresses and numbers, so that a launch prepares no arrays and no shape, batch, k, T or value compiles anything again.

Without inhibition a thread keeps its neurons' state in registers for all steps and has the inputs of the next steps
under way while it computes one.  With inhibition the blocks of a sample advance its neurons step by step.  States then
lie in device memory, where the caches hold them: a layer of usual size exceeds the 48 KiB of shared memory that numba
can ask for, and registers for a thread's share of it would make the code depend on the shape.  What the competition
needs, each map's best and each set's counter, lies in shared memory where it fits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from spyke_numba.compile.formats import FLOAT_FORMATS
from spyke_numba.compile.program import RECORDS, REFRACTORY, Program
from spyke_numba.compile.step import Counters, helper_lines, operations_of, step_lines
from spyke_numba.compile.writer import Writer, mangled, numbered

#: Neighbouring neurons that a thread moves at once, 16 bytes of a state.
WIDTHS = {"float32": 4, "float64": 2}
#: Steps whose inputs are under way while as many others are computed, for wide and narrow kernels without inhibition.
DEPTHS = {True: 4, False: 8}
#: Operations of a step from which four neighbours of it take more than 128 registers: AdEx has more, EIF fewer.
LONG_STEP = 40


@dataclass(frozen=True)
class Form:
    """One of the kernels of a program; which one runs depends on the layer's size and the device's limits.

    Parameters
    ----------
    wide : bool
        Whether a thread takes several neighbouring neurons at once, else one.
    scratch : bool
        Whether keys and counters of the competition lie in device memory, since they exceed the shared memory.
    grid : bool
        Whether several blocks share a sample and wait for each other once a step; implies `scratch`.
    """

    wide: bool = True
    scratch: bool = False
    grid: bool = False

    @property
    def label(self) -> str:
        """A short name for files and tables."""
        return "_".join(
            ["wide" if self.wide else "narrow"] + [n for n in ("scratch", "grid") if getattr(self, n)]
        )


def bounds(program: Program, form: Form) -> tuple[int, int]:
    """Return the threads of the largest block, and how many such blocks a multiprocessor must have registers for.

    Blocks of samples of their own stop for their winners at different times, so that two keep a multiprocessor busier
    than one; where a neuron looks for its location's counter, or a step is long, two leave too few registers.  Blocks
    that share a sample are one on each multiprocessor.
    """
    if program.inhibition is None:
        return 128, 1
    long = operations_of(program) > LONG_STEP
    if program.dtype == "float64" or (form.grid and long):
        return 256, 1
    if form.grid:
        return 384, 1
    return 256, 1 if program.inhibition == "location" or long else 2


def recorded(program: Program) -> tuple[str, ...]:
    """Return what the kernel can record, in the order of the bits of its argument ``kept``."""
    winners = ("winners",) if program.inhibition else ()
    return (*program.records, *program.states, "refractory", *winners)


def out(program: Program, name: str) -> str:
    """Return the name of the memory for what is recorded under a name."""
    return mangled("out", name) if name in program.states else f"out_{name}"


def parameters(program: Program, form: Form) -> dict[str, str]:
    """Return the kernel's parameters and their numba types."""
    real = f"CPointer({program.dtype})"
    kinds = {"spikes": "CPointer(uint8)", "refractory": "CPointer(int32)", "winners": "CPointer(int32)"}
    result = {"x": real, **{out(program, name): kinds.get(name, real) for name in recorded(program)}}
    result.update({mangled("g", state): real for state in program.states})
    result.update({"g_r": "CPointer(int32)", "scalars": real, "arrays": real, "periods": "CPointer(int32)"})
    result["not_finite"] = "CPointer(int32)"
    numbers = ["kept", "x_stride", "steps", "B", "N"]
    if program.inhibition:
        result["keys"] = "CPointer(int32)" if program.dtype == "float32" else "CPointer(int64)"
        if form.scratch:
            result["memory"] = "CPointer(int64)"
        numbers += ["parts", "size", "W", "k", "most", "radius"]
    return {**result, **dict.fromkeys(numbers, "int64")}


# Products go through libdevice's fmul_rn, which the compiler never contracts with a sum into a fused multiply-add (the
# host's processors round twice, and so must the GPU); so do quotients, since one by a power of two becomes a product.
_HEADER = '''\
"""Generated for {label}. Do not edit."""

import numpy as np
from llvmlite import ir
from numba import types
from numba import cuda
from numba.cuda import libdevice
from numba.cuda.extending import intrinsic

real, whole, byte, counter, word = np.{real}, np.{whole}, np.uint8, np.int32, np.int64
WIDTH = {width}
NO_STEPS, ONE_STEP = np.int32(0), np.int32(1)
ZERO = np.{real}(0)
BIAS, BIAS_OF_HALF, MANTISSA_BITS = np.{whole}({bias}), np.{whole}({bias} - 1), np.{whole}({mantissa_bits})
MANTISSA_MASK, ONE_BITS = np.{whole}({mantissa_mask}), np.{whole}({one_bits})


@cuda.jit(device=True, forceinline=True)
def where(condition, a, b):
    return a if condition else b


@cuda.jit(device=True, forceinline=True)
def product(a, b):
    return libdevice.{multiply}(a, b)


@cuda.jit(device=True, forceinline=True)
def quotient(a, b):
    return libdevice.{divide}(a, b)


@cuda.jit(device=True, forceinline=True)
def abs(x):
    return libdevice.{fabs}(x)


@cuda.jit(device=True, forceinline=True)
def sqrt(x):
    return libdevice.{sqrt}(x)


@cuda.jit(device=True, forceinline=True)
def rint(x):
    return libdevice.{rint}(x)


@cuda.jit(device=True, forceinline=True)
def fma(a, b, c):
    return cuda.fma(a, b, c)


@cuda.jit(device=True, forceinline=True)
def half_pow2(n):
    return libdevice.{of_bits}(whole((whole(libdevice.{to_whole}(n)) + BIAS_OF_HALF) << MANTISSA_BITS))


@cuda.jit(device=True, forceinline=True)
def exponent(x):
    return real(whole((libdevice.{bits_of}(x) >> MANTISSA_BITS) - BIAS))


@cuda.jit(device=True, forceinline=True)
def mantissa(x):
    return libdevice.{of_bits}(whole((libdevice.{bits_of}(x) & MANTISSA_MASK) | ONE_BITS))


@cuda.jit(device=True, forceinline=True)
def left(until, t):
    """Return before step t how many more a neuron or set is held."""
    return counter(until - t if until > t else 0)


'''

#: Names of libdevice's functions.
_FUNCTIONS: dict[str, dict[str, str]] = {
    "float32": {
        "multiply": "fmul_rn",
        "divide": "fdiv_rn",
        "fabs": "fabsf",
        "sqrt": "fsqrt_rn",
        "rint": "rintf",
        "bits_of": "float_as_int",
        "of_bits": "int_as_float",
        "to_whole": "float2int_rn",
    },
    "float64": {
        "multiply": "dmul_rn",
        "divide": "ddiv_rn",
        "fabs": "fabs",
        "sqrt": "dsqrt_rn",
        "rint": "rint",
        "bits_of": "double_as_longlong",
        "of_bits": "longlong_as_double",
        "to_whole": "double2ll_rn",
    },
}

_VECTORS = '''\
def _vector(builder, pointer, index):
    place = builder.gep(pointer, [index])
    kind = ir.VectorType(place.type.pointee, WIDTH)
    return builder.bitcast(place, kind.as_pointer()), kind


@intrinsic
def load(context, pointer, index):
    """Return WIDTH neighbours, read at once."""

    def generate(context, builder, signature, arguments):
        place, _ = _vector(builder, *arguments)
        vector = builder.load(place, align=WIDTH * context.get_abi_sizeof(place.type.pointee.element))
        lanes = [builder.extract_element(vector, ir.Constant(ir.IntType(32), i)) for i in range(WIDTH)]
        return context.make_tuple(builder, signature.return_type, lanes)

    return types.UniTuple(pointer.dtype, WIDTH)(pointer, types.int64), generate


@intrinsic
def store(context, pointer, index, values):
    """Write WIDTH neighbours at once."""

    def generate(context, builder, signature, arguments):
        place, kind = _vector(builder, *arguments[:2])
        vector = ir.Constant(kind, ir.Undefined)
        for i in range(WIDTH):
            lane = builder.extract_value(arguments[2], i)
            vector = builder.insert_element(vector, lane, ir.Constant(ir.IntType(32), i))
        builder.store(vector, place, align=WIDTH * context.get_abi_sizeof(kind.element))
        return context.get_dummy_value()

    return types.none(pointer, types.int64, types.UniTuple(pointer.dtype, WIDTH)), generate


'''

_POINTERS = '''\
@intrinsic
def pointer(context, array):
    """Return an array's address: an index into an array may be negative, and costs a comparison."""

    def generate(context, builder, signature, arguments):
        return context.make_array(signature.args[0])(context, builder, value=arguments[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def atomic_max(context, pointer, index, value):
    def generate(context, builder, signature, arguments):
        place = builder.gep(arguments[0], [arguments[1]])
        return builder.atomic_rmw("max", place, arguments[2], "monotonic")

    return types.int64(pointer, types.int64, types.int64), generate


'''

_COMPETITION = '''\
LOWEST_KEY = np.{whole}(np.iinfo(np.{whole}).min)
SIGN_SHIFT, LARGEST = np.{whole}({sign_shift}), np.{whole}({largest})
NONE, LAST = np.int64(np.iinfo(np.int64).min), np.int64(0x7FFFFFFF)
FULL = 0xFFFFFFFF


@cuda.jit(device=True, forceinline=True)
def order_key(x):
    """Return an integer in the order of x. Adding 0 makes -0 and 0 equal."""
    q = whole(libdevice.{bits_of}(x + ZERO))
    return whole(q ^ (whole(q >> SIGN_SHIFT) & LARGEST))


@cuda.jit(device=True, forceinline=True)
def ranked(key, j):
    {ranked}


@cuda.jit(device=True, forceinline=True)
def split(j, n):
    """Return quotient and remainder of natural numbers below 2**32, by a division of 32 bits."""
    q = np.uint32(j) // np.uint32(n)
    return word(q), word(j) - word(q) * word(n)


@cuda.jit(device=True)
def highest(value, meeting, turn, tid, width):
    """Return the largest value of a block's threads, who meet in the half of a shared array that `turn` names."""
    for shift in (16, 8, 4, 2, 1):
        other = cuda.shfl_xor_sync(FULL, value, shift)
        value = where(other > value, other, value)
    if width == 32:
        cuda.syncwarp()
        return value
    if tid & 31 == 0:
        meeting[turn + (tid >> 5)] = value
    cuda.syncthreads()
    value = meeting[turn]
    for warp in range(1, width >> 5):
        other = meeting[turn + warp]
        value = where(other > value, other, value)
    return value


@cuda.jit(device=True)
def apart(place, W, radius, memory, won, n):
    """Return whether a place is out of the squares around the n winners so far."""
    row, column = split(place, W)
    free = True
    for q in range(won, won + 2 * n, 2):
        down, right = row - memory[q], column - memory[q + 1]
        if -radius <= down and down <= radius and -radius <= right and right <= radius:
            free = False
    return free


'''

#: With the place below the key of a float32 in one word, a map's maximum is its winner; a float64's key fills the word.
_RANKED = {
    "float32": '"""Key and place in one word: of equal keys the lowest place is largest."""\n'
    "    return (word(key) << word(32)) | (LAST - word(j))",
    "float64": '"""The key fills the word."""\n    return word(key)',
}

_PLACE = {
    "float32": """\
j = LAST - (top & LAST)
front, place = split(j, size)
blocked = radius > 0 and not apart(place, W, radius, memory, won, n)
""",
    "float64": """\
mine = NONE
for f in range(tid, F, width):
    if memory[chosen + f] == top and -f > mine:
        mine = word(-f)
turn = 32 - turn
front = -highest(mine, meeting, turn, tid, width)
mine = NONE
for other in range(tid, size, width):
    if keys[keys_row + front * size + other] == top and -other > mine:
        if apart(other, W, radius, memory, won, n if radius > 0 else 0):
            mine = word(-other)
turn = 32 - turn
last = highest(mine, meeting, turn, tid, width)
blocked = last == NONE
place = where(blocked, word(0), -last)
""",
}

# A map's best is an upper bound once a radius excludes places, and only a map that reaches the front is searched again.
# Only the thread that reads a map's entry of `chosen` changes it, which takes no barrier, and looks for the best of its
# own entries again: those of others stay as they are.
_SELECT = """\
own = NONE
for f in range(tid, F, width):
    memory[chosen + f] = memory[bank + f]
    own = where(memory[chosen + f] > own, memory[chosen + f], own)
while n < most:
    turn = 32 - turn
    top = highest(own, meeting, turn, tid, width)
    if top == NONE:
        break
{place}
    if blocked:
        mine = NONE
        for other in range(tid, size, width):
            key = keys[keys_row + front * size + other]
            if key > LOWEST_KEY and ranked(key, front * size + other) > mine:
                if apart(other, W, radius, memory, won, n):
                    mine = ranked(key, front * size + other)
        turn = 32 - turn
        top = highest(mine, meeting, turn, tid, width)
    else:
        top = NONE
        period = periods[{period}]
{inhibit}
        if tid == 0:
            won_row, won_column = split(place, W)
            memory[won + 2 * n], memory[won + 2 * n + 1] = won_row, won_column
            if kept & {winners} and part == 0:
                entry = ((t * B + b) * k + n) * 3
                out_winners[entry] = front
                out_winners[entry + 1] = won_row
                out_winners[entry + 2] = won_column
        n += 1
    if split(front, width)[1] == tid:
        memory[chosen + front] = top
        own = NONE
        for f in range(tid, F, width):
            own = where(memory[chosen + f] > own, memory[chosen + f], own)
cuda.syncthreads()
"""

#: Counters, and a winner's among them, of a scope whose sets have one each.
_SETS = {"feature": "F", "location": "size", "global": "1"}
_SET = {"feature": "front", "location": "place", "global": "0"}
#: First and last neuron and stride of a winner's inhibited set.
_INHIBITED = {
    "feature": "front * size, (front + 1) * size, 1",
    "location": "place, N, size",
    "global": "0, N, 1",
}


#: Tell that an input was not finite.
_TELL = ("if taint != taint:", "    not_finite[0] = 1")

#: Whether an earlier winner of the step has the same place.
_SHARED_PLACE = [
    "is_shared = False",
    "for q in range(won, won + 2 * n, 2):",
    "    if memory[q] * W + memory[q + 1] == place:",
    "        is_shared = True",
]


def _indented(levels: int, lines: list[str]) -> list[str]:
    return ["    " * levels + line if line else "" for block in lines for line in block.splitlines()]


def _counted(lines: list[str]) -> list[str]:
    """Return the lines with each loop of a varying stride written out: numba's own divides to count the rounds."""
    result: list[str] = []
    ends: list[tuple[int, str]] = []
    for line in [*lines, ""]:
        depth = len(line) - len(line.lstrip())
        while ends and depth <= ends[-1][0]:
            outer, increment = ends.pop()
            result.append(f"{' ' * (outer + 4)}{increment}")
        loop = re.fullmatch(r" *for (\w+) in range\((.+), (.+), (width\b.*|step)\):", line)
        if loop:
            name, start, stop, step = loop.groups()
            result += [f"{' ' * depth}{name} = {start}", f"{' ' * depth}while {name} < {stop}:"]
            ends.append((depth, f"{name} += {step}"))
        else:
            result.append(line)
    return result[:-1]


class _Source:
    # Writes one module: device functions that advance a neuron, then the kernel around them.

    def __init__(self, program: Program, form: Form):
        self.program, self.form = program, form
        self.writer = Writer(product="product", quotient="quotient")
        self.width = WIDTHS[program.dtype] if form.wide else 1
        self.varying_period = REFRACTORY in program.varying
        self.functions: list[str] = []
        if program.inhibition is None:
            self.counters: Counters = "until"
        elif not program.compact:
            self.counters = "own"
        else:
            self.counters = "shared" if program.inhibition == "location" else "free"
        adaptation = program.spec.functions.get("adaptation")
        self.held_reads = adaptation is not None and "I" in adaptation.arguments

    # -- neighbouring neurons: a value's names end in their numbers

    def each(self, name: str) -> list[str]:
        return [numbered(name, v) for v in range(self.width)]

    def load(self, name: str, pointer: str, index: str) -> str:
        if not self.form.wide:
            return f"{numbered(name, 0)} = {pointer}[{index}]"
        return f"{', '.join(self.each(name))} = load({pointer}, {index})"

    def store(self, pointer: str, index: str, values: list[str]) -> str:
        if not self.form.wide:
            return f"{pointer}[{index}] = {values[0]}"
        return f"store({pointer}, {index}, ({', '.join(values)}))"

    # -- the parts of both kernels

    def function(self, name: str, counters: Counters) -> None:
        """Define the step of one neuron."""
        program = self.program
        arguments = ["i_in"] if counters != "held" or self.held_reads else []
        arguments += [mangled("s", state) for state in program.states]
        arguments += ["r"] if counters in ("own", "until", "shared") else []
        arguments += [mangled("p", constant) for constant in program.constants]
        results = [mangled("s", state) for state in program.states]
        lines = step_lines(program, self.writer, counters)
        if counters == "until":
            arguments += ["now", mangled("p", REFRACTORY)]
            lines.append(f"r = where(spiked, now + ONE_STEP + p__{REFRACTORY}, r)")
        if counters in ("own", "until"):
            results.append("counter(r)")
        results += self.found(counters)
        lines.append(f"return {', '.join(results)}")
        head = ["@cuda.jit(device=True, forceinline=True)", f"def {name}({', '.join(arguments)}):"]
        self.functions += [*head, *_indented(1, lines), "", ""]

    def found(self, counters: Counters) -> list[str]:
        """What a step returns beside the state; held neurons do not spike."""
        if counters == "held":
            return ["new_u"]
        return [
            "new_u",
            "spiked",
            *(RECORDS[name] for name in ("pulses", "thresholded") if name in self.program.records),
        ]

    def calls(self, name: str, counters: Counters) -> list[str]:
        """Advance each neighbour."""
        program = self.program
        result = []
        for v in range(self.width):
            arguments = [f"i_{v}"] if counters != "held" or self.held_reads else []
            arguments += [numbered(mangled("s", state), v) for state in program.states]
            arguments += [f"r_{v}"] if counters in ("own", "until", "shared") else []
            for constant in program.constants:
                own = mangled("p", constant)
                arguments.append(numbered(own, v) if constant in program.arrays else own)
            if counters == "until":
                period = mangled("p", REFRACTORY)
                arguments += ["now", numbered(period, v) if self.varying_period else period]
            targets = [numbered(mangled("s", state), v) for state in program.states]
            targets += [f"r_{v}"] if counters in ("own", "until") else []
            targets += [numbered(found, v) for found in self.found(counters)]
            result.append(f"{', '.join(targets)} = {name}({', '.join(arguments)})")
            if counters != "held" or self.held_reads:
                # NaN once an input was not finite
                result.append(f"taint = fma(i_{v}, ZERO, taint)")
        return result

    def scalars(self) -> list[str]:
        return [f"{mangled('p', name)} = scalars[{i}]" for i, name in enumerate(self.program.scalars)]

    def states(self, index: str) -> list[str]:
        return [self.load(mangled("s", state), mangled("g", state), index) for state in self.program.states]

    def arrays(self) -> list[str]:
        return [
            self.load(mangled("p", name), "arrays", f"{i} * N + j")
            for i, name in enumerate(self.program.arrays)
        ]

    def put(self, index: str) -> list[str]:
        lines = [
            self.store(mangled("g", state), index, self.each(mangled("s", state)))
            for state in self.program.states
        ]
        if self.counters == "own":
            lines.append(self.store("g_r", index, self.each("r")))
        elif self.counters == "until":
            lines.append(self.store("g_r", index, self.left("steps")))
        return lines

    def left(self, step: str) -> list[str]:
        # each neighbour's counter before a step
        return [f"left({name}, counter({step}))" for name in self.each("r")]

    def kept(self, name: str) -> str:
        return str(1 << recorded(self.program).index(name))

    def record(self, index: str, following: str = "") -> list[str]:
        """Record what is known as soon as the neurons have advanced; counters are those of the following step."""
        values = {name: self.each(RECORDS[name]) for name in self.program.records}
        values.update({state: self.each(mangled("s", state)) for state in self.program.states})
        if "spikes" in values:
            values["spikes"] = [f"byte({name})" for name in values["spikes"]]
        if self.program.inhibition is None:
            values["refractory"] = self.left(following)
        return [
            line
            for name, each in values.items()
            for line in (
                f"if kept & {self.kept(name)}:",
                f"    {self.store(out(self.program, name), index, each)}",
            )
        ]

    # -- without inhibition

    def inputs(self, name: str, first: str, steps: int) -> list[str]:
        """Read the inputs of so many steps from one on, the last one's again where there are no more.

        They are read together and used together: the assembler gives all loads of a loop one counter to wait for, so
        that the first use of any waits for the latest.
        """
        return [
            self.load(f"{name}{ahead}", "x", f"i + min({first} + {ahead}, last) * x_stride")
            for ahead in range(steps)
        ]

    def free(self) -> list[str]:
        self.function("advance", "until")
        depth = DEPTHS[self.form.wide]
        name = mangled("p", REFRACTORY)
        period = self.load(name, "periods", "j") if self.varying_period else f"{name} = periods[0]"
        lines = [
            "i = cuda.grid(1) * WIDTH",
            "cells = B * N",
            "last = steps - 1",
            "taint = ZERO",
            "if i < cells and steps > 0:",
            "    j = i % N",
            *_indented(1, [*self.scalars(), *self.arrays(), period, *self.states("i")]),
            f"    {self.load('r', 'g_r', 'i')}",
        ]
        groups = [[self.each(f"{name}{ahead}") for ahead in range(depth)] for name in ("x", "y")]
        lines += _indented(1, self.inputs("x", "0", depth))
        lines.append(f"    for t in range(0, steps, {depth}):")
        lines += _indented(2, self.inputs("y", f"t + {depth}", depth))
        for ahead in range(depth):
            lines += [
                f"        if t + {ahead} < steps:",
                f"            {', '.join(self.each('i'))} = {', '.join(groups[0][ahead])}",
                f"            now = counter(t + {ahead})",
                *_indented(3, self.calls("advance", "until")),
                *_indented(3, self.record(f"i + (t + {ahead}) * cells", f"t + {ahead + 1}")),
            ]
        lines += [f"        {', '.join(x)} = {', '.join(y)}" for x, y in zip(*groups, strict=True)]
        return [*lines, *_indented(1, self.put("i")), *_TELL]

    # -- with inhibition

    def competing(self) -> list[str]:
        program, form = self.program, self.form
        assert program.inhibition is not None
        barrier = "grid.sync()" if form.grid else "cuda.syncthreads()"
        return [
            "b, part = split(cuda.blockIdx.x, parts)",
            "tid, width, lane = cuda.threadIdx.x, cuda.blockDim.x, cuda.threadIdx.x & 31",
            "F, _ = split(N, size)",
            f"sets = {_SETS[program.inhibition] if program.compact else 0}",
            "meeting = pointer(cuda.shared.array(64, np.int64))",
            "turn = 0",
            # three banks of the maps' best: one is filled, the coming one emptied, the last one perhaps still read
            *(
                [
                    "bests = 3 * F * b",
                    "chosen = 3 * F * B + cuda.blockIdx.x * (F + sets + 2 * most)",
                ]
                if form.scratch
                else ["memory = pointer(cuda.shared.array(0, np.int64))", "bests = 0", "chosen = 3 * F"]
            ),
            "bank, coming, past = bests, bests + F, bests + 2 * F",
            "until = chosen + F",
            "won = until + sets",
            *(["grid = cuda.cg.this_grid()"] if form.grid else []),
            *self.scalars(),
            "stride = parts * width * WIDTH",
            "stride_f, stride_place = split(stride, size)",
            "start = (part * width + tid) * WIDTH",
            "start_f, start_place = split(start, size)",
            f"{' = '.join(self.each('ahead'))} = taint = ZERO",
            # a set is held before the step `until`: nothing counts down
            "for s in range(tid, sets, width):",
            "    memory[until + s] = g_r[b * sets + s]",
            "if part == 0:",
            "    for f in range(tid, F, width):",
            "        memory[bank + f] = NONE",
            barrier,
            "for t in range(steps):",
            *_indented(1, self.step(barrier)),
            "    bank, coming, past = coming, past, bank",
            "if part == 0:",
            "    for s in range(tid, sets, width):",
            "        g_r[b * sets + s] = left(memory[until + s], steps)",
            *_TELL,
        ]

    def step(self, barrier: str) -> list[str]:
        """A step of a sample: its neurons advance, then its winners are chosen, by every block of it alike."""
        program, form = self.program, self.form
        select = _SELECT.format(
            place="\n".join(_indented(1, [_PLACE[program.dtype]])),
            period="front * size + place" if self.varying_period else "0",
            inhibit="\n".join(_indented(2, self.inhibit())),
            winners=self.kept("winners"),
        )
        meet = [barrier, select] if form.grid else ["if cuda.syncthreads_or(fired):", *_indented(1, [select])]
        return [
            "row = (t * B + b) * N",
            "keys_row = ((t & 1) * B + b) * N",
            "if part == 0:",
            "    for f in range(tid, F, width):",
            "        memory[coming + f] = NONE",
            "fired = 0",
            "j, f, place = start, start_f, start_place",
            f"if j < N{self.needed('f')}:",
            f"    {self.load('ahead', 'x', 'b * N + t * x_stride + j')}",
            # whole warps stay, since their lanes compare what they found
            "while j - lane * WIDTH < N:",
            *_indented(1, self.chunk()),
            "n = 0",
            *meet,
            f"if kept & {self.kept('winners')} and part == 0:",
            "    for q in range(n + tid, k, width):",
            "        for i in range(3):",
            "            out_winners[((t * B + b) * k + q) * 3 + i] = -1",
            f"if kept & {self.kept('refractory')}:",
            "    j, f, place = start, start_f, start_place",
            "    while j < N:",
            *_indented(2, [*self.counted(), *self.move(), "j, f, place = next_j, next_f, next_place"]),
        ]

    def needed(self, f: str) -> str:
        """A condition's second half: the map's input is needed, since nothing holds it."""
        if self.counters != "free" or self.held_reads:
            return ""
        return f" and memory[until + {self.set_of(f)}] <= t"

    def set_of(self, f: str) -> str:
        return f if self.program.inhibition == "feature" else "0"

    def move(self) -> list[str]:
        # steps through the maps without a division
        return [
            "next_j, next_f, next_place = j + stride, f + stride_f, place + stride_place",
            "if next_place >= size:",
            "    next_f, next_place = next_f + 1, next_place - size",
        ]

    def chunk(self) -> list[str]:
        """Neighbouring neurons of each lane advance, and what spiked meets at its map's best."""
        program = self.program
        self.function("advance", self.counters)
        advance = [*self.states("b * N + j"), *self.arrays()]
        if self.counters == "own":
            advance.append(self.load("r", "g_r", "b * N + j"))
        elif self.counters == "shared":
            for v, name in enumerate(self.each("r")):
                # how long it is held does not matter
                advance.append(f"{name} = counter(memory[until + place + {v}] > t)")
        advance += self.calls("advance", self.counters)
        if self.counters == "free":
            self.function("rest", "held")
            advance = [
                f"if memory[until + {self.set_of('f')}] > t:",
                *_indented(1, [*self.states("b * N + j"), *self.arrays(), *self.calls("rest", "held")]),
                f"    {' = '.join(self.each('spiked'))} = False",
                *(
                    f"    {' = '.join(self.each(name))} = ZERO"
                    for name in self.found(self.counters)
                    if name not in ("new_u", "spiked")
                ),
                "else:",
                *_indented(1, advance),
            ]
        advance += [*self.put("b * N + j"), *self.record("row + j")]
        for key, spiked, new_u in zip(self.each("key"), self.each("spiked"), self.each("new_u"), strict=True):
            advance.append(f"{key} = order_key({new_u}) if {spiked} else LOWEST_KEY")
        keep = self.store("keys", "keys_row + j", self.each("key"))
        advance += [keep] if program.dtype == "float64" else ["if radius > 0:", f"    {keep}"]
        for v, (key, spiked) in enumerate(zip(self.each("key"), self.each("spiked"), strict=True)):
            advance += [
                f"if {spiked} and ranked({key}, j + {v}) > best:",
                f"    best = ranked({key}, j + {v})",
            ]
        return [
            f"{', '.join(self.each('i'))} = {', '.join(self.each('ahead'))}",
            *self.move(),
            # the next input is under way while this one is used
            f"if next_j < N{self.needed('next_f')}:",
            f"    {self.load('ahead', 'x', 'b * N + t * x_stride + next_j')}",
            "best = NONE",
            "if j < N:",
            *_indented(1, advance),
            "if best > NONE:",
            "    fired = 1",
            "if cuda.any_sync(FULL, best > NONE):",
            "    if cuda.all_sync(FULL, f == cuda.shfl_sync(FULL, f, 0)):",
            "        for shift in (16, 8, 4, 2, 1):",
            "            other = cuda.shfl_xor_sync(FULL, best, shift)",
            "            best = where(other > best, other, best)",
            "        if lane > 0:",
            "            best = NONE",
            "    if best > NONE and best > memory[bank + f]:",
            "        atomic_max(memory, bank + f, best)",
            "j, f, place = next_j, next_f, next_place",
        ]

    def inhibit(self) -> list[str]:
        """Hold a winner's set."""
        scope = self.program.inhibition
        assert scope is not None
        # a set that winners of this step share takes the longest of their periods, whatever it was held for before
        shared = {"feature": [], "global": ["is_shared = n > 0"], "location": _SHARED_PLACE}[scope]
        lines = [*shared] if self.varying_period else []
        longer = " or not is_shared" if lines else ""

        def set_to(at: str, value: str) -> list[str]:
            return [f"if {at} < {value}{longer}:", f"    {at} = {value}"] if lines else [f"{at} = {value}"]

        if self.program.compact:
            at = f"memory[until + {_SET[scope]}]"
            return [*lines, "if tid == 0:", *_indented(1, set_to(at, "t + 1 + period"))]
        return [
            *lines,
            f"first, stop, step = {_INHIBITED[scope]}",
            "for other in range(first + tid * step, stop, width * step):",
            *_indented(1, set_to("g_r[b * N + other]", "period")),
        ]

    def counted(self) -> list[str]:
        """Record counters after the step."""
        if not self.program.compact:
            return ["out_refractory[row + j] = g_r[b * N + j]"]
        sets = [f"place + {v}" for v in range(self.width)]
        if self.program.inhibition != "location":
            sets = [self.set_of("f")] * self.width
        left = [f"left(memory[until + {index}], t + 1)" for index in sets]
        return [self.store("out_refractory", "row + j", left)]

    def text(self) -> str:
        program, form = self.program, self.form
        names = {**FLOAT_FORMATS[program.dtype], **_FUNCTIONS[program.dtype], "width": self.width}
        parts = [
            _HEADER.format(label=f"{program.label}_{form.label}", **names),
            _VECTORS if form.wide else "",
        ]
        if program.inhibition is None:
            body = self.free()
        else:
            body = self.competing()
            parts += [_POINTERS]
            parts += [_COMPETITION.format(ranked=_RANKED[program.dtype], **names)]
        lines = [line for line in self.functions if not line.startswith("@")]
        helpers = helper_lines(lines, program.dtype, self.writer, "@cuda.jit(device=True, forceinline=True)")
        constants = [f"{name} = real('{value}')" for value, name in self.writer.constants.items()]
        kinds = parameters(program, form)
        kernel = [
            f'SIGNATURE = "void({", ".join(kinds.values())})"',
            f"BOUNDS = {bounds(program, form)}",
            "",
            "",
            f"def run({', '.join(kinds)}):",
            *_counted(_indented(1, body)),
            "",
        ]
        return "".join(parts) + "\n".join([*constants, "", "", *helpers, "", *self.functions, *kernel])


def source(program: Program, form: Form) -> str:
    """Return the text of a program's module in a form: the kernel ``run``, its ``SIGNATURE`` and its ``BOUNDS``."""
    return _Source(program, form).text()
