"""Whole runs against a server that misbehaves: everything arrives, and nothing is asked twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from byname.llm import LLM, ReplyCache
from tests.llm.server import BROKEN, SLOW, SOFT, Server, chaos, questions, right

SLOW_TEST = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
CLIENT = """
import sys
from pathlib import Path
from byname.llm import LLM, ReplyCache
from tests.llm.server import questions
url, folder, n = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
llm = LLM(url, "m", cache=ReplyCache(folder), concurrency=8, timeout=5, backoff=0.01)
try:
    print("asking", flush=True)
    found = llm.ask(questions(n))
    print(len(found.replies), found.cached)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(77)
"""


def client(url: str, folder: Path, n: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, url, str(folder), str(n)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def wait_for(server: Server, delivered: int) -> None:
    end = time.monotonic() + 30
    while sum(one.delivered for one in server.asked) < delivered:
        assert time.monotonic() < end, "the client asks too little"
        time.sleep(0.005)


@pytest.mark.parametrize("n, slow", [(200, 0.02), pytest.param(2000, 0.003, marks=SLOW_TEST)])
def test_many_questions_to_a_server_that_misbehaves(n: int, slow: float, tmp_path: Path) -> None:
    asked = questions(n)
    steps: list[tuple[int, int]] = []
    with Server(chaos(1, slow), retry_after="0.002") as server:
        options: dict[str, Any] = {"concurrency": 8, "timeout": 1.5, "backoff": 0.01}
        llm = LLM(server.url, cache=ReplyCache(tmp_path), retries=8, **options)
        found = llm.ask(asked, progress=lambda done, total: steps.append((done, total)))
        assert found.missing == []
        assert found.replies == {q.id: [right(q.text)] for q in asked}
        assert server.asked_again_after_an_answer() == []
        did = Counter(one.did for one in server.asked)
        assert set(did) == {"good", *BROKEN, *SLOW, *SOFT}, "the plan must do everything"
        assert did["good"] == n
        assert found.calls == len(server.asked)
        assert steps == [(i, n) for i in range(n + 1)]

        calls = len(server.asked)
        again = LLM(server.url, cache=ReplyCache(tmp_path)).ask(reversed(asked))
        assert (again.replies, again.calls, again.cached) == (found.replies, 0, n)
        assert len(server.asked) == calls, "a second run asks nothing"


def test_killed_and_continued(tmp_path: Path) -> None:
    asked = questions(400)
    with Server(delay=0.005) as server:
        first = client(server.url, tmp_path, 400)
        wait_for(server, 150)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        time.sleep(0.1)  # requests that were on their way
        before = sum(one.delivered for one in server.asked)
        assert 150 <= before < 400
        llm = LLM(server.url, "m", cache=ReplyCache(tmp_path), concurrency=8)
        found = llm.ask(asked)
        assert found.replies == {q.id: [right(q.text)] for q in asked}
        assert found.cached >= before - 8, "no reply that had arrived is lost"
        assert len(server.asked_again_after_an_answer()) <= 8
        assert max(server.times().values()) <= 2


def test_a_key_interrupt_keeps_what_came(tmp_path: Path) -> None:
    with Server(delay=0.01) as server:
        run = client(server.url, tmp_path, 2000)
        wait_for(server, 50)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=20)
        assert (run.returncode, "interrupted" in out) == (77, True), err
        before = sum(one.delivered for one in server.asked)
        assert before < 2000
        found = LLM(server.url, "m", cache=ReplyCache(tmp_path)).plan(questions(2000))
        assert found.cached >= before - 8
        assert "Traceback" not in err


def test_two_processes_share_the_replies(tmp_path: Path) -> None:
    with Server(delay=0.002) as server:
        both = [client(server.url, tmp_path, 200) for _ in range(2)]
        for process in both:
            out, err = process.communicate(timeout=60)
            assert out.splitlines()[-1].startswith("200 "), err
            assert "warn" not in err.lower()
        found = LLM(server.url, "m", cache=ReplyCache(tmp_path)).ask(questions(200))
        assert (found.cached, found.calls) == (200, 0)


def test_a_key_interrupt_inside_a_running_loop(tmp_path: Path) -> None:
    """As in a notebook, where the run is in another thread."""

    async def notebook(server: Server) -> None:
        llm = LLM(server.url, "m", cache=ReplyCache(tmp_path), concurrency=2)
        llm.ask(questions(2000))

    with Server(delay=0.01) as server:
        loop = asyncio.new_event_loop()
        timer = threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(notebook(server))
        loop.close()
        assert 0 < len(server.asked) < 2000
        assert not [t for t in threading.enumerate() if t.name == "byname-llm"]
        again = LLM(server.url, "m", cache=ReplyCache(tmp_path)).plan(questions(2000))
        assert again.cached >= sum(one.delivered for one in server.asked) - 2
