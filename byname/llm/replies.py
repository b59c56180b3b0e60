"""Every reply that was ever paid for, in one file, by what was asked of whom."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from byname.queries import Query

__all__ = ["ReplyCache", "StoredReply", "reply_key"]

T = TypeVar("T")
_TABLE = """CREATE TABLE IF NOT EXISTS replies
    (key BLOB PRIMARY KEY, reply BLOB NOT NULL, finish TEXT, model TEXT, time REAL)"""
_DAMAGED = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_PAUSE = 5.0  # seconds until a file that could not be written is tried again


def reply_key(url: str, model: str, mode: str, query: Query, sample: int) -> bytes:
    """What a reply is kept under: the sha256 of all that it depends on.

    Queries about different classes that ask the same text in the same way share their replies.

    Examples
    --------
    >>> query = Query.make("cat", "", "look", "What does a cat look like?")
    >>> len(reply_key("http://localhost:8000/v1", "m", "chat", query, 0))
    32
    """
    q = query
    asked = [url, model, mode, q.text, q.stop, q.temperature, q.max_tokens, q.form, sample]
    return hashlib.sha256(json.dumps(asked).encode()).digest()


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A reply that is kept, why it ended, which model the server said it was, and when."""

    text: str
    finish: str = ""
    model: str = ""
    time: float = 0.0


class ReplyCache:
    """Replies in ``replies/replies.sqlite`` under a cache folder.

    Each reply is committed as it arrives, so a killed run loses none; several processes and threads
    may use the file. A damaged file is set aside under another name, with a warning, and begun
    anew. Where nothing can be written, a warning says so once and replies stay in memory.

    Parameters
    ----------
    folder : Path
        The cache folder.

    Examples
    --------
    >>> import tempfile
    >>> cache = ReplyCache(Path(tempfile.mkdtemp()))
    >>> cache.put(b"key", StoredReply("It is red."))
    >>> cache.lookup([b"key", b"other"])[b"key"].text
    'It is red.'
    >>> cache.close()
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / "replies" / "replies.sqlite"
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._waiting: dict[bytes, StoredReply] = {}
        self._not_before = 0.0
        self._warned = False

    def lookup(self, keys: Sequence[bytes]) -> dict[bytes, StoredReply]:
        """The replies that are kept, by key; keys without one are left out."""

        def read(db: sqlite3.Connection) -> dict[bytes, StoredReply]:
            found = {}
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                rows = db.execute(f"SELECT * FROM replies WHERE key IN ({marks})", part)
                for key, reply, finish, model, when in rows:
                    if isinstance(reply, bytes):
                        text = reply.decode("utf-8", "surrogatepass")
                        found[key] = StoredReply(text, finish or "", model or "", when or 0.0)
            return found

        with self._lock:
            waiting = {key: self._waiting[key] for key in keys if key in self._waiting}
            return (self._guarded(read) or {}) | waiting

    def put(self, key: bytes, reply: StoredReply) -> None:
        """Keep a reply; when this returns it is on disk, or a warning has said why not."""
        with self._lock:
            self._waiting[key] = reply
            if time.monotonic() >= self._not_before:
                self._write()

    def close(self) -> None:
        """Write what could not be written so far, and let go of the file."""
        with self._lock:
            self._write()
            if self._db is not None:
                with suppress(sqlite3.Error):
                    self._db.close()
                self._db = None

    def _write(self) -> None:
        rows = [
            (k, r.text.encode("utf-8", "surrogatepass"), r.finish, r.model, r.time or time.time())
            for k, r in self._waiting.items()
        ]
        if not rows:
            return

        def write(db: sqlite3.Connection) -> bool:
            with db:
                db.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)", rows)
            return True

        if self._guarded(write):
            self._waiting.clear()
        else:
            self._not_before = time.monotonic() + _PAUSE

    def _guarded(self, action: Callable[[sqlite3.Connection], T]) -> T | None:
        """Run ``action`` on the open file; None, with one warning, where that is not possible."""
        for _ in range(3):
            try:
                if self._db is None:
                    self._db = self._open()
                return action(self._db)
            except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                damaged = code in _DAMAGED or isinstance(error, UnicodeDecodeError)
                if not (damaged and self._set_aside()):
                    self._warn(str(error))
                    return None
        return None

    def _open(self) -> sqlite3.Connection:
        self._opened = _identity(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Two processes that make a new file must not both switch its journal.
            with _making(self.path):
                db = self._connect("rwc", "PRAGMA journal_mode=WAL", _TABLE)
        except (sqlite3.OperationalError, OSError) as error:
            damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
            if damaged or not self.path.is_file():
                raise
            self._warn(str(error))
            # Replies in a folder that cannot be written may still be read.
            try:
                db = self._connect("ro", "SELECT 1 FROM replies LIMIT 1")
            except sqlite3.OperationalError:
                db = self._connect("ro&immutable=1", "SELECT 1 FROM replies LIMIT 1")
        self._opened = self._opened or _identity(self.path)
        return db

    def _connect(self, mode: str, *commands: str) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        db = sqlite3.connect(uri, timeout=_PAUSE, uri=True, check_same_thread=False)
        try:
            # Survives a killed process at once, and a power cut up to the last moments.
            for command in ("PRAGMA synchronous=NORMAL", *commands):
                db.execute(command).fetchall()
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self) -> bool:
        """Rename a damaged file, unless another process has just done so; whether to go on."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None
        try:
            with _making(self.path):
                if self._opened is None or _identity(self.path) != self._opened:
                    return True
                n = 1
                while (new := self.path.with_name(f"{self.path.name}.damaged-{n}")).exists():
                    n += 1
                for end in ("-wal", "-shm"):
                    beside = self.path.with_name(self.path.name + end)
                    if beside.exists():
                        beside.rename(f"{new}{end}")
                self.path.rename(new)
        except (OSError, Timeout):
            return False
        warnings.warn(
            f"The kept replies in '{self.path}' are damaged: that file is now '{new.name}', and "
            "what it held is asked again.",
            stacklevel=2,
        )
        return True

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"Replies cannot be kept in '{self.path}': {why}. This run goes on, and what it "
                "gets would be asked again by a next one.",
                stacklevel=2,
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _making(path: Path) -> FileLock:
    """Held while the file is made or set aside."""
    return FileLock(path.with_name(path.name + ".lock"), timeout=_PAUSE)
