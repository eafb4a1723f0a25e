"""Contrast, spike codes and recordings against slow oracles, and the loading of files."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from PIL import Image

from spyke_numba.inputs.encoding import (
    difference_of_gaussians,
    latencies,
    latency_code,
    rate_code,
    resample,
    spike_wave,
    spread,
)
from spyke_numba.inputs.files import load_image, load_recording, sample, sample_names

RNG = np.random.default_rng(0)
VALUES = np.where(RNG.random((2, 6, 5)) < 0.3, 0.0, RNG.random((2, 6, 5)).round(1))


def slow_blur(image, sigma):
    """Gaussian blur by its definition, pixel by pixel, the border continued."""
    radius = math.ceil(4 * sigma)
    window = range(-radius, radius + 1)
    kernel = {(i, j): math.exp(-(i * i + j * j) / (2 * sigma * sigma)) for i in window for j in window}
    total = sum(kernel.values())
    rows, columns = image.shape
    result = np.zeros(image.shape)
    for r in range(rows):
        for c in range(columns):
            for (i, j), weight in kernel.items():
                inside = image[min(max(r + i, 0), rows - 1), min(max(c + j, 0), columns - 1)]
                result[r, c] += weight * inside / total
    return result


@pytest.mark.parametrize("sigmas", [((1.0, 2.0),), ((0.5, 1.5), (1.0, 1.6))])
def test_contrast_is_the_difference_of_gaussians(sigmas):
    image = RNG.random((9, 7))
    expected = []
    for centre, surround in sigmas:
        difference = slow_blur(image, centre) - slow_blur(image, surround)
        expected += [np.maximum(difference, 0), np.maximum(-difference, 0)]
    expected = np.array(expected) / np.max(expected)
    found = difference_of_gaussians(image, sigmas=sigmas)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-6)
    cut = difference_of_gaussians(image, sigmas=sigmas, threshold=0.3)
    assert np.array_equal(cut, np.where(found < 0.3, 0, found))
    assert (cut > 0).any()


def test_a_bright_spot_is_on_and_a_dark_one_off():
    image = np.full((15, 15), 0.5)
    image[7, 7] = 1.0
    on, off = difference_of_gaussians(image)
    assert np.unravel_index(on.argmax(), on.shape) == (7, 7)
    assert off[7, 7] == 0
    dark_on, dark_off = difference_of_gaussians(1.0 - image)
    assert np.allclose(dark_off, on, atol=1e-6)
    assert np.allclose(dark_on, off, atol=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0, 1e6])
def test_a_uniform_image_has_no_contrast(level):
    assert not difference_of_gaussians(np.full((20, 30), level)).any()


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (np.zeros((2, 3, 4)), {}),
        (np.array([[np.nan]]), {}),
        (np.zeros((3, 3)), {"sigmas": ((2.0, 1.0),)}),
        (np.zeros((3, 3)), {"sigmas": ((0.0, 1.0),)}),
        (np.zeros((3, 3)), {"sigmas": ()}),
        (np.zeros((3, 3)), {"threshold": 1.0}),
    ],
)
def test_contrast_refuses(image, options):
    with pytest.raises(ValueError, match="give"):
        difference_of_gaussians(image, **options)


@pytest.mark.parametrize("steps", [1, 4, 100])
@pytest.mark.parametrize("order", ["rank", "linear"])
def test_latencies_against_a_loop(steps, order):
    found = latencies(VALUES, steps, order=order)
    positive = sorted((v for v in VALUES.ravel() if v > 0), reverse=True)
    for index, value in np.ndenumerate(VALUES):
        if value == 0:
            expected = -1
        elif order == "rank":
            expected = positive.index(value) * steps // len(positive)
        else:
            expected = min(int((1 - value / positive[0]) * steps), steps - 1)
        assert found[index] == expected, index
    assert found.max() < steps
    assert found[np.unravel_index(VALUES.argmax(), VALUES.shape)] == 0


def test_waves():
    one_shot = latency_code(VALUES, 10)
    assert one_shot.dtype == bool
    assert one_shot.shape == (10, *VALUES.shape)
    assert np.array_equal(one_shot.sum(axis=0), VALUES > 0)  # each once, zero contrast never
    strength = [VALUES[one_shot[t]] for t in range(10) if one_shot[t].any()]
    assert len(strength) > 5
    for earlier, later in itertools.pairwise(strength):
        assert earlier.min() > later.max()
    cumulative = latency_code(VALUES, 10, wave="cumulative", dtype="float32")
    assert cumulative.dtype == np.float32
    assert np.array_equal(cumulative, np.logical_or.accumulate(one_shot, axis=0))
    first = latencies(VALUES, 10)
    for wave in ("one-shot", "cumulative"):
        parts = [spike_wave(first, range(t, min(t + 3, 10)), wave=wave) for t in range(0, 10, 3)]
        assert np.array_equal(np.concatenate(parts), latency_code(VALUES, 10, wave=wave))


def test_an_empty_scene_is_silent():
    assert not latency_code(np.zeros((2, 3)), 5).any()
    assert not rate_code(np.zeros((2, 3)), 5).any()


def test_rates_are_proportional_to_the_values():
    values = np.array([0.0, 1.0, 2.0, 4.0])
    spikes = rate_code(values, 40_000, rate=200.0, ts=0.001, seed=3)
    assert spikes.shape == (40_000, 4)
    chances = np.array([0.0, 0.05, 0.1, 0.2])
    assert np.all(np.abs(spikes.mean(axis=0) - chances) <= 5 * np.sqrt(chances * (1 - chances) / 40_000))
    assert abs(np.corrcoef(spikes[:, 2], spikes[:, 3])[0, 1]) < 0.03
    generator = np.random.default_rng(3)
    parts = [rate_code(values, n, rate=200.0, seed=generator) for n in (17, 83)]
    assert np.array_equal(np.concatenate(parts), spikes[:100])
    assert rate_code(np.ones(3), 50, rate=1000.0).all()


@pytest.mark.parametrize("code", [latency_code, rate_code, latencies])
def test_codes_refuse(code):
    for bad in ([-0.1, 1.0], [np.nan], [np.inf]):
        with pytest.raises(ValueError, match="give"):
            code(np.array(bad), 5)
    with pytest.raises(ValueError, match="steps is 0"):
        code(np.ones(2), 0)


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="'rank'"):
        latencies(np.ones(2), 5, order="random")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'cumulative'"):
        latency_code(np.ones(2), 5, wave="burst")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at most 1000 Hz"):
        rate_code(np.ones(2), 5, rate=1001.0)


@pytest.mark.parametrize(("sample_rate", "ts"), [(80.0, 0.001), (1000.0, 0.001), (5000.0, 0.001)])
def test_resampling_is_linear(sample_rate, ts):
    recording = RNG.normal(size=(50, 3))
    steps = 40
    times = np.arange(steps) * ts
    expected = np.stack(
        [np.interp(times, np.arange(50) / sample_rate, column) for column in recording.T], axis=1
    )
    found = resample(recording, sample_rate=sample_rate, ts=ts, steps=steps)
    assert np.allclose(found, expected)
    part = resample(recording, sample_rate=sample_rate, ts=ts, steps=7, first=20)
    assert np.allclose(part, expected[20:27])


def test_resampling_refuses():
    with pytest.raises(ValueError, match="sample_rate"):
        resample(np.ones((3, 1)), sample_rate=0.0, ts=0.001, steps=1)
    with pytest.raises(ValueError, match="samples, channels"):
        resample(np.ones(3), sample_rate=1.0, ts=0.001, steps=1)


@pytest.mark.parametrize("size", [4, 5, 200, 203])
def test_spreading_gives_groups_of_neighbours(size):
    recording = np.arange(12).reshape(3, 4)
    found = spread(recording, (size,))
    groups = np.diff(np.flatnonzero(np.diff(found[0], prepend=-1, append=-1)))
    assert found[0].tolist() == sorted(found[0])
    assert len(groups) == 4
    assert groups.max() - groups.min() <= 1
    assert np.array_equal(found - found[0], np.repeat([[0], [4], [8]], size, axis=1))
    with pytest.raises(ValueError, match="at least 4"):
        spread(recording, (3,))


def test_spreading_over_maps():
    assert spread(np.array([[1, 2]]), (2, 1, 3)).tolist() == [[[[1, 1, 1]], [[2, 2, 2]]]]


# files


def test_pictures_are_luminance(tmp_path):
    pixels = RNG.integers(0, 256, (6, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    grey = load_image(tmp_path / "colour.png")
    expected = pixels @ [0.299, 0.587, 0.114] / 255
    assert grey.shape == (6, 4)
    assert grey.dtype == np.float32
    assert np.abs(grey - expected).max() <= 1 / 255
    deep = RNG.integers(0, 65536, (3, 5), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.allclose(load_image(tmp_path / "deep.png"), deep / 65535, atol=1e-5)


def test_pictures_are_turned_and_resized(tmp_path):
    picture = Image.fromarray(np.repeat(np.arange(0, 250, 5, dtype=np.uint8)[None], 20, axis=0))  # 20 x 50
    picture.save(tmp_path / "flat.png")
    assert load_image(tmp_path / "flat.png", size=(10, 30)).shape == (10, 30)
    assert load_image(tmp_path / "flat.png", longest=25).shape == (10, 25)
    assert load_image(tmp_path / "flat.png", longest=99).shape == (20, 50)
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert load_image(tmp_path / "turned.jpg").shape == (50, 20)


def test_samples_exist_and_load():
    assert {"grace_hopper.jpg", "eeg.dat"} <= set(sample_names())
    picture = load_image(sample("grace_hopper.jpg"))
    assert picture.shape == (600, 512)
    assert picture.std() > 0.1
    recording = load_recording(sample("eeg.dat"), channels=4)
    assert recording.shape == (800, 4)
    # four normalised channels: any other layout of these numbers is rougher from sample to sample
    assert np.allclose(recording.std(axis=0), 1, atol=0.01)
    with pytest.raises(FileNotFoundError, match=r"eeg\.dat"):
        sample("moon.png")


def test_recordings_load(tmp_path):
    table = RNG.normal(size=(5, 3))
    np.save(tmp_path / "a.npy", table)
    loaded = load_recording(tmp_path / "a.npy")
    assert isinstance(loaded, np.memmap)
    assert np.array_equal(loaded, table)
    np.savez(tmp_path / "one.npz", anything=table)
    assert np.array_equal(load_recording(tmp_path / "one.npz"), table)
    np.savez(tmp_path / "two.npz", other=table[:1], input=table)
    assert np.array_equal(load_recording(tmp_path / "two.npz"), table)
    np.savetxt(tmp_path / "bare.csv", table, delimiter=",")
    assert np.allclose(load_recording(tmp_path / "bare.csv"), table)
    np.savetxt(tmp_path / "headed.csv", table, delimiter=",", header="a,b,c", comments="")
    assert np.allclose(load_recording(tmp_path / "headed.csv"), table)
    table.astype("<f8").tofile(tmp_path / "a.dat")
    assert np.array_equal(load_recording(tmp_path / "a.dat", channels=3), table)
    assert load_recording(tmp_path / "a.dat").shape == (15, 1)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"1", "'.txt'"),
        ("a.npy", b"no array", "cannot be read"),
        ("a.npy", b"", "cannot be read"),
        ("a.npz", b"PK\x03\x04 no archive", "cannot be read"),
        ("a.csv", b"1,2\n3,x\n", "line 2"),
        ("a.csv", b"1,2\n3\n", "line 2 has 1 columns, the lines before 2"),
        ("a.csv", b"", "no numbers"),
        ("a.dat", b"1234567", "7 bytes"),
    ],
)
def test_bad_recordings_are_refused(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"give|save|allowed") as error:
        load_recording(tmp_path / name)
    assert said in str(error.value)
    assert name in str(error.value)


def test_bad_arrays_and_pictures_are_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.array(["a"]))
    np.savez(tmp_path / "two.npz", a=np.ones(1), b=np.ones(1))
    for name in ("objects.npy", "text.npy", "two.npz"):
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            load_recording(tmp_path / name)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="picture"):
        load_image(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError):
        load_recording(tmp_path / "none.npy")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: difference_of_gaussians(np.zeros((3, 3)), sigmas=((1.0, np.inf),)), "finite"),
        (lambda: difference_of_gaussians(np.zeros((3, 3)), sigmas=((1.0, 1e9),)), "at most 1000"),
        (lambda: difference_of_gaussians(np.zeros((3, 3)), sigmas=(1.0, 2.0)), "pairs"),  # type: ignore[arg-type]
        (lambda: latencies(np.ones(2), 2.5), "whole number"),  # type: ignore[arg-type]
        (lambda: latencies(np.arange(3), 2**31 + 5), "at most 2147483647"),
        (lambda: rate_code(np.ones(2), 2.5), "whole number"),  # type: ignore[arg-type]
        (lambda: rate_code(np.ones(2), 5, rate=np.inf, ts=0.0), "ts is 0"),
        (lambda: rate_code(np.ones(2), 5, rate=-1.0), "rate is -1"),
        (lambda: resample(np.ones((3, 1)), sample_rate=np.inf, ts=0.001, steps=1), "sample_rate is inf"),
        (lambda: resample(np.ones((3, 1)), sample_rate=1.0, ts=-0.001, steps=2), "ts is -0.001"),
        (lambda: resample(np.ones((3, 1)), sample_rate=1.0, ts=np.nan, steps=2), "ts is nan"),
        (lambda: resample(np.ones((3, 1)), sample_rate=1.0, ts=0.001, steps=2, first=-1), "first is -1"),
        (lambda: resample(np.ones((0, 1)), sample_rate=1.0, ts=0.001, steps=2), "no samples"),
    ],
)
def test_numbers_that_are_none_are_refused(call, said):
    with pytest.raises((ValueError, TypeError), match="give") as error:
        call()
    assert said in str(error.value)


def test_the_weakest_values_still_spike():
    """A factor of their strongest would be infinite."""
    tiny = np.array([0.0, 5e-324, 1e-323])
    assert np.array_equal(rate_code(tiny, 300, seed=2), rate_code(np.array([0.0, 1.0, 2.0]), 300, seed=2))
