"""What lies behind a URL, read through fsspec: bounded, with retries, and errors without secrets.

fsspec is imported when a URL is met and not before. Credentials come from the environment and the
user's fsspec configuration, as fsspec does it; byname knows of none.
"""

from __future__ import annotations

import errno
import hashlib
import io
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from importlib import import_module
from typing import Any, BinaryIO, TypeVar

from byname.errors import ImageError, SourceError
from byname.images.places import UnreachableError
from byname.images.urls import GIVEN, LISTED, REFUSED, public_url, scheme_of

__all__ = ["RangeFile", "file_system", "info_of", "open_url", "place_of", "read_url", "words"]

ATTEMPTS = 3
"""How often a request is made that fails for a reason that may pass."""
BACK_OFF = 0.3
"""Seconds before the second attempt; four times as many before the third."""
CONNECT_SECONDS = 20.0
SILENT_SECONDS = 30.0
"""How long a web server may say nothing."""
REQUEST_SECONDS = 300.0
"""How long the answer of a web server may take, with all attempts."""
BLOCK = 2**16
"""Bytes that are read at once from a file of which only parts are needed."""

_ASKED = "read the image"
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_LASTING_ERRNO = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.EINVAL, errno.EISDIR})
_INSTALL = "Install it with: pip install 'byname[remote]'"
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
}
_T = TypeVar("_T")


def file_system(url: str) -> Any:
    """The fsspec file system of a URL.

    Raises
    ------
    SourceError
        For a scheme that is not read, or where a package is missing.
    """
    scheme, asked = scheme_of(url), f"read '{public_url(url)}'"
    if scheme not in GIVEN:
        kinds = ", ".join(f"{s}://" for s in sorted(LISTED))
        raise SourceError(asked, f"URLs of the kind {scheme}:// are not read", f"Give {kinds}.")
    try:
        fsspec = import_module("fsspec")
    except ImportError:
        raise SourceError(asked, "fsspec is not installed", f"{_INSTALL}.") from None
    try:
        # Not fsspec.open: it would follow chains such as 'simplecache::s3://...'.
        kind = fsspec.get_filesystem_class(scheme)
        return kind(**kind._get_kwargs_from_urls(url))
    except ImportError:
        package = _PACKAGES.get(scheme, "a package")
        do = f"{_INSTALL}, or: pip install {package}."
        raise SourceError(asked, f"{package} for {scheme}:// is not installed", do) from None
    except Exception as error:  # noqa: BLE001 - each backend raises its own
        raise SourceError(asked, words(error), "Check the URL and the credentials.") from None


def read_url(
    url: str,
    *,
    start: int = 0,
    length: int = -1,
    limit: int,
    seconds: float = REQUEST_SECONDS,
) -> bytes:
    """Read a file behind a URL, or a part of it.

    Parameters
    ----------
    url : str
    start, length : int
        The part; by default the whole file.
    limit : int
        Most bytes that are taken, whatever size the server says.
    seconds : float
        How long a web server may take, with all attempts.

    Raises
    ------
    ImageError
        Where it cannot be read, or has more bytes than ``limit``.
    """
    if scheme_of(url) == REFUSED:
        kind = url.partition("://")[2]
        seen = f"URLs of the kind {kind}:// are not read from a list" if kind else "a refused URL"
        raise ImageError(_ASKED, seen)
    if length > limit:
        raise _too_large(limit, f"has {length:,} bytes,")
    try:
        fs = file_system(url)
    except SourceError as error:
        raise ImageError(_ASKED, f"{error.seen}. {error.do}".rstrip(".")) from None
    try:
        data = _again(partial(_fetch, fs, url, start, length, limit), seconds)
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001 - each backend raises its own
        raise ImageError(_ASKED, words(error)) from None
    if length < 0 and len(data) > limit:
        raise _too_large(limit, "is larger,")
    if len(data) < length:
        seen = f"it is truncated: {len(data):,} of its {length:,} bytes are there"
        raise ImageError(_ASKED, seen)
    return data


class RangeFile(io.RawIOBase):
    """A file behind a URL of which parts are asked for, one request each.

    Parameters
    ----------
    url : str
    size : int
        Bytes in all.
    """

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size, self._at = url, size, 0
        self._fs = file_system(url)

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def seekable(self) -> bool:
        """Whether any place can be asked for: yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, without a request."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "a place before the begin of the file")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the present place on."""
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        try:
            data = _again(partial(_fetch, self._fs, self._url, self._at, wanted, wanted))
        except Exception as error:  # noqa: BLE001 - each backend raises its own
            raise UnreachableError(errno.EIO, words(error)) from None
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def open_url(url: str, block: int = BLOCK) -> tuple[BinaryIO, int, int]:
    """Open a file behind a URL for reading parts of it.

    Returns
    -------
    stream, size, mtime_ns

    Raises
    ------
    UnreachableError
        Where it is not there, or its size is not told; the text holds no secret.
    """
    try:
        size, mtime_ns = place_of(_again(partial(info_of, file_system(url), url)))
    except SourceError:
        raise
    except Exception as error:  # noqa: BLE001 - each backend raises its own
        raise UnreachableError(errno.EIO, words(error)) from None
    if size < 0:
        raise UnreachableError(errno.EIO, "the server does not say how large it is")
    return io.BufferedReader(RangeFile(url, size), block), size, mtime_ns


def info_of(fs: Any, url: str, seconds: float = REQUEST_SECONDS) -> dict[str, Any]:
    """What is known of a file behind a URL, as fsspec tells it."""
    bound = {"timeout": seconds} if getattr(fs, "async_impl", False) else {}
    return dict(fs.info(url, **bound))


def place_of(info: dict[str, Any]) -> tuple[int, int]:
    """Size (-1 where it is not known) and time of change in nanoseconds out of fsspec's entry."""
    size = info.get("size")
    size = size if type(size) is int and 0 <= size < 2**63 else -1
    for name in ("LastModified", "last_modified", "mtime", "updated", "Last-Modified", "created"):
        if changed := _nanoseconds(info.get(name)):
            return size, changed
    mark = str(info.get("ETag") or info.get("etag") or info.get("blob_id") or "")
    if not mark:
        return size, 0
    digest = hashlib.blake2b(mark.encode("utf-8", "replace"), digest_size=7).digest()
    return size, int.from_bytes(digest, "big")


def words(error: BaseException) -> str:
    """Why a URL could not be read; never with the text of the error, which may hold a secret."""
    if isinstance(error, ImageError | SourceError):
        return error.seen
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and cause is not None:
        return words(cause)  # fsspec says this of whatever goes wrong with a web server
    status = _status(error)
    kind = type(error).__name__
    if status == 404 or isinstance(error, FileNotFoundError) or kind.startswith("NoSuch"):
        return "it is not there (not found)"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    if status in (401, 403) or isinstance(error, PermissionError):
        return "no permission to read it"
    if status:
        return f"the server answers with status {status}"
    if isinstance(error, TimeoutError):
        return "the server does not answer in time"
    if isinstance(error, MemoryError):
        return "not enough memory to read it"
    if isinstance(error, _NoRangesError):
        return "the server gives whole files only, no parts of them"
    if "Credential" in kind or "Auth" in kind:
        return f"no credentials for it were found ({kind})"
    return f"it cannot be read ({kind})"


class _NoRangesError(Exception):
    """A web server that ignores the range it was asked for."""


def _too_large(limit: int, says: str) -> ImageError:
    return ImageError(_ASKED, f"the file {says} more than the limit of {limit:,}")


def _status(error: BaseException) -> int:
    """Status of a web answer out of an error of aiohttp, botocore, gcsfs or hub; 0 if none."""
    response = getattr(error, "response", None)
    for holder, name in ((error, "status"), (error, "status_code"), (response, "status_code")):
        found = getattr(holder, name, None)
        if isinstance(found, int) and 100 <= found <= 599:
            return found
    return 0


def _again(ask: Callable[[float], _T], seconds: float = REQUEST_SECONDS) -> _T:
    """The answer, asked for again where the reason of a failure may pass.

    ``ask`` is told how many seconds are left.
    """
    until = time.monotonic() + seconds
    for attempt in range(ATTEMPTS - 1):
        pause = BACK_OFF * 4**attempt
        try:
            return ask(until - time.monotonic())
        except Exception as error:
            if not _may_pass(error) or time.monotonic() + pause >= until:
                raise
        time.sleep(pause)
    return ask(until - time.monotonic())


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return _may_pass(error.__cause__)
    if status := _status(error):
        return status in _PASSING_STATUS
    if isinstance(error, OSError) and error.errno in _LASTING_ERRNO:
        return False
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    lasting: tuple[type[BaseException], ...] = (
        *(FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError),
        *(ValueError, TypeError, ImportError, NotImplementedError, MemoryError),
        *(_NoRangesError, ImageError, SourceError),
    )
    if isinstance(error, lasting):
        return False
    return not any(
        part in type(error).__name__ for part in ("Credential", "Redirect", "Invalid", "NoSuch")
    )


def _fetch(fs: Any, url: str, start: int, length: int, limit: int, seconds: float) -> bytes:
    """One request for a whole file (at most ``limit`` + 1 bytes) or a part of it."""
    if length == 0:
        return b""
    if scheme_of(url) in ("http", "https"):
        return _fetch_http(fs, url, start, length, limit, seconds)
    if length > 0:
        return bytes(fs.cat_file(url, start=start, end=start + length)[:length])
    with fs.open(url, "rb") as stream:
        return bytes(stream.read(limit + 1))


def _fetch_http(fs: Any, url: str, start: int, length: int, limit: int, seconds: float) -> bytes:
    """The same from a web server, whose word on sizes is not taken."""
    aiohttp = import_module("aiohttp")
    headers = dict(fs.kwargs.get("headers", {})) | {"Accept-Encoding": "identity"}
    if length > 0:
        headers["Range"] = f"bytes={start}-{start + length - 1}"
    timeout = aiohttp.ClientTimeout(
        total=max(seconds, 0.01), sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS
    )
    most = limit + 1 if length < 0 else length
    data = bytearray()
    # With a size fsspec asks for nothing beforehand; without blocks it hands over what comes.
    with fs.open(url, "rb", block_size=0, size=1, headers=headers, timeout=timeout) as stream:
        if start and length > 0 and stream.r.status != 206:
            raise _NoRangesError
        while len(data) < most:
            part = stream.read(min(most - len(data), 2**20))
            if not part:
                break
            data += part
    return bytes(data)


def _nanoseconds(told: Any) -> int:
    if isinstance(told, str):
        try:
            told = parsedate_to_datetime(told) if "," in told else datetime.fromisoformat(told)
        except (ValueError, TypeError, OverflowError, IndexError):
            return 0
    if isinstance(told, datetime):
        told = told if told.tzinfo else told.replace(tzinfo=UTC)
        told = told.timestamp()
    return int(told * 1e6) * 1000 if isinstance(told, int | float) and 0 < told < 1e11 else 0
