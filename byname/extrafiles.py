"""Files that say more of images: captions, probabilities over other classes, images of classes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byname.errors import BynameError, UsageError, quoted
from byname.files import names_folder, read_text
from byname.images.sources import Source, open_source
from byname.joins import FILE_COLUMNS, columns_of, file_key, read_table
from byname.names import bearers
from byname.npz import read_arrays
from byname.taxonomy import Taxonomy, clean_text

__all__ = ["ClassProbs", "SupportImages", "read_captions", "read_class_probs", "read_support"]

CAPTION_COLUMNS = ("caption", "text")
CLASS_COLUMNS = ("class_id", "label", "name", "class")
KINDS = ("generated", "pseudo", "labelled")
SUM_TOLERANCE = 0.02  # of probabilities that were kept as float16
_JSONL = 'Write a line an image: {"file_name": "a.jpg", "caption": "a cat on a mat"}.'
_NPZ = "Write probabilities (N, K0), names (K0,) and file_names (N,) with numpy.savez."


# -- captions


def read_captions(value: Any) -> dict[str, tuple[str, ...]]:
    """Texts that were said of each image, by its file name.

    Parameters
    ----------
    value : str, Path or mapping
        A CSV or TSV table with ``file_name`` and ``caption``, a JSONL file of such objects, or
        ``{file name: text or texts}``. An image may have several; empty ones are left out, and
        images may have none.

    Raises
    ------
    UsageError
        For a file that cannot be read, lacks a column, or holds no caption.

    Examples
    --------
    >>> read_captions({"a.jpg": "a cat", "b.jpg": ["a dog", "a lawn"]})
    {'a.jpg': ('a cat',), 'b.jpg': ('a dog', 'a lawn')}
    """
    if isinstance(value, Mapping):
        asked = "use the captions"
        pairs = [(str(k), _texts(texts, asked)) for k, texts in value.items()]
    else:
        path = Path(value)
        asked = f"read the captions in '{path}'"
        pairs = _jsonl(path, asked) if path.suffix.lower() == ".jsonl" else _caption_table(path)
    found: dict[str, list[str]] = {}
    for name, texts in pairs:
        if name.strip():
            own = found.setdefault(file_key(name), [])
            own += [clean_text(text) for text in texts if text.strip()]
    if not any(found.values()):
        raise UsageError(asked, "there is none with a file name and a text", "Give one an image.")
    return {name: tuple(texts) for name, texts in found.items()}


def _texts(value: Any, asked: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise UsageError(asked, f"one is {value!r:.60}", "A caption is a text, or a list of texts.")
    return list(texts)


def _caption_table(path: Path) -> list[tuple[str, list[str]]]:
    asked = f"read the captions in '{path}'"
    if path.suffix.lower() not in (".csv", ".tsv"):
        seen = f"its name ends in '{path.suffix}'"
        raise UsageError(asked, seen, "Give a .csv or .tsv table, or a .jsonl file.")
    names, rows = read_table(path, asked)
    example = "file_name,caption"
    file = columns_of(names, FILE_COLUMNS, asked, example)[0]
    text = columns_of(names, CAPTION_COLUMNS, asked, example)[0]
    return [(row[file], [row[text]]) for row in rows]


def _jsonl(path: Path, asked: str) -> list[tuple[str, list[str]]]:
    # splitlines() also splits at characters that may stand in a text, such as U+2028
    lines = read_text(path, UsageError, asked, _JSONL).split("\n")
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            pairs.append((str(item["file_name"]), _texts(item["caption"], asked)))
        except (ValueError, KeyError, TypeError, RecursionError, UsageError):
            seen = f"line {number} is no object with a file_name and a caption"
            raise UsageError(asked, seen, _JSONL) from None
    return pairs


# -- probabilities over other classes


@dataclass(frozen=True, eq=False)
class ClassProbs:
    """Probabilities (N, K0) of N files over K0 classes with these names."""

    probabilities: NDArray[np.float32]
    names: tuple[str, ...]
    rows: dict[str, int]


def read_class_probs(value: Any) -> ClassProbs:
    """What a classifier over other classes says of each image.

    Parameters
    ----------
    value : str, Path or tuple
        An ``.npz`` file with ``probabilities`` (N, K0), ``names`` (K0,) and ``file_names`` (N,);
        a Parquet file with ``file_name`` and a column of numbers for each class; or the three as a
        tuple.

    Raises
    ------
    UsageError
        For anything else, and for values that are no probabilities.

    Examples
    --------
    >>> read_class_probs(([[0.9, 0.1]], ["cat", "dog"], ["a.jpg"])).rows
    {'a.jpg': 0}
    """
    if isinstance(value, tuple) and len(value) == 3:
        asked, parts = "use the class probabilities", value
    elif isinstance(value, str | Path):
        path = Path(value)
        asked = f"read the class probabilities in '{path}'"
        parts = _parquet(path, asked) if path.suffix.lower() == ".parquet" else _npz(path, asked)
    else:
        seen = f"they are a {type(value).__name__}"
        raise UsageError("use the class probabilities", seen, _NPZ)
    try:
        P, names, files = np.asarray(parts[0]), *([str(x) for x in part] for part in parts[1:])
    except (ValueError, TypeError) as error:  # ragged lists, and what is no list
        raise UsageError(asked, str(error).splitlines()[0], _NPZ) from None
    if P.dtype.kind != "f" or P.shape != (len(files), len(names)) or not P.size:
        seen = f"{P.shape} values of type {P.dtype} for {len(files)} files and {len(names)} classes"
        raise UsageError(asked, seen, _NPZ)
    P = P.astype(np.float32)
    sums = P.sum(1, dtype=np.float64)
    if not (np.isfinite(sums).all() and P.min() >= 0 and sums.max() <= 1 + SUM_TOLERANCE):
        seen = f"values go down to {P.min():.3g} and rows sum to at most {sums.max():.3g}"
        raise UsageError(asked, seen, "Give probabilities: 0 or more, and 1 a row in all.")
    if "" in (cleaned := tuple(map(clean_text, names))):
        raise UsageError(asked, "a class has no name", _NPZ)
    rows: dict[str, int] = {}
    for i, name in enumerate(map(file_key, files)):
        if rows.setdefault(name, i) != i:
            raise UsageError(asked, f"the file '{name}' stands there twice", "Keep one row a file.")
    return ClassProbs(P, cleaned, rows)


def _npz(path: Path, asked: str) -> tuple[Any, Any, Any]:
    keys = ("probabilities", "names", "file_names")
    try:
        found = read_arrays(path, asked, keys, (), _NPZ)
    except BynameError as error:
        raise UsageError(asked, error.seen, error.do) from None
    for key in keys[1:]:
        if found[key].ndim != 1 or found[key].dtype.kind != "U":
            seen = f"'{key}' has the shape {found[key].shape} and the type {found[key].dtype}"
            raise UsageError(asked, seen, _NPZ)
    return found["probabilities"], found["names"], found["file_names"]


def _parquet(path: Path, asked: str) -> tuple[Any, Any, Any]:
    do = "It needs the column file_name, and one of numbers for each class, called as the class."
    try:
        table = pq.read_table(path)
        names = table.column_names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        seen = f"it cannot be read as Parquet ({(str(error) or 'OSError').splitlines()[0]:.100})"
        raise UsageError(asked, seen, do) from None
    classes = [n for n in names if pa.types.is_floating(table.schema.field(n).type)]
    holes = any(table[name].null_count for name in names)
    if "file_name" not in names or not classes or holes:
        seen = f"its columns are {quoted(names)}" + (", with gaps" if holes else "")
        raise UsageError(asked, seen, do)
    try:
        columns = [table[name].to_numpy() for name in classes]
        return np.stack(columns, axis=1), classes, table["file_name"].to_pylist()
    except ValueError as error:  # texts that are not UTF-8
        raise UsageError(asked, f"a column cannot be read ({error!s:.100})", do) from None


# -- images whose class is known, guessed or was asked for


@dataclass(frozen=True, eq=False)
class SupportImages:
    """Images with a class each, and what was said of some: ``rows`` by key of the source."""

    source: Source
    rows: dict[str, tuple[int, str]]
    kind: Literal["generated", "pseudo", "labelled"]
    given: str


def read_support(value: str | Path, taxonomy: Taxonomy) -> SupportImages:
    """Images of the classes, listed but not opened.

    Parameters
    ----------
    value : str or Path
        A folder with one sub-folder a class (its id, or a name that one class bears); or a CSV or
        TSV table with ``file_name``, ``class`` and perhaps ``caption``, whose files lie beside it
        or below the current folder. ``generated:``, ``pseudo:`` or ``labelled:`` before it says how
        the classes are known; without it they are ``generated``.
    taxonomy : Taxonomy

    Raises
    ------
    UsageError, SourceError
        Where there is no such image, or one of no class.
    """
    mark, _, rest = str(value).partition(":")
    kind, text = (mark, rest) if mark in KINDS else ("generated", str(value))
    path = Path(text)
    asked = f"use '{text}' as support"
    if names_folder(path):
        source = open_source(text)
        names = {ref.key: (ref.key.partition("/")[0] * ("/" in ref.key), "") for ref in source.refs}
    elif path.suffix.lower() in (".csv", ".tsv"):
        source, names = _support_table(path, asked)
    else:
        seen = "it is neither a folder nor a .csv or .tsv table"
        raise UsageError(asked, seen, "Give a folder with a sub-folder for each class.")
    places = {node_id: k for k, node_id in enumerate(taxonomy.class_ids)}
    found = bearers({clean_text(name) for name, _ in names.values()} - {""}, taxonomy)
    wrong = {name for name, ids in found.items() if len(ids) != 1}
    loose = [key for key, (name, _) in names.items() if not clean_text(name)]
    if wrong or loose:
        parts = [f"no single class is called {quoted(sorted(wrong), 3)}"] if wrong else []
        parts += [f"{len(loose)} images have no class ({quoted(loose, 3)})"] if loose else []
        do = f"Folders are called as the classes are, by id or by name: {taxonomy.class_ids[0]!r}."
        raise UsageError(asked, " and ".join(parts), do)
    rows = {key: (places[found[clean_text(n)][0]], text) for key, (n, text) in names.items()}
    return SupportImages(source, rows, cast(Any, kind), text)


def _support_table(path: Path, asked: str) -> tuple[Source, dict[str, tuple[str, str]]]:
    names, rows = read_table(path, asked)
    example = "file_name,class,caption"
    file = columns_of(names, FILE_COLUMNS, asked, example)[0]
    label = columns_of(names, CLASS_COLUMNS, asked, example)[0]
    said = [names.index(name) for name in CAPTION_COLUMNS if name in names][:1]
    given: dict[str, tuple[str, str]] = {}
    places: dict[str, str] = {}  # a file may be named in several ways
    for row in rows:
        if not row[file].strip():
            continue
        name = file_key(row[file])
        beside = path.parent / name
        place = str(beside if beside.exists() or not Path(name).exists() else Path(name))
        place = places.setdefault(os.path.realpath(place), place)
        told = (row[label], clean_text(row[said[0]]) if said else "")
        if given.setdefault(place, told) != told:
            raise UsageError(asked, f"'{name}' stands there twice", "Give each image one row.")
    if not given:
        raise UsageError(asked, "it has no row with a file", "Write one an image.")
    source = open_source(cast(Sequence[str], list(given)))
    by_path = {ref.path: ref.key for ref in source.refs}
    return source, {by_path[p]: told for p, told in given.items() if p in by_path}
