"""One shard: read, decode, encode, journal, write the part. Knows no engine."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
from filelock import FileLock, Timeout

from byname.embeddings import vectors_of
from byname.encoders.base import Encoder
from byname.images.decode import turn_since
from byname.images.load import load_pixels
from byname.runs.encoding import Batcher, Encoding
from byname.runs.loading import Loaded, Loader, load
from byname.runs.parts import Journal, Row, part_paths, read_part, rows_table, write_part
from byname.runs.plan import Plan
from byname.runs.reuse import ReuseIndex
from byname.runs.stop import Stopped

__all__ = ["Counts", "Progress", "process_shard"]

Progress: TypeAlias = Callable[[int, bool], None]
"""Called with how many more images are done, and whether they were encoded just now."""
Counts: TypeAlias = dict[str, Any]
"""What the mark of a part tells: see :meth:`_Shard.counts`."""

REASONS = 20
LOCK_POLL = 0.5  # seconds


def process_shard(
    plan: Plan,
    index: int,
    encoder: Encoder,
    *,
    batch_size: int = 32,
    workers: int = 2,
    reuse: ReuseIndex | None = None,
    progress: Progress = lambda done, encoded: None,
    file_timeout: float = 60.0,
    stop: Callable[[], bool] = lambda: False,
    give_up: Mapping[int, str] | None = None,
    careful: Path | None = None,
    tell: Callable[[Counts], None] = lambda counts: None,
) -> pa.Table:
    """Make the part of one shard, or return it if it is there; idempotent.

    What an earlier, killed call finished is kept. Images with an error are tried again, since a
    missing permission or an absent network drive may have been mended. The table's rows are in
    the order of ``plan.shard(index)``, and the same in the end, bit for bit, however often a call
    was stopped or killed (where memory did not suffice and batches were halved: to the encoder's
    rounding). With ``reuse``, files of one content are encoded once; for that, ``reuse`` is given
    the shards in order.

    ``workers`` threads read and decode; a file for which one takes longer than ``file_timeout``
    seconds has an error. ``stop`` is asked after each batch that is on disk: if it says yes, what
    is with the encoder is finished and put on disk, too, and no more is begun. ``give_up`` names
    positions that are not touched, and the error of each. ``careful`` is a file that holds what is
    in hand, for whoever sees this process die: ``load POSITION`` or ``encode FIRST LAST``; images
    are then loaded one by one, in order. ``tell`` is called once, with :meth:`_Shard.counts`.

    Raises
    ------
    Stopped
        Where ``stop`` said yes.
    RunError
        Where the file system does not answer any more.
    """
    work = _Shard(plan, index, encoder, reuse, progress, careful)
    # It may have been deleted since it was planned: the cache is safe to delete at any time.
    plan.folder.mkdir(parents=True, exist_ok=True)
    with _locked(plan.folder / f"part-{index:05d}.lock", stop), _noted(careful):
        table = work.begin()
        if table is None:
            loader = work.loader(workers, file_timeout, stop, give_up or {})
            table, stopped = work.finish(loader, batch_size, stop)
            tell(work.counts(loader))
            if stopped:
                raise Stopped
        else:
            tell(work.counts(None))
    return table


class _Shard:
    """A shard in work: the rows that it has so far, and what it took."""

    def __init__(
        self,
        plan: Plan,
        index: int,
        encoder: Encoder,
        reuse: ReuseIndex | None,
        progress: Progress,
        careful: Path | None,
    ) -> None:
        self.plan, self.index, self.reuse, self.progress = plan, index, reuse, progress
        self.refs, self.dim = plan.shard(index), plan.settings.dim
        self.made_of = plan.made_of(index)
        self.careful, self.batcher = careful, Batcher(encoder, careful)
        self.in_flight = encoder.in_flight if careful is None else 1
        self.rows: dict[int, Row] = {}
        self.before: pa.Table | None = None  # a complete part whose errors are tried again
        self.encoded = 0
        self.began = time.monotonic()

    def begin(self) -> pa.Table | None:
        """Take in what is on disk; the table, if nothing is left to do."""
        folder, keys = self.plan.folder, [ref.key for ref in self.refs]
        table, complete = read_part(folder, self.index, self.dim, keys, self.made_of)
        self.rows = _good_rows(table)
        if self.reuse is not None:
            self.reuse.trim()
            self._learn([self.rows[i] for i in sorted(self.rows)])
        self.progress(len(self.rows), False)
        if table is not None and complete and len(table) == len(self.rows):
            return table
        self.before = table if complete else None
        return None

    def loader(
        self,
        workers: int,
        timeout: float,
        stop: Callable[[], bool],
        give_up: Mapping[int, str],
    ) -> Loader:
        """What reads the files of this shard; it is to be closed."""
        preprocess, seconds = self.plan.preprocess, 0.9 * timeout

        def work(position: int) -> Loaded:
            # A web server gets less than its thread, which so need not be given up.
            ref, reuse = self.refs[position], self.reuse
            return load(ref, lambda data: load_pixels(data, preprocess), reuse, seconds)

        return Loader(
            work,
            threads=workers,
            timeout=timeout,
            stop=stop,
            give_up=give_up,
            careful=self.careful,
            since=turn_since,
        )

    def finish(
        self, loader: Loader, batch_size: int, stop: Callable[[], bool]
    ) -> tuple[pa.Table, bool]:
        """Make the missing rows and write the part; whether it was asked to stop with the last."""
        stopped = False
        known = rows_table(list(self.rows.values()), self.dim)
        with (
            closing(loader),
            closing(Journal(self.plan.folder, self.index, known)) as journal,
            closing(self._made(loader, self._todo(batch_size), stop)) as batches,
        ):
            try:
                for fresh, encoded in batches:
                    journal.append(rows_table(fresh, self.dim))
                    self._add(fresh, encoded)
            except Stopped:
                if len(self.rows) < len(self.refs):
                    raise
                stopped = True
        done = rows_table([self.rows[i] for i in range(len(self.refs))], self.dim)
        if self.before is not None and done.equals(self.before):
            # Not written anew: another process may be reading the vectors in it.
            part_paths(self.plan.folder, self.index)[2].unlink(missing_ok=True)
        else:
            write_part(self.plan.folder, self.index, done, self.counts(loader), self.made_of)
        return done, stopped

    def counts(self, loader: Loader | None) -> Counts:
        """What the mark of the part tells; without a loader, of a part that was there.

        ``reasons`` are the commonest errors, with ``#`` for numbers. ``load`` and ``encode`` are
        seconds summed over threads. ``bytes`` were read now. Of the good rows, so many were
        ``encoded`` now, and the others ``known`` before.
        """
        reasons = [row.error for row in self.rows.values() if row.error is not None]
        alike = Counter(re.sub(r"\d+([.,]\d+)*", "#", reason)[:200] for reason in reasons)
        seconds = {
            "load": loader.seconds if loader is not None else 0.0,
            "encode": self.batcher.seconds,
            "total": time.monotonic() - self.began,
        }
        return {
            "rows": len(self.rows),
            "errors": len(reasons),
            "reasons": dict(alike.most_common(REASONS)),
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "bytes": loader.size if loader is not None else 0,
            "encoded": self.encoded,
            "known": len(self.rows) - len(reasons) - self.encoded,
        }

    def _todo(self, batch_size: int) -> list[list[int]]:
        """Missing rows in batches cut at fixed positions, so that a resumed run encodes alike."""
        ends = range(batch_size, len(self.refs) + batch_size, batch_size)
        cut = [range(end - batch_size, min(end, len(self.refs))) for end in ends]
        missing = [[i for i in positions if i not in self.rows] for positions in cut]
        return [positions for positions in missing if positions]

    def _made(
        self, loader: Loader, todo: list[list[int]], stop: Callable[[], bool]
    ) -> Generator[tuple[list[Row], int], None, None]:
        encoding = Encoding(self.refs, self.batcher, self.reuse)
        with (
            closing(loader.batches(todo)) as batches,
            closing(encoding.rows(batches, self.in_flight, stop)) as made,
        ):
            yield from made
        # Nothing else is in memory now: files for which there was too little of it, one by one.
        with (
            closing(loader.batches([[i] for i in loader.again], last=True)) as batches,
            closing(encoding.rows(batches, 1, stop)) as made,
        ):
            yield from made

    def _add(self, fresh: Sequence[Row], encoded: int) -> None:
        self.rows.update((row.position, row) for row in fresh)
        self._learn(fresh)
        self.encoded += encoded
        self.progress(encoded, True)
        self.progress(len(fresh) - encoded, False)

    def _learn(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if self.reuse is not None and row.vector is not None:
                self.reuse.learn(row.content, row.vector)


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


@contextmanager
def _locked(path: Path, stop: Callable[[], bool]) -> Iterator[None]:
    """Hold a lock; while another process has it, ``stop`` is asked."""
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=LOCK_POLL)
            break
        except Timeout:
            if stop():
                raise Stopped from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _noted(careful: Path | None) -> Iterator[None]:
    """Remove the note at the end: this process has not died of what is in it."""
    try:
        yield
    finally:
        if careful is not None:
            careful.unlink(missing_ok=True)
