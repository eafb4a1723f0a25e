"""Writes the torch backend's modules: the step of a whole layer, as operations on tensors."""

from __future__ import annotations

import ast
import re

from spyke_numba.compile.formats import FLOAT_FORMATS
from spyke_numba.compile.program import RECORDS, REFRACTORY, Program
from spyke_numba.compile.step import Counters, helper_lines, step_lines
from spyke_numba.compile.writer import Writer, mangled

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
