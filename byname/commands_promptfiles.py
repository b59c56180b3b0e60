"""What ``byname prompts import, export, check, merge`` and ``show`` do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from byname.console import collect_warnings, console, plain, say
from byname.console import table as print_table
from byname.encoders import load_encoder
from byname.errors import OutputError, PromptError, UsageError, quoted
from byname.files import names_file
from byname.moderation import Moderator, read_words
from byname.names import bearers
from byname.promptcheck import KINDS, Report, check, clean
from byname.promptset import PromptSet
from byname.promptset_export import export
from byname.promptset_formats import ReadPrompts, read_format
from byname.taxonomy import Taxonomy
from byname.taxonomy_io import read_taxonomy

__all__ = ["check_file", "export_file", "import_file", "merge_files", "show_file"]

ROWS = 30  # classes in the table of a check
CLASSES = 5  # classes that are shown where none is asked for
WIDTH = 300  # characters of a text that are shown


def import_file(
    path: Path,
    output: Path,
    *,
    format: str | None,
    classes: str | None,
    lineage: tuple[str, ...] | None,
    allow_missing: bool,
    ignore_extra: bool,
) -> None:
    """``byname prompts import``: another project's file as a prompt file of byname."""
    _check_output(output, (".json",), path, classes)
    with collect_warnings():
        taxonomy = None if classes is None else read_taxonomy(classes, lineage=lineage)
        read = read_format(
            path,
            taxonomy,
            format,
            allow_missing,
            ignore_extra=ignore_extra,
            on_guess=_tell_guess(path),
        )
        read.prompts.save(output)
    _tell_saved(read.prompts, output)
    _tell_ids(read, classes)


def export_file(
    path: Path,
    output: Path,
    *,
    format: str,
    source: str | None,
    by: str,
    classes: str | None,
    lineage: tuple[str, ...] | None,
) -> None:
    """``byname prompts export``: a prompt file for other programs and for readers."""
    _check_output(output, (), path, classes)
    with collect_warnings():
        read = _read(path, classes, lineage, source, "--from")
        export(read.prompts, read.taxonomy, output, format, by)
    _tell_saved(read.prompts, output)


def merge_files(
    paths: Sequence[Path],
    output: Path,
    *,
    mix: str,
    classes: str | None,
    lineage: tuple[str, ...] | None,
    format: str | None,
) -> None:
    """``byname prompts merge``: several files as one."""
    _check_output(output, (".json",), *paths, classes)
    if len(paths) < 2:
        raise UsageError("merge prompts", "one file was given", "Give two or more.")
    with collect_warnings():
        sets = [_read(path, classes, lineage, format, "--format") for path in paths]
        if classes is None:
            _check_same_classes(paths, sets)
        made = PromptSet.merge([read.prompts for read in sets], mix)  # type: ignore[arg-type]
        if classes is not None:
            known = [i for i in sets[0].taxonomy.class_ids if i in made.classes]
            made = made.model_copy(update={"classes": {i: made.classes[i] for i in known}})
        made.save(output)
    _tell_saved(made, output)


def _check_same_classes(paths: Sequence[Path], sets: Sequence[ReadPrompts]) -> None:
    """Without classes given, ids of byname files must not be mixed with slugs of names."""
    own = [read.format == "byname" for read in sets]
    ids = [set(read.prompts.classes) for read in sets]
    if any(own) and not all(own) and any(given != ids[0] for given in ids):
        other = paths[own.index(False)]
        raise UsageError(
            "merge prompts",
            f"'{other}' has names of classes where others have ids",
            "Give the classes with --classes.",
        )
    for path, given in zip(paths[1:], ids[1:], strict=True):
        if lone := ids[0] ^ given:
            say(
                f"warning: only one of '{paths[0]}' and '{path}' has texts for "
                f"{quoted(sorted(lone))}"
            )


def check_file(
    path: Path,
    *,
    classes: str | None,
    lineage: tuple[str, ...] | None,
    format: str | None,
    encoder: str | None,
    as_json: bool,
    words: Path | None,
    moderation_url: str | None,
    moderation_model: str,
    drop: Sequence[str],
    output: Path | None,
) -> None:
    """``byname prompts check``: what is wrong with the texts, and with ``output`` without it."""
    if output is not None:
        _check_output(output, (".json",), path, classes, words)
    listed = None if words is None else read_words(words)
    moderator = (
        None if moderation_url is None else Moderator(moderation_url, model=moderation_model)
    )
    with collect_warnings():
        read = _read(path, classes, lineage, format, "--format")
        model = None if encoder is None else load_encoder(encoder)
        try:
            report = check(
                read.prompts,
                read.taxonomy,
                count_tokens=None if model is None else model.count_tokens,
                context=None if model is None else model.info.context_length,
                words=listed,
                moderate=moderator,
                drop=drop,
            )
        finally:
            if moderator is not None:
                moderator.close()
            if model is not None:
                model.close()
        if as_json:
            about = {"file": str(path), "prompts_format": read.format}
            # Escapes only: nothing in a text can reach the terminal.
            print(json.dumps(report.as_dict(read.taxonomy) | about, indent=1))
        else:
            _print_report(report, read)
        if output is not None:
            _write_clean(read, report, output)
            _tell_ids(read, classes)


def _print_report(report: Report, read: ReadPrompts) -> None:
    counts = report.counts()
    n_texts = sum(report.texts.values())
    per_class: dict[str, Counter[str]] = {}
    urgent: Counter[str] = Counter()
    for found in report.findings:
        per_class.setdefault(found.class_id, Counter())[found.kind] += 1
        urgent[found.class_id] += found.action in ("drop", "cut")
    worst = sorted(per_class, key=lambda i: (-urgent[i], -per_class[i].total()))
    rows = [
        [read.taxonomy.node(i).name, report.texts[i], *(per_class[i][kind] for kind in counts)]
        for i in worst[:ROWS]
    ]
    if rows:
        heads = [kind.replace("_", " ") for kind in counts]
        print_table("", ["class", "texts", *heads], rows)
    if len(worst) > ROWS:
        console.print(f"and {len(worst) - ROWS} more classes", markup=False)
    totals = [
        [
            kind.replace("_", " "),
            sum(actions.values()),
            ", ".join(f"{action} {n}" for action, n in actions.items()),
            KINDS[kind],
        ]
        for kind, actions in counts.items()
    ]
    if totals:
        print_table("", ["finding", "texts", "cleaning", "what it is"], totals)
    told = f"texts: {n_texts}, classes: {len(report.texts)}, with findings: {len(per_class)}"
    console.print(told, markup=False)
    for line in report.not_checked:
        console.print(f"not checked: {line}", markup=False)
    for what, ids in (("no text to begin with", report.missing), ("no text left", report.emptied)):
        if ids:
            names = plain(quoted([read.taxonomy.node(i).name for i in ids]))
            console.print(f"{what}, {len(ids)} of {len(read.taxonomy)}: {names}", markup=False)


def _write_clean(read: ReadPrompts, report: Report, output: Path) -> None:
    made, done = clean(read.prompts, report), report.changed()
    made.save(output)
    say(f"texts: dropped {done['dropped']}, cut {done['cut']}, fixed {done['fixed']}")
    if report.emptied:
        say(
            f"warning: {len(report.emptied)} of {len(report.texts)} classes have no text left and "
            f"are not in the file: {quoted(report.emptied)}"
        )
    _tell_saved(made, output)


def show_file(
    path: Path,
    *,
    class_key: str | None,
    count: int,
    classes: str | None,
    lineage: tuple[str, ...] | None,
    format: str | None,
) -> None:
    """``byname prompts show``: where the texts come from, and some of them."""
    with collect_warnings():
        read = _read(path, classes, lineage, format, "--format")
    prompts, taxonomy = read.prompts, read.taxonomy
    told = prompts.summary()
    weights = {prompt.weight for given in prompts.classes.values() for prompt in given}
    facts: dict[str, Any] = {
        "format": read.format,
        "classes": told["classes"],
        "texts": told["texts"],
        "kinds": ", ".join(f"{kind} {n}" for kind, n in told["kinds"].items()),
        "weights": f"{min(weights):g} to {max(weights):g}" if weights else "",
        "pairs": len(prompts.pairs) or "",
        **prompts.provenance.model_dump(),
    }
    for key, value in facts.items():
        if value not in ("", None):
            text = value if isinstance(value, str) else json.dumps(value)
            console.print(_short(f"{key}: {text}"), markup=False)
    shown = list(prompts.classes)[:CLASSES]
    if class_key is not None:
        shown = [_chosen(class_key, prompts, taxonomy, path)]
    for class_id in shown:
        _print_texts(class_id, prompts, taxonomy, count)
    if class_key is None and len(prompts.classes) > CLASSES:
        more = len(prompts.classes) - CLASSES
        console.print(f"and {more} more classes; --class ID shows one", markup=False)


def _chosen(key: str, prompts: PromptSet, taxonomy: Taxonomy, path: Path) -> str:
    asked = f"show the class '{key}' of '{path}'"
    ids = bearers([key], taxonomy)[key]
    if len(ids) != 1:
        seen = f"it may be {quoted(ids)}" if ids else "there is no such class"
        raise PromptError(asked, seen, "Give an id, or a name that one class bears.")
    if ids[0] not in prompts.classes:
        raise PromptError(asked, "the file has no texts for it", "Choose another.")
    return ids[0]


def _print_texts(class_id: str, prompts: PromptSet, taxonomy: Taxonomy, count: int) -> None:
    name, given = taxonomy.node(class_id).name, prompts.classes[class_id]
    told = [(p.kind, p.about, p.weight, p.level if p.level >= 0 else "", p.text) for p in given] + [
        ("one-to-one", pair.b, 1.0, "", text)
        for pair in prompts.pairs
        if pair.a == class_id
        for text in pair.texts
    ]
    rows = [
        [i, kind, _short(about), f"{weight:g}", level, _short(text)]
        for i, (kind, about, weight, level, text) in enumerate(told[:count], 1)
    ]
    title = _short(name if name == class_id else f"{name} ({class_id})")
    print_table(title, ["", "kind", "about", "weight", "level", "text"], rows)
    if len(told) > count:
        console.print(f"and {len(told) - count} more texts; -n {len(told)} shows all", markup=False)


def _short(text: str) -> str:
    """One line that a terminal can show; what is left out is counted."""
    line = plain(" ".join(text[: 4 * WIDTH].split()))
    if len(line) <= WIDTH and len(text) <= 4 * WIDTH:
        return line
    return f"{line[:WIDTH]}… ({len(text):,} characters)"


def _read(
    path: Path,
    classes: str | None,
    lineage: tuple[str, ...] | None,
    format: str | None,
    option: str,
) -> ReadPrompts:
    """The texts of a file, also where some classes have none."""
    taxonomy = None if classes is None else read_taxonomy(classes, lineage=lineage)
    return read_format(path, taxonomy, format, partial=True, on_guess=_tell_guess(path, option))


def _tell_guess(path: Path, option: str = "--format") -> Callable[[str, str], None]:
    def tell(format: str, why: str) -> None:
        if format != "byname":
            say(f"'{path}': guessed {format}, because {why}; give {option} to be sure")

    return tell


def _tell_ids(read: ReadPrompts, classes: str | None) -> None:
    if classes is None and read.format != "byname":
        say("ids of the classes are made of the file's keys; --classes gives them those of yours")


def _check_output(path: Path, suffixes: tuple[str, ...], *inputs: str | Path | None) -> None:
    """An output that can be written, and that is none of the inputs, also not through a link."""
    if suffixes and path.suffix.lower() not in suffixes:
        raise OutputError(f"write '{path}'", "prompt files end in .json", "Rename it.")
    if not path.absolute().parent.is_dir():
        raise OutputError(
            f"write '{path}'", f"'{path.parent}' does not exist", "Make the folder first."
        )
    for given in inputs:
        if given is not None and names_file(path) and names_file(given) and path.samefile(given):
            raise OutputError(
                f"write '{path}'", f"it is the input '{given}'", "Give the output another name."
            )


def _tell_saved(made: PromptSet, path: Path) -> None:
    found = made.summary()
    texts, classes = found["texts"], found["classes"]
    say(f"{texts} text{'s' * (texts != 1)} of {classes} class{'es' * (classes != 1)} -> {path}")
