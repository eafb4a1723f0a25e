"""The PTX tools compile without a GPU, and find what they look for."""

from __future__ import annotations

import importlib.util
from typing import Any

import ptx_tools
import pytest
from ptx_tools import (
    compile_ptx,
    contracted_multiply_adds,
    float64_instructions,
    inexact,
    link,
    pretended_device,
)

needs_compiler = pytest.mark.skipif(
    ptx_tools.cannot_compile() is not None, reason=str(ptx_tools.cannot_compile())
)
needs_linker = pytest.mark.skipif(ptx_tools.cannot_link() is not None, reason=str(ptx_tools.cannot_link()))

HEADER = "import math\nimport numpy as np\nfrom numba import cuda\nfrom numba.cuda import libdevice\n"


def assigning(expression: str, options: str = "") -> str:
    """Return a module whose kernel computes one expression of a, b and c."""
    return f"""{HEADER}
@cuda.jit(device=True)
def product(a, b):
    return libdevice.fmul_rn(a, b)

@cuda.jit(device=True)
def double_product(a, b):
    return libdevice.dmul_rn(a, b)

@cuda.jit({options})
def run(x):
    a, b, c = x[0], x[1], x[2]
    x[3] = {expression}
"""


def ptx_of(expression: str, dtype: str = "float32", options: str = "", **more: Any) -> str:
    return compile_ptx(assigning(expression, options), "run", f"{dtype}[::1]", **more)


@needs_compiler
@pytest.mark.parametrize(
    ("expression", "dtype", "contracted"),
    [
        ("a * b + c", "float32", True),
        ("a * b + c", "float64", True),
        ("c - a * np.float32(3)", "float32", True),
        ("a * b", "float32", True),
        ("a / np.float32(2) + c", "float32", True),
        ("cuda.fma(a, b, c)", "float32", True),
        ("product(a, b) + c", "float32", False),
        ("c - product(a, product(b, b))", "float32", False),
        ("double_product(a, b) + c", "float64", False),
        ("libdevice.fdiv_rn(a, np.float32(2)) + c", "float32", False),
        ("libdevice.fsqrt_rn(a) / b + c", "float32", False),
        ("math.sqrt(a) / b + c", "float64", False),
        ("a + a + c", "float32", False),
    ],
)
def test_contractions_are_found(expression: str, dtype: str, contracted: bool) -> None:
    assert bool(contracted_multiply_adds(ptx_of(expression, dtype))) == contracted


@needs_compiler
@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("a * 0.1", True),
        ("math.sqrt(np.float64(a))", True),
        ("cuda.threadIdx.x * a", True),
        ("product(a, np.float32(0.1)) - b", False),
        ("libdevice.rintf(a) if a > b else libdevice.fabsf(c)", False),
        ("libdevice.int_as_float(np.int32(libdevice.float2int_rn(a) << 23))", False),
        ("np.float32(libdevice.float_as_int(a) >> 23)", False),
    ],
)
def test_float64_among_float32_is_found(expression: str, found: bool) -> None:
    assert bool(float64_instructions(ptx_of(expression))) == found


@needs_compiler
@pytest.mark.parametrize(
    ("expression", "options", "found"),
    [
        ("a / b", "fastmath=True", True),
        ("math.sqrt(a)", "fastmath=True", True),
        ("math.exp(a)", "", True),
        ("a / b", "", False),
        ("math.sqrt(a)", "", False),
        ("libdevice.fdiv_rn(a, b) - libdevice.fsqrt_rn(c)", "", False),
    ],
)
def test_approximations_are_found(expression: str, options: str, found: bool) -> None:
    assert bool(inexact(ptx_of(expression, options=options))) == found


def test_only_instructions_are_looked_at() -> None:
    text = """
.visible .func (.param .f64 result) _Z3fma_f64
{
    .reg .f64 %fd<4>;
    // cvt.f64.f32 %fd1, %f1;
    @%p1 ld.global.f64 %fd1, [%rd1];
    mad.lo.s32 %r1, %r2, %r3, %r4;
    mul.wide.s32 %rd1, %r1, 4;
    mul.rn.f32 %f1, %f2, %f3;
    @!%p1 fma.rn.ftz.f32 %f1, %f2, %f3, %f4; // a fused one
    rcp.rn.f32 %f1, %f2;
    rcp.approx.f32 %f1, %f2;
    ex2.approx.ftz.f32 %f1, %f2;
    div.full.f32 %f1, %f2, %f3;
}
"""
    assert float64_instructions(text) == ["@%p1 ld.global.f64 %fd1, [%rd1];"]
    assert contracted_multiply_adds(text) == ["@!%p1 fma.rn.ftz.f32 %f1, %f2, %f3, %f4;"]
    assert [line.split()[0] for line in inexact(text)] == [
        "@!%p1",
        "rcp.approx.f32",
        "ex2.approx.ftz.f32",
        "div.full.f32",
    ]


@needs_compiler
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90"])
def test_ptx_is_for_the_architecture(arch: str) -> None:
    ptx = ptx_of("product(a, b)", arch=arch)
    assert f".target {arch}" in ptx
    assert ".visible .entry" in ptx


@needs_compiler
def test_signatures() -> None:
    from numba import types

    source = assigning("a + b")
    texts = {
        compile_ptx(source, "run", signature)
        for signature in ("float32[::1]", "void(float32[::1])", (types.Array(types.float32, 1, "C"),))
    }
    assert all("add.f32" in text for text in texts)
    named = f'{source}\nSIGNATURE = "void(float32[::1])"\nBOUNDS = 64\n'
    assert ".maxntid 64" in compile_ptx(named)
    with pytest.raises(ValueError, match=r"architecture '9\.0': give one such as 'sm_90'"):
        compile_ptx(source, "run", "float32[::1]", arch="9.0")


@needs_compiler
def test_the_pretended_device_goes_even_after_an_error() -> None:
    from numba.cuda import compiler, dispatcher

    def device_queries() -> list[Any]:
        return [vars(module)["get_current_device"] for module in (compiler, dispatcher)]

    before = device_queries()
    with pytest.raises(RuntimeError, match="inside"), pretended_device("sm_86"):
        assert [query().compute_capability for query in device_queries()] == [(8, 6), (8, 6)]
        raise RuntimeError("inside")
    assert device_queries() == before


KERNELS = f"""{HEADER}
def many_values(x):
    {"; ".join(f"a{k} = x[{k}]" for k in range(100))}
    cuda.syncthreads()
    {"; ".join(f"x[{k}] = a{99 - k} + a{k // 2}" for k in range(100))}

free = cuda.jit(many_values)
bounded = cuda.jit(many_values, launch_bounds=1024)

@cuda.jit
def shared(x):
    words = cuda.shared.array(100, np.float32)
    words[cuda.threadIdx.x] = x[cuda.threadIdx.x]
    cuda.syncthreads()
    x[cuda.threadIdx.x] = words[99 - cuda.threadIdx.x]
"""


@needs_linker
def test_usage_of_a_linked_kernel() -> None:
    usage = link(compile_ptx(KERNELS, "shared", "float32[::1]", arch="sm_75"), arch="sm_75")
    assert usage.shared_bytes == 400
    assert link(compile_ptx(KERNELS, "shared", "float32[::1]")).shared_bytes == 400 + 1024
    assert 4 <= usage.registers < 40
    assert usage.stack_bytes == usage.spill_bytes == 0
    assert usage.cubin.startswith(b"\x7fELF")


@needs_linker
def test_bounds_limit_registers_and_spills_are_seen() -> None:
    free = compile_ptx(KERNELS, "free", "float32[::1]")
    assert link(free).registers > 64
    assert link(free).spill_bytes == 0
    # 65536 registers are shared by as many threads as the kernel's own launch_bounds say
    bounded = link(compile_ptx(KERNELS, "bounded", "float32[::1]"))
    assert bounded.registers <= 64
    assert bounded.spill_bytes > 0
    assert bounded.stack_bytes > 0
    given = compile_ptx(KERNELS, "free", "float32[::1]", launch_bounds=1024)
    assert link(given) == bounded
    assert link(free, max_registers=40).registers <= 40


@needs_linker
def test_a_failed_link_tells_why() -> None:
    ptx = ptx_of("a + b")
    with pytest.raises(RuntimeError, match=r"Unknown modifier '\.f33'"):
        link(ptx.replace("add.f32", "add.f33"))
    with pytest.raises(RuntimeError, match=r"specified by \.target is higher"):
        link(ptx, arch="sm_75")


@needs_linker
def test_a_barrier_of_the_whole_grid_is_linked() -> None:
    source = f"{HEADER}\n@cuda.jit\ndef run(x):\n    cuda.cg.this_grid().sync()\n    x[0] = 1\n"
    ptx = compile_ptx(source, "run", "float32[::1]")
    try:
        usage = link(ptx)
    except RuntimeError as error:
        if "nvidia-cuda-runtime" not in str(error):
            raise
        pytest.skip(str(error))
    assert usage.registers > 0


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert str(ptx_tools.cannot_compile()).startswith("numba-cuda is not installed: pip install")


@needs_compiler
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import cuda.pathfinder

    def lacking(name: str) -> None:
        if name == "nvJitLink":
            raise cuda.pathfinder.DynamicLibNotFoundError(name)

    monkeypatch.setattr(cuda.pathfinder, "load_nvidia_dynamic_lib", lacking)
    assert ptx_tools.cannot_compile() is None
    assert "pip install nvidia-nvjitlink" in str(ptx_tools.cannot_link())
