"""What Temporal answers, said in Runlane's words."""

from types import SimpleNamespace

from temporalio.service import RPCError, RPCStatusCode

from runlane.api.refusals import refusal_for
from runlane.errors import TemporalUnreachable
from runlane.rpc import said


def test_a_busy_temporal_is_asked_again() -> None:
    """It has refused nothing for good: callers of the API are told 503, and to come again."""
    config = SimpleNamespace(target_host="temporal.internal:7233")
    client = SimpleNamespace(service_client=SimpleNamespace(config=config), namespace="default")
    busy = RPCError("Workflow is busy.", RPCStatusCode.RESOURCE_EXHAUSTED, b"")
    error = said(busy, client)  # type: ignore[arg-type]  # no server can be made busy at will
    refusal = refusal_for(error)

    assert isinstance(error, TemporalUnreachable)
    assert "has too much to do: Workflow is busy. The same again" in str(error)
    assert 503 == refusal.status
    assert "retry-after" in {name.lower() for name in refusal.headers}
