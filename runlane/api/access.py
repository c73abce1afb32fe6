"""Who is asking, and what they may do; `runlane.roles` says what each role may.

A request shows its token as `Authorization: Bearer rl_…`, or in `api-key`, as SDKs for Azure do.
What the ledger has said of a token is believed for less than 5 s, so that one which is revoked
counts nowhere after that time, on any number of servers.

**Open.** `runlane up` names a person whom it serves without a token, as an admin, while nobody has
made one (its own, for its own user, doesn't count). That holds for programs of this machine alone:
the request comes from a loopback address, through no proxy, asks for a loopback name, and is no web
page's of elsewhere; a page could else have its reader's browser ask (DNS rebinding). SDKs always
send some key, so one that isn't of our form counts as none. One that is of our form must be right.

**A proxy with single sign-on.** With `RUNLANE_TRUSTED_USER_HEADER` set, a token that was made for a
proxy may name another person in that header: the request is then theirs, with the token's role and
groups, its name, and whoever made it. Of any other request the header is not read: else whoever has
a token could be anybody. The proxy must take the header out of what its own callers send. Without
the header the request is the person's whom the token was made for.
"""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from ledger import Ledger
from ledger.tokens import Token
from runlane import tokens
from runlane.api.known_tokens import KnownTokens
from runlane.api.refusals import Refusal
from runlane.errors import InvalidRequest
from runlane.roles import POWERS, Power, Role

__all__ = [
    "Access",
    "Admin",
    "Decider",
    "Operator",
    "Power",
    "Principal",
    "Reader",
    "Role",
    "allowed",
]

TOKEN_IN_SCOPE = "runlane.token"  # noqa: S105 - a key's name
"""Where the name of a request's token stands in its ASGI scope, for the log."""

_PROXIED = ("forwarded", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip", "via")
_FORWARDED = "x-forwarded-"
"""What many other headers of proxies begin with."""
_scheme = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="Made by `runlane token create`. What stands beside it is the power it needs.",
)


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Whoever is asking."""

    person: str
    role: Role
    groups: tuple[str, ...] = ()
    token: str | None = None
    """The name of the token; none where no token was needed."""
    made_by: str | None = None
    """The person who made the token."""
    digest: str | None = field(default=None, repr=False)
    """Of the token's secret."""

    @property
    def scope(self) -> str | None:
        """The owner whose runs this is about; None: everybody's."""
        return None if self.role is Role.ADMIN else self.person

    def may(self, power: Power) -> bool:
        """Tell whether the role has this power."""
        return power in POWERS[self.role]

    def sees(self, owner: str) -> bool:
        """Tell whether a run of this owner is one's own."""
        return self.scope is None or owner == self.scope


def allowed(power: Power) -> Callable[[Request], Awaitable[Principal]]:
    """Return a dependency: who is asking, refused where the role is too small."""

    async def principal(
        request: Request, _: Annotated[object, Depends(_scheme)] = None
    ) -> Principal:
        access: Access = request.app.state.services.access
        asking = await access.principal(request)
        if not asking.may(power):
            roles = " or ".join(role for role in Role if power in POWERS[role])
            text = f"This needs a token of the role {roles}; {asking.token} is {asking.role}."
            raise Refusal(text, status=403, type="permission_error", code="role_too_small")
        return asking

    return principal


# The power stands in the OpenAPI document, beside the scheme.
Reader = Annotated[Principal, Security(allowed(Power.READ), scopes=[Power.READ])]
Operator = Annotated[Principal, Security(allowed(Power.RUN), scopes=[Power.RUN])]
Decider = Annotated[Principal, Security(allowed(Power.DECIDE), scopes=[Power.DECIDE])]
Admin = Annotated[Principal, Security(allowed(Power.ADMINISTER), scopes=[Power.ADMINISTER])]


class Access:
    """Tells who is asking."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        local: Principal | None = None,
        trusted_user_header: str | None = None,
    ) -> None:
        """Ask the ledger for tokens.

        Args:
            ledger: where they stand.
            local: whoever asks from this machine without a token, while nobody has made one.
            trusted_user_header: in which a proxy names people, in small letters.
        """
        self.known = KnownTokens(ledger)
        self._local = local
        self._header = trusted_user_header

    async def principal(self, request: Request) -> Principal:
        """Return who is asking.

        Raises:
            Refusal: nobody who may.
            LedgerError: the ledger was to be asked, and doesn't answer.
        """
        secret = _secret(request)
        if secret is None or not tokens.is_ours(secret):
            is_local = self._local is not None and _is_of_this_machine(request)
            if self._local is not None and is_local and not await self.known.any_made():
                return self._local
            raise _unauthorized(is_there=secret is not None)
        found = await self.known.find(tokens.digest_of(secret))
        if found is None or not _is(found, secret) or not found.counts(datetime.now(UTC)):
            raise _unauthorized(is_there=True)
        request.scope[TOKEN_IN_SCOPE] = found.name
        return Principal(
            person=self._named(request, found) or found.person,
            role=Role(found.role),
            groups=found.groups,
            token=found.name,
            made_by=found.made_by,
            digest=found.digest,
        )

    async def check(self, asking: Principal) -> None:
        """Refuse whoever was let in a while ago, and would not be now.

        Raises:
            Refusal: the token is revoked or has expired; without one: somebody has made one.
            LedgerError: the ledger was to be asked, and doesn't answer.
        """
        if asking.digest is None:
            counts = not await self.known.any_made()
        else:
            found = await self.known.find(asking.digest)
            counts = found is not None and found.counts(datetime.now(UTC))
        if not counts:
            raise _unauthorized(is_there=asking.digest is not None)

    def _named(self, request: Request, token: Token) -> str | None:
        if self._header is None or not token.is_for_proxy:
            return None
        values = [value for value in request.headers.getlist(self._header) if value.strip()]
        if not values:
            return None
        try:
            # A header is bytes; names aren't all Latin.
            [name] = [value.encode("latin-1").decode() for value in values]
            return tokens.checked_person(self._header, name)
        except (ValueError, InvalidRequest):
            text = f"{self._header} must name one person, in UTF-8, at most 255 characters."
            raise Refusal(text, param=self._header, code="invalid_person") from None


def _secret(request: Request) -> str | None:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return request.headers.get("api-key", "").strip() or None


def _is(token: Token, secret: str) -> bool:
    return hmac.compare_digest(token.digest, tokens.digest_of(secret))


def _unauthorized(*, is_there: bool) -> Refusal:
    # Nobody is told whether a token was ever one: unknown, revoked and expired are alike.
    text = (
        "Incorrect API key provided."
        if is_there
        else ("No API key provided: send a token in the header Authorization, as Bearer TOKEN.")
    )
    return Refusal(text, status=401, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def _is_of_this_machine(request: Request) -> bool:
    headers = request.headers
    if request.client is None or not _is_loopback(request.client.host):
        return False
    if any(name in _PROXIED or name.startswith(_FORWARDED) for name in headers):
        return False
    # There are proxies that add no header unless told to, and ask in the HTTP of 1996.
    if request.scope.get("http_version") == "1.0":
        return False
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not _is_loopback(_name_in(f"//{hosts[0]}")):
        return False
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    origins = headers.getlist("origin")
    return all(origin.lower() == f"http://{hosts[0]}".lower() for origin in origins)


def _name_in(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
