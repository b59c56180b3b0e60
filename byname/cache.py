"""The cache folder: content-addressed, safe to delete, safe under two processes."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray

from byname.errors import CacheError

__all__ = [
    "CacheEntry",
    "TextCache",
    "cache_dir",
    "cache_entries",
    "cache_root",
    "clear_cache",
    "working_dir",
]

KINDS = ("int8", "mini", "replies", "runs", "texts")
"""Sub-folders that byname makes; nothing else is ever deleted, whatever BYNAME_CACHE points at."""
PAID = "replies"


def cache_root() -> Path:
    """Where the cache lies: ``BYNAME_CACHE``, else the system's place for caches."""
    return Path(os.environ.get("BYNAME_CACHE") or platformdirs.user_cache_dir("byname"))


def cache_dir() -> Path:
    """The cache folder, created if needed.

    Raises
    ------
    CacheError
        When it cannot be created or written.
    """
    folder = cache_root()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK | os.X_OK)
        seen = "no permission to write there"
    except OSError as error:
        usable, seen = False, error.strerror or str(error)
    if not usable:
        raise CacheError(
            f"use the cache folder '{folder}'",
            seen,
            "Set BYNAME_CACHE to a folder that you can write to.",
        )
    return folder


@functools.lru_cache(maxsize=8)
def _fallback(wanted: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="byname-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def working_dir() -> Path:
    """The cache folder; where it cannot be used, a temporary one for this process, with a warning.

    Results matter more than the cache, so a run goes on without one.
    """
    try:
        return cache_dir()
    except CacheError as error:
        warnings.warn(f"{error} Going on without a cache.", stacklevel=2)
        return _fallback(error.asked)


class TextCache:
    """Text vectors of one encoder, by the text's hash, in one SQLite file.

    SQLite instead of a file a text, because a taxonomy has 100,000 texts and two processes may
    write at once. A damaged file is deleted and made anew.

    Parameters
    ----------
    folder : Path
    fingerprint : str
        ``EncoderInfo.text_fingerprint()``.
    dim : int
    """

    def __init__(self, folder: Path, fingerprint: str, dim: int) -> None:
        self.path = folder / "texts" / f"{fingerprint}.sqlite"
        self.dim = dim
        with suppress(OSError):  # without a place to keep them, texts are encoded each time
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def encode(
        self,
        texts: Sequence[str],
        encode: Callable[[Sequence[str]], NDArray[np.float32]],
        progress: Callable[[int, int], None] = lambda done, total: None,
        block: int = 1024,
    ) -> NDArray[np.float32]:
        """(M, D) vectors; ``encode`` gets unknown texts only, each once, and each block is kept.

        Parameters
        ----------
        texts : sequence of str
        encode : callable
            Texts to vectors.
        progress : callable
            Called with how many of how many unknown texts are done.
        block : int
            Texts encoded, and then written, together.
        """
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        known = self._guarded(lambda db: self._read(db, set(keys))) or {}
        unknown = {k: t for k, t in zip(keys, texts, strict=True) if k not in known}
        # Neighbours in length make batches of equal work, whatever the block.
        todo = sorted(unknown.items(), key=lambda item: len(item[1]))
        for start in range(0, len(todo), block):
            part = dict(todo[start : start + block])
            fresh = dict(zip(part, encode(list(part.values())), strict=True))
            self._guarded(lambda db, fresh=fresh: self._write(db, fresh))  # type: ignore[misc]
            known.update(fresh)
            progress(start + len(part), len(todo))
        if not keys:
            return np.zeros((0, self.dim), np.float32)
        return np.stack([known[key] for key in keys])

    def _guarded(
        self, action: Callable[[sqlite3.Connection], object]
    ) -> dict[bytes, NDArray[np.float32]]:
        """Run ``action``; a damaged file is replaced, and an unwritable one costs only speed."""
        for _ in range(2):
            try:
                with closing(sqlite3.connect(self.path, timeout=30)) as db, db:
                    db.execute("CREATE TABLE IF NOT EXISTS v (k BLOB PRIMARY KEY, x BLOB)")
                    return action(db)  # type: ignore[return-value]
            except sqlite3.OperationalError:
                return {}
            except sqlite3.DatabaseError:
                self.path.unlink(missing_ok=True)
        return {}

    def _read(self, db: sqlite3.Connection, keys: set[bytes]) -> dict[bytes, NDArray[np.float32]]:
        wanted, found = sorted(keys), {}
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            marks = ",".join("?" * len(part))
            rows = db.execute(f"SELECT k, x FROM v WHERE k IN ({marks})", part)
            for key, blob in rows:
                if isinstance(blob, bytes) and len(blob) == 4 * self.dim:
                    found[key] = np.frombuffer(blob, np.float32)
        return found

    def _write(self, db: sqlite3.Connection, fresh: dict[bytes, NDArray[np.float32]]) -> None:
        db.executemany(
            "INSERT OR REPLACE INTO v VALUES (?, ?)",
            [(k, np.ascontiguousarray(v, np.float32).tobytes()) for k, v in fresh.items()],
        )


@dataclass(frozen=True)
class CacheEntry:
    """One part of the cache: its kind (a sub-folder), how many files, how many bytes."""

    kind: str
    files: int
    bytes: int


def cache_entries() -> list[CacheEntry]:
    """What lies in the cache, by kind. Other folders there are not byname's, and left out."""
    base, entries = cache_dir(), []
    for kind in KINDS:
        sizes = []
        for folder, _, names in os.walk(base / kind):
            for name in names:
                with suppress(OSError):  # another process may just have removed it
                    sizes.append(Path(folder, name).stat().st_size)
        if (base / kind).is_dir():
            entries.append(CacheEntry(kind, len(sizes), sum(sizes)))
    return entries


def clear_cache(kind: str | None = None) -> int:
    """Delete the cache, or one kind of it; returns the bytes freed.

    Replies of language models may have cost money: they go only when they are named.

    Raises
    ------
    CacheError
        For a kind that is not there, and where something cannot be deleted.
    """
    chosen = [e for e in cache_entries() if e.kind == kind or (kind is None and e.kind != PAID)]
    if kind is not None and not chosen:
        known = ", ".join(e.kind for e in cache_entries()) or "nothing"
        raise CacheError(f"clear '{kind}'", "the cache holds no such part", f"It holds: {known}.")
    for entry in chosen:
        folder = cache_dir() / entry.kind
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise CacheError(
                f"delete '{folder}'",
                error.strerror or str(error),
                "Stop other runs of byname, check its permissions, or delete it by hand.",
            ) from None
    return sum(e.bytes for e in chosen)
