"""``spyke-numba models`` and ``spyke-numba backends``: what there is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from spyke_numba.cli.arguments import Model, find_model

if TYPE_CHECKING:
    from spyke_numba import NeuronSpec, Param

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")


def print_json(value: Any) -> None:
    """Print one JSON object and nothing else."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False))


@click.group("models", invoke_without_command=True, short_help="List the neuron models, or show one.")
@as_json
@click.pass_context
def models_group(context: click.Context, as_json: bool) -> None:
    """List the neuron models; `models show NAME` describes one."""
    if context.invoked_subcommand is not None:
        return
    from spyke_numba import models

    found = {name: models.get(name) for name in models.names()}
    if as_json:
        print_json({"models": [{"name": name, "summary": spec.summary} for name, spec in found.items()]})
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("model", style="bold", no_wrap=True)
    table.add_column("what it is")
    for name, spec in found.items():
        table.add_row(name, Text(spec.summary))
    Console().print(table)


@models_group.command("show")
@click.argument("model", type=Model())
@as_json
def show_command(model: str, as_json: bool) -> None:
    """Show a model's equations, parameters with units and defaults, states and source."""
    spec = find_model(model)
    if as_json:
        print_json(_description(spec))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console.print(Text(spec.name, style="bold"))
    console.print(Text(spec.summary))
    console.print()
    for equation in spec.equations:
        console.print(Text("  " + equation), soft_wrap=True)
    console.print()
    table = Table(box=None, pad_edge=False)
    table.add_column("parameter", style="bold", no_wrap=True)
    table.add_column("default", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("meaning")
    for name, parameter in spec.all_params.items():
        table.add_row(name, Text(_default(parameter)), Text(parameter.unit), Text(parameter.doc))
    console.print(table)
    if spec.states:
        console.print()
        table = Table(box=None, pad_edge=False)
        table.add_column("state", style="bold", no_wrap=True)
        table.add_column("start", no_wrap=True)
        table.add_column("meaning")
        for name, state in spec.states.items():
            table.add_row(name, Text(_shown(state.initial)), Text(state.doc))
        console.print(table)
    if spec.source:
        console.print()
        console.print(Text(f"source: {spec.source}"), soft_wrap=True)


def _default(parameter: Param) -> str:
    if parameter.default is None:
        return "none" if parameter.optional else "required"
    return _shown(parameter.default)


def _shown(value: Any) -> str:
    """Return a number, or for a rule the names it is computed from."""
    if callable(value):
        from spyke_numba.model.expressions import argument_names

        return "from " + ", ".join(argument_names(value, "rule"))
    return f"{value:g}"


def _description(spec: NeuronSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "summary": spec.summary,
        "equations": list(spec.equations),
        "source": spec.source,
        "parameters": {
            name: {"default": _default(parameter), "unit": parameter.unit, "doc": parameter.doc}
            | (
                {}
                if parameter.default is None or callable(parameter.default)
                else {"default": parameter.default}
            )
            for name, parameter in spec.all_params.items()
        },
        "states": {
            name: {"initial": _shown(state.initial), "doc": state.doc} for name, state in spec.states.items()
        },
    }


@click.command("backends", short_help="List the backends, and why one cannot run here.")
@as_json
def backends_command(as_json: bool) -> None:
    """List the backends, and for those that cannot run here say why not."""
    from spyke_numba import backends

    found: list[dict[str, Any]] = []
    for name in backends.names():
        backend = backends.get(name)
        reason = backend.unavailable()
        found.append({"name": name, "usable": reason is None, "reason": reason, "emits": list(backend.emits)})
    if as_json:
        print_json({"backends": found, "auto": backends.choose("auto").name})
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("backend", style="bold", no_wrap=True)
    table.add_column("usable here", no_wrap=True)
    table.add_column("why not, and what to do; or what `compile --emit` can show")
    for one in found:
        text = one["reason"] or f"emits {', '.join(one['emits']) or 'nothing'}"
        table.add_row(one["name"], "yes" if one["usable"] else "no", Text(text))
    console = Console()
    console.print(table)
    console.print(Text(f"auto means {backends.choose('auto').name} here"))
