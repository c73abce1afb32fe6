"""What people tell an assistant stands in the clear nowhere: it is planted, and then searched for.

Workers are processes with logs, Temporal has its database on a disk, and big payloads have files.
"""

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runlane import Runlane, search_attributes
from runlane.decisions import keys
from runlane.embedded import EmbeddedTemporal
from runlane.settings import Settings
from runlane.temporal import connect
from tests.lab import eventually
from tests.processes import Plant
from tests.secret_tools import BIG
from tests.simulator_process import SimulatorProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@dataclass
class Planted:
    """Texts that nobody else writes, each under the name of what it is."""

    token: str
    names: list[str] = field(default_factory=list)

    def text(self, name: str, size: int = 0) -> str:
        """Return a text of this name, repeated until it has the size."""
        self.names.append(name)
        text = f"{self.token}-{name}-"
        return text * max(1, -(-size // len(text)))

    def found(self, files: Iterable[Path]) -> set[tuple[str, str]]:
        """Return what stands in the files, plain or as base64, as (name, file)."""
        found = set()
        for file in files:
            data = file.read_bytes()
            found |= {
                (name, file.name)
                for name in self.names
                if any(spelled in data for spelled in _spelled(f"{self.token}-{name}-"))
            }
        return found


def _spelled(text: str) -> list[bytes]:
    # In base64 a text reads three ways, by where it begins; what touches its ends is cut off.
    spelled = [base64.b64encode(b"x" * n + text.encode())[4:-4] for n in range(3)]
    return [text.encode(), *spelled]


async def drive(plant: Plant, planted: Planted, data_dir: Path) -> str:
    """Drive a run through three rounds, a failure of each kind, and its end; return its id."""
    lab = plant.lab
    call = {"name": "look_up"}
    quick = {"queued": 0.05, "in_progress": 0.05}
    await lab.scenario(
        rounds=[
            {**quick, "calls": [{**call, "arguments": {"order": planted.text("argument")}}]},
            {**quick, "calls": [{**call, "arguments": {"all": planted.text("arguments", BIG)}}]},
            {**quick, "calls": [{**call, "arguments": {}}]},
            {
                **quick,
                "ends": "failed",
                "last_error": {"code": "server_error", "message": planted.text("ending")},
            },
        ]
    )
    body = {"error": {"message": planted.text("failure"), "type": "server_error"}}
    for operation in ("runs.create", "runs.submit_tool_outputs"):
        await lab.fault(operation, "status", status=500, body=body)
    client = Runlane(plant.client, Settings(task_queue=lab.task_queue, data_dir=data_dir))
    run = await client.runs.create(
        lab.thread_id,
        assistant_id=lab.assistant_id,
        instructions=planted.text("instruction"),
        additional_instructions=planted.text("instructions", BIG),
        additional_messages=[{"role": "user", "content": planted.text("message")}],
        metadata={"ticket": planted.text("metadata")},
    )
    for size in (0, BIG, 0):
        run = await client.runs.poll(run.id, timeout=60)
        assert "requires_action" == run.status, run.status
        output = planted.text(f"output{len(planted.names)}", size)
        given = [{"tool_call_id": run.tool_calls[0].id, "output": output}]
        run = await client.runs.submit_tool_outputs(run.id, tool_outputs=given, by="Ann")
    run = await client.runs.poll(run.id, timeout=60)
    assert "failed" == run.status
    assert run.last_error is not None
    assert planted.token in run.last_error.message
    return run.id


@dataclass
class Shop:
    """A run whose calls workers and a person answer, and who decides."""

    plant: Plant
    planted: Planted
    directory: Path
    """Of the keys that sign, and of what opens the gate."""
    data_dir: Path

    async def open(self) -> None:
        """Start a worker that has the tools."""
        keys.make(self.directory)
        await self.plant.worker(
            RUNLANE_TOOLS="tests.secret_tools",
            RUNLANE_DECISION_PUBLIC_KEYS=str(self.directory / keys.PUBLIC_FILE),
            GATE=str(self.directory / "gate"),
            PLANTED=self.planted.token,
        )

    async def drive(self, files: Callable[[], list[Path]]) -> set[tuple[str, str]]:
        """Drive a run to its end; return what was found while its first tool was at work."""
        lab, planted = self.plant.lab, self.planted
        client = Runlane(
            self.plant.client,
            Settings(
                task_queue=lab.task_queue,
                data_dir=self.data_dir,
                decision_key=self.directory / keys.FILE,
            ),
        )
        asked = [
            {"name": name, "arguments": {"order": planted.text(f"argument{number}")}}
            for number, name in enumerate(("look_up", "count", "refund", "refund", "refund"))
        ]
        await lab.scenario(
            rounds=[*({"queued": 0.05, "in_progress": 0.05, "calls": [each]} for each in asked), {}]
        )
        run = await client.runs.create_view(
            lab.thread_id, {"assistant_id": lab.assistant_id}, with_tools=True
        )
        run_id = run.run.id
        progress = planted.text("progress")

        async def reports() -> list[str | None]:
            view = await client.runs.view(run_id)
            return [each.progress for each in view.runlane.running]

        await eventually(reports, lambda reported: reported == [progress])
        found = planted.found(files())
        (self.directory / "gate").touch()

        async def waiting() -> str:
            calls = await eventually(lambda: client.approvals.list(run_id=run_id), bool)
            return calls[0].call.tool_call_id

        await client.approvals.approve(
            await waiting(),
            arguments={"order": planted.text("edited")},
            note=planted.text("note"),
            by="ann",
        )
        await client.approvals.reject(await waiting(), reason=planted.text("reason"), by="ann")
        given = planted.text("given", BIG)
        await client.approvals.answer(await waiting(), output=given, by="ann")
        view = await client.runs.poll(run_id, timeout=60)
        assert "completed" == view.status
        for name in ("result", "results", "exception"):
            planted.text(name)
        return found


def _all_files(*directories: Path) -> list[Path]:
    return [path for each in directories for path in each.rglob("*") if path.is_file()]


def _parted(files: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return the logs, and the other files."""
    logs = [path for path in files if path.suffix == ".log"]
    return logs, [path for path in files if path not in logs]


async def test_nothing_stands_in_the_clear(
    plant: Plant, temporal_server: EmbeddedTemporal, data_dir: Path
) -> None:
    """Neither Temporal's database nor a payload's file nor a log has any of it, in any spelling.

    Only the words of an upstream that fails are in the worker's log, for whoever is to mend it.
    Search attributes stand there for everybody, and hold ids and words of Runlane's own alone.
    """
    planted = Planted(plant.lab.thread_id.replace("_", "-"))
    await plant.worker()
    await plant.worker()

    run_id = await drive(plant, planted, data_dir)

    files = _all_files(temporal_server.data_dir, data_dir)
    names = {path.name for path in files}
    assert {"temporal.db", "temporal.log", f"{plant.lab.task_queue}-1.log"} <= names
    assert [path for path in files if run_id in path.parts]
    logs, others = _parted(files)
    assert set() == planted.found(others)
    assert {"failure"} == {name for name, _ in planted.found(logs)}

    described = await plant.client.get_workflow_handle(run_id).describe()
    shown = {pair.key.name: str(pair.value) for pair in described.typed_search_attributes}
    assert set(search_attributes.TYPES) >= {name for name in shown if name.startswith("Runlane")}
    assert not any(planted.token in value for value in shown.values())


async def test_without_a_key_the_search_finds_it(
    temporal_server: EmbeddedTemporal, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """The search above finds what is there: with no key, all of it, and not in the logs."""
    client = await connect(
        Settings(data_dir=tmp_path), environ={"TEMPORAL_ADDRESS": temporal_server.address}
    )
    plant = Plant(temporal_server.address, client, simulator, tmp_path)
    planted = Planted(plant.lab.thread_id.replace("_", "-"))
    try:
        await plant.worker()
        await drive(plant, planted, tmp_path)
    finally:
        await plant.dispose()

    logs, others = _parted(_all_files(temporal_server.data_dir, tmp_path))
    assert set(planted.names) == {name for name, _ in planted.found(others)}
    assert {"failure"} == {name for name, _ in planted.found(logs)}


async def test_nothing_of_tools_and_people_stands_in_the_clear(
    plant: Plant, temporal_server: EmbeddedTemporal, data_dir: Path, tmp_path: Path
) -> None:
    """Not while a tool reports, not in the ledger, and in no log what it raises."""
    planted = Planted(plant.lab.thread_id.replace("_", "-"))

    def files() -> list[Path]:
        return _all_files(temporal_server.data_dir, data_dir)

    shop = Shop(plant, planted, tmp_path, data_dir)
    await shop.open()
    assert set() == await shop.drive(files)

    names = {path.name for path in files()}
    assert {"temporal.db", "ledger.db", f"{plant.lab.task_queue}-1.log"} <= names
    assert set() == planted.found(files())


async def test_without_a_key_the_search_finds_tools_and_people(
    temporal_server: EmbeddedTemporal, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """All but what a tool raised, of which its class alone is kept; and nothing in the logs."""
    client = await connect(
        Settings(data_dir=tmp_path), environ={"TEMPORAL_ADDRESS": temporal_server.address}
    )
    plant = Plant(temporal_server.address, client, simulator, tmp_path)
    planted = Planted(plant.lab.thread_id.replace("_", "-"))

    def files() -> list[Path]:
        return _all_files(temporal_server.data_dir, tmp_path)

    shop = Shop(plant, planted, tmp_path, tmp_path)
    try:
        await shop.open()
        reported = await shop.drive(files)
    finally:
        await plant.dispose()

    logs, others = _parted(files())
    found = planted.found(others) | reported
    kept = set(planted.names) - {"exception"}
    assert kept == {name for name, file in found if not file.startswith("ledger.db")}
    assert kept - {"progress"} == {name for name, file in found if file.startswith("ledger.db")}
    assert set() == planted.found(logs)
    assert any("secret_tools.py" in path.read_text() for path in logs)
