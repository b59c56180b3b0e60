"""Trouble with the disk in words, and the remains of runs that died."""

from __future__ import annotations

import errno
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from byname.errors import BynameError, OutputError

__all__ = ["disk_errors", "free_bytes", "is_locked", "lock_path", "say_bytes", "sweep"]

FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
GO_ON = "then give the same command again: what is complete stays."
# What a process leaves that dies while it writes: see files.atomic_path, parts.Journal and
# troubles.Case.
_PART = re.compile(
    r"\.part-(\d+)\.(?:parquet|json)\.[0-9a-f]{12}\.tmp|part-(\d+)\.(?:journal\.new|inhand)",
    re.ASCII,
)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """An error of the file system as one that says where, how much is free, and how to go on.

    Examples
    --------
    >>> with disk_errors(Path("run")):
    ...     raise PermissionError(13, "Permission denied")
    Traceback (most recent call last):
    byname.errors.OutputError: cannot write to 'run': Permission denied. Mend that, then give the \
same command again: what is complete stays.
    """
    try:
        yield
    except BynameError:
        raise
    except OSError as error:
        asked = f"write to '{folder}'"
        if error.errno in FULL or "No space left" in str(error):
            free = free_bytes(folder)
            seen = "the disk is full, or your share of it"
            if free is not None:
                seen += f" ({say_bytes(free)} free)"
            raise OutputError(asked, seen, f"Make room there, {GO_ON}") from error
        seen = error.strerror or str(error) or type(error).__name__
        raise OutputError(asked, seen, f"Mend that, {GO_ON}") from error


def free_bytes(folder: Path) -> int | None:
    """Bytes that may still be written there; None where nobody can tell."""
    for place in (folder, *folder.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(place).free
    return None


def say_bytes(count: float) -> str:
    """A size as people read it.

    Examples
    --------
    >>> say_bytes(12), say_bytes(2_500_000)
    ('12 B', '2.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def lock_path(folder: Path, index: int) -> Path:
    """The lock of whoever works on a shard."""
    return folder / f"part-{index:05d}.lock"


def is_locked(folder: Path, index: int) -> bool:
    """Whether some process works on this shard now.

    Where the folder may only be read, as another user's, a shared lock tells as much.
    """
    path = lock_path(folder, index)
    if not path.exists():
        return False
    try:
        with FileLock(path, blocking=False):
            return False
    except Timeout:
        return True
    except OSError:
        return _is_held(path)


def _is_held(path: Path) -> bool:
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # nobody can tell
        return False
    return False


def sweep(folder: Path) -> int:
    """Delete what dead processes were writing; that of living ones stays. Returns the bytes freed.

    Half a part is of no use, and on a full disk it takes the room that the rest needs.
    """
    freed = 0
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            found = _PART.fullmatch(path.name)
            if found is None:
                continue
            index = int(found[1] or found[2])
            with suppress(OSError, Timeout), FileLock(lock_path(folder, index), blocking=False):
                size = path.stat().st_size
                path.unlink()
                freed += size
    return freed
