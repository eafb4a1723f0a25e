"""Output memory is used again only when nobody holds it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from spyke_numba import Layer, models
from spyke_numba.backends.cpu.memory import Buffers

SHAPE = (20_000,)


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_once_it_is_free() -> None:
    buffers = Buffers()
    first = address(buffers.empty(SHAPE, "float32"))
    assert address(buffers.empty(SHAPE, "float32")) == first
    held = buffers.empty(SHAPE, "float32")
    assert address(held) == first
    assert address(buffers.empty(SHAPE, "float32")) != first
    assert buffers.empty(SHAPE, "float64").dtype == np.float64
    del held
    assert address(buffers.empty(SHAPE, "float32")) == first


def test_views_and_tensors_hold_their_memory() -> None:
    buffers = Buffers()
    holders = [
        lambda array: array[2:],
        lambda array: array.reshape(100, 200)[0],
        torch.from_numpy,
        lambda array: torch.from_numpy(array)[5:],
        memoryview,
    ]
    for hold in holders:
        holder = hold(buffers.empty(SHAPE, "float32"))
        again = buffers.empty(SHAPE, "float32")
        again[:] = 1.0
        np.asarray(holder)[...] = 2.0
        assert (again == 1.0).all()
        del holder, again


def test_what_steps_returned_stays_as_it_was() -> None:
    layer = Layer(models.LIF_Simple(threshold=1.0), SHAPE, backend="cpu")
    x = np.random.default_rng(0).uniform(0, 0.5, (40, 1, *SHAPE))
    kept = [layer.step(x[t]) for t in range(40)]
    layer.reset()
    expected = layer.run(x, ("spikes", "u"))
    np.testing.assert_array_equal(np.stack([step.u for step in kept]), expected.u)
    np.testing.assert_array_equal(np.stack([step.spikes for step in kept]), expected.spikes)


def test_what_is_kept_is_bounded() -> None:
    buffers = Buffers()
    held = [buffers.empty((size, 2**18), "uint8") for size in range(1, 80)]
    kept = sum(array.nbytes for arrays in buffers._kept.values() for array in arrays)
    assert 0 < kept <= 56 * 2**20
    assert kept == buffers._bytes < sum(array.nbytes for array in held)


def test_threads_never_share_memory() -> None:
    buffers = Buffers()
    barrier = threading.Barrier(4)

    def work(number: int) -> bool:
        barrier.wait()
        for _ in range(300):
            array = buffers.empty(SHAPE, "int64")
            array[:] = number
            if not (array == number).all():
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_what_is_done_to_a_result_stays_its_own() -> None:
    layer = Layer(models.LIF_Simple(threshold=1.0), (2, 3, 1), backend="cpu")
    x = np.ones((5, 1, 2, 3, 1), np.float32)
    for spoil in (
        lambda array: setattr(array, "shape", (-1,)),
        lambda array: setattr(array, "dtype", np.uint8),
        lambda array: array.setflags(write=False),
    ):
        for _ in range(10):
            # gone at once, so that its memory is used again
            spoil(layer.run(x).spikes)
        spikes = layer.run(x).spikes
        assert (spikes.shape, spikes.dtype, spikes.flags.writeable) == ((5, 1, 2, 3, 1), np.bool_, True)


def test_memory_of_an_unread_result_is_held_by_the_recording() -> None:
    layer = Layer(models.LIF_Simple(threshold=1.0), SHAPE, backend="cpu")
    x = np.random.default_rng(0).uniform(0, 0.5, (40, 1, *SHAPE)).astype(np.float32)
    recordings = [layer.run(part) for part in np.split(x, 8)]
    layer.reset()
    expected = layer.run(x).spikes.copy()
    np.testing.assert_array_equal(np.concatenate([recording.spikes for recording in recordings]), expected)
