"""Every form of the CUDA kernels gives the other backends' bits: wide, narrow, in device memory, of many blocks."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import assert_same, input_for, neuron_of
from emulated import LIMITS, EmulatedDevice, LimitedGpu, needs_emulator

from spyke_numba import KWTA, Layer, backends, models
from spyke_numba.backends.cuda.launch import CudaBackend, Limits
from spyke_numba.model.kwta import Scope

#: Devices on which small layers take one of the forms.
DEVICES = {
    "shared": LIMITS,
    "scratch": Limits(multiprocessors=1, shared_bytes=0, wide_neurons=16),
    "grid": Limits(multiprocessors=8, shared_bytes=48 * 1024, wide_neurons=2, block_neurons=16),
}
SHAPES = {"wide": (3, 4, 5), "narrow": (3, 3, 5)}


def inputs(name: str, batch: int, width: str) -> np.ndarray:
    """Return a random input for the shape of a width: an odd number of neurons cannot be split into equal groups."""
    _, rows, _ = SHAPES[width]
    return np.ascontiguousarray(input_for(name, batch)[:, :, :, :rows])


CudaDevice = type[EmulatedDevice | LimitedGpu]


@pytest.fixture(params=["torch", pytest.param("cpu", marks=pytest.mark.exhaustive)])
def known(request: pytest.FixtureRequest) -> str:
    """The backend to compare with: the one that compiles nothing, if it is there; with --exhaustive the cpu too."""
    return request.param if backends.get(request.param).unavailable() is None else "cpu"


def check(
    where: CudaDevice,
    known: str,
    name: str,
    width: str,
    device: str,
    dtype: str,
    inhibition: KWTA | None,
    seed: int | None = None,
) -> None:
    cuda = where(seed, DEVICES[device])
    x = inputs(name, 2, width)
    neuron = neuron_of(models.get(name), False)
    recordings = []
    for backend in (known, CudaBackend(cuda)):
        layer = Layer(neuron, SHAPES[width], 2, inhibition, backend, dtype)
        record = [name for name in layer.recordable if inhibition or name != "winners"]
        # two calls: the counters cross from one to the next
        recordings.append([layer.run(x[:4], record), layer.run(x[4:12], record)])
    assert all(recording.spikes.any() for recording in recordings[0])
    for expected, given in zip(*recordings, strict=True):
        assert_same(expected, given)
    form = device if inhibition else "free"
    (label,) = cuda.labels
    assert label.split("_cuda_")[1] == {"shared": width, "free": width, "scratch": f"{width}_scratch"}.get(
        form, f"{width}_scratch_grid"
    )


@pytest.mark.exhaustive(but=lambda dtype, scope: dtype == "float32" or scope == "feature")
@pytest.mark.sampled("cuda_device device width dtype", "cuda_device device scope")
@pytest.mark.parametrize("radius", [0, 2])
@pytest.mark.parametrize("scope", ["feature", "location", "global"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", SHAPES)
@pytest.mark.parametrize("device", DEVICES)
def test_competition(
    cuda_device: CudaDevice, device: str, width: str, dtype: str, scope: str, radius: int, known: str
) -> None:
    check(cuda_device, known, "AdEx", width, device, dtype, KWTA(k=2, scope=scope, radius=radius))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", SHAPES)
def test_no_inhibition(cuda_device: CudaDevice, width: str, dtype: str, known: str) -> None:
    check(cuda_device, known, "AdEx", width, "shared", dtype, None)


@needs_emulator
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("device", DEVICES)
def test_threads_and_blocks_in_any_order(device: str, seed: int, known: str) -> None:
    check(EmulatedDevice, known, "LIF", "narrow", device, "float64", KWTA(k=3, radius=1), seed)
    check(
        EmulatedDevice, known, "LIF", "wide", device, "float32", KWTA(k=3, scope="location", radius=1), seed
    )


@pytest.mark.exhaustive(but=lambda steps: steps in (1, 4, 5, 7))
@pytest.mark.parametrize("steps", range(1, 11))
@pytest.mark.parametrize("width", SHAPES)
def test_every_number_of_steps(cuda_device: CudaDevice, width: str, steps: int, known: str) -> None:
    """Inputs are read ahead, however many steps there are."""
    x = inputs("LIF", 1, width)[:steps]
    neuron = neuron_of(models.get("LIF"), True)
    backend = CudaBackend(cuda_device(limits=DEVICES["grid"]))
    layers = [Layer(neuron, SHAPES[width], 1, backend=b) for b in (known, backend)]  # type: ignore[arg-type]
    for run in (lambda layer: layer.run(x, ("spikes", "u")), lambda layer: layer.run(x[0], steps=steps)):
        assert_same(*map(run, layers))
    assert_same(*(layer.step(x[0]) for layer in layers))


@pytest.mark.parametrize("device", DEVICES)
def test_a_mixed_state_keeps_counters_per_neuron(cuda_device: CudaDevice, device: str, known: str) -> None:
    """After steps without inhibition the neurons of a map differ; then, and only then, each has its own counter."""
    x = inputs("LIF", 2, "wide")
    neuron = neuron_of(models.get("LIF"), False)
    cuda = cuda_device(limits=DEVICES[device])
    recordings = []
    for backend in (known, CudaBackend(cuda)):
        layer = Layer(neuron, SHAPES["wide"], 2, KWTA(k=2), backend)  # type: ignore[arg-type]
        layer.run(x[:8], inhibition=None)
        recordings.append(layer.run(x[8:], ("spikes", "u", "refractory", "winners")))
    assert_same(*recordings)
    assert cuda.labels[-1].endswith("narrow_scratch" if device == "scratch" else "narrow")


def test_a_layer_of_single_neurons(cuda_device: CudaDevice, known: str) -> None:
    """A population of N neurons is N maps of one place."""
    x = np.random.default_rng(3).uniform(0, 3000, (12, 1, 40))
    for scope in ("feature", "location", "global"):
        inhibition = KWTA(k=50, scope=scope)  # type: ignore[arg-type]
        recordings = [
            Layer(models.LIF(threshold=1.0), (40,), 1, inhibition, backend).run(x, ("spikes", "winners", "u"))
            for backend in (known, CudaBackend(cuda_device()))
        ]
        assert recordings[0].spikes.any()
        assert_same(*recordings)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("device", ["shared", "scratch"])
def test_blocks_of_several_warps(cuda_device: CudaDevice, device: str, seed: int, known: str) -> None:
    shape = (4, 6, 7)
    x = np.random.default_rng(1).uniform(-300, 1500, (5, 1, *shape))
    backend = CudaBackend(cuda_device(seed, DEVICES[device]))
    for dtype in ("float32", "float64"):
        recordings = [
            Layer(models.LIF(threshold=1.0), shape, 1, KWTA(k=4, radius=1), b, dtype).run(
                x, ("spikes", "winners")
            )
            for b in (known, backend)
        ]
        assert (recordings[0].winners[..., 0] >= 0).sum() > 5
        assert_same(*recordings)


class Adopting(CudaBackend):
    """Takes the host's memory for the emulated device's own."""

    def adopt(self, array: np.ndarray, like: object) -> np.ndarray:
        return array


@needs_emulator
@pytest.mark.parametrize("inhibition", [None, KWTA(k=2)], ids=["free", "competing"])
@pytest.mark.parametrize("offset", [0, 1])
def test_results_that_start_anywhere(offset: int, inhibition: KWTA | None) -> None:
    """A GPU moves 16 bytes at once only to and from a multiple of 16; anything else ends the process's use of it."""
    x = inputs("LIF", 1, "wide")[:8]
    device = EmulatedDevice(limits=DEVICES["grid"])
    expected, layer = (
        Layer(neuron_of(models.get("LIF"), False), SHAPES["wide"], 1, inhibition, backend)  # type: ignore[arg-type]
        for backend in ("cpu", Adopting(device))
    )
    size = math.prod((8, 1, *SHAPES["wide"]))
    memory = np.zeros(size + 16, bool)
    start = -memory.ctypes.data % 16 + offset
    out = memory[start : start + size].reshape(8, 1, *SHAPES["wide"])
    layer.run(x, out={"spikes": out})
    assert out.any()
    assert np.array_equal(out, expected.run(x).spikes)
    assert device.labels[-1].split("_cuda_")[1].startswith("narrow" if offset else "wide")


@needs_emulator
def test_without_the_device_runtime_a_sample_has_one_block() -> None:
    x = inputs("LIF", 1, "wide")[:8]
    device = EmulatedDevice(limits=replace(DEVICES["grid"], cooperative=False))
    expected, layer = (
        Layer(neuron_of(models.get("LIF"), False), SHAPES["wide"], 1, KWTA(k=2), backend)  # type: ignore[arg-type]
        for backend in ("cpu", CudaBackend(device))
    )
    with pytest.warns(RuntimeWarning, match="libcudadevrt.a, .* was not found.*pip install"):
        recording = layer.run(x)
    assert_same(recording, expected.run(x))
    assert device.labels[-1].endswith("cuda_wide")


class Counting(EmulatedDevice):
    """Counts the memory that is asked for, and runs nothing."""

    asked = 0

    def empty(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        self.asked += math.prod(shape) * np.dtype(dtype).itemsize
        return np.empty(shape, dtype)

    def kernel(self, label: str, source: str) -> Any:
        return defaultdict(lambda: lambda *arguments: None)


@needs_emulator
@pytest.mark.parametrize("scope", ["feature", "location", "global"])
def test_memory_of_the_competition_is_bounded(scope: Scope) -> None:
    """Each block of a sample keeps its own copy of what maps and sets have, which for a population are the neurons."""
    device = Counting(limits=Limits(multiprocessors=132, shared_bytes=48 * 1024))
    N = 100_000
    Layer(models.LIF(threshold=1.0), (N,), 1, KWTA(k=5, scope=scope), CudaBackend(device)).run(
        np.zeros((1, 1, N))
    )
    # up to five numbers of 8 bytes and a spike; 132 blocks would take a thousand bytes a neuron
    assert 30 * N < device.asked < 45 * N
