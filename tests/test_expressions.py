"""Random functions of models mean the same on every backend and in plain numpy, or are refused when they are made."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import assert_same
from written import imported

from spyke_numba import Layer, NeuronSpec
from spyke_numba.backends import Backend

#: A tree: its text, what it is, and its value for numpy arrays by name.
Tree = tuple[str, str, Callable[[dict[str, Any]], Any]]

STATES = tuple(f"s{i}" for i in range(12))
PARAMS = {"p": 0.75, "q": -1.5}
NAMES = ("u", "I", "u_new", *STATES[:4], *PARAMS)
CONSTANTS = ("0.5", "2", "3.0", "1e-3", "7", "1e20", "1e-40")
UNARY = {"abs": np.abs, "sqrt": np.sqrt}
#: What has a numpy value to the last bit, and what has not.
ELEMENTARY = ("exp", "exp2", "log", "tanh")
COMPARISONS: dict[str, Any] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}
ARITHMETIC: dict[str, Any] = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}
STEPS = 4


def as_number(kind: str, value: Any, like: Any) -> Any:
    return value.astype(like.dtype) if kind == "condition" else value


class Grower:
    """Grows typed trees; with `elementary`, of functions too whose last bit numpy does not promise."""

    def __init__(self, seed: int, elementary: bool):
        self.random = random.Random(seed)
        self.elementary = elementary

    def number(self, depth: int, constant: bool = True) -> Tree:
        """A tree where a number is wanted, which a condition may stand for."""
        draw = self.random
        if depth == 0 or draw.random() < 0.1:
            if constant and draw.random() < 0.25:
                text = draw.choice(CONSTANTS)
                return text, "number", lambda names: names["I"].dtype.type(float(text))
            name = draw.choice(NAMES)
            return name, "number", lambda names: names[name]
        kind = draw.choice(
            ["arithmetic"] * 4 + ["negative", "power", "call", "extreme", "where", "where", "condition"]
        )
        if kind == "condition":
            return self.condition(depth - 1)
        if kind == "arithmetic":
            sign = draw.choice(list(ARITHMETIC))
            a, b = self.value(depth - 1, constant=False), self.value(depth - 1)
            # of two that are constants, the reader computes the value in float64
            if draw.random() < 0.5:
                a, b = b, a
            apply = ARITHMETIC[sign]
            return f"({a[0]} {sign} {b[0]})", "number", lambda names: apply(a[2](names), b[2](names))
        if kind == "negative":
            a = self.value(depth - 1, constant=False)
            return f"(-{a[0]})", "number", lambda names: -a[2](names)
        if kind == "power":
            a, power = self.value(depth - 1, constant=False), draw.randint(1, 4)

            def raised(names: dict[str, Any]) -> Any:
                factor = result = a[2](names)
                for _ in range(power - 1):
                    result = result * factor
                return result

            return f"({a[0]} ** {power})", "number", raised
        if kind == "call":
            name = draw.choice([*UNARY, *(ELEMENTARY * self.elementary)])
            a = self.value(depth - 1, constant=False)
            return f"{name}({a[0]})", "number", lambda names: UNARY[name](a[2](names))
        if kind == "extreme":
            name = draw.choice(["minimum", "maximum"])
            relation = np.less if name == "minimum" else np.greater
            a, b = self.value(depth - 1), self.value(depth - 1)

            def extreme(names: dict[str, Any]) -> Any:
                first, second = a[2](names), b[2](names)
                return np.where(relation(first, second), first, second)

            return f"{name}({a[0]}, {b[0]})", "number", extreme
        c, a, b = self.condition(depth - 1), self.value(depth - 1), self.value(depth - 1)
        text = f"where({c[0]}, {a[0]}, {b[0]})"
        return text, "number", lambda names: np.where(c[2](names), a[2](names), b[2](names))

    def value(self, depth: int, constant: bool = True) -> Tree:
        """A tree of any kind, its value taken as a number."""
        text, kind, value = self.number(depth, constant)
        return text, "number", lambda names: as_number(kind, value(names), names["I"])

    def condition(self, depth: int) -> Tree:
        draw = self.random
        if depth > 1 and draw.random() < 0.3:
            sign, apply = draw.choice([("&", np.logical_and), ("|", np.logical_or)])
            a, b = self.condition(depth - 1), self.condition(depth - 1)
            return f"({a[0]} {sign} {b[0]})", "condition", lambda names: apply(a[2](names), b[2](names))
        sign = draw.choice(list(COMPARISONS))
        a, b = self.value(max(depth - 1, 0), constant=False), self.value(max(depth - 1, 0))
        relation = COMPARISONS[sign]
        return f"({a[0]} {sign} {b[0]})", "condition", lambda names: relation(a[2](names), b[2](names))


def grown(seed: int, elementary: bool, folder: Path) -> tuple[NeuronSpec, Tree, list[Tree]]:
    """Return a model whose membrane and states are random trees, and the trees."""
    grower = Grower(seed, elementary)
    membrane = grower.value(4)
    while "u_new" in membrane[0]:
        membrane = grower.value(4)
    trees = [grower.value(5) for _ in STATES]
    constants = ", ".join(PARAMS)
    text = "from spyke_numba.ops import abs, exp, exp2, log, maximum, minimum, sqrt, tanh, where\n\n\n"
    text += f"def membrane(u, I, {', '.join(STATES[:4])}, {constants}):\n    return {membrane[0]}\n\n\n"
    text += f"def adaptation(u, I, u_new, {', '.join(STATES)}, {constants}):\n"
    # half of them by way of a local name, as conditions too
    for state, tree in zip(STATES[::2], trees[::2], strict=True):
        text += f"    of_{state} = {tree[0]}\n"
    values = [
        f"of_{state}" if i % 2 == 0 else tree[0]
        for i, (state, tree) in enumerate(zip(STATES, trees, strict=True))
    ]
    text += f"    return {', '.join(values)}\n"
    module = imported(folder, text)
    spec = NeuronSpec(
        name="Grown",
        membrane=module.membrane,
        adaptation=module.adaptation,
        states=dict.fromkeys(STATES, 0.0),
        params=PARAMS,
    )
    return spec, membrane, trees


def hostile(dtype: str, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers of which many are special: signed zeros, infinities, NaN, subnormal, largest, equal."""
    generator = np.random.default_rng(seed)
    info = np.finfo(dtype)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, 2.0]
    special += [info.tiny / 4, -info.tiny / 4, info.max, -info.max, info.tiny, info.eps, 1 + info.eps]
    values = generator.normal(0, 3, shape)
    chosen = generator.random(shape) < 0.4
    return np.where(chosen, generator.choice(special, shape), values).astype(dtype)


def advanced(spec: NeuronSpec, dtype: str, seed: int, backend: Any) -> Any:
    """Run a grown model from hostile states on hostile input, and record everything."""
    N = 48
    layer = Layer(
        spec(threshold=float(np.finfo(dtype).max), refractory_timesteps=0),
        (N,),
        1,
        backend=backend,
        dtype=dtype,
        nan="ignore",
    )
    names = ("u", *STATES)
    layer.state = {
        **{name: hostile(dtype, seed + i, (1, N)) for i, name in enumerate(names)},
        "refractory": np.zeros((1, N), int),
    }
    return layer.run(hostile(dtype, seed + 99, (STEPS, 1, N)), ("u_pre", "u", *STATES))


def computed(membrane: Tree, trees: list[Tree], dtype: str, seed: int) -> dict[str, np.ndarray]:
    """Compute the same by a plain loop over the steps in numpy."""
    N = 48
    now = {name: hostile(dtype, seed + i, (1, N)) for i, name in enumerate(("u", *STATES))}
    constants = {name: np.dtype(dtype).type(value) for name, value in PARAMS.items()}
    x = hostile(dtype, seed + 99, (STEPS, 1, N))
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("u_pre", "u", *STATES)}
    with np.errstate(all="ignore"):
        for t in range(STEPS):
            names = {**now, **constants, "I": x[t]}
            names["u_new"] = np.broadcast_to(np.asarray(membrane[2](names), dtype), (1, N)).copy()
            new = [np.broadcast_to(np.asarray(tree[2](names), dtype), (1, N)).copy() for tree in trees]
            spiked = names["u_new"] >= np.finfo(dtype).max
            now = dict(zip(STATES, new, strict=True))
            now["u"] = np.where(spiked, np.dtype(dtype).type(0), names["u_new"])
            for name in ("u", *STATES):
                rows[name].append(now[name])
            rows["u_pre"].append(names["u_new"])
    return {name: np.stack(values) for name, values in rows.items()}


def check_bits(recording: Any, expected: Any) -> None:
    """Assert equal numbers, the sign of a zero too; any NaN equals any NaN."""
    for name in recording.names:
        a, b = np.asarray(recording[name]), np.asarray(expected[name])
        same = ((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))
        if not same.all():
            at = tuple(np.argwhere(~same)[0])
            raise AssertionError(f"{name} differs first at {at}: {a[at]} and {b[at]}")


def test_the_comparison_can_fail() -> None:
    check_bits(_Arrays(a=np.array([0.0, np.nan])), {"a": np.array([0.0, -np.nan])})
    with pytest.raises(AssertionError, match="a differs"):
        check_bits(_Arrays(a=np.array([0.0])), {"a": np.array([-0.0])})


class _Arrays(dict):
    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self)


@pytest.mark.exhaustive(but=lambda seed, backend: backend != "cpu" or seed == 1)
@pytest.mark.parametrize(("seed", "dtype"), [(1, "float32"), (2, "float64"), (3, "float32")])
def test_random_functions_are_what_numpy_computes(
    seed: int, dtype: str, backend: Backend, tmp_path: Path
) -> None:
    """Thirteen trees a model, of everything but the elementary functions, from and with special values."""
    spec, membrane, trees = grown(seed, False, tmp_path)
    check_bits(advanced(spec, dtype, seed, backend), computed(membrane, trees, dtype, seed))


@pytest.mark.exhaustive(but=lambda seed: seed == 12)
@pytest.mark.parametrize(("seed", "dtype"), [(11, "float32"), (12, "float64")])
def test_random_functions_are_the_same_everywhere(
    seed: int, dtype: str, other_backend: Backend, tmp_path: Path
) -> None:
    """The whole vocabulary: what numpy computes otherwise in the last bit is compared between backends."""
    spec, _, _ = grown(seed, True, tmp_path)
    expected = advanced(spec, dtype, seed, "cpu")
    check_bits(advanced(spec, dtype, seed, other_backend), expected)
    assert_same(advanced(spec, dtype, seed, other_backend), expected)
