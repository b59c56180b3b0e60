"""Real Ray clusters on this machine: the same parts as without, whoever is killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from byname.encoders import load_encoder
from byname.errors import EncoderError, RunError
from byname.images.sources import open_source
from byname.runs.create import create_run
from byname.runs.events import Advance, Done, Event, Note
from byname.runs.job import Job, Worker
from byname.runs.parts import part_paths
from byname.runs.plan import Plan
from byname.runs.ray_engine import run_ray
from byname.runs.stop import Stopped
from tests.encoders import tiny
from tests.faults.inject import MARKS, prepare
from tests.helpers import make_photo

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds actors in /proc"),
]
pytest.importorskip("ray", reason="the extra [ray] is not installed")
pytest.importorskip("onnx", reason="the extra [demo] is not installed")

N, SHARD, BATCH = 50, 7, 2
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def _path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Actors import this checkout, and die of files that are marked; no log of Ray's is left."""
    told = prepare(tmp_path_factory.mktemp("inject"))["PYTHONPATH"]
    # sockets lie below it, whose paths must be short
    logs = Path(tempfile.mkdtemp(prefix="bn-ray-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([told, str(ROOT)]))
        patch.setenv("RAY_TMPDIR", str(logs))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield
    deadline = time.monotonic() + 20
    while logs.exists() and time.monotonic() < deadline:  # what is ending may write once more
        shutil.rmtree(logs, ignore_errors=True)
        time.sleep(0.5)
    assert not logs.exists()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, photos and one file that is none, and the parts that they should give."""
    folder = tmp_path_factory.mktemp("ray")
    tiny.byname_folder(folder / "encoder")
    (folder / "photos").mkdir()
    # large enough, and some of them slow for an actor, that there is time to die in
    for seed in range(N - 1):
        path = folder / "photos" / f"{seed:04d}.png"
        make_photo(seed, (1000, 1000)).save(path)
        if seed % 4 == 3:
            path.write_bytes(path.read_bytes() + MARKS["slow"])
    (folder / "photos" / "0010a.jpg").write_bytes(b"no image")
    plan = planned(folder, "wanted")
    worker = Worker(job_of(plan))
    for index in range(plan.n_shards):
        worker.run(index)
    return folder


@pytest.fixture(scope="module")
def cluster(base: Path) -> Iterator[None]:
    """One cluster for several tests; as it is theirs, no run may end it."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def planned(base: Path, name: str, photos: str = "photos", encoder: str = "encoder") -> Plan:
    spec = f"onnx:{base / encoder}"
    how = {"encoder": spec, "precision": None}
    return create_run(open_source(base / photos), base / name, load_encoder(spec), how, SHARD)


def job_of(plan: Plan) -> Job:
    return Job(str(plan.folder), threads=1, batch_size=BATCH, readers=1)


def parts(plan: Plan) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in plan.folder.glob("part-*.parquet")}


def marks(plan: Plan) -> list[dict[str, object]]:
    """What the marks say, but for times and for how much of it was done at a first attempt."""
    same = ("format", "rows", "errors", "reasons", "fingerprint", "inputs", "sha256")
    told = [json.loads(p.read_bytes()) for p in sorted(plan.folder.glob("part-*.json"))]
    return [{name: mark[name] for name in same} for mark in told]


def assert_as_wanted(plan: Plan) -> None:
    wanted = Plan.open(plan.folder.parent / "wanted")
    assert parts(plan) == parts(wanted)
    assert marks(plan) == marks(wanted)


def images(events: list[Event]) -> int:
    return sum(event.images for event in events if isinstance(event, Advance))


def actors() -> list[int]:
    """Process ids of the actors whose cluster this process or a child of it has started."""
    parents, found = {}, []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            pid = int(path.parent.name)
            parents[pid] = int(path.read_text().rpartition(")")[2].split()[1])
            if path.with_name("cmdline").read_bytes().startswith(b"ray::Shards"):
                found.append(pid)
    return [pid for pid in sorted(found) if _is_below(pid, parents)]


def _is_below(pid: int, parents: dict[int, int]) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = parents.get(pid, 0)
    return False


class Killer:
    """Hears events, and at some of those that tell of progress kills one of the actors."""

    def __init__(self, kills: int, every: int) -> None:
        self.events: list[Event] = []
        self.killed: list[int] = []
        self._kills, self._every, self._rng = kills, every, random.Random(3)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        news = sum(isinstance(e, Advance) for e in self.events)
        if not isinstance(event, Advance) or len(self.killed) >= self._kills or news % self._every:
            return
        victim = self._rng.choice([pid for pid in actors() if pid not in self.killed])
        os.kill(victim, signal.SIGKILL)
        self.killed.append(victim)


def test_no_such_cluster(base: Path) -> None:
    import ray

    assert not ray.is_initialized(), "this test comes before those with a cluster"
    plan = planned(base, "nowhere")
    with pytest.raises(RunError, match=r"cannot use Ray at '127\.0\.0\.1:9'"):
        run_ray(job_of(plan), [0], address="127.0.0.1:9")


def test_the_same_parts_as_without(base: Path, cluster: None) -> None:
    import ray

    plan, events = planned(base, "plain"), list[Event]()
    run_ray(job_of(plan), range(plan.n_shards), workers=2, heard=events.append)
    assert_as_wanted(plan)
    assert images(events) == N
    done = sorted(event.index for event in events if isinstance(event, Done))
    assert done == list(range(plan.n_shards))
    assert sum(event.errors for event in events if isinstance(event, Done)) == 1
    assert ray.is_initialized()
    # none is left to hold memory on a cluster that others use
    deadline = time.monotonic() + 20
    while actors() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not actors()


def test_killed_actors_lose_and_double_nothing(base: Path, cluster: None) -> None:
    plan, killer = planned(base, "killed"), Killer(4, 3)
    run_ray(job_of(plan), range(plan.n_shards), workers=2, heard=killer)
    assert len(killer.killed) == 4
    assert_as_wanted(plan)
    assert images(killer.events) == N
    notes = [event.text for event in killer.events if isinstance(event, Note)]
    assert any("its process ended" in note for note in notes)


def test_a_file_that_kills_is_one_row_with_an_error(base: Path, cluster: None) -> None:
    folder = base / "deadly"
    folder.mkdir()
    for seed in range(6):
        make_photo(seed).save(folder / f"{seed}.png")
    with (folder / "4.png").open("ab") as file:
        file.write(MARKS["segv"])
    plan, events = planned(base, "died", "deadly"), list[Event]()
    run_ray(job_of(plan), range(plan.n_shards), workers=1, heard=events.append)
    rows = pq.read_table(plan.folder / "part-00000.parquet")
    assert rows["error"].to_pylist() == [
        *[None] * 4,
        "the process died while reading it (its process ended)",
        None,
    ]
    assert not list(plan.folder.glob("*.inhand"))
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes[-1].startswith("'4.png' is given up: the process died while reading it")


def test_what_an_actor_refuses_is_said_as_without_ray(base: Path, cluster: None) -> None:
    tiny.byname_folder(base / "gone")
    plan = planned(base, "refused", encoder="gone")
    (base / "gone").rename(base / "elsewhere")
    with pytest.raises(EncoderError) as here:
        Worker(job_of(plan))
    with pytest.raises(EncoderError) as there:
        run_ray(job_of(plan), range(plan.n_shards), workers=2)
    assert str(there.value) == str(here.value)
    assert "Ray" not in str(there.value)


def test_a_stop_keeps_what_is_in_hand(base: Path, cluster: None) -> None:
    plan, events = planned(base, "stopped"), list[Event]()
    with pytest.raises(Stopped):
        run_ray(
            job_of(plan),
            range(plan.n_shards),
            workers=2,
            heard=events.append,
            stop=lambda: bool(events),
        )
    assert 0 < images(events) < N
    left = [i for i in range(plan.n_shards) if not part_paths(plan.folder, i)[1].exists()]
    again = list[Event]()
    run_ray(job_of(plan), left, workers=2, heard=again.append)
    fresh = [e.images for e in events + again if isinstance(e, Advance) and e.encoded]
    assert sum(fresh) == N - 1, "something was encoded twice, or never"
    assert_as_wanted(plan)


SCRIPT = """
import signal, sys
from byname.runs.events import Advance
from byname.runs.job import Job
from byname.runs.ray_engine import run_ray
from byname.runs.stop import Stopped, finishing

def heard(event):
    if isinstance(event, Advance):
        print("advance", event.images, flush=True)

# a shell has what it starts in the background ignore Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)
with finishing() as stop:
    ours = signal.getsignal(signal.SIGTERM)
    try:
        job = Job(sys.argv[1], threads=1, batch_size=2, readers=1)
        run_ray(job, [int(i) for i in sys.argv[2].split(",")], workers=2, heard=heard, stop=stop)
    finally:
        assert signal.getsignal(signal.SIGTERM) == ours
print("over")
"""


def start(plan: Plan) -> subprocess.Popen[str]:
    """The rest of a run in a process group of its own, on a cluster of its own."""
    left = [i for i in range(plan.n_shards) if not part_paths(plan.folder, i)[1].exists()]
    command = [sys.executable, "-c", SCRIPT, str(plan.folder), ",".join(map(str, left))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def test_a_driver_that_is_interrupted_or_killed_goes_on(base: Path) -> None:
    plan, told = planned(base, "ended"), 0
    for number in (signal.SIGINT, signal.SIGKILL, None):
        assert not all(part_paths(plan.folder, i)[1].exists() for i in range(plan.n_shards))
        process = start(plan)
        assert process.stdout is not None
        line = process.stdout.readline()
        while line.startswith("advance"):
            told += int(line.split()[1])
            if number is not None:
                # Ctrl-C reaches all processes of a terminal; a kill only one
                (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
                number = None
            line = process.stdout.readline()
        process.communicate()
    assert line == "over\n"
    assert process.returncode == 0
    assert told >= N
    assert_as_wanted(plan)
