"""Assistants, threads and messages that are changed and deleted, over a real process."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.simulator_process import SimulatorProcess

pytestmark = pytest.mark.slow


def call(simulator: SimulatorProcess, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """Send one request to the API."""
    answer = httpx.request(method, simulator.url + path, json=body, trust_env=False)
    found: dict[str, Any] = answer.json()
    return found


def test_what_is_left_out_of_a_change_stays(simulator: SimulatorProcess) -> None:
    """An update shows in later reads, and a field that it doesn't know is refused."""
    assistant = call(simulator, "POST", "/assistants", {"model": "m", "name": "Bo"})
    thread = call(simulator, "POST", "/threads", {"metadata": {"a": "1"}})
    path = f"/threads/{thread['id']}"
    message = call(simulator, "POST", f"{path}/messages", {"role": "user", "content": "Hello"})
    changed = [
        call(simulator, "POST", f"/assistants/{assistant['id']}", {"name": "Di"}),
        call(simulator, "POST", path, {"metadata": {"b": "2"}}),
        call(simulator, "POST", f"{path}/messages/{message['id']}", {"metadata": {"c": "3"}}),
    ]
    found = [
        call(simulator, "GET", f"/assistants/{assistant['id']}"),
        call(simulator, "GET", path),
        call(simulator, "GET", f"{path}/messages/{message['id']}"),
    ]
    refused = call(simulator, "POST", f"{path}/messages/{message['id']}", {"content": "Bye"})

    assert [
        {**assistant, "name": "Di"},
        {**thread, "metadata": {"b": "2"}},
        {**message, "metadata": {"c": "3"}},
    ] == found
    assert found == changed
    assert "Unknown parameter: 'content'." == refused["error"]["message"]


def test_what_is_deleted_stays_so(tmp_path: Path) -> None:
    """After a restart too: an id that was once deleted is not made anew by its use."""
    with SimulatorProcess("--state", str(tmp_path / "state.db")) as simulator:
        call(simulator, "POST", "/assistants/asst_1", {"name": "Di"})
        body = {"role": "user", "content": "Hello"}
        message = call(simulator, "POST", "/threads/thread_1/messages", body)
        path = f"/threads/thread_1/messages/{message['id']}"
        run = call(simulator, "POST", "/threads/thread_2/runs", {"assistant_id": "asst_2"})
        gone = [
            call(simulator, "DELETE", "/assistants/asst_1"),
            call(simulator, "DELETE", path),
            call(simulator, "DELETE", "/threads/thread_2"),
        ]
        before = [call(simulator, "GET", each) for each in ("/assistants/asst_1", path)]
        simulator.stop()
        simulator.start()
        after = [call(simulator, "GET", each) for each in ("/assistants/asst_1", path)]
        left = call(simulator, "GET", "/threads/thread_1/messages")
        lost = call(simulator, "GET", f"/threads/thread_2/runs/{run['id']}")
        runs = simulator.runs()

    assert [
        {"id": "asst_1", "object": "assistant.deleted", "deleted": True},
        {"id": message["id"], "object": "thread.message.deleted", "deleted": True},
        {"id": "thread_2", "object": "thread.deleted", "deleted": True},
    ] == gone
    assert [
        "No assistant found with id 'asst_1'.",
        f"No message found with id '{message['id']}'.",
    ] == [each["error"]["message"] for each in before]
    assert before == after
    assert [] == left["data"]
    assert "No thread found with id 'thread_2'." == lost["error"]["message"]
    assert [] == runs
