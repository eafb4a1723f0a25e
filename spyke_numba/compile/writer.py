"""Checked expressions as source text, and the names that models have in it."""

from __future__ import annotations

import ast

from spyke_numba.model.expressions import Function


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
