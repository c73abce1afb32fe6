"""Lists, page by page or one after another."""

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from runsapi.models import Run
from runsapi.steps import RunStep
from runsapi.wire import WireObject


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=_HasId)
PageT = TypeVar("PageT", bound="CursorPage[Any]")
ItemOf = TypeVar("ItemOf", bound=BaseModel)


class ListObject(WireObject, Generic[ItemOf]):
    """A page as it stands on the wire.

    Its list must be there: whoever looks for what an earlier request did must not take an answer
    that is no list for one on which it isn't.
    """

    data: list[ItemOf]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool | None = None


class CursorPage(Generic[Item]):
    """One page of a list.

    Attributes:
        data: What is on it.
        first_id: The id of the first object, as the server says, else as the page shows.
        last_id: The id of the last object, likewise.
        has_more: Whether there are more, or ``None`` where the server doesn't say.
    """

    def __init__(
        self,
        page: Any,
        *,
        cursor: str | None,
        fetch: Callable[[str], Awaitable["CursorPage[Item]"]],
    ) -> None:
        self.data: list[Item] = page.data
        self.has_more: bool | None = page.has_more
        self.first_id: str | None = page.first_id or (self.data[0].id if self.data else None)
        self.last_id: str | None = page.last_id or (self.data[-1].id if self.data else None)
        self._cursor = cursor
        self._fetch = fetch

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.data)} objects, has_more={self.has_more})"

    def has_next_page(self) -> bool:
        """Whether to ask for another page.

        Where the server doesn't say whether there are more, an empty page is the last one. A page
        that ends where it was to begin is the last one too: that server ignores the cursor.
        """
        return self.has_more is not False and bool(self.data) and self.data[-1].id != self._cursor

    async def get_next_page(self) -> "CursorPage[Item]":
        """The page after this one.

        Raises:
            RuntimeError: This is the last page.
        """
        if not self.has_next_page():
            raise RuntimeError("There is no page after this one; ask has_next_page() first.")
        return await self._fetch(self.data[-1].id)


class RunsPage(CursorPage[Run]):
    """One page of a thread's runs."""


class RunStepsPage(CursorPage[RunStep]):
    """One page of a run's steps."""


class PageRequest(Generic[PageT, Item]):
    """A list to come: await it for its first page, or iterate over all objects of all pages."""

    def __init__(self, fetch: Callable[[], Awaitable[PageT]]) -> None:
        self._fetch = fetch

    def __await__(self) -> Generator[Any, None, PageT]:
        return self._fetch().__await__()

    async def __aiter__(self) -> AsyncIterator[Item]:
        page: CursorPage[Item] = await self._fetch()
        seen: set[str] = set()
        while True:
            fresh: Sequence[Item] = [item for item in page.data if item.id not in seen]
            for item in fresh:
                yield item
            seen.update(item.id for item in fresh)
            # A page that brings nothing new would bring nothing new for ever.
            if not fresh or not page.has_next_page():
                return
            page = await page.get_next_page()
