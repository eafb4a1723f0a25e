"""Tensors on a GPU: results stay there, nothing waits, and kernels of large layers give the cpu backend's bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import assert_same
from emulated import LimitedGpu
from test_cuda_forms import DEVICES

from spyke_numba import KWTA, Layer, Recording, models
from spyke_numba.backends.cuda.launch import CudaBackend

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("gpu"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch is a build without CUDA, or sees no GPU"),
]

SHAPE, BATCH, STEPS = (6, 8, 8), 2, 20
INHIBITION = {
    "free": None,
    "feature": KWTA(k=2, radius=2),
    "location": KWTA(k=3, scope="location", radius=1),
    "global": KWTA(k=1, scope="global"),
}
#: Long enough that what waits for it is seen to wait.
CYCLES = 500_000_000

competing = pytest.mark.parametrize("inhibition", INHIBITION.values(), ids=INHIBITION)
limited = pytest.mark.parametrize("device", [None, *DEVICES])


def potentials(steps: int = STEPS, batch: int = BATCH, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(5).uniform(0, 4000, (steps, batch, *shape)).astype(np.float32)


def layer_of(
    backend: Any, inhibition: KWTA | None, shape: tuple[int, ...] = SHAPE, batch: int = BATCH
) -> Layer:
    return Layer(models.LIF(threshold=10.0), shape, batch, inhibition, backend)


def backend_of(device: str | None) -> Any:
    return "cuda" if device is None else CudaBackend(LimitedGpu(limits=DEVICES[device]))


def downloaded(recording: Recording) -> Recording:
    """Return a recording of tensors as one of arrays, having seen that they are on the GPU."""
    assert all(array.is_cuda for array in recording.values())
    return Recording({name: array.cpu().numpy() for name, array in recording.items()})


@competing
@limited
def test_results_stay_on_the_gpu(device: str | None, inhibition: KWTA | None) -> None:
    x = potentials()
    expected, layer = (layer_of(backend, inhibition) for backend in ("cpu", backend_of(device)))
    record = [name for name in layer.recordable if inhibition or name != "winners"]
    on_gpu = torch.tensor(x, device="cuda")
    for part in (slice(0, 3), slice(3, STEPS)):
        want = expected.run(x[part], record)
        assert want.spikes.any()
        assert_same(want, downloaded(layer.run(on_gpu[part], record)))
    layer.reset()
    expected.reset()
    for step in range(3):
        assert_same(expected.step(x[step]), downloaded(layer.step(on_gpu[step])))


@competing
@limited
@pytest.mark.parametrize("offset", [0, 1, 4])
def test_memory_that_starts_anywhere(offset: int, device: str | None, inhibition: KWTA | None) -> None:
    x = potentials()
    memory = torch.zeros(x.size + 16, device="cuda")
    given = memory[offset : offset + x.size].view(x.shape)
    given.copy_(torch.tensor(x))
    spikes = torch.zeros(x.size + 16, dtype=torch.bool, device="cuda")[offset : offset + x.size].view(x.shape)
    layer_of(backend_of(device), inhibition).run(given, out={"spikes": spikes})
    assert np.array_equal(spikes.cpu().numpy(), layer_of("cpu", inhibition).run(x).spikes)


@competing
def test_a_run_is_ordered_on_torchs_stream_and_waits_for_nothing(inhibition: KWTA | None) -> None:
    x = potentials()
    expected = layer_of("cpu", inhibition).run(x).spikes
    layer = layer_of("cuda", inhibition)
    given = torch.zeros(x.shape, device="cuda")
    layer.run(given)
    late, stream, done = torch.tensor(x, device="cuda"), torch.cuda.Stream(), torch.cuda.Event()
    layer.reset()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(CYCLES)
        given.copy_(late)
        spikes = layer.run(given).spikes
        done.record()
        assert not done.query(), "the run waited for the stream"
    done.synchronize()
    assert np.array_equal(spikes.cpu().numpy(), expected)


def test_layers_on_streams_of_their_own() -> None:
    """Blocks that wait for each other share nothing with those of another launch."""
    x = potentials(batch=1, shape=(30, 28, 28))
    expected = [
        layer_of("cpu", i, (30, 28, 28), 1).run(x, ("spikes", "winners")) for i in INHIBITION.values() if i
    ]
    layers = [layer_of("cuda", i, (30, 28, 28), 1) for i in INHIBITION.values() if i]
    streams = [torch.cuda.Stream() for _ in layers]
    given = torch.tensor(x, device="cuda")
    torch.cuda.synchronize()
    for _ in range(20):
        recordings = []
        for layer, stream in zip(layers, streams, strict=True):
            with torch.cuda.stream(stream):
                layer.reset()
                recordings.append(layer.run(given, ("spikes", "winners")))
        torch.cuda.synchronize()
        for want, recording in zip(expected, recordings, strict=True):
            assert_same(want, downloaded(recording))


def test_a_state_follows_its_input() -> None:
    """What comes from the host after the GPU finds the state that the GPU has left, and the other way round."""
    x = potentials()
    expected, layer = (layer_of(backend, KWTA(k=2)) for backend in ("cpu", "cuda"))
    wanted = [expected.run(x[t : t + 5]) for t in range(0, STEPS, 5)]
    given = [
        x[:5],
        torch.tensor(x[5:10], device="cuda"),
        torch.tensor(x[10:15]),
        torch.tensor(x[15:], device="cuda"),
    ]
    for want, potential in zip(wanted, given, strict=True):
        spikes = layer.run(potential).spikes
        assert np.array_equal(np.asarray(spikes.cpu() if hasattr(spikes, "cpu") else spikes), want.spikes)


@pytest.mark.parametrize(
    ("shape", "batch"),
    [((1_000_003,), 1), ((1_000_000,), 1), ((30, 28, 28), 64), ((100, 160, 160), 1)],
    ids=str,
)
@competing
def test_large_layers(shape: tuple[int, ...], batch: int, inhibition: KWTA | None) -> None:
    """Sizes at which the device's own limits choose the kernels of large layers."""
    x = potentials(8, batch, shape)
    record = ("spikes", "winners") if inhibition else ("spikes",)
    expected, layer = (layer_of(backend, inhibition, shape, batch) for backend in ("cpu", "cuda"))
    assert_same(expected.run(x, record), downloaded(layer.run(torch.tensor(x, device="cuda"), record)))
