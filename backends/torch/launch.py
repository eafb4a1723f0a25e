"""The torch backend: the same statements on whole tensors, on whatever device they are."""

from __future__ import annotations

import ast
import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spyke_numba.backends import Launch, Winners, check_dense, contiguous, first_not_finite
from spyke_numba.backends.cpu.launch import elementwise, events, ranks
from spyke_numba.backends.cpu.memory import BUFFERS, address
from spyke_numba.compile.cache import load_module
from spyke_numba.compile.formats import FLOAT_FORMATS
from spyke_numba.compile.program import RECORDS, REFRACTORY, Program
from spyke_numba.compile.step import Counters, helper_lines, step_lines
from spyke_numba.compile.writer import Writer, mangled

if TYPE_CHECKING:
    from types import ModuleType

    import torch

#: Neurons per thread that are advanced together on a CPU, so that what the step computes on the way stays in the cache.
TILE = 32_768
#: Up to so many feature maps are sorted by their largest potential; of more, up to so many winners are found in turn.
MOST_SORTED, MOST_IN_TURN = 2048, 20

_RECORD_OF = {RECORDS[name]: name for name in ("pulses", "thresholded")}
_COMPARISONS = {ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne"}

# Constants are tensors of one element on the device: torch multiplies by the reciprocal of a Python number that divides
# a tensor on a GPU, which rounds twice.
_HEADER = '''\
"""Generated for {label}: one step of a whole layer. Do not edit."""

import numpy
import torch
from torch import abs

{fma}from spyke_numba.backends.torch.launch import looped, operator


def rint(x):
    return torch.round(x)


def half_pow2(n):
    return ((n.to(torch.{whole}) + ({bias} - 1)) << {mantissa_bits}).view(torch.{real})


def exponent(x):
    return ((x.view(torch.{whole}) >> {mantissa_bits}) - {bias}).to(torch.{real})


def mantissa(x):
    return ((x.view(torch.{whole}) & {mantissa_mask}) | {one_bits}).view(torch.{real})


def bind(device, by_bits, compiled):
    """Return the steps with their constants on a device, made of what is quick on a CPU, or once compiled."""

    def sqrt(x):
        # on the CPU torch's own is one bit off in about 1 % of cases
        if not by_bits:
            return torch.sqrt(x)
        with numpy.errstate(invalid="ignore"):
            return torch.as_tensor(numpy.sqrt(x.numpy()))

    def real(value):
        return torch.tensor(float(value), dtype=torch.{real}, device=device)

    # on a CPU torch takes longer to make a tensor of a number than for a small layer's arithmetic
    NO_STEPS, ONE_STEP = (torch.tensor(n, dtype=torch.int32) if by_bits else n for n in (0, 1))

    def quick(name, by_operations):
        # one compiled loop with the same bits, for twenty operations on whole tensors
        if compiled:
            return operator(name, "{real}")
        return looped(name, "{real}") if by_bits else by_operations

    # By bits, a mask is a tensor of whole numbers, all bits or none: torch compares into numbers and works on their
    # bits with vectors, but it compares into booleans and chooses by them one at a time.
    def compare(holds, a, b):
        if not by_bits:
            return holds(a, b)
        return holds(a, b, out=torch.empty(0, dtype=torch.{whole})).neg_()

    def select(mask, a, b, out=None):
        if not by_bits:
            return torch.where(mask, a, b, out=out)
        other = b.view(torch.{whole})
        changed = (a.view(torch.{whole}) ^ other) & mask
        if out is None:
            return changed.bitwise_xor_(other).view(torch.{real})
        torch.bitwise_xor(changed, other, out=out.view(torch.{whole}))
        return out

    def where(condition, a, b):
        if by_bits and condition.ndim == 0:
            return (a if condition else b).clone()
        return select(condition, a, b)

    def select_count(mask, count, counts):
        if not by_bits:
            return torch.where(mask, count, counts, out=counts)
        return counts.bitwise_xor_((count ^ counts) & mask.to(counts.dtype))

    # a record that is not asked for is None
    def record(out, value):
        if out is None:
            return
        if compiled and value.dtype == torch.bool:
            # torch's compiler writes booleans one at a time
            out, value = out.view(torch.uint8), torch.where(value, 1, 0).to(torch.uint8)
        out.copy_(value)

    def record_where(out, mask, value):
        if out is None:
            return
        if not by_bits:
            torch.where(mask, value, torch.zeros((), dtype=value.dtype, device=device), out=out)
        else:
            torch.bitwise_and(value.view(torch.{whole}), mask, out=out.view(torch.{whole}))

'''


def source(program: Program) -> str:
    """Return the text of a program's module; its ``bind`` returns the steps of a whole layer."""
    writer = Writer()
    kinds: tuple[Counters, ...] = ("own",) if program.inhibition is None else ("own", "free", "held")
    steps = {kind: _step(program, writer, kind) for kind in kinds}
    helpers = helper_lines(steps["own"], program.dtype, writer, None)
    # a bound that is not 0 has one representation: which of two equal numbers is returned does not matter
    bounds = {name for value, name in writer.constants.items() if float(value) != 0.0}
    bounded = "\n".join(_bounded(line, bounds) for line in helpers)
    body = [
        "nothing = real('-inf')",
        *(f"{name} = real('{value}')" for value, name in writer.constants.items()),
        "",
        *ast.unparse(_Comparisons().visit(ast.parse(bounded))).splitlines(),
        *(
            f"{name} = quick({name!r}, {name})"
            for name in ("exp", "exp2", "log", "tanh")
            if f"def {name}(" in bounded
        ),
        "",
    ]
    for lines in steps.values():
        body += [*lines, ""]
    body.append(f"return {', '.join(kinds)},")
    fma = "from spyke_numba.backends.torch.fma import fma\n" if program.dtype == "float32" else ""
    header = _HEADER.format(label=program.label, fma=fma, **FLOAT_FORMATS[program.dtype])
    return header + "\n".join(f"    {line}" if line else "" for line in body) + "\n"


def _step(program: Program, writer: Writer, kind: Counters) -> list[str]:
    """Return the function that advances neurons of which some, none ("free") or all ("held") are held.

    It changes states and counters where they are, and writes the potentials that compete and the records.
    """
    zero = writer.constant(0.0)
    lines = [_for_tensors(line) for line in step_lines(program, writer, kind)]
    place = next(i for i, line in enumerate(lines) if line.startswith("new_u = "))
    if kind != "held" and not _has_every_neuron(lines[: place + 1], program):
        lines.insert(place + 1, "new_u = new_u.expand_as(s__u)")
    arguments = ["i_in", "score", *(mangled("s", state) for state in program.states), "r"]
    arguments += [mangled("p", name) for name in program.constants]
    if program.inhibition is None:
        arguments.append(mangled("p", REFRACTORY))
    elif kind == "held":
        lines += ["r.sub_(ONE_STEP)", "score.copy_(nothing)"]
    else:
        lines.append("select(spiked, new_u, nothing, out=score)")
    for name in program.records:
        if kind == "held" and name != "u_pre":
            lines.append(f"record(o_{name}, {zero})")
        elif name in ("spikes", "u_pre"):
            lines.append(f"record(o_{name}, {RECORDS[name]})")
    arguments += [f"o_{name}" for name in program.records]
    return [f"def {kind}({', '.join(arguments)}):", *(f"    {line}" for line in lines)]


def _has_every_neuron(lines: list[str], program: Program) -> bool:
    """Return whether the last line's value is known to have the shape of the states, and not that of constants."""
    full = {"i_in", *(mangled("s", state) for state in program.states)}

    def is_full(node: ast.AST) -> bool:
        match node:
            case ast.Name(id=name):
                return name in full
            case ast.Call(func=ast.Name("where" | "select"), args=[condition, a, b]):
                # a condition of one number chooses one of the two as it is
                return is_full(condition) or (is_full(a) and is_full(b))
        return any(map(is_full, ast.iter_child_nodes(node)))

    for line in lines:
        target, _, text = line.partition(" = ")
        value = ast.parse(text, mode="eval").body
        (full.add if is_full(value) else full.discard)(target)
    return target in full


def _for_tensors(line: str) -> str:
    """Return a line of the step for whole tensors that are changed in place."""
    line = line.replace("(r == NO_STEPS)", "awake").replace("held = r > NO_STEPS", "awake = r <= NO_STEPS")
    target, _, text = line.partition(" = ")
    if text == "where(held, r - ONE_STEP, r)":
        return "r.sub_(ONE_STEP).clamp_(min=NO_STEPS)"
    value: ast.expr = _Comparisons().visit(ast.parse(text, mode="eval")).body
    match value:
        case ast.Call(func=ast.Name("where"), args=[ast.Name("spiked"), count, ast.Name("r")]):
            return f"select_count(spiked, {ast.unparse(count)}, r)"
        case ast.Call(func=ast.Name("where"), args=[ast.Name("spiked"), chosen, _]) if target in _RECORD_OF:
            return f"record_where(o_{_RECORD_OF[target]}, spiked, {ast.unparse(chosen)})"
        case ast.Call(func=ast.Name("where"), args=[ast.Name("held"), held, awake]):
            value = ast.Call(ast.Name("select"), [ast.Name("awake"), awake, held], [])
        case ast.Call(func=ast.Name("where"), args=[ast.Name("spiked"), *choices]):
            value = ast.Call(ast.Name("select"), [ast.Name("spiked"), *choices], [])
    if not target.startswith("s__"):
        # what is a state itself must not change with it
        return f"{target} = {ast.unparse(value)}{'.clone()' if isinstance(value, ast.Name) else ''}"
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "select":
        return f"{ast.unparse(value)[:-1]}, out={target})"
    return f"{target}.copy_({ast.unparse(value)})"


class _Comparisons(ast.NodeTransformer):
    """Turns comparisons into calls that return masks."""

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        operator = ast.Attribute(ast.Name("torch"), _COMPARISONS[type(node.ops[0])])
        sides = [self.visit(node.left), self.visit(node.comparators[0])]
        return ast.Call(ast.Name("compare"), [operator, *sides], [])


def _bounded(line: str, bounds: set[str]) -> str:
    """Return a line of an elementary function with what bounds a variable as torch's own minimum or maximum."""
    match = re.fullmatch(r"( *\w+ = )where\((\w+) ([<>]) (\w+), (\w+), (\w+)\)", line)
    if match is None or match[4] not in bounds or (match[4], match[2]) != (match[5], match[6]):
        return line
    return f"{match[1]}torch.{'maximum' if match[3] == '<' else 'minimum'}({match[2]}, {match[4]})"


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

        # what is made in inference mode could not be changed outside of it; and torch would compile once more for each
        # mode of its gradients
        with torch.inference_mode(False), torch.no_grad():
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
                if len(steps) > 1 and _on_cpu(tile.kept[-1]):
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
        if _on_cpu(x):
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

    def _prepare(self, launch: Launch) -> tuple[Any, list[_Tile], _Competition | None]:
        """Return the steps of a tile, the tiles, and the competition of a program with inhibition."""
        import torch

        program, r = self.program, launch.refractory
        if r.device not in self._steps:
            by_bits = _on_cpu(r) and not self.compiled
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
            competition = _Competition(
                score, r, launch.periods, program.inhibition, launch.winners, amplitude
            )
        B, N = r.shape
        most = TILE * torch.get_num_threads() if _on_cpu(r) and not self.compiled else B * N
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


def _on_cpu(array: torch.Tensor) -> bool:
    return array.device.type == "cpu"


def _by_step(array: torch.Tensor, steps: int, *shape: int) -> Sequence[torch.Tensor]:
    """Return an array's parts of each step, of this shape."""
    import torch

    if steps == 1 and array.storage_offset() == 0:
        return [array.view(shape)]
    shape = (steps, *shape)
    if not _on_cpu(array):
        return array.view(shape).unbind()
    # quicker, and without an offset in the memory, for which torch would compile once more
    return [torch.from_numpy(part) for part in array.numpy().reshape(shape)]


class _Competition:
    """The choice of winners, up to k in each sample, and what they set.

    What is done to all neurons is torch's.  Maps and winners are numpy arrays on the CPU, where a call of numpy's takes
    a third of the time of torch's, and tensors elsewhere: only what both understand is done with them.

    Parameters
    ----------
    score : (B, N) tensor
        The potentials of the neurons that spiked, -inf elsewhere; the steps write it, and it stays until the next one.
    counters : (B, N) int32 tensor
        Refractory counters, of which those of the inhibited sets are set.
    periods : (1,) or (N,) int32 tensor
    scope : str
    winners : Winners
    amplitude : tensor of one number, optional
        Of the spikes, for SpykeTorch's order of winners; the exact one unless given.
    """

    def __init__(
        self,
        score: torch.Tensor,
        counters: torch.Tensor,
        periods: torch.Tensor,
        scope: str | None,
        winners: Winners,
        amplitude: torch.Tensor | None = None,
    ):
        import torch

        on_cpu = self.on_cpu = _on_cpu(score)
        self._small: Callable[[Any], Any] = torch.Tensor.numpy if on_cpu else lambda array: array
        self._tensor: Callable[[Any], Any] = torch.from_numpy if on_cpu else lambda array: array
        self._order: Callable[[Any], Any] = partial(np.argsort, kind="stable")
        self._joined: Callable[..., Any] = np.concatenate
        self._where: Callable[..., Any] = np.where
        if not on_cpu:
            self._order = partial(torch.argsort, stable=True)
            self._joined, self._where = torch.concatenate, torch.where
        (B, N), (_, most, radius, H, W) = score.shape, winners
        self.B, self.F, self.size, self.H, self.W = B, N // (H * W), H * W, H, W
        self.score, self.counters, self.scope = score, counters, scope
        self.periods = self._small(periods)
        self.most, self.radius = most, radius
        self._rank = None if amplitude is None else _Rank(amplitude, B, on_cpu)
        #: A row for each map of each sample.
        self.maps = self._small(score.view(B * self.F, self.size))
        #: Whether the largest maps win, and nothing else keeps a neuron from it.
        self.each_map_once = radius == 0 and (self.F <= MOST_SORTED or most > MOST_IN_TURN)
        if not self.each_map_once:
            # who has won, or is near to who has, leaves a copy of the scores
            self.left = torch.empty_like(score)
            self.maps = self._small(self.left.view(B * self.F, self.size))
        self.counters_of_maps = self._small(counters.view(B * self.F, self.size))
        self.samples = self._small(torch.arange(B, device=score.device)[:, None])
        self.first_map = self.samples * self.F
        up, left = min(radius, H - 1), min(radius, W - 1)
        self.near_rows = self._small(torch.arange(-up, up + 1, device=score.device))
        self.near_columns = self._small(torch.arange(-left, left + 1, device=score.device))

    def decide(self, won: torch.Tensor | None) -> None:
        """Set the counters of the winners' sets, and write the winners to `won`, (B, k, 3), all -1."""
        import torch

        if not self.each_map_once:
            self.left.copy_(self.score)
        best = self._largest()
        # on a GPU this question would wait for the device
        if self.on_cpu and best.max() == -np.inf:
            return
        if self._rank is not None:
            self._rank.set_top(best)
        feature, place, potential = self._sorted(best) if self.each_map_once else self._one_by_one(best)
        valid = potential > -np.inf
        if won is not None:
            own = self._small(won)[:, : feature.shape[1]]
            own[..., 0], own[..., 1], own[..., 2] = feature, place // self.W, place % self.W
            own[~valid] = -1
        period = self.periods if len(self.periods) == 1 else self.periods[feature * self.size + place]
        # -1 where there is no winner: a period of 0 ends what a set was held for before
        period = valid * (period + 1) - 1
        counters = self.counters
        if self.scope == "global":
            longest = self._tensor(period).amax(dim=1, keepdim=True)
            torch.where(longest >= 0, longest, counters, out=counters)
        elif self.scope == "location":
            counters = counters.view(self.B, self.F, self.size)
            longest = self._longest(place, period, self.size)[:, None]
            torch.where(longest >= 0, longest, counters, out=counters)
        else:
            if not self.each_map_once:
                # what did not win may name a map that did: both then write the same
                period = self._small(self._longest(feature, period, self.F))[self.samples, feature]
            rows, held = self._rows(feature), self.counters_of_maps
            period = period.reshape(-1, 1)
            held[rows] = self._where(period >= 0, period, held[rows])

    def _longest(self, own_set: Any, period: Any, sets: int) -> torch.Tensor:
        """Return the longest period of each set's winners, (B, sets), -1 where it has none."""
        longest = self.counters.new_full((self.B, sets), -1)
        return longest.scatter_reduce_(1, self._tensor(own_set), self._tensor(period), "amax")

    def _rows(self, feature: Any) -> Any:
        """Return the rows of the samples' maps (B, k)."""
        return (feature + self.first_map).reshape(-1)

    def _largest(self) -> Any:
        """Return each map's largest potential, (B, F)."""
        score = self.score if self.each_map_once else self.left
        largest = score.view(self.B, self.F, self.size).amax(dim=2) if self.size > 1 else score
        return self._small(largest) + 0.0  # -0 becomes 0: equal in every order

    def _ranked(self, potentials: Any) -> Any:
        """Return what potentials (B, n), -inf for none, are ordered by."""
        return potentials if self._rank is None else self._rank(potentials)

    def _first_places(self, feature: Any) -> Any:
        """Return the first place with the largest potential of each map (B, k)."""
        maps = self._ranked(self.maps[self._rows(feature)].reshape(self.B, -1))
        return maps.reshape(-1, self.size).argmax(1).reshape(feature.shape)

    def _sorted(self, best: Any) -> tuple[Any, Any, Any]:
        """Return feature, place and potential of up to k winners per sample, each (B, k), potential -inf for none."""
        feature = self._order(-self._ranked(best))[:, : self.most]
        return feature, self._first_places(feature), best[self.samples, feature]

    def _one_by_one(self, best: Any) -> tuple[Any, Any, Any]:
        """Return the same where a winner takes others out of the competition, or where maps are too many to sort."""
        rounds: list[tuple[Any, Any, Any]] = []
        for _ in range(self.most):
            if rounds and self.on_cpu and best.max() == -np.inf:
                break
            feature = self._ranked(best).argmax(1)[:, None]  # the first of equal values
            place = self._first_places(feature)
            rounds.append((feature, place, best[self.samples, feature]))
            if self.radius == 0:
                best[self.samples, feature] = -np.inf
                continue
            self.maps[self._rows(feature)] = -np.inf
            # where nothing is left to win, there is nothing to remove either
            rows = (place // self.W + self.near_rows).clip(0, self.H - 1)
            columns = (place % self.W + self.near_columns).clip(0, self.W - 1)
            near = (rows[:, :, None] * self.W + columns[:, None, :]).reshape(self.B, 1, -1)
            scores = self.left.view(self.B, self.F, self.size)
            scores.scatter_(2, self._tensor(near).expand(-1, self.F, -1), -np.inf)
            best = self._largest()
        feature, place, potential = (self._joined(parts, 1) for parts in zip(*rounds, strict=True))
        return feature, place, potential


class _Rank:
    """SpykeTorch's order: what it makes of potentials (B, n), numpy arrays on the CPU and tensors elsewhere.

    Parameters
    ----------
    amplitude : tensor of one number
        Of the spikes.
    batch : int
    on_cpu : bool
    """

    def __init__(self, amplitude: torch.Tensor, batch: int, on_cpu: bool):
        self.amplitude, self.on_cpu = amplitude, on_cpu
        #: The amplitude, and then the largest potential of each sample.
        self.given = amplitude.expand(batch + 1).clone()
        self.host = self.given.numpy() if on_cpu else None
        self.loop = ranks(str(amplitude.dtype).removeprefix("torch.")) if on_cpu else None

    def set_top(self, best: Any) -> None:
        """Take the largest potentials of the step from those of maps (B, F)."""
        if self.host is not None:
            self.host[1:] = best.max(axis=1)
        else:
            self.given[1:] = best.amax(dim=1)

    def __call__(self, potentials: Any) -> Any:
        """Return each potential's sum, -inf where there is none."""
        if self.host is not None and self.loop is not None:
            potentials = np.ascontiguousarray(potentials)
            out = np.empty_like(potentials)
            B, n = out.shape
            self.loop(address(potentials), address(out), B, n, address(self.host))
            return out
        import torch

        from spyke_numba.backends.torch.fma import fma

        term = (self.amplitude * self.given[1:, None]).expand_as(potentials)
        total = fma(self.amplitude.expand_as(potentials), term, self.amplitude * potentials)
        least = torch.finfo(total.dtype).min
        total = torch.where(total > least, total, least)
        return torch.where(potentials > -np.inf, total, -np.inf)


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

        # in inference mode, what is made could be changed in that mode alone
        with torch.inference_mode(False):
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
            with torch.inference_mode(False):
                array = torch.from_numpy(array.numpy())
        if array.device != torch.device(_device(like)) or array.requires_grad:
            raise ValueError(
                f"out holds memory on {array.device}: give it on {_device(like)}, without a gradient"
            )
        return array

    def upload(self, host: np.ndarray, like: Any) -> torch.Tensor:
        """Return a copy on the input's device, which can be changed in any mode of torch's."""
        import torch

        with torch.inference_mode(False):
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
