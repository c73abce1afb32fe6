"""An input file's lines are read one at a time, whatever is in it."""

import gzip
import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runlane.batches.lines import MAX_LINE_BYTES, InputFile, Line, Most


def read(path: Path, content: bytes) -> tuple[list[Line], str]:
    """Return the lines of a file of this content, and its digest."""
    path.write_bytes(content)
    with InputFile(path) as file:
        return list(file.lines()), file.digest()


@pytest.mark.parametrize("packed", [False, True])
def test_lines_have_the_numbers_of_an_editor(packed: bool, tmp_path: Path) -> None:
    """Blank lines count and are passed over; ends of Windows and a byte order mark are no part."""
    content = b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"b": 2}'

    stored = gzip.compress(content) if packed else content
    lines, digest = read(tmp_path / "in", stored)

    assert [(1, b'{"a": 1}'), (4, b'{"b": 2}')] == [(line.number, line.raw) for line in lines]
    assert "sha256:" + hashlib.sha256(b'{"a": 1}').hexdigest() == lines[0].digest()
    assert "sha256:" + hashlib.sha256(content).hexdigest() == digest


def test_the_longest_line_fits_and_a_longer_one_is_passed_over(tmp_path: Path) -> None:
    """The line after one that is too long is read as if nothing had been."""
    longest, longer = b"x" * MAX_LINE_BYTES, b"y" * (MAX_LINE_BYTES + 1)
    much_longer = b"z" * (3 * MAX_LINE_BYTES)

    lines, _ = read(tmp_path / "in", b"\n".join([longest, longer, b"{}", much_longer, b"[]"]))

    assert [longest, None, b"{}", None, b"[]"] == [line.raw for line in lines]
    assert "2,000,000" in str(lines[1].problem)


def test_the_longest_line_may_have_a_mark_and_an_end_of_two_bytes(tmp_path: Path) -> None:
    """What is no part of a line doesn't count against it."""
    longest = b"x" * MAX_LINE_BYTES

    lines, _ = read(tmp_path / "in", b"\xef\xbb\xbf" + longest + b"\r\n{}")

    assert [longest, b"{}"] == [line.raw for line in lines]


def test_a_packed_file_that_is_cut_off_says_where(tmp_path: Path) -> None:
    """The lines before are read; the problem has the number of the first line that isn't."""
    whole = gzip.compress(b'{"a": 1}\n' * 3)

    lines, _ = read(tmp_path / "in.jsonl.gz", whole[:-9])

    assert lines[-1].raw is None
    assert "cut off" in str(lines[-1].problem)


@pytest.mark.parametrize(
    ("content", "lines"),
    [(b"{}\n\n{}\n", [1, 3]), (b"{}\n\n\n\n{}", [1, 4]), (b"{}\n" + b" " * 50, [1, 2])],
)
def test_a_file_that_holds_too_much_says_so_and_is_left(
    content: bytes, lines: list[int], tmp_path: Path
) -> None:
    """So many lines and bytes it may have; what is in the rest of it is not read."""
    (tmp_path / "in").write_bytes(gzip.compress(content))
    most = Most(lines=3, bytes=50)

    with InputFile(tmp_path / "in", most=most) as file:
        found = list(file.lines())

    assert lines == [line.number for line in found]
    assert (len(content) > 7) == ("over 3 lines or 50 bytes" in str(found[-1].problem))


def test_what_is_read_twice_is_the_same(tmp_path: Path) -> None:
    """A second reading begins at the first line again, with a digest of its own."""
    (tmp_path / "in").write_bytes(b"{}\n[]\n")

    with InputFile(tmp_path / "in") as file:
        first, digest = list(file.lines()), file.digest()

        assert first == list(file.lines())
        assert digest == file.digest()
        assert file.passed == file.size == 6


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=300), packed=st.sampled_from([b"", b"\x1f\x8b", b"\x1f\x8b\x08"]))
def test_any_bytes_can_be_read(content: bytes, packed: bytes, tmp_path: Path) -> None:
    """Nothing in a file raises anything: also not what begins like gzip and is none."""
    lines, digest = read(tmp_path / "in", packed + content)

    assert all((line.raw is None) == (line.problem is not None) for line in lines)
    assert digest.startswith("sha256:")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=300), cut=st.integers(0, 400), flip=st.integers(0, 400))
def test_any_damage_of_a_packed_file_can_be_read(
    content: bytes, cut: int, flip: int, tmp_path: Path
) -> None:
    """A gzip that lost its end, or has one wrong byte, gives lines and perhaps a problem."""
    stored = bytearray(gzip.compress(content))
    if flip < len(stored):
        stored[flip] ^= 0x55
    del stored[cut:]

    lines, _ = read(tmp_path / "in", bytes(stored))

    assert sum(line.raw is None for line in lines) <= 1
