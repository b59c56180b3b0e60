"""``byname diagnose``: which classes will fail, as a table or JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.classifier import Classifier
from byname.commands_classify import opened_for, say_notes, with_extras
from byname.commands_evaluate import check_beside, with_second
from byname.console import (
    Counter,
    collect_warnings,
    progress_bar,
    say,
    steps,
    text_progress,
    working,
)
from byname.errors import UsageError
from byname.files import atomic_path
from byname.images.places import shown
from byname.images.sources import Source
from byname.labels import labels_of
from byname.progress import tell
from byname.provenance import run_record, versions
from byname.recipes import get_recipe
from byname.report.data import make_report
from byname.report.page import page
from byname.report.terminal import show
from byname.rows import check_output
from byname.runs.local import kept_until_written
from byname.study.subject import Subject
from byname.taskfile import Task

__all__ = ["run_diagnose"]

STUDIED = 50_000  # images that the checks look at, where vectors are too many for memory
# Options of the verb; --quiet, --json and --all do not change what is found.
DEFAULTS = {
    "classes": None,
    "lineage": None,
    "encoder": None,
    "recipe": "ensemble",
    "templates": None,
    "prompts": None,
    "allow_missing": False,
    "extra": None,
    "weigh": None,
    "score": None,
    "refine": None,
    "batch_size": 32,
    "threads": None,
    "device": "cpu",
    "precision": None,
    "cache": True,
}


def run_diagnose(
    images: str | None,
    *,
    task: Path | None,
    taxonomy: str | None,
    labels: str | None,
    with_labels: bool,
    output: Path | None,
    as_json: bool,
    show_all: bool,
    image_column: str | None,
    quiet: bool,
    options: Mapping[str, Any],
) -> None:
    """Arguments first, then vectors, then the report. Labels of a task are read only if asked."""
    _check_arguments(images, task, taxonomy, labels, with_labels, options)
    if output is not None:
        check_output(output, suffixes=(".html", ".json"))
    html = output is not None and output.suffix.lower() == ".html"
    if output is not None and not html:
        check_beside(output, task)
    with collect_warnings() as told, kept_until_written():
        if task is not None:
            with working(quiet):
                tell("read the task")
                subject, known, record = _of_task(task, taxonomy, with_labels, options)
        else:
            subject, known, record = _of_images(str(images), labels, image_column, quiet, options)
        with steps(quiet) as advance:
            report = make_report(
                subject,
                labels=known,
                title=f"{Path(shown(str(task or images))).name}, {subject.pipeline.recipe.name}",
                provenance=record | {"warnings": list(told)},
                thumbnails=html,
                advance=advance,
            )
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
    if output is not None:
        with working(quiet), atomic_path(output) as path:
            tell("write the report")
            path.write_text(page(report) if html else text, encoding="utf-8")
        if not quiet:
            say(f"wrote {output}")
    if as_json:
        print(text)
    elif output is None:
        show(report, every=show_all)


def _check_arguments(
    images: str | None,
    task: Path | None,
    taxonomy: str | None,
    labels: str | None,
    with_labels: bool,
    options: Mapping[str, Any],
) -> None:
    asked = "diagnose the classes"
    if (images is None) == (task is None):
        seen = "both images and a task were given" if task else "neither images nor a task is given"
        raise UsageError(asked, seen, "Give IMAGES with --classes, or --task F.npz.")
    if task is None:
        if options["classes"] is None:
            raise UsageError(asked, "no classes were given", "Add --classes FILE or a,b,c.")
        if taxonomy is not None:
            raise UsageError(asked, "--taxonomy is for tasks", "Put the tree into --classes.")
        if with_labels:
            seen = "--with-labels is for tasks, which may hold labels"
            raise UsageError(asked, seen, "Give --labels FILE.csv for images.")
        return
    if labels is not None:
        raise UsageError(asked, "--labels does not go with --task", "Say --with-labels.")
    for name in ("classes", "encoder", "prompts", "templates", "lineage"):
        if options[name] is not None:
            option = f"--{name.removesuffix('s') if name == 'templates' else name}"
            raise UsageError(
                asked, f"{option} does not go with --task", "A task holds all vectors."
            )


Found = tuple[Subject, NDArray[np.intp] | None, dict[str, Any]]


def _of_task(
    task: Path, taxonomy: str | None, with_labels: bool, options: Mapping[str, Any]
) -> Found:
    replaced = {stage: options[stage] for stage in ("weigh", "score", "refine")}
    recipe = get_recipe(options["recipe"], **replaced)
    held = with_second(Task.load(task, taxonomy=taxonomy, with_labels=with_labels), options)
    if with_labels and held.labels is None:
        asked = f"set the labels of '{task}' beside what is expected"
        raise UsageError(asked, "the task holds no labels", "Leave out --with-labels.")
    words = ["--task", str(task)] + (["--taxonomy", taxonomy] if taxonomy else [])
    command = _command(words, options)
    record = {"command": shlex.split(command), "task": str(task), "versions": versions()}
    return Subject.of_task(held, recipe, command=command), held.labels, record


def _of_images(
    images: str,
    labels: str | None,
    image_column: str | None,
    quiet: bool,
    options: Mapping[str, Any],
) -> Found:
    source, counter = opened_for(images, image_column), Counter()
    model = Classifier(**with_extras(options, images))
    with text_progress(quiet) as advance_texts:
        model.prepare(advance_texts)
    keys: list[str] = []
    if labels is not None:
        keys = [r.key for r in source.refs] if isinstance(source, Source) else list(source.keys)
    written = None if labels is None else labels_of(labels, keys, model.taxonomy_)
    model.extras_.match(source)
    passes, kept = model.extras_.passes, bool(options["cache"])
    with progress_bar(counter, len(source) * passes, quiet, kept) as advance:
        model.progress = advance
        given = model.gather(source)
    say_notes(model, quiet)
    if given.embeddings.errors and not quiet:
        n = len(given.embeddings.errors)
        left = "1 image" if n == 1 else f"{n} images"
        say(f"warning: {left} could not be read: left out")
    words = [images] + (["--image-column", image_column] if image_column else [])
    command = _command(words, options)
    with working(quiet):
        tell("answer the images")
        subject = Subject.of_classifier(model, given, command=command, source=source, most=STUDIED)
    known = None
    if written is not None:
        matched = written.of(keys, subject.keys)
        known = np.full(len(subject.keys), -1, np.intp)
        known[matched.rows] = matched.labels
    record = run_record(
        encoder=model.encoder_,
        images={"source": images, "unreadable": len(subject.errors)},
        counts={"images": subject.n_images},
        seconds={"images": counter.seconds},
        warnings=[],
        model=model,
    )
    return subject, known, record


def _command(words: list[str], options: Mapping[str, Any]) -> str:
    """The command of this run, quoted: every option that differs from its default."""
    made = ["byname", "diagnose", *words]
    for name, default in DEFAULTS.items():
        value = options[name]
        known = {"templates": "--template", "cache": "--no-cache", "extra": "--with"}
        option = known.get(name, f"--{name}")
        option = option.replace("_", "-")
        if value is None or value == default:
            continue
        if isinstance(value, bool):
            made.append(option)
        elif name in ("templates", "extra"):
            made += [word for one in value for word in (option, one)]
        else:
            made += [option, ",".join(value) if name == "lineage" else str(value)]
    return shlex.join(made)
