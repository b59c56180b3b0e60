"""A plan on disk: ``plan.json``, and ``inputs.parquet`` with one row group a shard."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, overload

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from byname.errors import BynameError, RunError
from byname.files import atomic_path, read_json
from byname.images.preprocess import Preprocess
from byname.images.refs import ImageRef
from byname.images.sources import Source

__all__ = [
    "PLAN_FORMAT",
    "StoredRefs",
    "ToldPlan",
    "is_run",
    "read_plan",
    "write_inputs",
    "write_plan",
]

PLAN_FORMAT = "byname-run/2"
INPUTS = "inputs.parquet"
MAKE = "Make it with 'byname plan IMAGES RUN'."
_HASH = b"inputs_sha256"
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("path", pa.binary()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("inside", pa.string()),
    ]
)


class ToldSettings(BaseModel):
    """As :class:`byname.runs.plan.Settings`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    encoder: str
    fingerprint: str
    dim: int = Field(ge=1, le=2**20)
    shard_size: int = Field(ge=1, le=2**24)
    shared: bool


class ToldHow(BaseModel):
    """What :func:`byname.encoders.load_encoder` takes."""

    model_config = ConfigDict(strict=True, extra="forbid")

    encoder: str = Field(min_length=1)
    precision: str | None = None


class ToldPlan:
    """What ``plan.json`` says, checked."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        if told["format"] != PLAN_FORMAT:
            raise ValueError(f"its format is {told['format']!r}, not '{PLAN_FORMAT}'")
        self.settings: dict[str, Any] = ToldSettings(**told["settings"]).model_dump()
        given = dict(told["preprocess"])
        if set(given) != {f.name for f in fields(Preprocess)}:
            raise ValueError("its preprocessing is not that of a byname encoder")
        given["mean"], given["std"] = tuple(given["mean"]), tuple(given["std"])
        self.preprocess = Preprocess(**given)
        self.images, self.inputs = told["images"], str(told["inputs_sha256"])
        self.root, self.kind = str(told["root"]), str(told["kind"])
        how = told.get("how")
        self.how: dict[str, Any] | None = None if how is None else ToldHow(**how).model_dump()
        self.warnings = tuple(map(str, told.get("warnings", ())))
        if type(self.images) is not int or self.images < 0:
            raise ValueError(f"its number of images is {self.images!r}")


def write_plan(
    folder: Path,
    settings: Mapping[str, Any],
    preprocess: Preprocess,
    source: Source,
    inputs: str,
    how: Mapping[str, Any] | None = None,
) -> None:
    """``plan.json``, whole or not at all. ``inputs`` is the hash of ``inputs.parquet``'s rows."""
    text = {
        "format": PLAN_FORMAT,
        "settings": dict(settings),
        "preprocess": asdict(preprocess),
        "root": source.root,
        "kind": source.kind,
        "images": len(source.refs),
        "inputs_sha256": inputs,
        "how": None if how is None else dict(how),
        "warnings": list(source.warnings),
    }
    with atomic_path(folder / "plan.json") as temporary:
        temporary.write_text(json.dumps(text, indent=1), encoding="utf-8")


def read_plan(folder: Path) -> ToldPlan:
    """What ``plan.json`` in a run folder says.

    Raises
    ------
    RunError
        Where there is none, or it is not one of byname's.
    """
    asked = f"open the run '{folder}'"
    with suppress(PermissionError):  # which is said when it is read
        if not (folder / "plan.json").is_file():
            raise RunError(asked, "there is no plan.json in it", MAKE)
    told = read_json(folder / "plan.json", RunError, asked, MAKE)
    try:
        return ToldPlan(told)
    except (ValidationError, BynameError, ValueError, KeyError, TypeError, OverflowError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        seen = f"its plan.json cannot be used ({lines[0][:200]})"
        raise RunError(asked, seen, f"It is damaged, or of another version. {MAKE}") from None


def is_run(path: str | os.PathLike[str]) -> bool:
    """Whether this is a folder that ``byname plan`` made; reads only the beginning of its plan.

    Examples
    --------
    >>> is_run("no/such/folder")
    False
    """
    try:
        with Path(path, "plan.json").open("rb") as file:
            return b'"byname-run/' in file.read(200)
    except (OSError, ValueError):
        return False


def write_inputs(folder: Path, refs: Sequence[ImageRef], shard_size: int, inputs: str) -> None:
    """The images of a plan, so that whoever has the folder can read a shard of them.

    ``inputs`` is their hash, as in ``plan.json``: the list of another plan is not taken for it.
    """
    schema = _SCHEMA.with_metadata({_HASH: inputs})
    with (
        atomic_path(folder / INPUTS) as temporary,
        pq.ParquetWriter(temporary, schema, write_page_checksum=True) as writer,
    ):
        for start in range(0, len(refs), shard_size):
            writer.write_table(_table(refs[start : start + shard_size]), row_group_size=shard_size)


def _table(refs: Sequence[ImageRef]) -> pa.Table:
    columns = [
        [r.key for r in refs],
        [_absolute(r.path) for r in refs],
        *([getattr(r, name) for r in refs] for name in _SCHEMA.names[2:]),
    ]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def _absolute(path: str) -> bytes:
    """A worker may run elsewhere; names of files need not be Unicode."""
    return os.fsencode(path if "://" in path else os.path.abspath(path))  # noqa: PTH100 - text


class StoredRefs(Sequence[ImageRef]):
    """The images of ``inputs.parquet``, of which only the shards last asked for are in memory.

    ``inputs`` is their hash, by which the list of another plan is told.

    Raises
    ------
    RunError
        Here and when they are read, where the file is gone or damaged, or has another number of
        images than the plan says.
    """

    def __init__(self, folder: Path, count: int, shard_size: int, inputs: str) -> None:
        self._path, self._count, self._size = folder / INPUTS, count, shard_size
        self._kept: OrderedDict[int, tuple[ImageRef, ...]] = OrderedDict()
        with self._understood(), pq.ParquetFile(self._path) as file:
            # Kept: it grows with the plan, and would else be read again for each shard.
            self._footer = file.metadata
            if (file.schema_arrow.metadata or {}).get(_HASH) != inputs.encode(errors="replace"):
                raise ValueError("it lists the images of another plan")
            found, wanted = self._footer.num_rows, -(-count // shard_size)
            if (found, self._footer.num_row_groups) != (count, wanted):
                there = f"{found:,} images in {self._footer.num_row_groups:,} shards"
                raise ValueError(f"it lists {there}, and plan.json says {count:,} in {wanted:,}")

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> ImageRef: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[ImageRef, ...]: ...

    def __getitem__(self, index: int | slice) -> ImageRef | tuple[ImageRef, ...]:
        if isinstance(index, int):
            place = range(self._count)[index]
            return self._group(place // self._size)[place % self._size]
        start, stop, step = index.indices(self._count)
        if step != 1:
            return tuple(self[i] for i in range(start, stop, step))
        first, last = start // self._size, -(-stop // self._size)
        found = [ref for group in range(first, last) for ref in self._group(group)]
        return tuple(found[start - first * self._size : stop - first * self._size])

    def __iter__(self) -> Iterator[ImageRef]:
        for group in range(-(-self._count // self._size)):
            yield from self._group(group)

    def _group(self, index: int) -> tuple[ImageRef, ...]:
        # several threads may ask at once
        if (found := self._kept.get(index)) is None:
            found = self._kept[index] = self._read(index)
            with suppress(KeyError):
                while len(self._kept) > 2:
                    self._kept.popitem(last=False)
        return found

    def _read(self, index: int) -> tuple[ImageRef, ...]:
        expected = min(self._size, self._count - index * self._size)
        with (
            self._understood(),
            pq.ParquetFile(
                self._path, metadata=self._footer, page_checksum_verification=True
            ) as file,
        ):
            table = file.read_row_group(index).cast(_SCHEMA)
            table.validate(full=True)
            if len(table) != expected or any(column.null_count for column in table.columns):
                raise ValueError(f"shard {index} has not its {expected} rows")
            columns = [column.to_pylist() for column in table.columns]
            return tuple(
                ImageRef(key, os.fsdecode(path), *rest)
                for key, path, *rest in zip(*columns, strict=True)
            )

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """What is wrong with the file, as one error."""
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as error:
            seen = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise RunError(
                f"read the images of the run '{self._path.parent}'",
                f"'{INPUTS}' is damaged or gone ({seen})",
                "Plan it again in another folder; parts that are done can stay where they are.",
            ) from None
