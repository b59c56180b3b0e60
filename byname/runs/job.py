"""What a worker of any engine is told, and what it does: one shard after the other."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from byname.encoders import load_encoder
from byname.encoders.base import Encoder
from byname.errors import RunError
from byname.runs.plan import Plan
from byname.runs.shard import Progress, process_shard

__all__ = ["Done", "Job", "Worker", "processors"]


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know, on whatever machine it runs.

    Parameters
    ----------
    folder : str
        The run folder, as every worker sees it.
    device : str
    threads : int, optional
        Threads of the encoder.
    batch_size : int
    readers : int
        Threads that read and decode.
    file_timeout : float
        Seconds that one file may take to read and decode.
    """

    folder: str
    device: str = "cpu"
    threads: int | None = None
    batch_size: int = 32
    readers: int = 2
    file_timeout: float = 60.0


@dataclass(frozen=True)
class Done:
    """A shard that is complete."""

    index: int
    rows: int
    errors: int
    seconds: float


@dataclass
class Worker:
    """Holds the encoder of a job; makes one part after the other.

    Raises
    ------
    RunError
        Where the run folder is damaged, or the encoder is not the one that it was planned with.
    """

    job: Job
    plan: Plan = field(init=False)
    encoder: Encoder = field(init=False)

    def __post_init__(self) -> None:
        self.plan = Plan.open(self.job.folder)
        how = self.plan.how
        if how is None:  # no encoder is guessed: it would be fetched, and refused
            raise RunError(
                f"go on with the run '{self.job.folder}'",
                "its plan.json does not say how to load the encoder",
                "Make it with 'byname plan IMAGES RUN'.",
            )
        self.encoder = load_encoder(
            how["encoder"],
            device=self.job.device,
            threads=self.job.threads,
            precision=how["precision"],
        )
        found, planned = self.encoder.info.image_fingerprint(), self.plan.settings
        if (found, self.encoder.info.dim) != (planned.fingerprint, planned.dim):
            raise RunError(
                f"go on with the run '{self.job.folder}'",
                f"it was planned with other weights than '{self.encoder.info.id}' has here",
                "Restore the encoder's files, or plan a run of its own for this encoder.",
            )

    def run(
        self,
        index: int,
        *,
        progress: Progress = lambda done, encoded: None,
        stop: Callable[[], bool] = lambda: False,
        give_up: Mapping[int, str] | None = None,
        careful: Path | None = None,
    ) -> Done:
        """Make the part of one shard; see :func:`byname.runs.shard.process_shard`.

        Raises
        ------
        RunError
            Where the run folder is gone: parts would lie where nobody looks for them.
        """
        if not Path(self.plan.folder, "plan.json").is_file():
            raise RunError(
                f"go on with the run '{self.job.folder}'",
                "its folder is gone, or was moved",
                "Give the same command again with where it is now: what is complete stays.",
            )
        start = time.perf_counter()
        table = process_shard(
            self.plan,
            index,
            self.encoder,
            batch_size=self.job.batch_size,
            workers=self.job.readers,
            progress=progress,
            file_timeout=self.job.file_timeout,
            stop=stop,
            give_up=give_up or {},
            careful=careful,
        )
        failed = len(table) - table["error"].null_count
        return Done(index, len(table), failed, time.perf_counter() - start)


def processors() -> int:
    """Processors that this process may use, which may be fewer than the machine has.

    Examples
    --------
    >>> processors() >= 1
    True
    """
    try:
        return len(os.sched_getaffinity(0)) or 1
    except (AttributeError, OSError):  # not on macOS and Windows
        return os.cpu_count() or 1
