"""The simulator in a process of its own, a small client of its controls, and its fixture."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

_START_SECONDS = 30.0
_END_SECONDS = 5.0
_EVENTUALLY_SECONDS = 10.0


class SimulatorProcess:
    """A simulator on a free port of loopback; `url` is the base URL of its API."""

    def __init__(self, *options: str) -> None:
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._http: httpx.Client | None = None
        self.url = ""
        self.pid = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait for its line."""
        command: Sequence[str] = (sys.executable, "-m", "runsapi.simulator", *self._options)
        # It ends with its standard input, so that a killed test run leaves nothing behind.
        self._process = subprocess.Popen(
            (*command, "--with-stdin"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the simulator ended with {self._process.wait(_START_SECONDS)}")
        said = json.loads(line)
        self.url, self.pid = said["url"], said["pid"]
        self._http = httpx.Client(
            base_url=self.url.removesuffix("/v1") + "/_simulator", timeout=30, trust_env=False
        )

    def stop(self) -> int:
        """End the process as a supervisor would, and return its exit status."""
        if self._http is not None:
            self._http.close()
            self._http = None
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.terminate()
        try:
            return process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def kill(self) -> None:
        """End the process as a crash would; all its state is gone."""
        assert self._process is not None, "not started"
        self._process.kill()
        self._process.wait()
        self.stop()

    def scenario(self, **fields: Any) -> None:
        """Register a scenario; give it an `assistant_id` of the test's own."""
        self._call("POST", "/scenarios", fields)

    def fault(self, operation: str, kind: str, **fields: Any) -> str:
        """Order a fault and return its id; give it a `thread_id` of the test's own."""
        order = {"operation": operation, "kind": kind, **fields}
        return str(self._call("POST", "/faults", order)["id"])

    def fault_state(self, id: str) -> dict[str, Any]:
        """Return `hits`, `waiting` and `released` of a fault, with its order."""
        return self._call("GET", f"/faults/{id}")

    def faults(self) -> list[dict[str, Any]]:
        """Return the state of each fault that is ordered."""
        return list(self._call("GET", "/faults")["data"])

    def wait_held(self, id: str, *, waiting: int = 1) -> None:
        """Wait until that many requests are held by the fault."""
        deadline = time.monotonic() + _EVENTUALLY_SECONDS
        while self.fault_state(id)["waiting"] < waiting:
            assert time.monotonic() < deadline, f"nothing came to be held by {id}"
            time.sleep(0.01)

    def release(self, id: str, *, answer: bool = True) -> None:
        """Let go what the fault holds, with its answer or by closing the connection."""
        self._call("POST", f"/faults/{id}/release", {"answer": answer})

    def remove_fault(self, id: str) -> None:
        """Delete one fault."""
        self._call("DELETE", f"/faults/{id}")

    def clear_faults(self) -> None:
        """Delete all faults."""
        self._call("DELETE", "/faults")

    def requests(
        self,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
        operation: str | None = None,
    ) -> dict[str, Any]:
        """Return `data`, `counts` and `accepted` of the requests received."""
        wanted = {"thread_id": thread_id, "run_id": run_id, "operation": operation}
        return self._call(
            "GET", "/requests", params={k: v for k, v in wanted.items() if v is not None}
        )

    def clear_requests(self) -> None:
        """Forget the requests received so far."""
        self._call("DELETE", "/requests")

    def force(self, run_id: str, status: str | None = None, **fields: Any) -> dict[str, Any]:
        """Put an upstream run into a status, or move its `expires_at`, and return it."""
        body = {**fields, **({"status": status} if status is not None else {})}
        return self._call("POST", f"/runs/{run_id}", body)

    def runs(self, *, stamp: str | None = None, live: bool = False) -> list[dict[str, Any]]:
        """Return the upstream runs, oldest first: of one `runlane_run_id`, or not ended yet."""
        wanted = {"live": str(live).lower(), **({"stamp": stamp} if stamp is not None else {})}
        return list(self._call("GET", "/runs", params=wanted)["data"])

    def thread(self, thread_id: str) -> dict[str, Any]:
        """Return a thread with all its messages, runs and steps."""
        return self._call("GET", f"/threads/{thread_id}")

    def down(self, seconds: float | None = None) -> None:
        """Drop every connection to the API, for that long or until `up`."""
        self._call("POST", "/down", {"seconds": seconds})

    def up(self) -> None:
        """End `down`."""
        self._call("POST", "/up")

    def demand(self, api_key: str | None) -> None:
        """Take requests to the API with this key alone; None takes any."""
        self._call("POST", "/key", {"api_key": api_key})

    def _call(
        self, method: str, path: str, body: Any = None, *, params: dict[str, str] | None = None
    ) -> dict[str, Any]:
        assert self._http is not None, "not started"
        answer = self._http.request(method, path, json=body, params=params)
        if answer.is_error:
            raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text}")
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture(scope="session")
def simulator() -> Iterator[SimulatorProcess]:
    """One simulator for the session: use thread and assistant ids of the test's own."""
    with SimulatorProcess() as process:
        yield process
