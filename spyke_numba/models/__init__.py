"""The built-in neuron models, discovered from the files of this folder: one file, one or more `NeuronSpec`.

>>> from spyke_numba import models
>>> models.names()
('AdEx', 'EIF', 'EIF_Simple', 'IF', 'Izhikevich', 'LIF', 'LIF_Simple', 'LIF_ode', 'QIF')
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

from spyke_numba.model.expressions import listing, suggest
from spyke_numba.model.spec import NeuronSpec


@cache
def _registry() -> Mapping[str, NeuronSpec]:
    found: dict[str, NeuronSpec] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        found.update({spec.name: spec for spec in vars(module).values() if isinstance(spec, NeuronSpec)})
    return dict(sorted(found.items()))


def names() -> tuple[str, ...]:
    """Return the names of the built-in models."""
    return tuple(_registry())


def get(name: str) -> NeuronSpec:
    """Return a built-in model by name, in any case.

    Raises
    ------
    KeyError
        When there is no such model; the message names the closest one.
    """
    registry = _registry()
    by_lower = {known.lower(): spec for known, spec in registry.items()}
    if str(name).lower() not in by_lower:
        raise KeyError(
            f"unknown model {name!r}{suggest(str(name), registry)}: the models are {listing(registry)}"
        )
    return by_lower[str(name).lower()]


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in _registry():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{suggest(name, _registry())}")
    return _registry()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_registry()})
