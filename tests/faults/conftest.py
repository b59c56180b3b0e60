"""A small encoder, photos, and runs of them that are complete."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from byname.encoders import load_encoder
from byname.images.sources import open_source
from byname.runs.create import create_run, how_to_load
from byname.runs.job import Job, Worker
from byname.runs.merge import merge_run
from byname.runs.plan import Plan
from byname.runs.pool import run_local
from byname.runs.todo import unfinished
from tests.faults import world
from tests.faults.harness import Verdict, compare

SHARD, BATCH = 32, 8


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="needs onnx, to make an encoder folder")
    return world.encoder(tmp_path_factory.mktemp("model") / "encoder", dim=16)


@dataclass(frozen=True)
class Runs:
    """Run folders of one encoder in one place."""

    place: Path
    model: Path

    def plan(self, images: Path, name: str = "run", shard_size: int = SHARD) -> Path:
        encoder = load_encoder(f"onnx:{self.model}", threads=1)
        how = how_to_load(encoder, f"onnx:{self.model}", None)
        create_run(open_source(images), self.place / name, encoder, how, shard_size)
        return self.place / name

    def job(self, run: Path, timeout: float = 60.0) -> Job:
        return Job(str(run), threads=1, batch_size=BATCH, readers=2, file_timeout=timeout)

    def go_on(self, run: Path, *, retry_errors: bool = False, timeout: float = 60.0) -> int:
        """Finish it; the number of shards that were worked on."""
        todo = unfinished(Plan.open(run), retry_errors=retry_errors).shards
        run_local(self.job(run, timeout), todo)
        return len(todo)

    def go_on_here(self, run: Path) -> int:
        """The same without a worker process, which a run gets that has died before; quicker."""
        todo, worker = unfinished(Plan.open(run)).shards, Worker(self.job(run))
        for index in todo:
            worker.run(index)
        return len(todo)

    def merge(self, run: Path) -> Path:
        merge_run(run, self.place / f"{run.name}.parquet")
        return self.place / f"{run.name}.parquet"

    def compare(self, run: Path, wanted: Path) -> Verdict:
        return compare(wanted, self.merge(run))


@pytest.fixture
def runs(tmp_path: Path, model: Path) -> Runs:
    return Runs(tmp_path, model)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[Runs, Path, Path]:
    """100 photos, a complete run of them in 4 parts, and its merged table; to be copied."""
    place = tmp_path_factory.mktemp("whole")
    world.photos(place / "photos", 100)
    (place / "photos" / "bad.jpg").write_bytes(b"no image")
    runs = Runs(place, model)
    run = runs.plan(place / "photos")
    runs.go_on(run)
    return runs, run, runs.merge(run)


@pytest.fixture
def done(whole: tuple[Runs, Path, Path], runs: Runs) -> tuple[Path, Path]:
    """A copy of the complete run, and the table that it gave."""
    _, run, wanted = whole
    shutil.copytree(run, runs.place / "run")
    return runs.place / "run", wanted
