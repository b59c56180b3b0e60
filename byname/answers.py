"""From a pipeline's answers to rows, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from byname import ops
from byname.embeddings import Embeddings
from byname.pipeline import Pipeline, batch_rows
from byname.progress import tell
from byname.rows import SCHEMA
from byname.stage import Answer, Batch
from byname.taxonomy import Taxonomy

__all__ = ["answer_table", "scored_table"]


def answer_table(
    pipeline: Pipeline,
    embeddings: Embeddings,
    *,
    k: int = 1,
    level: int | str | None = None,
    batch: Batch | None = None,
    block: int = 8192,
) -> pa.Table:
    """Rows of all images, sorted by file name and rank.

    Where the fitted pipeline treats each image by itself, logits are held for ``block`` images at
    a time; otherwise for all N. ``batch`` holds the vectors and what else is known of the images.
    """
    whole = Batch(embeddings.vectors) if batch is None else batch
    tables = []
    for keys, rows, S in _scored(pipeline, embeddings.keys, whole, block, level):
        tables.append(_rows(keys, *pipeline.decide(S, k=k, level=level, batch=rows)))
    return _whole(tables, embeddings)


def scored_table(
    pipeline: Pipeline, embeddings: Embeddings, S: ops.Array, *, k: int = 1
) -> pa.Table:
    """As :func:`answer_table`, for logits (N, K) that something else than the pipeline made."""
    answer = pipeline.decide(S, k=k, batch=Batch(embeddings.vectors))
    return _whole([_rows(embeddings.keys, *answer)], embeddings)


def _whole(tables: Sequence[pa.Table], embeddings: Embeddings) -> pa.Table:
    """Rows of all images, also of those that could not be read, in order."""
    table = pa.concat_tables([*tables, _failed(embeddings.errors)])
    if embeddings.errors or any(a > b for a, b in zip(embeddings.keys, embeddings.keys[1:])):  # noqa: B905
        table = table.sort_by([("file_name", "ascending"), ("rank", "ascending")])
    return table


def _scored(
    pipeline: Pipeline,
    keys: Sequence[str],
    batch: Batch,
    block: int,
    level: int | str | None,
) -> Iterator[tuple[Sequence[str], Batch, ops.Array]]:
    if not pipeline.inductive_at(level):
        yield keys, batch, pipeline.scores(batch)
        return
    start = 0
    for rows in batch_rows(batch, block):
        if len(batch) > block:
            tell("images answered", start, len(batch))
        if len(rows):
            yield keys[start : start + len(rows)], rows, pipeline.scores(rows)
        start += len(rows)


def _rows(keys: Sequence[str], answer: Answer, taxonomy: Taxonomy) -> pa.Table:
    n, k = answer.node.shape
    nodes, filled = taxonomy.nodes, answer.node.reshape(-1) >= 0
    flat = np.maximum(answer.node.reshape(-1), 0)
    paths = [""] * len(nodes)
    for i in np.unique(flat):
        paths[i] = taxonomy.path_string(nodes[i].id)
    columns = {
        "file_name": pa.array(keys, pa.string()).take(np.repeat(np.arange(n), k)),
        "rank": np.tile(np.arange(1, k + 1, dtype=np.int32), n),
        "class_id": pa.array([x.id for x in nodes], pa.string()).take(flat),
        "label": pa.array([x.name for x in nodes], pa.string()).take(flat),
        "probability": np.asarray(answer.probability, np.float32).reshape(-1),
        "margin": np.repeat(np.asarray(answer.margin, np.float32), k),
        "level": np.asarray(taxonomy.depths, np.int32)[flat],
        "path": pa.array(paths, pa.string()).take(flat),
        "decision": np.repeat(answer.decision.astype(object), k),
        "error": pa.nulls(n * k, pa.string()),
    }
    table = pa.table({name: columns[name] for name in SCHEMA.names}).cast(SCHEMA)
    # A member that answers as many classes as it accepts leaves other ranks empty.
    return table if filled.all() else table.filter(pa.array(filled))


def _failed(errors: Mapping[str, str]) -> pa.Table:
    rows = [{"file_name": key, "rank": 1, "error": why} for key, why in errors.items()]
    return pa.Table.from_pylist(rows, schema=SCHEMA)
