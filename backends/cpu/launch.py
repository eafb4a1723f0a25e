"""The CPU backend: one numba loop per program over tiles of neurons and all steps, run on a few threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from spyke_numba.backends import Launch, check_dense, contiguous, first_not_finite
from spyke_numba.backends.cpu.memory import BUFFERS, address, aligned
from spyke_numba.backends.cpu.source import (
    TOGETHER,
    ModuleSource,
    elementwise_source,
    events_source,
    ranks_source,
)
from spyke_numba.backends.cpu.team import LINE, TEAMS, Kernel
from spyke_numba.compile.cache import load_module
from spyke_numba.compile.program import Program
from spyke_numba.compile.step import operations_of
from spyke_numba.compile.writer import mangled

#: Neurons whose state stays in the second-level cache while the input streams past, in rows as long as possible.
LARGEST_TILE = 65_536
#: A tile of half so many neurons is worth a thread, but not two tiles per thread.
SMALLEST_TILE = 8192
#: Neurons of a tile for few steps, which the passes before and after them then find in the first-level cache.
TILE_OF_FEW_STEPS = 4096
#: Neurons of maps that are advanced together before their winners are looked for, in the first-level cache.
GROUP = 4096
#: Neurons of a map that is advanced alone instead. Its last few are no whole vector and go one by one, which takes
#: longer than a second look for the winner in each map of a group, and all the longer the more operations a step has.
SMALLEST_ALONE, SMALLEST_ALONE_IF_COSTLY = 176, 352
#: Operations from which a step is costly: the leaky integrators have fewer.
COSTLY = 15
#: Neurons that a thread takes at once from a sample that it shares with others.
PIECE = 16_384
#: Below this many neuron-steps a second thread costs more than it gives, if it is to be woken.
PARALLEL_NEURON_STEPS = 400_000
#: From this many neurons per sample threads share one sample's maps, and wait for each other at every step.
PARALLEL_NEURONS = 16_384
#: Bytes of input and output from which they are asked for ahead: less may well be in the second-level cache.
FETCHED = 2**20
#: Winners are few among maps if there is one for so many. What is asked for ahead for a map that wins is for nothing.
FEW_WINNERS = 8
#: Bytes of a thread's state above which nothing is asked for ahead: it would drive the state out of that cache.
LARGEST_STATE = 2**20


def _compiled(label: str, text: str) -> Callable[..., None]:
    # numba takes a while to import
    from spyke_numba.backends.cpu.parts import COMPILER

    return load_module(f"{label}_cpu", text, COMPILER).run


@cache
def elementwise(name: str, dtype: str) -> Callable[[int, int, int], None]:
    """Return an elementary function over memory: addresses of the arguments and the results, and how many."""
    return _compiled(f"{name}_{dtype}", elementwise_source(name, dtype))


@cache
def ranks(dtype: str) -> Callable[[int, int, int, int, int], None]:
    """Return what turns potentials into what SpykeTorch orders them by, see `ranks_source`."""
    return _compiled(f"ranks_{dtype}", ranks_source(dtype))


@cache
def _list_events() -> Callable[..., None]:
    return _compiled("events", events_source())


def events(spikes: Any, batch: int, first_step: int) -> Any:
    """Return spikes (T, B, N), of whatever shape, as rows (step, sample, neuron), (n, 3) int64, in this order."""
    if hasattr(spikes, "detach"):
        import torch

        if spikes.is_cpu:
            return torch.from_numpy(events(spikes.numpy(), batch, first_step))
        size = math.prod(spikes.shape[1:]) // batch
        flat = spikes.reshape(-1).nonzero()[:, 0]
        steps, rest = flat // (batch * size), flat % (batch * size)
        return torch.stack((steps + first_step, rest // size, rest % size), dim=1)
    rows = np.empty((np.count_nonzero(spikes), 3), np.int64)
    if len(rows):
        T, N = len(spikes), spikes[0].size // batch
        _list_events()(address(spikes), T, batch, N, first_step, address(rows), len(rows))
    return rows


def _keys_of_block() -> int:
    from spyke_numba.backends.cpu.parts import KEYS_OF_BLOCK

    return KEYS_OF_BLOCK


def _in_lines(count: int, size: int) -> int:
    # at least so many, of so many bytes or a multiple of them, that fill whole cache lines
    return -(-count * size // LINE) * LINE // size


def _tile(B: int, N: int, threads: int, steps: int) -> int:
    # large tiles of equal size; two per thread where they are long, since the cores of a shared machine are not equal
    wanted = -(-threads // B) if threads > 1 else 1
    largest = LARGEST_TILE if steps > TOGETHER else TILE_OF_FEW_STEPS
    shared = max(min(wanted, 2 * N // SMALLEST_TILE), min(2 * wanted, N // SMALLEST_TILE))
    tiles = max(-(-N // largest), shared, 1)
    # as many for each thread, so that they end together; of many, one more does not matter
    while B * tiles % threads and B * tiles < 8 * threads and (tiles + 1) * SMALLEST_TILE <= N:
        tiles += 1
    return -(-N // (tiles * 64)) * 64


class _CpuKernel:
    def __init__(self, program: Program):
        self.program = program
        source = ModuleSource(program)
        self._kernel = Kernel(_compiled(program.label, source.text()))
        self._table = tuple(source.table)
        self._written, self._places_of = source.bytes_written, source.places_of
        self._costly = program.inhibition is not None and operations_of(program) >= COSTLY
        self._x, self._keeps = self._table.index("x"), self._table.index("keeps")
        #: Whether the kernel has counters at all: without refractoriness there are none to put back.
        self._counts = program.inhibition is not None or not program.compact
        #: Of what is kept for a run that is refused, so many sets' counters are kept before the kernel runs.
        self._kept_here = 0 if program.inhibition is None else 1 + ("rest_from" in self._table)
        self._pending = self._table.index("pending") if "pending" in self._table else None

    def run(self, launch: Launch) -> None:
        prepared = launch.prepared
        if prepared is None:
            prepared = launch.prepared = self._prepare(launch)
        table, table_at, asked, threads, progress, ended, kept, _ = prepared
        x, outputs = launch.x, launch.outputs
        table[self._x] = x.data_ptr() if hasattr(x, "data_ptr") else address(x)
        for i, name in asked:
            table[i] = BUFFERS.address(outputs[name])
        progress[:] = 0
        if self._pending is not None:
            table[self._pending] = launch.unsettled
        keeps = table[self._keeps] = launch.finite == "undo"
        if keeps:
            # the kernel keeps the rest
            for array, copy in kept[len(kept) - self._kept_here :]:
                copy[...] = array
        if threads == 1:
            self._kernel.run(table_at, 0)
        else:
            TEAMS.run(self._kernel, table_at, threads, ended)
        # the kernel's own test also meets products of huge numbers
        launch.not_finite = None
        if launch.finite is not None and progress.item(1):
            launch.not_finite = first_not_finite(x.numpy(force=True) if hasattr(x, "data_ptr") else x)
            if launch.not_finite is not None:
                launch.undone = bool(keeps)
                for array, copy in kept if keeps else ():
                    array[...] = copy

    def _prepare(self, launch: Launch) -> tuple[Any, ...]:
        """Return the table and its address, the places of outputs in it, the threads, their progress and where they
        count as ended, and what must stay alive."""
        program = self.program
        (B, N), sets = launch.states[0].shape, launch.refractory.shape[1]
        if launch.winners is None and not program.arrays and launch.periods.size == 1:
            # where all neurons are alike, samples are one long row: that of a small layer would be short
            B, N, sets = 1, B * N, B * sets
        threads = launch.threads if launch.steps * B * N >= PARALLEL_NEURON_STEPS else 1
        values = {"B": B, "N": N, "steps": launch.steps, "g_r": launch.refractory, "scalars": launch.scalars}
        values.update(zip([mangled("g", state) for state in program.states], launch.states, strict=True))
        values.update(sets=sets, arrays=launch.arrays)
        values.update(periods=launch.periods, periods_given=launch.periods.size)
        values.update(x=0, steps_of_x=1 if launch.constant_input else launch.steps)
        for name in (*program.records, *program.states, "refractory", "winners"):
            out, steps_of = self._places_of(name)
            values.update({steps_of: launch.steps if name in launch.outputs else 0, out: 0})
        for name in set(program.records) - set(launch.outputs):
            # the rows write it in any case: memory for the steps that go together takes what nobody asked for
            steps = min(launch.steps, TOGETHER)
            kind = "bool" if name == "spikes" else program.dtype
            out, steps_of = self._places_of(name)
            values.update({steps_of: steps, out: np.empty((steps, B, N), kind)})
        owners = 0
        if launch.winners is None:
            tile = _tile(B, N, threads, launch.steps)
            threads = min(threads, B * -(-N // tile))
            marks = np.empty((threads, tile), np.uint8)
            byte_periods = np.minimum(launch.periods, 255).astype(np.uint8)
            after_each = {*program.states, "refractory"}.intersection(launch.outputs)
            values.update(tile=tile, slots=threads, together=int(not after_each))
            values.update(byte_periods=byte_periods, marks_of=marks)
        else:
            k, most, radius, H, W = launch.winners
            size = H * W
            F = N // size
            owners = threads if threads > B and N >= PARALLEL_NEURONS else 0
            threads = owners or min(threads, B)
            item = np.dtype(program.dtype).itemsize
            per_step = B * N * (0 if launch.constant_input else item)
            per_step += sum(B * N * size for name, size in self._written.items() if name in launch.outputs)
            share = N // max(owners, 1) * item * len(program.states)
            values.update(fetches=int(launch.steps * per_step >= FETCHED and share <= LARGEST_STATE))
            values.update(step_ahead=int(most * FEW_WINNERS <= F))
            pieces = min(F, owners * max(1, round(N / (owners * PIECE)))) if owners else 1
            # maps advanced together, and neurons at a time: small maps several at once, and large ones in parts
            smallest_alone = SMALLEST_ALONE_IF_COSTLY if self._costly else SMALLEST_ALONE
            group = GROUP // size if size < smallest_alone else 1
            values.update(k=k, most=most, radius=radius, H=H, W=W, owners=owners, pieces=pieces)
            values.update(group=group, row=min(group * size, GROUP))
            if "rest_from" in self._table:
                if "rest_from" not in launch.scratch:
                    launch.scratch["rest_from"] = np.ones(launch.refractory.shape, np.int32)
                values.update(rest_from=launch.scratch["rest_from"])
            values.update(pending=0, lowest_key=np.full(1, -np.inf, program.dtype))
            values.update(self._scratch(launch, B, N, F, threads))
        counts = B * (owners + 2) if owners else threads
        kept = self._kept(launch)
        values.update(keeps=0, kept_r=kept[len(program.states)][1] if self._counts else 0)
        values.update({mangled("kept", s): copy for s, (_, copy) in zip(program.states, kept, strict=False)})
        progress = aligned((2 + counts, LINE // 8), "int64")
        values.update(progress=progress, not_finite=progress[0, 1:2])
        entries = [values[name] for name in self._table]
        numbers = [address(entry) if isinstance(entry, np.ndarray) else entry for entry in entries]
        asked = [(self._table.index(self._places_of(name)[0]), name) for name in launch.outputs]
        table = np.array(numbers, np.int64)
        return table, address(table), asked, threads, progress, address(progress) + LINE, kept, entries

    def _kept(self, launch: Launch) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return what a run changes beside its outputs, each with memory for a copy: states, counters, rest."""
        changed = [*launch.states, *([launch.refractory] if self._counts else [])]
        changed += [launch.scratch["rest_from"]] if "rest_from" in self._table else []
        copies = launch.scratch.setdefault("kept", {})
        for array in changed:
            copies.setdefault(id(array), (array, np.empty_like(array)))
        return [copies[id(array)] for array in changed]

    def _own(self, launch: Launch, name: str) -> Any:
        """Return a constant: a number, or each neuron's own."""
        program = self.program
        if name in program.arrays:
            return launch.arrays[program.arrays.index(name)]
        return launch.scalars[program.scalars.index(name)]

    def _crossed(self, launch: Launch) -> np.ndarray:
        """Return which potentials crossed the threshold in the last step, and wait there for the next one."""
        return launch.states[0] >= self._own(launch, "threshold")

    def settle(self, launch: Launch) -> None:
        """Reset the potentials that wait for the next step."""
        np.copyto(launch.states[0], self._own(launch, "v_reset"), where=self._crossed(launch))

    def settled(self, launch: Launch) -> np.ndarray:
        """Return the potentials as they are after the reset."""
        return np.where(self._crossed(launch), self._own(launch, "v_reset"), launch.states[0])

    def thresholded(self, launch: Launch) -> np.ndarray:
        """Return the potentials that wait for their reset, and 0 elsewhere."""
        return np.where(self._crossed(launch), launch.states[0], launch.states[0].dtype.type(0))

    def _scratch(self, launch: Launch, B: int, N: int, F: int, slots: int) -> dict[str, Any]:
        assert launch.winners is not None
        most = launch.winners.most
        dtype = self.program.dtype
        # the counters of a group's neurons, where sets have them
        longest = max(N // F, GROUP) if self.program.compact else 0
        # what may still win in a map, where winners take others out of the competition
        longest_left = N // F if launch.winners.radius > 0 else 0
        key = ("kwta", most, slots, longest, longest_left)
        if key not in launch.scratch:
            # rows of whole lines: threads that write into one line would wait for each other
            most_winners, most_maps, longest = _in_lines(most, 4), _in_lines(F, 4), _in_lines(longest, 1)
            longest_left = _in_lines(longest_left, 4)
            map_keys, blocks = aligned((B, most_maps), dtype), -(-most_maps // _keys_of_block())
            # those of no map never win
            map_keys[...] = -np.inf
            launch.scratch[key] = {
                "most_winners": most_winners,
                "won": aligned((B, most_winners, 3), "int32"),
                "most_maps": most_maps,
                "map_keys": map_keys,
                "map_places": aligned((B, most_maps), "int32"),
                "slots": slots,
                "front_runners_of": aligned((slots, most_winners), dtype),
                "blocks": blocks,
                "best_of_blocks_of": aligned((slots, blocks), dtype),
                "longest": longest,
                "held_of": aligned((slots, longest), "uint8"),
                "longest_left": longest_left,
                "left_of": aligned((slots, longest_left), dtype),
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
    any_order = True
    emits = ("source", "llvm", "asm")

    def unavailable(self) -> str | None:
        """Return None: numba is always installed."""
        return None

    @cache  # noqa: B019 - the one instance lives as long as the process
    def kernel(self, program: Program) -> _CpuKernel:
        """Return the compiled program."""
        return _CpuKernel(program)

    def events(self, spikes: Any, batch: int, first_step: int) -> Any:
        """Return a list of spikes."""
        return events(spikes, batch, first_step)

    def emit(self, program: Program, kind: str, arch: str | None = None) -> str:
        """Return the module's text, or its LLVM or assembly for this processor."""
        text = ModuleSource(program).text()
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
            check_dense(x)
            x = x.detach().to("cpu", kind).numpy(force=True)
        return contiguous(x, dtype)

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
            return np.ndarray.view
        from_numpy = _torch().from_numpy
        return from_numpy if like.is_cpu else lambda array: from_numpy(array).to(like.device)


BACKEND = CpuBackend()
