"""Where taxonomies come from and go to: files, values of the command line, Python objects.

Formats by suffix: ``.txt`` (and any suffix not listed) one name a line; ``.csv`` and ``.tsv``
tables with a header; ``.json`` nested lists; ``.nwk``, ``.newick`` and ``.tree`` Newick.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from byname.errors import OutputError, TaxonomyError
from byname.files import guess_delimiter, write_text
from byname.progress import tell
from byname.taxonomy import Taxonomy
from byname.taxonomy_formats import nested, newick, plain_text
from byname.taxonomy_nodes import Node, some
from byname.taxonomy_tables import table

__all__ = ["parse_classes_argument", "read_taxonomy", "taxonomy_stats", "write_taxonomy"]

_TABLES = (".csv", ".tsv")
_NEWICK = (".nwk", ".newick", ".tree")
_SUFFIXES = (".txt", *_TABLES, ".json", *_NEWICK)
# Files that may well hold classes, but would be taken for a list of names.
_OTHER = {".jsonl", ".ndjson", ".parquet", ".xls", ".xlsx", ".yaml", ".yml", ".xml", ".pkl"}
_USE = f"Use one of {', '.join(_SUFFIXES)}."
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_taxonomy(
    source: str | os.PathLike[str] | Iterable[Any] | Mapping[str, Any] | Taxonomy,
    *,
    lineage: Sequence[str] | str | None = None,
) -> Taxonomy:
    """Make a taxonomy out of whatever holds classes.

    Parameters
    ----------
    source : Taxonomy, path, str, sequence or mapping
        A taxonomy is returned as it is. A path is read by its suffix; a text is understood as by
        :func:`parse_classes_argument`. A sequence holds names (or :class:`Node`); a mapping is
        ``{group: names}`` or ``{"name", "children"}``, to any depth.
    lineage : sequence of str or str with commas, optional
        For tables: the columns that make the tree, root first, the class name last.

    Raises
    ------
    TaxonomyError
        For anything that is not a usable taxonomy, with the file and line.

    Examples
    --------
    >>> read_taxonomy("Red Apple, Pear").class_ids
    ('red-apple', 'pear')
    >>> read_taxonomy({"fruit": ["kiwi", "plum"], "dairy": ["milk"]}).path("dairy.milk")
    ('dairy', 'dairy.milk')
    """
    tell("read the classes")
    if isinstance(source, str):
        return parse_classes_argument(source, lineage=lineage)
    if isinstance(source, os.PathLike):
        return _read_file(Path(source), _columns(lineage))
    if lineage is not None:
        raise _no_lineage("the classes given")
    if isinstance(source, Taxonomy):
        return source
    if isinstance(source, Mapping):
        return nested(source)
    if not isinstance(source, Iterable) or isinstance(source, bytes | set | frozenset):
        raise TaxonomyError(
            "read the classes",
            f"they are of type {type(source).__name__}",
            "Give names in an order, a path, a mapping or a Taxonomy.",
        )
    items: list[Any] = [item.item() if isinstance(item, np.generic) else item for item in source]
    if items and all(isinstance(item, Node) for item in items):
        return Taxonomy(items)
    return nested(items)


def parse_classes_argument(text: str, *, lineage: Sequence[str] | str | None = None) -> Taxonomy:
    """Understand a value of ``--classes``.

    A file of that name is read. Otherwise a value with a path separator or the suffix of a known
    format is an error, and anything else is a list of names, separated by commas (a name that
    contains a comma stands in double quotes).

    Raises
    ------
    TaxonomyError

    Examples
    --------
    >>> [n.name for n in parse_classes_argument('kiwi, "plum, blue"').classes]
    ['kiwi', 'plum, blue']
    """
    path = Path(text).expanduser() if text.startswith("~/") else Path(text)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError):  # a list of names too long, or too odd, for a path
        is_file = is_folder = False
    if not is_file and _URL.match(text):
        raise TaxonomyError(
            f"use {text!r} as classes", "it is a URL", "Download it first, and give the file."
        )
    separators = [s for s in (os.sep, os.altsep) if s and s in text]
    if is_file or separators or path.suffix.lower() in {*_SUFFIXES, *_OTHER}:
        return _read_file(path, _columns(lineage))
    if lineage is not None:
        raise _no_lineage(f"{text!r}, which is not a file")
    line = " ".join(text.splitlines())
    names = [n for n in map(str.strip, next(csv.reader([line], skipinitialspace=True), [])) if n]
    if not names:
        raise TaxonomyError(
            f"use {text!r} as classes", "it holds no name", "Give names (a,b,c) or a file."
        )
    taxonomy = Taxonomy.from_names(names)
    if not is_folder:
        return taxonomy
    said = f"{text!r} is also a folder here; it was read as the name of a class"
    return Taxonomy(taxonomy.nodes[1:], warnings=[said])


def _columns(lineage: Sequence[str] | str | None) -> tuple[str, ...] | None:
    if lineage is None:
        return None
    given = lineage.split(",") if isinstance(lineage, str) else lineage
    columns = tuple(c.strip() for c in given)
    if not columns or "" in columns or len(set(columns)) < len(columns):
        raise TaxonomyError(
            f"use the lineage {','.join(columns)!r}",
            "it is empty, or names a column twice",
            "Give columns, root first, such as group,coarse,name.",
        )
    return columns


def _no_lineage(what: str) -> TaxonomyError:
    return TaxonomyError(
        f"use a lineage with {what}",
        "a lineage names columns of a table",
        "Give a .csv or .tsv file, or leave the lineage out.",
    )


# -- files


def _read_file(path: Path, lineage: tuple[str, ...] | None) -> Taxonomy:
    asked = f"read the classes in '{path}'"
    suffix = path.suffix.lower()
    if lineage is not None and suffix not in _TABLES:
        raise _no_lineage(f"'{path}'")
    text = _decode(_bytes(path, asked), asked, path.name)
    try:
        return _reader(suffix, text, lineage)(text)
    except TaxonomyError as error:
        raise TaxonomyError(asked, error.seen, error.do) from None
    except RecursionError:
        raise TaxonomyError(
            asked, "its lists are nested too deeply", "Write the tree as .csv with parents."
        ) from None
    except ValueError as error:  # of json: not JSON, or a number with thousands of digits
        raise TaxonomyError(asked, f"it is not JSON: {error}", "Correct the file.") from None


def _reader(suffix: str, text: str, lineage: tuple[str, ...] | None) -> Callable[[str], Taxonomy]:
    if suffix == ".json":
        return lambda t: nested(json.loads(t, object_pairs_hook=_no_repeated_keys))
    if suffix in _NEWICK:
        return newick
    if suffix not in _TABLES:
        return plain_text
    return lambda t: table(t, guess_delimiter(t, suffix), lineage)


def _bytes(path: Path, asked: str) -> bytes:
    if path.suffix.lower() in _OTHER:
        raise TaxonomyError(asked, f"{path.suffix} is not a format for classes", _USE)
    try:
        if path.is_dir():
            raise TaxonomyError(asked, "it is a folder", "Give a file, or names (a,b,c).")
        return path.read_bytes()
    except FileNotFoundError:
        raise TaxonomyError(
            asked,
            "there is no such file",
            "Check the path; names that contain a '/' or end like a file go into a text file.",
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, TaxonomyError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise TaxonomyError(asked, reason, "Check the path and its permissions.") from None


def _decode(data: bytes, asked: str, name: str) -> str:
    """UTF-8 with or without a byte order mark, or an error that says how to get there."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            convert = f"iconv -f {encoding} -t UTF-8 '{name}' > new"
            raise TaxonomyError(asked, f"it is {encoding}, not UTF-8", f"Convert it: {convert}")
    if (at := data.find(b"\0")) >= 0:
        raise TaxonomyError(
            asked, f"it is not a text file (byte {at + 1} is NUL)", f"Give a text file. {_USE}"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start + (3 if data.startswith(codecs.BOM_UTF8) else 0)
        line = data.count(b"\n", 0, start) + 1
        raise TaxonomyError(
            asked,
            f"it is not UTF-8: byte {start + 1}, on line {line}, is 0x{data[start]:02x}",
            f"Convert it, for example: iconv -f WINDOWS-1252 -t UTF-8 '{name}' > new",
        ) from None
    if not text.strip():
        raise TaxonomyError(asked, "the file is empty", "Write at least one name into it.")
    return text


def _no_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        times = Counter(key for key, _ in pairs)
        twice = [repr(key) for key in made if times[key] > 1]
        raise TaxonomyError("read JSON", f"the key {some(twice)} stands twice", "Rename one.")
    return made


def write_taxonomy(taxonomy: Taxonomy, path: str | Path) -> None:
    """Write a file in the format of its suffix; whole or not at all.

    ``.csv`` and ``.tsv`` (id, parent, name, aliases, description) and ``.json`` keep everything
    but, in tables, the names of the levels. ``.nwk`` keeps the names and the tree, ``.txt`` the
    names of the classes.

    Raises
    ------
    OutputError
        For an unknown suffix, or a place that cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_taxonomy(Taxonomy.from_names(["a", "b"]), Path(folder, "t.nwk"))
    ...     Path(folder, "t.nwk").read_text()
    '(a,b);\\n'
    """
    path = Path(path)
    asked = f"write the classes to '{path}'"
    try:
        text = _render(taxonomy, path.suffix.lower(), asked)
    except RecursionError:
        raise OutputError(asked, "the tree is too deep for JSON", "Use .csv.") from None
    write_text(path, text, asked)


def _render(taxonomy: Taxonomy, suffix: str, asked: str) -> str:
    if suffix in _TABLES:
        buffer = io.StringIO(newline="")
        rows = taxonomy.to_records()
        delimiter = "," if suffix == ".csv" else "\t"
        writer = csv.DictWriter(buffer, list(rows[0]), delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return buffer.getvalue()
    if suffix == ".json":
        return json.dumps(_nested_dict(taxonomy), ensure_ascii=False, indent=1) + "\n"
    if suffix in _NEWICK:
        return _newick_text(taxonomy)
    if suffix != ".txt":
        raise OutputError(asked, f"{suffix or 'no suffix'!r} is not a known format", _USE)
    names = [node.name for node in taxonomy.classes]
    if comments := [name for name in names if name.startswith("# ")]:
        raise OutputError(asked, f"{some(comments)} would be read as a comment", "Use .csv.")
    return "\n".join(names) + "\n"


def _nested_dict(taxonomy: Taxonomy) -> dict[str, Any]:
    made: dict[str, dict[str, Any]] = {}
    for node in reversed(taxonomy.nodes):
        item: dict[str, Any] = {"id": node.id, "name": node.name}
        if node.aliases:
            item["aliases"] = list(node.aliases)
        if node.description:
            item["description"] = node.description
        if below := taxonomy.children(node.id):
            item["children"] = [made[child] for child in below]
        made[node.id] = item
    top = made[taxonomy.root.id]
    extra: dict[str, Any] = {"levels": list(taxonomy.levels)} if taxonomy.levels else {}
    given = [row["id"] for row in taxonomy.to_records()]
    if given != [node.id for node in taxonomy.nodes if node.id]:
        extra["given_order"] = given
    children = top.pop("children")
    return {**{k: v for k, v in top.items() if v}, **extra, "children": children}


def _newick_text(taxonomy: Taxonomy) -> str:
    parts: list[str] = []
    stack: list[tuple[str, str]] = [(taxonomy.root.id, "open")]
    while stack:
        node_id, what = stack.pop()
        below = taxonomy.children(node_id) if what == "open" else ()
        if below:
            parts.append("(")
            stack.append((node_id, "close"))
            for child in reversed(below):
                stack += [(child, "open"), (",", "text")]
            stack.pop()
        elif what == "text":
            parts.append(node_id)
        else:
            name = taxonomy.node(node_id).name
            quoted = "'" + name.replace("'", "''") + "'"
            parts += [")"] * (what == "close") + [name if name.isalnum() or not name else quoted]
    return "".join(parts) + ";\n"


def taxonomy_stats(taxonomy: Taxonomy) -> dict[str, Any]:
    """Numbers about a taxonomy, ready for JSON.

    ``nodes`` counts all nodes without a root that was not given; ``internal_nodes`` counts what is
    neither a class nor the root; ``lca_height_histogram`` counts the ordered pairs of classes,
    each with itself included, by the height of their lowest common ancestor.

    Examples
    --------
    >>> taxonomy_stats(Taxonomy.from_names(["a", "b", "c"]))["lca_height_histogram"]
    {'0': 3, '1': 6}
    """
    heights = taxonomy.heights
    n_children = np.bincount(taxonomy.parents[1:], minlength=len(heights))
    inner = heights > 0
    inner[0] = False
    alone = n_children[taxonomy.parents[taxonomy.leaf_index]] == 1
    depths, counts = np.unique(taxonomy.depths[taxonomy.leaf_index], return_counts=True)
    return {
        "leaves": len(taxonomy),
        "nodes": len(taxonomy.nodes) - (not taxonomy.root.id),
        "internal_nodes": int(inner.sum()),
        "height": taxonomy.height,
        "levels": list(taxonomy.levels),
        "leaf_depths": {str(d): int(c) for d, c in zip(depths, counts, strict=True)},
        "lca_height_histogram": _pairs_by_height(taxonomy),
        "duplicate_names": taxonomy.duplicates(),
        "single_child_chains": int((n_children[inner] == 1).sum()),
        "leaves_without_sibling": int(alone.sum()),
        "warnings": list(taxonomy.warnings),
        "fingerprint": taxonomy.fingerprint(),
    }


def _pairs_by_height(taxonomy: Taxonomy) -> dict[str, int]:
    """From the number of classes below each node: a (K, K) matrix is not needed for counts."""
    below = (taxonomy.heights == 0).astype(np.int64)
    pairs = np.zeros(len(below), np.int64)
    for i in range(len(below) - 1, -1, -1):
        pairs[i] += below[i] ** 2
        if i:
            parent = taxonomy.parents[i]
            below[parent] += below[i]
            pairs[parent] -= below[i] ** 2
    total = np.bincount(taxonomy.heights, weights=pairs).astype(np.int64)
    return {str(h): int(n) for h, n in enumerate(total) if n}
