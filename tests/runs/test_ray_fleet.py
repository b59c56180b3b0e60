"""The driver of the Ray engine against a Ray that is made up: whoever dies, whenever."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from byname.errors import EncoderError, RunError, UsageError
from byname.images.sources import open_source
from byname.runs import ray_cluster, ray_engine
from byname.runs.create import create_run
from byname.runs.events import Advance, Done, Event, Note
from byname.runs.job import Job
from byname.runs.plan import Plan
from byname.runs.ray_engine import run_ray
from byname.runs.stop import Stopped
from tests.helpers import FakeEncoder, make_photos


class DeadError(Exception):
    """Stands for any error of Ray."""


class Ray:
    """Answers at once, each call when it is waited for; ``die`` says which calls kill."""

    exceptions = SimpleNamespace(RayError=DeadError)

    def __init__(self, die: Callable[[str, tuple[Any, ...]], bool]) -> None:
        self.die, self.calls, self.alive, self.hired = die, list[tuple[str, Any]](), 0, 0
        self._numbers, self._pending = itertools.count(), dict[int, tuple[Any, str, Any]]()

    def is_initialized(self) -> bool:
        return True

    def remote(self, **options: Any) -> Callable[[type], Any]:
        self.options = options

        def hire(kind: type) -> Any:
            def started(*arguments: Any) -> _Actor:
                self.alive, self.hired = self.alive + 1, self.hired + 1
                return _Actor(self, kind(*arguments))

            return SimpleNamespace(remote=started)

        return hire

    def ask(self, actor: _Actor, what: str, arguments: tuple[Any, ...]) -> int:
        number = next(self._numbers)
        self._pending[number] = (actor, what, arguments)
        return number

    def wait(self, refs: list[int], *, num_returns: int, timeout: float) -> tuple[list[int], None]:
        return refs[:num_returns], None

    def get(self, ref: int) -> Any:
        actor, what, arguments = self._pending.pop(ref)
        if what != "news":
            self.calls.append((what, *arguments))
        if actor.dead or self.die(what, arguments):
            actor.dead = True
            raise DeadError("The actor is dead because its worker process has died. And more.")
        return getattr(actor.real, what)(*arguments)

    def nodes(self) -> list[dict[str, bool]]:
        return [{"Alive": True}]

    def kill(self, actor: _Actor) -> None:
        self.alive -= 1


class _Actor:
    def __init__(self, ray: Ray, real: Any) -> None:
        self.ray, self.real, self.dead = ray, real, False

    def __getattr__(self, what: str) -> Any:
        def remote(*arguments: Any) -> int:
            return self.ray.ask(self, what, arguments)

        method = SimpleNamespace(remote=remote)
        method.options = lambda **options: method
        return method


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Ten photos in four shards."""
    monkeypatch.setattr("byname.runs.job.load_encoder", lambda *a, **k: FakeEncoder())
    monkeypatch.setattr(ray_engine, "PAUSE", 0.0)
    source = open_source(make_photos(tmp_path / "photos", 10))
    return create_run(
        source, tmp_path / "run", FakeEncoder(), {"encoder": "fake", "precision": None}, 3
    )


def work(
    plan: Plan,
    monkeypatch: pytest.MonkeyPatch,
    die: Callable[[str, tuple[Any, ...]], bool] = lambda what, arguments: False,
    stop: Callable[[list[Event]], bool] = lambda events: False,
    **options: Any,
) -> tuple[Ray, list[Event]]:
    ray, events = Ray(die), list[Event]()
    monkeypatch.setattr(ray_engine, "import_ray", lambda: ray)
    job = Job(str(plan.folder), batch_size=2, readers=1)
    try:
        run_ray(
            job,
            range(plan.n_shards),
            **{"workers": 2} | options,
            heard=events.append,
            stop=lambda: stop(events),
        )
    finally:
        assert ray.alive == 0, "an actor was left"
    return ray, events


def test_each_shard_is_made_once(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    ray, events = work(plan, monkeypatch)
    assert [call[1]["shard"] for call in ray.calls if call[0] == "work"] == [0, 1, 2, 3]
    assert sum(event.images for event in events if isinstance(event, Advance)) == 10
    done = [event for event in events if isinstance(event, Done)]
    assert [(event.index, event.rows) for event in done] == [(0, 3), (1, 3), (2, 3), (3, 1)]
    assert ray.hired == 2
    assert (ray.options["num_cpus"], ray.options["num_gpus"]) == (1.0, 0.0)


def test_a_shard_whose_actor_died_is_given_to_another(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = iter([False, True, False, True])

    def die(what: str, arguments: tuple[Any, ...]) -> bool:
        return what == "work" and next(deaths, False)

    ray, events = work(plan, monkeypatch, die)
    assert ray.hired == 3  # at the end there is work for one only
    assert sorted(event.index for event in events if isinstance(event, Done)) == [0, 1, 2, 3]
    assert sum(event.images for event in events if isinstance(event, Advance)) == 10
    notes = [event.text for event in events if isinstance(event, Note)]
    assert len(notes) == 2
    assert "its process ended" in notes[0]


def test_who_dies_again_is_told_to_be_careful_and_in_the_end_it_is_an_error(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(what: str, arguments: tuple[Any, ...]) -> bool:
        return what == "work" and arguments[0]["shard"] == 1

    with pytest.raises(RunError, match="its worker dies each time"):
        work(plan, monkeypatch, die)
    ray, told = Ray(die), list[Any]()
    monkeypatch.setattr(ray, "die", lambda what, a: told.append((what, *a)) or die(what, a))
    monkeypatch.setattr(ray_engine, "import_ray", lambda: ray)
    with pytest.raises(RunError):
        run_ray(Job(str(plan.folder)), [1])
    works = [call[1] for call in told if call[0] == "work"]
    assert ["careful" in each for each in works] == [False, False, True, True, True]


def test_nobody_can_start(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="3 workers died while they loaded the encoder"):
        work(plan, monkeypatch, lambda what, arguments: what == "load")


def test_one_bad_node_is_done_without(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = itertools.count()
    _, events = work(
        plan, monkeypatch, lambda what, a: what == "load" and next(loads) > 0, workers=2
    )
    assert sum(isinstance(event, Done) for event in events) == 4


def test_an_error_of_one_ends_all(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*arguments: Any, **options: Any) -> FakeEncoder:
        raise EncoderError("load 'fake'", "it is gone", "Bring it back.")

    monkeypatch.setattr("byname.runs.job.load_encoder", load)
    with pytest.raises(EncoderError, match=r"cannot load 'fake': it is gone\. Bring it back\."):
        work(plan, monkeypatch)


def test_a_stop_leaves_the_rest_for_later(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    first = list[Event]()

    def stop(events: list[Event]) -> bool:
        nonlocal first
        first = events
        return any(isinstance(event, Done) for event in events)

    with pytest.raises(Stopped):
        work(plan, monkeypatch, stop=stop, workers=1)
    assert 0 < sum(isinstance(event, Done) for event in first) < 4
    _, second = work(plan, monkeypatch)
    fresh = [e.images for e in first + second if isinstance(e, Advance) and e.encoded]
    assert sum(fresh) == 10


def test_parts_that_are_written_elsewhere(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "UNSEEN", 0.0)
    nowhere = Path("nowhere")
    monkeypatch.setattr(ray_engine, "part_paths", lambda *of: (nowhere, nowhere, nowhere))
    with pytest.raises(RunError, match="storage that all nodes see"):
        work(plan, monkeypatch)


def test_no_room(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "NO_ROOM", -1.0)
    monkeypatch.setattr(Ray, "wait", lambda *a, **k: ([], None))
    with pytest.raises(RunError, match="no node has had room for a worker with 1 CPUs"):
        work(plan, monkeypatch)


def test_ray_itself_has_ended(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ray, "wait", lambda *a, **k: ([], None))
    monkeypatch.setattr(Ray, "nodes", lambda self: [{"Alive": False}])
    with pytest.raises(RunError, match="none of its nodes is alive"):
        work(plan, monkeypatch)


def test_an_encoder_on_cuda_has_a_gpu(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Ray(lambda what, arguments: False)
    monkeypatch.setattr(ray_engine, "import_ray", lambda: ray)
    run_ray(Job(str(plan.folder), device="cuda"), [0])
    assert ray.options["num_gpus"] == 1.0


def test_without_ray(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'byname\[ray\]'"):
        run_ray(Job(str(plan.folder)), [0])


def test_the_cluster_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "there:6379")
    assert ray_cluster.address_of("here:1") == "here:1"
    assert ray_cluster.address_of(None) == "there:6379"
    monkeypatch.delenv("RAY_ADDRESS")
    assert ray_cluster.address_of(None) == ray_cluster.LOCAL
