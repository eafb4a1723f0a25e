"""Backends as test parameters, whatever is registered and the CUDA kernels under emulation; and which cases run."""

from __future__ import annotations

import os
from typing import Any

import pytest
import sampling
from emulated import EMULATED, EmulatedDevice, LimitedGpu, emulated_cuda

from spyke_numba import backends

#: Backends that compile every program for seconds: `test_torch_backend.py` takes a sample of them.
SAMPLED = ("torch_compiled",)
#: Of those that were not run, how many need a GPU and how many ``--exhaustive``.
LEFT_OUT = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        action="append",
        default=[],
        metavar="BACKEND",
        help="fail, instead of skipping, where this backend is not usable (may be repeated)",
    )
    parser.addoption(
        "--exhaustive",
        action="store_true",
        help="run every case, instead of a sample that holds each value of each parameter",
    )


def pytest_configure(config: pytest.Config) -> None:
    unknown = set(config.getoption("--require")) - {*backends.names(), EMULATED}
    if unknown:
        raise pytest.UsageError(
            f"--require names {sorted(unknown)}: allowed are {[*backends.names(), EMULATED]}"
        )
    config.stash[LEFT_OUT] = {}
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        # torch, which no test has imported yet, shares the processors with the other workers' torch
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    def parameters(names: list[str]) -> list[Any]:
        return [pytest.param(name, marks=pytest.mark.gpu) if name == "cuda" else name for name in names]

    every = [*(name for name in backends.names() if name not in SAMPLED), EMULATED]
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", parameters(every), indirect=True)
    if "other_backend" in metafunc.fixturenames:
        metafunc.parametrize(
            "other_backend", parameters([name for name in every if name != "cpu"]), indirect=True
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out: list[pytest.Item] = []
    if "cuda" not in config.getoption("--require") and backends.get("cuda").unavailable() is not None:
        left_out += [item for item in items if item.get_closest_marker("gpu")]
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]
    config.stash[LEFT_OUT]["gpu"] = len(left_out)
    if not config.getoption("--exhaustive"):
        items[:], rest = sampling.divided(items)
        left_out += rest
        config.stash[LEFT_OUT]["exhaustive"] = len(rest)
    if left_out:
        config.hook.pytest_deselected(items=left_out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        # to the process that prints, which collects nothing itself
        session.config.workeroutput["left_out"] = session.config.stash[LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    # each worker of pytest-xdist leaves out the same
    node.config.stash[LEFT_OUT].update(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash[LEFT_OUT]
    if left_out.get("gpu"):
        why_not = backends.get("cuda").unavailable()
        terminalreporter.write_line(
            f"left out: {left_out['gpu']} cases that only a GPU can run, since {why_not}"
            " (--require cuda lets them fail instead)"
        )
    if left_out.get("exhaustive"):
        terminalreporter.write_line(f"left out: {left_out['exhaustive']} cases that --exhaustive adds")


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


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def cuda_device(request: pytest.FixtureRequest) -> type[EmulatedDevice | LimitedGpu]:
    """Where CUDA kernels run, made of a seed and limits."""
    if request.param == "emulated":
        _usable(request, EMULATED)
        return EmulatedDevice
    _usable(request, "cuda")
    return LimitedGpu
