"""Reading a model's plain Python functions into checked, backend-neutral syntax trees.

Only straight-line arithmetic is let through, because the same lines must mean the same thing for a scalar in a compiled
loop, for a CUDA thread and for a whole tensor.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

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

#: What the elementary functions are themselves written in; each backend supplies these (see `spyke_numba.elementary`).
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

_BINARY = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.BitAnd, ast.BitOr)
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_MAX_POWER = 16


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
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError, IndentationError):
        raise TypeError(
            f"the source of {owner} cannot be read: define it with def in a file, not in eval or lambda"
        ) from None
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise TypeError(f"{owner} is not a plain def: write it as a def with assignments and one return")
    reader = _Reader(owner, arguments, vocabulary, function.__code__.co_firstlineno - definition.lineno)
    return reader.read(definition)


class _Reader:
    def __init__(
        self, owner: str, arguments: tuple[str, ...], vocabulary: Mapping[str, int], line_offset: int
    ):
        self.owner = owner
        self.arguments = arguments
        self.vocabulary = vocabulary
        self.known = set(arguments)
        self.line_offset = line_offset

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
            self.check(value)
            assignments.append((name, value))
            self.known.add(name)
        result = body[-1].value
        returns = tuple(result.elts) if isinstance(result, ast.Tuple) else (result,)
        for value in returns:
            self.check(value)
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

    def check(self, node: ast.expr) -> None:
        match node:
            case ast.Constant(value=bool()) | ast.Constant(value=str()):
                raise self.fail(node, f"the constant {node.value!r} is not a number")
            case ast.Constant(value=int() | float()):
                return
            case ast.Name(id=name):
                if name not in self.known:
                    raise self.fail(
                        node,
                        f"unknown name {name!r}{suggest(name, self.known)}: "
                        "make it an argument that is a parameter, a derived constant or a state of the model",
                    )
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                self.check(operand)
            case ast.BinOp(op=ast.Pow(), left=left, right=right):
                self.check(left)
                if not (
                    isinstance(right, ast.Constant)
                    and type(right.value) is int
                    and 1 <= right.value <= _MAX_POWER
                ):
                    raise self.fail(
                        node,
                        f"the exponent of ** must be a whole number from 1 to {_MAX_POWER}: use sqrt, exp and log",
                    )
            case ast.BinOp(op=op, left=left, right=right) if isinstance(op, _BINARY):
                self.check(left)
                self.check(right)
            case ast.Compare(ops=[op], left=left, comparators=[right]) if isinstance(op, _COMPARISONS):
                self.check(left)
                self.check(right)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                if name not in self.vocabulary:
                    raise self.fail(
                        node,
                        f"unknown function {name!r}{suggest(name, self.vocabulary)}: "
                        f"allowed are {listing(self.vocabulary)}",
                    )
                if len(args) != self.vocabulary[name]:
                    raise self.fail(
                        node, f"{name} takes {self.vocabulary[name]} argument(s), not {len(args)}"
                    )
                for argument in args:
                    self.check(argument)
            case ast.IfExp() | ast.BoolOp():
                raise self.fail(
                    node, "branches on values: use where(condition, a, b), and & or | between conditions"
                )
            case ast.Compare():
                raise self.fail(node, "one comparison at a time: join two with &")
            case ast.Call():
                raise self.fail(
                    node, f"call functions by their plain names: allowed are {listing(self.vocabulary)}"
                )
            case _:
                raise self.fail(
                    node, f"'{ast.unparse(node)}' is not straight-line arithmetic of named scalars"
                )
