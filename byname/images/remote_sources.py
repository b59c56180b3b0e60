"""Sources behind URLs: a folder, one image, a glob, a list, tars or Parquet files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from byname.errors import SourceError
from byname.images.gather import TAKES, Source, finish, from_tables, from_tars, with_packed
from byname.images.globs import BRACE, braces, fixed_part
from byname.images.lists import LIST_EXTENSIONS, read_list
from byname.images.places import shown
from byname.images.refs import IMAGE_EXTENSIONS, ImageRef, key_of
from byname.images.sources import from_entries
from byname.images.tables import holds_images
from byname.images.tars import COMPRESSED_TARS
from byname.images.urls import host_end, lower_scheme, public_url, scheme_of
from byname.images.walk import Walk, extension, hidden

__all__ = ["open_remote"]

WEB_DEPTH = 8
"""Folders in folders that are followed on a web server, whose pages may link in circles."""


def open_remote(url: str, image_column: str | None = None) -> Source:
    """List the images behind a URL that the user gave; as :func:`open_source` does for paths.

    Parameters
    ----------
    url : str
        A folder, an image, a glob, a list, a tar or a Parquet file. Where it has a query, such as a
        signature, this is used for that one file and is no part of a key.
    image_column : str, optional

    Raises
    ------
    SourceError
        Where there is nothing to list, or it cannot be reached.
    """
    asked, url = f"list the images in '{shown(url)}'", lower_scheme(url)
    plain = public_url(url)
    suffix, start = extension(plain), host_end(plain)
    if "::" in url[host_end(url) :] or "::" in url.partition("://")[0]:
        seen = "chains of file systems ('::') are not read"
        raise SourceError(asked, seen, "Give the URL of the files themselves.")
    if BRACE.search(plain, start) or any(c in plain[start:] for c in "*["):
        return _from_patterns(plain, asked, image_column)
    if suffix in IMAGE_EXTENSIONS:
        return finish([_one(url, plain, asked)], url, "file")
    if suffix == ".parquet" and holds_images(url, image_column):
        return from_tables([("", url)], url, image_column)
    if suffix in LIST_EXTENSIONS:
        return from_entries(read_list(url, image_column), plain.rpartition("/")[0], url)
    if suffix == ".tar" or plain.lower().endswith(COMPRESSED_TARS):
        return from_tars([("", url)], asked, url)
    found = _Found()
    depth = WEB_DEPTH if scheme_of(url) in ("http", "https") else None
    base = plain.rstrip("/") + "/"
    found.add(base, base, _list(base, asked, "find", depth=depth))
    return found.source(base.rstrip("/"), asked, image_column, "folder")


class _Found:
    """What a listing found, by kind."""

    def __init__(self) -> None:
        self.refs: list[ImageRef] = []
        self.walk = Walk()

    def add(self, base: str, root: str, entries: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Add entries, whose names are relative to ``base``; keys are relative to ``root``."""
        from byname.images.remote import place_of

        web = scheme_of(base) in ("http", "https")
        for name, info in entries:
            path = base + name
            key = path[len(root) :]
            if info.get("type") == "directory" or any(map(hidden, key.split("/"))):
                continue
            if "://" in name or (web and "?" in name):  # a link of a page to elsewhere
                continue
            if extension(name) in IMAGE_EXTENSIONS:
                size, mtime_ns = place_of(info)
                self.refs.append(ImageRef(key_of(key), path, -1, -1, max(size, 0), mtime_ns))
            else:
                self.walk.add_other(key, path)

    def source(self, root: str, asked: str, image_column: str | None, kind: str) -> Source:
        """Images, else what lies inside tars, else inside Parquet files."""
        walk = self.walk
        if self.refs:
            return finish(self.refs, root, kind, with_packed(walk))
        if walk.tars:
            return from_tars(sorted(set(walk.tars)), asked, root, walk.warnings())
        if walk.tables:
            return from_tables(sorted(set(walk.tables)), root, image_column, walk.warnings())
        raise SourceError(asked, walk.no_images(), TAKES)


def _from_patterns(plain: str, asked: str, image_column: str | None) -> Source:
    start = host_end(plain)
    root = plain[: max(fixed_part(plain, start), start + 1)]
    found = _Found()
    for pattern in braces(plain):
        if any(c in pattern[start:] for c in "*["):
            base = pattern[: max(fixed_part(pattern, start), start + 1)]
            found.add(base, root, _list(pattern, asked, "glob", base))
        else:
            base, _, name = pattern.rpartition("/")
            found.add(base + "/", root, [(name, {})])
    return found.source(plain, asked, image_column, "glob")


def _list(
    url: str, asked: str, how: str, base: str = "", depth: int | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """Names below ``base`` with what is known of them, by fsspec's ``find`` or ``glob``."""
    from byname.images.remote import file_system, words

    fs = file_system(url.rstrip("/"))
    try:
        if how == "find":
            found = fs.find(url, maxdepth=depth, detail=True)
        else:
            found = fs.glob(url, detail=True)
        above = fs._strip_protocol(base or url).rstrip("/") + "/"
        # What does not lie below the folder, a link of a web page for instance, is not in it.
        names = [(n[len(above) :], info) for n, info in found.items() if n.startswith(above)]
    except Exception as error:  # noqa: BLE001 - each backend raises its own
        raise SourceError(asked, words(error), "Check the URL and the credentials.") from None
    fs.invalidate_cache()  # a listing of millions would be kept otherwise
    if not names:
        do = "Check the URL; folders are found where the server lists them."
        raise SourceError(asked, "nothing is there", do)
    return names


def _one(url: str, plain: str, asked: str) -> ImageRef:
    """The reference to one image, which must be there."""
    from byname.images.remote import file_system, info_of, place_of, words

    try:
        size, mtime_ns = place_of(info_of(file_system(url), url))
    except SourceError:
        raise
    except Exception as error:  # noqa: BLE001 - each backend raises its own
        raise SourceError(asked, words(error), "Check the URL and the credentials.") from None
    return ImageRef(key_of(plain.rpartition("/")[2]), url, -1, -1, max(size, 0), mtime_ns)
