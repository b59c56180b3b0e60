"""What `byname.ops` computes, in plain float64 loops: slow, and easy to see to be right."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def unit(x: Any) -> F64:
    """Rows divided by their length; rows of zeros stay."""
    out = np.array(x, dtype=np.float64)
    for i in range(len(out)):
        length = math.sqrt(math.fsum(float(v) ** 2 for v in out[i]))
        if length > 0:
            out[i] = [float(v) / length for v in out[i]]
    return out


def matmul_t(x: Any, w: Any) -> F64:
    """Inner product of every row of x with every row of w."""
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    out = np.empty((len(x), len(w)))
    for i in range(len(x)):
        for k in range(len(w)):
            out[i, k] = math.fsum(float(a) * float(b) for a, b in zip(x[i], w[k], strict=True))
    return out


def logsumexp(S: Any) -> F64:
    """Row by row; -inf where all are."""
    out = []
    for row in np.asarray(S, np.float64).tolist():
        top = max(row)
        out.append(
            top if top == -math.inf else top + math.log(math.fsum(math.exp(v - top) for v in row))
        )
    return np.array(out, dtype=np.float64)


def log_softmax(S: Any) -> F64:
    """Row by row; -inf where all are."""
    S = np.asarray(S, np.float64)
    total = logsumexp(S)
    return np.array(
        [
            [v - t if v > -math.inf else -math.inf for v in row]
            for row, t in zip(S, total, strict=True)
        ]
    ).reshape(S.shape)


def softmax(S: Any) -> F64:
    """Row by row; 0 where all are -inf."""
    return np.exp(log_softmax(S))


def segment_sum(values: Any, index: Any, K: int, weights: Any = None) -> F64:
    """Add each row to its segment; -1 to none."""
    values = np.asarray(values, np.float64)
    out = np.zeros((K, values.shape[1]))
    for m in range(len(values)):
        if index[m] >= 0:
            out[index[m]] += values[m] * (1.0 if weights is None else float(weights[m]))
    return out


def segment_mean(values: Any, index: Any, K: int, weights: Any = None) -> F64:
    """Sum over the sum of the weights; 0 where that is 0."""
    sums = segment_sum(values, index, K, weights)
    total = segment_sum(np.ones((len(values), 1)), index, K, weights)
    return np.where(total == 0, 0.0, sums / np.where(total == 0, 1.0, total))


def topk(S: Any, k: int) -> tuple[F64, NDArray[np.intp]]:
    """Sorted by value down, then by index up; NaN as the smallest."""
    S = np.asarray(S, np.float64)
    k = min(k, S.shape[1])
    rows = [
        sorted(range(S.shape[1]), key=lambda j: (-(-math.inf if math.isnan(r[j]) else r[j]), j))[:k]
        for r in S.tolist()
    ]
    index = np.array(rows, dtype=np.intp).reshape(len(S), k)
    return np.take_along_axis(S, index, axis=1), index


def log_probability(p: Any) -> F64:
    """Logarithm, not below that of 1e-30."""
    return np.array([[math.log(max(v, 1e-30)) for v in row] for row in np.asarray(p, np.float64)])
