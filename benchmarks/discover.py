"""Names of a task among a thousand others near to them: how many does ``discover`` find?

python benchmarks/discover.py TASK.npz
"""

from __future__ import annotations

import sys

import numpy as np

from byname import ops
from byname.programs.discover import discover, nearest_words
from byname.taskfile import Task


def main(path: str, others: int = 1000) -> None:
    """One line for K given, one for K estimated."""
    task = Task.load(path)
    texts, X = task.texts_for("templates"), ops.as_float(task.batch().X)
    K = texts.n_classes
    W = np.asarray(ops.unit(ops.segment_mean(texts.vectors, texts.class_index, K)))
    rng = np.random.default_rng(0)
    base = W[rng.integers(0, K, others)]
    half = np.arange(others) % 2
    cosine = rng.uniform(0.5 + 0.2 * half, 0.7 + 0.2 * half)[:, None]
    off = rng.standard_normal(base.shape)
    off = ops.unit(off - (off * base).sum(axis=1, keepdims=True) * base)
    V = np.vstack([W, cosine * base + np.sqrt(1 - cosine**2) * off]).astype(np.float32)
    plain = (nearest_words(X, V) == task.labels).mean()
    print(f"{len(X)} images, {K} names among {len(V)}; nearest word: {plain:.1%} right")
    for k in (K, None):
        found = discover(X, V, k)
        right = (found.words[found.member] == task.labels).mean()
        print(
            f"K = {found.clusters} ({'given' if k else 'estimated'}): "
            f"{(found.words < K).sum()} true names of {len(found.words)}, {right:.1%} right"
        )


if __name__ == "__main__":
    main(sys.argv[1])
