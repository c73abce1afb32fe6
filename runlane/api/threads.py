"""Threads, which are the upstream's."""

from collections.abc import Mapping
from typing import Any

from runlane.api.refusals import Refusal
from runlane.api.services import Services


async def create_thread(services: Services, thread: Mapping[str, Any] | None) -> str:
    """Create a thread upstream, and return its id."""
    raise Refusal("Threads are not served yet.")
