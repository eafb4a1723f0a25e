"""The perfect and the leaky integrate-and-fire neurons, in the forms that differ in how they integrate a step."""

from __future__ import annotations

import numpy as np

from spyke_numba.model.spec import NeuronSpec, Param, Requirement
from spyke_numba.ops import exp, where

CAPACITANCE = Param(0.281, "nF", "membrane capacitance C", above=0.0)
TAU_RC = Param(0.02, "s", "membrane time constant", above=0.0)
#: What a parameter is refused with that switches between two forms.
ZERO_OR_ONE = "give 0 or 1"
LONG_TAU = Requirement(
    lambda tau_rc, ts: tau_rc > 3 * ts,
    "tau_rc must be above 3 ts for this step to stay accurate: use a smaller ts",
)


def _gain(ts, C):
    return ts / C


# R (1 - exp(-ts / tau_rc)), R = tau_rc / C, is what an input that is constant over the step adds up to as it decays.
def _gain_of_held_input(ts, tau_rc, C, exact_input):
    return where(exact_input > 0, -np.expm1(-ts / tau_rc) * tau_rc / C, ts / C)


def _leak(ts, tau_rc):
    return ts / tau_rc


def _decay_over_step(ts, tau_rc):
    return 1 - ts / tau_rc


def _perfect(u, I, gain):
    return u + I * gain


# What does not wait for u is added first: a step takes as long as its operations wait for each other.
def _exact_decay(u, I, resting_potential, decay, gain):
    return (u - resting_potential) * decay + (resting_potential + I * gain)


def _euler(u, I, resting_potential, leak, gain):
    return (resting_potential - u) * leak + (u + I * gain)


def _decay_and_add(u, I, resting_potential, decay):
    return (u - resting_potential) * decay + (resting_potential + I)


IF = NeuronSpec(
    name="IF",
    summary="Perfect integrate-and-fire neuron: charge adds up and never leaks.",
    equations=("u' = u + I ts / C",),
    source="Lapicque 1907; Gerstner et al., Neuronal Dynamics, 2014, doi:10.1017/CBO9781107447615",
    params={"C": CAPACITANCE},
    derived={"gain": _gain},
    membrane=_perfect,
)

LIF = NeuronSpec(
    name="LIF",
    summary="Leaky integrate-and-fire neuron: exact decay of the potential over a step, to which the input is added.",
    equations=(
        "u' = rest + (u - rest) exp(-ts / tau_rc) + I ts / C",
        "a constant input leads to R I (ts / tau_rc) / (1 - exp(-ts / tau_rc)), R = tau_rc / C: 1.025 R I by default",
        "exact_input = 1: + I R (1 - exp(-ts / tau_rc)) in place of + I ts / C, which leads to R I",
    ),
    source="Gerstner et al., Neuronal Dynamics, 2014, section 1.3, doi:10.1017/CBO9781107447615",
    params={
        "tau_rc": TAU_RC,
        "C": CAPACITANCE,
        "exact_input": Param(
            0.0,
            "",
            "0: the charge of a step arrives at once, at its end; 1: evenly, exact for an input constant over a step",
        ),
    },
    derived={"decay": lambda ts, tau_rc: exp(-ts / tau_rc), "gain": _gain_of_held_input},
    membrane=_exact_decay,
    requires=(Requirement(lambda exact_input: (exact_input == 0) | (exact_input == 1), ZERO_OR_ONE),),
)

LIF_ode = NeuronSpec(
    name="LIF_ode",
    summary="Leaky integrate-and-fire neuron, its differential equation stepped by Euler's method.",
    equations=("u' = u + (rest - u) ts / tau_rc + I ts / C",),
    source="Gerstner et al., Neuronal Dynamics, 2014, section 1.3, doi:10.1017/CBO9781107447615",
    params={"tau_rc": TAU_RC, "C": CAPACITANCE},
    derived={"leak": _leak, "gain": _gain},
    membrane=_euler,
)

LIF_Simple = NeuronSpec(
    name="LIF_Simple",
    summary="Leaky integrate-and-fire neuron whose input is added to the potential as it is, as in machine learning.",
    equations=("u' = rest + (u - rest) (1 - ts / tau_rc) + I",),
    source="Gerstner et al., Neuronal Dynamics, 2014, section 1.3, doi:10.1017/CBO9781107447615",
    params={"tau_rc": TAU_RC},
    derived={"decay": _decay_over_step},
    membrane=_decay_and_add,
    requires=(LONG_TAU,),
)
