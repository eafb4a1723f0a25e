"""The adaptive exponential integrate-and-fire neuron."""

from __future__ import annotations

from spyke_numba.model.spec import NeuronSpec, Param, Requirement, State
from spyke_numba.models.exponential import DELTA_T, THETA_RH, most_upswing, sharpness
from spyke_numba.models.integrate_and_fire import CAPACITANCE, TAU_RC, ZERO_OR_ONE
from spyke_numba.ops import exp2, minimum, where


def _membrane(u, I, w, resting_potential, upswing_gain, most_upswing, theta_rh, sharpness, leak, gain):
    upswing = minimum(exp2((u - theta_rh) * sharpness) * upswing_gain, most_upswing)
    return u + ((resting_potential - u) * leak + (I - w) * gain + upswing)


def _adaptation(u, u_new, w, resting_potential, a, w_leak, w_from_new):
    potential = where(w_from_new > 0, u_new, u)
    return w + (a * (potential - resting_potential) - w) * w_leak


def _on_spike(w, b):
    return w + b


AdEx = NeuronSpec(
    name="AdEx",
    summary="Adaptive exponential integrate-and-fire neuron, stepped by Euler's method; never below rest.",
    equations=(
        "u' = u + ts / tau_rc (rest - u + delta_t exp((u - theta_rh) / delta_t) + R (I - w)),  R = tau_rc / C",
        "of which ts / tau_rc delta_t exp(...) is at most 1000 (threshold - rest)",
        "u' >= rest",
        "w' = w + (a (min(u', threshold) - rest) - w) ts / tau_w",
        "at a spike: u = v_reset, w = w' + b",
    ),
    source="Brette & Gerstner 2005, doi:10.1152/jn.00686.2005",
    params={
        "tau_rc": TAU_RC,
        "C": CAPACITANCE,
        "delta_t": DELTA_T,
        "theta_rh": THETA_RH,
        "a": Param(0.6, "nS", "subthreshold adaptation"),
        "b": Param(0.7, "pA", "jump of the adaptation at a spike"),
        "tau_w": Param(1.0, "s", "time constant of the adaptation", above=0.0),
        "w_from_new": Param(
            1.0, "", "1: the adaptation follows the new potential; 0: the one before the step"
        ),
    },
    states={"w": State(0.0, "adaptation current, pA like the input")},
    derived={
        "sharpness": sharpness,
        "leak": lambda ts, tau_rc: ts / tau_rc,
        "upswing_gain": lambda delta_t, leak: delta_t * leak,
        "most_upswing": most_upswing,
        "gain": lambda ts, C: ts / C,
        "w_leak": lambda ts, tau_w: ts / tau_w,
    },
    defaults={"floor": lambda resting_potential: resting_potential},
    membrane=_membrane,
    adaptation=_adaptation,
    on_spike=_on_spike,
    # the last step before a spike goes as far beyond the threshold as its exponential takes it: uncut, Brette and
    # Gerstner's neuron with a peak at 0 mV has 16 to 20 spikes a second at 1000 pA instead of 30, and w up to 8e5 pA
    overshoot="cut",
    requires=(Requirement(lambda w_from_new: (w_from_new == 0) | (w_from_new == 1), ZERO_OR_ONE),),
)
