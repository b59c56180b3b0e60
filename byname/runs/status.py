"""How far a run is, from the marks of its parts; no vector is read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from byname.runs.disk import free_bytes, is_locked
from byname.runs.parts import read_mark
from byname.runs.plan import Plan
from byname.runs.todo import is_sound

__all__ = ["Status", "status_of"]

REASONS = 10
_PART = re.compile(r"part-(\d{5,})\.(json|lock|journal)", re.ASCII)


@dataclass(frozen=True)
class Status:
    """Counts of a run.

    Parameters
    ----------
    folder, encoder : str
    shards, complete, in_work, begun, untouched : int
        ``in_work``: a process holds it now; ``begun``: one did, and has left a journal.
    damaged : tuple of int
        Shards whose mark or part does not hold what it should; ``byname run`` makes them again.
    working : tuple of int
        Shards that a process holds now.
    images, done, errors : int
        Of all shards; and of those that are complete.
    reasons : dict of str to int
        The most frequent errors, with ``#`` for numbers.
    images_per_second : float or None
        While at least one worker was at work; None where nothing is complete.
    seconds_left : float or None
        At that pace, for the images that are not done.
    bytes, free_bytes : int or None
        Of the files in the run folder; and left on its disk.
    checked : bool
        Whether each part was read and compared with its checksum.
    """

    folder: str
    encoder: str
    shards: int
    complete: int
    in_work: int
    begun: int
    untouched: int
    damaged: tuple[int, ...]
    working: tuple[int, ...]
    images: int
    done: int
    errors: int
    reasons: dict[str, int] = field(default_factory=dict)
    images_per_second: float | None = None
    seconds_left: float | None = None
    bytes: int = 0
    free_bytes: int | None = None
    checked: bool = False

    @property
    def finished(self) -> bool:
        """Whether every shard is complete."""
        return self.complete == self.shards

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"finished": self.finished}


def status_of(folder: str | Path, *, check: bool = False) -> Status:
    """How far a run is.

    Parameters
    ----------
    folder : path
        A run folder.
    check : bool
        Read each part and compare its checksum, which takes as long as reading all vectors.

    Raises
    ------
    RunError
        Where there is no run.
    """
    plan = Plan.open(folder)
    seen, size = _files(plan.folder)
    marks, damaged, working, begun = {}, [], [], 0
    for index in range(plan.n_shards):
        kinds = seen.get(index, set())
        told = read_mark(plan.folder, index) if "json" in kinds else None
        if told is not None and is_sound(plan, index, told, check):
            marks[index] = told
        elif told is not None:
            damaged.append(index)
        if "lock" in kinds and index not in marks and is_locked(plan.folder, index):
            working.append(index)
        elif told is None and "journal" in kinds:
            begun += 1
    done = sum(told["rows"] for told in marks.values())
    reasons = Counter[str]()
    for told in marks.values():
        reasons.update(_counts(told.get("reasons")))
    rate = _rate(marks)
    images = len(plan.refs)
    at_work = len(set(working) - set(damaged))
    return Status(
        folder=str(plan.folder),
        encoder=plan.settings.encoder,
        shards=plan.n_shards,
        complete=len(marks),
        in_work=at_work,
        begun=begun,
        untouched=plan.n_shards - len(marks) - len(damaged) - at_work - begun,
        damaged=tuple(damaged),
        working=tuple(working),
        images=images,
        done=done,
        errors=sum(told["errors"] for told in marks.values()),
        reasons=dict(reasons.most_common(REASONS)),
        images_per_second=rate,
        seconds_left=(images - done) / rate if rate else None,
        bytes=size,
        free_bytes=free_bytes(plan.folder),
        checked=check,
    )


def _files(folder: Path) -> tuple[dict[int, set[str]], int]:
    """What there is of each shard, in one look at the folder, and the bytes of all files."""
    seen: dict[int, set[str]] = {}
    size = 0
    for path in folder.iterdir():
        try:
            size += path.stat().st_size
        except OSError:  # it has just been renamed
            continue
        found = _PART.fullmatch(path.name)
        if found is not None:
            seen.setdefault(int(found[1]), set()).add(found[2])
    return seen, size


def _counts(told: Any) -> dict[str, int]:
    if not isinstance(told, Mapping):
        return {}
    return {str(k): v for k, v in told.items() if type(v) is int and v > 0}


def _is_number(told: Any) -> TypeGuard[float]:
    """Whether it is one that can be reckoned with: marks are files, and files can say anything."""
    return isinstance(told, int | float) and 0 <= told < 1e12


def _rate(marks: Mapping[int, Mapping[str, Any]]) -> float | None:
    """Images a second of the time in which at least one shard was in work: pauses do not count."""
    spans, images = [], 0
    for told in marks.values():
        seconds, ended = told.get("seconds"), told.get("ended")
        took = seconds.get("total") if isinstance(seconds, Mapping) else seconds
        encoded = told.get("encoded", told["rows"])
        if _is_number(took) and _is_number(ended) and _is_number(encoded):
            spans.append((ended - took, ended))
            images += min(encoded, told["rows"])
    busy, until = 0.0, 0.0
    for begin, end in sorted(spans):
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    return images / busy if busy > 0 and images else None
