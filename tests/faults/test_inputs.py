"""Images that vanish, change, or cannot be read while a run is under way."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from byname.embeddings import Embeddings
from byname.errors import RunError
from byname.images.refs import ImageRef
from byname.runs import loading
from byname.runs.pool import run_local
from byname.runs.stop import Stopped
from tests.faults import world
from tests.faults.conftest import Runs
from tests.helpers import as_nobody, open_to_all

N = 100


@pytest.fixture
def images(tmp_path: Path) -> Path:
    world.photos(tmp_path / "photos", N)
    return tmp_path / "photos"


@pytest.fixture
def wanted(runs: Runs, images: Path) -> Embeddings:
    """What an undisturbed run gives."""
    run = runs.plan(images, "whole")
    runs.go_on(run)
    return Embeddings.load(runs.merge(run))


def half(runs: Runs, images: Path, batches: int = 6) -> Path:
    """A run that was stopped in its second of four shards."""
    run, asked = runs.plan(images), iter([False] * batches)
    with pytest.raises(Stopped):
        run_local(runs.job(run), [0, 1, 2, 3], stop=lambda: next(asked, True))
    assert (run / "part-00000.json").exists()
    assert not (run / "part-00001.json").exists()
    return run


def check_others(found: Embeddings, wanted: Embeddings, spoilt: set[str]) -> None:
    """Each of the others has the vector that it has without the trouble; nothing is lost."""
    assert set(found.errors) == spoilt
    assert len(found) + len(found.errors) == N
    kept = [i for i, key in enumerate(wanted.keys) if key not in spoilt]
    assert found.keys == tuple(wanted.keys[i] for i in kept)
    assert (found.vectors == wanted.vectors[kept]).all()


def unlink(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("spoil", [unlink, cut, empty, folder, pipe, loop, device])
def test_images_spoilt_amid_a_run_are_rows_with_errors(
    runs: Runs, images: Path, wanted: Embeddings, spoil: Callable[[Path], None]
) -> None:
    run = half(runs, images)
    spoilt = {f"{i:04d}.jpg" for i in (64, 70, 71, 95, 99)}
    for name in spoilt:
        spoil(images / name)
    # of these the vectors are there already
    (images / "0000.jpg").unlink()
    (images / "0033.jpg").unlink()
    runs.go_on_here(run)
    found = Embeddings.load(runs.merge(run))
    check_others(found, wanted, spoilt)
    assert all(why.strip() and "\n" not in why for why in found.errors.values())


def test_all_images_gone_amid_a_run(runs: Runs, images: Path, wanted: Embeddings) -> None:
    run = half(runs, images)
    shutil.rmtree(images)
    runs.go_on_here(run)
    table = pq.read_table(runs.merge(run))
    errors = [why for why in table["error"].to_pylist() if why is not None]
    assert len(table) == N
    # six batches were finished, and those that were then with the encoder
    assert 0 < len(errors) <= N - 6 * 8
    assert set(errors) == {"the file does not exist"}


def test_images_that_come_back_are_tried_again(
    runs: Runs, images: Path, wanted: Embeddings, tmp_path: Path
) -> None:
    run = half(runs, images)
    images.rename(tmp_path / "away")
    runs.go_on(run)
    (tmp_path / "away").rename(images)
    assert runs.go_on(run) == 0, "what is complete stays as it is"
    assert runs.go_on(run, retry_errors=True) == 3
    found = Embeddings.load(runs.merge(run))
    check_others(found, wanted, set())
    assert runs.go_on(run, retry_errors=True) == 0


def test_images_that_change_amid_a_run(runs: Runs, images: Path, wanted: Embeddings) -> None:
    """A row is that of the file as it was when it was read: of nothing in between."""
    run = half(runs, images)
    shutil.copy(images / "0001.jpg", images / "0080.jpg")
    shutil.copy(images / "0001.jpg", images / "0000.jpg")  # done already
    runs.go_on_here(run)
    found = Embeddings.load(runs.merge(run))
    assert found.keys == wanted.keys
    changed = [i for i in range(N) if (found.vectors[i] != wanted.vectors[i]).any()]
    assert changed == [80]


def test_images_that_are_being_written(runs: Runs, images: Path, wanted: Embeddings) -> None:
    """A file that grows and shrinks all the while is either whole or an error."""
    path, end = images / "0050.jpg", threading.Event()
    data = path.read_bytes()

    def write() -> None:
        while not end.is_set():
            for size in (0, 100, len(data) // 2, len(data)):
                path.write_bytes(data[:size])

    writer = threading.Thread(target=write)
    run = runs.plan(images)
    writer.start()
    try:
        runs.go_on(run)
    finally:
        end.set()
        writer.join()
    found = Embeddings.load(runs.merge(run))
    check_others(found, wanted, set(found.errors))
    assert set(found.errors) <= {"0050.jpg"}


def test_images_without_permission(runs: Runs, images: Path, wanted: Embeddings) -> None:
    run = runs.plan(images)
    closed = {"0064.jpg", "0099.jpg"}
    open_to_all(runs.place)
    for path in (runs.place, run, *run.iterdir()):
        path.chmod(0o777)
    for path in (runs.model.parent.parent, runs.model.parent, runs.model):
        path.chmod(0o755)
    for name in closed:
        (images / name).chmod(0)
    as_nobody(lambda: runs.go_on(run) and None)
    found = Embeddings.load(runs.merge(run))
    check_others(found, wanted, closed)
    assert set(found.errors.values()) == {"no permission to read the file"}


def test_clocks_that_go_backwards(
    runs: Runs, images: Path, wanted: Embeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times of change far in the future or before 1970, and a clock that was set back."""
    for i, path in enumerate(sorted(images.iterdir())):
        os.utime(path, (0, 0) if i % 3 else (4e9, 4e9))
    os.utime(images / "0000.jpg", (-1e6, -1e6))
    run = half(runs, images)
    for path in run.iterdir():
        os.utime(path, (5e9, 5e9))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    runs.go_on_here(run)
    check_others(Embeddings.load(runs.merge(run)), wanted, set())
    assert runs.go_on(run) == 0


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Names of files whose reads do not come back before the end of the test."""
    names: set[str] = set()
    end, real = threading.Event(), ImageRef.read

    def read(self: ImageRef, **kwargs: int) -> bytes:
        if self.key in names:
            end.wait(60)
        return real(self, **kwargs)

    monkeypatch.setattr(ImageRef, "read", read)
    yield names
    end.set()


def test_reads_that_hang_are_errors(
    runs: Runs, images: Path, wanted: Embeddings, hanging: set[str]
) -> None:
    hanging |= {"0003.jpg", "0004.jpg", "0050.jpg", "0099.jpg"}
    run, began = runs.plan(images), time.monotonic()
    runs.go_on(run, timeout=0.5)
    assert time.monotonic() - began < 20
    found = Embeddings.load(runs.merge(run))
    check_others(found, wanted, hanging)
    assert all("0.5 s" in why for why in found.errors.values())
    hanging.clear()
    assert runs.go_on(run, retry_errors=True) == 3
    check_others(Embeddings.load(runs.merge(run)), wanted, set())


def test_a_drive_that_hangs_altogether_ends_the_run_and_keeps_what_is_done(
    runs: Runs,
    images: Path,
    wanted: Embeddings,
    hanging: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "ABANDONED", 5)
    hanging |= {f"{i:04d}.jpg" for i in range(40, N)}
    run = runs.plan(images)
    with pytest.raises(RunError, match="The file system does not answer"):
        runs.go_on(run, timeout=0.1)
    assert (run / "part-00000.json").exists()
    hanging.clear()
    runs.go_on(run)
    check_others(Embeddings.load(runs.merge(run)), wanted, set())


def test_slow_reads_only_take_long(
    runs: Runs, images: Path, wanted: Embeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ImageRef.read

    def read(self: ImageRef, **kwargs: int) -> bytes:
        time.sleep(0.2 if self.key in {"0003.jpg", "0050.jpg"} else 0)
        return real(self, **kwargs)

    monkeypatch.setattr(ImageRef, "read", read)
    run = runs.plan(images)
    runs.go_on(run, timeout=5)
    check_others(Embeddings.load(runs.merge(run)), wanted, set())


def test_a_drive_that_stumbles_is_asked_again(
    runs: Runs, images: Path, wanted: Embeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tenth read fails once with an error of the device."""
    real, failed = os.stat, set()

    def stat(path: object, *args: object, **kwargs: object) -> os.stat_result:
        name = str(path)
        if name.endswith("5.jpg") and name not in failed:
            failed.add(name)
            raise OSError(5, "Input/output error")
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    run = runs.plan(images)
    monkeypatch.setattr(os, "stat", stat)
    runs.go_on(run)
    monkeypatch.undo()
    assert len(failed) == 10
    check_others(Embeddings.load(runs.merge(run)), wanted, set())
