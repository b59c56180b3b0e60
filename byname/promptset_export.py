"""Prompt sets as files for other programs and for readers: CuPL JSON, CSV, JSONL, HTML.

Texts come from people and models. In each form they stay text: no formula, no markup, and no
character that hides or reorders what stands around it.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from byname.errors import OutputError, PromptError, quoted
from byname.files import write_text
from byname.names import name_path
from byname.promptpage import prompt_page
from byname.promptset import UNSEEN, PromptSet, safe_json
from byname.taxonomy import Taxonomy

__all__ = ["By", "ExportFormat", "export"]

ExportFormat = Literal["cupl", "csv", "html", "jsonl"]
By = Literal["name", "path", "id"]
COLUMNS = ("class_id", "name", "kind", "about", "weight", "level", "text")
_BROKEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)
_FORMULA = frozenset("=+-@＝＋－＠")  # full-width signs are taken for the usual ones


def export(
    prompts: PromptSet, taxonomy: Taxonomy, path: str | Path, format: str = "", by: str = "name"
) -> None:
    """Write a prompt set in a form that others read.

    Parameters
    ----------
    prompts : PromptSet
    taxonomy : Taxonomy
        With every class of the set; classes without texts are left out.
    path : str or Path
    format : {"cupl", "csv", "jsonl", "html"}, optional
        ``cupl``: JSON ``{class: [texts]}``. ``csv``: a row a text; a cell that begins with one of
        ``= + - @``, tab or carriage return gets an apostrophe in front, so that no spreadsheet
        takes it for a formula, and control characters become U+FFFD. ``jsonl``: an object a text.
        ``html``: one page without scripts. "" goes by the suffix, ``.json`` being ``cupl``.
    by : {"name", "path", "id"}
        Keys of ``cupl``.

    Raises
    ------
    PromptError
        For classes that share a key or have the id of another as theirs, and classes that the
        taxonomy does not have.
    OutputError
        For an unknown format, and where the file cannot be written.

    Warns
    -----
    UserWarning
        For kinds, weights, levels, templates, pairs and provenance, which CuPL's format cannot
        hold.

    Examples
    --------
    >>> import json, tempfile
    >>> taxonomy = Taxonomy.from_names(["cat"])
    >>> prompts = PromptSet.from_templates(taxonomy, ["a {}"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(prompts, taxonomy, Path(folder, "p.json"), "cupl")
    ...     json.loads(Path(folder, "p.json").read_text())
    {'cat': ['a cat']}
    """
    path = Path(path)
    asked = f"export the prompts to '{path}'"
    chosen = _chosen(path, format, by, asked)
    known = set(taxonomy.class_ids)
    named = [*prompts.classes, *(i for pair in prompts.pairs for i in (pair.a, pair.b))]
    if unknown := [class_id for class_id in dict.fromkeys(named) if class_id not in known]:
        raise PromptError(asked, f"there are no classes {quoted(unknown)}", "Give their classes.")
    if chosen == "cupl":
        text = _cupl(prompts, taxonomy, by, asked)
    elif chosen == "csv":
        text = _csv(prompts, taxonomy)
    elif chosen == "jsonl":
        text = "".join(safe_json(row) + "\n" for row in _rows(prompts, taxonomy))
    else:
        text = prompt_page(prompts, taxonomy)
    write_text(path, text, asked)


def _chosen(path: Path, format: str, by: str, asked: str) -> str:
    suffix = path.suffix.lower().removeprefix(".")
    chosen = format or {"json": "cupl", "htm": "html"}.get(suffix, suffix)
    if chosen not in get_args(ExportFormat):
        raise OutputError(
            asked,
            f"there is no format '{chosen}'" if chosen else "neither suffix nor format is given",
            f"Formats: {', '.join(get_args(ExportFormat))}.",
        )
    if by not in get_args(By):
        raise OutputError(asked, f"there are no keys '{by}'", f"Keys: {', '.join(get_args(By))}.")
    return chosen


def _cupl(prompts: PromptSet, taxonomy: Taxonomy, by: str, asked: str) -> str:
    keys: dict[str, list[str]] = {}
    for class_id in prompts.classes:
        key = class_id if by == "id" else taxonomy.node(class_id).name
        keys.setdefault(name_path(taxonomy, class_id) if by == "path" else key, []).append(class_id)
    if clashes := {key: ids for key, ids in keys.items() if len(ids) > 1}:
        key, ids = next(iter(clashes.items()))
        raise PromptError(
            asked,
            f"several classes have the key {key!r}: {quoted(ids)}"
            + (f"; and {len(clashes) - 1} more keys" if len(clashes) > 1 else ""),
            "Give --by id" + (", or --by path where the paths differ." if by == "name" else "."),
        )
    # Read back, a key that is an id means that class, whatever it is the name of.
    known = set(taxonomy.class_ids)
    if taken := [key for key, ids in keys.items() if key in known and key != ids[0]]:
        raise PromptError(
            asked,
            f"the {by} {taken[0]!r} of the class {keys[taken[0]][0]!r} is the id of another class"
            + (f"; and {len(taken) - 1} more" if len(taken) > 1 else ""),
            "Give --by id.",
        )
    if told := _lost(prompts):
        warnings.warn(f"CuPL's format holds no {', '.join(told)}: left out", stacklevel=3)
    made = {key: prompts.texts(ids[0]) for key, ids in keys.items()}
    return safe_json(made, indent=1) + "\n"


def _lost(prompts: PromptSet) -> list[str]:
    """What ``{class: [texts]}`` cannot hold, with counts."""
    texts = [prompt for given in prompts.classes.values() for prompt in given]
    counts = {
        "kinds": sum(prompt.kind != "text" for prompt in texts),
        "what texts are about": sum(bool(prompt.about) for prompt in texts),
        "weights": sum(prompt.weight != 1 for prompt in texts),
        "levels": sum(prompt.level >= 0 for prompt in texts),
        "templates": sum(prompt.template >= 0 for prompt in texts),
        "pairs": len(prompts.pairs),
    }
    told = [f"{name} ({count})" for name, count in counts.items() if count]
    origin = prompts.provenance.model_dump(exclude_defaults=True)
    # What an import notes, the name of the file and its format, is no loss.
    if set(origin) - {"generator", "imported_as"} or (origin and "imported_as" not in origin):
        told.append("provenance")
    return told


def _rows(prompts: PromptSet, taxonomy: Taxonomy) -> Iterator[dict[str, Any]]:
    """A dictionary a text; texts of pairs come last, ``about`` being the other class."""
    for class_id, given in prompts.classes.items():
        name = taxonomy.node(class_id).name
        for prompt in given:
            yield {"class_id": class_id, "name": name, **prompt.model_dump()}
    for pair in prompts.pairs:
        name = taxonomy.node(pair.a).name
        fixed = {"kind": "one-to-one", "about": pair.b, "weight": 1.0, "template": -1, "level": -1}
        for text in pair.texts:
            yield {"class_id": pair.a, "name": name, "text": text, **fixed}


def _csv(prompts: PromptSet, taxonomy: Taxonomy) -> str:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    table.writerow(COLUMNS)
    for row in _rows(prompts, taxonomy):
        table.writerow(_cell(row[column]) for column in COLUMNS)
    return out.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        return value
    first = UNSEEN.sub("", value).lstrip()[:1]  # spreadsheets skip space
    formula = first in _FORMULA or value.startswith(("\t", "\r"))
    return ("'" if formula else "") + _BROKEN.sub("\ufffd", value)
