"""Where modules stand that once stood elsewhere: an import of an old name says the new one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

#: By old name, below the package.
MOVED = {
    "checks": "model.checks",
    "counters": "layer.counters",
    "elementary": "compile.elementary",
    "encoding": "inputs.encoding",
    "engine": "compile.program",
    "expressions": "model.expressions",
    "files": "inputs.files",
    "gallery": "figures.gallery",
    "generated": "compile.cache",
    "inhibition": "model.kwta",
    "parameters": "model.resolve",
    "patterns": "analysis.patterns",
    "phase": "figures.dynamics",
    "plotting": "figures.run",
    "rates": "analysis.rates",
    "recording": "layer.recording",
    "runfile": "results.runfile",
    "sparse": "layer.spike_forms",
    "spec": "model.spec",
    "stimuli": "inputs.stimuli",
}


class MovedModules(MetaPathFinder):
    """Asked last, for what no other finder has found."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        """Raise a ModuleNotFoundError for an old name."""
        package, _, module = name.rpartition(".")
        if package == "spyke_numba" and module in MOVED:
            raise ModuleNotFoundError(
                f"{name} is spyke_numba.{MOVED[module]} now: import it from there", name=name
            )
