"""The local engine: one process, shard after shard, then the merge."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray

from byname.cache import working_dir
from byname.embeddings import Embeddings, stay_on_disk, vectors_of
from byname.encoders.base import Encoder
from byname.errors import BynameError, CacheError
from byname.images.sources import Source
from byname.runs.disk import sweep
from byname.runs.job import processors
from byname.runs.plan import SHARD_SIZE, Plan, make_plan
from byname.runs.reuse import ReuseIndex
from byname.runs.shard import Progress, process_shard
from byname.runs.stop import finishing
from byname.spilled import Spill

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
    batch_size, shard_size : int, default 32 and 1024
        Images a call of the encoder, and a part.
    workers : int, optional
        Threads that read and decode.
    cache : bool, default True
        With False, or an encoder without ``weights_sha256`` (others may have its name), nothing
        of earlier runs is used or left behind; parts stay until the end, for after a kill.
    on_disk : bool, default False
        Inside :func:`kept_until_written`, more than 256 MiB of vectors do not come into memory.
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
            tables = (work(index=index) for index in range(plan.n_shards))
            return merge(plan, tables, base if on_disk and _kept.get() is not None else None)


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


def merge(plan: Plan, tables: Iterable[pa.Table], scratch: Path | None = None) -> Embeddings:
    """The parts of all shards, in order, to one Embeddings; images with an error go to ``errors``.

    Each table is taken in as it comes, so memory is that of the result and of one table.
    With a folder for ``scratch``, more than 256 MiB of vectors go to a file there.
    """
    errors: dict[str, str] = {}
    with _sink(plan, scratch) as sink:
        for index, table in enumerate(tables):
            names = [ref.key for ref in plan.shard(index)]
            reasons = table["error"].to_pylist()
            good = [name for name, reason in zip(names, reasons, strict=True) if reason is None]
            errors.update((n, r) for n, r in zip(names, reasons, strict=True) if r is not None)
            sink.add(good, vectors_of(table["vector"])[[reason is None for reason in reasons]])
        keys, vectors = sink.done()
    settings = plan.settings
    return Embeddings(keys, vectors, settings.encoder, settings.fingerprint, errors, plan.root)


@contextmanager
def _sink(plan: Plan, scratch: Path | None) -> Iterator[Spill | _Memory]:
    rows, dim = len(plan.refs), plan.settings.dim
    if scratch is None or not stay_on_disk(rows, dim):
        yield _Memory(rows, dim)
        return
    spill = Spill(scratch, dim)
    try:
        yield spill
    except BaseException:
        spill.close()
        raise


class _Memory:
    """Takes vectors in as :class:`byname.spilled.Spill` does."""

    def __init__(self, rows: int, dim: int) -> None:
        self._keys: list[str] = []
        self._vectors = np.empty((rows, dim), np.float32)

    def add(self, names: list[str], vectors: NDArray[np.float16]) -> None:
        # unit rows: they were rounded to be stored
        unit = Embeddings.from_arrays(vectors, names).vectors
        self._vectors[len(self._keys) : len(self._keys) + len(names)] = unit
        self._keys.extend(names)

    def done(self) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        return tuple(self._keys), self._vectors[: len(self._keys)]
