"""From a pipeline's answers to rows, block by block."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from byname import ops
from byname.embeddings import Embeddings
from byname.pipeline import Pipeline
from byname.rows import SCHEMA
from byname.stage import Answer, Batch
from byname.stored import Keys
from byname.taxonomy import Taxonomy

__all__ = ["answer_ids", "answer_table", "answer_tables", "scored_table"]

ORDER = [("file_name", "ascending"), ("rank", "ascending")]


def answer_tables(
    pipeline: Pipeline,
    embeddings: Embeddings,
    *,
    k: int = 1,
    level: int | str | None = None,
    batch: Batch | None = None,
    block: int = 8192,
) -> Iterator[pa.Table]:
    """Rows of all images, sorted by file name and rank, some at a time; at least one table.

    Where the fitted pipeline treats each image by itself, logits are held for ``block`` images at
    a time, and rows too if the names come in order. Otherwise the answers of all images are held,
    without texts. ``batch`` holds the vectors and what else is known of the images.
    """
    whole = Batch(embeddings.vectors) if batch is None else batch
    parts, keys = pipeline.parts(whole, block=block, level=level), embeddings.keys
    answered = (
        (place, *pipeline.decide(S, k=k, level=level, batch=rows)) for place, rows, S in parts
    )
    yield SCHEMA.empty_table()
    tables: Iterator[pa.Table]
    if pipeline.inductive_at(level) and _ascending(keys):
        tables = (_rows(keys[place], answer, taxonomy) for place, answer, taxonomy in answered)
    else:
        tables = _in_order(keys, answered, block)
    yield from _with_failed(tables, embeddings.errors)


def answer_table(
    pipeline: Pipeline,
    embeddings: Embeddings,
    *,
    k: int = 1,
    level: int | str | None = None,
    batch: Batch | None = None,
    block: int = 8192,
) -> pa.Table:
    """:func:`answer_tables` as one."""
    return pa.concat_tables(
        answer_tables(pipeline, embeddings, k=k, level=level, batch=batch, block=block)
    )


def answer_ids(pipeline: Pipeline, batch: Batch, level: int | str | None) -> NDArray[np.str_]:
    """Id of the class or node that each image is answered with (N,)."""
    node, taxonomy = np.zeros(len(batch), np.intp), None
    for place, rows, S in pipeline.parts(batch, level=level):
        answer, taxonomy = pipeline.decide(S, k=1, level=level, batch=rows)
        node[place] = answer.node[:, 0]
    if taxonomy is None:  # no image at all
        return np.array([], np.str_)
    return np.array([one.id for one in taxonomy.nodes])[node]


def scored_table(
    pipeline: Pipeline, embeddings: Embeddings, S: ops.Array, *, k: int = 1
) -> pa.Table:
    """As :func:`answer_table`, for logits (N, K) that something else than the pipeline made."""
    made = (slice(0, len(embeddings)), *pipeline.decide(S, k=k, batch=Batch(embeddings.vectors)))
    tables = _in_order(embeddings.keys, [made], len(embeddings) or 1)
    return pa.concat_tables([SCHEMA.empty_table(), *_with_failed(tables, embeddings.errors)])


def _ascending(keys: Sequence[str]) -> bool:
    if isinstance(keys, Keys):
        return keys.ascending
    return all(a <= b for a, b in pairwise(keys))


def _in_order(
    keys: Sequence[str], answered: Iterable[tuple[Any, Answer, Taxonomy]], block: int
) -> Iterator[pa.Table]:
    """Rows by name, of answers to images at any places."""
    n, every = len(keys), list(answered)
    width = max((answer.node.shape[1] for _, answer, _ in every), default=0)
    node, margin = np.full((n, width), -1, np.int32), np.zeros(n, np.float32)
    chance, decision = np.zeros((n, width), np.float32), np.zeros(n, "U7")
    while every:
        place, answer, taxonomy = every.pop()
        ranks = answer.node.shape[1]
        node[place, :ranks], chance[place, :ranks] = answer.node, answer.probability
        margin[place], decision[place] = answer.margin, answer.decision
    names = keys if isinstance(keys, Keys) else Keys(pa.array(keys, pa.string()))
    order = names.order()
    for part in ops.blocks(n if width else 0, block):
        rows = order[part]
        some = Answer(node[rows], chance[rows], margin[rows], decision[rows])
        yield _rows(names.take(rows), some, taxonomy)


def _with_failed(tables: Iterable[pa.Table], errors: Mapping[str, str]) -> Iterator[pa.Table]:
    """The tables, which are in order, with the images that could not be read in their places."""
    names, start = sorted(errors), 0
    failed = _failed({name: errors[name] for name in names})
    for table in tables:
        if not len(table):
            continue
        stop = bisect_right(names, table["file_name"][-1].as_py(), start)
        if stop > start:
            table = pa.concat_tables([table, failed.slice(start, stop - start)]).sort_by(ORDER)
        start = stop
        yield table
    if start < len(names):
        yield failed.slice(start)


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
