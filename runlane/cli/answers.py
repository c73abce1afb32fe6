"""Commands around a run that waits: poll it, answer it, look at its steps."""

# ruff: noqa: FBT002 - typer reads a command's options from its parameters

from typing import TYPE_CHECKING, Annotated, Any

import typer

from runlane.cli import inputs, output, progress, session
from runlane.cli.options import Json, RunId, Wait
from runlane.errors import AnswersRefused, ExitCode

if TYPE_CHECKING:
    from runlane.orchestrator import Runlane
    from runsapi import RunStep


def add_to(app: typer.Typer) -> None:
    """Give the commands their names."""
    app.command("poll")(_poll)
    app.command("submit")(_submit)
    app.command("steps")(_steps)


def _poll(
    run_id: RunId,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="30s", help="Wait no longer; the run goes on (exit 7)."),
    ] = None,
    json: Json = False,
) -> None:
    """Wait until a run needs answers or has ended.

    Exit code 4: it waits for answers; 0: it completed; 3: it ended otherwise; 7: --timeout passed.
    """
    limit = inputs.duration(timeout, "--timeout")
    session.follow(run_id)

    async def work(client: "Runlane") -> int:
        looks = client.runs.watch(run_id, timeout=limit)
        queue = client.settings.task_queue
        return await progress.follow(looks, run_id=run_id, task_queue=queue)

    session.perform(work)


def _submit(
    run_id: RunId,
    answers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CALL_ID=OUTPUT|CALL_ID=@FILE",
            help="Answers; @FILE reads one from a file, @@ is a plain @.",
        ),
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option("--outputs", metavar="FILE|-", help="The protocol's submit body, as JSON."),
    ] = None,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Answer tool calls, all at once or one by one.

    In any order, and also before they are asked. What became of each answer is printed; exit code
    8 says that one was refused.
    """
    given = inputs.answers(answers or [], outputs)

    async def work(client: "Runlane") -> int:
        from runlane import receipts  # noqa: PLC0415

        delivery = client.runs.deliver(run_id, tool_outputs=given)
        told = (await progress.unless_silent(delivery, client.settings.task_queue)).receipts
        refused = receipts.refused(told)
        if not session.wants_json():
            for receipt in told:
                output.receipt_line(receipt, receipts.explain(receipt))
        if refused:
            if session.wants_json():
                said = ", ".join(f"{r.tool_call_id}: {r.status}" for r in refused)
                error = AnswersRefused(f"Not taken by {run_id}: {said}.", told)
                output.document(error.as_json())
            return int(ExitCode.REFUSED)
        with session.after("has the answers", run_id):
            if wait:
                looks = client.runs.watch(run_id)
                queue = client.settings.task_queue
                return await progress.follow(looks, run_id=run_id, task_queue=queue)
            if not session.wants_json():
                return int(ExitCode.DONE)
            view = await client.runs.view(run_id)
        shown = dict(view.as_json())
        listed = [receipt.model_dump(mode="json") for receipt in told]
        output.document({**shown, "runlane": {**shown["runlane"], "receipts": listed}})
        return int(ExitCode.DONE)

    session.perform(work)


def _steps(
    run_id: RunId,
    step_id: Annotated[
        str | None, typer.Argument(metavar="STEP_ID", help="Only this step, in full.")
    ] = None,
    json: Json = False,
) -> None:
    """Print the steps of a run, over all its upstream runs."""

    async def work(client: "Runlane") -> int:
        if step_id is not None:
            step = await client.runs.steps.retrieve(step_id, run_id=run_id)
            if session.wants_json():
                output.document(step.model_dump(mode="json"))
            else:
                _print_step(step)
            return int(ExitCode.DONE)
        steps = [step async for step in client.runs.steps.list(run_id, order="asc", limit=100)]
        if session.wants_json():
            output.document(_envelope(steps))
        elif not steps:
            output.say("No steps.")
        else:
            rows = [_row(step) for step in steps]
            output.table(("step", "status", "created", "what"), rows, styled=1)
        return int(ExitCode.DONE)

    session.perform(work)


def _envelope(steps: list["RunStep"]) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [step.model_dump(mode="json") for step in steps],
        "first_id": steps[0].id if steps else None,
        "last_id": steps[-1].id if steps else None,
        "has_more": False,
    }


def _row(step: "RunStep") -> tuple[str, ...]:
    return (
        output.safe(step.id),
        output.safe(str(step.status)),
        output.moment(step.created_at),
        _what(step),
    )


def _what(step: "RunStep") -> str:
    details = step.model_dump(mode="json").get("step_details") or {}
    calls = details.get("tool_calls")
    if not calls:
        message = (details.get("message_creation") or {}).get("message_id")
        return f"message {output.safe(message)}" if message else output.safe(str(step.type))
    return ", ".join(_called(call) for call in calls)


def _called(call: dict[str, Any]) -> str:
    function = call.get("function") or {}
    name = function.get("name")
    if name is None:
        return output.safe(str(call.get("type")))
    return f"{output.safe(name)} {output.shortened(str(function.get('arguments') or ''), 48)}"


def _print_step(step: "RunStep") -> None:
    status = str(step.status)
    output.say_parts(
        (output.safe(step.id), "bold"), ("  ", None), (output.safe(status), output.style_of(status))
    )
    output.fields([("created", output.moment(step.created_at)), ("what", _what(step))])
    for call in (step.model_dump(mode="json").get("step_details") or {}).get("tool_calls") or []:
        answer = (call.get("function") or {}).get("output")
        shown = "not given yet" if answer is None else output.shortened(str(answer), 200)
        output.fields([("output", f"{output.safe(str(call.get('id')))}  {shown}")])
