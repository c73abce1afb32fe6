"""Runs with tools and people, whose histories are recorded for the replay test.

Each serves its own lab: what its tools do is part of it.
"""

from typing import Any

from activities.notify import NotifyActivities
from runlane.settings import Settings
from runlane.tools.functions import tool
from runlane.tools.registry import Registry
from runlane.tools.toolbox import RegisteredTools
from runlane.webhooks import receivers
from tests.clerk import Clerk, counted, send, undecided, waiting
from tests.lab import QUICK, Lab, LabRun, eventually
from tests.till import Till, refund
from tests.webhook_receiver import SECRET, webhook_receiver
from workflows.contract import notices_workflow_id

_QUICK: dict[str, Any] = {"queued": 0.05, "in_progress": 0.05}
_SELDOM = QUICK.model_copy(update={"look_floor": 60.0})
"""Looks at an upstream that waits make a history long, and say nothing."""
_BOARD = {"groups": ["board"]}


@tool(policy="auto")
async def note(text: str) -> str:
    """Write something down."""
    return f"noted {text}"


@tool(policy="auto", read_only=True)
async def look_up(order: int) -> str:
    """Look an order up."""
    return f"{order} has shipped"


@tool(policy="approve", groups=["desk"], reminders=["1s"])
async def pay(amount: int) -> str:
    """Pay."""
    return f"{amount} paid"


def _asks(*calls: dict[str, Any]) -> dict[str, Any]:
    return {**_QUICK, "calls": list(calls)}


async def tools_that_need_nobody(lab: Lab) -> LabRun:
    """Two rounds that workers answer: one call only reads, one changes something."""
    calls = [
        {"name": "look_up", "arguments": {"order": 1}},
        {"name": "note", "arguments": {"text": "a"}},
    ]
    await lab.scenario(rounds=[_asks(*calls), _asks(calls[1]), _QUICK])
    async with lab.worker(tools=RegisteredTools(Registry.of(look_up, note))):
        run = await lab.start(with_tools=True, timing=_SELDOM)
        await run.result()
    return run


async def quorum_after_an_escalation(lab: Lab) -> LabRun:
    """The first group is silent, and two of the next one approve; a forged word counts nothing."""
    clerk = Clerk()
    till = Till(deadline="5s", outcome="escalate", groups=["desk", "board"], approvals=2)
    await lab.scenario(rounds=[_asks(refund()), _QUICK])
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        run = await lab.start(with_tools=True, requested_by="eve", timing=_SELDOM)
        await run.until(lambda view: [c.groups for c in undecided(view)] == [["board"]])
        await Clerk().decide("approve", run, "mallory", **_BOARD)
        await counted(run)
        await clerk.decide("approve", run, "ada", **_BOARD)
        await run.until(lambda view: undecided(view)[0].approved_by == ["ada"])
        await clerk.decide("approve", run, "bob", **_BOARD)
        await run.result()
    return run


async def uncertain_call_settled(lab: Lab) -> LabRun:
    """An approved tool gives no answer in time; it did not run, a person says, so it runs."""
    clerk, till = Clerk(), Till(at_most_once=True, timeout="0.5s")
    till.hangs = 1
    await lab.scenario(rounds=[_asks(refund()), _QUICK])
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        run = await lab.start(with_tools=True, timing=_SELDOM)
        await clerk.decide("approve", run)
        await run.until(lambda view: [c.state for c in undecided(view)] == ["uncertain"])
        await clerk.decide("approve", run, "bob")
        await run.result()
    return run


async def approved_while_parked(lab: Lab) -> LabRun:
    """The upstream run has expired; the call runs when another one asks for it again."""
    clerk, till = Clerk(), Till()
    await lab.scenario(rounds=[_asks(refund()), _QUICK])
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        run = await lab.start(with_tools=True)
        call = await waiting(run)
        await lab.force(str((await run.view()).runlane.upstream_run_id), "expired")
        await run.until(lambda view: view.runlane.parked)
        await send(run, clerk.made("approve", run, call, "ada"))
        await run.result()
    return run


async def notices_and_what_is_left_of_them(lab: Lab) -> LabRun:
    """A request and a reminder are taken; the run is cancelled while the receiver is away."""
    with webhook_receiver() as receiver:
        environ = {"RUNLANE_WEBHOOK_URL": receiver.url, "RUNLANE_WEBHOOK_SECRET": SECRET}
        notify = NotifyActivities(receivers(Settings.from_env(environ)))
        tools = RegisteredTools(Registry.of(pay), notifies=True)

        async def taken() -> int:
            return len(receiver.taken())

        await lab.scenario(rounds=[_asks({"name": "pay", "arguments": {"amount": 5}}), _QUICK])
        async with lab.worker(tools=tools, notify=notify):
            run = await lab.start(with_tools=True, timing=_SELDOM)
            await eventually(taken, lambda count: count == 2)
            receiver.status = 503
            await run.cancel()
            await run.result()
            receiver.status = 204
            await lab.client.get_workflow_handle(notices_workflow_id(run.id)).result()
    return run


SCENARIOS = (
    tools_that_need_nobody,
    quorum_after_an_escalation,
    uncertain_call_settled,
    approved_while_parked,
    notices_and_what_is_left_of_them,
)
