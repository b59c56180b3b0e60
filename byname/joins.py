"""Tables that say something of files, and the join of their names with the images of a run."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from byname.errors import UsageError

__all__ = ["FILE_COLUMNS", "columns_of", "file_key", "join_names", "read_table"]

FILE_COLUMNS = ("file_name", "file", "filename", "image", "path")
MAX_ADDED = 50_000_000  # cells that the rows of a table may lack together
T = TypeVar("T")


def read_table(path: Path, asked: str) -> tuple[list[str], list[list[str]]]:
    """Names of the columns in lower case, and rows with a cell for each; empty rows are left out.

    Cells are separated by ",", ";" or tabs, whichever the header has most of. What is more than the
    header has is refused: most likely a text with a comma that should stand in quotes.

    Raises
    ------
    UsageError
        With ``asked``, for a file that cannot be read as UTF-8 text, or is no table.
    """
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
        names = [name.strip().lower() for name in next(lines, [])]
        rows, added = [], 0
        for row in lines:
            # A long header over short rows would need their product in memory.
            if (added := added + max(len(names) - len(row), 0)) > MAX_ADDED:
                seen = f"its rows lack most of the header's {len(names):,} cells"
                raise UsageError(asked, seen, "Give every row a cell for each column.")
            if any(row[len(names) :]):
                seen = f"line {lines.line_num} has {len(row)} cells, but the header {len(names)}"
                mark = "a tab" if separator == "\t" else f"'{separator}'"
                raise UsageError(asked, seen, f"Put a text that holds {mark} into quotes.")
            if any(row):
                rows.append((row + [""] * (len(names) - len(row)))[: len(names)])
        return names, rows
    except csv.Error as error:
        raise UsageError(asked, f"it is not a table ({error})", "Give a .csv file.") from None


def columns_of(
    names: Sequence[str], wanted: Sequence[str], asked: str, example: str = "file_name,class_id"
) -> list[int]:
    """Places of those of the wanted columns that there are, in the order of ``wanted``.

    Raises
    ------
    UsageError
        With ``asked``, where there is none; ``example`` is a header that would do.

    Examples
    --------
    >>> columns_of(["name", "file"], FILE_COLUMNS, "read it")
    [1]
    """
    found = [names.index(name) for name in wanted if name in names]
    if not found:
        raise UsageError(
            asked,
            f"it has no column {' or '.join(wanted)} (its columns: {', '.join(names) or 'none'})",
            f"The first line names the columns: {example}.",
        )
    return found


def file_key(text: str) -> str:
    r"""A file name as a table writes it, as a key.

    Examples
    --------
    >>> file_key(" .\\sub\\a.jpg ")
    'sub/a.jpg'
    """
    key = text.strip().replace("\\", "/")
    return key[2:] if key.startswith("./") else key


def join_names(keys: Sequence[str], given: Mapping[str, T]) -> dict[str, T]:
    """What is given of each key: by its full name, else by a base name unique on both sides.

    Both sides are all that there is: names that are left out because they cannot be read, say,
    would make others unique that are not.

    Examples
    --------
    >>> join_names(["a/1.jpg", "2.jpg"], {"1.jpg": "one", "b/2.jpg": "two", "c/2.jpg": "three"})
    {'a/1.jpg': 'one'}
    """
    joined = {key: given[key] for key in keys if key in given}
    rest = [key for key in keys if key not in joined]
    if not rest:
        return joined
    free = [name for name in given if name not in joined]
    ours = Counter(PurePosixPath(key).name for key in keys)
    theirs = Counter(PurePosixPath(name).name for name in given)
    by_base = {PurePosixPath(name).name: given[name] for name in free}
    for key in rest:
        base = PurePosixPath(key).name
        if base in by_base and ours[base] == theirs[base] == 1:
            joined[key] = by_base[base]
    return joined
