"""Vectors on disk, and a run folder, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from byname import embeddings, stored
from byname.embeddings import Embeddings, vector_array

__all__ = ["make_run", "on_disk", "unit_vectors"]


def unit_vectors(n: int, width: int = 8, seed: int = 0) -> NDArray[np.float32]:
    X = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def on_disk(
    path: Path, X: Any, monkeypatch: pytest.MonkeyPatch, *, group: int = 7, limit: int = 0
) -> tuple[Embeddings, Embeddings]:
    """The same vectors from one file, in memory and stored; numpy may make ``limit`` bytes."""
    monkeypatch.setattr(embeddings, "ROW_GROUP", group)
    Embeddings.from_arrays(X).save(path)
    held = Embeddings.load(path)
    monkeypatch.setattr(embeddings, "IN_MEMORY", 0)
    monkeypatch.setattr(stored, "LIMIT", limit)
    return held, Embeddings.load(path)


def make_run(
    folder: Path,
    keys: Sequence[str],
    X: NDArray[np.float32],
    errors: Mapping[str, str],
    *,
    shard: int = 3,
    encoder: str = "",
) -> None:
    """A finished run: images in the order of ``keys``, some of them with an error."""
    folder.mkdir()
    settings = {"encoder": encoder, "fingerprint": "", "dim": X.shape[1], "shard_size": shard}
    plan = {"format": "byname-run/2", "settings": settings, "images": len(keys), "root": "/x"}
    (folder / "plan.json").write_text(json.dumps(plan, indent=1))
    for i, start in enumerate(range(0, len(keys), shard)):
        names = list(keys[start : start + shard])
        table = {
            "position": np.arange(len(names), dtype=np.int32),
            "file_name": pa.array(names, pa.string()),
            "content": pa.array([b"0" * 16] * len(names)),
            "vector": vector_array(X[start : start + shard]),
            "error": pa.array([errors.get(name) for name in names], pa.string()),
        }
        pq.write_table(pa.table(table), folder / f"part-{i:05d}.parquet")
        (folder / f"part-{i:05d}.json").write_text("{}")
