"""Put photos into a folder per class, by the rows of an output."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Literal

import pyarrow.compute as pc

from byname.cache import atomic_path
from byname.errors import OutputError, SourceError
from byname.rows import read_rows

__all__ = ["sort_photos"]

How = Literal["link", "hardlink", "copy"]
REJECTED = "_rejected"


def sort_photos(
    rows: Path, into: Path, *, images: Path | None = None, how: How = "link", by: str = "label"
) -> Counter[str]:
    """Link or copy every photo of an output into ``into/<class>/<file name>``.

    Parameters
    ----------
    rows : Path
        Output of ``byname classify``; only rank 1 is read.
    into : Path
        Created if needed. A file that is there already is left alone and counted as ``exists``.
    images : Path, optional
        Folder of the photos; by default the one named in ``<rows>.run.json``.
    how : {"link", "hardlink", "copy"}
        Symbolic links by default, which cost no space and leave the photos where they are.
    by : {"label", "id"}
        What the class folders are named after; two classes of one label get their ids added.

    Returns
    -------
    Counter
        Photos ``placed``, ``exists``, ``missing`` and ``unreadable`` (rows with an error).

    Raises
    ------
    OutputError
        For an unreadable output or a folder that cannot be made.
    SourceError
        When the photos' folder is unknown or absent.
    """
    table = read_rows(rows)
    root = images or _root(rows)
    if not root.is_dir():
        raise SourceError(f"sort the photos of '{rows}'", f"'{root}' is no folder", "Use --images.")
    columns = ["file_name", "class_id", "label", "decision", "error"]
    best = table.filter(pc.equal(table["rank"], 1)).select(columns).to_pylist()
    labels = {r["class_id"]: r["label"] or "" for r in best if not r["error"]}
    names = _folder_names(labels, by)
    counts: Counter[str] = Counter()
    for row in best:
        if row["error"]:
            counts["unreadable"] += 1
            continue
        folder = REJECTED if row["decision"] == "reject" else names[row["class_id"]]
        source = root / row["file_name"]
        target = into / folder / _inside(row["file_name"])
        if not os.path.isfile(source):  # noqa: PTH113 - Path's raises in a folder without access
            counts["missing"] += 1
        elif os.path.lexists(target):
            counts["exists"] += 1
        else:
            _place(source, target, how)
            counts["placed"] += 1
    return counts


def _place(source: Path, target: Path, how: How) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if how == "link":
            target.symlink_to(source.resolve())
        elif how == "hardlink":
            target.hardlink_to(source)
        else:
            with atomic_path(target) as temporary:
                shutil.copy2(source, temporary)
    except OSError as error:
        raise OutputError(
            f"put '{source.name}' into '{target.parent}'",
            error.strerror or str(error),
            "Choose another folder, or --how copy where links are not possible.",
        ) from None


def _root(rows: Path) -> Path:
    beside = rows.with_name(rows.name + ".run.json")
    try:
        record = json.loads(beside.read_text(encoding="utf-8"))
        if not (root := record["images"]["root"]):
            raise ValueError("no root")
        return Path(root)
    except (OSError, ValueError, KeyError, TypeError):
        raise SourceError(
            f"sort the photos of '{rows}'",
            f"'{beside.name}' does not name their folder",
            "Give it with --images FOLDER.",
        ) from None


def _folder_names(labels: dict[str, str], by: str) -> dict[str, str]:
    """A safe folder name for each class id, unique also where case does not count."""
    wanted = {i: _safe(i if by == "id" else name) for i, name in labels.items()}
    often = Counter(name.casefold() for name in (REJECTED, *wanted.values()))
    names: dict[str, str] = {}
    for i, name in sorted(wanted.items()):
        if often[name.casefold()] > 1:
            name = f"{name} ({_safe(i)})"
        # Ids may differ in characters that no folder name can have.
        taken, number = {n.casefold() for n in names.values()}, 2
        stem = name
        while name.casefold() in taken:
            name, number = f"{stem} {number}", number + 1
        names[i] = name
    return names


def _safe(name: str) -> str:
    """A class name as one path part: no separators, no leading dot, not empty, not too long."""
    text = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]+', "_", name).strip().lstrip(".").rstrip(". ")
    return text.encode()[:120].decode(errors="ignore") or "_"


def _inside(file_name: str) -> Path:
    """The file's relative place, with nothing that leads out of the class folder."""
    parts = [p for p in PurePosixPath(file_name).parts if p not in ("/", "..", ".")]
    return Path(*parts)
