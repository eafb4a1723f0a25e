"""The torch backend: the same statements on whole tensors, on whatever device they are."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spyke_numba.backends import Launch, check_dense, contiguous, first_not_finite
from spyke_numba.backends.cpu.launch import elementwise, events
from spyke_numba.backends.cpu.memory import BUFFERS
from spyke_numba.backends.torch.source import source
from spyke_numba.backends.torch.winners import Competition, on_cpu
from spyke_numba.compile.cache import load_module
from spyke_numba.compile.program import Program

if TYPE_CHECKING:
    from types import ModuleType

    import torch

#: Neurons per thread that are advanced together on a CPU, so that what the step computes on the way stays in the cache.
TILE = 32_768


def looped(name: str, dtype: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return an elementary function of tensors on the CPU as one compiled loop."""
    import torch

    loop = elementwise(name, dtype)

    def function(x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        loop(x.data_ptr(), y.data_ptr(), x.numel())
        return y

    return function


@cache
def operator(name: str, dtype: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return such a function as an operator that torch's compiler calls and does not look into."""
    import torch

    qualified = f"spyke_numba::{name}_{dtype}"
    torch.library.define(qualified, "(Tensor x) -> Tensor")
    torch.library.impl(qualified, "cpu", looped(name, dtype))
    torch.library.register_fake(qualified, lambda x: torch.empty_like(x.contiguous()))
    return getattr(torch.ops.spyke_numba, f"{name}_{dtype}").default


@cache
def _module(program: Program) -> ModuleType:
    return load_module(f"{program.label}_torch", source(program), "torch")


class _Tile(NamedTuple):
    """Neurons that are advanced together, and what their step takes."""

    #: Samples and neurons; None for all.
    place: tuple[slice, slice] | None
    #: States and refractory counters, which the step updates.
    kept: list[torch.Tensor]
    constants: list[torch.Tensor]
    score: torch.Tensor | None

    def of(self, array: torch.Tensor) -> torch.Tensor:
        """Return what this tile has of one step's (B, N) array."""
        return array if self.place is None else array[self.place]


class _TorchKernel:
    def __init__(self, program: Program, compiled: bool):
        self.program, self.compiled = program, compiled
        self._steps: dict[Any, Any] = {}

    def run(self, launch: Launch) -> None:
        import torch

        # torch would compile once more for each mode of its gradients
        with _out_of_inference(), torch.no_grad() if self.compiled else nullcontext():
            self._run(launch)

    def _run(self, launch: Launch) -> None:
        launch.not_finite = None
        if launch.finite is not None:
            self._check(launch)
            if launch.undone:
                return
        if launch.prepared is None:
            launch.prepared = self._prepare(launch)
        steps, tiles, competition = launch.prepared
        program, T, (B, N) = self.program, launch.steps, launch.refractory.shape
        inputs = _by_step(launch.x, 1 if launch.constant_input else T, B, N)
        outputs = {
            name: _by_step(output, T, B, -1, 3) if name == "winners" else _by_step(output, T, B, N)
            for name, output in launch.outputs.items()
        }
        records = [outputs.get(name) for name in program.records]
        states = [(i, outputs[name]) for i, name in enumerate(program.states) if name in outputs]
        winners, counters = outputs.get("winners"), outputs.get("refractory")
        for t in range(T):
            x = inputs[0 if launch.constant_input else t]
            some_free = False
            for tile in tiles:
                step, all_held = steps[0], False
                if len(steps) > 1 and on_cpu(tile.kept[-1]):
                    least, most = tile.kept[-1].aminmax()
                    all_held = bool(least)
                    step = steps[1] if not most else steps[2] if all_held else step
                own = [None if record is None else tile.of(record[t]) for record in records]
                step(tile.of(x), tile.score, *tile.kept, *tile.constants, *own)
                for i, output in states:
                    tile.of(output[t]).copy_(tile.kept[i])
                some_free = some_free or not all_held
            if competition is not None:
                won = None if winners is None else winners[t]
                if won is not None:
                    won.fill_(-1)
                if some_free:
                    competition.decide(won)
            if counters is not None:
                counters[t].copy_(launch.refractory)

    def _check(self, launch: Launch) -> None:
        """Look for an input that is not finite, before any step; on a device, without waiting for it."""
        import torch

        x = launch.x
        if on_cpu(x):
            # a sum that is finite tells in a third of the time that all its terms are
            if not math.isfinite(x.sum()):
                launch.not_finite = first_not_finite(x.numpy())
                launch.undone = launch.not_finite is not None
            return
        found = launch.scratch.setdefault("not_finite", torch.zeros((), dtype=torch.bool, device=x.device))
        found.logical_or_(~torch.isfinite(x).all())
        launch.not_finite = found.item

    def settle(self, launch: Launch) -> None:
        """Do nothing: a spike's reset is part of its step."""

    def settled(self, launch: Launch) -> np.ndarray:
        """Return the potentials as they are."""
        return launch.states[0].cpu().numpy()

    def thresholded(self, launch: Launch) -> np.ndarray:
        """Return what competed in the last step, and 0 elsewhere."""
        score = launch.prepared[2].score
        return score.masked_fill(score == -np.inf, 0.0).cpu().numpy()

    def _prepare(self, launch: Launch) -> tuple[Any, list[_Tile], Competition | None]:
        """Return the steps of a tile, the tiles, and the competition of a program with inhibition."""
        import torch

        program, r = self.program, launch.refractory
        if r.device not in self._steps:
            by_bits = on_cpu(r) and not self.compiled
            steps = _module(program).bind(r.device, by_bits, self.compiled)
            if self.compiled:
                # one compilation is dearer than what knowing that nothing is held saves
                steps = (torch.compile(steps[0], dynamic=True, fullgraph=True),)
            self._steps[r.device] = steps
        values = dict(zip(program.scalars, launch.scalars, strict=True))
        values.update(zip(program.arrays, launch.arrays, strict=True))
        constants = [values[name] for name in program.constants]
        competition = None
        if launch.winners is None:
            constants.append(launch.periods if len(launch.periods) > 1 else launch.periods[0])
        else:
            score = torch.empty_like(launch.states[0])
            amplitude = None if program.exact_order else values["spike_amplitude"]
            competition = Competition(score, r, launch.periods, program.inhibition, launch.winners, amplitude)
        B, N = r.shape
        most = TILE * torch.get_num_threads() if on_cpu(r) and not self.compiled else B * N
        rows, columns = min(B, max(1, most // N)), min(N, most)
        tiles = []
        for b in range(0, B, rows):
            for j in range(0, N, columns):
                place = slice(b, b + rows), slice(j, j + columns)
                own = [value[place[1]] if value.ndim else value for value in constants]
                kept = [array[place] for array in (*launch.states, r)]
                own_score = None if competition is None else competition.score[place]
                tiles.append(_Tile(None if (rows, columns) == (B, N) else place, kept, own, own_score))
        return self._steps[r.device], tiles, competition


def _out_of_inference() -> AbstractContextManager[Any]:
    """Return a context for making tensors that can be changed in any mode, which those of inference mode cannot."""
    import torch

    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


def _by_step(array: torch.Tensor, steps: int, *shape: int) -> Sequence[torch.Tensor]:
    """Return an array's parts of each step, of this shape."""
    import torch

    if steps == 1 and array.storage_offset() == 0:
        return [array.view(shape)]
    shape = (steps, *shape)
    if not on_cpu(array):
        return array.view(shape).unbind()
    # quicker, and without an offset in the memory, for which torch would compile once more
    return [torch.from_numpy(part) for part in array.numpy().reshape(shape)]


class TorchBackend:
    """Whole tensors, one operation after the other, on the device of the input; numpy input runs on the CPU.

    Parameters
    ----------
    compiled : bool
        Whether `torch.compile` makes one loop of a step's operations, on the CPU only: the backend torch_compiled.
    """

    compact = False
    lazy = True
    any_order = True
    emits = ("source",)

    def __init__(self, compiled: bool = False):
        self.name = "torch_compiled" if compiled else "torch"
        self.compiled = compiled

    def unavailable(self) -> str | None:
        """Return None when torch can be imported, and can compile where it has to."""
        try:
            import torch  # noqa: F401
        except ImportError:
            return "torch is not installed: pip install 'spyke_numba[torch]'"
        if self.compiled and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "cl"))):
            return "torch.compile needs a C++ compiler: install g++, or use the backend 'cpu' or 'torch'"
        return None

    @cache  # noqa: B019 - the one instance lives as long as the process
    def kernel(self, program: Program) -> _TorchKernel:
        """Return the program's step, bound to a device when it first runs there."""
        return _TorchKernel(program, self.compiled)

    def events(self, spikes: Any, batch: int, first_step: int) -> Any:
        """Return a list of spikes."""
        return events(spikes, batch, first_step)

    def emit(self, program: Program, kind: str, arch: str | None = None) -> str:
        """Return the module's text."""
        return source(program)

    def place(self, x: Any) -> Any:
        """Return the input's device."""
        return x.device if hasattr(x, "detach") and not x.is_cpu else "cpu"

    def take(self, x: Any, dtype: str) -> torch.Tensor:
        """Return an array or a tensor as a contiguous tensor."""
        import torch

        if not hasattr(x, "detach"):
            x = contiguous(x, dtype)
            x = torch.from_numpy(x if x.flags.writeable else x.copy())
        if self.compiled and not x.is_cpu:
            # Triton would fuse products into sums, and the spikes would be others
            raise ValueError(
                f"the input is on {x.device}, but the backend 'torch_compiled' works on the CPU: "
                "use 'cuda' or 'torch' there"
            )
        check_dense(x)
        if x.requires_grad:
            x = x.detach()
        return x.to(getattr(torch, dtype)).contiguous()

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> torch.Tensor:
        """Return a new tensor on the input's device."""
        import torch

        with _out_of_inference():
            if not hasattr(like, "detach") or like.is_cpu:
                return torch.from_numpy(BUFFERS.empty(shape, dtype))
            return torch.empty(shape, dtype=getattr(torch, dtype), device=_device(like))

    def adopt(self, array: Any, like: Any) -> torch.Tensor:
        """Return a tensor on the input's device as it is, and a numpy array as a tensor."""
        import torch

        if not hasattr(array, "detach"):
            if not array.flags.writeable:
                raise ValueError("out holds a read-only array: give one that can be written")
            array = torch.from_numpy(array)
        if array.is_inference():
            if not array.is_cpu:
                raise ValueError("out holds a tensor that was made in inference mode: make it outside of it")
            with _out_of_inference():
                array = torch.from_numpy(array.numpy())
        if array.device != torch.device(_device(like)) or array.requires_grad:
            raise ValueError(
                f"out holds memory on {array.device}: give it on {_device(like)}, without a gradient"
            )
        return array

    def upload(self, host: np.ndarray, like: Any) -> torch.Tensor:
        """Return a copy on the input's device, which can be changed in any mode of torch's."""
        import torch

        with _out_of_inference():
            return torch.tensor(np.ascontiguousarray(host), device=_device(like))

    def fill(self, array: torch.Tensor, host: np.ndarray) -> None:
        """Overwrite it."""
        import torch

        array.copy_(torch.tensor(host))

    def download(self, array: torch.Tensor) -> np.ndarray:
        """Return it as a numpy array."""
        return array.cpu().numpy()

    def giver(self, like: Any) -> Callable[[torch.Tensor], Any]:
        """Return what leaves a tensor as it is, or makes it a numpy array for numpy input."""
        return (lambda array: array) if hasattr(like, "detach") else (lambda array: array.numpy())


def _device(like: Any) -> Any:
    return like.device if hasattr(like, "detach") else "cpu"


BACKEND = TorchBackend()
