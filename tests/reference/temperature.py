"""Temperature from agreement in plain float64 loops, from the formulas alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.reference.cpe import softmax, unit


def agreement(X: Any, T: Any, index: Any, weight: Any, half: Any, K: int) -> float:
    """``half`` (M,): 0 or 1, -1 for texts that do not count."""
    X, T = np.asarray(X, np.float64), np.asarray(T, np.float64)
    same = 0
    for x in X:
        answers = []
        for side in (0, 1):
            scores = []
            for k in range(K):
                mine = [m for m in range(len(T)) if index[m] == k and half[m] == side]
                scores.append(float(x @ unit(sum(weight[m] * T[m] for m in mine))))
            answers.append(scores.index(max(scores)))
        same += answers[0] == answers[1]
    return same / len(X)


def confidence(S: Any, T: float) -> float:
    return sum(max(softmax([float(s) for s in row], T)) for row in S) / len(S)


def temperature(S: Any, target: float) -> float:
    """Bisection on log T between 0.05 and 20."""
    low, high = math.log(0.05), math.log(20)
    for _ in range(60):
        middle = (low + high) / 2
        if confidence(S, math.exp(middle)) > target:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)
