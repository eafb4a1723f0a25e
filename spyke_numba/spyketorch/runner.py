"""What runs a drop-in neuron: its parameters, its compiled layer, and the tensors by which users see its state.

SpykeTorch's neurons hand out the tensors that they compute with, and users write into them.  A compiled layer owns its
memory; what is handed out here are copies, which are written back before the next step if torch has counted a write.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from spyke_numba import backends
from spyke_numba.layer import Layer
from spyke_numba.layer.recording import Recording
from spyke_numba.model.checks import whole_number
from spyke_numba.model.distributions import Distribution
from spyke_numba.model.expressions import listing
from spyke_numba.model.kwta import KWTA, SCOPES, Scope
from spyke_numba.model.spec import Neuron, NeuronSpec

#: The version of a tensor that the user assigned: torch counts from 0.
_ASSIGNED = -1
#: Defaults that follow from the threshold.
_SOFT_THRESHOLDS = ("theta_rh", "u_c")
#: What every call records.
_RECORD = ("pulses", "u", "winners")
_HALF = (torch.float16, torch.bfloat16)
_LONGEST = 2**31 - 1
#: What is larger is rounded to infinity in float16.
_LARGEST_FLOAT16 = 65519
#: Names of the state's parts, as users know them.
_SHOWN = {
    "u": "previous_state",
    "refractory": "refractory_periods",
    "w": "w",
    "time_since_spike": "time_since_spike",
}


@dataclass(frozen=True)
class Traits:
    """What a class of drop-in neurons is made of.

    Attributes
    ----------
    spec : NeuronSpec
    needs_threshold : bool
        Whether one has to be given when the neuron is made.
    ignored : mapping of str to value
        Parameters that are taken though the model has no use for them, and their defaults.
    unit_spikes : bool
        Whether spikes are 1 instead of 1/ts.
    dudt_after_reset, state_before_reset : bool
        Which potential a call's dudt ends at, and which one a call returns as the state.
    whole_layer : bool
        Whether a winner inhibits the whole layer, whatever `inhibition_mode` is.
    counts_time_since_spike : bool
    """

    spec: NeuronSpec
    needs_threshold: bool = True
    ignored: Mapping[str, Any] = field(default_factory=dict)
    unit_spikes: bool = False
    dudt_after_reset: bool = False
    state_before_reset: bool = False
    whole_layer: bool = False
    counts_time_since_spike: bool = False


class Runner:
    """The parameters of a drop-in neuron and the layer that they make.

    Parameters
    ----------
    owner : str
        Name of the neuron's class, for messages.
    traits : Traits
    given : mapping
        Parameters by name, None for their defaults; ``"threshold"``, ``"per_neuron_thresh"``, ``"refractoriness"``
        (seconds) and ``"refractory_timesteps"``, which is instead of it, among them.
    inhibition_mode, inhibition_scope, inhibition_radius, exact_order, backend, dtype, seed, nan
        As of `spyke_numba.neurons.Neuron`.
    """

    def __init__(
        self,
        owner: str,
        traits: Traits,
        given: Mapping[str, Any],
        *,
        inhibition_mode: Any,
        inhibition_scope: Scope | None,
        inhibition_radius: int,
        exact_order: bool,
        backend: Any,
        dtype: Any,
        seed: int,
        nan: str | None,
    ):
        self.owner, self.traits = owner, traits
        #: Parameters by name; the refractory period in seconds.
        self.given = {name: _kept(value) for name, value in given.items()}
        steps, seconds = self.given.pop("refractory_timesteps"), self.given["refractoriness"]
        self.given["refractoriness"] = self.hold_for(steps) if seconds is None else seconds_of(seconds)
        self.mode = inhibition_mode
        if inhibition_scope is not None and inhibition_scope not in SCOPES:
            raise ValueError(
                f"inhibition_scope is {inhibition_scope!r}: allowed are {listing(map(repr, SCOPES))}, or None, "
                "which leaves it to inhibition_mode"
            )
        self.scope = inhibition_scope
        self.radius, self.exact_order = inhibition_radius, exact_order
        backends.choose(backend)  # which refuses what the first call could not use
        self._settings = {"backend": backend, "seed": whole_number("seed", seed, 0)}
        if nan not in (None, "raise", "ignore"):
            raise ValueError(f"nan is {nan!r}: allowed are 'raise' and 'ignore'")
        self._dtype, self._nan = dtype, nan
        #: The layer, and the specification that it runs.
        self.layer: Layer | None = None
        self._spec: NeuronSpec | None = None
        #: Shape of the layer's state, with the batch; the 16-bit type of results if they have one.
        self._shape: tuple[int, ...] = ()
        self._kind: torch.dtype | None = None
        self._n_winners: Any = None
        self._competition = KWTA(1, "feature", inhibition_radius, exact_order)
        self._exact: bool | None = None
        #: Tensors of the state that the user holds, and of parameters, with torch's count of writes into each.
        self._seen: dict[str, tuple[torch.Tensor, int]] = {}
        self._watched: dict[str, tuple[torch.Tensor, int]] = {}
        self._last: Recording | None = None
        #: Calls since the state was made, and the one in which each neuron last spiked, 0 for none.
        self._calls = 0
        self._spiked_at: torch.Tensor | None = None
        self._apply()

    # -- parameters

    @contextmanager
    def changing(self) -> Iterator[dict[str, Any]]:
        """Change parameters, from the next step on; they stay as they were if a value is refused."""
        before, watched = dict(self.given), self._watched
        try:
            yield self.given
            self.given = {name: _kept(value) for name, value in self.given.items()}
            self._apply()
        except BaseException:
            self.given, self._watched = before, watched
            raise

    def _apply(self) -> None:
        """Let the layer take the parameters as they are now, or refuse them."""
        if self.layer is None:
            self.neuron(self.traits.spec, check=True)
        else:
            neuron = self.neuron(self.layer.neuron.spec, self.layer.dtype)
            self.layer.set(**{**dict.fromkeys(self.layer.neuron.given), **neuron.given})
        self._watched = {**self._filled(), **_versions(self.given)}

    def _filled(self) -> dict[str, tuple[torch.Tensor, int]]:
        """Return the tensor of thresholds that the user has seen though none was given."""
        seen = self.given["per_neuron_thresh"] is None and "per_neuron_thresh" in self._watched
        return {"per_neuron_thresh": self._watched["per_neuron_thresh"]} if seen else {}

    def set_threshold(self, threshold: Any) -> None:
        """Take another threshold, for all neurons unless it is None."""
        with self.changing() as given:
            given["threshold"] = threshold
            if threshold is not None:
                given["per_neuron_thresh"] = None
                self._watched = {
                    name: seen for name, seen in self._watched.items() if name != "per_neuron_thresh"
                }

    def value(self, name: str) -> Any:
        """Return a parameter as it is now: as given, its default, or what was drawn."""
        value = self.given[name]
        if value is None and name in _SOFT_THRESHOLDS:
            threshold = self.given["threshold"]
            threshold = self.given["per_neuron_thresh"] if threshold is None else threshold
            return threshold - abs(threshold) / 4
        if value is None and name == "v_reset":
            return self.value("resting_potential")
        if value is None and name == "c":
            return self.value("v_reset")
        if value is None:
            own = self.traits.spec.all_params
            return own[name].default if name in own else self.traits.ignored.get(name)
        if isinstance(value, Distribution) and self.layer is not None and name in self.layer.parameters:
            return torch.as_tensor(self.layer.parameters[name])
        return value

    @property
    def ts(self) -> float:
        """The time step."""
        return float(self.value("ts"))

    @property
    def refractory_steps(self) -> Any:
        """The refractory period in whole steps, an int or an array."""
        steps = _steps(self.given["refractoriness"], self.ts)
        return int(steps) if steps.ndim == 0 and np.isfinite(steps) else steps

    def hold_for(self, steps: Any) -> Any:
        """Return a refractory period in whole steps (None: the default) in seconds."""
        spec = self.traits.spec
        if steps is None:
            steps = spec.all_params["refractory_timesteps"].default
        checked = spec(threshold=1.0, ts=self.given["ts"], refractory_timesteps=_kept(steps))
        return checked.given["refractory_timesteps"] * self.ts

    def per_neuron_thresh(self) -> Any:
        """Return the threshold of each neuron: what was given, or from the first call on a filled tensor."""
        given = self.given["per_neuron_thresh"]
        if given is not None or self.layer is None:
            return given
        if "per_neuron_thresh" not in self._watched:
            with torch.inference_mode(False):
                filled = torch.empty(1, *self._shape[1:], dtype=getattr(torch, self.layer.dtype))
                filled[0] = torch.as_tensor(self.layer.parameters["threshold"])
            self._watched["per_neuron_thresh"] = filled, filled._version
        return self._watched["per_neuron_thresh"][0]

    def neuron(self, spec: NeuronSpec, dtype: str = "float64", check: bool = False) -> Neuron:
        """Return a specification with the parameters as they are now."""
        own, given = spec.all_params, {}
        for name, value in self.given.items():
            taken = name in own or (spec is self.traits.spec and name not in self.traits.ignored)
            if taken and name not in ("per_neuron_thresh", "refractoriness"):
                given[name] = value
        if self.given["per_neuron_thresh"] is not None:
            given["threshold"] = self.given["per_neuron_thresh"]
        if given["threshold"] is None:
            if self.traits.needs_threshold or not check:
                raise TypeError(f"{self.owner} needs a threshold: give threshold= or per_neuron_thresh=")
            given["threshold"] = 1.0
        given = {name: self._per_map(name, value) for name, value in given.items() if value is not None}
        given = {**spec(**given).given, "refractory_timesteps": self.refractory_steps}
        for name in _SOFT_THRESHOLDS:
            # by the threshold's number, also where each neuron has a threshold of its own
            if name in own and self.given[name] is None and self.given["threshold"] is not None:
                given[name] = self._per_map(name, self.value(name))
        return spec(
            **given, **({} if self.traits.unit_spikes else {"spike_amplitude": self.amplitude(dtype)})
        )

    def _per_map(self, name: str, value: Any) -> Any:
        """Return a parameter's values without the axis of samples, which share them."""
        if getattr(value, "ndim", 0) < 4:
            return value
        shape = tuple(value.shape)
        if len(shape) > 4 or shape[0] != 1:
            raise ValueError(
                f"the {name} of {self.owner} has the shape {shape}: "
                "give a number or (1, F, H, W), which all samples share"
            )
        return value[0]

    def amplitude(self, dtype: str) -> float:
        """Return a spike's value, divided in a dtype: 1/ts, or 1."""
        if self.traits.unit_spikes:
            return 1.0
        real = np.dtype(dtype).type
        return float(real(1.0) / real(self.ts))

    def thresholded(self, potentials: torch.Tensor) -> torch.Tensor:
        """Return potentials at or above the threshold, and 0 for the others."""
        threshold = self._watched.get("per_neuron_thresh", (self.given["threshold"], 0))[0]
        if threshold is None:
            raise TypeError(f"{self.owner} needs a threshold: set threshold or per_neuron_thresh")
        potentials = potentials.detach()
        dtype = potentials.dtype if potentials.is_floating_point() else torch.float32
        threshold = torch.as_tensor(threshold, dtype=dtype, device=potentials.device)
        return torch.where(potentials >= threshold, potentials, torch.zeros_like(potentials))

    # -- what users see of the state

    def see(self, name: str) -> Any:
        """Return a tensor of the state, into which the user may write; None before the first call."""
        tensor, version = self._seen.get(name, (None, 0))
        if self.layer is None or (tensor is not None and tensor._version != version):
            return tensor
        spiked_at = self._spiked_at
        if name == "time_since_spike" and spiked_at is None:
            return None
        with torch.inference_mode(False):
            if name == "time_since_spike" and spiked_at is not None:
                now = self._seconds(spiked_at.neg() + self._calls)
            elif name == "refractory":
                now = self._seconds(torch.as_tensor(self.layer.state["refractory"]))
            else:
                now = torch.as_tensor(self.layer.state[name])
            # the layer itself may have been used since the tensor was handed out
            if tensor is None or not torch.equal(tensor, now):
                self._seen[name] = now, now._version
        return self._seen[name][0]

    def assign(self, name: str, value: Any) -> None:
        """Take the user's tensor as a part of the state from the next step on, and what is written into it till then.

        None is the initial value; without potentials, the next input's shape makes a new state.
        """
        if value is None and name == "u":
            held = self.see("refractory")
            self.reset()
            if held is not None:
                self._seen["refractory"] = held, _ASSIGNED
            return
        if value is None:
            self._seen.pop(name, None)
            if self.layer is None:
                return
            value = self._initial(name)
        try:
            tensor = torch.as_tensor(value).detach()
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{_SHOWN[name]} is a {type(value).__name__}: give a tensor of numbers") from None
        if self.layer is not None and tensor.shape != self._shape:
            tensor = self._expanded(name, tensor).clone()
        if tensor.is_inference():
            with torch.inference_mode(False):
                tensor = tensor.clone()
        self._seen[name] = tensor, _ASSIGNED

    def _expanded(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        try:
            return tensor.expand(self._shape)
        except RuntimeError:
            raise ValueError(
                f"{_SHOWN[name]} has the shape {tuple(tensor.shape)}, but the state is of {self._shape}: "
                "give as many, or call reset() first"
            ) from None

    def _initial(self, name: str) -> torch.Tensor:
        """Return a part of the state as it is at first."""
        assert self.layer is not None
        if name in ("refractory", "time_since_spike"):
            return torch.zeros(self._shape)
        layer = copy.deepcopy(self.layer)
        layer.reset()
        return torch.as_tensor(layer.state[name])

    def _seconds(self, steps: torch.Tensor) -> torch.Tensor:
        assert self.layer is not None
        return steps.to(getattr(torch, self.layer.dtype)) * self.ts

    def _counted(self, name: str, seconds: torch.Tensor, counters: torch.Tensor) -> torch.Tensor:
        """Return counters in which those are changed whose seconds the user has written."""
        seconds, counters = seconds.cpu(), counters.cpu()
        if bool(seconds.isnan().any()):
            raise ValueError(f"{name} holds NaN: give seconds")
        steps = torch.from_numpy(np.clip(_steps(seconds.numpy(), self.ts), 0, _LONGEST).astype(np.int32))
        # seconds of many steps are rounded: what nobody wrote stays what it is
        return torch.where(seconds == counters.to(seconds.dtype) * self.ts, counters, steps)

    def _write_back(self, layer: Layer) -> None:
        """Bring into the layer what the user has written since the last step."""
        if any(_written(tensor, version) for tensor, version in self._watched.values()):
            if self._filled():
                self.given["per_neuron_thresh"] = self._watched["per_neuron_thresh"][0]
            self._apply()
        written = {
            name: self._expanded(name, tensor)
            for name, (tensor, version) in self._seen.items()
            if tensor._version != version
        }
        since = written.pop("time_since_spike", None)
        if since is not None and self._spiked_at is not None:
            steps = self._counted("time_since_spike", since, self._calls - self._spiked_at)
            self._spiked_at = (self._calls - steps).to(self._spiked_at.device)
        if not written:
            return
        state = dict(layer.state)
        if "refractory" in written:
            counters = torch.as_tensor(state["refractory"])
            written["refractory"] = self._counted("refractory_periods", written["refractory"], counters)
        layer.state = state | written

    # -- running

    def reset(self) -> None:
        """Drop the state; the time since the last spike is seen until the next call."""
        since = self.see("time_since_spike")
        self._seen = {} if since is None else {"time_since_spike": (since, since._version)}
        self.layer = self._last = self._spiked_at = None
        self._watched = _versions(self.given)

    def _holds_sets(self) -> bool:
        """Whether winners inhibit others, and not themselves alone."""
        mode = self.mode
        named = isinstance(mode, str) and mode in ("feature", "location")
        return self.scope is not None or self.traits.whole_layer or named

    def compete(self, n_winners: Any = None) -> None:
        """Take the inhibition as it is now, for a number of winners (None: as many as before)."""
        n_winners = self._n_winners if n_winners is None else whole_number("n_winners", n_winners, 0)
        if self._exact is None:
            self._exact = self._order()
        scope = self.scope or ("global" if self.traits.whole_layer else self.mode)
        scope = scope if self._holds_sets() else "feature"
        self._competition = KWTA(n_winners or 1, scope, self.radius, self._exact)
        self._n_winners = n_winners

    def _order(self) -> bool:
        """Return whether winners are ordered exactly, and say so where that was not asked for."""
        backend = backends.choose(self._settings["backend"])
        if not (self.exact_order or backend.any_order):
            warnings.warn(
                f"{self.owner} orders winners exactly, and not as SpykeTorch does, since it runs on the backend "
                f"{backend.name!r}: give exact_order=True to say that this is meant, or backend='cpu' or 'torch'",
                RuntimeWarning,
                stacklevel=6,
            )
            return True
        return self.exact_order

    def _new_layer(self, spec: NeuronSpec, potentials: torch.Tensor, shape: tuple[int, ...]) -> Layer:
        dtype = self._dtype or ("float64" if potentials.dtype is torch.float64 else "float32")
        kind = potentials.dtype if self._dtype is None and potentials.dtype in _HALF else None
        batch, *own = shape
        # a user's own membrane may overflow as it did: what is infinite spikes, and is reset
        nan = self._nan or ("raise" if spec is self.traits.spec and self.traits.needs_threshold else "ignore")
        layer = Layer(self.neuron(spec), own, batch, dtype=dtype, nan=nan, **self._settings)
        layer.set(spike_amplitude=self.amplitude(layer.dtype))
        if kind is torch.float16 and self.amplitude(layer.dtype) > _LARGEST_FLOAT16:
            raise ValueError(
                f"a spike of {self.owner} is 1 / ts = {1 / self.ts:g}, which float16 cannot hold: "
                "give input of another dtype, or a longer ts"
            )
        if self.layer is not None:
            carried = self.layer.state
            layer.state = {**layer.state, **{name: carried[name] for name in ("u", "refractory")}}
        self._shape, self._kind = shape, kind
        return layer

    def _ready(
        self, spec: NeuronSpec, potentials: torch.Tensor, axes: int, n_winners: int
    ) -> tuple[Layer, torch.Tensor]:
        shape = potentials.shape[-4:] if isinstance(potentials, torch.Tensor) else ()
        if len(shape) != 4 or potentials.ndim != axes:
            wanted = "(B, F, H, W)" if axes == 4 else "(T, B, F, H, W)"
            given = f"{type(potentials).__name__} {tuple(getattr(potentials, 'shape', ()))}"
            raise ValueError(f"the potentials are a {given}: give a torch tensor {wanted}")
        if potentials.requires_grad:
            potentials = potentials.detach()
        layer = self.layer
        if layer is not None and shape != self._shape:
            raise ValueError(
                f"the potentials have the shape {tuple(potentials.shape)}, but the state is of {self._shape}: "
                "give as many, or call reset() first"
            )
        if n_winners != self._n_winners:
            self.compete(n_winners)
        if layer is None or spec is not self._spec:
            layer = self._new_layer(spec, potentials, tuple(shape))
        for tensor, version in self._seen.values():
            if tensor._version != version:
                self._write_back(layer)
                break
        else:
            if any(_written(tensor, version) for tensor, version in self._watched.values()):
                self._write_back(layer)
        if layer.inhibition is not self._competition:
            layer.inhibition = self._competition
        return layer, potentials

    def call(
        self,
        spec: NeuronSpec,
        potentials: torch.Tensor,
        return_thresholded_potentials: bool,
        return_dudt: bool,
        return_winners: bool,
        n_winners: int,
        return_winning_spikes: bool,
    ) -> tuple[Any, ...]:
        """Advance by one step of a specification; see `spyke_numba.neurons.Neuron`."""
        if torch.is_inference_mode_enabled():
            # there torch counts no writes
            with torch.inference_mode(False):
                return self.call(
                    spec,
                    potentials,
                    return_thresholded_potentials,
                    return_dudt,
                    return_winners,
                    n_winners,
                    return_winning_spikes,
                )
        layer, potentials = self._ready(spec, potentials, 4, n_winners)
        traits = self.traits
        alone = n_winners == 0 or not self._holds_sets()
        before = layer.state if return_dudt or alone else {}
        self._last = None  # so that this step can use its memory again
        if layer is self.layer:
            self._seen = {}
        record: tuple[str, ...] = _RECORD
        if return_thresholded_potentials or alone or not layer.keeps_thresholded:
            record = (*record, "thresholded")
        if return_dudt or traits.state_before_reset:
            record = (*record, "u_pre")
        step = layer.step(potentials, record)
        if layer is not self.layer:  # not before: a first call that is refused fixes no shape
            self.layer, self._spec, self._spiked_at = layer, spec, None
        self._last = step
        spikes, state = step["pulses"], step["u"]
        self._seen = {"u": (state, state._version)}
        if return_winners or return_winning_spikes or traits.counts_time_since_spike:
            lists = [[(f, r, c) for f, r, c in sample if f >= 0] for sample in step["winners"].tolist()]
        if traits.counts_time_since_spike:
            self._count(spikes, any(lists))
        if alone:
            self._hold_winners_alone(layer, before["refractory"], step, n_winners)
        results = [spikes]
        if return_thresholded_potentials:
            results.append(step["thresholded"])
        results.append(step["u_pre"] if traits.state_before_reset else state)
        if return_dudt:
            now = step["u_pre"] if not traits.dudt_after_reset else state
            results.append(now - torch.as_tensor(before["u"], device=now.device))
        if self._kind is not None:
            results = [result.to(self._kind) for result in results]
        if not (return_winners or return_winning_spikes):
            return tuple(results)
        if n_winners == 0:
            lists = [[] for _ in lists]
        if return_winners:
            results.append(lists[0] if len(lists) == 1 else lists)
        if return_winning_spikes:
            winning = torch.zeros_like(results[0])
            places = [(sample, *winner) for sample, won in enumerate(lists) for winner in won]
            if places:
                at = torch.tensor(places, device=winning.device).unbind(1)
                winning[at] = results[0][at]
            results.append(winning)
        return tuple(results)

    def _count(self, spikes: torch.Tensor, any_spiked: bool) -> None:
        """Count a call, and note who spiked in it."""
        if self._spiked_at is None:
            self._calls = 0
            self._spiked_at = torch.zeros(spikes.shape, dtype=torch.int32, device=spikes.device)
        self._calls += 1
        if not any_spiked:
            return
        if spikes.is_cpu and self._spiked_at.is_cpu:
            # five times as fast as torch, which compares and fills one number at a time
            self._spiked_at.numpy().reshape(-1)[np.flatnonzero(spikes.numpy() != 0.0)] = self._calls
        else:
            self._spiked_at = self._spiked_at.to(spikes.device).masked_fill_(spikes != 0.0, self._calls)

    def _hold_winners_alone(self, layer: Layer, before: Any, step: Recording, n_winners: int) -> None:
        """Take back that winners hold others: kernels know sets that are held."""
        winners = step["winners"].reshape(self._shape[0], -1, 3).cpu()
        if not bool((winners[..., 0] >= 0).any()):
            return
        counters = (torch.as_tensor(before).cpu() - 1).clamp_(min=0)
        periods = np.broadcast_to(layer.parameters["refractory_timesteps"], self._shape[1:])
        for sample, won in enumerate(winners.tolist() if n_winners else ()):
            for f, r, c in won:
                if f >= 0:
                    counters[sample, f, r, c] = int(periods[f, r, c])
        layer.state = {**layer.state, "refractory": counters}

    def run(self, potentials: torch.Tensor, n_winners: int, record: Sequence[str]) -> Recording:
        """Advance by T steps in one compiled call, and step by step where winners hold nobody else."""
        with torch.inference_mode(False):
            layer, potentials = self._ready(self.traits.spec, potentials, 5, n_winners)
            self._last = None
            if layer is self.layer:
                self._seen = {}
            if n_winners and self._holds_sets():
                recording = layer.run(potentials, record)
            else:
                recording = self._run_alone(layer, potentials, n_winners, record)
            if layer is not self.layer:
                self.layer, self._spec, self._spiked_at = layer, self.traits.spec, None
            self._seen = {}
        return recording

    def _run_alone(
        self, layer: Layer, potentials: torch.Tensor, n_winners: int, record: Sequence[str]
    ) -> Recording:
        record = tuple(record)
        blocks = [layer.run(potentials[:0], record)]  # which refuses what cannot be recorded
        for t in range(len(potentials)):
            before = layer.state["refractory"]
            step = layer.run(potentials[t : t + 1], ("winners", *record))
            self._hold_winners_alone(layer, before, step, n_winners)
            arrays = {name: step[name] for name in record}
            if "refractory" in record:
                arrays["refractory"] = torch.as_tensor(layer.state["refractory"])[None]
            if "winners" in record and n_winners == 0:
                arrays["winners"] = torch.full_like(arrays["winners"], -1)
            blocks.append(Recording(arrays))
        return Recording.joined(blocks)

    def last_thresholded(self) -> torch.Tensor | None:
        """Return the potentials that reached the threshold in the last call's step, 0 elsewhere; None before."""
        if self._last is None or self.layer is None:
            return None
        # unless it was recorded, the layer has it, which takes a while to ask
        return self._last.thresholded if "thresholded" in self._last else self.layer.last_thresholded

    def __getstate__(self) -> dict[str, Any]:
        """Return everything, what the layer alone knows of the last step too."""
        thresholded = self.last_thresholded()
        if self.layer is not None:
            self._write_back(self.layer)
        kept = dict(vars(self), _exact=None, _watched=self._filled())
        if self.layer is not None:
            kept["_seen"] = {}
        if thresholded is not None:
            kept["_last"] = Recording({"thresholded": thresholded})
        return kept

    def __setstate__(self, kept: dict[str, Any]) -> None:
        vars(self).update(kept)
        self._seen = {name: (tensor, _ASSIGNED) for name, (tensor, _) in self._seen.items()}
        filled = {name: (tensor, tensor._version) for name, (tensor, _) in self._watched.items()}
        self._watched = {**filled, **_versions(self.given)}


def _steps(seconds: Any, ts: float) -> np.ndarray:
    """Return seconds in whole steps, rounded up but for what float32 numbers of seconds are off."""
    return np.ceil(np.asarray(seconds, dtype=np.float64) / ts - 1e-3) + 0.0


def seconds_of(refractoriness: Any) -> Any:
    """Return a refractory period in seconds as a number or an array, checked."""
    try:
        seconds = np.asarray(_on_host(refractoriness), dtype=np.float64)
    except (TypeError, ValueError):
        seconds = np.asarray(np.nan)
    if refractoriness is True or not np.all(seconds >= 0):
        raise ValueError(f"refractoriness is {refractoriness!r}: give seconds, 0 or more")
    return float(seconds) if seconds.ndim == 0 else seconds


def _on_host(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def _kept(value: Any) -> Any:
    """Return a parameter as it is kept: without a gradient, and an array as a tensor."""
    if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in "biuf":
        return torch.tensor(value)
    return value.detach() if isinstance(value, torch.Tensor) and value.requires_grad else value


def _versions(given: Mapping[str, Any]) -> dict[str, tuple[torch.Tensor, int]]:
    """Return the tensors among parameters, each with torch's count of writes into it."""
    tensors = {name: value for name, value in given.items() if isinstance(value, torch.Tensor)}
    return {
        name: (tensor, 0 if tensor.is_inference() else tensor._version) for name, tensor in tensors.items()
    }


def _written(tensor: torch.Tensor, version: int) -> bool:
    """Return whether the user may have written into a tensor since; torch does not count it in inference mode."""
    return tensor.is_inference() or tensor._version != version
