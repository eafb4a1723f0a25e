"""A specification is checked when it is made, and says in one sentence what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spyke_numba import Layer, LogNormal, NeuronSpec, Normal, Param, Requirement, Uniform, models
from spyke_numba.ops import exp

# ruff: noqa: F821 - some functions name what does not exist, on purpose


def good(u, I, gain):
    return u + I * gain


def unknown_name(u, I):
    return u + I * gain


def unknown_function(u, I):
    return sigmoid(u) + I


def attribute_call(u, I):
    return np.exp(u) + I


def branch(u, I):
    if u > 0:
        u = u + I
    return u


def conditional(u, I):
    return u if u > 0 else I


def boolean(u, I):
    return (u > 0 and I > 0) * u


def chained(u, I):
    return (0 < u < 1) * I


def real_power(u, I):
    return u**0.5 + I


def loop(u, I):
    for _ in range(3):
        u = u + I
    return u


def no_return(u, I):
    u = u + I


def with_default(u, I, gain=2.0):
    return u + gain * I


def wrong_arity(u, I):
    return exp(u, I)


def two_values(u, I):
    return u, I


def text(u, I):
    return u + I * "1"


def divides_by_zero(u, I):
    return u + I * (1 / 0)


@pytest.mark.parametrize(
    ("membrane", "message"),
    [
        (unknown_name, r"unknown name 'gain'"),
        (unknown_function, r"unknown function 'sigmoid'.*allowed are abs"),
        (attribute_call, r"plain names"),
        (branch, r"'if' branches on values: use where"),
        (conditional, r"branches on values: use where"),
        (boolean, r"branches on values"),
        (chained, r"one comparison at a time"),
        (real_power, r"exponent of \*\* must be a whole number"),
        (loop, r"'for' branches"),
        (no_return, r"must return"),
        (with_default, r"takes gain=2.0: only plain arguments"),
        (wrong_arity, r"exp takes 1 argument\(s\), not 2"),
        (two_values, r"returns 2 value\(s\): return the new potential"),
        (text, r"not a number"),
        (divides_by_zero, r"'1 / 0' is not a number"),
        (3.0, r"give a function"),
        (lambda u, I: u + I, r"def"),
    ],
)
def test_a_wrong_function_is_refused(membrane: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        NeuronSpec(name="Wrong", membrane=membrane, params={"other": 1.0})
    assert "\n" not in str(caught.value)


def test_the_line_is_named() -> None:
    with pytest.raises(ValueError, match=rf"line {branch.__code__.co_firstlineno + 1}:"):
        NeuronSpec(name="Wrong", membrane=branch)


def adapt_one(w):
    return w


def adapt_unknown(w, v):
    return w + v


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "not a name"}, "identifier"),
        ({"params": {"gain": Param(None)}}, "'gain' of Wrong has no default"),
        ({"params": {"threshold": 1.0, "gain": 1.0}}, "also a shared parameter"),
        ({"params": {"exp": 1.0, "gain": 1.0}}, "a name of the engine"),
        ({"params": {}}, "takes 'gain'"),
        ({"params": {"gian": 1.0}}, r"did you mean 'gian'\?"),
        ({"states": {"gain": 0.0}}, "also a parameter"),
        ({"states": {"w": lambda x: x}}, "initial value of 'w'.*'x'"),
        (
            {"states": {"w": 0.0, "v": 0.0}, "adaptation": adapt_one},
            r"returns 1 value\(s\): return each of w, v",
        ),
        ({"states": {"w": 0.0}, "adaptation": adapt_unknown}, "takes 'v'"),
        ({"adaptation": adapt_one}, "takes 'w'|no state"),
        ({"derived": {"k": 3.0}}, "derived constant 'k'"),
        ({"derived": {"k": lambda z: z}}, "'z'"),
        ({"defaults": {"gain": 3.0}}, "not a shared parameter"),
        ({"requires": (Requirement(lambda q: q > 0, "no"),)}, "'q'"),
    ],
)
def test_a_wrong_description_is_refused(change: dict[str, Any], message: str) -> None:
    description: dict[str, Any] = {"name": "Wrong", "membrane": good, "params": {"gain": 1.0}}
    NeuronSpec(**description)
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        NeuronSpec(**{**description, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({}, TypeError, "needs threshold"),
        ({"threshold": None}, TypeError, "needs threshold"),
        ({"threshold": 1.0, "tau": 0.02}, TypeError, r"no parameter 'tau' \(did you mean 'ta"),
        ({"threshold": "high"}, TypeError, "give a number, an array of numbers or a distribution"),
        ({"threshold": float("nan")}, ValueError, "threshold of LIF is nan: give finite numbers"),
        ({"threshold": 1.0, "tau_rc": 0.0}, ValueError, "tau_rc of LIF is 0: it must be above 0"),
        ({"threshold": 1.0, "tau_rc": [0.1, -1.0]}, ValueError, r"-1 in 1 place\(s\)"),
        ({"threshold": 1.0, "refractory_timesteps": -1}, ValueError, "is -1: it must be at least 0"),
        ({"threshold": 1.0, "refractory_timesteps": 1.5}, ValueError, "must be a whole number"),
    ],
)
def test_a_wrong_value_is_refused(values: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        models.LIF(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        (models.LIF(threshold=0.0), "threshold 0 of LIF is not above resting_potential 0"),
        (models.LIF(threshold=[1.0, 2.0, -1.0]), "is not above"),
        (
            models.LIF_Simple(threshold=1.0, tau_rc=0.003),
            r"tau_rc = 0.003, ts = 0.001 of LIF_Simple: .*above 3 ts",
        ),
        (models.EIF_Simple(threshold=1.0, tau_rc=Uniform(0.001, 0.002)), "above 3 ts"),
        (models.LIF(threshold=np.ones(4)), r"has the shape \(4,\).*broadcasts to the layer's \(3,\)"),
        (models.LIF(threshold=1.0, tau_rc=Normal(0.0, 1.0)), "must be above 0"),
    ],
)
def test_values_that_do_not_fit_the_layer_are_refused(neuron: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layer(neuron, (3,), backend="cpu")


def test_distributions() -> None:
    def values(per: str, seed: int, **more: Any) -> np.ndarray:
        neuron = models.LIF(threshold=1.0, tau_rc=Uniform(0.01, 0.03, per=per), **more)  # type: ignore[arg-type]
        return Layer(neuron, (3, 4, 5), backend="cpu", seed=seed).parameters["tau_rc"]

    each = values("neuron", 1)
    assert each.shape == (3, 4, 5) and len(np.unique(each)) == 60 and each.min() >= 0.01 and each.max() < 0.03
    shared = values("feature", 1)
    assert len(np.unique(shared)) == 3 and (shared == shared[:, :1, :1]).all()
    np.testing.assert_array_equal(each, values("neuron", 1, C=Uniform(0.1, 0.2)))
    assert not np.array_equal(each, values("neuron", 2))
    with pytest.raises(ValueError, match="the lower first"):
        Uniform(2, 1)
    with pytest.raises(ValueError, match="standard deviation"):
        Normal(0, -1)
    with pytest.raises(ValueError, match="per is 'map'"):
        LogNormal(0, 1, per="map")  # type: ignore[arg-type]


def test_defaults_follow_other_parameters() -> None:
    layer = Layer(models.AdEx(threshold=[8.0, -4.0], resting_potential=-70.0), (2,), backend="cpu")
    np.testing.assert_allclose(layer.parameters["theta_rh"], [6.0, -5.0])
    assert layer.parameters["v_reset"] == -70.0
    assert layer.parameters["floor"] == -70.0
    assert Layer(models.AdEx(threshold=1.0, floor=None), (2,), backend="cpu").parameters["floor"] is None


def test_names_of_models_are_found() -> None:
    assert models.get("adex") is models.AdEx
    with pytest.raises(KeyError, match="did you mean 'AdEx'"):
        models.get("AdExp")
    with pytest.raises(AttributeError, match="LIFF"):
        _ = models.LIFF
    for name in models.names():
        spec = models.get(name)
        assert spec.summary and spec.equations and "doi:" in spec.source
        for parameter in spec.params.values():
            assert parameter.doc


def r(u, I, t, c, j, x):
    b = u * t
    n = b + c
    return n + I * j - x


def test_a_models_names_never_meet_the_engines() -> None:
    """Parameters and locals called like the loops' own variables change nothing."""
    spec = NeuronSpec(name="Names", membrane=r, params={"t": 0.5, "c": 0.25, "j": 1.0, "x": [0.0][0]})
    x = np.random.default_rng(0).uniform(0, 1, (20, 1, 4))
    recording = Layer(spec(threshold=1.0, refractory_timesteps=0), (4,), backend="cpu", dtype="float64").run(
        x, ("u_pre", "u")
    )
    u = np.zeros((1, 4))
    for t in range(20):
        u = u * 0.5 + 0.25 + x[t]
        np.testing.assert_array_equal(recording.u_pre[t], u)
        u = np.where(u >= 1.0, 0.0, u)
        np.testing.assert_array_equal(recording.u[t], u)
