"""A mixture of Gaussians over the image vectors, held to the text scores and to neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import ops
from byname.errors import RecipeError
from byname.refine.whole import Near, WholeBatch, adjacency
from byname.stage import ClassTexts, State, register

__all__ = ["Fixed", "TransClip", "TransClipParams", "mixture"]

Seeds = Literal["posterior", "column"]
Floats = NDArray[Any]
_ROWS, _COLUMNS = 1024, 64
_LEAST_MASS = 1e-30  # a class with less keeps its prototype
_LEAST_VARIANCE = 1e-6  # of what a random unit vector has


@dataclass(frozen=True)
class TransClipParams:
    """Strength of neighbours and texts, how the prototypes start, and how often they move."""

    seeds: Seeds = "posterior"
    top: int = 8
    neighbours: int = 3
    temperature: float = 50.0
    text_weight: float = 1.0
    rounds: int = 10
    steps: int = 5
    present: float = 0.5
    guard: bool = True

    def __post_init__(self) -> None:
        rules = {
            "seeds": (self.seeds in get_args(Seeds), "'posterior' or 'column'"),
            "top": (self.top >= 1, "1 or more"),
            "neighbours": (1 <= self.neighbours <= 1000, "from 1 to 1000"),
            "temperature": (0 < self.temperature < math.inf, "above 0"),
            "text_weight": (0 <= self.text_weight < math.inf, "0 or more"),
            "rounds": (self.rounds >= 0, "0 or more"),
            "steps": (self.steps >= 1, "1 or more"),
            "present": (0 <= self.present <= 1, "from 0 to 1"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'transclip'", seen, f"It must be {rule}.")


@register
class TransClip(WholeBatch):
    """TransCLIP: Gaussians of one variance, pulled by the text scores and by neighbours.

    Formula, with y = softmax(S), n the neighbours, W_ij = max(cos(x_i, x_j), 0) for the n nearest
    others of image i, else 0::

        mu_c = unit( sum of z_ic x_i over the ``top`` images of the class ),  v_j = 1 / D,  z = y
        repeat ``rounds`` times, and the first two lines once more at the end:
            repeat ``steps`` times, for all images at once:
                z_ic ~ y_ic^text_weight exp( (l_ic + temperature / (2 n) ((W + W^T) z)_ic)
                                             / temperature ),
                l_ic = -1/2 sum_j (x_ij - mu_cj)^2 / v_j
            mu_c = unit( sum_i z_ic x_i )
            v_j  = sum_ic z_ic (x_ij - mu_cj)^2 / sum_ic z_ic
        S' = log z

    The ``top`` images of a class are those whose probability of it is largest, weighed by z
    (``seeds="posterior"``, as published), or those with the largest logit, that is text
    similarity, counted alike (``seeds="column"``, ours). The second gives a class with a bad text,
    which is nobody's first choice, images of its own to start from, and it may live.

    Assumes that the images of a class lie close together, and that every name of the list occurs:
    it has no term for shares, but a name that is not there finds a prototype and takes images from
    others. Not that classes are equally many, though rare ones fare worse. Goes back to S, and
    says so in the report, with fewer than two images or classes; and, unless ``guard`` is false,
    where S answers with less than the share ``present`` of the names, where there are fewer than
    two images a class, or where afterwards neighbours agree less than before
    (:mod:`byname.refine.guard`). A class that its neighbour has
    swallowed goes unnoticed. S' is very sure of itself: its probabilities are no calibrated ones.

    The arithmetic differs from the formula only in form: squares are expanded, log-probabilities
    are added, v_j is at least 1e-6 / D, and a class whose z sum to less than 1e-30 keeps its
    prototype.

    Shapes: X (N, D) and S (N, K) to S' (N, K). Neighbours cost N^2 D, in tiles; then
    2 (rounds + 1) N K D and (rounds + 1) steps (2 n + 5) N K; three arrays of the size of S.

    Source: Zanella, Gerin and Ben Ayed, "Boosting Vision-Language Models with Transduction",
    NeurIPS 2024, the variant without labels.

    Parameters
    ----------
    seeds : {"posterior", "column"}
        As published; "column" is ours.
    top : int
        Images that a prototype starts from; 8, as released.
    neighbours : int
        n; 3, as released.
    temperature : float
        50, as released.
    text_weight : float
        1, as released for the variant without labels.
    rounds : int
        10, as released.
    steps : int
        5, as released.
    present : float
        0.5 is ours, after a look at the rs19 vectors with names added that are not there.
    guard : bool
        Whether it may go back to S.

    Attributes
    ----------
    scores_ : array, shape (N, K)
        S', or S where it stepped back.
    reason_ : str or None
        Why it stepped back.

    Raises
    ------
    RecipeError
        For a parameter that does not fit.
    UsageError
        For an image with NaN or infinity, by its row.

    Examples
    --------
    >>> from byname.stage import Batch
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2, 3), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> X = ops.unit(np.array([[9, 1, 0], [9, 2, 0], [9, 3, 0], [5, 9, 9], [6, 7, 9], [8, 7, 9]]))
    >>> S = 5 * X[:, :2]
    >>> S.argmax(axis=1).tolist()
    [0, 0, 0, 1, 1, 0]
    >>> member = TransClip(top=2, neighbours=2).fit(Batch(X), texts, State(S=S))
    >>> member.scores_.argmax(axis=1).tolist()
    [0, 0, 0, 1, 1, 1]
    """

    name = "transclip"
    Params = TransClipParams
    params: TransClipParams

    def _near(self) -> int:
        return self.params.neighbours

    def _images(self, K: int) -> int:
        return 2 * K

    def _refined(self, X: Any, texts: ClassTexts, state: State, near: Near) -> Floats:
        S = ops.to_numpy(ops.as_float(state.S))
        rows = ops.to_numpy(ops.as_float(X)).astype(S.dtype, copy=False)
        A = adjacency(near, self.params.neighbours)
        A.data /= 2 * self.params.neighbours
        # Of one type with S: else each product would copy all of z.
        return mixture(rows, S, A.astype(S.dtype), self.params)


@dataclass(frozen=True)
class Fixed:
    """Images whose class is known: what they add to the images that are asked about.

    Parameters
    ----------
    pull : csr matrix, shape (N, K)
        What those that are neighbours add to the logits of each image.
    starts : array, shape (K, D)
        First prototypes; a row of zeros leaves the class its own.
    mass, sums, squares : arrays, shape (K,), (K, D) and (D,)
        Their number, sums and sums of squares, as they are to count.
    """

    pull: sparse.csr_matrix
    starts: NDArray[np.float64]
    mass: NDArray[np.float64]
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]


def mixture(
    X: Floats, S: Floats, A: sparse.csr_matrix, p: TransClipParams, fixed: Fixed | None = None
) -> Floats:
    """Log-probabilities (N, K) after all rounds; A (N, N) holds what neighbours add."""
    D = X.shape[1]
    mu = _seeds(X, S, p)
    if fixed is not None:
        given = np.flatnonzero(fixed.starts.any(axis=1))
        mu[given] = fixed.starts[given]
    v = np.full(D, 1 / D)
    z, spare, base = np.empty_like(S), np.empty_like(S), np.empty_like(S)
    for rows in ops.blocks(len(S), _ROWS):
        z[rows] = ops.softmax(S[rows])
    squares = np.einsum("ij,ij->j", X, X, dtype=np.float64)
    if fixed is not None:
        squares += fixed.squares
    for turn in range(p.rounds + 1):
        if turn:
            mu, v = _moved(X, z, mu, squares, fixed)
        a = mu / v
        offset = -0.5 * np.einsum("ij,ij->i", mu, a) / p.temperature
        a = (a / p.temperature).astype(S.dtype)
        for step in range(p.steps):
            last = turn == p.rounds and step == p.steps - 1
            for rows in ops.blocks(len(S), _ROWS):
                if not step:
                    np.matmul(X[rows], a.T, out=base[rows])
                    base[rows] += p.text_weight * S[rows] + offset.astype(S.dtype)
                    if fixed is not None:
                        base[rows] += fixed.pull[rows].toarray()
                out = spare[rows]
                np.add(base[rows], A[rows] @ z, out=out)
                _normalise(out, log=last)
            z, spare = spare, z
    return z


def _normalise(logits: Floats, log: bool) -> None:
    """Probabilities of each row, or their logarithms, in place."""
    logits -= logits.max(axis=1, keepdims=True)
    if log:
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)


def _seeds(X: Floats, S: Floats, p: TransClipParams) -> NDArray[np.float64]:
    """First prototype (K, D) of each class, from its best images."""
    total = np.zeros(len(S))
    if p.seeds == "posterior":
        for rows in ops.blocks(len(S), _ROWS):
            total[rows] = ops.logsumexp(S[rows].astype(np.float64))
    mu = np.empty((S.shape[1], X.shape[1]))
    for columns in ops.blocks(S.shape[1], _COLUMNS):
        # In float64, in which sure images can still be told apart.
        key = S[:, columns].T.astype(np.float64) - total
        best, index = ops.topk(key, p.top)
        weight = np.exp(best - best[:, :1]) if p.seeds == "posterior" else np.ones_like(best)
        mu[columns] = ops.unit(np.einsum("kt,ktd->kd", weight, X[index].astype(np.float64)))
    return mu


def _moved(
    X: Floats,
    z: Floats,
    mu: NDArray[np.float64],
    squares: NDArray[np.float64],
    fixed: Fixed | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Prototypes (K, D) and the variance (D,) that they share, after the answers z (N, K)."""
    mass = z.sum(axis=0, dtype=np.float64)
    sums = (z.T @ X).astype(np.float64)
    if fixed is not None:
        mass, sums = mass + fixed.mass, sums + fixed.sums
    moved = ops.unit(sums)
    there = (mass > _LEAST_MASS) & moved.any(axis=1)
    mu = np.where(there[:, None], moved, mu)
    spread = squares - 2 * np.einsum("kd,kd->d", mu, sums) + mass @ mu**2
    least = _LEAST_VARIANCE / X.shape[1]
    return mu, np.maximum(spread / mass.sum(), least)
