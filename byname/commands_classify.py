"""``byname classify``: images to rows; and what other verbs on images share with it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from byname.classifier import Classifier
from byname.console import Counter, collect_warnings, progress_bar, say, text_progress, working
from byname.console import table as print_table
from byname.embeddings import Embeddings
from byname.errors import UsageError
from byname.extra import Extras
from byname.gathered import parse_with
from byname.images.sources import Source
from byname.inputs import open_images
from byname.provenance import run_record
from byname.rows import check_output, write_csv, write_rows
from byname.runs.local import kept_until_written
from byname.runs.plan import Plan
from byname.runs.planfile import is_run

__all__ = ["classify", "described", "opened_for", "read_or_fail", "say_notes", "summarise"]
__all__ += ["with_extras"]

SHOWN_ROWS = 50


@dataclass
class Tally:
    """What is counted of rows while they go by; the first of them are kept to be shown."""

    images: int = 0
    errors: int = 0
    rejected: int = 0
    rows: int = 0
    first: list[pa.Table] = field(default_factory=list)

    def of(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The same tables."""
        for table in tables:
            if self.rows < SHOWN_ROWS:
                self.first.append(table.slice(0, SHOWN_ROWS - self.rows))
            best = table.filter(pc.equal(table["rank"], 1))
            self.images += len(best)
            self.errors += len(best) - best["error"].null_count
            self.rejected += int(pc.sum(pc.equal(best["decision"], "reject")).as_py() or 0)
            self.rows += len(table)
            yield table

    def counts(self, counter: Counter) -> dict[str, int]:
        """For the record of the run."""
        return {
            "images": self.images,
            "errors": self.errors,
            "rejected": self.rejected,
            "encoded": counter.encoded,
            "from_cache": self.images - self.errors - counter.encoded,
            "rows": self.rows,
        }


def classify(
    images: str,
    output: str | None,
    *,
    k: int,
    image_column: str | None,
    quiet: bool,
    options: Mapping[str, Any],
) -> None:
    """``byname classify``: arguments first, then images, then rows, which go to the file as they
    come.
    """
    start, counter, tally = time.perf_counter(), Counter(), Tally()
    path = Path(output) if output not in (None, "-") else None
    with collect_warnings() as warned, kept_until_written():
        if path is not None:
            check_output(path)
        source = opened_for(images, image_column)
        model = Classifier(**with_extras(options, images))
        with text_progress(quiet) as advance_texts:
            model.prepare(advance_texts, images=source)
        model.extras_.match(source)
        ready = time.perf_counter()
        if not quiet:
            _announce(source, model)
        passes, kept = model.extras_.passes, bool(options["cache"])
        with progress_bar(counter, len(source) * passes, quiet, kept) as advance:
            model.progress = advance
            given = model.gather(source)

        def record() -> dict[str, Any]:
            given_to = {"k": k, "image_column": image_column}
            spent = _seconds(start, ready, counter)
            return _record(model, source, tally.counts(counter), spent, warned, given_to)

        with working(quiet):
            tables = tally.of(model.fit_prepared(given).tables(given, k))
            if path is not None:
                write_rows(tables, path, record)
            else:
                # Standard output gets all rows or none; a terminal shows the first of them.
                whole = [table for table in tables if output == "-"]
        say_notes(model, quiet)
    if output == "-":
        write_csv(pa.concat_tables(whole), sys.stdout.buffer)
    elif path is None:
        _show(tally)
    if not quiet:
        summarise(tally.counts(counter), _seconds(start, ready, counter), path)
    read_or_fail(tally.counts(counter))


def _seconds(start: float, ready: float, counter: Counter) -> dict[str, float]:
    total = time.perf_counter() - start
    return {"prepare": ready - start, "images": counter.seconds, "total": total}


def _record(
    model: Classifier,
    source: Source | Embeddings,
    counts: dict[str, int],
    seconds: dict[str, float],
    warned: list[str],
    parameters: dict[str, Any],
) -> dict[str, Any]:
    made = run_record(
        encoder=model.encoder_,
        images=described(source),
        counts=counts,
        seconds=seconds,
        warnings=warned,
        model=model,
        parameters=parameters,
    )
    return made | ({"extra": model.extras_.record()} if model.extras_ else {})


def with_extras(options: Mapping[str, Any], images: str | None = None) -> dict[str, Any]:
    """Options of a classifier, with what ``--with`` gives read.

    Where the images are a run folder, whose vectors are of one encoder, that one is the default.
    """
    given = options.get("extra")
    made = {**options, "extra": Extras(parse_with(given)) if given else None}
    if images is not None and made.get("encoder") is None and is_run(images):
        made |= {k: v for k, v in (Plan.open(images).how or {}).items() if made.get(k) is None}
    return made


def say_notes(model: Classifier, quiet: bool) -> None:
    """What there is to know of the further inputs."""
    for text in () if quiet else model.extras_.notes(model.recipe_):
        say(f"note: {text}")


def opened_for(images: str, image_column: str | None) -> Source | Embeddings:
    """The images of a command line, with the warnings of their source."""
    source = open_images(images, image_column=image_column)
    if isinstance(source, Source):
        for text in source.warnings:
            say(f"warning: {text}")
    return source


def _announce(source: Source | Embeddings, model: Classifier) -> None:
    notes = list(model.taxonomy_.warnings)
    if model.verdict_ is not None and model.verdict_.kept:
        notes.append(model.verdict_.in_words())
    for text in notes:
        say(f"note: {text}")
    texts = model.prompts_.summary()["texts"]
    stages = model.recipe_.stages() | {"prompts": model.prompts_origin()}
    say(
        f"{len(source)} images, {len(model.taxonomy_)} classes, {texts} texts, "
        f"encoder {model.encoder_.info.id}, recipe {model.recipe_.name} "
        f"({' > '.join(str(v) for v in stages.values() if v)})"
    )


def described(source: Source | Embeddings) -> dict[str, Any]:
    """What a record of a run says of its images."""
    kind = source.kind if isinstance(source, Source) else "embeddings"
    return {"root": source.root, "kind": kind, "count": len(source)}


def summarise(counts: Mapping[str, int], seconds: Mapping[str, float], path: Path | None) -> None:
    """One line at the end."""
    parts = [f"{counts['images']} images in {seconds['total']:.1f} s"]
    if counts["encoded"]:
        parts.append(f"{counts['encoded']} encoded ({counts['encoded'] / seconds['images']:.1f}/s)")
    if counts["from_cache"]:
        parts.append(f"{counts['from_cache']} vectors were known")
    if counts["rejected"]:
        parts.append(f"{counts['rejected']} rejected")
    if counts["errors"]:
        parts.append(f"{counts['errors']} could not be read (see the column 'error')")
    say(", ".join(parts) + (f" -> {path}" if path else ""))


def read_or_fail(counts: Mapping[str, int]) -> None:
    """An error where every image is a row with an error."""
    if counts["images"] and counts["errors"] == counts["images"]:
        raise UsageError(
            "classify these images",
            f"none of the {counts['images']} could be read",
            "The column 'error' says why for each of them.",
        )


def _show(tally: Tally) -> None:
    columns: tuple[str, ...] = ("file_name", "rank", "label", "probability", "decision")
    if tally.errors:
        columns = (*columns, "error")
    shown = pa.concat_tables(tally.first).select(columns).to_pylist()
    print_table("", columns, [[row[c] for c in columns] for row in shown])
    if tally.rows > SHOWN_ROWS:
        say(f"... and {tally.rows - SHOWN_ROWS} more rows; write them with -o FILE")
