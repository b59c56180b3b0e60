"""Reading files that are named by their hash, and hashing folders."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable
from pathlib import Path

from byname.errors import UnsafeFileError

__all__ = ["read_checked", "sha256_of", "start_of", "weights_beside"]

_NO_WEIGHTS = {".json", ".md", ".txt", ".onnx"}


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


def start_of(path: Path, size: int) -> str:
    """The first bytes of a text that is only informative; "" where it cannot be read.

    Examples
    --------
    >>> start_of(Path("no/such/LICENSE"), 100)
    ''
    """
    if not path.is_file():  # a folder, or a pipe, which would block
        return ""
    try:
        with path.open("rb") as file:
            return file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""


def weights_beside(model: Path) -> list[Path]:
    """Files in the folder of an ONNX model, or below it, that the model names, sorted.

    A model names the files that hold its weights, whatever they are called; a file that it does
    not name cannot change what it computes.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "m.onnx").write_bytes(b"...location...weights.bin...")
    >>> _ = [(folder / name).write_bytes(b"") for name in ("weights.bin", "other.bin")]
    >>> [path.name for path in weights_beside(folder / "m.onnx")]
    ['weights.bin']
    """
    others = [p for p in sorted(model.parent.rglob("*")) if p != model and p.is_file()]
    others = [p for p in others if p.suffix.lower() not in _NO_WEIGHTS]
    if not others or not model.stat().st_size:
        return []
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return [p for p in others if data.find(p.name.encode("utf-8", "surrogateescape")) >= 0]
