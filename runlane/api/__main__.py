"""The API as a program: `runlane api`, and a part of `runlane up`."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence

from runlane.api.access import Principal, Role
from runlane.api.serving import DEFAULT_PORT, serve
from runlane.errors import ExitCode, InvalidRequest, RunlaneError
from runlane.leaving import leave
from runlane.monitoring import logs
from runlane.person import person
from runlane.settings import Settings, SettingsError


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code of the command line."""
    parser = argparse.ArgumentParser(prog="runlane api", description="Serve the HTTP API.")
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine alone")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one")
    parser.add_argument("--json", action="store_true", help="print one JSON document when ready")
    parser.add_argument(
        "--open", action="store_true", help="serve this machine without a token, while none is made"
    )
    arguments = parser.parse_args(argv)

    def ready(url: str) -> None:
        document = json.dumps({"url": url, "pid": os.getpid()})
        text = document if arguments.json else f"The API is at {url}. Stop it with Ctrl-C."
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    try:
        settings = Settings.from_env()
        logs.set_up(settings.log_format)
        local = Principal(person=person(settings), role=Role.ADMIN, groups=settings.groups)
        asyncio.run(
            serve(
                settings,
                host=arguments.host,
                port=arguments.port,
                local=local if arguments.open else None,
                ready=ready,
            )
        )
    except RunlaneError as error:
        return _fail(error, as_json=arguments.json)
    except SettingsError as error:
        return _fail(InvalidRequest(str(error), param=error.variable), as_json=arguments.json)
    return int(ExitCode.DONE)


def _fail(error: RunlaneError, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps(error.as_json()) + "\n")
    sys.stderr.write(f"Error: {error.message}\n")
    return int(error.exit_code)


if __name__ == "__main__":
    leave(main())
