"""The parts of a complete run to one file of embeddings, without ever holding all vectors."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byname.embeddings import FORMAT, ROW_GROUP, vector_array, vectors_of
from byname.errors import RunError, some
from byname.files import atomic_path
from byname.progress import counted
from byname.runs.disk import disk_errors
from byname.runs.parts import read_part
from byname.runs.plan import Plan
from byname.runs.todo import unfinished

__all__ = ["Merged", "merge_run"]

Write: TypeAlias = Callable[[list[str], NDArray[np.float16], list[str | None]], None]


@dataclass
class Merged:
    """What a merge wrote: how many images, and the errors of those without a vector."""

    images: int
    errors: dict[str, str] = field(default_factory=dict)


def merge_run(folder: str | Path, output: str | Path) -> Merged:
    """Write all parts of a run as :meth:`byname.embeddings.Embeddings.save` writes them.

    The vectors are those of the parts, bit for bit; they are made unit rows when they are loaded,
    as they are where images are embedded in one process. Memory holds one shard, one row group and
    the errors; the names, too, where the images are not in the order of their names (those of large
    files are in the order of their places): the vectors then lie in a temporary file beside the
    output.

    Parameters
    ----------
    folder : path
        A run folder, all shards of which are complete.
    output : path
        A ``.parquet`` file.

    Raises
    ------
    RunError
        Where shards are missing or damaged.
    OutputError
        Where the file cannot be written.
    """
    plan, output = Plan.open(folder), Path(output)
    _refuse_incomplete(plan)
    merged = Merged(len(plan.refs))
    with (
        disk_errors(output.parent),
        atomic_path(output) as temporary,
        _writer(plan, temporary) as write,
    ):
        if _in_order(plan):
            for names, vectors in _good(plan, merged):
                write(names, vectors, [None] * len(names))
        else:
            with tempfile.TemporaryFile(dir=output.parent) as scratch:
                _sorted(plan, merged, scratch, write)
        failed = sorted(merged.errors)
        for start in range(0, len(failed), ROW_GROUP):
            part = failed[start : start + ROW_GROUP]
            zeros = np.zeros((len(part), plan.settings.dim), np.float16)
            write(part, zeros, [merged.errors[name] for name in part])
    return merged


def _refuse_incomplete(plan: Plan) -> None:
    todo = unfinished(plan, check=False).shards
    if todo:
        raise RunError(
            f"merge the run '{plan.folder}'",
            f"{len(todo):,} of {plan.n_shards:,} shards are not complete "
            f"({some([str(i) for i in todo])})",
            f"Finish it: byname run {plan.folder}",
        )


def _in_order(plan: Plan) -> bool:
    last = ""
    for ref in plan.refs:
        if ref.key < last:
            return False
        last = ref.key
    return True


def _good(plan: Plan, merged: Merged) -> Iterator[tuple[list[str], NDArray[np.float16]]]:
    """Names and vectors by shards; errors are put where they belong."""
    for index in counted("merge", range(plan.n_shards)):
        keys = [ref.key for ref in plan.shard(index)]
        made_of = plan.made_of(index)
        try:
            table, complete = read_part(plan.folder, index, plan.settings.dim, keys, made_of)
        except OSError as error:  # else it would pass for trouble with the output
            raise RunError(
                f"merge the run '{plan.folder}'",
                f"the part of shard {index} cannot be read ({error.strerror or error})",
                "Mend that, then give the same command again.",
            ) from error
        if table is None or not complete:
            raise RunError(
                f"merge the run '{plan.folder}'",
                f"shard {index} is damaged, or was made of other images",
                f"Make it again: byname run {plan.folder}",
            )
        # behind the part's own rows may lie those of a journal, where errors are tried again
        table = table.slice(0, len(keys))
        reasons = table["error"].to_pylist()
        merged.errors.update((k, r) for k, r in zip(keys, reasons, strict=True) if r is not None)
        good = np.array([reason is None for reason in reasons], bool)
        yield [k for k, ok in zip(keys, good, strict=True) if ok], vectors_of(table["vector"])[good]


def _sorted(plan: Plan, merged: Merged, scratch: IO[bytes], write: Write) -> None:
    """Write in the order of the names: the vectors are sought one by one on the disk."""
    names: list[str] = []
    for block, vectors in _good(plan, merged):
        names += block
        scratch.write(np.ascontiguousarray(vectors).tobytes())
    scratch.flush()
    width = 2 * plan.settings.dim
    order = sorted(range(len(names)), key=names.__getitem__)
    for start in counted("sort", range(0, len(order), ROW_GROUP)):
        part = order[start : start + ROW_GROUP]
        rows = bytearray()
        for i in part:
            scratch.seek(i * width)
            rows += scratch.read(width)
        found = np.frombuffer(bytes(rows), np.float16).reshape(len(part), -1)
        write([names[i] for i in part], found, [None] * len(part))


@contextmanager
def _writer(plan: Plan, path: Path) -> Iterator[Write]:
    meta = {
        "format": FORMAT,
        "encoder": plan.settings.encoder,
        "fingerprint": plan.settings.fingerprint,
        "root": plan.root,
    }
    empty = np.zeros((0, plan.settings.dim), np.float16)
    schema = pa.schema(
        [
            ("file_name", pa.string()),
            ("vector", vector_array(empty).type),
            ("error", pa.string()),
        ],
        metadata={"byname": json.dumps(meta)},
    )
    with pq.ParquetWriter(path, schema, use_dictionary=["error"]) as writer:  # as parts.py says

        def write(
            names: list[str], vectors: NDArray[np.float16], reasons: list[str | None]
        ) -> None:
            arrays = [
                pa.array(names, pa.string()),
                vector_array(vectors),
                pa.array(reasons, pa.string()),
            ]
            table = pa.Table.from_arrays(arrays, schema=schema)
            writer.write_table(table, row_group_size=ROW_GROUP)

        yield write
