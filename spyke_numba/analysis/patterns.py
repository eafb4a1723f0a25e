"""The published firing patterns of Izhikevich's and the AdEx neuron: parameters, input and source of each.

>>> from spyke_numba import patterns
>>> patterns.IZHIKEVICH_2004["A"].name
'tonic spiking'
>>> int(patterns.IZHIKEVICH_2004["A"].run(backend="cpu").spikes.sum())
5
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from spyke_numba import models
from spyke_numba.backends import Backend
from spyke_numba.inputs import stimuli
from spyke_numba.layer import Layer
from spyke_numba.layer.recording import Recording
from spyke_numba.model.spec import Neuron

__all__ = [
    "IZHIKEVICH_2003",
    "IZHIKEVICH_2004",
    "NAUD_2008",
    "NEURONAL_DYNAMICS",
    "SETS",
    "Pattern",
    "run_together",
]


@dataclass(frozen=True)
class Pattern:
    """A firing pattern: a built-in model, its parameters, and the input that brings the pattern out.

    Parameters
    ----------
    name : str
        Such as ``"tonic spiking"``.
    model : str
        Name of the built-in model.
    params, initial : mapping of str to number
        Parameters of the neuron, time step ``ts`` included, and initial values of its states.
    stimuli : sequence of str
        Inputs that are added up, in the form that `spyke_numba.inputs.stimuli.parse` and ``simulate --stimulus`` read.
    duration : float
        Length (s).
    spikes : int
        Spikes in that time in the published run; of a chaotic pattern, those of one run.
    source : str
        Publication, with its DOI.
    """

    name: str
    model: str
    params: Mapping[str, Any]
    stimuli: Sequence[str]
    duration: float
    spikes: int
    source: str
    initial: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for attribute in ("params", "initial"):
            object.__setattr__(self, attribute, MappingProxyType(dict(getattr(self, attribute))))
        object.__setattr__(self, "stimuli", tuple(self.stimuli))

    @property
    def steps(self) -> int:
        """Length in steps."""
        return round(self.duration / self.params["ts"])

    def neuron(self) -> Neuron:
        """Return the configured neuron."""
        return models.get(self.model)(**self.params)

    def input(self) -> np.ndarray:
        """Return the input, (steps,) float64, in the model's unit."""
        stimulus = stimuli.Sum(tuple(stimuli.parse(text) for text in self.stimuli))
        return stimulus.array((1,), steps=self.steps, ts=self.params["ts"], dtype="float64")[:, 0]

    def run(
        self,
        record: Sequence[str] = ("spikes", "u"),
        *,
        backend: str | Backend = "auto",
        dtype: str = "float64",
    ) -> Recording:
        """Run one neuron through the pattern; `record` as for `Layer.run`, results (steps, 1)."""
        layer = Layer(self.neuron(), shape=(1,), backend=backend, dtype=dtype, initial=self.initial)
        return layer.run(self.input()[:, None], record)


def run_together(
    chosen: Iterable[Pattern],
    record: Sequence[str] = ("spikes", "u"),
    *,
    backend: str | Backend = "auto",
    dtype: str = "float64",
) -> Recording:
    """Run patterns of one model, time step and length as the N neurons of one layer; results (steps, N).

    Raises
    ------
    ValueError
        When they are not of one model, time step and length.
    """
    chosen = tuple(chosen)
    if len({(one.model, one.params["ts"], one.steps, *one.params, *one.initial) for one in chosen}) != 1:
        raise ValueError(
            f"{', '.join(one.name for one in chosen) or 'no pattern'}: give patterns of one model, time step and "
            "length, with the same parameters named"
        )
    given = {}
    for name, value in chosen[0].params.items():
        values = [one.params[name] for one in chosen]
        given[name] = value if values.count(value) == len(values) else values
    initial = {name: [one.initial[name] for one in chosen] for name in chosen[0].initial}
    neuron = models.get(chosen[0].model)(**given)
    layer = Layer(neuron, shape=(len(chosen),), backend=backend, dtype=dtype, initial=initial)
    return layer.run(np.stack([one.input() for one in chosen], axis=1), record)


# -- Izhikevich's neuron, mV and ms.  The published scripts switch with strict inequalities: an input on for t > 10 ms
# is on from the step after it, here the first time written.

_IZHIKEVICH_2003 = "Izhikevich 2003, Fig. 2, doi:10.1109/TNN.2003.820440"
_IZHIKEVICH_2004 = "Izhikevich 2004, Fig. 1, doi:10.1109/TNN.2004.832719"


def _izhikevich(
    source: str,
    name: str,
    abcd: tuple[float, float, float, float],
    u: float,
    dt_ms: float,
    duration_ms: float,
    spikes: int,
    *stimuli: str,
    w: float | None = None,
    others: Mapping[str, float] = MappingProxyType({}),
) -> Pattern:
    params = dict(zip("abcd", abcd, strict=True))
    params |= {"threshold": 30.0, "ts": dt_ms * 1e-3, "refractory_timesteps": 0, **others}
    initial = {"u": u} if w is None else {"u": u, "w": w}
    return Pattern(name, "Izhikevich", params, stimuli, duration_ms * 1e-3, spikes, source, initial)


def _fig2(*given: Any) -> Pattern:
    return _izhikevich(_IZHIKEVICH_2003, *given)


def _fig1(*given: Any, **others: Any) -> Pattern:
    return _izhikevich(_IZHIKEVICH_2004, *given, **others)


#: By the paper's abbreviation.
IZHIKEVICH_2003: Mapping[str, Pattern] = MappingProxyType(
    {
        "RS": _fig2("regular spiking", (0.02, 0.2, -65, 8), -63, 0.25, 150, 5, "step:14,start=15.25ms"),
        "IB": _fig2(
            "intrinsically bursting", (0.02, 0.2, -55, 4), -70, 0.25, 150, 7, "step:11,start=15.25ms"
        ),
        "CH": _fig2("chattering", (0.02, 0.2, -50, 2), -70, 0.25, 150, 15, "step:10,start=15.25ms"),
        "FS": _fig2("fast spiking", (0.1, 0.2, -65, 2), -70, 0.25, 150, 15, "step:10,start=15.25ms"),
        "TC": _fig2("thalamo-cortical", (0.02, 0.25, -65, 0.05), -63, 0.25, 150, 4, "step:1.5,start=30.25ms"),
        "TC burst": _fig2(
            "thalamo-cortical, rebound", (0.02, 0.25, -65, 0.05), -87, 0.25, 150, 5, "step:-25,stop=45.25ms"
        ),
        "RZ": _fig2(
            "resonator",
            (0.1, 0.26, -65, 2),
            -70,
            0.25,
            100,
            2,
            "constant:-2",
            "step:1.5,start=10.25ms",
            "step:10.5,start=60.25ms,stop=65ms",
        ),
        "LTS": _fig2(
            "low-threshold spiking", (0.02, 0.25, -65, 2), -63, 0.25, 250, 18, "step:10,start=25.25ms"
        ),
    }
)

_QUADRATIC_OF_G_AND_L = {"c1": 4.1, "c0": 108.0}
_RELEASE = ("constant:80", "step:-5,start=50ms,stop=250.5ms")

#: By the letter of the paper's panel.
IZHIKEVICH_2004: Mapping[str, Pattern] = MappingProxyType(
    {
        "A": _fig1("tonic spiking", (0.02, 0.2, -65, 6), -70, 0.25, 100, 5, "step:14,start=10.25ms"),
        "B": _fig1("phasic spiking", (0.02, 0.25, -65, 6), -64, 0.25, 200, 1, "step:0.5,start=20.25ms"),
        "C": _fig1("tonic bursting", (0.02, 0.2, -50, 2), -70, 0.25, 220, 28, "step:15,start=22.25ms"),
        "D": _fig1("phasic bursting", (0.02, 0.25, -55, 0.05), -64, 0.2, 200, 6, "step:0.6,start=20.2ms"),
        "E": _fig1("mixed mode", (0.02, 0.2, -55, 4), -70, 0.25, 160, 6, "step:10,start=16.25ms"),
        "F": _fig1(
            "spike frequency adaptation", (0.01, 0.2, -65, 8), -70, 0.25, 85, 6, "step:30,start=8.75ms"
        ),
        "G": _fig1(
            "class 1 excitable",
            (0.02, -0.1, -55, 6),
            -60,
            0.25,
            300,
            10,
            "ramp:20.25,start=30ms",
            others=_QUADRATIC_OF_G_AND_L,
        ),
        "H": _fig1(
            "class 2 excitable", (0.2, 0.26, -65, 0), -64, 0.25, 300, 14, "ramp:3.55,first=-0.5,start=30ms"
        ),
        "I": _fig1(
            "spike latency", (0.02, 0.2, -65, 6), -70, 0.2, 100, 1, "step:7.04,start=10.2ms,stop=13ms"
        ),
        "J": _fig1(
            "subthreshold oscillations",
            (0.05, 0.26, -60, 0),
            -62,
            0.25,
            200,
            1,
            "step:2,start=20.25ms,stop=25ms",
        ),
        "K": _fig1(
            "resonator",
            (0.1, 0.26, -60, -1),
            -62,
            0.25,
            400,
            1,
            *(f"step:0.65,start={start}.25ms,stop={start + 4}ms" for start in (40, 60, 280, 320)),
        ),
        "L": _fig1(
            "integrator",
            (0.02, -0.1, -55, 6),
            -60,
            0.25,
            100,
            1,
            # at 100/11 ms and 5 ms later, which lie between two steps
            "step:9,start=9.25ms,stop=11.25ms",
            "step:9,start=14.25ms,stop=16.25ms",
            "step:9,start=70.25ms,stop=72ms",
            "step:9,start=80.25ms,stop=82ms",
            others=_QUADRATIC_OF_G_AND_L,
        ),
        "M": _fig1(
            "rebound spike", (0.03, 0.25, -60, 4), -64, 0.2, 200, 1, "step:-15,start=20.2ms,stop=25ms"
        ),
        "N": _fig1(
            "rebound burst", (0.03, 0.25, -52, 0), -64, 0.2, 200, 7, "step:-15,start=20.2ms,stop=25ms"
        ),
        "O": _fig1(
            "threshold variability",
            (0.03, 0.25, -60, 4),
            -64,
            0.25,
            100,
            1,
            "step:1,start=10.25ms,stop=15ms",
            "step:-6,start=70.25ms,stop=75ms",
            "step:1,start=80.25ms,stop=85ms",
        ),
        "P": _fig1(
            "bistability",
            (0.1, 0.26, -60, 0),
            -61,
            0.25,
            300,
            5,
            "constant:0.24",
            "step:1,start=37.75ms,stop=42.5ms",
            "step:1,start=216.25ms,stop=221ms",
        ),
        "Q": _fig1(
            "depolarizing after-potential",
            (1, 0.2, -60, -21),
            -70,
            0.1,
            50,
            1,
            "step:20,start=9.1ms,stop=11ms",
        ),
        # published with the recovery w' = w + h a b (u + 65), which has no decay
        "R": _fig1(
            "accommodation",
            (0.02, 1, -55, 4),
            -65,
            0.5,
            400,
            1,
            "ramp:8,stop=200ms",
            "step:-8,start=200ms",
            "ramp:4,start=300ms,stop=312.5ms",
            "step:-4,start=312.5ms",
            w=-16.0,
            others={"w_offset": 65.0, "w_decay": 0.0},
        ),
        "S": _fig1("inhibition-induced spiking", (-0.02, -1, -60, 8), -63.8, 0.5, 350, 3, *_RELEASE),
        "T": _fig1("inhibition-induced bursting", (-0.026, -1, -45, -2), -63.8, 0.5, 350, 12, *_RELEASE),
    }
)

# -- AdEx, in mV, s, nF and pA (so a in nS and b in pA): pA / nF is mV/s.  The cut-off lies 10 delta_t above theta_rh,
# and the step is 0.01 ms, at which the published times have settled.

_NAUD = "Naud, Marcille, Clopath & Gerstner 2008, Table 1, doi:10.1007/s00422-008-0264-7"
_DYNAMICS = (
    "Gerstner, Kistler, Naud & Paninski 2014, Neuronal Dynamics, Table 6.1, doi:10.1017/CBO9781107447615"
)


def _adex(
    source: str,
    duration_ms: float,
    name: str,
    c_pf: float,
    gl_ns: float,
    rest: float,
    a_ns: float,
    tau_w_ms: float,
    b_pa: float,
    reset: float,
    current_pa: float,
    spikes: int,
) -> Pattern:
    params = {
        "tau_rc": c_pf / gl_ns * 1e-3,
        "C": c_pf * 1e-3,
        "resting_potential": rest,
        "v_reset": reset,
        "theta_rh": -50.0,
        "delta_t": 2.0,
        "threshold": -30.0,
        "a": a_ns,
        "b": b_pa,
        "tau_w": tau_w_ms * 1e-3,
        "refractory_timesteps": 0,
        "floor": None,
        "ts": 1e-5,
    }
    return Pattern(name, "AdEx", params, (f"constant:{current_pa:g}",), duration_ms * 1e-3, spikes, source)


def _naud(*row: Any) -> Pattern:
    return _adex(_NAUD, 600.0, *row)


def _dynamics(name: str, tau_ms: float, a_ns: float, tau_w_ms: float, b_pa: float, *rest: Any) -> Pattern:
    resistance_gohm = 0.5
    conductance = 1 / resistance_gohm
    return _adex(_DYNAMICS, 500.0, name, tau_ms * conductance, conductance, -70, a_ns, tau_w_ms, b_pa, *rest)


#: By name, in the order of the paper's table.
NAUD_2008: Mapping[str, Pattern] = MappingProxyType(
    {
        pattern.name: pattern
        for pattern in (
            _naud("tonic spiking", 200, 10, -70, 2, 30, 0, -58, 500, 62),
            _naud("adaptation", 200, 12, -70, 2, 300, 60, -58, 500, 12),
            _naud("initial burst", 130, 18, -58, 4, 150, 120, -50, 400, 12),
            _naud("regular bursting", 200, 10, -58, 2, 120, 100, -46, 210, 11),
            _naud("delayed accelerating", 200, 12, -70, -10, 300, 0, -58, 300, 46),
            _naud("delayed regular bursting", 100, 10, -65, -10, 90, 30, -47, 110, 32),
            _naud("transient spiking", 100, 10, -65, 10, 90, 100, -47, 180, 1),
            _naud("irregular spiking", 100, 12, -60, -11, 130, 30, -48, 160, 32),
        )
    }
)

#: By name, in the order of the book's table.
NEURONAL_DYNAMICS: Mapping[str, Pattern] = MappingProxyType(
    {
        pattern.name: pattern
        for pattern in (
            _dynamics("tonic", 20, 0, 30, 60, -55, 65, 9),
            _dynamics("adapting", 20, 0, 100, 5, -55, 65, 19),
            _dynamics("initial burst", 5, 0.5, 100, 7, -51, 65, 17),
            _dynamics("bursting", 5, -0.5, 100, 7, -46, 65, 36),
            _dynamics("transient", 10, 1, 100, 10, -60, 65, 8),
            _dynamics("delayed", 5, -1, 100, 10, -60, 25, 4),
        )
    }
)

#: Every set by name.
SETS: Mapping[str, Mapping[str, Pattern]] = MappingProxyType(
    {
        "izhikevich2003": IZHIKEVICH_2003,
        "izhikevich2004": IZHIKEVICH_2004,
        "naud2008": NAUD_2008,
        "neuronal_dynamics": NEURONAL_DYNAMICS,
    }
)
