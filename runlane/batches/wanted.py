"""What a batch is to be: its name, and the options that hold for it from its begin."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from ledger.batch_record import PRICES, BatchRecord
from runlane.errors import InvalidRequest
from workflows.batch_contract import DEFAULT_LANES, DEFAULT_WINDOW, MAX_LANES, MAX_WINDOW

MAX_NAME = 255
"""Characters of a batch's name, and of a pause's reason."""
ID_PREFIX = "batch_"
"""With which a batch's id begins, and no name."""
TRIES = 3
"""Of an item before it has failed, where nobody says how many."""
MAX_TRIES = 100
"""Of an item, before it has failed."""

_OPTIONS = {
    "--rpm": "rpm",
    "--tpm": "tpm",
    "--price-per-million-tokens": PRICES,
    "--with-tools": "with_tools",
    "--with-messages": "with_messages",
}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be run."""

    name: str
    owner: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `BatchOptions`, those that were given."""
    deadline: datetime | None = None
    """Nothing begins after it."""
    token_limit: int | None = None
    cost_limit: Decimal | None = None
    """By the prices among the options."""
    max_in_flight: int = DEFAULT_LANES * DEFAULT_WINDOW
    """Items at a time that need nobody; people's wait beside them."""

    def check(self) -> None:
        """Refuse what can't be used.

        Raises:
            InvalidRequest: it names the option and its limit.
        """
        if not 1 <= len(self.name) <= MAX_NAME or not self.name.isprintable():
            text = f"A batch's name must be a line of 1 to {MAX_NAME} characters."
            raise InvalidRequest(text, param="--name")
        if self.name.startswith(ID_PREFIX):
            text = f"A batch's name can't begin with {ID_PREFIX}, as the ids do."
            raise InvalidRequest(text, param="--name")
        most = MAX_LANES * MAX_WINDOW
        if not 1 <= self.max_in_flight <= most:
            text = f"--max-in-flight must be between 1 and {most:,}, got {self.max_in_flight}."
            raise InvalidRequest(text, param="--max-in-flight")
        if self.token_limit is not None and self.token_limit < 1:
            text = f"--max-tokens must be at least 1, got {self.token_limit}."
            raise InvalidRequest(text, param="--max-tokens")
        if self.cost_limit is not None and PRICES not in self.options:
            text = "--max-cost needs --price-per-million-tokens IN,OUT."
            raise InvalidRequest(text, param="--max-cost")
        for name in ("rpm", "tpm"):
            rate = self.options.get(name)
            if rate is not None and not 0 < rate < float("inf"):
                text = f"--{name} must be above 0, got {rate:g}."
                raise InvalidRequest(text, param=f"--{name}")
        tries = self.options.get("tries", 1)
        if not 1 <= tries <= MAX_TRIES:
            text = f"--tries must be between 1 and {MAX_TRIES}, got {tries}."
            raise InvalidRequest(text, param="--tries")

    def unlike(self, batch: BatchRecord) -> list[str]:
        """Return the options that were given and don't hold for a batch that was begun before."""
        wanted = self.stored_options()
        lanes = (wanted["lanes"], wanted["window"])
        given = {
            "--max-in-flight": self.max_in_flight != DEFAULT_LANES * DEFAULT_WINDOW
            and lanes != (batch.options.get("lanes"), batch.options.get("window")),
            "--tries": wanted.get("tries", TRIES) not in (TRIES, batch.options.get("tries")),
            "--max-tokens": self.token_limit not in (None, batch.token_limit),
            "--max-cost": self.cost_limit not in (None, batch.cost_limit),
            "--deadline": self.deadline not in (None, batch.deadline),
        }
        for option, key in _OPTIONS.items():
            given[option] = wanted.get(key) not in (None, batch.options.get(key))
        return [option for option, differs in given.items() if differs]

    def stored_options(self) -> dict[str, Any]:
        """Return what the batch's record holds: with how many lanes it is run, too."""
        lanes = max(min(DEFAULT_LANES, self.max_in_flight), -(-self.max_in_flight // MAX_WINDOW))
        return {**self.options, "lanes": lanes, "window": self.max_in_flight // lanes}
