"""SIGKILL at random moments: the same command goes on, and the table is the same in the end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from byname.runs.plan import Plan
from byname.runs.todo import unfinished
from tests.faults import world
from tests.faults.conftest import Runs
from tests.faults.harness import Attempt, Chaos, Pace, byname, compare, kept_rows, worlds_env

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc and SIGKILL"),
]
N = 300


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return world.links(tmp_path / "images", world.photos(tmp_path / "files", 40), N)


def slowly(images: Path) -> None:
    """Every tenth image takes a while, so that there is time to die in."""
    for path in sorted(images.rglob("*.jpg"))[::10]:
        data = path.resolve().read_bytes()
        path.unlink()
        path.write_bytes(data + b"FAULT:slow")


@pytest.mark.parametrize("cached", [True, False], ids=["cache", "no-cache"])
def test_embed_is_killed_again_and_again(
    tmp_path: Path, model: Path, images: Path, cached: bool
) -> None:
    slowly(images)
    more = [] if cached else ["--no-cache"]

    def embed(name: str) -> Chaos:
        command = byname("embed", images, "-e", f"onnx:{model}", "--batch-size", 8, "--quiet")
        place = tmp_path / name
        return Chaos([*command, "-o", f"{place}.parquet", *more], worlds_env(place), seed=7)

    whole = embed("whole").attempt()
    assert whole.code == 0, whole.error
    pace, chaos = Pace.of(whole), embed("killed")
    base = tmp_path / "killed" / "cache" / "runs"
    chaos.until_done(pace.life(chaos, 4 - i, kept_rows(base)) for i in range(4))
    verdict = compare(tmp_path / "whole.parquet", tmp_path / "killed.parquet")
    assert verdict.same_bytes
    assert (verdict.rows, verdict.lost, verdict.doubled) == (N, 0, 0)
    assert chaos.kills >= 3
    encoded = [a.encoded for a in chaos.attempts]
    assert sum(encoded) <= sum(a.encoded for a in [whole]) + chaos.kills * 4 * 8


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_is_killed_again_and_again(runs: Runs, images: Path, workers: int) -> None:
    slowly(images)
    whole = runs.plan(images, "whole")
    runs.go_on(whole)
    wanted = runs.merge(whole)
    run = runs.plan(images)
    command = byname("run", run, "--workers", workers, "--batch-size", 8, "--quiet")
    chaos = Chaos(command, worlds_env(runs.place), seed=workers)
    rows, lives = [], iter([1.0, 2.5, 3.0, 3.5, 2.0])
    for life in lives:
        if chaos.attempt(life).code == 0:
            break
        rows.append(kept_rows(run))
    chaos.until_done(iter(()))
    assert chaos.kills >= 3
    assert rows == sorted(rows), "what is complete stays"
    verdict = runs.compare(run, wanted)
    assert verdict.same_bytes
    assert (verdict.rows, verdict.doubled) == (N, 0)


def test_workers_are_killed_while_their_driver_lives(runs: Runs, images: Path) -> None:
    slowly(images)
    whole = runs.plan(images, "whole")
    runs.go_on(whole)
    run = runs.plan(images)
    command = byname("run", run, "--workers", 2, "--batch-size", 8)
    chaos = Chaos(command, worlds_env(runs.place), seed=3)
    rng = random.Random(0)
    found = chaos.attempt(gaps=(2.5 + rng.uniform(0, 1) for _ in range(4)), timeout=120)
    assert found.code == 0, found.error
    assert found.kills >= 2
    assert "a worker died on shard" in found.error
    assert "signal 9" in found.error
    assert runs.compare(run, runs.merge(whole)).same_bytes


def test_a_driver_that_is_killed_leaves_no_worker_behind(runs: Runs, images: Path) -> None:
    """The system's out-of-memory killer takes one process only, and not always the right one."""
    from tests.faults.harness import descendants

    slowly(images)
    whole = runs.plan(images, "whole")
    runs.go_on(whole)
    run = runs.plan(images)
    command = byname("run", run, "--workers", 2, "--batch-size", 8, "--quiet")
    driver = subprocess.Popen(command, env=worlds_env(runs.place), start_new_session=True)
    for _ in range(600):
        if list(run.glob("*.journal")):
            break
        time.sleep(0.05)
    workers = [pid for pid, _ in descendants(driver.pid)]
    assert len(workers) == 2
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    for _ in range(100):
        if not any(alive(pid) for pid in workers):
            break
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)
    Chaos(command, worlds_env(runs.place)).until_done(iter(()))
    assert runs.compare(run, runs.merge(whole)).same_bytes


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("same", [True, False], ids=["all shards", "own halves"])
def test_two_commands_on_one_run_at_once(runs: Runs, images: Path, same: bool) -> None:
    slowly(images)
    whole = runs.plan(images, "whole")
    runs.go_on(whole)
    run = runs.plan(images)
    env = worlds_env(runs.place)
    halves = [byname("run-shard", run, "0-4"), byname("run-shard", run, "3-9")]
    commands = [byname("run", run), byname("run", run, "--workers", 2)] if same else halves
    running = [
        subprocess.Popen([*c, "--quiet"], env=env, stderr=subprocess.PIPE, text=True)
        for c in commands
    ]
    for process in running:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    assert unfinished(Plan.open(run)).shards == ()
    assert runs.compare(run, runs.merge(whole)).same_bytes
    counted = Chaos(commands[0], env)._lines()
    assert sum(int(n) for n, *_ in counted) == N, "no image is encoded twice"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
@pytest.mark.parametrize("workers", [1, 2])
def test_signals_let_the_batch_in_hand_end(
    runs: Runs, images: Path, number: int, code: int, workers: int
) -> None:
    slowly(images)
    whole = runs.plan(images, "whole")
    runs.go_on(whole)
    run = runs.plan(images)
    env = worlds_env(runs.place)
    command = byname("run", run, "--workers", workers, "--batch-size", 8)
    found = signalled(command, env, run, number)
    assert found.code == code, found.error
    last = found.error.strip().splitlines()[-1]
    assert last.startswith("stopped; finished images are kept; go on: byname run "), found.error
    assert "Traceback" not in found.error
    assert unfinished(Plan.open(run)).shards
    chaos = Chaos([*command, "--quiet"], env)
    before = chaos._lines()
    assert chaos.attempt().code == 0
    assert sum(int(n) for n, *_ in before) + chaos.encoded == N, "nothing is encoded twice"
    assert runs.compare(run, runs.merge(whole)).same_bytes


def signalled(command: list[str], env: dict[str, str], run: Path, number: int) -> Attempt:
    """Send it a signal in the middle, as a terminal does: to all of its group."""
    process = subprocess.Popen(
        command, env=env, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    began = time.monotonic()
    for _ in range(1200):
        if list(run.glob("*.json")) != [run / "plan.json"]:
            break
        time.sleep(0.02)
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=60)
    return Attempt(time.monotonic() - began, process.returncode, 0, (), error)
