"""Recorded waves: spikes, inhibition and winners are SpykeTorch's, in their order, compiled and in torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="spyke_numba.functional works on torch tensors")

from spyke_numba import functional as sf  # noqa: E402
from spyke_numba.spyketorch import functional_cpu  # noqa: E402

WAVES = sorted((Path(__file__).parent / "golden_winners").glob("*.npz"))


@pytest.fixture(params=["compiled", "torch"])
def form(request, monkeypatch):
    """Run the compiled loops, or the torch operations of other devices."""
    if request.param == "torch":
        monkeypatch.setattr(functional_cpu, "suits", lambda tensor: False)
    return request.param


def lists(wave, name):
    return [tuple(winner) for winner in wave[name].tolist()]


@pytest.mark.parametrize("path", WAVES, ids=lambda path: path.stem)
def test_a_recorded_wave(path, form):
    wave = np.load(path)
    k, radius = int(wave["kwta"]), int(wave["radius"])
    spikes, thresholded = sf.fire(torch.from_numpy(wave["potentials"]), float(wave["threshold"]), True)
    assert np.array_equal(spikes, wave["spikes"])
    kept = sf.pointwise_inhibition(thresholded)
    assert np.array_equal(kept, wave["pointwise"])
    assert sf.get_k_winners(kept, k, radius, kept.sign()) == lists(wave, "winners")
    assert sf.get_k_winners(kept, k, radius) == lists(wave, "winners")
    assert sf.get_k_winners(thresholded, k, radius, spikes) == lists(wave, "winners_without_pointwise")
    # each sample of a batch as if alone
    batch = torch.stack([thresholded, thresholded.flip(1), thresholded])
    first, other, third = sf.get_k_winners(batch, k, radius)
    assert first == third == lists(wave, "winners_without_pointwise")
    assert other == sf.get_k_winners(batch[1], k, radius)


def test_all_waves_are_there():
    assert len(WAVES) == 32


def test_the_exact_order_is_another_one():
    differ = 0
    for path in WAVES:
        wave = np.load(path)
        kept = torch.from_numpy(wave["pointwise"])
        exact = sf.get_k_winners(kept, int(wave["kwta"]), int(wave["radius"]), exact_order=True)
        differ += exact != lists(wave, "winners")
    assert differ > 0
