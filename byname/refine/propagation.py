"""Label propagation: class columns of the inverse of a graph's Laplacian, many at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import ops

__all__ = ["class_columns", "normalised", "row_logits"]

_COLUMNS = 32  # classes that are solved for together
_ROWS = 4096
LEAST = 1e-6  # of a row: what the solver cannot tell from zero


def normalised(W: Any) -> sparse.csr_matrix:
    """D^-1/2 W D^-1/2 without the diagonal of W; D holds the sums of rows, 1 in place of 0.

    Examples
    --------
    >>> normalised(np.array([[9.0, 4.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 0.0]])).toarray()
    array([[0., 1., 0.],
           [1., 0., 0.],
           [0., 0., 0.]])
    """
    W = sparse.csr_matrix(W, dtype=np.float64)
    W = W - sparse.diags(W.diagonal())
    degree = np.asarray(W.sum(axis=1)).ravel()
    half = sparse.diags(1 / np.sqrt(np.where(degree == 0, 1, degree)))
    made = sparse.csr_matrix(half @ W @ half)
    made.eliminate_zeros()
    return made


def class_columns(
    W: sparse.csr_matrix, K: int, alpha: float, *, tolerance: float, steps: int, dtype: Any
) -> NDArray[Any]:
    """Columns 0 to K - 1 of (I - alpha W)^-1 by conjugate gradients, as (N, K).

    Some columns are solved for together, each with a step width of its own; one whose residual is
    below ``tolerance`` times alpha |W e_c|, what the first step leaves, stays as it is: edges may
    be tiny, and what matters is what spreads over them.

    Parameters
    ----------
    W : csr matrix, shape (N, N)
        Symmetric, with eigenvalues between -1 and 1.
    K : int
    alpha : float
        Below 1.
    tolerance : float
    steps : int
        At most so many; fewer than needed leave each column where it has come to.
    dtype : dtype
        Of the result; the arithmetic is float64.

    Examples
    --------
    >>> W = sparse.csr_matrix(np.array([[0.0, 1.0], [1.0, 0.0]]))
    >>> class_columns(W, 1, 0.5, tolerance=1e-9, steps=9, dtype=float).round(4).tolist()
    [[1.3333], [0.6667]]
    """
    N = W.shape[0]
    out = np.empty((N, K), dtype)
    for columns in ops.blocks(K, _COLUMNS):
        width = columns.stop - columns.start
        r = np.zeros((N, width))
        r[np.arange(columns.start, columns.stop), np.arange(width)] = 1
        x, p, rho = np.zeros_like(r), r.copy(), np.ones(width)
        edges = W[columns]
        enough = tolerance * alpha * np.sqrt(np.asarray(edges.multiply(edges).sum(axis=1)).ravel())
        for _ in range(steps):
            live = np.sqrt(rho) > enough
            if not live.any():
                break
            q = W @ p
            q *= -alpha
            q += p
            curve = np.einsum("ij,ij->j", p, q)
            step = np.where(live, rho / np.where(live, curve, 1), 0)
            r -= np.multiply(q, step, out=q)
            x += np.multiply(p, step, out=q)
            new = np.einsum("ij,ij->j", r, r)
            p *= np.where(live, new / np.where(live, rho, 1), 0)
            p += r
            rho = np.where(live, new, rho)
        out[:, columns] = x
    return out


def row_logits(Z: NDArray[Any], S: Any) -> NDArray[Any]:
    """log of the share (N, K) of each class in its row of Z, at least 1e-6; Z is overwritten.

    A row that is zero, of an image that no text reaches, is answered by the logits S.

    Examples
    --------
    >>> row_logits(np.array([[3.0, 1.0], [0.0, 0.0]]), np.array([[0.0, 1.0], [0.0, 0.0]])).round(2)
    array([[-0.29, -1.39],
           [-0.69, -0.69]])
    """
    for rows in ops.blocks(len(Z), _ROWS):
        part = np.maximum(Z[rows], 0)
        total = part.sum(axis=1, keepdims=True)
        lost = total[:, 0] <= 0
        part /= np.where(total > 0, total, 1)
        Z[rows] = np.log(np.maximum(part, LEAST))
        if lost.any():
            Z[rows][lost] = ops.to_numpy(ops.log_softmax(S[rows]))[lost]
    return Z
