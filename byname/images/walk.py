"""Walk through folders for images, safe against link loops and unreadable folders."""

# Paths are text here: pathlib drops './' from names, and is slow for a million files.
# ruff: noqa: PTH116, PTH122

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from byname.images.refs import IMAGE_EXTENSIONS, ImageRef, make_ref, unicode_name

__all__ = ["Walk", "extension", "hidden"]

_PHOTOS_NOT_READ = (
    *(".heic", ".heif", ".svg", ".psd", ".jxl"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),
)


def extension(name: str) -> str:
    """Lower-case extension with its dot, or an empty text."""
    return os.path.splitext(name)[1].lower()


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over."""
    return name.startswith(".") or name == "__MACOSX"


@dataclass
class Walk:
    """A walk, and what it met beside images.

    Parameters
    ----------
    others : Counter
        Files of other kinds, by extension.
    tars, tables : list of (key, path)
        Tars, and Parquet files.
    trouble : list of str
        Folders that could not be read.
    """

    others: Counter[str] = field(default_factory=Counter)
    tars: list[tuple[str, str]] = field(default_factory=list)
    tables: list[tuple[str, str]] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    def images(self, folder: str, prefix: str = "") -> Iterator[ImageRef]:
        """Yield all images below a folder, in no particular order.

        Raises
        ------
        OSError
            Where the folder itself cannot be read; for one below it, ``trouble`` says so.
        """
        todo: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(folder, prefix, frozenset())]
        while todo:
            folder, prefix, above = todo.pop()
            try:
                here = os.stat(folder)
                identity = (here.st_dev, here.st_ino)
                if identity in above:  # a link that leads back to a folder around it
                    continue
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if hidden(entry.name):
                            continue
                        key = prefix + entry.name
                        if _is_folder(entry):
                            todo.append((entry.path, key + "/", above | {identity}))
                        elif extension(entry.name) in IMAGE_EXTENSIONS:
                            yield make_ref(key, entry.path, entry)
                        else:
                            self.add_other(key, entry.path)
            except OSError as error:
                if not above:
                    raise
                name = unicode_name(prefix.rstrip("/"))
                why = error.strerror or type(error).__name__
                self.trouble.append(f"the folder '{name}' was left out: {why}")

    def add_other(self, key: str, path: str) -> None:
        """Count a file that is no image."""
        suffix = extension(key)
        self.others[suffix] += 1
        if suffix == ".tar":
            self.tars.append((key, path))
        elif suffix == ".parquet":
            self.tables.append((key, path))

    def warnings(self) -> list[str]:
        """What a user would otherwise miss without a word."""
        unread = [f"{self.others[s]:,} {s}" for s in _PHOTOS_NOT_READ if self.others[s]]
        if not unread:
            return self.trouble
        kinds = ", ".join(unread)
        return [*self.trouble, f"left out, as no kind that can be read: {kinds}; export as JPEG"]

    def no_images(self) -> str:
        """Say what was found instead of images."""
        total = sum(self.others.values())
        seen = "no file is there"
        if total:
            kinds = [f"{n:,} {s or 'without extension'}" for s, n in self.others.most_common(6)]
            more = ", ..." if len(self.others) > 6 else ""
            seen = f"no image is there, only {total:,} other file{'s' * (total > 1)}"
            seen += f" ({', '.join(kinds)}{more})"
        return "; ".join([seen, *self.trouble[:3]])


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
