"""What is compiled, as data: a model with the choices that change its code."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from spyke_numba.model.spec import Neuron, NeuronSpec

#: Changes whenever generated code changes its meaning, so that old cached modules are left alone.
GENERATOR_VERSION = 2

REFRACTORY = "refractory_timesteps"
#: What a step can record beside the states and counters, and the variable that holds it.
RECORDS = {"spikes": "spiked", "pulses": "pulse", "thresholded": "crossing", "u_pre": "new_u"}


@dataclass(frozen=True)
class Program:
    """What a backend compiles; equal programs share one compiled kernel, whatever the shape, batch, k or values.

    Parameters
    ----------
    spec : NeuronSpec
    dtype : {"float32", "float64"}
    inhibition : {None, "feature", "location", "global"}
        The scope of the sets that winners inhibit; None: each neuron that spikes is refractory by itself.
    compact : bool
        Whether the refractory counters are one per inhibited set (map, location or sample) instead of one per neuron;
        without inhibition, whether all counters and periods are 0, so that no neuron is ever held.
    floor : bool
        Whether the potential is floored.
    varying : frozenset of str
        The constants that differ from neuron to neuron.
    records : tuple of str
        Which of `RECORDS` the step writes.
    exact_order : bool
        Whether winners are chosen by their potentials; else by what SpykeTorch makes of them, see `KWTA`.
    """

    spec: NeuronSpec
    dtype: str = "float32"
    inhibition: str | None = None
    compact: bool = False
    floor: bool = False
    varying: frozenset[str] = field(default_factory=frozenset)
    records: tuple[str, ...] = ("spikes",)
    exact_order: bool = True

    @classmethod
    def of(
        cls, neuron: Neuron, *, dtype: str = "float32", inhibition: str | None = None, compact: bool = False
    ) -> Program:
        """Return the program of a neuron in a layer where arrays and distributions vary and numbers do not."""
        spec = neuron.spec
        varying = {name for name, value in neuron.given.items() if not isinstance(value, (float, type(None)))}
        rules = {name: p.default for name, p in spec.all_params.items() if name not in neuron.given}
        # twice, since a default may follow one that stands after it
        for name, rule in [*rules.items(), *rules.items(), *spec.derived.items()]:
            if callable(rule) and varying & set(inspect.signature(rule).parameters):
                varying.add(name)
        program = cls(spec, dtype, inhibition, compact, neuron.has_floor)
        return replace(program, varying=frozenset(varying & {*program.constants, REFRACTORY}))

    @property
    def states(self) -> tuple[str, ...]:
        """Names of all state variables, the potential first."""
        return ("u", *self.spec.states)

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of the floating-point constants that the step reads, in order."""
        used = {"threshold", "resting_potential", "v_reset", "spike_amplitude"} | (
            {"floor"} if self.floor else set()
        )
        for function in self.spec.functions.values():
            used.update(function.arguments)
        known = {**self.spec.all_params, **self.spec.derived}
        return tuple(name for name in known if name in used and name != REFRACTORY)

    @property
    def scalars(self) -> tuple[str, ...]:
        """Constants that are one number for the whole layer."""
        return tuple(name for name in self.constants if name not in self.varying)

    @property
    def arrays(self) -> tuple[str, ...]:
        """Constants that have a value per neuron."""
        return tuple(name for name in self.constants if name in self.varying)

    @property
    def label(self) -> str:
        """A short name for files and messages."""
        # of letters that every file system takes, and not too many
        name = re.sub(r"[^a-z0-9_]", "", self.spec.name.lower())[:40]
        parts = [name or "model", self.dtype, self.inhibition or "free"]
        parts += ["varying"] if self.varying else []
        return "_".join(parts + ([] if self.exact_order else ["rounded"]))


def check_constants(spec: NeuronSpec, dtype: str) -> None:
    """Raise a ValueError for a constant of a model's functions that a dtype takes for infinite or for 0."""
    for role, function in spec.functions.items():
        trees = [tree for _, tree in function.assignments] + list(function.returns)
        for node in (node for tree in trees for node in ast.walk(tree)):
            if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
                with np.errstate(over="ignore"):
                    cast = np.dtype(dtype).type(node.value)
                if not np.isfinite(cast) or (cast == 0) != (node.value == 0):
                    raise ValueError(
                        f"{spec.name}.{role} has the constant {float(node.value):g}, which is {cast:g} in {dtype}: "
                        "use dtype='float64', or another constant"
                    )
