"""One worker process as its parent sees it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypeAlias

from byname.errors import RunError
from byname.runs.child import OUT_OF_MEMORY, START
from byname.runs.job import Job

__all__ = ["Hired", "Told"]

Told: TypeAlias = Mapping[str, Any]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
LAST_LINES = 40


class Hired:
    """A process that runs :mod:`byname.runs.child`.

    Parameters
    ----------
    job : Job
        Its threads are those of this worker.
    lines : queue
        Gets ``(self, what it says)``, and ``(self, None)`` when it has ended.
    command : sequence of str, optional
    """

    def __init__(
        self,
        job: Job,
        lines: queue.SimpleQueue[tuple[Hired, Told | None]],
        command: Sequence[str] | None = None,
    ) -> None:
        self.index: int | None = None
        self.ready = self.told_to_stop = False
        self.heard_at = time.monotonic()
        self._lines, self._killed_for = lines, ""
        self._errors: deque[str] = deque(maxlen=LAST_LINES)
        # -P: not the current folder, in which anybody's json.py may lie
        command = command or [sys.executable, "-P", "-c", START, *sys.path]
        threads = dict.fromkeys(THREADS, str(job.threads or 1))
        try:
            self._process = subprocess.Popen(
                [*command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**threads, **os.environ},
            )
        except OSError as error:  # else it would pass for trouble with the disk
            asked, do = f"start workers for the run '{job.folder}'", "Try fewer workers."
            raise RunError(asked, error.strerror or str(error), do) from error
        self.say(asdict(job))
        for target in (self._read, self._read_errors):
            threading.Thread(target=target, daemon=True).start()

    def say(self, told: Told) -> None:
        """Tell it something; one that is dead does not hear it."""
        self.told_to_stop = self.told_to_stop or "stop" in told
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(told).encode() + b"\n")
            self._process.stdin.flush()

    def kill(self, why: str) -> None:
        """End it now."""
        self._killed_for = self._killed_for or why
        self._process.kill()

    def dismiss(self) -> None:
        """Have it end, whatever it is at."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def close(self) -> None:
        """Have it end, and wait for that."""
        self.dismiss()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def why(self) -> str:
        """Why it has ended."""
        code = self._process.returncode
        if self._killed_for:
            return self._killed_for
        if code == OUT_OF_MEMORY:
            return "out of memory"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def last_words(self) -> str:
        """The last line that it wrote to standard error."""
        lines = [line for line in self._errors if line.strip()]
        return lines[-1].strip()[:300] if lines else ""

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with suppress(ValueError):  # half a line, of one that died
                self._lines.put((self, json.loads(line)))
        self._process.wait()
        self._lines.put((self, None))

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors.append(line.decode("utf-8", "replace"))
