"""Temporal's own errors, said in Runlane's."""

from collections.abc import Iterator
from contextlib import contextmanager

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from runlane.errors import RunlaneError, TemporalUnreachable
from runlane.temporal import no_namespace

_SILENT = "doesn't answer: {}. Start it (runlane up), or set TEMPORAL_ADDRESS to yours."
_FORBIDS = "refuses the credentials: {}. Check TEMPORAL_API_KEY and TEMPORAL_NAMESPACE."
_UNREACHABLE = {
    RPCStatusCode.UNAVAILABLE: _SILENT,
    RPCStatusCode.DEADLINE_EXCEEDED: _SILENT,
    RPCStatusCode.CANCELLED: _SILENT,
    RPCStatusCode.RESOURCE_EXHAUSTED: "has too much to do: {} The same again may do in a moment.",
    RPCStatusCode.UNAUTHENTICATED: _FORBIDS,
    RPCStatusCode.PERMISSION_DENIED: _FORBIDS,
}
# What a server says whose last write failed: it can't tell any more what its database holds.
_CANT_WRITE = frozenset({"shard status unknown"})


@contextmanager
def explained(client: Client) -> Iterator[None]:
    """Turn what Temporal answers into an error that says what to do.

    Raises:
        RunlaneError: in place of an `RPCError`.
    """
    try:
        yield
    except RPCError as error:
        raise said(error, client) from error


def said(error: RPCError, client: Client) -> RunlaneError:
    """Return the error a caller is told."""
    address = client.service_client.config.target_host
    if error.message in _CANT_WRITE:
        return TemporalUnreachable(
            f"Temporal at {address} can't use its database: {error.message}. If that lasts, its "
            "disk may be full; runlane doctor looks."
        )
    if (how := _UNREACHABLE.get(error.status)) is not None:
        return TemporalUnreachable(f"Temporal at {address} {how.format(error.message)}")
    if is_namespace_missing(error):
        return no_namespace(address, client.namespace)
    if error.status is RPCStatusCode.INVALID_ARGUMENT and "search attribute" in error.message:
        return RunlaneError(
            "The namespace lacks Runlane's search attributes; runlane doctor has the commands "
            "that register them.",
            code="search_attributes_missing",
        )
    return RunlaneError(f"Temporal refuses: {error.message}", code="temporal_refused")


def is_namespace_missing(error: RPCError) -> bool:
    """Tell a missing namespace from a missing workflow: both are answered by NOT_FOUND."""
    return error.status is RPCStatusCode.NOT_FOUND and error.message.startswith("Namespace ")
