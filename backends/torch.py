"""The torch backend: the same statements on whole tensors, on whatever device they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spyke_numba.backends import Launch
from spyke_numba.buffers import BUFFERS
from spyke_numba.engine import (
    FLOAT_FORMATS,
    RECORDS,
    REFRACTORY,
    Counters,
    Program,
    Writer,
    helper_lines,
    step_lines,
)
from spyke_numba.generated import load_module

if TYPE_CHECKING:
    from types import ModuleType

    import torch

#: Neurons per thread that are advanced together on a CPU, so that what the step computes on the way stays in the cache.
TILE = 32_768
#: Up to so many feature maps are sorted by their largest potential; of more, the largest is looked for k times.
MOST_SORTED = 2048

# Constants are tensors of one element on the device: torch multiplies by the reciprocal of a Python number that divides
# a tensor on a GPU, which rounds twice.
_HEADER = '''\
"""Generated for {label}: one step of a whole layer. Do not edit."""

import numpy
import torch
from torch import abs


def sqrt(x):
    # on the CPU torch's own is one bit off in about 1 % of cases
    return torch.as_tensor(numpy.sqrt(x.numpy())) if x.device.type == "cpu" else torch.sqrt(x)


def rint(x):
    return torch.round(x)


def pow2(n):
    return ((n.to(torch.{whole}) + {bias}) << {mantissa_bits}).view(torch.{real})


def exponent(x):
    return ((x.view(torch.{whole}) >> {mantissa_bits}) - {bias}).to(torch.{real})


def mantissa(x):
    return ((x.view(torch.{whole}) & {mantissa_mask}) | {one_bits}).view(torch.{real})


NO_STEPS, ONE_STEP = 0, 1


def bind(device):
    """Return the step with its constants on a device."""

    def real(value):
        return torch.tensor(float(value), dtype=torch.{real}, device=device)

    def mask(condition):
        # torch's where branches for each neuron on a CPU, which is slow unless nearly all go one way
        return condition if device.type != "cpu" else -condition.to(torch.{whole})

    def mask_of(compare, a, b):
        # a comparison into numbers vectorises, one into booleans does not
        return mask(compare(a, b, out=torch.empty_like(a)) if device.type == "cpu" else compare(a, b))

    def select(mask, a, b, out=None):
        if device.type != "cpu":
            return torch.where(mask, a, b, out=out)
        other = b.view(torch.{whole})
        changed = (a.view(torch.{whole}) ^ other) & mask
        if out is None:
            return changed.bitwise_xor_(other).view(torch.{real})
        torch.bitwise_xor(changed, other, out=out.view(torch.{whole}))
        return out

    def or_zero(mask, a):
        if device.type != "cpu":
            return torch.where(mask, a, torch.zeros((), dtype=a.dtype, device=device))
        return (a.view(torch.{whole}) & mask).view(torch.{real})

    def where(condition, a, b):
        if device.type == "cpu" and condition.ndim == 0:
            return (a if condition else b).clone()
        return select(mask(condition), a, b)

'''


def source(program: Program) -> str:
    """Return the text of a program's module; its ``bind(device)`` returns the step of a whole layer."""
    writer = Writer()
    kinds: tuple[Counters, ...] = ("own",) if program.inhibition is None else ("own", "free", "held")
    steps = {kind: _step(program, writer, kind) for kind in kinds}
    helpers = helper_lines(steps["own"], program.dtype, writer, None)
    # a bound that is not 0 has one representation: which of two equal numbers is returned does not matter
    bounds = {name for value, name in writer.constants.items() if float(value) != 0.0}
    body = [
        "nothing = real('-inf')",
        *(f"{name} = real('{value}')" for value, name in writer.constants.items()),
        "",
        *(_bounded(line, bounds) for line in helpers),
    ]
    for lines in steps.values():
        body += [*lines, ""]
    body.append(f"return {', '.join(kinds)},")
    header = _HEADER.format(label=program.label, **FLOAT_FORMATS[program.dtype])
    return header + "\n".join(f"    {line}" if line else "" for line in body) + "\n"


def _step(program: Program, writer: Writer, kind: Counters) -> list[str]:
    """Return the function that advances neurons of which some, none ("free") or all ("held") are held."""
    zero = writer.constant(0.0)
    plain = step_lines(program, writer, kind)
    # what is a state itself must not change with it
    plain = [re.sub(r"^(\w+ = s_\w+)$", r"\1.clone()", line) for line in plain]
    lines = [better for line in plain for better in _for_tensors(line, zero)]
    arguments = ["i_in", "score", *(f"s_{state}" for state in program.states), "r"]
    arguments += [f"p_{name}" for name in program.constants]
    if program.inhibition is None:
        arguments.append(f"p_{REFRACTORY}")
    elif kind == "held":
        lines += ["r = r.sub_(ONE_STEP)", "score.copy_(nothing)"]
        lines += [f"{RECORDS[name]} = {zero}" for name in program.records if name != "u_pre"]
    else:
        lines.append("select(spiked_mask, new_u, nothing, out=score)")
    results = [*(f"s_{state}" for state in program.states), "r", "new_u"]
    results += [RECORDS[name] for name in program.records]
    lines.append(f"return {', '.join(results)}")
    return [f"def {kind}({', '.join(arguments)}):", *(f"    {line}" for line in lines)]


def _for_tensors(line: str, zero: str) -> list[str]:
    """Return a line of the step as torch is quick at it: each mask once, and counters, never negative, without one."""
    target, _, text = line.partition(" = ")
    if line == "r = where(held, r - ONE_STEP, r)":
        return ["r = r.sub_(ONE_STEP).clamp_(min=NO_STEPS)"]
    if line == "new_u = where(new_u < p_floor, p_floor, new_u)":
        return ["new_u = select(mask_of(torch.lt, new_u, p_floor), p_floor, new_u)"]
    if target == "r":
        return [line.replace("where(", "torch.where(")]
    text = text.replace("where(spiked, ", "select(spiked_mask, ").replace(
        "where(held, ", "select(held_mask, "
    )
    text = text.replace("(r == NO_STEPS)", "~held")
    text = re.sub(rf"^select\(spiked_mask, (\w+), {zero}\)$", r"or_zero(spiked_mask, \1)", text)
    if target.startswith("s_") and text.startswith("select("):
        text = f"{text[:-1]}, out={target})"
    return [
        f"{target} = {text}",
        *([f"{target}_mask = mask({target})"] if target in ("held", "spiked") else []),
    ]


def _bounded(line: str, bounds: set[str]) -> str:
    """Return a line of an elementary function with what bounds a variable as torch's own minimum or maximum."""
    match = re.fullmatch(r"( *\w+ = )where\((\w+) ([<>]) (\w+), (\w+), (\w+)\)", line)
    if match is None or match[4] not in bounds or (match[4], match[2]) != (match[5], match[6]):
        return line
    return f"{match[1]}torch.{'maximum' if match[3] == '<' else 'minimum'}({match[2]}, {match[4]})"


@cache
def _module(program: Program) -> ModuleType:
    return load_module(f"{program.label}_torch", source(program), "torch")


class _Tile(NamedTuple):
    """Neurons that are advanced together, and what their step takes."""

    place: tuple[slice, slice]
    #: States and refractory counters, which the step updates.
    kept: list[torch.Tensor]
    constants: list[torch.Tensor]
    score: torch.Tensor | None


class _TorchKernel:
    def __init__(self, program: Program):
        self.program = program
        self._steps: dict[Any, Any] = {}

    def run(self, launch: Launch) -> None:
        if launch.prepared is None:
            launch.prepared = self._prepare(launch)
        steps, tiles, score = launch.prepared
        program = self.program
        B, N = launch.refractory.shape
        outputs = {
            name: output.view(launch.steps, B, -1, 3)
            if name == "winners"
            else output.view(launch.steps, B, N)
            for name, output in launch.outputs.items()
        }
        given = launch.x.view(-1, B, N)
        at = {name: i for i, name in enumerate((*program.states, "refractory", "u_pre", *program.records))}
        # the counters are recorded once the winners have set them
        recorded = [(at[name], outputs[name]) for name in outputs if name not in ("winners", "refractory")]
        for t in range(launch.steps):
            x = given[0 if launch.constant_input else t]
            some_free = False
            for place, kept, constants, own_score in tiles:
                step = steps[0]
                if len(steps) > 1 and not kept[-1].is_cuda:
                    least, most = kept[-1].aminmax()
                    step = steps[1] if not most else steps[2] if least else step
                new = step(x[place], own_score, *kept, *constants)
                for array, value in zip(kept, new, strict=False):
                    if value is not array:
                        array.copy_(value)
                for i, output in recorded:
                    output[t][place].copy_(new[i])
                some_free = some_free or step is not steps[-1]
            if launch.winners is not None:
                won = outputs["winners"][t] if "winners" in outputs else None
                if won is not None:
                    won.fill_(-1)
                if some_free:
                    _compete(
                        score, launch.refractory, launch.periods, program.inhibition, launch.winners, won
                    )
            if "refractory" in outputs:
                outputs["refractory"][t] = launch.refractory

    def _prepare(self, launch: Launch) -> tuple[Any, list[_Tile], torch.Tensor | None]:
        """Return the step, the tiles, and the potentials of the neurons that spiked, -inf elsewhere."""
        import torch

        program, r = self.program, launch.refractory
        if r.device not in self._steps:
            self._steps[r.device] = _module(program).bind(r.device)
        values = dict(zip(program.scalars, launch.scalars, strict=True))
        values.update(zip(program.arrays, launch.arrays, strict=True))
        constants = [values[name] for name in program.constants]
        score = None
        if launch.winners is None:
            constants.append(launch.periods if len(launch.periods) > 1 else launch.periods[0])
        else:
            score = torch.empty_like(launch.states[0])
        B, N = r.shape
        most = B * N if r.is_cuda else TILE * torch.get_num_threads()
        rows, columns = max(1, most // N), min(N, most)
        tiles = []
        for b in range(0, B, rows):
            for j in range(0, N, columns):
                place = slice(b, b + rows), slice(j, j + columns)
                own = [value[place[1]] if value.ndim else value for value in constants]
                kept = [array[place] for array in (*launch.states, r)]
                tiles.append(_Tile(place, kept, own, None if score is None else score[place]))
        return self._steps[r.device], tiles, score


def _winners(
    score: torch.Tensor, k: int, radius: int, W: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return feature, place and potential of up to k winners per sample, each (B, k), potential -inf for none."""
    import torch

    B, F, size = score.shape
    first_map = torch.arange(0, B * F, F, device=score.device)[:, None]
    flat = score.view(B * F, size)
    best = (score.amax(dim=2) if size > 1 else score[..., 0]) + 0.0  # -0 becomes 0: equal in every order
    k = min(k, F)
    if radius == 0 and F <= MOST_SORTED:
        potential, feature = best.sort(dim=1, descending=True, stable=True)
        feature = feature[:, :k]
        own = flat.index_select(0, (feature + first_map).view(-1))
        return feature, own.argmax(dim=1).view(B, k), potential[:, :k]
    rounds = []
    H = size // W
    row_steps = torch.arange(-min(radius, H - 1), min(radius, H - 1) + 1, device=score.device)
    column_steps = torch.arange(-min(radius, W - 1), min(radius, W - 1) + 1, device=score.device)
    for _ in range(k):
        feature = best.argmax(dim=1, keepdim=True)  # the first of equal values
        potential = best.gather(1, feature)
        rows = (feature + first_map).view(-1)
        place = flat.index_select(0, rows).argmax(dim=1, keepdim=True)
        rounds.append((feature, place, potential))
        if radius == 0:
            best.scatter_(1, feature, -float("inf"))
            continue
        flat.index_fill_(0, rows, -float("inf"))
        # where nothing is left to win, there is nothing to remove either
        rows = (place // W + row_steps).clamp_(0, H - 1)
        columns = (place % W + column_steps).clamp_(0, W - 1)
        near = (rows[:, :, None] * W + columns[:, None, :]).view(B, 1, -1)
        score.scatter_(2, near.expand(B, F, -1), -float("inf"))
        best = score.amax(dim=2) + 0.0
    feature, place, potential = (torch.cat(parts, dim=1) for parts in zip(*rounds, strict=True))
    return feature, place, potential


def _compete(
    score: torch.Tensor,
    r: torch.Tensor,
    periods: torch.Tensor,
    scope: str | None,
    winners: tuple[int, int, int, int],
    won: torch.Tensor | None,
) -> None:
    """Pick up to k winners per sample, set the counters ``r`` of their sets, and write them to `won`, all -1."""
    import torch

    k, radius, H, W = winners
    B, N = score.shape
    size = H * W
    feature, place, potential = _winners(score.view(B, N // size, size), k, radius, W)
    valid = potential > -float("inf")
    # on a GPU this question would wait for the device
    if not score.is_cuda and not bool(valid.any()):
        return
    if won is not None:
        triples = torch.stack((feature, place // W, place % W), dim=2)
        won[:, : feature.shape[1]] = torch.where(valid[..., None], triples, -1)
    period = periods[feature * size + place] if len(periods) > 1 else periods
    period = torch.where(valid, period, 0)
    if scope == "global":
        torch.maximum(r, period.amax(dim=1, keepdim=True), out=r)
        return
    F = N // size
    own_set, sets = (feature, F) if scope == "feature" else (place, size)
    longest = torch.zeros((B, sets), dtype=r.dtype, device=r.device).scatter_reduce_(
        1, own_set, period, "amax"
    )
    if scope == "location":
        counters = r.view(B, F, size)
        torch.maximum(counters, longest[:, None], out=counters)
        return
    # what did not win may name a map that did: both then write the same
    period = longest.gather(1, own_set)
    rows = (own_set + torch.arange(0, B * F, F, device=r.device)[:, None]).view(-1)
    counters = r.view(B * F, size)
    counters.index_copy_(0, rows, torch.maximum(counters.index_select(0, rows), period.view(-1, 1)))


class TorchBackend:
    """Whole tensors, one operation after the other, on the device of the input; numpy input runs on the CPU."""

    name = "torch"
    compact = False
    emits = ("source",)

    def unavailable(self) -> str | None:
        """Return None when torch can be imported."""
        try:
            import torch  # noqa: F401
        except ImportError:
            return "torch is not installed: pip install 'spyke_numba[torch]'"
        return None

    @cache  # noqa: B019 - the one instance lives as long as the process
    def kernel(self, program: Program) -> _TorchKernel:
        """Return the program's step, bound to a device when it first runs there."""
        return _TorchKernel(program)

    def emit(self, program: Program, kind: str, arch: str | None = None) -> str:
        """Return the module's text."""
        return source(program)

    def place(self, x: Any) -> Any:
        """Return the input's device."""
        return x.device if hasattr(x, "detach") else "cpu"

    def take(self, x: Any, dtype: str) -> torch.Tensor:
        """Return an array or a tensor as a contiguous tensor."""
        import torch

        if not hasattr(x, "detach"):
            x = np.asarray(x, dtype=dtype)
            x = torch.from_numpy(x if x.flags.writeable else x.copy())
        return x.detach().to(getattr(torch, dtype)).contiguous()

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> torch.Tensor:
        """Return a new tensor on the input's device."""
        import torch

        if str(_device(like)) == "cpu":
            return torch.from_numpy(BUFFERS.empty(shape, dtype))
        return torch.empty(shape, dtype=getattr(torch, dtype), device=_device(like))

    def adopt(self, array: Any, like: Any) -> torch.Tensor:
        """Return a tensor on the input's device as it is, and a numpy array as a tensor."""
        import torch

        if not hasattr(array, "detach"):
            if not array.flags.writeable:
                raise ValueError("out holds a read-only array: give one that can be written")
            array = torch.from_numpy(array)
        if array.device != torch.device(_device(like)) or array.requires_grad:
            raise ValueError(
                f"out holds memory on {array.device}: give it on {_device(like)}, without a gradient"
            )
        return array

    def upload(self, host: np.ndarray, like: Any) -> torch.Tensor:
        """Return a copy on the input's device."""
        import torch

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
