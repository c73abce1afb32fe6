"""Where a ledger lies: a file in the data directory, or a PostgreSQL."""

from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ledger.errors import LedgerRefused

FILE = "ledger.db"
"""In the data directory."""

_FORM = "must be of the form postgresql://user:password@host[:port]/database"


@dataclass(frozen=True)
class Location:
    """Where a ledger lies; its text holds neither user nor password."""

    url: URL = field(repr=False)

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of this machine."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def file(self) -> Path:
        """The file of a ledger that is one."""
        return Path(self.url.database or "")

    def __str__(self) -> str:
        """The place as it may stand in a log."""
        if self.is_sqlite:
            return f"The ledger {self.file}"
        host = self.url.host or self.url.query.get("host") or "this machine"
        port = f":{self.url.port}" if self.url.port else ""
        return f"The ledger PostgreSQL {host}{port}/{self.url.database or ''}"

    @classmethod
    def in_directory(cls, directory: Path) -> "Location":
        """Return the place in a data directory."""
        return cls(URL.create("sqlite", database=str(directory.absolute() / FILE)))

    @classmethod
    def from_url(cls, text: str) -> "Location":
        """Return the PostgreSQL that a URL names.

        Raises:
            LedgerRefused: it is no such URL. The text, which may hold a password, is not repeated.
        """
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):
            raise LedgerRefused(f"The ledger's URL {_FORM}.") from None
        if url.drivername not in {"postgres", "postgresql", "postgresql+psycopg"}:
            raise LedgerRefused(f"The ledger's URL {_FORM}.")
        if not url.database:
            raise LedgerRefused(f"The ledger's URL names no database; it {_FORM}.")
        return cls(url.set(drivername="postgresql+psycopg"))
