"""Which cases of a test run: a few that hold every value of its parameters, or all of them with ``--exhaustive``.

Nearly all the time of the tests is compilation, of seconds for each program.  Two markers say what may wait:

``@pytest.mark.exhaustive``
    The test, or with `but` the cases for whose parameters this predicate is false, run with ``--exhaustive`` alone.
``@pytest.mark.sampled("name backend", ...)``
    As few of the test's cases run as hold each value of each parameter, and of the parameters that stand together in a
    string each combination that occurs.
``@pytest.mark.gpu``
    The case can only run on a GPU.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import pytest


def covering(cases: Sequence[Mapping[str, Hashable]], together: Iterable[str] = ()) -> list[int]:
    """Return the places of a few cases that hold what all of them do: always that which adds most, of equals the first.

    Parameters
    ----------
    cases : sequence of mappings
        Values by the names of parameters, the same names in each.
    together : iterable of str
        Names, divided by spaces, of parameters of which each combination is wanted and not only each value.
    """
    groups = [*([name] for name in (cases[0] if cases else ())), *(names.split() for names in together)]
    held = [{(i, *(case[name] for name in group)) for i, group in enumerate(groups)} for case in cases]
    missing, chosen = set().union(*held), []
    while missing:
        best = max(range(len(cases)), key=lambda i: len(held[i] & missing))
        missing -= held[best]
        chosen.append(best)
    return sorted(chosen)


def holds(but: Callable[..., bool] | None, values: Mapping[str, Any]) -> bool:
    """Whether a predicate, which takes some of the parameters by name, is true for a case."""
    return but is not None and but(**{name: values[name] for name in inspect.signature(but).parameters})


def divided(items: Sequence[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return the sample and the rest, each in order."""
    families: defaultdict[tuple[str, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        if all(holds(marker.kwargs.get("but"), _values(item)) for marker in item.iter_markers("exhaustive")):
            families[item.nodeid.partition("[")[0], getattr(item, "originalname", item.name)].append(item)
    kept: set[pytest.Item] = set()
    for family in families.values():
        marker = family[0].get_closest_marker("sampled")
        if marker is None:
            kept.update(family)
        else:
            # by identity: arrays and the like have no hash, and the cases of a test share its parameters' values
            values = [{name: id(value) for name, value in _values(item).items()} for item in family]
            kept.update(family[i] for i in covering(values, marker.args))
    return [item for item in items if item in kept], [item for item in items if item not in kept]


def _values(item: pytest.Item) -> Mapping[str, Any]:
    return item.callspec.params if hasattr(item, "callspec") else {}
