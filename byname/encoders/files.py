"""Reading files that are named by their hash, hashing folders, writing by atomic rename."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import platformdirs

from byname.errors import UnsafeFileError

__all__ = ["cache_root", "read_checked", "sha256_of", "write_atomic"]


def cache_root(cache_dir: Path | None = None) -> Path:
    """The folder that encoders may cache in: the argument, ``BYNAME_CACHE``, or the user's own."""
    if cache_dir is not None:
        return Path(cache_dir)
    return Path(os.environ.get("BYNAME_CACHE") or platformdirs.user_cache_dir("byname"))


def read_checked(path: Path, sha256: str) -> bytes:
    """Content of a file, given out only if it is the expected one.

    The bytes that were hashed are the bytes returned, so the file cannot change in between.

    Raises
    ------
    UnsafeFileError
        If the content has another hash.
    """
    data = path.read_bytes()
    seen = hashlib.sha256(data).hexdigest()
    if seen != sha256:
        raise UnsafeFileError(
            f"use '{path}'",
            f"its sha256 is {seen}, expected {sha256}",
            "The file is damaged or another version: reinstall the package it belongs to.",
        )
    return data


def sha256_of(paths: Iterable[Path]) -> str:
    """Hash over the content of several files, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def write_atomic(path: Path, data: bytes) -> bool:
    """Write by rename, so that no reader sees half a file; False where the place is read-only."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            file.write(data)
        try:
            Path(file.name).replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                Path(file.name).unlink()
            raise
    except OSError:
        return False
    return True
