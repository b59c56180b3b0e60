"""The mixture behind ``anchor`` and ``auto``: prototypes of classes, held back by the texts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import ops
from byname.errors import RecipeError

__all__ = ["SEEDS", "anchored", "check_settings", "given_back", "hits_of"]

Floats = NDArray[Any]
Ints = NDArray[np.intp]
SEEDS = 8  # images that a class starts from
TEMPERATURE = 50.0  # logits of the images a logit of the texts is worth, as in TransCLIP
KEPT = 5  # of this many first hits a class keeps one
INNER = 2
_ROWS = 2048
_EXACT = 1 << 24  # up to so many logits everything is computed in float64


def check_settings(name: str, bound: float, rounds: int, present: float) -> None:
    """Refuse what the members ``anchor`` and ``auto`` cannot use.

    Raises
    ------
    RecipeError
    """
    if not bound >= 0:
        raise RecipeError(f"use '{name}'", f"bound is {bound}", "Give 0 or more.")
    if rounds < 1:
        raise RecipeError(f"use '{name}'", f"rounds is {rounds}", "Give 1 or more.")
    if not 0 <= present <= 1:
        raise RecipeError(f"use '{name}'", f"present is {present}", "Give a share from 0 to 1.")


def hits_of(T: Floats) -> tuple[Ints, Ints]:
    """Best class of each image (N,), and how many images each class is the best of (K,)."""
    best = np.concatenate([T[rows].argmax(axis=1) for rows in ops.blocks(len(T), _ROWS)])
    return best, np.bincount(best, minlength=T.shape[1])


def anchored(
    X: Floats, T: Floats, A: sparse.csr_matrix, rho: float, bound: float, rounds: int
) -> Floats:
    """Probabilities z (N, K) of the mixture; see ``anchor`` for the formula.

    Parameters
    ----------
    X : array, shape (N, D)
    T : array, shape (N, K)
        Logits of the texts.
    A : sparse matrix, shape (N, N)
        Cosines of neighbours, counted from both sides.
    rho : float
        Share of the names that some image seems to show.
    bound : float
        Logits by which the images may move an answer.
    rounds : int
    """
    kind = np.float64 if T.size <= _EXACT else np.float32
    T, A = T.astype(kind, copy=False), A.astype(kind)
    F = _standardised(X, kind)
    z, spare = _seeds(T), np.empty_like(T)
    total = float(np.einsum("ij,ij->", F, F, dtype=np.float64)) or 1.0
    n0, omega = 2 / rho, 0.5
    offset = np.zeros(T.shape[1])
    for turn in range(rounds):
        mass, S = z.sum(axis=0, dtype=np.float64), (z.T @ F).astype(np.float64)
        mu = S / (mass + n0)[:, None]
        if turn:
            left = float((np.einsum("ij,ij->i", S, S) / (mass + n0)).sum())
            omega = max(1 - left / total, 1e-3)
            offset = (1.5 - rho) * np.log(mass + 0.5)
        scaled = (mu / (TEMPERATURE * omega)).astype(kind)
        shift = (offset - np.einsum("ij,ij->i", mu, mu) / (2 * TEMPERATURE * omega)).astype(kind)
        for _ in range(INNER):
            for rows in ops.blocks(len(T), _ROWS):
                E = F[rows] @ scaled.T
                E += shift
                E += (A[rows] @ z) / 3
                E -= E.max(axis=1, keepdims=True)
                np.maximum(E, -bound, out=E)
                E += T[rows]
                spare[rows] = ops.softmax(E)
            z, spare = spare, z
    return z


def given_back(answer: Ints, T: Floats, best: Ints, hits: Ints) -> Ints:
    """The answers, with a fifth of its first hits for each class that kept fewer: the clearest.

    Parameters
    ----------
    answer, best : array of int, shape (N,)
        Answers now, and those of T.
    T : array, shape (N, K)
    hits : array of int, shape (K,)

    Examples
    --------
    >>> T = np.array([[9.0, 0], [5, 0], [7, 0], [6, 0], [8, 0]])
    >>> given_back(np.ones(5, int), T, np.zeros(5, int), np.array([5, 0])).tolist()
    [0, 1, 1, 1, 1]
    """
    answer, least = answer.copy(), hits // KEPT
    kept = np.bincount(best[answer == best], minlength=len(hits))
    poor = np.flatnonzero(kept < least)
    if len(poor):
        rows = np.flatnonzero(np.isin(best, poor))
        two = np.partition(T[rows], -2, axis=1)[:, -2:]
        margin = two.max(axis=1) - two.min(axis=1)
        for k in poor:
            own = np.flatnonzero(best[rows] == k)
            first = own[np.argsort(-margin[own], kind="stable")][: least[k]]
            answer[rows[first]] = k
    return answer


def _standardised(X: Floats, kind: Any) -> Floats:
    """Each feature with mean 0 and deviation 1 over the images; 0 where it never changes."""
    X = X.astype(np.float64 if kind is np.float64 else np.float32, copy=False)
    mean = X.mean(axis=0, dtype=np.float64)
    deviation = np.sqrt(
        np.maximum((X.astype(kind) ** 2).mean(axis=0, dtype=np.float64) - mean**2, 0)
    )
    factor = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6)
    return np.asarray((X - mean.astype(kind)) * factor.astype(kind))


def _seeds(T: Floats) -> Floats:
    """z (N, K): each class starts from its own best images, however badly it is described."""
    N, K = T.shape
    least = min(SEEDS, N)
    half = np.concatenate([ops.logsumexp(T[rows]) for rows in ops.blocks(N, _ROWS)]) / 2
    z = np.zeros_like(T)
    for columns in ops.blocks(K, 256):
        g = T[:, columns] - half[:, None]
        # Among equal images the lower row, so that the choice is the same everywhere.
        top = np.asarray(ops.topk(g.T, least)[1])
        value = np.take_along_axis(g.T, top, axis=1)
        weight = np.exp((value - value[:, :1]) / 2)
        place = np.arange(columns.start, columns.stop)[:, None]
        z[top, place] = weight
    return z
