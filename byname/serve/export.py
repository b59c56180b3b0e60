"""Corrections as a table that spreadsheets open without running anything."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

__all__ = ["inert", "table"]

COLUMNS = ("file_name", "class_id", "label", "predicted_class_id", "predicted_label")
IDS = (1, 3)  # columns that other programs compare
# A sign before such characters alone is a number or a word, and never a call.
_HARMLESS = re.compile(r"[+-]?[\w.: /-]*")


def inert(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: an apostrophe stands before its sign.

    Examples
    --------
    >>> inert("=1+1"), inert("cat"), inert(" @x")
    ("'=1+1", 'cat', "' @x")
    """
    risky = cell.lstrip().startswith(("=", "+", "-", "@")) or cell.startswith(("\t", "\r", "\n"))
    return f"'{cell}" if risky else cell


def table(rows: Iterable[Sequence[str]]) -> bytes:
    """CSV in UTF-8 of file name, id and name of the right class, id and name of the answered one.

    Names are made inert; an id stays what it is, unless it could be a formula that calls something.

    Examples
    --------
    >>> table([("a.jpg", "-1", "=cat", "dog", "dog")]).decode().splitlines()[1]
    "a.jpg,-1,'=cat,dog,dog"
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_id(cell) if at in IDS else inert(cell) for at, cell in enumerate(row)])
    return out.getvalue().encode("utf-8", "replace")


def _id(cell: str) -> str:
    return cell if _HARMLESS.fullmatch(cell) else inert(cell)
