"""One run's rows, beside what was signed about them: which is the first that can't be?"""

from collections.abc import Sequence

from ledger.verdict import Line, Wrong, at_row, digest, number_in, wrong


def compare(rows: Sequence[Line], digests: list[str], run_id: str, line: Line) -> None:
    """Find the first row that isn't the one that was signed in its place."""
    place = 0
    for index, row in enumerate(rows):
        found = digest(row)
        if place < len(digests) and found == digests[place]:
            if row.said.get("digest") != found:
                raise at_row(Wrong.CHANGED, row, run_id, place)
            place += 1
        elif found in digests[place + 1 :]:
            raise at_row(Wrong.REMOVED, row, run_id, place)
        elif place == len(digests) or (
            index + 1 < len(rows) and digest(rows[index + 1]) == digests[place]
        ):
            raise at_row(Wrong.PUT_IN, row, run_id, place)
        else:
            raise at_row(Wrong.CHANGED, row, run_id, place)
    if place < len(digests):
        raise at_row(Wrong.TAIL_MISSING, line, run_id, place)


def follow(rows: Sequence[Line], run_id: str, line: Line) -> None:
    """Find the first place where the ledger itself was broken before it was exported."""
    before: str | None = None
    pruned = line.body["pruned"]
    # What came after the trail had been pruned goes on where it ended.
    start = number_in(rows[0], "seq") if pruned and rows else 0
    for place, row in enumerate(rows, start):
        if row.body.get("run") != run_id:
            raise at_row(Wrong.PUT_IN, row, run_id, place)
        if number_in(row, "seq") != place:
            gone = number_in(row, "seq") > place
            raise at_row(Wrong.REMOVED if gone else Wrong.PUT_IN, row, run_id, place)
        if row.body.get("previous") != before and not (pruned and place == start):
            # The one before was changed with its digest, which this row still has as it was.
            index = max(place - start - 1, 0)
            raise at_row(Wrong.CHANGED, rows[index], run_id, start + index)
        before = digest(row)
    head_seq, head_digest = line.body["head"]
    if pruned:
        return
    if head_seq >= len(rows):
        raise at_row(Wrong.TAIL_MISSING, line, run_id, len(rows))
    if head_seq < len(rows) - 1:
        raise at_row(Wrong.PUT_IN, rows[head_seq + 1], run_id, head_seq + 1)
    if head_digest != before:
        raise at_row(Wrong.CHANGED, rows[-1], run_id, len(rows) - 1)


def reaches(digests: list[str], signed: dict[int, str], run_id: str, line: Line) -> None:
    """Compare with what was signed at earlier times."""
    for seq in sorted(signed):
        if seq >= len(digests):
            raise at_row(Wrong.TAIL_MISSING, line, run_id, len(digests))
        if digests[seq] != signed[seq]:
            text = (
                f"run {run_id}: row {seq} or one before it is not the one that a checkpoint has "
                "signed: the trail was written anew"
            )
            raise wrong(Wrong.CHANGED, line.number, text, run_id, seq)
