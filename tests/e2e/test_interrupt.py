"""Ctrl-C and SIGTERM at many moments: no traceback, one line, nothing half-written, and it goes on.

Each run is a process of its own; what it is to be stopped in says so on standard output, and waits
there, so that no test depends on how fast this machine is.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import make_photos
from tests.marks import needs_mini

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
BOTH = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
# Runs the command line with one function replaced by one that says that it was reached, and waits.
HALT = """
import importlib, os, sys, time
module, name, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = "byname"
held = importlib.import_module(module)
for part in name.split(".")[:-1]:
    held = getattr(held, part)
name = name.split(".")[-1]
real = getattr(held, name)
def halt(*args, **kwargs):
    os.write(1, b"reached\\n")  # in one piece, also from two threads
    time.sleep(60)
    return real(*args, **kwargs)
setattr(held, name, halt)
from byname.cli import main
main()
"""


def halted(where: str, *arguments: object) -> subprocess.Popen[str]:
    """The command line, in the function ``module:name`` by now."""
    module, _, name = where.partition(":")
    command = [sys.executable, "-c", HALT, module, name, *map(str, arguments)]
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert run.stdout is not None
    if run.stdout.readline() != "reached\n":
        raise AssertionError(run.communicate()[1])
    return run


def stopped(run: subprocess.Popen[str], number: int) -> str:
    """Stop it; the last line of standard error, in which no traceback is."""
    run.send_signal(number)
    out, err = run.communicate(timeout=60)
    assert not out
    assert "Traceback" not in err
    assert "Error" not in err
    lines = err.splitlines()
    assert sum("stopped" in line for line in lines) == 1, err
    return lines[-1]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task of a few classes."""
    rng = np.random.default_rng(0)
    classes = rng.normal(size=(4, 8))
    labels = np.arange(60) % 4
    X = classes[labels] + 0.3 * rng.normal(size=(60, 8))
    np.savez(
        tmp_path / "t.npz",
        images=X.astype(np.float32),
        texts=classes[None].astype(np.float32),
        labels=labels,
        classes=np.array(["cat", "dog", "hen", "cow"]),
        templates=np.array(["a photo of a {}."]),
    )
    return tmp_path / "t.npz"


@needs_mini
@BOTH
@pytest.mark.slow
@pytest.mark.parametrize("cached", [True, False], ids=["cache", "no-cache"])
def test_classify_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int, cached: bool
) -> None:
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    make_photos(tmp_path / "photos", 24)
    output = tmp_path / "out.csv"
    output.write_text("older", encoding="utf-8")
    rest = [tmp_path / "photos", "-c", "cat,dog", "-e", "mini", "-r", "plain", "-o", output]
    rest += ["--batch-size", "4", *([] if cached else ["--no-cache"])]
    # all encoded, none merged; what is in hand is finished, so it is waited for
    monkeypatch.setitem(globals(), "HALT", HALT.replace("sleep(60)", "sleep(1)"))
    run = halted("byname.runs.shard:write_part", "classify", *rest)
    told = stopped(run, number)
    assert run.returncode == code
    assert told.startswith("stopped; finished images are kept; go on: byname classify ")
    assert told.endswith(" ".join(map(str, rest)))
    assert output.read_text(encoding="utf-8") == "older"
    assert not list(tmp_path.glob(".*.tmp"))
    command = [sys.executable, "-m", "byname.cli", "classify", *map(str, rest)]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    record = json.loads((tmp_path / "out.csv.run.json").read_text(encoding="utf-8"))
    assert record["counts"]["encoded"] == 0, again.stderr
    assert record["counts"]["from_cache"] == 24


@needs_mini
@pytest.mark.slow
@pytest.mark.parametrize(
    "where",
    [
        "byname.images.sources:finish",  # while files are listed
        "byname.classifier:load_encoder",
        "byname.encoders.mini:MiniEncoder.encode_texts",
        "byname.images.load:decode",  # in the threads that read, with the main one waiting
        "byname.encoders.mini:MiniEncoder.encode_images",
        "byname.pipeline:Pipeline.fit",
        "byname.refine.zlap:ZLap.fit",
        "byname.rows:pa_csv.CSVWriter",  # the temporary file is open
        "byname.rows:write_record",
    ],
)
def test_classify_is_stopped_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    make_photos(tmp_path / "photos", 6)
    output = tmp_path / "out.csv"
    rest = [tmp_path / "photos", "-c", "cat,dog", "-e", "mini", "-r", "zlap", "-o", output]
    threads = where.endswith((":decode", "encode_images"))
    if threads:  # a thread that sleeps cannot be stopped: it is waited for
        monkeypatch.setitem(globals(), "HALT", HALT.replace("sleep(60)", "sleep(1)"))
    run = halted(where, "classify", *rest)
    if threads:
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
        assert "Traceback" not in err
        assert err.splitlines()[-1].startswith("stopped")
    else:
        told = stopped(run, signal.SIGINT)
        assert "byname classify" in told
    assert run.returncode == 130
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".tmp")]
    if where != "byname.rows:write_record":
        assert not output.exists()


@BOTH
@pytest.mark.slow
@pytest.mark.parametrize("where", ["byname.bootstrap:resamples", "byname.evaluate:score"])
def test_evaluate_writes_nothing_by_half(
    task: Path, tmp_path: Path, where: str, number: int, code: int
) -> None:
    output = tmp_path / "table.json"
    arguments = ["evaluate", "--task", task, "--recipes", "plain", "-o", output]
    run = halted(where, *arguments)
    told = stopped(run, number)
    assert run.returncode == code
    assert told == (
        "stopped before the end, nothing is half-written; start again: byname "
        + " ".join(map(str, arguments))
    )
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["byname.commands_study:page", "byname.report.data:study"])
def test_diagnose_writes_nothing_by_half(task: Path, tmp_path: Path, where: str) -> None:
    output = tmp_path / "page.html"
    run = halted(where, "diagnose", "--task", task, "--recipe", "plain", "-o", output)
    assert "diagnose --task" in stopped(run, signal.SIGINT)
    assert run.returncode == 130
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.npz"]


@pytest.mark.slow
def test_an_impatient_user_asks_twice(task: Path) -> None:
    # an error handler that never ends
    before, _, rest = HALT.partition("    os.write")
    after = rest[rest.index("    return real") :]
    halt = 'os.write(1, b"reached\\n"); time.sleep(60)'
    slow = f"{before}    try: {halt}\n    finally: hang()\n{after}"
    slow = slow.replace(
        "def halt",
        'def hang():\n    print("hangs", flush=True)\n'
        + "    while True: time.sleep(0.1)\ndef halt",
    )
    # a busy machine may take two seconds for what is at once
    slow = slow.replace("main()\n", "import byname.cli\nbyname.cli.PATIENCE = 6.0\nmain()\n")
    command = ["byname.evaluate", "score", "evaluate", "--task", str(task), "--recipes", "plain"]
    run = subprocess.Popen(
        [sys.executable, "-c", slow, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "reached\n"
    run.send_signal(signal.SIGINT)
    assert run.stdout.readline() == "hangs\n", run.communicate()[1]
    run.send_signal(signal.SIGINT)  # as a terminal and a wrapper both send one: it means one
    time.sleep(6.5)
    assert run.poll() is None
    run.send_signal(signal.SIGTERM)
    assert run.wait(timeout=20) == 143
    assert run.communicate()[1].endswith("ended at once\n")


class Slow(BaseHTTPRequestHandler):
    """An LLM that answers one question and then thinks."""

    answered = 0

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        type(self).answered += 1
        if type(self).answered > 1:
            time.sleep(20)
        said = {"message": {"content": "- red comb\n- short beak"}, "finish_reason": "stop"}
        data = json.dumps({"model": "m", "choices": [said]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def llm() -> Iterator[str]:
    """Address of a slow server."""
    Slow.answered = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@BOTH
@pytest.mark.slow
def test_waiting_for_an_llm_is_stopped_at_once(
    llm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    output = tmp_path / "p.json"
    command = ["prompts", "make", "-c", "hen,duck,goose", "--style", "descriptors"]
    command += ["--llm-url", llm, "--llm-model", "m", "--concurrency", "1", "-o", str(output)]
    run = subprocess.Popen(
        [sys.executable, "-m", "byname.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while Slow.answered < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    began = time.monotonic()
    told = stopped(run, number)
    assert time.monotonic() - began < 10, "it does not wait for the answer"
    assert run.returncode == code
    assert told.startswith("stopped; what was answered is kept; go on: byname prompts make")
    assert not output.exists()
    plan = subprocess.run(
        [sys.executable, "-m", "byname.cli", *command[:-2], "--dry-run"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "calls: 2 (1 reply in the cache)" in plan.stdout


@pytest.mark.slow
def test_what_ignores_interrupts_goes_on(task: Path) -> None:
    """As in the background of a script, and under nohup: the shell has them ignored."""
    arguments = ["byname.evaluate", "score", "evaluate", "--task", str(task), "--recipes", "plain"]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run = subprocess.Popen(
            [sys.executable, "-c", HALT.replace("sleep(60)", "sleep(1)"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert run.stdout is not None
    assert run.stdout.readline() == "reached\n"
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert "top1" in out


@pytest.mark.slow
@pytest.mark.parametrize("quiet", [False, True], ids=["bars", "quiet"])
def test_a_terminal_shows_bars_and_gets_its_cursor_back(
    task: Path, tmp_path: Path, quiet: bool
) -> None:
    """What a person sees, and that standard output stays data."""
    arguments = ["byname.evaluate", "score", "evaluate", "--task", str(task), "--recipes", "plain"]
    arguments += ["-o", "-", *(["--quiet"] if quiet else [])]
    leader, follower = pty.openpty()
    with (tmp_path / "out").open("w+b") as out:
        run = subprocess.Popen(
            [sys.executable, "-c", HALT, *arguments],
            stdout=out,
            stderr=follower,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(follower)
        screen, deadline, sent = b"", time.monotonic() + 60, False
        while time.monotonic() < deadline:
            ready = select.select([leader], [], [], 0.1)[0]
            try:
                part = os.read(leader, 65536) if ready else b"-"
            except OSError:  # so Linux says that nobody writes there any more
                break
            screen += part if ready else b""
            if not sent and (tmp_path / "out").stat().st_size:
                time.sleep(0.3)
                run.send_signal(signal.SIGINT)
                sent = True
            if not part:
                break
        assert run.wait(timeout=30) == 130
        out.seek(0)
        assert out.read() == b"reached\n"
    os.close(leader)
    text = screen.decode()
    assert "stopped before the end" in text
    assert "Traceback" not in text
    assert ("recipe plain" in text) is not quiet
    assert ("\x1b[?25l" in text) is not quiet
    if not quiet:
        assert "score the answers" in text
        assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
