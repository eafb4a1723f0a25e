"""Published spiking patterns: parameters, stimuli and the figures that they must give.

Spike times are in `spike_times.json`: float64 runs of the published equations in the published order and time
step. Those of the AdEx neuron are stamped at the end of the step, (k + 1) dt, those of Izhikevich's at its
start, k dt.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SPIKE_TIMES = json.loads(Path(__file__).with_name("spike_times.json").read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------------------------------
# AdEx. In mV, nF and pA, time in s: a current in pA over a capacitance in nF is a slope in mV/s; a is in nS.


@dataclass(frozen=True)
class AdExPattern:
    """One firing pattern: its parameters in the papers' units, and how long it is watched."""

    c_pf: float
    gl_ns: float
    el: float
    vt: float
    cutoff: float
    a_ns: float
    tau_w_ms: float
    b_pa: float
    v_reset: float
    current_pa: float
    duration_ms: float
    times: dict[str, list[float]] = field(repr=False)

    def params(self, dt_ms: float) -> dict[str, float]:
        """Native parameters."""
        return {
            "ts": dt_ms * 1e-3,
            "tau_rc": self.c_pf / self.gl_ns * 1e-3,
            "C": self.c_pf * 1e-3,
            "resting_potential": self.el,
            "theta_rh": self.vt,
            "delta_t": 2.0,
            "threshold": self.cutoff,
            "v_reset": self.v_reset,
            "a": self.a_ns,
            "b": self.b_pa,
            "tau_w": self.tau_w_ms * 1e-3,
            "refractory_timesteps": 0,
        }


def _naud(name: str) -> AdExPattern:
    entry = SPIKE_TIMES["adex_naud2008"][name]
    p = entry["params"]
    return AdExPattern(
        c_pf=p["C_pF"],
        gl_ns=p["gL_nS"],
        el=p["EL"],
        vt=p["VT"],
        cutoff=p["VT"] + 5 * p["DT"],
        a_ns=p["a_nS"],
        tau_w_ms=p["tauw_ms"],
        b_pa=p["b_pA"],
        v_reset=p["Vr"],
        current_pa=p["I_pA"],
        duration_ms=600.0,
        times=entry,
    )


def _neuronal_dynamics(name: str) -> AdExPattern:
    p = SPIKE_TIMES["adex_nd61"][name]
    resistance_gohm = 0.5
    return AdExPattern(
        c_pf=p["tau_m"] / resistance_gohm,
        gl_ns=1 / resistance_gohm,
        el=-70.0,
        vt=-50.0,
        cutoff=-30.0,
        a_ns=p["a"],
        tau_w_ms=p["tau_w"],
        b_pa=p["b"],
        v_reset=p["u_reset"],
        current_pa=p["I"],
        duration_ms=500.0,
        times=p,
    )


# Naud, Marcille, Clopath & Gerstner 2008, Table 1, doi:10.1007/s00422-008-0264-7
NAUD = {name: _naud(name) for name in SPIKE_TIMES["adex_naud2008"]}
# Gerstner, Kistler, Naud & Paninski 2014, Neuronal Dynamics, Table 6.1, doi:10.1017/CBO9781107447615
NEURONAL_DYNAMICS = {name: _neuronal_dynamics(name) for name in SPIKE_TIMES["adex_nd61"]}
# Brette & Gerstner 2005, doi:10.1152/jn.00686.2005: 1 nA from 20 to 120 ms
BRETTE_GERSTNER = AdExPattern(
    c_pf=281.0,
    gl_ns=30.0,
    el=-70.6,
    vt=-50.4,
    cutoff=-40.4,
    a_ns=4.0,
    tau_w_ms=144.0,
    b_pa=80.5,
    v_reset=-70.6,
    current_pa=1000.0,
    duration_ms=150.0,
    times={},
)


# ------------------------------------------------------------------------------------------------------------
# Izhikevich. 2003, Fig. 2, doi:10.1109/TNN.2003.820440; 2004, Fig. 1, doi:10.1109/TNN.2004.832719

Stimulus = Callable[[np.ndarray], np.ndarray]
INTEGRATOR = {"c2": 0.04, "c1": 4.1, "c0": 108.0}


def step_to(value: float, after: float, before: float = 0.0) -> Stimulus:
    """`value` later than `after` ms."""
    return lambda t: np.where(t > after, value, before)


def pulses(value: float, length: float, *starts: float, base: float = 0.0) -> Stimulus:
    """`value` for `length` ms after each start (neither end included)."""
    return lambda t: np.where(np.any([(t > s) & (t < s + length) for s in starts], axis=0), value, base)


def ramp(slope: float, after: float, base: float = 0.0) -> Stimulus:
    return lambda t: np.where(t > after, base + slope * (t - after), base)


def _rz(t):
    return np.select([(t > 60) & (t < 65), t > 10], [10.0, -0.5], -2.0)


def _variability(t):
    return np.select([(t > 10) & (t < 15), (t > 80) & (t < 85), (t > 70) & (t < 75)], [1.0, 1.0, -6.0], 0.0)


def _accommodation(t):
    return np.select([t < 200, t < 300, t < 312.5], [t / 25, 0.0, (t - 300) / 12.5 * 4], 0.0)


def _release(t):
    return np.where((t < 50) | (t > 250), 80.0, 75.0)


# name: stimulus, spikes, parameters beside a, b, c, d
IZHIKEVICH_STIMULI: dict[str, tuple[Stimulus, int, dict[str, float]]] = {
    "RS fig2": (step_to(14, 15), 5, {}),
    "IB fig2": (step_to(11, 15), 7, {}),
    "CH fig2": (step_to(10, 15), 15, {}),
    "FS fig2": (step_to(10, 15), 15, {}),
    "TC fig2": (step_to(1.5, 30), 4, {}),
    "TC burst fig2": (step_to(0, 45, before=-25), 5, {}),
    "RZ fig2": (_rz, 2, {}),
    "LTS fig2": (step_to(10, 25), 18, {}),
    "A tonic spiking": (step_to(14, 10), 5, {}),
    "B phasic spiking": (step_to(0.5, 20), 1, {}),
    "C tonic bursting": (step_to(15, 22), 28, {}),
    "D phasic bursting": (step_to(0.6, 20), 6, {}),
    "E mixed mode": (step_to(10, 16), 6, {}),
    "F spike freq adapt": (step_to(30, 8.5), 6, {}),
    "G class 1": (ramp(0.075, 30), 10, INTEGRATOR),
    "H class 2": (ramp(0.015, 30, base=-0.5), 14, {}),
    "I spike latency": (pulses(7.04, 3, 10), 1, {}),
    "J subthr osc": (pulses(2, 5, 20), 1, {}),
    "K resonator": (pulses(0.65, 4, 40, 60, 280, 320), 1, {}),
    "L integrator": (pulses(9, 2, 100 / 11, 100 / 11 + 5, 70, 80), 1, INTEGRATOR),
    "M rebound spike": (pulses(-15, 5, 20), 1, {}),
    "N rebound burst": (pulses(-15, 5, 20), 7, {}),
    "O thresh variability": (_variability, 1, {}),
    "P bistability": (pulses(1.24, 5, 37.5, 216, base=0.24), 5, {}),
    "Q DAP": (pulses(20, 2, 9), 1, {}),
    "R accommodation": (_accommodation, 1, {"w_offset": 65.0}),
    "S inh-ind spiking": (_release, 3, {}),
    "T inh-ind bursting": (_release, 12, {}),
}


def izhikevich_params(name: str, dt_ms: float) -> dict[str, float]:
    """Native parameters of a pattern."""
    a, b, c, d = SPIKE_TIMES["izhikevich"][name]["abcd"]
    extra = IZHIKEVICH_STIMULI[name][2]
    return {
        "a": a,
        "b": b,
        "c": c,
        "d": d,
        "ts": dt_ms * 1e-3,
        "threshold": 30.0,
        "refractory_timesteps": 0,
        **extra,
    }
