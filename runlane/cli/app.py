"""The commands under their names, and what happens when one of them fails."""

# ruff: noqa: FBT002 - typer reads a command's options from its parameters

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

import runlane
from runlane.cli import (
    answers,
    api,
    approvals,
    audit,
    batch_steering,
    blocked,
    doctor,
    erasing,
    output,
    pruning,
    runs,
    schedules,
    services,
    session,
    shows,
    stops,
    tokens,
    tools,
)
from runlane.cli.options import COMPLETE, Json
from runlane.errors import ExitCode, InvalidRequest, RunlaneError

# typer brings its own copy of click from some version on; both have this family.
_ClickError: type[Any] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="runlane",
    help="Durable tool-calling runs on Temporal: no crash, deploy or slow person loses one.",
    epilog="Exit codes: 0 done, 1 anything else, 2 bad input, 3 ended otherwise than completed, "
    "4 waits for answers, 5 unreachable or no worker, 6 not found, 7 --timeout passed, "
    "8 refused, 130 interrupted.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
services.add_to(app)
api.add_to(app)
runs.add_to(app)
batch_steering.add_to(app)
schedules.add_to(app)
shows.add_to(app)
answers.add_to(app)
approvals.add_to(app)
blocked.add_to(app)
stops.add_to(app)
tools.add_to(app)
tokens.add_to(app)
doctor.add_to(app)
pruning.add_to(app)
audit.add_to(app)
erasing.add_to(app)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback
    if wanted:
        typer.echo(f"runlane {runlane.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    json: Json = False,
) -> None:
    pass


def run(args: Sequence[str]) -> int:
    """Run one command and return its exit code; whatever goes wrong has been told by then."""
    if COMPLETE in os.environ:
        _teach_shells()
    args = args or ["--help"]
    session.begin(json="--json" in args[: _end_of_options(args)])
    try:
        code = app(args=list(args), prog_name="runlane", standalone_mode=False)
    except typer.Exit as exit_:
        return int(exit_.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        return int(ExitCode.OTHER)
    except RunlaneError as error:
        return _failed(error)
    except Exception as error:
        return _misused(error) if isinstance(error, _ClickError) else _other(error)
    return int(code or 0)


def _teach_shells() -> None:
    # typer knows no shell by itself where its own --install-completion is switched off.
    from typer.completion import completion_init  # type: ignore[attr-defined]  # noqa: PLC0415

    completion_init()


def _failed(error: RunlaneError) -> int:
    label = "\n" if isinstance(error, session.Interrupted) else "Error: "
    # Nobody may be left to read it; the exit code says it all the same.
    with suppress(BrokenPipeError):
        if session.wants_json():
            output.document(error.as_json())
        text = output.safe(error.message)
        output.say_parts((label, "bold red"), (text, None), to=output.stderr())
    return int(error.exit_code)


def _misused(error: Any) -> int:
    context = getattr(error, "ctx", None)
    if context is not None:
        output.say(context.get_usage(), to=output.stderr())
        output.note(f"Try: {context.command_path} --help")
    # typer has pydantic read choices, and repeats its words.
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    message = message if message.endswith("?") else f"{message}."
    param = getattr(getattr(error, "param", None), "name", None)
    return _failed(InvalidRequest(message, param=param))


def _other(error: Exception) -> int:
    # Deferred: a command that fails has loaded it, and `--version` must not.
    from runlane.settings import SettingsError  # noqa: PLC0415

    if isinstance(error, SettingsError):
        return _failed(InvalidRequest(str(error), param=error.variable))
    traceback.print_exc(file=sys.stderr)
    return _failed(RunlaneError(f"{type(error).__name__}: {error}", code="unexpected"))


def _end_of_options(args: Sequence[str]) -> int:
    return args.index("--") if "--" in args else len(args)
