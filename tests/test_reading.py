"""What is read of a model is what Python would run: its own text, its own functions, conditions apart from numbers."""

from __future__ import annotations

import linecache
import os
import time
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written import imported

from spyke_numba import Layer, NeuronSpec
from spyke_numba.backends import Backend
from spyke_numba.ops import exp, where


def run(membrane: Any, x: Any, backend: Any, **more: Any) -> Any:
    spec = NeuronSpec(name="Read", membrane=membrane, **more)
    layer = Layer(spec(threshold=100.0), (len(x),), backend=backend)
    return layer.run(np.array(x, float)[None, None], ("u_pre",)).u_pre[0, 0].tolist()


# -- conditions


def masked(u, I):
    return u * 0.5 + I * (I > 0)


def as_value(I):
    return I > 0.5


def magnitude(I):
    return abs(I > 0)


def negative(I):
    return -(I > 0)


def counted(I):
    return (I > 0) + (I > 1) + (I > 2)


def of_exp(I):
    return exp(I > 0)


def by_name(I):
    above = I > 0
    return where(above & (I < 2), above + 1, I)


def compared(I):
    return (I > 0) == (I > 1)


def powers(I):
    return (I > 0) ** 3 + 2 * (I < 0)


@pytest.mark.parametrize(
    ("membrane", "expected"),
    [
        (masked, [0, 0, 1, 3]),
        (as_value, [0, 0, 1, 1]),
        (magnitude, [0, 0, 1, 1]),
        (negative, [0, 0, -1, -1]),
        (counted, [0, 0, 1, 3]),
        (of_exp, [1, 1, np.exp(np.float32(1)), np.exp(np.float32(1))]),
        (by_name, [-2, 0, 2, 3]),
        (compared, [1, 1, 0, 1]),
        (powers, [2, 0, 1, 1]),
    ],
)
def test_a_condition_as_a_number_is_0_or_1(membrane: Any, expected: list[float], backend: Backend) -> None:
    assert run(membrane, [-2.0, 0.0, 1.0, 3.0], backend) == pytest.approx(expected, rel=1e-7, abs=0)


def chosen_by_number(u, I):
    return where(I, u, 0.0)


def joined_numbers(u, I):
    return u & I


def joined_half(u, I):
    return ((u > 0) | I) * 1.0


def negated(u, I):
    return where(not u > I, u, 0.0)


def inverted(u, I):
    return where(~(u > I), u, 0.0)


def both(u, I):
    return where(u > 0 and I > 0, u, 0.0)


def chained_by_and(u, I):
    return where(u > 0 & I > 0, u, 0.0)


@pytest.mark.parametrize(
    ("membrane", "message"),
    [
        (chosen_by_number, "'I' is a number, and where takes conditions: compare it, as in 'I' > 0"),
        (joined_numbers, "'u' is a number, and & takes conditions"),
        (joined_half, r"'I' is a number, and \| takes conditions"),
        (negated, "negates a condition: write the opposite comparison"),
        (inverted, "negates a condition"),
        (both, "use where.*, and & or | between conditions"),
        (chained_by_and, "one comparison at a time: join two with &, each in parentheses"),
    ],
)
def test_a_number_is_no_condition(membrane: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        NeuronSpec(name="Wrong", membrane=membrane)
    assert "\n" not in str(caught.value)


# -- the function itself


def twice(function: Any) -> Any:
    @wraps(function)
    def doubled(*values: Any) -> Any:
        return 2 * function(*values)

    return doubled


@twice
def decorated(u, I):
    return u + I


@lru_cache
def cached(u, I):
    return u + I


class Callable_:
    def __call__(self, u, I):
        return u + I


@pytest.mark.parametrize("membrane", [decorated, cached, Callable_(), Callable_().__call__])
def test_only_a_plain_function_is_read(membrane: Any) -> None:
    with pytest.raises(TypeError, match="no plain def: give the function itself") as caught:
        NeuronSpec(name="Wrong", membrane=membrane)
    assert "\n" not in str(caught.value)


def test_a_decorator_that_leaves_no_trace_is_seen(tmp_path: Path) -> None:
    text = "def same(function):\n    return function\n\n\n@same\ndef membrane(u, I):\n    return u + I\n"
    with pytest.raises(TypeError, match="decorated with @same"):
        NeuronSpec(name="Wrong", membrane=imported(tmp_path, text).membrane)


@pytest.mark.parametrize("change", [("u + I", "u - I"), ("0.5", "0.25"), ("def", "\ndef"), ("exp", "tanh")])
def test_a_file_that_changed_since_its_import_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    text = "from spyke_numba.ops import exp, tanh\n\n\n"
    text += "def membrane(u, I):\n    x = 0.5 * exp(u)\n    return u + I + x\n"
    module = imported(tmp_path, text)
    NeuronSpec(name="Right", membrane=module.membrane)
    path = Path(module.__file__ or "")
    head, body = text[:40], text[40:]
    path.write_text(head + body.replace(*change))
    later = time.time() + 10
    os.utime(path, (later, later))
    with pytest.raises((TypeError, ValueError), match=r"has changed since it was imported|cannot be read"):
        NeuronSpec(name="Wrong", membrane=module.membrane)
    linecache.checkcache(str(path))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("    def inner(x):\n        return x\n\n    return u + I\n", "line 2: FunctionDef is not allowed"),
        ("    return u + max([I for _ in (1, 2)])\n", "line 2: unknown function 'max'"),
        ("    return lambda: u\n", "line 2: 'lambda: u' is not straight-line arithmetic"),
    ],
)
def test_a_function_in_a_function_is_no_change_of_the_file(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeuronSpec(name="Wrong", membrane=imported(tmp_path, f"def membrane(u, I):\n{lines}").membrane)


def own_exp(x):
    return x + 1


def test_a_function_of_ones_own_by_a_name_of_the_vocabulary_is_refused(tmp_path: Path) -> None:
    text = "def exp(x):\n    return x + 1\n\n\ndef membrane(u, I):\n    return exp(u) + I\n"
    module = imported(tmp_path, text)
    assert module.membrane(0.0, 0.0) == 1.0
    with pytest.raises(ValueError, match=r"not the vocabulary's: import it from spyke_numba\.ops"):
        NeuronSpec(name="Wrong", membrane=module.membrane)
    local = text.replace("return exp(u)", "exp = 2 * u\n    return exp + exp(u)")
    with pytest.raises(
        ValueError, match="'exp' is a function of the vocabulary: give the value another name"
    ):
        NeuronSpec(name="Wrong", membrane=imported(tmp_path, local).membrane)
    for library in ("from numpy import exp", "from math import exp", "from spyke_numba.ops import exp"):
        NeuronSpec(
            name="Right", membrane=imported(tmp_path, library + text[text.index("\n\n\ndef m") :]).membrane
        )


def test_a_function_is_found_around_a_function(tmp_path: Path) -> None:
    text = (
        "def make():\n    from spyke_numba.ops import tanh as exp\n\n"
        "    def membrane(u, I):\n        return exp(u) + I\n\n    return membrane\n"
    )
    # numpy's tanh by the name of exp: a library's function, but another one
    with pytest.raises(ValueError, match="not the vocabulary's"):
        NeuronSpec(name="Wrong", membrane=imported(tmp_path, text).make())


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (" + ".join(["u"] * 500), "more than 100 operations stand inside each other"),
        ("(((u ** 16) ** 16) ** 16) ** 16", "takes 65535 operations once its powers are multiplied out"),
        ("u * 1" + "0" * 299, None),
        ("u * 1" + "0" * 400, "a constant is beyond float64"),
        ("u * 1e200 * (1e200 * 1e200)", "a constant is beyond float64"),
        ("u * 1e400", "a constant is beyond float64"),
        ("(" * 150 + "u" + ")" * 150, None),
        ("-" * 3000 + "u", "nests too many|more than 100|cannot be read"),
        ("u * (1 / 0)", "'1 / 0' is not a number"),
        ("u * 0 ** 2 + I", None),
    ],
)
def test_what_is_too_large_is_refused(expression: str, message: str | None, tmp_path: Path) -> None:
    text = f"def membrane(u, I):\n    return {expression}\n"
    try:
        membrane = imported(tmp_path, text).membrane
    except (RecursionError, MemoryError, SyntaxError):
        pytest.skip("Python itself does not read it")
    if message is None:
        NeuronSpec(name="Right", membrane=membrane)
        return
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        NeuronSpec(name="Wrong", membrane=membrane)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def huge(u, I):
    return u * 1e300 + I


def tiny(u, I):
    return u / 1e-300 + I


@pytest.mark.parametrize(
    ("membrane", "shown"), [(huge, r"1e\+300, which is inf"), (tiny, "1e-300, which is 0")]
)
def test_a_constant_that_float32_cannot_hold_is_refused(membrane: Any, shown: str) -> None:
    neuron = NeuronSpec(name="Large", membrane=membrane)(threshold=1.0)
    Layer(neuron, (2,), backend="cpu", dtype="float64")
    with pytest.raises(ValueError, match=shown + " in float32: use dtype='float64'"):
        Layer(neuron, (2,), backend="cpu", dtype="float32")


def only_parameters(p, q):
    return where(p > q, p, q)


def test_a_membrane_of_parameters_alone_fills_the_layer(backend: Backend) -> None:
    assert run(only_parameters, [1.0, 2.0], backend, params={"p": 0.5, "q": 0.25}) == [0.5, 0.5]


def chosen_by_parameter(u, I, p):
    return where(p > 0, p, u + I)


def test_a_parameter_that_chooses_fills_the_layer(backend: Backend) -> None:
    assert run(chosen_by_parameter, [1.0, 2.0], backend, params={"p": 0.5}) == [0.5, 0.5]


def test_names_are_as_python_reads_them(tmp_path: Path) -> None:
    module = imported(tmp_path, "def membrane(u, I, µ):\n    return u + I * µ\n")
    spec = NeuronSpec(name="Micro", membrane=module.membrane, params={"\u00b5": 2.0})
    given = {"\u00b5": 3.0, "threshold": 1.0}
    assert spec(**given).given["\u03bc"] == 3.0
    with pytest.raises(ValueError, match="twice"):
        NeuronSpec(name="Micro", membrane=module.membrane, params={"\u00b5": 2.0, "\u03bc": 2.0})


def half_rectified(u, I, w, p):
    return u + p * ((I > 0) + (I > 1)) - w * (-(u > 0))


def rectified(w, u):
    return w + 0.5 * ((u > 0) + (u > 1))


def test_figures_compute_what_layers_do() -> None:
    """numpy's own sum of two conditions is a condition, and it has no negative of one."""
    spec = NeuronSpec(
        name="Rectified",
        membrane=half_rectified,
        adaptation=rectified,
        states={"w": 0.25},
        params={"p": 0.5},
    )
    u = np.array([[-1.0, 0.5, 2.0]])
    given = {"u": u, "I": 3.0, "w": 0.25, "p": 0.5}
    layer = Layer(spec(threshold=100.0, refractory_timesteps=0), (3,), backend="cpu", dtype="float64")
    layer.state = {"u": u, "w": np.full((1, 3), 0.25), "refractory": np.zeros((1, 3), int)}
    recording = layer.run(np.full((1, 1, 3), 3.0), ("u", "w"))
    (new_u,) = spec.functions["membrane"].computed(given)
    np.testing.assert_array_equal(new_u, [[0.0, 1.75, 3.25]])
    np.testing.assert_array_equal(recording.u[0], new_u)
    np.testing.assert_array_equal(recording.w[0], [[0.25, 0.75, 1.25]])


def test_rules_mean_the_same_for_numbers_and_arrays() -> None:
    derived = {"k": lambda p, q: (p > 0) + (q > 0) + 0.5}
    spec = NeuronSpec(name="Ruled", membrane=with_rule, params={"p": 1.0, "q": 1.0}, derived=derived)
    one = Layer(spec(threshold=1.0), (2,), backend="cpu").parameters["k"]
    each = Layer(spec(threshold=1.0, p=[1.0, 1.0]), (2,), backend="cpu").parameters["k"]
    assert one == each[0] == each[1]


def with_rule(u, I, k):
    return u + I * k
