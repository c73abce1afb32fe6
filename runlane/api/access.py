"""Who is asking, and what they may do.

| role | may |
|---|---|
| `reader` | read their own runs, their steps and messages |
| `operator` | that, and create, answer, cancel and stop their own runs |
| `approver` | read, and decide calls that wait for people, whoever's the run is |
| `admin` | everything, and everybody's |
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from fastapi import Depends, Request

from runlane.api.refusals import Refusal


class Role(StrEnum):
    """What a token is for."""

    READER = "reader"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


class Power(StrEnum):
    """What an operation needs."""

    READ = "read"
    RUN = "run"
    DECIDE = "decide"
    ADMINISTER = "administer"


_POWERS = {
    Role.READER: {Power.READ},
    Role.OPERATOR: {Power.READ, Power.RUN},
    Role.APPROVER: {Power.READ, Power.DECIDE},
    Role.ADMIN: set(Power),
}


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

    @property
    def scope(self) -> str | None:
        """The owner whose runs this is about; None: everybody's."""
        return None if self.role is Role.ADMIN else self.person

    def may(self, power: Power) -> bool:
        """Tell whether the role has this power."""
        return power in _POWERS[self.role]

    def sees(self, owner: str) -> bool:
        """Tell whether a run of this owner is one's own."""
        return self.scope is None or owner == self.scope


def allowed(power: Power) -> Callable[[Request], Awaitable[Principal]]:
    """Return a dependency: who is asking, refused where the role is too small."""

    async def principal(request: Request) -> Principal:
        asking: Principal = await request.app.state.services.access.principal(request)
        if not asking.may(power):
            roles = " or ".join(role for role in Role if power in _POWERS[role])
            text = f"This needs a token of the role {roles}; {asking.token} is {asking.role}."
            raise Refusal(text, status=403, type="permission_error", code="role_too_small")
        return asking

    return principal


Reader = Annotated[Principal, Depends(allowed(Power.READ))]
Operator = Annotated[Principal, Depends(allowed(Power.RUN))]
Decider = Annotated[Principal, Depends(allowed(Power.DECIDE))]
Admin = Annotated[Principal, Depends(allowed(Power.ADMINISTER))]


class Access:
    """Tells who is asking."""

    def __init__(self, ledger: Any, *, local: Principal | None = None) -> None:
        """Ask the ledger for tokens.

        Args:
            ledger: where they stand.
            local: whoever asks from this machine without a token, while nobody has made one.
        """
        self._ledger = ledger
        self._local = local

    async def principal(self, request: Request) -> Principal:
        """Return who is asking.

        Raises:
            Refusal: nobody who may.
        """
        if self._local is not None:
            return self._local
        raise Refusal("No token.", status=401, type="authentication_error", code="invalid_api_key")
