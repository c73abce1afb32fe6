"""What was said in an item's run: its messages, for a batch whose lines are to hold them.

They are read from the upstream once the run has completed. Where they can't be had, the run has
completed all the same, and the line says why it holds none.
"""

import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from activities.contract import canonical_json
from activities.lane_failures import Refused, Trouble
from runsapi import Assistants
from runsapi.limits import MAX_PAGE
from runsapi.paths import path

MAX_BYTES = 1_000_000
"""Of an item's messages as JSON. With more than that the line holds none, and says so."""
TROUBLE_FOR = 120.0
"""Seconds after which what is still refused, or answered wrongly, is given up. An upstream that
answers nobody, or wants to be left alone, is waited for."""

_MOST_PAGES = 50
_LONGEST_PAUSE = 10.0

Query = Sequence[tuple[str, str]]
Ask = Callable[[Query], Awaitable[Any]]
"""Asks the upstream for a page of the thread's messages, and returns its JSON."""


async def patiently(
    ask: Ask,
    *,
    upstream_run_id: str,
    run_id: str,
    nap: Callable[[float], Awaitable[None]],
    is_away: Callable[[Trouble, float], bool],
) -> str:
    """Return a run's messages as an `ItemOutcome` has them, or why there are none.

    Args:
        ask: raises what `lane_failures` knows.
        upstream_run_id: whose messages they are.
        run_id: ours, which takes its place in them.
        nap: waits for so many seconds.
        is_away: tells of a trouble, and when it was asked, whether nobody is answered.

    Raises:
        PauseBatch: no item can be asked about until somebody mends something.
    """
    failed = 0
    since = time.monotonic()
    while True:
        asked_at = time.monotonic()
        try:
            return await _listed(ask, upstream_run_id, run_id)
        except _Unusable as error:
            return missing(error.code, str(error))
        except Refused as error:
            trouble: Trouble | Refused = error
        except Trouble as error:
            trouble = error
            if not error.counts or is_away(error, asked_at):
                since = time.monotonic()
        if time.monotonic() - since > TROUBLE_FOR:
            return missing(trouble.kind, str(trouble))
        after = trouble.after if isinstance(trouble, Trouble) else None
        await nap(max(min(2.0**failed, _LONGEST_PAUSE), after or 0.0))
        failed = min(failed + 1, 10)


async def page_of(upstream: Assistants, thread_id: str, query: Query) -> Any:
    """Ask for a page of a thread's messages; return its JSON.

    Raises:
        RunsAPIError: there is no answer, or none that can be read.
    """
    where = path("threads", "thread_id", "messages", thread_id=thread_id)
    return (await upstream.request("GET", where, query=query)).data


def missing(code: str, message: str) -> str:
    """Return what an outcome has in the place of messages: why they can't be had."""
    return canonical_json({"error": {"code": code, "message": message}})


class _Unusable(Exception):
    """They can't stand in a line, and never will."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


async def _listed(ask: Ask, upstream_run_id: str, run_id: str) -> str:
    """Ask for all pages, the oldest message first."""
    found: dict[str, Any] = {}
    size = 0
    seen, cursor = set[str](), list[tuple[str, str]]()
    for _ in range(_MOST_PAGES):
        order = [("run_id", upstream_run_id), ("order", "asc"), ("limit", str(MAX_PAGE))]
        page = await ask([*order, *cursor])
        listed = page.get("data") if isinstance(page, dict) else None
        if not isinstance(listed, list) or not all(_has_id(each) for each in listed):
            raise Trouble("unavailable", "The upstream's list of messages can't be read")
        fresh = [each for each in listed if each["id"] not in seen]
        seen.update(each["id"] for each in fresh)
        for each in fresh:
            # Some upstreams don't know the filter, and list the whole thread.
            if each.get("run_id") == upstream_run_id:
                found[each["id"]] = {**each, "run_id": run_id}
                size += len(_as_json(found[each["id"]]).encode(errors="surrogatepass"))
        if size > MAX_BYTES:
            text = f"The run's messages have over {MAX_BYTES:,} bytes; they stand on its thread."
            raise _Unusable("messages_too_large", text)
        # A page that brings nothing new would bring nothing new for ever.
        if not fresh or page.get("has_more") is False:
            return canonical_json(list(found.values()))
        cursor = [("after", listed[-1]["id"])]
    text = f"The thread has over {_MOST_PAGES * MAX_PAGE:,} messages, on which the run's stand."
    raise _Unusable("too_many_messages", text)


def _as_json(message: dict[str, Any]) -> str:
    try:
        return json.dumps(message, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        raise _Unusable("messages_unreadable", "The messages can't stand in JSON.") from None


def _has_id(message: Any) -> bool:
    return isinstance(message, dict) and isinstance(message.get("id"), str)
