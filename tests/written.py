"""Functions of models that tests write as text: into files, since models are read from their source."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from types import ModuleType

_number = itertools.count()


def imported(folder: Path, text: str) -> ModuleType:
    """Return a module of this text, imported from a new file in a folder."""
    path = folder / f"written_{next(_number)}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
