"""Tokens of the HTTP API as people handle them: made, listed, revoked.

A secret is `rl_` and 256 bits. It is shown once; the ledger has its SHA-256, which nobody can turn
back, and by which it is found.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from activities import trail
from activities.decision import MAX_GROUPS, MAX_NAME
from ledger import Ledger
from ledger.errors import TokenNameTaken
from ledger.tokens import Token
from runlane.errors import InvalidRequest, NotFound, Refused
from runlane.roles import Role

PREFIX = "rl_"
_SECRET_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class TokenExists(Refused):
    """There is a token of this name. Revoke it first, or choose another name."""

    code = "token_exists"


class UpsOwnToken(Refused):
    """A token is that of a `runlane up`: commands on its machine go through its API with it."""

    code = "ups_own_token"


class TokenNotFound(NotFound):
    """There is no token of this name, or it is revoked."""

    code = "token_not_found"


@dataclass(frozen=True)
class Made:
    """A token that was made just now."""

    token: Token
    secret: str
    """What its holder sends; it is nowhere else."""

    def __repr__(self) -> str:
        """Keep the secret out of whatever prints this."""
        return f"Made({self.token!r})"


def new_secret() -> str:
    """Return the secret of a token that is to be made."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def is_ours(secret: str) -> bool:
    """Tell whether it looks like a token of Runlane's, and not like another service's key."""
    return secret.startswith(PREFIX)


def digest_of(secret: str) -> str:
    """Return what the ledger has of a secret."""
    return "sha256:" + hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


async def create(
    ledger: Ledger,
    *,
    name: str,
    person: str,
    role: str,
    made_by: str,
    groups: Sequence[str] = (),
    expires_at: float | None = None,
    is_for_proxy: bool = False,
    is_ups: bool = False,
) -> Made:
    """Make a token. With the answer lost, revoke the name and make another: nobody has its secret.

    Args:
        ledger: where it is to stand.
        name: by which it is revoked and shown: letters, digits and `. _ -`, at most 64.
        person: whose word the holder's is.
        role: one of `Role`.
        made_by: the person who makes it.
        groups: the person's, at most 100.
        expires_at: Unix seconds, from which on it counts no more; None: never.
        is_for_proxy: its holder identifies people, and names them in the header that
            `RUNLANE_TRUSTED_USER_HEADER` says; nobody else is listened to there.
        is_ups: `runlane up` makes it for its own user; whoever asks from this machine is still
            served without a token.

    Raises:
        InvalidRequest: something given can't be used.
        TokenExists: another token has the name.
        LedgerError: the ledger doesn't answer, or can't be used.
    """
    if not _NAME.fullmatch(name):
        text = "name must be 1 to 64 letters, digits and . _ -, and not begin with one of these."
        raise InvalidRequest(text, param="name")
    if role not in list(Role):
        raise InvalidRequest(f"role must be one of {', '.join(Role)}.", param="role")
    at = datetime.now(UTC)
    ends = None if expires_at is None else _instant(expires_at)
    if ends is not None and ends <= at:
        raise InvalidRequest("expires_at must be in the future.", param="expires_at")
    if len(groups) > MAX_GROUPS:
        raise InvalidRequest(f"groups must be at most {MAX_GROUPS}.", param="groups")
    secret = new_secret()
    token = Token(
        digest=digest_of(secret),
        name=name,
        person=checked_person("person", person),
        role=Role(role).value,
        groups=tuple(dict.fromkeys(checked_person("groups", each) for each in groups)),
        made_by=checked_person("made_by", made_by),
        made_at=at,
        expires_at=ends,
        is_for_proxy=is_for_proxy,
        is_ups=is_ups,
    )
    facts = {
        "person": token.person, "role": token.role, "groups": list(token.groups),
        "expires_at": None if ends is None else ends.isoformat(), "for_proxy": is_for_proxy,
    }  # fmt: skip
    event = trail.control(
        what="create", scope=f"token {name}", by=token.made_by, reason=None, at=at, facts=facts
    )
    try:
        return Made(await ledger.tokens.create(token, [event]), secret)
    except TokenNameTaken:
        text = f"There is a token {name} already. Revoke it first, or choose another name."
        raise TokenExists(text, param="name") from None


async def revoke(ledger: Ledger, name: str, *, by: str, is_up: bool = False) -> Token:
    """Let a token count no more: at once here, and within 5 seconds at every other server.

    Args:
        ledger: where it stands.
        name: of the token.
        by: the person who revokes it.
        is_up: `runlane up` takes back its own.

    Raises:
        TokenNotFound: no token of this name stands.
        UpsOwnToken: it is that of a `runlane up`, and somebody else takes it back.
        LedgerError: the ledger doesn't answer, or can't be used.
    """
    at = datetime.now(UTC)
    person = checked_person("by", by)
    found = None
    standing = [] if is_up else await ledger.tokens.standing()
    if any(each.is_ups and each.name == name for each in standing):
        text = (
            f"{name} is the own token of `runlane up`, by which the commands on its machine go "
            "through the API. It ends with `runlane up`."
        )
        raise UpsOwnToken(text, param="name")
    if _NAME.fullmatch(name):
        event = trail.control(what="revoke", scope=f"token {name}", by=person, reason=None, at=at)
        found = await ledger.tokens.revoke(name, by=person, at=at, events=[event])
    if found is None:
        raise TokenNotFound(f"There is no token {name!r}.", param="name")
    return found


def as_json(token: Token) -> dict[str, Any]:
    """Return a token as lists show it: never its secret, nor what the ledger has of it."""
    return {
        "object": "token",
        "name": token.name,
        "person": token.person,
        "role": token.role,
        "groups": list(token.groups),
        "made_by": token.made_by,
        "made_at": token.made_at.timestamp(),
        "expires_at": None if token.expires_at is None else token.expires_at.timestamp(),
        "revoked_at": None if token.revoked_at is None else token.revoked_at.timestamp(),
        "for_proxy": token.is_for_proxy,
        "up": token.is_ups,
    }


def checked_person(param: str, text: str) -> str:
    """Return the name of a person or a group, without spaces around it.

    Raises:
        InvalidRequest: it is empty, too long or can't be printed.
    """
    found = text.strip()
    if not 1 <= len(found) <= MAX_NAME or not found.isprintable():
        raise InvalidRequest(f"{param} must be a name of 1 to {MAX_NAME} characters.", param=param)
    return found


def _instant(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        text = "expires_at must be a time in Unix seconds."
        raise InvalidRequest(text, param="expires_at") from None
