"""``spyke-numba simulate`` and ``spyke-numba repeat``."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spyke_numba.cli.arguments import (
    BackendName,
    Finite,
    InputFile,
    Model,
    Names,
    Numbers,
    ParameterText,
    StimulusText,
)
from spyke_numba.cli.listing import as_json, print_json

if TYPE_CHECKING:
    from spyke_numba.cli.job import Job, Result

SHOW_PROGRESS_AFTER = 0.5  # seconds; a shorter run ends before a bar could be read

outputs = (
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="RUN.npz",
        help="Write the recorded arrays, and what is needed to repeat the run.",
    ),
    click.option(
        "--plot",
        type=click.Path(path_type=Path),
        metavar="FIGURE",
        help="Draw raster, rate, potentials and winners: .png, .pdf or .svg.",
    ),
    click.option(
        "--neurons",
        type=Numbers("a list of neurons", int, "flat indices such as 0,17,42"),
        metavar="I,J,…",
        help="Flat indices of the neurons whose potentials --plot shows.",
    ),
    click.option("--force", is_flag=True, help="Replace existing output files."),
    as_json,
)


def with_outputs(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where results go."""
    for option in reversed(outputs):
        command = option(command)
    return command


@click.command("simulate", short_help="Run a layer on an input.")
@click.argument("model", type=Model())
@click.option(
    "--param",
    "params",
    type=ParameterText(),
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter: a number, uniform(low,high), normal(mean,sd), lognormal(mu,sigma), each also with "
    ",per=feature, or @FILE.npy. Repeatable.",
)
@click.option(
    "--initial",
    type=ParameterText(states=True),
    multiple=True,
    metavar="NAME=VALUE",
    help="Initial value of a state, such as u=-65. Repeatable.",
)
@click.option(
    "--shape",
    type=Numbers("a shape", int, "N, or F,H,W", (1, 3)),
    metavar="N | F,H,W",
    help="Neurons, or feature maps, rows and columns; taken from the input if it says so, else 100.",
)
@click.option("--batch", type=int, metavar="B", help="Samples, each with its own state.  [default: 1]")
@click.option("--steps", type=int, metavar="T", help="Length of the run in steps.")
@click.option("--duration", type=Finite(), metavar="SECONDS", help="Length of the run in seconds.")
@click.option(
    "--backend", type=BackendName(), default="auto", show_default=True, help="auto, cpu, cuda or torch."
)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option("--threads", type=int, metavar="N", help="The most threads for the cpu backend.")
@click.option("--k", type=int, metavar="K", help="k-winners-take-all: winners per step and sample.")
@click.option(
    "--scope",
    type=click.Choice(["feature", "location", "global"]),
    help="What a winner inhibits.  [default: feature]",
)
@click.option(
    "--radius",
    type=int,
    metavar="R",
    help="Rows and columns around a winner that cannot win with it.  [default: 0]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of parameters, stimuli and rate coding.",
)
@click.option(
    "--input",
    "input",
    type=InputFile(),
    metavar="FILE",
    help="Array or recording (.npy .npz .csv .dat), picture (.png .jpg), or sample:NAME for one that "
    "matplotlib ships, such as sample:eeg.dat or sample:grace_hopper.jpg.",
)
@click.option(
    "--stimulus",
    type=StimulusText(),
    multiple=True,
    metavar="KIND:…",
    help="constant:V | step:V,start=…,stop=… | ramp:V,first=…,start=…,stop=… | poisson:rate=…,weight=… | "
    "noise:mean=…,sd=…,tau=…; times in s, or with ms. Repeatable: added to each other and to --input.",
)
@click.option(
    "--weight",
    "--scale",
    type=Finite(),
    default=1.0,
    show_default=True,
    help="Factor of the input file: a spike of a picture's code, or a sample, is worth so much input.",
)
@click.option(
    "--encode",
    type=click.Choice(["latency", "rate"]),
    default="latency",
    show_default=True,
    help="Picture: the strongest contrast spikes first, or most often.",
)
@click.option(
    "--wave",
    type=click.Choice(["one-shot", "cumulative"]),
    default="one-shot",
    show_default=True,
    help="Latency code: a spike lasts for its step, or stays on.",
)
@click.option(
    "--order",
    type=click.Choice(["rank", "linear"]),
    default="rank",
    show_default=True,
    help="Latency code: spread ranks evenly over the steps, or let latency fall linearly with contrast.",
)
@click.option(
    "--rate",
    type=Finite(),
    default=100.0,
    show_default=True,
    metavar="HZ",
    help="Rate code: spikes a second of the strongest contrast.",
)
@click.option(
    "--dog",
    type=Numbers("a pair of sigmas", float, "CENTRE,SURROUND", (2,)),
    multiple=True,
    metavar="CENTRE,SURROUND",
    help="Picture: sigmas (pixels) of a difference of Gaussians, which gives an on- and an off-map. "
    "Repeatable.  [default: 1,2]",
)
@click.option(
    "--contrast",
    type=Finite(),
    default=0.05,
    show_default=True,
    help="Picture: contrast below this fraction of the strongest is none.",
)
@click.option(
    "--longest",
    type=click.IntRange(min=1),
    metavar="PIXELS",
    help="Picture without --shape: its longer side is shrunk to this.  [default: 128]",
)
@click.option(
    "--ground",
    default="white",
    show_default=True,
    metavar="COLOUR",
    help="Picture: what transparent pixels are seen on: white, black or #rrggbb.",
)
@click.option(
    "--header/--no-header",
    default=None,
    help="Recording: the first row of a .csv is a heading, or a sample; needed where both could be.",
)
@click.option(
    "--channels",
    type=click.IntRange(min=1),
    metavar="C",
    help="Channels of a .dat recording (float64, sample after sample).  [default: 1]",
)
@click.option(
    "--sample-rate",
    type=Finite(),
    metavar="HZ",
    help="Recording: samples a second, to resample to the time step; without it a sample is a step.",
)
@click.option(
    "--record",
    type=Names(),
    default="spikes",
    show_default=True,
    metavar="NAMES",
    help="What --out keeps: spikes, u, states of the model, u_pre, pulses, thresholded, refractory, winners.",
)
@with_outputs
def simulate_command(
    out: Path | None,
    plot: Path | None,
    neurons: tuple[int, ...] | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Run a layer of MODEL neurons on an input and say what it did.

    MODEL is a built-in model (see `spyke-numba models`) or FILE.py:NAME, a model of your own.

    The input is weight * file + the stimuli. A recording with C channels drives the layer in C groups of
    neighbours; an array of shape (T, B, N), (T, F, H, W) or (T, B, F, H, W) is used as it is.

    \b
    spyke-numba simulate LIF --param threshold=1 --shape 1000 --stimulus poisson:rate=800,weight=30
    """
    from spyke_numba.cli.job import Job

    job = Job(**options)
    carry_out(job, out=out, plot=plot, neurons=neurons, force=force, as_json=as_json)


@click.command("repeat", short_help="Repeat the run of a file and compare.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--backend", type=BackendName(), help="Another backend than the run's.")
@with_outputs
def repeat_command(
    run: Path,
    backend: str | None,
    out: Path | None,
    plot: Path | None,
    neurons: tuple[int, ...] | None,
    force: bool,
    as_json: bool,
) -> None:
    """Repeat the run that RUN.npz describes, and say whether the spikes are the same.

    Exits with 1 if they are not.
    """
    from spyke_numba.cli.inputs import resolve_input
    from spyke_numba.cli.job import Job, file_digest
    from spyke_numba.results.runfile import load_description

    described = load_description(run)
    try:
        job = Job.from_dict(described["job"])
        wanted, digest = described["result"]["spikes_sha256"], described["input_sha256"]
    except (KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{run} does not describe a run; give a file that `spyke-numba simulate --out` wrote"
        ) from None
    if job.input is not None and digest != file_digest(resolve_input(job.input)):
        raise ValueError(f"the input {job.input} has changed since the run; restore the file to repeat it")
    if backend is not None:
        job = dataclasses.replace(job, backend=backend)
    result = carry_out(job, out=out, plot=plot, neurons=neurons, force=force, as_json=as_json, wanted=wanted)
    if result.digest != wanted:
        click.get_current_context().exit(1)


def carry_out(
    job: Job,
    *,
    out: Path | None,
    plot: Path | None,
    neurons: tuple[int, ...] | None,
    force: bool,
    as_json: bool,
    wanted: str | None = None,
) -> Result:
    """Check the outputs, run the job, and report."""
    from spyke_numba.cli.job import execute, prepare
    from spyke_numba.figures.run import check_figure
    from spyke_numba.results.runfile import check_run

    if out is not None:
        check_run(out, force=force)
    if plot is not None:
        check_figure(plot, force=force)
    prepared = prepare(job)
    with progress_bar(prepared.steps, hidden=as_json) as advance:
        result = execute(prepared, out=out, plot=plot, neurons=neurons, force=force, advance=advance)
    files = {"out": None if out is None else str(out), "plot": None if plot is None else str(plot)}
    report = {**result.as_dict(), **files}
    if wanted is not None:
        report["same_spikes"] = result.digest == wanted
    if as_json:
        print_json(report)
    else:
        print_table(report)
    return result


@contextlib.contextmanager
def progress_bar(steps: int, *, hidden: bool) -> Iterator[Callable[[int], None]]:
    """Give a function that takes the steps done; on a terminal, a run that lasts shows a bar."""
    import sys
    import time

    if hidden or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.completed:,} of {task.total:,} steps"), BarColumn(), TimeElapsedColumn())
    bar = Progress(
        *columns, TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    )
    task = bar.add_task("", total=steps)
    began = time.monotonic()

    def advance(done: int) -> None:
        if not bar.live.is_started and time.monotonic() - began > SHOW_PROGRESS_AFTER:
            bar.start()
        bar.advance(task, done)

    try:
        yield advance
    finally:
        bar.stop()


def print_table(report: dict[str, Any]) -> None:
    """Print the summary of a run."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shape = " x ".join(map(str, report["shape"]))
    duration = report["steps"] * report["ts"]
    rows = {
        "model": report["model"],
        "layer": f"{shape} neurons, batch {report['batch']}, {report['dtype']}",
        "inhibition": _inhibition(report["inhibition"]),
        "length": f"{report['steps']:,} steps of {report['ts'] * 1e3:g} ms = {duration:g} s",
        "backend": report["backend"],
        "spikes": f"{report['spikes']:,}",
        "rate": f"{report['rate_hz']:.4g} Hz per neuron; {report['active_fraction']:.1%} of neurons spiked",
        "winners": None if report["winners"] is None else f"{report['winners']:,}",
        "spikes' SHA-256": report["spikes_sha256"][:16],
        "compile and first call": f"{report['compile_seconds']:.3f} s",
        "run": f"{report['run_seconds']:.4f} s (input made in {report['input_seconds']:.4f} s)",
        "speed": f"{report['neuron_steps_per_second'] or 0:.3e} neuron-steps per second",
        "same spikes": None if "same_spikes" not in report else "yes" if report["same_spikes"] else "NO",
        "recorded in": report["out"],
        "drawn in": report["plot"],
    }
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, Text(str(value)))
    Console().print(table)


def _inhibition(inhibition: dict[str, Any] | None) -> str:
    if inhibition is None:
        return "none (each neuron has its own refractory period)"
    return f"k-WTA, k = {inhibition['k']}, scope {inhibition['scope']}, radius {inhibition['radius']}"
