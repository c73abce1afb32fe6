"""`runlane audit`: export the audit trail, verify an export, print the public key."""

# ruff: noqa: FBT002 - typer reads a command's options from its parameters

import os
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runlane.cli import output, session
from runlane.cli.options import Json
from runlane.durations import DurationError, parse_duration
from runlane.errors import ExitCode, InvalidRequest

if TYPE_CHECKING:
    from ledger.verdict import Verdict


def add_to(app: typer.Typer) -> None:
    """Give the commands their names."""
    audit = typer.Typer(help="Export the audit trail, and verify an export.")
    audit.command("export")(_export)
    audit.command("verify")(_verify)
    audit.command("key")(_key)
    app.add_typer(audit, name="audit")


def _export(
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN_ID", help="Only this run.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="T",
            help="Only runs with news since then: 7d, or 2026-01-31T12:00:00+01:00.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Default: standard output."),
    ] = None,
    json: Json = False,
) -> None:
    """Write audit trails as signed lines of JSON. Contents are in none of them."""
    moment = _moment(since)
    if json and out is None:
        raise InvalidRequest("--json needs --output: the export goes to standard output.")

    async def work() -> int:
        from runlane import auditing  # noqa: PLC0415 - it brings the database's client
        from runlane.settings import Settings  # noqa: PLC0415

        settings = Settings.from_env()
        if out is None:
            done = await auditing.export(settings, sys.stdout.write, run_id=run, since=moment)
            sys.stdout.flush()
        else:
            temporary = _beside(out)
            try:
                with temporary.open("w", encoding="utf-8", newline="\n") as file:
                    done = await auditing.export(settings, file.write, run_id=run, since=moment)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(out)
            except OSError as error:
                text = f"{out} can't be written: {error.strerror}."
                raise InvalidRequest(text, param="--output") from None
            finally:
                temporary.unlink(missing_ok=True)
        if session.wants_json():
            output.document({"object": "audit_export", "runs": done.runs, "rows": done.rows})
        else:
            runs = output.counted(done.runs, "run")
            output.note(f"Exported {output.counted(done.rows, 'row')} of {runs}.")
            output.note("Verify with:  runlane audit verify FILE --key PUB  (runlane audit key)")
        return int(ExitCode.DONE)

    session.perform_apart(work)


def _verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An export.")],
    key: Annotated[
        Path, typer.Option("--key", metavar="PUB", help="The public key, from `runlane audit key`.")
    ],
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            "--checkpoints", metavar="DIR", help="The second place of checkpoints; they bind too."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Tell whether an export is what was signed, whole and in order.

    Needs the file and the public key, nothing else. Exit code 1: it isn't; the first row that was
    changed, removed or put in is named, or the tail that is missing.
    """
    from runlane import auditing  # noqa: PLC0415 - it brings the database's client

    verdict = auditing.verify(file, key, checkpoints)
    if session.wants_json():
        output.document(_as_json(verdict))
    elif verdict.problem is not None:
        output.say_parts(
            ("Not as it was signed. ", "bold red"), (output.safe(verdict.problem.text), None)
        )
    else:
        pruned = f"; of {verdict.pruned:,} of them only the end is kept" if verdict.pruned else ""
        output.say(
            f"As it was signed: {output.counted(verdict.rows, 'row')} of "
            f"{output.counted(verdict.runs, 'run')}{pruned}, "
            f"{output.counted(verdict.checkpoints, 'checkpoint')}, exported {verdict.exported_at}."
        )
    raise typer.Exit(int(ExitCode.DONE if verdict.problem is None else ExitCode.OTHER))


def _key(json: Json = False) -> None:
    """Print the public key that verifies exports."""

    async def work() -> int:
        from runlane import auditing  # noqa: PLC0415 - it brings the database's client
        from runlane.settings import Settings  # noqa: PLC0415

        public = await auditing.public_key(Settings.from_env())
        if session.wants_json():
            output.document({"object": "audit_key", "id": public.id, "pem": public.pem})
        else:
            sys.stdout.write(public.pem)
        return int(ExitCode.DONE)

    session.perform_apart(work)


def _as_json(verdict: "Verdict") -> dict[str, Any]:
    problem = verdict.problem
    return {
        "object": "audit_verification",
        "ok": problem is None,
        "runs": verdict.runs,
        "rows": verdict.rows,
        "checkpoints": verdict.checkpoints,
        "pruned": verdict.pruned,
        "exported_at": verdict.exported_at,
        "problem": None
        if problem is None
        else {
            "wrong": str(problem.wrong),
            "line": problem.line,
            "run_id": problem.run_id,
            "row": problem.seq,
            "message": problem.text,
        },
    }


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    found = None
    with suppress(ValueError):
        found = datetime.fromisoformat(text)
    if found is None:
        try:
            return datetime.now(UTC) - parse_duration(text)
        except (DurationError, OverflowError):
            problem = "--since must be a duration such as 7d, or a time with its zone."
            raise InvalidRequest(problem, param="--since") from None
    if found.tzinfo is None:
        problem = "--since needs a time zone, as in 2026-01-31T12:00:00+01:00."
        raise InvalidRequest(problem, param="--since")
    return found


def _beside(path: Path) -> Path:
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        text = f"{path} can't be written: {error.strerror}."
        raise InvalidRequest(text, param="--output") from None
    os.close(descriptor)
    return Path(temporary)
