"""What a failed request means for an item of a batch, and for the batch."""

import pytest
from temporalio.testing import ActivityEnvironment

from activities.lane_failures import Outcome, PauseBatch, Refused, Trouble, of_error
from runsapi import (
    APIConnectionError,
    APIStatusError,
    CredentialsError,
    HeldBackError,
    RunsAPIError,
)


async def meaning(error: RunsAPIError, *, creating: bool = True) -> Outcome:
    """Ask within an activity, whose attempt the errors' own backoff looks at."""

    async def ask() -> Outcome:
        return of_error(error, creating=creating)

    return await ActivityEnvironment().run(ask)


@pytest.mark.parametrize("creating", [True, False])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (APIStatusError(429, "no money", code="insufficient_quota"), "quota"),
        (APIStatusError(401, "no key"), "credentials"),
        (APIStatusError(403, "not yours"), "credentials"),
        (CredentialsError("no such file"), "credentials"),
    ],
)
async def test_what_somebody_must_mend_pauses_the_batch(
    error: RunsAPIError, kind: str, *, creating: bool
) -> None:
    """Whether the request was to create or to look: no item fails of it."""
    found = await meaning(error, creating=creating)

    assert isinstance(found, PauseBatch)
    assert kind == found.kind


@pytest.mark.parametrize(
    ("error", "kind", "counts", "is_outage", "is_void"),
    [
        (APIStatusError(500, "x"), "unavailable", True, False, False),
        (APIStatusError(503, "x"), "unavailable", True, True, False),
        (APIStatusError(429, "slowly"), "rate_limited", False, False, False),
        (APIConnectionError("lost"), "unavailable", True, True, False),
        (APIConnectionError("refused", sent=False), "unavailable", False, True, True),
        (HeldBackError("its turn didn't come"), "rate_limited", False, False, False),
    ],
)
async def test_what_passes_puts_the_item_back(
    error: RunsAPIError, kind: str, *, counts: bool, is_outage: bool, is_void: bool
) -> None:
    """Only what the item may have brought about counts as one of its tries."""
    found = await meaning(error)

    assert isinstance(found, Trouble)
    assert (kind, counts) == (found.kind, found.counts)
    assert (is_outage, is_void) == (found.is_outage, found.is_void)


async def test_the_upstreams_wish_is_kept() -> None:
    """`retry-after` says when the item may be tried again."""
    found = await meaning(APIStatusError(429, "slowly", headers={"retry-after": "7"}))

    assert isinstance(found, Trouble)
    assert 7.0 == found.after


@pytest.mark.parametrize(
    ("status", "creating", "kind"),
    [(400, True, "invalid_prompt"), (404, True, "server_error"), (404, False, "not_found")],
)
async def test_what_no_try_mends_is_the_items_own(status: int, creating: bool, kind: str) -> None:
    """With the upstream's status and words."""
    found = await meaning(APIStatusError(status, "No such thing."), creating=creating)

    assert isinstance(found, Refused)
    assert (kind, status) == (found.kind, found.status_code)
    assert "No such thing" in str(found)
