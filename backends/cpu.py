"""The CPU backend: one numba loop per program over tiles of neurons and all steps, run on a few threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from spyke_numba.engine import REFRACTORY, Program, Writer, helper_lines, step_lines
from spyke_numba.generated import load_module

#: Neurons whose state stays in the cache while the input streams past; anything from 2048 to 65536 is as fast.
TILE = 4096
#: Below this many neuron-steps a second thread costs more than it gives (a hand-over takes about 30 us).
PARALLEL_NEURON_STEPS = 400_000

_HEADER = '''\
"""Generated for {label}: {steps}. Do not edit."""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

real, whole = np.{real}, np.{whole}
real_type = types.{real}
matrix = real_type[:, ::1]
NO_STEPS, ONE_STEP = np.int32(0), np.int32(1)
LOWEST_KEY = np.{whole}(np.iinfo(np.{whole}).min)


def _unary(result, argument, build):
    @intrinsic
    def operation(context, value):
        def generate(context, builder, signature, arguments):
            return build(builder, arguments[0])

        return result(argument), generate

    return operation


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


@njit(forceinline=True)
def where(condition, a, b):
    return a if condition else b


@njit(forceinline=True)
def abs(x):
    return _fabs(x)


@njit(forceinline=True)
def sqrt(x):
    return _sqrt(x)


@njit(forceinline=True)
def rint(x):
    return _rint(x)


@njit(forceinline=True)
def pow2(n):
    return _of_bits(whole((_as_whole(n) + whole({bias})) << whole({mantissa_bits})))


@njit(forceinline=True)
def exponent(x):
    return _as_real(whole((_bits_of(x) >> whole({mantissa_bits})) - whole({bias})))


@njit(forceinline=True)
def mantissa(x):
    return _of_bits(whole((_bits_of(x) & whole({mantissa_mask})) | whole({one_bits})))


@njit(forceinline=True)
def order_key(x):
    """An integer in the order of x: its maximum vectorises, a float's does not. Adding 0 makes -0 and 0 equal."""
    q = _bits_of(x + real(0))
    return whole(q ^ (whole(q >> whole({sign_shift})) & whole({largest})))


'''

_FORMAT: dict[str, dict[str, object]] = {
    "float32": {
        "real": "float32",
        "whole": "int32",
        "ir_real": "FloatType",
        "bits": 32,
        "bias": 127,
        "mantissa_bits": 23,
        "mantissa_mask": 0x007FFFFF,
        "one_bits": 0x3F800000,
        "sign_shift": 31,
        "largest": 0x7FFFFFFF,
    },
    "float64": {
        "real": "float64",
        "whole": "int64",
        "ir_real": "DoubleType",
        "bits": 64,
        "bias": 1023,
        "mantissa_bits": 52,
        "mantissa_mask": 0x000FFFFFFFFFFFFF,
        "one_bits": 0x3FF0000000000000,
        "sign_shift": 63,
        "largest": 0x7FFFFFFFFFFFFFFF,
    },
}

_JIT = '@njit({signature}, cache=True, nogil=True, error_model="numpy")'
# the rows never overlap, and saying so saves the run-time checks that keep LLVM from vectorising many arrays at once
_JIT_ROW = '@njit(error_model="numpy")'

_SELECT = '''\
@njit(error_model="numpy")
def largest_allowed(keys, start, H, W, radius, won_row, won_column, n):
    """The largest key of a map and its lowest place, outside the squares around the n winners."""
    best = LOWEST_KEY
    place = -1
    for row in range(H):
        for column in range(W):
            key = keys[start + row * W + column]
            if key > best:
                free = True
                for q in range(n):
                    if abs_int(row - won_row[q]) <= radius and abs_int(column - won_column[q]) <= radius:
                        free = False
                if free:
                    best = key
                    place = row * W + column
    return best, place


@njit(forceinline=True)
def abs_int(a):
    return a if a >= 0 else -a


@njit(error_model="numpy")
def select(keys, map_keys, k, radius, H, W, won_map, won_row, won_column):
    """Pick winners; a map's key is an upper bound, made exact only for a map that reaches the front."""
    F = map_keys.size
    n = 0
    while n < k:
        best = LOWEST_KEY
        front = -1
        for f in range(F):
            if map_keys[f] > best:
                best = map_keys[f]
                front = f
        if front < 0:
            break
        start = front * H * W
        if radius == 0 or n == 0:
            place = 0
            while keys[start + place] != best:
                place += 1
        else:
            key, place = largest_allowed(keys, start, H, W, radius, won_row, won_column, n)
            if key != best:
                map_keys[front] = key
                continue
        map_keys[front] = LOWEST_KEY
        won_map[n] = front
        won_row[n] = place // W
        won_column[n] = place % W
        n += 1
    return n


@njit(error_model="numpy")
def hold(refractory, scope, F, H, W, f, place, period):
    """Set the counters of a winner's inhibited set; where sets overlap, the longest period stays."""
    size = H * W
    if scope == 0:
        start, stop, stride = f * size, (f + 1) * size, 1
    elif scope == 1:
        start, stop, stride = place, F * size, size
    else:
        start, stop, stride = 0, F * size, 1
    for j in range(start, stop, stride):
        refractory[j] = max(refractory[j], period)


'''


def source(program: Program) -> str:
    """Return the text of a program's module; its function ``run`` advances the items ``first`` to ``last``."""
    writer = Writer()
    lines = step_lines(program, writer)
    helpers = helper_lines(lines, program.dtype, writer, "@njit(forceinline=True)")
    constants = [f"{name} = real({_literal(value)})" for value, name in writer.constants.items()]
    varying_period = REFRACTORY in program.varying

    rows = ["x", *(f"row_{state}" for state in program.states), "row_r", "row_spikes"]
    rows += ["row_u_pre"] if program.u_pre else []
    rows += ["row_keys"] if program.inhibition else []
    rows += [f"row_p_{name}" for name in program.arrays]
    scalars = [f"p_{name}" for name in program.scalars]
    period = [] if program.inhibition else ["row_period" if varying_period else f"p_{REFRACTORY}"]

    advance = [_JIT_ROW, f"def advance({', '.join(rows + scalars + period)}):"]
    if program.inhibition:
        advance.append("    best = LOWEST_KEY")
    advance.append("    for j in range(x.size):")
    body = ["i_in = x[j]", *(f"s_{state} = row_{state}[j]" for state in program.states), "r = row_r[j]"]
    body += [f"p_{name} = row_p_{name}[j]" for name in program.arrays]
    body += [f"p_{REFRACTORY} = row_period[j]"] if varying_period and not program.inhibition else []
    body += lines
    body += [f"row_{state}[j] = s_{state}" for state in program.states]
    body += ["row_r[j] = r", "row_spikes[j] = spiked"]
    body += ["row_u_pre[j] = new_u"] if program.u_pre else []
    if program.inhibition:
        body += [
            "key = order_key(new_u) if spiked else LOWEST_KEY",
            "row_keys[j] = key",
            "best = key if key > best else best",
        ]
    advance += [f"        {line}" for line in body]
    if program.inhibition:
        advance.append("    return best")

    recorded = [*program.states, *(["u_pre"] if program.u_pre else [])]
    parameters = ["x", "constant_input", "steps", *(f"g_{state}" for state in program.states), "g_r", "scalars", "arrays"]
    parameters += ["periods", "spikes", "out_refractory", *(f"out_{name}" for name in recorded)]

    def call(window: str, starts: str) -> str:
        arguments = [f"x[x_row, {window}]", *(f"g_{state}[b, {window}]" for state in program.states)]
        arguments += [f"g_r[b, {window}]", f"spikes[spike_row, {window}]"]
        arguments += [f"out_u_pre[row if out_u_pre.shape[0] > B else b, {window}]"] if program.u_pre else []
        arguments += [f"keys[{window}]"] if program.inhibition else []
        arguments += [f"arrays[{i}, {window}]" for i in range(len(program.arrays))]
        arguments += scalars
        if not program.inhibition:
            arguments.append(f"periods[{window}]" if varying_period else "periods[0]")
        return f"advance({', '.join(arguments)})"

    # an explicit signature: a read-only input (a memory map) must not compile the kernel again
    kinds = ["types.Array(real_type, 2, 'C', readonly=True)", "types.boolean", "types.int64"]
    kinds += ["matrix"] * len(program.states) + ["types.int32[:, ::1]", "real_type[::1]", "matrix", "types.int32[::1]"]
    kinds += ["types.boolean[:, ::1]", "types.int32[:, ::1]"] + ["matrix"] * len(recorded)
    kinds += ["types.int32[:, :, ::1]"] + ["types.int64"] * 7 if program.inhibition else ["types.int64"] * 3
    jit_run = _JIT.format(signature=f"types.void({', '.join(kinds)})")

    load_scalars = [f"    p_{name} = scalars[{i}]" for i, name in enumerate(program.scalars)]
    each_step = [
        "for t in range(steps):",
        "    row = t * B + b",
        "    x_row = b if constant_input else row",
        "    spike_row = row if spikes.shape[0] > B else b",
    ]

    def copies(window: str) -> list[str]:
        result = []
        for name, array in (*((state, f"g_{state}") for state in program.states), ("refractory", "g_r")):
            result += [f"    if out_{name}.shape[0] > 0:", f"        out_{name}[row, {window}] = {array}[b, {window}]"]
        return result

    if program.inhibition:
        run = [
            jit_run,
            f"def run({', '.join(parameters)}, winners, k, scope, radius, H, W, first, last):",
            "    B, N = g_u.shape",
            "    size = H * W",
            "    F = N // size",
            "    keys = np.empty(N, whole)",
            "    map_keys = np.empty(F, whole)",
            "    won_map, won_row, won_column = np.empty(k, np.int64), np.empty(k, np.int64), np.empty(k, np.int64)",
            *load_scalars,
            "    for b in range(first, last):",
        ]
        inner = [
            *each_step,
            "    best = LOWEST_KEY",
            "    for f in range(F):",
            "        lo = f * size",
            "        hi = lo + size",
            f"        map_keys[f] = {call('lo:hi', '')}",
            "        best = max(best, map_keys[f])",
            "    n = 0",
            "    if best > LOWEST_KEY:",
            "        n = select(keys, map_keys, k, radius, H, W, won_map, won_row, won_column)",
            "        for q in range(n):",
            "            place = won_row[q] * W + won_column[q]",
            f"            period = periods[{'won_map[q] * size + place' if varying_period else '0'}]",
            "            hold(g_r[b], scope, F, H, W, won_map[q], place, period)",
            "    if winners.shape[0] > 0:",
            "        for q in range(k):",
            "            winners[row, q, 0] = won_map[q] if q < n else -1",
            "            winners[row, q, 1] = won_row[q] if q < n else -1",
            "            winners[row, q, 2] = won_column[q] if q < n else -1",
            *copies(":"),
        ]
        run += [f"        {line}" for line in inner]
    else:
        run = [
            jit_run,
            f"def run({', '.join(parameters)}, tile, first, last):",
            "    B, N = g_u.shape",
            "    tiles = (N + tile - 1) // tile",
            *load_scalars,
            "    for item in range(first, last):",
            "        b = item // tiles",
            "        lo = (item % tiles) * tile",
            "        hi = min(lo + tile, N)",
        ]
        run += [f"        {line}" for line in [*each_step, f"    {call('lo:hi', '')}", *copies("lo:hi")]]

    header = _HEADER.format(label=program.label, steps="all steps of a tile", **_FORMAT[program.dtype])
    parts = [header, "\n".join(constants), "\n", "\n".join(helpers), "\n", _SELECT if program.inhibition else ""]
    return "\n".join([*parts, *advance, "", "", *run, ""])


def _literal(value: str) -> str:
    return f'"{value}"' if value in ("inf", "-inf", "nan") else value


@cache
def _module(program: Program) -> ModuleType:
    import llvmlite
    import numba

    return load_module(f"{program.label}_cpu", source(program), f"numba {numba.__version__} llvmlite {llvmlite.__version__}")


class _Workers:
    """A pool of threads for kernels that release the interpreter's lock; made when first needed, and anew in a child."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._pool, self._lock = None, threading.Lock()

    def run(self, work: Callable[[int, int], None], items: int, threads: int) -> None:
        """Call ``work(first, last)`` until all items are done, on up to `threads` threads, this one among them."""
        threads = min(threads, items)
        if threads <= 1:
            work(0, items)
            return
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(max(32, os.cpu_count() or 1), "spyke_numba")
            pool = self._pool
        # a few pieces per thread, taken as threads come free, since the cores of a shared machine are not equal
        piece = max(1, items // (threads * 4))
        starts = iter(range(0, items, piece))
        taking = threading.Lock()

        def drain() -> None:
            while True:
                with taking:
                    first = next(starts, None)
                if first is None:
                    return
                work(first, min(first + piece, items))

        others = [pool.submit(drain) for _ in range(threads - 1)]
        drain()
        for other in others:
            other.result()


_WORKERS = _Workers()


class _CpuKernel:
    def __init__(self, program: Program):
        self.program = program
        self._run = _module(program).run

    def run(
        self,
        x: np.ndarray,
        states: list[np.ndarray],
        refractory: np.ndarray,
        scalars: np.ndarray,
        arrays: np.ndarray,
        periods: np.ndarray,
        outputs: dict[str, np.ndarray],
        constant_input: bool,
        steps: int,
        winners: tuple[int, int, int, int, int] | None,
        threads: int,
    ) -> None:
        B, N = refractory.shape
        nothing = np.empty((0, N), scalars.dtype)

        def rows(name: str, unwanted: np.ndarray) -> np.ndarray:
            return outputs[name].reshape(steps * B, N) if name in outputs else unwanted

        # spikes and u_pre are written in any case: one row per sample takes what nobody asked for
        arguments = [x.reshape(-1, N), constant_input, steps, *states, refractory, scalars, arrays, periods]
        arguments.append(rows("spikes", np.empty((B, N), np.bool_)))
        arguments.append(rows("refractory", np.empty((0, N), np.int32)))
        arguments += [rows(state, nothing) for state in self.program.states]
        if self.program.u_pre:
            arguments.append(rows("u_pre", np.empty((B, N), scalars.dtype)))
        run = self._run
        if winners is not None:
            k, scope, radius, H, W = winners
            won = outputs["winners"].reshape(steps * B, k, 3) if "winners" in outputs else np.empty((0, k, 3), np.int32)
            arguments += [won, k, scope, radius, H, W]
            items = B
        else:
            arguments.append(TILE)
            items = B * -(-N // TILE)
        if B * N * steps < PARALLEL_NEURON_STEPS:
            threads = 1
        _WORKERS.run(lambda first, last: run(*arguments, first, last), items, threads)


class CpuBackend:
    """Numba loops on the host's processors, numpy arrays; torch tensors on the CPU come and go without a copy."""

    name = "cpu"
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

    def take(self, x: Any, dtype: str) -> np.ndarray:
        """Return a numpy array or a tensor as a contiguous numpy array."""
        if hasattr(x, "detach"):
            import torch

            x = x.detach().to("cpu", getattr(torch, dtype)).numpy()
        return np.ascontiguousarray(x, dtype=dtype)

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> np.ndarray:
        """Return a new numpy array."""
        return np.empty(shape, dtype)

    def upload(self, host: np.ndarray, like: Any) -> np.ndarray:
        """Return a copy."""
        return np.array(host)

    def download(self, array: np.ndarray) -> np.ndarray:
        """Return the array itself."""
        return array

    def give(self, array: np.ndarray, like: Any) -> Any:
        """Return the array, as a tensor on the input's device if the input was one."""
        if hasattr(like, "detach"):
            import torch

            return torch.from_numpy(array).to(like.device)
        return array


BACKEND = CpuBackend()
