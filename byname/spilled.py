"""Vectors that a command has made and does not hold in memory; and some of those on disk."""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from byname.errors import EmbeddingsError
from byname.stored import Keys, StoredVectors

__all__ = ["Spill", "pick"]


class Spill:
    """Takes vectors in, block by block, and gives them back as stored ones.

    They lie in a file without a name, as float16: nobody else can change or delete it, and it goes
    with the vectors, or with the process.

    Parameters
    ----------
    folder : Path
        On the disk that is to hold it.
    dim : int
        D.

    Examples
    --------
    >>> spill = Spill(Path(tempfile.gettempdir()), 2)
    >>> spill.add(["a.jpg", "b.jpg"], np.array([[3, 4], [0, 1]], np.float16))
    >>> keys, vectors = spill.done()
    >>> keys[1], vectors[:1].tolist()
    ('b.jpg', [[0.6000000238418579, 0.800000011920929]])
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it goes with the vectors
        self._dim, self._names = dim, [pa.array([], pa.string())]

    def add(self, names: Sequence[str], vectors: NDArray[np.float16]) -> None:
        """Names and vectors (n, D) that follow."""
        self._names.append(pa.array(names, pa.string()))
        self._file.write(np.ascontiguousarray(vectors, np.float16).tobytes())

    def done(self) -> tuple[Keys, StoredVectors]:
        """All names, and the vectors in their order."""
        self._file.flush()
        keys = Keys(pa.chunked_array(self._names))
        return keys, _Spilled(self._file, self._dim, keys)

    def close(self) -> None:
        """Drop what was taken in."""
        self._file.close()


class _Own(StoredVectors):
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return np.array, (self.load(),)  # the file has no name by which to find it again


class _Spilled(_Own):
    def __init__(self, file: IO[bytes], dim: int, keys: Keys) -> None:
        super().__init__((), dim, keys)
        self.shape = (len(keys), dim)
        self._raw, self._lock = file, threading.Lock()
        weakref.finalize(self, file.close)

    def halves(self, rows: NDArray[np.intp]) -> NDArray[np.float16]:
        out = np.empty((len(rows), self.shape[1]), np.float16)
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        first = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # of each run without a gap
        for start, stop in zip(first, np.append(first, len(rows))[1:], strict=True):
            block = np.empty((stop - start, self.shape[1]), np.float16)
            with self._lock:
                self._raw.seek(int(rows[start]) * self.shape[1] * 2)
                found = self._raw.readinto(block.data)  # type: ignore[attr-defined]
            if found != block.nbytes:
                seen = f"{found:,} of {block.nbytes:,} bytes came back"
                raise EmbeddingsError("read the vectors of this run", seen, "Start again.")
            out[order[start:stop]] = block
        return out


class _Picked(_Own):
    def __init__(self, base: StoredVectors, rows: NDArray[np.intp]) -> None:
        super().__init__((), base.shape[1], base._keys.take(rows))
        self.shape = (len(rows), base.shape[1])
        self._base, self._rows = base, rows

    def halves(self, rows: NDArray[np.intp]) -> NDArray[np.float16]:
        return self._base.halves(self._rows[rows])


def pick(vectors: Any, rows: Sequence[int]) -> Any:
    """Some rows (n, D); of vectors on disk without reading them.

    Examples
    --------
    >>> pick(np.eye(2), [1]).tolist()
    [[0.0, 1.0]]
    """
    places = np.asarray(rows, np.intp)
    return _Picked(vectors, places) if isinstance(vectors, StoredVectors) else vectors[places]
