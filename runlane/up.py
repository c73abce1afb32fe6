"""`runlane up`: Temporal, a worker, the API and, if asked for, the simulator, from one command."""

import asyncio
import json
import os
import secrets
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from runlane.doctor import upstream_problem
from runlane.embedded import NAMESPACE
from runlane.errors import ExitCode
from runlane.parts import Parts, say
from runlane.ports import port_of
from runlane.settings import Settings, SettingsError
from runlane.temporal import DEFAULT_ADDRESS, connect_config
from runlane.tools.declared import DEFAULT_FILE
from runlane.up_options import UpOptions


def run_up(
    *,
    simulate: bool = False,
    temporal_port: int | None = None,
    ui_port: int | None = None,
    api_port: int | None = None,
    data_dir: Path | None = None,
    accept_server_version: bool = False,
    as_json: bool = False,
) -> int:
    """Start everything, keep it going until SIGINT or SIGTERM, and return the exit code.

    What is asked for goes to stdout once all parts serve: lines for people, or one JSON document.
    Words on the way go to stderr.

    Raises:
        RunlaneError: it can't start, or can't go on.
        SettingsError: a variable can't be used.
    """
    options = UpOptions.from_env(
        simulate=simulate,
        temporal_port=temporal_port,
        ui_port=ui_port,
        api_port=api_port,
        serves_api=True,
        data_dir=data_dir,
        accept_server_version=accept_server_version,
    )
    if simulate and os.environ.get("RUNLANE_UPSTREAM_URL"):
        say("RUNLANE_UPSTREAM_URL is set, and not used: --simulate executes runs in the simulator.")

    def ready(parts: "Parts") -> None:
        text = json.dumps(parts.document()) if as_json else "\n".join(_ready_lines(parts))
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    # A Ctrl-C before the handlers stand is a wish to end, too.
    with suppress(KeyboardInterrupt):
        asyncio.run(_until_told_to_end(Parts(options), ready))
    return int(ExitCode.DONE)


def _line_break() -> str:
    return "\n" if sys.stderr.isatty() else ""


async def _mention_upstream(options: UpOptions) -> None:
    """Say at once what the first run would otherwise find out: a URL or a key that is wrong."""
    problem = None if options.simulate else await upstream_problem(options.settings)
    if problem is not None:
        say(f"{problem.message}\n{problem.remedy}".rstrip())


def ending_signals() -> list[signal.Signals]:
    """Return the signals by which we are told to end."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    # The terminal was closed; under `nohup` that is to be ignored.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


async def _until_told_to_end(parts: "Parts", ready: Callable[["Parts"], None]) -> None:
    stop = asyncio.Event()

    def told() -> None:
        if stop.is_set():
            say("Killing what is left.")
            parts.kill_now()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in ending_signals():
        loop.add_signal_handler(number, told)

    async def work() -> None:
        async with parts:
            ready(parts)
            await asyncio.gather(parts.keep(), _mention_upstream(parts.options))

    working = asyncio.create_task(work())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not working.done():
            # The terminal has written ^C where its cursor was.
            say(f"{_line_break()}Stopping; Ctrl-C again kills.")
            working.cancel()
        with suppress(asyncio.CancelledError):
            await working
    if stop.is_set():
        say(f"Stopped. Everything is kept in {parts.options.data_dir}.")


def _ready_lines(parts: Parts) -> list[str]:
    options = parts.options
    upstream = f"simulated, at {parts.upstream_url}" if options.simulate else parts.upstream_url
    lines = [
        "",
        "Runlane is up; Ctrl-C ends it, and the next `runlane up` here goes on where it was.",
        "",
        f"  Temporal   {parts.temporal.address}, namespace {NAMESPACE}",
        f"  Web UI     {parts.temporal.ui_url}",
        f"  API        {parts.api_url}",
        *_who_may(parts),
        f"  Upstream   {upstream}",
        f"  Data       {options.data_dir}, with the logs",
        "",
        "In another terminal:",
    ]
    if _target() not in {parts.temporal.address, f"localhost:{port_of(parts.temporal.address)}"}:
        lines.append(f"  export TEMPORAL_ADDRESS={parts.temporal.address}")
    # For SDKs and curl.
    lines.append(f"  export OPENAI_BASE_URL={parts.api_url}")
    tools = _with_tools(options.settings, Path.cwd())
    # A thread of an earlier start may still have a run that waits.
    thread = f"thread_{secrets.token_hex(2)}"
    if tools and options.simulate:
        lines += [
            *tools,
            f"  runlane create --thread {thread} --assistant asst_1 --with-tools --wait",
            "  # It asks for the tools that are registered here, once each.",
        ]
    elif options.simulate:
        lines += [
            f"  echo '{_BODY_THAT_ASKS}' |",
            f"    runlane create --thread {thread} --assistant asst_1 --params - --wait",
            "  # It asks for an answer. Give it with the command that is printed then.",
        ]
    else:
        create = "  runlane create --thread YOUR_THREAD --assistant YOUR_ASSISTANT"
        lines += [*tools, f"{create}{' --with-tools' if tools else ''} --wait"]
    return [*lines, ""]


def _who_may(parts: Parts) -> list[str]:
    if not parts.is_open:
        return ["             for whoever has a token:  runlane token list"]
    return [
        "             open to this machine, as you, while nobody has made a token:",
        "             runlane token create --name NAME --person PERSON --role operator",
    ]


def _with_tools(settings: Settings, here: Path) -> list[str]:
    """Return what makes the tools of this terminal known in another one; nothing without tools."""
    file = settings.config_file
    if not settings.tools and file is None and not DEFAULT_FILE.exists():
        return []
    lines = [f"  cd {shlex.quote(str(here))}"]
    if settings.tools:
        lines.append(f"  export RUNLANE_TOOLS={','.join(settings.tools)}")
    if file is not None:
        lines.append(f"  export RUNLANE_CONFIG_FILE={shlex.quote(str(file))}")
    return lines


# The simulator asks for what a run declares, and for nothing where it declares nothing.
_BODY_THAT_ASKS = '{"tools": [{"type": "function", "function": {"name": "lookup_order"}}]}'


def _target() -> str:
    """Return where a command in a terminal like this one would look for Temporal."""
    try:
        return connect_config().get("target_host", DEFAULT_ADDRESS)
    except SettingsError:
        return ""
