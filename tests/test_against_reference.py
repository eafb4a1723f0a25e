"""Every built-in model against the independent numpy statement of the semantics."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from cases import INHIBITIONS, SHAPE, input_for, is_typical, neuron_of, run_case

from spyke_numba import Layer, models
from spyke_numba.backends import Backend

#: The models round their sums in another order than the textbook's equations; Izhikevich's quadratic map amplifies it.
RELATIVE = {"float64": 1e-9, "float32": 2e-4}


def _on_cpu(name: str, inhibition: str, varying: bool, backend: str) -> bool:
    return backend == "cpu" and is_typical(name, "float64", inhibition, varying)


# the other backends give the same bits, see test_consistency.py
@pytest.mark.exhaustive(but=_on_cpu)
@pytest.mark.parametrize("varying", [False, True], ids=["scalar", "varying"])
@pytest.mark.parametrize("inhibition", INHIBITIONS)
@pytest.mark.parametrize("name", models.names())
def test_float64(name: str, inhibition: str, varying: bool, backend: Backend) -> None:
    neuron, kwta = neuron_of(models.get(name), varying), INHIBITIONS[inhibition]
    x = input_for(name, 2)
    got = run_case(neuron, x, backend, "float64", kwta)
    values = Layer(neuron, SHAPE, seed=5, backend="cpu").parameters
    expected = reference.simulate(
        name,
        {key: values[key] for key in neuron.given},
        x,
        kwta=None if kwta is None else {"k": kwta.k, "scope": kwta.scope, "radius": kwta.radius},
    )
    assert got.spikes.sum() >= 4
    for key in got.names:
        if got[key].dtype.kind != "f":
            np.testing.assert_array_equal(got[key], expected[key], key)
        else:
            np.testing.assert_allclose(
                got[key], expected[key], rtol=RELATIVE["float64"], atol=1e-9, err_msg=key
            )


@pytest.mark.parametrize("name", models.names())
def test_float32_potentials_until_the_first_spike(name: str) -> None:
    """In float32 a last bit may move a spike, so potentials are compared while no neuron of the layer has spiked."""
    neuron = neuron_of(models.get(name), False)
    x = input_for(name, 2)
    got = run_case(neuron, x, "cpu", "float32", None)
    values = Layer(neuron, SHAPE, seed=5, backend="cpu").parameters
    expected = reference.simulate(name, {key: values[key] for key in neuron.given}, x, dtype="float32")
    quiet = np.cumsum(expected["spikes"], axis=0) == 0
    assert quiet.sum() > 100
    np.testing.assert_allclose(got.u[quiet], expected["u"][quiet], rtol=RELATIVE["float32"], atol=1e-4)
