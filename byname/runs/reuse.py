"""Vectors of earlier runs and of this one, found again by the content of the file."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byname.embeddings import vectors_of
from byname.files import parse_json
from byname.runs.parts import HASH_BYTES, read_parquet, schema
from byname.runs.plan import Plan

__all__ = ["ReuseIndex"]


LEARNT_BYTES = 64 * 2**20


class ReuseIndex:
    """Content hashes of the complete parts of other runs with the same encoder, and of this run.

    Holds 32 bytes a vector of other runs in memory, the vectors of the few parts last asked for,
    and the ``learn_most`` newest vectors of this run: by default, 100,000 or 64 MiB of them.
    """

    def __init__(self, plan: Plan, *, keep: int = 4, learn_most: int | None = None) -> None:
        self._learnt: dict[bytes, NDArray[np.float16]] = {}
        fitting = LEARNT_BYTES // (2 * plan.settings.dim + 256)  # 256: what Python adds to each
        self._learn_most = min(100_000, fitting) if learn_most is None else learn_most
        self._parts = [p for folder in _like(plan) for p in sorted(folder.glob("part-*.parquet"))]
        found = [_contents(path) for path in self._parts]
        hashes = np.concatenate([np.zeros((0, 2), np.uint64), *(h for _, h in found)])
        rows = np.concatenate([np.zeros(0, np.int64), *(rows for rows, _ in found)])
        parts = np.repeat(np.arange(len(found)), [len(rows) for rows, _ in found])
        order = np.argsort(hashes[:, 0], kind="stable")
        self._heads, self._tails = hashes[order, 0], hashes[order, 1]
        self._part, self._row = parts[order], rows[order]
        self._open: OrderedDict[int, NDArray[np.float16]] = OrderedDict()
        self._keep, self._dim = keep, plan.settings.dim
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._heads)

    def learn(self, content: bytes, vector: NDArray[np.float16]) -> None:
        """Keep the (D,) vector of a file of this run, in the order of the run."""
        # A copy: a row of an array would keep all of it in memory.
        if content not in self._learnt:
            self._learnt[content] = np.array(vector, np.float16)

    def learnt(self, content: bytes) -> NDArray[np.float16] | None:
        """The vector of a file of this run with this content, or None."""
        return self._learnt.get(content)

    def trim(self) -> None:
        """Forget the oldest of what was learnt, beyond the limit.

        Called between shards only: inside one, files are loaded ahead, and what is found must not
        depend on how far.
        """
        for content in list(islice(self._learnt, max(0, len(self._learnt) - self._learn_most))):
            del self._learnt[content]

    def find(self, content: bytes) -> NDArray[np.float16] | None:
        """The (D,) vector of a file with this content, or None."""
        if (known := self.learnt(content)) is not None:
            return known
        head, tail = _halves([content])[0]
        at = int(np.searchsorted(self._heads, head))
        while at < len(self._heads) and self._heads[at] == head:
            if self._tails[at] == tail:
                vector = self._vector(int(self._part[at]), int(self._row[at]))
                if vector is not None:
                    return vector
            at += 1
        return None

    def _vector(self, part: int, row: int) -> NDArray[np.float16] | None:
        with self._lock:
            if part not in self._open:
                # The cache may be cleared under a running process: then it is encoded again.
                table = read_parquet(self._parts[part], self._dim)
                self._open[part] = vectors_of(
                    schema(self._dim).empty_table()["vector"] if table is None else table["vector"]
                )
                while len(self._open) > self._keep:
                    self._open.popitem(last=False)
            self._open.move_to_end(part)
            vectors = self._open[part]
        return vectors[row] if row < len(vectors) else None


def _like(plan: Plan) -> list[Path]:
    """Folders of other shared runs whose vectors mean the same."""
    found = []
    for path in sorted(plan.folder.parent.glob("*/plan.json")):
        try:
            told = parse_json(path.read_bytes())["settings"]
            same = told["fingerprint"] == plan.settings.fingerprint and told["shared"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if same and path.parent != plan.folder:
            found.append(path.parent)
    return found


def _contents(path: Path) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Row number and content hash of every image of a complete part."""
    hashes: list[bytes | None] = []
    if path.with_suffix(".json").exists():
        # A damaged or vanished part is one without rows.
        with suppress(OSError, ValueError, KeyError, pa.ArrowException):
            table = pq.read_table(path, columns=["content"], page_checksum_verification=True)
            hashes = table["content"].to_pylist()
    rows = [i for i, content in enumerate(hashes) if content and len(content) == HASH_BYTES]
    return np.array(rows, np.int64), _halves([hashes[i] or b"" for i in rows])


def _halves(hashes: list[bytes]) -> NDArray[np.uint64]:
    """(n, 2): each hash as two numbers."""
    return np.frombuffer(b"".join(hashes), ">u8").astype(np.uint64).reshape(-1, 2)
