"""Prompt sets as files for other programs and for readers: CuPL JSON, CSV, JSONL, HTML.

Texts come from people and models. In each form they stay text: no formula, no markup, and no
character that hides or reorders what stands around it.
"""

from __future__ import annotations

import csv
import io
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from byname.errors import OutputError, PromptError, quoted
from byname.files import write_text
from byname.names import name_path
from byname.promptpage import prompt_page
from byname.promptset import PromptSet
from byname.taxonomy import Taxonomy

__all__ = ["By", "ExportFormat", "export"]

ExportFormat = Literal["cupl", "csv", "html", "jsonl"]
By = Literal["name", "path", "id"]
COLUMNS = ("class_id", "name", "kind", "about", "weight", "level", "text")
# Characters that no reader sees but that change what is seen: control characters, Unicode line
# ends, marks and overrides of direction, zero-width ones. In JSON they can be written as escapes.
_UNSEEN = re.compile(
    "[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
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
        For classes that share a key, and classes that the taxonomy does not have.
    OutputError
        For an unknown format, and where the file cannot be written.

    Warns
    -----
    UserWarning
        For weights, levels and pairs, which CuPL's format cannot hold.

    Examples
    --------
    >>> import tempfile
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


def safe_json(value: Any, indent: int | None = None) -> str:
    """JSON in readable Unicode, with escapes for the characters that a reader cannot see.

    Examples
    --------
    >>> print(safe_json({"é": "a\\u202eb\\u2028"}))
    {"é": "a\\u202eb\\u2028"}
    """
    return _UNSEEN.sub(_escape, json.dumps(value, ensure_ascii=False, indent=indent))


def _escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


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
    texts = [prompt for given in prompts.classes.values() for prompt in given]
    lost = {
        "weights": sum(prompt.weight != 1 for prompt in texts),
        "levels": sum(prompt.level >= 0 for prompt in texts),
        "pairs": len(prompts.pairs),
    }
    if told := [f"{name} ({count})" for name, count in lost.items() if count]:
        warnings.warn(f"CuPL's format holds no {', '.join(told)}: left out", stacklevel=3)
    made = {key: prompts.texts(ids[0]) for key, ids in keys.items()}
    return safe_json(made, indent=1) + "\n"


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
    first = _UNSEEN.sub("", value).lstrip()[:1]  # spreadsheets skip space
    formula = first in _FORMULA or value.startswith(("\t", "\r"))
    return ("'" if formula else "") + _BROKEN.sub("\ufffd", value)
