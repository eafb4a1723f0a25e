"""The specifications of the drop-in neurons (`spyke_numba.neurons`) that deviate from the native models.

IF, LIF_ode and QIF are the native ones.
"""

from __future__ import annotations

from dataclasses import replace

from spyke_numba import models
from spyke_numba.model.spec import NeuronSpec, Param, State
from spyke_numba.ops import exp, exp2, minimum, where


def _uncapped(model):
    """Return the derived constants of a model without that which caps its upswing."""
    return {name: rule for name, rule in models.get(model).derived.items() if name != "most_upswing"}


def _given(I):
    return I


#: The rest of a step, for a membrane of the user's own: hold, spikes, winners, reset, counters.
GIVEN = NeuronSpec(
    name="Neuron",
    summary="The potential is computed elsewhere and given as the input.",
    membrane=_given,
    defaults={"ts": 0.01, "refractory_timesteps": 0},
)


def _lif_membrane(I, u_inj, t_inj, resting_potential, tau_rc, gain):
    return resting_potential + (u_inj - resting_potential) * minimum(exp(-t_inj / tau_rc), 1.0) + I * gain


def _lif_bookkeeping(u_new, I, u_inj, t_inj, ts, gain):
    excited = I * gain > 0
    return where(excited, u_new, u_inj), where(excited, ts, t_inj + ts)


LIF = NeuronSpec(
    name="LIF",
    summary="LIF that decays from its last excited potential: a spike does not reset it, inhibition lasts one step.",
    equations=(
        "u' = rest + (u_inj - rest) min(exp(-t_inj / tau_rc), 1) + I ts / C",
        "where I ts / C > 0: u_inj = u', t_inj = ts; elsewhere t_inj = t_inj + ts",
    ),
    params={name: models.get("LIF").params[name] for name in ("tau_rc", "C")},
    states={
        "u_inj": State(lambda resting_potential: resting_potential, "potential at the last excitation"),
        "t_inj": State(0.0, "time since the last excitation"),
    },
    derived={"gain": lambda ts, C: ts / C},
    membrane=_lif_membrane,
    adaptation=_lif_bookkeeping,
)


def _lif_simple(u, I, decay):
    return u * decay + I


LIF_SIMPLE = replace(
    models.get("LIF_Simple"),
    summary="LIF_Simple that decays to 0, whatever the resting potential.",
    equations=("u' = u (1 - ts / tau_rc) + I",),
    membrane=_lif_simple,
)


def _eif_simple(u, I, delta_t, theta_rh, sharpness, decay):
    return u * decay + delta_t * exp2((u - theta_rh) * sharpness) + I


EIF_SIMPLE = replace(
    models.get("EIF_Simple"),
    summary="EIF_Simple that decays to 0, whatever the resting potential, and whose upswing is not capped.",
    equations=("u' = u (1 - ts / tau_rc) + delta_t exp((u - theta_rh) / delta_t) + I",),
    derived=_uncapped("EIF_Simple"),
    membrane=_eif_simple,
)


def _eif_membrane(u, I, resting_potential, upswing_gain, theta_rh, sharpness, leak, gain):
    return u + ((resting_potential - u) * leak + I * gain + exp2((u - theta_rh) * sharpness) * upswing_gain)


EIF = replace(
    models.get("EIF"),
    summary="EIF whose upswing is not capped.",
    equations=(
        "u' = u + ts ((rest - u + delta_t exp((u - theta_rh) / delta_t)) / tau_rc + I / C)",
        "u' >= rest",
    ),
    derived=_uncapped("EIF"),
    membrane=_eif_membrane,
)


def _adex_membrane(u, I, w, resting_potential, upswing_gain, theta_rh, sharpness, leak, gain):
    return u + (
        (resting_potential - u) * leak + (I - w) * gain + exp2((u - theta_rh) * sharpness) * upswing_gain
    )


ADEX = replace(
    models.get("AdEx"),
    summary="AdEx whose upswing is not capped, and whose adaptation follows the overshoot of a spike.",
    equations=(
        "u' = u + ts / tau_rc (rest - u + delta_t exp((u - theta_rh) / delta_t) + R (I - w)),  R = tau_rc / C",
        "u' >= rest",
        "w' = w + (a (u' - rest) - w) ts / tau_w",
        "at a spike: u = v_reset, w = w' + b",
    ),
    derived=_uncapped("AdEx"),
    membrane=_adex_membrane,
    overshoot="kept",
)


def _izhikevich_membrane(u, I, w):
    return u + (0.04 * u**2 + 5 * u + 140 + I - w)


def _izhikevich_adaptation(u_new, w, a, b):
    return w + a * (b * u_new - w)


def _izhikevich_jump(w, d):
    return w + d


IZHIKEVICH = NeuronSpec(
    name="Izhikevich",
    summary="Izhikevich's model with a step of 1 ms whatever ts is; starts at rest and never uses c.",
    equations=("u' = u + 0.04 u^2 + 5 u + 140 + I - w", "w' = w + a (b u' - w)", "at a spike: w = w' + d"),
    params={"a": Param(0.02), "b": Param(0.2), "c": Param(lambda v_reset: v_reset), "d": Param(8.0)},
    states={"w": State(lambda resting_potential, b: b * resting_potential, "recovery variable")},
    membrane=_izhikevich_membrane,
    adaptation=_izhikevich_adaptation,
    on_spike=_izhikevich_jump,
)
