"""The command ``spyke-numba`` and how its errors reach the user: one sentence, exit code 2."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import click

from spyke_numba.cli.benching import bench_group
from spyke_numba.cli.compiling import compile_command
from spyke_numba.cli.gallery import gallery_command
from spyke_numba.cli.listing import backends_command, models_group
from spyke_numba.cli.simulating import repeat_command, simulate_command

#: What the library raises for bad use; anything else is a defect and keeps its traceback.
BAD_USE = (ValueError, TypeError, KeyError, OSError, RuntimeError, ImportError, MemoryError)


def sentence(error: BaseException) -> str:
    """Return an error's message in one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    else:
        text = str(error.args[0]) if error.args else type(error).__name__  # str(KeyError) adds quotes
    return " ".join(text.split())


class OneSentence(click.Group):
    """A group whose errors are one line on standard error."""

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> None:
        """Run the command and exit: 0, or 2 for bad use, or 130 when interrupted."""
        extra["standalone_mode"] = False
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _warner(warnings.showwarning)
                sys.exit(super().main(arguments, prog_name, **extra) or 0)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except click.ClickException as error:
            _say(error.format_message())
            sys.exit(2)
        except (click.Abort, KeyboardInterrupt):
            _say("interrupted")
            sys.exit(130)
        except BrokenPipeError:
            # The reader, such as head, has gone: leave without a word, and without a second error at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        except BAD_USE as error:
            if "--traceback" in arguments or isinstance(error, NotImplementedError | RecursionError):
                raise
            _say(sentence(error))
            sys.exit(2)


def _say(text: str) -> None:
    click.echo(f"spyke-numba: {' '.join(text.split())}", err=True)


def _warner(show: Callable[..., None]) -> Callable[..., None]:
    """Return what shows a warning for the user in one line, and any other as before."""

    def warn(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if category is UserWarning:
            _say(f"warning: {message}")
        else:
            show(message, category, *where)

    return warn


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        import spyke_numba

        click.echo(f"spyke-numba {spyke_numba.__version__}")
        context.exit()


@click.group(
    cls=OneSentence,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Say the version."
)
@click.option("--traceback", is_flag=True, expose_value=False, help="Show where an error came from.")
def main() -> None:
    """Simulate layers of spiking neurons on the CPU, on CUDA GPUs and with torch, with the same spikes."""


for command in (
    simulate_command,
    repeat_command,
    models_group,
    backends_command,
    compile_command,
    gallery_command,
    bench_group,
):
    main.add_command(command)
