"""What the ledger has said of tokens a moment ago, so that not every request has to ask it."""

import asyncio
import time

from ledger import Ledger
from ledger.tokens import Token

FRESH_SECONDS = 4.0
"""For how long an answer is believed, from the moment when it was asked for. A token that was
revoked counts at most so long: less than 5 s, with room for a slow machine."""
MOST = 10_000
"""Tokens that are remembered at a time."""


class KnownTokens:
    """The tokens that were asked for last. One that isn't there is asked for each time."""

    def __init__(self, ledger: Ledger) -> None:
        """Know of none."""
        self._ledger = ledger
        self._found: dict[str, tuple[Token, float]] = {}
        self._asking: dict[str, asyncio.Task[Token | None]] = {}
        self._any_made = False
        self._none_made_at = float("-inf")
        self._age = 0

    async def find(self, digest: str) -> Token | None:
        """Return the token whose secret has this digest, revoked and expired ones too.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        known = self._found.get(digest)
        if known is not None and time.monotonic() - known[1] < FRESH_SECONDS:
            return known[0]
        # Many may ask with one token in the moment when it is to be looked up again.
        asking = self._asking.get(digest)
        if asking is None:
            asking = asyncio.create_task(self._ask(digest, self._age))
            self._asking[digest] = asking
            asking.add_done_callback(lambda done: self._answered(digest, done))
        # Who goes away doesn't take the answer from the others.
        return await asyncio.shield(asking)

    async def any_made(self) -> bool:
        """Tell whether somebody has ever made a token.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        if not self._any_made and time.monotonic() - self._none_made_at >= FRESH_SECONDS:
            age, asked_at = self._age, time.monotonic()
            self._any_made = await self._ledger.tokens.any_made()
            if age == self._age:
                self._none_made_at = asked_at
        return self._any_made

    def forget(self) -> None:
        """Ask anew from now on: this process has made or revoked one."""
        self._age += 1
        self._found.clear()
        self._asking.clear()
        self._none_made_at = float("-inf")

    async def _ask(self, digest: str, age: int) -> Token | None:
        asked_at = time.monotonic()
        found = await self._ledger.tokens.find(digest)
        if found is not None and age == self._age:
            self._keep(digest, found, asked_at)
        return found

    def _answered(self, digest: str, done: asyncio.Task[Token | None]) -> None:
        if self._asking.get(digest) is done:
            del self._asking[digest]
        if not done.cancelled():
            # Seen, where everybody who waited for it has gone.
            done.exception()

    def _keep(self, digest: str, found: Token, asked_at: float) -> None:
        if len(self._found) >= MOST:
            self._found.clear()
        self._found[digest] = (found, asked_at)
