"""The quadratic integrate-and-fire neuron."""

from __future__ import annotations

from spyke_numba.model.spec import NeuronSpec, Param
from spyke_numba.models.exponential import rheobase_threshold
from spyke_numba.models.integrate_and_fire import CAPACITANCE, TAU_RC


def _euler(u, I, resting_potential, u_c, curvature, gain):
    return u + ((u - resting_potential) * (u - u_c) * curvature + I * gain)


QIF = NeuronSpec(
    name="QIF",
    summary="Quadratic integrate-and-fire neuron, stepped by Euler's method; never below rest.",
    equations=("u' = u + ts (a (u - rest) (u - u_c) / tau_rc + I / C)", "u' >= rest"),
    source="Latham et al. 2000, doi:10.1152/jn.2000.83.2.808",
    params={
        "tau_rc": TAU_RC,
        "C": CAPACITANCE,
        "a": Param(0.001, "1/mV", "sharpness of the parabola"),
        "u_c": Param(rheobase_threshold, "mV", "cut-off potential, from which the potential runs away"),
    },
    derived={"curvature": lambda a, ts, tau_rc: a * ts / tau_rc, "gain": lambda ts, C: ts / C},
    defaults={"floor": lambda resting_potential: resting_potential},
    membrane=_euler,
)
