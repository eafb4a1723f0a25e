"""What a neuron model is: frozen data and plain functions, nothing about backends, time loops or inhibition."""

from __future__ import annotations

import importlib
import keyword
import math
import numbers
import pickle
import sys
import unicodedata
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from spyke_numba.model.checks import check_no_gradient
from spyke_numba.model.distributions import Distribution
from spyke_numba.model.expressions import VOCABULARY, Function, argument_names, listing, read, suggest
from spyke_numba.model.limits import MOST_STEPS

Number = float | int
Rule = Callable[..., Any]


@dataclass(frozen=True)
class Param:
    """A named parameter of a neuron model.

    Parameters
    ----------
    default : float or callable or None
        The value when none is given; a callable is bound by argument name to other parameters
        (``lambda threshold: threshold - 0.25 * abs(threshold)``); None means that a value is required.
    unit : str
        Such as ``"s"``; ``""`` for a pure number.
    doc : str
        One line for a reader.
    above, at_least : float, optional
        Bounds that every value must satisfy.
    whole : bool
        Whether values must be whole numbers.
    optional : bool
        Whether None is a value of its own, meaning "without".
    """

    default: Number | Rule | None
    unit: str = ""
    doc: str = ""
    above: float | None = None
    at_least: float | None = None
    whole: bool = False
    optional: bool = False


@dataclass(frozen=True)
class State:
    """A state variable beside the membrane potential.

    Parameters
    ----------
    initial : float or callable
        Value at rest; a callable is bound by name to parameters, derived constants and the initial ``u``.
    doc : str
        One line for a reader.
    """

    initial: Number | Rule = 0.0
    doc: str = ""

    def __post_init__(self) -> None:
        if not callable(self.initial):
            if isinstance(self.initial, (str, bytes)) or not isinstance(self.initial, numbers.Real):
                raise TypeError(
                    f"the initial value {self.initial!r} of a state is no number: give one, or a function"
                )
            if not math.isfinite(self.initial):
                raise ValueError(
                    f"the initial value {self.initial:g} of a state is not finite: give a finite number"
                )


@dataclass(frozen=True)
class Requirement:
    """A condition between parameters, bound by name, with the sentence that says what is allowed."""

    holds: Rule
    message: str


def _rest(resting_potential: Any) -> Any:
    return resting_potential


#: The parameters that the engine uses, taken by every model beside its own.
SHARED_PARAMS: Mapping[str, Param] = MappingProxyType(
    {
        "threshold": Param(None, "mV", "potential at or above which a neuron spikes"),
        "ts": Param(0.001, "s", "time step", above=0.0),
        "resting_potential": Param(0.0, "mV", "potential at rest and during the refractory period"),
        "v_reset": Param(_rest, "mV", "potential after a spike; the resting potential unless given"),
        "refractory_timesteps": Param(
            2, "steps", "whole steps that an inhibited set stays at rest", at_least=0, whole=True
        ),
        "floor": Param(None, "mV", "lowest potential, None for no floor", optional=True),
        "spike_amplitude": Param(1.0, "", "value of a spike in the recorded pulses"),
    }
)

#: What adaptation and a spike can see of the step that carries a potential beyond the threshold.
OVERSHOOTS = ("kept", "cut")
#: At or below this, in mV, a potential is one inside a cell (resets -80 to -45, soft thresholds -60 to -40); one that
#: is counted from a rest of 0 stays above it (resets 0 to -15).
_INSIDE_A_CELL = -30.0

#: Names that a model's functions may take beside parameters, derived constants and states.
_SIGNALS = {
    "membrane": ("u", "I"),
    "adaptation": ("u", "u_new", "I"),
    "on_spike": ("u", "u_new", "I"),
}
_RESERVED = frozenset(
    {"u", "u_new", "u_pre", "I", "spikes", "pulses", "thresholded", "winners", "refractory"}
    | {"events", "packed_spikes", "description"}
)
#: What a recording can do, which no state may be called, since a recording has its states as attributes.
RECORDING = frozenset({"get", "items", "joined", "keys", "names", "values"})


@dataclass(frozen=True, eq=False)
class NeuronSpec:
    """A neuron model, written once for every backend.

    Its functions are plain ``def``\\ s of scalars, straight-line arithmetic over the vocabulary of `spyke_numba.ops`;
    arguments are bound by name.  They may take ``u`` (potential before the step), ``I`` (input of the step), ``u_new``
    (potential after hold and floor; not the membrane), states, parameters and derived constants.

    Parameters
    ----------
    name : str
    membrane : function
        Returns the new potential.
    params : mapping of str to Param or number
        The model's own parameters, each with a default.
    states : mapping of str to State or number
        State variables beside ``u``.
    adaptation : function, optional
        Returns the new value of each state, in the order of `states`; runs for every neuron, held ones too.
    on_spike : function, optional
        Returns each state after a spike, in the order of `states`, from its value after the adaptation.
    derived : mapping of str to callable
        Constants computed once, in float64 on the host, from parameters and earlier derived constants.
    defaults : mapping of str to number or callable
        This model's own defaults of shared parameters.
    initial_u : float or callable, optional
        Initial potential; the resting potential unless given.
    requires : sequence of Requirement
    overshoot : {"kept", "cut"}
        What `adaptation` and `on_spike` get as ``u_new`` where a step ends beyond the threshold: the potential as it
        is, or the threshold.  Records and the order of winners have the potential as it is in either case.
    summary, equations, source : str, tuple of str, str
        For a reader: one sentence, the equations, and where they come from (with a DOI).

    Raises
    ------
    TypeError, ValueError
        One sentence, when the specification is not sound.

    Examples
    --------
    Calling a specification gives a configured `Neuron`:

    >>> from spyke_numba import models
    >>> models.LIF(threshold=1.0, tau_rc=0.01).given["tau_rc"]
    0.01
    """

    name: str
    membrane: Callable[..., Any]
    params: Mapping[str, Param] = field(default_factory=dict)
    states: Mapping[str, State] = field(default_factory=dict)
    adaptation: Callable[..., Any] | None = None
    on_spike: Callable[..., Any] | None = None
    derived: Mapping[str, Rule] = field(default_factory=dict)
    defaults: Mapping[str, Number | Rule] = field(default_factory=dict)
    initial_u: Number | Rule | None = None
    requires: tuple[Requirement, ...] = ()
    overshoot: Literal["kept", "cut"] = "kept"
    summary: str = ""
    equations: tuple[str, ...] = ()
    source: str = ""
    functions: Mapping[str, Function] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.isidentifier() and not keyword.iskeyword(self.name)):
            raise ValueError(f"a model's name must be an identifier, not {self.name!r}")
        if self.overshoot not in OVERSHOOTS:
            raise ValueError(
                f"overshoot of {self.name} is {self.overshoot!r}: give 'kept', or 'cut' for an adaptation that sees "
                "potentials up to the threshold"
            )
        params = {k: v if isinstance(v, Param) else Param(v) for k, v in self._named("params")}
        states = {k: v if isinstance(v, State) else State(v) for k, v in self._named("states")}
        for attribute, value in (
            ("params", params),
            ("states", states),
            ("derived", dict(self._named("derived"))),
            ("defaults", dict(self._named("defaults"))),
        ):
            object.__setattr__(self, attribute, MappingProxyType(value))
        object.__setattr__(self, "requires", tuple(self.requires))
        object.__setattr__(self, "equations", tuple(self.equations))
        self._check_names()
        object.__setattr__(self, "functions", MappingProxyType(self._read_functions()))

    def _named(self, attribute: str) -> list[tuple[str, Any]]:
        """Return a mapping's entries under names as Python reads them in a function."""
        entries = getattr(self, attribute)
        if not isinstance(entries, Mapping):
            raise TypeError(f"{attribute} of {self.name} is {entries!r}: give a mapping of names")
        read: dict[str, Any] = {}
        for name, value in entries.items():
            as_read = canonical(name)
            if as_read in read:
                raise ValueError(f"{attribute} of {self.name} holds {as_read!r} twice, to Python: rename one")
            read[as_read] = value
        return list(read.items())

    def _check_names(self) -> None:
        for name, parameter in self.params.items():
            if parameter.default is None and not parameter.optional:
                raise ValueError(
                    f"parameter {name!r} of {self.name} has no default: give Param(default, unit, doc)"
                )
        seen: dict[str, str] = dict.fromkeys(SHARED_PARAMS, "a shared parameter")
        for kind, names in (
            ("parameter", self.params),
            ("state", self.states),
            ("derived constant", self.derived),
        ):
            for name in names:
                if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
                    raise ValueError(f"the {kind} {name!r} of {self.name} is not an identifier: rename it")
                taken = kind == "state" and (name in RECORDING or hasattr(object, name))
                if name in _RESERVED or name in VOCABULARY or taken:
                    raise ValueError(f"the {kind} {name!r} of {self.name} is a name of the engine: rename it")
                if name in seen:
                    raise ValueError(
                        f"the {kind} {name!r} of {self.name} is also {seen[name]}: rename one of them"
                    )
                seen[name] = f"a {kind}"
        for name in self.defaults:
            if name not in SHARED_PARAMS:
                raise ValueError(
                    f"defaults of {self.name} name {name!r}, which is not a shared parameter: "
                    f"allowed are {listing(SHARED_PARAMS)}"
                )
        parameters = set(self.all_params)
        rules: list[tuple[str, Any, set[str]]] = []
        rules += [(f"default of {name!r}", p.default, parameters) for name, p in self.all_params.items()]
        known = set(parameters)
        for name, rule in self.derived.items():
            if not callable(rule):
                raise TypeError(
                    f"the derived constant {name!r} of {self.name} is {rule!r}: give a function of parameters"
                )
            rules.append((f"derived constant {name!r}", rule, set(known)))
            known.add(name)
        rules.append(("initial_u", self.initial_u, known))
        rules += [
            (f"initial value of {name!r}", state.initial, known | {"u"})
            for name, state in self.states.items()
        ]
        rules += [("a requirement", requirement.holds, known) for requirement in self.requires]
        for what, rule, allowed in rules:
            if callable(rule):
                self._check_arguments(f"the {what} of {self.name}", argument_names(rule, what), allowed)

    def _check_arguments(self, owner: str, arguments: tuple[str, ...], allowed: set[str]) -> None:
        for argument in arguments:
            if argument not in allowed:
                raise ValueError(
                    f"{owner} takes {argument!r}{suggest(argument, allowed)}, which is not known there: "
                    f"allowed are {listing(allowed)}"
                )

    def _read_functions(self) -> dict[str, Function]:
        functions = {}
        constants = set(self.all_params) - {"refractory_timesteps", "floor"} | set(self.derived)
        for role, signals in _SIGNALS.items():
            function = getattr(self, role)
            if function is None:
                continue
            owner = f"{self.name}.{role}"
            parsed = read(function, owner)
            self._check_arguments(owner, parsed.arguments, constants | set(self.states) | set(signals))
            expected = 1 if role == "membrane" else len(self.states)
            if role != "membrane" and not self.states:
                raise ValueError(f"{owner} has no state to update: declare states or leave {role} out")
            if len(parsed.returns) != expected:
                wanted = "the new potential" if role == "membrane" else f"each of {', '.join(self.states)}"
                raise ValueError(
                    f"{owner} returns {len(parsed.returns)} value(s): return {wanted}, {expected} in all"
                )
            functions[role] = parsed
        return functions

    @property
    def all_params(self) -> dict[str, Param]:
        """The shared parameters, with this model's defaults, and its own."""
        shared = {
            name: Param(
                self.defaults.get(name, p.default), p.unit, p.doc, p.above, p.at_least, p.whole, p.optional
            )
            for name, p in SHARED_PARAMS.items()
        }
        return {**shared, **self.params}

    def __deepcopy__(self, memo: Any) -> NeuronSpec:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # by reference, as functions are: the module that defines the membrane holds the specification
        module = self.membrane.__module__
        for attribute, value in vars(sys.modules.get(module)).items() if module in sys.modules else ():
            if value is self:
                return getattr, (_Module(module), attribute)
        raise pickle.PicklingError(
            f"the model {self.name} cannot be pickled: keep it in a variable of {module}, where its membrane is defined"
        )

    def __call__(self, /, **given: Any) -> Neuron:
        """Return a `Neuron` of this model with these parameter values (numbers, arrays or distributions).

        Warns
        -----
        UserWarning
            Where a potential of this neuron is one inside a cell, -30 mV or lower, and the resting potential is neither
            given nor set by the model, so that it is 0 mV.
        """
        neuron = Neuron(self, given)
        told = neuron.forgotten_rest()
        if told is not None:
            warnings.warn(told, UserWarning, stacklevel=2)
        return neuron


@dataclass(frozen=True, eq=False)
class Neuron:
    """A neuron model with values for its parameters; made by calling a `NeuronSpec`.

    Raises
    ------
    TypeError
        For an unknown name, a missing threshold or a value that is no number, array or distribution.
    ValueError
        For a number out of its bounds.
    """

    spec: NeuronSpec
    given: Mapping[str, Any]

    def __post_init__(self) -> None:
        parameters = self.spec.all_params
        given = {}
        for key, value in self.given.items():
            name = canonical(key)
            if name not in parameters:
                raise TypeError(
                    f"{self.spec.name} has no parameter {name!r}{suggest(name, parameters)}: "
                    f"allowed are {listing(parameters)}"
                )
            if value is None and not parameters[name].optional:
                continue  # as if it were not given
            if not (isinstance(value, Distribution) or value is None):
                value = _as_values(self.spec.name, name, value)
                check_values(self.spec.name, name, parameters[name], value)
            given[name] = value
        for name, parameter in parameters.items():
            if name not in given and parameter.default is None and not parameter.optional:
                raise TypeError(
                    f"{self.spec.name} needs {name}: give a number, an array or a distribution for it"
                )
        object.__setattr__(self, "given", MappingProxyType(given))

    def __deepcopy__(self, memo: Any) -> Neuron:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Neuron, (self.spec, dict(self.given))

    def forgotten_rest(self) -> str | None:
        """Return a sentence if potentials are those inside a cell but the resting potential was left at 0, or None."""
        if "resting_potential" in self.given or "resting_potential" in self.spec.defaults:
            return None
        for name, parameter in self.spec.all_params.items():
            value = self.given.get(name, parameter.default)
            # a threshold below rest is refused later; a floor may be any depth below 0
            if parameter.unit != "mV" or name in ("threshold", "floor") or value is None or callable(value):
                continue
            if isinstance(value, Distribution):
                value = value.draw(np.random.default_rng(0), (101,))
            middle = float(np.median(value))
            if middle <= _INSIDE_A_CELL:
                return (
                    f"{name} of {self.spec.name} is {middle:.4g} mV, but the resting potential, at which the neuron "
                    "starts and is held, is 0 mV by default: give resting_potential, 0 if that is meant"
                )
        return None

    @property
    def has_floor(self) -> bool:
        """Whether this neuron's potential is floored."""
        floor = self.given["floor"] if "floor" in self.given else self.spec.defaults.get("floor")
        return floor is not None

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.given.items())
        return f"{self.spec.name}({values})"


class _Module:
    """A module, pickled by its name."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Module, (self._name,)


def check_values(model: str, name: str, parameter: Param, value: Any) -> None:
    """Raise a ValueError when any of a parameter's values is not finite or out of its bounds."""
    values = np.asarray(value, dtype=np.float64)

    def refuse(bad: np.ndarray, allowed: str) -> None:
        if bad.any():
            number = values[bad][0] if values.ndim else values[()]
            count = f" in {int(bad.sum())} place(s)" if values.ndim else ""
            raise ValueError(f"{name} of {model} is {number:g}{count}: {allowed}")

    refuse(~np.isfinite(values), "give finite numbers")
    if parameter.above is not None:
        refuse(values <= parameter.above, f"it must be above {parameter.above:g}")
    if parameter.at_least is not None:
        refuse(values < parameter.at_least, f"it must be at least {parameter.at_least:g}")
    if parameter.whole:
        refuse(values != np.floor(values), "it must be a whole number")
        refuse(values > MOST_STEPS, f"it must be at most {MOST_STEPS}")


def canonical(name: Any) -> Any:
    """Return a name as Python reads it in code, where several characters can stand for one, such as the two µ."""
    return unicodedata.normalize("NFKC", name) if isinstance(name, str) else name


def _as_values(model: str, name: str, value: Any) -> Any:
    """Return a parameter's value as a float or a read-only float64 array of its own."""
    if hasattr(value, "detach"):
        check_no_gradient(f"{name} of {model}", value)
        value = value.detach().cpu().numpy()
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"{name} of {model} is {value!r}: give a number, an array of numbers or a distribution"
        ) from None
    if array.ndim == 0:
        return array.item()
    array.flags.writeable = False
    return array
