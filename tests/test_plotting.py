"""The summary of a run against direct counting, and what the figure shows."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spyke_numba.figures import run as plotting
from spyke_numba.figures.run import RunSummary, draw, save

SHAPES = [(40,), (3, 5, 4)]


def made_up_run(shape, steps=60, batch=2, k=2, seed=0):
    """Return spikes, winners and traces that no layer made."""
    rng = np.random.default_rng(seed)
    spikes = rng.random((steps, batch, *shape)) < 0.05
    spikes.reshape(steps, batch, -1)[:, :, 7] = False
    winners = np.full((steps, batch, k, 3), -1, np.int32)
    maps = shape if len(shape) == 3 else (*shape, 1, 1)
    for t, b in np.ndindex(steps, batch):
        fired = np.flatnonzero(spikes[t, b])[:k]
        for place, index in enumerate(fired):
            winners[t, b, place] = np.unravel_index(index, maps)
    traces = {"input": rng.random(spikes.shape), "u": rng.random(spikes.shape).astype(np.float32)}
    return spikes, winners, traces


def summarised(shape, block=60, **options):
    spikes, winners, traces = made_up_run(shape)
    summary = RunSummary(shape, steps=60, ts=0.001, batch=2, **options)
    for t in range(0, 60, block):
        part = slice(t, t + block)
        summary.add(spikes[part], winners=winners[part], traces={k: v[part] for k, v in traces.items()})
    return summary, spikes, winners, traces


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sample", [0, 1])
@pytest.mark.parametrize("block", [60, 7])
def test_summary_counts(shape, sample, block):
    summary, spikes, winners, traces = summarised(shape, block, sample=sample)
    flat = spikes.reshape(60, 2, -1)
    assert summary.spikes == spikes.sum() > 0
    assert summary.rate == pytest.approx(spikes.sum() / spikes[0].size / 0.060)
    assert np.array_equal(summary.counts, flat[:, sample].sum(axis=0))
    assert summary.active == np.mean(flat[:, sample].any(axis=0)) < 1
    first = [next((t for t in range(60) if flat[t, sample, n]), -1) for n in range(flat.shape[2])]
    assert summary.first_step.tolist() == first
    assert summary.binned.tolist() == flat.sum(axis=(1, 2)).tolist()  # 60 steps: a bin each
    assert summary.winner_count == (winners[..., 0] >= 0).sum()
    expected = [(t, *w) for t in range(60) for w in winners[t, sample].tolist() if w[0] >= 0]
    assert [tuple(row) for row in summary.winner_events().tolist()] == expected
    steps, neurons = summary.events()
    assert sorted(zip(steps, neurons, strict=True)) == [tuple(row) for row in np.argwhere(flat[:, sample])]
    for name, values in traces.items():
        kept = values.reshape(60, 2, -1)[:, sample][:, summary.pool]
        assert np.array_equal(summary.traces[name], kept.astype(np.float32))


def test_long_runs_are_binned_and_big_ones_thinned(monkeypatch):
    monkeypatch.setattr(plotting, "MOST_EVENTS", 500)
    monkeypatch.setattr(plotting, "MOST_BINS", 10)
    monkeypatch.setattr(plotting, "TRACE_STEPS", 30)
    summary, spikes, _, traces = summarised((400,), 7)
    assert summary.bin_steps == 6
    assert summary.binned.tolist() == spikes.reshape(10, -1).sum(axis=1).tolist()
    steps, neurons = summary.events()
    assert summary.stride > 1
    assert 0 < len(steps) <= 500
    assert (neurons % summary.stride == 0).all()
    kept = spikes[:, 0, :: summary.stride]
    assert len(steps) == kept.sum()
    assert summary.spikes == spikes.sum()
    assert summary.traces["u"].shape == (30, len(summary.pool))
    assert np.array_equal(summary.traces["u"], traces["u"][:30, 0][:, summary.pool])


def test_a_short_last_bin_has_its_own_width(monkeypatch):
    monkeypatch.setattr(plotting, "MOST_BINS", 10)
    summary = RunSummary((4,), steps=65, ts=0.001)
    summary.add(np.ones((65, 1, 4), bool))
    rate = draw(summary).axes[1].patches[0].get_data()
    assert rate.edges[-2:].tolist() == pytest.approx([63, 65])  # ms
    assert rate.values == pytest.approx(np.full(10, 1000.0))


def test_memory_does_not_grow_with_the_run():
    spikes = np.random.default_rng(0).random((100, 1, 200)) < 0.2
    winners = np.zeros((100, 1, 2, 3), np.int32)

    def peak(blocks):
        tracemalloc.start()
        summary = RunSummary((200,), steps=100 * blocks, ts=0.001)
        for _ in range(blocks):
            summary.add(spikes, winners=winners, traces={"u": spikes})
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(1500) < 2 * peak(300)


def test_unknown_samples_and_neurons_are_refused():
    for options in ({"sample": 2, "batch": 2}, {"sample": -1}, {"neurons": [40]}, {"neurons": [-1]}):
        with pytest.raises(ValueError, match="give 0 to"):
            RunSummary((40,), steps=5, ts=0.001, **options)


def labels(figure):
    return [(axis.get_ylabel(), axis.get_xlabel()) for axis in figure.axes]


def test_figure_of_a_population():
    summary, _, _, _ = summarised((40,), neurons=[3, 9])
    figure = draw(summary, title="forty", units={"u": "mV"})
    ylabels = [y for y, _ in labels(figure)]
    assert ylabels == ["neuron", "rate (Hz)", "input", "u (mV)", "u (mV)"]
    assert labels(figure)[-1][1] == "time (ms)"
    assert figure.get_suptitle() == "forty"
    assert [axis.get_title(loc="right") for axis in figure.axes[-2:]] == ["neuron 3", "neuron 9"]
    raster, rate = figure.axes[:2]
    assert len(raster.collections[0].get_offsets()) == summary.counts.sum()
    won = summary.winner_events()
    assert raster.collections[1].get_offsets()[:, 0].tolist() == pytest.approx(won[:, 0].tolist())  # ms
    assert raster.collections[1].get_offsets()[:, 1].tolist() == won[:, 1].tolist()
    heights = rate.patches[0].get_data().values
    assert heights.sum() * 0.001 * 40 * 2 == pytest.approx(summary.spikes)
    potential = figure.axes[3].lines[0].get_ydata()
    assert np.array_equal(potential, summary.traces["u"][:, 0])


def test_figure_of_feature_maps():
    summary, _, _, _ = summarised((3, 5, 4))
    figure = draw(summary, features=["red", "green", "blue"])
    found = labels(figure)
    assert ("winning\nfeature", "") in found
    assert found.count(("row", "column")) == 2
    titles = [axis.get_title() for axis in figure.axes]
    first = figure.axes[titles.index("first spike of each location")].images[0].get_array()
    expected = np.where(summary.first_step < 0, 1000, summary.first_step).reshape(3, 5, 4).min(axis=0)
    assert np.array_equal(np.ma.filled(first, 1000), expected)
    (winners,) = [axis for axis in figure.axes if axis.get_title().startswith("locations of the")]
    assert [text.get_text() for text in winners.get_legend().get_texts()] == ["red", "green", "blue"]
    drawn = sum(len(marks.get_offsets()) for marks in winners.collections)
    assert drawn == len(summary.winner_events()) > 0


@pytest.mark.parametrize("shape", [(1,), (1, 1, 1), (1, 3, 3), (20, 2, 2), (2, 1, 1)])
@pytest.mark.parametrize("silent", [False, True])
def test_odd_layers_are_drawn(tmp_path, shape, silent):
    spikes = np.zeros((5, 1, *shape), bool)
    winners = np.full((5, 1, 1, 3), -1, np.int32)
    if not silent:
        spikes[2] = True
        winners[2] = 0
    summary = RunSummary(shape, steps=5, ts=1.0)
    summary.add(spikes, winners=winners, traces={"u": spikes.astype(float)})
    save(draw(summary), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size[0] > 500


@pytest.mark.parametrize("suffix", plotting.FIGURE_SUFFIXES)
def test_figures_are_saved_and_not_overwritten(tmp_path, suffix):
    figure = draw(summarised((40,))[0])
    path = tmp_path / f"figure{suffix}"
    save(figure, path)
    written = path.read_bytes()
    assert written.startswith({".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix])
    with pytest.raises(FileExistsError, match="force"):
        save(figure, path)
    path.write_bytes(b"old")
    save(figure, path, force=True)
    assert len(path.read_bytes()) > 1000
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(ValueError, match=r"\.png, \.pdf, \.svg"):
        save(figure, tmp_path / "figure.gif")


def test_drawing_leaves_pyplot_alone():
    code = (
        "import sys, numpy as np; from spyke_numba.figures.run import RunSummary, draw;"
        "assert 'matplotlib' not in sys.modules;"
        "s = RunSummary((4,), steps=3, ts=0.1); s.add(np.ones((3, 1, 4), bool)); draw(s);"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    root = Path(plotting.__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=root)
