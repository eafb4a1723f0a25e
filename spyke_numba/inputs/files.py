"""Pictures, recordings and sample data, loaded as plain arrays."""

from __future__ import annotations

import csv
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["load_image", "load_recording", "sample", "sample_names"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
RECORDING_SUFFIXES = (".npy", ".npz", ".csv", ".dat")
#: Shares of red, green and blue in luminance (ITU-R 601), which Pillow takes as well.
LUMINANCE = (0.299, 0.587, 0.114)


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
    path: str | Path,
    *,
    size: tuple[int, int] | None = None,
    longest: int | None = None,
    ground: str = "white",
) -> np.ndarray:
    """Load a picture as luminance.

    Parameters
    ----------
    path : str or Path
        A file that Pillow reads, such as .png or .jpg; an orientation noted in the file is obeyed. Of several pictures
        that one photograph consists of (.mpo), the first is taken.
    size : (int, int), optional
        (H, W) to resize to, whatever the picture's proportions.
    longest : int, optional
        Without `size`: shrink, keeping the proportions, until the longer side has at most so many pixels.
    ground : str
        What transparent pixels are seen on: ``"white"``, ``"black"`` or a colour such as ``"#808080"``.

    Returns
    -------
    ndarray
        (H, W) float32 in [0, 1], 0 black.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it is no picture or several (an animation), it has more pixels than Pillow's limit,
        its numbers lie outside what their type means (0 to 65535 for whole numbers of more than 8 bits, 0 to 1 for
        real ones), or its transparency cannot be read exactly.
    """
    from PIL import Image

    below = _ground(ground)
    if longest is not None and longest < 1:
        raise ValueError(f"longest is {longest}; give 1 pixel or more")
    grey, white = _read_image(path, below)
    if size is None and longest is not None and max(grey.size) > longest:
        scale = longest / max(grey.size)
        size = (max(1, round(grey.height * scale)), max(1, round(grey.width * scale)))
    if size is not None:
        if min(size) < 1:
            raise ValueError(f"the picture's size is {size}; give a height and width of 1 or more")
        grey = grey.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.clip(np.asarray(grey, dtype=np.float32) / np.float32(white), 0.0, 1.0)


def _ground(ground: str) -> float:
    """Return the luminance of a ground in [0, 1]."""
    known = {"white": "#ffffff", "black": "#000000"}
    colour = known.get(ground, ground) if isinstance(ground, str) else ""
    if not re.fullmatch("#[0-9a-fA-F]{6}", colour):
        raise ValueError(f"ground is {ground!r}; give 'white', 'black' or a colour such as '#808080'")
    channels = bytes.fromhex(colour[1:])
    return sum(share * channel for share, channel in zip(LUMINANCE, channels, strict=True)) / 255


def _read_image(path: str | Path, below: float) -> tuple[Image.Image, float]:
    """Return a picture's luminance as an image of real numbers, and the number that is white in it."""
    from PIL import Image, ImageOps

    refusal = None
    with _understood(path, "as a picture", "give a .png or .jpg file"), warnings.catch_warnings():
        # Pillow warns above its limit and raises above twice as many pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as file:
                frames = getattr(file, "n_frames", 1)
                scaled = file.format == "PNG" and file.mode in ("L", "RGB") and file.tile[0][3] != file.mode
                image = ImageOps.exif_transpose(file)
                key = image.info.get("transparency")
                if frames > 1 and file.format != "MPO":
                    refusal = f"holds {frames} frames; give one picture"
                elif scaled and key is not None:
                    # compared with pixels that Pillow has scaled to 8 bits
                    refusal = (
                        "marks a colour of other than 8 bits as transparent; save it with an alpha channel"
                    )
                else:
                    pixels, alpha, white = _layers(image)
                    least, most = float(pixels.min()), float(pixels.max())
                    if not (least >= 0.0 and most <= white):
                        refusal = (
                            f"holds {least:g} to {most:g}; give numbers from 0 to {white:g}, which is white"
                        )
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            refusal = f"has more than {Image.MAX_IMAGE_PIXELS} pixels, Pillow's limit; shrink it first"
    if refusal is not None:
        raise ValueError(f"{path} {refusal}")
    if alpha is not None:
        pixels = pixels * alpha + np.float32(below * white) * (1 - alpha)
    return Image.fromarray(pixels), white


def _layers(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Return luminance and alpha (None: opaque everywhere) of an image as float32, and the luminance of white."""
    key = image.info.get("transparency")
    if image.mode.startswith("I") or image.mode == "F":
        pixels = np.asarray(image.convert("F"), dtype=np.float32)
        alpha = None if key is None else (pixels != key).astype(np.float32)
        return pixels, alpha, 1.0 if image.mode == "F" else 65535.0
    alpha = None
    if key is not None or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
        alpha = np.asarray(image.getchannel("A"), dtype=np.float32) / np.float32(255)
    return np.asarray(image.convert("L"), dtype=np.float32), alpha, 255.0


def load_recording(path: str | Path, *, channels: int = 1, header: bool | None = None) -> np.ndarray:
    """Load numbers that are laid out with time first.

    Parameters
    ----------
    path : str or Path
        ``.npy`` (memory-mapped, so that it may be larger than memory); ``.npz`` (its only array, or the one
        called ``input``); ``.csv`` (a row for each sample, a column for each channel, separated by commas, with
        decimal points); ``.dat`` (bare little-endian float64, sample after sample).
    channels : int
        Channels of a ``.dat`` file.
    header : bool, optional
        Whether the first row of a ``.csv`` file is a heading, to be left out. Unless it is said, a row of text is one
        and a row of numbers is a sample. Refused is what could be either: numbers beside text or empty cells, numbers
        in quotes, different whole numbers from 0 on (``0,1,2`` or ``2001,2002``), and three or more in equal steps.

    Returns
    -------
    ndarray
        (samples, channels) for .csv and .dat; the array as it was stored otherwise.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, its ending is unknown, or its content is not what the ending says. Of a .csv file,
        every row must have a finite number in every cell, and no blank line comes before its end: the message names
        the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give an existing one")
    suffix = path.suffix.lower()
    what, advice = f"as a {suffix} file of numbers", "save it with numpy.save or savez"
    if suffix == ".npy":
        with _understood(path, what, advice):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(array, np.ndarray):
                array.close()
                raise ValueError("it is an archive, such as .npz")
    elif suffix == ".npz":
        # opened here because numpy leaves the file open when it is no archive
        with open(path, "rb") as file, _understood(path, what, advice):
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is no archive, but one array, such as .npy")
            names = list(archive)
            name = names[0] if len(names) == 1 else "input"
            array = archive[name] if name in names else None
            if not isinstance(array, np.ndarray | None):
                raise ValueError(f"{name} is no array")
        if array is None:
            raise ValueError(
                f"{path} holds the arrays {', '.join(names) or '(none)'}; "
                "give a file with one array, or call the one to use 'input'"
            )
    elif suffix == ".csv":
        array = _read_csv(path, header)
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
def _understood(path: str | Path, what: str, advice: str) -> Iterator[None]:
    """Turn a library's many ways of not understanding a file into one sentence."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # it says which file cannot be opened, and why
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read {what} ({reason}); {advice}") from error


#: Whole numbers up to this one are float64 as they are.
EXACT = 2**53


def _read_csv(path: Path, header: bool | None) -> np.ndarray:
    rows: list[list[float]] = []
    columns, before, heading = None, "the lines before", header
    doubt = (
        f"{path}, line 1 may be a heading or a sample; "
        "say which with header=True or header=False (--header or --no-header)"
    )
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        quoted = '"' in file.readline()
        file.seek(0)
        for line, cells in _csv_rows(path, file):
            if line == 1 and header is None:
                heading = _is_heading(cells, quoted)
                if heading:
                    columns, before = len(cells), "the heading"
                elif heading is None and not all(map(_is_number, cells)):
                    raise ValueError(doubt)
            if line == 1 and heading:
                continue
            if columns not in (None, len(cells)):
                raise ValueError(
                    f"{path}, line {line} has {len(cells)} columns, {before} {columns}; give every line as many"
                )
            columns = len(cells)
            row: list[float] = []
            try:
                for cell in cells:
                    row.append(_number(cell))
            except ValueError as error:
                raise ValueError(f"{path}, line {line}, column {len(row) + 1}{error}") from None
            rows.append(row)
    if heading is None and rows:
        raise ValueError(doubt)
    return np.array(rows, dtype=np.float64)


def _csv_rows(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Yield the line of each row and its cells; blank lines at the end are left out."""
    reader = csv.reader(file, strict=True)
    blank = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
            if any("\0" in cell for cell in cells or ()):
                raise csv.Error("line contains NUL")
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {line} cannot be read ({error}); check that its quotes are closed and the file is UTF-8"
            ) from None
        if cells is None:
            return
        if len(cells) < 2 and not "".join(cells).strip():
            blank = blank or line
            continue
        if blank is not None:
            raise ValueError(
                f"{path}, line {blank} is blank, but rows follow; remove it, or give the samples that are missing"
            )
        yield line, cells


def _is_heading(cells: Sequence[str], quoted: bool) -> bool | None:
    """Return whether a first row is a heading, or None where that cannot be told."""
    numbers = [float(cell) for cell in cells if _is_number(cell)]
    if not numbers:
        return True if all(cell.strip() for cell in cells) else None
    if len(numbers) < len(cells) or quoted:
        return None
    if len(set(numbers)) == len(cells) and all(cell.strip().isdecimal() for cell in cells):
        return None
    evenly = len(numbers) > 2 and np.diff(numbers).all() and np.allclose(np.diff(numbers, 2), 0.0, atol=0.0)
    return None if evenly else False


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str) -> float:
    """Return the number of a cell.

    Raises
    ------
    ValueError
        With what is said after the cell's line and column.
    """
    text = cell.strip()
    if not text:
        raise ValueError(
            " is empty; give a number in every cell (a comma at the end of a line makes an empty one)"
        )
    shown = f": {text[:40]!r}"
    if not _is_number(text) or "_" in text:
        raise ValueError(f"{shown} is no number; give numbers with decimal points, separated by commas")
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{shown} is not finite; give numbers that float64 can hold")
    if number == 0.0 and text.lower().partition("e")[0].strip("+-0."):
        raise ValueError(f"{shown} would become 0; give numbers that float64 can hold")
    if abs(number) >= EXACT and text.lstrip("+-").isdecimal() and int(text) != number:
        raise ValueError(
            f"{shown} would be rounded; give whole numbers up to 2**53 = {EXACT}, or real ones (1e16)"
        )
    return number
