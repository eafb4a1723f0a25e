"""SpykeTorch-Extended's ``neurons`` module, on compiled layers: change the import, keep the network.

Each class is a specification, a `spyke_numba.Layer` and the translation of a call.  What deviates from the native
models in `spyke_numba.models` is written here as a specification of its own; ``docs/spyketorch.md`` lists it all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

try:
    import torch
except ImportError:
    raise ImportError(
        "spyke_numba.neurons works on torch tensors: pip install 'spyke_numba[torch]'"
    ) from None

from spyke_numba import backends, models
from spyke_numba.checks import whole_number
from spyke_numba.inhibition import KWTA, Scope
from spyke_numba.layer import Layer
from spyke_numba.models.exponential import DELTA_T, THETA_RH, sharpness
from spyke_numba.models.integrate_and_fire import CAPACITANCE, LONG_TAU, TAU_RC
from spyke_numba.ops import exp, exp2, minimum, where
from spyke_numba.parameters import Uniform
from spyke_numba.recording import Recording
from spyke_numba.spec import NeuronSpec, Param, State

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
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


# -- the specifications that deviate from the native ones


def _lif_membrane(I, u_inj, t_inj, resting_potential, tau_rc, gain):
    return resting_potential + (u_inj - resting_potential) * minimum(exp(-t_inj / tau_rc), 1.0) + I * gain


def _lif_bookkeeping(u_new, I, u_inj, t_inj, ts, gain):
    excited = I * gain > 0
    return where(excited, u_new, u_inj), where(excited, ts, t_inj + ts)


_LIF = NeuronSpec(
    name="LIF",
    summary="LIF that decays from its last excited potential: a spike does not reset it, inhibition lasts one step.",
    equations=(
        "u' = rest + (u_inj - rest) min(exp(-t_inj / tau_rc), 1) + I ts / C",
        "where I ts / C > 0: u_inj = u', t_inj = ts; elsewhere t_inj = t_inj + ts",
    ),
    params={"tau_rc": TAU_RC, "C": CAPACITANCE},
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


_LIF_SIMPLE = NeuronSpec(
    name="LIF_Simple",
    summary="LIF_Simple that decays to 0, whatever the resting potential.",
    equations=("u' = u (1 - ts / tau_rc) + I",),
    params={"tau_rc": TAU_RC},
    derived={"decay": lambda ts, tau_rc: 1 - ts / tau_rc},
    membrane=_lif_simple,
    requires=(LONG_TAU,),
)


def _eif(u, I, resting_potential, upswing_gain, theta_rh, sharpness, leak, gain):
    return u + ((resting_potential - u) * leak + I * gain + exp2((u - theta_rh) * sharpness) * upswing_gain)


_EIF = replace(
    models.get("EIF"),
    summary="EIF whose upswing is not capped.",
    equations=(
        "u' = u + ts ((rest - u + delta_t exp((u - theta_rh) / delta_t)) / tau_rc + I / C)",
        "u' >= rest",
    ),
    membrane=_eif,
)


def _adex(u, I, w, resting_potential, upswing_gain, theta_rh, sharpness, leak, gain):
    return u + (
        (resting_potential - u) * leak + (I - w) * gain + exp2((u - theta_rh) * sharpness) * upswing_gain
    )


_ADEX = replace(
    models.get("AdEx"),
    summary="AdEx whose upswing is not capped and whose adaptation follows the overshoot of a spike.",
    equations=(
        "u' = u + ts / tau_rc (rest - u + delta_t exp((u - theta_rh) / delta_t) + R (I - w)),  R = tau_rc / C",
        "u' >= rest",
        "w' = w + (a (u' - rest) - w) ts / tau_w",
        "at a spike: u = v_reset, w = w' + b",
    ),
    membrane=_adex,
    overshoot="kept",
)


def _eif_simple(u, I, delta_t, theta_rh, sharpness, decay):
    return u * decay + delta_t * exp2((u - theta_rh) * sharpness) + I


_EIF_SIMPLE = NeuronSpec(
    name="EIF_Simple",
    summary="EIF_Simple that decays to 0, whatever the resting potential.",
    equations=("u' = u (1 - ts / tau_rc) + delta_t exp((u - theta_rh) / delta_t) + I",),
    params={"tau_rc": TAU_RC, "delta_t": DELTA_T, "theta_rh": THETA_RH},
    derived={"sharpness": sharpness, "decay": lambda ts, tau_rc: 1 - ts / tau_rc},
    membrane=_eif_simple,
    requires=(LONG_TAU,),
)


def _izhikevich_membrane(u, I, w):
    return u + (0.04 * u**2 + 5 * u + 140 + I - w)


def _izhikevich_adaptation(u_new, w, a, b):
    return w + a * (b * u_new - w)


def _izhikevich_jump(w, d):
    return w + d


_IZHIKEVICH = NeuronSpec(
    name="Izhikevich",
    summary="Izhikevich's model with a step of 1 ms whatever ts is; starts at 0 and never uses c.",
    equations=("u' = u + 0.04 u^2 + 5 u + 140 + I - w", "w' = w + a (b u' - w)", "at a spike: w = w' + d"),
    params={"a": Param(0.02), "b": Param(0.2), "c": Param(0.0), "d": Param(8.0)},
    states={"w": State(0.0, "recovery variable")},
    defaults={"v_reset": 0.0},
    initial_u=0.0,
    membrane=_izhikevich_membrane,
    adaptation=_izhikevich_adaptation,
    on_spike=_izhikevich_jump,
)

_COMMON = {
    "tau_rc": 0.02,
    "ts": 0.001,
    "C": 0.281,
    "resting_potential": 0.0,
    "v_reset": None,
    "refractory_timesteps": 2,
}


#: What every call records; more where it returns more, or where a backend keeps less.
_RECORD: tuple[str, ...] = ("pulses", "u", "winners")


class Neuron:
    """What all neurons share; use one of its subclasses.

    Parameters
    ----------
    threshold : float
    per_neuron_thresh (or per_neuron_threshold) : tensor (1, F, H, W), optional
        A threshold for each neuron, instead of `threshold`.
    tau_rc, ts, C, resting_potential, v_reset, refractory_timesteps : float
        0.02 s, 0.001 s, 0.281, 0, the resting potential, 2 unless given.
    refractoriness : bool
        Without, no set is held after a win.
    inhibition_mode : {"feature", "location", "global"}
        ``"global"`` for AdEx and Izhikevich unless given; may be set between calls.
    inhibition_radius : int
        Rows and columns around a winner that cannot win in the same step.
    backend : {"auto", "cpu", "cuda", "torch", "torch_compiled"}
    dtype : {"float32", "float64"} or torch.dtype, optional
        The first input's unless given.
    seed : int
        Seed of what is drawn.

    Raises
    ------
    TypeError, ValueError
        One sentence, for a name or a value that is not allowed.
    """

    #: The specification, the potential that `__call__` returns, and which difference it calls dudt.
    spec: NeuronSpec
    default_inhibition_mode: Scope = "feature"
    unit_spikes = False
    dudt_after_reset = False
    state_before_reset = False
    counts_time_since_spike = False

    def __init__(
        self,
        threshold: Any = None,
        *,
        per_neuron_thresh: Any = None,
        per_neuron_threshold: Any = None,
        refractoriness: bool = True,
        inhibition_mode: Scope | None = None,
        inhibition_radius: int = 0,
        backend: str = "auto",
        dtype: Any = None,
        seed: int = 0,
        **params: Any,
    ):
        if not hasattr(type(self), "spec"):
            raise TypeError("Neuron is what the neurons share: use LIF, AdEx or another of its subclasses")
        map_given = per_neuron_thresh if per_neuron_thresh is not None else per_neuron_threshold
        if threshold is None and map_given is None:
            raise TypeError(f"{type(self).__name__} needs a threshold: give threshold= or per_neuron_thresh=")
        self._threshold, self._per_neuron_thresh = threshold, map_given
        self.refractoriness = refractoriness
        self._given: dict[str, Any] = {**_COMMON, **params}
        self._default_common()
        backends.choose(backend)  # which refuses what the first call could not use
        self._settings: dict[str, Any] = {"backend": backend, "seed": whole_number("seed", seed, 0)}
        self._dtype = dtype
        self._inhibition = KWTA(1, inhibition_mode or self.default_inhibition_mode, inhibition_radius)
        self._layer: Layer | None = None
        #: Of the layer's state, with the batch.
        self._shape: tuple[int, ...] = ()
        self._last: Recording | None = None
        self._time_since_spike: torch.Tensor | None = None
        self._neuron()

    def _default_common(self) -> None:
        """Take None for what has a default as not given."""
        for name, default in _COMMON.items():
            if self._given[name] is None:
                self._given[name] = default

    def __getstate__(self) -> dict[str, Any]:
        """Return everything, what the layer alone knows of the last step too."""
        kept = dict(vars(self))
        if self._last is not None:
            kept["_last"] = Recording({**self._last, "thresholded": self.get_thresholded_potentials()})
        return kept

    def _neuron(self) -> Any:
        """The specification with the parameters as they are now."""
        own = self.spec.all_params
        # tau_rc and C are taken by every class, also by those whose equation has no use for them
        given = {name: value for name, value in self._given.items() if name in own or name not in _COMMON}
        if not self.refractoriness:
            given["refractory_timesteps"] = 0
        given = {name: value for name, value in given.items() if value is not None}
        threshold = self._per_neuron_thresh if self._per_neuron_thresh is not None else self._threshold
        if getattr(threshold, "ndim", 0) >= 4:
            shape = tuple(threshold.shape)
            if len(shape) > 4 or shape[0] != 1:
                raise ValueError(
                    f"the threshold of {type(self).__name__} has the shape {shape}: "
                    "give a number or (1, F, H, W), which all samples share"
                )
            threshold = threshold[0]
        neuron = self.spec(threshold=threshold, **given)
        if self.unit_spikes:
            return neuron
        return self.spec(**{**neuron.given, "spike_amplitude": 1.0 / neuron.given["ts"]})

    # -- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        given = None if name.startswith("_") else self.__dict__.get("_given")
        if given is None or (name not in given and name not in self.spec.params and name != "refractoriness"):
            super().__setattr__(name, value)
            return
        before = dict(given), self.refractoriness
        if name == "refractoriness":
            self.__dict__[name] = value
        else:
            given[name] = value
            self._default_common()
        try:
            self._apply()
        except BaseException:
            self.__dict__["_given"], self.__dict__["refractoriness"] = before
            raise

    def _apply(self) -> None:
        """Let the layer take the parameters as they are now, or refuse them."""
        neuron = self._neuron()
        if self._layer is not None:
            self._layer.set(**{**dict.fromkeys(self._layer.neuron.given), **neuron.given})

    def __getattr__(self, name: str) -> Any:
        given = self.__dict__.get("_given", {})
        if name not in given and not (not name.startswith("_") and name in self.spec.params):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name == "v_reset" and given[name] is None:
            return self.spec.defaults.get("v_reset", given["resting_potential"])
        layer = self.__dict__.get("_layer")
        if layer is not None and layer.shape is not None and name in layer.parameters:
            value = layer.parameters[name]
            return value if isinstance(value, float) else torch.as_tensor(value)
        return given.get(name, None if name not in self.spec.params else self.spec.params[name].default)

    @property
    def threshold(self) -> Any:
        """The threshold; may be set, and holds from the next step on."""
        return self._threshold

    @threshold.setter
    def threshold(self, threshold: Any) -> None:
        self._change("_threshold", threshold)

    @property
    def per_neuron_thresh(self) -> Any:
        """The threshold of each neuron, or None; may be set, and holds from the next step on."""
        return self._per_neuron_thresh

    @per_neuron_thresh.setter
    def per_neuron_thresh(self, per_neuron_thresh: Any) -> None:
        self._change("_per_neuron_thresh", per_neuron_thresh)

    per_neuron_threshold = per_neuron_thresh

    def _change(self, attribute: str, value: Any) -> None:
        before = getattr(self, attribute)
        if (
            value is None
            and (self._threshold if attribute != "_threshold" else self._per_neuron_thresh) is None
        ):
            raise TypeError(f"{type(self).__name__} needs a threshold: give a number or a tensor")
        setattr(self, attribute, value)
        try:
            self._apply()
        except BaseException:
            setattr(self, attribute, before)
            raise

    @property
    def inhibition_mode(self) -> Scope:
        """What a winner inhibits; may be set, and holds from the next step on."""
        return self._inhibition.scope

    @inhibition_mode.setter
    def inhibition_mode(self, mode: Scope) -> None:
        self._inhibition = KWTA(self._inhibition.k, mode, self._inhibition.radius)

    @property
    def layer(self) -> Layer | None:
        """The compiled layer; None before the first call."""
        return self._layer

    def _state(self, name: str) -> Any:
        return None if self._layer is None else torch.as_tensor(self._layer.state[name])

    @property
    def previous_state(self) -> torch.Tensor | None:
        """Potential after the last step, (B, F, H, W); None before the first call."""
        return self._state("u")

    @property
    def refractory_periods(self) -> torch.Tensor | None:
        """Seconds for which each neuron is still held; None before the first call."""
        counters = self._state("refractory")
        return None if counters is None else counters * self.ts

    @property
    def w(self) -> torch.Tensor | None:
        """Adaptation of AdEx and Izhikevich; None before the first call."""
        if "w" not in self.spec.states:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'w'")
        return self._state("w")

    @property
    def time_since_spike(self) -> torch.Tensor | None:
        """Seconds since each neuron's last spike, or since the first call (IF and LIF)."""
        if not self.counts_time_since_spike:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'time_since_spike'")
        return self._time_since_spike

    def get_params(self) -> dict[str, Any]:
        """Return the parameters by name."""
        names = {*_COMMON, *self.spec.params}
        return {"threshold": self.threshold, **{name: getattr(self, name) for name in sorted(names)}}

    def get_thresholded_potentials(self) -> torch.Tensor | None:
        """Return the potentials that reached the threshold in the last step, 0 elsewhere; None before the first."""
        if self._last is None or self._layer is None:
            return None
        return self._last.thresholded if "thresholded" in self._last else self._layer.last_thresholded

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self.get_params().items())})"

    # -- running

    def reset(self) -> None:
        """Drop the state; the next call makes a new one from its input's shape."""
        self._layer = self._last = self._time_since_spike = None

    def _ready(self, potentials: torch.Tensor, axes: int, n_winners: int) -> Layer:
        shape = potentials.shape[-4:] if isinstance(potentials, torch.Tensor) else ()
        if len(shape) != 4 or potentials.ndim != axes:
            wanted = "(B, F, H, W)" if axes == 4 else "(T, B, F, H, W)"
            given = f"{type(potentials).__name__} {tuple(getattr(potentials, 'shape', ()))}"
            raise ValueError(f"the potentials are a {given}: give a torch tensor {wanted}")
        if self._inhibition.k != n_winners:
            self._inhibition = KWTA(n_winners, self._inhibition.scope, self._inhibition.radius)
        layer = self._layer
        if layer is None:
            dtype = self._dtype or ("float64" if potentials.dtype is torch.float64 else "float32")
            batch, *own = self._shape = tuple(shape)
            layer = Layer(self._neuron(), own, batch, dtype=dtype, **self._settings)
        elif shape != self._shape:
            raise ValueError(
                f"the potentials have the shape {tuple(potentials.shape)}, but the state is of {self._shape}: "
                "give as many, or call reset() first"
            )
        if layer.inhibition is not self._inhibition:
            layer.inhibition = self._inhibition
        return layer

    def __call__(
        self,
        potentials: torch.Tensor,
        return_thresholded_potentials: bool = False,
        return_dudt: bool = False,
        return_winners: bool = True,
        n_winners: int = 1,
        return_winning_spikes: bool = False,
    ) -> tuple[Any, ...]:
        """Advance by one step.

        Parameters
        ----------
        potentials : tensor (B, F, H, W)
            Input of the step; each sample has its own winners.
        return_thresholded_potentials, return_dudt, return_winners, return_winning_spikes : bool
            What to return beside spikes and state.
        n_winners : int
            k of the winners-take-all.

        Returns
        -------
        tuple
            ``(spikes, [thresholded,] state, [dudt,] [winners,] [winning_spikes])``; winners as a list of
            (feature, row, column), or for B > 1 a list of such lists.
        """
        layer = self._ready(potentials, 4, n_winners)
        before = layer.state["u"] if return_dudt else None
        self._last = None  # so that this step can use its memory again
        record = _RECORD
        if return_thresholded_potentials or not layer.keeps_thresholded:
            record = (*record, "thresholded")
        if return_dudt or self.state_before_reset:
            record = (*record, "u_pre")
        step = layer.step(potentials, record)
        if self._layer is None:  # not before: a first call that is refused fixes no shape
            self._layer = layer
        self._last = step
        spikes = step["pulses"]
        if self.counts_time_since_spike:
            passed = 0.0 if self._time_since_spike is None else self._time_since_spike
            self._time_since_spike = torch.where(spikes != 0.0, 0.0, passed + self._given["ts"])
        results: list[Any] = [spikes]
        if return_thresholded_potentials:
            results.append(step["thresholded"])
        results.append(step["u_pre" if self.state_before_reset else "u"])
        if return_dudt:
            now = step["u" if self.dudt_after_reset else "u_pre"]
            results.append(now - torch.as_tensor(before, device=now.device))
        if return_winners:
            lists = [[(f, r, c) for f, r, c in sample if f >= 0] for sample in step["winners"].tolist()]
            results.append(lists[0] if len(lists) == 1 else lists)
        if return_winning_spikes:
            winning = torch.zeros_like(spikes)
            winners = step["winners"]
            sample, place = (winners[..., 0] >= 0).nonzero(as_tuple=True)
            f, r, c = winners[sample, place].long().unbind(1)
            winning[sample, f, r, c] = spikes[sample, f, r, c]
            results.append(winning)
        return tuple(results)

    def run(
        self, potentials: torch.Tensor, n_winners: int = 1, record: Sequence[str] = ("spikes", "winners")
    ) -> Recording:
        """Advance by T steps in one compiled call; ``potentials`` (T, B, F, H, W), results as of `Layer.run`."""
        self._last = None
        layer = self._ready(potentials, 5, n_winners)
        recording = layer.run(potentials, record)
        self._layer = layer
        return recording

    def plot_ode(
        self, figure: Figure | None = None, ax: Axes | None = None, current: float = 0.0
    ) -> tuple[Figure, Axes]:
        """Draw du/dt against u, without and with a constant current; for models of one variable.

        Parameters
        ----------
        figure, ax : optional
            Where to draw; a new figure unless given.
        current : float
            Constant input.
        """
        from spyke_numba.phase import plot_ode

        return plot_ode(self._neuron(), figure, ax, current)


class IF(Neuron):
    """Perfect integrate-and-fire neuron."""

    spec = models.get("IF")
    dudt_after_reset = True
    counts_time_since_spike = True


class LIF(Neuron):
    """Leaky integrate-and-fire neuron that decays from its last excitation."""

    spec = _LIF
    counts_time_since_spike = True


class LIF_Simple(Neuron):
    """Leaky integrate-and-fire neuron whose input is added as it is; spikes are 1."""

    spec = _LIF_SIMPLE
    unit_spikes = True
    dudt_after_reset = True


class LIF_ode(Neuron):
    """Leaky integrate-and-fire neuron by Euler's method."""

    spec = models.get("LIF_ode")


class EIF(Neuron):
    """Exponential integrate-and-fire neuron."""

    spec = _EIF


class EIF_Simple(Neuron):
    """Exponential integrate-and-fire neuron, upswing and input added as they are; returns u before the reset."""

    spec = _EIF_SIMPLE
    unit_spikes = True
    dudt_after_reset = True
    state_before_reset = True


class QIF(Neuron):
    """Quadratic integrate-and-fire neuron."""

    spec = models.get("QIF")


class AdEx(Neuron):
    """Adaptive exponential integrate-and-fire neuron; a winner inhibits the whole layer."""

    spec = _ADEX
    default_inhibition_mode = "global"


class Izhikevich(Neuron):
    """Izhikevich's simple model with steps of 1 ms; a winner inhibits the whole layer."""

    spec = _IZHIKEVICH
    default_inhibition_mode = "global"


class HeterogeneousNeuron(Neuron):
    """What the heterogeneous neurons share: a time constant per feature map, drawn uniformly from `tau_range`.

    Parameters
    ----------
    threshold : float
    tau_range : (float, float)
        Seconds.
    """

    def __init__(self, threshold: Any = None, tau_range: Sequence[float] = (0.01, 0.03), **others: Any):
        try:
            low, high = map(float, tau_range)
        except (TypeError, ValueError):
            raise ValueError(
                f"tau_range is {tau_range!r}: give two numbers of seconds, such as (0.01, 0.03)"
            ) from None
        self.tau_range = (low, high)
        super().__init__(threshold, tau_rc=Uniform(low, high, per="feature"), **others)


class UniformLIF(HeterogeneousNeuron):
    """`LIF` with a time constant per feature map."""

    spec = _LIF
    counts_time_since_spike = True


class UniformEIF(HeterogeneousNeuron):
    """`EIF` with a time constant per feature map."""

    spec = _EIF


class UniformQIF(HeterogeneousNeuron):
    """`QIF` with a time constant per feature map."""

    spec = models.get("QIF")


#: The classes by name, for whoever lists them.
CLASSES: Mapping[str, type[Neuron]] = {name: globals()[name] for name in __all__}
