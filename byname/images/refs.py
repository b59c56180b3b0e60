"""One listed image, and how its bytes are read."""

# Paths are text here: pathlib drops './' from names, and is slow for a million files.
# ruff: noqa: PTH114, PTH116, PTH123

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass

from byname.errors import ImageError

__all__ = [
    "IMAGE_EXTENSIONS",
    "MAX_FILE_BYTES",
    "ImageRef",
    "key_of",
    "kind_of",
    "make_ref",
    "name_of",
    "unicode_name",
]

IMAGE_EXTENSIONS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".avif"),
        *(".bmp", ".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".ico", ".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
"""Lower-case; files are matched in any case. What Pillow decodes without further packages."""
MAX_FILE_BYTES = 512 * 2**20
"""Largest file that is read into memory as one image."""

_ASKED = "read the image"
# Behind a backslash: a byte that is not UTF-8, a backslash, a lone surrogate.
_LOOKS = "x(5c|[89a-f][0-9a-f])|u(d[89a-f][0-9a-f]{2})"
_ESCAPED, _TO_ESCAPE = re.compile(rf"\\(?:{_LOOKS})"), re.compile(rf"\\(?={_LOOKS})")


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image of a source, not yet opened.

    Parameters
    ----------
    key : str
        ``file_name`` of the output: relative to the source, POSIX separators, valid Unicode (bytes
        that are not UTF-8 as ``\\xff``; see :func:`key_of`).
    path : str
        File to open (its undecodable bytes as surrogate escapes), or the tar or Parquet file that
        holds it; or a URL of either.
    offset, length : int
        Where the image lies in the tar, in bytes; -1 for a file of its own.
    size, mtime_ns : int
        Of the file or the tar, for a run's fingerprint; 0 where it could not be asked for.
    inside : str
        Column of a Parquet file that holds the image; ``offset`` is then the row.
    """

    key: str
    path: str
    offset: int = -1
    length: int = -1
    size: int = 0
    mtime_ns: int = 0
    inside: str = ""

    def read(self, *, limit: int = MAX_FILE_BYTES, seconds: float = 300.0) -> bytes:
        """Read the bytes of the image. Never blocks on a pipe or a device.

        Parameters
        ----------
        limit : int
            Most bytes that are read.
        seconds : float
            How long a web server may take to send them. Files of this machine take what they take.

        Raises
        ------
        ImageError
            Where the file is missing, unreadable, not a regular file, or larger than ``limit``, or
            where what holds it is damaged or ends before it does.

        Examples
        --------
        >>> ImageRef("a.jpg", "no/such/a.jpg").read()
        Traceback (most recent call last):
        byname.errors.ImageError: the file does not exist
        """
        if self.inside:
            from byname.images.cells import read_cell

            return read_cell(self, limit)
        if "://" in self.path:
            from byname.images.urls import is_url

            if is_url(self.path):
                from byname.images.remote import read_url

                place = {"start": self.offset, "length": self.length}
                return read_url(self.path, **place, limit=limit, seconds=seconds)
        try:
            if not stat.S_ISREG(mode := os.stat(self.path).st_mode):
                raise ImageError(_ASKED, f"not a regular file but a {kind_of(mode)}")
            # Should a pipe take its place in between, O_NONBLOCK keeps the open from hanging.
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
            with open(os.open(self.path, flags), "rb") as stream:
                here = os.fstat(stream.fileno())
                wanted = here.st_size if self.offset < 0 else self.length
                if wanted > limit:
                    seen = f"the file has {wanted:,} bytes, more than the limit of {limit:,}"
                    raise ImageError(_ASKED, seen)
                stream.seek(max(self.offset, 0))
                data = stream.read(wanted)
        except ImageError:
            raise
        except (OSError, ValueError, MemoryError) as error:
            raise ImageError(_ASKED, _why(error, self.path)) from None
        if self.offset >= 0 and len(data) < self.length:
            seen = f"its tar is truncated: {len(data):,} of its {self.length:,} bytes are there"
            raise ImageError(_ASKED, seen)
        if self.offset >= 0 and self.changed(here.st_size, here.st_mtime_ns):
            raise ImageError(_ASKED, "its tar has changed since it was listed")
        return data

    def changed(self, size: int, mtime_ns: int) -> bool:
        """Whether the file is another than was listed; no, where nothing was known of it.

        Examples
        --------
        >>> ImageRef("a", "t.tar", 0, 9, 512, 1).changed(512, 2)
        True
        """
        listed = (self.size, self.mtime_ns)
        return listed != (0, 0) and listed != (size, mtime_ns)


def make_ref(key: str, path: str, entry: os.DirEntry[str] | None = None) -> ImageRef:
    """List a file under a key, with its size and time where they can be asked for."""
    try:
        here = entry.stat() if entry is not None else os.stat(path)
    except (OSError, ValueError):
        return ImageRef(key_of(key), path)
    return ImageRef(key_of(key), path, size=here.st_size, mtime_ns=here.st_mtime_ns)


def key_of(name: str) -> str:
    """A key for a name, such that two names never share one: :func:`unicode_name`, undoable.

    A backslash that looks like the begin of an escape is escaped itself, so that a file that is
    called ``caf\\xe9.jpg`` letter by letter is told from one with the byte 0xE9 in its name.

    Examples
    --------
    >>> print(key_of("caf" + chr(0xDCE9)), key_of("caf" + chr(92) + "xe9"))
    caf\\xe9 caf\\x5cxe9
    """
    if os.sep != "/":
        name = name.replace(os.sep, "/")
    if name.isascii() and "\\" not in name:
        return name  # the same object: of a million, many names are also paths
    return unicode_name(_TO_ESCAPE.sub(r"\\x5c", name))


def name_of(key: str) -> str:
    """The name that :func:`key_of` made a key of, with POSIX separators.

    Examples
    --------
    >>> name_of(key_of("caf" + chr(0xDCE9))) == "caf" + chr(0xDCE9)
    True
    """

    def unescape(found: re.Match[str]) -> str:
        if found[1] == "5c":
            return "\\"
        return chr(0xDC00 + int(found[1], 16)) if found[1] else chr(int(found[2], 16))

    return _ESCAPED.sub(unescape, key)


def unicode_name(name: str) -> str:
    """The name as valid Unicode with POSIX separators, for people.

    Examples
    --------
    >>> print(unicode_name("caf" + chr(0xDCE9) + ".jpg") == "caf" + chr(92) + "xe9.jpg")
    True
    """
    if os.sep != "/":
        name = name.replace(os.sep, "/")
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        return name.encode("utf-8", "backslashreplace").decode("utf-8")


def kind_of(mode: int) -> str:
    """Name of the kind of file that a ``st_mode`` stands for."""
    kinds = (
        (stat.S_ISDIR, "folder"),
        (stat.S_ISFIFO, "pipe (FIFO)"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISCHR, "device"),
        (stat.S_ISBLK, "device"),
    )
    return next((name for test, name in kinds if test(mode)), "file")


def _why(error: Exception, path: str) -> str:
    """Say in words why a file could not be read; never with its path."""
    if isinstance(error, FileNotFoundError):
        link = os.path.islink(path)
        return "it is a link to a file that does not exist" if link else "the file does not exist"
    if isinstance(error, PermissionError):
        return "no permission to read the file"
    if isinstance(error, MemoryError):
        return "not enough memory to read the file"
    if isinstance(error, OSError):
        if error.errno == errno.ELOOP:
            return "it is a link that leads back to itself"
        return f"the file cannot be read ({error.strerror or type(error).__name__})"
    return "its name holds a NUL character"
