"""Files of finished runs: the recorded arrays, and a description from which the run can be repeated."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

__all__ = ["RunWriter", "check_output", "check_run", "load_description", "load_run", "replacing"]

#: Name of the entry that holds the description, UTF-8 JSON as an array of bytes.
DESCRIPTION = "description"


def check_output(path: str | Path, *, force: bool = False) -> Path:
    """Return the path of a file to be written, having checked that it can be.

    Raises
    ------
    FileExistsError
        If the file exists and `force` is false.
    FileNotFoundError, IsADirectoryError, PermissionError
        If its folder does not exist or cannot be written to, or it is a folder itself.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to; make it first")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"the folder {path.parent} cannot be written to; give another one")
    if path.exists() and not force:
        raise FileExistsError(
            f"{path} exists already; give another name, or --force (force=True) to replace it"
        )
    return path


def check_run(path: str | Path, *, force: bool = False) -> Path:
    """Return the path of a run's file to be written, as `check_output`; ValueError unless it ends in .npz."""
    if Path(path).suffix.lower() != ".npz":
        raise ValueError(f"the output {path} does not end in .npz; give such a name")
    return check_output(path, force=force)


class replacing:
    """Context manager that gives a temporary path beside `path` and renames it to `path` on success.

    Whoever reads `path` sees the old file or the whole new one, never a part; on an error nothing is left.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __enter__(self) -> Path:
        self._folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
        return self._folder / self.path.name

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                os.replace(self._folder / self.path.name, self.path)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)


class RunWriter:
    """Writes a run's arrays block by block to one .npz file, in memory that does not grow with the run.

    The blocks wait in temporary files beside the output; `finish` packs them. Use it as a context manager:
    without `finish`, nothing is written and the temporary files go.

    Parameters
    ----------
    path : str or Path
        The .npz file; `numpy.load` and `load_run` read it.
    force : bool
        Replace an existing file.

    Raises
    ------
    OSError
        See `check_output`; also ValueError for a name that does not end in .npz.
    """

    def __init__(self, path: str | Path, *, force: bool = False):
        self.path = check_run(path, force=force)
        self._arrays: dict[str, _Spool] = {}

    def __enter__(self) -> RunWriter:
        self._folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for spool in self._arrays.values():
            spool.file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Add a block of each array along its first axis; the names, types and other axes must not change.

        Raises
        ------
        ValueError
            If a block does not continue the blocks before.
        """
        for name, block in arrays.items():
            block = np.ascontiguousarray(block)
            spool = self._arrays.get(name)
            if spool is None:
                if name == DESCRIPTION or not name.isidentifier():
                    raise ValueError(f"an array cannot be called {name!r}; give another name")
                spool = self._arrays[name] = _Spool(self._folder / name, block.shape[1:], block.dtype)
            spool.append(name, block)

    def finish(self, description: Mapping[str, Any]) -> None:
        """Pack everything, with a JSON-able description, and move it to its place."""
        text = np.frombuffer(json.dumps(description, ensure_ascii=False).encode(), dtype=np.uint8)
        packed = self._folder / "packed.npz"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1, allowZip64=True) as archive:
            with archive.open(f"{DESCRIPTION}.npy", "w") as entry:
                np.lib.format.write_array(entry, text, allow_pickle=False)
            for name, spool in self._arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    spool.copy_to(entry)
                (self._folder / name).unlink()
        os.replace(packed, self.path)


class _Spool:
    """One array that grows along its first axis in a file."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype):
        self.path, self.shape, self.dtype, self.length = path, shape, dtype, 0
        self.file = open(path, "wb")  # noqa: SIM115 (closed by copy_to, or by the writer)

    def append(self, name: str, block: np.ndarray) -> None:
        if block.shape[1:] != self.shape or block.dtype != self.dtype:
            raise ValueError(
                f"the block of {name} is {block.dtype} of {block.shape[1:]} a step, and those before are "
                f"{self.dtype} of {self.shape}; give blocks of one run"
            )
        block.tofile(self.file)
        self.length += len(block)

    def copy_to(self, entry: IO[bytes]) -> None:
        self.file.close()
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.length, *self.shape),
        }
        np.lib.format.write_array_header_2_0(entry, header)
        with open(self.path, "rb") as blocks:
            shutil.copyfileobj(blocks, entry, 1 << 20)


def load_run(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of a run's file, by name, and its description.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file or it is not one that `RunWriter` wrote.
    """
    with _opened(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != DESCRIPTION}
        return arrays, _described(archive)


def load_description(path: str | Path) -> dict[str, Any]:
    """Return the description of a run's file alone; raises as `load_run`."""
    with _opened(path) as archive:
        return _described(archive)


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}; give an existing one")
    try:
        # opened here because numpy leaves the file open when it is no archive
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            yield archive
    except (
        ValueError,
        EOFError,
        KeyError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(
            f"{path} is not the file of a run; give one that `spyke-numba simulate --out` wrote"
        ) from error


def _described(archive: Any) -> dict[str, Any]:
    description = json.loads(archive[DESCRIPTION].tobytes().decode())
    if not isinstance(description, dict):
        raise ValueError("the description is no object")
    return description
