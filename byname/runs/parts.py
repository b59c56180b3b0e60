"""The part format: ``part-00012.parquet`` and ``part-00012.json``, and a journal while in work.

The JSON is written last, by rename: it marks the part as complete. While a shard is in work its
finished batches are appended to ``part-00012.journal`` (an Arrow stream), so that a killed run
loses at most the batch in hand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byname.cache import atomic_path
from byname.embeddings import vector_array

__all__ = ["Journal", "Row", "part_paths", "read_part", "rows_table", "schema", "write_part"]

PART_FORMAT = "byname-part/1"


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
    # While the mark is away the part counts as unfinished but its rows are still found.
    mark.unlink(missing_ok=True)
    with atomic_path(parquet) as temporary:
        pq.write_table(table, temporary)
    text = {"format": PART_FORMAT, **counts, "sha256": _sha256(parquet)}
    with atomic_path(mark) as temporary:
        temporary.write_text(json.dumps(text, indent=1), encoding="utf-8")
    journal.unlink(missing_ok=True)


def read_part(
    folder: Path, index: int, dim: int, keys: Sequence[str]
) -> tuple[pa.Table | None, bool]:
    """Rows of a shard that are on disk, and whether the part is complete.

    A part whose checksum, columns or keys do not fit is as good as absent.
    """
    parquet, mark, journal = part_paths(folder, index)
    try:
        told = json.loads(mark.read_text(encoding="utf-8"))
        complete = told.get("format") == PART_FORMAT and told.get("sha256") == _sha256(parquet)
        if not complete:
            return None, False
    except FileNotFoundError:
        complete = False
    except (OSError, ValueError, AttributeError):
        return None, False
    found = _read_parquet(parquet, dim)
    if found is None:
        found, complete = _read_journal(journal, dim), False
    if found is not None and not _fits(found, keys, complete):
        return None, False
    return found, complete


def _fits(table: pa.Table, keys: Sequence[str], complete: bool) -> bool:
    positions, names = table["position"].to_pylist(), table["file_name"].to_pylist()
    if complete and positions != list(range(len(keys))):
        return False
    return all(
        p is not None and 0 <= p < len(keys) and keys[p] == n
        for p, n in zip(positions, names, strict=True)
    )


def _read_parquet(path: Path, dim: int) -> pa.Table | None:
    try:
        table = pq.read_table(path)
        return table.cast(schema(dim))
    except (OSError, ValueError, pa.ArrowException):
        return None


def _read_journal(path: Path, dim: int) -> pa.Table | None:
    """Whole batches of a journal; what was being written when the run died is left out."""
    batches = []
    try:
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
            if stream.schema != schema(dim):
                return None
            while True:
                batches.append(stream.read_next_batch())
    except (StopIteration, OSError, ValueError, pa.ArrowException):
        pass
    return pa.Table.from_batches(batches, schema=schema(dim)) if batches else None


class Journal:
    """Appends finished batches to the journal; starts with the rows already there."""

    def __init__(self, folder: Path, index: int, dim: int, rows: pa.Table | None) -> None:
        self._path = part_paths(folder, index)[2]
        fresh = self._path.with_suffix(".journal.new")
        self._file = fresh.open("wb", buffering=0)
        self._stream = pa.ipc.new_stream(self._file, schema(dim))
        if rows is not None and len(rows):
            self._stream.write_table(rows)
        # The open file follows the rename, so the old journal is whole until the new one is.
        fresh.replace(self._path)

    def append(self, table: pa.Table) -> None:
        """Hand one batch over to the system; it then survives the end of this process."""
        self._stream.write_table(table)

    def close(self) -> None:
        """End the stream."""
        self._stream.close()
        self._file.close()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
