"""The local engine: one process, shard after shard, then the merge."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock

from byname.cache import working_dir
from byname.embeddings import Embeddings, vectors_of
from byname.encoders.base import Encoder
from byname.errors import BynameError, CacheError
from byname.images.sources import Source
from byname.runs.plan import SHARD_SIZE, Plan, make_plan
from byname.runs.reuse import ReuseIndex
from byname.runs.shard import Progress, process_shard

__all__ = ["embed_source", "merge"]


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
        the cache folder only until the run ends, so that a killed run can go on. So it is, too,
        for an encoder without ``weights_sha256``, whose vectors may change under its name.
    progress : callable
        Called with ``(n, encoded)`` after each batch.

    Returns
    -------
    Embeddings
        Sorted by key; files that could not be read are in ``errors``.

    Raises
    ------
    CacheError
        Where the parts cannot be written, for a full disk for instance.
    EncoderError
        For an encoder that takes no pixels, or gives vectors of another width than it says.
    """
    cache = cache and bool(encoder.info.weights_sha256)
    base = working_dir()
    with _disk_errors(base):
        plan = make_plan(source, encoder, base, shard_size=shard_size, share=cache)
        with _until_done(plan):
            work = partial(
                process_shard,
                plan,
                encoder=encoder,
                batch_size=batch_size,
                workers=workers or os.cpu_count() or 1,
                reuse=ReuseIndex(plan) if cache else None,
                progress=progress,
            )
            tables = [work(index=index) for index in range(plan.n_shards)]
    return merge(plan, tables)


@contextmanager
def _disk_errors(base: Path) -> Iterator[None]:
    """An error of the file system as one that says what to do."""
    try:
        yield
    except BynameError:
        raise
    except OSError as error:
        raise CacheError(
            f"keep the vectors in '{base}'",
            error.strerror or str(error),
            "Make room there, or set BYNAME_CACHE to another folder; then start the run again.",
        ) from error


@contextmanager
def _until_done(plan: Plan) -> Iterator[None]:
    """Delete the folder of an unshared run when it is done; until then no other process has it."""
    if plan.settings.shared:
        yield
        return
    with FileLock(plan.folder.with_suffix(".lock")) as lock:
        yield
        shutil.rmtree(plan.folder, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)


def merge(plan: Plan, tables: Sequence[pa.Table]) -> Embeddings:
    """Parts, in order, to one Embeddings; images with an error go to ``errors``."""
    errors: dict[str, str] = {}
    keys: list[str] = []
    blocks = [np.zeros((0, plan.settings.dim), np.float32)]
    for table in tables:
        names, reasons = table["file_name"].to_pylist(), table["error"].to_pylist()
        good = np.array([r is None for r in reasons], bool)
        keys.extend(n for n, r in zip(names, reasons, strict=True) if r is None)
        errors.update((n, r) for n, r in zip(names, reasons, strict=True) if r is not None)
        blocks.append(vectors_of(table["vector"])[good].astype(np.float32))
    unit = Embeddings.from_arrays(np.concatenate(blocks), keys)
    settings = plan.settings
    return Embeddings(
        unit.keys, unit.vectors, settings.encoder, settings.fingerprint, errors, plan.root
    )
