"""Reading and decoding: on threads of their own, each file within a time limit.

A read from a dead network drive never returns, and a thread in it can be neither stopped nor waited
for. So these are daemon threads, which the end of the process does not wait for: one that is late
is left to itself, and another takes its place.
"""

from __future__ import annotations

import errno
import hashlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from byname.encoders.memory import out_of_memory
from byname.errors import BynameError, ImageError, RunError
from byname.images.decode import one_line
from byname.images.refs import ImageRef
from byname.runs.parts import HASH_BYTES
from byname.runs.reuse import ReuseIndex
from byname.runs.stop import Stopped

__all__ = ["Batch", "Loaded", "Loader", "load"]

AHEAD = 3  # batches that are loaded or waiting while one is in hand
POLL = 0.5  # seconds between two looks at the clock and at a wish to stop, while waiting
MOMENT = 0.02  # seconds that a late thread gets to end, before it is given up
ABANDONED = 32
PAUSES = (0.1, 0.5)  # seconds before a read that failed is tried again
TRANSIENT = {errno.EIO, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT, getattr(errno, "ESTALE", -1)}

_abandoned: list[threading.Thread] = []
"""Threads of this process that were late and have not ended since."""


@dataclass(frozen=True)
class Loaded:
    """A file's content hash, and one of: pixels (H, W, 3), a known vector (D,), an error.

    ``short``: memory did not suffice. ``size`` in bytes and ``seconds`` are what it took to load.
    """

    content: bytes
    pixels: NDArray[np.uint8] | None = None
    vector: NDArray[np.float16] | None = None
    error: str = ""
    short: bool = False
    size: int = 0
    seconds: float = 0.0


Batch: TypeAlias = list[tuple[int, Loaded]]
"""Positions in the shard, and what was loaded for them."""


def load(
    ref: ImageRef,
    decode: Callable[[bytes], NDArray[np.uint8]],
    reuse: ReuseIndex | None,
    seconds: float = 60.0,
) -> Loaded:
    """Read a file, and decode it unless its vector is known; whatever fails is an error of it.

    ``seconds`` are what a web server gets.
    """
    began, size = time.monotonic(), 0
    try:
        data = _read(ref, seconds)
        size = len(data)
        content = hashlib.blake2b(data, digest_size=HASH_BYTES).digest()
        known = reuse.find(content) if reuse is not None else None
        if known is not None:
            found = Loaded(content, vector=known)
        else:
            found = Loaded(content, pixels=decode(data))
    except ImageError as error:
        short = any(isinstance(link, MemoryError) for link in _chain(error))
        found = Loaded(b"", error=str(error), short=short)
    except OSError as error:
        why = error.strerror or type(error).__name__
        found = Loaded(b"", error=f"the file cannot be read ({why})")
    except Exception as error:  # views may ask an encoder, which has its own ways to say so
        if out_of_memory(error):
            found = Loaded(b"", error="not enough memory to resize it", short=True)
        elif isinstance(error, BynameError):
            raise
        else:  # nobody has foreseen it: still the trouble of one file, and no end of a run
            what = one_line(f"{type(error).__name__}: {error}")
            found = Loaded(b"", error=f"reading it failed ({what})")
    return replace(found, size=size, seconds=time.monotonic() - began)


def _read(ref: ImageRef, seconds: float) -> bytes:
    """The bytes; what a network drive says when it stumbles is not believed at once."""
    if "://" in ref.path:  # reading a URL has retries of its own
        return ref.read(seconds=seconds)
    for pause in PAUSES:
        try:
            return ref.read()
        except OSError as error:  # ImageError among them
            if not any(_is_transient(link) for link in _chain(error)):
                raise
        time.sleep(pause)
    return ref.read()


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, TimeoutError | ConnectionError | InterruptedError | BlockingIOError):
        return True
    return isinstance(error, OSError) and error.errno in TRANSIENT


def _chain(error: BaseException) -> list[BaseException]:
    """The exception, and those that it was raised for."""
    found: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and len(found) < 8:
        found.append(link)
        link = link.__cause__ or link.__context__
    return found


@dataclass
class _Reader:
    """A thread, and what it is at: position, and when it began (None: it waits for work)."""

    job: tuple[int, float] | None = None
    late: bool = False
    thread: threading.Thread = field(init=False)


class Loader:
    """Loads files by their positions.

    Parameters
    ----------
    work : callable
        Loads the file at a position.
    threads : int
    timeout : float
        Seconds that one file may take, from when a thread began with it.
    stop : callable
        Asked from time to time while files are waited for.
    give_up : mapping of int to str
        Positions that are not loaded, and why.
    careful : path, optional
        If given, files are loaded one by one, and before each its position is written there.
    since : callable
        When a thread (its ident) had its turn, among the others (theirs), in ``time.monotonic``:
        what came before does not count.
    """

    def __init__(
        self,
        work: Callable[[int], Loaded],
        *,
        threads: int = 1,
        timeout: float = 60.0,
        stop: Callable[[], bool] = lambda: False,
        give_up: Mapping[int, str] | None = None,
        careful: Path | None = None,
        since: Callable[[int, Collection[int]], float] = lambda thread, others: -math.inf,
    ) -> None:
        self.again: list[int] = []
        """Positions for which memory did not suffice; left out of the batches."""
        self.size, self.seconds = 0, 0.0
        self._work, self._timeout, self._stop = work, timeout, stop
        self._given_up, self._careful, self._since = give_up or {}, careful, since
        self._ahead = AHEAD if careful is None else 0
        self._todo: SimpleQueue[int | None] = SimpleQueue()
        self._changed = threading.Condition(threading.Lock())
        # Both are for the holder of the lock.
        self._found: dict[int, Loaded | BaseException] = {}
        self._awaited: set[int] = set()
        self._lost = 0.0
        self._closed = False
        self._readers: list[_Reader] = []
        for _ in range(max(threads, 1) if careful is None else 1):
            self._hire()

    def batches(
        self, todo: Iterable[Sequence[int]], *, last: bool = False
    ) -> Generator[Batch, None, None]:
        """What was loaded, batch by batch; some batches are loaded ahead of the one in hand.

        A file for which memory does not suffice is left for ``again``, unless this is the ``last``
        time; from then on nothing is loaded ahead.
        """
        waiting, queue = deque(todo), deque[Sequence[int]]()
        if last:
            self._ahead = 0
        while queue or waiting:
            self._fill(queue, waiting, max(self._ahead, 1))
            batch = self._take(queue.popleft())
            short = [] if last else [i for i, loaded in batch if loaded.short]
            if short:
                self.again += short
                self._ahead = 0
                batch = [(i, loaded) for i, loaded in batch if not loaded.short]
            self._fill(queue, waiting, self._ahead)
            # Handed over, not kept: a name here would hold the pixels until the next batch.
            handed = [batch] if batch else []
            del batch
            if handed:
                yield handed.pop()

    def close(self) -> None:
        """End the threads; one that is reading gets a second for it, and is then left alone."""
        self._closed = True
        for _ in self._readers:
            self._todo.put(None)
        until = time.monotonic() + 1.0
        for reader in self._readers:
            reader.thread.join(max(0.0, until - time.monotonic()))
            if reader.thread.is_alive():
                reader.late = True
                _abandoned.append(reader.thread)
        self._found.clear()

    def _fill(self, queue: deque[Sequence[int]], waiting: deque[Sequence[int]], most: int) -> None:
        while waiting and len(queue) < most:
            queue.append(waiting.popleft())
            if self._careful is None:
                for i in queue[-1]:
                    self._submit(i)

    def _submit(self, position: int) -> None:
        if position in self._given_up:
            with self._changed:
                self._found[position] = Loaded(b"", error=self._given_up[position])
        else:
            self._todo.put(position)

    def _take(self, positions: Sequence[int]) -> Batch:
        """Wait for these."""
        if self._careful is None:
            return self._wait_for(positions)
        batch = []
        for i in positions:
            if i not in self._given_up:
                self._careful.write_text(f"load {i}\n", encoding="utf-8")
            self._submit(i)
            batch += self._wait_for([i])
        return batch

    def _wait_for(self, positions: Sequence[int]) -> Batch:
        batch = []
        with self._changed:
            self._awaited = {i for i in positions if i not in self._found}
            while self._awaited:
                self._wait()
            for i in positions:
                found = self._found.pop(i)
                if isinstance(found, BaseException):
                    raise found
                self.size += found.size
                self.seconds += found.seconds
                batch.append((i, found))
        return batch

    def _wait(self) -> None:
        """Wait until the last of what is awaited is there, or for a while; then look round."""
        began = [reader.job[1] for reader in self._readers if reader.job is not None]
        wanted = min(began, default=self._clock()) + self._timeout - self._clock()
        wanted = min(max(wanted, MOMENT), POLL)
        before = time.monotonic()
        if self._changed.wait(wanted):
            return
        # Who was stopped itself (Ctrl-Z, a sleeping machine) cannot say that others were slow.
        overslept = time.monotonic() - before - wanted
        self._lost += overslept if overslept > 1.0 else 0.0
        for reader in [r for r in self._readers if r.job is not None]:
            self._look_at(reader)
        if self._awaited and self._stop():
            raise Stopped

    def _look_at(self, reader: _Reader) -> None:
        job = reader.job
        if job is None or self._clock() - job[1] < self._timeout:
            return
        # The others are those not given up: who waits for such a one may wait for ever.
        threads = [r.thread.ident or 0 for r in self._readers]
        began = self._since(reader.thread.ident or 0, threads) - self._lost
        if self._clock() - began < self._timeout:
            reader.job = (job[0], began)
            return
        reader.late = True
        self._readers.remove(reader)
        _abandoned[:] = [thread for thread in _abandoned if thread.is_alive()]
        _abandoned.append(reader.thread)
        limit = f"{self._timeout:g} s"
        if len(_abandoned) > ABANDONED:
            raise RunError(
                "read the images",
                f"{len(_abandoned)} files have not answered within {limit}, and still do not",
                "The file system does not answer: see whether a network drive is gone. What was "
                "finished is kept: start the run again, and it goes on from there.",
            )
        late = Loaded(b"", error=f"reading it took longer than {limit}", seconds=self._timeout)
        self._found[job[0]] = late
        self._awaited.discard(job[0])
        self._hire()

    def _hire(self) -> None:
        reader = _Reader()
        reader.thread = threading.Thread(
            target=self._run, args=(reader,), name="byname-reader", daemon=True
        )
        try:
            reader.thread.start()
        except RuntimeError:  # the system allows no more; fewer will do
            if not self._readers:
                raise
        else:
            self._readers.append(reader)

    def _run(self, reader: _Reader) -> None:
        """What a thread does; the result of one that is late is dropped."""
        while (position := self._todo.get()) is not None and not self._closed:
            reader.job = (position, self._clock())
            found: Loaded | BaseException
            try:
                found = self._work(position)
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                found = error
            with self._changed:
                reader.job = None
                if reader.late or self._closed:
                    return
                self._found[position] = found
                if position in self._awaited:
                    self._awaited.discard(position)
                    if not self._awaited:
                        self._changed.notify()
            del found

    def _clock(self) -> float:
        """Seconds, without those in which this process was stopped."""
        return time.monotonic() - self._lost
