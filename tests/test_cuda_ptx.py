"""Every model's CUDA kernels compile to PTX and machine code without a GPU, exactly and within the device's limits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ptx_tools
import pytest

from spyke_numba import NeuronSpec, backends, models
from spyke_numba.backends.cuda.source import DEPTHS, Form, source
from spyke_numba.benchmarks import cuda_resources
from spyke_numba.compile.program import Program

pytestmark = pytest.mark.skipif(ptx_tools.cannot_link() is not None, reason=str(ptx_tools.cannot_link()))

needs_disassembler = pytest.mark.skipif(
    ptx_tools.cannot_disassemble() is not None, reason=str(ptx_tools.cannot_disassemble())
)

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "cuda_resources.json"
#: 32-bit registers of a multiprocessor, of which blocks must get their own.
REGISTERS = 65536


def check_exact(ptx: str, dtype: str, text: str) -> None:
    # what the text of the kernel asks for by name, each time that its exponential takes a whole number from a float
    checks = text.count("taint = fma(")
    asked = len(re.findall(r"(?<!def )(?<!cuda\.)fma\(", text)) - checks
    exponentials = len(re.findall(r"cvt\.rni\.s\d+\.f\d+", ptx))
    assert len(ptx_tools.contracted_multiply_adds(ptx)) == asked * exponentials + checks
    assert not asked or exponentials
    assert ptx_tools.inexact(ptx) == []
    assert bool(ptx_tools.float64_instructions(ptx)) == (dtype == "float64")


def _one_of_each(case: cuda_resources.Case) -> bool:
    """Models of each kind, each scope, the other type and the form of most machinery."""
    alone = case.inhibition is None and not case.varying
    other = case.inhibition in ("location", "global") or case.form.grid
    few = case.model in ("LIF", "AdEx", "QIF") if case.dtype == "float32" else case.model == "EIF"
    return other or (alone and few)


@pytest.mark.exhaustive(but=_one_of_each)
@pytest.mark.parametrize("case", list(cuda_resources.cases()), ids=str)
def test_every_kernel(case: cuda_resources.Case) -> None:
    """Exact instructions, no spills, registers for its largest block, and what the committed table says."""
    ptx = case.ptx()
    check_exact(ptx, case.dtype, source(case.program, case.form))
    if case.form.grid and ptx_tools.no_device_runtime() is not None:
        pytest.skip(str(ptx_tools.no_device_runtime()))
    row = case.row(ptx)
    assert set(row["spill_bytes"].values()) == {0}
    assert max(row["registers"].values()) * row["threads"] * row["blocks"] <= REGISTERS
    assert max(row["shared_bytes"].values()) <= 4096
    committed = json.loads(RESULTS.read_text(encoding="utf-8"))
    (expected,) = [entry for entry in committed["rows"] if entry["kernel"] == row["kernel"]]
    if committed["toolchain"] == cuda_resources.toolchain():
        assert row == expected, f"run: {cuda_resources.COMMAND}"
    else:
        assert row.keys() == expected.keys()


def test_the_table_holds_every_kernel_and_nothing_else() -> None:
    committed = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert [entry["kernel"] for entry in committed["rows"]] == [str(case) for case in cuda_resources.cases()]
    table = RESULTS.with_suffix(".md").read_text(encoding="utf-8")
    assert table == cuda_resources.table(committed)


@pytest.mark.exhaustive(but=lambda dtype: dtype == "float32")
@pytest.mark.parametrize(
    ("dtype", "read", "written"),
    [
        ("float32", "v4.f32", ("v4.u8", "v4.b8", "u32", "b32")),
        ("float64", "v2.f64", ("v2.u8", "v2.b8", "u16", "b16")),
    ],
)
def test_wide_kernels_move_16_bytes_at_once(dtype: str, read: str, written: tuple[str, ...]) -> None:
    def counted(form: Form, instruction: str) -> int:
        program = Program.of(models.get("LIF")(threshold=1.0), dtype=dtype)
        return ptx_tools.compile_ptx(source(program, form)).count(instruction)

    # the state, and the inputs of four steps now and four to come
    assert counted(Form(), f"ld.global.{read}") == 1 + 8
    # the spikes of four neighbours, of each of the four steps
    assert max(counted(Form(), f"st.global.{kind} ") for kind in written) >= 4
    assert counted(Form(wide=False), f"global.{read}") == 0


def read_too_early(loop: list[str]) -> list[str]:
    """Return the instructions of a loop that read what it loads for its next round, before its arithmetic is done.

    Threads wait there: whatever of a loop's loads is read first waits for all of them.
    """
    loaded = ptx_tools.loads(loop)
    assert loaded
    arithmetic = [i for i, line in enumerate(loop) if re.match(r"(@!?U?P\d )?[FD]MUL\b", line)]
    late = [loop[i] for i in loaded if i > arithmetic[0]]
    registers = set().union(*loaded.values())
    own = loop[max(loaded) + 1 : arithmetic[-1]]
    return late + [line for line in own if registers & ptx_tools.reads(line)]


def loop_of(text: str, arch: str) -> list[str]:
    ptx = ptx_tools.compile_ptx(text, arch=cuda_resources.ARCHITECTURES[0])
    return ptx_tools.innermost_loop(ptx_tools.disassembled(ptx, arch))


@needs_disassembler
@pytest.mark.sampled
@pytest.mark.parametrize("arch", cuda_resources.ARCHITECTURES)
@pytest.mark.parametrize("wide", [True, False], ids=["wide", "narrow"])
@pytest.mark.parametrize(("model", "dtype"), [("LIF", "float32"), ("AdEx", "float32"), ("LIF", "float64")])
def test_inputs_are_read_a_round_ahead(model: str, dtype: str, wide: bool, arch: str) -> None:
    text = source(Program.of(models.get(model)(threshold=1.0), dtype=dtype), Form(wide=wide))
    loop = loop_of(text, arch)
    assert len(ptx_tools.loads(loop)) == DEPTHS[wide]
    assert read_too_early(loop) == []


@needs_disassembler
@pytest.mark.parametrize("wide", [True, False], ids=["wide", "narrow"])
def test_what_is_read_for_its_own_round_is_seen(wide: bool) -> None:
    text = source(Program.of(models.get("LIF")(threshold=1.0)), Form(wide=wide))
    assert read_too_early(loop_of(text.replace("y1_0", "x1_0"), "sm_90"))


@pytest.mark.parametrize("inhibition", [None, "feature"])
def test_the_kernel_shown_is_for_the_architecture_asked_for(inhibition: str | None) -> None:
    program = Program.of(
        models.get("LIF")(threshold=1.0), inhibition=inhibition, compact=inhibition is not None
    )
    ptx = backends.get("cuda").emit(program, "ptx", "sm_90")
    assert ".target sm_90" in ptx
    check_exact(ptx, "float32", backends.get("cuda").emit(program, "source"))
    assert ptx_tools.link(ptx, "sm_90").spill_bytes == 0


def source_of(name: str) -> str:
    return backends.get("cuda").emit(Program.of(models.get(name)(threshold=1.0)), "source")


def spoiled(name: str, before: str, after: str) -> str:
    """Return the PTX of a model's kernel after a change of its source."""
    text = source_of(name)
    changed = text.replace(before, after)
    assert changed != text
    return ptx_tools.compile_ptx(changed)


def test_a_plain_product_would_be_contracted() -> None:
    """The check sees what the kernels avoid, in the same kernel with ``*`` for its product."""
    before, after = "return libdevice.fmul_rn(a, b)", "return a * b"
    assert ptx_tools.contracted_multiply_adds(spoiled("LIF_Simple", before, after))
    with pytest.raises(AssertionError):
        check_exact(spoiled("EIF", before, after), "float32", source_of("EIF"))


def test_a_literal_would_compute_in_float64() -> None:
    ptx = spoiled("QIF", "new_u = s__u + ", "new_u = 1.5 * s__u + ")
    assert ptx_tools.float64_instructions(ptx)


def _halves(u, I):
    return I / 2 + u * I


def test_a_quotient_by_a_power_of_two_stays_one() -> None:
    program = Program.of(NeuronSpec(name="Halves", membrane=_halves)(threshold=1.0))
    cuda = backends.get("cuda")
    check_exact(cuda.emit(program, "ptx"), "float32", cuda.emit(program, "source"))
