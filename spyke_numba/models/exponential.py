"""The exponential integrate-and-fire neuron and its simplified form."""

from __future__ import annotations

import math

from spyke_numba.models.integrate_and_fire import CAPACITANCE, LONG_TAU, TAU_RC
from spyke_numba.ops import abs, exp2, log
from spyke_numba.spec import NeuronSpec, Param, Rule


def rheobase_threshold(threshold):
    """Default of a soft threshold: a quarter of the firing threshold's size below it."""
    return threshold - 0.25 * abs(threshold)


def sharpness(delta_t):
    """1 / delta_t for an exponential to the base 2, so that a step has a product instead of a quotient."""
    return 1 / (delta_t * math.log(2))


def onset(theta_rh, delta_t):
    """Potential at which the upswing, delta_t exp((u - theta_rh) / delta_t), is 1.

    With it the upswing is 2 ** ((u - onset) sharpness), which takes fewer operations.
    """
    return theta_rh - delta_t * log(delta_t)


DELTA_T = Param(0.5, "mV", "sharpness of the spike's upswing", above=0.0)
THETA_RH = Param(rheobase_threshold, "mV", "soft threshold, at which the upswing begins")
#: Derived constants of the upswing.
UPSWING: dict[str, Rule] = {"onset": onset, "sharpness": sharpness}


def _euler(u, I, resting_potential, onset, sharpness, leak, gain):
    upswing = exp2((u - onset) * sharpness)
    return u + ((resting_potential - u + upswing) * leak + I * gain)


def _decay_and_add(u, I, resting_potential, onset, sharpness, decay):
    upswing = exp2((u - onset) * sharpness)
    return resting_potential + (u - resting_potential) * decay + upswing + I


EIF = NeuronSpec(
    name="EIF",
    summary="Exponential integrate-and-fire neuron, stepped by Euler's method; never below rest.",
    equations=(
        "u' = u + ts ((rest - u + delta_t exp((u - theta_rh) / delta_t)) / tau_rc + I / C)",
        "u' >= rest",
    ),
    source="Fourcaud-Trocme et al. 2003, doi:10.1523/JNEUROSCI.23-37-11628.2003",
    params={"tau_rc": TAU_RC, "C": CAPACITANCE, "delta_t": DELTA_T, "theta_rh": THETA_RH},
    derived={
        **UPSWING,
        "leak": lambda ts, tau_rc: ts / tau_rc,
        "gain": lambda ts, C: ts / C,
    },
    defaults={"floor": lambda resting_potential: resting_potential},
    membrane=_euler,
)

EIF_Simple = NeuronSpec(
    name="EIF_Simple",
    summary="Exponential integrate-and-fire neuron with upswing and input added to the decayed potential as they are.",
    equations=("u' = rest + (u - rest) (1 - ts / tau_rc) + delta_t exp((u - theta_rh) / delta_t) + I",),
    source="Fourcaud-Trocme et al. 2003, doi:10.1523/JNEUROSCI.23-37-11628.2003",
    params={"tau_rc": TAU_RC, "delta_t": DELTA_T, "theta_rh": THETA_RH},
    derived={**UPSWING, "decay": lambda ts, tau_rc: 1 - ts / tau_rc},
    membrane=_decay_and_add,
    requires=(LONG_TAU,),
)
