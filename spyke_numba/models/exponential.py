"""The exponential integrate-and-fire neuron and its simplified form."""

from __future__ import annotations

import math

from spyke_numba.model.spec import NeuronSpec, Param
from spyke_numba.models.integrate_and_fire import CAPACITANCE, LONG_TAU, TAU_RC
from spyke_numba.ops import abs, exp2, minimum


def rheobase_threshold(threshold):
    """Default of a soft threshold: a quarter of the firing threshold's size below it."""
    return threshold - 0.25 * abs(threshold)


def sharpness(delta_t):
    """1 / delta_t for an exponential to the base 2, so that a step has a product instead of a quotient."""
    return 1 / (delta_t * math.log(2))


def most_upswing(threshold, resting_potential):
    """The most that the exponential adds in one step: beyond the threshold it is no physics, and soon infinite.

    Small enough for float32 to tell the inputs of saturated neurons apart, large enough to spike from anywhere.
    """
    return 1e3 * (threshold - resting_potential)


DELTA_T = Param(0.5, "mV", "sharpness of the spike's upswing", above=0.0)
THETA_RH = Param(rheobase_threshold, "mV", "soft threshold, at which the upswing begins")


def _euler(u, I, resting_potential, upswing_gain, most_upswing, theta_rh, sharpness, leak, gain):
    upswing = minimum(exp2((u - theta_rh) * sharpness) * upswing_gain, most_upswing)
    return u + ((resting_potential - u) * leak + I * gain + upswing)


def _decay_and_add(u, I, resting_potential, delta_t, most_upswing, theta_rh, sharpness, decay):
    upswing = minimum(delta_t * exp2((u - theta_rh) * sharpness), most_upswing)
    return resting_potential + (u - resting_potential) * decay + upswing + I


EIF = NeuronSpec(
    name="EIF",
    summary="Exponential integrate-and-fire neuron, stepped by Euler's method; never below rest.",
    equations=(
        "u' = u + ts ((rest - u + delta_t exp((u - theta_rh) / delta_t)) / tau_rc + I / C)",
        "of which ts / tau_rc delta_t exp(...) is at most 1000 (threshold - rest)",
        "u' >= rest",
    ),
    source="Fourcaud-Trocme et al. 2003, doi:10.1523/JNEUROSCI.23-37-11628.2003",
    params={"tau_rc": TAU_RC, "C": CAPACITANCE, "delta_t": DELTA_T, "theta_rh": THETA_RH},
    derived={
        "sharpness": sharpness,
        "leak": lambda ts, tau_rc: ts / tau_rc,
        "upswing_gain": lambda delta_t, leak: delta_t * leak,
        "most_upswing": most_upswing,
        "gain": lambda ts, C: ts / C,
    },
    defaults={"floor": lambda resting_potential: resting_potential},
    membrane=_euler,
)

EIF_Simple = NeuronSpec(
    name="EIF_Simple",
    summary="Exponential integrate-and-fire neuron with upswing and input added to the decayed potential as they are.",
    equations=(
        "u' = rest + (u - rest) (1 - ts / tau_rc) + delta_t exp((u - theta_rh) / delta_t) + I",
        "of which delta_t exp(...) is at most 1000 (threshold - rest)",
    ),
    source="Fourcaud-Trocme et al. 2003, doi:10.1523/JNEUROSCI.23-37-11628.2003",
    params={"tau_rc": TAU_RC, "delta_t": DELTA_T, "theta_rh": THETA_RH},
    derived={
        "sharpness": sharpness,
        "decay": lambda ts, tau_rc: 1 - ts / tau_rc,
        "most_upswing": most_upswing,
    },
    membrane=_decay_and_add,
    requires=(LONG_TAU,),
)
