"""Put photos into a folder per class, by the rows of an output."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pyarrow.compute as pc

from byname.errors import OutputError, SourceError, UsageError
from byname.files import atomic_path, parse_json, write_text
from byname.images.find import Finder
from byname.images.refs import ImageRef, unicode_name
from byname.images.urls import is_url, public_url
from byname.progress import counted
from byname.rows import read_rows

__all__ = ["sort_photos"]

How = Literal["link", "hardlink", "copy"]
Place = str | Path
REJECTED = "_rejected"
MANIFEST = ".byname-sorted.json"
MANIFEST_FORMAT = "byname-sorted/1"


def sort_photos(
    rows: Path, into: Path, *, images: Place | None = None, how: How = "link", by: str = "label"
) -> Counter[str]:
    """Link or copy every photo of an output into ``into/<class>/<file name>``.

    ``into/.byname-sorted.json`` lists what was placed. Where a photo now belongs into another
    folder than earlier, what was placed then is removed, if still as it was, and nothing else.

    Parameters
    ----------
    rows : Path
        Output of ``byname classify``; only rank 1 is read.
    into : Path
        Created if needed. A file that is there already is left alone and counted as ``exists``;
        where byname placed it for another photo, a hash is added to the name of this one.
    images : str or Path, optional
        The photos; by default what is named in ``<rows>.run.json``.
    how : {"link", "hardlink", "copy"}
        Symbolic links by default, which cost no space and leave the photos where they are.
    by : {"label", "id"}
        What the class folders are named after; two classes of one label get their ids added.

    Returns
    -------
    Counter
        Photos ``placed``, ``moved``, ``exists``, ``missing``, ``unreadable`` (rows with an error).

    Raises
    ------
    OutputError
        For an unreadable output or a folder that cannot be made.
    SourceError
        When the photos' folder is unknown or absent.
    UsageError
        For links to photos inside a tar.
    """
    best = _best(rows)
    find = _finder(rows, images)
    if find.packed and how != "copy":
        raise UsageError(
            f"sort the photos of '{rows}' by {how}",
            "they lie inside a file (tar, Parquet) or behind a URL, where no link can lead",
            "Use --how copy.",
        )
    targets = _targets([r for r in best if not r["error"]], by)
    counts = Counter(unreadable=len(best) - len(targets))
    placements = _Placements(into)
    try:
        for target, key in counted("photos placed", targets.items(), len(targets)):
            if (ref := find(key)) is None:
                counts["missing"] += 1
            elif os.path.lexists(into / (place := placements.place(ref, target))):
                counts["exists"] += 1
            else:
                _place(ref, into / place, how)
                old = placements.replace(ref, place, how, keep=targets)
                counts["moved" if old else "placed"] += 1
    finally:
        placements.save()
    return +counts


def _best(path: Path) -> list[dict[str, Any]]:
    table = read_rows(path)
    columns = ["file_name", "class_id", "label", "decision", "error"]
    rows: list[dict[str, Any]] = (
        table.filter(pc.equal(table["rank"], 1)).select(columns).to_pylist()
    )
    return rows


def _targets(rows: list[dict[str, Any]], by: str) -> dict[str, str]:
    """Each photo's place below the target folder, with its key."""
    folders = _folder_names({r["class_id"]: r["label"] or "" for r in rows}, by)
    names = _file_names([r["file_name"] for r in rows])
    places = [REJECTED if r["decision"] == "reject" else folders[r["class_id"]] for r in rows]
    return {f"{p}/{names[key]}": key for p, key in zip(places, names, strict=True)}


class _Placements:
    """What byname placed into a folder, and out of which files.

    Parameters
    ----------
    into : Path
        Its manifest is read; one that is damaged counts as empty, so that nothing is removed.
    """

    def __init__(self, into: Path) -> None:
        self._into, self._changed = into, False
        self._files: dict[str, dict[str, Any]] = {}
        try:
            found = parse_json((into / MANIFEST).read_bytes())
            if found["format"] == MANIFEST_FORMAT:
                self._files = {str(k): dict(v) for k, v in found["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._files = {}
        self._earlier: dict[str, list[str]] = {}
        for target, told in self._files.items():
            self._earlier.setdefault(str(told.get("source")), []).append(target)

    def place(self, ref: ImageRef, target: str) -> str:
        """The target, or a name beside it where the target was placed for another photo."""
        source, told = _identity(ref), self._files.get(target)
        path = self._into / target
        if told is None or told.get("source") == source or not os.path.lexists(path):
            return target
        with suppress(OSError):  # the same photo may have been moved or renamed
            if path.read_bytes() == ref.read():
                return target
        return _with_hash(target, source)

    def replace(self, ref: ImageRef, target: str, how: How, keep: dict[str, str]) -> bool:
        """Note a new placement; remove earlier ones of the photo, other than those in ``keep``."""
        source, removed = _identity(ref), False
        for old in self._earlier.get(source, ()):
            if old not in keep and self._is_ours(old, self._files.get(old, {})):
                with suppress(OSError):  # what cannot be removed stays listed
                    (self._into / old).unlink()
                    del self._files[old]
                    removed = True
        here = (self._into / target).lstat()
        self._files[target] = {"source": source, "how": how, "inode": here.st_ino}
        if how == "link":
            self._files[target]["link"] = _link(self._into / target)
        elif how == "copy":
            self._files[target] |= {"bytes": here.st_size, "mtime_ns": here.st_mtime_ns}
        self._changed = True
        return removed

    def _is_ours(self, target: str, told: dict[str, Any]) -> bool:
        """Whether a file is still what byname placed there, and not the only one of its kind."""
        path = self._into / target
        if PurePosixPath(target).is_absolute() or ".." in PurePosixPath(target).parts:
            return False
        try:
            # A class folder that became a link may lead to the photos themselves.
            if path.parent.resolve() != self._into.resolve() / PurePosixPath(target).parent:
                return False
            here = path.lstat()
            if told.get("how") == "link":
                return _link(path) == told.get("link")
        except OSError:
            return False
        if here.st_ino != told.get("inode") or path.is_symlink():
            return False
        if told.get("how") == "hardlink":
            return here.st_nlink > 1
        return [here.st_size, here.st_mtime_ns] == [told.get("bytes"), told.get("mtime_ns")]

    def save(self) -> None:
        """Write the manifest, if anything was placed."""
        if self._changed:
            path = self._into / MANIFEST
            text = json.dumps({"format": MANIFEST_FORMAT, "files": self._files}, indent=1)
            write_text(path, text + "\n", f"write '{path}'")


def _identity(ref: ImageRef) -> str:
    """A file, or a file in a tar, by a text that stays the same."""
    if is_url(ref.path):
        return f"{public_url(ref.path)}: {ref.key}"
    path = unicode_name(os.path.abspath(ref.path))  # noqa: PTH100 - may hold any bytes
    return path if ref.offset < 0 else f"{path}: {ref.key}"


def _link(path: Path) -> str:
    return unicode_name(os.fspath(path.readlink()))


def _place(ref: ImageRef, target: Path, how: How) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if how == "link":
            target.symlink_to(Path(ref.path).resolve())
        elif how == "hardlink":
            target.hardlink_to(ref.path)
        else:
            with atomic_path(target) as temporary:
                if ref.offset < 0 and not is_url(ref.path):
                    shutil.copy2(ref.path, temporary)
                else:
                    temporary.write_bytes(ref.read())
    except OSError as error:
        raise OutputError(
            f"put '{PurePosixPath(ref.key).name}' into '{target.parent}'",
            error.strerror or str(error),
            "Choose another folder, or --how copy where links are not possible.",
        ) from None


def _finder(rows: Path, images: Place | None) -> Finder:
    asked = f"sort the photos of '{rows}'"
    beside = rows.with_name(rows.name + ".run.json")
    try:
        record = parse_json(beside.read_bytes())
        told = record["images"]
        root, kind, folder = told["root"], told.get("kind", ""), record.get("folder", "")
        if not root or not all(isinstance(x, str) for x in (root, kind, folder)):
            raise ValueError("no root")
        column = record.get("parameters", {}).get("image_column")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        root = kind = folder = ""
        column = None
    if images is None and not root:
        raise SourceError(
            asked, f"'{beside.name}' does not name their folder", "Give it with --images FOLDER."
        )
    try:
        root, folder = (os.fspath(images), "") if images else (root, folder)
        return Finder(root, kind, folder, column if isinstance(column, str) else None)
    except SourceError as error:
        raise SourceError(asked, error.seen, "Use --images.") from None


def _file_names(keys: list[str]) -> dict[str, str]:
    """The place of each photo inside its class folder, with nothing that leads out of it.

    Of an absolute path it is the base name. Where two photos would get one place, whatever their
    classes, a hash of the key is added, so that none is lost.
    """
    found: dict[str, str] = {}
    for key in keys:
        path = PurePosixPath(key)
        parts = [p for p in path.parts if p not in ("/", "..", ".")]
        outside = path.is_absolute() or Path(key).is_absolute()
        found[key] = "/".join(parts[-1:] if outside else parts)
    often = Counter(name.casefold() for name in found.values())
    for key, name in found.items():
        if often[name.casefold()] > 1:
            found[key] = _with_hash(name, key)
    return found


def _with_hash(name: str, of: str) -> str:
    place = PurePosixPath(name)
    mark = blake2b(of.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return place.with_name(f"{place.stem}-{mark}{place.suffix}").as_posix()


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
