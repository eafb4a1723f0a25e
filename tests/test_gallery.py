"""The published patterns against published spike times, and what the gallery's figures show."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from spyke_numba import models
from spyke_numba.analysis import patterns
from spyke_numba.cli.main import main
from spyke_numba.figures import gallery
from spyke_numba.inputs import stimuli

PUBLISHED = json.loads(
    (Path(__file__).parent / "acceptance" / "spike_times.json").read_text(encoding="utf-8")
)
ADEX_NAMES = {
    "tonic spiking": "tonic",
    "transient spiking": "transient",
    "irregular spiking": "irregular",
    "initial burst": {"naud2008": "initial burst", "neuronal_dynamics": "init burst"},
}
CHAOTIC = "irregular spiking"


def published_izhikevich(key):
    """The entry of one panel: ``A tonic spiking``, ``RS fig2``."""
    if f"{key} fig2" in PUBLISHED["izhikevich"]:
        return PUBLISHED["izhikevich"][f"{key} fig2"]
    (entry,) = [entry for name, entry in PUBLISHED["izhikevich"].items() if name.split()[0] == key]
    return entry


def published_adex(group, name):
    found = ADEX_NAMES.get(name, name)
    found = found[group] if isinstance(found, dict) else found
    return PUBLISHED[{"naud2008": "adex_naud2008", "neuronal_dynamics": "adex_nd61"}[group]][found]


IZHIKEVICH = {**patterns.IZHIKEVICH_2003, **patterns.IZHIKEVICH_2004}
ADEX = [(group, name) for group in ("naud2008", "neuronal_dynamics") for name in patterns.SETS[group]]


def test_all_are_here():
    assert {group: len(found) for group, found in patterns.SETS.items()} == {
        "izhikevich2003": 8,
        "izhikevich2004": 20,
        "naud2008": 8,
        "neuronal_dynamics": 6,
    }
    assert "".join(patterns.IZHIKEVICH_2004) == "ABCDEFGHIJKLMNOPQRST"
    for found in patterns.SETS.values():
        for pattern in found.values():
            assert "doi:10." in pattern.source
            assert pattern.model in models.names()


@pytest.mark.parametrize("key", IZHIKEVICH)
def test_izhikevich_times_to_the_step(key):
    check_times_to_the_step(key, "cpu")


@pytest.mark.parametrize("key", "AKQRT")
def test_izhikevich_times_to_the_step_on_other_backends(key, other_backend):
    check_times_to_the_step(key, other_backend)


def check_times_to_the_step(key, backend):
    pattern, published = IZHIKEVICH[key], published_izhikevich(key)
    at = np.flatnonzero(pattern.run(("spikes",), backend=backend).spikes)
    expected = np.rint(np.array(published["spike_times_ms"]) / published["dt"]).astype(int)
    assert at.tolist() == expected.tolist()
    assert pattern.spikes == expected.size
    assert pattern.duration * 1e3 == pytest.approx(published["T"])


@pytest.mark.parametrize(("group", "name"), ADEX)
def test_adex_counts_and_times(group, name):
    pattern, published = patterns.SETS[group][name], published_adex(group, name)["spikes_dt0.01"]
    times = (np.flatnonzero(pattern.run(("spikes",), backend="cpu").spikes) + 1) * pattern.params["ts"] * 1e3
    assert pattern.spikes == len(published)
    if name == CHAOTIC:
        assert abs(times.size - len(published)) <= 2
        intervals = np.diff(times)
        assert 0.55 < intervals.std() / intervals.mean() < 0.65
        return
    assert times.size == len(published)
    # published in another order of w and u, so not to the step: within 1 % of the time gone by
    np.testing.assert_allclose(times, published, rtol=0.01, atol=0.05)


def test_together_is_each_alone():
    for found in (patterns.NAUD_2008, patterns.NEURONAL_DYNAMICS):
        run = patterns.run_together(found.values(), ("spikes", "u", "w"), backend="cpu")
        for place, pattern in enumerate(found.values()):
            alone = pattern.run(("spikes", "u", "w"), backend="cpu")
            for name in ("spikes", "u", "w"):
                np.testing.assert_array_equal(run[name][:, place], alone[name][:, 0])
    with pytest.raises(ValueError, match="tonic spiking, phasic bursting: give patterns of one model"):
        patterns.run_together([patterns.IZHIKEVICH_2004["A"], patterns.IZHIKEVICH_2004["D"]])
    with pytest.raises(ValueError, match="no pattern"):
        patterns.run_together([])


def test_patterns_are_data():
    pattern = patterns.IZHIKEVICH_2004["A"]
    with pytest.raises(TypeError):
        pattern.params["a"] = 1.0
    with pytest.raises(TypeError):
        patterns.IZHIKEVICH_2004["A"] = pattern
    assert all(isinstance(stimuli.parse(text), stimuli.Stimulus) for text in pattern.stimuli)
    assert pattern.input().shape == (400,)
    assert pattern.input()[[0, 40, 41, 399]].tolist() == [0.0, 0.0, 14.0, 14.0]


# -- figures


def peaks(line, peak):
    y = np.asarray(line.get_ydata())
    return int(((y == peak) & (np.r_[np.nan, y[:-1]] != peak)).sum())


def test_the_izhikevich_figure_shows_the_spikes():
    figure = gallery.figure("izhikevich_patterns", "cpu")
    assert len(figure.axes) == 20
    for ax, (letter, pattern) in zip(figure.axes, patterns.IZHIKEVICH_2004.items(), strict=True):
        published = published_izhikevich(letter)
        assert ax.get_title() == f"({letter}) {pattern.name}"
        assert peaks(ax.lines[0], 30.0) == len(published["spike_times_ms"])
        shown = ax.lines[1].get_ydata()  # the input, stretched to a band of its own below
        assert shown.max() < ax.lines[0].get_ydata().min()
        assert np.corrcoef(shown, pattern.input())[0, 1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "group"), [("adex_naud2008", "naud2008"), ("adex_neuronal_dynamics", "neuronal_dynamics")]
)
def test_the_adex_figures_show_the_spikes(name, group):
    figure = gallery.figure(name, "cpu")
    potentials = [ax for ax in figure.axes if ax.get_title()]
    assert len(potentials) == len(patterns.SETS[group])
    for ax, (key, pattern) in zip(potentials, patterns.SETS[group].items(), strict=True):
        assert ax.get_title().startswith(f"{pattern.name}, I = ")
        assert peaks(ax.lines[0], 0.0) == pytest.approx(
            len(published_adex(group, key)["spikes_dt0.01"]), abs=2 * (key == CHAOTIC)
        )


def test_every_model_has_an_f_i_curve():
    assert set(gallery.FI_NEURONS) == set(models.names())
    figure = gallery.figure("fi_curves", "cpu")
    assert {ax.get_title() for ax in figure.axes} == set(models.names())
    for ax in figure.axes:
        lines = {line.get_label(): np.asarray(line.get_ydata()) for line in ax.lines}
        dots = next(y for label, y in lines.items() if label in ("simulated", "steady"))
        assert dots.max() > 30
        behind = [label for label in lines if label == "closed form" or "\\int" in label]
        assert len(behind) == (not models.get(ax.get_title()).states)
        if behind:
            assert dots[-1] == pytest.approx(lines[behind[0]][-1], rel=0.01)


def test_every_model_of_one_variable_has_its_ode():
    figure = gallery.figure("odes", "cpu")
    titles = [ax.get_title().split(",")[0] for ax in figure.axes if ax.get_title()]
    assert titles == [name for name in gallery.FI_NEURONS if not models.get(name).states]
    for ax in figure.axes[: len(titles)]:
        labels = [line.get_label() for line in ax.lines]
        assert "no current" in labels and any(label.startswith("I = ") for label in labels)


def test_unknown_figure():
    with pytest.raises(KeyError, match=r"unknown figure 'phase_plane'.*phase_planes"):
        gallery.figure("phase_plane")


# -- the command


def call(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="spyke-numba")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(*arguments):
    result = call("gallery", *arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("spyke-numba: ") and result.stderr.count("\n") == 1
    return result.stderr


def test_command_writes_all(tmp_path):
    result = call("gallery", "--out", tmp_path / "new" / "folder", "--backend", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["backend"] == "cpu"
    assert [Path(path).stem for path in report["files"]] == list(gallery.FIGURES)
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(
        Path(path).name for path in report["files"]
    )
    for path in report["files"]:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L"))
        assert min(pixels.shape) > 600
        assert 0.01 < (pixels < 200).mean() < 0.3  # ink, and not all ink


def test_command_leaves_files_alone(tmp_path):
    one = ["--out", tmp_path, "--only", "odes", "--backend", "cpu"]
    (tmp_path / "odes.png").write_bytes(b"mine")
    assert "odes.png exists already" in refused(*one)
    # all names are looked at before any is drawn
    assert "odes.png exists already" in refused("--out", tmp_path, "--backend", "cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["odes.png"]
    assert (tmp_path / "odes.png").read_bytes() == b"mine"
    result = call("gallery", *one, "--force")
    assert result.exit_code == 0
    assert result.stdout.split() == [str(tmp_path / "odes.png")]
    assert (tmp_path / "odes.png").read_bytes()[:4] == b"\x89PNG"
    assert call("gallery", *one, "--format", "svg").exit_code == 0
    assert (tmp_path / "odes.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_command_refuses(tmp_path):
    out = tmp_path / "out"
    assert "unknown figure 'ode'" in refused("--out", out, "--only", "ode")
    assert "'gpu'" in refused("--out", out, "--backend", "gpu")
    assert not out.exists()
    out.write_text("a file")
    assert "is a file: give the name of a folder" in refused("--out", out)
    assert out.read_text() == "a file"
