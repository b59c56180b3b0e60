"""``byname fewshot``: labels for the images that have none, from names and the labels of others."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from byname.answers import scored_table
from byname.classifier import Classifier
from byname.console import Counter, collect_warnings, progress_bar, say, text_progress
from byname.console import table as print_table
from byname.errors import UsageError, quoted
from byname.gathered import Gathered, every_key
from byname.images.sources import Source
from byname.inputs import open_images
from byname.labels import Matched, class_folders, folder_labels, match_labels, read_labels
from byname.programs.fewshot import FewShot, SearchResult
from byname.programs.fewshot_heads import FewShotHead
from byname.programs.transclip_fs import TransClipFewShot
from byname.provenance import run_record
from byname.rows import check_output, write_rows
from byname.stage import ClassTexts, Support
from byname.taxonomy import Taxonomy
from byname.taxonomy_io import read_taxonomy

__all__ = ["METHODS", "How", "run_fewshot"]

METHODS = ("gaussian", "linear", "transclip", "tip-adapter", "coder")
CACHED = {"tip-adapter": "tip", "coder": "coder"}
SHOWN = 50
VOTELESS = "at strength 0 it makes no difference"


@dataclass(frozen=True)
class How:
    """The method, and how much the labelled images count; None is chosen on them."""

    method: str = "gaussian"
    strength: float | None = None
    beta: float | None = None
    seed: int = 0

    def check(self) -> None:
        """Refuse what does not fit, before any work."""
        asked = f"use --method {self.method}"
        if self.method not in METHODS:
            raise UsageError(asked, "there is no such method", f"Known: {', '.join(METHODS)}.")
        if self.beta is not None and self.method not in CACHED:
            raise UsageError(asked, "it has no beta", f"--beta is of {' and '.join(CACHED)}.")
        for name, value in (("strength", self.strength), ("beta", self.beta)):
            least = 0 if self.method in CACHED else math.ulp(0.0)
            if value is not None and not least <= value < math.inf:
                rule = "0 or more" if self.method in CACHED else "above 0"
                raise UsageError(asked, f"--{name} is {value}", f"Give a number {rule}.")

    def check_labels(self, labels: NDArray[np.intp]) -> None:
        """Refuse a choice that these labelled images do not allow."""
        free = self.method in ("gaussian", "linear") and self.strength is None
        if free and (np.bincount(labels) > 1).sum() < 2:
            raise UsageError(
                f"choose how much the labelled images count in '{self.method}'",
                "fewer than two classes have two of them, so none can be set aside",
                "Label a second image of two classes, give --strength, or use --method transclip.",
            )

    def answers(
        self, texts: ClassTexts, support: Support, X: NDArray[Any]
    ) -> tuple[NDArray[Any], dict[str, Any], list[str]]:
        """Logits (N, K) of the images X, what was chosen, and what there is to say of it."""
        if self.method == "transclip":
            whole = TransClipFewShot(texts, self.strength, seed=self.seed).fit(support)
            S, told = whole.decision_function(X), whole.report()
            notes = _unchosen(whole.unchosen_, f"gamma is {whole.gamma_:g}")
            if whole.reason_ is not None:
                notes.append(f"transclip changed nothing, these are text scores: {whole.reason_}")
            return S, told | {"validation": whole.validation_}, notes
        if self.method not in CACHED:
            kind: Any = self.method
            head = FewShotHead(texts, kind, self.strength, seed=self.seed).fit(support)
            told = {"strength": head.strength_, "validation": head.validation_}
            why = "the labelled images add nothing when answered in turn, these are text scores"
            return head.decision_function(X), told, [] if head.strength_ is not None else [why]
        return self._cached(texts, support, X)

    def _cached(
        self, texts: ClassTexts, support: Support, X: NDArray[Any]
    ) -> tuple[NDArray[Any], dict[str, Any], list[str]]:
        """What is not given of alpha and beta is searched, for the value of the one that is."""
        features: Any = CACHED[self.method]
        given = {"alpha": self.strength, "beta": self.beta}
        fixed = {name: v for name, v in given.items() if v is not None}
        model = FewShot(texts, features).fit(support).set_params(**fixed)
        told: dict[str, Any] = {}
        notes: list[str] = []
        if free := [name for name in given if name not in fixed]:
            found = SearchResult(model.alpha, model.beta, math.nan, 0, reason=VOTELESS)
            if self.strength != 0:
                grids: dict[str, Any] = {f"{name}s": [v] for name, v in fixed.items()}
                found = model.search(**grids, seed=self.seed)
            at = " and ".join(f"{name} {getattr(found, name):g}" for name in free)
            notes = _unchosen(found.reason, at.replace(" ", " is ", 1) + ", Tip-Adapter's")
            told = {"tried": found.tried, "unchosen": found.reason}
            told["accuracy"] = found.accuracy if found.tried else None
        S = model.decision_function(X)
        return S, {"alpha": model.alpha, "beta": model.beta} | told, notes


def _unchosen(reason: str | None, kept: str) -> list[str]:
    return [] if reason is None else [f"{kept}: {reason}"]


def run_fewshot(
    images: str,
    output: Path | None,
    *,
    support: str,
    how: How,
    k: int,
    image_column: str | None,
    quiet: bool,
    options: Mapping[str, Any],
) -> None:
    """Arguments and labels first, then vectors, then the method, then rows of the other images."""
    start, counter = time.perf_counter(), Counter()
    with collect_warnings() as warned:
        how.check()
        if output is not None:
            check_output(output)
        taxonomy = read_taxonomy(options["classes"], lineage=options["lineage"])
        written = None if support == "folder" else read_labels(support, taxonomy)
        source = open_images(images, image_column=image_column)
        for text in source.warnings if isinstance(source, Source) else ():
            say(f"warning: {text}")
        keys = every_key(source)
        matched = _matched(keys, written, taxonomy, warned)
        how.check_labels(matched.labels)
        model = Classifier(recipe="ensemble", **options)
        with text_progress(quiet) as advance_texts:
            model.prepare(advance_texts, images=source)
        with progress_bar(counter, len(source), quiet) as advance:
            model.progress = advance
            given = model.gather(source)
        known, others = _parted(given, keys, matched)
        S, told, notes = how.answers(model._texts, known, others.batch.X)
        pipeline = model.fit_prepared().pipeline_
        table = scored_table(pipeline, others.embeddings, S, k=k)
        warned += notes
        about = _about(known, taxonomy) | {"labels_sha256": _fingerprint(keys, matched, taxonomy)}
        told = {"method": how.method, "support": support, **about, **told}
        if output is not None:
            counts = _counts(others, known, counter)
            record = run_record(
                encoder=model.encoder_,
                images={"root": source.root, "kind": getattr(source, "kind", "embeddings"),
                        "count": len(source)},
                counts=counts | {"rows": len(table)},
                seconds={"images": counter.seconds, "total": time.perf_counter() - start},
                warnings=warned,
                model=model,
                parameters={"k": k, "image_column": image_column, "seed": how.seed},
            )  # fmt: skip
            write_rows(table, output, record | {"fewshot": told})
    for text in notes:
        say(f"note: {text}")
    if output is None:
        _show(table)
    if not quiet:
        say(_said(told, others) + (f" -> {output}" if output else ""))


def _matched(
    keys: list[str], written: Mapping[str, str] | None, taxonomy: Taxonomy, warned: list[str]
) -> Matched:
    """Which images are labelled; both kinds must be there. A folder need not name a class."""
    notes, given = [], written
    if given is None:
        given, others = class_folders(folder_labels(keys, "--support"), taxonomy)
        if others:
            inside = f"{_n(sum(others.values()), 'image lies', 'images lie')} in folders that name"
            notes.append(f"{inside} no class, so without a label: {quoted(list(others))}")
    matched = match_labels(keys, given, taxonomy)
    if not matched.without:
        raise UsageError(
            "label the images that have no label",
            f"all {len(keys)} images have one",
            "Leave images out of --support; 'byname evaluate' scores a method.",
        )
    if written is not None and (unused := len(written) - len(matched.rows)) > 0:
        notes.append(f"{unused} of {_n(len(written), 'label')} are of no image here")
    for text in notes:
        say(f"note: {text}")
    warned += notes
    return matched


def _parted(given: Gathered, keys: list[str], matched: Matched) -> tuple[Support, Gathered]:
    """The labelled images, and the others with those of them that could not be read."""
    found = given.embeddings
    free, usable = set(matched.without), matched.of(keys, found.keys)
    lost = [key for key in found.errors if key not in free]
    if lost:
        say(f"warning: {_n(len(lost), 'labelled image')} could not be read: {quoted(lost, 3)}")
    if not len(usable.rows):
        raise UsageError("learn from labelled images", "none could be read", "Check the warnings.")
    rows = np.array([i for i, key in enumerate(found.keys) if key in free], np.intp)
    if not len(rows):
        seen = f"none of the {_n(len(free), 'image')} without a label could be read"
        raise UsageError("label the other images", seen, "Check the files.")
    others = given.take(rows)
    errors = {key: why for key, why in found.errors.items() if key in free}
    others = replace(others, embeddings=replace(others.embeddings, errors=errors))
    return Support(found.vectors[usable.rows], usable.labels, "labelled"), others


def _about(known: Support, taxonomy: Taxonomy) -> dict[str, Any]:
    counts = np.bincount(known.class_index, minlength=len(taxonomy)).tolist()
    pairs = zip(taxonomy.class_ids, counts, strict=True)
    return {"labelled": dict(pair for pair in pairs if pair[1])}


def _fingerprint(keys: list[str], matched: Matched, taxonomy: Taxonomy) -> str:
    """sha256 of the JSON list of pairs of file name and class id, by file name."""
    ids = taxonomy.class_ids
    pairs = [(keys[i], ids[k]) for i, k in zip(matched.rows, matched.labels, strict=True)]
    return hashlib.sha256(json.dumps(sorted(pairs)).encode()).hexdigest()


def _n(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _counts(others: Gathered, known: Support, counter: Counter) -> dict[str, int]:
    errors = len(others.embeddings.errors)
    return {
        "images": len(others) + errors,
        "errors": errors,
        "labelled": len(known.class_index),
        "encoded": counter.encoded,
    }


def _said(told: Mapping[str, Any], others: Gathered) -> str:
    settings = {n: told.get(n) for n in ("strength", "gamma", "alpha", "beta")}
    shown = ", ".join(f"{n} {v:g}" for n, v in settings.items() if v is not None)
    parts = [f"{_n(len(others), 'image')} by {told['method']}" + (f" ({shown})" if shown else "")]
    count, of = sum(told["labelled"].values()), _n(len(told["labelled"]), "class", "classes")
    parts.append(f"from {_n(count, 'labelled one')} of {of}")
    if errors := len(others.embeddings.errors):
        parts.append(f"{errors} could not be read (see the column 'error')")
    return ", ".join(parts)


def _show(table: pa.Table) -> None:
    columns = ("file_name", "rank", "label", "probability", "error")
    rows = table.slice(0, SHOWN).select(columns).to_pylist()
    print_table("", columns, [[row[c] for c in columns] for row in rows])
    if len(table) > SHOWN:
        say(f"... and {len(table) - SHOWN} more rows; write them with -o FILE")
