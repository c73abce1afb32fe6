"""`python -m runsapi.simulator`: prints one line of JSON with its URL when it is ready."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path

from runsapi.simulator.engine import EXPIRES_AFTER
from runsapi.simulator.faults import load_faults
from runsapi.simulator.scenario import ScenarioError, load_scenarios
from runsapi.simulator.serve import serve
from runsapi.simulator.store import StoreError


def _end_with_stdin() -> None:
    # Unbuffered: a thread waiting in `sys.stdin` would hold its lock at exit.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Run the simulator until it is told to end."""
    parser = argparse.ArgumentParser(prog="python -m runsapi.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--scenario", type=Path, help="TOML or JSON")
    parser.add_argument("--faults", type=Path, help="TOML or JSON")
    parser.add_argument("--expires-after", type=float, default=EXPIRES_AFTER, help="seconds")
    parser.add_argument("--api-key", help="demand this key")
    parser.add_argument("--strict", action="store_true", help="404 for ids never created")
    parser.add_argument("--no-bodies", action="store_true", help="don't remember request bodies")
    parser.add_argument("--state", type=Path, help="keep runs in this file")
    parser.add_argument("--with-stdin", action="store_true", help="end when standard input closes")
    options = parser.parse_args()
    if options.with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()

    def ready(url: str) -> None:
        sys.stdout.write(json.dumps({"url": url, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()

    try:
        asyncio.run(
            serve(
                options.host,
                options.port,
                scenarios=load_scenarios(options.scenario) if options.scenario else (),
                faults=load_faults(options.faults) if options.faults else (),
                strict=options.strict,
                expires_after=options.expires_after,
                api_key=options.api_key,
                bodies=not options.no_bodies,
                state=options.state,
                ready=ready,
            )
        )
    except (ScenarioError, StoreError, OSError) as error:
        parser.exit(2, f"{error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
