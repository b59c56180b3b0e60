"""Arrays out of an .npz file, without running what it may hold."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.errors import BynameError, EmbeddingsError, UnsafeFileError

__all__ = ["MAX_BYTES", "read_arrays"]

MAX_BYTES = 16 << 30
MAX_EMPTY = 1 << 20
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error),
    *(OSError, ValueError, OverflowError, MemoryError),
    *(RuntimeError, NotImplementedError, RecursionError),  # encrypted, or packed in another way
    *(SyntaxError, tokenize.TokenError),  # headers are Python literals
    *(TypeError, KeyError, IndexError, AttributeError),  # ... that numpy does not check in full
)


def read_arrays(
    path: Path, asked: str, keys: Sequence[str], optional: Sequence[str], do: str
) -> dict[str, NDArray[Any]]:
    """The named arrays of a file, and the optional ones where they are; nothing else is read.

    Raises
    ------
    EmbeddingsError
        With ``asked``, for a missing or damaged file, and with ``do`` for an incomplete one.
    UnsafeFileError
        For arrays of Python objects, or sizes beyond all measure.
    """
    if not path.is_file():
        raise EmbeddingsError(asked, "there is no such file", "Check the path.")
    try:
        with zipfile.ZipFile(path) as archive:
            held = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
            names = Counter(i.filename.removesuffix(".npy") for i in archive.infolist())
            if twice := [name for name, n in names.items() if n > 1]:
                seen = f"it holds '{twice[0]}' twice"
                raise UnsafeFileError(asked, seen, "Write it with numpy.savez.")
            missing = [key for key in keys if key not in held]
            if missing:
                seen = f"it lacks {', '.join(missing)} (it holds {', '.join(held) or 'nothing'})"
                raise EmbeddingsError(asked, seen, do)
            wanted = [*keys, *(key for key in optional if key in held)]
            for key in wanted:
                _check_header(archive, held[key], key, asked, do)
            if (total := sum(held[key].file_size for key in wanted)) > MAX_BYTES:
                seen = f"its arrays say they take {total / 2**30:.0f} GiB"
                raise UnsafeFileError(asked, seen, f"At most {MAX_BYTES >> 30} GiB are read.")
            return {key: _read(archive, held[key]) for key in wanted}
    except _DAMAGED as error:
        if isinstance(error, BynameError):
            raise
        why = (str(error) or type(error).__name__).splitlines()[0]
        seen = f"it is not a readable .npz file ({why:.100})"
        raise EmbeddingsError(asked, seen, "Write it with numpy.savez.") from None


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """The array of an entry, the very one that was checked."""
    with archive.open(entry) as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        member.read(1)  # at the end, the checksum is compared
    return array


def _check_header(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, key: str, asked: str, do: str
) -> None:
    """Refuse Python objects, and headers that claim more than the file says it holds."""
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        if version not in {(1, 0), (2, 0)}:
            raise EmbeddingsError(asked, f"'{key}' has the .npy version {version}", do)
        one = version == (1, 0)
        read = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        start = member.tell()
    if dtype.hasobject:
        seen = f"'{key}' holds Python objects, and reading them could run code"
        raise UnsafeFileError(asked, seen, "Save plain arrays of numbers or texts.")
    size, items = dtype.itemsize, 1
    for n in shape:
        size *= n
        items *= max(n, 1)
    # Texts of no letters and rows of no numbers take no room, however many there are.
    if not dtype.itemsize or (size == 0 and items > MAX_EMPTY):
        seen = f"'{key}' has the shape {shape} and the type {dtype}"
        raise UnsafeFileError(asked, seen, "Write the file again with numpy.savez.")
    if start + size != entry.file_size:
        seen = f"'{key}' claims {size} bytes, but holds {entry.file_size - start}"
        raise UnsafeFileError(asked, seen, "Write the file again with numpy.savez.")
