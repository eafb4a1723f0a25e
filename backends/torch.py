"""The torch backend: the same statements on whole tensors, on whatever device they are."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from spyke_numba.backends import Launch
from spyke_numba.engine import FLOAT_FORMATS, RECORDS, REFRACTORY, Program, Writer, helper_lines, step_lines
from spyke_numba.generated import load_module

if TYPE_CHECKING:
    from types import ModuleType

    import torch

# Constants are tensors of one element on the device: torch multiplies by the reciprocal of a Python number that divides
# a tensor on a GPU, which rounds twice.
_HEADER = '''\
"""Generated for {label}: one step of a whole layer. Do not edit."""

import numpy
import torch
from torch import abs, where


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

'''


def source(program: Program) -> str:
    """Return the text of a program's module; its ``bind(device)`` returns the step of a whole layer."""
    writer = Writer()
    lines = step_lines(program, writer)
    helpers = helper_lines(lines, program.dtype, writer, None)
    constants = [f"{name} = real('{value}')" for value, name in writer.constants.items()]
    arguments = [
        "i_in",
        *(f"s_{state}" for state in program.states),
        "r",
        *(f"p_{name}" for name in program.constants),
    ]
    if program.inhibition is None:
        arguments.append(f"p_{REFRACTORY}")
    results = [*(f"s_{state}" for state in program.states), "r", "spiked", "new_u"]
    results += [RECORDS[name] for name in program.records]
    step = [
        f"def step({', '.join(arguments)}):",
        *(f"    {line}" for line in lines),
        f"    return {', '.join(results)}",
    ]
    body = [*constants, "", *helpers, *step, "", "return step"]
    header = _HEADER.format(label=program.label, **FLOAT_FORMATS[program.dtype])
    return header + "\n".join(f"    {line}" if line else "" for line in body) + "\n"


@cache
def _module(program: Program) -> ModuleType:
    return load_module(f"{program.label}_torch", source(program), "torch")


class _TorchKernel:
    def __init__(self, program: Program):
        self.program = program
        self._steps: dict[Any, Any] = {}

    def run(self, launch: Launch) -> None:
        program, periods, outputs = self.program, launch.periods, launch.outputs
        device = launch.x.device
        if device not in self._steps:
            self._steps[device] = _module(program).bind(device)
        step = self._steps[device]
        values = dict(zip(program.scalars, launch.scalars, strict=True))
        values.update(zip(program.arrays, launch.arrays, strict=True))
        constants = [values[name] for name in program.constants]
        if launch.winners is None:
            constants.append(periods if len(periods) > 1 else periods[0])
        x = launch.x.reshape(-1, *launch.refractory.shape)
        for t in range(launch.steps):
            i_in = x[0 if launch.constant_input else t]
            results = step(i_in, *launch.states, launch.refractory, *constants)
            states, (r, spiked, u_pre, *records) = (
                results[: len(launch.states)],
                results[len(launch.states) :],
            )
            if launch.winners is not None:
                won = outputs["winners"][t] if "winners" in outputs else None
                _compete(u_pre, spiked, r, periods, program.inhibition, launch.winners, won)
            for state, new in zip(launch.states, states, strict=True):
                state.copy_(new)
            launch.refractory.copy_(r)
            now = {"refractory": r, **dict(zip(program.records, records, strict=True))}
            now.update(zip(program.states, states, strict=True))
            for name, output in outputs.items():
                if name != "winners":
                    output[t] = now[name].reshape(output[t].shape)


def _compete(
    u_pre: torch.Tensor,
    spiked: torch.Tensor,
    r: torch.Tensor,
    periods: torch.Tensor,
    scope: str | None,
    winners: tuple[int, int, int, int],
    won: torch.Tensor | None,
) -> None:
    """Pick up to k winners per sample, set the counters ``r`` of their inhibited sets, and write them to `won`."""
    import torch

    k, radius, H, W = winners
    B, N = u_pre.shape
    if won is not None:
        won.fill_(-1)
    # on a GPU this question would wait for the device; the rounds below then find nothing
    if not u_pre.is_cuda and not bool(spiked.any()):
        return
    size = H * W
    samples = torch.arange(B, device=r.device)
    rows = torch.arange(H, device=r.device)
    columns = torch.arange(W, device=r.device)
    nothing = torch.tensor(-float("inf"), dtype=u_pre.dtype, device=r.device)
    score = torch.where(spiked, u_pre, nothing)
    counters = r.view(B, N // size, size)
    for q in range(k):
        index = score.argmax(dim=1)  # the first of equal values
        valid = score.gather(1, index[:, None])[:, 0] > nothing
        if not u_pre.is_cuda and not bool(valid.any()):
            break
        feature, place = index // size, index % size
        row, column = place // W, place % W
        period = torch.where(valid, periods[index] if len(periods) > 1 else periods[0], 0).to(r.dtype)
        if scope == "feature":
            counters[samples, feature] = torch.maximum(counters[samples, feature], period[:, None])
        elif scope == "location":
            counters[samples, :, place] = torch.maximum(counters[samples, :, place], period[:, None])
        else:
            r.copy_(torch.maximum(r, period[:, None]))
        if won is not None:
            triple = torch.stack((feature, row, column), dim=1).to(won.dtype)
            won[:, q] = torch.where(valid[:, None], triple, -1)
        score.view(B, -1, size)[samples, feature] = nothing
        if radius > 0:
            near_rows = (rows[None] - row[:, None]).abs() <= radius
            near_columns = (columns[None] - column[:, None]).abs() <= radius
            near = (near_rows[:, :, None] & near_columns[:, None, :]).view(B, 1, size) & valid[:, None, None]
            score.view(B, -1, size).masked_fill_(near, -float("inf"))


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

        return torch.empty(shape, dtype=getattr(torch, dtype), device=_device(like))

    def upload(self, host: np.ndarray, like: Any) -> torch.Tensor:
        """Return a copy on the input's device."""
        import torch

        return torch.tensor(host, device=_device(like))

    def download(self, array: torch.Tensor) -> np.ndarray:
        """Return it as a numpy array."""
        return array.cpu().numpy()

    def give(self, array: torch.Tensor, like: Any) -> Any:
        """Return the tensor, or a numpy array for numpy input."""
        return array if hasattr(like, "detach") else array.numpy()


def _device(like: Any) -> Any:
    return like.device if hasattr(like, "detach") else "cpu"


BACKEND = TorchBackend()
