"""`runlane doctor`: what it found, and what it may do about it."""

# ruff: noqa: FBT002 - typer reads a command's options from its parameters

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runlane.cli import output, session
from runlane.cli.options import Json
from runlane.errors import ExitCode, InvalidRequest, RunlaneError

if TYPE_CHECKING:
    from runlane.doctor import Finding, Fix

_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("problem", "red")}


def add_to(app: typer.Typer) -> None:
    """Give the command its name."""
    app.command("doctor")(_doctor)


def _doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Cancel upstream runs that no run drives any more.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --fix: don't ask.")] = False,
    json: Json = False,
) -> None:
    """Check everything, and say what to do.

    Temporal, runs, workers and upstream are checked. Exit code 1: there are findings.
    """
    if yes and not fix:
        raise InvalidRequest("--yes goes with --fix.", param="--yes")
    may_ask = sys.stdin.isatty() and not session.wants_json()
    if fix and not yes and not may_ask:
        raise InvalidRequest("--fix asks first, and nobody can answer: add --yes.", param="--yes")
    raise typer.Exit(int(asyncio.run(_examined(fix=fix, yes=yes))))


async def _examined(*, fix: bool, yes: bool) -> ExitCode:
    # Deferred: Temporal's client takes half a second to import.
    from runlane.doctor import examine  # noqa: PLC0415
    from runlane.settings import Settings  # noqa: PLC0415

    findings = await examine(Settings.from_env())
    if not session.wants_json():
        for finding in findings:
            _print_finding(finding)
    fixed = await _fixed(findings, yes=yes) if fix else []
    done = {id(entry["finding"]) for entry in fixed if entry["error"] is None}
    left = [each for each in findings if each.level == "problem" and id(each) not in done]
    if session.wants_json():
        _print_document(findings, fixed, healthy=not left)
    else:
        count = "1 finding" if len(left) == 1 else f"{len(left)} findings"
        noted = any(finding.level == "note" for finding in findings)
        fine = "Nothing to mend, but see the notes." if noted else "Everything is in order."
        output.say(f"{count} to mend." if left else fine)
    return ExitCode.OTHER if left else ExitCode.DONE


async def _fixed(findings: "Sequence[Finding]", *, yes: bool) -> list[Mapping[str, Any]]:
    """Do what can be done, each said; return what came of it."""
    to_do = [finding for finding in findings if finding.fix is not None]
    if not to_do:
        if any(finding.level == "problem" for finding in findings):
            output.note("None of that can be mended from here.")
        return []
    fixes = [finding.fix for finding in to_do if finding.fix is not None]
    if not yes:
        for each in fixes:
            output.say(f"To do: {output.safe(each.what)}", to=output.stderr())
        if not typer.confirm(f"Do {'it' if len(to_do) == 1 else 'these'}?", err=True):
            output.note("Nothing was done.")
            return []
    return [
        {"finding": finding, **await _apply(fix)} for finding, fix in zip(to_do, fixes, strict=True)
    ]


async def _apply(fix: "Fix") -> Mapping[str, Any]:
    # Deferred, as above.
    from temporalio.service import RPCError  # noqa: PLC0415

    from runsapi import RunsAPIError  # noqa: PLC0415

    result, error = None, None
    try:
        result = await fix.apply()
    except (RPCError, RunsAPIError, RunlaneError) as failed:
        # The others can be done all the same.
        error = str(failed)
    said = output.safe(error or result or "done")
    output.say(f"{'Failed' if error else 'Done'}: {output.safe(fix.what)}: {said}", to=_words())
    return {"what": fix.what, "result": result, "error": error}


def _words() -> Any:
    return output.stderr() if session.wants_json() else output.stdout()


def _print_document(
    findings: "Sequence[Finding]", fixed: Sequence[Mapping[str, Any]], *, healthy: bool
) -> None:
    output.document(
        {
            "object": "doctor",
            "healthy": healthy,
            "checks": [finding.as_json() for finding in findings],
            "fixed": [
                {name: value for name, value in entry.items() if name != "finding"}
                for entry in fixed
            ],
        }
    )


def _print_finding(finding: "Finding") -> None:
    mark, style = _MARKS[finding.level]
    indent = " " * 26
    first, *more = output.folded(output.safe(finding.message), indent=indent) or [""]
    output.say_parts((f"{mark:<8}", style), (f"{finding.check:<18}", "bold"), (first[26:], None))
    for line in more:
        output.say(line)
    for sentence in finding.remedy.splitlines():
        for line in output.folded(output.safe(sentence), indent=indent):
            output.say(line)
