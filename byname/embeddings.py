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
from byname.files import atomic_path, parse_json, read_json
from byname.stored import Keys, open_stored, unit_rows, vector_array, vectors_of

__all__ = ["FORMAT", "Embeddings", "is_embeddings_file", "is_run_folder", "vector_array"]
__all__ += ["stay_on_disk", "vectors_of"]

FORMAT = "byname-embeddings/1"
RUN = "byname-run/"  # what the format of a run's plan begins with
ROW_GROUP = 4096
IN_MEMORY = 256 * 2**20  # bytes as float32 above which vectors stay in their files


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Unit vectors of N images.

    Parameters
    ----------
    keys : sequence of str, length N
        ``file_name`` of each image, unique. A tuple, or :class:`byname.stored.Keys`.
    vectors : array, shape (N, D), float32
        Unit rows. :class:`byname.stored.StoredVectors` where :meth:`load` has found more than
        256 MiB of them.
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

    keys: Sequence[str]
    vectors: NDArray[np.float32] | Any
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
        if (twice := _twice(self.keys)) is not None:
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
        return replace(given, vectors=unit_rows(array, given.keys.__getitem__))

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
            # Numbers without order are read five times faster plain, and are hardly larger.
            how = {"vector": "NONE", "file_name": "SNAPPY", "error": "SNAPPY"}
            names = ["file_name", "error"]
            with (
                atomic_path(path) as temporary,
                pq.ParquetWriter(
                    temporary, schema, use_dictionary=names, compression=how
                ) as writer,
            ):
                for columns in self._blocks():
                    writer.write_table(pa.Table.from_arrays(columns, schema=schema))
        except OSError as error:
            seen = error.strerror or str(error)
            raise OutputError(f"write '{path}'", seen, "Choose another place.") from None

    def _blocks(self) -> Iterator[list[pa.Array]]:
        """Columns of the file by row groups: a writer needs several times the memory of one."""
        failed = sorted(self.errors)
        n = len(self.keys)
        for start in range(0, max(n + len(failed), 1), ROW_GROUP):
            first, stop = max(0, start - n), max(0, start - n + ROW_GROUP)
            part = [*self.keys[start : start + ROW_GROUP], *failed[first:stop]]
            vectors = np.zeros((len(part), self.dim), np.float16)
            known = self.vectors[start : start + ROW_GROUP]
            vectors[: len(known)] = known
            why = [None] * len(known) + [self.errors[key] for key in part[len(known) :]]
            yield [pa.array(part, pa.string()), vector_array(vectors), pa.array(why, pa.string())]

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Read what :meth:`save` wrote, or the parts of a finished run folder.

        More than 256 MiB of vectors, as float32, stay on disk and are read where they are needed.

        Raises
        ------
        EmbeddingsError
            For a missing, damaged or foreign file, and a run that is not finished.
        """
        asked = f"read the embeddings in '{path}'"
        if is_run_folder(path):
            return _of_run(Path(path), cls)
        if not Path(path).is_file():
            raise EmbeddingsError(asked, "there is no such file", "Make it with 'byname embed'.")
        try:
            if _large(path):
                return _of_files([Path(path)], _meta(pq.read_schema(path)), cls)
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
            unit_rows(vectors_of(table["vector"])[good], keys.__getitem__),
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


def is_run_folder(path: str | Path) -> bool:
    """Whether this is a folder that ``byname plan`` made; reads the beginning of its plan only.

    Examples
    --------
    >>> is_run_folder("no/such/folder")
    False
    """
    try:
        with Path(path, "plan.json").open("rb") as file:
            return f'"format": "{RUN}'.encode() in file.read(200)
    except (OSError, ValueError):
        return False


def stay_on_disk(rows: int, width: int) -> bool:
    """Whether so many vectors are left in their files.

    Examples
    --------
    >>> stay_on_disk(100_000, 512), stay_on_disk(1_000_000, 512)
    (False, True)
    """
    return 4 * rows * width > IN_MEMORY


def _large(path: str | Path) -> bool:
    """Whether this is a file of :meth:`Embeddings.save` with more vectors than go into memory."""
    with pq.ParquetFile(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    kinds = {field.name: field.type for field in schema}
    width = getattr(kinds.get("vector"), "list_size", 0)
    return _meta(schema).get("format") == FORMAT and stay_on_disk(rows, width)


def _of_files(paths: Sequence[Path], meta: Mapping[str, Any], cls: type[Embeddings]) -> Embeddings:
    """Vectors that stay in these files."""
    width = pq.read_schema(paths[0]).field("vector").type.list_size
    vectors, keys, errors = open_stored(paths, width)
    return cls(
        keys,
        vectors,
        encoder=str(meta.get("encoder", "")),
        fingerprint=str(meta.get("fingerprint", "")),
        errors=errors,
        root=str(meta.get("root", "")),
    )


def _of_run(folder: Path, cls: type[Embeddings]) -> Embeddings:
    """All parts of a run, in the order of its plan."""
    asked = f"read the vectors of the run '{folder}'"
    do = f"Continue it with: byname run '{folder}'"
    plan = read_json(folder / "plan.json", EmbeddingsError, asked, "Plan it again.")
    try:
        told = plan["settings"]
        width, size, images = int(told["dim"]), int(told["shard_size"]), int(plan["images"])
        if min(width, size) < 1 or images < 0:
            raise ValueError("its counts are no such things")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        seen = f"its plan.json cannot be used ({error or type(error).__name__})"
        raise EmbeddingsError(asked, seen, "Plan it again.") from None
    n = -(-images // size)
    done = sum(mark.with_suffix(".parquet").is_file() for mark in folder.glob("part-*.json"))
    if done < n:
        raise EmbeddingsError(asked, f"{done} of its {n} shards are done", do)
    parts = [folder / f"part-{i:05d}.parquet" for i in range(n)]
    vectors, keys, errors = open_stored(parts, width)
    if (found := len(keys) + len(errors)) != images:
        seen = f"its parts hold {found} rows for {images} images"
        raise EmbeddingsError(asked, seen, f"See 'byname status {folder}'. {do}")
    names: Sequence[str] = keys
    rows: Any = vectors
    if not stay_on_disk(*vectors.shape):
        # Larger ones keep the order of the plan: there, rows are sorted when they are answered.
        order = keys.order()
        names, rows = tuple(keys.take(order)), vectors.load()[order]
    return cls(
        names,
        rows,
        encoder=str(told.get("encoder", "")),
        fingerprint=str(told.get("fingerprint", "")),
        errors=errors,
        root=str(plan.get("root", "")),
    )


def _twice(keys: Sequence[str]) -> str | None:
    """A key that is there more than once."""
    if isinstance(keys, Keys):
        return keys.twice()
    if len(set(keys)) == len(keys):
        return None
    return next(k for k, n in Counter(keys).items() if n > 1)
