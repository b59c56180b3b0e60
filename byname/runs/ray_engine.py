"""The Ray engine: actors on one machine or many, each with the encoder loaded once.

The driver hands out one shard at a time to each actor, so no more than one a worker is on its way.
No vector travels: an actor reads, decodes, encodes and writes parts to the run folder, which all
nodes must see, and tells only how far it is. What an actor that dies has finished is in the shard's
journal; another actor goes on from there. What crosses the wire is made here, never read from a
file: a :class:`byname.runs.job.Job`, numbers and short texts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from byname import __version__, errors
from byname.errors import BynameError, RunError
from byname.runs.events import Advance, Done, Heard, Note
from byname.runs.job import Job, processors
from byname.runs.parts import part_paths
from byname.runs.plan import Plan
from byname.runs.pool import AWAY, LEAST_SILENCE, STARTS
from byname.runs.ray_actor import SHARE, Far, Outcome, Shards, sha256_of
from byname.runs.ray_cluster import LOCAL, address_of, connected, import_ray
from byname.runs.stop import Stopped
from byname.runs.troubles import Case, blame

__all__ = ["run_ray"]

PAUSE = 0.2  # seconds between two reports of an actor, and between two looks at ``stop``
NO_ROOM = 900.0  # seconds to wait for a first actor; a cluster that grows needs minutes
UNSEEN = 90.0  # seconds that a network drive may take to show what another node has written
LAST_BATCH = 60.0  # seconds for it at a stop, beyond the time limit of a file


def run_ray(
    job: Job,
    todo: Sequence[int],
    *,
    workers: int = 1,
    heard: Heard = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
    address: str | None = None,
    gpus: float = 0.0,
    cpus: float = 1.0,
) -> None:
    """Make the parts of these shards with actors of Ray.

    Parameters
    ----------
    job : Job
        ``folder`` must be on storage that all nodes see under the same path. Without ``threads``
        an encoder has its share of this machine or, on another cluster, what ``cpus`` says.
    todo : sequence of int
        Shards, in the order in which they are handed out.
    workers : int
        Actors; fewer work where the cluster has no room for all.
    heard : callable
        Called in this thread with an :data:`byname.runs.events.Event`.
    stop : callable
        Where it says yes, the batches in hand are finished and put on disk, and no more is begun.
    address : str, optional
        Of a running cluster, or ``RAY_ADDRESS``; else one is started here, and ended with the run.
    gpus, cpus : float
        What Ray reserves for each actor. With 0 it sees no GPU; an encoder on ``cuda`` gets one.

    Raises
    ------
    Stopped
        Where ``stop`` ended it.
    UsageError
        Where Ray is not installed.
    OutputError
        Where the disk is full, or the run folder cannot be written to.
    RunError
        Where there is no such cluster or no room in it, a node does not see the run folder, or
        workers die with whatever they get.

    Examples
    --------
    >>> run_ray(Job("no/such/run"), [])
    """
    if not todo:
        return
    if gpus == 0 and job.device.startswith("cuda"):
        gpus = 1.0
    Plan.open(job.folder)  # what is wrong with it is said before anything starts
    ray, address = import_ray(), address_of(address)
    workers = max(1, min(workers, len(todo)))
    own = address == LOCAL and not ray.is_initialized()
    threads = job.threads or max(1, processors() // workers if own else int(cpus))
    # a worker has a working folder of its own
    job = replace(job, folder=str(Path(job.folder).absolute()), threads=threads)
    with connected(ray, address, ceil(workers * cpus), gpus):
        _Fleet(ray, job, todo, workers, heard, stop, {"CPUs": cpus, "GPUs": gpus}).run()


@dataclass(eq=False)
class _Seat:
    """An actor, and what it is at. It is ``placed`` when it has said its first word."""

    actor: Any
    index: int | None = None
    placed: bool = False
    ready: bool = False
    heard_at: float = 0.0
    far: Far = (-1, 0, 0)


class _Fleet:
    """The driver: hires actors, hands out shards, hears, and replaces whoever dies."""

    def __init__(
        self,
        ray: Any,
        job: Job,
        todo: Sequence[int],
        workers: int,
        heard: Heard,
        stop: Callable[[], bool],
        needs: Mapping[str, float],
    ) -> None:
        self.ray, self.job, self.heard, self.stop, self.needs = ray, job, heard, stop, needs
        self.folder, self.most = Path(job.folder), workers
        self.plan_sha256 = sha256_of(self.folder / "plan.json")
        self.silence = max(2 * job.file_timeout, LEAST_SILENCE)
        self.waiting, self.left = deque(todo), set(todo)
        self.cases = {index: Case(self.folder, index) for index in todo}
        self.seats: list[_Seat] = []
        self.answers: dict[Any, tuple[_Seat, str]] = {}
        self.unseen: dict[int, float] = {}
        self.failed_starts = self.encoded = 0
        self.room_by, self.leave_by = time.monotonic() + NO_ROOM, float("inf")
        self.ending = False
        self.error: BynameError | None = None

    def run(self) -> None:
        """Until all is done, or it is told to stop, or an error ends it."""
        try:
            before = time.monotonic()
            while (self.left or self.unseen) and not (self.ending and self._ended()):
                if not self.ending:
                    if self.stop():
                        self._end()
                    self._hire()
                for answer in self._arrived():
                    if (of := self.answers.pop(answer, None)) is not None:
                        self._take(answer, *of)
                self._look_for_parts()
                before = self._watch(before, time.monotonic())
        finally:
            for seat in list(self.seats):
                self._dismiss(seat)
        if self.error is not None:
            raise self.error
        if self.left:
            raise Stopped

    def _ended(self) -> bool:
        return not self.seats or time.monotonic() > self.leave_by

    def _end(self, error: BynameError | None = None) -> None:
        """Let whoever has a shard finish the batch in hand; the others have nothing to finish."""
        self.error = self.error or error
        if self.ending:
            return
        self.ending = True
        self.leave_by = time.monotonic() + self.job.file_timeout + LAST_BATCH
        for seat in list(self.seats):
            if seat.index is None:
                self._dismiss(seat)
            else:
                self._ask(seat, "halt")

    def _hire(self) -> None:
        if self.ending:
            return
        busy = sum(seat.index is not None for seat in self.seats)
        for _ in range(len(self.seats), min(self.most, busy + len(self.waiting))):
            hired = self.ray.remote(
                num_cpus=self.needs["CPUs"],
                num_gpus=self.needs["GPUs"],
                max_restarts=0,  # a new one is told what it must be careful with
                concurrency_groups={"talk": 2},
                scheduling_strategy="SPREAD",
            )(Shards)
            seat = _Seat(hired.remote(self.job, self.plan_sha256, __version__))
            self.seats.append(seat)
            self._ask(seat, "load")
            self._ask(seat, "news", 0.0)

    def _ask(self, seat: _Seat, what: str, *arguments: Any) -> None:
        method = getattr(seat.actor, what)
        if what in ("news", "halt"):
            method = method.options(concurrency_group="talk")
        self.answers[method.remote(*arguments)] = (seat, what)

    def _dismiss(self, seat: _Seat) -> None:
        self.seats.remove(seat)
        self.answers = {answer: of for answer, of in self.answers.items() if of[0] is not seat}
        with suppress(self.ray.exceptions.RayError):
            self.ray.kill(seat.actor)

    def _arrived(self) -> list[Any]:
        """Answers that are there; waits a moment for the first."""
        if not self.answers:
            time.sleep(PAUSE)
            return []
        asked = list(self.answers)
        if self.ray.wait(asked, num_returns=1, timeout=PAUSE)[0]:
            return list(self.ray.wait(asked, num_returns=len(asked), timeout=0)[0])
        return []

    def _take(self, ref: Any, seat: _Seat, what: str) -> None:
        """One answer of an actor, or that there will be none."""
        try:
            answer = self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            if what in ("load", "work"):
                self._gone(seat, _why(error))
            return
        seat.heard_at = time.monotonic()
        if what == "news":
            seat.placed = True
            self._advance(seat, answer)
            self._ask(seat, "news", max(PAUSE, self.most / 500))
        elif what in ("load", "work"):
            self._answered(seat, answer)

    def _answered(self, seat: _Seat, answer: Outcome) -> None:
        index = seat.index
        if index is not None:
            self._advance(seat, answer[-1])
        match answer:
            case ("ready",):
                seat.ready, self.failed_starts = True, 0
            case ("memory", *_):
                self._gone(seat, "out of memory")
                return
            case ("done", rows, failed, seconds, _) if index is not None:
                seat.index = None
                self._done(Done(index, rows, failed, seconds))
            case ("refused", str(name), asked, seen, do, *_):
                self._return(seat)
                self._end(getattr(errors, name, RunError)(asked, seen, do))
            case _:
                self._return(seat)
        if seat not in self.seats:
            return
        if self.ending or not self.waiting:
            self._dismiss(seat)
            return
        seat.index, seat.far = self.waiting.popleft(), (-1, 0, 0)
        self._ask(seat, "work", self.cases[seat.index].begin())

    def _advance(self, seat: _Seat, far: Far) -> None:
        index, known, fresh = far
        if index < 0 or index != seat.index:
            return
        before = seat.far if seat.far[0] == index else (index, 0, 0)
        seat.far = far
        self.encoded += fresh - before[2]
        for images, encoded in ((known - before[1], False), (fresh - before[2], True)):
            if news := self.cases[index].advance(images):
                self.heard(Advance(news, encoded))

    def _done(self, done: Done) -> None:
        self.cases.pop(done.index).close()
        self.left.discard(done.index)
        self.unseen[done.index] = time.monotonic() + UNSEEN
        self.heard(done)

    def _return(self, seat: _Seat) -> None:
        """A shard that was not finished goes back to the front."""
        if seat.index is not None:
            self.waiting.appendleft(seat.index)
            seat.index = None

    def _gone(self, seat: _Seat, why: str) -> None:
        index = seat.index
        self._return(seat)
        self._dismiss(seat)
        if index is None:
            self._failed_start(why)
            return
        try:
            note = blame(self.cases, index, why, self.encoded, self.folder)
        except RunError as error:
            self._end(error)
            return
        if note is None:
            seen = f"the encoder dies with every image ({why})"
            self._end(RunError(self._asked(), seen, "Try it with --engine local."))
        else:
            self.heard(note)

    def _failed_start(self, why: str) -> None:
        """One bad node among many is no reason to end; if nobody can start, it is."""
        self.failed_starts += 1
        if self.ending or self.failed_starts < STARTS:
            return
        if any(seat.ready for seat in self.seats):
            self.most, self.failed_starts = len(self.seats), 0
            self.heard(Note(f"new workers die ({why}); {self.most} go on"))
            return
        seen = f"{STARTS} workers died while they loaded the encoder ({why})"
        do = "Look whether memory suffices, and whether byname is installed on all nodes."
        self._end(RunError(self._asked(), seen, do))

    def _watch(self, before: float, now: float) -> float:
        """Kill who has not been heard of for long, and see whether there is any room."""
        for seat in list(self.seats):
            if now - before > AWAY:  # Ctrl-Z, a sleeping machine: nobody can have been heard
                seat.heard_at = now
            if seat.placed and now - seat.heard_at > self.silence:
                self._gone(seat, f"no sign of life for {self.silence:.0f} s")
        if any(seat.placed for seat in self.seats):
            self.room_by = now + NO_ROOM
        elif not self.ending and self.seats and not any(n["Alive"] for n in self.ray.nodes()):
            do = "Start the same command again: it goes on where it ended."
            self._end(RunError(self._asked(), "Ray has ended, none of its nodes is alive", do))
        elif now > self.room_by and self.seats:
            wanted = " and ".join(f"{n:g} {name}" for name, n in self.needs.items() if n)
            seen = f"no node has had room for a worker with {wanted} for {NO_ROOM:.0f} s"
            self._end(RunError(self._asked(), seen, "Ask for less, or let the cluster grow."))
        return now

    def _look_for_parts(self) -> None:
        """What is done must be in the driver's folder too, not on some node's own disk."""
        for index, until in list(self.unseen.items()):
            if part_paths(self.folder, index)[1].exists():
                del self.unseen[index]
            elif time.monotonic() > until:
                del self.unseen[index]
                seen = f"the part of shard {index} is done, and is not to be seen in the run folder"
                self._end(RunError(self._asked(), seen, SHARE))

    def _asked(self) -> str:
        return f"work off the run '{self.folder}' with Ray"


def _why(error: Exception) -> str:
    """Why an actor does not answer, in a few words for the many that Ray makes."""
    text = str(error).strip()
    for sign, short in (
        ("low on memory", "out of memory"),
        ("worker process has died", "its process ended"),  # Ray does not say by which signal
        ("node", "its node is gone"),
    ):
        if sign in text:
            return short
    return text.splitlines()[-1].strip()[:200] if text else type(error).__name__
