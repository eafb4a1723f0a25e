"""The order of a step, written once, as straight-line code that every backend wraps in its own loop.

`Program` says what is to be compiled; `step_lines` gives the statements of one neuron's step.  The same text runs on
scalars in a compiled loop, in a CUDA thread, and on whole tensors, over these names: ``i_in`` (input), ``s__<state>``
(state, in and out), ``r`` (refractory counter, in and out), ``p__<constant>``, ``new_u`` (potential before the reset),
``spiked`` and what else of `RECORDS` is wanted.  `mangled` makes every name that comes from a model.
"""

from __future__ import annotations

import ast
from typing import Literal

from spyke_numba.compile import elementary
from spyke_numba.compile.program import RECORDS, REFRACTORY, Program
from spyke_numba.compile.writer import Writer, mangled

Counters = Literal["own", "until", "shared", "free", "held"]
#: What `spiked` turns into the number of a record, and nothing into 0.
_WHERE_SPIKED = {"pulses": "p__spike_amplitude", "thresholded": "new_u"}


def step_lines(program: Program, writer: Writer, counters: Counters = "own") -> list[str]:
    """Return the statements of one step of one neuron, without the choice of winners.

    The order is the contract: membrane, hold, floor, adaptation, spike, reset, count down.  After it, the backend picks
    winners among the ``spiked`` by ``new_u`` and sets the counters of their inhibited sets; without inhibition the
    last line has set the counter of each neuron that spiked.

    Parameters
    ----------
    program : Program
    writer : Writer
    counters : {"own", "until", "shared", "free", "held"}
        Whether ``r`` is the neuron's own counter, counted down here; the step ``now`` until which it is held, which
        the backend sets to ``until`` where it spiked; the counter of its set, only read here; or is known to be 0 or
        not 0 for the whole set, so that there is nothing to hold, or nothing to integrate.
    """
    spec = program.spec
    names = {name: mangled("p", name) for name in program.constants}
    names.update({name: mangled("s", name) for name in program.states})
    names["I"] = "i_in"
    if counters == "held":
        lines = ["new_u = p__resting_potential"]
    else:
        lines, (membrane,) = writer.inlined(spec.functions["membrane"], "membrane", names)
        lines.append(f"new_u = {membrane}")
        if counters == "until":
            lines += ["awake = r <= now", "new_u = where(awake, new_u, p__resting_potential)"]
        elif counters != "free":
            lines += ["held = r > NO_STEPS", "new_u = where(held, p__resting_potential, new_u)"]
    if program.floor:
        lines.append("new_u = where(new_u < p__floor, p__floor, new_u)")
    names["u_new"] = "new_u"
    if spec.overshoot == "cut" and counters != "held":  # what is held stands below the threshold
        lines.append("seen_u = where(new_u > p__threshold, p__threshold, new_u)")
        names["u_new"] = "seen_u"
    adapted = [mangled("s", state) for state in spec.states]
    if "adaptation" in spec.functions:
        more, values = writer.inlined(spec.functions["adaptation"], "adaptation", names)
        adapted = [mangled("new", state) for state in spec.states]
        lines += more + [f"{name} = {value}" for name, value in zip(adapted, values, strict=True)]
    if counters == "held":
        return [
            *lines,
            "s__u = new_u",
            *(
                f"{mangled('s', state)} = {mangled('new', state)}"
                for state in spec.states
                if "adaptation" in spec.functions
            ),
        ]
    may_spike = {"free": "", "until": " & awake"}.get(counters, " & (r == NO_STEPS)")
    lines.append(f"spiked = (new_u >= p__threshold){may_spike}")
    resets = adapted
    if "on_spike" in spec.functions:
        after = {**names, **dict(zip(spec.states, adapted, strict=True))}
        more, values = writer.inlined(spec.functions["on_spike"], "on_spike", after)
        jumped = [mangled("jumped", state) for state in spec.states]
        lines += more + [f"{name} = {value}" for name, value in zip(jumped, values, strict=True)]
        resets = [f"where(spiked, {jump}, {now})" for jump, now in zip(jumped, adapted, strict=True)]
    for record, value in _WHERE_SPIKED.items():
        if record in program.records:
            lines.append(f"{RECORDS[record]} = where(spiked, {value}, {writer.constant(0.0)})")
    lines.append("s__u = where(spiked, p__v_reset, new_u)")
    lines += [
        f"{mangled('s', state)} = {value}"
        for state, value in zip(spec.states, resets, strict=True)
        if value != mangled("s", state)
    ]
    if counters == "own":
        lines.append("r = where(held, r - ONE_STEP, r)")
        if program.inhibition is None:
            lines.append(f"r = where(spiked, p__{REFRACTORY}, r)")
    return lines


def helper_lines(lines: list[str], dtype: str, writer: Writer, decorator: str | None) -> list[str]:
    """Return the definitions of the elementary functions that these lines call, each before its callers."""
    tree = ast.parse("\n".join(lines))
    needed = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    available = elementary.functions(dtype)
    for name in reversed(list(available)):
        if name in needed:
            needed |= available[name].calls()
    result: list[str] = []
    for name, function in available.items():
        if name in needed:
            result += ([decorator] if decorator else []) + writer.definition(function, name) + [""]
    return result


def operations_of(program: Program) -> int:
    """Return the arithmetic, comparisons and selections that one step of one neuron takes in generated code."""
    writer = Writer()
    lines = step_lines(program, writer)
    helpers = ast.parse("\n".join(helper_lines(lines, program.dtype, writer, None)))
    bodies: dict[str, ast.AST] = {
        node.name: node for node in helpers.body if isinstance(node, ast.FunctionDef)
    }

    def count(tree: ast.AST) -> int:
        total = 0
        for node in ast.walk(tree):
            if isinstance(node, (ast.BinOp, ast.Compare)):
                total += 1
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                total += count(bodies[node.func.id]) if node.func.id in bodies else 1
        return total

    return count(ast.parse("\n".join(lines)))
