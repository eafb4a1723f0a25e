"""Generated modules: readable on disk, imported once, and found compiled by the next process.

A module NAME has two files in the cache folder. NAME.py is its text for whoever reads or debugs it; what runs is always
the text at hand, never that file, nor a .pyc beside it. NAME.compiled holds the files of numba's own cache under a
digest: numba would stop at a damaged one, or run it. So numba works in a folder that lasts as long as the import; what
was kept is put there before, and what numba added is kept afterwards.

numba's files are pickles, and a pickle can run anything. The digest tells damage, not intent: whoever can write to the
cache folder can write a digest too. Hence a folder or file that another user could have written is never read.
"""

from __future__ import annotations

import contextlib
import hashlib
import linecache
import os
import pickle
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from spyke_numba.compile.cache_folder import cache_directory, read, replace, warn_once, why_unsafe
from spyke_numba.compile.program import GENERATOR_VERSION

#: What in a module's text turns on numba's cache.
CACHED = "cache=True, "
#: While one thread imports a module, another must not find it half done; a child of a fork must not find it taken.
_lock = threading.RLock()
#: Where numba's files of the modules that are being imported lie, by the path of the module.
_numba_folders: dict[str, str] = {}


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def load_module(label: str, source: str, compiler: str) -> ModuleType:
    """Import a generated module, compiled by numba once for all processes.

    Parameters
    ----------
    label : str
        Readable start of its file name.
    source : str
        Its whole text. A function that it compiles when it is imported, with `CACHED` in its decorator, is kept.
    compiler : str
        Name and version of the compiler, and of what else goes into the code but does not stand in the text: part of
        the file's name as the text is.

    Returns
    -------
    ModuleType
        The module. Where the disk cannot be used, it is compiled in memory, with one warning in a process's life.
    """
    digest = hashlib.sha256(f"{GENERATOR_VERSION}\n{compiler}\n{source}".encode()).hexdigest()[:16]
    name = f"{label}_{digest}"
    with _lock:
        return sys.modules.get(f"spyke_numba_generated.{name}") or _imported(name, source)


def _imported(name: str, source: str) -> ModuleType:
    store = cache_directory()
    if store is None:
        return _executed(name, f"<{name}>", source.replace(CACHED, ""))
    path, compiled = store / f"{name}.py", store / f"{name}.compiled"
    if read(path) != source.encode():
        replace(path, source.encode())
    if CACHED not in source:
        return _executed(name, str(path), source)
    kept = _opened(name, read(compiled))
    try:
        module, files = _executed_with(kept, name, str(path), source)
    except Exception as error:
        # numba's cache or the text is to blame; if it is the text, this raises too
        module = _executed(name, str(path), source.replace(CACHED, ""))
        warn_once(error)
        if kept and not isinstance(error, OSError):
            with contextlib.suppress(OSError):
                compiled.unlink()
        return module
    if files != kept:
        replace(compiled, _sealed(name, files))
    return module


def _executed(name: str, path: str, text: str) -> ModuleType:
    module = ModuleType(f"spyke_numba_generated.{name}")
    module.__file__ = path
    # for tracebacks and inspect.getsource, whether the file is there or not
    linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
    sys.modules[module.__name__] = module
    try:
        exec(compile(text, path, "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def _executed_with(
    kept: dict[str, bytes], name: str, path: str, text: str
) -> tuple[ModuleType, dict[str, bytes]]:
    """Execute a module that finds these files in numba's cache; return it with the files that are there afterwards."""
    scratch = Path(os.path.realpath(tempfile.mkdtemp(prefix="spyke_numba-")))
    try:
        if unsafe := why_unsafe(scratch):
            raise PermissionError(unsafe)
        for file, content in kept.items():
            (scratch / file).write_bytes(content)
        for package in ("numba.core.caching", "numba.cuda.core.caching"):
            caching: Any = sys.modules.get(package)
            if caching and _Locator not in caching.CacheImpl._locator_classes:
                caching.CacheImpl._locator_classes.insert(0, _Locator)
        _numba_folders[path] = str(scratch)
        module = _executed(name, path, text)
        return module, {file.name: file.read_bytes() for file in scratch.iterdir()}
    finally:
        _numba_folders.pop(path, None)
        shutil.rmtree(scratch, ignore_errors=True)


class _Locator:
    """What numba asks first where the cache of a function lies; of functions that are not ours it knows nothing.

    Without it, numba would take the folder that NUMBA_CACHE_DIR names, or one beside the module, unchecked.
    """

    def __init__(self, function: Any, path: str):
        self._py_file, self._folder, self._line = path, _numba_folders[path], function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, function: Any, path: str) -> _Locator | None:
        return cls(function, path) if path in _numba_folders else None

    def ensure_cache_path(self) -> None:
        """Do nothing: the folder is there."""

    def get_cache_path(self) -> str:
        return self._folder

    def get_source_stamp(self) -> str:
        return ""  # a changed text has another name

    def get_disambiguator(self) -> str:
        return str(self._line)


def _sealed(name: str, files: dict[str, bytes]) -> bytes:
    content = pickle.dumps(files, protocol=4)
    return hashlib.sha256(name.encode() + content).digest() + content


def _opened(name: str, sealed: bytes | None) -> dict[str, bytes]:
    """Return the files under a digest; none if there are none, or if a byte of them or the name is another."""
    if sealed is None or hashlib.sha256(name.encode() + sealed[32:]).digest() != sealed[:32]:
        return {}
    return pickle.loads(sealed[32:])
