"""Starts a command, kills it or one of its workers at random, starts it again, compares the end.

A command runs in a process group of its own, so that a kill takes all of it at once, as a power
cut or the system's out-of-memory killer would.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.inject import COUNT, prepare

__all__ = [
    "Attempt",
    "Chaos",
    "Pace",
    "Verdict",
    "byname",
    "compare",
    "descendants",
    "kept_rows",
    "worlds_env",
]


def byname(*arguments: object) -> list[str]:
    """The command line as a list."""
    return [sys.executable, "-m", "byname", *map(str, arguments)]


def worlds_env(place: Path, **more: object) -> dict[str, str]:
    """Variables of a run in ``place``: its own cache, one thread, faults made possible."""
    own = {"BYNAME_CACHE": place / "cache", COUNT: place / "count.txt", "HF_HUB_OFFLINE": 1}
    own |= {"OMP_NUM_THREADS": 1, "PYTHONDONTWRITEBYTECODE": 1}
    told = {key: str(value) for key, value in (own | more).items()}
    return {**os.environ, **told, **prepare(place / "inject")}


def descendants(pid: int) -> list[tuple[int, str]]:
    """Processes below this one with their command lines; the deepest last."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if fields[0] != "Z":
                parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        for child in parents.get(waiting.pop(0), []):
            waiting.append(child)
            try:
                line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ")
            except OSError:
                continue
            found.append((child, line.decode("utf-8", "replace").strip()))
    return found


@dataclass(frozen=True)
class Attempt:
    """One start of the command. ``code`` is negative where a signal ended it."""

    seconds: float
    code: int
    kills: int
    batches: tuple[tuple[int, float], ...]
    error: str

    @property
    def encoded(self) -> int:
        """Images that it encoded, whether they were kept or not."""
        return sum(images for images, _ in self.batches)

    @property
    def ready(self) -> float | None:
        """Seconds until its first batch was encoded."""
        return self.batches[0][1] if self.batches else None


def is_worker(command: str) -> bool:
    """A worker of the local engine, or an actor of Ray."""
    # Not any 'ray::': with one of its agents, a whole node of Ray dies.
    return command.startswith("ray::Shards") or "byname.runs.child" in command


@dataclass
class Chaos:
    """A command that is killed.

    Parameters
    ----------
    command : list of str
    env : mapping
        As of :func:`worlds_env`.
    seed : int
        Of the moments.
    """

    command: Sequence[str]
    env: Mapping[str, str]
    seed: int = 0
    attempts: list[Attempt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def attempt(
        self,
        life: float | None = None,
        *,
        amid: bool = False,
        gaps: Iterable[float] = (),
        most: int = 1000,
        timeout: float = 3600,
    ) -> Attempt:
        """Start it; kill all of it after ``life`` seconds, and one worker after each of the gaps.

        No more workers are killed than ``most``. With ``amid``, ``life`` and ``gaps`` count from
        the first batch on.
        """
        seen, start, killed = self._lines(), time.time(), 0
        counter = Path(self.env[COUNT])
        before = counter.stat().st_size if counter.exists() else 0
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                list(self.command),
                env=dict(self.env),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            try:
                until = time.time() + timeout
                while amid and not _ended(process, 0.005) and time.time() < until:
                    amid = not (counter.exists() and counter.stat().st_size > before)
                begun = time.time()
                for gap in gaps:
                    if killed >= most or _ended(process, gap):
                        break
                    working = {int(pid) for _, _, pid in self._lines()[len(seen) :]}
                    killed += self._kill_worker(process.pid, working)
                wait = timeout if life is None else max(0.0, life - (time.time() - begun))
                if not _ended(process, wait):
                    if life is None:
                        raise AssertionError(f"it hangs: {' '.join(self.command)}")
                    killed += 1
            finally:
                _kill_all(process)
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace")
        lines = self._lines()[len(seen) :]
        batches = tuple((int(n), float(when) - start) for n, when, _ in lines)
        found = Attempt(time.time() - start, process.wait(), killed, batches, said)
        self.attempts.append(found)
        return found

    def until_done(self, lives: Iterator[tuple[float, bool]]) -> Attempt:
        """Kill it after each of the lives, as of :meth:`Pace.life`; then let it end."""
        for life, amid in lives:
            found = self.attempt(life, amid=amid)
            if found.kills == 0:
                break
        else:
            found = self.attempt()
        assert found.code == 0, f"it ended with {found.code}: {found.error}"
        return found

    @property
    def kills(self) -> int:
        """Kills that hit."""
        return sum(a.kills for a in self.attempts)

    @property
    def encoded(self) -> int:
        """Images encoded in all attempts."""
        return sum(a.encoded for a in self.attempts)

    def _kill_worker(self, pid: int, working: set[int]) -> int:
        """Kill one of those that have encoded something; not one that is just starting."""
        workers = [child for child, command in descendants(pid) if is_worker(command)]
        found = sorted(working.intersection(workers))
        if not found:
            return 0
        try:
            os.kill(self.rng.choice(found), signal.SIGKILL)
        except ProcessLookupError:
            return 0
        return 1

    def _lines(self) -> list[list[str]]:
        path = Path(self.env[COUNT])
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [line.split() for line in text.splitlines()]


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """The group, and what has left it but is still below the command."""
    below = [pid for pid, _ in descendants(process.pid)] if process.poll() is None else []
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@dataclass
class Pace:
    """How long the next attempt may live, so that so many kills are spread over the whole run.

    ``start``, ``work`` and ``tail`` are the seconds of an uninterrupted run before the first batch,
    until the last one, and after it.
    """

    images: int
    start: float
    work: float
    tail: float

    @classmethod
    def of(cls, whole: Attempt) -> Pace:
        """From an uninterrupted run."""
        first, last = whole.batches[0][1], whole.batches[-1][1]
        return cls(whole.encoded, first, max(last - first, 0.01), whole.seconds - last)

    def life(self, chaos: Chaos, left: int, kept: int) -> tuple[float, bool]:
        """Seconds, with ``left`` kills to come and ``kept`` images in complete parts.

        And whether they count from the first batch on.
        """
        seen = [a.ready for a in chaos.attempts[-9:] if a.ready is not None]
        start = median(seen) if seen else self.start
        if chaos.rng.random() < 0.1:  # while it starts, or lists the files
            return chaos.rng.uniform(0.05, start), False
        if kept >= self.images:  # while it looks at the parts, merges and writes
            return chaos.rng.uniform(0.8 * start, start + 0.8 * self.tail), False
        # 0.8: some kills are left for what comes behind the last batch
        todo = self.work * (1 - kept / self.images)
        return chaos.rng.uniform(0, min(2 * todo / max(0.8 * left, 1), todo)), True


def kept_rows(folder: Path) -> int:
    """Images in the complete parts of all runs below a folder."""
    rows = 0
    for mark in folder.glob("**/part-*.json"):
        try:
            rows += int(json.loads(mark.read_bytes())["rows"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return rows


@dataclass(frozen=True)
class Verdict:
    """Two tables beside each other."""

    rows: int
    lost: int
    added: int
    doubled: int
    changed: int
    same_bytes: bool

    @property
    def identical(self) -> bool:
        """All rows, all bits, in the same order."""
        return not (self.lost or self.added or self.doubled or self.changed)


def compare(wanted: Path, found: Path) -> Verdict:
    """Tables of ``byname embed`` or ``byname merge``; floats are compared by their bits."""
    first, second = pq.read_table(wanted), pq.read_table(found)
    a, b = _rows(first), _rows(second)
    names = Counter(second["file_name"].to_pylist())
    changed = sum(a[key] != b[key] for key in a.keys() & b.keys())
    orders = [key for key in a if key in b], [key for key in b if key in a]
    changed += sum(one != other for one, other in zip(*orders, strict=True))
    return Verdict(
        len(second),
        len(a.keys() - b.keys()),
        len(b.keys() - a.keys()),
        sum(n - 1 for n in names.values()),
        changed,
        wanted.read_bytes() == found.read_bytes(),
    )


def _rows(table: pa.Table) -> dict[str, tuple[bytes, str | None]]:
    vectors = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = vectors.reshape(len(table), -1) if len(table) else vectors.reshape(0, 1)
    columns = zip(table["file_name"].to_pylist(), vectors, table["error"].to_pylist(), strict=True)
    return {name: (vector.tobytes(), error) for name, vector, error in columns}
