"""What runs on a node of a Ray cluster: holds the encoder, makes parts, tells how far it is."""

from __future__ import annotations

import hashlib
import platform
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from byname import __version__
from byname.errors import BynameError, RunError
from byname.runs.disk import disk_errors
from byname.runs.job import Job, Worker
from byname.runs.stop import Stopped

__all__ = ["SHARE", "Far", "Outcome", "Shards", "sha256_of"]

SHARE = "Put the run folder on storage that all nodes see under the same path."

Outcome: TypeAlias = tuple[Any, ...]
"""``("ready",)``, ``("done", rows, errors, seconds)``, ``("stopped",)``, ``("memory",)``,
``("refused", name, asked, seen, do)``. Exceptions do not travel: Ray would wrap them in a trace."""
Far: TypeAlias = tuple[int, int, int]
"""Shard in hand, images of it that were known, images of it that were encoded, so far."""


class Shards:
    """The actor. ``load`` and ``work`` have a thread; ``news`` and ``halt`` answer meanwhile.

    Parameters
    ----------
    job : Job
    plan_sha256, version : str
        Of the ``plan.json`` and the byname that the driver has.
    """

    def __init__(self, job: Job, plan_sha256: str, version: str) -> None:
        self._job, self._plan_sha256, self._version = job, plan_sha256, version
        self._worker: Worker | None = None
        self._halt = threading.Event()
        self._far: Far = (-1, 0, 0)

    def load(self) -> Outcome:
        """Look whether the run folder is the driver's; load plan and encoder."""

        def loaded() -> Outcome:
            _check_node(self._job, self._plan_sha256, self._version)
            self._worker = Worker(self._job)
            return ("ready",)

        return self._outcome("start a worker", loaded)

    def work(self, told: Mapping[str, Any]) -> Outcome:
        """Make the part of a shard; the last item of what is returned tells how far it came.

        Parameters
        ----------
        told : mapping
            As of :meth:`byname.runs.troubles.Case.begin`.
        """
        index = told["shard"]
        self._far = (index, 0, 0)

        def progress(images: int, encoded: bool) -> None:
            _, known, fresh = self._far
            # one assignment, so that ``news`` never sees half of it
            self._far = (index, known + images * (not encoded), fresh + images * encoded)

        def worked() -> Outcome:
            assert self._worker is not None
            careful, batch_size = told.get("careful"), told.get("batch_size")
            self._worker.job = replace(self._job, batch_size=batch_size or self._job.batch_size)
            done = self._worker.run(
                index,
                progress=progress,
                stop=self._halt.is_set,
                give_up={int(at): why for at, why in told.get("give_up", {}).items()},
                careful=Path(careful) if careful else None,
            )
            return ("done", done.rows, done.errors, done.seconds)

        return (*self._outcome(f"make shard {index}", worked), self._far)

    def news(self, pause: float) -> Far:
        """How far the shard in hand is, after a pause."""
        time.sleep(pause)
        return self._far

    def halt(self) -> None:
        """Finish the batch in hand, and no more."""
        self._halt.set()

    def _outcome(self, what: str, action: Callable[[], Outcome]) -> Outcome:
        try:
            with disk_errors(Path(self._job.folder)):
                return action()
        except Stopped:
            return ("stopped",)
        except MemoryError:
            return ("memory",)
        except BynameError as error:
            refused = error
        except Exception as error:  # noqa: BLE001 - a bug ends the run, with its trace in Ray's log
            traceback.print_exc()
            seen = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            refused = RunError(what, seen, "This is a fault of byname's: please report it.")
        return ("refused", type(refused).__name__, refused.asked, refused.seen, refused.do)


def _check_node(job: Job, plan_sha256: str, version: str) -> None:
    asked = f"work on the run '{job.folder}' on the node '{platform.node()}'"
    if __version__ != version:
        seen = f"byname {__version__} is installed there, and {version} where it was started"
        raise RunError(asked, seen, "Install the same version on all nodes.")
    try:
        found = sha256_of(Path(job.folder, "plan.json"))
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise RunError(asked, f"its plan.json cannot be read there ({why})", SHARE) from None
    if found != plan_sha256:
        raise RunError(asked, "another plan.json lies there under the same path", SHARE)


def sha256_of(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
