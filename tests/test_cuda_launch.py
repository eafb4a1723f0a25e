"""The GPU's own path as far as the driver: compiled for the device present, cached on disk, launched with addresses."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ptx_tools
import pytest

from spyke_numba import models
from spyke_numba.backends.cuda.launch import _Gpu
from spyke_numba.backends.cuda.source import Form, parameters, source
from spyke_numba.compile.program import Program

pytestmark = pytest.mark.skipif(
    ptx_tools.cannot_compile() is not None, reason=str(ptx_tools.cannot_compile())
)


class Linker:
    """Takes the linker's place, which asks the driver for its version."""

    info_log = ""

    def __init__(self, max_registers: Any = None, cc: Any = None, lto: bool = False):
        assert not lto, "what runs would not be the PTX that the tests check"
        self.lto = lto

    def add_ptx(self, ptx: bytes) -> None:
        assert b".visible .entry" in ptx

    def complete(self) -> bytes:
        return b"machine code"


class Context:
    """Takes the place of a GPU's context."""

    device = SimpleNamespace(id=0, compute_capability=(9, 0))

    def create_module_image(self, image: bytes, *more: Any) -> Any:
        assert image == b"machine code"
        function = SimpleNamespace(kernel="the kernel", module=SimpleNamespace(initialized=True))
        return SimpleNamespace(get_function=lambda name: function)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[tuple[Any, ...]]]:
    """Pretend that a GPU is there, with an empty cache on disk; return what reaches the driver."""
    from numba.cuda import codegen, dispatcher
    from numba.cuda.cudadrv import driver

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(codegen.devices, "get_context", Context)
    monkeypatch.setattr(driver, "_Linker", Linker)
    monkeypatch.setattr(driver, "_to_core_stream", lambda stream: stream)
    monkeypatch.setattr(dispatcher, "LaunchConfig", lambda **config: config)
    monkeypatch.setattr(dispatcher, "launch", lambda *call: calls.append(call))
    with ptx_tools.pretended_device("sm_90"):
        yield calls


@pytest.mark.parametrize("inhibition", [None, "feature"])
def test_compiled_once_and_launched_with_addresses(
    inhibition: str | None, launched: list[tuple[Any, ...]]
) -> None:
    program = Program.of(
        models.get("LIF")(threshold=1.0), inhibition=inhibition, compact=inhibition is not None
    )
    text, kinds = source(program, Form()), parameters(program, Form())
    kernel = _Gpu().kernel("launched", text)
    assert (sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values())) == (0, 1)
    # whatever the numbers are: large, negative, zero
    for offset in (2**40, 0):
        values = [offset + i for i in range(len(kinds))]
        kernel[2, 128, "a stream", 64](*values)
        stream, config, compiled, *arguments = launched.pop()
        assert (stream, compiled) == ("a stream", "the kernel")
        assert (config["grid"], config["block"], config["shmem_size"]) == ((2, 1, 1), (128, 1, 1), 64)
        assert not config["is_cooperative"]
        assert [getattr(value, "value", value) for value in arguments] == values
    assert sum(kernel.stats.cache_misses.values()) == 1
    for name in [name for name in sys.modules if name.startswith("spyke_numba_generated.launched")]:
        del sys.modules[name]
    again = _Gpu().kernel("launched", text)
    assert again is not kernel
    assert (sum(again.stats.cache_hits.values()), sum(again.stats.cache_misses.values())) == (1, 0)
    again[1, 32, "a stream", 0](*values)
    assert len(launched) == 1


def test_a_kernel_of_several_blocks_is_launched_cooperatively(
    launched: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from numba.cuda import codegen

    monkeypatch.setattr(codegen, "get_cudalib", lambda name, static: name)
    monkeypatch.setattr(Linker, "add_file_guess_ext", lambda self, path, ignore: None, raising=False)
    program = Program.of(models.get("LIF")(threshold=1.0), inhibition="global", compact=True)
    form = Form(scratch=True, grid=True)
    kernel = _Gpu().kernel("launched", source(program, form))
    kernel[2, 128, "a stream", 0](*range(len(parameters(program, form))))
    assert launched[0][1]["is_cooperative"]
