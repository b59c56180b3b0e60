"""``byname diagnose``: which classes will fail, as a table or JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from byname.classifier import Classifier
from byname.commands import say_notes, with_extras
from byname.commands_evaluate import with_second
from byname.console import Counter, collect_warnings, progress_bar, say, text_progress
from byname.console import table as print_table
from byname.diagnose import Diagnosis, diagnose
from byname.errors import UsageError
from byname.images.sources import Source
from byname.inputs import open_images
from byname.recipes import get_recipe
from byname.taskfile import Task
from byname.taxonomy import Taxonomy

__all__ = ["run_diagnose"]

SHOWN = 20
COLUMNS = (
    "class",
    "cmm",
    "predicted share",
    "expected accuracy",
    "nearest confusions",
    "flag",
)
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
    as_json: bool,
    show_all: bool,
    image_column: str | None,
    quiet: bool,
    options: Mapping[str, Any],
) -> None:
    """Arguments first, then vectors, then the table. Labels of a task are not read."""
    _check_arguments(images, task, taxonomy, options)
    with collect_warnings():
        if task is not None:
            found, classes = _diagnose_task(task, taxonomy, options)
        else:
            found, classes = _diagnose_images(str(images), image_column, quiet, options)
    if as_json:
        print(json.dumps(found.to_dict(), indent=1, ensure_ascii=False, allow_nan=False))
        return
    _show(found, classes, SHOWN if not show_all else len(found.classes))


def _check_arguments(
    images: str | None, task: Path | None, taxonomy: str | None, options: Mapping[str, Any]
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
        return
    for name in ("classes", "encoder", "prompts", "templates", "lineage"):
        if options[name] is not None:
            option = f"--{name.removesuffix('s') if name == 'templates' else name}"
            raise UsageError(
                asked, f"{option} does not go with --task", "A task holds all vectors."
            )


def _diagnose_task(
    task: Path, taxonomy: str | None, options: Mapping[str, Any]
) -> tuple[Diagnosis, Taxonomy]:
    replaced = {stage: options[stage] for stage in ("weigh", "score", "refine")}
    recipe = get_recipe(options["recipe"], **replaced)
    held = with_second(Task.load(task, taxonomy=taxonomy, with_labels=False), options)
    texts = held.texts_for(recipe.prompts)
    words = ["--task", str(task)] + (["--taxonomy", taxonomy] if taxonomy else [])
    command = _command(words, options)
    return diagnose(texts, held.batch(), recipe, command=command), held.taxonomy


def _diagnose_images(
    images: str, image_column: str | None, quiet: bool, options: Mapping[str, Any]
) -> tuple[Diagnosis, Taxonomy]:
    source, counter = open_images(images, image_column=image_column), Counter()
    if isinstance(source, Source):
        for text in source.warnings:
            say(f"warning: {text}")
    model = Classifier(**with_extras(options))
    with text_progress(quiet) as advance_texts:
        model.prepare(advance_texts)
    model.extras_.match(source)
    with progress_bar(counter, len(source) * model.extras_.passes, quiet) as advance:
        model.progress = advance
        given = model.gather(source)
    say_notes(model, quiet)
    if given.embeddings.errors and not quiet:
        n = len(given.embeddings.errors)
        left = "1 image" if n == 1 else f"{n} images"
        say(f"warning: {left} could not be read: left out")
    words = [images] + (["--image-column", image_column] if image_column else [])
    command = _command(words, options)
    return model.diagnose(given, command=command), model.taxonomy_


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


def _show(found: Diagnosis, classes: Taxonomy, most: int) -> None:
    rows = []
    for class_id in (found.worst or tuple(found.classes))[:most]:
        one = found.classes[class_id]
        near = ", ".join(f"{classes.node(c.id).name} {c.share:.0%}" for c in one.confusions)
        cmm = f"{one.cmm:.4f}" if one.cmm is not None else "-"
        shares = (f"{one.predicted_share:.1%}", _percent(one.expected_accuracy))
        rows.append((one.name, cmm, *shares, near, one.flag))
    print_table("", COLUMNS, rows)
    if most < len(found.classes):
        say(f"... and {len(found.classes) - most} more classes; see them with --all or --json")
    first = {found.classes[i].flag: found.classes[i] for i in reversed(found.worst)}
    for flag, one in first.items():
        if flag:
            say(f"what to do about '{one.name}' ({flag}): {one.next}")
    for note in found.notes:
        say(f"note: {note}")
    images = "1 image" if found.n_images == 1 else f"{found.n_images} images"
    kinds = "1 class" if len(found.classes) == 1 else f"{len(found.classes)} classes"
    expected = f"expected accuracy {_percent(found.expected_accuracy)}, an estimate without labels"
    if found.expected_accuracy is None:
        expected = "no accuracy can be expected"
    say(f"{images}, {kinds}, recipe {found.recipe}: {expected}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
