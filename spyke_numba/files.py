"""Pictures, recordings and sample data, loaded as plain arrays."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

__all__ = ["load_image", "load_recording", "sample", "sample_names"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
RECORDING_SUFFIXES = (".npy", ".npz", ".csv", ".dat")


def sample_names() -> tuple[str, ...]:
    """Return the names of the images and recordings among the sample data that matplotlib ships."""
    folder = _sample_folder()
    if not folder.is_dir():
        return ()
    known = IMAGE_SUFFIXES + RECORDING_SUFFIXES
    return tuple(sorted(path.name for path in folder.iterdir() if path.suffix in known))


def sample(name: str) -> Path:
    """Return the path of a file of matplotlib's sample data, such as ``grace_hopper.jpg`` or ``eeg.dat``.

    Raises
    ------
    FileNotFoundError
        If matplotlib ships no such file; the message lists those that there are.
    """
    path = _sample_folder() / name
    if name not in sample_names():
        raise FileNotFoundError(f"there is no sample {name!r}; the samples are {', '.join(sample_names())}")
    return path


def _sample_folder() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "sample_data"


def load_image(
    path: str | Path, *, size: tuple[int, int] | None = None, longest: int | None = None
) -> np.ndarray:
    """Load a picture as luminance.

    Parameters
    ----------
    path : str or Path
        A file that Pillow reads, such as .png or .jpg; an orientation noted in the file is obeyed.
    size : (int, int), optional
        (H, W) to resize to, whatever the picture's proportions.
    longest : int, optional
        Without `size`: shrink, keeping the proportions, until the longer side has at most so many pixels.

    Returns
    -------
    ndarray
        (H, W) float32 in [0, 1], 0 black.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is no picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            deep = image.mode.startswith("I")
            grey = image.convert("F") if deep or image.mode == "F" else image.convert("L").convert("F")
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not a picture that Pillow can read; give a .png or .jpg file") from None
    if size is None and longest is not None and max(grey.size) > longest:
        scale = longest / max(grey.size)
        size = (max(1, round(grey.height * scale)), max(1, round(grey.width * scale)))
    if size is not None:
        if min(size) < 1:
            raise ValueError(f"the picture's size is {size}; give a height and width of 1 or more")
        grey = grey.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    white = np.float32(65535.0 if deep else 255.0)
    return np.clip(np.asarray(grey, dtype=np.float32) / white, 0.0, 1.0)


def load_recording(path: str | Path, *, channels: int = 1) -> np.ndarray:
    """Load numbers that are laid out with time first.

    Parameters
    ----------
    path : str or Path
        ``.npy`` (memory-mapped, so that it may be larger than memory); ``.npz`` (its only array, or the one
        called ``input``); ``.csv`` (a row for each sample, a column for each channel; a first row
        that is not numbers is a heading); ``.dat`` (bare little-endian float64, sample after sample).
    channels : int
        Channels of a ``.dat`` file.

    Returns
    -------
    ndarray
        (samples, channels) for .csv and .dat; the array as it was stored otherwise.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, its ending is unknown, or its content is not what the ending says.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give an existing one")
    suffix = path.suffix.lower()
    if suffix == ".npy":
        with _understood(path):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    elif suffix == ".npz":
        # opened here because numpy leaves the file open when it is no archive
        with open(path, "rb") as file, _understood(path):
            archive = np.load(file, allow_pickle=False)
            names = list(archive)
            name = names[0] if len(names) == 1 else "input"
            array = archive[name] if name in names else None
        if array is None:
            raise ValueError(
                f"{path} holds the arrays {', '.join(names) or '(none)'}; "
                "give a file with one array, or call the one to use 'input'"
            )
    elif suffix == ".csv":
        array = _read_csv(path)
    elif suffix == ".dat":
        if channels < 1:
            raise ValueError(f"channels is {channels}; give 1 or more")
        if path.stat().st_size % (8 * channels):
            raise ValueError(
                f"{path} has {path.stat().st_size} bytes, which is no whole number of samples of {channels} "
                "float64 channel(s); give the right number of channels"
            )
        array = np.fromfile(path, dtype="<f8").reshape(-1, channels)
    else:
        raise ValueError(f"{path} ends in {suffix!r}; allowed are {', '.join(RECORDING_SUFFIXES)}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path} holds {array.dtype}; give an array of real numbers")
    if not array.size:
        raise ValueError(f"{path} holds no numbers; give at least one sample")
    return array


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Turn numpy's many ways of not understanding a file into one sentence."""
    try:
        yield
    except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read as a {path.suffix} file of numbers; save it with numpy.save or savez"
        ) from error


def _read_csv(path: Path) -> np.ndarray:
    rows: list[list[float]] = []
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as lines:
        for number, row in enumerate(csv.reader(lines), start=1):
            if not any(cell.strip() for cell in row):
                continue
            try:
                values = [float(cell) for cell in row]
            except ValueError:
                if number == 1:
                    continue
                raise ValueError(
                    f"{path}, line {number}: {','.join(row)[:40]!r} is no row of numbers; give numbers"
                ) from None
            if rows and len(values) != len(rows[0]):
                raise ValueError(
                    f"{path}, line {number} has {len(values)} columns, the lines before {len(rows[0])}; "
                    "give every line as many"
                )
            rows.append(values)
    return np.array(rows, dtype=np.float64)
