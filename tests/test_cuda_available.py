"""Whether the cuda backend is usable is told before anything runs, with what is missing and what to do."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import ptx_tools
import pytest

from spyke_numba import Layer, models
from spyke_numba.backends.cuda import launch as backend

pytestmark = pytest.mark.skipif(
    ptx_tools.cannot_compile() is not None, reason=str(ptx_tools.cannot_compile())
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that a GPU with its driver is there."""
    from numba import cuda
    from numba.cuda.cudadrv import driver, runtime

    def pretend(
        capability: tuple[int, int] = (9, 0), known: tuple[int, int] = (13, 0), toolkit: int = 13
    ) -> None:
        monkeypatch.setattr(cuda, "is_available", lambda: True)
        monkeypatch.setattr(cuda, "gpus", [SimpleNamespace(compute_capability=capability)])
        monkeypatch.setattr(driver, "get_version", lambda: known)
        monkeypatch.setattr(runtime, "get_version", lambda: (toolkit, 0))

    return pretend


def reason() -> str | None:
    """Return what the backend would say in a new process."""
    return backend._why_not.__wrapped__()


def raising(error: Exception) -> Callable[..., Any]:
    def function(*arguments: Any) -> Any:
        raise error

    return function


def test_a_usable_gpu(machine: Callable[..., None]) -> None:
    machine()
    assert reason() is None
    # a newer driver runs what an older toolkit makes
    machine(known=(14, 1))
    assert reason() is None


def test_an_old_driver(machine: Callable[..., None]) -> None:
    machine(known=(12, 8))
    assert reason() == (
        "the driver knows CUDA 12.8, but the installed libraries are of CUDA 13:"
        " pip install 'spyke_numba[cuda12]', or install a newer driver"
    )


def test_an_old_gpu(machine: Callable[..., None]) -> None:
    machine(capability=(7, 0))
    assert str(reason()).startswith(
        "the GPU has compute capability 7.0, and CUDA 13 compiles from 7.5 on: use"
    )


@pytest.mark.parametrize(
    ("library", "distribution"), [("nvvm", "nvidia-nvvm"), ("nvrtc", "nvidia-cuda-nvrtc")]
)
def test_a_library_is_missing(
    library: str, distribution: str, machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cuda import pathfinder

    def load(name: str) -> None:
        if name == library:
            raise pathfinder.DynamicLibNotFoundError("not there")

    machine()
    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", load)
    assert reason() == f"library {library} of the CUDA toolkit was not found: pip install {distribution}"


def test_an_error_of_numba_is_an_answer(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from numba import cuda

    machine()
    monkeypatch.setattr(cuda, "is_available", raising(RuntimeError("libnvvm is not there\nand more")))
    assert str(reason()).startswith("numba-cuda cannot be used (libnvvm is not there): pip install")


def test_the_simulator_is_no_gpu(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.cuda.core import config

    machine()
    monkeypatch.setattr(config, "ENABLE_CUDASIM", 1)
    assert str(reason()).endswith("unset NUMBA_ENABLE_CUDASIM")


def test_without_numba_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert str(reason()).startswith("numba-cuda is not installed: pip install")


def test_auto_goes_to_the_cpu_whatever_is_wrong(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from numba import cuda

    machine()
    monkeypatch.setattr(cuda, "is_available", raising(RuntimeError("no libnvvm")))
    monkeypatch.setattr(backend, "_why_not", backend._why_not.__wrapped__)
    assert Layer(models.LIF(threshold=1.0), (3,)).run(np.zeros((2, 1, 3))).spikes.shape == (2, 1, 3)
    with pytest.raises(
        RuntimeError, match=r"'cuda' cannot run here: numba-cuda cannot be used \(no libnvvm\)"
    ):
        Layer(models.LIF(threshold=1.0), (3,), backend="cuda")
