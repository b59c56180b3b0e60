"""True classes of images, for evaluation only: from a table, or from the folders they lie in."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from byname.errors import UsageError
from byname.taxonomy import Taxonomy, clean_text

__all__ = ["Matched", "folder_labels", "match_labels", "read_labels"]

_FILE_COLUMNS = ("file_name", "file", "filename", "image", "path")
_ID_COLUMNS = ("class_id", "id")
_NAME_COLUMNS = ("label", "name", "class")


@dataclass(frozen=True)
class Matched:
    """Which images have a label, and which class it is.

    Parameters
    ----------
    rows : array of int, shape (n,)
        Places of the labelled images among the keys.
    labels : array of int, shape (n,)
        Classes of the taxonomy, or groups of its level.
    without : tuple of str
        Keys of images without a label, which are left out.
    """

    rows: NDArray[np.intp]
    labels: NDArray[np.intp]
    without: tuple[str, ...]


def read_labels(path: str | Path) -> dict[str, str]:
    """Class of each file in a CSV or TSV table, as text; empty cells are no label.

    The columns are ``file_name`` (or file, filename, image, path), and ``class_id`` (or id), else
    ``label`` (or name, class).

    Raises
    ------
    UsageError
        For a file that cannot be read, lacks a column, or says two things of one image.
    """
    path = Path(path)
    asked = f"read the labels in '{path}'"
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(asked, error.strerror or str(error), "Check the path.") from None
    except UnicodeDecodeError:
        raise UsageError(asked, "it is not UTF-8 text", "Give a .csv file in UTF-8.") from None
    header = text.partition("\n")[0]
    separator = max("\t;,", key=header.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        names = [name.strip() for name in next(lines, [])]
        rows = [row for row in lines if any(row)]
    except csv.Error as error:
        raise UsageError(asked, f"it is not a table ({error})", "Give a .csv file.") from None
    file = _column(names, _FILE_COLUMNS, asked)
    value = _column(names, (*_ID_COLUMNS, *_NAME_COLUMNS), asked)
    found: dict[str, str] = {}
    for row in rows:
        if max(file, value) >= len(row) or not row[file].strip() or not row[value].strip():
            continue
        key, label = _key(row[file]), clean_text(row[value])
        if found.setdefault(key, label) != label:
            seen = f"'{key}' is '{found[key]}' and '{label}'"
            raise UsageError(asked, seen, "Give each image one class.")
    if not found:
        raise UsageError(asked, "it has no row with a file and a class", "Write one an image.")
    return found


def _column(names: Sequence[str], wanted: Sequence[str], asked: str) -> int:
    for name in wanted:
        if name in names:
            return names.index(name)
    raise UsageError(
        asked,
        f"it has no column {' or '.join(wanted)} (its columns: {', '.join(names) or 'none'})",
        "The first line names the columns: file_name,class_id.",
    )


def _key(text: str) -> str:
    key = text.strip().replace("\\", "/")
    return key[2:] if key.startswith("./") else key


def folder_labels(keys: Sequence[str]) -> dict[str, str]:
    """The folder in which each image lies, as in ``images/<class>/a.jpg``; none at the top.

    Examples
    --------
    >>> folder_labels(["cat/1.jpg", "2.jpg"])
    {'cat/1.jpg': 'cat'}
    """
    parents = {key: PurePosixPath(key).parent.name for key in keys}
    return {key: clean_text(name) for key, name in parents.items() if name}


def match_labels(
    keys: Sequence[str],
    labels: Mapping[str, str],
    taxonomy: Taxonomy,
    *,
    level: str | int | None = None,
) -> Matched:
    """Join images with labels, and labels with classes.

    Parameters
    ----------
    keys : sequence of str
        File names of the images, relative to their folder.
    labels : mapping of str to str
        Class of each file: joined by the full relative name, else by the base name where no other
        file and no other label has it.
    taxonomy : Taxonomy
        A label is the id of a class, its name where no other class bears it, or its path.
    level : str or int, optional
        Labels become the groups of this level, and may be groups already.

    Raises
    ------
    UsageError
        Where no image has a label, or a label names no class.

    Examples
    --------
    >>> found = match_labels(["a.jpg", "b.jpg"], {"x/a.jpg": "dog"},
    ...                      Taxonomy.from_names(["cat", "dog"]))
    >>> found.rows.tolist(), found.labels.tolist(), found.without
    ([0], [1], ('b.jpg',))
    """
    joined = _join(keys, labels)
    if not joined:
        raise UsageError(
            "join the images with their labels",
            f"none of the {len(keys)} images is among the {len(labels)} labels "
            f"(images: {_some(keys)}; labels: {_some(list(labels))})",
            "Names are relative to the folder of the images; base names will do if unique.",
        )
    known = _class_index(taxonomy, level)
    unknown = Counter(label for label in joined.values() if known.get(label) is None)
    if unknown:
        clash = [name for name in unknown if name in known]
        raise UsageError(
            "use the labels",
            f"{unknown.total()} of {len(joined)} name no class: {_some(list(unknown))}"
            + (f"; several classes bear the name {_some(clash)}" if clash else ""),
            f"Labels are ids such as {taxonomy.class_ids[0]!r}, or names that one class bears.",
        )
    order = [i for i, key in enumerate(keys) if key in joined]
    return Matched(
        rows=np.array(order, np.intp),
        labels=np.array([known[joined[keys[i]]] for i in order], np.intp),
        without=tuple(key for key in keys if key not in joined),
    )


def _join(keys: Sequence[str], labels: Mapping[str, str]) -> dict[str, str]:
    joined = {key: labels[key] for key in keys if key in labels}
    rest = [key for key in keys if key not in joined]
    free = [name for name in labels if name not in joined]
    ours = Counter(PurePosixPath(key).name for key in keys)
    theirs = Counter(PurePosixPath(name).name for name in labels)
    by_base = {PurePosixPath(name).name: labels[name] for name in free}
    for key in rest:
        base = PurePosixPath(key).name
        if base in by_base and ours[base] == theirs[base] == 1:
            joined[key] = by_base[base]
    return joined


def _class_index(taxonomy: Taxonomy, level: str | int | None) -> dict[str, int | None]:
    """What may be written for a class, ids first; None for a name that several classes bear."""
    own = range(len(taxonomy))
    trees = [(taxonomy, list(own))]
    if level is not None:
        cut, index = taxonomy.cut(level)
        trees = [(taxonomy, index.tolist()), (cut, list(range(len(cut))))]
    found: dict[str, int | None] = {}
    for tree, place in trees:
        for k, node_id in enumerate(tree.class_ids):
            found.setdefault(node_id, place[k])
    for tree, place in trees:
        for k, node_id in enumerate(tree.class_ids):
            found.setdefault(tree.path_string(node_id), place[k])
        unique = tree.unique_names()
        for k, node in enumerate(tree.classes):
            found.setdefault(node.name, place[k] if unique.get(node.name) == node.id else None)
    return found


def _some(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(repr(n) for n in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
