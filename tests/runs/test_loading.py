"""The threads that read: order, deadlines, memory, stumbling network drives, notes."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from byname.errors import EncoderError, ImageError, RunError
from byname.images.decode import _Turn, turn_since
from byname.images.refs import ImageRef
from byname.runs import loading
from byname.runs.loading import Loaded, Loader, load
from byname.runs.stop import Stopped

Make = Callable[..., Loader]


def good(position: int) -> Loaded:
    return Loaded(bytes([position]), np.full((2, 2, 3), position, np.uint8), size=10, seconds=0.5)


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Loader] = []

    def one(work: Callable[[int], Loaded], **options: object) -> Loader:
        made.append(Loader(work, **options))  # type: ignore[arg-type]
        return made[-1]

    yield one
    for loader in made:
        loader.close()


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    """Set at the end, so that no thread stays."""
    event = threading.Event()
    yield event
    event.set()
    deadline = time.monotonic() + 5
    while any(t.is_alive() for t in loading._abandoned) and time.monotonic() < deadline:
        time.sleep(0.01)


def positions(batches: list[loading.Batch]) -> list[list[int]]:
    return [[i for i, _ in batch] for batch in batches]


@pytest.mark.parametrize("threads", [1, 4])
def test_files_come_in_order_whatever_they_take(make: Make, threads: int) -> None:
    pauses = np.random.default_rng(0).uniform(0, 0.01, 40)

    def work(i: int) -> Loaded:
        time.sleep(pauses[i])
        return good(i)

    loader = make(work, threads=threads)
    todo = [list(range(s, s + 7)) for s in range(0, 35, 7)]
    batches = list(loader.batches(todo))
    assert positions(batches) == todo
    assert all(loaded.content == bytes([i]) for batch in batches for i, loaded in batch)
    assert (loader.size, loader.seconds) == (350, 17.5)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_file_that_hangs_is_late_and_the_others_go_on(
    make: Make, hang: threading.Event, threads: int
) -> None:
    def work(i: int) -> Loaded:
        if i in (1, 4):
            hang.wait(30)
        return good(i)

    loader = make(work, threads=threads, timeout=0.5)
    began = time.monotonic()
    batches = list(loader.batches([[0, 1, 2], [3, 4, 5], [6]]))
    assert time.monotonic() - began < 10
    assert positions(batches) == [[0, 1, 2], [3, 4, 5], [6]]
    errors = {i: loaded.error for batch in batches for i, loaded in batch if loaded.error}
    assert errors == dict.fromkeys([1, 4], "reading it took longer than 0.5 s")
    late = list(loading._abandoned)
    hang.set()
    for thread in late:
        thread.join(10)
    assert not any(thread.is_alive() for thread in late)
    assert not loader._found, "what comes late is dropped"


def test_waiting_for_a_turn_does_not_count(make: Make) -> None:
    def work(i: int) -> Loaded:
        time.sleep(0.05)
        return good(i)

    (batch,) = make(work, threads=1, timeout=1.0).batches([range(30)])
    assert not any(loaded.error for _, loaded in batch)


def test_waiting_for_another_thread_does_not_count(
    make: Make, hang: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = _Turn()
    monkeypatch.setattr("byname.images.decode._one_large", turn)

    def slow(i: int) -> Loaded:
        with turn:
            time.sleep(0.4)
            return good(i)

    loader = make(slow, threads=4, timeout=1.2, since=turn_since)
    (batch,) = loader.batches([range(4)])
    assert [loaded.error for _, loaded in batch] == [""] * 4

    def hangs(i: int) -> Loaded:
        with turn:
            hang.wait(30)
            return good(i)

    # who has the turn and never ends is given up, and then those who wait for it
    began = time.monotonic()
    loader = make(hangs, threads=3, timeout=0.3, since=turn_since)
    (batch,) = loader.batches([range(3)])
    assert [loaded.error for _, loaded in batch] == ["reading it took longer than 0.3 s"] * 3
    assert time.monotonic() - began < 10


def test_a_process_that_was_stopped_itself_does_not_blame_files(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after Ctrl-Z and fg, ten minutes later."""
    now = [100.0]
    started, go = threading.Event(), threading.Event()

    def work(i: int) -> Loaded:
        started.set()
        go.wait(10)
        return good(i)

    monkeypatch.setattr(loading, "time", SimpleNamespace(monotonic=lambda: now[0]))
    loader = make(work, timeout=60.0)
    real = loader._changed.wait

    def wait(timeout: float) -> bool:
        if now[0] > 700:
            go.set()
            return real(5)
        started.wait(5)
        now[0] += 601
        return False

    monkeypatch.setattr(loader._changed, "wait", wait)
    ((_, loaded),) = next(loader.batches([[0]]))
    assert not loaded.error
    monkeypatch.undo()


def test_too_many_that_hang_end_the_run(
    make: Make, hang: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "ABANDONED", 3)
    begun: list[int] = []

    def work(i: int) -> Loaded:
        begun.append(i)
        hang.wait(30)
        return good(i)

    with pytest.raises(RunError) as caught:
        list(make(work, timeout=0.05).batches([range(20)]))
    assert str(caught.value) == (
        "cannot read the images: 4 files have not answered within 0.05 s, and still do not. The "
        "file system does not answer: see whether a network drive is gone. What was finished is "
        "kept: start the run again, and it goes on from there."
    )
    assert begun == [0, 1, 2, 3]


def test_files_that_are_only_slow_do_not_end_the_run(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "ABANDONED", 5)

    def work(i: int) -> Loaded:
        time.sleep(0.15)
        return good(i)

    batches = list(make(work, timeout=0.1).batches([[i] for i in range(8)]))
    assert [batch[0][1].error for batch in batches] == ["reading it took longer than 0.1 s"] * 8


HANGS = """
import time
from byname.runs.loading import Loader
loader = Loader(lambda i: time.sleep(60), threads=2, timeout=0.1)
print([loaded.error for _, loaded in next(loader.batches([[0, 1], [2, 3], [4]]))])
loader.close()
"""


def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=50)
    assert done.stdout == str(["reading it took longer than 0.1 s"] * 2) + "\n"
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < 40


def test_waiting_takes_no_processor(make: Make, hang: threading.Event) -> None:
    def work(i: int) -> Loaded:
        hang.wait(30)
        return good(i)

    before = time.process_time()
    next(make(work, threads=8, timeout=1.0).batches([[0]]))
    assert time.process_time() - before < 0.3


def test_a_wish_to_stop_is_heard_while_a_read_hangs(make: Make, hang: threading.Event) -> None:
    def work(i: int) -> Loaded:
        hang.wait(30)
        return good(i)

    began = time.monotonic()
    with pytest.raises(Stopped):
        next(make(work, stop=lambda: True).batches([[0]]))
    assert time.monotonic() - began < 10


def test_fewer_threads_than_asked_for_will_do(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    real, started = threading.Thread.start, []

    def start(self: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self)
        real(self)

    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", start)
        loader = make(good, threads=8)
    assert positions(list(loader.batches([[0, 1], [2]]))) == [[0, 1], [2]]


def test_a_mistake_of_our_own_is_raised(make: Make) -> None:
    def work(i: int) -> Loaded:
        raise ZeroDivisionError(i)

    with pytest.raises(ZeroDivisionError):
        next(make(work).batches([[0]]))


def test_what_was_given_up_is_not_opened(make: Make) -> None:
    opened: list[int] = []

    def work(i: int) -> Loaded:
        opened.append(i)
        return good(i)

    (batch,) = make(work, give_up={1: "it ended the process"}).batches([[0, 1, 2]])
    assert [loaded.error for _, loaded in batch] == ["", "it ended the process", ""]
    assert sorted(opened) == [0, 2]


def test_a_file_without_memory_is_left_for_later(make: Make) -> None:
    short = {1, 3}

    def work(i: int) -> Loaded:
        return Loaded(b"", error="no memory", short=True) if i in short else good(i)

    loader = make(work)
    assert positions(list(loader.batches([[0, 1], [2], [3], [4]]))) == [[0], [2], [4]]
    assert loader.again == [1, 3]
    short.remove(1)
    again = list(loader.batches([[i] for i in loader.again], last=True))
    assert [(i, loaded.error) for batch in again for i, loaded in batch] == [
        (1, ""),
        (3, "no memory"),
    ]
    assert loader.again == [1, 3]


def test_a_batch_is_handed_over_and_not_kept(make: Make) -> None:
    loader = make(good)
    batches = loader.batches([[0], [1]])
    batch = next(batches)
    pixels = weakref.ref(batch[0][1].pixels)
    del batch
    assert pixels() is None
    assert positions(list(batches)) == [[1]]


def test_one_by_one_with_a_note(make: Make, tmp_path: Path) -> None:
    note, seen = tmp_path / "note", []

    def work(i: int) -> Loaded:
        seen.append((i, note.read_text()))
        return good(i)

    loader = make(work, threads=8, careful=note, give_up={2: "no"})
    for batch in loader.batches([[0, 1], [2, 3]]):
        assert [i for i, _ in seen] == [i for i in range(batch[-1][0] + 1) if i != 2]
    assert seen == [(i, f"load {i}\n") for i in (0, 1, 3)]


# One file


class Ref:
    def __init__(self, *outcomes: BaseException, path: str = "a.jpg") -> None:
        self.outcomes, self.reads, self.path = list(outcomes), 0, path

    def read(self, *, seconds: float = 0.0) -> bytes:
        self.reads += 1
        if self.outcomes:
            try:
                raise self.outcomes.pop(0)
            except OSError as error:
                raise ImageError("read", f"the file cannot be read ({error.errno})") from None
        return b"data"


def decode(data: bytes) -> np.ndarray:
    return np.full((1, 1, 3), len(data), np.uint8)


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR]
)
def test_a_read_that_stumbles_is_tried_three_times(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(loading, "PAUSES", (0.0, 0.0))
    ref = Ref(OSError(number, ""), OSError(number, ""))
    found = load(ref, decode, None)  # type: ignore[arg-type]
    assert (ref.reads, found.error, found.size) == (3, "", 4)
    assert len(found.content) == 16
    ref = Ref(*(OSError(number, "") for _ in range(5)))
    found = load(ref, decode, None)  # type: ignore[arg-type]
    assert (ref.reads, found.error) == (3, f"the file cannot be read ({number})")
    assert (found.content, found.pixels, found.short) == (b"", None, False)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ELOOP])
def test_other_errors_are_believed_at_once(number: int) -> None:
    ref = Ref(OSError(number, ""))
    assert "cannot be read" in load(ref, decode, None).error  # type: ignore[arg-type]
    assert ref.reads == 1


def test_reading_a_url_has_retries_of_its_own() -> None:
    ref = Ref(OSError(errno.EIO, ""), path="s3://photos/a.jpg")
    assert load(ref, decode, None).error  # type: ignore[arg-type]
    assert ref.reads == 1


def test_an_error_of_a_real_file(tmp_path: Path) -> None:
    found = load(ImageRef("a", str(tmp_path / "a")), decode, None)
    assert found.error == "the file does not exist"
    (tmp_path / "a").write_bytes(b"abc")
    found = load(ImageRef("a", str(tmp_path / "a")), decode, None)
    assert found.pixels is not None
    assert (found.size, found.pixels.max()) == (3, 3)


def test_a_read_that_stumbles_is_known_through_a_ref(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ImageRef.read says of the errors of the system is enough to tell them apart."""
    monkeypatch.setattr(loading, "PAUSES", (0.0, 0.0))
    (tmp_path / "a").write_bytes(b"abc")
    tries = []

    def stumble(self: ImageRef, **_: object) -> bytes:
        tries.append(1)
        error: Exception = OSError(errno.EIO, "Input/output error")
        if len(tries) > 3:
            error = MemoryError()
        try:
            raise error
        except (OSError, MemoryError) as error:
            raise ImageError("read", "why") from None

    monkeypatch.setattr(ImageRef, "read", stumble)
    assert load(ImageRef("a", str(tmp_path / "a")), decode, None).error == "why"
    assert len(tries) == 3
    assert load(ImageRef("a", str(tmp_path / "a")), decode, None).short
    assert len(tries) == 4


@pytest.mark.parametrize("where", ["decode", "own", "views"])
def test_memory_that_does_not_suffice_for_a_file_is_told_from_other_errors(where: str) -> None:
    def refuse(data: bytes) -> np.ndarray:
        try:
            raise MemoryError
        except MemoryError as error:
            if where == "own":
                raise
            if where == "views":
                raise RuntimeError("CUDA out of memory") from None
            raise ImageError("decode", "not enough memory to decode it") from error

    found = load(Ref(), refuse, None)  # type: ignore[arg-type]
    assert found.short
    assert found.pixels is None
    assert found.error.startswith("not enough memory to")


def test_what_nobody_has_foreseen_is_an_error_of_the_file() -> None:
    def refuse(data: bytes) -> np.ndarray:
        raise KeyError("x\x1b[31m\ny")

    found = load(Ref(), refuse, None)  # type: ignore[arg-type]
    assert found.pixels is None
    assert found.error.startswith("reading it failed (KeyError: ")
    assert not set(found.error) & set("\x1b\n")


def test_an_encoder_that_refuses_views_ends_the_run() -> None:
    def refuse(data: bytes) -> np.ndarray:
        raise EncoderError("look at it", "it gives no attention")

    with pytest.raises(EncoderError, match="no attention"):
        load(Ref(), refuse, None)  # type: ignore[arg-type]
