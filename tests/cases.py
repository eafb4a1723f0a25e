"""Layers and inputs for comparing backends, for every registered model without naming it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import reference

from spyke_numba import KWTA, Layer, LogNormal, Normal, Recording, Uniform, models
from spyke_numba.model.spec import Neuron, NeuronSpec

SHAPE = (3, 4, 5)
STEPS = 24
INHIBITIONS: dict[str, KWTA | None] = {
    "none": None,
    "feature": KWTA(k=2, scope="feature", radius=1),
    "location": KWTA(k=5, scope="location"),
    "global": KWTA(k=1, scope="global"),
}
#: Where a model does not live around 0..1: its usual regime.
REGIMES: dict[str, dict[str, Any]] = {
    "Izhikevich": {"threshold": 30.0, "resting_potential": -65.0, "ts": 0.0005, "refractory_timesteps": 2},
}


def is_typical(name: str, dtype: str, inhibition: str, varying: bool) -> bool:
    """Whether a program is of those that are compared without ``--exhaustive``, few so that tests share them.

    Each model alone, with numbers; the largest one under each scope, with arrays, in float32 as other tests run it; and
    another for each scope in float64.  Every model under a scope has its own in test_neurons.py.
    """
    if inhibition == "none":
        return not varying
    if dtype == "float32":
        return varying and name == "AdEx"
    return varying and (name, inhibition) in {
        ("IF", "feature"),
        ("Izhikevich", "location"),
        ("LIF", "global"),
    }


def neuron_of(spec: NeuronSpec, varying: bool) -> Neuron:
    """Return the model in its regime, with every kind of value for its parameters if `varying`."""
    values: dict[str, Any] = {"threshold": 1.0, **REGIMES.get(spec.name, {})}
    if varying:
        threshold = values["threshold"]
        values["threshold"] = Uniform(0.9 * threshold, 1.1 * threshold, per="feature")
        values["refractory_timesteps"] = np.array([0, 1, 3]).reshape(3, 1, 1)
        values["spike_amplitude"] = Uniform(-1.0, 1.0)
        values["v_reset"] = Normal(values.get("resting_potential", 0.0) - 0.1, 0.01)
        if "tau_rc" in spec.params:
            values["tau_rc"] = LogNormal(np.log(0.02), 0.2)
        if "a" in spec.params:
            default = spec.params["a"].default
            values["a"] = np.linspace(0.9 * default, 1.1 * default, SHAPE[2])
    return spec(**values)


def run_case(
    neuron: Neuron, x: np.ndarray, backend: Any, dtype: str, inhibition: KWTA | None, **more: Any
) -> Recording:
    """Run a layer on an input (T, B, *SHAPE) and record everything that can be recorded."""
    layer = Layer(neuron, SHAPE, x.shape[1], inhibition, backend, dtype, seed=5, **more)
    record = [name for name in layer.recordable if inhibition or name != "winners"]
    return layer.run(x, record)


@cache
def input_for(name: str, batch: int, seed: int = 0) -> np.ndarray:
    """Return a random input (STEPS, batch, *SHAPE) at which at least 5 % of all neuron-steps of the reference spike."""
    neuron = neuron_of(models.get(name), False)
    x = np.random.default_rng(seed).uniform(-0.3, 1.0, (STEPS, batch, *SHAPE))
    scale = 0.1
    while reference.simulate(name, neuron.given, scale * x)["spikes"].mean() < 0.05:
        scale *= 2
        assert scale < 1e6, f"no input makes {name} spike"
    return scale * x


def assert_same(one: Recording, other: Recording) -> None:
    """Assert that two recordings hold the same names, types and bits (any NaN equals any NaN)."""
    assert set(one.names) == set(other.names)
    for name in one.names:
        a, b = np.asarray(one[name]), np.asarray(other[name])
        assert a.dtype == b.dtype, f"{name}: {a.dtype} and {b.dtype}"
        assert a.shape == b.shape, f"{name}: {a.shape} and {b.shape}"
        same = (a == b) | ((a != a) & (b != b))
        if not same.all():
            first = tuple(int(i) for i in np.argwhere(~same)[0])
            raise AssertionError(
                f"{name} differs in {int((~same).sum())} of {same.size} places, "
                f"first at {first}: {a[first]} and {b[first]}"
            )
