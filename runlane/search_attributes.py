"""The search attributes Runlane's lists need: are they registered, register them, or say how.

An unknown attribute fails every workflow task that sets it, so a worker asks before it starts.
"""

from collections.abc import Mapping

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

# They are had from here.
from workflows.shown import ASSISTANT as ASSISTANT  # noqa: PLC0414 - the import says so
from workflows.shown import BLOCKED as BLOCKED  # noqa: PLC0414 - likewise
from workflows.shown import CREATED as CREATED  # noqa: PLC0414 - likewise
from workflows.shown import OWNER as OWNER  # noqa: PLC0414 - likewise
from workflows.shown import STATUS as STATUS  # noqa: PLC0414 - likewise
from workflows.shown import THREAD as THREAD  # noqa: PLC0414 - likewise

TYPES: Mapping[str, str] = {
    STATUS.name: "Keyword",
    THREAD.name: "Keyword",
    ASSISTANT.name: "Keyword",
    CREATED.name: "Datetime",
    BLOCKED.name: "Keyword",
    OWNER.name: "Keyword",
}
"""Name and type, as Temporal's command line spells them."""

_INDEXED_TYPES = {
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "Datetime": IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
}
# One query that names all of them. It matches nothing; only whether it is valid counts.
_PROBE = " AND ".join(
    f"{name} = '1970-01-01T00:00:00Z'" if kind == "Datetime" else f"{name} = '-'"
    for name, kind in TYPES.items()
)


class SearchAttributesMissing(Exception):
    """Search attributes are not registered and can't be from here; the message has the commands."""

    def __init__(self, namespace: str, reason: str) -> None:
        """Say why they were not registered, and what to run."""
        lines = "\n".join(f"  {command}" for command in commands(namespace))
        super().__init__(
            f"Namespace {namespace!r} lacks Runlane's search attributes, and registering them "
            f"failed: {reason}. Run one of these, as somebody who may:\n{lines}"
        )
        self.namespace = namespace
        self.reason = reason


def commands(namespace: str) -> list[str]:
    """The commands that register the attributes: for a server of one's own, for Temporal Cloud."""
    own = " ".join(f"--name {name} --type {kind}" for name, kind in TYPES.items())
    cloud = " ".join(f'--sa "{name}={kind}"' for name, kind in TYPES.items())
    return [
        f"temporal operator search-attribute create --namespace {namespace} {own}",
        f"tcld namespace search-attributes add --namespace {namespace} {cloud}",
    ]


async def registered(client: Client) -> bool:
    """Whether workflows may set the attributes: asked by a count query, which everybody may send.

    Raises:
        RPCError: the server can't be asked.
    """
    try:
        await client.count_workflows(_PROBE)
    except RPCError as error:
        if error.status is RPCStatusCode.INVALID_ARGUMENT:
            return False
        raise
    return True


async def register(client: Client) -> None:
    """Register those that are missing; a server may take seconds until `registered` is true.

    Raises:
        SearchAttributesMissing: the caller may not, the server has no room for them, or one is
            registered with another type.
    """
    namespace = client.namespace
    try:
        present = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=namespace)
        )
        wanted = {name: _INDEXED_TYPES[kind] for name, kind in TYPES.items()}
        for name, kind in present.custom_attributes.items():
            if name in wanted and wanted.pop(name) != kind:
                reason = f"{name} is registered as another type than {TYPES[name]}"
                raise SearchAttributesMissing(namespace, reason)
        if wanted:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=namespace, search_attributes=wanted)
            )
    except RPCError as error:
        # Two workers started at once: the other one was first.
        if error.status is RPCStatusCode.ALREADY_EXISTS:
            return
        raise SearchAttributesMissing(namespace, error.message) from error
