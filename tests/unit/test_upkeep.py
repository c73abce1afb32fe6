"""Checkpoints made by workers, kept in a second place; and the command line that verifies."""

import asyncio
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from activities import trail
from ledger import Ledger
from ledger.retention import Retention
from ledger.run_record import RunRecord
from ledger.signing import Signer
from runlane.cli.app import run
from runlane.setting_values import retention_days
from runlane.settings import SettingsError
from runlane.upkeep import Upkeep, kept_lines
from tests.ledgers import open_in

NOW = datetime.now(UTC)


async def act(ledger: Ledger, number: int = 0) -> None:
    """Let something happen in a run."""
    event = trail.call(call_id=f"call_{number}", tool="refund", arguments="{}", attempt=1)
    await trail.write(ledger, "run_1", event)


def made(ledger: Ledger, home: Path, **fields: object) -> Upkeep:
    """Return the upkeep of one worker, with a checkpoint always due."""
    signer = Signer.in_directory(home)
    given = {"directory": home / "second", "every": timedelta(0), **fields}
    return Upkeep(ledger, signer, **given)  # type: ignore[arg-type] # its own words


async def test_one_of_several_workers_makes_a_checkpoint(ledger: Ledger, tmp_path: Path) -> None:
    await act(ledger)
    workers = [made(ledger, tmp_path) for _ in range(4)]
    await asyncio.gather(*(worker.look() for worker in workers))
    assert 1 == len(await ledger.checkpoints.since(0))
    assert await ledger.checkpoints.since(0) == [
        line.strip() for line in kept_lines(tmp_path / "second")
    ]

    await act(ledger, 1)
    hourly = made(ledger, tmp_path, every=timedelta(hours=1))
    await hourly.look()
    assert 1 == len(await ledger.checkpoints.since(0))
    await workers[0].look()
    assert ["checkpoint-00000001.json", "checkpoint-00000002.json"] == sorted(
        path.name for path in (tmp_path / "second").iterdir()
    )


async def test_what_the_second_place_lacks_is_copied(ledger: Ledger, tmp_path: Path) -> None:
    """It was away for some hours."""
    for number in range(3):
        await act(ledger, number)
        await made(ledger, tmp_path, directory=None).look()
    await made(ledger, tmp_path).look()

    assert 3 == len(kept_lines(tmp_path / "second"))


async def test_a_ledger_that_was_set_back_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with await open_in(tmp_path) as ledger:
        await act(ledger)
        await made(ledger, tmp_path).look()
    shutil.copy(tmp_path / "ledger.db", tmp_path / "copy")
    async with await open_in(tmp_path) as ledger:
        await act(ledger, 1)
        await made(ledger, tmp_path).look()
    shutil.copy(tmp_path / "copy", tmp_path / "ledger.db")
    async with await open_in(tmp_path) as ledger:
        await made(ledger, tmp_path).look()
        assert "set back" in caplog.text
        caplog.clear()
        await act(ledger, 2)
        await made(ledger, tmp_path).look()
        assert "set back" in caplog.text


async def test_another_key_signs_nothing(
    ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An export with checkpoints by two keys could be verified with neither."""
    await act(ledger)
    await made(ledger, tmp_path).look()
    await act(ledger, 1)
    other = Upkeep(ledger, Signer.generate(), every=timedelta(0))
    await other.look()

    assert 1 == len(await ledger.checkpoints.since(0))
    assert "RUNLANE_AUDIT_KEY" in caplog.text


async def test_what_is_old_is_removed_once_an_hour(ledger: Ledger, tmp_path: Path) -> None:
    old = NOW - timedelta(days=40)

    async def record(run_id: str) -> None:
        await ledger.runs.record(
            RunRecord(
                run_id=run_id, status="completed", created_at=old, updated_at=old, ended_at=old
            )
        )

    keeper = made(ledger, tmp_path, retention=Retention(runs=30), every=timedelta(hours=1))
    await record("run_1")
    await keeper.look()
    assert await ledger.runs.find("run_1") is None
    await record("run_2")
    await keeper.look()
    assert await ledger.runs.find("run_2") is not None


def test_days_are_read_by_table() -> None:
    assert (("audit", 3650), ("contents", 90)) == retention_days("V", "audit=3650, contents=90,")
    for text in ("contents", "contents=", "contents=0", "words=3", "runs=1,runs=2", "runs=-1"):
        with pytest.raises(SettingsError, match=r"^V: "):
            retention_days("V", text)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory of an installation with a trail of three rows, and its exports."""

    async def fill() -> None:
        async with await open_in(tmp_path) as ledger:
            for number in range(3):
                await act(ledger, number)
            await made(ledger, tmp_path).look()

    asyncio.run(fill())
    monkeypatch.setenv("RUNLANE_DATA_DIR", str(tmp_path))
    return tmp_path


def test_an_export_is_verified_by_the_public_key_alone(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 0 == run(["audit", "key"])
    key, file = directory / "audit.pub", directory / "export"
    key.write_text(capsys.readouterr().out)
    assert 0 == run(["audit", "export", "-o", str(file), "--json"])
    exported = json.loads(capsys.readouterr().out)
    assert (1, 3) == (exported["runs"], exported["rows"])
    assert 0 == run(["audit", "export", "--run", "run_1", "--since", "1h"])
    assert 6 == len(capsys.readouterr().out.splitlines())

    monkeypatch.delenv("RUNLANE_DATA_DIR")
    verify = ["audit", "verify", str(file), "--key", str(key)]
    assert 0 == run([*verify, "--checkpoints", str(directory / "second")])
    assert "As it was signed: 3 rows of 1 run, 1 checkpoint, " in capsys.readouterr().out
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:2] + lines[3:]))
    assert 1 == run(verify)
    assert "run run_1: row 1 is removed" in capsys.readouterr().out
    assert 1 == run([*verify, "--json"])
    problem = json.loads(capsys.readouterr().out)["problem"]
    assert ("removed", "run_1", 1) == (problem["wrong"], problem["run_id"], problem["row"])


def test_what_cannot_be_exported_or_verified_is_said(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, code, said in (
        (["export", "--run", "run_9"], 6, "no audit trail of run_9"),
        (["export", "--since", "2026-01-01"], 2, "time zone"),
        (["export", "--since", "soon"], 2, "--since"),
        (["export", "-o", str(directory / "none" / "file")], 2, "can't be written"),
        (["verify", str(directory / "none"), "--key", str(directory / "audit.key")], 2, "public"),
        (["verify", str(directory / "none"), "--key", str(directory / "none")], 2, "can't be read"),
    ):
        assert code == run(["audit", *words]), words
        assert said in capsys.readouterr().err
    assert not [path for path in directory.iterdir() if path.name.startswith(".file")]
