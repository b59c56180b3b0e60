"""Parquet files that hold images: which column, how many rows, and what each row is called.

The images themselves are not read here; see :mod:`byname.images.cells`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from byname.errors import SourceError
from byname.images.lists import COLUMNS
from byname.images.places import UnreachableError, advice, open_place, reason, shown
from byname.images.refs import key_of
from byname.images.urls import is_url, public_url

__all__ = ["ImageTable", "bytes_column", "damage", "holds_images", "index_table"]

BYTE_COLUMNS = (
    *("image", "image_bytes", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "bytes"),
)
"""Names of columns of bytes that are images, tried in this order."""
LAST_COLUMNS = ("content", "data", "image_content")
"""Tried where there is no column of paths either."""
NAME_COLUMNS = ("file_name", "__key__", "key", "path", "filename", "id")
"""Columns that may name the rows, in this order, where images have no path of their own."""
_START = re.compile(r"^(\./+)+(?=.)")
_CHECK = "Check that it is a whole Parquet file."


@cache
def damage() -> tuple[type[Exception], ...]:
    """What reading a damaged Parquet file may raise."""
    import pyarrow as pa

    return (
        *(pa.ArrowException, OSError, ValueError, KeyError, IndexError, TypeError),
        *(OverflowError, MemoryError, RuntimeError, EOFError),
    )


@dataclass(frozen=True)
class ImageTable:
    """A Parquet file with images.

    Parameters
    ----------
    name : str
        What its rows are called after.
    inside : str
        Column with the bytes, as ``image`` or ``image.bytes``.
    rows : int
    names : sequence of str, optional
        A unique name for each row, if the file has one.
    prefix : str
    size, mtime_ns : int
        Of the file.
    """

    name: str
    inside: str
    rows: int
    names: Sequence[str] | None
    prefix: str
    size: int
    mtime_ns: int

    def keys(self) -> Iterator[str]:
        """A key for each row, in the order of the file."""
        if self.names is None:
            name = key_of(self.name)
            return (f"{name}#{row:08d}" for row in range(self.rows))
        return (key_of(self.prefix + name) for name in self.names)


def holds_images(path: str, column: str | None = None) -> bool:
    """Whether a Parquet file holds images; False where it cannot be read.

    Examples
    --------
    >>> holds_images("no/such.parquet")
    False
    """
    import pyarrow.parquet as pq

    try:
        stream, _, _ = open_place(path)
        with stream:
            return bool(bytes_column(pq.ParquetFile(stream).schema_arrow, column))
    except damage():
        return False


def index_table(path: str, column: str | None = None, name: str = "") -> ImageTable:
    """List the rows of a Parquet file with images, from its footer and the names of its rows.

    Parameters
    ----------
    path : str
        A file, or its URL.
    column : str, optional
        Column with the bytes; found by type and usual names where not given.
    name : str
        Where it is one of several files: its name, which comes before those of the rows.

    Raises
    ------
    SourceError
        For a file that cannot be read, or holds no images.
    """
    import pyarrow.parquet as pq

    asked = f"list the images in '{shown(path)}'"
    try:
        stream, size, mtime_ns = open_place(path)
        with stream:
            file = pq.ParquetFile(stream)
            inside = bytes_column(file.schema_arrow, column)
            if not inside:
                raise _no_images(file.schema_arrow.names, column, asked)
            rows = sum(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
            if not 0 <= rows <= size:  # an image has a byte at least
                seen = f"its footer speaks of {rows:,} rows in {size:,} bytes"
                raise SourceError(asked, seen, _CHECK)
            names = _names(file, inside, rows)
    except SourceError:
        raise
    except damage() as error:
        do = advice(path, _CHECK) if isinstance(error, UnreachableError) else _CHECK
        raise SourceError(asked, reason(error), do) from None
    base = name or os.path.basename(public_url(path) if is_url(path) else path)  # noqa: PTH119
    return ImageTable(base, inside, rows, names, f"{name}/" if name else "", size, mtime_ns)


def bytes_column(schema: Any, column: str | None = None) -> str:
    """The column with the bytes of images, as ``image`` or ``image.bytes``; empty if none.

    Parameters
    ----------
    schema : pyarrow.Schema
    column : str, optional
        The user's choice: a column of bytes, a struct with a field ``bytes``, or that field.

    Examples
    --------
    >>> import pyarrow as pa
    >>> bytes_column(pa.schema({"image": pa.struct({"bytes": pa.binary(), "path": pa.string()})}))
    'image.bytes'
    """
    found: dict[str, str] = {}
    called = Counter(schema.names)
    for field in schema:
        if _is_bytes(field.type):
            found[field.name] = field.name
        elif _is_struct(field.type):
            called.update(f"{field.name}.{f.name}" for f in field.type)
            inner = [f.name for f in field.type if _is_bytes(f.type)]
            if "bytes" in inner:
                found[field.name] = f"{field.name}.bytes"
            found |= {f"{field.name}.{name}": f"{field.name}.{name}" for name in inner}
    # Arrow reads columns by their names alone: of two with one name it may give the other.
    found = {n: place for n, place in found.items() if called[n] == called[place] == 1}
    if column is not None:
        return found.get(column, "")
    structs = [name for name in found if found[name] == f"{name}.bytes"]
    lower: dict[str, str] = {name.lower(): name for name in reversed(schema.names)}
    for wanted in BYTE_COLUMNS:
        if (name := lower.get(wanted)) in found and name is not None:
            return found[name]
    if structs:
        return found[structs[0]]
    if not any(_is_text(schema, lower.get(name)) for name in COLUMNS):
        for wanted in LAST_COLUMNS:
            if (name := lower.get(wanted)) in found and name is not None:
                return found[name]
    return ""


def _names(file: Any, inside: str, rows: int) -> list[str] | None:
    """Names of all rows, out of the first column where they are unique."""
    import pyarrow.compute as pc

    schema = file.schema_arrow
    outer, dot, _ = inside.rpartition(".")
    candidates = []
    if dot and inside not in schema.names:
        fields = {f.name: f.type for f in schema.field(outer).type}
        path = f"{outer}.path"
        if _text(fields.get("path")) and path not in schema.names:
            candidates.append((path, "path"))
    candidates += [(n, "") for n in NAME_COLUMNS if schema.names.count(n) == 1]
    for name, inner in candidates:
        kind = schema.field(name).type if not inner else None
        if kind is not None and not (_text(kind) or _whole(kind)):
            continue
        column = file.read(columns=[name]).column(0)
        values = (pc.struct_field(column, [inner]) if inner else column).to_pylist()
        names = [_START.sub("", str(v)) if v is not None else "" for v in values]
        if len(names) == rows and all(names) and len(set(names)) == rows:
            return names
    return None


def _is_bytes(kind: Any) -> bool:
    import pyarrow.types as t

    if t.is_dictionary(kind):
        kind = kind.value_type
    tests = (t.is_binary, t.is_large_binary, t.is_fixed_size_binary, t.is_binary_view)
    return any(test(kind) for test in tests)


def _is_struct(kind: Any) -> bool:
    import pyarrow.types as t

    return bool(t.is_struct(kind))


def _is_text(schema: Any, name: str | None) -> bool:
    return name is not None and schema.names.count(name) == 1 and _text(schema.field(name).type)


def _text(kind: Any) -> bool:
    import pyarrow.types as t

    if kind is None:
        return False
    if t.is_dictionary(kind):
        kind = kind.value_type
    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def _whole(kind: Any) -> bool:
    import pyarrow.types as t

    return bool(t.is_integer(kind))


def _no_images(names: list[str], column: str | None, asked: str) -> SourceError:
    shown_names = ", ".join(repr(name) for name in names[:12])
    if column is not None and column not in names:
        seen = f"there is no column '{column}' of bytes; its columns are {shown_names}"
    elif column is not None:
        seen = f"column '{column}' holds no bytes of images"
    else:
        seen = f"none of its columns {shown_names} holds images"
    do = "Name the column of bytes: --image-column NAME, or image_column= in Python."
    return SourceError(asked, seen, do)
