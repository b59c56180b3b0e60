"""The part format: ``part-00012.parquet`` and ``part-00012.json``, and a journal while in work.

The JSON is written last, by rename: it marks the part as complete. While a shard is in work its
finished batches are appended to ``part-00012.journal``, so that a killed run loses at most the
batch in hand. A journal is a sequence of records: length and CRC-32 of what follows (unsigned
little-endian, 8 and 4 bytes), then an Arrow stream of one batch.

A part and its mark are handed to the disk (fsync) before they get their names, so that a mark never
outlives a loss of power which its part does not. A journal is not: it survives the death of the
process, which is common, and after a loss of power its torn end is left out and done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
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
    "fits_mark",
    "part_paths",
    "read_mark",
    "read_parquet",
    "read_part",
    "rows_table",
    "schema",
    "sha256_of",
    "write_part",
]

PART_FORMAT = "byname-part/2"
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


def write_part(
    folder: Path,
    index: int,
    table: pa.Table,
    counts: Mapping[str, Any],
    made_of: Mapping[str, str] | None = None,
) -> None:
    """Write the part, then its mark of completion, then drop the journal.

    ``made_of`` says of what (:meth:`byname.runs.plan.Plan.made_of`): what was made of something
    else does not pass for this part.
    """
    parquet, mark, journal = part_paths(folder, index)
    folder.mkdir(parents=True, exist_ok=True)  # the cache may have been cleared meanwhile
    # While the mark is away the part counts as unfinished but its rows are still found.
    mark.unlink(missing_ok=True)
    with atomic_path(parquet) as temporary:
        # Vectors hardly repeat: a dictionary would be four times slower, and save 2 % of the bytes.
        pq.write_table(table, temporary, write_page_checksum=True, use_dictionary=["error"])
        _to_disk(temporary)
    text = {
        "format": PART_FORMAT,
        **counts,
        **(made_of or {}),
        "ended": round(time.time(), 3),
        "part_bytes": parquet.stat().st_size,
        "sha256": sha256_of(parquet),
    }
    with atomic_path(mark) as temporary:
        temporary.write_text(json.dumps(text, indent=1), encoding="utf-8")
        _to_disk(temporary)
    journal.unlink(missing_ok=True)


def read_part(
    folder: Path,
    index: int,
    dim: int,
    keys: Sequence[str],
    made_of: Mapping[str, str] | None = None,
) -> tuple[pa.Table | None, bool]:
    """Rows of a shard that are on disk, and whether the part is complete.

    A complete part may have errors that a killed run was trying again: then the journal's rows
    follow the part's. A file whose checksum, columns or keys do not fit is as good as absent, and
    so is a part whose mark says that it was not ``made_of`` this.
    """
    parquet, _, journal = part_paths(folder, index)
    told = read_mark(folder, index)
    sound = parquet.is_file() and (
        told is None
        or (
            fits_mark(told, made_of)
            and told["part_bytes"] == parquet.stat().st_size
            and told["sha256"] == sha256_of(parquet)
        )
    )
    part = read_parquet(parquet, dim) if sound else None
    complete = part is not None and told is not None
    if part is not None and not _fits(part, keys, complete):
        part, complete = None, False
    found = [t for t in (part, _read_journal(journal, dim)) if t is not None]
    found = [t for t in found if _fits(t, keys, False)]
    return (pa.concat_tables(found) if found else None), complete


def read_mark(folder: Path, index: int) -> dict[str, Any] | None:
    """What a mark of completion says; None without a mark, and ``{}`` for a bad one."""
    try:
        told = parse_json(part_paths(folder, index)[1].read_bytes())
        good = told["format"] == PART_FORMAT and isinstance(told["sha256"], str)
        counts = (told["rows"], told["errors"], told["part_bytes"])
        return told if good and all(type(n) is int and n >= 0 for n in counts) else {}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def fits_mark(told: Mapping[str, Any], made_of: Mapping[str, str] | None) -> bool:
    """Whether a mark is good, and that of a part made of this; the part itself is not read."""
    return bool(told) and all(told.get(k) == v for k, v in (made_of or {}).items())


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


def _to_disk(path: Path) -> None:
    # Windows flushes only what is open for writing
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
