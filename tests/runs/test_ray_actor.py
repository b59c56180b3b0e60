"""The actor as a plain object: no Ray needed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from byname import __version__, errors
from byname.errors import OutputError
from byname.images.sources import open_source
from byname.runs import ray_actor
from byname.runs.create import create_run
from byname.runs.job import Job, Worker
from byname.runs.plan import Plan
from byname.runs.ray_actor import Shards, sha256_of
from byname.runs.stop import Stopped
from tests.helpers import FakeEncoder, make_photos


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Five photos in two shards; whatever a worker loads is the fake encoder."""
    monkeypatch.setattr("byname.runs.job.load_encoder", lambda *a, **k: FakeEncoder())
    source = open_source(make_photos(tmp_path / "photos", 5))
    return create_run(
        source, tmp_path / "run", FakeEncoder(), {"encoder": "fake", "precision": None}, 3
    )


def actor(plan: Plan, *, version: str = __version__) -> Shards:
    return Shards(Job(str(plan.folder)), sha256_of(plan.folder / "plan.json"), version)


def test_it_loads_once_and_makes_parts(plan: Plan) -> None:
    shards = actor(plan)
    assert shards.load() == ("ready",)
    for index, rows in ((0, 3), (1, 2)):
        done, made, failed, seconds, far = shards.work({"shard": index})
        assert (done, made, failed, far) == ("done", rows, 0, (index, 0, rows))
        assert seconds >= 0
    assert shards.news(0.0) == (1, 0, 2)
    # what is there is known, not new
    assert shards.work({"shard": 0})[-1] == (0, 3, 0)


def test_what_a_case_tells_reaches_the_worker(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []

    def run(self: Worker, index: int, **told: object) -> None:
        seen.append((index, self.job.batch_size, told["give_up"], told["careful"]))
        raise Stopped

    monkeypatch.setattr(Worker, "run", run)
    shards = actor(plan)
    shards.load()
    note = tmp_path / "note"
    told = {"shard": 1, "batch_size": 1, "give_up": {"2": "why"}, "careful": str(note)}
    assert shards.work(told) == ("stopped", (1, 0, 0))
    shards.work({"shard": 0})
    assert seen == [(1, 1, {2: "why"}, note), (0, Job("").batch_size, {}, None)]


def test_halt_ends_it_after_the_batch_in_hand(plan: Plan) -> None:
    shards = actor(plan)
    shards.load()
    shards.halt()
    assert shards.work({"shard": 0})[0] in ("stopped", "done")
    assert shards.work({"shard": 1})[0] == "stopped"


@pytest.mark.parametrize("what", ["gone", "another", "version"])
def test_a_node_that_is_not_as_the_drivers(plan: Plan, what: str) -> None:
    shards = actor(plan, version="0.0.0" if what == "version" else __version__)
    if what == "gone":
        shutil.rmtree(plan.folder)
    elif what == "another":
        with (plan.folder / "plan.json").open("a") as file:
            file.write("\n")
    kind, name, asked, seen, do = shards.load()
    assert (kind, name) == ("refused", "RunError")
    assert f"work on the run '{plan.folder}' on the node '" in asked
    words = {
        "gone": ("plan.json cannot be read there (No such file", "storage that all nodes see"),
        "another": ("another plan.json lies there", "storage that all nodes see"),
        "version": (f"byname {__version__} is installed there, and 0.0.0", "the same version"),
    }[what]
    assert words[0] in seen
    assert words[1] in do


@pytest.mark.parametrize(
    "raised, name, words",
    [
        (OSError(28, "No space left on device"), "OutputError", "the disk is full"),
        (OutputError("write", "no", "Mend it."), "OutputError", "no"),
        (KeyError("x"), "RunError", "KeyError: 'x'"),
    ],
)
def test_errors_come_as_words(
    plan: Plan,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    name: str,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*args: object, **told: object) -> None:
        raise raised

    monkeypatch.setattr(Worker, "run", run)
    shards = actor(plan)
    shards.load()
    kind, found, _, seen, _, far = shards.work({"shard": 0})
    assert (kind, found, far) == ("refused", name, (0, 0, 0))
    assert words in seen
    assert issubclass(getattr(errors, found), errors.BynameError)
    # a fault of ours leaves its trace in the log of Ray
    assert ("Traceback" in capsys.readouterr().err) == (found == "RunError")


def test_too_little_memory_is_no_error_of_the_run(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(job: Job) -> Worker:
        raise MemoryError

    monkeypatch.setattr(ray_actor, "Worker", load)
    assert actor(plan).load() == ("memory",)
