"""How a process of ours ends that has had a connection to Temporal."""

import logging
import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End this process with an exit code, at once, once all it had to say has been said.

    The Temporal client's own threads may still be at work on calls that were given up. An
    interpreter that ends in the ordinary way then aborts, with a core dump, or waits for ever
    (temporalio/sdk-python#300).
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # The reader has gone (`runlane list | head -1`); there is nobody to tell.
            code = code or 1
    os._exit(code)
