"""Tokens of the HTTP API on the command line: made, listed, revoked.

They go through the API where `RUNLANE_API_URL` names one, which asks for an admin's token itself.
Else they work on the ledger that the settings name: that is how the first one is made.
"""

# ruff: noqa: FBT002, PLR0917 - typer reads a command's options from its parameters

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from runlane.cli import output, session
from runlane.cli.options import Json
from runlane.durations import DurationError, parse_duration
from runlane.errors import ExitCode, InvalidRequest
from runlane.roles import Role

if TYPE_CHECKING:
    from ledger import Ledger
    from runlane.settings import Settings


def add_to(app: typer.Typer) -> None:
    """Give the commands their names."""
    tokens = typer.Typer(help="Say who may use the HTTP API.")
    tokens.command("create")(_create)
    tokens.command("list")(_list)
    tokens.command("revoke")(_revoke)
    app.add_typer(tokens, name="token")


def _create(
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="To know it by.")],
    person: Annotated[
        str, typer.Option("--person", metavar="PERSON", help="Whose word the holder's is.")
    ],
    role: Annotated[Role, typer.Option("--role", help="What it is for.")],
    group: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="GROUP", help="The person's; several by commas."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="DURATION", help="From now: 90d, 12h.")
    ] = None,
    for_proxy: Annotated[
        bool,
        typer.Option(
            "--for-proxy", help="It may name other people in RUNLANE_TRUSTED_USER_HEADER."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Make a token, and print its secret: this once, and never again."""
    asked = {
        "name": name,
        "person": person,
        "role": role.value,
        "groups": [part.strip() for each in group or [] for part in each.split(",")],
        "expires_at": _instant(expires),
        "for_proxy": for_proxy,
    }

    async def work() -> int:
        made, is_first = await _made(asked)
        if session.wants_json():
            output.document(made)
            return int(ExitCode.DONE)
        ends = made["expires_at"]
        until = "" if ends is None else f", until {output.moment(ends)}"
        output.note(
            f"Token {output.safe(made['name'])} for {output.safe(made['person'])}, who is "
            f"{made['role']}{until}. It is not shown again:"
        )
        output.say(made["token"])
        if is_first:
            output.note("From now on every caller needs a token, programs on this machine too.")
        return int(ExitCode.DONE)

    session.perform_apart(work)


def _list(json: Json = False) -> None:
    """List the tokens that aren't revoked, expired ones too."""

    async def work() -> int:
        found = await _listed()
        if session.wants_json():
            output.document({"object": "list", "data": found})
        elif not found:
            output.say("There are no tokens.")
        else:
            head = ("token", "person", "role", "groups", "made by", "made", "expires")
            output.table(head, [_row(token) for token in found])
        return int(ExitCode.DONE)

    session.perform_apart(work)


def _revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the token.")],
    json: Json = False,
) -> None:
    """Let a token count no more. Every server knows it within 5 seconds."""

    async def work() -> int:
        revoked = await _revoked(name)
        if session.wants_json():
            output.document(revoked)
        else:
            output.say(f"Revoked: {output.safe(revoked['name'])}.")
        return int(ExitCode.DONE)

    session.perform_apart(work)


async def _made(asked: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the token that was made, and whether it is the first one that anybody has made."""
    # Deferred, as below: they bring Temporal's client and the database's.
    from runlane import tokens  # noqa: PLC0415
    from runlane.api_client import ApiClient  # noqa: PLC0415
    from runlane.person import person  # noqa: PLC0415

    settings = _settings()
    api = ApiClient.named(settings)
    if api is not None:
        secret = settings.read_token()
        async with api:
            made_there = await api.post("/tokens", json=asked)
        # Without a token, an API makes one only while there is none.
        return made_there, secret is None or not tokens.is_ours(secret)
    given = {name: each for name, each in asked.items() if name != "for_proxy"}
    async with _ledger(settings) as ledger:
        is_first = not await ledger.tokens.any_made()
        made = await tokens.create(
            ledger, **given, is_for_proxy=asked["for_proxy"], made_by=person(settings)
        )
    return {**tokens.as_json(made.token), "token": made.secret}, is_first


async def _listed() -> list[dict[str, Any]]:
    from runlane import tokens  # noqa: PLC0415
    from runlane.api_client import ApiClient  # noqa: PLC0415

    settings = _settings()
    api = ApiClient.named(settings)
    if api is not None:
        async with api:
            found: list[dict[str, Any]] = (await api.get("/tokens"))["data"]
            return found
    async with _ledger(settings) as ledger:
        return [tokens.as_json(token) for token in await ledger.tokens.standing()]


async def _revoked(name: str) -> dict[str, Any]:
    from runlane import tokens  # noqa: PLC0415
    from runlane.api_client import ApiClient  # noqa: PLC0415
    from runlane.person import person  # noqa: PLC0415

    settings = _settings()
    api = ApiClient.named(settings)
    if api is not None:
        async with api:
            return await api.delete(f"/tokens/{quote(name, safe='')}")
    async with _ledger(settings) as ledger:
        return tokens.as_json(await tokens.revoke(ledger, name, by=person(settings)))


def _settings() -> "Settings":
    from runlane.settings import Settings  # noqa: PLC0415

    return Settings.from_env()


@asynccontextmanager
async def _ledger(settings: "Settings") -> "AsyncIterator[Ledger]":
    from runlane.client_ledger import ClientLedger  # noqa: PLC0415
    from runlane.errors import LedgerUnusable  # noqa: PLC0415
    from runlane.temporal import connect  # noqa: PLC0415

    is_named = settings.data_dir is not None or settings.read_database_url() is not None
    place = ClientLedger(settings, None if is_named else await connect(settings))
    try:
        await place.check_there()
    except LedgerUnusable as error:
        # It may be meant for servers that are yet to start.
        output.note(f"Perhaps no API obeys this. {output.safe(error.message)}")
    async with place.opened() as ledger:
        yield ledger


def _instant(expires: str | None) -> float | None:
    """Return the instant at which a token expires, in Unix seconds: reckoned here, once."""
    if expires is None:
        return None
    try:
        seconds = parse_duration(expires).total_seconds()
    except DurationError as error:
        raise InvalidRequest(f"--expires: {error}", param="--expires") from None
    if seconds <= 0:
        raise InvalidRequest("--expires must be more than 0.", param="--expires")
    return time.time() + seconds


def _row(token: dict[str, Any]) -> tuple[str, ...]:
    ends = token["expires_at"]
    expires = "never" if ends is None else output.moment(ends)
    if ends is not None and ends <= time.time():
        expires = f"expired {expires}"
    return (
        output.safe(token["name"]),
        output.safe(token["person"]),
        token["role"] + (" (proxy)" if token["for_proxy"] else ""),
        output.safe(", ".join(token["groups"])) or "-",
        "runlane up's own" if token["up"] else output.safe(token["made_by"]),
        output.moment(token["made_at"]),
        expires,
    )
