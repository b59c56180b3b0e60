"""Reading files that are named by their hash, and hashing folders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from byname.errors import UnsafeFileError

__all__ = ["read_checked", "sha256_of"]


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
