"""Whom the API serves without a token, and how long it believes what the ledger said of one."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from fastapi import Request

from ledger import Ledger, Location
from ledger.tokens import Token
from runlane import tokens
from runlane.api.access import Access, Principal, Role
from runlane.api.known_tokens import FRESH_SECONDS, KnownTokens
from runlane.api.refusals import Refusal

LOCAL = Principal(person="ada", role=Role.ADMIN)


def request(
    client: str | None = "127.0.0.1",
    headers: Sequence[tuple[str, str]] = (),
    host: str = "[::1]:1",
    version: str = "1.1",
) -> Request:
    """Return a request as a server hands it over."""
    given = [*([("host", host)] if host else []), *headers]
    raw = [(name.encode(), value.encode()) for name, value in given]
    who = None if client is None else (client, 50_000)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": raw, "client": who}
    return Request({**scope, "http_version": version})


@pytest.mark.parametrize(
    "asked",
    [
        request(),
        request("::1", host="localhost:8400"),
        request("127.8.8.8", host="127.0.0.1"),
        request("::ffff:127.0.0.1", host="LOCALHOST"),
        request(headers=[("origin", "http://[::1]:1")]),
        request(headers=[("authorization", "Bearer sk-any")]),
        request(headers=[("authorization", "Basic cmxfOnJs")]),
        request(headers=[("api-key", "any")]),
    ],
)
async def test_a_program_of_this_machine_is_let_in(ledger: Ledger, asked: Request) -> None:
    """By any loopback address and name, with any key that isn't of our form."""
    assert LOCAL == await Access(ledger, local=LOCAL).principal(asked)


@pytest.mark.parametrize(
    "asked",
    [
        request("10.0.0.7"),
        request("::ffff:10.0.0.7"),
        request("fe80::1"),
        request("testclient"),
        request(None),
        request(host=""),
        request(host="0.0.0.0:8400"),
        request(host="localhost.evil.test"),
        request(host="127.0.0.1@evil.test"),
        request(host="[::1"),
        request(headers=[("host", "evil.test")]),
        request(headers=[("origin", "https://[::1]:1")]),
        request(headers=[("origin", "http://[::1]:2")]),
        request(headers=[("origin", "http://[::1]:1"), ("origin", "http://evil.test")]),
        request(headers=[("sec-fetch-site", "same-site")]),
        request(headers=[("via", "1.1 proxy")]),
        request(headers=[("forwarded", "for=127.0.0.1")]),
        request(headers=[("x-forwarded-for", "127.0.0.1")]),
        request(headers=[("x-forwarded-proto", "https")]),
        request(headers=[("x-client-ip", "10.0.0.7")]),
        request(version="1.0"),
        request(headers=[("authorization", f"Bearer {tokens.new_secret()}")]),
        request(headers=[("authorization", f"bearer {tokens.new_secret()}")]),
        request(headers=[("api-key", tokens.new_secret())]),
    ],
)
async def test_nobody_else_is(ledger: Ledger, asked: Request) -> None:
    """Another machine, a name that only leads here, a web page, a proxy, a wrong token."""
    with pytest.raises(Refusal) as refused:
        await Access(ledger, local=LOCAL).principal(asked)

    assert 401 == refused.value.status


def made(number: int) -> Token:
    """Return a token."""
    return Token(
        digest=f"sha256:{number:064x}", name=f"t{number}", person="ann", role="reader",
        made_by="root", made_at=datetime.now(UTC).replace(microsecond=0),
    )  # fmt: skip


async def test_what_the_ledger_said_is_believed_for_a_moment(
    ledger: Ledger, location: Location
) -> None:
    """A known token costs no read for 4 s, and is asked for again after them."""
    known, token = KnownTokens(ledger), made(1)
    await ledger.tokens.create(token)
    began = time.monotonic()
    assert token == await known.find(token.digest)

    async with await Ledger.open(location) as elsewhere:
        now = datetime.now(UTC)
        revoked = await elsewhere.tokens.revoke("t1", by="eve", at=now)
    assert replace(token, revoked_at=now, revoked_by="eve") == revoked
    while (found := await known.find(token.digest)) == token:
        assert time.monotonic() - began < 5
        await asyncio.sleep(0.02)
    assert revoked == found
    assert FRESH_SECONDS <= time.monotonic() - began


async def test_what_the_ledger_does_not_have_is_asked_for_each_time(ledger: Ledger) -> None:
    """A token that another server has made counts at once."""
    known, token = KnownTokens(ledger), made(1)
    assert await known.find(token.digest) is None

    await ledger.tokens.create(token)
    assert token == await known.find(token.digest)


async def test_open_ends_with_the_first_token(ledger: Ledger) -> None:
    """At once at the server that has made it, and for good."""
    known = KnownTokens(ledger)
    assert not await known.any_made()

    await ledger.tokens.create(made(1))
    known.forget()
    assert await known.any_made()
    await ledger.tokens.revoke("t1", by="eve", at=datetime.now(UTC))
    known.forget()
    assert await known.any_made()
