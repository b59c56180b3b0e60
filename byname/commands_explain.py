"""``byname explain``: why a photo got its label, text by text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from byname.classifier import Classifier
from byname.commands import say_notes, with_extras
from byname.console import Counter, collect_warnings, progress_bar, say, text_progress, working
from byname.console import table as print_table
from byname.errors import OutputError, UsageError
from byname.explain import Explanation, Side, explain_images
from byname.files import atomic_path
from byname.images.sources import Source
from byname.inputs import open_images
from byname.rows import check_output

__all__ = ["run_explain"]

SHOWN = 10
COLUMNS = ("text", "kind", "weight", "cosine", "adds")


def run_explain(
    images: str,
    output: Path | None,
    *,
    against: str | None,
    top: int,
    image_column: str | None,
    quiet: bool,
    options: Mapping[str, Any],
) -> None:
    """Arguments first, then vectors, then one block of lines an image, or a line of JSON."""
    with collect_warnings():
        if output is not None:
            check_output(output, suffixes=(".jsonl",))
        source = open_images(images, image_column=image_column)
        if isinstance(source, Source):
            for text in source.warnings:
                say(f"warning: {text}")
        model = Classifier(**with_extras(options, images))
        with text_progress(quiet) as advance_texts:
            model.prepare(advance_texts, images=source)
        model.extras_.match(source)
        passes, kept = model.extras_.passes, bool(options["cache"])
        with progress_bar(Counter(), len(source) * passes, quiet, kept) as advance:
            model.progress = advance
            given = model.gather(source)
        say_notes(model, quiet)
        for name, why in given.embeddings.errors.items():
            say(f"warning: '{name}' is left out: {why}")
        if not len(given.embeddings):
            raise UsageError("explain", "no image could be read", "Check the warnings above.")
        with working(quiet):
            found = explain_images(model, given, against=against, top=top)
    if output is not None:
        _write(found, output)
        say(f"{len(found)} images -> {output}")
        return
    for one in found[:SHOWN]:
        _show(one)
    if len(found) > SHOWN:
        say(f"... and {len(found) - SHOWN} more images; write them with -o FILE.jsonl")


def _write(found: list[Explanation], output: Path) -> None:
    try:
        with atomic_path(output) as temporary, temporary.open("w", encoding="utf-8") as file:
            for one in found:
                file.write(json.dumps(one.to_dict(), ensure_ascii=False) + "\n")
    except OSError as error:
        raise OutputError(f"write '{output}'", error.strerror or str(error)) from None


def _show(one: Explanation) -> None:
    told = "; ".join(f"{name}: {value}" for name, value in one.details.items())
    said = f"{one.label} ({one.class_id}), probability {one.probability:.3f}, {one.decision}"
    say(f"\n{one.file_name}: {said}" + (f"; {told}" if told else ""))
    for side, why in ((one.answer, "for"), (one.rival, "against")):
        if side is not None:
            _show_side(side, why)


def _show_side(side: Side, why: str) -> None:
    rows = [
        (
            part.text,
            part.kind,
            f"{part.weight:.4f}",
            f"{part.cosine:.4f}",
            "-" if part.part is None else f"{part.part:+.3f}",
        )
        for part in side.parts
    ]
    adds = all(part.part is not None for part in side.parts)
    kind = "that add most" if adds else "most similar to the whole image"
    more = f", the {len(rows)} of {side.texts} texts {kind}" if side.texts > len(rows) else ""
    title = f"{why} {side.label} ({side.class_id}), score {side.score:.3f}{more}"
    print_table(title, COLUMNS, rows)
