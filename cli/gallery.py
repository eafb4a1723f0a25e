"""``spyke-numba gallery``: pictures of what the models do."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from spyke_numba.cli.arguments import BackendName
from spyke_numba.cli.listing import as_json, print_json


class FigureName(click.ParamType):
    """A figure of the gallery."""

    name = "figure"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the names of the figures."""
        from spyke_numba.figures.gallery import FIGURES

        return [CompletionItem(name) for name in FIGURES if name.startswith(incomplete)]


@click.command("gallery", short_help="Draw published firing patterns, f-I curves and phase planes.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder to write into; made if there is none.",
)
@click.option(
    "--only",
    type=FigureName(),
    multiple=True,
    metavar="FIGURE",
    help="One figure, by the name of its file without the ending; repeatable.",
)
@click.option(
    "--format", "ending", type=click.Choice(["png", "pdf", "svg"]), default="png", show_default=True
)
@click.option(
    "--backend", type=BackendName(), default="auto", show_default=True, help="auto, cpu, cuda or torch."
)
@click.option("--force", is_flag=True, help="Replace existing files.")
@as_json
def gallery_command(
    out: Path, only: tuple[str, ...], ending: str, backend: str, force: bool, as_json: bool
) -> None:
    """Draw the firing patterns of Izhikevich 2004, Naud et al. 2008 and Neuronal Dynamics, f-I curves of all
    models, du/dt of those of one variable, and phase planes; everything is simulated as it is drawn.
    """
    from spyke_numba import backends
    from spyke_numba.figures import gallery

    chosen = backends.choose(backend)

    def say(path: Path) -> None:
        if not as_json:
            click.echo(str(path))

    names = tuple(dict.fromkeys(only)) or None
    paths = gallery.write(out, names, backend=chosen, suffix=f".{ending}", force=force, progress=say)
    if as_json:
        print_json({"backend": chosen.name, "files": [str(path) for path in paths]})
