"""Open a file by its path or URL: lists, tars and Parquet files may lie in either place."""

# Paths are text here, since they may hold bytes that are not UTF-8.

from __future__ import annotations

import errno
import io
import os
import stat
from typing import BinaryIO

from byname.errors import BynameError, SourceError
from byname.images.refs import MAX_FILE_BYTES, kind_of, unicode_name
from byname.images.urls import is_url, public_url

__all__ = ["UnreachableError", "advice", "open_place", "read_place", "reason", "shown"]


class UnreachableError(OSError):
    """A server that fails while a file is being read: no damage of the file."""


def open_place(path: str, *, block: int = io.DEFAULT_BUFFER_SIZE) -> tuple[BinaryIO, int, int]:
    """Open a file; never blocks on a pipe or a device.

    Returns
    -------
    stream, size in bytes, mtime_ns

    Raises
    ------
    OSError
        Where it cannot be opened; ``strerror`` says why, without a secret.
    SourceError
        Where a package that its URL needs is missing.

    Examples
    --------
    >>> stream, size, _ = open_place(__file__)
    >>> size == len(stream.read())
    True
    """
    if is_url(path):
        from byname.images.remote import BLOCK, open_url

        return open_url(path, max(block, BLOCK))
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    stream = io.BufferedReader(io.FileIO(os.open(path, flags)), block)
    here = os.fstat(stream.fileno())
    if not stat.S_ISREG(here.st_mode):
        stream.close()
        raise OSError(errno.EINVAL, f"it is a {kind_of(here.st_mode)}")
    return stream, here.st_size, here.st_mtime_ns


def read_place(path: str, asked: str) -> bytes:
    """A whole file, such as a list.

    Raises
    ------
    SourceError
        Where it cannot be read.
    """
    try:
        if is_url(path):
            from byname.images.remote import read_url

            return read_url(path, limit=MAX_FILE_BYTES)
        stream, size, _ = open_place(path)
        with stream:
            return stream.read(size)
    except OSError as error:
        do = advice(path, "Check its permissions.")
        raise SourceError(asked, reason(error), do) from None


def advice(path: str, otherwise: str) -> str:
    """What to do about a file that cannot be read: another thing where it lies behind a URL.

    Examples
    --------
    >>> advice("https://host/a.tar", "Check its permissions.")
    'Check the URL and the credentials, or download the file first.'
    """
    remote = "Check the URL and the credentials, or download the file first."
    return remote if is_url(path) else otherwise


def shown(path: str) -> str:
    """A path or URL for a message: valid Unicode, without secrets.

    Examples
    --------
    >>> shown("https://me:word@host/a.tar?signature=abc")
    'https://host/a.tar'
    """
    return unicode_name(public_url(path) if is_url(path) else path)


def reason(error: Exception) -> str:
    """Why a file could not be read, in one line without control characters.

    Examples
    --------
    >>> reason(ValueError("no column" + chr(10) + chr(27) + "[31m"))
    'no column [31m'
    """
    if isinstance(error, BynameError):
        return error.seen
    text = getattr(error, "strerror", None) or str(error)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]
