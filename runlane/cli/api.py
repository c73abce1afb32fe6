"""`runlane api`: the HTTP API, as a process of its own."""

# ruff: noqa: FBT002 - typer reads a command's options from its parameters

import os
import sys
from typing import Annotated

import typer

from runlane.cli import session
from runlane.cli.options import Json


def add_to(app: typer.Typer) -> None:
    """Give the command its name."""
    app.command("api")(_api)


def _api(
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="Default: this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="0 takes a free one.", min=0, max=65535)
    ] = 8400,
    json: Json = False,
) -> None:
    """Serve the HTTP API. Whoever asks it needs a token:  runlane token create"""
    sys.stdout.flush()
    arguments = ["--host", host, "--port", str(port)]
    if session.wants_json():
        arguments.append("--json")
    # As `worker`: signals and exit code are the server's own.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "runlane.api", *arguments])  # noqa: S606
