"""What the simulator knows, in a file: threads with their runs, assistants and scenarios.

A run that waits must still be there when the simulator comes back, as it would be with a real
service. Requests received and faults ordered belong to a test, and are not kept.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as ASGIMessage

from runsapi.simulator.engine import Engine
from runsapi.simulator.errors import JSON
from runsapi.simulator.lifecycle import Clock
from runsapi.simulator.objects import Assistant, Message, Run, Step, Thread
from runsapi.simulator.scenario import Round, Scenario

_T = TypeVar("_T", Assistant, Message, Run, Step, Thread)

_FORMAT = 1
_INSTANTS = ("created", "expires", "entered", "wrote")
# Either made anew, or spelled out by hand.
_APART = ("thread", "listeners", "steps", "scenario", "rounds", *_INSTANTS)


class StoreError(Exception):
    """The file can't be used; the message names it."""


class Store:
    """An engine's objects in an SQLite file, read once and then written as they change."""

    def __init__(self, path: Path, engine: Engine) -> None:
        """Fill the engine from the file, which is made when it is missing.

        Raises:
            StoreError: it is something else, or was written by a later version.
        """
        self._engine = engine
        self._scenarios: dict[str | None, Scenario] = {}
        self._threads: dict[str, int] = {}
        try:
            self._file = sqlite3.connect(path, isolation_level=None)
            found = self._file.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, _FORMAT):
                raise StoreError(f"{path} is of format {found}, which is not known here")
            # Written by the time of the answer, though perhaps not on the disk: it survives the
            # process, which is what is promised, and costs no wait at each poll.
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = OFF")
            self._file.execute(f"PRAGMA user_version = {_FORMAT}")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS objects "
                "(kind TEXT, id TEXT, document TEXT, PRIMARY KEY (kind, id)) WITHOUT ROWID"
            )
            self._load()
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path} can't be used as the simulator's state: {error}") from error

    def keep(self) -> None:
        """Write what has changed; cheap when nothing has."""
        engine = self._engine
        touched = engine.lifecycle.touched
        while touched:
            thread_id = touched.pop()
            if thread_id in engine.deleted:
                self._write("deleted", thread_id, {})
                self._erase("thread", thread_id)
                continue
            thread = engine.threads[thread_id]
            document = _thread_document(thread, engine.clock)
            digest = hash(json.dumps(document))
            # Polls are many, and most of them change nothing.
            if self._threads.get(thread.id) != digest:
                self._write("thread", thread.id, document)
                self._threads[thread.id] = digest
        while engine.touched_assistants:
            changed = engine.touched_assistants.pop()
            if changed in engine.deleted:
                self._write("deleted", changed, {})
                self._erase("assistant", changed)
                continue
            assistant = engine.assistants[changed]
            self._write("assistant", changed, dataclasses.asdict(assistant))
        for assistant_id, scenario in engine.scenarios.items():
            if self._scenarios.get(assistant_id) is not scenario:
                self._write("scenario", assistant_id or "", scenario.model_dump(mode="json"))
                self._scenarios[assistant_id] = scenario

    def close(self) -> None:
        """Write the rest and close the file."""
        self.keep()
        self._file.close()

    def _write(self, kind: str, id: str, document: JSON) -> None:
        text = json.dumps(document, ensure_ascii=False)
        self._file.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", (kind, id, text))

    def _erase(self, kind: str, id: str) -> None:
        self._file.execute("DELETE FROM objects WHERE kind = ? AND id = ?", (kind, id))

    def _read(self, kind: str) -> Iterator[JSON]:
        rows = self._file.execute("SELECT document FROM objects WHERE kind = ?", (kind,))
        for (text,) in rows:
            yield json.loads(text)

    def _load(self) -> None:
        engine = self._engine
        gone = self._file.execute("SELECT id FROM objects WHERE kind = 'deleted'")
        engine.deleted.update(row[0] for row in gone)
        for document in self._read("assistant"):
            assistant = _made(Assistant, document)
            engine.assistants[assistant.id] = assistant
        for document in self._read("scenario"):
            scenario = Scenario.model_validate(document)
            engine.register(scenario)
            self._scenarios[scenario.assistant_id] = scenario
        for document in self._read("thread"):
            thread = _thread(document, engine.clock)
            engine.threads[thread.id] = thread
            engine.runs.update(thread.runs)


def keeping(app: ASGIApp, keep: Callable[[], None]) -> ASGIApp:
    """Return the application with all it did written before anything of an answer is sent."""

    async def kept(scope: Scope, receive: Receive, send: Send) -> None:
        async def write_first(message: ASGIMessage) -> None:
            keep()
            await send(message)

        await app(scope, receive, write_first)

    return kept


def _thread_document(thread: Thread, clock: Clock) -> JSON:
    return {
        "id": thread.id,
        "created_at": thread.created_at,
        "metadata": thread.metadata,
        "tool_resources": thread.tool_resources,
        "messages": [dataclasses.asdict(message) for message in thread.messages],
        "runs": [_run_document(run, clock) for run in thread.runs.values()],
        "active": None if thread.active is None else thread.active.id,
    }


def _run_document(run: Run, clock: Clock) -> JSON:
    names = [field.name for field in dataclasses.fields(run) if field.name not in _APART]
    instants = {name: getattr(run, name) for name in _INSTANTS}
    return {
        **{name: getattr(run, name) for name in names},
        **{k: None if v is None else clock.since_1970(v) for k, v in instants.items()},
        "scenario": run.scenario.model_dump(mode="json"),
        "rounds": [part.model_dump(mode="json") for part in run.rounds],
        "steps": [
            {"id": s.id, "created_at": s.created_at, "details": s.details, "status": s.status,
             "ended_at": s.ended_at}
            for s in run.steps
        ],
    }  # fmt: skip


def _thread(document: JSON, clock: Clock) -> Thread:
    runs, active = document.pop("runs"), document.pop("active")
    messages = [_made(Message, message) for message in document.pop("messages")]
    thread = _made(Thread, {**document, "messages": messages})
    thread.runs = {run["id"]: _run(run, thread, clock) for run in runs}
    thread.active = thread.runs.get(active)
    return thread


def _run(document: JSON, thread: Thread, clock: Clock) -> Run:
    steps = document.pop("steps")
    instants = {name: document.get(name, document["entered"]) for name in _INSTANTS}
    fields = {
        **document,
        **{k: None if v is None else clock.instant(v) for k, v in instants.items()},
        "thread": thread,
        "scenario": Scenario.model_validate(document["scenario"]),
        "rounds": [Round.model_validate(part) for part in document["rounds"]],
        "outputs": [(name, output) for name, output in document["outputs"]],
    }
    run = _made(Run, fields)
    run.steps = [_made(Step, {**step, "run": run}) for step in steps]
    return run


def _made(kind: type[_T], fields: JSON) -> _T:
    """Make an object of its fields; those of a later version are left out."""
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in fields.items() if name in known})
