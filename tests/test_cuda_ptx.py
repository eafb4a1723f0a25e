"""Every model's CUDA kernels compile to PTX and machine code without a GPU, exactly and within the device's limits."""

from __future__ import annotations

import ptx_tools
import pytest
from cases import neuron_of

from spyke_numba import NeuronSpec, backends, models
from spyke_numba.backends.cuda import THREADS_FREE, THREADS_KWTA, _parameters
from spyke_numba.engine import Program

pytestmark = pytest.mark.skipif(ptx_tools.cannot_link() is not None, reason=str(ptx_tools.cannot_link()))

ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
#: 32-bit registers of a multiprocessor, of which a block must get its own.
REGISTERS = 65536


def check(program: Program, arch: str) -> None:
    ptx = backends.get("cuda").emit(program, "ptx", arch)
    assert f".target {arch}" in ptx
    assert ptx_tools.contracted_multiply_adds(ptx) == []
    assert ptx_tools.inexact(ptx) == []
    if program.dtype == "float32":
        assert ptx_tools.float64_instructions(ptx) == []
    else:
        assert ptx_tools.float64_instructions(ptx)
    usage = ptx_tools.link(ptx, arch)
    assert usage.spill_bytes == 0
    threads = THREADS_FREE if program.inhibition is None else THREADS_KWTA
    assert usage.registers * threads <= REGISTERS
    assert usage.shared_bytes <= 48 * 1024


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("inhibition", [None, "feature"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", models.names())
def test_every_model(name: str, dtype: str, inhibition: str | None, arch: str) -> None:
    check(Program.of(neuron_of(models.get(name), False), dtype=dtype, inhibition=inhibition), arch)


@pytest.mark.parametrize("inhibition", ["location", "global"])
@pytest.mark.parametrize("name", models.names())
def test_the_other_scopes_with_varying_parameters(name: str, inhibition: str) -> None:
    check(Program.of(neuron_of(models.get(name), True), inhibition=inhibition), "sm_90")


def spoiled(name: str, before: str, after: str) -> str:
    """Return the PTX of a model's kernel after a change of its source."""
    text = backends.get("cuda").emit(Program.of(models.get(name)(threshold=1.0)), "source")
    changed = text.replace(before, after)
    assert changed != text
    signature = ", ".join(_parameters(Program.of(models.get(name)(threshold=1.0))).values())
    return ptx_tools.compile_ptx(changed, "run", signature)


def test_a_plain_product_would_be_contracted() -> None:
    """The check sees what the kernels avoid, in the same kernel with ``*`` for its product."""
    ptx = spoiled("LIF_Simple", "return libdevice.fmul_rn(a, b)", "return a * b")
    assert ptx_tools.contracted_multiply_adds(ptx)


def test_a_literal_would_compute_in_float64() -> None:
    ptx = spoiled("QIF", "new_u = s_u + ", "new_u = 1.5 * s_u + ")
    assert ptx_tools.float64_instructions(ptx)


def _halves(u, I):
    return I / 2 + u * I


def test_a_quotient_by_a_power_of_two_stays_one() -> None:
    check(Program.of(NeuronSpec(name="Halves", membrane=_halves)(threshold=1.0)), "sm_90")
