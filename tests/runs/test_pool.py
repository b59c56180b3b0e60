"""Workers that die, hang or cannot start: the same parts in the end, or one clear error."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from byname.errors import EncoderError, OutputError, RunError
from byname.runs import parts, pool
from byname.runs.disk import lock_path
from byname.runs.events import Done, Event
from byname.runs.job import Worker
from byname.runs.merge import merge_run
from byname.runs.plan import Plan
from byname.runs.pool import run_local
from byname.runs.stop import Stopped
from byname.runs.todo import unfinished
from tests.encoders import tiny
from tests.runs.folders import Heard, N, child, job_of, make_base, parts_of, planned

pytest.importorskip("onnx", reason="makes a tiny encoder with the package onnx")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def wanted(base: Path) -> list[bytes]:
    """What an undisturbed run gives."""
    plan = planned(base, "wanted")
    heard = Heard()
    run_local(job_of(plan), range(plan.n_shards), heard=heard)
    assert (heard.images, heard.encoded, heard.done) == (N, N - 2, [0, 1, 2])
    return parts_of(plan)


def run(
    plan: Plan, how: str = "", *, workers: int = 2, stop: Callable[[], bool] = lambda: False
) -> Heard:
    heard = Heard()
    command = child(how, plan.folder / "sign") if how else None
    todo = unfinished(plan).shards
    run_local(job_of(plan), todo, workers=workers, heard=heard, stop=stop, command=command)
    return heard


def left_over(plan: Plan) -> list[str]:
    ends = (".journal", ".new", ".tmp", ".inhand")
    return [path.name for path in plan.folder.iterdir() if path.name.endswith(ends)]


def test_several_workers_give_the_same_parts(base: Path, wanted: list[bytes]) -> None:
    plan = planned(base, "several")
    heard = run(plan, workers=2)
    assert parts_of(plan) == wanted
    assert (heard.images, heard.encoded, heard.done, heard.notes) == (N, N - 2, [0, 1, 2], [])
    assert unfinished(plan).shards == ()
    assert left_over(plan) == []


def test_a_worker_that_is_killed_is_replaced(base: Path, wanted: list[bytes]) -> None:
    plan = planned(base, "killed")
    heard = run(plan, "once")
    assert parts_of(plan) == wanted
    assert heard.images == N  # what was done twice, or known, is told once
    assert len(heard.notes) == 1
    assert heard.notes[0].endswith("(signal 9); it is tried again")


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced(
    base: Path, wanted: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "LEAST_SILENCE", 5.0)
    plan, heard = planned(base, "hangs"), Heard()
    job = replace(job_of(plan), file_timeout=1.0)
    command = child("stuck", plan.folder / "sign")
    run_local(job, range(plan.n_shards), workers=1, heard=heard, command=command)
    assert parts_of(plan) == wanted
    assert [note for note in heard.notes if "no sign of life for 5 s" in note]


@pytest.mark.slow
def test_a_file_that_kills_is_found_and_given_up(tmp_path: Path) -> None:
    base = make_base(tmp_path)
    for name in ("0006.png", "0009.png"):
        with (base / "photos" / name).open("ab") as file:
            file.write(b"KILL")
    plan = planned(base)
    heard = run(plan, "read", workers=1)
    assert heard.done == [0, 1, 2]
    assert heard.images == N
    found = merge_run(plan.folder, tmp_path / "m.parquet")
    reason = "the process died while reading it (signal 11)"
    assert {k: v for k, v in found.errors.items() if k.startswith("000") and k != "0004a.jpg"} == {
        "0006.png": reason,
        "0009.png": reason,
    }
    assert len(found.errors) == 4
    assert f"'0006.png' is given up: {reason}" in heard.notes
    assert left_over(plan) == []


@pytest.mark.slow
def test_a_batch_that_kills_is_encoded_one_by_one(base: Path) -> None:
    plan = planned(base, "batch")
    heard = run(plan, "batch", workers=1)
    assert heard.done == [0, 1, 2]
    assert not [note for note in heard.notes if "given up" in note]
    assert unfinished(plan).errors == 2


def test_workers_that_cannot_start_are_one_error(base: Path) -> None:
    plan = planned(base, "start")
    with pytest.raises(RunError) as caught:
        run(plan, "start")
    assert "3 of them died while they loaded the encoder (exit code 5)" in str(caught.value)
    assert "no room for the weights" in str(caught.value)


@pytest.mark.slow
def test_an_encoder_that_always_dies_is_one_error(base: Path) -> None:
    plan = planned(base, "always")
    with pytest.raises(RunError, match=r"the encoder dies with every image \(exit code 9\)"):
        run(plan, "always", workers=1)
    assert unfinished(plan).shards == (0, 1, 2)


def test_a_bug_in_a_worker_is_one_error(base: Path) -> None:
    plan = planned(base, "bug")
    with pytest.raises(RunError, match=r"cannot make shard \d of .*: KeyError: 'what'"):
        run(plan, "bug", workers=1)


def test_an_encoder_that_is_gone_is_the_users_error(tmp_path: Path) -> None:
    plan = planned(make_base(tmp_path))
    (tmp_path / "encoder" / "visual.onnx").unlink()
    for workers in (1, 2):
        with pytest.raises(EncoderError, match=r"visual\.onnx|encoder"):
            run(plan, workers=workers)


def test_other_weights_than_planned_are_refused(tmp_path: Path) -> None:
    plan = planned(make_base(tmp_path))
    (tmp_path / "encoder" / "visual.onnx").write_bytes(tiny.visual(scale=2.0))
    with pytest.raises(RunError, match="planned with other weights"):
        run(plan, workers=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_stop_keeps_what_is_done_and_goes_on(base: Path, wanted: list[bytes], workers: int) -> None:
    plan, heard = planned(base, f"stop{workers}"), Heard()
    command = child("slow", plan.folder / "sign")
    with pytest.raises(Stopped):
        run_local(
            job_of(plan),
            range(plan.n_shards),
            workers=workers,
            heard=heard,
            stop=lambda: heard.images > 0,
            command=command,
        )
    assert 0 < heard.images < N
    before = heard.images
    again = run(plan)  # of shards that were begun, supervised
    assert parts_of(plan) == wanted
    assert again.encoded <= N - 2 - before + 2  # errors are tried again
    assert left_over(plan) == []


def test_a_run_folder_that_was_moved_is_one_error(base: Path) -> None:
    plan = planned(base, "before")
    worker = Worker(job_of(plan))
    moved = plan.folder.rename(base / "moved")
    with pytest.raises(RunError, match="its folder is gone, or was moved"):
        worker.run(0)
    assert not plan.folder.exists()
    assert Worker(replace(worker.job, folder=str(moved))).run(0).index == 0


def test_a_plan_without_an_encoder_is_one_error(base: Path) -> None:
    plan = planned(base, "nameless")
    told = json.loads((plan.folder / "plan.json").read_bytes())
    (plan.folder / "plan.json").write_text(json.dumps(told | {"how": None}))
    with pytest.raises(RunError, match="does not say how to load the encoder"):
        run(plan, workers=1)


def test_stop_in_this_process(base: Path, wanted: list[bytes]) -> None:
    plan, heard = planned(base, "here"), Heard()
    with pytest.raises(Stopped):
        run_local(job_of(plan), range(3), heard=heard, stop=lambda: heard.encoded >= 4)
    assert heard.encoded < N - 2
    assert run(plan, workers=1).encoded + heard.encoded == N - 2
    assert parts_of(plan) == wanted


PARENT = """
import sys
from byname.runs.pool import run_local
from tests.runs.folders import child, job_of
from byname.runs.plan import Plan
from pathlib import Path
plan = Plan.open(sys.argv[1])
command = child("slow", plan.folder / "sign")
run_local(job_of(plan), range(3), workers=2, heard=lambda e: print(e, flush=True), command=command)
"""


@pytest.mark.slow
def test_workers_end_with_their_parent(base: Path, wanted: list[bytes]) -> None:
    plan = planned(base, "parent")
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(plan.folder)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert b"Advance" in process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    # a shard is locked as long as a worker lives
    heard, began = run(plan, workers=1), time.monotonic()
    assert parts_of(plan) == wanted
    assert heard.images == N
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("workers", [1, 2])
def test_a_shard_that_another_run_works_on_comes_last(
    base: Path, wanted: list[bytes], workers: int
) -> None:
    plan, seen = planned(base, f"locked{workers}"), list[int]()
    lock = FileLock(lock_path(plan.folder, 0))
    lock.acquire()

    def heard(event: Event) -> None:
        if isinstance(event, Done):
            seen.append(event.index)
            if len(seen) == 2:
                lock.release()

    run_local(job_of(plan), range(3), workers=workers, heard=heard)
    assert seen[-1] == 0
    assert sorted(seen) == [0, 1, 2]
    assert parts_of(plan) == wanted


def test_a_shard_that_was_only_looked_at_is_still_made(
    base: Path, wanted: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """'byname status' holds its lock for a moment; its mark does not say that its part is whole."""
    plan = planned(base, "looked")
    run(plan)
    (plan.folder / "part-00001.parquet").write_bytes(b"damaged")
    looks, real = [True], pool.is_locked
    monkeypatch.setattr(pool, "is_locked", lambda *a: bool(looks and looks.pop()) or real(*a))
    monkeypatch.setattr(pool, "LOOK", 0.1)
    heard = run(plan)
    assert not looks
    assert heard.done == [1]
    assert parts_of(plan) == wanted


def test_a_full_disk_is_one_error_and_costs_nothing(
    base: Path, wanted: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, real, calls = planned(base, "full"), parts.Journal.append, []

    def append(self: parts.Journal, table: object) -> None:
        calls.append(1)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, table)

    with monkeypatch.context() as context:
        context.setattr(parts.Journal, "append", append)
        with pytest.raises(OutputError, match=r"the disk is full.* \([\d.]+ [kMGT]?B free\)"):
            run_local(job_of(plan), range(3))
    assert unfinished(plan).shards == (1, 2)
    assert [n for n in left_over(plan) if not n.endswith(".journal")] == []
    run(plan, workers=1)
    assert parts_of(plan) == wanted
