"""Files as such: whole or not at all when written, and any trouble one clear error when read.

The lowest room beside the errors: it knows no format of byname's own.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from byname.errors import BynameError, OutputError

__all__ = [
    "MAX_TEXT_BYTES",
    "atomic_path",
    "guess_delimiter",
    "names_file",
    "names_folder",
    "parse_json",
    "read_json",
    "read_text",
    "write_text",
]

MAX_TEXT_BYTES = 256 * 2**20
"""Largest description, tokenizer or list of texts that is read into memory."""
_QUOTED = re.compile('"[^"]*"')


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("whole or not at all")
    >>> target.read_text()
    'whole or not at all'
    """
    # Not mkstemp: its files are private, and the result gets the rights any new file would have.
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.tmp")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def names_file(text: str | Path) -> bool:
    """Whether this is the path of a file; texts that no path can be are none."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def names_folder(text: str | Path) -> bool:
    """Whether this is the path of a folder; texts that no path can be are none."""
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):
        return False


def write_text(path: Path, text: str, asked: str) -> None:
    """Write UTF-8, whole or not at all, with the line ends of the text.

    Raises
    ------
    OutputError
        With ``asked``, where the file cannot be written; an older one is then still whole.
    """
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(asked, reason, "Choose a folder that exists and is writable.") from None


def read_text(path: Path, kind: type[BynameError], asked: str, do: str) -> str:
    """UTF-8 text of a file, with or without a byte order mark.

    Parameters
    ----------
    path : Path
    kind : type of BynameError
        What is raised for a file that is missing, unreadable, not UTF-8, or larger than
        ``MAX_TEXT_BYTES``; with ``asked`` and ``do``.
    asked, do : str
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise kind(asked, error.strerror or str(error), do) from None
    if len(data) > MAX_TEXT_BYTES:
        raise kind(asked, f"it has more than {MAX_TEXT_BYTES:,} bytes", do)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        seen = f"byte 0x{data[error.start]:02x} at offset {error.start:,} is not UTF-8"
        raise kind(asked, seen, do) from None


def read_json(path: Path, kind: type[BynameError], asked: str, do: str) -> Any:
    """What a JSON file holds; errors as in :func:`read_text`, and for text that is not JSON."""
    text = read_text(path, kind, asked, do)
    try:
        return parse_json(text)
    except ValueError as error:
        raise kind(asked, f"it is not JSON ({error})", do) from None


def parse_json(
    text: str | bytes, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """``json.loads``, with ValueError as the only error of its own, also for deep nesting.

    Examples
    --------
    >>> parse_json("[" * 200_000)
    Traceback (most recent call last):
    ValueError: it is nested too deeply
    """
    try:
        return json.loads(text, object_pairs_hook=object_pairs_hook)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def guess_delimiter(text: str, suffix: str) -> str:
    """What separates the cells of a table: a tab for ``.tsv``, else what its header shows.

    A comma wins wherever the header has one outside quotes; then ";" or a tab.

    Examples
    --------
    >>> guess_delimiter("id;name", ".csv"), guess_delimiter("id,a;b", ".csv")
    (';', ',')
    """
    if suffix == ".tsv":
        return "\t"
    header = _QUOTED.sub("", text.lstrip("\r\n").partition("\n")[0])
    found = max(";\t", key=header.count)
    return found if found in header and "," not in header else ","
