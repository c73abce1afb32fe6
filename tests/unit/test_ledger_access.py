"""Where the ledger lies, with what its contents are sealed, and what is said when it can't be."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ledger import Ledger, Location
from ledger.contents import digest_of
from ledger.run_record import RunRecord
from runlane import key_file
from runlane.client_ledger import ClientLedger
from runlane.doctor.ledger import check_ledger
from runlane.errors import CannotDecrypt, LedgerUnreachable, LedgerUnusable
from runlane.ledger_access import KeySealing, open_ledger
from runlane.settings import EncryptionKey, Settings, SettingsError
from runlane.stops import Stops

SECRET = "arguments that nobody else may read"
OLD, NEW = (EncryptionKey(name, name[0].encode() * 32) for name in ("old", "new"))
NOW = datetime.now(UTC)
RUN = RunRecord(run_id="run_1", status="queued", created_at=NOW, updated_at=NOW, contents=SECRET)


async def test_it_lies_in_the_data_directory_sealed_by_its_key(tmp_path: Path) -> None:
    key_file.make(tmp_path)
    async with await open_ledger(Settings(data_dir=tmp_path)) as ledger:
        await ledger.runs.record(RUN)
        assert tmp_path / "ledger.db" == ledger.location.file
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.db*"))
    assert SECRET.encode() not in stored

    async with await open_ledger(Settings(data_dir=tmp_path)) as ledger:
        found = await ledger.runs.find("run_1")
    assert found is not None
    assert SECRET == found.contents


async def test_the_url_goes_before_the_data_directory(
    postgres_location: Location, tmp_path: Path
) -> None:
    url = postgres_location.url.set(drivername="postgresql")
    file = tmp_path / "url"
    file.write_text(url.render_as_string(hide_password=False) + "\n")
    settings = Settings.from_env(
        {"RUNLANE_DATABASE_URL_FILE": str(file), "RUNLANE_DATA_DIR": str(tmp_path / "data")}
    )
    async with await open_ledger(settings) as ledger:
        assert not ledger.location.is_sqlite
        await ledger.runs.record(RUN)


async def test_nobody_says_where_it_lies() -> None:
    with pytest.raises(SettingsError, match=r"^RUNLANE_DATABASE_URL: .*RUNLANE_DATA_DIR"):
        await open_ledger(Settings())


async def test_a_password_is_told_to_nobody(tmp_path: Path) -> None:
    settings = Settings(database_url="postgresql://me:hunter2@127.0.0.1:1/ledger")
    with pytest.raises(LedgerUnreachable, match=r"PostgreSQL 127.0.0.1:1/ledger") as caught:
        await open_ledger(settings)
    assert "hunter2" not in str(caught.value) + repr(settings) + str(caught.value.as_json())

    file = tmp_path / "url"
    file.write_text("mysql://me:hunter2@db/ledger")
    with pytest.raises(SettingsError, match=r"^RUNLANE_DATABASE_URL_FILE: must be") as refused:
        await open_ledger(Settings(database_url_file=file))
    assert "hunter2" not in str(refused.value)


async def test_what_cannot_be_opened_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerUnreachable, match="can't be made"):
        await open_ledger(Settings(data_dir=tmp_path / "file"))

    await (await open_ledger(Settings(data_dir=tmp_path))).close()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(LedgerUnusable, match="has schema 9999"):
        await open_ledger(Settings(data_dir=tmp_path))


async def test_keys_change_one_after_the_other(tmp_path: Path) -> None:
    async def text(ledger: Ledger, name: str) -> str | None:
        return await ledger.contents.read(name, digest_of(SECRET))

    for name, keys in (("plain", ()), ("old", (OLD,)), ("new", (NEW, OLD))):
        async with await open_ledger(Settings(data_dir=tmp_path, encryption_keys=keys)) as ledger:
            await ledger.runs.record(RunRecord(**{**vars(RUN), "run_id": name}))
            assert SECRET == await text(ledger, name)
            assert SECRET == await text(ledger, "plain")
    settings = Settings(data_dir=tmp_path, encryption_keys=(NEW,))
    async with await open_ledger(settings) as ledger:
        assert SECRET == await text(ledger, "new")
        with pytest.raises(CannotDecrypt, match="with the key 'old'"):
            await text(ledger, "old")


def test_what_was_sealed_and_changed_is_refused() -> None:
    sealed = KeySealing([OLD]).seal(b"text")
    assert sealed != KeySealing([OLD]).seal(b"text")
    other = EncryptionKey("old", b"x" * 32)
    for sealing, stored in (
        (KeySealing([OLD]), sealed[:-1]),
        (KeySealing([OLD]), sealed[:8]),
        (KeySealing([other]), sealed),
    ):
        with pytest.raises(CannotDecrypt):
            sealing.unseal(stored)
    assert b"\1 as it is" == KeySealing([OLD]).unseal(KeySealing([]).seal(b"\1 as it is"))


async def test_doctor_says_where_it_is_and_whether_it_answers(tmp_path: Path) -> None:
    async def found(settings: Settings) -> tuple[str, str]:
        finding = (await check_ledger(None, settings))[0]
        return finding.level, finding.message

    level, message = await found(Settings(data_dir=tmp_path))
    assert ("note", True) == (level, "isn't there yet" in message)
    assert [] == list(tmp_path.iterdir())
    await (await open_ledger(Settings(data_dir=tmp_path))).close()
    level, message = await found(Settings(data_dir=tmp_path))
    assert ("ok", True) == (level, str(tmp_path / "ledger.db") in message)
    level, message = await found(Settings(database_url="postgresql://me:hunter2@127.0.0.1:1/x"))
    assert ("problem", True) == (level, "127.0.0.1:1/x" in message)
    assert "hunter2" not in message
    assert "note" == (await found(Settings()))[0]


async def test_doctor_says_what_is_stopped(tmp_path: Path) -> None:
    """It is asked why nothing happens."""
    settings = Settings(data_dir=tmp_path, person="ann")
    async with await open_ledger(settings):
        pass
    before = (await check_ledger(None, settings))[-1]
    await Stops(settings).stop(tool="refund", reason="the bank answers twice")
    after = (await check_ledger(None, settings))[-1]

    assert ("stops", "ok") == (before.check, before.level)
    assert ("stops", "note") == (after.check, after.level)
    assert after.message.startswith("tool refund, by ann since ")
    assert after.message.endswith(": the bank answers twice")
    assert "runlane resume --tool refund" in after.remedy


async def test_what_stands_in_a_ledger_is_not_looked_up_in_an_empty_one(tmp_path: Path) -> None:
    """A wrong directory would say that nothing waits, and be left with a ledger of its own."""
    place = ClientLedger(Settings(data_dir=tmp_path), None)
    with pytest.raises(LedgerUnusable, match=r"no ledger at .*ledger\.db.*RUNLANE_DATA_DIR"):
        await place.check_there()
    assert [] == list(tmp_path.iterdir())

    await (await open_ledger(Settings(data_dir=tmp_path))).close()
    await place.check_there()


async def test_a_stop_that_no_worker_may_see_says_so(tmp_path: Path) -> None:
    """It is taken, for workers that are yet to start."""
    stops = Stops(Settings(data_dir=tmp_path, person="ann"))
    first = await stops.stop(all=True, reason="wrong price list")
    second = await stops.stop(tool="refund", reason="the bank answers twice")

    assert str(tmp_path / "ledger.db") in (first.unused or "")
    assert second.unused is None
    assert 2 == len(await stops.list())
