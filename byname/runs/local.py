"""The local engine: one process, shard after shard, then the merge."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock

from byname.cache import working_dir
from byname.embeddings import Embeddings, stay_on_disk, vectors_of
from byname.encoders.base import Encoder
from byname.errors import BynameError, CacheError, EmbeddingsError
from byname.images.sources import Source
from byname.runs.disk import sweep
from byname.runs.job import processors
from byname.runs.plan import SHARD_SIZE, Plan, make_plan
from byname.runs.reuse import ReuseIndex
from byname.runs.shard import Progress, process_shard
from byname.runs.stop import finishing

__all__ = ["embed_source", "kept_until_written", "merge"]

_kept: ContextVar[dict[Path, FileLock] | None] = ContextVar("_kept", default=None)


def embed_source(
    source: Source,
    encoder: Encoder,
    *,
    batch_size: int = 32,
    shard_size: int = SHARD_SIZE,
    workers: int | None = None,
    cache: bool = True,
    on_disk: bool = False,
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
        Threads that read and decode.
    cache : bool, default True
        With False, or an encoder without ``weights_sha256`` (others may have its name), nothing
        of earlier runs is used or left behind; parts stay until the end, for after a kill.
    on_disk : bool, default False
        Inside :func:`kept_until_written`, leave more than 256 MiB of vectors in the parts.
    progress : callable
        Called with ``(n, encoded)`` after each batch.

    Returns
    -------
    Embeddings
        Sorted by key, or by place in large files such as tars; ``errors`` has unreadable files.

    Raises
    ------
    CacheError
        Where the parts cannot be written, for a full disk for instance.
    EncoderError
        For an encoder that takes no pixels, or gives vectors of another width than it says.
    Stopped
        After Ctrl-C or SIGTERM, when the batch in hand is on disk; a ``KeyboardInterrupt``.
    """
    cache = cache and bool(encoder.info.weights_sha256)
    with _disk_errors(base := working_dir()):
        plan = make_plan(source, encoder, base, shard_size=shard_size, share=cache)
        sweep(plan.folder)
        with _until_done(plan), finishing() as stop:
            work = partial(
                process_shard,
                plan,
                encoder=encoder,
                batch_size=batch_size,
                workers=workers or processors(),
                reuse=ReuseIndex(plan) if cache else None,
                progress=progress,
                stop=stop,
            )
            return _whole(plan, work, on_disk and _kept.get() is not None)


def _whole(plan: Plan, work: Callable[..., pa.Table], on_disk: bool) -> Embeddings:
    if on_disk and stay_on_disk(len(plan.refs), plan.settings.dim):
        for index in range(plan.n_shards):
            work(index=index)
        with suppress(EmbeddingsError):  # where somebody cleared the cache meanwhile
            return _of_parts(plan)
    # each table is taken in as it comes, so that none but the last is in memory
    return merge(plan, (work(index=index) for index in range(plan.n_shards)))


def _of_parts(plan: Plan) -> Embeddings:
    found = Embeddings.load(plan.folder)
    # the plan may have been written by a run with other names for the same
    return replace(found, encoder=plan.settings.encoder, root=plan.root)


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
    kept = _kept.get()
    if kept is not None and plan.folder in kept:
        yield
        return
    with FileLock(plan.folder.with_suffix(".lock")) as lock:
        yield
        if kept is None:
            _delete(plan.folder, lock)
        else:
            lock.acquire()  # once more: it stays locked until it is deleted
            kept[plan.folder] = lock


@contextmanager
def kept_until_written() -> Iterator[None]:
    """Inside, the folders of unshared runs stay until the end of the block.

    By then a command has written what it made the vectors for. Where the block ends with an error,
    or the process is killed in it, they stay for the next try.

    Examples
    --------
    >>> with kept_until_written():
    ...     pass  # embed without the cache, and write the output
    """
    kept: dict[Path, FileLock] = {}
    token = _kept.set(kept)
    try:
        yield
        for folder, lock in kept.items():
            _delete(folder, lock)
    finally:
        _kept.reset(token)
        for lock in kept.values():
            lock.release()


def _delete(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    Path(lock.lock_file).unlink(missing_ok=True)


def merge(plan: Plan, tables: Iterable[pa.Table]) -> Embeddings:
    """The parts of all shards, in order, to one Embeddings; images with an error go to ``errors``.

    Memory is that of the result: the names are those of the plan, the vectors go to their place.
    """
    errors: dict[str, str] = {}
    keys: list[str] = []
    vectors = np.empty((len(plan.refs), plan.settings.dim), np.float32)
    for index, table in enumerate(tables):
        names = [ref.key for ref in plan.shard(index)]
        reasons = table["error"].to_pylist()
        good = [name for name, reason in zip(names, reasons, strict=True) if reason is None]
        errors.update((n, r) for n, r in zip(names, reasons, strict=True) if r is not None)
        block = vectors_of(table["vector"])[[reason is None for reason in reasons]]
        # unit rows: they were rounded to be stored
        unit = Embeddings.from_arrays(block, good).vectors
        vectors[len(keys) : len(keys) + len(good)] = unit
        keys.extend(good)
    settings = plan.settings
    return Embeddings(
        tuple(keys),
        vectors[: len(keys)],
        settings.encoder,
        settings.fingerprint,
        errors,
        plan.root,
    )
