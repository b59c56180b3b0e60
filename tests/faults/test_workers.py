"""Files that crash, hang or starve whatever opens them: a row with an error, and all others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from byname.embeddings import Embeddings
from tests.faults import world
from tests.faults.conftest import Runs
from tests.faults.harness import Attempt, Chaos, byname, worlds_env
from tests.faults.inject import MARKS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc and signals"),
]
N = 100


@pytest.fixture
def images(tmp_path: Path) -> Path:
    world.photos(tmp_path / "photos", N)
    return tmp_path / "photos"


def spoil(images: Path, kind: str, *numbers: int) -> set[str]:
    for i in numbers:
        path = images / f"{i:04d}.jpg"
        path.write_bytes(path.read_bytes() + MARKS[kind])
    return {f"{i:04d}.jpg" for i in numbers}


def finish(runs: Runs, images: Path, *more: object) -> tuple[Embeddings, Attempt]:
    run = runs.plan(images)
    command = byname("run", run, "--batch-size", 8, *more)
    chaos = Chaos(command, worlds_env(runs.place))
    found = chaos.attempt(timeout=240)
    assert found.code == 0, found.error
    status = Chaos([*byname("status", run, "--json")], worlds_env(runs.place)).attempt()
    assert status.code == 0, status.error
    return Embeddings.load(runs.merge(run)), found


def check(found: Embeddings, wanted: Embeddings, spoilt: set[str]) -> None:
    assert set(found.errors) == spoilt
    assert len(found) + len(spoilt) == N
    kept = [i for i, key in enumerate(wanted.keys) if key not in spoilt]
    assert found.keys == tuple(wanted.keys[i] for i in kept)
    assert abs(found.vectors - wanted.vectors[kept]).max() < 1e-3


@pytest.fixture
def wanted(runs: Runs, images: Path) -> Embeddings:
    whole = runs.plan(images, "whole")
    runs.go_on(whole)
    return Embeddings.load(runs.merge(whole))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_crashes_its_worker_every_time(
    runs: Runs, images: Path, wanted: Embeddings, workers: int
) -> None:
    spoilt = spoil(images, "segv", 40, 41, 90)
    run = runs.plan(images)
    command = byname("run", run, "--batch-size", 8, "--workers", workers)
    chaos = Chaos(command, worlds_env(runs.place))
    first = chaos.attempt(timeout=240)
    if workers == 1:
        # The command itself has died, once; the next one has been warned by the journal.
        assert first.code < 0
        first = chaos.attempt(timeout=240)
    assert first.code == 0, first.error
    found = Embeddings.load(runs.merge(run))
    check(found, wanted, spoilt)
    assert all("died while reading it (signal 11)" in why for why in found.errors.values())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_never_ends(runs: Runs, images: Path, wanted: Embeddings, workers: int) -> None:
    spoilt = spoil(images, "hang", 3, 50, 51)
    found, told = finish(runs, images, "--workers", workers, "--file-timeout", 2)
    check(found, wanted, spoilt)
    assert all("longer than 2 s" in why for why in found.errors.values())
    assert told.seconds < 60


@pytest.mark.parametrize("workers", [1, 2])
def test_files_for_which_memory_does_not_suffice(
    runs: Runs, images: Path, wanted: Embeddings, workers: int
) -> None:
    spoilt = spoil(images, "memory", 0, 33, 34, 99)
    found, _ = finish(runs, images, "--workers", workers)
    check(found, wanted, spoilt)
    assert all("memory" in why for why in found.errors.values())


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_that_nobody_has_thought_of_is_one_of_the_file(
    runs: Runs, images: Path, wanted: Embeddings, workers: int
) -> None:
    spoilt = spoil(images, "odd", 77)
    found, _ = finish(runs, images, "--batch-size", 8, "--workers", workers)
    check(found, wanted, spoilt)
    assert all("an error that nobody has thought of" in why for why in found.errors.values())


def test_all_at_once(runs: Runs, images: Path, wanted: Embeddings) -> None:
    spoilt = spoil(images, "segv", 10, 60)
    spoilt |= spoil(images, "hang", 20, 61)
    spoilt |= spoil(images, "memory", 30, 62)
    (images / "0063.jpg").write_bytes(b"")
    found, _ = finish(runs, images, "--workers", 2, "--file-timeout", 2)
    check(found, wanted, spoilt | {"0063.jpg"})
    marks = [json.loads(p.read_bytes()) for p in (runs.place / "run").glob("part-*.json")]
    assert sum(m["errors"] for m in marks) == 7
    assert sum(m["rows"] for m in marks) == N
