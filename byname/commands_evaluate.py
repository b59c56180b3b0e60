"""``byname evaluate``: recipes against labelled images, as a table."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from byname import metrics
from byname.classifier import Classifier
from byname.commands import with_extras
from byname.console import Counter, collect_warnings, progress_bar, say, steps, text_progress
from byname.console import table as print_table
from byname.embeddings import Embeddings
from byname.encoders import load_encoder
from byname.errors import OutputError, UsageError
from byname.evaluate import Contender, evaluate, evaluate_images, parse_recipes, prepare_models
from byname.files import atomic_path
from byname.gathered import Gathered, parse_with
from byname.images.sources import Source
from byname.inputs import as_embeddings, open_images
from byname.labels import folder_labels, match_labels, read_labels
from byname.progress import bars_are_welcome
from byname.provenance import versions
from byname.rows import check_output, write_record
from byname.scoring import Table, baseline_of, check_baseline, check_metrics
from byname.stage import Batch
from byname.taskfile import Task
from byname.taxonomy_io import read_taxonomy
from byname.textvectors import inputs_of

__all__ = ["render", "run"]

SUFFIXES = (".json", ".csv", ".md")
LEVELS = ("severity", "hd", "depth")  # metrics counted in levels of the tree
PLAIN = ("nll", "brier")  # metrics that are no percentage


def run(
    images: str | None,
    output: str | None,
    *,
    task: Path | None,
    taxonomy: str | None,
    labels: str | None,
    recipes: str | Mapping[str, Contender],
    metric_names: str,
    image_column: str | None,
    quiet: bool,
    scoring: Mapping[str, Any],
    options: Mapping[str, Any],
    show: bool = True,
) -> Table:
    """Arguments first, then vectors, then answers, then scores."""
    start = time.perf_counter()
    _check_arguments(images, task, taxonomy, labels, options)
    path = Path(output) if output not in (None, "-") else None
    if path is not None:
        check_output(path, suffixes=SUFFIXES)
        check_beside(path, task)
    contenders, names = parse_recipes(recipes), check_metrics(metric_names)
    check_baseline(scoring["baseline"], contenders)

    shared, level = dict(scoring), options["level"]
    with collect_warnings() as warned:
        if task is not None:
            held = with_second(Task.load(task, taxonomy=taxonomy), options)
            about: dict[str, Any] = {
                "source": str(task),
                "images": len(held.images),
                "left_out": {},
                "classes": len(held.taxonomy if level is None else held.taxonomy.cut(level)[0]),
            }
            with _recipes(len(contenders), quiet) as progress:
                table = evaluate(held, contenders, names, level=level, progress=progress, **shared)
        else:
            assert images is not None
            assert labels is not None
            table, about = _images(
                images, labels, contenders, names, image_column, quiet, options, shared
            )
    about |= {"baseline": _baseline(table, scoring["baseline"])}
    about |= {"draws": scoring["draws"], "seed": scoring["seed"]}
    if path is not None:
        _write(table, names, about, path)
        write_record(path, _record(about, contenders, time.perf_counter() - start, warned))
    elif output == "-":
        print(render(table, names, about, ".csv"), end="")
    elif show:
        _show(table, names)
    for name, row in table.items():
        if "skipped" in row and not (quiet and output):
            say(f"{name} was skipped: {row['skipped']}")
    if not quiet:
        say(_said(about) + (f" -> {path}" if path else ""))
    return table


def _check_arguments(
    images: str | None,
    task: Path | None,
    taxonomy: str | None,
    labels: str | None,
    options: Mapping[str, Any],
) -> None:
    if (images is None) == (task is None):
        seen = "neither images nor --task" if task is None else "both images and --task"
        raise UsageError("evaluate", f"{seen} were given", "Give one of them.")
    if task is not None:
        given = {"--labels": labels, "--classes": options.get("classes")}
        given |= {f"--{name}": options.get(name) for name in ("prompts", "encoder")}
        given["--template"] = options.get("templates")
        extra = [name for name, value in given.items() if value]
        if extra:
            seen = f"{', '.join(extra)} cannot be used with --task"
            raise UsageError("evaluate", seen, "A task brings its labels, classes and texts.")
        return
    if taxonomy is not None:
        raise UsageError("evaluate", "--taxonomy belongs to --task", "Give the tree as --classes.")
    if labels is None or options.get("classes") is None:
        lacks = " and ".join(
            name
            for name, value in (("--classes", options.get("classes")), ("--labels", labels))
            if value is None
        )
        raise UsageError(
            "evaluate images",
            f"{lacks} is missing",
            "Give --classes FILE and --labels FILE.csv (file_name,class_id), or --labels folder "
            "where each image lies in a folder named after its class.",
        )


def with_second(task: Task, options: Mapping[str, Any]) -> Task:
    """The task with the vectors of another one where ``--with second=B.npz`` names it."""
    given = parse_with(options.get("extra") or ())
    if not given:
        return task
    second = Path(given.get("second", ""))
    if set(given) != {"second"} or second.suffix.lower() != ".npz":
        seen = f"--with {' --with '.join(f'{kind}={value}' for kind, value in given.items())}"
        do = "With --task there is second=OTHER.npz alone; other inputs go into the task file."
        raise UsageError("use a further input with --task", f"{seen} was given", do)
    other = Task.load(second, with_labels=False)
    return task.with_second(other)


def check_beside(path: Path, task: Path | None) -> None:
    """Refuse an output that the next run would read as the taxonomy of the task."""
    if task is None or path.suffix.lower() == ".md":
        return
    if path.with_suffix("").resolve() == task.with_suffix("").resolve():
        seen = f"'{task}' would be read with it as its taxonomy, as a file of the same name"
        raise OutputError(f"write '{path}'", seen, "Choose another name or folder.")


def _images(
    images: str,
    labels: str,
    contenders: Mapping[str, Contender],
    names: Sequence[str],
    image_column: str | None,
    quiet: bool,
    options: Mapping[str, Any],
    shared: Mapping[str, Any],
) -> tuple[Table, dict[str, Any]]:
    taxonomy, level = (
        read_taxonomy(options["classes"], lineage=options["lineage"]),
        options["level"],
    )
    written = None if labels == "folder" else read_labels(labels, taxonomy, level=level)
    source = open_images(images, image_column=image_column)
    classes = taxonomy if level is None else taxonomy.cut(level)[0]
    keys = [r.key for r in source.refs] if isinstance(source, Source) else list(source.keys)
    given = folder_labels(keys) if written is None else written
    every = match_labels(keys, given, taxonomy, level=level)  # wrong labels are found first
    encoder = load_encoder(options["encoder"], device=options["device"], threads=options["threads"])
    made = with_extras({**options, "classes": taxonomy, "lineage": None, "encoder": encoder})
    with text_progress(quiet) as advance_texts:
        models = prepare_models(contenders, made, advance_texts)
    gathered = _gather(source, models, made, quiet)
    found = gathered.embeddings
    matched = every.of(keys, found.keys)
    kept = gathered.take(matched.rows)
    about = {
        "source": images,
        "encoder": encoder.info.id,
        "images": len(kept),
        "left_out": {"unreadable": len(found.errors), "unlabelled": len(matched.without)},
        "classes": len(classes),
    }
    if made["extra"]:
        about["extra"] = made["extra"].record()
    with _recipes(len(models), quiet) as progress:
        table = evaluate_images(kept, matched.labels, models, names, progress=progress, **shared)
    return table, about


@contextmanager
def _recipes(number: int, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A bar over the recipes; where no bar can be seen, a line for each."""
    begun = 0
    with steps(quiet) as advance:

        def progress(recipe: str) -> None:
            nonlocal begun
            if not quiet and not bars_are_welcome():
                say(f"recipe {recipe}")
            advance(f"recipe {recipe}", begun, number)
            begun += 1

        yield progress


def _gather(
    source: Source | Embeddings,
    models: Mapping[str, Classifier | str],
    options: Mapping[str, Any],
    quiet: bool,
) -> Gathered:
    """The images, read once for all recipes, with what any of these looks at."""
    usable = [model for model in models.values() if isinstance(model, Classifier)]
    passes = usable[0].extras_.passes if usable else 1
    kept = bool(options["cache"])
    with progress_bar(Counter(), len(source) * passes, quiet, kept) as advance:
        how = {"batch_size": options["batch_size"], "cache": options["cache"]}
        if not usable:
            found = as_embeddings(source, options["encoder"], progress=advance, **how)
            return Gathered(found, Batch(found.vectors))
        wanted = [names for model in usable for names in inputs_of(model.recipe_)]
        usable[0].progress = advance
        return usable[0].gather(source, frozenset[str]().union(*wanted))


def _baseline(table: Table, wanted: str | None) -> str | None:
    return baseline_of((name for name, row in table.items() if "skipped" not in row), wanted)


def _said(about: Mapping[str, Any]) -> str:
    parts = [f"{about['images']} images, {about['classes']} classes"]
    parts += [f"{n} {why} left out" for why, n in about["left_out"].items() if n]
    parts.append(f"baseline {about['baseline']}")
    return ", ".join(parts)


def _record(
    about: Mapping[str, Any],
    contenders: Mapping[str, Contender],
    seconds: float,
    warned: Sequence[str],
) -> dict[str, Any]:
    return {
        "format": "byname-evaluation/1",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["byname", *sys.argv[1:]],
        "versions": versions(),
        **about,
        "floor": {"hm": metrics.FLOOR, "gm": metrics.FLOOR},
        "recipes": {
            name: {"stages": c.recipe.stages(), "prompt_file": c.origin}
            for name, c in contenders.items()
        },
        "seconds": round(seconds, 3),
        "warnings": list(warned),
    }


# -- the table in its three forms


def render(table: Table, names: Sequence[str], about: Mapping[str, Any], suffix: str) -> str:
    """The table as text: ``.json`` and ``.csv`` hold fractions, ``.md`` per cent."""
    if suffix == ".json":
        return json.dumps(table, indent=1, ensure_ascii=False) + "\n"
    if suffix == ".csv":
        return _csv(table, names)
    lines = ["| " + " | ".join(["recipe", *map(_title, names)]) + " |"]
    lines.append("|" + "---|" * (len(names) + 1))
    for recipe, row in table.items():
        if "skipped" in row:
            cells = [f"skipped: {row['skipped']}", *[""] * (len(names) - 1)]
        else:
            cells = [_cell(name, row[name]) for name in names]
        shown = (cell.replace("|", "\\|").replace("*", "\\*") for cell in [recipe, *cells])
        lines.append("| " + " | ".join(shown) + " |")
    notes = [f"{_said(about)}; intervals: percentiles of {about['draws']} draws of images."]
    if any(row.get(n, {}).get("floored") for row in table.values() for n in ("hm", "gm")):
        notes.append(f"Classes without a right answer count {metrics.FLOOR} in hm and gm.")
    return "\n".join([*lines, "", " ".join(notes), ""])


def _csv(table: Table, names: Sequence[str]) -> str:
    differ = any("difference" in x for row in table.values() for x in row.values() if x != row)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    parts = ["", "_low", "_high"]
    if differ:
        parts += ["_difference", "_difference_low", "_difference_high"]
    writer.writerow(["recipe", *(name + part for name in names for part in parts), "skipped"])
    for recipe, row in table.items():
        cells: list[Any] = [recipe]
        for name in names:
            entry = row.get(name, {})
            both = [entry, entry.get("difference", {})] if differ else [entry]
            cells += [e.get(key) for e in both for key in ("value", "low", "high")]
        writer.writerow([*cells, row.get("skipped")])
    return buffer.getvalue()


def _in_levels(name: str) -> bool:
    return name.startswith(LEVELS)


def _title(name: str) -> str:
    return f"{name} (levels)" if _in_levels(name) else name if name in PLAIN else f"{name} %"


def _number(name: str, value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    if _in_levels(name) or name in PLAIN:
        return f"{value:{sign}.3f}"
    return f"{100 * value:{sign}.2f}"


def _cell(name: str, entry: Mapping[str, Any]) -> str:
    def shown(e: Mapping[str, Any], sign: str = "") -> str:
        low, high = _number(name, e["low"], sign), _number(name, e["high"], sign)
        return _number(name, e["value"], sign) + (f" [{low}, {high}]" if low != "-" else "")

    text = shown(entry) + ("*" if entry.get("floored") else "")
    return text + (f"; {shown(entry['difference'], '+')}" if "difference" in entry else "")


def _write(table: Table, names: Sequence[str], about: Mapping[str, Any], path: Path) -> None:
    text = render(table, names, about, path.suffix.lower())
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise OutputError(
            f"write '{path}'", error.strerror or str(error), "Choose another place."
        ) from None


def _show(table: Table, names: Sequence[str]) -> None:
    """One line a metric: recipes are few, metrics many."""
    done = {name: row for name, row in table.items() if "skipped" not in row}
    rows = [[_title(name), *(_cell(name, row[name]) for row in done.values())] for name in names]
    if done:
        print_table("", ["metric", *done], rows)
    if any(row[name].get("floored") for row in done.values() for name in names):
        say(f"* with the floor {metrics.FLOOR} for classes without a right answer")
