"""Index of an uncompressed tar: where each file in it begins, from the headers alone."""

from __future__ import annotations

import tarfile
from typing import BinaryIO

from byname.errors import SourceError
from byname.images.places import UnreachableError, advice, open_place, reason, shown

__all__ = ["COMPRESSED_TARS", "index_tar"]

COMPRESSED_TARS = (
    *(".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz"),
    *(".tar.zst", ".tzst", ".tar.lz4", ".tar.lzma"),
)
_COMPRESSED_STARTS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
_BLOCK = 512
_CHECK = "Check the path and its permissions."


def index_tar(path: str) -> tuple[list[tuple[str, int, int]], str, tuple[int, int]]:
    """List the regular files inside a tar, without reading their contents.

    Parameters
    ----------
    path : str
        An uncompressed tar, or its URL. Links and sparse files in it are left out.

    Returns
    -------
    members : list of (name, offset in bytes, length in bytes)
        Those that are whole, in the order of the tar.
    damage : str
        Where and how the tar is damaged; empty for a sound one.
    place : (size, mtime_ns)
        Of the tar.

    Raises
    ------
    SourceError
        For a compressed tar, a file that is no tar at all, or one that cannot be read.
    """
    asked = f"list the tar '{shown(path)}'"
    if shown(path).lower().endswith(COMPRESSED_TARS):
        raise _compressed(asked)
    members: list[tuple[str, int, int]] = []
    try:
        stream, total, mtime_ns = open_place(path)
    except OSError as error:
        raise SourceError(asked, reason(error), advice(path, _CHECK)) from None
    with stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                damage = _scan(tar, members, total)
                if not damage:
                    damage = _check_end(stream, tar.offset)
        except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError) as error:
            if isinstance(error, OSError) and not isinstance(error, tarfile.TarError):
                raise SourceError(asked, reason(error), advice(path, _CHECK)) from None
            if _starts_compressed(stream):
                raise _compressed(asked) from None
            raise SourceError(asked, f"it is not a tar ({error})", "Check the file.") from None
    return members, damage, (total, mtime_ns)


def _scan(tar: tarfile.TarFile, members: list[tuple[str, int, int]], total: int) -> str:
    """Append the members; say what stopped the scan before the end, if something did."""
    last = -1
    while True:
        try:
            member = tar.next()
        except UnreachableError:
            raise
        except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError) as error:
            return f"damaged after {len(members):,} whole files ({error})"
        if member is None:
            return ""
        # A negative size in a header would send the scan back, in circles.
        if member.size < 0 or member.offset_data <= last:
            return f"damaged after {len(members):,} whole files (a header with a negative size)"
        last = member.offset_data
        if member.isreg() and not member.issparse():
            if member.offset_data + member.size > total:
                return f"truncated after {len(members):,} whole files"
            members.append((member.name, member.offset_data, member.size))
        tar.members = []  # type: ignore[attr-defined] # one object a member would cost a gigabyte for a million of them


def _check_end(stream: BinaryIO, offset: int) -> str:
    """A bad header in the middle ends tarfile's scan silently; an end mark is a block of zeros."""
    stream.seek(offset)
    block = stream.read(_BLOCK)
    if not block:
        return "without its end mark: it may have been cut off"
    return "" if block.count(0) == len(block) else f"damaged at byte {offset:,}"


def _starts_compressed(stream: BinaryIO) -> bool:
    stream.seek(0)
    return stream.read(8).startswith(_COMPRESSED_STARTS)


def _compressed(asked: str) -> SourceError:
    return SourceError(
        asked,
        "it is compressed, so its images cannot be read one by one",
        "Decompress it first: 'gunzip', 'bunzip2', 'unxz' or 'unzstd' leaves a plain .tar.",
    )
