"""The folder of what is kept between processes: used only where no other user can write, and whatever it holds."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
import warnings
from pathlib import Path

_warned = False


def warn_once(reason: object) -> None:
    """Say, once in the life of a process, why each process has to compile anew."""
    global _warned
    if not _warned:
        warnings.warn(
            f"compiled code is not kept for the next process: {reason}; the folders of the user's cache and of "
            "temporary files need space, and neither to them nor above may others than this user and root write "
            "(chmod go-w)",
            RuntimeWarning,
            stacklevel=2,
        )
    _warned = True


def _others_can_write(status: os.stat_result) -> bool:
    """Return whether a user other than this one and root can write."""
    # Windows has no such bits; there the folder lies in the user's own profile
    if not hasattr(os, "geteuid"):
        return False
    return status.st_uid not in (0, os.geteuid()) or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def why_unsafe(folder: Path) -> str | None:
    """Return how another user could put files into a folder or swap it for another, or None if none could."""
    if folder.is_symlink():
        return f"{folder} is a link"
    if _others_can_write(folder.stat()):
        return f"{folder} can be written by others"
    for above in folder.parents:
        status = above.stat()
        # in a sticky folder such as /tmp, only its owner and that of an entry may rename the entry
        sticky = status.st_mode & stat.S_ISVTX and status.st_uid in (0, os.geteuid())
        if _others_can_write(status) and not sticky:
            return f"{above} can be written by others"
    return None


def cache_directory() -> Path | None:
    """Return the user's folder of generated modules, made if need be; None, with a warning, if it cannot be trusted."""
    try:
        if sys.platform == "win32":
            named, usual = os.environ.get("LOCALAPPDATA"), "AppData/Local"
        elif sys.platform == "darwin":
            named, usual = None, "Library/Caches"
        else:
            named, usual = os.environ.get("XDG_CACHE_HOME"), ".cache"
        base = Path(named) if named and os.path.isabs(named) else Path.home() / usual
        if not base.is_absolute():
            raise RuntimeError(f"the home folder {str(Path.home())!r} is not an absolute path")
        # links above the folder are followed once, here; what is checked is then what is used
        folder = Path(os.path.realpath(base)) / "spyke_numba"
        for part in (*reversed(folder.parents), folder):
            if not part.exists():
                part.mkdir(mode=0o700, exist_ok=True)
        unsafe = why_unsafe(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        unsafe = str(error)
    if unsafe is None:
        return folder
    warn_once(unsafe)
    return None


def read(path: Path) -> bytes | None:
    """Return what a file holds; None if it cannot be read, is not a plain file, or others could have written it."""
    try:
        status = path.lstat()
        return path.read_bytes() if stat.S_ISREG(status.st_mode) and not _others_can_write(status) else None
    except OSError:
        return None


def replace(path: Path, content: bytes) -> None:
    """Put a file, whole, in the place of whatever is there; warn if it cannot be."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        if path.is_dir() and not path.is_symlink():
            # a folder that may not be emptied may still be renamed
            os.replace(path, f"{temporary}.old")
            shutil.rmtree(f"{temporary}.old", ignore_errors=True)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        warn_once(error)
