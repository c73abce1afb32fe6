"""A run that is asked for over HTTP: what of the body is the protocol's, and how it is begun."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from temporalio.client import Client

from runlane import reading, requests
from runlane.api import presenting, refusals
from runlane.api.access import Principal
from runlane.api.begun import digest
from runlane.api.bodies import RunCreate
from runlane.api.services import Services
from runlane.errors import InvalidRequest, KeyReused, RunNotFound
from runlane.rpc import explained
from runlane.tools.registry import Registry
from runsapi import TERMINAL
from workflows.contract import RunView, derive_run_id

_ABSENT = "thread_of_nobody"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a create asks for."""

    params: dict[str, Any]
    """The protocol's create body, and `include`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Runlane's own, as `client.runs.create` takes them."""
    key: str | None = None
    """The idempotency key."""
    is_retry: bool = False
    """An SDK says that it sends this again."""
    stream: bool = False
    with_runlane: bool = False
    """Show the key `runlane`."""
    new_thread: str | None = None
    """Digest of what the thread is to be, where it is asked for, too."""

    def check(self) -> None:
        """Refuse what can't be begun on any thread.

        Raises:
            InvalidRequest: the field at fault is named.
        """
        requests.asked(
            _ABSENT, self.params, **self.options, max_bytes=requests.MAX_STORED_REQUEST_BYTES
        )

    def of(self, asking: Principal) -> dict[str, Any]:
        """Return the options for whoever asks."""
        who = {"owner": asking.person, "requested_by": asking.person}
        return {**self.options, **who, "new_thread": self.new_thread, "stream": self.stream}


def wanted(
    body: RunCreate,
    include: Sequence[str] | None,
    *,
    tools: Registry | None,
    key: str | None,
    is_retry: bool = False,
) -> Wanted:
    """Return what is asked for, yet to be checked in full.

    Args:
        body: as it came.
        include: of the query.
        tools: those that this process knows, where the body asks for them.
        key: the idempotency key.
        is_retry: an SDK says that it sends this again.

    Raises:
        InvalidRequest: something is in the wrong place, or the tools can't be added.
    """
    # As it came: as JSON a NaN would become null, and nobody would hear of it.
    params = body.model_dump(
        exclude_unset=True, exclude={"thread", "tool_resources", "stream", "runlane"}
    )
    if "include" in params:
        raise InvalidRequest("include goes into the query.", param="include")
    theirs = [word for word in include or () if word != presenting.INCLUDE]
    if theirs:
        params["include"] = theirs
    options = {} if body.runlane is None else body.runlane.model_dump(exclude_unset=True)
    if tools is not None:
        params = tools.added_to(params)
    return Wanted(
        params=params,
        options=options,
        key=key,
        is_retry=is_retry,
        stream=bool(body.stream),
        with_runlane=presenting.INCLUDE in (include or ()),
    )


async def begin(services: Services, asking: Principal, thread_id: str, asked: Wanted) -> RunView:
    """Start the run, unless the thread's last one lives or the key has its run already.

    Raises:
        Refusal: one of these.
        RunlaneError: it can't be started.
    """
    client = services.runlane.temporal
    options = asked.of(asking)
    # How large it may be depends on where it is stored; `create_view` knows.
    limit = requests.MAX_STORED_REQUEST_BYTES
    request = requests.asked(thread_id, asked.params, **options, max_bytes=limit).request
    own = None if asked.key is None else derive_run_id(asking.person, asked.key)
    async with services.begun.turn(thread_id):
        living = await services.begun.living(client, thread_id)
        # A key that has its run begins none, whatever lives on the thread by now.
        if living is not None and living != own and not await _is_there(client, own):
            # An SDK sends a request again whose answer it missed, and has no key to say so.
            same = asked.is_retry and own is None
            if same and request.digest() == await digest(client, living, asking.person):
                return await services.runlane.runs.view(living)
            raise refusals.thread_busy(thread_id, living)
        try:
            view = await services.runlane.runs.create_view(
                thread_id, asked.params, idempotency_key=asked.key, **options
            )
        except KeyReused as error:
            text = error.message
            raise refusals.Refusal(text, param="Idempotency-Key", code=error.code) from None
        if view.run.status not in TERMINAL:
            services.begun.note(thread_id, view.run.id)
    return view


async def _is_there(client: Client, run_id: str | None) -> bool:
    if run_id is None:
        return False
    try:
        with explained(client):
            await reading.describe(client, run_id)
    except RunNotFound:
        return False
    return True


async def thread_of(services: Services, asking: Principal, key: str | None) -> str | None:
    """Return the thread of the run that a key stands for; None while there is none."""
    if key is None:
        return None
    try:
        return (await services.runlane.runs.view(derive_run_id(asking.person, key))).run.thread_id
    except RunNotFound:
        return None
