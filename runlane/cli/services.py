"""Commands that start something, and those that look after the installation."""

# ruff: noqa: FBT002 - typer reads a command's options from its parameters

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from runlane.cli import output, session
from runlane.cli.options import COMPLETE, Json
from runlane.errors import InvalidRequest, RunlaneError

_SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def add_to(app: typer.Typer) -> None:
    """Give the commands their names."""
    app.command("up")(_up)
    app.command("worker")(_worker)
    app.command("simulate")(_simulate)
    app.command("codec-server")(_codec_server)
    app.command("demo")(_demo)
    app.command("completion")(_completion)


def _up(
    *,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Run against a simulated upstream; no key needed.")
    ] = False,
    temporal_port: Annotated[
        int | None, typer.Option("--temporal-port", metavar="N", help="Temporal's port.")
    ] = None,
    ui_port: Annotated[
        int | None, typer.Option("--ui-port", metavar="N", help="Port of Temporal's UI.")
    ] = None,
    api_port: Annotated[
        int | None, typer.Option("--api-port", metavar="N", help="Port of the API.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Where the state lies.")
    ] = None,
    accept_server_version: Annotated[
        bool,
        typer.Option(
            "--accept-server-version",
            help="Go on with a database of another version of Temporal's server; a copy is kept.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Start Temporal, a worker and the API on this machine.

    With --simulate, an upstream too: no key is needed and no model is asked. The state survives a
    restart.
    """
    # Deferred: it starts servers, which no other command needs.
    from runlane.up import run_up  # noqa: PLC0415

    raise typer.Exit(
        run_up(
            simulate=simulate,
            temporal_port=temporal_port,
            ui_port=ui_port,
            api_port=api_port,
            data_dir=data_dir,
            accept_server_version=accept_server_version,
            as_json=session.wants_json(),
        )
    )


def _worker(json: Json = False) -> None:
    """Serve runs: create, poll and answer them upstream. Several workers share the load."""
    sys.stdout.flush()
    arguments = ["--json"] if session.wants_json() else []
    # The worker is the composition root, which nobody imports: this process becomes it, so that
    # signals and exit code are its own. `-P`, because a worker.py in the caller's own directory
    # would be started instead.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "worker", *arguments])  # noqa: S606


def _simulate(
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="0 takes a free one.", min=0, max=65535)
    ] = 0,
    scenario: Annotated[
        Path | None, typer.Option("--scenario", metavar="FILE", help="What to do; TOML or JSON.")
    ] = None,
    faults: Annotated[
        Path | None, typer.Option("--faults", metavar="FILE", help="What goes wrong.")
    ] = None,
    json: Json = False,
) -> None:
    """Serve an upstream that costs nothing and calls no model."""
    # Deferred: it brings a web server.
    from runsapi.simulator.faults import load_faults  # noqa: PLC0415
    from runsapi.simulator.scenario import ScenarioError, load_scenarios  # noqa: PLC0415
    from runsapi.simulator.serve import serve  # noqa: PLC0415

    def ready(url: str) -> None:
        if session.wants_json():
            output.document({"url": url, "pid": os.getpid()})
        else:
            output.say(f"Simulated upstream at {url}; no model is asked. Stop it with Ctrl-C.")
            output.say(f"Use it:  RUNLANE_UPSTREAM_URL={url} runlane worker")
        sys.stdout.flush()

    try:
        scenarios = load_scenarios(scenario) if scenario is not None else ()
        orders = load_faults(faults) if faults is not None else ()
    except (ScenarioError, OSError, ValueError) as error:
        raise InvalidRequest(str(error), param="--scenario" if scenario else "--faults") from None
    try:
        asyncio.run(serve(port=port, scenarios=scenarios, faults=orders, ready=ready))
    except OSError as error:
        reason = error.strerror or str(error)
        text = f"Port {port} can't be used: {reason}. Choose another with --port."
        raise RunlaneError(text, param="--port", code="port_taken") from None


def _codec_server(
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="0 takes a free one.", min=0, max=65535)
    ] = 8081,
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="Default: this machine alone.")
    ] = "127.0.0.1",
    json: Json = False,
) -> None:
    """Show encrypted runs to Temporal's own UI and command line."""
    # Deferred: it brings a web server.
    from runlane.codec_serving import run_codec_server  # noqa: PLC0415

    run_codec_server(host=host, port=port, as_json=session.wants_json())


def _demo() -> None:
    """Show an answer, a worker that dies, and a decision.

    Takes under a minute, offline and without a key; nothing is left running.
    """
    # Deferred: it starts servers, which no other command needs.
    from runlane.demo import run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo())


def _completion(
    shell: Annotated[
        str | None,
        typer.Argument(metavar="SHELL", help="bash, zsh, fish or pwsh; default: from $SHELL."),
    ] = None,
) -> None:
    """Print the script that completes commands in your shell.

    For bash:  eval "$(runlane completion bash)"
    """
    name = shell or Path(os.environ.get("SHELL", "bash")).name
    if name not in _SHELLS:
        text = f"No completion for {name!r}; there is one for {', '.join(_SHELLS)}."
        raise InvalidRequest(text, param="SHELL")
    # Deferred: used by this command alone.
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # noqa: PLC0415

    script = get_completion_script(prog_name="runlane", complete_var=COMPLETE, shell=name)
    typer.echo(script)
