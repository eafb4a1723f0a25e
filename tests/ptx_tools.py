"""Links PTX into machine code without a GPU or driver, and looks into it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from spyke_numba.backends._ptx import LIBRARIES, compile_ptx, load, missing, pretended_device

__all__ = [
    "Usage",
    "cannot_compile",
    "cannot_link",
    "compile_ptx",
    "contracted_multiply_adds",
    "float64_instructions",
    "inexact",
    "link",
    "load",
    "no_device_runtime",
    "pretended_device",
]

LINKER = {"nvJitLink": "nvidia-nvjitlink"}


@dataclass(frozen=True)
class Usage:
    """What a kernel takes of a device: registers, stack and spills per thread, shared memory per block.

    Shared memory is that of fixed size, with the KiB that the system reserves on newer architectures.
    """

    registers: int
    stack_bytes: int
    spill_bytes: int
    shared_bytes: int
    cubin_size: int


def cannot_compile() -> str | None:
    """Return None when PTX can be compiled here, else what is missing."""
    return missing()


def cannot_link() -> str | None:
    """Return None when PTX can be compiled and linked here, else what is missing."""
    return missing(LIBRARIES | LINKER)


def link(ptx: str, arch: str = "sm_90", max_registers: int | None = None) -> Usage:
    """Assemble the PTX of one kernel into machine code with nvJitLink, and return what the kernel takes.

    The limit of registers is for a kernel without launch bounds, which come before it.

    Raises
    ------
    RuntimeError
        With the linker's log, when it fails.
    """
    from cuda.bindings import nvjitlink

    options = [f"-arch={arch}", "-verbose", *([f"-maxrregcount={max_registers}"] if max_registers else [])]
    handle = nvjitlink.create(len(options), options)
    try:
        code = ptx.encode() + b"\0"
        try:
            nvjitlink.add_data(handle, nvjitlink.InputType.PTX, code, len(code), "kernel")
            if "cudaCGGetIntrinsicHandle" in ptx:
                nvjitlink.add_file(handle, nvjitlink.InputType.LIBRARY, _device_runtime())
            nvjitlink.complete(handle)
        except nvjitlink.nvJitLinkError as error:
            raise RuntimeError(_log(handle, "error")) from error
        return _usage(_log(handle, "info"), nvjitlink.get_linked_cubin_size(handle))
    finally:
        nvjitlink.destroy(handle)


def no_device_runtime() -> str | None:
    """Return None when the library that a barrier of the whole grid needs is here, else what is missing."""
    try:
        _device_runtime()
    except RuntimeError as error:
        return str(error)
    return None


def _device_runtime() -> str:
    from cuda.pathfinder import StaticLibNotFoundError, find_static_lib

    try:
        return find_static_lib("cudadevrt")
    except StaticLibNotFoundError as error:
        raise RuntimeError(
            "libcudadevrt.a, which a kernel that waits for the whole grid needs, was not found:"
            " pip install nvidia-cuda-runtime"
        ) from error


def _log(handle: int, kind: str) -> str:
    from cuda.bindings import nvjitlink

    buffer = bytearray(getattr(nvjitlink, f"get_{kind}_log_size")(handle))
    if buffer:
        getattr(nvjitlink, f"get_{kind}_log")(handle, buffer)
    return buffer.decode(errors="replace").rstrip("\0")


def _usage(log: str, cubin_size: int) -> Usage:
    def largest(pattern: str, required: bool = True) -> int:
        found = [int(number) for number in re.findall(pattern, log, re.IGNORECASE)]
        if required and not found:
            raise RuntimeError(f"the linker's log does not tell {pattern!r}:\n{log}")
        return max(found, default=0)

    spills = largest(r"(\d+) bytes spill stores") + largest(r"(\d+) bytes spill loads")
    return Usage(
        registers=largest(r"used (\d+) registers"),
        stack_bytes=largest(r"(\d+) bytes stack frame"),
        spill_bytes=spills,
        shared_bytes=largest(r"(\d+) bytes smem", required=False),
        cubin_size=cubin_size,
    )


def float64_instructions(ptx: str) -> list[str]:
    """Return the instructions that name a float64, conversions and moves included."""
    return _matching(ptx, r"\.f64\b")


def contracted_multiply_adds(ptx: str) -> list[str]:
    """Return the floating-point instructions that round a*b + c once, or that the assembler may make such.

    The assembler contracts ``mul.f32`` and a sum, but never a ``mul.rn.f32``, which names its rounding.
    Quotients and roots stay one instruction in PTX, ``div.rn`` and ``sqrt.rn``.
    """
    return _matching(ptx, r"(fma|mad)\b[\w.]*\.f(16|32|64)|mul\.f(32|64)\b")


def inexact(ptx: str) -> list[str]:
    """Return the instructions whose bits IEEE 754 does not fix: those that approximate or flush to zero."""
    return _matching(ptx, r"(\w+\.)+(approx|full|ftz)\b|(ex2|lg2|sin|cos|tanh|rcp|rsqrt)\.(?!rn)[\w.]*f\d+")


def _matching(ptx: str, pattern: str) -> list[str]:
    """Return the instructions in which a pattern occurs; declarations, directives and comments are none."""
    lines = (line.split("//")[0].strip() for line in ptx.splitlines())
    return [
        line for line in lines if re.match(r"(@!?%p\d+\s+)?[a-z]\w*\.", line) and re.search(pattern, line)
    ]
