"""Vectors and names that stay on disk: rows of Parquet files, read a row group at a time.

What comes out of a slice is what :class:`byname.embeddings.Embeddings` holds in memory: float32
unit rows. Nothing makes one array of all rows unasked, however many there are.
"""

from __future__ import annotations

import operator
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from byname import ops
from byname.errors import EmbeddingsError

__all__ = ["LIMIT", "Keys", "StoredVectors", "open_stored", "unit_rows", "vector_array"]
__all__ += ["vectors_of"]

LIMIT = 512 * 2**20  # bytes as float32 that numpy may make of them unasked
PICKED = 2**30  # bytes as float32 that a slice may have
KEPT = 64 * 2**20  # bytes of row groups that are kept
BLOCK = 4096
MAKE = "Make it with 'byname embed'; for an array use Embeddings.from_arrays in Python."
COLUMNS = ("file_name", "error")


class Keys(Sequence[str]):
    """Names as one Arrow column, a tenth of the memory of so many strings.

    Examples
    --------
    >>> keys = Keys(pa.array(["a.jpg", "b.jpg", "c.jpg"]))
    >>> len(keys), keys[1], list(keys[1:]), "c.jpg" in keys, keys.ascending
    (3, 'b.jpg', ['b.jpg', 'c.jpg'], True, True)
    """

    def __init__(self, column: pa.Array | pa.ChunkedArray) -> None:
        # 2 GiB of names are more than the offsets of a plain string column can count.
        wide = column.cast(pa.large_string())
        self._column = wide.combine_chunks() if isinstance(wide, pa.ChunkedArray) else wide

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Keys: ...

    def __getitem__(self, index: int | slice) -> str | Keys:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return Keys(self._column.slice(start, max(0, stop - start)))
            return Keys(self._column.take(pa.array(range(start, stop, step), pa.int64())))
        return str(self._column[operator.index(index)].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BLOCK):
            yield from self._column.slice(start, BLOCK).to_pylist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Keys):
            return bool(self._column.equals(other._column))
        return isinstance(other, tuple | list) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __arrow_array__(self, type: pa.DataType | None = None) -> pa.Array:
        return self._column if type is None else self._column.cast(type)

    def take(self, rows: NDArray[np.intp]) -> Keys:
        """The names at these places."""
        return Keys(self._column.take(pa.array(rows)))

    def order(self) -> NDArray[np.intp]:
        """Places of the names in ascending order."""
        return np.asarray(pc.sort_indices(self._column)).astype(np.intp)

    @property
    def ascending(self) -> bool:
        """Whether no name comes before the one that it follows."""
        behind = self._column.slice(1)
        ahead = self._column.slice(0, len(behind))
        return bool(pc.all(pc.less_equal(ahead, behind)).as_py() is not False)

    def twice(self) -> str | None:
        """A name that occurs twice; None where there is none."""
        if pc.count_distinct(self._column).as_py() == len(self):
            return None
        counted = pc.value_counts(self._column)
        more = counted.filter(pc.greater(counted.field("counts"), 1))
        return str(more.field("values")[0].as_py())


@dataclass(frozen=True)
class _Group:
    """A row group of a file; ``good`` are the rows of it that hold vectors, None for all."""

    path: Path
    index: int
    rows: int
    good: NDArray[np.intp] | None
    stamp: tuple[int, int, int]  # of the file when its names were read

    def __len__(self) -> int:
        return self.rows if self.good is None else len(self.good)


class StoredVectors(NDArrayOperatorsMixin):
    """Vectors (N, D) on disk that are read as float32 unit rows, in the order of the files.

    It stands where an array of vectors may stand: it has a shape, and slices, arrays of places
    and products with class vectors give NumPy arrays. Places are read in the order of the files,
    each row group once. Whatever else is done with an array is done with all rows in memory, and
    refused above ``LIMIT`` bytes, since whoever asks for it has most often not meant to;
    :meth:`load` gives them all the same.
    """

    stored = True  # by which ops.py knows it
    ndim = 2
    dtype = np.dtype(np.float32)
    __hash__ = object.__hash__

    def __init__(self, groups: Sequence[_Group], dim: int, keys: Keys) -> None:
        self._groups = tuple(groups)
        self._starts = np.cumsum([0, *map(len, groups)])
        self.shape = (int(self._starts[-1]), dim)
        self._keys = keys  # for errors
        self._kept: OrderedDict[int, NDArray[np.float16]] = OrderedDict()
        self._file: tuple[Path, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_kept": OrderedDict(), "_file": None}

    def __repr__(self) -> str:
        return f"<{self.shape[0]} vectors of width {self.shape[1]} on disk>"

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for block in self.blocks():
            yield from block

    @property
    def nbytes(self) -> int:
        """Bytes that all would take in memory."""
        return 4 * self.shape[0] * self.shape[1]

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        if index is None or index is ... or isinstance(index, tuple):
            return np.asarray(self)[index]
        rows = np.asarray(index)
        if rows.dtype == bool and rows.shape == (len(self),):
            rows = np.flatnonzero(rows)
        if rows.size and rows.dtype.kind not in "iu":
            raise IndexError(f"{len(self)} vectors cannot be indexed by {rows.dtype}{rows.shape}")
        rows = rows.astype(np.intp, copy=False) if rows.size else np.zeros(rows.shape, np.intp)
        if rows.size * self.shape[1] * 4 > PICKED:
            raise self._too_many(rows.size)
        flat = np.where(rows < 0, rows + len(self), rows).reshape(-1)
        if flat.size and not (flat.min() >= 0 and flat.max() < len(self)):
            raise IndexError(f"there are {len(self)} vectors: no place {index}")
        found = unit_rows(self.halves(flat), lambda i: self._keys[int(flat[i])])
        return found.reshape(*rows.shape, self.shape[1])

    def halves(self, rows: NDArray[np.intp]) -> NDArray[np.float16]:
        """Rows as they were stored, in any order; read in that of the files."""
        out = np.empty((len(rows), self.shape[1]), np.float16)
        ordered = rows[1:] >= rows[:-1]
        order = np.arange(len(rows)) if ordered.all() else np.argsort(rows, kind="stable")
        rows = rows[order]
        group = np.searchsorted(self._starts, rows, side="right") - 1
        first = np.flatnonzero(np.diff(group, prepend=-1))
        for start, stop in zip(first, np.append(first, len(rows))[1:], strict=True):
            g = int(group[start])
            out[order[start:stop]] = self._read(g)[rows[start:stop] - self._starts[g]]
        return out

    def blocks(self, size: int = BLOCK) -> Iterator[NDArray[np.float32]]:
        """All rows in order, ``size`` at a time."""
        for part in ops.blocks(len(self), size):
            yield self[part]

    def load(self) -> NDArray[np.float32]:
        """All rows in memory, however many they are."""
        out = np.empty(self.shape, np.float32)
        for part in ops.blocks(len(self), BLOCK):
            out[part] = self[part]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if self.nbytes > LIMIT:
            raise EmbeddingsError(
                f"put {len(self):,} stored vectors into memory",
                f"they would take {self.nbytes / 2**30:.1f} GiB, more than {LIMIT / 2**30:.1f} GiB",
                "Use a part of them (vectors[:1000]), go over vectors.blocks(), or say "
                "vectors.load() if that memory is there.",
            )
        return self.load() if dtype is None else self.load().astype(dtype)

    def astype(self, kind: Any, copy: bool = True) -> Any:
        """Themselves where they are of that type; see ``__array__`` for others."""
        return self if np.dtype(kind) == self.dtype else np.asarray(self).astype(kind)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)

    def __array_ufunc__(self, ufunc: Any, method: str, *given: Any, **how: Any) -> Any:
        if ufunc is np.matmul and method == "__call__" and given[0] is self and not how:
            out = np.empty(
                (len(self), *given[1].shape[1:]), np.result_type(self.dtype, given[1].dtype)
            )
            for part in ops.blocks(len(self), BLOCK):
                out[part] = self[part] @ given[1]
            return out
        held = (np.asarray(one) if isinstance(one, StoredVectors) else one for one in given)
        return getattr(ufunc, method)(*held, **how)

    def segment_sum(
        self, index: NDArray[np.intp], K: int, weights: NDArray[Any] | None = None
    ) -> NDArray[np.float32]:
        """What :func:`byname.ops.segment_sum` gives, in one pass."""
        total = np.zeros((K, self.shape[1]))
        for part in ops.blocks(len(self), BLOCK):
            some = None if weights is None else weights[part]
            total += ops.segment_sum(self[part].astype(np.float64), index[part], K, some)
        return total.astype(np.float32)

    def _too_many(self, n: int) -> EmbeddingsError:
        return EmbeddingsError(
            f"put {n:,} stored vectors into memory",
            f"they would take {4 * n * self.shape[1] / 2**30:.1f} GiB, and this step holds all of "
            "them at once",
            "Give it fewer images. In Python: vectors[:1000] is a part of them, vectors.blocks() "
            "goes over all, and vectors.load() holds them if there is memory for it.",
        )

    def _read(self, g: int) -> NDArray[np.float16]:
        if g in self._kept:
            self._kept.move_to_end(g)
            return self._kept[g]
        group = self._groups[g]
        try:
            if self._file is None or self._file[0] != group.path:
                self._file = (group.path, _opened(group.path, group.stamp))
            column = self._file[1].read_row_group(group.index, columns=["vector"])["vector"]
            found = vectors_of(column)
            with suppress(FileNotFoundError):  # replaced or deleted, an open file is still there
                now = _stamp(group.path)
                if now != group.stamp and now[0] == group.stamp[0]:
                    raise _changed(group.path)
            if column.null_count or found.shape != (group.rows, self.shape[1]):
                raise ValueError("it is not what it was when it was opened")
        except (pa.ArrowException, OSError, ValueError, IndexError) as error:
            self._file = None
            raise _unreadable(group.path, error) from None
        found = found if group.good is None else found[group.good]
        self._kept[g] = found
        while len(self._kept) > 1 and sum(a.nbytes for a in self._kept.values()) > KEPT:
            self._kept.popitem(last=False)
        return found


def open_stored(paths: Sequence[Path], dim: int) -> tuple[StoredVectors, Keys, dict[str, str]]:
    """Vectors of width ``dim``, their names, and the files with errors, from Parquet files.

    Each file has the columns ``file_name``, ``vector`` and ``error``; only names and errors are
    read here. Rows keep the order of the files.

    Raises
    ------
    EmbeddingsError
        For a file that is missing, damaged, or has other columns.
    """
    groups: list[_Group] = []
    names: list[pa.Array] = []
    errors: dict[str, str] = {}
    for path in paths:
        try:
            stamp = _stamp(path)
            with _opened(path, stamp) as file:
                _check_columns(file.schema_arrow, dim)
                for g in range(file.num_row_groups):
                    table = file.read_row_group(g, columns=list(COLUMNS))
                    table.validate(full=True)
                    name, why = (table[c].combine_chunks() for c in COLUMNS)
                    if name.null_count:
                        raise ValueError("it has rows without a name")
                    good = None
                    if why.null_count < len(why):
                        keep = pc.is_null(why)
                        bad = pc.invert(keep)
                        pairs = zip(*(c.filter(bad).to_pylist() for c in (name, why)), strict=True)
                        errors.update(pairs)
                        good, name = np.flatnonzero(keep), name.filter(keep)
                    names.append(name)
                    groups.append(_Group(Path(path), g, len(table), good, stamp))
        except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError) as error:
            raise _unreadable(path, error) from None
    keys = Keys(pa.chunked_array(names, pa.string()))
    return StoredVectors(groups, dim, keys), keys, errors


def vector_array(vectors: NDArray[Any]) -> pa.FixedSizeListArray:
    """(N, D) to an Arrow column of fixed-size float16 lists."""
    flat = np.ascontiguousarray(vectors, np.float16).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), int(vectors.shape[1]))


def vectors_of(column: pa.ChunkedArray) -> NDArray[np.float16]:
    """The inverse of :func:`vector_array`."""
    width = column.type.list_size
    parts = [np.asarray(c.flatten(), np.float16).reshape(-1, width) for c in column.chunks]
    return np.concatenate(parts) if parts else np.zeros((0, width), np.float16)


def unit_rows(array: NDArray[Any], key: Any) -> NDArray[np.float32]:
    """Float32 unit rows; zero rows stay zero.

    ``key`` is called with the number of a row, for the error about NaN and infinities.

    Examples
    --------
    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]), str).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32)
    # Squares of large or small float32 numbers need the range of float64.
    norm = np.sqrt(np.einsum("ij,ij->i", array, array, dtype=np.float64))[:, None]
    bad = np.flatnonzero(~np.isfinite(norm[:, 0]))
    if len(bad):
        raise EmbeddingsError(
            "use these vectors",
            f"{len(bad)} rows hold NaN or infinite values, the first is '{key(int(bad[0]))}'",
            "Leave those images out, or embed them again.",
        )
    out = np.empty(array.shape, np.float32)
    np.divide(array, np.where(norm == 0, 1, norm), out=out, casting="same_kind")
    return out


def _opened(path: Path, stamp: tuple[int, int, int]) -> Any:
    file = pq.ParquetFile(path, page_checksum_verification=True)
    if _stamp(path) != stamp:
        raise _changed(path)
    return file


def _changed(path: Path) -> EmbeddingsError:
    # Other vectors under the names that were read: answers would be those of other images.
    seen = "it was changed after its names were read"
    return EmbeddingsError(f"read the vectors in '{path}'", seen, "Start again.")


def _stamp(path: Path) -> tuple[int, int, int]:
    told = os.stat(path)  # noqa: PTH116
    return told.st_ino, told.st_size, told.st_mtime_ns


def _check_columns(schema: pa.Schema, dim: int) -> None:
    kinds = {field.name: field.type for field in schema}
    vector = kinds.get("vector")
    if not (
        all(name in kinds and pa.types.is_string(kinds[name]) for name in COLUMNS)
        and vector is not None
        and pa.types.is_fixed_size_list(vector)
        and pa.types.is_floating(vector.value_type)
    ):
        raise ValueError(f"its columns are {', '.join(kinds)}")
    if vector.list_size != dim:
        raise ValueError(f"its vectors are {vector.list_size} wide, not {dim}")


def _unreadable(path: Path, error: Exception) -> EmbeddingsError:
    if isinstance(error, EmbeddingsError):
        return error
    seen = (str(error) or type(error).__name__).splitlines()[0][:200]
    return EmbeddingsError(
        f"read the vectors in '{path}'", f"it is damaged or gone ({seen})", "Make it again."
    )
