"""Plain numpy: a loop over the steps, whole arrays at a time, written into memory that exists."""

from __future__ import annotations

import numpy as np

NAME = "numpy"
PACKAGE = "numpy"
KWTA = True


def build(work):
    """Return the run and its count; see the package."""
    x, threshold = work.x, np.float32(work.threshold)
    decay = np.float32(work.decay)
    batch, features, size = work.maps[1:]

    def free():
        u, spikes = np.zeros_like(x[0]), np.empty(x.shape, bool)
        for t in range(len(x)):
            u *= decay
            u += x[t]
            np.greater_equal(u, threshold, out=spikes[t])
            u[spikes[t]] = 0
        return spikes, None

    def competing():
        u, spikes = np.zeros_like(x[0]), np.empty(x.shape, bool)
        counters = np.zeros((batch, features), np.int32)
        winners = np.empty((len(x), batch, work.k, 2), np.int64)
        for t in range(len(x)):
            u *= decay
            u += x[t]
            u[counters > 0] = 0
            np.greater_equal(u, threshold, out=spikes[t])
            score = np.where(spikes[t], u, -np.inf).reshape(batch, features, size)
            place = score.argmax(axis=2)
            best = np.take_along_axis(score, place[..., None], axis=2)[..., 0]
            order = np.argsort(-best, axis=1, kind="stable")[:, : work.k]
            won = np.take_along_axis(best, order, axis=1) > -np.inf
            winners[t, ..., 0] = np.where(won, order, -1)
            winners[t, ..., 1] = np.where(won, np.take_along_axis(place, order, axis=1), -1)
            counters = np.maximum(counters - 1, 0)
            held = np.where(won, work.hold, np.take_along_axis(counters, order, axis=1))
            np.put_along_axis(counters, order, held, axis=1)
            u[spikes[t]] = 0
        return spikes, winners

    return competing if work.k else free, lambda result: int(np.count_nonzero(result[0]))
