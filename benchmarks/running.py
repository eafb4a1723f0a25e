"""What the commands of all benchmarks share: options, where results go, and what follows a measurement."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from spyke_numba.benchmarks import bars
from spyke_numba.benchmarks.measuring import checkout, processors, write_json
from spyke_numba.cli.arguments import Finite
from spyke_numba.results.runfile import check_output

RESULTS = "benchmarks/results"


class Several(click.ParamType):
    """Values separated by commas, such as ``1e3,1e6``."""

    name = "list"

    def __init__(self, of: Callable[[str], Any] = str):
        self.of = of

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Return a tuple."""
        if not isinstance(value, str):
            return tuple(value)
        try:
            return tuple(self.of(part.strip()) for part in value.split(",") if part.strip())
        except ValueError:
            self.fail(f"{value!r} is not a list such as 1,2 or 1e3,1e6", param, ctx)


def count(text: str) -> int:
    """Return a whole number that may be written as ``1e6``."""
    number = float(text)
    if not math.isfinite(number) or number != int(number) or number < 1:
        raise ValueError(text)
    return int(number)


def benchmark(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every benchmark has."""
    for option in (
        click.option("--force", is_flag=True, help="Replace existing results."),
        click.option(
            "--plot", type=click.Path(path_type=Path), metavar="DIR", help="Draw the figures there."
        ),
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            metavar="FILE.json",
            help=f"Results; {RESULTS}/NAME.json of the checkout unless given.",
        ),
        click.option("--smallest", is_flag=True, help="Only the smallest point, briefly."),
    ):
        command = option(command)
    return command


seconds_option = click.option(
    "--seconds",
    type=Finite(),
    default=2.0,
    show_default=True,
    help="Time for the repeats of each interleaved run.",
)
threads_option = click.option(
    "--threads",
    type=Several(count),
    metavar="N,…",
    help="Threads.  [default: one, and as many as there are processors]",
)


def default_threads(threads: Sequence[int] | None) -> tuple[int, ...]:
    """Return the numbers of threads asked for, or one and all.

    Raises
    ------
    ValueError
        For more threads than processors, which the floor cannot run on.
    """
    there = processors()
    if threads and max(threads) > there:
        raise ValueError(
            f"threads is {max(threads)}, but this process has {there} processor(s): give at most {there}"
        )
    return tuple(threads) if threads else tuple(sorted({1, there}))


def output(name: str, out: Path | None, force: bool) -> Path:
    """Return where results will go, before anything is measured.

    Raises
    ------
    ValueError
        Outside a checkout, when no file is given.
    OSError
        When the file exists and is not to be replaced, or cannot be written.
    """
    if out is None:
        folder = checkout()
        if folder is None:
            raise ValueError("results have no folder outside a checkout: give one with --out FILE.json")
        out = folder / RESULTS / f"{name}.json"
        out.parent.mkdir(parents=True, exist_ok=True)
    return check_output(out, force=force)


def conclude(
    name: str, results: dict[str, Any], out: Path, plot: Path | None, packages: Sequence[str] = ()
) -> None:
    """Write the results, and from that file print the bars and draw the figures."""
    write_json(out, {"benchmark": name, **results}, packages)
    read = {name: json.loads(out.read_text(encoding="utf-8"))}
    bars.print_table(read)
    click.echo(f"wrote {os.path.relpath(out)}", err=True)
    if plot is not None:
        draw(read, plot)


def draw(results: dict[str, Any], folder: Path) -> None:
    """Draw the figures of these results."""
    from spyke_numba.benchmarks import plots

    for path in plots.draw(results, folder):
        click.echo(f"drew {os.path.relpath(path)}", err=True)
