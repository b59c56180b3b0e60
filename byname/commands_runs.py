"""What ``byname plan``, ``run``, ``run-shard``, ``status`` and ``merge`` do."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from byname.bars import clock, pace
from byname.console import Counter, collect_warnings, keep, progress_bar, say, working
from byname.console import table as print_table
from byname.embeddings import Embeddings
from byname.encoders import load_encoder
from byname.errors import UsageError, some
from byname.images.places import shown
from byname.inputs import open_images, settled
from byname.provenance import versions
from byname.rows import check_output, write_record
from byname.runs.create import create_run, how_to_load
from byname.runs.disk import say_bytes, sweep
from byname.runs.events import Advance, Done, Event, Note
from byname.runs.job import Job, processors
from byname.runs.merge import merge_run
from byname.runs.plan import Plan
from byname.runs.planfile import is_run
from byname.runs.pool import run_local
from byname.runs.status import Status, status_of
from byname.runs.stop import finishing
from byname.runs.todo import Todo, unfinished

__all__ = ["How", "merge", "plan", "run", "run_some", "shards_of", "status"]

ENGINES = ("local", "ray")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)


@dataclass(frozen=True)
class How:
    """Options of ``byname run`` and ``run-shard``."""

    engine: str = "local"
    workers: int = 1
    threads: int | None = None
    batch_size: int = 32
    readers: int | None = None
    file_timeout: float = 60.0
    device: str = "cpu"
    retry_errors: bool = False
    quiet: bool = False
    gpus: float | None = None
    cpus: float | None = None


def plan(
    images: str,
    folder: Path,
    *,
    encoder: str | None,
    image_column: str | None,
    precision: str | None,
    shard_size: int,
    quiet: bool,
) -> None:
    """``byname plan``: list the images, look at the encoder's card, write both down."""
    known = is_run(folder)
    with collect_warnings(), working(quiet):
        source = open_images(images, image_column=image_column)
        if isinstance(source, Embeddings):
            raise UsageError(f"plan a run over '{images}'", "it holds vectors", "Classify it.")
        for text in source.warnings:
            say(f"warning: {text}")
        model, verdict = settled(load_encoder(encoder, precision=precision), source)
        if verdict is not None and verdict.kept and not quiet:
            say(f"note: {verdict.in_words()}")
        how = how_to_load(model, encoder, precision)
        made = create_run(source, folder, model, how, shard_size)
    if not quiet:
        size = made.settings.shard_size
        shards = "1 shard" if made.n_shards == 1 else f"{made.n_shards:,} shards of {size:,}"
        say(
            f"{'the same plan is there already' if known else 'planned'}: {len(made.refs):,} "
            f"images in {shards}, encoder {made.settings.encoder} -> {folder}"
        )
        say(f"next: byname run {shlex.quote(shown(str(folder)))}")


def run(folder: Path, how: How, among: Sequence[int] | None = None) -> None:
    """``byname run`` and ``run-shard``: make all parts that are not complete."""
    if how.engine not in ENGINES:
        seen = f"'{how.engine}' is not one of {', '.join(ENGINES)}"
        raise UsageError("choose an engine", seen)
    if how.engine == "local" and not (how.gpus is how.cpus is None):
        seen = "--gpus and --cpus are for Ray, the engine is 'local'"
        raise UsageError("reserve processors", seen, "Add --engine ray, or see --threads.")
    for name, count in (("--gpus", how.gpus), ("--cpus", how.cpus)):
        if count is not None and not (0 <= count <= 1 or count.is_integer()):
            seen, do = f"{name} is {count:g}", "Ray wants a part of one, or whole ones: 0.5 or 2."
            raise UsageError("reserve processors", seen, do)
    start, counter = time.perf_counter(), Counter()
    opened = Plan.open(folder)
    _refuse_unknown(opened, among)
    with working(how.quiet):
        sweep(opened.folder)
        todo = unfinished(opened, among, retry_errors=how.retry_errors)
    if todo.damaged and not how.quiet:
        some_of = some([str(i) for i in todo.damaged])
        are = "part is" if len(todo.damaged) == 1 else "parts are"
        say(f"warning: {len(todo.damaged):,} {are} damaged and made again ({some_of})")
    keep("finished images are kept")
    with (
        collect_warnings(),
        progress_bar(counter, _images(opened, among), how.quiet) as advance,
        finishing() as stop,
    ):
        counts = _Counts(todo)

        def heard(event: Event) -> None:
            if isinstance(event, Advance):
                advance(event.images, event.encoded)
            elif isinstance(event, Done):
                counts.add(event)
            elif isinstance(event, Note) and not how.quiet:
                say(f"note: {event.text}")

        advance(todo.done, False)
        _engine(how)(_job(opened, how), todo.shards, workers=how.workers, heard=heard, stop=stop)
    if not how.quiet:
        _summarise(opened, folder, counts, counter, time.perf_counter() - start, among is None)


def run_some(folder: Path, texts: Sequence[str], of: int | None, how: How) -> None:
    """``byname run-shard``."""
    run(folder, how, shards_of(texts, of, Plan.open(folder).n_shards))


def _engine(how: How) -> Callable[..., None]:
    if how.engine == "local":
        return run_local
    from byname.runs.ray_engine import run_ray

    cpus = 1.0 if how.cpus is None else how.cpus
    return partial(run_ray, gpus=how.gpus or 0.0, cpus=cpus)


def _job(opened: Plan, how: How) -> Job:
    readers = how.readers or max(1, processors() // how.workers)
    return Job(
        str(opened.folder.absolute()),
        device=how.device,
        threads=how.threads,
        batch_size=how.batch_size,
        readers=readers,
        file_timeout=how.file_timeout,
    )


@dataclass
class _Counts:
    """Images that are done, and errors among them."""

    before: Todo
    done: int = 0
    errors: int = 0

    def add(self, event: Done) -> None:
        self.done, self.errors = self.done + event.rows, self.errors + event.errors


def _images(opened: Plan, among: Sequence[int] | None) -> int:
    if among is None:
        return len(opened.refs)
    return sum(opened.images_of(index) for index in set(among))


def _refuse_unknown(opened: Plan, among: Sequence[int] | None) -> None:
    beyond = [str(i) for i in among or () if not 0 <= i < opened.n_shards]
    if beyond:
        raise UsageError(
            f"make shard {some(beyond)} of '{opened.folder}'",
            f"its shards are 0 to {opened.n_shards - 1}",
            "Slurm: --array=0-" + str(opened.n_shards - 1),
        )


def _summarise(
    opened: Plan, folder: Path, counts: _Counts, counter: Counter, seconds: float, whole: bool
) -> None:
    done, errors = counts.done + counts.before.done, counts.errors + counts.before.errors
    parts = [f"{done:,} images in {seconds:.1f} s"]
    if counter.encoded:
        rate = pace(counter.encoded / max(counter.seconds, 1e-9))
        parts.append(f"{counter.encoded:,} encoded ({rate})")
    if done - errors - counter.encoded > 0:
        parts.append(f"{done - errors - counter.encoded:,} vectors were known")
    if errors:
        parts.append(f"{errors:,} could not be read ('byname status' says why)")
    say(", ".join(parts) + f" -> {folder}")
    if whole:
        named = shlex.quote(shown(str(folder)))
        say(f"next: byname classify {named} -c CLASSES, or byname merge {named} -o X.parquet")


def shards_of(texts: Sequence[str], of: int | None, count: int) -> list[int]:
    """The shards that ``3``, ``0-99`` and ``3 --of 20`` name.

    Examples
    --------
    >>> shards_of(["1", "3-5"], None, 9), shards_of(["1"], 4, 10), shards_of(["8"], 20, 5)
    ([1, 3, 4, 5], [1, 5, 9], [])
    """
    found: list[int] = []
    for text in texts:
        match = _RANGE.fullmatch(text)
        if match is None:
            do = "Give a number, or a range such as 0-99; shards are counted from 0."
            raise UsageError(f"make the shard '{text}'", "it is no number and no range", do)
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            do = f"Give {last}-{first}."
            raise UsageError(f"make the shards '{text}'", "the range ends before it begins", do)
        if last - first >= 10_000_000:
            raise UsageError(f"make the shards '{text}'", "these are too many", "Use 'byname run'.")
        found += range(first, last + 1)
    if of is None:
        return sorted(set(found))
    if beyond := [str(i) for i in found if i >= of]:
        raise UsageError(
            f"do the work of task {beyond[0]} of {of}",
            f"tasks are counted from 0 to {of - 1}",
            f"Slurm: --array=0-{of - 1}",
        )
    return sorted({index for task in found for index in range(task, count, of)})


def status(folder: Path, *, as_json: bool, check: bool) -> int:
    """``byname status``; the exit code: 0 where all is complete, 3 where not."""
    found = status_of(folder, check=check)
    if as_json:
        print(json.dumps(found.as_dict(), indent=1))
    else:
        print_table("", ("what", "found"), _lines(found))
    return 0 if found.finished else 3


def _lines(found: Status) -> list[tuple[str, str]]:
    lines = [
        ("run", found.folder),
        ("encoder", found.encoder),
        ("shards", f"{found.complete:,} of {found.shards:,} complete"),
        ("in work now", f"{found.in_work:,}" + _named(found.working)),
        ("begun, nobody at work", f"{found.begun:,}"),
        ("untouched", f"{found.untouched:,}"),
        ("damaged", f"{len(found.damaged):,}" + _named(found.damaged)),
        ("images", f"{found.done:,} of {found.images:,} done"),
        ("errors", f"{found.errors:,}"),
        *((f"  {n:,} time{'s' * (n > 1)}", reason) for reason, n in found.reasons.items()),
    ]
    if found.images_per_second is not None:
        lines.append(("pace while at work", pace(found.images_per_second)))
    if found.seconds_left:
        lines.append(("time left at that pace", clock(found.seconds_left)))
    lines.append(("on disk", say_bytes(found.bytes)))
    if found.free_bytes is not None:
        lines.append(("free there", say_bytes(found.free_bytes)))
    lines.append(("checksums", "compared" if found.checked else "not compared (--check)"))
    return lines


def _named(shards: Sequence[int]) -> str:
    return f" ({some([str(i) for i in shards])})" if shards else ""


def merge(folder: Path, output: Path, quiet: bool) -> None:
    """``byname merge``."""
    start = time.perf_counter()
    check_output(output, suffixes=(".parquet",))
    with working(quiet):
        merged = merge_run(folder, output)
    opened = Plan.open(folder)
    failed = len(merged.errors)
    write_record(
        output,
        {
            "format": "byname-output/1",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": ["byname", *map(shown, sys.argv[1:])],
            "versions": versions(),
            "run": {"folder": str(opened.folder.absolute()), **asdict(opened.settings)},
            "images": {"root": opened.root, "kind": "run", "count": merged.images},
            "counts": {"images": merged.images, "errors": failed},
            "seconds": {"total": round(time.perf_counter() - start, 3)},
        },
    )
    if not quiet:
        text = f"{merged.images:,} images in {time.perf_counter() - start:.1f} s"
        say(text + (f", {failed:,} could not be read" if failed else "") + f" -> {output}")
