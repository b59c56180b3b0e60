"""``byname discover``: names for a folder whose classes nobody has listed."""

from __future__ import annotations

import csv
import io
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from byname import ops
from byname.classifier import Classifier
from byname.console import Counter, collect_warnings, progress_bar, say, text_progress, working
from byname.console import table as print_table
from byname.embeddings import Embeddings
from byname.errors import UsageError, quoted
from byname.files import write_text
from byname.gathered import every_key
from byname.images.sources import Source
from byname.inputs import open_images
from byname.programs.discover import Discovery, check_settings, discover
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
        _settled(settings)
        source = open_images(images, image_column=image_column)
        for text in source.warnings if isinstance(source, Source) else ():
            say(f"warning: {text}")
        _settled(settings, len(source))
        own = options["templates"] is not None
        model = Classifier(recipe="plain", prompts=None if own else TEMPLATES, **options)
        with text_progress(quiet) as advance_texts:
            model.prepare(advance_texts, images=source)
        _report_duplicates(model.taxonomy_)
        with progress_bar(counter, len(source), quiet, bool(options["cache"])) as advance:
            model.progress = advance
            given = model.gather(source)
        embeddings = given.embeddings
        for name, why in embeddings.errors.items():
            say(f"warning: '{name}' is left out: {why}")
        if not len(embeddings):
            raise UsageError("discover names", "no image could be read", "Check the warnings.")
        with working(quiet):
            V = ops.unit(model.fit_prepared(given).pipeline_.W_)
            usable = int((given.batch.X != 0).any(axis=1).sum())
            found = discover(given.batch.X, V, **_settled(settings, usable or None, len(V)))
    taxonomy = names_found(found, model.taxonomy_)
    if not quiet:
        _show(found, taxonomy, len(embeddings))
    if assignments is not None:
        _write_assignments(found, taxonomy, embeddings, every_key(source), assignments)
        say(f"{_several(len(source), 'image')} -> {assignments}")
    if output is not None:
        write_taxonomy(taxonomy, output)
    if (beside := output or assignments) is None:
        return
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
    write_record(beside, record | {"discovered": _told(found, taxonomy)})
    if output is not None:
        say(f"{_several(len(taxonomy), 'name')} -> {output}")


def _told(found: Discovery, taxonomy: Taxonomy) -> dict[str, Any]:
    """What the record says of it."""
    return {
        "clusters": found.clusters,
        "unnamed": found.unnamed,
        "silhouettes": {str(k): round(s, 6) for k, s in found.silhouettes.items()},
        "sizes": dict(zip(taxonomy.class_ids, found.sizes.tolist(), strict=True)),
    }


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


def _settled(
    settings: Mapping[str, Any], images: int | None = None, words: int = 500
) -> dict[str, Any]:
    """Settings as discover() takes them, checked as far as the number of images is known."""
    (low, high), k = settings["bounds"], settings["k"]
    if k is not None and (low is not None or high is not None):
        seen = "both the number of clusters and bounds for it are given"
        raise UsageError("discover names", seen, "Give -k, or --low and --high.")
    low = 2 if low is None else low
    if high is None:
        high = low if images is None else max(low, min(images // 2, words, 500))
    k = 1 if images == 1 and k is None else k
    settled = {**settings, "k": k, "bounds": (low, high) if k is None else None}
    check_settings(**settled, images=images)
    return settled


def _report_duplicates(vocabulary: Taxonomy) -> None:
    if repeated := vocabulary.duplicates():
        warnings.warn(
            f"some words stand more than once in the vocabulary: {quoted(list(repeated))}",
            stacklevel=2,
        )


def _several(count: int, what: str) -> str:
    """A number with its noun."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _show(found: Discovery, taxonomy: Taxonomy, images: int) -> None:
    tried = _several(len(found.silhouettes), "number")
    how = f"estimated from {tried}" if found.silhouettes else "given"
    counts = (images, "image"), (found.clusters, "cluster"), (len(taxonomy), "name")
    each = [_several(*pair) for pair in counts]
    say(f"{each[0]}, {each[1]} ({how}), {each[2]}")
    if len(found.silhouettes) > 1 and found.clusters <= min(found.silhouettes):
        say(
            f"note: the best number of clusters is {found.clusters}, the least that was tried; "
            "such a coarse split often hides a finer one: give --low, or -k"
        )
    if found.unnamed:
        say(
            f"note: no name was left for {_several(found.unnamed, 'cluster')}: the words that the "
            "images are nearest to were given to others"
        )
    rows = [
        (node.name, str(size), "; ".join(node.aliases))
        for node, size in zip(taxonomy.classes, found.sizes.tolist(), strict=True)
    ]
    print_table("", ("name", "images", "also"), rows[:SHOWN])
    if len(rows) > SHOWN:
        say(f"... and {len(rows) - SHOWN} more names; write them with -o FILE.csv")


def _write_assignments(
    found: Discovery, taxonomy: Taxonomy, embeddings: Embeddings, keys: list[str], path: Path
) -> None:
    """One row an image, as in the order of the input; with an error where it has no name."""
    names = [(node.id, node.name, "") for node in taxonomy.classes]
    names.append(("", "", "its vector is all zeros"))  # at -1
    rows = {key: names[i] for key, i in zip(embeddings.keys, found.member.tolist(), strict=True)}
    rows |= {key: ("", "", why) for key, why in embeddings.errors.items()}
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("file_name", "class_id", "label", "error"))
    writer.writerows((key, *rows[key]) for key in keys)
    write_text(path, buffer.getvalue(), f"write '{path}'")
