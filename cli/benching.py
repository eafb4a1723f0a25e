"""``spyke-numba bench``: run the benchmarks."""

from __future__ import annotations

import importlib

import click

#: Commands and the modules of `spyke_numba.benchmarks` that hold them, imported when they are asked for.
BENCHMARKS = {
    "scaling": "scaling",
    "kwta": "kwta",
    "peers": "against_peers",
    "startup": "startup",
    "memory": "memory",
    "functional": "functional",
    "gpu": "gpu",
    "report": "report",
}


class _Benchmarks(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(BENCHMARKS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in BENCHMARKS:
            return None
        return importlib.import_module(f"spyke_numba.benchmarks.{BENCHMARKS[cmd_name]}").main


@click.group("bench", cls=_Benchmarks, short_help="Measure speed, start and memory on this machine.")
def bench_group() -> None:
    """Measure speed, start and memory on this machine, and hold them against what they must reach.

    Every benchmark writes its results, with machine and versions, as JSON; bars and figures come from that file.
    """
