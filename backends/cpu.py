"""The CPU backend: one numba loop per program over tiles of neurons and all steps, run on a few threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np

from spyke_numba.backends import Launch
from spyke_numba.buffers import BUFFERS
from spyke_numba.engine import FLOAT_FORMATS, REFRACTORY, Counters, Program, Writer, helper_lines, step_lines
from spyke_numba.generated import load_module

#: Neurons whose state stays in the cache while the input streams past; anything from 2048 to 65536 is as fast.
TILE = 4096
#: Below this many neuron-steps a second thread costs more than it gives.
PARALLEL_NEURON_STEPS = 400_000
#: From this many neurons per sample threads share one sample's maps, handed over at every step.
PARALLEL_NEURONS = 150_000

_HEADER = '''\
"""Generated for {label}. Do not edit."""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

real, whole = np.{real}, np.{whole}
real_type = types.{real}
whole_type = types.{whole}
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


@intrinsic
def use_widest_vectors(context):
    """Let the function in which it stands use 512-bit vectors, which LLVM avoids of itself."""

    def generate(context, builder, signature, arguments):
        # llvmlite knows only attributes without a value by name; LLVM takes this one as it is written
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), generate


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


# a loop from 0 over rows vectorises; one from lo to hi over matrices does not
@njit
def copy(row, out):
    for j in range(row.size):
        out[j] = row[j]


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
def scaled(y, n):
    k = _as_whole(n)
    half = whole(k >> whole(1))
    bias, bits = whole({bias}), whole({mantissa_bits})
    return (y * _of_bits(whole((half + bias) << bits))) * _of_bits(whole((whole(k - half) + bias) << bits))


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

_IR_REAL = {"float32": "FloatType", "float64": "DoubleType"}

_JIT = '@njit({signature}, cache=True, nogil=True, error_model="numpy")'
# the rows never overlap, and saying so saves the run-time checks that keep LLVM from vectorising many arrays at once
_JIT_ROW = '@njit(error_model="numpy")'

_SELECT = """\
@njit(error_model="numpy")
def first_place(keys, key):
    # a minimum over all vectorises, a search that stops at the first does not
    place = np.int32(keys.size)
    for j in range(keys.size):
        found = np.int32(j) if keys[j] == key else np.int32(keys.size)
        place = found if found < place else place
    return place


@njit(forceinline=True)
def apart(a, b, radius):
    return a - b > radius or b - a > radius


@njit(error_model="numpy")
def largest_allowed(keys, W, radius, won, n):
    # the largest key of a map and its lowest place, outside the squares around the n winners
    best = LOWEST_KEY
    place = -1
    for j in range(keys.size):
        if keys[j] > best:
            free = True
            for q in range(n):
                if not (apart(j // W, won[q, 1], radius) or apart(j % W, won[q, 2], radius)):
                    free = False
            if free:
                best = keys[j]
                place = j
    return best, place


@njit(error_model="numpy")
def select(keys, map_keys, map_places, k, radius, W, size, won):
    # a map's key is an upper bound, made exact only for a map that reaches the front
    n = 0
    while n < k:
        best = LOWEST_KEY
        front = -1
        for f in range(map_keys.size):
            if map_keys[f] > best:
                best = map_keys[f]
                front = f
        if front < 0:
            break
        if radius > 0 and n > 0:
            key, place = largest_allowed(keys[front * size:front * size + size], W, radius, won, n)
            if key != best:
                map_keys[front] = key
                continue
        else:
            place = map_places[front]
        map_keys[front] = LOWEST_KEY
        won[n, 0] = front
        won[n, 1] = place // W
        won[n, 2] = place % W
        n += 1
    return n


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


class _Source:
    # Writes a program's module: rows of neurons first, then the loop over samples, steps and tiles or maps.

    def __init__(self, program: Program):
        self.program = program
        self.writer = Writer()
        self.scalars = [f"p_{name}" for name in program.scalars]
        self.varying_period = REFRACTORY in program.varying
        self.recorded = [*program.states, *(["u_pre"] if program.u_pre else [])]
        if program.inhibition is None or not program.compact:
            self.counters: Counters = "own"
        else:
            self.counters = "shared" if program.inhibition == "location" else "free"

    def row(self, name: str, counters: Counters) -> list[str]:
        # a function that advances the neurons of one row by one step
        program = self.program
        spikes, competes = counters != "held", counters != "held" and program.inhibition is not None
        arguments = ["x", *(f"row_{state}" for state in program.states)]
        arguments += ["row_r"] if counters in ("own", "shared") else []
        arguments += ["row_spikes"]
        arguments += ["row_u_pre"] if program.u_pre else []
        arguments += ["row_keys"] if competes else []
        arguments += [f"row_p_{constant}" for constant in program.arrays] + self.scalars
        if program.inhibition is None:
            arguments.append("row_period" if self.varying_period else f"p_{REFRACTORY}")
        body = ["i_in = x[j]", *(f"s_{state} = row_{state}[j]" for state in program.states)]
        body += ["r = row_r[j]"] if counters in ("own", "shared") else []
        body += [f"p_{constant} = row_p_{constant}[j]" for constant in program.arrays]
        if program.inhibition is None and self.varying_period:
            body.append(f"p_{REFRACTORY} = row_period[j]")
        body += step_lines(program, self.writer, counters)
        body += [f"row_{state}[j] = s_{state}" for state in program.states]
        body += ["row_r[j] = r"] if counters == "own" else []
        body.append("row_spikes[j] = spiked" if spikes else "row_spikes[j] = False")
        body += ["row_u_pre[j] = new_u"] if program.u_pre else []
        if competes:
            body += ["key = order_key(new_u) if spiked else LOWEST_KEY", "row_keys[j] = key"]
            body.append("best = key if key > best else best")
        lines = [_JIT_ROW, f"def {name}({', '.join(arguments)}):"]
        lines += ["    use_widest_vectors()", *(["    best = LOWEST_KEY"] if competes else [])]
        lines += ["    for j in range(x.size):", *(f"        {line}" for line in body)]
        return [*lines, *(["    return best"] if competes else []), "", ""]

    def call(self, name: str, counters: Counters) -> str:
        # a call of such a function for the neurons lo to hi
        program = self.program
        arguments = ["x[x_row, lo:hi]", *(f"g_{state}[b, lo:hi]" for state in program.states)]
        arguments += {"own": ["g_r[b, lo:hi]"], "shared": ["g_r[b]"]}.get(counters, [])
        arguments.append("spikes[row if spikes.shape[0] > B else b, lo:hi]")
        arguments += ["out_u_pre[row if out_u_pre.shape[0] > B else b, lo:hi]"] if program.u_pre else []
        if counters != "held" and program.inhibition is not None:
            arguments.append("row_keys")
        arguments += [f"arrays[{i}, lo:hi]" for i in range(len(program.arrays))] + self.scalars
        if program.inhibition is None:
            arguments.append("periods[lo:hi]" if self.varying_period else "periods[0]")
        return f"{name}({', '.join(arguments)})"

    def copies(self) -> list[str]:
        # record the states of the neurons lo to hi
        lines = []
        for state in self.program.states:
            lines += [
                f"if out_{state}.shape[0] > 0:",
                f"    copy(g_{state}[b, lo:hi], out_{state}[row, lo:hi])",
            ]
        return lines

    def head(self, more: list[str]) -> list[str]:
        # An explicit signature: a read-only input (a memory map) must not compile the kernel again.
        states = self.program.states
        types = {"x": "types.Array(real_type, 2, 'C', readonly=True)", "constant_input": "types.boolean"}
        types.update({f"g_{state}": "matrix" for state in states})
        types.update({"g_r": "types.int32[:, ::1]", "scalars": "real_type[::1]", "arrays": "matrix"})
        types.update({"periods": "types.int32[::1]", "spikes": "types.boolean[:, ::1]"})
        types.update(
            {"out_refractory": "types.int32[:, ::1]", **{f"out_{name}": "matrix" for name in self.recorded}}
        )
        if self.program.inhibition is not None:
            types.update({"winners": "types.int32[:, :, ::1]", "won": "types.int32[:, :, ::1]"})
            types.update({"keys": "whole_type[:, ::1]", "map_keys": "whole_type[:, ::1]"})
            types["map_places"] = "types.int64[:, ::1]"
        types.update(dict.fromkeys(more, "types.int64"))
        signature = f"types.void({', '.join(types.values())})"
        load = [f"    p_{name} = scalars[{i}]" for i, name in enumerate(self.program.scalars)]
        return [
            _JIT.format(signature=signature),
            f"def run({', '.join(types)}):",
            "    use_widest_vectors()",
            "    B, N = g_u.shape",
            *load,
        ]

    def free(self) -> list[str]:
        # every neuron for itself: tiles of neurons stay in the cache while all steps stream past
        loop = [
            "tiles = (N + tile - 1) // tile",
            "for item in range(first, last):",
            "    b = item // tiles",
            "    lo = (item % tiles) * tile",
            "    hi = min(lo + tile, N)",
            "    for t in range(steps):",
            "        row = t * B + b",
            "        x_row = b if constant_input else row",
            f"        {self.call('advance', 'own')}",
            *(f"        {line}" for line in self.copies()),
            "        if out_refractory.shape[0] > 0:",
            "            copy(g_r[b, lo:hi], out_refractory[row, lo:hi])",
        ]
        head = self.head(["steps", "tile", "first", "last"])
        return [*self.row("advance", "own"), *head, *(f"    {line}" for line in loop), ""]

    def competing(self) -> list[str]:
        # maps one after the other, then the winners; each may be asked for alone, so that threads can share the maps
        program, counters = self.program, self.counters
        scope, compact = program.inhibition, program.compact
        assert scope is not None
        functions = self.row("advance", counters)
        update = [f"best = {self.call('advance', counters)}"]
        if counters == "free":
            functions += self.row("rest", "held")
            counter = "g_r[b, f]" if scope == "feature" else "g_r[b, 0]"
            update = [
                f"if {counter} > NO_STEPS:",
                f"    {self.call('rest', 'held')}",
                *(["    g_r[b, f] -= ONE_STEP"] if scope == "feature" else []),
                "    best = LOWEST_KEY",
                "else:",
                *(f"    {line}" for line in update),
            ]
        count_down = {"location": "for j in range(size):", "global": "for j in range(1):"}
        if compact and scope in count_down:
            counting = [count_down[scope], "    if g_r[b, j] > NO_STEPS:", "        g_r[b, j] -= ONE_STEP"]
        else:
            counting = []
        recorded = {
            ("feature", True): "g_r[b, j // size]",
            ("location", True): "g_r[b, j % size]",
            ("global", True): "g_r[b, 0]",
        }.get((scope, compact), "g_r[b, j]")
        loop = [
            "size = H * W",
            "F = N // size",
            "scratch = np.empty(size if keys.shape[1] == 0 else 0, whole)",
            "for b in range(first, last):",
            "    for t in range(first_step, last_step):",
            "        row = t * B + b",
            "        x_row = b if constant_input else row",
            "        for f in range(first_map, last_map):",
            "            lo = f * size",
            "            hi = lo + size",
            "            row_keys = scratch if keys.shape[1] == 0 else keys[b, lo:hi]",
            *(f"            {line}" for line in update),
            "            map_keys[b, f] = best",
            "            if best > LOWEST_KEY:",
            "                map_places[b, f] = first_place(row_keys, best)",
            *(f"            {line}" for line in self.copies()),
            "        if not compete:",
            "            continue",
            *(f"        {line}" for line in counting),
            "        n = select(keys[b], map_keys[b], map_places[b], k, radius, W, size, won[b])",
            "        for q in range(n):",
            "            front = won[b, q, 0]",
            "            place = won[b, q, 1] * W + won[b, q, 2]",
            f"            period = periods[{'front * size + place' if self.varying_period else '0'}]",
            f"            start, stop, stride = {_INHIBITED[scope, compact]}",
            "            for j in range(start, stop, stride):",
            "                g_r[b, j] = max(g_r[b, j], period)",
            "        if winners.shape[0] > 0:",
            "            for q in range(k):",
            "                for i in range(3):",
            "                    winners[row, q, i] = won[b, q, i] if q < n else -1",
            "        if out_refractory.shape[0] > 0:",
            "            for j in range(N):",
            f"                out_refractory[row, j] = {recorded}",
        ]
        more = [
            "k",
            "radius",
            "H",
            "W",
            "compete",
            "first_step",
            "last_step",
            "first_map",
            "last_map",
            "first",
            "last",
        ]
        return [_SELECT, *functions, *self.head(more), *(f"    {line}" for line in loop), ""]

    def text(self) -> str:
        body = self.free() if self.program.inhibition is None else self.competing()
        lines = [line for line in body if not line.startswith("@")]
        helpers = helper_lines(lines, self.program.dtype, self.writer, "@njit(forceinline=True)")
        constants = [f"{name} = real({_literal(value)})" for value, name in self.writer.constants.items()]
        header = _HEADER.format(
            label=self.program.label,
            ir_real=_IR_REAL[self.program.dtype],
            **FLOAT_FORMATS[self.program.dtype],
        )
        return "\n".join([header, *constants, "", "", *helpers, "", *body])


def source(program: Program) -> str:
    """Return the text of a program's module; its function ``run`` advances samples, or tiles of them, by all steps."""
    return _Source(program).text()


def _literal(value: str) -> str:
    return f'"{value}"' if value in ("inf", "-inf", "nan") else value


@cache
def _module(program: Program) -> ModuleType:
    import llvmlite
    import numba

    return load_module(
        f"{program.label}_cpu", source(program), f"numba {numba.__version__} llvmlite {llvmlite.__version__}"
    )


class _Workers:
    """A pool of threads for kernels that release the interpreter's lock, made when first needed."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._pool, self._lock = None, threading.Lock()

    def run(self, work: Callable[..., None], items: int, threads: int, more: tuple[int, ...] = ()) -> None:
        """Call ``work(first, last, *more)`` until all items are done, on up to `threads` threads with this one."""
        threads = min(threads, items)
        if threads <= 1:
            work(0, items, *more)
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
                work(first, min(first + piece, items), *more)

        others = [pool.submit(drain) for _ in range(threads - 1)]
        drain()
        for other in others:
            other.result()


_WORKERS = _Workers()


class _CpuKernel:
    def __init__(self, program: Program):
        self.program = program
        self._run = _module(program).run

    def run(self, launch: Launch) -> None:
        B, N = launch.states[0].shape
        real, rows = self.program.dtype, launch.steps * B

        def output(name: str, dtype: str, least: int) -> np.ndarray:
            array = launch.outputs.get(name)
            return np.empty((least, N), dtype) if array is None else array.reshape(rows, N)

        # spikes and u_pre are written in any case: one row per sample takes what nobody asked for
        arguments = [launch.x.reshape(-1, N), launch.constant_input, *launch.states, launch.refractory]
        arguments += [launch.scalars, launch.arrays, launch.periods]
        arguments += [output("spikes", "bool", B), output("refractory", "int32", 0)]
        arguments += [output(state, real, 0) for state in self.program.states]
        if self.program.u_pre:
            arguments.append(output("u_pre", real, B))
        threads = launch.threads if rows * N >= PARALLEL_NEURON_STEPS else 1
        if launch.winners is None:
            arguments += [launch.steps, TILE]
            _WORKERS.run(partial(self._run, *arguments), B * -(-N // TILE), threads)
        else:
            self._compete(arguments, launch, threads)

    def _compete(self, arguments: list[Any], launch: Launch, threads: int) -> None:
        assert launch.winners is not None
        k, radius, H, W = launch.winners
        steps = launch.steps
        B, N = launch.states[0].shape
        F = N // (H * W)
        whole = np.int32 if self.program.dtype == "float32" else np.int64
        winners = launch.outputs.get("winners")
        arguments.append(
            np.empty((0, k, 3), np.int32) if winners is None else winners.reshape(steps * B, k, 3)
        )
        # with a radius a map may be searched again, so all keys are kept; else a map's own are enough
        arguments += [np.empty((B, k, 3), np.int32), np.empty((B, N if radius > 0 else 0), whole)]
        arguments += [np.empty((B, F), whole), np.empty((B, F), np.int64), k, radius, H, W]
        run = self._run
        if threads <= B or N < PARALLEL_NEURONS:
            _WORKERS.run(lambda first, last: run(*arguments, 1, 0, steps, 0, F, first, last), B, threads)
            return
        for b in range(B):
            for t in range(steps):
                _WORKERS.run(partial(run, *arguments, 0, t, t + 1), F, threads, (b, b + 1))
                run(*arguments, 1, t, t + 1, 0, 0, b, b + 1)


class CpuBackend:
    """Numba loops on the host's processors, numpy arrays; torch tensors on the CPU come and go without a copy."""

    name = "cpu"
    compact = True
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
        """Return a numpy array that nobody else holds."""
        return BUFFERS.empty(shape, dtype)

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

            tensor = torch.from_numpy(array)
            return tensor if like.device.type == "cpu" else tensor.to(like.device)
        return array


BACKEND = CpuBackend()
