"""Tokens in the ledger, on SQLite and PostgreSQL."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities import trail
from ledger import Ledger, LedgerRefused, Location
from ledger.errors import TokenNameTaken
from ledger.stops import TRAIL
from ledger.tokens import Token

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def digest(number: int) -> str:
    """Return the digest of some secret."""
    return f"sha256:{number:064x}"


def token(number: int = 1, **fields: Any) -> Token:
    """Return a token that is about to be made."""
    given = {
        "digest": digest(number), "name": f"t{number}", "person": "ann", "role": "operator",
        "groups": ("desk", "board"), "made_by": "root", "made_at": NOON, **fields,
    }  # fmt: skip
    return Token(**given)


async def test_a_token_is_found_by_the_digest_of_its_secret(location: Location) -> None:
    """With all it is for, and in another process too; another digest finds nothing."""
    wanted = token(expires_at=NOON + timedelta(days=90), is_for_proxy=True)
    async with await Ledger.open(location) as ledger:
        assert wanted == await ledger.tokens.create(wanted)

    async with await Ledger.open(location) as ledger:
        assert wanted == await ledger.tokens.find(digest(1))
        assert await ledger.tokens.find(digest(2)) is None
        assert [wanted] == await ledger.tokens.standing()


async def test_the_same_token_twice_is_one(ledger: Ledger) -> None:
    """Whoever missed the answer may write it again, side by side too; the trail has it once."""
    event = trail.control(what="create", scope="token t1", by="root", reason=None, at=NOON)

    found = await asyncio.gather(*(ledger.tokens.create(token(), [event]) for _ in range(3)))

    assert [token()] * 3 == found
    assert [token()] == await ledger.tokens.standing()
    assert 1 == len(await ledger.audit.read(TRAIL))


async def test_a_name_is_free_again_once_its_token_is_revoked(ledger: Ledger) -> None:
    """No two that stand have one name, by race neither; an expired one has its name still."""
    tries = [token(number, name="deploy", expires_at=NOON) for number in (1, 2, 3)]
    made = await asyncio.gather(
        *(ledger.tokens.create(each) for each in tries), return_exceptions=True
    )
    assert [Token, TokenNameTaken, TokenNameTaken] == sorted(
        (type(each) for each in made), key=lambda kind: kind.__name__
    )

    first = await ledger.tokens.revoke("deploy", by="eve", at=NOON)
    assert first is not None
    second = await ledger.tokens.create(token(4, name="deploy"))

    assert [second] == await ledger.tokens.standing()
    assert first == await ledger.tokens.find(first.digest)


async def test_revoking_says_who_and_when_and_is_done_once(ledger: Ledger) -> None:
    """The row stays with who made it; a second time there is nothing to revoke."""
    await ledger.tokens.create(token())
    event = trail.control(what="revoke", scope="token t1", by="eve", reason=None, at=NOON)

    revoked = await ledger.tokens.revoke("t1", by="eve", at=NOON, events=[event])
    again = await ledger.tokens.revoke("t1", by="bob", at=NOON, events=[event])

    assert replace(token(), revoked_at=NOON, revoked_by="eve") == revoked
    assert revoked == await ledger.tokens.find(digest(1))
    assert again is None
    assert await ledger.tokens.revoke("t2", by="eve", at=NOON) is None
    assert [{"what": "revoke", "scope": "token t1", "by": "eve"}] == [
        json.loads(row.body)["facts"] for row in await ledger.audit.read(TRAIL)
    ]


async def test_whether_anybody_has_made_one(ledger: Ledger) -> None:
    """That of `up` doesn't count; one that somebody has made does, revoked too."""
    await ledger.tokens.create(token(1, is_ups=True))
    assert not await ledger.tokens.any_made()

    await ledger.tokens.create(token(2))
    assert await ledger.tokens.any_made()
    await ledger.tokens.revoke("t2", by="eve", at=NOON)
    assert await ledger.tokens.any_made()


def test_when_a_token_counts() -> None:
    """Until the instant at which it expires, and until it is revoked."""
    tick = timedelta(microseconds=1)

    assert token().counts(NOON)
    assert token(expires_at=NOON).counts(NOON - tick)
    assert not token(expires_at=NOON).counts(NOON)
    assert not token(revoked_at=NOON).counts(NOON - tick)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"digest": "rl_secret"}, "digest"),
        ({"name": ""}, "name"),
        ({"person": "x" * 256}, "person"),
        ({"groups": ("a\0b",)}, "groups"),
        ({"made_by": ""}, "made_by"),
        ({"expires_at": datetime(2026, 1, 1)}, "expires_at"),  # noqa: DTZ001 - that is the mistake
    ],
)
async def test_what_can_not_be_stored_is_refused(
    ledger: Ledger, fields: dict[str, Any], field: str
) -> None:
    """By the name of the field, a secret in the place of its digest too."""
    with pytest.raises(LedgerRefused, match=f"^{field} ") as caught:
        await ledger.tokens.create(token(**fields))

    assert "rl_secret" not in str(caught.value)
    assert [] == await ledger.tokens.standing()
