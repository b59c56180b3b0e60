"""One shard: read, decode, encode, journal, write the part. Knows no engine."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray

from byname.embeddings import vectors_of
from byname.encoders.base import Encoder
from byname.errors import EncoderError, ImageError
from byname.images.load import load_pixels
from byname.images.preprocess import Preprocess
from byname.images.sources import ImageRef
from byname.runs.parts import HASH_BYTES, Journal, Row, read_part, rows_table, write_part
from byname.runs.plan import Plan
from byname.runs.reuse import ReuseIndex

__all__ = ["Progress", "process_shard"]

Progress: TypeAlias = Callable[[int, bool], None]
"""Called with how many more images are done, and whether they were encoded just now."""


@dataclass(frozen=True)
class Loaded:
    """A file's content hash, and one of: pixels (H, W, 3), a known vector (D,), an error."""

    content: bytes
    pixels: NDArray[np.uint8] | None = None
    vector: NDArray[np.float16] | None = None
    error: str = ""


def process_shard(
    plan: Plan,
    index: int,
    encoder: Encoder,
    *,
    batch_size: int = 32,
    workers: int = 2,
    reuse: ReuseIndex | None = None,
    progress: Progress = lambda done, encoded: None,
) -> pa.Table:
    """Make the part of one shard, or return it if it is there; idempotent.

    What an earlier, killed call finished is kept. Images with an error are tried again, since a
    missing permission or an absent network drive may have been mended. The table's rows are in
    the order of ``plan.shard(index)``. With ``reuse``, files of one content are encoded once; for
    that, ``reuse`` is given the shards in order.
    """
    refs, dim = plan.shard(index), plan.settings.dim
    # It may have been deleted since it was planned: the cache is safe to delete at any time.
    plan.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(plan.folder / f"part-{index:05d}.lock"):
        table, complete = read_part(plan.folder, index, dim, [r.key for r in refs])
        rows = _good_rows(table)
        if reuse is not None:
            reuse.trim()
            _learn(reuse, [rows[i] for i in sorted(rows)])
        progress(len(rows), False)
        if table is not None and complete and len(table) == len(rows):
            return table
        start = time.time()
        with (
            closing(Journal(plan.folder, index, rows_table(list(rows.values()), dim))) as journal,
            closing(_batches(plan, refs, rows, batch_size, workers, reuse)) as batches,
            closing(_encoded(batches, refs, encoder, reuse)) as encoded_batches,
        ):
            for fresh, encoded in encoded_batches:
                journal.append(rows_table(fresh, dim))
                rows.update((row.position, row) for row in fresh)
                if reuse is not None:
                    _learn(reuse, fresh)
                progress(encoded, True)
                progress(len(fresh) - encoded, False)
        ordered = [rows[i] for i in range(len(refs))]
        done = rows_table(ordered, dim)
        counts = {
            "rows": len(ordered),
            "errors": sum(r.error is not None for r in ordered),
            "seconds": round(time.time() - start, 3),
        }
        write_part(plan.folder, index, done, counts)
        return done


def _good_rows(table: pa.Table | None) -> dict[int, Row]:
    if table is None:
        return {}
    columns = (table[c].to_pylist() for c in ("position", "file_name", "content", "error"))
    vectors = vectors_of(table["vector"])
    return {
        position: Row(position, key, content, vectors[i], None)
        for i, (position, key, content, error) in enumerate(zip(*columns, strict=True))
        if error is None
    }


def _learn(reuse: ReuseIndex, rows: Sequence[Row]) -> None:
    for row in rows:
        if row.vector is not None:
            reuse.learn(row.content, row.vector)


def _batches(
    plan: Plan,
    refs: Sequence[ImageRef],
    done: dict[int, Row],
    batch_size: int,
    workers: int,
    reuse: ReuseIndex | None,
) -> Generator[list[tuple[int, Loaded]], None, None]:
    """Loaded images in batches cut at fixed positions, so that a resumed run encodes alike.

    Two batches are loaded ahead of the one in hand; memory stays constant.
    """
    starts = range(0, len(refs), batch_size)
    todo = [[i for i in range(s, min(s + batch_size, len(refs))) if i not in done] for s in starts]
    waiting = iter([positions for positions in todo if positions])

    with ThreadPoolExecutor(max(workers, 1)) as pool:

        def submit(positions: list[int]) -> list[tuple[int, Future[Loaded]]]:
            return [(i, pool.submit(_load, refs[i], plan.preprocess, reuse)) for i in positions]

        queue = [submit(positions) for positions in islice(waiting, 3)]
        try:
            while queue:
                batch = [(i, future.result()) for i, future in queue.pop(0)]
                queue.extend(submit(positions) for positions in islice(waiting, 1))
                yield batch
        finally:
            for futures in queue:
                for _, future in futures:
                    future.cancel()


def _load(ref: ImageRef, preprocess: Preprocess, reuse: ReuseIndex | None) -> Loaded:
    try:
        data = ref.read()
        content = hashlib.blake2b(data, digest_size=HASH_BYTES).digest()
        known = reuse.find(content) if reuse is not None else None
        if known is not None:
            return Loaded(content, vector=known)
        return Loaded(content, pixels=load_pixels(data, preprocess))
    except ImageError as error:
        return Loaded(b"", error=str(error))
    except MemoryError:
        return Loaded(b"", error="not enough memory to resize it")


@dataclass
class _Flight:
    """A batch that is with the encoder. ``first`` is the place of each content in it."""

    batch: list[tuple[int, Loaded]]
    known: dict[int, NDArray[np.float16] | None]
    first: dict[bytes, int]
    vectors: Future[dict[int, NDArray[np.float32] | str]]


def _encoded(
    batches: Iterable[list[tuple[int, Loaded]]],
    refs: Sequence[ImageRef],
    encoder: Encoder,
    reuse: ReuseIndex | None,
) -> Generator[tuple[list[Row], int], None, None]:
    """Rows of each batch in order, and how many images were encoded for them.

    ``encoder.in_flight`` batches are with the encoder at once: where one has ended and its rows are
    written, the next is already being worked on.
    """
    flights: deque[_Flight] = deque()
    failed: dict[bytes, str] = {}
    with ThreadPoolExecutor(encoder.in_flight) as pool:
        for batch in batches:
            ahead = {content for flight in flights for content in flight.first}
            flights.append(_take_off(batch, encoder, reuse, ahead, pool))
            if len(flights) == encoder.in_flight:
                yield _land(flights.popleft(), refs, reuse, failed)
        while flights:
            yield _land(flights.popleft(), refs, reuse, failed)


def _take_off(
    batch: list[tuple[int, Loaded]],
    encoder: Encoder,
    reuse: ReuseIndex | None,
    ahead: set[bytes],
    pool: ThreadPoolExecutor,
) -> _Flight:
    """Choose what of a batch must be encoded, and start.

    What this run has learnt, or is about to learn from the batches ``ahead``, is asked for here and
    not only when a file is loaded, so that a batch does not depend on how far loading was ahead.
    """
    pixels: dict[int, NDArray[np.uint8]] = {}
    known: dict[int, NDArray[np.float16] | None] = {}
    first: dict[bytes, int] = {}
    for i, loaded in batch:
        known[i] = loaded.vector
        if loaded.pixels is None:
            continue
        if reuse is not None:
            known[i] = reuse.learnt(loaded.content)
            if known[i] is not None or loaded.content in ahead:
                continue
            if first.setdefault(loaded.content, i) != i:
                continue
        pixels[i] = loaded.pixels
    # the pixels live as long as they are needed and no longer
    batch = [(i, replace(loaded, pixels=None)) for i, loaded in batch]
    return _Flight(batch, known, first, pool.submit(_vectors, pixels, encoder))


def _land(
    flight: _Flight, refs: Sequence[ImageRef], reuse: ReuseIndex | None, failed: dict[bytes, str]
) -> tuple[list[Row], int]:
    """Rows of a batch, and how many images were encoded for them."""
    vectors = flight.vectors.result()
    failed.update(
        (content, vector)
        for content, i in flight.first.items()
        if isinstance(vector := vectors[i], str)
    )
    rows = []
    for i, loaded in flight.batch:
        content = loaded.content
        outcome: NDArray[Any] | str | None = flight.known[i]
        if outcome is None:
            outcome = vectors.get(flight.first.get(content, i))
        if outcome is None and reuse is not None and content:
            # a copy of an image of a batch before, which has been learnt or has failed since
            outcome = reuse.learnt(content)
        if outcome is None:
            outcome = failed.get(content, loaded.error)
        if isinstance(outcome, str):
            rows.append(Row(i, refs[i].key, b"", None, outcome))
        else:
            rows.append(Row(i, refs[i].key, content, outcome.astype(np.float16), None))
    return rows, sum(not isinstance(vector, str) for vector in vectors.values())


def _vectors(
    pixels: dict[int, NDArray[np.uint8]], encoder: Encoder
) -> dict[int, NDArray[np.float32] | str]:
    """Encode together; if the encoder refuses the batch, one by one, to find whose fault it is."""
    if not pixels:
        return {}
    try:
        vectors = encoder.encode_images(np.stack(list(pixels.values())))
    except EncoderError as error:
        if len(pixels) == 1:
            return dict.fromkeys(pixels, f"the encoder failed on it: {error.seen}")
        return {i: _vectors({i: x}, encoder)[i] for i, x in pixels.items()}
    if vectors.shape != (len(pixels), encoder.info.dim):
        raise EncoderError(
            f"embed images with '{encoder.info.id}'",
            f"it gave vectors of shape {vectors.shape} for {len(pixels)} images",
            f"Its card says that they have {encoder.info.dim} numbers each.",
        )
    bad = "the encoder gave NaN or infinite numbers for it"
    return {i: v if np.isfinite(v).all() else bad for i, v in zip(pixels, vectors, strict=True)}
