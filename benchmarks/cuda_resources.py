"""Registers, spills and shared memory of the CUDA kernels, linked into machine code without a GPU.

Each kernel is compiled to PTX once, for the oldest architecture, and assembled for all of them.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import numpy as np

from spyke_numba import Uniform, models
from spyke_numba.backends.cuda.ptx import compile_ptx, link, linker_version, ptx_version
from spyke_numba.backends.cuda.source import Form, bounds, source
from spyke_numba.benchmarks.measuring import write_json
from spyke_numba.compile.program import Program

ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
COMMAND = (
    "python -m spyke_numba.benchmarks.cuda_resources --json benchmarks/results/cuda_resources.json"
    " --table benchmarks/results/cuda_resources.md"
)
#: Packages, and what is said of a version where the library is no package's, but a toolkit's.
TOOLS: dict[str, Callable[[], str]] = {
    "numba": lambda: importlib.import_module("numba").__version__,
    "numba-cuda": lambda: importlib.import_module("numba_cuda").__version__,
    "nvidia-nvvm": lambda: f"of a toolkit (PTX {ptx_version(ARCHITECTURES[0])})",
    "nvidia-nvjitlink": lambda: f"of a toolkit (CUDA {linker_version()})",
}


LARGE = Form()
#: Parameters of the largest model that differ from neuron to neuron.
VARYING: dict[str, Any] = {
    **dict.fromkeys(("threshold", "v_reset", "tau_rc", "a", "spike_amplitude"), Uniform(0.5, 1.0)),
    "refractory_timesteps": np.arange(3).reshape(3, 1, 1),
}


@dataclass(frozen=True)
class Case:
    """A kernel of the table."""

    model: str
    dtype: str = "float32"
    inhibition: str | None = None
    compact: bool = True
    varying: bool = False
    form: Form = LARGE

    def __str__(self) -> str:
        parts = [self.model, self.dtype, self.inhibition or "free", self.form.label]
        parts += ["varying"] if self.varying else []
        return " ".join(parts + (["own_counters"] if self.inhibition and not self.compact else []))

    @property
    def program(self) -> Program:
        """What is compiled."""
        values = VARYING if self.varying else {"threshold": 1.0}
        neuron = models.get(self.model)(**values)
        compact = self.inhibition is not None and self.compact
        return Program.of(neuron, dtype=self.dtype, inhibition=self.inhibition, compact=compact)

    def ptx(self) -> str:
        """Return its PTX for the oldest architecture."""
        return compile_ptx(source(self.program, self.form), arch=ARCHITECTURES[0])

    def row(self, ptx: str) -> dict[str, Any]:
        """Return what its PTX takes on each architecture."""
        used = {arch: link(ptx, arch) for arch in ARCHITECTURES}
        threads, blocks = bounds(self.program, self.form)
        return {
            "kernel": str(self),
            "threads": threads,
            "blocks": blocks,
            "registers": {arch: usage.registers for arch, usage in used.items()},
            "spill_bytes": {arch: usage.spill_bytes for arch, usage in used.items()},
            "shared_bytes": {arch: usage.shared_bytes for arch, usage in used.items()},
        }


def cases() -> Iterator[Case]:
    """Every model without inhibition in both types and with it in float32; every other kernel for the largest model."""
    for model in models.names():
        yield Case(model)
        yield Case(model, "float64")
        yield Case(model, inhibition="feature")
    yield Case("AdEx", "float64", "feature")
    yield Case("AdEx", varying=True)
    yield Case("AdEx", varying=True, form=Form(wide=False))
    for scope in ("location", "global"):
        yield Case("AdEx", inhibition=scope, varying=True)
    yield Case("AdEx", inhibition="feature", compact=False, varying=True, form=Form(wide=False))
    for form in (Form(wide=False), Form(scratch=True), Form(scratch=True, grid=True)):
        yield Case("AdEx", inhibition="feature", varying=True, form=form)


def toolchain() -> dict[str, str]:
    """Return the versions on which the figures depend."""
    versions = {}
    for name, otherwise in TOOLS.items():
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = otherwise()
    return versions


def table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown document."""
    tools = ", ".join(f"{name} {number}" for name, number in results["toolchain"].items())
    lines = [
        "# What the CUDA kernels take of a device",
        "",
        f"By `{COMMAND}`",
        f"with {tools}. A multiprocessor has registers",
        "for as many of the largest blocks, or more. Shared memory is that of fixed size, with the KiB that the system",
        "reserves on newer architectures.",
        "",
        f"| kernel | largest blocks | registers on {' / '.join(ARCHITECTURES)} | spilled bytes | shared bytes |",
        "|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        columns = [
            " / ".join(map(str, row[key].values())) for key in ("registers", "spill_bytes", "shared_bytes")
        ]
        lines.append(f"| {row['kernel']} | {row['blocks']} × {row['threads']} | {' | '.join(columns)} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Results file to write.")
@click.option("--table", "table_path", type=click.Path(path_type=Path), help="Markdown file to write.")
def main(json_path: Path | None, table_path: Path | None) -> None:
    """Link every CUDA kernel and tell what it takes."""
    results: dict[str, Any] = {"toolchain": toolchain(), "rows": []}
    for case in cases():
        results["rows"].append(case.row(case.ptx()))
        click.echo(json.dumps(results["rows"][-1]))
    if json_path is not None:
        write_json(json_path, results)
    if table_path is not None:
        table_path.write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    main()
