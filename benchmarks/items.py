"""The item that every contender of `batches` does: a thread, and one run on it.

What is told to a child process is one JSON document, on its command line.
"""

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

POLL_MS = 500
"""Between two looks at a run, by those who are told: where our own polling curve begins."""
ROUND = {"queued": 0.1, "in_progress": 1.0, "says": "It left the depot this morning."}
"""What the upstream does of each, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """How many items to do, and how."""

    upstream_url: str
    assistant_id: str
    items: int
    at_a_time: int
    database_url: str = ""
    """For the contender that needs one."""

    def as_argument(self) -> str:
        """Return it as a child's argument."""
        return json.dumps(asdict(self))


def task() -> Task:
    """Return the task of this process."""
    return Task(**json.loads(sys.argv[1]))


def thread(number: int) -> Any:
    """Return the body of an item's thread, as JSON has it."""
    question = f"Order A-{number:06} was to come on Tuesday. Where is it now?"
    return {"messages": [{"role": "user", "content": question}]}


def line(assistant_id: str, number: int) -> str:
    """Return an item as a line of a batch's input."""
    body = {"assistant_id": assistant_id, "thread": thread(number)}
    return json.dumps(
        {"custom_id": f"{number}", "method": "POST", "url": "/v1/threads/runs", "body": body}
    )


def say_done(seconds: float) -> None:
    """Tell the parent that all items are done, and how long they took."""
    sys.stdout.write(json.dumps({"seconds": seconds}) + "\n")
    sys.stdout.flush()
