"""Wakes the runs that credentials have blocked, as soon as the upstream takes the worker's again.

Each worker watches for itself: where several have the key in files of their own, each file changes
in its own time. What is looked at is how things stand, never what happened, so that nothing is lost
with a worker or an answer; a run that is nudged once too often looks upstream once more.
"""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from pathlib import Path

from temporalio.client import Client
from temporalio.service import RPCError

from runlane import blocked
from runlane.upstream import takes_credentials
from runsapi import Assistants, RunsAPIError
from workflows.contract import BlockedKind

LOOK_SECONDS = 15.0
"""Between two looks whether runs are blocked."""
ASK_SECONDS = 5.0
"""Between two looks whether the upstream takes the credentials, while runs are blocked."""
PASSES = (0.0, 10.0, 30.0, 90.0)
"""Seconds after the credentials were taken again at which the runs blocked by then are nudged. A
request that left with the old key is answered after up to 80 s; a run that stays blocked although
the credentials are taken is refused something else, and is left to its own curve."""

_logger = logging.getLogger("runlane.recovery")


class Recovery:
    """What one worker knows of the credentials.

    Args:
        client: connected as the worker is.
        upstream: the worker's own connection.
        task_queue: whose runs are woken.
        key_file: where the key comes from, if it comes from a file.
        ask_seconds: between two questions to the upstream.
        look_seconds: between two questions to Temporal while no run is blocked.
        passes: as `PASSES`.
    """

    def __init__(
        self,
        client: Client,
        upstream: Assistants,
        *,
        task_queue: str,
        key_file: Path | None = None,
        ask_seconds: float = ASK_SECONDS,
        look_seconds: float = LOOK_SECONDS,
        passes: Sequence[float] = PASSES,
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._task_queue = task_queue
        self._key_file = key_file
        self._ask_seconds = ask_seconds
        self._look_seconds = look_seconds
        self._after = passes
        # A worker that has just been started may be the one with the mended key.
        self._refused = True
        self._passes: list[float] = []
        self._key: object = None

    async def run(self) -> None:
        """Watch until cancelled; whatever fails is tried again at the next look."""
        while True:
            wait = self._look_seconds
            try:
                if await self.look():
                    wait = self._ask_seconds
            except (RPCError, RunsAPIError, OSError) as error:
                _logger.info("Can't look for blocked runs: %s", type(error).__name__)
            except Exception:
                # The worker serves runs all the same.
                _logger.exception("Looking for blocked runs failed")
            # Apart from the other workers, which were started with this one.
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311 - no secret

    async def look(self) -> bool:
        """Look once, nudge what can go on, and tell whether any run was blocked.

        Raises:
            RPCError: Temporal can't be asked.
        """
        key = await asyncio.to_thread(self._signature)
        if key != self._key:
            self._key, self._refused = key, True
        if not await blocked.count(
            self._client, BlockedKind.CREDENTIALS, task_queue=self._task_queue
        ):
            # Nothing is in doubt; what is blocked from now on may be refused something else.
            self._refused = False
            return False
        taken = await takes_credentials(self._upstream)
        if taken is False:
            self._refused, self._passes = True, []
        if taken is not True:
            return True
        now = time.monotonic()
        if self._refused:
            self._refused, self._passes = False, [now + after for after in self._after]
        due = [at for at in self._passes if at <= now]
        if due:
            told = await blocked.nudge_all(
                self._client, BlockedKind.CREDENTIALS, task_queue=self._task_queue
            )
            # Only now: a pass that failed on its way is made again.
            self._passes = self._passes[len(due) :]
            _logger.info("The upstream takes the credentials; blocked runs nudged: %d", told)
        return True

    def _signature(self) -> object:
        """Return what changes when the key file does."""
        if self._key_file is None:
            return None
        try:
            stat = self._key_file.stat()
        except OSError:
            return self._key
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino)
