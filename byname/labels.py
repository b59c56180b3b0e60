"""True classes of images, for evaluation only: from a table, or from the folders they lie in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from byname.errors import UsageError, quoted
from byname.joins import FILE_COLUMNS, columns_of, file_key, join_names, read_table
from byname.names import bearers
from byname.taxonomy import Taxonomy, clean_text

__all__ = ["Matched", "class_folders", "folder_labels", "labels_of", "match_labels", "read_labels"]

_CLASS_COLUMNS = ("class_id", "label", "name", "class")
_LAST_COLUMN = "id"  # as often as not the number of the row


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

    def of(self, keys: Sequence[str], readable: Sequence[str]) -> Matched:
        """The same for those of the keys that could be read, by their places among these.

        Names are joined over all images: one that two share stays shared when one is unreadable.
        """
        place = {key: i for i, key in enumerate(readable)}
        pairs = [
            (place[keys[r]], k)
            for r, k in zip(self.rows, self.labels, strict=True)
            if keys[r] in place
        ]
        rows, labels = (np.array([p[i] for p in pairs], np.intp) for i in (0, 1))
        return Matched(rows, labels, tuple(key for key in self.without if key in place))


def read_labels(
    path: str | Path, taxonomy: Taxonomy | None = None, *, level: str | int | None = None
) -> dict[str, str]:
    """Class of each file in a CSV or TSV table, as text; empty cells are no label.

    The columns are ``file_name`` (or file, filename, image, path), and the first of ``class_id``,
    ``label``, ``name``, ``class``, all in any case; ``id`` counts only where there is none of them.

    Parameters
    ----------
    path : str or Path
    taxonomy : Taxonomy, optional
        Then the class columns must not contradict each other: see :func:`match_labels`.
    level : str or int, optional

    Raises
    ------
    UsageError
        For a file that cannot be read, lacks a column, or says two things of one image.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "l.csv").write_text("id,file_name,label\\n7,a.jpg,cat\\n")
    ...     read_labels(Path(folder, "l.csv"))
    {'a.jpg': 'cat'}
    """
    path = Path(path)
    asked = f"read the labels in '{path}'"
    names, rows = read_table(path, asked)
    file = columns_of(names, FILE_COLUMNS, asked)[0]
    known = _CLASS_COLUMNS if set(_CLASS_COLUMNS) & set(names) else (*_CLASS_COLUMNS, _LAST_COLUMN)
    values = columns_of(names, known, asked)
    value = values[0]
    found: dict[str, str] = {}
    for row in rows:
        if not row[file].strip() or not row[value].strip():
            continue
        key, label = file_key(row[file]), clean_text(row[value])
        if found.setdefault(key, label) != label:
            seen = f"'{key}' is '{found[key]}' and '{label}'"
            raise UsageError(asked, seen, "Give each image one class.")
    if not found:
        raise UsageError(asked, "it has no row with a file and a class", "Write one an image.")
    if taxonomy is not None:
        for other in values[1:]:
            pairs = [(file_key(r[file]), clean_text(r[value]), clean_text(r[other])) for r in rows]
            _check_agreement(pairs, (names[value], names[other]), taxonomy, level, asked)
    return found


def _check_agreement(
    rows: Sequence[tuple[str, str, str]],
    columns: tuple[str, str],
    taxonomy: Taxonomy,
    level: str | int | None,
    asked: str,
) -> None:
    """Of two columns that both name a class, neither may be believed where they differ."""
    ours = _places({row[1] for row in rows}, taxonomy, level)
    theirs = _places({row[2] for row in rows}, taxonomy, level)
    wrong = [
        row
        for row in rows
        if len(ours[row[1]]) == len(theirs[row[2]]) == 1 and ours[row[1]] != theirs[row[2]]
    ]
    if wrong:
        (one, two), (key, a, b) = columns, wrong[0]
        raise UsageError(
            asked,
            f"the columns '{one}' and '{two}' name different classes in {len(wrong)} of "
            f"{len(rows)} rows, first for '{key}': {one} {a!r} and {two} {b!r}",
            "Keep the column that is right, and rename or delete the other.",
        )


def folder_labels(keys: Sequence[str], option: str = "--labels") -> dict[str, str]:
    """The folder in which each image lies, as in ``images/<class>/a.jpg``; none at the top.

    ``option`` is the one by which the user can give a file in their place.

    Raises
    ------
    UsageError
        Where all images lie at the top.

    Examples
    --------
    >>> folder_labels(["cat/1.jpg", "2.jpg"])
    {'cat/1.jpg': 'cat'}
    """
    parents = {key: PurePosixPath(key).parent.name for key in keys}
    found = {key: clean_text(name) for key, name in parents.items() if name}
    if keys and not found:
        raise UsageError(
            "take the folders of the images as their labels",
            f"no image lies in a folder of its class (images: {quoted(keys, 3)})",
            f"Put each class into a folder of its own, or give {option} FILE.csv.",
        )
    return found


def class_folders(
    labels: Mapping[str, str], taxonomy: Taxonomy
) -> tuple[dict[str, str], dict[str, int]]:
    """The labels that name a class, or several; and the others, with how many images bear each.

    Raises
    ------
    UsageError
        Where none names a class.

    Examples
    --------
    >>> found = folder_labels(["cat/1.jpg", "new/2.jpg"])
    >>> class_folders(found, Taxonomy.from_names(["cat", "dog"]))
    ({'cat/1.jpg': 'cat'}, {'new': 1})
    """
    places = _places(set(labels.values()), taxonomy, None)
    kept = {key: label for key, label in labels.items() if places[label]}
    others = Counter(label for label in labels.values() if not places[label])
    if others and not kept:
        raise UsageError(
            "take the folders of the images as their labels",
            f"none of them names a class: {quoted(list(others), 3)}",
            f"Give them ids such as {taxonomy.class_ids[0]!r}, or names that one class bears.",
        )
    return kept, dict(others)


def labels_of(
    labels: str, keys: Sequence[str], taxonomy: Taxonomy, *, level: str | int | None = None
) -> Matched:
    """The images that a file of labels names, or, for ``"folder"``, that lie in folders of names.

    Parameters and errors as for :func:`read_labels` and :func:`match_labels`.
    """
    given = (
        folder_labels(keys) if labels == "folder" else read_labels(labels, taxonomy, level=level)
    )
    return match_labels(keys, given, taxonomy, level=level)


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
        A label is the id of a class, its name (in any case) where no other class bears it, or its
        path of ids or of names: the same as in a prompt file.
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
    joined = join_names(keys, labels)
    if not joined:
        raise UsageError(
            "join the images with their labels",
            f"none of the {len(keys)} images is among the {len(labels)} labels "
            f"(images: {quoted(keys, 3)}; labels: {quoted(list(labels), 3)})",
            "Names are relative to the folder of the images; base names will do if unique.",
        )
    places = _places(set(joined.values()), taxonomy, level)
    unknown = Counter(label for label in joined.values() if len(places[label]) != 1)
    if unknown:
        clash = [name for name in unknown if places[name]]
        raise UsageError(
            "use the labels",
            f"{unknown.total()} of {len(joined)} name no class: {quoted(list(unknown), 3)}"
            + (f"; several classes bear the name {quoted(clash, 3)}" if clash else ""),
            f"Labels are ids such as {taxonomy.class_ids[0]!r}, names that one class bears, or "
            "paths.",
        )
    order = [i for i, key in enumerate(keys) if key in joined]
    return Matched(
        rows=np.array(order, np.intp),
        labels=np.array([places[joined[keys[i]]][0] for i in order], np.intp),
        without=tuple(key for key in keys if key not in joined),
    )


def _places(
    labels: Collection[str], taxonomy: Taxonomy, level: str | int | None
) -> dict[str, list[int]]:
    """Classes, or groups of the level, that each label may mean; ids where all labels are ids."""
    trees = [(taxonomy, list(range(len(taxonomy))))]
    if level is not None:
        cut, index = taxonomy.cut(level)
        trees = [(taxonomy, index.tolist()), (cut, list(range(len(cut))))]
    place = {
        node_id: row
        for tree, rows in trees
        for node_id, row in zip(tree.class_ids, rows, strict=True)
    }
    if place.keys() >= set(labels):
        return {label: [place[label]] for label in labels}
    found: dict[str, set[int]] = {label: set() for label in labels}
    for tree, _ in trees:
        for label, ids in bearers(labels, tree).items():
            found[label] |= {place[node_id] for node_id in ids}
    return {label: sorted(rows) for label, rows in found.items()}
