"""The command line: `runlane`. Its words, options and exit codes are what scripts rely on."""

import os
import sys
import time

__all__ = ["STARTED", "main"]

STARTED = time.monotonic()
"""When this process began, as nearly as a module can know."""


def main() -> None:
    """Run the command line and end the process with its exit code."""
    # Deferred, so that importing the package for its names costs nothing.
    from runlane.cli.app import run  # noqa: PLC0415

    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # The reader has gone (`runlane list | head -1`); there is nobody to tell.
            code = code or 1
    # The Temporal client's own threads may still be at work on a call that was given up; an
    # ordinary exit then aborts the interpreter ("PyGILState_Release") with a core dump.
    os._exit(code)
