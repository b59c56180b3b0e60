"""Batch files of OpenAI's: questions that are answered within a day, at half the price."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from byname.errors import OutputError, PromptError, UsageError
from byname.files import atomic_path, parse_json
from byname.llm.address import one_line
from byname.llm.wire import (
    BadReplyError,
    Manner,
    Mode,
    complaint,
    endpoint,
    read_reply,
    request_body,
    samples_left,
)
from byname.queries import Query

__all__ = ["BatchFiles", "BatchReplies", "read_batch", "write_batch"]

MAX_REQUESTS = 50_000
MAX_FILE_BYTES = 200_000_000
"""OpenAI's limits for one file."""
MAX_LINE_BYTES = 16 * 2**20
"""Longest line that is read."""
_CUSTOM_ID = re.compile(r"([0-9a-f]{16})-(\d{1,6})")


@dataclass(frozen=True)
class BatchFiles:
    """The files that were written, and how many requests they hold together."""

    paths: tuple[Path, ...]
    requests: int


@dataclass
class BatchReplies:
    """What a batch file holds.

    Parameters
    ----------
    replies : list of (str, str)
        Query id and reply; of several samples, in their order.
    failed : list of (str, str)
        ``custom_id``, or the line where there is none, and why it holds no reply.
    """

    replies: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.replies)

    def __len__(self) -> int:
        return len(self.replies)

    @property
    def counts(self) -> dict[str, int]:
        """How many replies there are, by query id: what ``have`` of others takes."""
        return dict(Counter(query for query, _ in self.replies))


def write_batch(
    queries: Iterable[Query],
    path: str | Path,
    *,
    model: str,
    mode: Mode = "chat",
    schema: Literal["auto", "on", "off"] = "auto",
    have: Mapping[str, int] | None = None,
) -> BatchFiles:
    """Write the requests that ask the queries, one a line, each sample its own.

    A file holds at most 50,000 requests and 200 MB; more become ``name-0001.jsonl``, ... All are
    written, or none.

    Parameters
    ----------
    queries : iterable of Query
        Of several with one id, the first counts.
    path : str or Path
    model : str
    mode : {"chat", "completion"}
    schema : {"auto", "on", "off"}
        Hold replies that are lists to a JSON schema; a file cannot try, so "auto" is "on".
    have : mapping, optional
        By query id, how many replies are there already: the first samples, which are left out.

    Raises
    ------
    UsageError
        Without a model or without queries.
    OutputError
        For files that cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> query = Query.make("cat", "", "look", "What does a cat look like?")
    >>> write_batch([query], folder / "batch.jsonl", model="gpt-4o-mini").requests
    1
    """
    path = Path(path)
    asked = f"write the batch '{path}'"
    if not model:
        raise UsageError(asked, "no model was given", "Give its name with --llm-model.")
    manner = Manner.of(model, schema=schema != "off" and mode == "chat")
    chosen = _first_of_each(queries)
    counts = _parts(len(line) for line in _lines(chosen, model, mode, manner, have))
    if not counts:
        raise UsageError(asked, "there are no questions", "Check the classes and the style.")
    one = len(counts) == 1
    paths = [path] if one else [_numbered(path, n) for n in range(1, len(counts) + 1)]
    try:
        _write(zip(paths, counts, strict=True), _lines(chosen, model, mode, manner, have))
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(asked, reason, "Choose a folder that exists and is writable.") from None
    if (older := _numbered(path, 1 if one else len(counts) + 1)).exists():
        warnings.warn(f"'{older}' is of an earlier batch: do not send it.", stacklevel=2)
    return BatchFiles(tuple(paths), sum(counts))


def _first_of_each(queries: Iterable[Query]) -> list[Query]:
    known: dict[str, Query] = {}
    for query in queries:
        known.setdefault(query.id, query)
    return list(known.values())


def _write(parts: Iterable[tuple[Path, int]], lines: Iterator[bytes]) -> None:
    """All files, or none."""
    with ExitStack() as files:
        for target, count in parts:
            temporary = files.enter_context(atomic_path(target))
            with temporary.open("wb") as file:
                file.writelines(islice(lines, count))


def _parts(sizes: Iterable[int]) -> list[int]:
    """How many lines each file takes."""
    counts: list[int] = []
    held = 0
    for size in sizes:
        if not counts or counts[-1] == MAX_REQUESTS or held + size > MAX_FILE_BYTES:
            counts.append(0)
            held = 0
        counts[-1], held = counts[-1] + 1, held + size
    return counts


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number:04d}{path.suffix}")


def _lines(
    queries: Iterable[Query],
    model: str,
    mode: Mode,
    manner: Manner,
    have: Mapping[str, int] | None,
) -> Iterator[bytes]:
    for query in queries:
        body = request_body(query, model, mode, manner)
        for sample in samples_left(query, have):
            line = {
                "custom_id": f"{query.id}-{sample}",
                "method": "POST",
                "url": f"/v1{endpoint(mode)}",
                "body": body,
            }
            yield json.dumps(line).encode() + b"\n"


def read_batch(path: str | Path) -> BatchReplies:
    """The replies in a batch's output file, or in its file of errors.

    They come by the first line of each query, whatever the order within: OpenAI's is arbitrary.
    Lines that report an error, and replies that are empty, are in ``failed``.

    Raises
    ------
    PromptError
        For a file that cannot be read or holds requests, and, with its number, for a line that is
        no JSON object.
    """
    path = Path(path)
    asked = f"read the batch output in '{path}'"
    found: dict[str, dict[int, str]] = {}
    made = BatchReplies()
    for number, item in _objects(path, asked):
        if "response" not in item and "body" in item:
            raise PromptError(
                asked, f"line {number} is a request", "Give the file that the batch put out."
            )
        custom_id = item.get("custom_id")
        parts = _CUSTOM_ID.fullmatch(custom_id) if isinstance(custom_id, str) else None
        if parts is None:
            shown = one_line(custom_id, 80) if custom_id is not None else f"line {number}"
            made.failed.append((shown, "its custom_id is none of byname's"))
            continue
        query, sample = parts[1], int(parts[2])
        text, why = _reply(item)
        if why:
            made.failed.append((parts[0], why))
        elif sample in found.setdefault(query, {}):
            made.failed.append((parts[0], "it stands there twice; the first one counts"))
        else:
            found[query][sample] = text
    made.replies = [(query, held[n]) for query, held in found.items() for n in sorted(held)]
    return made


def _objects(path: Path, asked: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and content of each line that is not blank."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if not line.strip():
                    continue
                try:
                    if len(line) > MAX_LINE_BYTES:
                        raise ValueError(f"it has more than {MAX_LINE_BYTES:,} bytes")
                    item = parse_json(line.decode())
                except ValueError as error:
                    seen = f"line {number} is not JSON ({error})"
                    raise PromptError(asked, seen, "Fetch the file again.") from None
                if not isinstance(item, dict):
                    raise PromptError(asked, f"line {number} is no object", "Fetch it again.")
                yield number, item
    except OSError as error:
        raise PromptError(asked, error.strerror or str(error), "Check the path.") from None


def _reply(item: dict[str, Any]) -> tuple[str, str]:
    """The text, or why there is none."""
    response = item.get("response")
    if not isinstance(response, dict):
        error = item.get("error")
        return "", complaint({"error": error}).text if error else "no response"
    status, body = response.get("status_code", 200), response.get("body")
    if status != 200 or item.get("error"):
        held = body if isinstance(body, dict) and body else {"error": item.get("error")}
        return "", f"HTTP {one_line(status, 20)}: {complaint(held).text}".rstrip(": ")
    try:
        reply = read_reply(body)
    except BadReplyError as error:
        return "", str(error)
    return (reply.text, "") if reply.text.strip() else ("", "an empty reply")
