"""What the API remembers of upstream runs, and how it tells what went wrong with the upstream."""

from types import SimpleNamespace
from typing import cast
from uuid import uuid4

import httpx
import pytest

from runlane.api.passing import told
from runlane.api.services import Services
from runlane.api.translation import RunIds
from runsapi import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    Assistants,
    CredentialsError,
    HeldBackError,
    RunsAPIError,
)
from tests.simulator_process import SimulatorProcess

URL = "https://upstream.example/v1"


def over(upstream: Assistants) -> Services:
    """Return services that know an upstream alone."""
    return cast(Services, SimpleNamespace(upstream=upstream))


async def test_the_run_asked_for_least_lately_is_forgotten(simulator: SimulatorProcess) -> None:
    """What is kept is bounded, and what was forgotten is asked for again."""
    thread_id = f"thread_{uuid4().hex}"
    known = RunIds(remembered=2)
    async with Assistants(simulator.url) as upstream:
        services = over(upstream)
        ids = []
        for _ in range(3):
            run = await upstream.runs.create(thread_id, assistant_id="asst_plain")
            simulator.force(run.id, "completed")
            ids.append(run.id)
        first, second, third = ids
        for each in (first, second, first, third, first, second):
            assert each == await known.ours(services, thread_id, each)
    found = simulator.requests(thread_id=thread_id, operation="runs.retrieve")["data"]
    assert [first, second, third, second] == [each["run_id"] for each in found]
    assert 2 == len(known)


async def test_a_run_that_the_upstream_has_forgotten_keeps_its_id(
    simulator: SimulatorProcess,
) -> None:
    """Its messages are shown all the same; another refusal is not taken for an answer."""
    thread_id = f"thread_{uuid4().hex}"
    known = RunIds()
    async with Assistants(simulator.url) as upstream:
        found = await known.ours(over(upstream), thread_id, "run_gone")
        simulator.fault("runs.retrieve", "server_error", thread_id=thread_id)
        with pytest.raises(APIStatusError):
            await known.ours(over(upstream), thread_id, "run_gone")
    assert "run_gone" == found
    assert 0 == len(known)


@pytest.mark.parametrize(
    ("error", "status", "code", "headers"),
    [
        (
            APIStatusError(401, "Bad key sk-1", url=URL),
            502,
            "upstream_refused_credentials",
            {"x-should-retry": "false"},
        ),
        (
            APIStatusError(403, "Not for sk-1", url=URL),
            502,
            "upstream_refused_credentials",
            {"x-should-retry": "false"},
        ),
        (
            CredentialsError("RUNLANE_UPSTREAM_API_KEY_FILE can't be read: sk-1"),
            502,
            "upstream_refused_credentials",
            {"x-should-retry": "false"},
        ),
        (
            APIStatusError(302, "redirected", url=URL),
            502,
            "upstream_redirects",
            {"x-should-retry": "false"},
        ),
        (
            HeldBackError("sk-1", url=URL, retry_after=6.2),
            503,
            "upstream_unreachable",
            {"retry-after": "7"},
        ),
        (
            APIConnectionError(f"No answer from {URL}", url=URL, sent=False),
            503,
            "upstream_unreachable",
            {"retry-after": "1"},
        ),
        (
            APIConnectionError(f"No answer from {URL}", url=URL, sent=True),
            503,
            "upstream_unreachable",
            {"x-should-retry": "false"},
        ),
        (
            APIResponseError(f"The answer from {URL} is no JSON", url=URL),
            502,
            "upstream_answer_unreadable",
            {"x-should-retry": "false"},
        ),
        (
            APIStatusError(
                429,
                f"Slow down at {URL}",
                code="rate_limit_exceeded",
                headers=httpx.Headers({"Retry-After": "3", "x-internal": "sk-1"}),
                url=URL,
            ),
            429,
            "rate_limit_exceeded",
            {"retry-after": "3"},
        ),
    ],
)
async def test_what_went_wrong_with_the_upstream_is_told(
    error: RunsAPIError, status: int, code: str, headers: dict[str, str]
) -> None:
    """By status and code, without the upstream's key and address; a caller that would make a thing
    twice is not invited to.
    """
    async with Assistants(URL) as upstream:
        refusal = told(error, over(upstream), once=True)
    assert (status, code, headers) == (
        refusal.status,
        refusal.body["error"]["code"],
        refusal.headers,
    )
    assert "sk-1" not in str(refusal.body)
    assert "upstream.example" not in str(refusal.body)
