"""Reading a model's plain Python functions into checked, backend-neutral syntax trees.

Only straight-line arithmetic is let through, because the same lines must mean the same thing for a scalar in a compiled
loop, for a CUDA thread and for a whole tensor.  For the same reason the reader tells numbers from conditions: what a
comparison is in memory differs from backend to backend, so that a condition which is used as a number is read as
``where(condition, 1, 0)``, and a number is never taken for a condition.
"""

from __future__ import annotations

import ast
import builtins
import difflib
import inspect
import linecache
import math
import operator
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np

from spyke_numba import ops

#: Name and number of arguments of each function that a model may call.
VOCABULARY: Mapping[str, int] = {
    "exp": 1,
    "exp2": 1,
    "log": 1,
    "sqrt": 1,
    "tanh": 1,
    "abs": 1,
    "where": 3,
    "minimum": 2,
    "maximum": 2,
}

#: What the functions of `spyke_numba.compile.elementary` are written in; each backend supplies these.
PRIMITIVES: Mapping[str, int] = {
    "where": 3,
    "abs": 1,
    "sqrt": 1,
    "rint": 1,
    "fma": 3,
    "half_pow2": 1,
    "exponent": 1,
    "mantissa": 1,
    "twice_slope": 1,
    "expm1_reduced": 1,
}

_FOLD: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div)
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_MAX_POWER = 16
#: Operations inside each other, each of which takes several of the 1000 calls that Python nests.
_MAX_DEPTH = 100
#: Operations of one function once its powers are multiplied out: a compiler takes minutes over many more.
_MAX_OPERATIONS = 2000

Kind = Literal["number", "condition"]


@dataclass(frozen=True)
class Function:
    """A checked function: its name, argument names, assignments in order, and the returned expressions.

    Attributes
    ----------
    name : str
    arguments : tuple of str
    assignments : tuple of (str, ast.expr)
        ``name = expression`` lines, in order.
    returns : tuple of ast.expr
        One expression per returned value.
    """

    name: str
    arguments: tuple[str, ...]
    assignments: tuple[tuple[str, ast.expr], ...]
    returns: tuple[ast.expr, ...]

    def computed(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return what the function returns, computed by numpy from numbers or arrays by name.

        The function itself need not run on arrays: numpy's conditions are no numbers.
        """
        return self._by_numpy(*(values[name] for name in self.arguments))

    @cached_property
    def _by_numpy(self) -> Callable[..., tuple[Any, ...]]:
        lines = [f"def by_numpy({', '.join(self.arguments)}):"]
        lines += [f"    {name} = {ast.unparse(value)}" for name, value in self.assignments]
        lines.append(f"    return ({', '.join(map(ast.unparse, self.returns))},)")
        namespace = {name: getattr(ops, name) for name in VOCABULARY}
        exec("\n".join(lines), namespace)
        return namespace["by_numpy"]

    def calls(self) -> set[str]:
        """Return the names of the functions that this one calls."""
        trees = [expression for _, expression in self.assignments] + list(self.returns)
        return {node.func.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)}  # type: ignore[attr-defined]


def suggest(name: str, allowed: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` when an allowed name is close to `name`, else an empty string."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def listing(names: Iterable[str]) -> str:
    """Return names as ``a, b and c`` for an error message."""
    *head, last = sorted(names) or ["nothing"]
    return f"{', '.join(head)} and {last}" if head else last


def argument_names(function: Callable[..., object], owner: str) -> tuple[str, ...]:
    """Return the names of a function's plain positional arguments, by which its values are bound.

    Raises
    ------
    TypeError
        When it is not a function of plain named arguments without defaults.
    """
    if not callable(function):
        raise TypeError(f"{owner} is {function!r}: give a function of named scalars")
    arguments = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.POSITIONAL_ONLY) or (
            parameter.default is not parameter.empty
        ):
            raise TypeError(
                f"{owner} takes {parameter}: only plain arguments without defaults are bound by name, "
                "so make it a parameter of the model"
            )
        arguments.append(name)
    return tuple(arguments)


def read(function: Callable[..., object], owner: str, vocabulary: Mapping[str, int] = VOCABULARY) -> Function:
    """Parse and check one function of a model.

    Parameters
    ----------
    function : callable
        A plain ``def`` of named scalars: assignments, then one ``return``.
    owner : str
        How errors name it, such as ``"AdEx.membrane"``.
    vocabulary : mapping
        Functions that may be called, with their number of arguments.

    Raises
    ------
    TypeError, ValueError
        One sentence naming the line when anything but straight-line arithmetic is found.
    """
    arguments = argument_names(function, owner)
    if not isinstance(function, types.FunctionType) or hasattr(function, "__wrapped__"):
        raise TypeError(
            f"{owner} is {function!r}, no plain def: give the function itself, without a decorator"
        )
    try:
        source = textwrap.dedent(inspect.getsource(function))
        if not _is_what_runs(function):
            raise ValueError(
                f"the file of {owner} has changed since it was imported: start Python anew, or import it again"
            )
        tree = ast.parse(source)
    except (OSError, TypeError, SyntaxError):
        raise TypeError(
            f"the source of {owner} cannot be read: define it with def in a file, not in eval or lambda"
        ) from None
    except (RecursionError, MemoryError):
        raise ValueError(
            f"{owner} nests too many operations to be read: assign parts of them to names of their own"
        ) from None
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise TypeError(f"{owner} is not a plain def: write it as a def with assignments and one return")
    if definition.decorator_list:
        raise TypeError(
            f"{owner} is decorated with @{ast.unparse(definition.decorator_list[0])}, which compiled code would "
            "leave out: give the plain def"
        )
    reader = _Reader(owner, function, arguments, vocabulary, definition.lineno)
    return reader.read(definition)


def _is_what_runs(function: types.FunctionType) -> bool:
    """Return whether the text that was read compiles to the function that was imported."""
    code = function.__code__
    text = "".join(linecache.getlines(code.co_filename, function.__globals__))
    return any(_contents(again) == _contents(code) for again in _compiled(text, code.co_filename))


def _contents(code: types.CodeType) -> tuple[object, ...]:
    # constants as text, in which 1 is not 1.0, and NaN is NaN; the text of code has its address in memory
    constants = [_contents(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    names = code.co_names, code.co_varnames, code.co_freevars
    return code.co_name, code.co_firstlineno, code.co_code, constants, *names


@lru_cache(maxsize=16)
def _compiled(text: str, filename: str) -> tuple[types.CodeType, ...]:
    """Return the code of every function of a file's text."""
    try:
        module = compile(text, filename, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError:
        return ()
    return tuple(_functions_of(module))


def _functions_of(code: types.CodeType) -> Iterator[types.CodeType]:
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield inner
            yield from _functions_of(inner)


def _bound_to(function: types.FunctionType, name: str) -> object:
    """Return what a name means where a function was defined, None if nothing."""
    if name in function.__code__.co_freevars:
        cell = (function.__closure__ or ())[function.__code__.co_freevars.index(name)]
        try:
            return cell.cell_contents
        except ValueError:
            return None
    return function.__globals__.get(name, getattr(builtins, name, None))


class _Reader:
    # Checks one function and makes each conversion of a condition to a number explicit.

    def __init__(
        self,
        owner: str,
        function: types.FunctionType,
        arguments: tuple[str, ...],
        vocabulary: Mapping[str, int],
        first_line: int,
    ):
        self.owner = owner
        self.function = function
        self.arguments = arguments
        self.vocabulary = vocabulary
        self.known: dict[str, Kind] = dict.fromkeys(arguments, "number")
        self.line_offset = function.__code__.co_firstlineno - first_line
        self.depth = 0

    def fail(self, node: ast.AST, what: str) -> ValueError:
        line = getattr(node, "lineno", 0) + self.line_offset
        return ValueError(f"{self.owner}, line {line}: {what}")

    def read(self, definition: ast.FunctionDef) -> Function:
        body = list(definition.body)
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body = body[1:]
        if not body or not isinstance(body[-1], ast.Return) or body[-1].value is None:
            raise self.fail(definition, "the last line must return the new value (or a tuple of them)")
        assignments: list[tuple[str, ast.expr]] = []
        for statement in body[:-1]:
            name, value = self.assignment(statement)
            if name in self.vocabulary:
                raise self.fail(
                    statement, f"{name!r} is a function of the vocabulary: give the value another name"
                )
            kind, expression = self.typed(value)
            assignments.append((name, expression))
            self.known[name] = kind
        result = body[-1].value
        values = result.elts if isinstance(result, ast.Tuple) else [result]
        returns = tuple(self.number(value) for value in values)
        operations = sum(_operations(tree) for tree in (*(value for _, value in assignments), *returns))
        if operations > _MAX_OPERATIONS:
            raise self.fail(
                definition,
                f"it takes {operations} operations once its powers are multiplied out: "
                f"write it with at most {_MAX_OPERATIONS}, powers of powers by way of names of their own",
            )
        return Function(definition.name, self.arguments, tuple(assignments), returns)

    def assignment(self, statement: ast.stmt) -> tuple[str, ast.expr]:
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            target = ast.copy_location(ast.Name(statement.target.id, ast.Load()), statement)
            return target.id, ast.copy_location(ast.BinOp(target, statement.op, statement.value), statement)
        if (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            return statement.targets[0].id, statement.value
        if isinstance(statement, (ast.If, ast.While, ast.For, ast.Assert)):
            raise self.fail(
                statement,
                f"'{type(statement).__name__.lower()}' branches on values: use where(condition, a, b)",
            )
        raise self.fail(
            statement,
            f"{type(statement).__name__} is not allowed: write 'name = expression' lines and one return",
        )

    def number(self, node: ast.expr) -> ast.expr:
        """Return an expression as a number: 1 where a condition holds, else 0."""
        kind, expression = self.typed(node)
        if kind == "condition":
            return ast.Call(ast.Name("where"), [expression, ast.Constant(1), ast.Constant(0)], [])
        return expression

    def condition(self, node: ast.expr, taker: str) -> ast.expr:
        """Return an expression that is a condition already."""
        kind, expression = self.typed(node)
        if kind == "number":
            shown = _shown(node)
            raise self.fail(
                node, f"{shown} is a number, and {taker} takes conditions: compare it, as in {shown} > 0"
            )
        return expression

    def typed(self, node: ast.expr) -> tuple[Kind, ast.expr]:
        """Return an expression, checked, and what it is."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.fail(
                node,
                f"more than {_MAX_DEPTH} operations stand inside each other: assign parts to names of their own",
            )
        result = self._typed(node)
        self.depth -= 1
        return result

    def _typed(self, node: ast.expr) -> tuple[Kind, ast.expr]:
        match node:
            case ast.Constant(value=bool()) | ast.Constant(value=str()):
                raise self.fail(node, f"the constant {node.value!r} is not a number")
            case ast.Constant(value=int() | float() as value):
                self.check_constant(node, value)
                return "number", node
            case ast.Name(id=name):
                if name not in self.known:
                    raise self.fail(
                        node,
                        f"unknown name {name!r}{suggest(name, self.known)}: "
                        "make it an argument that is a parameter, a derived constant or a state of the model",
                    )
                return self.known[name], node
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                return "number", self.folded(node, ast.UnaryOp(sign, self.number(operand)))
            case ast.UnaryOp():
                raise self.fail(
                    node,
                    f"{_shown(node)} negates a condition: write the opposite comparison, or where(condition, 0, 1)",
                )
            case ast.BinOp(op=ast.Pow(), left=left, right=right):
                if not (
                    isinstance(right, ast.Constant)
                    and type(right.value) is int
                    and 1 <= right.value <= _MAX_POWER
                ):
                    raise self.fail(
                        node,
                        f"the exponent of ** must be a whole number from 1 to {_MAX_POWER}: use sqrt, exp and log",
                    )
                return "number", self.folded(node, ast.BinOp(self.number(left), ast.Pow(), right))
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr() as op, left=left, right=right):
                taker = "&" if isinstance(op, ast.BitAnd) else "|"
                return "condition", ast.BinOp(self.condition(left, taker), op, self.condition(right, taker))
            case ast.BinOp(op=op, left=left, right=right) if isinstance(op, _ARITHMETIC):
                return "number", self.folded(node, ast.BinOp(self.number(left), op, self.number(right)))
            case ast.Compare(ops=[op], left=left, comparators=[right]) if isinstance(op, _COMPARISONS):
                return "condition", ast.Compare(self.number(left), [op], [self.number(right)])
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                self.check_call(node, name, len(args))
                first = [self.condition(args[0], "where") if name == "where" else self.number(args[0])]
                return "number", ast.Call(node.func, first + [self.number(value) for value in args[1:]], [])
            case ast.IfExp() | ast.BoolOp():
                raise self.fail(
                    node, "branches on values: use where(condition, a, b), and & or | between conditions"
                )
            case ast.Compare():
                raise self.fail(node, "one comparison at a time: join two with &, each in parentheses")
            case ast.Call():
                raise self.fail(
                    node, f"call functions by their plain names: allowed are {listing(self.vocabulary)}"
                )
            case _:
                raise self.fail(node, f"{_shown(node)} is not straight-line arithmetic of named scalars")

    def folded(self, node: ast.expr, expression: ast.expr) -> ast.expr:
        """Compute what is constant, in float64: ``1 / 3`` must not depend on a backend's own division of literals."""
        match expression:
            case ast.UnaryOp(op=op, operand=ast.Constant(value=int() | float() as value)):
                return ast.Constant(-float(value) if isinstance(op, ast.USub) else float(value))
            case ast.BinOp(
                left=ast.Constant(value=int() | float() as left),
                op=op,
                right=ast.Constant(value=int() | float() as right),
            ):
                try:
                    value = float(
                        _FOLD[type(op)](float(left), right if isinstance(op, ast.Pow) else float(right))
                    )
                except (ZeroDivisionError, OverflowError):
                    raise self.fail(node, f"the constant {_shown(node)} is not a number: change it") from None
                self.check_constant(node, value)
                return ast.Constant(value)
        return expression

    def check_constant(self, node: ast.expr, value: float) -> None:
        try:
            finite = math.isfinite(float(value))
        except OverflowError:
            finite = False
        # elementary functions, whose vocabulary is another, return infinity and NaN on purpose
        if not finite and self.vocabulary is VOCABULARY:
            raise self.fail(node, "a constant is beyond float64: give numbers below 1.8e308")

    def check_call(self, node: ast.Call, name: str, given: int) -> None:
        if name not in self.vocabulary:
            raise self.fail(
                node,
                f"unknown function {name!r}{suggest(name, self.vocabulary)}: "
                f"allowed are {listing(self.vocabulary)}",
            )
        if given != self.vocabulary[name] or any(isinstance(value, ast.Starred) for value in node.args):
            raise self.fail(node, f"{name} takes {self.vocabulary[name]} argument(s), not {given}")
        bound = _bound_to(self.function, name)
        if bound is not None and bound is not getattr(ops, name, None) and not _is_library(bound, name):
            raise self.fail(
                node,
                f"{name} is {getattr(bound, '__module__', '?')}.{getattr(bound, '__qualname__', '?')} there, "
                "not the vocabulary's: import it from spyke_numba.ops, or give your own function's lines here",
            )


def _is_library(function: object, name: str) -> bool:
    """Return whether it is numpy's, torch's or Python's own function of that name."""
    if getattr(function, "__name__", "") not in (name, *(("absolute", "fabs") if name == "abs" else ())):
        return False
    module = getattr(function, "__module__", None) or ""
    return isinstance(function, (np.ufunc, types.BuiltinFunctionType)) or module.split(".")[0] in (
        "numpy",
        "torch",
    )


def _operations(node: ast.AST) -> int:
    """Return how many operations an expression has, powers being products."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        power: int = node.right.value  # type: ignore[attr-defined]
        return power * _operations(node.left) + power - 1
    below = sum(_operations(child) for child in ast.iter_child_nodes(node))
    return below + isinstance(node, (ast.BinOp, ast.UnaryOp, ast.Compare, ast.Call))


def _shown(node: ast.expr) -> str:
    """Return an expression's text for a message, shortened."""
    try:
        text = ast.unparse(node)
    except RecursionError:
        return "it"
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
