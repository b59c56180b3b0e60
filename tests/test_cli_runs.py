"""``byname plan``, ``run``, ``run-shard``, ``status`` and ``merge`` on photos."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from byname.commands_runs import shards_of
from byname.embeddings import Embeddings
from byname.errors import UsageError
from tests.commands import Result, Run
from tests.runs.folders import N, make_base

pytest.importorskip("onnx", reason="makes a tiny encoder with the package onnx")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(make_base(tmp_path))
    return tmp_path


def plan(run: Run, *options: object) -> Result:
    return run("plan", "photos", "r", "-e", "encoder", "--shard-size", 5, *options)


def test_from_images_to_one_file(run: Run, base: Path) -> None:
    planned = plan(run)
    assert planned.code == 0
    assert f"planned: {N} images in 5 shards of 5" in planned.err
    assert "the same plan is there already" in plan(run).err
    assert run("status", "r").code == 3
    done = run("run", "r", "--threads", 1)
    assert (done.code, done.out) == (0, "")
    assert f"{N} images in" in done.err
    assert f"{N - 2} encoded" in done.err
    assert "2 could not be read" in done.err
    told = run("status", "r", "--json", "--check")
    assert told.code == 0
    found = json.loads(told.out)
    assert (found["complete"], found["errors"], found["finished"]) == (5, 2, True)
    assert run("merge", "r", "-o", "m.parquet").code == 0
    assert run("embed", "photos", "-e", "encoder", "-o", "e.parquet", "-q").code == 0
    merged, embedded = Embeddings.load("m.parquet"), Embeddings.load("e.parquet")
    assert (merged.keys, merged.errors) == (embedded.keys, embedded.errors)
    assert np.allclose(merged.vectors, embedded.vectors, atol=1e-3)  # saved in float16
    assert (merged.fingerprint, merged.root) == (embedded.fingerprint, embedded.root)
    record = json.loads(Path("m.parquet.run.json").read_text())
    assert record["counts"] == {"images": N, "errors": 2}


def test_the_encoder_of_a_run_need_not_be_said_again(
    run: Run, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(run)
    assert run("run", "r").code == 0
    monkeypatch.setenv("BYNAME_ENCODER", "no-such-encoder")  # the vectors are not of this one
    found = run("classify", "r", "-c", "cat,dog", "-o", "rows.csv")
    assert found.code == 0, found.err
    assert len(Path("rows.csv").read_text().splitlines()) == N + 1
    found = run("diagnose", "r", "-c", "cat,dog", "-o", "report.json")
    assert found.code == 0, found.err
    refused = run("classify", "r", "-c", "cat,dog", "-e", "no-such-encoder")
    assert (refused.code, "no-such-encoder" in refused.err) == (2, True)


def test_what_is_complete_is_not_made_again(run: Run, base: Path) -> None:
    plan(run)
    assert run("run-shard", "r", "1", "3-4", "--threads", 1).code == 0
    told = run("status", "r")
    assert told.code == 3
    assert "3 of 5 complete" in told.out
    bad = json.loads(run("status", "r", "--json").out)["errors"]
    assert f" {10 - (2 - bad)} encoded" in run("run", "r", "--threads", 1).err
    again = run("run", "r")
    assert "encoded" not in again.err
    assert "vectors were known" in again.err


def test_errors_are_tried_again_where_that_is_asked(run: Run, base: Path) -> None:
    plan(run)
    assert "2 could not be read" in run("run", "r").err
    photo = (base / "photos" / "0000.png").read_bytes()
    (base / "photos" / "0004a.jpg").write_bytes(photo)
    assert "2 could not be read" in run("run", "r").err
    mended = run("run", "r", "--retry-errors").err
    assert "1 encoded" in mended
    assert "1 could not be read" in mended


def test_damaged_parts_are_made_again(run: Run, base: Path) -> None:
    plan(run)
    run("run", "r", "-q")
    part = base / "r" / "part-00002.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:100])
    assert run("merge", "r", "-o", "m.parquet").code == 2
    assert "1 part is damaged and made again (2)" in run("run", "r").err
    assert part.read_bytes() == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "none"), "there is no plan.json in it. Make it with 'byname plan IMAGES RUN'"),
        (("run", "photos"), "there is no plan.json in it"),
        (("run", "r", "--engine", "spark"), "'spark' is not one of local, ray"),
        (("run", "r", "--gpus", "0.5"), "--gpus and --cpus are for Ray, the engine is 'local'"),
        (("run", "r", "--engine", "ray", "--cpus", "1.5"), "--cpus is 1.5. Ray wants a part of"),
        (("run", "r", "--engine", "ray", "--gpus", "inf"), "--gpus is inf"),
        (("run-shard", "r", "5"), "its shards are 0 to 4. Slurm: --array=0-4"),
        (("run-shard", "r", "x"), "it is no number and no range"),
        (("run-shard", "r", "4-2"), "the range ends before it begins. Give 2-4."),
        (("run-shard", "r", "7", "--of", "7"), "tasks are counted from 0 to 6"),
        (("status", "none"), "there is no plan.json in it"),
        (("merge", "r", "-o", "m.csv"), "its ending is '.csv'"),
        (("merge", "r", "-o", "m.parquet"), "5 of 5 shards are not complete (0, 1, 2, 3, 4)"),
        (("plan", "photos", "photos", "-e", "encoder"), "there are other files in it"),
        (("plan", "photos", "r", "-e", "encoder"), "shard size: 5 there, 1024 now"),
        (("plan", "none", "s", "-e", "encoder"), "it does not exist"),
    ],
)
def test_errors_are_one_line(
    run: Run, base: Path, arguments: tuple[str, ...], message: str
) -> None:
    plan(run)
    done = run(*arguments)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_ray_that_is_not_installed(run: Run, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(run)
    monkeypatch.setitem(sys.modules, "ray", None)
    done = run("run", "r", "--engine", "ray")
    assert done.code == 2
    assert "pip install 'byname[ray]'" in done.err


def test_what_ray_is_to_reserve(run: Run, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(run)
    given: list[dict[str, object]] = []
    monkeypatch.setattr("byname.runs.ray_engine.run_ray", lambda *a, **how: given.append(how))
    for options in ((), ("--gpus", 0.5, "--cpus", 4)):
        run("run", "r", "--engine", "ray", *options)
    kept = [{k: v for k, v in how.items() if k in ("gpus", "cpus")} for how in given]
    assert kept == [{"gpus": 0.0, "cpus": 1.0}, {"gpus": 0.5, "cpus": 4.0}]


def test_tasks_share_all_shards() -> None:
    for count in (0, 1, 7, 20):
        shares = [shards_of([str(task)], 4, count) for task in range(4)]
        assert sorted(i for share in shares for i in share) == list(range(count))
    assert shards_of(["2", "0-3"], None, 9) == [0, 1, 2, 3]
    with pytest.raises(UsageError, match="too many"):
        shards_of(["0-999999999"], None, 9)


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize(
    ("number", "code", "workers"), [(signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 2)]
)
def test_a_signal_finishes_the_batch_in_hand(
    run: Run, base: Path, number: signal.Signals, code: int, workers: int
) -> None:
    for seed in range(300):
        (base / "photos" / f"x{seed}.png").symlink_to("0000.png")
    plan(run)
    command = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command += "from byname.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "run", "r", "--workers", str(workers), "--threads", "1"],
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not list((base / "r").glob("part-*.json")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("it was ready before the signal came")
    assert process.returncode == code
    assert "stopped; finished images are kept; go on: byname run r" in told
    assert "Traceback" not in told
    assert run("run", "r", "-q").code == 0
    assert run("status", "r", "--check").code == 0
