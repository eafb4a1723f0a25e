"""Files that lie: transparency, headings of numbers, gaps, broken archives. Nothing vanishes and nothing shifts."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from spyke_numba.cli.main import main
from spyke_numba.inputs.files import load_image, load_recording

RNG = np.random.default_rng(4)
#: What 8 bits round away, of a colour and of its alpha.
ROUNDING = 1.5 / 255
LUMINANCE = np.array([0.299, 0.587, 0.114])
GROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0), "#3060C0": (0x30, 0x60, 0xC0)}


def composed(colours: np.ndarray, alpha: np.ndarray, ground: str) -> np.ndarray:
    """Return the luminance of colours (H, W, 3) in 0..1 with alpha (H, W) over a ground, from the definition."""
    below = np.array(GROUNDS[ground]) / 255
    over = colours * alpha[..., None] + below * (1 - alpha[..., None])
    return over @ LUMINANCE


def png(
    width: int, height: int, depth: int, colour_type: int, rows: bytes, *chunks: tuple[bytes, bytes]
) -> bytes:
    """Return a .png of raw rows, each with its filter byte, written from the format's definition."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def deep_png(pixels: np.ndarray, colour_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a .png with 16 bits for each number of pixels (H, W, channels)."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return png(pixels.shape[1], pixels.shape[0], 16, colour_type, rows, *chunks)


def refusal(load: Callable[[Path], np.ndarray], path: Path) -> str:
    """Return the one sentence with which a file is refused, or an empty one."""
    try:
        load(path)
    except ValueError as error:
        sentence = str(error)
        return sentence if path.name in sentence and "\n" not in sentence else f"no such sentence: {sentence}"
    return ""


def said(*arguments: Any) -> Any:
    """Return the report of a command, or the sentence with which it is refused."""
    result = CliRunner().invoke(main, [str(one) for one in arguments], prog_name="spyke-numba")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code == 0:
        return json.loads(result.stdout)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    return result.stderr


# pictures


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_is_composed(tmp_path: Path, mode: str, ground: str) -> None:
    pixels = RNG.integers(0, 256, (7, 5, 4), dtype=np.uint8)
    if mode != "RGBA":
        pixels[..., 1:3] = pixels[..., :1]
    # a palette of 35 greys keeps them all
    Image.fromarray(pixels).convert(mode).save(tmp_path / ("a.tif" if mode == "PA" else "a.png"))
    path = next(tmp_path.glob("a.*"))
    expected = composed(pixels[..., :3] / 255, pixels[..., 3] / 255, ground)
    found = load_image(path, ground=ground)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= ROUNDING
    if ground == "white":
        assert np.array_equal(load_image(path), found)


def test_premultiplied_colours_are_composed(tmp_path: Path) -> None:
    alpha = RNG.integers(60, 256, (6, 5))
    colours = RNG.integers(0, 256, (6, 5, 3))
    stored = np.dstack([np.round(colours * alpha[..., None] / 255), alpha]).astype(np.uint8)
    Image.frombytes("RGBA", (5, 6), stored.tobytes()).save(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    # what the fourth number of a pixel is: 1 is alpha by which the colours are multiplied
    kind = struct.pack("<HHI", 338, 3, 1)
    assert content.count(kind + b"\2") == 1
    (tmp_path / "a.tif").write_bytes(content.replace(kind + b"\2", kind + b"\1"))
    expected = composed(colours / 255, alpha / 255, "#3060C0")
    assert np.abs(load_image(tmp_path / "a.tif", ground="#3060C0") - expected).max() <= 3 / 255


@pytest.mark.parametrize("alphas", ["one", "each"])
def test_a_palette_with_transparency_is_composed(tmp_path: Path, alphas: str) -> None:
    palette = RNG.integers(0, 256, (8, 3), dtype=np.uint8)
    index = RNG.integers(0, 8, (6, 9), dtype=np.uint8)
    alpha = np.full(8, 255)
    if alphas == "one":
        alpha[3] = 0
    else:
        alpha = RNG.integers(0, 256, 8)
    image = Image.frombytes("P", (9, 6), index.tobytes())
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "a.png", transparency=bytes(alpha.tolist()))
    for ground in GROUNDS:
        expected = composed(palette[index] / 255, alpha[index] / 255, ground)
        assert np.abs(load_image(tmp_path / "a.png", ground=ground) - expected).max() <= ROUNDING
    image.save(tmp_path / "a.gif", transparency=3)
    only = np.where(np.arange(8) == 3, 0.0, 1.0)
    expected = composed(palette[index] / 255, only[index], "white")
    assert np.abs(load_image(tmp_path / "a.gif") - expected).max() <= ROUNDING


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_transparent_colour_is_composed(tmp_path: Path, mode: str) -> None:
    pixels = RNG.integers(0, 2, (6, 9)) * 255
    pixels = {"1": pixels, "L": pixels // 5 + 40, "RGB": np.stack([pixels, 255 - pixels, pixels], -1)}[mode]
    key = pixels[2, 4]
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(
        tmp_path / "a.png", transparency=tuple(map(int, key)) if mode == "RGB" else int(key)
    )
    colours = pixels if mode == "RGB" else np.repeat(pixels[..., None], 3, -1)
    alpha = np.where((colours == key).all(-1), 0.0, 1.0)
    assert 0 < alpha.mean() < 1
    for ground in GROUNDS:
        expected = composed(colours / 255, alpha, ground)
        assert np.abs(load_image(tmp_path / "a.png", ground=ground) - expected).max() <= ROUNDING


def test_pictures_of_16_bits_are_composed(tmp_path: Path) -> None:
    colour = RNG.integers(0, 65536, (4, 6, 4))
    grey = RNG.integers(0, 65536, (4, 6, 2))
    (tmp_path / "rgba.png").write_bytes(deep_png(colour, 6))
    (tmp_path / "la.png").write_bytes(deep_png(grey, 4))
    for ground in GROUNDS:
        found = load_image(tmp_path / "rgba.png", ground=ground)
        expected = composed(colour[..., :3] / 65535, colour[..., 3] / 65535, ground)
        assert np.abs(found - expected).max() <= 2 * ROUNDING  # Pillow cuts them to 8 bits
        found = load_image(tmp_path / "la.png", ground=ground)
        expected = composed(np.repeat(grey[..., :1], 3, -1) / 65535, grey[..., 1] / 65535, ground)
        assert np.abs(found - expected).max() <= 2 * ROUNDING
    alone = RNG.integers(0, 3, (4, 6, 1)) * 256 + 7
    (tmp_path / "key.png").write_bytes(deep_png(alone, 0, (b"tRNS", struct.pack(">H", 256 + 7))))
    expected = np.where(alone == 256 + 7, 1.0, alone / 65535)[..., 0]
    assert np.allclose(load_image(tmp_path / "key.png"), expected, atol=1e-6)
    assert np.allclose(
        load_image(tmp_path / "key.png", ground="black"), np.where(expected == 1.0, 0.0, expected), atol=1e-6
    )


def test_transparent_colours_of_other_depths_are_refused(tmp_path: Path) -> None:
    # Pillow compares them with pixels that it has scaled to 8 bits
    colour = np.full((2, 2, 3), 300)
    (tmp_path / "deep.png").write_bytes(deep_png(colour, 2, (b"tRNS", struct.pack(">HHH", 300, 300, 300))))
    nibbles = png(2, 2, 4, 0, b"\0\x3f\0\xf3", (b"tRNS", struct.pack(">H", 3)))
    (tmp_path / "nibbles.png").write_bytes(nibbles)
    for name in ("deep.png", "nibbles.png"):
        with pytest.raises(ValueError, match="save it with an alpha channel") as error:
            load_image(tmp_path / name)
        assert name in str(error.value)
    (tmp_path / "opaque.png").write_bytes(png(2, 2, 4, 0, b"\0\x3f\0\xf3"))
    assert np.allclose(load_image(tmp_path / "opaque.png"), [[0.2, 1.0], [1.0, 0.2]])


def test_alpha_is_composed_before_shrinking(tmp_path: Path) -> None:
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[:, 20:, 3] = 255  # black, transparent on the left
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = load_image(tmp_path / "a.png", size=(4, 4))
    assert np.allclose(found[:, 0], 1.0, atol=0.05)
    assert np.allclose(found[:, 3], 0.0, atol=0.05)


def test_opaque_pictures_ignore_the_ground(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (6, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "print.jpg", quality=100)
    opaque = np.dstack([pixels, np.full((6, 4), 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    plain = load_image(tmp_path / "colour.png")
    for ground in GROUNDS:
        assert np.array_equal(load_image(tmp_path / "colour.png", ground=ground), plain)
        assert np.array_equal(load_image(tmp_path / "opaque.png", ground=ground), plain)
    flat = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    flat.save(tmp_path / "white.jpg")
    assert load_image(tmp_path / "white.jpg").min() > 0.98


@pytest.mark.parametrize("ground", ["purple", "#12", "#12345678", "ffffff", "", None, 1.0])
def test_grounds_that_are_no_colour_are_refused(tmp_path: Path, ground: Any) -> None:
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="give 'white', 'black' or a colour such as '#808080'"):
        load_image(tmp_path / "a.png", ground=ground)


def test_numbers_are_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 65535], [70000, 5]], np.int32)).save(tmp_path / "long.tif")
    with pytest.raises(ValueError, match=r"long\.tif holds 0 to 70000"):
        load_image(tmp_path / "long.tif")
    Image.fromarray(np.array([[0.0, 0.25], [1.0, 0.5]], np.float32)).save(tmp_path / "real.tif")
    assert np.allclose(load_image(tmp_path / "real.tif"), [[0.0, 0.25], [1.0, 0.5]])
    Image.fromarray(np.array([[0.0, 255.0]], np.float32)).save(tmp_path / "scaled.tif")
    Image.fromarray(np.array([[0.0, np.nan]], np.float32)).save(tmp_path / "nan.tif")
    for name in ("scaled.tif", "nan.tif"):
        with pytest.raises(ValueError, match="0 to 1"):
            load_image(tmp_path / name)


def test_frames_do_not_vanish(tmp_path: Path) -> None:
    frames = [Image.new("L", (3, 3), value) for value in (0, 128, 255)]
    for name in ("a.png", "a.gif", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(ValueError, match="3 frames; give one picture") as error:
            load_image(tmp_path / name)
        assert name in str(error.value)


@pytest.mark.parametrize("times", [1.5, 3.0])
def test_pictures_above_the_limit_of_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, times: float
) -> None:
    Image.new("L", (30, 10)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(300 / times))
    with pytest.raises(ValueError, match=rf"large\.png .* {int(300 / times)} pixels.* shrink it"):
        load_image(tmp_path / "large.png")
    assert "large.png" in said("simulate", "LIF", "--param", "threshold=1", "--input", tmp_path / "large.png")
    assert not recwarn.list


@pytest.mark.filterwarnings("ignore:Tag data|Corrupt EXIF")  # the picture itself is whole
def test_broken_pictures_are_one_sentence(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(whole, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(turned, "JPEG", exif=exif)
    refused = 0
    for content in (whole.getvalue(), turned.getvalue()):
        for trial in range(300):
            data = bytearray(content)
            at = RNG.integers(0, min(len(data), 200) if trial % 2 else len(data), 3)
            data[at[0]], data[at[1]] = RNG.integers(0, 256, 2)
            path = tmp_path / "a.png"
            path.write_bytes(data if trial % 3 else data[: at[2]])
            sentence = refusal(load_image, path)
            assert not sentence.startswith("no such sentence")
            refused += bool(sentence)
    assert refused > 100


# tables


def table(tmp_path: Path, content: str | bytes, header: bool | None = None) -> list[list[float]]:
    """Return what a .csv of this content is loaded as."""
    options = {} if header is None else {"header": header}
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_recording(path, **options).tolist()


#: Content, header (None: not said), and the rows that it holds.
READ = {
    "reals": ("0.5,1.5\n2.5,3.5\n", None, [[0.5, 1.5], [2.5, 3.5]]),
    "heading": ("left,right\n2,3\n", None, [[2, 3]]),
    "heading said": ("left,right\n2,3\n", True, [[2, 3]]),
    "heading of numbers": ("0,1\n0.5,0.25\n", True, [[0.5, 0.25]]),
    "no heading of numbers": ("0,1\n0.5,0.25\n", False, [[0, 1], [0.5, 0.25]]),
    "partly numbers": ("t,1,2\n0.5,3,4\n", True, [[0.5, 3, 4]]),
    "a title": ("a recording\n2,3\n", True, [[2, 3]]),
    "alike": ("0,0\n1,0\n", None, [[0, 0], [1, 0]]),
    "written as reals": ("0.0,1.0\n2,3\n", None, [[0, 1], [2, 3]]),
    "negative": ("-1,2\n2,3\n", None, [[-1, 2], [2, 3]]),
    "comment of savetxt": ("# a,b\n2,3\n", None, [[2, 3]]),
    "mark of order": ("\ufeff0.5,1\n2,3\n", None, [[0.5, 1], [2, 3]]),
    "heading after a mark of order": ('\ufeff"a","b"\r\n2,3\r\n', None, [[2, 3]]),
    "quoted": ('a,b\n"2","3"\n', None, [[2, 3]]),
    "spaces": (" 0.5 ,\t1 \n2, 3\n", None, [[0.5, 1], [2, 3]]),
    "last line open": ("0.5,1\n2,3", None, [[0.5, 1], [2, 3]]),
    "blank at the end": ("0.5,1\n2,3\n\n  \n", None, [[0.5, 1], [2, 3]]),
    "windows": ("0.5,1\r\n2,3\r\n", None, [[0.5, 1], [2, 3]]),
    "one column": ("0.5\n2\n", None, [[0.5], [2]]),
    "one column with heading": ("volt\n2\n3\n", None, [[2], [3]]),
    "exponents": ("1e-3,-2E+2,.5,5.\n1,2,3,4\n", None, [[0.001, -200, 0.5, 5], [1, 2, 3, 4]]),
    "exact wholes": (
        "0.5\n9007199254740992\n-9007199254740994\n",
        None,
        [[0.5], [2.0**53], [-(2.0**53) - 2]],
    ),
}


@pytest.mark.parametrize("name", READ)
def test_tables_are_read(tmp_path: Path, name: str) -> None:
    content, header, expected = READ[name]
    assert table(tmp_path, content, header=header) == expected


#: Content, header (None: not said), and what the sentence says.
REFUSED = {
    "numbered columns": ("0,1,2\n0.5,0.25,0.1\n", None, "line 1 .* header=True"),
    "years": ("2001,2002\n5,7\n", None, "line 1 .*--header or --no-header"),
    "one numbered column": ("0\n0.5\n0.25\n", None, "line 1 "),
    "evenly spaced": ("0.5,1.5,2.5\n1,0,1\n", None, "line 1 "),
    "quoted numbers first": ('"0.1","0.7"\n1,0\n', None, "line 1 "),
    "one row alone": ("4,5\n", None, "line 1 "),
    "decimal commas": ("0,5\n1,5\n", None, "line 1 "),
    "empty cell first": ("1.5,,2.5\n1,2,3\n", None, "line 1 .* header=True"),
    "empty cell first, no heading": ("1.5,,2.5\n1,2,3\n", False, "line 1, column 2 is empty"),
    "index of pandas": (",a,b\n0,0.5,0.25\n", None, "line 1 "),
    "partly numbers": ("t,1,2\n0.5,3,4\n", None, "line 1 "),
    "not a number first": ("nan,1\n0.5,3\n", None, "line 1, column 1: 'nan'"),
    "heading said not": ("a,b\n2,3\n", False, "line 1, column 1: 'a' is no number"),
    "heading too wide": ("a,b,c\n2,3\n", None, "line 2 has 2 columns, the heading 3"),
    "heading too narrow": ("a,b\n1,2,3\n", None, "line 2 has 3 columns, the heading 2"),
    "heading of one, decimal commas": ("volt\n0,5\n0,7\n", None, "line 2 has 2 columns, the heading 1"),
    "ragged": ("0.5,1\n2\n", None, "line 2 has 1 columns, the lines before 2"),
    "ragged, long": ("0.5,1\n2,3\n4,5,6\n", None, "line 3 has 3 columns, the lines before 2"),
    "trailing commas": ("0.5,1,\n2,3,\n", False, "line 1, column 3 is empty"),
    "empty cell": ("0.5,1\n2,\n", None, "line 2, column 2 is empty"),
    "empty cells": ("0.5,1\n,\n2,3\n", None, "line 2, column 1 is empty"),
    "empty cells at the end": ("0.5,1\n2,3\n,\n", None, "line 3, column 1 is empty"),
    "blank in the middle": ("0.5,1\n\n2,3\n", None, "line 2 is blank"),
    "blank in the middle of one column": ("0.5\n2\n \n3\n", None, "line 3 is blank"),
    "blank first": ("\n0.5\n2\n", None, "line 1 is blank"),
    "comment in the middle": ("0.5,1\n# pause,1\n2,3\n", None, "line 2, column 1: '# pause'"),
    "comment at an end": ("0.5,1 # start\n2,3\n", False, "line 1, column 2: '1 # start'"),
    "text": ("0.5,1\n2,x\n", None, "line 2, column 2: 'x' is no number"),
    "semicolons": ("0.5;1\n2;3\n", None, "line 2, column 1: '2;3' .*commas"),
    "semicolons and decimal commas": ("1,5;2,5\n3,5;4,5\n", None, "line 1 "),
    "tabs": ("0.5\t1\n2\t3\n", False, "line 1, column 1: .*commas"),
    "thousands": ('0.5,1\n"1,000",2\n', None, "line 2, column 1: '1,000' is no number"),
    "underscores": ("0.5,1\n1_000,2\n", None, "line 2, column 1: '1_000' is no number"),
    "nan": ("0.5,1\n2,NaN\n", None, "line 2, column 2: 'NaN' is not finite"),
    "inf": ("0.5,1\n-inf,2\n", None, "line 2, column 1: '-inf' is not finite"),
    "beyond float64": ("0.5,1\n1e400,2\n", None, "line 2, column 1: '1e400' is not finite"),
    "below float64": ("0.5,1\n2,1e-400\n", None, "line 2, column 2: '1e-400' .* 0"),
    "beyond its precision": (
        "0.5\n9007199254740993\n",
        None,
        "line 2, column 1: '9007199254740993' .*2\\*\\*53",
    ),
    "open quote": ('0.5,1\n2,"3\n4,5\n', None, "line 2 .*quotes"),
    "open quote first": ('"a,b\n2,3\n4,5\n', None, "line 1 .*quotes"),
    "quote in a cell": ('0.5,1\n"2"3,4\n', None, "line 2 .*quotes"),
    "long cell": (f'0.5,1\n"{"1" * 140_000}",3\n', None, "line 2 .*quotes"),
    "utf-16": ("0.5,1\n2,3\n".encode("utf-16"), None, "line 1 .*UTF-8"),
    "heading alone": ("a,b\n", None, "no numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tables_that_lie_are_refused_by_line(tmp_path: Path, name: str) -> None:
    content, header, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=sentence) as error:
        table(tmp_path, content, header=header)
    assert "a.csv" in str(error.value)
    assert any(word in str(error.value) for word in ("give", "say", "save", "check", "remove"))


def test_random_tables_are_read_as_written(tmp_path: Path) -> None:
    for trial in range(60):
        rows = RNG.normal(size=RNG.integers(2, 6, 2)) * 10.0 ** RNG.integers(-300, 300)
        cells = [[repr(float(number)) for number in row] for row in rows]
        header = bool(trial % 2)
        lines = ([",".join(map(str, range(rows.shape[1])))] if header else []) + [
            ",".join(row) for row in cells
        ]
        found = np.array(table(tmp_path, "\n".join(lines) + "\n" * (trial % 3), header=header))
        assert found.tobytes() == rows.tobytes()


# arrays


def test_archives_that_lie_are_one_sentence(tmp_path: Path) -> None:
    whole = io.BytesIO()
    np.save(whole, RNG.normal(size=(20, 3)))
    path = tmp_path / "a.npz"

    def sentence(said: str = "") -> None:
        with pytest.raises(ValueError, match="save it with numpy") as error:
            load_recording(path)
        assert "a.npz" in str(error.value)
        assert said in str(error.value)

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("input.npy", whole.getvalue())
    good = path.read_bytes()
    assert load_recording(path).shape == (20, 3)
    where = good.index(b"PK\x01\x02")
    unknown = bytearray(good)
    unknown[8], unknown[where + 10] = 97, 97
    path.write_bytes(unknown)
    sentence("compression")
    locked = bytearray(good)
    locked[6] |= 1
    locked[where + 8] |= 1
    path.write_bytes(locked)
    sentence("encrypted")
    path.write_bytes(whole.getvalue())  # a .npy under the wrong name
    sentence()
    np.save(tmp_path / "one.npy", np.array([5.0]))
    path.write_bytes((tmp_path / "one.npy").read_bytes())
    sentence()
    other = tmp_path / "b.npy"
    other.write_bytes(good)  # and the other way round
    with pytest.raises(ValueError, match=r"b\.npy cannot be read"):
        load_recording(other)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("input.npy", whole.getvalue())
        content = path.read_bytes()
        refused = 0
        for trial in range(150):
            data = bytearray(content)
            data[RNG.integers(0, len(data))] ^= 1 << RNG.integers(8)
            path.write_bytes(data if trial % 5 else data[: RNG.integers(0, len(data))])
            found = refusal(load_recording, path)
            assert not found.startswith("no such sentence")
            refused += bool(found)
        assert refused > 20
    for trial in range(200):
        data = bytearray(whole.getvalue())
        data[RNG.integers(0, 128)] = RNG.integers(256)
        other.write_bytes(data if trial % 5 else data[: RNG.integers(0, len(data))])
        assert not refusal(load_recording, other).startswith("no such sentence")


# on the command line

LIF = ["simulate", "LIF", "--param", "threshold=1", "--backend", "cpu", "--json"]


def disc(tmp_path: Path, transparent: bool) -> Path:
    """Return a black disc of 64 x 64 pixels, on white or on nothing."""
    y, x = np.mgrid[:64, :64]
    inside = (x - 32) ** 2 + (y - 32) ** 2 < 400
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[..., 3] = 255 * inside
    if not transparent:
        pixels[~inside] = 255
    path = tmp_path / f"disc_{transparent}.png"
    Image.fromarray(pixels).save(path)
    return path


def test_a_disc_on_a_transparent_ground_is_seen(tmp_path: Path) -> None:
    options = [*LIF, "--weight", "1000", "--input"]
    on_white = said(*options, disc(tmp_path, False))
    clear = disc(tmp_path, True)
    assert on_white["spikes"] > 500
    assert said(*options, clear)["spikes_sha256"] == on_white["spikes_sha256"]
    assert said(*options, clear, "--ground", "#ffffff")["spikes_sha256"] == on_white["spikes_sha256"]
    assert said(*options, clear, "--ground", "black")["spikes"] == 0
    assert "'#808080'" in said(*options, clear, "--ground", "mauve")


def test_headings_are_said_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("0,1\n" + "30.5,60.5\n" * 50)
    assert "--no-header" in said(*LIF, "--input", path)
    assert said(*LIF, "--input", path, "--header")["steps"] == 50
    assert said(*LIF, "--input", path, "--no-header", "--out", tmp_path / "run.npz")["steps"] == 51
    assert said("repeat", tmp_path / "run.npz", "--json")["same_spikes"]
    (tmp_path / "b.csv").write_text("1\n2\n")
    threshold = ["simulate", "LIF", "--param", f"threshold=@{tmp_path / 'b.csv'}", "--shape", "2,1,1"]
    assert "b.csv, line 1" in said(*threshold, "--stimulus", "constant:1")


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e400"])
@pytest.mark.parametrize(
    "option", ["--weight", "--rate", "--contrast", "--duration", "--sample-rate", "--dog"]
)
def test_numbers_are_finite(tmp_path: Path, option: str, number: str) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 2)))
    value = f"1,{number}" if option == "--dog" else number
    sentence = said(*LIF, "--input", tmp_path / "a.npy", f"{option}={value}")
    assert option in sentence
    assert "finite" in sentence


def test_numbers_that_the_dtype_does_not_hold(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((5, 2), 2.0))
    np.save(tmp_path / "large.npy", np.full((5, 2), 1e300))
    run = [*LIF, "--input", tmp_path / "a.npy"]
    for large in (["--weight", "1e300"], ["--weight", "3e38"]):
        assert "float32" in said(*run, *large)
    assert said(*run, "--weight", "1e300", "--dtype", "float64")["steps"] == 5
    assert "float32" in said(*LIF, "--input", tmp_path / "large.npy")
    assert "steps" in said(*LIF, "--stimulus", "constant:1", "--duration", "1e308")
    assert "--sample-rate" in said(*run, "--sample-rate", "1e-320")


@pytest.mark.parametrize("text", ["3,,4", ",3", "3,,", "1,nan"])
def test_lists_of_numbers_lose_none(tmp_path: Path, text: str) -> None:
    assert "--dog" in said(*LIF, "--stimulus", "constant:1", "--dog", text)
