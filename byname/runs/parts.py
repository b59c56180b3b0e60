"""The part format: ``part-00012.parquet`` and ``part-00012.json``, and a journal while in work.

The JSON is written last, by rename: it marks the part as complete. While a shard is in work its
finished batches are appended to ``part-00012.journal``, so that a killed run loses at most the
batch in hand. A journal is a sequence of records: length and CRC-32 of what follows (unsigned
little-endian, 8 and 4 bytes), then an Arrow stream of one batch.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byname.embeddings import vector_array
from byname.files import atomic_path, parse_json

__all__ = [
    "HASH_BYTES",
    "Journal",
    "Row",
    "part_paths",
    "read_parquet",
    "read_part",
    "rows_table",
    "schema",
    "write_part",
]

PART_FORMAT = "byname-part/1"
HASH_BYTES = 16
_HEAD = struct.Struct("<QI")


@dataclass(frozen=True)
class Row:
    """One image of a shard: its position there, its vector or an error, its content's hash."""

    position: int
    key: str
    content: bytes
    vector: NDArray[np.float16] | None
    error: str | None


def schema(dim: int) -> pa.Schema:
    """Columns of a part and of a journal."""
    return pa.schema(
        [
            ("position", pa.int32()),
            ("file_name", pa.string()),
            ("content", pa.binary()),
            ("vector", pa.list_(pa.float16(), dim)),
            ("error", pa.string()),
        ]
    )


def rows_table(rows: Sequence[Row], dim: int) -> pa.Table:
    """Rows as a table; an image with an error has a zero vector."""
    vectors = np.zeros((len(rows), dim), np.float16)
    for i, row in enumerate(rows):
        if row.vector is not None:
            vectors[i] = row.vector
    columns = [
        pa.array([r.position for r in rows], pa.int32()),
        pa.array([r.key for r in rows], pa.string()),
        pa.array([r.content for r in rows], pa.binary()),
        vector_array(vectors).cast(pa.list_(pa.float16(), dim)),
        pa.array([r.error for r in rows], pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=schema(dim))


def part_paths(folder: Path, index: int) -> tuple[Path, Path, Path]:
    """Parquet, JSON and journal of a shard."""
    stem = f"part-{index:05d}"
    return folder / f"{stem}.parquet", folder / f"{stem}.json", folder / f"{stem}.journal"


def write_part(folder: Path, index: int, table: pa.Table, counts: dict[str, Any]) -> None:
    """Write the part, then its mark of completion, then drop the journal."""
    parquet, mark, journal = part_paths(folder, index)
    folder.mkdir(parents=True, exist_ok=True)  # the cache may have been cleared meanwhile
    # While the mark is away the part counts as unfinished but its rows are still found.
    mark.unlink(missing_ok=True)
    with atomic_path(parquet) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)
    text = {"format": PART_FORMAT, **counts, "sha256": _sha256(parquet)}
    with atomic_path(mark) as temporary:
        temporary.write_text(json.dumps(text, indent=1), encoding="utf-8")
    journal.unlink(missing_ok=True)


def read_part(
    folder: Path, index: int, dim: int, keys: Sequence[str]
) -> tuple[pa.Table | None, bool]:
    """Rows of a shard that are on disk, and whether the part is complete.

    A complete part may have errors that a killed run was trying again: then the journal's rows
    follow the part's. A file whose checksum, columns or keys do not fit is as good as absent.
    """
    parquet, mark, journal = part_paths(folder, index)
    told = _read_mark(mark)
    sound = parquet.is_file() and told in (None, _sha256(parquet))
    part = read_parquet(parquet, dim) if sound else None
    complete = part is not None and told is not None
    if part is not None and not _fits(part, keys, complete):
        part, complete = None, False
    found = [t for t in (part, _read_journal(journal, dim)) if t is not None]
    found = [t for t in found if _fits(t, keys, False)]
    return (pa.concat_tables(found) if found else None), complete


def _read_mark(path: Path) -> str | None:
    """The checksum that a mark of completion tells; None without a mark, "" for a bad one."""
    try:
        told = parse_json(path.read_bytes())
        return str(told["sha256"]) if told["format"] == PART_FORMAT else ""
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _fits(table: pa.Table, keys: Sequence[str], complete: bool) -> bool:
    if table["vector"].null_count:
        return False
    positions, names = table["position"].to_pylist(), table["file_name"].to_pylist()
    if complete and positions != list(range(len(keys))):
        return False
    return all(
        p is not None and 0 <= p < len(keys) and keys[p] == n
        for p, n in zip(positions, names, strict=True)
    )


def read_parquet(path: Path, dim: int) -> pa.Table | None:
    """The table of a part; None where it is absent, damaged or of another shape."""
    try:
        return pq.read_table(path, page_checksum_verification=True).cast(schema(dim))
    except (OSError, ValueError, pa.ArrowException):
        return None


def _read_journal(path: Path, dim: int) -> pa.Table | None:
    """Whole records of a journal; what was being written when the run died is left out."""
    tables = []
    with suppress(OSError, ValueError, pa.ArrowException), path.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            length, checksum = _HEAD.unpack(head)
            # A damaged length must not ask for more than there is.
            record = file.read(min(length, path.stat().st_size))
            if len(record) != length or zlib.crc32(record) != checksum:
                break
            with pa.ipc.open_stream(record) as stream:
                if stream.schema != schema(dim):
                    break
                tables.append(stream.read_all())
    return pa.concat_tables(tables) if tables else None


class Journal:
    """Appends finished batches to the journal; starts with the rows already there."""

    def __init__(self, folder: Path, index: int, rows: pa.Table) -> None:
        path = part_paths(folder, index)[2]
        fresh = path.with_suffix(".journal.new")
        self._file = fresh.open("wb")
        try:
            self.append(rows)
            # The open file follows the rename, so the old journal is whole until the new one is.
            fresh.replace(path)
        except BaseException:
            self.close()
            raise

    def append(self, table: pa.Table) -> None:
        """Hand one batch over to the system; it then survives the end of this process."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        record = sink.getvalue().to_pybytes()
        self._file.write(_HEAD.pack(len(record), zlib.crc32(record)) + record)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
