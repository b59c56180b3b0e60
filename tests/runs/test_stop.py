"""Signals: the first is only noted, the second ends; handlers come back; nobody else is disturbed.

What is signalled runs in processes of its own, which say how far they are.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from byname import cli
from byname.images.sources import open_source
from byname.runs import stop as stop_module
from byname.runs.plan import make_plan
from byname.runs.shard import process_shard
from byname.runs.stop import Stopped, finishing, telling
from tests.helpers import FakeEncoder, make_photos

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
BOTH = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)

# The command line with an application of our own: a shard with an encoder that waits to be told.
RUN = """
import sys, time
from pathlib import Path
from byname import cli
from byname.console import keep, say
from byname.images.sources import open_source
from byname.runs.plan import make_plan
from byname.runs.shard import process_shard
from byname.runs.stop import finishing
from tests.helpers import FakeEncoder

photos, seconds = Path(sys.argv[1]), float(sys.argv[2])

class Slow(FakeEncoder):
    def encode_images(self, pixels):
        if self.batches == 2:
            print("reached", flush=True)
            time.sleep(seconds)
        return super().encode_images(pixels)

def app(standalone_mode):
    encoder = Slow()
    plan = make_plan(open_source(photos), encoder, photos.parent / "base")
    keep("finished images are kept")
    with finishing(lambda: say("the batch in hand is finished first")) as stop:
        process_shard(plan, 0, encoder, batch_size=4, stop=stop)

cli.app = app
cli.main()
"""


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    """Those of a process in which no command line has run."""
    normal = ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL))
    before = [(number, signal.signal(number, handler)) for number, handler in normal]
    yield
    for number, handler in before:
        signal.signal(number, handler)


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    run = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    if run.stdout.readline() != "reached\n":
        raise AssertionError(run.communicate()[1])
    return run


@BOTH
def test_the_batch_in_hand_is_finished(tmp_path: Path, number: int, code: int) -> None:
    photos = make_photos(tmp_path / "photos", 30)
    run = start(RUN, photos, 1)
    run.send_signal(number)
    _, err = run.communicate(timeout=60)
    assert run.returncode == code
    told = err.splitlines()
    assert told[0] == "the batch in hand is finished first"
    assert told[1].startswith("stopped; finished images are kept; go on: byname ")
    assert len(told) == 2
    encoder = FakeEncoder()
    plan = make_plan(open_source(photos), encoder, tmp_path / "base")
    assert len(process_shard(plan, 0, encoder, batch_size=4)) == 30
    assert encoder.images == 30 - 12


@BOTH
@pytest.mark.slow
def test_whom_that_takes_too_long_asks_again(tmp_path: Path, number: int, code: int) -> None:
    run = start(RUN, make_photos(tmp_path / "photos", 30), 40)
    began = time.monotonic()
    run.send_signal(number)
    time.sleep(0.3)
    run.send_signal(signal.SIGINT)  # as a terminal and a wrapper both send one: it means one
    time.sleep(2.5)
    assert run.poll() is None
    run.send_signal(number)
    _, err = run.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert run.returncode == code
    assert err.endswith("ended at once\n")


PLAIN = """
import signal, sys, time
from byname.runs.stop import Stopped, finishing
before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
try:
    with finishing(lambda: print("told", flush=True)) as stop:
        print("reached", flush=True)
        end = time.monotonic() + float(sys.argv[1])
        while time.monotonic() < end and not (len(sys.argv) < 3 and stop()):
            time.sleep(0.02)
        if stop() and len(sys.argv) < 3:
            raise Stopped
    print("went on", flush=True)
except Stopped:
    print("stopped", flush=True)
assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
"""


def test_without_a_command_line_ctrl_c_is_an_interrupt(tmp_path: Path) -> None:
    run = start(PLAIN, 20)
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=30) == ("told\nstopped\n", "")
    assert run.returncode == 0


def test_a_signal_that_nobody_asks_for_is_not_lost(tmp_path: Path) -> None:
    run = start(PLAIN, 0.7, "deaf")
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=30) == ("told\nstopped\n", "")


@pytest.mark.parametrize("deaf", [[], ["deaf"]])
def test_sigterm_ends_a_process_that_does_not_handle_it_only_later(deaf: list[str]) -> None:
    run = start(PLAIN, 0.7, *deaf)
    run.send_signal(signal.SIGTERM)
    assert run.communicate(timeout=30)[0] == "told\n"
    assert run.returncode == -signal.SIGTERM


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_a_command_line_the_second_signal_ends(number: int) -> None:
    run = start(PLAIN, 40, "deaf")
    run.send_signal(number)
    time.sleep(2.4)
    assert run.poll() is None
    run.send_signal(number)
    _, err = run.communicate(timeout=30)
    assert run.returncode == -number
    assert err == "" or "KeyboardInterrupt" in err


def test_ignored_signals_stay_ignored() -> None:
    """As in the background of a script, and under nohup."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run = start(PLAIN, 0.5)
    finally:
        signal.signal(signal.SIGINT, before)
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=30) == ("went on\n", "")


def test_in_another_thread_nothing_changes() -> None:
    answers: list[object] = []

    def work() -> None:
        with finishing() as stop:
            answers.extend([stop(), signal.getsignal(signal.SIGINT)])

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False, before]


def test_blocks_within_blocks_share_their_signals() -> None:
    told: list[str] = []
    before = signal.getsignal(signal.SIGINT)

    def both() -> None:
        with finishing(lambda: told.append("outer")) as outer:
            with finishing(lambda: told.append("inner")) as inner:
                assert not inner()
                signal.raise_signal(signal.SIGINT)
                assert inner()
            assert outer()

    with pytest.raises(Stopped):
        both()
    assert told == ["outer"]
    assert signal.getsignal(signal.SIGINT) is before
    with finishing() as stop:
        assert not stop(), "another block knows nothing of it"


def test_what_a_handler_deals_with_itself_does_not_stop() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with finishing() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop()
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]


class LeaveError(Exception):
    """What a host's own handler raises."""


@pytest.mark.parametrize("asked", [True, False])
def test_what_a_handler_raises_is_raised_at_the_end(asked: bool) -> None:
    def leave(number: int, frame: object) -> None:
        raise LeaveError

    def work() -> None:
        with finishing() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop()
            done.append(1)
            if asked:
                raise Stopped

    before, done = signal.signal(signal.SIGINT, leave), []
    try:
        with pytest.raises(LeaveError):
            work()
        assert signal.getsignal(signal.SIGINT) is leave
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == [1]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_handlers_come_back_after_an_error(error: type[BaseException]) -> None:
    def fail() -> None:
        with finishing():
            assert signal.getsignal(signal.SIGINT) != before[0]
            raise error

    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(error):
        fail()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_line_that_cannot_be_written_is_no_error() -> None:
    def refuse() -> None:
        raise RuntimeError("reentrant call")

    def work() -> None:
        with finishing(refuse) as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop()
            done.append(1)

    done: list[int] = []
    with pytest.raises(Stopped):
        work()
    assert done == [1]


def test_whoever_has_a_screen_says_what_is_told() -> None:
    told: list[str] = []
    with pytest.raises(Stopped), telling(lambda: told.append("outer")), finishing():
        signal.raise_signal(signal.SIGINT)
    own = finishing(lambda: told.append("own"))
    with pytest.raises(Stopped), telling(lambda: told.append("outer")), own:
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(Stopped), finishing():
        signal.raise_signal(signal.SIGINT)
    assert told == ["outer", "own"]


def test_embedding_says_that_the_batch_comes_first(tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from byname import cli, commands
from tests.helpers import FakeEncoder

class Slow(FakeEncoder):
    def encode_images(self, pixels):
        print("reached", flush=True)
        time.sleep(1)
        return super().encode_images(pixels)

commands.load_encoder = lambda *args, **options: Slow()
sys.argv = ["byname", "embed", sys.argv[1], "-o", sys.argv[2], "--batch-size", "4"]
cli.main()
"""
    run = start(script, make_photos(tmp_path / "photos", 20), tmp_path / "o.parquet")
    run.send_signal(signal.SIGINT)
    _, seen = run.communicate(timeout=60)
    assert run.returncode == 130
    first, last = seen.strip().splitlines()[-2:]
    assert first.startswith("stopping as soon as the batches in hand are finished")
    assert last.startswith("stopped; finished images are kept; go on: byname embed")
    assert not (tmp_path / "o.parquet").exists()


def test_stopped_before_all_is_loaded() -> None:
    """Ctrl-C while a library is imported leaves it in pieces, and it cannot be imported again."""
    script = """
import sys
from byname import cli

class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            raise ImportError("cannot load module more than once per process")

def app(standalone_mode):
    for name in [n for n in sys.modules if n.startswith(("numpy", "byname.console"))]:
        del sys.modules[name]
    sys.meta_path.insert(0, Broken())
    print("reached", flush=True)
    raise KeyboardInterrupt

cli.app = app
cli.main()
"""
    run = start(script)
    _, seen = run.communicate(timeout=60)
    assert (run.returncode, seen) == (130, "stopped before the end, nothing is half-written\n")


def test_patience_is_the_same_with_and_without_a_run() -> None:
    """Two numbers, as the command line must hear a signal before it has loaded anything."""
    assert cli.PATIENCE == stop_module.PATIENCE


def test_stopped_is_an_interrupt_and_no_error() -> None:
    assert issubclass(Stopped, KeyboardInterrupt)
    assert not issubclass(Stopped, Exception)
