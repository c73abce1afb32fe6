"""Notices: what is sent to a webhook, how it is signed, and what comes of each answer."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

import activities.notify
from activities.notify import Notice, NoticeEvent, NotifyActivities, notice_id
from runlane.monitoring.metrics import NOTICE_OUTCOMES, NOTICES
from runlane.settings import Settings, SettingsError
from runlane.webhooks import receivers
from tests.webhook_receiver import HANG, SECRET, WebhookReceiver, webhook_receiver

OTHER_SECRET = "whsec_" + "REVG" * 8

NOTICE = Notice(
    id=notice_id("run_1", "call_1", NoticeEvent.REQUESTED, 0),
    event=NoticeEvent.REQUESTED,
    at=1_790_000_000.25,
    run_id="run_1",
    tool_call_id="call_1",
    tool="refund",
    reason="over 100 euros",
    groups=["desk"],
    need=2,
    since=1_790_000_000.0,
    deadline=1_790_003_600.0,
    arguments_digest="sha256:a",
    tool_digest="sha256:t",
)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """Somebody who listens."""
    with webhook_receiver() as each:
        yield each


def settings(*urls: str, **more: str) -> Settings:
    environ = {"RUNLANE_WEBHOOK_URL": ",".join(urls), "RUNLANE_WEBHOOK_SECRET": SECRET}
    return Settings.from_env(environ | more)


async def send(settings: Settings, *settled: str) -> list[Any]:
    """Run one try of the activity; return what it heartbeat last."""
    beats: list[Any] = []
    environment = ActivityEnvironment()
    environment.info = replace(
        environment.info, heartbeat_details=[list(settled)] if settled else []
    )
    environment.on_heartbeat = lambda *details: beats.append(details[0])
    await environment.run(NotifyActivities(receivers(settings)).send, NOTICE)
    return beats[-1] if beats else []


async def test_what_a_receiver_gets(receiver: WebhookReceiver) -> None:
    """It is signed, says who is asked for what by when, and how to look at it."""
    await send(settings(receiver.url))

    (got,) = receiver.got
    assert got.headers["content-type"] == "application/json"
    assert got.id == NOTICE.id
    assert got.verified() == {
        "type": "approval.requested",
        "timestamp": "2026-09-21T14:13:20Z",
        "data": {
            "run_id": "run_1",
            "tool_call_id": "call_1",
            "tool": "refund",
            "reason": "over 100 euros",
            "approvers": [],
            "groups": ["desk"],
            "approvals": {"have": 0, "need": 2},
            "since": "2026-09-21T14:13:20Z",
            "deadline": "2026-09-21T15:13:20Z",
            "arguments_digest": "sha256:a",
            "tool_digest": "sha256:t",
            "command": "runlane approval show call_1 --run run_1",
        },
    }


async def test_what_came_of_each_try_is_counted(receiver: WebhookReceiver) -> None:
    """So that a receiver that is down can be alerted on."""

    def counted() -> list[float]:
        return [NOTICES.labels(outcome)._value.get() for outcome in NOTICE_OUTCOMES]

    before = counted()
    await send(settings(receiver.url))
    receiver.status = 410
    await send(settings(receiver.url))
    receiver.status = 500
    with pytest.raises(ApplicationError):
        await send(settings(receiver.url))

    assert [1.0, 1.0, 1.0] == [now - then for now, then in zip(counted(), before, strict=True)]


async def test_every_secret_signs(receiver: WebhookReceiver, tmp_path: Path) -> None:
    """While it changes, a receiver may know the old one or the new one; a file is read anew."""
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n{OTHER_SECRET}\n")
    given = settings(receiver.url, RUNLANE_WEBHOOK_SECRET="", RUNLANE_WEBHOOK_SECRET_FILE=str(file))
    await send(given)
    for secret in (SECRET, OTHER_SECRET):
        receiver.got[0].verified(secret)

    file.write_text(OTHER_SECRET)
    await send(given)
    with pytest.raises(Exception, match="No matching signature"):
        receiver.got[1].verified(SECRET)


@pytest.mark.parametrize("status", [301, 400, 401, 404, 429, 500, 503])
async def test_what_is_not_taken_is_an_error(receiver: WebhookReceiver, status: int) -> None:
    """So that it is tried again. Redirects aren't followed, and the address isn't repeated."""
    receiver.status = status
    receiver.headers = {"Location": receiver.url}
    with pytest.raises(ApplicationError, match=f"answered {status}") as caught:
        await send(settings(receiver.url))

    assert 1 == len(receiver.got)
    assert "4711" not in str(caught.value)
    assert not caught.value.non_retryable


def test_notices_are_signed_or_not_sent() -> None:
    """A worker with webhooks and without a secret doesn't start."""
    with pytest.raises(SettingsError, match=r"^RUNLANE_WEBHOOK_SECRET: must be set"):
        receivers(settings("https://a.test", RUNLANE_WEBHOOK_SECRET=""))


async def test_gone_ends_it(receiver: WebhookReceiver) -> None:
    """A receiver that answers 410 gets no second try."""
    receiver.status = 410
    (settled,) = await send(settings(receiver.url))
    await send(settings(receiver.url), settled)

    assert 1 == len(receiver.got)


async def test_one_that_hangs_or_is_away_holds_nobody_up(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others get theirs at once, and once; the error names who hasn't got it."""
    monkeypatch.setattr(activities.notify, "ATTEMPT_TIMEOUT", timedelta(seconds=0.5))
    environment = ActivityEnvironment()
    beats: list[Any] = []
    environment.on_heartbeat = lambda *details: beats.append(details[0])
    with webhook_receiver() as hangs:
        hangs.status = HANG
        given = settings(hangs.url, receiver.url, "http://127.0.0.1:9/closed")
        with pytest.raises(ApplicationError) as caught:
            await environment.run(NotifyActivities(receivers(given)).send, NOTICE)
        assert "no answer in time" in str(caught.value)
        assert "127.0.0.1:9: ConnectError" in str(caught.value)
        assert ([NOTICE.id], [NOTICE.id]) == (
            [got.id for got in receiver.got],
            [got.id for got in hangs.got],
        )
        # The next try knows by the heartbeat.
        with pytest.raises(ApplicationError):
            await send(given, *beats[-1])
        assert (1, 2) == (len(receiver.got), len(hangs.got))
