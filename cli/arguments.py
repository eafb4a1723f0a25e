"""What users write on the command line, and how the shell completes it."""

from __future__ import annotations

import contextlib
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from spyke_numba import NeuronSpec

SAMPLE = "sample:"
INPUT_SUFFIXES = (".npy", ".npz", ".csv", ".dat", ".png", ".jpg", ".jpeg")


class Finite(click.types.FloatParamType):
    """A number that is neither NaN nor infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class Numbers(click.ParamType):
    """Numbers separated by commas, such as ``30,28,28``: `counts` says how many, any by default."""

    def __init__(self, name: str, kind: type[int] | type[float], form: str, counts: tuple[int, ...] = ()):
        self.name, self.kind, self.form, self.counts = name, kind, form, counts

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Return a tuple of numbers."""
        if not isinstance(value, str):
            return value
        try:
            numbers = tuple(
                self.kind(part) for part in re.split(r"[,x]", value.strip(" ()").removesuffix(","))
            )
        except ValueError:
            numbers = ()
        if not numbers or (self.counts and len(numbers) not in self.counts):
            self.fail(f"{value!r} is not {self.name}: give {self.form}", param, ctx)
        if not all(map(math.isfinite, numbers)):
            self.fail(f"{value!r} is not {self.name}: give finite numbers, {self.form}", param, ctx)
        return numbers


class Names(click.ParamType):
    """Names separated by commas, such as ``spikes,u``; completes what the model can record."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return a tuple of names."""
        if not isinstance(value, str):
            return value
        return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the last name of the list."""
        before, comma, last = incomplete.rpartition(",")
        spec = _model_given(ctx)
        states = () if spec is None else tuple(spec.states)
        known = ("spikes", "u", *states, "u_pre", "pulses", "thresholded", "refractory", "winners")
        return [CompletionItem(before + comma + name) for name in known if name.startswith(last)]


class Model(click.ParamType):
    """A built-in model's name, in any case, or ``FILE.py`` or ``FILE.py:NAME`` for one of the user's own."""

    name = "model"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the names of the built-in models."""
        from spyke_numba import models

        known = [name for name in models.names() if name.lower().startswith(incomplete.lower())]
        return [CompletionItem(name, help=models.get(name).summary) for name in known]


class BackendName(click.ParamType):
    """A backend's name."""

    name = "backend"

    def __init__(self, *, auto: bool = True):
        self.auto = auto

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the names of the backends."""
        from spyke_numba import backends

        known = (("auto",) if self.auto else ()) + backends.names()
        return [CompletionItem(name) for name in known if name.startswith(incomplete)]


class InputFile(click.ParamType):
    """A file, or ``sample:NAME`` for one that matplotlib ships."""

    name = "file"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete samples after ``sample:``, else files."""
        if (incomplete and SAMPLE.startswith(incomplete)) or incomplete.startswith(SAMPLE):
            from spyke_numba.inputs.files import sample_names

            items = [CompletionItem(SAMPLE + name) for name in sample_names()]
            return [item for item in items if item.value.startswith(incomplete)]
        return [CompletionItem(incomplete, type="file")]


class StimulusText(click.ParamType):
    """A stimulus, such as ``poisson:rate=50,weight=2``."""

    name = "stimulus"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the kinds of stimulus."""
        from spyke_numba.inputs.stimuli import KINDS, usage

        return [
            CompletionItem(f"{name}:", help=usage(kind))
            for name, kind in KINDS.items()
            if name.startswith(incomplete)
        ]


class ParameterText(click.ParamType):
    """``name=value``, where the value is a number, a distribution or ``@FILE.npy``."""

    name = "name=value"

    def __init__(self, *, states: bool = False):
        self.states = states

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the names of the model's parameters, or of its states."""
        spec = _model_given(ctx)
        if spec is None:
            return []
        known: dict[str, str] = {"u": "membrane potential", **{k: s.doc for k, s in spec.states.items()}}
        if not self.states:
            known = {name: parameter.doc for name, parameter in spec.all_params.items()}
        return [
            CompletionItem(f"{name}=", help=doc) for name, doc in known.items() if name.startswith(incomplete)
        ]


def find_model(text: str) -> NeuronSpec:
    """Return a built-in model by name, or one of the user's own from ``FILE.py`` or ``FILE.py:NAME``.

    Raises
    ------
    KeyError, FileNotFoundError, ValueError
        If there is no such model or file, or the file does not hold exactly one model and none is named.
    """
    from spyke_numba import NeuronSpec, models

    path, colon, name = text.rpartition(":")
    if not (colon and path.endswith(".py")):
        path, name = text, ""
    if not path.endswith(".py"):
        return models.get(text)
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}; give a Python file that defines a NeuronSpec")
    import runpy

    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results alone
            content = runpy.run_path(path)
    except Exception as error:
        raise ValueError(f"{path} does not run: {type(error).__name__}: {error}") from error
    found = {spec.name: spec for spec in content.values() if isinstance(spec, NeuronSpec)}
    if name in found:
        return found[name]
    if name or len(found) != 1:
        raise ValueError(
            f"{path} holds {'no model ' + repr(name) if name else f'{len(found)} models'}; "
            f"give {path}:NAME with one of {', '.join(found) or '(it defines no NeuronSpec)'}"
        )
    return next(iter(found.values()))


def _model_given(ctx: click.Context) -> NeuronSpec | None:
    """Return the model of a command line that is being completed, or None."""
    # click leaves the words unparsed when the last one is an option that lacks its value
    words = [ctx.params.get("model"), *ctx.args]
    try:
        return find_model(next(word for word in words if word))
    except (StopIteration, KeyError, OSError, ValueError):
        return None


def parse_assignments(texts: tuple[str, ...], option: str, *, header: bool | None = None) -> dict[str, Any]:
    """Return values by name from texts such as ``tau_rc=uniform(0.01,0.03)``; `header` is for files (`load_recording`).

    Raises
    ------
    ValueError
        If a text has no ``=``, a name is given twice, or a value is not understood.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (equals and name and value):
            raise ValueError(f"{option} {text!r} is not name=value, such as {option} tau_rc=0.02")
        if name in values:
            raise ValueError(f"{option} gives {name} twice; give it once")
        values[name] = _parse_value(f"{option} {text}", value, header)
    return values


def _parse_value(where: str, text: str, header: bool | None) -> Any:
    from spyke_numba import LogNormal, Normal, Uniform

    distributions: dict[str, Callable[..., Any]] = {
        "uniform": Uniform,
        "normal": Normal,
        "lognormal": LogNormal,
    }
    if text.startswith("@"):
        from spyke_numba.inputs.files import load_recording

        return load_recording(text[1:], header=header)
    call = re.fullmatch(r"(\w+)\s*\((.*)\)", text)
    if call and call[1].lower() in distributions:
        positional, named = [], {}
        for part in filter(None, (part.strip() for part in call[2].split(","))):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals:
                positional.append(_number(where, key))
            else:
                named[key] = value if key == "per" else _number(where, value)
        try:
            return distributions[call[1].lower()](*positional, **named)
        except TypeError:
            raise ValueError(
                f"{where}: {call[1]} takes two numbers and per=neuron or feature, such as {call[1]}(1,2)"
            ) from None
    return None if text.lower() == "none" else _number(where, text)


def _number(where: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(
            f"{where}: {text!r} is not a finite number; give a number, uniform(low,high), normal(mean,sd), "
            "lognormal(mu,sigma) or @FILE.npy"
        )
    return number
