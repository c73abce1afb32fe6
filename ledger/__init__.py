"""What must outlive Temporal's retention: intents, the audit trail, finished runs.

SQLite in the data directory, or PostgreSQL. Knows neither Temporal nor HTTP.
"""

from ledger.errors import (
    BatchNotKnown,
    BatchTaken,
    EventChanged,
    KeyTaken,
    LedgerError,
    LedgerRefused,
    LedgerUnavailable,
    RunNotKnown,
    SchemaError,
    SchemaTooNew,
)
from ledger.ledger import Ledger
from ledger.location import Location

__all__ = [
    "BatchNotKnown",
    "BatchTaken",
    "EventChanged",
    "KeyTaken",
    "Ledger",
    "LedgerError",
    "LedgerRefused",
    "LedgerUnavailable",
    "Location",
    "RunNotKnown",
    "SchemaError",
    "SchemaTooNew",
]
