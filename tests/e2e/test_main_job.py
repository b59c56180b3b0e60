"""The issue's promises on real photos, through the command line."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.marks import needs_mini

BYNAME = [sys.executable, "-m", "byname.cli"]


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*BYNAME, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


@needs_mini
def test_the_demo_labels_at_least_ten_of_its_photos_right(tmp_path: Path) -> None:
    done = call("demo", "--keep", tmp_path / "demo")
    (line,) = [x for x in done.stdout.splitlines() if " of 14 right" in x]
    assert int(line.split()[0]) >= 10
    assert len(list((tmp_path / "demo" / "photos").iterdir())) == 14


@needs_mini
@pytest.mark.slow
def test_grocery(shared: Path, tmp_path: Path) -> None:
    grocery = shared / "grocery"
    out = tmp_path / "out.parquet"
    call(
        "classify",
        grocery / "images",
        "--classes",
        grocery / "classes.csv",
        "--encoder",
        "mini",
        "--recipe",
        "plain",
        "-k",
        3,
        "-o",
        out,
    )
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == 648 * 3
    assert {r["level"] for r in rows} == {3}
    groups = tmp_path / "groups.csv"
    call(
        "classify",
        grocery / "images",
        "--classes",
        "Fruit,Packages,Vegetables",
        "--recipe",
        "plain",
        "--template",
        "{}",
        "--encoder",
        "mini",
        "-o",
        groups,
    )
    group = {r["class_id"]: r["group"] for r in csv.DictReader((grocery / "classes.csv").open())}
    truth = {
        Path(r["file_name"]).name: group[r["class_id"]]
        for r in csv.DictReader((grocery / "labels.csv").open())
    }
    answers = list(csv.DictReader(groups.open()))
    right = sum(r["label"] == truth[r["file_name"]] for r in answers)
    assert len(answers) == 648
    assert right / 648 >= 0.83
    record = json.loads((tmp_path / "groups.csv.run.json").read_text())
    assert record["counts"]["from_cache"] == 648, "a second run encodes nothing"


@needs_mini
@pytest.mark.slow
@pytest.mark.parametrize("extra", [(), ("--no-cache",)], ids=["cache", "no-cache"])
def test_a_killed_run_goes_on(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: tuple[str, ...]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((shared / "grocery" / "images").iterdir())[:160]:
        (images / path.name).symlink_to(path.resolve())
    arguments = [
        *BYNAME,
        "classify",
        str(images),
        "-c",
        "apple,milk,leek",
        "-r",
        "plain",
        "-e",
        "mini",
        "--batch-size",
        "8",
        *extra,
        "-o",
    ]
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    running = subprocess.Popen([*arguments, str(tmp_path / "a.csv")])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        journals = list((tmp_path / "cache").glob("runs/*/part-*.journal"))
        if any(j.stat().st_size > 40_000 for j in journals):
            break
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not (tmp_path / "a.csv").exists()
    subprocess.run([*arguments, str(tmp_path / "a.csv")], check=True)
    record = json.loads((tmp_path / "a.csv.run.json").read_text())
    assert record["counts"]["images"] == 160
    assert record["counts"]["from_cache"] >= 16
    assert record["counts"]["from_cache"] + record["counts"]["encoded"] == 160
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "other"))
    subprocess.run([*arguments, str(tmp_path / "b.csv")], check=True)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
