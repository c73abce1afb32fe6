"""The check of a batch's input, seen by a person: a bar that moves, bad lines, an estimate."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from runlane.cli import output, session
from runlane.cli.reading_bar import ReadingBar
from runlane.errors import InvalidRequest

if TYPE_CHECKING:
    from ledger.batch_money import Prices
    from runlane.batches.checked_line import Added, Problem
    from runlane.batches.checking import Totals
    from runlane.batches.estimating import Estimate
    from runlane.batches.lines import InputFile

_PROBLEMS_SHOWN = 20
_NO_PIPE = "it is read twice, which a pipe can't be. Write it to a file first"


class BadLines(InvalidRequest):
    """Lines of the input can't be used; nothing was sent."""

    code = "bad_lines"

    def __init__(self, message: str, problems: "list[Problem]") -> None:
        """Carry the first ones."""
        super().__init__(message, param="INPUT")
        self.problems = problems

    def as_json(self) -> dict[str, Any]:
        """Return the error document with the first bad lines beside the error."""
        told = [{"line": each.line, "reason": each.reason} for each in self.problems]
        return {**super().as_json(), "lines": told}


@contextmanager
def opened(path: Path) -> "Iterator[InputFile]":
    """Open the input, and say in words what keeps it from being read.

    Raises:
        InvalidRequest: it can't be opened, or the disk fails.
    """
    from runlane.batches.lines import InputFile  # noqa: PLC0415

    if str(path) == "-":
        text = "INPUT can't be standard input, for it is read twice. Write it to a file first."
        raise InvalidRequest(text, param="INPUT")
    if path.is_fifo():
        # To open it would wait for somebody to write.
        raise InvalidRequest(f"Can't read {path}: {_NO_PIPE}.", param="INPUT")
    try:
        with InputFile(path) as source:
            yield source
    except OSError as error:
        if error.filename not in (None, str(path), path):
            raise
        # A pipe says nothing of its own.
        why = error.strerror or _NO_PIPE
        raise InvalidRequest(f"Can't read {path}: {why}.", param="INPUT") from None


def check(
    source: "InputFile", problems: Path, *, skip_invalid: bool | None, added: "Added | None" = None
) -> "tuple[Totals, Estimate]":
    """Check every line, and tell of those that can't be used.

    Args:
        source: the input.
        problems: where all bad lines are written, once there is one.
        skip_invalid: go on without them; None: the command has no such option.
        added: adds to each line's body what all are to have.

    Raises:
        BadLines: there are some, and they are not to be skipped.
        InvalidRequest: no line can be used, or `problems` can't be written.
    """
    report = _Report(problems)
    with report, ReadingBar(source, "Checking") as bar:
        # Deferred: they bring the protocol's models, which `--help` does without.
        from runlane.batches.checked_line import Problem  # noqa: PLC0415
        from runlane.batches.checking import Checking  # noqa: PLC0415
        from runlane.batches.estimating import Estimate  # noqa: PLC0415

        checking, estimate = Checking(source, added), Estimate()
        for found in checking.lines():
            if isinstance(found, Problem):
                report.tell(found)
            else:
                estimate.count(found)
            bar.move(checking.totals.usable + checking.totals.unusable)
    totals = checking.totals
    report.close(totals.unusable)
    if totals.unusable and not skip_invalid:
        lines = output.counted(totals.unusable, "line")
        way = "." if skip_invalid is None else ", or go on without them:  --skip-invalid"
        text = f"{lines} of {source.path} can't be used; nothing was sent. Mend them{way}"
        raise BadLines(text, report.first)
    if not totals.usable:
        text = f"{source.path} holds no line that can be used; nothing was sent."
        raise InvalidRequest(text, param="INPUT")
    if totals.unusable:
        output.note(f"Going on without {output.counted(totals.unusable, 'bad line')}.")
    return totals, estimate


def show_estimate(
    path: Path, totals: "Totals", estimate: "Estimate", prices: "Prices | None"
) -> None:
    """Print what a batch would be, and what it may cost; nothing of it is a promise."""
    money = None if prices is None else estimate.money(prices)
    if session.wants_json():
        output.document(
            {
                "input": str(path),
                "input_digest": totals.digest,
                "items": totals.usable,
                "unusable_lines": totals.unusable,
                "new_threads": estimate.new_threads,
                "estimate": {
                    "prompt_tokens": estimate.prompt_tokens,
                    "completion_tokens_at_most": estimate.completion_tokens,
                    "items_without_max_completion_tokens": estimate.without_limit,
                    "money": None if money is None else float(money),
                },
            }
        )
        output.note("Nothing was sent.")
        return
    output.fields(_rows(totals, estimate, None if money is None else f"{money:,.2f}"))
    output.note("Estimates by the length of the texts. What stands on threads already, and the")
    output.note("assistants' own instructions and tools, come on top.")
    output.note("Nothing was sent.")


def _rows(totals: "Totals", estimate: "Estimate", money: str | None) -> list[tuple[str, str]]:
    threads = estimate.new_threads
    on_theirs = totals.usable - threads
    where = [f"{threads:,} on a new thread"] if threads else []
    where += [f"{on_theirs:,} on a thread they name"] if on_theirs else []
    limited = totals.usable - estimate.without_limit
    writes = f"at most {estimate.completion_tokens:,} tokens" if limited else "unknown"
    if estimate.without_limit:
        unlimited = output.counted(estimate.without_limit, "item")
        has = "has" if estimate.without_limit == 1 else "have"
        writes += f"; {unlimited} {has} no max_completion_tokens"
    rows = [
        ("items", f"{totals.usable:,} ({', '.join(where)})"),
        ("bad lines", f"{totals.unusable:,}"),
        ("reads", f"about {estimate.prompt_tokens:,} tokens (4 characters each)"),
        ("writes", writes),
    ]
    if money is not None:
        beyond = ", without what is unknown" if estimate.without_limit else ""
        rows.append(("money", f"about {money}{beyond}"))
    return rows


class _Report:
    """Bad lines: the first ones on standard error, all of them in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self.first: list[Problem] = []

    def tell(self, problem: "Problem") -> None:
        if len(self.first) < _PROBLEMS_SHOWN:
            self.first.append(problem)
            output.note(output.safe(str(problem)))
        try:
            if self._file is None:
                self._file = self._path.open("w", encoding="utf-8")
            json.dump({"line": problem.line, "reason": problem.reason}, self._file)
            self._file.write("\n")
        except OSError as error:
            self._file = None
            text = f"Can't write the bad lines to {self._path}: {error.strerror}."
            raise InvalidRequest(text, param="--problems") from None

    def close(self, count: int) -> None:
        if self._file is None:
            return
        more = count - len(self.first)
        if more:
            output.note(f"… and {output.counted(more, 'more bad line')}.")
        output.note(f"All of them are in {output.safe(str(self._path))}")

    def __enter__(self) -> "_Report":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
