"""The local engine: one process, shard after shard, then the merge."""

from __future__ import annotations

import os
import shutil

import numpy as np

from byname.cache import working_dir
from byname.embeddings import Embeddings, vectors_of
from byname.encoders.base import Encoder
from byname.images.sources import Source
from byname.runs.plan import SHARD_SIZE, make_plan
from byname.runs.reuse import ReuseIndex
from byname.runs.shard import Progress, process_shard

__all__ = ["embed_source"]


def embed_source(
    source: Source,
    encoder: Encoder,
    *,
    batch_size: int = 32,
    shard_size: int = SHARD_SIZE,
    workers: int | None = None,
    cache: bool = True,
    progress: Progress = lambda done, encoded: None,
) -> Embeddings:
    """Vectors of every image of a source, through shards under the cache.

    Parameters
    ----------
    source : Source
    encoder : Encoder
    batch_size : int, default 32
    shard_size : int, default 1024
        Images a part.
    workers : int, optional
        Threads that read and decode; as many as processors by default.
    cache : bool, default True
        With False nothing of earlier runs is used and nothing is left behind; the parts lie in
        the cache folder only until the run ends, so that a killed run can go on.
    progress : callable
        Called with ``(n, encoded)`` after each batch.

    Returns
    -------
    Embeddings
        Sorted by key; files that could not be read are in ``errors``.
    """
    plan = make_plan(source, encoder, working_dir(), shard_size=shard_size, share=cache)
    reuse = ReuseIndex(plan) if cache else None
    tables = [
        process_shard(
            plan,
            index,
            encoder,
            batch_size=batch_size,
            workers=workers or os.cpu_count() or 1,
            reuse=reuse,
            progress=progress,
        )
        for index in range(plan.n_shards)
    ]
    errors: dict[str, str] = {}
    keys: list[str] = []
    blocks = [np.zeros((0, plan.settings.dim), np.float32)]
    for table in tables:
        names, reasons = table["file_name"].to_pylist(), table["error"].to_pylist()
        good = np.array([r is None for r in reasons], bool)
        keys.extend(n for n, r in zip(names, reasons, strict=True) if r is None)
        errors.update((n, r) for n, r in zip(names, reasons, strict=True) if r is not None)
        blocks.append(vectors_of(table["vector"])[good].astype(np.float32))
    if not cache:
        shutil.rmtree(plan.folder, ignore_errors=True)
    merged = Embeddings.from_arrays(np.concatenate(blocks), keys)
    info = encoder.info
    return Embeddings(
        merged.keys, merged.vectors, info.id, info.image_fingerprint(), errors, source.root
    )
