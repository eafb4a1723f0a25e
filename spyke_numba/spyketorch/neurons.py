"""SpykeTorch-Extended's ``neurons`` module, on compiled layers: change the import, keep the network.

Each class is a specification and an interface, which `spyke_numba.spyketorch.neuron` has in common for all;
`spyke_numba.spyketorch.runner` turns calls into steps of a `spyke_numba.Layer`.  What deviates from the native models
is a specification of its own in `spyke_numba.spyketorch.specs`; ``docs/spyketorch.md`` lists it all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

try:
    import torch
except ImportError:
    raise ImportError(
        "spyke_numba.neurons works on torch tensors: pip install 'spyke_numba[torch]'"
    ) from None

from spyke_numba import models
from spyke_numba.spyketorch import specs as spyketorch_specs
from spyke_numba.spyketorch.neuron import (
    CompiledNeuron,
    Follows,
    Neuron,
    Parameter,
    StateTensor,
    TauRange,
    TimeSinceSpike,
    drawn_from,
)
from spyke_numba.spyketorch.runner import Traits

__all__ = [
    "DEVICE",
    "EIF",
    "IF",
    "LIF",
    "QIF",
    "AdEx",
    "EIF_Simple",
    "HeterogeneousNeuron",
    "Izhikevich",
    "LIF_Simple",
    "LIF_ode",
    "Neuron",
    "UniformEIF",
    "UniformLIF",
    "UniformQIF",
]

#: Where a network may put its tensors: a GPU that torch can use, or else the CPU.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

_TAKEN_BY_ALL = {"tau_rc": 0.02, "C": 0.281}


def _ts_over_tau(ts: Any, tau_rc: Any) -> Any:
    return ts / tau_rc


def _exp_term(ts: Any, tau_rc: Any) -> Any:
    exponent = -ts / tau_rc
    return torch.exp(exponent) if isinstance(exponent, torch.Tensor) else math.exp(exponent)


class IF(CompiledNeuron):
    """Perfect integrate-and-fire neuron."""

    _traits = Traits(
        models.get("IF"), ignored=_TAKEN_BY_ALL, dudt_after_reset=True, counts_time_since_spike=True
    )
    _listed = ("tau_rc", "ts_over_tau", "exp_term", "refractory_timesteps", "C")
    ts_over_tau, exp_term = Follows(_ts_over_tau), Follows(_exp_term)
    time_since_spike = TimeSinceSpike()

    def __init__(
        self,
        threshold: Any = None,
        tau_rc: Any = 0.02,
        ts: float = 0.001,
        resting_potential: float = 0.0,
        refractory_timesteps: int = 2,
        C: float = 0.281,
        **others: Any,
    ):
        self._make(locals())


class _Leaky(CompiledNeuron):
    """What `LIF` and `LIF_ode` share."""

    _listed: ClassVar[tuple[str, ...]] = IF._listed
    ts_over_tau, exp_term = Follows(_ts_over_tau), Follows(_exp_term)

    def __init__(
        self,
        threshold: Any = None,
        tau_rc: Any = 0.02,
        ts: float = 0.001,
        resting_potential: float = 0.0,
        refractory_timesteps: int = 2,
        C: float = 0.281,
        per_neuron_thresh: Any = None,
        **others: Any,
    ):
        self._make(locals())


class LIF(_Leaky):
    """Leaky integrate-and-fire neuron that decays from its last excitation."""

    _traits = Traits(spyketorch_specs.LIF, counts_time_since_spike=True)
    time_since_spike = TimeSinceSpike()


class LIF_ode(_Leaky):
    """Leaky integrate-and-fire neuron by Euler's method."""

    _traits = Traits(models.get("LIF_ode"))


class LIF_Simple(CompiledNeuron):
    """Leaky integrate-and-fire neuron whose input is added as it is; spikes are 1."""

    _traits = Traits(
        spyketorch_specs.LIF_SIMPLE, ignored=_TAKEN_BY_ALL, unit_spikes=True, dudt_after_reset=True
    )
    _listed = ("refractory_timesteps", "tau_rc", "decay")
    decay = Follows(lambda ts, tau_rc: 1 - ts / tau_rc)

    def __init__(
        self,
        threshold: Any = None,
        tau_rc: Any = 0.02,
        ts: float = 0.001,
        resting_potential: float = 0.0,
        refractory_timesteps: int = 2,
        per_neuron_threshold: Any = None,
        **others: Any,
    ):
        self._make(locals())


class EIF(CompiledNeuron):
    """Exponential integrate-and-fire neuron."""

    _traits = Traits(spyketorch_specs.EIF)
    _listed: ClassVar[tuple[str, ...]] = ("tau_rc", "refractory_timesteps", "C", "delta_t", "theta_rh")
    delta_t, theta_rh = Parameter(), Parameter()

    def __init__(
        self,
        threshold: Any = None,
        tau_rc: Any = 0.02,
        ts: float = 0.001,
        delta_t: float = 0.5,
        theta_rh: float | None = None,
        resting_potential: float = 0.0,
        refractory_timesteps: int = 2,
        C: float = 0.281,
        v_reset: float | None = None,
        **others: Any,
    ):
        self._make(locals())


class EIF_Simple(CompiledNeuron):
    """Exponential integrate-and-fire neuron, upswing and input added as they are; returns u before the reset."""

    _traits = Traits(
        spyketorch_specs.EIF_SIMPLE,
        ignored=_TAKEN_BY_ALL,
        unit_spikes=True,
        dudt_after_reset=True,
        state_before_reset=True,
    )
    _listed = (*LIF_Simple._listed, "delta_t", "theta_rh")
    delta_t, theta_rh = Parameter(), Parameter()
    decay = Follows(lambda ts, tau_rc: 1 - ts / tau_rc)

    def __init__(
        self,
        threshold: Any = None,
        tau_rc: Any = 0.02,
        ts: float = 0.001,
        delta_t: float = 0.5,
        theta_rh: float | None = None,
        resting_potential: float = 0.0,
        refractory_timesteps: int = 2,
        v_reset: float | None = None,
        per_neuron_threshold: Any = None,
        **others: Any,
    ):
        self._make(locals())


class AdEx(CompiledNeuron):
    """Adaptive exponential integrate-and-fire neuron; a winner inhibits the whole layer."""

    _traits = Traits(spyketorch_specs.ADEX, whole_layer=True)
    _listed = (*EIF._listed, "R", "a", "b", "tau_w")
    delta_t, theta_rh, a, b, tau_w = (Parameter() for _ in range(5))
    R = Follows(lambda tau_rc, C: tau_rc / C)
    w = StateTensor("w", "Adaptation, (B, F, H, W); None before the first call.")

    def __init__(
        self,
        threshold: Any = None,
        tau_rc: Any = 0.02,
        ts: float = 0.001,
        delta_t: float = 0.5,
        theta_rh: float | None = None,
        resting_potential: float = 0.0,
        refractory_timesteps: int = 2,
        C: float = 0.281,
        v_reset: float | None = None,
        a: float = 0.6,
        b: float = 0.7,
        tau_w: float = 1.0,
        **others: Any,
    ):
        self._make(locals())


class QIF(CompiledNeuron):
    """Quadratic integrate-and-fire neuron."""

    _traits = Traits(models.get("QIF"))
    _listed: ClassVar[tuple[str, ...]] = ("tau_rc", "u_c", "a", "refractory_timesteps", "C")
    u_c, a = Parameter(), Parameter()

    def __init__(
        self,
        threshold: Any = None,
        tau_rc: Any = 0.02,
        ts: float = 0.001,
        u_c: float | None = None,
        a: float = 0.001,
        resting_potential: float = 0.0,
        refractory_timesteps: int = 2,
        C: float = 0.281,
        v_reset: float | None = None,
        **others: Any,
    ):
        self._make(locals())


class Izhikevich(CompiledNeuron):
    """Izhikevich's simple model with steps of 1 ms; a winner inhibits the whole layer."""

    _traits = Traits(spyketorch_specs.IZHIKEVICH, ignored=_TAKEN_BY_ALL, whole_layer=True)
    _listed = ("tau_rc", "refractory_timesteps", "C", "R", "a", "b", "d", "c")
    a, b, c, d = (Parameter() for _ in range(4))
    R = Follows(lambda tau_rc, C: tau_rc / C)
    w = StateTensor("w", "Recovery variable, (B, F, H, W); None before the first call.")

    def __init__(
        self,
        threshold: Any = None,
        tau_rc: Any = 0.02,
        ts: float = 0.001,
        a: float = 0.02,
        b: float = 0.2,
        c: float | None = 0.0,
        d: float = 8.0,
        resting_potential: float = 0.0,
        refractory_timesteps: int = 2,
        C: float = 0.281,
        v_reset: float | None = None,
        **others: Any,
    ):
        self._make(locals())


class HeterogeneousNeuron(Neuron):
    """A base for neurons that differ within a layer; subclass it as you would `Neuron`.

    Parameters
    ----------
    conv : object
        What feeds the layer, such as its convolution; kept as it is.
    """

    def __init__(self, conv: Any, **others: Any):
        super().__init__(**others)
        self.conv = conv


def _taus(neuron: Neuron) -> torch.Tensor | None:
    """The time constant of each feature map, (1, F, 1, 1); None before the first call, by which it is drawn."""
    tau_rc = neuron._runner.value("tau_rc")
    return tau_rc[None, :, :1, :1] if isinstance(tau_rc, torch.Tensor) else None


class UniformLIF(LIF):
    """`LIF` with a time constant for each feature map, drawn uniformly from `tau_range` (two numbers of seconds)."""

    _traits = replace(LIF._traits, ignored={"tau_range": None})
    _listed = (*LIF._listed, "tau_range", "taus")
    tau_range, taus = TauRange(), property(_taus)

    def __init__(
        self,
        threshold: Any = None,
        tau_range: Sequence[float] | None = None,
        ts: float = 0.001,
        resting_potential: float = 0.0,
        refractory_timesteps: int = 2,
        C: float = 0.281,
        per_neuron_thresh: Any = None,
        **others: Any,
    ):
        super().__init__(
            threshold,
            drawn_from(type(self).__name__, tau_range),
            ts,
            resting_potential,
            refractory_timesteps,
            C,
            per_neuron_thresh,
            tau_range=tau_range,
            **others,
        )


class UniformEIF(EIF):
    """`EIF` with a time constant for each feature map, drawn uniformly from `tau_range` (two numbers of seconds)."""

    _traits = replace(EIF._traits, ignored={"tau_range": None})
    _listed = (*EIF._listed, "tau_range", "taus")
    tau_range, taus = TauRange(), property(_taus)

    def __init__(
        self,
        threshold: Any = None,
        tau_range: Sequence[float] | None = None,
        ts: float = 0.001,
        delta_t: float = 0.5,
        theta_rh: float | None = None,
        resting_potential: float = 0.0,
        refractory_timesteps: int = 2,
        C: float = 0.281,
        v_reset: float | None = None,
        **others: Any,
    ):
        super().__init__(
            threshold,
            drawn_from(type(self).__name__, tau_range),
            ts,
            delta_t,
            theta_rh,
            resting_potential,
            refractory_timesteps,
            C,
            v_reset,
            tau_range=tau_range,
            **others,
        )


class UniformQIF(QIF):
    """`QIF` with a time constant for each feature map, drawn uniformly from `tau_range` (two numbers of seconds)."""

    _traits = replace(QIF._traits, ignored={"tau_range": None})
    _listed = (*QIF._listed, "tau_range", "taus")
    tau_range, taus = TauRange(), property(_taus)

    def __init__(
        self,
        threshold: Any = None,
        tau_range: Sequence[float] | None = None,
        ts: float = 0.001,
        u_c: float | None = None,
        a: float = 0.001,
        resting_potential: float = 0.0,
        refractory_timesteps: int = 2,
        C: float = 0.281,
        v_reset: float | None = None,
        **others: Any,
    ):
        super().__init__(
            threshold,
            drawn_from(type(self).__name__, tau_range),
            ts,
            u_c,
            a,
            resting_potential,
            refractory_timesteps,
            C,
            v_reset,
            tau_range=tau_range,
            **others,
        )


#: The classes by name, for whoever lists them.
CLASSES: Mapping[str, type[Neuron]] = {name: globals()[name] for name in __all__ if name != "DEVICE"}
