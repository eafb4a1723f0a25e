"""Recorded learning: a network of `functional` and a plain STDP learns SpykeTorch's weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="spyke_numba.functional works on torch tensors")

from spyke_numba import functional as sf  # noqa: E402

FOLDER = Path(__file__).parent / "golden_learning"
STDP = sorted(FOLDER.glob("stdp_*.npz"))
TOLERANCE = 1e-6


def learn(wave, weights, spikes, winners, rates, stabilizer, bounds):
    """Change float32 weights (F, C, rows, columns): inputs that had spiked when a winner did gain, others lose."""
    _, _, rows, columns = weights.shape
    changed = weights.copy()
    for f, r, c in winners:
        seen = wave[:, :, r : r + rows, c : c + columns].sum(0) >= spikes[:, f, r, c].sum()
        rate = np.where(seen, *np.float32(rates))
        w = weights[f]
        change = rate * (w - np.float32(bounds[0])) * (np.float32(bounds[1]) - w) if stabilizer else rate
        changed[f] = w + change
    return np.clip(changed, *np.float32(bounds))


@pytest.mark.parametrize("path", STDP, ids=lambda path: path.stem)
def test_one_call_of_stdp(path):
    recorded = np.load(path)
    potentials = torch.from_numpy(recorded["potentials"])
    spikes = sf.fire(potentials, float(recorded["threshold"]))
    assert np.array_equal(spikes, recorded["spikes"])
    learnt = learn(
        recorded["wave"].astype(np.float32),
        recorded["weights"],
        spikes.numpy(),
        recorded["winners"],
        recorded["rates"],
        bool(recorded["stabilizer"]),
        recorded["bounds"],
    )
    np.testing.assert_allclose(learnt, recorded["learnt"], rtol=0, atol=TOLERANCE)


def test_a_layer_learns_from_its_winners():
    recorded = np.load(FOLDER / "layer.npz")
    shape = tuple(recorded["shape"])
    waves = np.unpackbits(recorded["waves"], count=int(np.prod(shape))).reshape(shape).astype(np.float32)
    k, radius, padding = (int(recorded[name]) for name in ("kwta", "radius", "padding"))
    weights, winners = recorded["weights"], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for epoch in range(int(recorded["epochs"])):
            for image, wave in enumerate(waves):
                wave = sf.pad(torch.from_numpy(wave), (padding,) * 4)
                potentials = sf.fn.conv2d(wave, torch.from_numpy(weights))
                thresholded = sf.threshold(potentials, float(recorded["threshold"]))
                kept = sf.pointwise_inhibition(thresholded)
                spikes = kept.sign()
                won = sf.get_k_winners(kept, k, radius, spikes)
                winners += [(epoch, image, *winner) for winner in won]
                weights = learn(wave.numpy(), weights, spikes.numpy(), won, recorded["rates"], True, (0, 1))
    finally:
        torch.set_num_threads(threads)
    assert winners == [tuple(winner) for winner in recorded["winners"].tolist()]
    np.testing.assert_allclose(weights, recorded["learnt"], rtol=0, atol=TOLERANCE)


def test_all_recordings_are_there():
    assert len(STDP) == 12
