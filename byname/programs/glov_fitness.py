"""How good class vectors are for unlabeled images."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from byname import ops
from byname.errors import UsageError
from byname.stage import Array

__all__ = ["Fitness", "fitness"]

Fitness = Literal["zpe", "confidence"]
_BLOCK = 1024


def fitness(
    X: Array, W: Array, kind: Fitness = "zpe", *, scale: float = 100.0, penalty: float = 1.0
) -> float:
    """How good class vectors are for unlabeled images, without a label.

    Formula, with L = scale * X W' and p its softmax::

        zpe         mean over i of max over k of (L[i, k] - mean over j of L[j, k])
        confidence  mean over i of max over k of p[i, k]  -  penalty * (1 - H(mean p) / log K)

    H(mean p) / log K is 1 where all classes are predicted alike often. Both are 0 or 1 for one
    class, whatever the images. Neither is accuracy: zpe rewards class vectors that lie far apart,
    confidence those that are sure and wrong alike.
    Means are taken in float64. Time N*K*D, memory of one block.

    Raises
    ------
    UsageError
        For another kind, no image or no class.

    Examples
    --------
    >>> fitness(np.eye(2), np.eye(2), scale=1.0), fitness(np.eye(2), np.ones((2, 2)))
    (0.5, 0.0)
    """
    n, K = len(X), len(W)
    if kind not in get_args(Fitness):
        raise UsageError("score class vectors", f"kind is {kind!r}", "Use zpe or confidence.")
    if not n or not K:
        seen = f"there are {n} images and {K} classes"
        raise UsageError("score class vectors", seen, "Give one of each or more.")
    X = ops.as_float(X)
    total, mass = 0.0, np.zeros(K)
    blocks = list(ops.blocks(n, _BLOCK))
    # The mean logit of a class is the logit of the mean image.
    mean = sum(ops.to_numpy(X[rows]).sum(axis=0, dtype=np.float64) for rows in blocks) / n
    usual = scale * (ops.to_numpy(W).astype(np.float64) @ mean)
    for rows in blocks:
        L = ops.to_numpy(ops.matmul_t(X[rows], W)).astype(np.float64) * scale
        if kind == "zpe":
            total += float((L - usual).max(axis=1).sum())
        else:
            p = ops.softmax(L)
            total += float(p.max(axis=1).sum())
            mass += p.sum(axis=0)
    if kind == "zpe":
        return total / n
    share = mass / n
    entropy = -float(np.sum(share * np.log(np.maximum(share, 1e-300))))
    return total / n - penalty * (1 - entropy / math.log(K) if K > 1 else 0.0)
