"""The emulator does what CUDA does, and finds the mistakes that it says it finds."""

from __future__ import annotations

import builtins
import doctest
import math
import sys
import warnings
from fractions import Fraction
from types import ModuleType
from typing import Any

import cuda_emulator
import numpy as np
import pytest
from cuda_emulator import DivergentBarrierError, EmulatedCuda
from emulated import needs_emulator

pytestmark = needs_emulator

IMPORTS = (
    "import numpy as np\nfrom numba import cuda\nfrom numba.cuda import libdevice\n\nFULL = 0xFFFFFFFF\n"
)


def load(text: str, seed: int | None = None) -> ModuleType:
    return EmulatedCuda(seed).load(IMPORTS + text)


def run(text: str, *arguments: Any, grid: int = 1, block: int = 1, seed: int | None = None) -> None:
    """Run the kernel ``run`` of a text."""
    load(text, seed).run[grid, block](*arguments)


def test_the_example_in_the_documentation() -> None:
    assert doctest.testmod(cuda_emulator) == (0, 5)


REDUCTION = """
@cuda.jit
def run(values, totals):
    partial = cuda.shared.array(64, np.float64)
    tid = cuda.threadIdx.x
    partial[tid] = values[cuda.grid(1)]
    cuda.syncthreads()
    width = cuda.blockDim.x // 2
    while width:
        if tid < width:
            partial[tid] += partial[tid + width]
        cuda.syncthreads()
        width //= 2
    if tid == 0:
        totals[cuda.blockIdx.x] = partial[0]
"""


@pytest.mark.parametrize("seed", [None, *range(5)])
def test_block_reduction(seed: int | None) -> None:
    values = np.arange(192.0)
    totals = np.zeros(3)
    run(REDUCTION, values, totals, grid=3, block=64, seed=seed)
    np.testing.assert_array_equal(totals, values.reshape(3, 64).sum(1))


@pytest.mark.parametrize(
    "barrier", ["    cuda.syncthreads()\n    width", "        cuda.syncthreads()\n        width"]
)
def test_seeds_find_a_missing_barrier(barrier: str) -> None:
    assert REDUCTION.count(barrier) == 1
    racing = REDUCTION.replace(barrier, barrier.replace("cuda.syncthreads()", "pass"))
    values = np.arange(64.0)
    sums = set()
    for seed in range(10):
        totals = np.zeros(1)
        run(racing, values, totals, block=64, seed=seed)
        sums.add(totals[0])
    assert sums - {values.sum()}


def test_the_same_seed_gives_the_same_order() -> None:
    text = """
@cuda.jit
def run(order, taken):
    order[cuda.atomic.add(taken, 0, 1)] = cuda.grid(1)
"""

    def order(seed: int | None) -> list[int]:
        result = np.zeros(40, int)
        run(text, result, np.zeros(1, "int32"), grid=4, block=10, seed=seed)
        return result.tolist()

    assert order(None) == list(range(40))
    assert order(3) == order(3) != order(4)
    assert sorted(order(3)) == order(None)


def test_indices() -> None:
    text = """
@cuda.jit
def run(out):
    i = cuda.grid(1)
    out[i, :4] = (cuda.threadIdx.x, cuda.blockIdx.x, cuda.blockDim.x, cuda.gridDim.x)
    out[i, 4:] = (cuda.laneid, cuda.gridsize(1))
"""
    out = np.zeros((120, 6), int)
    run(text, out, grid=3, block=40)
    i = np.arange(120)
    expected = [i % 40, i // 40, np.full(120, 40), np.full(120, 3), i % 40 % 32, np.full(120, 120)]
    np.testing.assert_array_equal(out, np.transpose(expected))


def test_a_thread_that_never_waits_is_a_plain_call() -> None:
    text = """
from greenlet import getcurrent

@cuda.jit
def run(out, wait):
    out[cuda.grid(1)] = id(getcurrent())
    if wait:
        cuda.syncthreads()
"""
    out = np.zeros(50, "int64")
    run(text, out, False, block=50)
    assert len(set(out)) == 1
    run(text, out, True, block=50)
    assert len(set(out)) == 50


WARP = """
@cuda.jit
def run(values, out):
    i = cuda.grid(1)
    value = values[i]
    for delta in (16, 8, 4, 2, 1):
        value = {combine}
    out[i] = value
"""


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_warp_reductions(seed: int | None) -> None:
    values = np.random.default_rng(0).integers(0, 1000, 96).astype("int32")
    totals = values.reshape(3, 32).sum(1)
    out = np.zeros(96, "int32")
    run(
        WARP.format(combine="value + cuda.shfl_xor_sync(FULL, value, delta)"),
        values,
        out,
        block=96,
        seed=seed,
    )
    np.testing.assert_array_equal(out, np.repeat(totals, 32))
    run(
        WARP.format(combine="value + cuda.shfl_down_sync(FULL, value, delta)"),
        values,
        out,
        block=96,
        seed=seed,
    )
    np.testing.assert_array_equal(out[::32], totals)


def test_warp_scan_and_broadcast() -> None:
    text = """
@cuda.jit
def run(sums, last):
    i = cuda.grid(1)
    value = np.float32(i)
    delta = 1
    while delta < 32:
        below = cuda.shfl_up_sync(FULL, value, delta)
        if cuda.laneid >= delta:
            value += below
        delta *= 2
    sums[i] = value
    last[i] = cuda.shfl_sync(FULL, value, 31)
"""
    sums, last = np.zeros((2, 64), "float32")
    run(text, sums, last, block=64)
    expected = np.arange(64.0).reshape(2, 32).cumsum(1)
    np.testing.assert_array_equal(sums, expected.ravel())
    np.testing.assert_array_equal(last, np.repeat(expected[:, -1], 32))


def test_votes() -> None:
    text = """
@cuda.jit
def run(values, out):
    i = cuda.grid(1)
    out[i, 0] = cuda.ballot_sync(FULL, values[i] > 0)
    out[i, 1] = cuda.any_sync(FULL, values[i] > 0)
    out[i, 2] = cuda.all_sync(FULL, values[i] > 0)
    out[i, 3] = cuda.match_any_sync(FULL, values[i])
    out[i, 4] = cuda.syncthreads_or(values[i] > 2)
    out[i, 5] = cuda.syncthreads_and(values[i] > 0)
    out[i, 6] = cuda.syncthreads_count(values[i] > 0)
"""
    values = np.array([0, 1, 2, 1] * 8 + [1] * 32)
    out = np.zeros((64, 7), "int64")
    run(text, values, out, block=64)
    bits = sum(1 << lane for lane in range(32) if values[lane])
    first = [bits - (1 << 32), True, False]
    np.testing.assert_array_equal(out[:32, :3], [first] * 32)
    np.testing.assert_array_equal(out[32:, :4], [[-1, True, True, -1]] * 32)
    np.testing.assert_array_equal(out[:4, 3] & 0xF, [0b0001, 0b1010, 0b0100, 0b1010])
    np.testing.assert_array_equal(out[:, 4:], [[0, 0, 56]] * 64)


def test_warps_with_masks() -> None:
    text = """
@cuda.jit
def run(out):
    lane = cuda.laneid
    if lane < 8:
        out[lane] = cuda.ballot_sync(0xFF, lane % 2)
    else:
        out[lane] = cuda.ballot_sync(0xFFFFFF00, lane % 4 == 0)
    cuda.syncwarp()
    out[lane] += out[31 - lane]
"""
    out = np.zeros(32, "int64")
    run(text, out, block=32)
    assert set(out[:16]) == {0xAA + 0x11111100, 2 * 0x11111100}


def test_a_lane_must_be_in_its_mask_and_read_lanes_that_take_part() -> None:
    with pytest.raises(ValueError, match=r"mask 0xff called by lane 8"):
        run("@cuda.jit\ndef run(out):\n    cuda.syncwarp(0xFF)\n", np.zeros(1), block=9)
    with pytest.raises(ValueError, match="lane 0 reads lane 20, which takes no part"):
        run("@cuda.jit\ndef run(out):\n    cuda.shfl_down_sync(FULL, 1, 20)\n", np.zeros(1), block=20)


def test_bit_counts() -> None:
    text = """
@cuda.jit
def run(values, out):
    i = cuda.grid(1)
    out[i] = (cuda.popc(values[i]), cuda.ffs(values[i]), cuda.clz(values[i]))
"""
    out = np.zeros((4, 3), int)
    run(text, np.array([0, 1, -1, 0x50], "int32"), out, block=4)
    assert out.tolist() == [[0, 0, 32], [1, 1, 31], [32, 1, 0], [2, 5, 25]]
    run(text, np.array([0, 1, -1, 0x50], "int64"), out, block=4)
    assert out.tolist() == [[0, 0, 64], [1, 1, 63], [64, 1, 0], [2, 5, 57]]


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint64", "float32", "float64"])
@pytest.mark.parametrize(
    ("name", "expected"), [("add", 5 + 45), ("sub", 5 - 45), ("max", 9), ("min", 0), ("exch", 9)]
)
def test_atomics(name: str, expected: int, dtype: str) -> None:
    text = f"""
@cuda.jit
def run(total, matrix, old):
    i = cuda.grid(1)
    old[i] = cuda.atomic.{name}(total, 0, i)
    cuda.atomic.{name}(matrix, (1, i % 2), total.dtype.type(i))
"""
    total, matrix, old = np.full(1, 5, dtype), np.full((2, 2), 5, dtype), np.zeros(10, dtype)
    run(text, total, matrix, old, block=10)
    assert total[0] == np.array(expected).astype(dtype)
    assert old[0] == 5
    assert matrix[0].tolist() == [5, 5] != matrix[1].tolist()
    if name == "add":
        assert old.tolist() == [5 + i * (i - 1) // 2 for i in range(10)]


def test_atomic_bits_and_exchanges() -> None:
    text = """
@cuda.jit
def run(values, taken, lock):
    i = cuda.grid(1)
    cuda.atomic.or_(values, 0, 1 << i)
    cuda.atomic.and_(values, 1, ~(1 << i))
    cuda.atomic.xor(values, 2, 1 << i)
    taken[i] = cuda.atomic.cas(lock, 1, 0, i + 1)
    cuda.atomic.compare_and_swap(lock, -1, i)
"""
    values, taken, lock = np.array([0, -1, 1], "int32"), np.zeros(4, "int64"), np.array([-1, 0])
    run(text, values, taken, lock, block=4)
    assert values.tolist() == [15, -16, 14]
    assert taken.tolist() == [0, 1, 1, 1]
    assert lock.tolist() == [0, 1]


def test_atomics_wrap_and_refuse_what_the_hardware_lacks() -> None:
    add = "@cuda.jit\ndef run(values, index):\n    cuda.atomic.add(values, index, 1)\n"
    values = np.array([np.iinfo("int32").max], "int32")
    run(add, values, 0)
    assert values[0] == np.iinfo("int32").min
    with pytest.raises(TypeError, match=r"cuda\.atomic\.add on bool"):
        run(add, np.zeros(1, bool), 0)
    with pytest.raises(IndexError, match="name one element"):
        run(add, np.zeros((2, 2)), 0)


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_grid_barrier(seed: int | None) -> None:
    text = """
@cuda.jit
def run(values, sums):
    grid = cuda.cg.this_grid()
    i = cuda.grid(1)
    for step in range(3):
        values[i] = i + step
        cuda.threadfence()
        grid.sync()
        sums[step, i] = values.sum()
        cuda.syncthreads()
        grid.sync()
"""
    values, sums = np.zeros(40), np.zeros((3, 40))
    run(text, values, sums, grid=4, block=10, seed=seed)
    np.testing.assert_array_equal(sums, [[780.0 + 40 * step] * 40 for step in range(3)])


def test_dynamic_and_static_shared_memory() -> None:
    text = """
@cuda.jit(device=True)
def scratch():
    return cuda.shared.array(2, np.int32)

@cuda.jit
def run(out):
    words = cuda.shared.array(0, np.int32)
    bytes_ = cuda.shared.array(0, np.uint8)
    tid = cuda.threadIdx.x
    for _ in range(2):
        first = cuda.shared.array((2, 2), dtype=np.int32)
    second = cuda.shared.array((2, 2), np.int32)
    out[3] = first[0, 0]
    cuda.syncthreads()
    words[tid] = tid
    first[:] = 1
    second[:] = 2
    scratch()[tid] = 3
    cuda.syncthreads()
    if tid == 0:
        out[0] = words.size * 10000 + bytes_.size * 100 + int(bytes_[4])
        out[1] = first.sum() * 10 + second.sum()
        out[2] = scratch().sum()
"""
    out = np.zeros(4, int)
    load(text).run[(1,), (2,), 0, 8](out)
    assert out.tolist() == [2 * 10000 + 8 * 100 + 1, 48, 6, 0x5A5A5A5A]
    with pytest.raises(IndexError):
        load(text).run[1, 2](out)


def test_numba_types_make_arrays() -> None:
    pytest.importorskip("numba")
    text = """
from numba import boolean, float32

@cuda.jit
def run(out):
    out[0] = cuda.local.array(3, float32).itemsize
    out[1] = cuda.shared.array(3, boolean).itemsize
    out[2] = cuda.local.array((2, 2), np.float64)[0, 0] != 0
"""
    out = np.zeros(3, int)
    run(text, out)
    assert out.tolist() == [4, 1, 1]


@pytest.mark.parametrize(
    ("body", "states"),
    [
        (
            "if cuda.threadIdx.x < 3:\n        cuda.syncthreads()\n    else:\n        cuda.syncthreads()",
            "block 0 has 3 at syncthreads in line 9, 7 at syncthreads in line 11",
        ),
        (
            "if cuda.threadIdx.x < 3:\n        cuda.syncwarp()\n    else:\n        cuda.syncthreads()",
            "block 0 has 3 at syncwarp of warp 0 with mask 0xffffffff, 7 at syncthreads in line 11",
        ),
        (
            "if cuda.threadIdx.x:\n        cuda.cg.this_grid().sync()",
            "block 0 has 9 at the grid's barrier, 1 that left; block 1",
        ),
        (
            "if cuda.blockIdx.x:\n        cuda.cg.this_grid().sync()",
            "10 at the grid's barrier; 1 blocks have left",
        ),
    ],
)
def test_divergent_barriers(body: str, states: str) -> None:
    with pytest.raises(DivergentBarrierError, match="kernel run wait for each other in vain") as caught:
        run(f"@cuda.jit\ndef run():\n    {body}\n", grid=2, block=10)
    assert states in str(caught.value)


def test_threads_that_have_left_are_not_waited_for() -> None:
    text = """
@cuda.jit
def run(out):
    if cuda.threadIdx.x < 5:
        return
    out[0] = cuda.syncthreads_count(True)
    out[1] = cuda.popc(cuda.ballot_sync(FULL, True))
"""
    out = np.zeros(2, int)
    run(text, out, block=12)
    assert out.tolist() == [7, 7]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("libdevice.fmul_rn(x, np.float64(2))", "fmul_rn got float64: float32 is allowed"),
        ("libdevice.fadd_rn(x, 0.5)", "fadd_rn got float: float32 is allowed"),
        ("libdevice.dmul_rn(x, x)", "dmul_rn got float32: float64 is allowed"),
        ("libdevice.int_as_float(np.int64(1))", "int_as_float got int64: int32 is allowed"),
        ("libdevice.fabsf(math.sqrt(x))", "fabsf got float: float32 is allowed"),
        ("cuda.fma(x, x, np.float64(1))", "fma got float32, float32 and float64"),
    ],
)
def test_another_type_is_found(expression: str, message: str) -> None:
    text = f"import math\n\n@cuda.jit\ndef run(values):\n    x = values[0]\n    values[0] = {expression}\n"
    with pytest.raises(AssertionError, match=message):
        run(text, np.ones(1, "float32"))


def apply(function: str, *operands: np.ndarray) -> np.ndarray:
    """Return libdevice's function of arrays, in the type that it returns."""
    out = np.zeros(len(operands[0]), object)
    names = ", ".join("abc"[: len(operands)])
    items = ", ".join(f"{name}[i]" for name in names.split(", "))
    text = f"@cuda.jit\ndef run(out, {names}):\n    i = cuda.grid(1)\n    out[i] = {function}({items})\n"
    run(text, out, *operands, block=len(out))
    kinds = {type(value) for value in out}
    assert len(kinds) == 1
    return out.astype(kinds.pop())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_libdevice_arithmetic_is_that_of_numpy(dtype: str) -> None:
    rng = np.random.default_rng(5)
    a, b = (rng.normal(size=100) * 10.0 ** rng.integers(-20, 20, 100) for _ in range(2))
    a, b = a.astype(dtype), b.astype(dtype)
    letter, suffix = {"float32": ("f", "f"), "float64": ("d", "")}[dtype]
    expected = {
        f"{letter}add_rn": a + b,
        f"{letter}mul_rn": a * b,
        f"{letter}div_rn": a / b,
        f"fmin{suffix}": np.minimum(a, b),
        f"fmax{suffix}": np.maximum(a, b),
    }
    for name, result in expected.items():
        np.testing.assert_array_equal(apply(f"libdevice.{name}", a, b), result, strict=True)
    np.testing.assert_array_equal(apply(f"libdevice.{letter}sqrt_rn", abs(a)), np.sqrt(abs(a)), strict=True)
    np.testing.assert_array_equal(apply(f"libdevice.fabs{suffix}", a), abs(a), strict=True)
    halves = np.array([-2.5, -0.5, 0.5, 1.5, 2.5, 3.7], dtype)
    for name in (f"rint{suffix}", f"nearbyint{suffix}"):
        np.testing.assert_array_equal(
            apply(f"libdevice.{name}", halves), np.array([-2, 0, 0, 2, 2, 4], dtype)
        )


def test_libdevice_conversions() -> None:
    values = np.array([-2.5, -0.5, 0.5, 1.5, 2.5, 3e38, -math.inf, math.nan])
    small, large = (np.iinfo(kind) for kind in ("int32", "int64"))
    rounded = [-2, 0, 0, 2, 2]
    expected = {
        "float2int_rn": np.array([*rounded, small.max, small.min, 0], "int32"),
        "float2ll_rn": np.array([*rounded, large.max, large.min, large.min]),
        "double2int_rn": np.array([*rounded, small.max, small.min, small.min], "int32"),
        "double2ll_rn": np.array([*rounded, large.max, large.min, large.min]),
    }
    for name, result in expected.items():
        operand = values.astype("float32" if name.startswith("float") else "float64")
        np.testing.assert_array_equal(apply(f"libdevice.{name}", operand), result, strict=True)
    whole = np.array([3, -(2**24) - 1], "int32")
    np.testing.assert_array_equal(
        apply("libdevice.int2float_rn", whole), np.array([3, -(2.0**24)], "float32")
    )
    np.testing.assert_array_equal(apply("libdevice.int2double_rn", whole), whole.astype(float), strict=True)
    np.testing.assert_array_equal(apply("libdevice.ll2double_rn", np.array([2**53 + 1])), np.array([2.0**53]))
    for kinds, there, back in (
        (("float32", "int32"), "float_as_int", "int_as_float"),
        (("float64", "int64"), "double_as_longlong", "longlong_as_double"),
    ):
        real = np.array([-1.5, 0.1, math.inf], kinds[0])
        bits = apply(f"libdevice.{there}", real)
        np.testing.assert_array_equal(bits, real.view(kinds[1]), strict=True)
        np.testing.assert_array_equal(apply(f"libdevice.{back}", bits), real, strict=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fused_multiply_add_rounds_once(dtype: str) -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(2, 300)).astype(dtype)
    c = (-a * b * (1 + rng.normal(size=300) * 1e-6)).astype(dtype)
    # a tie that only the tiny third operand breaks
    a[0], b[0], c[0] = 1 + 2.0**-12, 1 + 2.0**-12, 2.0**-70
    fused = apply("cuda.fma", a, b, c)
    assert fused.dtype == dtype
    assert (fused != a * b + c).any()
    for i in range(300):
        exact = Fraction(float(a[i])) * Fraction(float(b[i])) + Fraction(float(c[i]))
        error = abs(Fraction(float(fused[i])) - exact)
        for direction in (-math.inf, math.inf):
            neighbour = np.nextafter(fused[i], np.array(direction, dtype)[()])
            assert error <= abs(Fraction(float(neighbour)) - exact)


def test_integers_wrap_silently_before_and_after_a_barrier() -> None:
    text = """
@cuda.jit
def run(values, reals):
    i = cuda.grid(1)
    values[i] = values[i] * values[i]
    cuda.syncthreads()
    values[i] = values[i] + np.int32(2**31 - 1)
    reals[i] = reals[i] / (reals[i] - reals[i])
"""
    values, reals = np.full(3, 2**16 + 1, "int32"), np.ones(3, "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(text, values, reals, block=3)
    assert values.tolist() == [2**17 - 2**31] * 3
    assert np.isinf(reals).all()


def test_arguments_have_numbas_types() -> None:
    text = "@cuda.jit\ndef run(out, *values):\n    out[:] = [type(value).__name__ for value in values]\n"
    out = np.zeros(5, object)
    run(text, out, 1, 1.0, True, np.float32(1), np.zeros(1))
    assert out.tolist() == ["int64", "float64", "bool", "float32", "ndarray"]
    with pytest.raises(TypeError, match="a kernel got str"):
        run(text, out, "text")


def test_every_form_of_jit() -> None:
    text = """
@cuda.jit(device=True, inline="always")
def double(x):
    return x * 2

def triple(x):
    return x * 3

triple = cuda.jit(triple, device=True)

@cuda.jit("void(float32[::1])", cache=True)
def run(out):
    helper(out)
    out[1] = triple(double(cuda.selp(out[0] > 1, out[0], out[1])))

@cuda.jit
def helper(out):
    out[0] += 1
"""
    out = np.ones(2, "float32")
    module = load(text)
    module.run[1, 1](out)
    assert out.tolist() == [2, 12]
    assert module.run.py_func.__name__ == module.run.__name__ == "run"


def test_neither_numba_nor_a_driver_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("numba", "numba_cuda")]:
        monkeypatch.delitem(sys.modules, name)
    original = builtins.__import__

    def refusing(name: str, *arguments: Any, **options: Any) -> Any:
        assert name.split(".")[0] not in ("numba", "numba_cuda")
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refusing)
    text = """
import math
import numba
import numba.cuda
from numba import cuda as same

assert numba.cuda is same is cuda and cuda.libdevice is libdevice

@cuda.jit
def run(out):
    out[0] = math.floor(libdevice.fabsf(out[0]))
"""
    out = np.array([-2.5], "float32")
    run(text, out)
    assert out[0] == 2


def test_what_is_not_emulated_is_named() -> None:
    with pytest.raises(AttributeError, match=r"cuda\.nanosleep is not emulated"):
        run("@cuda.jit\ndef run():\n    cuda.nanosleep(1)\n")
    with pytest.raises(AttributeError, match=r"libdevice\.expf is not emulated"):
        run("@cuda.jit\ndef run():\n    libdevice.expf(1)\n")
    with pytest.raises(ValueError, match="2 dimensions: only 1 is emulated"):
        run("@cuda.jit\ndef run():\n    cuda.grid(2)\n")


@pytest.mark.parametrize(
    ("configuration", "error", "message"),
    [
        ((0, 1), ValueError, "grid 0: at least 1"),
        ((1, 1025), ValueError, "a block of 1025 threads: at most 1024"),
        ((1, (4, 4)), ValueError, "only one dimension"),
        ((1.5, 1), TypeError, "float"),
        (1, TypeError, r"give \[grid, block\]"),
    ],
)
def test_bad_launches(configuration: Any, error: type[Exception], message: str) -> None:
    kernel = load("@cuda.jit\ndef run():\n    pass\n").run
    with pytest.raises(error, match=message):
        kernel[configuration]()


def test_bad_calls() -> None:
    module = load("@cuda.jit\ndef run(a):\n    pass\n\nindex = lambda: cuda.threadIdx.x\n")
    with pytest.raises(TypeError, match="missing a required argument"):
        module.run[1, 1]()
    with pytest.raises(RuntimeError, match="no kernel is running"):
        module.index()


def test_an_error_tells_where_it_rose_and_the_next_launch_is_sound() -> None:
    module = load("@cuda.jit\ndef run(out):\n    cuda.syncthreads()\n    out[cuda.grid(1)] = 1\n")
    with pytest.raises(IndexError) as caught:
        module.run[2, 4](np.zeros(6))
    if sys.version_info >= (3, 11):
        assert caught.value.__notes__ == ["in thread 2 of block 1 of kernel run"]
    assert "out[cuda.grid(1)] = 1" in str(caught.traceback[-1].statement)
    out = np.zeros(8)
    module.run[2, 4](out)
    assert out.all()


@pytest.mark.parametrize("seed", range(4))
def test_a_warp_may_run_ahead_of_others_to_its_next_barrier(seed: int) -> None:
    """A meeting place used again before all have read it is found, though warps meet among themselves in between."""
    text = """
@cuda.jit
def run(out, again):
    meeting = cuda.shared.array(2, np.int64)
    for turn in range(2):
        cuda.syncwarp()
        if cuda.threadIdx.x % 32 == 0:
            meeting[cuda.threadIdx.x // 32] = turn
        cuda.syncthreads()
        out[turn, cuda.threadIdx.x] = meeting[0] + meeting[1]
        if again:
            cuda.syncthreads()
"""
    out = np.zeros((2, 64), int)
    run(text, out, True, block=64, seed=seed)
    assert set(out[0]) == {0} and set(out[1]) == {2}
    run(text, out, False, block=64, seed=seed)
    assert set(out[0]) == {0, 1}
