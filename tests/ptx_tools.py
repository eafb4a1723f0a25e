"""Looks into PTX; compiling and linking are the package's own."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from spyke_numba.backends.cuda.ptx import (
    Usage,
    cannot_link,
    compile_ptx,
    link,
    load,
    missing,
    no_device_runtime,
    pretended_device,
)

__all__ = [
    "Usage",
    "cannot_compile",
    "cannot_disassemble",
    "cannot_link",
    "compile_ptx",
    "contracted_multiply_adds",
    "disassembled",
    "float64_instructions",
    "inexact",
    "innermost_loop",
    "link",
    "load",
    "loads",
    "no_device_runtime",
    "pretended_device",
    "reads",
]


def cannot_compile() -> str | None:
    """Return None when PTX can be compiled here, else what is missing."""
    return missing()


def _disassembler() -> str | None:
    from cuda.pathfinder import find_nvidia_binary_utility

    return find_nvidia_binary_utility("nvdisasm")


def cannot_disassemble() -> str | None:
    """Return None when machine code can be read here, else what is missing."""
    why_not = cannot_link()
    if why_not is None and _disassembler() is None:
        return "nvdisasm was not found: pip install nvidia-cuda-nvdisasm"
    return why_not


def disassembled(ptx: str, arch: str) -> list[str]:
    """Return the instructions of one kernel's machine code, without addresses, between labels such as ``.L_x_1:``."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(link(ptx, arch).cubin)
        command = [str(_disassembler()), "-c", str(file)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.findall(
        r"^(?:\s+/\*[0-9a-f]{4,}\*/\s+(?=\S))?(\.L_\w+:|(?:@|[A-Z]).*?) *;?$", text, re.MULTILINE
    )


def innermost_loop(instructions: list[str]) -> list[str]:
    """Return what lies between the last jump backwards to a label, which is no jump to itself, and that label."""
    for end in reversed(range(len(instructions))):
        jump = re.search(r"\bBRA `\((\.L_\w+)\)", instructions[end])
        if jump and f"{jump[1]}:" in instructions[: end - 1]:
            return instructions[instructions.index(f"{jump[1]}:") + 1 : end]
    raise AssertionError("there is no loop")


def loads(instructions: list[str]) -> dict[int, set[str]]:
    """Return where global memory is read, and the registers that it is read into."""
    found = {}
    for i, instruction in enumerate(instructions):
        load = re.search(r"\bLDG\.E(?:\.(64|128))?\S* R(\d+)", instruction)
        if load:
            found[i] = {f"R{int(load[2]) + word}" for word in range(int(load[1] or 32) // 32)}
    return found


def reads(instruction: str) -> set[str]:
    """Return the registers that an instruction names behind its first operand, or all that a store names."""
    operands = re.sub(r"^@!?\w+ ", "", instruction).partition(" ")[2]
    sources = operands if " ST" in f" {instruction}" else operands.partition(",")[2]
    return set(re.findall(r"\bR\d+\b", sources))


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
