"""Corrections as a table that spreadsheets open without running anything."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

__all__ = ["inert", "table"]

COLUMNS = ("file_name", "class_id", "label", "predicted_class_id")


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
    """CSV in UTF-8 of file name, class id, label, and the class id that was answered.

    Examples
    --------
    >>> table([("a.jpg", "cat", "=cat", "dog")]).decode().splitlines()[1]
    "a.jpg,cat,'=cat,dog"
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([inert(cell) for cell in row])
    return out.getvalue().encode("utf-8", "replace")
