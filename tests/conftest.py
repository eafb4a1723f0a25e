"""Backends as test parameters: whatever is registered, and the CUDA kernels under emulation."""

from __future__ import annotations

import pytest
from emulated import EMULATED, EmulatedDevice, LimitedGpu, emulated_cuda

from spyke_numba import backends

#: Backends that compile every program for seconds: `test_torch_backend.py` takes a sample of them.
SAMPLED = ("torch_compiled",)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        action="append",
        default=[],
        metavar="BACKEND",
        help="fail, instead of skipping, where this backend is not usable (may be repeated)",
    )


def pytest_configure(config: pytest.Config) -> None:
    unknown = set(config.getoption("--require")) - {*backends.names(), EMULATED}
    if unknown:
        raise pytest.UsageError(
            f"--require names {sorted(unknown)}: allowed are {[*backends.names(), EMULATED]}"
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    every = [name for name in backends.names() if name not in SAMPLED]
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", [*every, EMULATED], indirect=True)
    if "other_backend" in metafunc.fixturenames:
        others = [name for name in every if name != "cpu"]
        metafunc.parametrize("other_backend", [*others, EMULATED], indirect=True)


def _usable(request: pytest.FixtureRequest, name: str) -> backends.Backend:
    backend = emulated_cuda() if name == EMULATED else backends.get(name)
    why_not = backend.unavailable()
    if why_not is not None:
        if name in request.config.getoption("--require"):
            pytest.fail(f"backend {name!r} is required, but {why_not}")
        pytest.skip(f"backend {name!r}: {why_not}")
    return backend


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> backends.Backend:
    """Every backend in turn, skipped with its reason where it is not usable."""
    return _usable(request, request.param)


@pytest.fixture
def other_backend(request: pytest.FixtureRequest) -> backends.Backend:
    """Every backend but cpu, to compare with it."""
    return _usable(request, request.param)


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> None:
    """A GPU, without which the test is skipped."""
    _usable(request, "cuda")


@pytest.fixture(params=["emulated", "gpu"])
def cuda_device(request: pytest.FixtureRequest) -> type[EmulatedDevice | LimitedGpu]:
    """Where CUDA kernels run, made of a seed and limits."""
    if request.param == "emulated":
        _usable(request, EMULATED)
        return EmulatedDevice
    _usable(request, "cuda")
    return LimitedGpu
