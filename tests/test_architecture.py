"""The wings of the package stand on floors: nothing imports upwards, nothing in a circle. Imports are read, not run."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from spyke_numba._moved import MOVED

ROOT = Path(__file__).parent.parent
#: What may be imported: a wing imports its own modules and those of lower floors.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("spyke_numba.ops", "spyke_numba._moved"),
    ("spyke_numba.model",),
    ("spyke_numba.inputs", "spyke_numba.results"),
    ("spyke_numba.models", "spyke_numba.compile"),
    ("spyke_numba.backends",),
    ("spyke_numba.layer",),
    ("spyke_numba",),
    ("spyke_numba.analysis",),
    ("spyke_numba.figures",),
    ("spyke_numba.spyketorch",),
    ("spyke_numba.neurons", "spyke_numba.functional"),
    ("spyke_numba.cli", "spyke_numba.benchmarks"),
)
#: The command `bench` is the benchmarks', and they draw with what the command has.
TOGETHER = {"spyke_numba.cli", "spyke_numba.benchmarks"}


def modules() -> dict[str, Path]:
    """Return every module of the package by its name."""
    found = {}
    for folder in ("spyke_numba", "backends", "cli", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if folder == "spyke_numba" else ("spyke_numba", *parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported_by(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield what a file imports of the package, and whether it does so when it is imported itself."""

    def visit(node: ast.AST, at_once: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "spyke_numba":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield (name if name in MODULES else str(node.module)), at_once
        elif isinstance(node, ast.Import):
            yield from ((alias.name, at_once) for alias in node.names if alias.name in MODULES)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_once and not isinstance(node, (ast.FunctionDef, ast.Lambda)))

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True)


def floor_of(module: str) -> int:
    """Return the floor of a module, that of the longest name which begins its own."""
    wings = {wing: floor for floor, on_it in enumerate(FLOORS) for wing in on_it}
    fitting = [wing for wing in wings if module == wing or module.startswith(f"{wing}.")]
    return wings[max(fitting, key=len)]


def wing_of(module: str) -> str:
    return max((w for on_it in FLOORS for w in on_it if f"{module}.".startswith(f"{w}.")), key=len)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_imports_upwards(module: str) -> None:
    for other, _ in imported_by(MODULES[module]):
        if wing_of(other) == wing_of(module) or {wing_of(other), wing_of(module)} == TOGETHER:
            continue
        assert floor_of(other) < floor_of(module), f"{module} imports {other}"


def test_no_circle() -> None:
    """Of imports at once, those of a package by its own modules aside, which Python allows."""
    arrows = {
        module: {
            other
            for other, at_once in imported_by(path)
            if at_once and other != module and not module.startswith(f"{other}.")
        }
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in done:
            for other in sorted(arrows[module]):
                walk(other, (*way, module))
            done.add(module)

    for module in sorted(arrows):
        walk(module, ())


def test_the_core_names_no_backend() -> None:
    backends = {name for name in MODULES if name.startswith("spyke_numba.backends.")}
    for module, path in MODULES.items():
        if wing_of(module) in (
            "spyke_numba.model",
            "spyke_numba.models",
            "spyke_numba.compile",
            "spyke_numba.layer",
        ):
            assert not backends.intersection(other for other, _ in imported_by(path)), module


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_name_says_the_new_one(old: str) -> None:
    assert f"spyke_numba.{MOVED[old]}" in MODULES
    with pytest.raises(
        ModuleNotFoundError, match=f"spyke_numba.{old} is spyke_numba.{MOVED[old]} now: import it"
    ):
        importlib.import_module(f"spyke_numba.{old}")
