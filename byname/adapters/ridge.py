"""Ridge least squares in closed form, its strength by exact leave-one-out errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from byname.errors import UsageError

__all__ = ["RIDGES", "Affine", "check_ridge", "fit_ridge"]

Floats = NDArray[np.float64]
VARIANCE = 4.5  # what both sides are brought to, as in the released code of Text-to-Concept
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)
MOST = 4096  # rows whose leave-one-out error is computed
_RANK = 1e-12  # directions with less than this share of the largest variance are none


@dataclass(frozen=True, eq=False)
class Affine:
    """``g = f @ weight + bias``, in the units of the data, and the ridge that made it."""

    weight: Floats
    bias: Floats
    ridge: float


def check_ridge(ridge: Any, asked: str) -> None:
    """Raise UsageError unless it is "auto" or a finite number above 0."""
    number = isinstance(ridge, int | float) and not isinstance(ridge, bool)
    if ridge != "auto" and not (number and 0 < ridge < np.inf):
        raise UsageError(asked, f"ridge is {ridge!r}", "Use 'auto' or a number above 0.")


def fit_ridge(
    F: NDArray[Any], G: NDArray[Any], ridge: float | Literal["auto"], seed: int = 0
) -> Affine:
    """Minimise ``||c1 F W + b - c2 G||^2 / n + ridge ||W||^2`` over W and b.

    c1, c2 > 0 bring the mean variance of the columns of F and of G to 4.5, so that a ridge means
    the same whatever the units. b is not penalised: both sides are centred, and the result is

        g = f W c1/c2 + b/c2,   b = c2 mean(G) - c1 mean(F) W

    With ridge "auto" the value of ``RIDGES`` is taken whose leave-one-out error, over at most
    4,096 rows drawn by ``seed``, is the smallest (of equals the strongest): with H the ridge's hat
    matrix, row i left out is off by (g_i - g^_i) / (1 - H_ii), without fitting again.

    Complexity: one eigenvalue problem of size min(n, a), and n*a*(min(n, a) + d).

    Parameters
    ----------
    F : array, shape (n, a)
    G : array, shape (n, d)
    ridge : float or "auto"
    seed : int

    Examples
    --------
    >>> F = np.random.default_rng(0).standard_normal((50, 3))
    >>> found = fit_ridge(F, 2 * F + 1, "auto")
    >>> bool(np.allclose(found.weight, 2 * np.eye(3), atol=1e-5)), found.bias.round(4).tolist()
    (True, [1.0, 1.0, 1.0])
    """
    f0, g0 = F.mean(axis=0, dtype=np.float64), G.mean(axis=0, dtype=np.float64)
    X, Y = F - f0, G - g0
    c1, c2 = _factor(X), _factor(Y)
    X *= c1
    Y *= c2
    n = len(X)
    V, s2 = _directions(X)
    Z = X @ V  # (n, r), orthogonal columns of squared length s2
    P = Z.T @ Y
    chosen = float(_by_leave_one_out(Z, s2, P, Y, seed) if ridge == "auto" else ridge)
    W = V @ (P / (s2 + n * chosen)[:, None])
    weight = W * (c1 / c2)
    return Affine(weight, g0 - f0 @ weight, chosen)


def _factor(centred: Floats) -> float:
    variance = float(np.einsum("ij,ij->", centred, centred)) / centred.size
    return float(np.sqrt(VARIANCE / variance)) if variance > 0 else 1.0


def _directions(X: Floats) -> tuple[Floats, Floats]:
    """Orthonormal directions (a, r) of X and their squared singular values (r,)."""
    wide = len(X) < X.shape[1]
    s2, U = np.linalg.eigh(X @ X.T if wide else X.T @ X)
    keep = s2 > _RANK * max(float(s2[-1]), 1e-300)
    s2, U = s2[keep], U[:, keep]
    return (X.T @ U / np.sqrt(s2) if wide else U), s2


def _by_leave_one_out(Z: Floats, s2: Floats, P: Floats, Y: Floats, seed: int) -> float:
    n = len(Z)
    if n > MOST:
        rows = np.sort(np.random.default_rng(seed).choice(n, MOST, replace=False))
        Z, Y = Z[rows], Y[rows]
    # 1 - H_ii and g_i - g^_i in two parts: what no ridge explains, and what a ridge takes away.
    # Where there are as many directions as rows the first is 0, and all but it would be rounding.
    full = len(s2) >= n - 1
    Q = P / s2[:, None]
    beyond = np.zeros(len(Z)) if full else np.maximum(1 - 1 / n - (Z * Z) @ (1 / s2), 0)
    rest = np.zeros(Y.shape) if full else Y - Z @ Q
    errors: list[float] = []
    for ridge in RIDGES:
        lost = n * ridge / (s2 + n * ridge)
        left = np.maximum(beyond + (Z * Z) @ (lost / s2), 1e-12)
        off = (rest + Z @ (Q * lost[:, None])) / left[:, None]
        errors.append(float(np.einsum("ij,ij->", off, off)))
    least = min(errors)
    return max(r for r, e in zip(RIDGES, errors, strict=True) if e <= least * (1 + 1e-6))
