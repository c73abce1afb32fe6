"""Tokens: who may ask the HTTP API, and for what. Only digests of their secrets are stored.

One that is revoked stays as a row: what was done with it names it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, insert, select, update

from ledger import limits
from ledger.audit import Appending
from ledger.chain import Event
from ledger.contents import Contents
from ledger.database import Database
from ledger.errors import TokenNameTaken
from ledger.stops import TRAIL
from ledger.tables import tokens


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token, without its secret."""

    digest: str
    """Of the secret."""
    name: str
    """No two that aren't revoked have the same."""
    person: str
    """Whose word the holder's is."""
    role: str
    groups: tuple[str, ...] = ()
    made_by: str
    """The person."""
    made_at: datetime
    """With a zone."""
    expires_at: datetime | None = None
    """With a zone; from then on it counts no more. None: never."""
    is_for_proxy: bool = False
    """Whether its holder may name other people, whom it has identified."""
    is_ups: bool = False
    """Whether `runlane up` has made it for its own user."""
    revoked_at: datetime | None = None
    revoked_by: str | None = None

    def check(self) -> None:
        """Refuse what can't be stored.

        Raises:
            LedgerRefused: the field and its limit are named.
        """
        limits.digest("digest", self.digest)
        for field in ("name", "person", "role", "made_by"):
            limits.name(field, getattr(self, field))
        for group in self.groups:
            limits.name("groups", group)
        limits.instant("made_at", self.made_at)
        if self.expires_at is not None:
            limits.instant("expires_at", self.expires_at)

    def counts(self, now: datetime) -> bool:
        """Tell whether its holder is let in at an instant."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Tokens:
    """All tokens that were ever made."""

    def __init__(self, database: Database, contents: Contents) -> None:
        """Read and write through this database."""
        self._database = database
        self._contents = contents

    async def create(self, wanted: Token, events: Sequence[Event] = ()) -> Token:
        """Write a token, and return what stands; one of the same digest stands as it is.

        Args:
            wanted: the token.
            events: for the trail `ledger.stops.TRAIL`, written with it, and only where it is new.

        Raises:
            TokenNameTaken: another token that isn't revoked has this name.
            LedgerRefused: something given can't be stored.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        wanted.check()
        appending = Appending(TRAIL, events)

        def work(connection: Connection) -> Token:
            found = _first(connection, tokens.c.digest == wanted.digest)
            if found is not None:
                return found
            if _first(connection, _standing(wanted.name)) is not None:
                raise TokenNameTaken(wanted.name)
            values = {**vars(wanted), "groups": json.dumps(wanted.groups)}
            connection.execute(insert(tokens).values(values))
            appending.write(connection, self._contents)
            return wanted

        return await self._database.write(TRAIL, work)

    async def revoke(
        self, name: str, *, by: str, at: datetime, events: Sequence[Event] = ()
    ) -> Token | None:
        """Let a token count no more, and return it; None where none of this name stands.

        Args:
            name: of the token.
            by: the person.
            at: when; with a zone.
            events: for the trail `ledger.stops.TRAIL`, written with it, and only where one stood.

        Raises:
            LedgerRefused: something given can't be stored.
            LedgerUnavailable: the ledger doesn't answer; whether it counts is then not known.
        """
        limits.name("by", by)
        limits.instant("at", at)
        appending = Appending(TRAIL, events)

        def work(connection: Connection) -> Token | None:
            found = _first(connection, _standing(name))
            if found is None:
                return None
            its = tokens.c.digest == found.digest
            connection.execute(update(tokens).where(its).values(revoked_at=at, revoked_by=by))
            appending.write(connection, self._contents)
            return _first(connection, its)

        return await self._database.write(TRAIL, work)

    async def find(self, digest: str) -> Token | None:
        """Return the token whose secret has this digest, revoked ones too; None: there is none.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        return await self._database.read(
            lambda connection: _first(connection, tokens.c.digest == digest)
        )

    async def standing(self) -> list[Token]:
        """Return the tokens that aren't revoked, expired ones too, by name.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        query = select(tokens).where(tokens.c.revoked_at.is_(None)).order_by(tokens.c.name)
        return await self._database.read(
            lambda connection: [_read(found) for found in connection.execute(query)]
        )

    async def any_made(self) -> bool:
        """Tell whether somebody has ever made a token, besides `runlane up` for its own user.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        query = select(exists().where(tokens.c.is_ups.is_(False)))
        return await self._database.read(
            lambda connection: bool(connection.execute(query).scalar())
        )


def _standing(name: str) -> Any:
    return and_(tokens.c.name == name, tokens.c.revoked_at.is_(None))


def _first(connection: Connection, which: Any) -> Token | None:
    found = connection.execute(select(tokens).where(which)).first()
    return None if found is None else _read(found)


def _read(row: Row[Any]) -> Token:
    found = dict(row._mapping)
    return Token(**{**found, "groups": tuple(json.loads(found["groups"]))})
