"""``byname discover``: names for a folder whose classes nobody has listed."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from byname import ops
from byname.classifier import Classifier
from byname.console import Counter, collect_warnings, progress_bar, say, text_progress
from byname.console import table as print_table
from byname.errors import UsageError
from byname.files import write_text
from byname.images.sources import Source
from byname.inputs import open_images
from byname.programs.discover import Discovery, discover
from byname.provenance import run_record
from byname.rows import check_output, write_record
from byname.taxonomy import Taxonomy
from byname.taxonomy_io import write_taxonomy

__all__ = ["names_found", "run_discover"]

SHOWN = 30
TEMPLATES = "templates[set=short]"


def run_discover(
    images: str,
    output: Path | None,
    assignments: Path | None,
    *,
    image_column: str | None,
    quiet: bool,
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Arguments first, then the words' vectors, then the images', then the names."""
    start, counter = time.perf_counter(), Counter()
    with collect_warnings() as warned:
        _check_outputs(output, assignments)
        source = open_images(images, image_column=image_column)
        if isinstance(source, Source):
            for text in source.warnings:
                say(f"warning: {text}")
        own = options["templates"] is not None
        model = Classifier(recipe="plain", prompts=None if own else TEMPLATES, **options)
        with text_progress(quiet) as advance_texts:
            model.prepare(advance_texts, images=source)
        with progress_bar(counter, len(source), quiet) as advance:
            model.progress = advance
            given = model.gather(source)
        embeddings = given.embeddings
        for name, why in embeddings.errors.items():
            say(f"warning: '{name}' is left out: {why}")
        if not len(embeddings):
            raise UsageError("discover names", "no image could be read", "Check the warnings.")
        V = ops.unit(model.fit_prepared(given).pipeline_.W_)
        found = discover(given.batch.X, V, **_settled(settings, len(embeddings), len(V)))
    taxonomy = names_found(found, model.taxonomy_)
    if not quiet:
        _show(found, taxonomy, len(embeddings))
    if assignments is not None:
        _write_assignments(found, taxonomy, embeddings.keys, assignments)
        say(f"{len(embeddings)} images -> {assignments}")
    if output is None:
        return
    write_taxonomy(taxonomy, output)
    record = run_record(
        encoder=model.encoder_,
        images={"root": source.root, "kind": getattr(source, "kind", "embeddings"),
                "count": len(source)},
        counts={"images": len(source), "errors": len(embeddings.errors),
                "encoded": counter.encoded, "names": len(taxonomy)},
        seconds={"images": counter.seconds, "total": time.perf_counter() - start},
        warnings=warned,
        model=model,
        parameters=settings,
    )  # fmt: skip
    record["discovered"] = {
        "clusters": found.clusters,
        "unnamed": found.unnamed,
        "silhouettes": {str(k): round(s, 6) for k, s in found.silhouettes.items()},
        "sizes": dict(zip(taxonomy.class_ids, found.sizes.tolist(), strict=True)),
    }
    write_record(output, record)
    say(f"{len(taxonomy)} names -> {output}")


def names_found(found: Discovery, vocabulary: Taxonomy) -> Taxonomy:
    """The names as a list of classes, most images first; words that counted as one are aliases."""
    words = vocabulary.classes
    nodes = []
    for row in found.words.tolist():
        others = [words[i].name for i in found.alike.get(row, ())]
        known = dict.fromkeys([*words[row].aliases, *others])
        known.pop(words[row].name, None)
        nodes.append(replace(words[row], parent=None, aliases=tuple(known)))
    return Taxonomy(nodes)


def _check_outputs(output: Path | None, assignments: Path | None) -> None:
    if output is not None:
        check_output(output, suffixes=(".csv", ".tsv", ".json", ".txt"))
    if assignments is not None:
        check_output(assignments, suffixes=(".csv",))
        if output is not None and output.absolute() == assignments.absolute():
            seen = "it is to hold the names and the assignments"
            raise UsageError(f"write '{output}'", seen, "Give two files.")


def _settled(settings: Mapping[str, Any], images: int, words: int) -> dict[str, Any]:
    """Bounds that the user left open."""
    low, high = settings["bounds"]
    if high is None:
        high = max(low, min(images // 2, words, 500))
    bounds = None if images < 2 else (low, high)
    k = 1 if images < 2 and settings["k"] is None else settings["k"]
    return {**settings, "k": k, "bounds": None if k is not None else bounds}


def _show(found: Discovery, taxonomy: Taxonomy, images: int) -> None:
    how = f"estimated from {len(found.silhouettes)} numbers" if found.silhouettes else "given"
    say(f"{images} images, {found.clusters} clusters ({how}), {len(taxonomy)} names")
    if len(found.silhouettes) > 1 and found.clusters <= min(found.silhouettes):
        say(
            f"note: the best number of clusters is {found.clusters}, the least that was tried; "
            "such a coarse split often hides a finer one: give --low, or -k"
        )
    if found.unnamed:
        say(
            f"note: {found.unnamed} clusters have no name of their own: the words their images are "
            "nearest to were given to others"
        )
    rows = [
        (node.name, str(size), "; ".join(node.aliases))
        for node, size in zip(taxonomy.classes, found.sizes.tolist(), strict=True)
    ]
    print_table("", ("name", "images", "also"), rows[:SHOWN])
    if len(rows) > SHOWN:
        say(f"... and {len(rows) - SHOWN} more names; write them with -o FILE.csv")


def _write_assignments(found: Discovery, taxonomy: Taxonomy, keys: Any, path: Path) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("file_name", "class_id", "label"))
    names = np.array([node.name for node in taxonomy.classes], object)
    for key, i in zip(keys, found.member.tolist(), strict=True):
        writer.writerow((key, taxonomy.class_ids[i], names[i]))
    write_text(path, buffer.getvalue(), f"write '{path}'")
