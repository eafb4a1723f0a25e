"""The bars and figures of results that earlier runs have written."""

from __future__ import annotations

import json
from pathlib import Path

import click

from spyke_numba.benchmarks import bars
from spyke_numba.benchmarks.measuring import checkout
from spyke_numba.benchmarks.running import RESULTS, draw


@click.command("report")
@click.option(
    "--results", "folder", type=click.Path(path_type=Path), metavar="DIR", help=f"{RESULTS} of the checkout."
)
@click.option("--plot", type=click.Path(path_type=Path), metavar="DIR", help="Draw the figures there.")
def main(folder: Path | None, plot: Path | None) -> None:
    """Print every bar that earlier results are held against, and draw their figures."""
    root = checkout()
    if folder is None and root is None:
        raise ValueError("there are no results outside a checkout: give their folder with --results DIR")
    folder = folder or Path(root or ".") / RESULTS
    results = {}
    for path in sorted(folder.glob("*.json")):
        read = json.loads(path.read_text(encoding="utf-8"))
        if "benchmark" in read:
            results[read["benchmark"]] = read
            about = read["machine"]
            click.echo(
                f"{path.name}: {about['processor']}, {about['cores']} cores, {about['commit']}, {about['date']}"
            )
    if not results:
        raise ValueError(f"{folder} holds no results; run `spyke-numba bench NAME` first")
    bars.print_table(results)
    if plot is not None:
        draw(results, plot)
