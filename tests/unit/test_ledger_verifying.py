"""Exports of the audit trail: whatever is done to the file or to the ledger is found, and named."""

import asyncio
import json
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ledger import Ledger, Location
from ledger.chain import Event, Kind, Row, body_digest, canonical, place, said
from ledger.database import Database
from ledger.signing import KeyUnusable, PublicKey, Signer
from ledger.verdict import Verdict, Wrong
from ledger.verifying import verify

SIGNER = Signer.generate()
EVENT = Event(key="", kind=Kind.CALL, at=datetime.now(UTC), contents={"note": "a secret"})


async def fill(ledger: Ledger, run_id: str, rows: int = 5) -> None:
    """Write a trail."""
    await ledger.audit.append(run_id, [replace(EVENT, key=f"{n}") for n in range(rows)])


async def exported(
    ledger: Ledger, run_id: str | None = None, since: datetime | None = None
) -> list[str]:
    """Return an export's lines."""
    lines: list[str] = []
    await ledger.export(lines.append, SIGNER, run_id=run_id, since=since)
    return lines


async def change(location: Location, sql: str, **values: object) -> None:
    """Do to the database what somebody with its password could."""
    database = Database(location)
    await database.write("test", lambda connection: connection.execute(text(sql), values))
    await database.close()


def found(lines: list[str], **more: object) -> tuple[Wrong, str | None, int | None] | None:
    """Return what verifying finds."""
    problem = verify(lines, SIGNER.public, **more).problem  # type: ignore[arg-type] # kept, or nothing
    if problem is None:
        return None
    assert problem.text.startswith(f"Line {problem.line}: ")
    return problem.wrong, problem.run_id, problem.seq


def rewritten(line: str, **facts: object) -> str:
    """Return a row that says something else, with the digest that this makes it have."""
    body = {**json.loads(line)["body"], **facts}
    return Row("", 0, body_digest(canonical(body)), canonical(body).decode()).line


async def test_a_whole_export(ledger: Ledger) -> None:
    """It verifies, and holds nobody's contents; erasing them changes nothing."""
    await fill(ledger, "run_A")
    await ledger.checkpoints.make(SIGNER)
    await fill(ledger, "run_A", 7)
    await fill(ledger, "run_B", 1)
    await ledger.checkpoints.make(SIGNER)
    before = await exported(ledger)
    await ledger.erase_run("run_A")
    lines = await exported(ledger)

    assert before[:-1] == lines[:-1]
    assert "a secret" not in "".join(lines)
    verdict = verify(lines, SIGNER.public)
    assert Verdict(rows=8, runs=2, checkpoints=2, exported_at=verdict.exported_at) == verdict
    assert verdict.exported_at is not None
    assert verify([line + "\n" for line in lines], SIGNER.public).problem is None


async def test_an_export_of_one_run_or_of_late_ones(ledger: Ledger) -> None:
    """Both verify by themselves; a run's trail is always whole."""
    await fill(ledger, "run_A")
    await ledger.checkpoints.make(SIGNER)
    moment = datetime.now(UTC)
    await fill(ledger, "run_B", 2)

    one = verify(await exported(ledger, run_id="run_A"), SIGNER.public)
    assert (5, 1, None) == (one.rows, one.runs, one.problem)
    late = verify(await exported(ledger, since=moment), SIGNER.public)
    assert (2, 1, None) == (late.rows, late.runs, late.problem)
    none = verify(await exported(ledger, since=moment + timedelta(days=1)), SIGNER.public)
    assert (0, 0, None) == (none.rows, none.runs, none.problem)


# Lines of the export below: a checkpoint, five rows, their run, two rows, their run, the end.
Edit = Callable[[list[str]], list[str]]
EDITS: dict[str, tuple[Edit, tuple[Wrong, str | None, int | None]]] = {
    "a fact changed": (
        lambda f: [*f[:3], f[3].replace('"call"', '"decision"'), *f[4:]],
        (Wrong.CHANGED, "run_A", 2),
    ),
    "a fact changed, with its digest": (
        lambda f: [*f[:3], rewritten(f[3], kind="decision"), *f[4:]],
        (Wrong.CHANGED, "run_A", 2),
    ),
    "a digest changed": (
        lambda f: [*f[:3], f[3].replace('"digest":"sha256:', '"digest":"sha256:0'), *f[4:]],
        (Wrong.CHANGED, "run_A", 2),
    ),
    "the first changed": (
        lambda f: [f[0], rewritten(f[1], kind="run"), *f[2:]],
        (Wrong.CHANGED, "run_A", 0),
    ),
    "the last changed": (
        lambda f: [*f[:5], rewritten(f[5], kind="run"), *f[6:]],
        (Wrong.CHANGED, "run_A", 4),
    ),
    "a row removed": (lambda f: [*f[:3], *f[4:]], (Wrong.REMOVED, "run_A", 2)),
    "the first removed": (lambda f: [f[0], *f[2:]], (Wrong.REMOVED, "run_A", 0)),
    "two rows removed": (lambda f: [*f[:2], *f[4:]], (Wrong.REMOVED, "run_A", 1)),
    "a row put in": (
        lambda f: [*f[:3], rewritten(f[3], key="false"), *f[3:]],
        (Wrong.PUT_IN, "run_A", 2),
    ),
    "a row twice": (lambda f: [*f[:4], *f[3:]], (Wrong.PUT_IN, "run_A", 3)),
    "a row put in at the end of a run": (
        lambda f: [*f[:6], rewritten(f[5], seq=5), *f[6:]],
        (Wrong.PUT_IN, "run_A", 5),
    ),
    "another run's row": (lambda f: [*f[:3], f[7], *f[3:]], (Wrong.PUT_IN, "run_A", 2)),
    "rows after the last run": (lambda f: [*f[:-1], f[1], f[-1]], (Wrong.PUT_IN, "run_A", 0)),
    "a run's tail missing": (lambda f: [*f[:4], *f[6:]], (Wrong.TAIL_MISSING, "run_A", 3)),
    "the file cut in a run": (lambda f: f[:4], (Wrong.TAIL_MISSING, None, None)),
    "the file cut after a run": (lambda f: f[:7], (Wrong.TAIL_MISSING, None, None)),
    "its end missing": (lambda f: f[:-1], (Wrong.TAIL_MISSING, None, None)),
    "nothing left": (lambda _: [], (Wrong.TAIL_MISSING, None, None)),
    "a line after the end": (lambda f: [*f, f[1]], (Wrong.PUT_IN, None, None)),
    "a run removed": (lambda f: [f[0], *f[7:]], (Wrong.REMOVED, None, None)),
    "the last run removed": (lambda f: [*f[:7], f[-1]], (Wrong.REMOVED, None, None)),
    "a statement changed": (
        lambda f: [*f[:6], f[6].replace('"number":1', '"number":2'), *f[7:]],
        (Wrong.NOT_SIGNED, None, None),
    ),
    "the end changed": (
        lambda f: [*f[:-1], f[-1].replace('"rows":7', '"rows":6')],
        (Wrong.NOT_SIGNED, None, None),
    ),
    "a checkpoint changed": (
        lambda f: [f[0].replace('"number":1', '"number":2'), *f[1:]],
        (Wrong.NOT_SIGNED, None, None),
    ),
    "the last checkpoint removed": (lambda f: f[1:], (Wrong.REMOVED, None, None)),
    "a checkpoint further down": (
        lambda f: [f[1], f[0], *f[2:]],
        (Wrong.CHANGED, None, None),
    ),
    "no JSON": (lambda f: [*f[:3], f[3][:-9], *f[4:]], (Wrong.UNREADABLE, None, None)),
    "a name twice": (
        lambda f: [*f[:3], f[3].replace('"seq":2', '"seq":2,"seq":2'), *f[4:]],
        (Wrong.UNREADABLE, None, None),
    ),
}


@pytest.fixture(scope="module")
def export() -> list[str]:
    """An export of two runs, five rows and two, with one checkpoint."""

    async def made(directory: Path) -> list[str]:
        async with await Ledger.open(Location.in_directory(directory)) as ledger:
            await fill(ledger, "run_A")
            await ledger.checkpoints.make(SIGNER)
            await fill(ledger, "run_B", 2)
            return [line.rstrip("\n") for line in await exported(ledger)]

    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(made(Path(directory)))


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_file(export: list[str], name: str) -> None:
    """The first row that was changed, removed or put in, or the missing tail, is named."""
    edit, expected = EDITS[name]
    assert None is found(export)
    edited = edit(export)

    assert export != edited
    assert expected == found(edited)


def test_any_character_changed(export: list[str]) -> None:
    """No single character of a file can change unnoticed."""
    whole = "\n".join(export)
    # The last character of a signature has bits that Base64 doesn't need.
    ends = [match.end() - 1 for match in re.finditer('"signature":"[^="]*', whole)]
    for at in [*range(0, len(whole), 11), *ends]:
        other = chr(ord(whole[at]) + 1)
        edited = whole[:at] + other + whole[at + 1 :]
        assert found(edited.split("\n")) is not None, whole[at - 20 : at + 20]


def test_somebody_elses_key(export: list[str]) -> None:
    """An export that was made and signed anew is not signed by this key."""
    problem = verify(export, Signer.generate().public).problem
    assert problem is not None
    assert Wrong.NOT_SIGNED is problem.wrong
    assert SIGNER.public.id in problem.text


CHANGES = {
    "body": (
        "UPDATE audit_rows SET body = replace(body, 'call', 'run') WHERE seq = 2",
        Wrong.CHANGED,
        2,
    ),
    "removed": ("DELETE FROM audit_rows WHERE seq = 2", Wrong.REMOVED, 2),
    "tail": ("DELETE FROM audit_rows WHERE seq > 2", Wrong.TAIL_MISSING, 3),
    "tail and head": (
        "DELETE FROM audit_rows WHERE seq > 2; UPDATE audit_heads SET seq = 2, "
        "digest = (SELECT digest FROM audit_rows WHERE seq = 2)",
        Wrong.TAIL_MISSING,
        3,
    ),
    "all of a run": ("DELETE FROM audit_rows; DELETE FROM audit_heads", Wrong.REMOVED, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
async def test_a_changed_ledger(location: Location, name: str) -> None:
    """An export signs what stands there, and verifying finds that it isn't what was written."""
    statements, wrong, seq = CHANGES[name]
    async with await Ledger.open(location) as ledger:
        await fill(ledger, "run_A")
        await ledger.checkpoints.make(SIGNER)
        for statement in statements.split(";"):
            await change(location, statement)
        assert (wrong, "run_A", seq) == found(await exported(ledger))


async def test_a_row_changed_with_its_digest(location: Location) -> None:
    """The row after it still names the old digest."""
    async with await Ledger.open(location) as ledger:
        await fill(ledger, "run_A")
        row = (await ledger.audit.read("run_A"))[2]
        body = row.body.replace('"call"', '"run"')
        await change(
            location,
            "UPDATE audit_rows SET body = :body, digest = :digest WHERE seq = 2",
            body=body,
            digest=body_digest(body.encode()),
        )
        assert (Wrong.CHANGED, "run_A", 2) == found(await exported(ledger))


async def written_anew(ledger: Ledger, location: Location) -> None:
    """Replace a run's whole trail by another that is sound in itself."""
    before: Row | None = None
    for row in await ledger.audit.read("run_A"):
        other = replace(EVENT, key=f"other {row.seq}")
        before = place(said(other), "run_A", EVENT.at, before)
        await change(
            location,
            "UPDATE audit_rows SET body = :body, digest = :digest WHERE seq = :seq",
            body=before.body, digest=before.digest, seq=before.seq,
        )  # fmt: skip
    assert before is not None
    await change(location, "UPDATE audit_heads SET digest = :digest", digest=before.digest)


async def test_a_trail_written_anew_is_not_what_was_signed(location: Location) -> None:
    """The checkpoint of before says so: the ledger's own, or one that was kept elsewhere."""
    async with await Ledger.open(location) as ledger:
        await fill(ledger, "run_A")
        kept = await ledger.checkpoints.make(SIGNER)
        await written_anew(ledger, location)
        assert (Wrong.CHANGED, "run_A", 4) == found(await exported(ledger))

        await change(location, "DELETE FROM checkpoints")
        lines = await exported(ledger)
        assert None is found(lines)
        assert (Wrong.CHANGED, "run_A", 4) == found(lines, kept=kept)


async def test_a_checkpoint_that_is_missing(location: Location) -> None:
    """They are numbered, and each names the one before it."""
    async with await Ledger.open(location) as ledger:
        for run in ("run_A", "run_B", "run_C"):
            await fill(ledger, run)
            await ledger.checkpoints.make(SIGNER)
        await change(location, "DELETE FROM checkpoints WHERE number = 2")
        assert (Wrong.REMOVED, None, None) == found(await exported(ledger))


async def test_checkpoints_of_two_lives(location: Location) -> None:
    """A ledger that was set back has gone on otherwise; what was signed before says so."""
    async with await Ledger.open(location) as ledger:
        for run in ("run_A", "run_B", "run_C"):
            await fill(ledger, run)
            await ledger.checkpoints.make(SIGNER)
        body = json.loads((await ledger.checkpoints.since(1))[0])["body"]
        other = SIGNER.sign("checkpoint", {**body, "at": "2026-11-23T00:00:00.000000Z"})
        await change(location, "UPDATE checkpoints SET body = :body WHERE number = 2", body=other)
        assert (Wrong.CHANGED, None, None) == found(await exported(ledger))


async def test_what_comes_while_a_checkpoint_is_made(postgres_location: Location) -> None:
    """It is in the next one. SQLite has one writer at a time."""
    loop = asyncio.get_running_loop()
    async with await Ledger.open(postgres_location) as ledger:
        await fill(ledger, "run_A", 1)

        class Slow(Signer):
            def sign(self, kind: str, body: dict[str, Any]) -> str:
                asyncio.run_coroutine_threadsafe(fill(ledger, "run_A", 2), loop).result(60)
                return super().sign(kind, body)

        await ledger.checkpoints.make(Slow.generate())
        lines = await ledger.checkpoints.since(0)
    assert [0, 1] == [json.loads(line)["body"]["heads"]["run_A"][0] for line in lines]


async def test_a_checkpoint_holds_what_has_moved(ledger: Ledger) -> None:
    """Nothing moved: none is made. What comes while it is made is in the next one."""
    assert [] == await ledger.checkpoints.make(SIGNER)
    await fill(ledger, "run_A", 1)
    made = [await ledger.checkpoints.make(SIGNER), await ledger.checkpoints.make(SIGNER)]
    assert [1, 0] == [len(lines) for lines in made]
    await asyncio.gather(
        *(fill(ledger, f"run_{n}", 2) for n in range(20)),
        *(ledger.checkpoints.make(SIGNER) for _ in range(5)),
    )
    await ledger.checkpoints.make(SIGNER)

    lines = await ledger.checkpoints.since(0)
    assert lines[0:1] == made[0]
    heads = {run: head for line in lines for run, head in json.loads(line)["body"]["heads"].items()}
    last = {f"run_{n}": (await ledger.audit.read(f"run_{n}"))[-1] for n in range(20)}
    assert {run: [row.seq, row.digest] for run, row in last.items()} == {
        run: head for run, head in heads.items() if run != "run_A"
    }
    assert None is found(await exported(ledger))


async def test_many_heads_take_several_checkpoints(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a line of bounded length."""
    monkeypatch.setattr("ledger.checkpoints.MAX_HEADS", 3)
    await asyncio.gather(*(fill(ledger, f"run_{n}", 1) for n in range(8)))

    assert 3 == len(await ledger.checkpoints.make(SIGNER))
    assert None is found(await exported(ledger))


def test_a_key_stays_and_is_its_owners_alone(tmp_path: Path) -> None:
    """The second process that asks finds the first one's; the public key goes out as PEM."""
    key = Signer.in_directory(tmp_path)
    file = tmp_path / "audit.key"

    assert key.public.id == Signer.in_directory(tmp_path).public.id
    assert 0o600 == file.stat().st_mode & 0o777
    assert key.public.id == PublicKey.from_pem(key.public.pem).id
    assert ["audit.key"] == os.listdir(tmp_path)


def test_a_key_is_made_in_a_directory_that_nobody_has_made_yet(tmp_path: Path) -> None:
    """A first worker's data directory isn't there where its ledger is a database's."""
    directory = tmp_path / "home" / "data"

    key = Signer.in_directory(directory)

    assert key.public.id == Signer.in_directory(directory).public.id
    assert 0o700 == directory.stat().st_mode & 0o777


@pytest.mark.parametrize("text_of_it", ["", "x", SIGNER.public.pem])
def test_a_key_that_is_none(tmp_path: Path, text_of_it: str) -> None:
    """Its file is named, and not overwritten."""
    (tmp_path / "audit.key").write_text(text_of_it)
    with pytest.raises(KeyUnusable, match=r"audit\.key is not"):
        Signer.in_directory(tmp_path)
    assert text_of_it == (tmp_path / "audit.key").read_text()
    with pytest.raises(KeyUnusable, match=r"The public key is not"):
        PublicKey.from_pem(text_of_it[:9])
