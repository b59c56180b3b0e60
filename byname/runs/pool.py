"""The local engine: worker processes, handed one shard after the other, replaced where they die.

The tables go from the workers to the disk; only counts come here. With one worker the work is done
in this process, which starts faster, unless a journal says that an earlier process died or was
stopped on one of the shards: then it is done under supervision.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from byname import errors as byname_errors
from byname.errors import BynameError, RunError
from byname.runs.disk import disk_errors, is_locked
from byname.runs.events import Advance, Done, Heard
from byname.runs.hired import Hired, Told
from byname.runs.job import Job, Worker, processors
from byname.runs.parts import part_paths, read_mark
from byname.runs.stop import Stopped
from byname.runs.troubles import Case, blame

__all__ = ["run_local"]

STARTS = 3  # workers that die before they are ready, one after the other
LEAST_SILENCE = 120.0
TICK = 0.2
AWAY = 5.0  # seconds between two ticks after which this process was stopped itself
LOOK = 2.0  # seconds between two looks at a shard that another run works on


def run_local(
    job: Job,
    todo: Sequence[int],
    *,
    workers: int = 1,
    heard: Heard = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
    command: Sequence[str] | None = None,
) -> None:
    """Make the parts of these shards on this machine.

    Parameters
    ----------
    job : Job
    todo : sequence of int
        Shards, in the order in which they are handed out.
    workers : int
        Processes.
    heard : callable
        Called in this thread with an :data:`byname.runs.events.Event`.
    stop : callable
        Where it says yes, the batches in hand are finished and put on disk, and no more is begun.
    command : sequence of str, optional
        Starts a worker; for tests.

    Raises
    ------
    Stopped
        Where ``stop`` ended it.
    OutputError
        Where the disk is full, or the run folder cannot be written to.
    RunError
        Where workers cannot start, or die with whatever they get.
    """
    folder = Path(job.folder)
    if not todo:
        return
    supervised = workers > 1 or command is not None
    if not supervised and not any(part_paths(folder, i)[2].exists() for i in todo):
        with disk_errors(folder):
            _run_here(job, todo, heard, stop)
        return
    share = job.threads or max(1, processors() // workers)
    pool = _Pool(replace(job, threads=share), todo, workers, heard, stop, command)
    with disk_errors(folder):
        pool.run()


def _run_here(job: Job, todo: Sequence[int], heard: Heard, stop: Callable[[], bool]) -> None:
    worker = Worker(job)
    # what another run works on now comes last: by then it may be done
    locked = [index for index in todo if is_locked(Path(job.folder), index)]
    later = set(locked)
    for index in (*(i for i in todo if i not in later), *locked):
        if stop():
            raise Stopped
        heard(worker.run(index, progress=lambda n, new: heard(Advance(n, new)), stop=stop))


class _Pool:
    def __init__(
        self,
        job: Job,
        todo: Sequence[int],
        workers: int,
        heard: Heard,
        stop: Callable[[], bool],
        command: Sequence[str] | None,
    ) -> None:
        self.job, self.heard, self.stop, self.command = job, heard, stop, command
        self.folder, self.most = Path(job.folder), min(workers, len(todo))
        self.silence = max(2 * job.file_timeout, LEAST_SILENCE)
        self.waiting, self.left = deque(todo), set(todo)
        self.cases = {index: Case(self.folder, index) for index in todo}
        self.blocked: dict[int, tuple[float, Told | None]] = {}
        self.hired: list[Hired] = []
        self.lines: queue.SimpleQueue[tuple[Hired, Told | None]] = queue.SimpleQueue()
        self.failed_starts = self.encoded = 0
        self.ending = False
        self.error: BynameError | None = None

    def run(self) -> None:
        """Until all is done, or it is told to stop, or an error ends it."""
        try:
            before = time.monotonic()
            while self.left and not (self.ending and not self._busy()):
                if not self.ending and self.stop():
                    self._end()
                if not self.ending:
                    self._hand_out()
                self._hear()
                now = time.monotonic()
                if now - before > AWAY:  # Ctrl-Z, a sleeping machine: nobody can have been heard
                    for one in self.hired:
                        one.heard_at = now
                before = now
                self._watch(now)
        finally:
            for one in self.hired:  # all at once: each may take a moment
                one.dismiss()
            for one in self.hired:
                one.close()
        if self.error is not None:
            raise self.error
        if self.left:
            raise Stopped

    def _busy(self) -> bool:
        return any(one.index is not None for one in self.hired)

    def _end(self, error: BynameError | None = None) -> None:
        self.error = self.error or error
        if not self.ending:
            self.ending = True
            for one in self.hired:
                one.say({"stop": True})

    def _hand_out(self) -> None:
        idle = [one for one in self.hired if one.ready and one.index is None]
        while idle and (index := self._next()) is not None:
            one = idle.pop()
            one.index = index
            one.say(self.cases[index].begin())
        while len(self.hired) < self.most and len(self.hired) - len(idle) < len(self.left):
            self.hired.append(Hired(self.job, self.lines, self.command))

    def _next(self) -> int | None:
        """A shard that no other run works on, if there is one."""
        now = time.monotonic()
        for index in tuple(self.waiting):
            until, before = self.blocked.get(index, (0.0, None))
            if until > now:
                continue
            if is_locked(self.folder, index):
                if index not in self.blocked:
                    before = read_mark(self.folder, index)
                self.blocked[index] = now + LOOK, before
                continue
            self.waiting.remove(index)
            told = read_mark(self.folder, index) if index in self.blocked else None
            if told and told != before:  # else it was only looked at, and is as it was
                rows = int(told.get("rows", 0))
                self.heard(Advance(self.cases[index].advance(rows), False))
                self._done(Done(index, rows, int(told.get("errors", 0)), 0.0))
                continue
            return index
        return None

    def _hear(self) -> None:
        wait = TICK
        while True:
            try:
                one, told = self.lines.get(timeout=wait)
            except queue.Empty:
                return
            wait = 0.0
            if one not in self.hired:
                continue
            if told is None:
                self._gone(one)
            else:
                one.heard_at = time.monotonic()
                self._told(one, told)
            if self.waiting and not self.ending:
                return  # somebody may be idle now

    def _told(self, one: Hired, told: Told) -> None:
        if "advance" in told and one.index is not None:
            images, encoded = told["advance"]
            self.encoded += images if encoded else 0
            news = self.cases[one.index].advance(images)
            if news:
                self.heard(Advance(news, encoded))
        elif "ready" in told:
            one.ready, self.failed_starts = True, 0
        elif "done" in told:
            one.index = None
            self._done(Done(**told["done"]))
        elif "stopped" in told:
            self._return(one)
        elif "error" in told:
            kind, asked, seen, do = told["error"]
            raised = getattr(byname_errors, kind, RunError)
            self._return(one)
            self._end(raised(asked, seen, do))

    def _done(self, done: Done) -> None:
        self.cases.pop(done.index).close()
        self.left.discard(done.index)
        self.heard(done)

    def _return(self, one: Hired) -> None:
        """A shard that was not finished goes back to the front."""
        if one.index is not None:
            self.waiting.appendleft(one.index)
            one.index = None

    def _gone(self, one: Hired) -> None:
        if not self.ending and self.stop():  # what it died of may be the signal that reached us
            self._end()
        self.hired.remove(one)
        one.close()
        index, why = one.index, one.why()
        self._return(one)
        if one.told_to_stop and index is None:
            return
        if index is None:
            self._failed_start(one, why)
            return
        try:
            note = blame(self.cases, index, why, self.encoded, self.folder)
        except RunError as error:
            self._end(error)
            return
        if note is None:
            self._end(self._cannot("encode", f"the encoder dies with every image ({why})", one))
        else:
            self.heard(note)

    def _failed_start(self, one: Hired, why: str) -> None:
        self.failed_starts += 1
        if self.failed_starts >= STARTS and not self.ending:
            seen = f"{STARTS} of them died while they loaded the encoder ({why})"
            self._end(self._cannot("start workers", seen, one))

    def _cannot(self, what: str, seen: str, one: Hired) -> RunError:
        last = one.last_words()
        do = "Try fewer workers, and look whether memory suffices."
        told = f"{seen}; its last words: {last}" if last else seen
        return RunError(f"{what} for the run '{self.folder}'", told, do)

    def _watch(self, now: float) -> None:
        for one in self.hired:
            if now - one.heard_at > self.silence:
                one.kill(f"no sign of life for {self.silence:.0f} s")
