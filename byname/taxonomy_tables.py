"""Tables (CSV, TSV) to taxonomies, by a column of parents or by one column a level.

As in :mod:`byname.taxonomy_formats`, no function knows a path.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from byname.errors import TaxonomyError
from byname.taxonomy import Taxonomy
from byname.taxonomy_formats import ASKED, Entry, assemble
from byname.taxonomy_nodes import clean_text, some

__all__ = ["table"]

_TABLE_HELP = "Columns: name, and optionally id or class_id, parent, aliases, description."
_KNOWN = ("id", "class_id", "name", "parent", "aliases", "description")
_FILES = {"file_name", "filename", "image_path"}  # of tables that name images
# Columns that say nothing about the classes themselves; "" is the index that pandas writes.
_BOOKKEEPING = {"", "index", "count", "n", "images", "split", "url", "source", "comment", "notes"}


def table(text: str, delimiter: str = ",", lineage: Sequence[str] | None = None) -> Taxonomy:
    """A table with a header: columns of ids and parents, or of lineages (root first).

    Examples
    --------
    >>> table("group,name\\nFruit,Kiwi\\nDairy,Milk\\n", lineage=("group", "name")).class_ids
    ('fruit.kiwi', 'dairy.milk')
    """
    header, rows = _rows(text, delimiter)
    said = _looks_like_labels(header, rows, lineage)
    missing = [c for c in (lineage or ("name",)) if c not in header]
    if missing:
        raise TaxonomyError(
            ASKED,
            f"there is no column {some(list(map(repr, missing)))}; the columns of the first line "
            f"are {', '.join(map(repr, header))}",
            f"Name the columns in the first line. {_TABLE_HELP}",
        )
    if not rows:
        raise TaxonomyError(ASKED, "there is no row below the header", "Give at least one class.")
    if lineage is None and "parent" in header:
        return _by_parents(rows, "id" in header or "class_id" in header, said)
    guessed, more = _guess_lineage(header, rows) if lineage is None else (lineage, [])
    said += more
    return _by_lineage(rows, guessed, said, named=lineage is not None or len(guessed) > 1)


_Rows = list[tuple[int, dict[str, str]]]


def _rows(text: str, delimiter: str) -> tuple[list[str], _Rows]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: _Rows = []
    line = 1
    try:
        for cells in reader:
            values = [clean_text(cell) for cell in cells]
            if not any(values):
                pass
            elif not header:
                header = [v.lower() if v.lower() in _KNOWN else v for v in values]
            elif len(values) != len(header):
                raise TaxonomyError(
                    ASKED,
                    f"line {line} has {len(values)} cells and the header has {len(header)}",
                    f"Put cells that contain {delimiter!r} into double quotes.",
                )
            else:
                rows.append((line, dict(zip(header, values, strict=True))))
            line = reader.line_num + 1
    except csv.Error as error:
        raise TaxonomyError(
            ASKED, f"line {line} is not CSV: {error}", 'Close each double quote; write " as "".'
        ) from None
    if repeated := {h for h, n in Counter(header).items() if h and n > 1}:
        raise TaxonomyError(
            ASKED, f"several columns are named {some(sorted(repeated))}", "Rename all but one."
        )
    return header, rows


def _entry(line: int, row: dict[str, str], name: str = "name", parent: int = -1) -> Entry:
    return Entry(
        name=row[name],
        parent=parent,
        id=row.get("id") or row.get("class_id") or "",
        aliases=row.get("aliases", ""),
        description=row.get("description", ""),
        where=f"line {line}",
    )


def _looks_like_labels(
    header: Sequence[str], rows: _Rows, lineage: Sequence[str] | None
) -> list[str]:
    """A table of images read as classes would make a class of every image."""
    file = next((column for column in header if column.lower() in _FILES), None)
    if file is None:
        return []
    seen = f"it has a column {file!r}: this looks like a table of labels, not of classes"
    columns = [*lineage] if lineage else ["parent", "name"]
    names = [tuple(row.get(column, "") for column in columns) for _, row in rows]
    if not {columns[-1]} <= set(header) or len(set(names)) < len(names):
        raise TaxonomyError(
            ASKED, seen, f"Give a table with a row a class; if this is one, delete {file!r}."
        )
    return [seen]


def _by_parents(rows: _Rows, has_ids: bool, said: Sequence[str]) -> Taxonomy:
    """Rows with a parent column; parents are ids, or names where there is no column of ids."""
    entries: list[Entry] = []
    parents: list[str] = []
    place: dict[str, list[int]] = {}
    several: list[str] = []
    for line, row in rows:
        entry = _entry(line, row)
        key = entry.id if has_ids else entry.name
        again = place.get(key, []) if has_ids and key else []
        if again and entry.name == entries[again[0]].name and row["parent"] != parents[again[0]]:
            several.append(key)
            continue
        place.setdefault(key, []).append(len(entries))
        entries.append(entry)
        parents.append(row["parent"])
    orphans = []
    for entry, text in zip(entries, parents, strict=True):
        parent = text
        if text not in place and ";" in text:
            several.append(entry.id or entry.name)
            parent = next(filter(None, map(str.strip, text.split(";"))), "")
        if not parent:
            continue
        if parent not in place:
            orphans.append(f"{entry.where}: {parent!r} of {entry.name!r}")
        elif not has_ids and len(place[parent]) > 1:
            raise TaxonomyError(
                ASKED,
                f"{entry.where} has the parent {parent!r}, a name that {len(place[parent])} rows "
                f"bear",
                "Add a column of ids and use them in the parent column.",
            )
        else:
            entry.parent = place[parent][0]
    if orphans:
        raise TaxonomyError(
            ASKED,
            f"parents that are not rows of the file ({some(orphans)})",
            f"Add a row for each, or use its {'id' if has_ids else 'name'} as written there.",
        )
    names = list(dict.fromkeys(several))
    more = [f"nodes with several parents, of which the first is used ({len(names)}): {some(names)}"]
    return assemble(entries, warnings=[*said, *(more if names else [])])


def _by_lineage(rows: _Rows, lineage: Sequence[str], said: list[str], *, named: bool) -> Taxonomy:
    """Rows with one column a level; inner nodes are told apart by their path of names."""
    *inner, leaf = lineage
    if empty := [c for c in inner if not any(row[c] for _, row in rows)]:
        raise TaxonomyError(
            ASKED, f"the column {some(empty)} is empty", "Leave it out of the lineage."
        )
    entries: list[Entry] = []
    place: dict[tuple[str, ...], int] = {(): -1}
    for line, row in rows:
        cells = [row[c] for c in inner]
        path = tuple(cells[: max((i + 1 for i, c in enumerate(cells) if c), default=0)])
        if "" in path:
            raise TaxonomyError(
                ASKED,
                f"line {line} has no {inner[path.index('')]!r}, but has a level below it",
                "Fill the levels from the root on.",
            )
        for depth in range(1, len(path) + 1):
            if path[:depth] not in place:
                place[path[:depth]] = len(entries)
                entries.append(
                    Entry(path[depth - 1], place[path[: depth - 1]], where=f"line {line}")
                )
        entries.append(_entry(line, row, leaf, place[path]))
    levels = list(lineage) if named else []
    if inner and sum(e.parent < 0 for e in entries) == 1:
        top = f"all classes are in {entries[0].name!r}, which becomes the root"
        said = [*said, f"{top}: there is no level {levels.pop(0)!r}"]
    return assemble(entries, levels=levels, warnings=said)


def _guess_lineage(header: Sequence[str], rows: _Rows) -> tuple[Sequence[str], list[str]]:
    """Columns that nest, coarse to fine, if there is only one way to see it; and what to say."""
    columns = {}
    for name in header:
        values = [row[name] for _, row in rows]
        if name in _KNOWN or name.lower() in _BOOKKEEPING or "" in values:
            continue
        if 1 < len(set(values)) < len(values) and not all(map(_is_number, values)):
            columns[name] = values
    if not columns:
        return ("name",), []
    order = sorted(columns, key=lambda c: len(set(columns[c])))
    for coarse, fine in pairwise(order):
        a, b = columns[coarse], columns[fine]
        if not len(set(a)) < len(set(b)) == len(set(zip(a, b, strict=True))):
            return ("name",), [
                f"no tree was made of the columns {', '.join(columns)}: {coarse} and {fine} do "
                "not nest; pass --lineage to choose"
            ]
    text = " > ".join([*order, "name"])
    said = f"lineage guessed: {text} (columns of the file); pass --lineage to choose"
    return (*order, "name"), [said]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
