"""Images inside Parquet files, read a few rows at a time and shared between threads."""

# Paths are text here, since they may hold bytes that are not UTF-8.
# ruff: noqa: PTH116

from __future__ import annotations

import math
import os
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from byname.errors import ImageError
from byname.images.places import UnreachableError, open_place, reason
from byname.images.refs import ImageRef
from byname.images.tables import damage
from byname.images.urls import is_url

__all__ = ["MOST_BYTES", "read_cell"]

WINDOW = 16
"""Rows that are read together, or fewer where they are large."""
WINDOW_BYTES = 32 * 2**20
MOST_BYTES = 128 * 2**20
"""Bytes of images that are kept for other threads, in all."""
MOST_FILES = 8
BUFFER = 2**20
"""Bytes that are asked for at once: a row group is streamed, never held."""
REMOTE_BUFFER = 8 * BUFFER
PATIENCE = 30.0
"""Seconds for which a server that failed is not asked again: its rows would wait one by one."""

_ASKED = "read the image"


def read_cell(ref: ImageRef, limit: int) -> bytes:
    """Read the image in a row of a Parquet file. Thread-safe.

    Rows are read in windows of a few, from the begin of their row group on: images that are asked
    for in the order of the file are each read once, by however many threads.

    Raises
    ------
    ImageError
        Where the row holds none, or the file is damaged, has changed or is gone.
    """
    try:
        data = _SHARED.cell(ref)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(_ASKED, "its Parquet file does not exist") from None
    except MemoryError:
        raise ImageError(_ASKED, "not enough memory to read it") from None
    except damage() as error:
        raise ImageError(_ASKED, f"its Parquet file cannot be read ({reason(error)})") from None
    if data is None:
        only = ", only a path or nothing" if ref.inside.endswith(".bytes") else ""
        raise ImageError(_ASKED, f"its row holds no bytes of an image{only}")
    if not isinstance(data, bytes):
        raise ImageError(_ASKED, f"its row holds a {type(data).__name__}, not bytes")
    if len(data) > limit:
        seen = f"the image has {len(data):,} bytes, more than the limit of {limit:,}"
        raise ImageError(_ASKED, seen)
    return data


class _Table:
    """An open Parquet file, at a place in one of its row groups. Used under its lock."""

    def __init__(self, ref: ImageRef) -> None:
        import pyarrow.parquet as pq

        self.lock = threading.Lock()
        # The stream must not be closed while rows may be asked for; it goes with this object.
        block = REMOTE_BUFFER if is_url(ref.path) else BUFFER
        self._stream, size, mtime_ns = open_place(ref.path, block=block)
        if ref.changed(size, mtime_ns):
            raise ImageError(_ASKED, "its Parquet file has changed since it was listed")
        self._file = pq.ParquetFile(
            self._stream, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True
        )
        counts = self._file.metadata
        groups = [counts.row_group(i) for i in range(counts.num_row_groups)]
        self.starts = [0, *accumulate(group.num_rows for group in groups)]
        weight = max((g.total_byte_size // max(g.num_rows, 1) for g in groups), default=0)
        self._most = max(1, min(WINDOW, WINDOW_BYTES // max(weight, 1)))
        self._batches: Iterator[Any] = iter(())
        self._group, self._column, self._next = -1, "", 0
        self._broken: dict[tuple[int, str], tuple[int, str, float]] = {}

    def window(self, row: int) -> tuple[int, int]:
        """First row of the window with that row, and the row behind it."""
        if not 0 <= row < self.starts[-1]:
            raise ImageError(_ASKED, f"its Parquet file has no row {row:,}")
        group = bisect_right(self.starts, row) - 1
        first = row - (row - self.starts[group]) % self._most
        return first, min(first + self._most, self.starts[group + 1])

    def windows(self, row: int, column: str) -> Iterator[tuple[int, list[bytes | None]]]:
        """Windows from the present place, or the begin of the row group, up to that row."""
        group = bisect_right(self.starts, row) - 1
        wrong = self._broken.get((group, column))
        if wrong is not None and row >= wrong[0] and time.monotonic() < wrong[2]:
            raise ImageError(_ASKED, wrong[1])
        first, _ = self.window(row)
        if (self._group, self._column) != (group, column) or self._next > first:
            wanted = {"row_groups": [group], "columns": [column]}
            self._batches = self._file.iter_batches(self._most, **wanted)
            self._group, self._column, self._next = group, column, self.starts[group]
        while self._next <= row:
            start, (_, end) = self._next, self.window(self._next)
            try:
                cells = self._take(column, end - start)
            except MemoryError:  # which says nothing of the file
                self._group = -1
                raise
            except damage() as error:
                self._group = -1
                until, why = math.inf, f"its row group is damaged ({reason(error)})"
                if isinstance(error, UnreachableError):
                    until, why = time.monotonic() + PATIENCE, reason(error)
                self._broken[group, column] = (start, why, until)
                raise ImageError(_ASKED, why) from None
            self._next = end
            yield start, cells

    def _take(self, column: str, count: int) -> list[bytes | None]:
        import pyarrow as pa

        cells: list[bytes | None] = []
        while len(cells) < count:
            batch = next(self._batches, None)
            if batch is None:
                raise EOFError("it ends too early")
            array = batch.column(0)
            if pa.types.is_struct(array.type) and column not in self._file.schema_arrow.names:
                fields = [f.name for f in array.type]
                array = array.flatten()[fields.index(column.rpartition(".")[2])]
            cells += array.to_pylist()
        if len(cells) > count:
            raise EOFError("it has more rows than its footer says")
        return cells


class _Shared:
    """Open files and the windows that were read last, for all threads of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: OrderedDict[tuple[str, int, int], _Table] = OrderedDict()
        self._opening: dict[tuple[str, int, int], threading.Lock] = {}
        self._failed: dict[tuple[str, int, int], tuple[str, float]] = {}
        self._windows: OrderedDict[tuple[Any, ...], list[bytes | None]] = OrderedDict()
        self._bytes = 0

    def cell(self, ref: ImageRef) -> bytes | None:
        """The bytes in a row; None for an empty one."""
        if not is_url(ref.path):
            here = os.stat(ref.path)
            if ref.changed(here.st_size, here.st_mtime_ns):
                raise ImageError(_ASKED, "its Parquet file has changed since it was listed")
        table = self._table(ref)
        first, _ = table.window(ref.offset)
        place = (ref.path, ref.size, ref.mtime_ns, ref.inside)
        if (cells := self._known((*place, first))) is not None:
            return cells[ref.offset - first]
        with table.lock:
            # Another thread may have read it while this one waited.
            if (cells := self._known((*place, first))) is not None:
                return cells[ref.offset - first]
            for start, cells in table.windows(ref.offset, ref.inside):
                self._keep((*place, start), cells)
                if start == first:
                    return cells[ref.offset - first]
        raise ImageError(_ASKED, "its row was not found")

    def _table(self, ref: ImageRef) -> _Table:
        key = (ref.path, ref.size, ref.mtime_ns)
        with self._lock:
            if (table := self._tables.get(key)) is not None:
                self._tables.move_to_end(key)
                return table
            opening = self._opening.setdefault(key, threading.Lock())
        with opening:
            with self._lock:
                if (table := self._tables.get(key)) is not None:
                    return table
            why, until = self._failed.get(key, ("", 0.0))
            if time.monotonic() < until:
                raise ImageError(_ASKED, why)
            try:
                table = _Table(ref)
            except UnreachableError as error:
                self._failed[key] = (reason(error), time.monotonic() + PATIENCE)
                raise ImageError(_ASKED, reason(error)) from None
            with self._lock:
                self._tables[key] = table
                self._opening.pop(key, None)
                while len(self._tables) > MOST_FILES:
                    self._tables.popitem(last=False)
        return table

    def _known(self, key: tuple[Any, ...]) -> list[bytes | None] | None:
        with self._lock:
            if (cells := self._windows.get(key)) is not None:
                self._windows.move_to_end(key)
            return cells

    def _keep(self, key: tuple[Any, ...], cells: list[bytes | None]) -> None:
        with self._lock:
            if key in self._windows:
                return
            self._windows[key] = cells
            self._bytes += _weight(cells)
            while self._bytes > MOST_BYTES and len(self._windows) > 1:
                _, old = self._windows.popitem(last=False)
                self._bytes -= _weight(old)


def _weight(cells: list[bytes | None]) -> int:
    return sum(len(cell) for cell in cells if isinstance(cell, bytes))


def _reset() -> None:
    """Forget everything: a forked process must not share places in files, or held locks."""
    global _SHARED
    _SHARED = _Shared()


_SHARED = _Shared()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)
