"""Lists of image paths: text (a path a line), CSV, TSV and Parquet."""

# Paths are text here, since they may be URLs or hold bytes that are not UTF-8.
# ruff: noqa: PTH122

from __future__ import annotations

import csv
import io
import os
from typing import Any

from byname.errors import SourceError
from byname.files import guess_delimiter
from byname.images.places import UnreachableError, advice, open_place, read_place, reason, shown
from byname.images.urls import is_url, public_url

__all__ = ["COLUMNS", "LIST_EXTENSIONS", "read_list"]

LIST_EXTENSIONS = frozenset({".txt", ".csv", ".tsv", ".parquet"})
COLUMNS = ("file_name", "filename", "image", "image_path", "path", "file", "filepath")
"""Column names tried in this order where none is given."""


def read_list(path: str, column: str | None = None) -> list[str]:
    """Read the paths written in a list file, in order, empty ones dropped.

    Parameters
    ----------
    path : str
        ``.txt``: a path a line, blanks at both ends ignored. ``.csv``, ``.tsv``, ``.parquet``: the
        column ``column``, else the first of ``COLUMNS`` that is there.
    column : str, optional

    Raises
    ------
    SourceError
        For a file that cannot be read, text that is not UTF-8, a missing column, a column that
        does not hold text, or a list without an entry.
    """
    kind = os.path.splitext(public_url(path) if is_url(path) else path)[1].lower()
    asked = f"read the list of images '{shown(path)}'"
    if kind == ".parquet":
        entries = _parquet(path, column, asked)
    elif kind == ".txt":
        if column is not None:
            raise SourceError(
                asked,
                f"a text file has no column '{column}'",
                "Leave the column out, or give a CSV, TSV or Parquet file.",
            )
        entries = [line.strip() for line in _text(path, asked).split("\n")]
    else:
        text = _text(path, asked)
        entries = _csv(text, guess_delimiter(text, kind), column, asked)
    entries = [entry for entry in entries if entry]
    if not entries:
        raise SourceError(asked, "it holds no path", "Write one image path a line.")
    return entries


def _text(path: str, asked: str) -> str:
    raw = read_place(path, asked)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SourceError(asked, "it is UTF-16, not UTF-8", "Save it as UTF-8.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(
            asked,
            f"byte 0x{raw[error.start]:02x} at offset {error.start:,} is not UTF-8",
            "Save it as UTF-8, or list names that are not UTF-8 by giving their folder instead.",
        ) from None


def _csv(text: str, delimiter: str, column: str | None, asked: str) -> list[str]:
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise SourceError(asked, str(error), "Check its quotes and line ends.") from None
    header = [name.strip() for name in rows[0]] if rows else []
    if not header:
        raise SourceError(asked, "its first line is empty", "Name the columns in the first line.")
    at = header.index(_column(header, column, asked))
    return [row[at].strip() if at < len(row) else "" for row in rows[1:]]


def _parquet(path: str, column: str | None, asked: str) -> list[str]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        stream, _, _ = open_place(path)
        with stream:
            file = pq.ParquetFile(stream)
            names = file.schema_arrow.names
            name = column or ""
            if not _inner(file.schema_arrow, name):
                name = _column(names, column, asked)
            if (count := names.count(name)) > 1:
                seen = f"{count} of its columns are called '{name}'"
                raise SourceError(asked, seen, "Give each a name of its own.")
            values = file.read(columns=[name]).column(0)
            if name not in names:
                values = pc.struct_field(values, [name.rpartition(".")[2]])
            if pa.types.is_dictionary(values.type):
                values = values.cast(values.type.value_type)
            texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
            if not any(test(values.type) for test in texts):
                raise SourceError(
                    asked,
                    f"column '{name}' holds {values.type}, not text",
                    "Give a column of paths, or of images as bytes.",
                )
            return [value or "" for value in values.to_pylist()]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        do = "Check that it is a whole Parquet file."
        if isinstance(error, UnreachableError):
            do = advice(path, do)
        raise SourceError(asked, reason(error), do) from None


def _inner(schema: Any, column: str) -> bool:
    """Whether the column is a field of a struct, such as 'image.path'."""
    import pyarrow as pa

    outer, dot, field = column.rpartition(".")
    if not dot or column in schema.names or schema.names.count(outer) != 1:
        return False
    kind = schema.field(outer).type
    return bool(pa.types.is_struct(kind) and kind.get_field_index(field) >= 0)


def _column(names: list[str], column: str | None, asked: str) -> str:
    if column is not None:
        if column in names:
            return column
        seen = f"there is no column '{column}'; its columns are {_quoted(names)}"
        raise SourceError(asked, seen, "Name one of them as the image column.")
    lower = {name.lower(): name for name in reversed(names)}
    for candidate in COLUMNS:
        if candidate in lower:
            return lower[candidate]
    raise SourceError(
        asked,
        f"none of its columns {_quoted(names)} is called {', '.join(COLUMNS)}",
        "Say which column holds the paths: --image-column NAME, or image_column= in Python.",
    )


def _quoted(names: list[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more
