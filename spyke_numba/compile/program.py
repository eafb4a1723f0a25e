"""The order of a step, written once, as straight-line code that every backend wraps in its own loop.

`Program` says what is to be compiled; `step_lines` gives the statements of one neuron's step.  The same text runs on
scalars in a compiled loop, in a CUDA thread, and on whole tensors, over these names: ``i_in`` (input), ``s__<state>``
(state, in and out), ``r`` (refractory counter, in and out), ``p__<constant>``, ``new_u`` (potential before the reset),
``spiked`` and what else of `RECORDS` is wanted.  `mangled` makes every name that comes from a model.
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from spyke_numba import elementary
from spyke_numba.expressions import Function

if TYPE_CHECKING:
    from spyke_numba.spec import Neuron, NeuronSpec

#: Changes whenever generated code changes its meaning, so that old cached modules are left alone.
GENERATOR_VERSION = 2

DTYPES = ("float32", "float64")
Counters = Literal["own", "until", "shared", "free", "held"]
REFRACTORY = "refractory_timesteps"
#: Of a refractory period, and of one launch: so that the sum of two fits into an int32.
MOST_STEPS = 2**30 - 1
#: What a step can record beside the states and counters, and the variable that holds it.
RECORDS = {"spikes": "spiked", "pulses": "pulse", "thresholded": "crossing", "u_pre": "new_u"}
#: What `spiked` turns into the number of a record, and nothing into 0.
_WHERE_SPIKED = {"pulses": "p__spike_amplitude", "thresholded": "new_u"}

#: How a dtype's floats are laid out in bits: what the generated ``pow2``, ``exponent``, ``mantissa`` and keys use.
FLOAT_FORMATS: dict[str, dict[str, object]] = {
    "float32": {
        "real": "float32",
        "whole": "int32",
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
        "bits": 64,
        "bias": 1023,
        "mantissa_bits": 52,
        "mantissa_mask": 0x000FFFFFFFFFFFFF,
        "one_bits": 0x3FF0000000000000,
        "sign_shift": 63,
        "largest": 0x7FFFFFFFFFFFFFFF,
    },
}


def mangled(kind: str, name: str) -> str:
    """Return the name in generated code of something that a model names, such as ``p__tau`` of the kind ``p``.

    No kind and no name of generated code's own holds two underscores, so that the first two end the kind: different
    kinds and names give different results, none of which is a name of the code's own.
    """
    return f"{kind}__{name}"


def numbered(name: str, i: int) -> str:
    """Return a name of generated code with a number, at the end of the kind of a mangled one."""
    kind, mark, own = name.partition("__")
    return f"{kind}_{i}{mark}{own}"


@dataclass(frozen=True)
class Program:
    """What a backend compiles; equal programs share one compiled kernel, whatever the shape, batch, k or values.

    Parameters
    ----------
    spec : NeuronSpec
    dtype : {"float32", "float64"}
    inhibition : {None, "feature", "location", "global"}
        The scope of the sets that winners inhibit; None: each neuron that spikes is refractory by itself.
    compact : bool
        Whether the refractory counters are one per inhibited set (map, location or sample) instead of one per neuron;
        without inhibition, whether all counters and periods are 0, so that no neuron is ever held.
    floor : bool
        Whether the potential is floored.
    varying : frozenset of str
        The constants that differ from neuron to neuron.
    records : tuple of str
        Which of `RECORDS` the step writes.
    exact_order : bool
        Whether winners are chosen by their potentials; else by what SpykeTorch makes of them, see `KWTA`.
    """

    spec: NeuronSpec
    dtype: str = "float32"
    inhibition: str | None = None
    compact: bool = False
    floor: bool = False
    varying: frozenset[str] = field(default_factory=frozenset)
    records: tuple[str, ...] = ("spikes",)
    exact_order: bool = True

    @classmethod
    def of(
        cls, neuron: Neuron, *, dtype: str = "float32", inhibition: str | None = None, compact: bool = False
    ) -> Program:
        """Return the program of a neuron in a layer where arrays and distributions vary and numbers do not."""
        spec = neuron.spec
        varying = {name for name, value in neuron.given.items() if not isinstance(value, (float, type(None)))}
        rules = {name: p.default for name, p in spec.all_params.items() if name not in neuron.given}
        # twice, since a default may follow one that stands after it
        for name, rule in [*rules.items(), *rules.items(), *spec.derived.items()]:
            if callable(rule) and varying & set(inspect.signature(rule).parameters):
                varying.add(name)
        program = cls(spec, dtype, inhibition, compact, neuron.has_floor)
        return replace(program, varying=frozenset(varying & {*program.constants, REFRACTORY}))

    @property
    def states(self) -> tuple[str, ...]:
        """Names of all state variables, the potential first."""
        return ("u", *self.spec.states)

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of the floating-point constants that the step reads, in order."""
        used = {"threshold", "resting_potential", "v_reset", "spike_amplitude"} | (
            {"floor"} if self.floor else set()
        )
        for function in self.spec.functions.values():
            used.update(function.arguments)
        known = {**self.spec.all_params, **self.spec.derived}
        return tuple(name for name in known if name in used and name != REFRACTORY)

    @property
    def scalars(self) -> tuple[str, ...]:
        """Constants that are one number for the whole layer."""
        return tuple(name for name in self.constants if name not in self.varying)

    @property
    def arrays(self) -> tuple[str, ...]:
        """Constants that have a value per neuron."""
        return tuple(name for name in self.constants if name in self.varying)

    @property
    def label(self) -> str:
        """A short name for files and messages."""
        # of letters that every file system takes, and not too many
        name = re.sub(r"[^a-z0-9_]", "", self.spec.name.lower())[:40]
        parts = [name or "model", self.dtype, self.inhibition or "free"]
        parts += ["varying"] if self.varying else []
        return "_".join(parts + ([] if self.exact_order else ["rounded"]))


class Writer:
    """Turns checked expressions into source text for one dtype.

    Every numeric literal becomes a named constant of the layer's dtype, since ``0.5 * u`` would otherwise compute in
    float64 in a compiled loop (but not in torch); whole powers become products, and products become calls of
    `product` where a compiler would contract them with a sum.

    Parameters
    ----------
    product, quotient : str, optional
        Names of the functions that multiply and divide without contraction; None writes ``*`` and ``/``.
    """

    def __init__(self, product: str | None = None, quotient: str | None = None):
        self.product, self.quotient = product, quotient
        self.constants: dict[str, str] = {}

    def constant(self, value: float) -> str:
        """Return the name of the constant with this value."""
        return self.constants.setdefault(repr(float(value)), f"K{len(self.constants)}")

    def text(self, expression: ast.expr, names: dict[str, str]) -> str:
        """Return an expression's text with its names replaced."""
        return ast.unparse(self._write(expression, names))

    def _write(self, node: ast.expr, names: dict[str, str]) -> ast.expr:
        match node:
            case ast.Constant(value=int() | float() as value):
                return ast.Name(self.constant(value))
            case ast.Name(id=name):
                return ast.Name(names[name])
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self._write(operand, names)
            case ast.UnaryOp(op=op, operand=operand):
                return ast.UnaryOp(op, self._write(operand, names))
            case ast.BinOp(left=base, op=ast.Pow(), right=ast.Constant(value=int() as power)):
                factor = self._write(base, names)
                result = factor
                for _ in range(power - 1):
                    result = self._multiply(result, factor)
                return result
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return self._multiply(self._write(left, names), self._write(right, names))
            case ast.BinOp(left=left, op=ast.Div(), right=right) if self.quotient is not None:
                return ast.Call(
                    ast.Name(self.quotient), [self._write(left, names), self._write(right, names)], []
                )
            case ast.BinOp(left=left, op=op, right=right):
                return ast.BinOp(self._write(left, names), op, self._write(right, names))
            case ast.Compare(left=left, ops=ops, comparators=[right]):
                return ast.Compare(self._write(left, names), ops, [self._write(right, names)])
            case ast.Call(func=function, args=arguments):
                return ast.Call(function, [self._write(argument, names) for argument in arguments], [])
        raise AssertionError(f"unchecked expression {ast.dump(node)}")

    def _multiply(self, left: ast.expr, right: ast.expr) -> ast.expr:
        if self.product is None:
            return ast.BinOp(left, ast.Mult(), right)
        return ast.Call(ast.Name(self.product), [left, right], [])

    def inlined(self, function: Function, role: str, names: dict[str, str]) -> tuple[list[str], list[str]]:
        """Return a function's assignments as lines, and its returned expressions.

        `names` maps the arguments to the names of their values, which the lines never assign; the function's own
        names are of the kind of its role in the model.
        """
        names = dict(names)
        lines = []
        for target, expression in function.assignments:
            text = self.text(expression, names)
            names[target] = mangled(role, target)
            lines.append(f"{names[target]} = {text}")
        return lines, [self.text(expression, names) for expression in function.returns]

    def definition(self, function: Function, name: str) -> list[str]:
        """Return a function as the lines of a ``def``."""
        names = {argument: argument for argument in function.arguments}
        body = []
        for target, expression in function.assignments:
            body.append(f"    {target} = {self.text(expression, names)}")
            names[target] = target
        body.append(f"    return {self.text(function.returns[0], names)}")
        return [f"def {name}({', '.join(function.arguments)}):", *body]


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


def check_constants(spec: NeuronSpec, dtype: str) -> None:
    """Raise a ValueError for a constant of a model's functions that a dtype takes for infinite or for 0."""
    for role, function in spec.functions.items():
        trees = [tree for _, tree in function.assignments] + list(function.returns)
        for node in (node for tree in trees for node in ast.walk(tree)):
            if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
                with np.errstate(over="ignore"):
                    cast = np.dtype(dtype).type(node.value)
                if not np.isfinite(cast) or (cast == 0) != (node.value == 0):
                    raise ValueError(
                        f"{spec.name}.{role} has the constant {float(node.value):g}, which is {cast:g} in {dtype}: "
                        "use dtype='float64', or another constant"
                    )


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
