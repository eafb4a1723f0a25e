"""Generated modules on disk: readable, importable, and found again by the next process."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
import threading
from pathlib import Path
from types import ModuleType

from spyke_numba.compile.program import GENERATOR_VERSION

#: While one thread imports a module, another must not find it half done; a child of a fork must not find it taken.
_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def cache_directory() -> Path:
    """Return the folder of generated modules and their compiled code, the user's cache folder if it can be written."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "spyke_numba"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    folder = Path(tempfile.gettempdir()) / f"spyke_numba-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def load_module(label: str, source: str, compiler: str) -> ModuleType:
    """Import a generated module, written to disk once.

    Parameters
    ----------
    label : str
        Readable start of its file name.
    source : str
        Its whole text; numba's own cache lies beside the file, and notices changes only in that file.
    compiler : str
        Name and version of the compiler, and of what else goes into the code but does not stand in the text: part of
        the file's name as the text is.
    """
    digest = hashlib.sha256(f"{GENERATOR_VERSION}\n{compiler}\n{source}".encode()).hexdigest()[:16]
    name = f"{label}_{digest}"
    qualified = f"spyke_numba_generated.{name}"
    with _lock:
        return sys.modules.get(qualified) or _imported(name, qualified, source)


def _imported(name: str, qualified: str, source: str) -> ModuleType:
    path = cache_directory() / f"{name}.py"
    if not path.exists() or path.read_text(encoding="utf-8") != source:
        # written aside and renamed: another process sees the whole file or none
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=name, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(source)
        os.replace(temporary, path)
    spec = importlib.util.spec_from_file_location(qualified, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[qualified] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[qualified]
        raise
    return module
