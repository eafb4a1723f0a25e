"""``spyke-numba compile``: the code that a backend generates from a model."""

from __future__ import annotations

from pathlib import Path

import click

from spyke_numba.cli.arguments import BackendName, Model, ParameterText, find_model, parse_assignments


@click.command("compile", short_help="Show the code that a backend generates.")
@click.argument("model", type=Model())
@click.option(
    "--backend", type=BackendName(auto=False), default="cpu", show_default=True, help="Whose code to show."
)
@click.option(
    "--emit",
    metavar="KIND",
    help="What to show, such as source or ptx; the backend's first kind unless given.",
)
@click.option("--arch", metavar="ARCH", help="Device architecture for ptx, such as sm_90.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option(
    "--scope",
    type=click.Choice(["feature", "location", "global"]),
    help="With k-winners-take-all of this scope; without inhibition unless given.",
)
@click.option(
    "--param",
    "params",
    type=ParameterText(),
    multiple=True,
    help="As for simulate: what is given as a distribution or file varies between neurons.",
)
@click.option("--out", type=click.Path(path_type=Path), help="File to write instead of standard output.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def compile_command(
    model: str,
    backend: str,
    emit: str | None,
    arch: str | None,
    dtype: str,
    scope: str | None,
    params: tuple[str, ...],
    out: Path | None,
    force: bool,
) -> None:
    """Show the code that a backend generates for MODEL; cuda code needs no GPU to be shown."""
    from spyke_numba import backends
    from spyke_numba.compile.program import Program
    from spyke_numba.results.runfile import check_output, replacing

    chosen = backends.get(backend)
    kinds = chosen.emits
    kind = emit or (kinds[0] if kinds else "source")
    if kind not in kinds:
        raise ValueError(f"{backend} does not emit {kind!r}; it emits {', '.join(kinds) or 'nothing'}")
    if out is not None:
        check_output(out, force=force)
    given = parse_assignments(params, "--param")
    spec = find_model(model)
    if spec.all_params["threshold"].default is None:
        given.setdefault("threshold", 1.0)  # the code is the same for every threshold, and a neuron needs one
    compact = scope is not None and chosen.compact  # as a layer compiles it
    program = Program.of(spec(**given), dtype=dtype, inhibition=scope, compact=compact)
    text = chosen.emit(program, kind) if arch is None else chosen.emit(program, kind, arch=arch)
    if out is None:
        click.echo(text)
        return
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(f"wrote {out}", err=True)
