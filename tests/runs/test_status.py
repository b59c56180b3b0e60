"""How far a run is, and which shards are still to be made."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from byname.errors import RunError
from byname.images.sources import open_source
from byname.runs.create import create_run
from byname.runs.disk import is_locked, lock_path, say_bytes, sweep
from byname.runs.parts import part_paths
from byname.runs.plan import Plan
from byname.runs.shard import process_shard
from byname.runs.status import status_of
from byname.runs.todo import unfinished
from tests.helpers import FakeEncoder, make_photos

HOW = {"encoder": "fake", "precision": None}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Six shards of four: 0 and 1 complete, 2 begun; an error in 1."""
    photos = make_photos(tmp_path / "photos", 23)
    (photos / "0004a.jpg").write_bytes(b"")
    plan = create_run(open_source(photos), tmp_path / "run", FakeEncoder(), HOW, 4)
    for index in (0, 1):
        process_shard(plan, index, FakeEncoder(), batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        process_shard(plan, 2, FakeEncoder(stop_after=1), batch_size=2)
    return plan


def test_counts(plan: Plan) -> None:
    found = status_of(plan.folder)
    assert (found.shards, found.complete, found.begun, found.untouched) == (6, 2, 1, 3)
    assert (found.images, found.done, found.errors) == (24, 8, 1)
    assert (found.in_work, found.damaged, found.finished) == (0, (), False)
    assert found.reasons == {"empty file (# bytes)": 1}
    assert found.images_per_second is not None
    assert found.seconds_left == pytest.approx(16 / found.images_per_second)
    assert found.bytes == sum(p.stat().st_size for p in plan.folder.iterdir())
    assert json.loads(json.dumps(found.as_dict()))["finished"] is False


def test_a_shard_that_somebody_works_on(plan: Plan) -> None:
    with FileLock(lock_path(plan.folder, 3)):
        found = status_of(plan.folder)
        assert is_locked(plan.folder, 3)
    assert (found.in_work, found.working, found.untouched) == (1, (3,), 2)
    assert not is_locked(plan.folder, 3)
    assert status_of(plan.folder).in_work == 0


def test_locks_that_may_only_be_read(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another user's run folder; root may write anywhere, so it is refused here."""
    real = os.open

    def refuse(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if str(path).endswith(".lock") and flags & (os.O_RDWR | os.O_WRONLY):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, flags, *rest, **options)

    with FileLock(lock_path(plan.folder, 3)):
        monkeypatch.setattr(os, "open", refuse)
        found = status_of(plan.folder)
        monkeypatch.undo()
    assert (found.in_work, found.begun) == (1 if sys.platform != "win32" else 0, 1)
    assert not is_locked(plan.folder, 3)


@pytest.mark.parametrize(
    ("change", "damaged"),
    [
        ({"rows": 10**30}, True),
        ({"rows": 3}, True),
        ({"errors": 5}, True),
        ({"encoded": "x"}, False),
        ({"encoded": None}, False),
        ({"encoded": float("inf")}, False),
        ({"encoded": -(10**9)}, False),
        ({"ended": float("nan")}, False),
        ({"ended": 4e9}, False),
        ({"seconds": {"total": float("inf")}}, False),
        ({"seconds": [1]}, False),
        ({"reasons": [1]}, False),
        ({"reasons": {"a": -3, "b": True, "c": "x"}}, False),
    ],
)
def test_marks_that_say_anything(plan: Plan, change: dict[str, Any], damaged: bool) -> None:
    mark = part_paths(plan.folder, 0)[1]
    mark.write_text(json.dumps(json.loads(mark.read_bytes()) | change))
    found = status_of(plan.folder)
    assert found.damaged == ((0,) if damaged else ())
    assert unfinished(plan).damaged == found.damaged
    assert found.done <= 8
    assert found.reasons == {"empty file (# bytes)": 1}
    assert found.images_per_second is not None
    assert 0 < found.images_per_second < 1e9


def test_complete(plan: Plan) -> None:
    for index in range(6):
        process_shard(plan, index, FakeEncoder())
    found = status_of(plan.folder, check=True)
    assert (found.finished, found.complete, found.done, found.checked) == (True, 6, 24, True)
    assert found.seconds_left == 0


@pytest.mark.parametrize(
    ("kind", "seen_without_check"),
    [
        ("part gone", True),
        ("part cut", True),
        ("mark cut", True),
        ("mark foreign", True),
        ("mark without counts", True),
        ("other weights", True),
        ("bits", False),
        ("other inputs", False),
    ],
)
def test_damage_is_seen_and_made_again(plan: Plan, kind: str, seen_without_check: bool) -> None:
    part, mark, _ = part_paths(plan.folder, 1)
    told = json.loads(mark.read_text())
    if kind == "part gone":
        part.unlink()
    elif kind == "part cut":
        part.write_bytes(part.read_bytes()[:-5])
    elif kind == "mark cut":
        mark.write_text(mark.read_text()[:30])
    elif kind == "mark foreign":
        mark.write_text("[1, 2]")
    elif kind == "mark without counts":
        mark.write_text(json.dumps({k: v for k, v in told.items() if k != "rows"}))
    elif kind == "other weights":
        mark.write_text(json.dumps(told | {"fingerprint": "0" * 32}))
    elif kind == "bits":
        data = bytearray(part.read_bytes())
        data[len(data) // 2] ^= 1
        part.write_bytes(data)
    else:
        mark.write_text(json.dumps(told | {"inputs": "0" * 64}))
    assert status_of(plan.folder).damaged == ((1,) if seen_without_check else ())
    assert status_of(plan.folder, check=True).damaged == (1,)
    todo = unfinished(plan)
    assert (todo.shards, todo.damaged) == ((1, 2, 3, 4, 5), (1,))
    process_shard(plan, 1, FakeEncoder(), batch_size=2)
    assert unfinished(plan).shards == (2, 3, 4, 5)


def test_what_is_to_do(plan: Plan) -> None:
    todo = unfinished(plan)
    assert (todo.shards, todo.done, todo.errors, todo.damaged) == ((2, 3, 4, 5), 8, 1, ())
    assert unfinished(plan, retry_errors=True).shards == (1, 2, 3, 4, 5)
    assert unfinished(plan, [5, 0, 5]).shards == (5,)
    assert unfinished(plan, check=False) == todo


def test_the_pace_is_that_of_the_time_at_work(plan: Plan) -> None:
    """Two workers side by side, then a pause of a day: four images a second each."""
    for index, ended in ((0, 1_000_001.0), (1, 1_000_001.0)):
        mark = part_paths(plan.folder, index)[1]
        told = json.loads(mark.read_text())
        told |= {"ended": ended, "seconds": {"total": 1.0}, "encoded": 4}
        mark.write_text(json.dumps(told))
    assert status_of(plan.folder).images_per_second == pytest.approx(8.0)
    told["ended"] += 86_400
    mark.write_text(json.dumps(told))
    assert status_of(plan.folder).images_per_second == pytest.approx(4.0)


def test_remains_of_the_dead_are_swept_and_the_living_kept(plan: Plan) -> None:
    dead = [
        ".part-00003.parquet.0123456789ab.tmp",
        ".part-00003.json.0123456789ab.tmp",
        "part-00004.journal.new",
        "part-00004.inhand",
    ]
    living = [
        ".part-00005.parquet.0123456789ab.tmp",
        "part-00005.journal.new",
        "part-00005.inhand",
    ]
    others = [".part-00003.parquet.tmp", "notes.tmp", "part-00002.journal"]
    for name in [*dead, *living, *others[:2]]:
        (plan.folder / name).write_bytes(b"12345")
    with FileLock(lock_path(plan.folder, 5)):
        assert sweep(plan.folder) == 20
    left = {p.name for p in plan.folder.iterdir()}
    assert not left & set(dead)
    assert left >= {*living, *others}


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no plan\.json in it"):
        status_of(tmp_path)
    assert sweep(tmp_path / "none") == 0


def test_sizes_in_words() -> None:
    assert [say_bytes(n) for n in (0, 999, 1000, 1_500_000, 2e9, 3e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.5 MB",
        "2.0 GB",
        "3.0 TB",
    ]
