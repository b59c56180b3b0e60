"""Files out of a request, while it arrives: bounded in bytes, parts and headers, and in memory.

What a client says about lengths is never believed: bytes are counted as they come. A file that is
too large is dropped, and the rest of the request still read, as long as the whole keeps its limit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from byname.serve.problems import Problem
from byname.taxonomy import clean_text

__all__ = ["Limits", "Upload", "clean_name", "read_json_bytes", "read_uploads"]

PIECE = 65_536  # bytes that are parsed before finished files are taken away
NAME = 200  # characters of a file name that are kept
_ASKED = "take the images"
_DO = "Send multipart/form-data with the images in the field 'files'."


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may bring.

    ``body`` and ``parts`` are for one request; ``images`` is how many are held at once.
    """

    file: int = 20_000_000
    images: int = 10_000
    pixels: int = 50_000_000
    parts: int = 200
    json: int = 4_000_000

    @property
    def body(self) -> int:
        """Bytes of one request with images."""
        return 10 * self.file + 1_000_000


@dataclass(frozen=True)
class Upload:
    """One file; ``data`` is None where it was too large."""

    name: str
    data: bytes | None


def clean_name(given: str) -> str:
    """The last part of a name, without control characters: to be shown, never to be opened.

    Examples
    --------
    >>> clean_name("../../etc/passwd"), clean_name("C:\\\\a\\\\b.jpg"), clean_name("\\n")
    ('passwd', 'b.jpg', 'image')
    """
    base = clean_text(given.replace("\\", "/").rsplit("/", 1)[-1])
    return base[:NAME].strip() or "image"


async def read_uploads(
    stream: AsyncIterator[bytes], content_type: str, limits: Limits
) -> AsyncIterator[Upload]:
    """Each file of a multipart body as soon as it is whole.

    Raises
    ------
    Problem
        415 for another type, 413 for too many bytes, 400 for too many parts or a damaged body.
    """
    parts, total = _Parts(content_type, limits), 0
    async for chunk in stream:
        total += len(chunk)
        if total > limits.body:
            raise _too_large(_ASKED, limits.body, "Send fewer images at once.")
        for start in range(0, len(chunk), PIECE):
            for upload in parts.feed(chunk[start : start + PIECE]):
                yield upload
            if parts.failed is not None:
                raise parts.failed
    if not parts.ended:
        raise Problem(400, _ASKED, "the request ended before its last part", "Send it again.")


async def read_json_bytes(stream: AsyncIterator[bytes], most: int) -> bytes:
    """A body of at most so many bytes."""
    found = bytearray()
    async for chunk in stream:
        found += chunk
        if len(found) > most:
            raise _too_large("read the request", most, "Send less at once.")
    return bytes(found)


def _too_large(asked: str, most: int, do: str) -> Problem:
    return Problem(413, asked, f"it is larger than {most / 1e6:g} MB", do)


class _Parts:
    """Collects the files of a body, piece by piece."""

    def __init__(self, content_type: str, limits: Limits) -> None:
        from python_multipart.multipart import MultipartParser, parse_options_header

        self._options: Any = parse_options_header
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 0 < len(boundary) <= 200:
            raise Problem(415, _ASKED, "the request is not multipart/form-data", _DO)
        self.limits, self.ended = limits, False
        self.failed: Problem | None = None
        self._count, self._data = 0, bytearray()
        self._name: str | None = None
        self._dropped = False
        self._field, self._value, self._disposition = b"", b"", b""
        self._done: list[Upload] = []
        self._parser: Any = MultipartParser(
            boundary,
            {  # type: ignore[arg-type, unused-ignore]
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_part_end": self._end,
                "on_end": self._all,
            },
        )

    def feed(self, data: bytes) -> list[Upload]:
        """The files that these bytes complete; ``failed`` says what is wrong after them."""
        from python_multipart.exceptions import FormParserError

        self._done = []
        try:
            self._parser.write(data)
        except FormParserError:
            self.failed = Problem(400, _ASKED, "the multipart body is damaged", _DO)
        except Problem as problem:
            self.failed = problem
        return self._done

    def _begin(self) -> None:
        self._count += 1
        if self._count > self.limits.parts:
            seen = f"it has more than {self.limits.parts} parts"
            raise Problem(400, _ASKED, seen, "Send fewer images at once.")
        self._data, self._name, self._dropped, self._disposition = bytearray(), None, False, b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._bounded()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._bounded()

    def _bounded(self) -> None:
        if len(self._field) + len(self._value) > 8192:
            raise Problem(400, _ASKED, "a part has headers of more than 8 kB", _DO)

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = self._options(self._disposition)
        if b"filename" not in options:
            return
        if options.get(b"name") != b"files":
            raise Problem(400, _ASKED, "a file is in a field of another name than 'files'", _DO)
        name = options[b"filename"].decode("utf-8", "replace")
        # Browsers write these three so, and a percent sign as it is.
        for code, character in (("%22", '"'), ("%0D", "\r"), ("%0A", "\n")):
            name = name.replace(code, character)
        self._name = clean_name(name)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name is None or self._dropped:
            return
        if len(self._data) + end - start > self.limits.file:
            self._dropped, self._data = True, bytearray()
            return
        self._data += data[start:end]

    def _end(self) -> None:
        if self._name is not None:
            self._done.append(Upload(self._name, None if self._dropped else bytes(self._data)))
        self._data, self._name = bytearray(), None

    def _all(self) -> None:
        self.ended = True
