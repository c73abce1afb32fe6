"""How Runlane's errors are told over HTTP."""

import pytest

from runlane import errors
from runlane.api.refusals import refusal_for

ADDRESS = "10.1.2.3:7233"


@pytest.mark.parametrize(
    "error",
    [
        errors.TemporalUnreachable(f"Temporal at {ADDRESS} doesn't answer."),
        errors.NamespaceMissing(f"Temporal at {ADDRESS} has no namespace."),
        errors.UpstreamUnreachable(f"The upstream http://{ADDRESS}/v1 doesn't answer."),
        errors.LedgerUnreachable(f"PostgreSQL at {ADDRESS} doesn't answer."),
        errors.NoWorker(f"No worker at {ADDRESS} takes it."),
        errors.StartUncertain(f"Temporal at {ADDRESS} lost it.", "run_1"),
    ],
)
def test_no_caller_is_told_where_our_parts_are(error: errors.RunlaneError) -> None:
    """An error says what doesn't answer, and to try again; the address is the log's alone."""
    refusal = refusal_for(error)
    assert 503 == refusal.status
    assert ADDRESS not in str(refusal.body)
    assert error.code == refusal.body["error"]["code"]


def test_a_start_that_may_have_happened_is_not_sent_again() -> None:
    """It names the run, and the SDK doesn't try again by itself."""
    refusal = refusal_for(errors.StartUncertain("Lost.", "run_1"))
    assert ("run_1", "false") == (refusal.body["run_id"], refusal.headers["x-should-retry"])
    assert "run_1" in refusal.body["error"]["message"]
