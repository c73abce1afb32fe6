"""One attempt at a call, by the activity's own class."""

from dataclasses import replace
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.decision import NoKeys
from activities.tool_runs import ToolRun
from activities.tools import Busy, Call, CallInput, Facts, Handling, Ran, Rule
from ledger import Ledger
from ledger.contents import digest_of

CALL = Call(id="call_1", name="look", arguments="{}")
RULE = Rule(
    tool_digest=digest_of("look"),
    arguments_digest=digest_of("{}"),
    policy="auto",
    read_only=True,
)


class FullHouse:
    """A process in which no tool can run now."""

    async def handling(self, call: Call, asked_at: float) -> Handling:
        """Leave the call to the worker."""
        return Handling(by="worker", rule=RULE)

    def tries(self, name: str) -> int:
        """Allow one."""
        return 1

    async def run(self, call: Call, facts: Facts) -> Ran:
        """Run nothing."""
        raise Busy("every thread is taken")


async def test_a_worker_without_room_has_not_died_of_the_tool(ledger: Ledger) -> None:
    """It leaves the count of dead workers as it found it, or five such would answer the call."""
    beats: list[dict[str, Any]] = []
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, heartbeat_details=[{"begun": 3}])
    environment.on_heartbeat = lambda *details: beats.append(dict(details[0]))

    async def attempt() -> None:
        await ToolRun(ledger, FullHouse(), NoKeys(), CallInput(call=CALL, rule=RULE), {}).answer()

    with pytest.raises(Busy):
        await environment.run(attempt)

    assert [4, 3] == [beat["begun"] for beat in beats]
