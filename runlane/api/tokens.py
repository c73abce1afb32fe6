"""Tokens over HTTP: made, listed and revoked by admins."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from runlane import tokens
from runlane.api.access import Admin
from runlane.api.ids import TokenName
from runlane.api.plain import Plain
from runlane.api.services import Given
from runlane.roles import Role

routes = APIRouter(prefix="/v1/tokens", tags=["tokens"])


class TokenCreate(Plain):
    """What a token is to be for."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"name": "shop", "person": "shop-backend", "role": "operator"}]
        },
    )

    name: StrictStr = Field(description="Letters, digits and `. _ -`, at most 64.")
    person: StrictStr = Field(description="Whose word the holder's is.")
    role: Role
    groups: list[StrictStr] = Field(default_factory=list)
    expires_at: float | None = Field(
        default=None, description="Unix seconds, from which on it counts no more."
    )
    for_proxy: StrictBool = Field(
        default=False,
        description="Its holder identifies people, and names them in the trusted header.",
    )


class TokenShown(BaseModel):
    """A token as lists show it."""

    object: Literal["token"] = "token"
    name: str
    person: str
    role: Role
    groups: list[str]
    made_by: str
    made_at: float
    expires_at: float | None
    revoked_at: float | None
    for_proxy: bool
    up: bool = Field(description="`runlane up`'s own. It ends with it, and isn't revoked.")


class TokenMade(TokenShown):
    """A token that was made just now."""

    token: str = Field(description="The secret. It is shown here and nowhere else.")


class TokenList(BaseModel):
    """All tokens that stand."""

    object: Literal["list"] = "list"
    data: list[TokenShown]


@routes.post("", operation_id="createToken")
async def create_token(body: TokenCreate, asking: Admin, services: Given) -> TokenMade:
    """Make a token. Where the answer is lost, revoke the name and make another."""
    made = await tokens.create(
        services.ledger,
        name=body.name,
        person=body.person,
        role=body.role,
        made_by=asking.person,
        groups=body.groups,
        expires_at=body.expires_at,
        is_for_proxy=body.for_proxy,
    )
    services.access.known.forget()
    return TokenMade.model_validate({**tokens.as_json(made.token), "token": made.secret})


@routes.get("", operation_id="listTokens")
async def list_tokens(_: Admin, services: Given) -> TokenList:
    """List the tokens that aren't revoked, by name, expired ones too."""
    standing = await services.ledger.tokens.standing()
    return TokenList.model_validate({"data": [tokens.as_json(each) for each in standing]})


@routes.delete("/{name}", operation_id="revokeToken")
async def revoke_token(name: TokenName, asking: Admin, services: Given) -> TokenShown:
    """Revoke a token: at once at this server, and within 5 seconds at any other."""
    revoked = await tokens.revoke(services.ledger, name, by=asking.person)
    services.access.known.forget()
    return TokenShown.model_validate(tokens.as_json(revoked))
