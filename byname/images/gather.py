"""A source out of what was found: sorted, each key once, and what lies inside tars and tables."""

# Paths are text here: pathlib drops './' from names, and is slow for a million files.
# ruff: noqa: PTH100

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from byname.errors import SourceError
from byname.images.refs import IMAGE_EXTENSIONS, ImageRef, key_of, unicode_name
from byname.images.tables import index_table
from byname.images.tars import index_tar
from byname.images.urls import is_url, public_url
from byname.images.walk import Walk, extension, hidden

__all__ = ["TAKES", "Source", "finish", "from_tables", "from_tars", "with_packed"]

TAKES = (
    "Give a folder, an image, a glob in quotes, a list (.txt, .csv, .tsv, .parquet), a .tar or a "
    f".parquet with images. Images end in {' '.join(sorted(IMAGE_EXTENSIONS))}."
)


@dataclass(frozen=True)
class Source:
    """The images of one source.

    Parameters
    ----------
    refs : tuple of ImageRef
        Sorted by key in code point order; no two with the same key.
    root : str
        Absolute folder, URL, or a description for a person.
    kind : {"folder", "file", "glob", "list", "tar", "parquet"}
    warnings : tuple of str
        What was left out, and why.
    """

    refs: tuple[ImageRef, ...]
    root: str
    kind: str
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.refs)

    @property
    def by_place(self) -> bool:
        """Whether images lie inside large files, which are best read from begin to end.

        Examples
        --------
        >>> Source((), "shard.tar", "tar").by_place
        True
        """
        return self.kind in ("tar", "parquet")


def from_tars(
    tars: list[tuple[str, str]], asked: str, root: str, warnings: Iterable[str] = ()
) -> Source:
    """List the images inside tars. Of several, a bad one is a warning."""
    refs: list[ImageRef] = []
    notes, failed, others = list(warnings), [], 0
    for name, path in tars:
        prefix = f"{name}/" if name else ""
        try:
            members, damage, place = index_tar(path)
        except SourceError as error:
            failed.append(error)
            notes.append(f"the tar '{unicode_name(name)}' was left out: {error.seen}")
            continue
        if damage:
            notes.append(f"the tar '{unicode_name(name or path)}' is {damage}")
        for member, offset, length in members:
            member = re.sub(r"^(\./+)+", "", member)
            if extension(member) in IMAGE_EXTENSIONS and not any(map(hidden, member.split("/"))):
                refs.append(ImageRef(key_of(prefix + member), path, offset, length, *place))
            else:
                others += 1
    if not refs and len(failed) == len(tars):
        raise failed[0]
    if not refs:
        seen = "; ".join([f"no image is inside, only {others:,} other files", *notes])
        raise SourceError(asked, seen, TAKES)
    return finish(refs, root, "tar", notes)


def from_tables(
    tables: list[tuple[str, str]],
    root: str,
    image_column: str | None,
    warnings: Iterable[str] = (),
) -> Source:
    """List the images inside Parquet files. Of several, one without images is a warning."""
    refs: list[ImageRef] = []
    notes, failed = list(warnings), []
    for name, path in tables:
        try:
            table = index_table(path, image_column, name)
        except SourceError as error:
            failed.append(error)
            notes.append(f"the Parquet file '{unicode_name(name)}' was left out: {error.seen}")
            continue
        for row, key in enumerate(table.keys()):
            refs.append(ImageRef(key, path, row, -1, table.size, table.mtime_ns, table.inside))
    if len(failed) == len(tables):
        raise failed[0]
    if not refs:
        raise SourceError(f"list the images in '{unicode_name(root)}'", "it has no row", TAKES)
    return finish(refs, root, "parquet", notes)


def finish(refs: list[ImageRef], root: str, kind: str, notes: Iterable[str] = ()) -> Source:
    """Sort by key and drop repetitions: a key is one row of the output.

    Two names never share a key. A name that occurs twice in a tar stands for its first file.
    """
    refs.sort(key=attrgetter("key"))
    repeated, kept = 0, 0
    first = ""
    # In place, and keys compared with their neighbours: a copy of a million is not free.
    for ref in refs:
        if kept and refs[kept - 1].key == ref.key:
            repeated += 1
            first = first or ref.key
            # By place, so that it never depends on the order of a listing which one stays.
            refs[kept - 1] = min(refs[kept - 1], ref, key=attrgetter("path", "offset"))
        else:
            refs[kept] = ref
            kept += 1
    del refs[kept:]
    warnings = [unicode_name(note) for note in notes]
    if repeated:
        warnings.append(
            f"{repeated:,} entries repeat the name of an earlier one and were left out "
            f"(first: '{first}')"
        )
    if is_url(root):
        root = public_url(root)
    elif os.path.lexists(root):
        root = os.path.abspath(root)
    return Source(tuple(refs), unicode_name(root), kind, tuple(warnings))


def with_packed(walk: Walk) -> list[str]:
    """The warnings of a walk, and that tars beside images were not read."""
    if not walk.tars:
        return walk.warnings()
    return [*walk.warnings(), f"tars beside the images were not read: {len(walk.tars):,}"]
