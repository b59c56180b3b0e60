"""Vectors of earlier runs, found again by the content of the file."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byname.embeddings import vectors_of
from byname.runs.plan import Plan

__all__ = ["ReuseIndex"]


class ReuseIndex:
    """Content hashes of the complete parts of other runs with the same encoder.

    Holds 16 bytes a vector in memory, and the vectors of the few parts last asked for.
    """

    def __init__(self, plan: Plan, *, keep: int = 4) -> None:
        self._parts = [p for folder in _like(plan) for p in sorted(folder.glob("part-*.parquet"))]
        hashes, part, row = [], [], []
        for number, path in enumerate(self._parts):
            for position, content in _contents(path):
                hashes.append(content)
                part.append(number)
                row.append(position)
        heads = np.array([int.from_bytes(h[:8], "big") for h in hashes], np.uint64)
        order = np.argsort(heads, kind="stable")
        self._heads = heads[order]
        self._tails = [hashes[i][8:] for i in order]
        self._part = np.array(part, np.int64)[order]
        self._row = np.array(row, np.int64)[order]
        self._open: OrderedDict[int, NDArray[np.float16]] = OrderedDict()
        self._keep, self._dim = keep, plan.settings.dim
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._heads)

    def find(self, content: bytes) -> NDArray[np.float16] | None:
        """The (D,) vector of a file with this content, or None."""
        head = np.uint64(int.from_bytes(content[:8], "big"))
        at = int(np.searchsorted(self._heads, head))
        while at < len(self._heads) and self._heads[at] == head:
            if self._tails[at] == content[8:]:
                return self._vector(int(self._part[at]), int(self._row[at]))
            at += 1
        return None

    def _vector(self, part: int, row: int) -> NDArray[np.float16] | None:
        with self._lock:
            if part not in self._open:
                try:
                    column = pq.read_table(self._parts[part], columns=["vector"])["vector"]
                    self._open[part] = vectors_of(column)
                except (OSError, ValueError, pa.ArrowException):
                    # The cache may be cleared under a running process: then it is encoded again.
                    self._open[part] = np.zeros((0, self._dim), np.float16)
                while len(self._open) > self._keep:
                    self._open.popitem(last=False)
            self._open.move_to_end(part)
            vectors = self._open[part]
        fits = row < len(vectors) and vectors.shape[1] == self._dim
        return vectors[row] if fits else None


def _like(plan: Plan) -> list[Path]:
    """Folders of other shared runs whose vectors mean the same."""
    found = []
    for path in sorted(plan.folder.parent.glob("*/plan.json")):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))["settings"]
            same = told["fingerprint"] == plan.settings.fingerprint and told["shared"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if same and path.parent != plan.folder:
            found.append(path.parent)
    return found


def _contents(path: Path) -> list[tuple[int, bytes]]:
    """Row number and content hash of every image of a complete part."""
    if not path.with_suffix(".json").exists():
        return []
    try:
        column = pq.read_table(path, columns=["content"])["content"]
    except (OSError, ValueError, pa.ArrowException):
        return []
    lengths = pc.binary_length(column).to_numpy()
    hashes = column.to_pylist()
    return [(int(i), hashes[i]) for i in np.flatnonzero(lengths == 16)]
