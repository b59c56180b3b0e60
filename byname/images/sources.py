"""Where images come from: a folder, one file, a glob, a list file, tars, or a sequence of paths.

A listing never opens an image. What is wrong with one file (missing, unreadable, a pipe) is found
when it is read, and becomes one row with an error; what is wrong with the source as a whole is a
``SourceError`` before any work starts.
"""

# Paths are text here: pathlib drops './' from names, and is slow for a million files.
# ruff: noqa: PTH100, PTH111, PTH112, PTH114, PTH116, PTH118, PTH119, PTH120, PTH207

from __future__ import annotations

import difflib
import glob
import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import attrgetter

from byname.errors import SourceError
from byname.images.lists import LIST_EXTENSIONS, read_list
from byname.images.refs import (
    IMAGE_EXTENSIONS,
    MAX_FILE_BYTES,
    ImageRef,
    key_of,
    kind_of,
    make_ref,
    name_of,
    unicode_name,
)
from byname.images.tars import COMPRESSED_TARS, index_tar
from byname.images.walk import Walk, extension, hidden

__all__ = ["IMAGE_EXTENSIONS", "MAX_FILE_BYTES", "ImageRef", "Source", "open_source"]

_MAGIC = re.compile(r"[*?\[]")
_BRACE = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_TAKES = (
    "Give a folder, an image, a glob in quotes, a list (.txt, .csv, .tsv, .parquet) or a .tar. "
    f"Images end in {' '.join(sorted(IMAGE_EXTENSIONS))}."
)


@dataclass(frozen=True)
class Source:
    """The images of one source.

    Parameters
    ----------
    refs : tuple of ImageRef
        Sorted by key in code point order; no two with the same key.
    root : str
        Absolute folder, or a description for a person.
    kind : {"folder", "file", "glob", "list", "tar"}
    warnings : tuple of str
        What was left out, and why.
    """

    refs: tuple[ImageRef, ...]
    root: str
    kind: str
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.refs)


def open_source(
    spec: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    image_column: str | None = None,
) -> Source:
    """List the images that a user means, in a fixed order, without opening one.

    Parameters
    ----------
    spec : path, or sequence of paths
        - A folder: all images below it, in any depth. Names that begin with a dot and
          ``__MACOSX`` are passed over, links are followed. A Hugging Face-style ImageFolder
          (``train/cat/1.jpg``) is just a folder: no label is read, neither from its subfolders nor
          from a ``metadata.csv``. A folder with tars and no images is read as its tars.
        - One image file; or a glob such as ``photos/**/*.jpg``, or ``{a,b}`` and ``{00..12}``.
        - A list: ``.txt`` (a path a line), ``.csv``, ``.tsv`` or ``.parquet``. Relative paths are
          sought beside the list, then in the current folder.
        - An uncompressed ``.tar`` (WebDataset), or several as ``shard-{000..012}.tar``.
        - A sequence of paths.
    image_column : str, optional
        Column of a CSV, TSV or Parquet list; found by its usual names where not given.

    Returns
    -------
    Source

    Raises
    ------
    SourceError
        Where there is nothing to list, or the list cannot be read.

    Examples
    --------
    >>> [ref.key for ref in open_source(["b.jpg", "./a.jpg"]).refs]
    ['a.jpg', 'b.jpg']
    """
    if isinstance(spec, (str, os.PathLike)):
        text = os.fsdecode(spec)
        source = _from_path(text, image_column)
    elif isinstance(spec, Iterable) and not isinstance(spec, (bytes, bytearray)):
        text = "the sequence of paths"
        source = _from_sequence(list(spec))
    else:
        seen = f"it is a {type(spec).__name__}"
        raise SourceError("list the images", seen, "Give a path or a sequence of paths.")
    if image_column is not None and (source.kind != "list" or text == "the sequence of paths"):
        raise SourceError(
            f"use the image column '{image_column}'",
            f"'{unicode_name(text)}' has no columns",
            "Leave the column out, or give a CSV, TSV or Parquet list.",
        )
    return source


def _from_path(text: str, image_column: str | None) -> Source:
    asked = f"list the images in '{unicode_name(text)}'"
    if text.startswith("~") and not os.path.lexists(text):
        text = os.path.expanduser(text)
    try:
        mode = os.stat(text).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        patterns = list(_braces(text))
        if text and (len(patterns) > 1 or _MAGIC.search(text)):
            return _from_glob(text, patterns, asked)
        if extension(text) in IMAGE_EXTENSIONS and os.path.islink(text):
            return _finish([make_ref(os.path.basename(text), text)], text, "file")
        raise _missing(text, asked) from None
    except OSError as error:
        raise SourceError(asked, _why(error), "Check the path and its permissions.") from None
    suffix = extension(text)
    if stat.S_ISDIR(mode):
        return _from_folder(text, asked)
    if suffix in IMAGE_EXTENSIONS:
        return _finish([make_ref(os.path.basename(text), text)], text, "file")
    if stat.S_ISREG(mode) and suffix in LIST_EXTENSIONS:
        return _from_entries(read_list(text, image_column), os.path.dirname(text), text)
    if stat.S_ISREG(mode) and (suffix == ".tar" or text.lower().endswith(COMPRESSED_TARS)):
        return _from_tars([("", text)], asked, text)
    ending = f"with the extension '{suffix}'" if suffix else "without extension"
    raise SourceError(asked, f"it is a {kind_of(mode)} {ending}", _TAKES)


def _from_folder(folder: str, asked: str) -> Source:
    walk = Walk()
    try:
        refs = list(walk.images(folder))
    except OSError as error:
        raise SourceError(asked, _why(error), "Check the folder's permissions.") from None
    if refs:
        return _finish(refs, folder, "folder", _with_tars(walk))
    if walk.tars:
        return _from_tars(walk.tars, asked, folder, walk.warnings())
    do = _TAKES
    if walk.others[".gz"] + walk.others[".tgz"] + walk.others[".zip"]:
        do = f"Unpack the archives first. {do}"
    raise SourceError(asked, walk.no_images(), do)


def _from_glob(text: str, patterns: list[str], asked: str) -> Source:
    """Keys are relative to the part of the pattern before its first magic character."""
    magic = min(m.start() for m in (_MAGIC.search(text), _BRACE.search(text)) if m)
    root = text[: text.rfind("/", 0, magic) + 1]
    walk, refs, folders = Walk(), [], 0
    for path in itertools.chain.from_iterable(_expand(p, asked, walk) for p in patterns):
        key = path[len(root) :]
        if os.path.isdir(path):
            folders += 1
        elif extension(path) in IMAGE_EXTENSIONS:
            refs.append(make_ref(key, path))
        else:
            walk.add_other(key, path)
    if refs:
        return _finish(refs, root or ".", "glob", _with_tars(walk))
    if walk.tars:
        return _from_tars(sorted(set(walk.tars)), asked, text, walk.warnings())
    if not folders and not walk.others:
        do = "Check the pattern; '**' stands for folders in any depth, as in 'photos/**/*.jpg'."
        raise SourceError(asked, "no file matches the pattern", do)
    seen = walk.no_images() if walk.others else f"it matches folders only ({folders:,})"
    raise SourceError(asked, seen, f"Write '**/*.jpg' for images in any depth. {_TAKES}")


def _expand(pattern: str, asked: str, outer: Walk) -> Iterator[str]:
    """Paths that match a glob. Behind the first ``**`` the walk is ours, as glob's own goes round
    in circles where links do."""
    if not _MAGIC.search(pattern):
        if not os.path.lexists(pattern):
            seen = f"'{unicode_name(pattern)}' does not exist"
            raise SourceError(asked, seen, "Check the numbers in the braces.")
        yield pattern
        return
    parts = pattern.split("/")
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    at = parts.index("**")
    head = "/".join(parts[:at]) + "/" * (at > 0)
    for start in glob.iglob(head) if _MAGIC.search(head) else [head]:
        walk = Walk()
        try:
            found = [ref.path for ref in walk.images(start or ".")]
        except OSError:
            continue
        outer.trouble += walk.trouble
        for path in (*found, *(tar for _, tar in walk.tars)):
            inner = path[len(start or "./") :].replace(os.sep, "/")
            if _matches(inner.split("/"), parts[at:]):
                yield start + inner


def _matches(names: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        if len(patterns) == 1:
            return True
        return any(_matches(names[i:], patterns[1:]) for i in range(len(names)))
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _matches(names[1:], patterns[1:])


def _braces(text: str) -> Iterator[str]:
    """Expand ``{000..012}`` and ``{a,b}``, as a shell does."""
    found = _BRACE.search(text)
    if not found:
        yield text
        return
    if found[3] is not None:
        choices: Iterable[str] = found[3].split(",")
    else:
        first, last, width = int(found[1]), int(found[2]), len(found[1])
        choices = (f"{number:0{width}d}" for number in range(first, last + 1))
    for choice in choices:
        yield from _braces(text[: found.start()] + choice + text[found.end() :])


def _from_entries(entries: Iterable[str], folder: str, root: str) -> Source:
    """List the paths of a list file; those that are not there stay, and fail when they are read."""
    refs, missing = [], []
    for entry in entries:
        found = _find(entry, folder)
        if found is None:
            missing.append(entry)
        spelling, path = found or (entry, entry)
        refs.append(make_ref(re.sub(r"^(\./+)+(?=.)", "", spelling), path))
    warnings = []
    if missing:
        warnings.append(
            f"{len(missing):,} of {len(refs):,} listed files do not exist "
            f"(first: '{unicode_name(missing[0])}')"
        )
    return _finish(refs, root, "list", warnings)


def _find(entry: str, folder: str) -> tuple[str, str] | None:
    """The entry with the separators that lead to a file, and that file."""
    spellings = [entry]
    if (name := name_of(entry)) != entry:
        spellings.append(name)  # a list of keys, out of byname's own rows
    if "\\" in entry and os.sep == "/":
        spellings.append(entry.replace("\\", "/"))  # a list written on Windows
    for spelling in spellings:
        for path in (os.path.join(folder, spelling), spelling):
            if os.path.lexists(path):
                return spelling, path
    return None


def _from_sequence(items: list[str | os.PathLike[str]]) -> Source:
    asked = "list the images of the sequence"
    if not items:
        raise SourceError(asked, "it is empty", "Give at least one path.")
    for place, item in enumerate(items):
        if not isinstance(item, (str, os.PathLike)):
            seen = f"item {place} is a {type(item).__name__}"
            raise SourceError(asked, seen, "Each item is the path of one image.")
    return _from_entries((os.fsdecode(item) for item in items), "", f"{len(items):,} paths given")


def _from_tars(
    tars: list[tuple[str, str]], asked: str, root: str, warnings: Iterable[str] = ()
) -> Source:
    """List the images inside tars. Of several, a bad one is a warning."""
    refs: list[ImageRef] = []
    notes, failed, others = list(warnings), [], 0
    for name, path in tars:
        prefix = f"{name}/" if name else ""
        try:
            members, damage = index_tar(path)
            here = os.stat(path)
        except SourceError as error:
            failed.append(error)
            notes.append(f"the tar '{unicode_name(name)}' was left out: {error.seen}")
            continue
        if damage:
            notes.append(f"the tar '{unicode_name(name or path)}' is {damage}")
        for member, offset, length in members:
            member = re.sub(r"^(\./+)+", "", member)
            if extension(member) in IMAGE_EXTENSIONS and not any(map(hidden, member.split("/"))):
                key = key_of(prefix + member)
                refs.append(ImageRef(key, path, offset, length, here.st_size, here.st_mtime_ns))
            else:
                others += 1
    if not refs and len(failed) == len(tars):
        raise failed[0]
    if not refs:
        seen = "; ".join([f"no image is inside, only {others:,} other files", *notes])
        raise SourceError(asked, seen, _TAKES)
    return _finish(refs, root, "tar", notes)


def _finish(refs: Iterable[ImageRef], root: str, kind: str, notes: Iterable[str] = ()) -> Source:
    """Sort by key and drop repetitions: a key is one row of the output.

    Two names never share a key. A name that occurs twice in a tar stands for its first file.
    """
    unique: dict[str, ImageRef] = {}
    repeated = []
    # By place, too, so that it never depends on the order of a listing which one stays.
    for ref in sorted(refs, key=attrgetter("key", "path", "offset")):
        if unique.setdefault(ref.key, ref) is not ref:
            repeated.append(ref.key)
    warnings = [unicode_name(note) for note in notes]
    if repeated:
        warnings.append(
            f"{len(repeated):,} entries repeat the name of an earlier one and were left out "
            f"(first: '{min(repeated)}')"
        )
    if os.path.lexists(root):
        root = os.path.abspath(root)
    return Source(tuple(unique.values()), unicode_name(root), kind, tuple(warnings))


def _with_tars(walk: Walk) -> list[str]:
    if not walk.tars:
        return walk.warnings()
    return [*walk.warnings(), f"tars beside the images were not read: {len(walk.tars):,}"]


def _missing(text: str, asked: str) -> SourceError:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        return SourceError(asked, "it is a URL", "Download it first: only local files are read.")
    parent, name = os.path.split(text.rstrip("/"))
    seen = "it does not exist"
    try:
        with os.scandir(parent or ".") as entries:
            beside = [e.name for e in itertools.islice(entries, 10_000)]
    except (OSError, ValueError):
        if parent and not os.path.lexists(parent):
            seen = f"it does not exist, nor does the folder '{unicode_name(parent)}'"
        return SourceError(asked, seen, "Check the path.")
    close = difflib.get_close_matches(name, beside, 1)
    guess = f" Did you mean '{unicode_name(os.path.join(parent, close[0]))}'?" if close else ""
    return SourceError(asked, seen, f"Check the path.{guess}")


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__
