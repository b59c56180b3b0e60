"""Where images come from: a folder, one file, a glob, a list file, tars, or a sequence of paths.

A listing never opens an image. What is wrong with one file (missing, unreadable, a pipe) is found
when it is read, and becomes one row with an error; what is wrong with the source as a whole is a
``SourceError`` before any work starts.
"""

# Paths are text here: pathlib drops './' from names, and is slow for a million files.
# ruff: noqa: PTH111, PTH112, PTH114, PTH116, PTH118, PTH119, PTH120

from __future__ import annotations

import difflib
import itertools
import os
import re
import stat
from collections.abc import Iterable, Sequence

from byname.errors import SourceError
from byname.images.gather import TAKES, Source, finish, from_tables, from_tars, with_packed
from byname.images.globs import MAGIC, braces, expand, fixed_part
from byname.images.lists import LIST_EXTENSIONS, read_list
from byname.images.places import shown
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
from byname.images.tables import holds_images
from byname.images.tars import COMPRESSED_TARS
from byname.images.urls import (
    REFUSED,
    is_url,
    key_of_url,
    listed_url,
    local_path,
    public_url,
    scheme_of,
    tell_apart,
)
from byname.images.walk import Walk, extension

_START = re.compile(r"^(\./+)+(?=.)")

__all__ = ["IMAGE_EXTENSIONS", "MAX_FILE_BYTES", "ImageRef", "Source", "item_keys", "open_source"]


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
        - A ``.parquet`` with a column of images (bytes, or Hugging Face's struct of ``bytes`` and
          ``path``), or several.
        - A URL of any of these (``s3://``, ``gs://``, ``az://``, ``hf://``, ``https://``), through
          fsspec. Lists may hold URLs, too.
        - A sequence of paths.
    image_column : str, optional
        Column of a CSV, TSV or Parquet list, or of the bytes of images in a Parquet file; found by
        its usual names where not given.

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
        source = _from_text(text, image_column)
    elif isinstance(spec, Iterable) and not isinstance(spec, (bytes, bytearray)):
        text = "the sequence of paths"
        source = _from_sequence(list(spec))
    else:
        seen = f"it is a {type(spec).__name__}"
        raise SourceError("list the images", seen, "Give a path or a sequence of paths.")
    columns = source.kind in ("list", "parquet") and text != "the sequence of paths"
    if image_column is not None and not columns:
        raise SourceError(
            f"use the image column '{image_column}'",
            f"'{shown(text)}' has no columns",
            "Leave the column out, or give a CSV, TSV or Parquet list.",
        )
    return source


def _from_text(text: str, image_column: str | None) -> Source:
    if scheme_of(text) == "file":
        text = local_path(text)
    if is_url(text):
        from byname.images.remote_sources import open_remote

        return open_remote(text, image_column)
    return _from_path(text, image_column)


def item_keys(items: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The key of each item of a sequence of paths, in its order.

    Examples
    --------
    >>> item_keys(["b.jpg", "./a.jpg", "b.jpg"])
    ['b.jpg', 'a.jpg', 'b.jpg']
    """
    return [ref.key for ref in entry_refs((os.fsdecode(item) for item in items), "")[0]]


def _from_path(text: str, image_column: str | None) -> Source:
    asked = f"list the images in '{unicode_name(text)}'"
    if text.startswith("~") and not os.path.lexists(text):
        text = os.path.expanduser(text)
    try:
        mode = os.stat(text).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        patterns = list(braces(text))
        if text and (len(patterns) > 1 or MAGIC.search(text)):
            return _from_glob(text, patterns, asked, image_column)
        if extension(text) in IMAGE_EXTENSIONS and os.path.islink(text):
            return finish([make_ref(os.path.basename(text), text)], text, "file")
        raise _missing(text, asked) from None
    except OSError as error:
        raise SourceError(asked, _why(error), "Check the path and its permissions.") from None
    suffix = extension(text)
    if stat.S_ISDIR(mode):
        return _from_folder(text, asked, image_column)
    if suffix in IMAGE_EXTENSIONS:
        return finish([make_ref(os.path.basename(text), text)], text, "file")
    if stat.S_ISREG(mode) and suffix == ".parquet" and holds_images(text, image_column):
        return from_tables([("", text)], text, image_column)
    if stat.S_ISREG(mode) and suffix in LIST_EXTENSIONS:
        return from_entries(read_list(text, image_column), os.path.dirname(text), text)
    if stat.S_ISREG(mode) and (suffix == ".tar" or text.lower().endswith(COMPRESSED_TARS)):
        return from_tars([("", text)], asked, text)
    ending = f"with the extension '{suffix}'" if suffix else "without extension"
    raise SourceError(asked, f"it is a {kind_of(mode)} {ending}", TAKES)


def _from_folder(folder: str, asked: str, image_column: str | None) -> Source:
    walk = Walk()
    try:
        refs = list(walk.images(folder))
    except OSError as error:
        raise SourceError(asked, _why(error), "Check the folder's permissions.") from None
    if refs:
        return finish(refs, folder, "folder", with_packed(walk))
    if walk.tars:
        return from_tars(sorted(walk.tars), asked, folder, walk.warnings())
    if walk.tables:
        return from_tables(sorted(walk.tables), folder, image_column, walk.warnings())
    do = TAKES
    if walk.others[".gz"] + walk.others[".tgz"] + walk.others[".zip"]:
        do = f"Unpack the archives first. {do}"
    raise SourceError(asked, walk.no_images(), do)


def _from_glob(text: str, patterns: list[str], asked: str, image_column: str | None) -> Source:
    """Keys are relative to the part of the pattern before its first magic character."""
    root = text[: fixed_part(text)]
    walk, refs, folders = Walk(), [], 0
    for path in itertools.chain.from_iterable(expand(p, asked, walk) for p in patterns):
        key = path[len(root) :]
        if os.path.isdir(path):
            folders += 1
        elif extension(path) in IMAGE_EXTENSIONS:
            refs.append(make_ref(key, path))
        else:
            walk.add_other(key, path)
    if refs:
        return finish(refs, root or ".", "glob", with_packed(walk))
    if walk.tars:
        return from_tars(sorted(set(walk.tars)), asked, text, walk.warnings())
    if walk.tables:
        return from_tables(sorted(set(walk.tables)), text, image_column, walk.warnings())
    if not folders and not walk.others:
        do = "Check the pattern; '**' stands for folders in any depth, as in 'photos/**/*.jpg'."
        raise SourceError(asked, "no file matches the pattern", do)
    seen = walk.no_images() if walk.others else f"it matches folders only ({folders:,})"
    raise SourceError(asked, seen, f"Write '**/*.jpg' for images in any depth. {TAKES}")


def from_entries(entries: Iterable[str], folder: str, root: str) -> Source:
    """List the paths of a list file; those that are not there stay, and fail when they are read."""
    refs, missing, first = entry_refs(entries, folder)
    warnings = []
    if missing:
        warnings.append(
            f"{missing:,} of {len(refs):,} listed files do not exist "
            f"(first: '{unicode_name(first)}')"
        )
    return finish(refs, root, "list", warnings)


def entry_refs(entries: Iterable[str], folder: str) -> tuple[list[ImageRef], int, str]:
    """Each entry of a list in its order, how many do not exist, and the first of these.

    What lies behind URLs is not asked for. A list that lies behind a URL itself names no file of
    this machine: its relative paths start from its own folder.
    """
    refs: list[ImageRef] = []
    missing, first, queries = 0, "", False
    remote = is_url(folder)
    for entry in entries:
        if is_url(entry) or remote:
            refs.append(_listed(entry, folder))
            queries = queries or len(refs[-1].key) < len(refs[-1].path)
            continue
        ref = _find(entry, folder)
        if ref is None:
            first = first or entry
            missing += 1
            ref = ImageRef(_key(entry), entry)
        refs.append(ref)
    if queries:
        _separate(refs)
    return refs, missing, first


def _listed(entry: str, folder: str) -> ImageRef:
    """An entry that is a URL, or stands in a list that lies behind one."""
    if is_url(entry):
        return ImageRef(key_of_url(entry), listed_url(entry))
    inside = ".." not in entry.split("/") and "\0" not in entry
    name = re.sub(r"^([.]?/+)+", "", entry)
    path = f"{folder.rstrip('/')}/{name}" if inside else f"{REFUSED}://"
    return ImageRef(_key(entry), path)


def _separate(refs: list[ImageRef]) -> None:
    """Give URLs that differ in what their keys leave out keys of their own."""
    paths: dict[str, str] = {}
    shared = {ref.key for ref in refs if paths.setdefault(ref.key, ref.path) != ref.path}
    for i, ref in enumerate(refs):
        if ref.key in shared and is_url(ref.path) and public_url(ref.path) != ref.path:
            refs[i] = ImageRef(tell_apart(ref.path), ref.path)


def _key(spelling: str) -> str:
    return key_of(_START.sub("", spelling) if spelling.startswith(".") else spelling)


def _find(entry: str, folder: str) -> ImageRef | None:
    """The file of an entry, whichever way its separators lead to one."""
    spellings = [entry]
    if "\\" in entry:
        if (name := name_of(entry)) != entry:
            spellings.append(name)  # a list of keys, out of byname's own rows
        if os.sep == "/":
            spellings.append(entry.replace("\\", "/"))  # a list written on Windows
    for spelling in spellings:
        beside = os.path.join(folder, spelling)
        for path in (beside,) if beside == spelling else (beside, spelling):
            try:
                here = os.stat(path)
            except (OSError, ValueError):
                if os.path.lexists(path):
                    return ImageRef(_key(spelling), path)
                continue
            # The same object where both are equal: there may be millions.
            key = path if (key := _key(spelling)) == path else key
            return ImageRef(key, path, size=here.st_size, mtime_ns=here.st_mtime_ns)
    return None


def _from_sequence(items: list[str | os.PathLike[str]]) -> Source:
    asked = "list the images of the sequence"
    if not items:
        raise SourceError(asked, "it is empty", "Give at least one path.")
    for place, item in enumerate(items):
        if not isinstance(item, (str, os.PathLike)):
            seen = f"item {place} is a {type(item).__name__}"
            raise SourceError(asked, seen, "Each item is the path of one image.")
    return from_entries((os.fsdecode(item) for item in items), "", f"{len(items):,} paths given")


def _missing(text: str, asked: str) -> SourceError:
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
