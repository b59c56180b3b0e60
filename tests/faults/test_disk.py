"""A full disk, and one that cannot be written to: said in one line, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from byname.errors import BynameError, OutputError
from byname.runs.plan import Plan
from byname.runs.todo import unfinished
from tests.faults import world
from tests.faults.conftest import Runs
from tests.faults.harness import Chaos, byname, compare, worlds_env
from tests.faults.inject import FULL
from tests.helpers import as_nobody, open_to_all

N = 100


def mount(folder: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return (
        shutil.which("mount") is not None
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own that has room for a plan and little more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.name != "posix" or os.geteuid() or not mount(folder, "size=160k"):
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    world.photos(tmp_path / "photos", N)
    return tmp_path / "photos"


def fill(disk: Path, leave: int) -> Path:
    """Take all room but so many bytes."""
    space = shutil.disk_usage(disk).free - leave
    (disk / "filler").write_bytes(bytes(max(space, 0)))
    return disk / "filler"


LEFT = [0, 8192, 20_480, *(pytest.param(4096 * i, marks=pytest.mark.slow) for i in (1, 3, 4, 7))]


@pytest.mark.parametrize("leave", LEFT)
def test_a_full_disk_at_any_moment(
    model: Path, images: Path, tmp_path: Path, small: Path, leave: int
) -> None:
    whole = Runs(tmp_path, model)
    run = whole.plan(images, "whole", shard_size=25)
    whole.go_on(run)
    wanted = whole.merge(run)
    runs = Runs(small, model)
    run = runs.plan(images, shard_size=25)
    filler = fill(small, leave)
    rows = 0
    for _ in range(2):  # the same again is the same trouble, and loses nothing
        with pytest.raises(OutputError) as caught:
            runs.go_on(run)
        assert "the disk is full" in caught.value.seen
        assert "\n" not in str(caught.value)
        now = unfinished(Plan.open(run)).done
        assert now >= rows
        rows = now
    filler.unlink()
    runs.go_on(run)
    found = tmp_path / "found.parquet"
    shutil.copy(runs.merge(run), found)
    assert compare(wanted, found).same_bytes
    assert sorted(p.suffix for p in run.glob("part-*")) == sorted(
        4 * [".json", ".lock", ".parquet"]
    )
    assert not list(run.glob(".*"))


def test_a_full_disk_while_planning(model: Path, images: Path, small: Path) -> None:
    runs = Runs(small, model)
    filler = fill(small, 2000)
    with pytest.raises(OutputError, match="the disk is full"):
        runs.plan(images)
    filler.unlink()
    run = runs.plan(images)
    runs.go_on(run)
    assert unfinished(Plan.open(run)).shards == ()


def test_a_full_disk_while_merging(model: Path, images: Path, small: Path) -> None:
    runs = Runs(small, model)
    run = runs.plan(images)
    runs.go_on(run)
    filler = fill(small, 3000)
    with pytest.raises(OutputError, match="the disk is full"):
        runs.merge(run)
    assert sorted(p.name for p in small.iterdir()) == ["filler", "run"]
    filler.unlink()
    assert runs.merge(run).stat().st_size > 3000


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_line_says_it_in_one_line(
    runs: Runs, images: Path, tmp_path: Path, workers: int
) -> None:
    """With a disk that is said to be full, where none can be mounted."""
    run = runs.plan(images)
    full = tmp_path / "full"
    env = worlds_env(tmp_path, **{FULL: full})
    chaos = Chaos(byname("run", run, "--workers", workers, "--quiet"), env)
    full.touch()
    found = chaos.attempt()
    assert found.code == 2, found.error
    assert found.error.count("\n") == 1
    assert found.error.startswith("error: cannot write to ")
    assert "the disk is full" in found.error
    full.unlink()
    assert chaos.attempt().code == 0
    whole = runs.plan(images, "whole")
    runs.go_on(whole)
    assert runs.compare(run, runs.merge(whole)).same_bytes


def test_a_read_only_run_folder_is_said(runs: Runs, images: Path, tmp_path: Path) -> None:
    run = runs.plan(images)
    runs.go_on(run)
    wanted = runs.merge(run)
    for name in ("part-00001.json", "part-00001.lock"):
        (run / name).unlink()
    open_to_all(run)
    for path in (runs.model.parent.parent, runs.model.parent, runs.model):
        path.chmod(0o755)

    def go_on() -> None:
        with pytest.raises(OutputError, match=r"(?i)permission denied"):
            runs.go_on(run)

    for path in (run, *run.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        as_nobody(go_on)
    finally:
        run.chmod(0o755)
    runs.go_on(run)
    assert runs.compare(run, wanted).same_bytes


def test_a_run_folder_that_cannot_be_read_is_said(runs: Runs, images: Path) -> None:
    run = runs.plan(images)
    open_to_all(run)
    run.chmod(0o700)

    def go_on() -> None:
        with pytest.raises(BynameError, match=r"(?i)permission"):
            runs.go_on(run)

    as_nobody(go_on)
    assert len(unfinished(Plan.open(run)).shards) == 4


def test_a_complete_read_only_run_can_be_merged(runs: Runs, images: Path, tmp_path: Path) -> None:
    run = runs.plan(images)
    runs.go_on(run)
    wanted = runs.merge(run).read_bytes()
    open_to_all(run)
    (tmp_path / "out").mkdir(mode=0o777)
    (tmp_path / "out").chmod(0o777)
    for path in run.iterdir():
        path.chmod(0o444)
    run.chmod(0o555)

    def merge() -> None:
        from byname.runs.merge import merge_run

        assert unfinished(Plan.open(run)).shards == ()
        merge_run(run, tmp_path / "out" / "x.parquet")

    as_nobody(merge)
    assert (tmp_path / "out" / "x.parquet").read_bytes() == wanted
