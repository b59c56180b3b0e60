"""ReCLIP's first stage in plain float64: a projection matrix, a dense graph, class by class."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.zlap import columns, logits, normalise


def unit_rows(A: Any) -> Any:
    return np.array([row / (np.linalg.norm(row) or 1.0) for row in A])


def projection(W: Any, rank: int | None) -> Any:
    """P (D, D)."""
    if len(W) < 3:
        return np.eye(W.shape[1])
    U, values, _ = np.linalg.svd(W.T, full_matrices=False)
    limit = rank or (250 if len(W) > 500 else 768)
    r = min(int(sum(v > 1e-5 * values[0] for v in values)), limit)
    return U[:, 1:r] @ U[:, 1:r].T if r > 1 else np.eye(W.shape[1])


def reclip(
    X: Any, W: Any, S: Any, *, scale: float, branch: str = "visual", text: str = "raw",
    k: int = 20, alpha: float = 0.99, steps: int = 20, rank: int | None = None,
) -> Any:  # fmt: skip
    """S' (N, K)."""
    X, W, S = (np.asarray(a, np.float64) for a in (X, W, S))
    C, W = len(W), unit_rows(W)
    P = projection(W, rank)
    names, images = unit_rows(W @ P), unit_rows(X @ P)
    nodes = np.vstack([names, images])
    A = (nodes @ nodes.T + 1) / 2
    np.fill_diagonal(A, -1)
    kept = np.zeros_like(A)
    for i, row in enumerate(A):
        for j in np.argsort(-row, kind="stable")[: min(k, len(A) - 1)]:
            kept[i, j] = max(row[j], 0.0)
    L = np.eye(len(A)) - alpha * normalise((kept + kept.T) / 2)
    Z = columns(L, C, 1e-6, steps)[C:]
    if branch == "propagation":
        return logits(Z, S)
    label, visual = Z.argmax(axis=1), np.empty_like(S)
    for c in range(C):
        mean = X[label == c].sum(axis=0)
        length = np.linalg.norm(mean)
        visual[:, c] = scale * X @ (mean / length if length > 0 else W[c])
    if branch == "visual":
        return visual
    return (visual + (S if text == "raw" else scale * images @ names.T)) / 2
