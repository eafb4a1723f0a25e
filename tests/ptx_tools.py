"""Looks into PTX; compiling and linking are the package's own."""

from __future__ import annotations

import re

from spyke_numba.backends._ptx import (
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


def cannot_compile() -> str | None:
    """Return None when PTX can be compiled here, else what is missing."""
    return missing()


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
