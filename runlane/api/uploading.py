"""A file on its way in: read from a form piece by piece, and put into the ledger as it comes."""

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath, PureWindowsPath

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from ledger import LedgerError
from ledger.files import Files, StoredFile, Writing
from ledger.limits import MAX_NAME
from runlane.api.refusals import Refusal

PURPOSE = "batch"
"""What files may be for."""
FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]")
MIN_EXPIRY, MAX_EXPIRY = 3600, 30 * 86_400
"""Seconds after which a file may be gone by itself."""

_MAX_FIELD = 1024
_MAX_HEADERS = 8192
_ID_BYTES = 15


async def take(
    content_type: str, body: AsyncIterator[bytes], files: Files, owner: str
) -> StoredFile:
    """Store the file of a form; return it. Of one that can't be used nothing stays.

    Args:
        content_type: the request's header, which says where the form's parts end.
        body: the request's, as it comes.
        files: the ledger's.
        owner: whose the file is.

    Raises:
        Refusal: the form can't be used.
        LedgerError: the ledger doesn't answer, or can't be used.
    """
    form = _Form(content_type)
    its_id = "file-" + base64.b32encode(os.urandom(_ID_BYTES)).decode().lower()
    writing = await files.begin(its_id, owner, datetime.now(UTC))
    try:
        async for piece in body:
            for data in form.feed(piece):
                await writing.write(data)
        return await _finished(form, writing)
    except BaseException:
        # Where this fails too, the next upload a day later does it.
        with contextlib.suppress(LedgerError):
            await asyncio.shield(files.delete(its_id))
        raise


async def _finished(form: "_Form", writing: Writing) -> StoredFile:
    if not form.is_whole:
        raise _unreadable("it ends before its last boundary")
    if form.filename is None:
        raise Refusal("file is required.", param="file", code="missing_required_parameter")
    if "purpose" not in form.fields:
        raise Refusal("purpose is required.", param="purpose", code="missing_required_parameter")
    if form.fields["purpose"] != PURPOSE:
        text = f"purpose must be {PURPOSE}: files of other purposes belong to the upstream."
        raise Refusal(text, param="purpose", code="invalid_parameter")
    if not writing.size:
        raise Refusal("file must not be empty.", param="file", code="invalid_parameter")
    return await writing.finish(
        filename=_shown(form.filename), purpose=PURPOSE, expires_at=_expiry(form.fields)
    )


@dataclass
class _Part:
    name: str = ""
    filename: str | None = None
    data: bytearray = field(default_factory=bytearray)


class _Form:
    """A form's parts: short fields, and the one file, whose bytes are handed on."""

    def __init__(self, content_type: str) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary:
            raise _unreadable("its Content-Type names no boundary")
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.is_whole = False
        self._part = _Part()
        self._header = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._found: list[bytes] = []
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._head(0, data[start:end]),
                    "on_header_value": lambda data, start, end: self._head(1, data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": lambda data, start, end: self._take(data[start:end]),
                    "on_part_end": self._end,
                    "on_end": self._end_form,
                },
            )
        except ValueError:
            raise _unreadable("its boundary is too long") from None

    def feed(self, piece: bytes) -> list[bytes]:
        """Read on; return what of the file was in it."""
        self._found = []
        try:
            self._parser.write(piece)
        except MultipartParseError:
            raise _unreadable("a boundary or a header is wrong") from None
        return self._found

    def _begin(self) -> None:
        self._part = _Part()
        self._headers = {}
        self._header = (bytearray(), bytearray())
        self._header_bytes = 0

    def _head(self, which: int, data: bytes) -> None:
        self._header_bytes += len(data)
        if self._header_bytes > _MAX_HEADERS:
            raise _unreadable("a part's headers are too long")
        self._header[which].extend(data)

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode(errors="replace")
        self._part.name = name
        if name == "file":
            if self.filename is not None:
                raise Refusal("file can be given once.", param="file", code="invalid_parameter")
            self.filename = options.get(b"filename", b"").decode(errors="replace")
        elif name not in FIELDS or name in self.fields:
            shown = ascii(name[:60])
            text = f"{shown} is no parameter of a file, or is given twice; those are file, "
            raise Refusal(text + ", ".join(FIELDS) + ".", code="invalid_parameter")

    def _take(self, data: bytes) -> None:
        if self._part.name == "file":
            self._found.append(data)
            return
        self._part.data += data
        if len(self._part.data) > _MAX_FIELD:
            name = self._part.name
            raise Refusal(f"{name} is too long.", param=name, code="invalid_parameter")

    def _end(self) -> None:
        if self._part.name != "file":
            self.fields[self._part.name] = self._part.data.decode(errors="replace")

    def _end_form(self) -> None:
        self.is_whole = True


def _expiry(fields: dict[str, str]) -> datetime | None:
    anchor, seconds = fields.get(FIELDS[1]), fields.get(FIELDS[2])
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        text = "expires_after.anchor must be created_at."
        raise Refusal(text, param="expires_after", code="invalid_parameter")
    if seconds is None or not (seconds.isascii() and seconds.isdecimal()) or len(seconds) > 9:
        after = 0
    else:
        after = int(seconds)
    if not MIN_EXPIRY <= after <= MAX_EXPIRY:
        text = f"expires_after.seconds must be between {MIN_EXPIRY} and {MAX_EXPIRY}."
        raise Refusal(text, param="expires_after", code="invalid_parameter")
    return datetime.now(UTC) + timedelta(seconds=after)


def _shown(filename: str) -> str:
    # A path of the caller's machine is nobody's business.
    last = PureWindowsPath(PurePosixPath(filename).name).name
    return "".join(char for char in last if char.isprintable())[-MAX_NAME:] or "file"


def _unreadable(why: str) -> Refusal:
    return Refusal(f"The form can't be read: {why}.", code="invalid_form")
