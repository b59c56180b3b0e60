"""Reciprocal rank fusion in plain float64 loops, from the formula alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def place(row: Any, j: int) -> float:
    """1 for the largest; equal ones share the mean of their places."""
    above = sum(x > row[j] for x in row)
    equal = sum(x == row[j] for x in row)
    return float(above + (equal + 1) / 2)


def by_rank(members: Any, S: Any, c: float = 60.0, tie: float = 1e-3) -> Any:
    N, K = S.shape
    out = np.zeros((N, K))
    for i in range(N):
        votes = [
            sum(1 / (c + place(m[i], j)) for m in members) + tie / (c + place(S[i], j))
            for j in range(K)
        ]
        out[i] = [math.log(v / sum(votes)) for v in votes]
    return out


def by_probability(members: Any) -> Any:
    N, K = members[0].shape
    out = np.zeros((N, K))
    for i in range(N):
        total = np.zeros(K)
        for m in members:
            e = np.exp(m[i].astype(np.float64) - m[i].max())
            total += e / e.sum()
        out[i] = np.log(np.maximum(total / total.sum(), 1e-30))
    return out
