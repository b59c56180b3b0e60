"""Image vectors with their keys, in memory and on disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byname.errors import EmbeddingsError, OutputError
from byname.files import atomic_path, parse_json

__all__ = ["FORMAT", "Embeddings", "is_embeddings_file", "vector_array", "vectors_of"]

FORMAT = "byname-embeddings/1"
ROW_GROUP = 4096


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Unit vectors of N images.

    Parameters
    ----------
    keys : tuple of str, length N
        ``file_name`` of each image, unique.
    vectors : array, shape (N, D), float32
        Unit rows.
    encoder : str
        Id of the encoder that made them; "" where unknown.
    fingerprint : str
        ``EncoderInfo.image_fingerprint()``; "" where unknown.
    errors : mapping of str to str
        Files that could not be read, and why. Not part of ``keys``.
    root : str
        Folder that the keys are relative to; "" where there is none.

    Examples
    --------
    >>> Embeddings.from_arrays([[3.0, 4.0]], keys=["a.jpg"]).vectors.tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """

    keys: tuple[str, ...]
    vectors: NDArray[np.float32]
    encoder: str = ""
    fingerprint: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)
    root: str = ""

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.keys) != len(self.vectors):
            raise EmbeddingsError(
                "use these embeddings",
                f"{len(self.keys)} keys, but vectors of shape {self.vectors.shape}",
                "Give one row of width D for each key.",
            )
        if len(set(self.keys)) != len(self.keys):
            twice = next(k for k, n in Counter(self.keys).items() if n > 1)
            raise EmbeddingsError(
                "use these embeddings", f"the key '{twice}' occurs twice", "Make keys unique."
            )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def dim(self) -> int:
        """D."""
        return int(self.vectors.shape[1])

    @classmethod
    def from_arrays(
        cls, vectors: Any, keys: Sequence[str] | None = None, *, encoder: str = ""
    ) -> Embeddings:
        """From an (N, D) array of any float type; rows are normalised, zero rows stay zero.

        Raises
        ------
        EmbeddingsError
            For another shape, or NaN or infinite values, naming the first such row.
        """
        array = np.asarray(vectors)
        if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.shape[1]:
            raise EmbeddingsError(
                "use these vectors",
                f"shape {array.shape} and type {array.dtype}",
                "Give an (N, D) array of numbers.",
            )
        names = map(str, keys) if keys is not None else (f"{i:08d}" for i in range(len(array)))
        # Checked before the values, whose errors name a key.
        given = cls(tuple(names), array, encoder=encoder)
        return replace(given, vectors=_unit(array, given.keys))

    def save(self, path: str | Path) -> None:
        """Write Parquet: ``file_name``, ``vector`` (float16), ``error``; metadata in the schema.

        Raises
        ------
        OutputError
            Where the file cannot be written; an older one is then still whole.
        """
        path = Path(path)
        meta = {
            "format": FORMAT,
            "encoder": self.encoder,
            "fingerprint": self.fingerprint,
            "root": self.root,
        }
        schema = pa.schema(
            [
                ("file_name", pa.string()),
                ("vector", vector_array(self.vectors[:0]).type),
                ("error", pa.string()),
            ],
            metadata={"byname": json.dumps(meta)},
        )
        try:
            with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
                for columns in self._blocks():
                    writer.write_table(pa.Table.from_arrays(columns, schema=schema))
        except OSError as error:
            seen = error.strerror or str(error)
            raise OutputError(f"write '{path}'", seen, "Choose another place.") from None

    def _blocks(self) -> Iterator[list[pa.Array]]:
        """Columns of the file by row groups: a writer needs several times the memory of one."""
        failed = sorted(self.errors)
        keys = [*self.keys, *failed]
        for start in range(0, max(len(keys), 1), ROW_GROUP):
            part = keys[start : start + ROW_GROUP]
            vectors = np.zeros((len(part), self.dim), np.float16)
            known = self.vectors[start : start + ROW_GROUP]
            vectors[: len(known)] = known
            why = [None] * len(known) + [self.errors[key] for key in part[len(known) :]]
            yield [pa.array(part, pa.string()), vector_array(vectors), pa.array(why, pa.string())]

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Read what :meth:`save` wrote.

        Raises
        ------
        EmbeddingsError
            For a missing, damaged or foreign file.
        """
        asked = f"read the embeddings in '{path}'"
        if not Path(path).is_file():
            raise EmbeddingsError(asked, "there is no such file", "Make it with 'byname embed'.")
        try:
            table = pq.read_table(path)
            columns = table.column_names  # which may not be UTF-8 either
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise EmbeddingsError(
                asked,
                f"it is not a readable Parquet file ({(str(error) or 'OSError').splitlines()[0]})",
                "Make it with 'byname embed'; for an array use Embeddings.from_arrays in Python.",
            ) from None
        meta = _meta(table.schema)
        if meta.get("format") != FORMAT or not _fits(table) or not _is_text(table):
            raise EmbeddingsError(
                asked,
                f"it was not written by byname (columns: {', '.join(columns)})",
                "Make it with 'byname embed', or use Embeddings.from_arrays in Python.",
            )
        names, errors = table["file_name"].to_pylist(), table["error"].to_pylist()
        good = np.array([e is None for e in errors], bool)
        keys = tuple(n for n, ok in zip(names, good, strict=True) if ok)
        return cls(
            keys,
            _unit(vectors_of(table["vector"])[good], keys),
            encoder=str(meta.get("encoder", "")),
            fingerprint=str(meta.get("fingerprint", "")),
            errors={n: e for n, e in zip(names, errors, strict=True) if e is not None},
            root=str(meta.get("root", "")),
        )


def is_embeddings_file(path: Path) -> bool:
    """Whether this is a Parquet file that :meth:`Embeddings.save` wrote; reads its footer only."""
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        return _meta(pq.read_schema(path)).get("format") == FORMAT
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return False


def vector_array(vectors: NDArray[Any]) -> pa.FixedSizeListArray:
    """(N, D) to an Arrow column of fixed-size float16 lists."""
    flat = np.ascontiguousarray(vectors, np.float16).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), int(vectors.shape[1]))


def vectors_of(column: pa.ChunkedArray) -> NDArray[np.float16]:
    """The inverse of :func:`vector_array`."""
    width = column.type.list_size
    parts = [np.asarray(c.flatten(), np.float16).reshape(-1, width) for c in column.chunks]
    return np.concatenate(parts) if parts else np.zeros((0, width), np.float16)


def _meta(schema: pa.Schema) -> dict[str, Any]:
    try:
        found = parse_json((schema.metadata or {}).get(b"byname", b"{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _fits(table: pa.Table) -> bool:
    """Whether the columns are those of :meth:`Embeddings.save`, without holes."""
    if not {"file_name", "vector", "error"} <= set(table.column_names):
        return False
    names, vectors, errors = (table[c] for c in ("file_name", "vector", "error"))
    return bool(
        pa.types.is_string(names.type)
        and pa.types.is_string(errors.type)
        and pa.types.is_fixed_size_list(vectors.type)
        and pa.types.is_floating(vectors.type.value_type)
        and names.null_count == vectors.null_count == 0
    )


def _is_text(table: pa.Table) -> bool:
    """Whether the texts are UTF-8, as they say: Parquet readers do not look."""
    try:
        for name in ("file_name", "error"):
            table[name].validate(full=True)
    except pa.ArrowException:
        return False
    return True


def _unit(array: NDArray[Any], keys: Sequence[str]) -> NDArray[np.float32]:
    """Float32 unit rows; refuses NaN and infinities with the key of the first such row."""
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32)
    # Squares of large or small float32 numbers need the range of float64.
    norm = np.sqrt(np.einsum("ij,ij->i", array, array, dtype=np.float64))[:, None]
    bad = np.flatnonzero(~np.isfinite(norm[:, 0]))
    if len(bad):
        raise EmbeddingsError(
            "use these vectors",
            f"{len(bad)} rows hold NaN or infinite values, the first is '{keys[bad[0]]}'",
            "Leave those images out, or embed them again.",
        )
    out = np.empty(array.shape, np.float32)
    np.divide(array, np.where(norm == 0, 1, norm), out=out, casting="same_kind")
    return out
