"""A worker process of the local engine: told what to do on stdin, tells what it does on stdout.

One JSON object a line, both ways. In: the job; then ``{"shard": 3, ...}`` or ``{"stop": true}``.
Out: ``ready``, ``advance``, ``done``, ``stopped``, ``error``, and ``beat`` all the while. The end
of stdin, which is the death of the parent, ends it at once.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

from byname.errors import BynameError, RunError
from byname.runs.disk import disk_errors
from byname.runs.job import Job, Worker
from byname.runs.stop import Stopped

__all__ = ["BEAT", "OUT_OF_MEMORY", "START", "main"]

BEAT = 2.0  # seconds between two signs of life
OUT_OF_MEMORY = 77  # exit code
START = "import sys; sys.path[:] = sys.argv[1:]; from byname.runs.child import main; main()"
"""What the parent has Python run; the arguments are its own ``sys.path``."""


def main() -> None:
    """Work until there is no more to do; never returns."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they reach the parent, too, which tells us
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints is none of the parent's lines
    faulthandler.enable()
    child = _Child(out, sys.stdin.buffer)
    code = 0
    try:
        child.work()
    except MemoryError:
        code = OUT_OF_MEMORY
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    # threads that hang in a read must not keep it alive
    os._exit(code)


class _Child:
    def __init__(self, out: BinaryIO, commands: BinaryIO) -> None:
        self._out, self._commands = out, commands
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._todo: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._job = Job(**json.loads(commands.readline()))
        for target in (self._listen, self._beat):
            threading.Thread(target=target, daemon=True).start()

    def work(self) -> None:
        """Load the encoder; then shard after shard, as they come."""
        told: dict[str, Any] = {}
        try:
            with disk_errors(Path(self._job.folder)):
                worker = Worker(self._job)
                self._say("ready", True)
                while not self._stop.is_set():
                    told = self._todo.get()
                    if "shard" in told:
                        self._say("done", self._make(worker, told))
        except Stopped:
            self._say("stopped", True)
        except BynameError as error:
            self._fail(error)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a bug ends the run, with its trace
            traceback.print_exc()
            what = f"make shard {told['shard']}" if "shard" in told else "start a worker"
            what += f" of the run '{self._job.folder}'"
            seen = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            self._fail(RunError(what, seen, "This is a fault of byname's: please report it."))

    def _make(self, worker: Worker, told: dict[str, Any]) -> dict[str, Any]:
        worker.job = replace(self._job, batch_size=told.get("batch_size") or self._job.batch_size)
        careful = told.get("careful")
        done = worker.run(
            told["shard"],
            progress=lambda images, encoded: self._say("advance", [images, encoded]),
            stop=self._stop.is_set,
            give_up={int(position): why for position, why in told.get("give_up", {}).items()},
            careful=Path(careful) if careful else None,
        )
        return asdict(done)

    def _fail(self, error: BynameError) -> None:
        self._say("error", [type(error).__name__, error.asked, error.seen, error.do])

    def _say(self, what: str, value: Any) -> None:
        line = json.dumps({what: value}).encode() + b"\n"
        with self._lock:
            try:
                self._out.write(line)
            except OSError:  # nobody hears it any more
                os._exit(1)

    def _listen(self) -> None:
        for line in self._commands:
            told = json.loads(line)
            if "stop" in told:
                self._stop.set()
            self._todo.put(told)
        # What is finished is on disk; whoever starts the run again shall not wait for this process.
        os._exit(0)

    def _beat(self) -> None:
        while True:
            self._say("beat", True)
            time.sleep(BEAT)
