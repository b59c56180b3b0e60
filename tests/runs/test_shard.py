"""One shard against slow files, small memory, wishes to stop, and a process that dies."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from byname.errors import EncoderError, ImageError, RunError
from byname.images.refs import ImageRef
from byname.images.sources import open_source
from byname.runs import loading
from byname.runs.plan import Plan, make_plan
from byname.runs.shard import Counts, process_shard
from byname.runs.stop import Stopped
from tests.helpers import FakeEncoder, make_photo, make_photos

N, BATCH = 30, 4
LATE = "reading it took longer than 0.6 s"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos", N)


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    """Set at the end, so that no thread stays."""
    event = threading.Event()
    yield event
    event.set()
    deadline = time.monotonic() + 5
    while any(t.is_alive() for t in loading._abandoned) and time.monotonic() < deadline:
        time.sleep(0.01)


def plan_of(photos: Path, name: str = "base", encoder: FakeEncoder | None = None) -> Plan:
    return make_plan(open_source(photos), encoder or FakeEncoder(), photos.parent / name)


def run(plan: Plan, encoder: FakeEncoder | None = None, **options: Any) -> pa.Table:
    return process_shard(plan, 0, encoder or FakeEncoder(), **{"batch_size": BATCH} | options)


def errors(table: pa.Table) -> dict[int, str]:
    return {i: e for i, e in enumerate(table["error"].to_pylist()) if e is not None}


def journalled(plan: Plan) -> bool:
    return (plan.folder / "part-00000.journal").exists()


def behave(monkeypatch: pytest.MonkeyPatch, plan: Plan, how: dict[int, Any]) -> list[int]:
    """Files at some positions are read by a function instead; the positions read, in order."""
    real, positions, read = ImageRef.read, {r.key: i for i, r in enumerate(plan.refs)}, []

    def reading(self: ImageRef, **options: Any) -> bytes:
        read.append(positions[self.key])
        if positions[self.key] in how:
            how[positions[self.key]]()
        return real(self, **options)

    monkeypatch.setattr(ImageRef, "read", reading)
    return read


def test_large_images_that_wait_for_their_turn_are_not_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to_pixels(image: Image.Image, preprocess: Any) -> NDArray[np.uint8]:
        time.sleep(0.3)
        return np.zeros((preprocess.size, preprocess.size, 3), np.uint8)

    monkeypatch.setattr("byname.images.decode.LARGE", 1)
    monkeypatch.setattr("byname.images.load.to_pixels", to_pixels)
    few = make_photos(tmp_path / "few", 6)
    assert errors(run(plan_of(few), workers=6, file_timeout=1.2)) == {}


# Files that hang


@pytest.mark.parametrize("workers", [1, 4])
def test_files_that_hang_are_rows_with_an_error(
    photos: Path, monkeypatch: pytest.MonkeyPatch, hang: threading.Event, workers: int
) -> None:
    wanted, plan = run(plan_of(photos, "other")), plan_of(photos)
    behave(monkeypatch, plan, dict.fromkeys([2, 3, 17], lambda: hang.wait(30)))
    table = run(plan, workers=workers, file_timeout=0.6)
    assert errors(table) == dict.fromkeys([2, 3, 17], LATE)
    rest = [i for i in range(N) if i not in (2, 3, 17)]
    for name in ("position", "file_name", "content"):
        assert table.take(rest)[name].equals(wanted.take(rest)[name])
    monkeypatch.undo()
    again = run(plan)
    assert not errors(again)
    assert again["content"].equals(wanted["content"])


def test_a_file_system_that_does_not_answer_ends_the_run_and_loses_nothing(
    photos: Path, monkeypatch: pytest.MonkeyPatch, hang: threading.Event
) -> None:
    monkeypatch.setattr(loading, "ABANDONED", 2)
    plan, encoder = plan_of(photos), FakeEncoder()
    behave(monkeypatch, plan, dict.fromkeys(range(9, N), lambda: hang.wait(30)))
    encoder.in_flight = 3
    with pytest.raises(RunError, match="does not answer"):
        run(plan, encoder, file_timeout=0.6, workers=2)
    assert encoder.images == 8
    monkeypatch.undo()
    hang.set()
    second = FakeEncoder()
    assert not errors(run(plan, second))
    assert second.images == N - 8


# Memory


class Tight(FakeEncoder):
    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(pixels) > self.most:
            raise MemoryError
        return super().encode_images(pixels)


@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("most", [0, 1, 3, 5])
def test_an_encoder_in_small_memory(photos: Path, most: int, in_flight: int) -> None:
    wanted, encoder = run(plan_of(photos, "other")), Tight(most)
    encoder.in_flight = in_flight
    table = run(plan_of(photos), encoder, batch_size=8)
    if not most:
        assert errors(table) == dict.fromkeys(range(N), "not enough memory to encode it")
        return
    assert not errors(table)
    vectors = [np.array(t["vector"].to_pylist(), np.float32) for t in (table, wanted)]
    # 5e-4: half a step of float16 below 1
    np.testing.assert_allclose(*vectors, atol=1e-5 + 5e-4)
    assert encoder.images == N


def no_memory() -> None:
    try:
        raise MemoryError
    except MemoryError:
        raise ImageError("read", "not enough memory to read the file") from None


def test_a_file_without_memory_is_read_again_alone_when_the_rest_is_done(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, plan, tried = run(plan_of(photos, "other")), plan_of(photos), set()

    def once() -> None:
        if (position := read[-1]) not in tried:
            tried.add(position)
            no_memory()

    read = behave(monkeypatch, plan, {5: once, 6: no_memory, 20: once})
    progress: list[tuple[int, bool]] = []
    table = run(plan, workers=1, progress=lambda n, e: progress.append((n, e)))
    assert errors(table) == {6: "not enough memory to read the file"}
    assert read[-3:] == [5, 6, 20]
    assert sorted(read[:-3]) == list(range(N))
    assert sum(n for n, _ in progress) == N
    assert table["content"].to_pylist()[5] == wanted["content"].to_pylist()[5]
    monkeypatch.undo()
    assert not errors(run(plan))


def test_what_waits_for_memory_survives_a_stop(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, total = plan_of(photos), 0
    with monkeypatch.context() as context:
        behave(context, plan, {5: no_memory, 6: no_memory})
        encoder = FakeEncoder()
        with pytest.raises(Stopped):
            run(plan, encoder, stop=lambda: encoder.images >= 20)
        total += encoder.images
    encoder = FakeEncoder()
    assert not errors(run(plan, encoder))
    assert total + encoder.images == N


# Stops


class Mixing(FakeEncoder):
    """A vector depends on its batch in the last bits, as it does with a real graph."""

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        vectors = super().encode_images(pixels)
        return np.asarray(vectors + 0.01 * len(pixels) + 0.01 * vectors.mean(), np.float32)


@pytest.mark.parametrize("seed", range(12))
def test_a_table_is_the_same_however_often_it_was_stopped(photos: Path, seed: int) -> None:
    rng = random.Random(seed)
    (photos / "0001a.jpg").write_bytes(b"no image")
    Image.new("RGB", (40, 40), (255, 0, 0)).save(photos / "0007r.png")
    wanted = run(plan_of(photos, "other"), Mixing())
    plan, total, stops = plan_of(photos), 0, 0
    while True:
        encoder = Mixing(stop_after=rng.randrange(1, 6) if rng.random() < 0.3 else None)
        encoder.in_flight = rng.randrange(1, 4)
        asked, most = [], rng.randrange(1, 4)

        def stop() -> bool:
            asked.append(1)  # noqa: B023 - used within this turn
            return len(asked) >= most  # noqa: B023

        try:
            table = run(plan, encoder, stop=stop, workers=rng.randrange(1, 4))
        except Stopped:
            stops += 1
            if (plan.folder / "part-00000.json").exists():
                table = run(plan)
                total += encoder.images
                break
        except KeyboardInterrupt:
            stops += 1
        else:
            total += encoder.images
            break
        total += encoder.images
    assert stops > 0
    assert table.equals(wanted)
    assert total >= N


def test_a_stop_lands_what_flies_and_loses_nothing(photos: Path) -> None:
    plan, encoder = plan_of(photos), FakeEncoder()
    encoder.in_flight = 3
    with pytest.raises(Stopped):
        run(plan, encoder, stop=lambda: True)
    assert encoder.images == 3 * BATCH
    second = FakeEncoder()
    run(plan, second)
    assert second.images == N - 3 * BATCH


def test_a_stop_with_the_last_batch_leaves_a_complete_part(photos: Path) -> None:
    plan, encoder = plan_of(photos), FakeEncoder()
    with pytest.raises(Stopped):
        run(plan, encoder, stop=lambda: encoder.images == N)
    assert not journalled(plan)
    second = FakeEncoder()
    assert len(run(plan, second)) == N
    assert second.images == 0


def test_a_stop_is_heard_while_a_file_hangs(
    photos: Path, monkeypatch: pytest.MonkeyPatch, hang: threading.Event
) -> None:
    plan, encoder, began = plan_of(photos), FakeEncoder(), time.monotonic()
    behave(monkeypatch, plan, {9: lambda: hang.wait(30)})
    with pytest.raises(Stopped):
        run(plan, encoder, stop=lambda: time.monotonic() - began > 0.3)
    assert time.monotonic() - began < 15
    assert encoder.images == 8


def test_a_stop_is_heard_while_another_has_the_shard(photos: Path) -> None:
    plan, began = plan_of(photos), time.monotonic()
    with FileLock(plan.folder / "part-00000.lock"), pytest.raises(Stopped):
        run(plan, stop=lambda: True)
    assert time.monotonic() - began < 10
    assert len(run(plan)) == N


# Culprits


DIES = """
import os, sys
from pathlib import Path
from byname.images.sources import open_source
from byname.runs.plan import make_plan
from byname.runs.shard import process_shard
from tests.helpers import FakeEncoder
import byname.runs.shard as shard

photos, note, where, culprit, size = sys.argv[1:]
refs = open_source(photos).refs
plan = make_plan(open_source(photos), FakeEncoder(), Path(photos).parent / "base")
wanted = shard.load_pixels(plan.refs[int(culprit)].read(), plan.preprocess)
if where == "load":
    real = shard.load_pixels
    def load_pixels(data, preprocess):
        pixels = real(data, preprocess)
        if (pixels == wanted).all():
            os._exit(7)
        return pixels
    shard.load_pixels = load_pixels

class Dying(FakeEncoder):
    in_flight = 2
    def encode_images(self, pixels):
        if where == "encode" and (pixels == wanted).all((1, 2, 3)).any():
            os._exit(7)
        return super().encode_images(pixels)

process_shard(plan, 0, Dying(), batch_size=int(size), workers=4, careful=Path(note))
"""


@pytest.mark.parametrize(
    ("where", "size", "told"),
    [("load", 4, "load 13\n"), ("encode", 4, "encode 12 15\n"), ("encode", 1, "encode 13 13\n")],
)
def test_a_process_that_dies_leaves_word_of_the_culprit(
    photos: Path, where: str, size: int, told: str
) -> None:
    note = photos.parent / "note"
    command = [sys.executable, "-c", DIES, str(photos), str(note), where, "13", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 7, done.stderr
    assert note.read_text() == told
    encoder = FakeEncoder()
    table = run(plan_of(photos), encoder, give_up={13: "it ended the process"}, careful=note)
    assert errors(table) == {13: "it ended the process"}
    assert encoder.images == N - 1 - (12 if size == 4 else 13)
    assert not note.exists()


def test_what_was_given_up_is_not_read_and_what_is_there_stays(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, encoder = plan_of(photos), FakeEncoder()
    with pytest.raises(Stopped):
        run(plan, encoder, stop=lambda: True)
    read = behave(monkeypatch, plan, {})
    table = run(plan, give_up={1: "gone", 20: "it ended the process"})
    assert errors(table) == {20: "it ended the process"}
    assert sorted(read) == [i for i in range(BATCH, N) if i != 20]


@pytest.mark.parametrize("how", ["done", "stopped", "failed"])
def test_a_note_is_removed_by_a_process_that_lives(photos: Path, how: str) -> None:
    class Broken(FakeEncoder):
        def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            assert note.read_text() == "encode 0 3\n"
            return np.ones((len(pixels), 1), np.float32)

    note = photos.parent / "note"
    if how == "done":
        assert len(run(plan_of(photos), careful=note)) == N
    elif how == "stopped":
        with pytest.raises(Stopped):
            run(plan_of(photos), careful=note, stop=lambda: True)
    else:
        with pytest.raises(EncoderError, match="it gave vectors of shape"):
            run(plan_of(photos), Broken(), careful=note)
    assert not note.exists()


def test_careful_or_not_the_table_is_the_same(photos: Path) -> None:
    (photos / "0001a.jpg").write_bytes(b"no image")
    first = run(plan_of(photos, "other"), Mixing(), workers=4)
    assert run(plan_of(photos), Mixing(), careful=photos.parent / "note").equals(first)


# Counts


def test_the_mark_tells_what_was_done(photos: Path) -> None:
    for i in range(3):
        (photos / f"z{i}.jpg").write_bytes(b"")
        (photos / f"z{i}.png").write_bytes(b"x" * i + b"\x00" * 7)
    told: list[Counts] = []
    plan, encoder = plan_of(photos), FakeEncoder()
    with pytest.raises(Stopped):
        run(plan, encoder, stop=lambda: encoder.images >= 10, tell=told.append)
    assert not told
    run(plan, tell=told.append)
    (counts,) = told
    seconds = counts.pop("seconds")
    files = [photos / ref.key for ref in plan.refs[12:]]
    assert counts == {
        "rows": N + 6,
        "errors": 6,
        "reasons": {
            "empty file (# bytes)": 3,
            "not an image: it holds only zero bytes": 1,
            "not an image: it starts with 'x\\x#\\x#\\x#\\x#\\x#\\x#\\x#'": 1,
            "not an image: it starts with 'xx\\x#\\x#\\x#\\x#\\x#\\x#\\x#'": 1,
        },
        "bytes": sum(file.stat().st_size for file in files),
        "encoded": N - 12,
        "known": 12,
    }
    assert sorted(seconds) == ["encode", "load", "total"]
    assert all(value >= 0 for value in seconds.values())
    mark = json.loads((plan.folder / "part-00000.json").read_text())
    assert counts.items() <= mark.items()
    assert mark["seconds"].keys() == seconds.keys()


def test_a_part_that_is_there_is_told_too(photos: Path) -> None:
    told: list[Counts] = []
    plan = plan_of(photos)
    for _ in range(2):
        run(plan, tell=told.append)
    assert [(c["rows"], c["encoded"], c["known"]) for c in told] == [(N, N, 0), (N, 0, N)]
    assert told[1]["bytes"] == 0


def test_reasons_are_bounded(photos: Path) -> None:
    for i in range(30):
        (photos / f"z{i:02d}.jpg").write_bytes(b"abcdefghijklmnopqrstuvwxyz0ABC"[i : i + 1] + b"!")
    told: list[Counts] = []
    run(plan_of(photos), tell=told.append)
    assert told[0]["errors"] == 30
    assert len(told[0]["reasons"]) == 20


def test_photos_differ() -> None:
    """The culprits above are found by their pixels."""
    assert (np.asarray(make_photo(12)) != np.asarray(make_photo(13))).any()
