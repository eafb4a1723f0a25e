"""Izhikevich's simple model."""

from __future__ import annotations

from spyke_numba.model.spec import NeuronSpec, Param, Requirement, State
from spyke_numba.models.integrate_and_fire import ZERO_OR_ONE
from spyke_numba.ops import minimum, where


# Products of parameters are taken before the run, and the powers of u by Horner's scheme: fewer operations are left to
# a step.
def _membrane(u, I, w, h, u2_gain, u_gain, most_parabola, drift):
    parabola = minimum((u2_gain * u + u_gain) * u, most_parabola)
    return u + (parabola + (drift + (I - w) * h))


def _adaptation(u, u_new, w, w_offset, w_gain, w_leak, w_from_new):
    potential = where(w_from_new > 0, u_new, u)
    return w + ((potential + w_offset) * w_gain - w * w_leak)


def _on_spike(w, d):
    return w + d


Izhikevich = NeuronSpec(
    name="Izhikevich",
    summary="Izhikevich's simple model: a quadratic potential and a linear recovery variable, time in ms.",
    equations=(
        "u' = u + h (c2 u^2 + c1 u + c0 + I - w),  h = ts in ms",
        "of which h (c2 u^2 + c1 u) is at most 1e9 (threshold - rest), where Euler's method runs away",
        "w' = w + h a (b (u' + w_offset) - w_decay w)",
        "at a spike: u = v_reset, w = w' + d; while refractory: u = resting_potential (both c unless given)",
    ),
    source="Izhikevich 2003, doi:10.1109/TNN.2003.820440; 2004, doi:10.1109/TNN.2004.832719",
    params={
        "a": Param(0.02, "1/ms", "rate of the recovery"),
        "b": Param(0.2, "", "sensitivity of the recovery to the potential"),
        "c": Param(-65.0, "mV", "potential at the start, after a spike and while refractory"),
        "d": Param(8.0, "", "jump of the recovery at a spike"),
        "c2": Param(0.04, "1/mV", "quadratic coefficient of the potential"),
        "c1": Param(5.0, "", "linear coefficient of the potential"),
        "c0": Param(140.0, "mV", "constant of the potential"),
        "w_offset": Param(0.0, "mV", "offset of the potential in the recovery"),
        "w_decay": Param(
            1.0, "", "decay of the recovery, beside its rate; 0 in the published accommodation pattern"
        ),
        "w_from_new": Param(1.0, "", "1: the recovery follows the new potential; 0: the one before the step"),
    },
    states={"w": State(lambda u, b: b * u, "recovery variable")},
    derived={
        "h": lambda ts: 1000.0 * ts,
        "u2_gain": lambda h, c2: h * c2,
        "u_gain": lambda h, c1: h * c1,
        # one step from |u| = 1e6 stays below it, and its square is far below the largest float32
        "most_parabola": lambda threshold, resting_potential: 1e9 * (threshold - resting_potential),
        "drift": lambda h, c0: h * c0,
        "w_gain": lambda h, a, b: h * a * b,
        "w_leak": lambda h, a, w_decay: h * a * w_decay,
    },
    # at 0 mV, the rest of the other models, it would be above its unstable point
    defaults={
        "threshold": 30.0,
        "resting_potential": lambda c: c,
        "v_reset": lambda c: c,
        "refractory_timesteps": 0,
    },
    initial_u=lambda c: c,
    membrane=_membrane,
    adaptation=_adaptation,
    on_spike=_on_spike,
    requires=(Requirement(lambda w_from_new: (w_from_new == 0) | (w_from_new == 1), ZERO_OR_ONE),),
)
