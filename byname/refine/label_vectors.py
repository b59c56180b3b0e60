"""Class vectors drawn towards the images nearest to them (Lbl2Vec, ReCo)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import RecipeError
from byname.knn import nearest
from byname.refine.guard import NEIGHBOURS, caution, doubt, told, too_few
from byname.refine.shares import refuse_nan, uneven
from byname.refine.whole import barred
from byname.stage import Array, Batch, ClassTexts, Member, StageName, State, register

__all__ = ["LabelVectors", "LabelVectorsParams", "images_of", "mixed", "outlying"]

_CLASSES = 64  # whose images are gathered at a time
_ROWS = 128  # whose distances to all others are looked at together
_OUTLYING = 1.5  # from this local outlier factor on a vector counts as an outlier


@dataclass(frozen=True)
class LabelVectorsParams:
    """Images a class, their share in the class vector, and whether outliers count."""

    m: int | None = None
    mix: float = 0.5
    outliers: bool = True
    guard: bool = True

    def __post_init__(self) -> None:
        if self.m is not None and self.m < 1:
            raise RecipeError("use 'label_vectors'", f"m is {self.m}", "Give 1 or more.")
        if not 0 <= self.mix <= 1:
            seen = f"mix is {self.mix}"
            raise RecipeError("use 'label_vectors'", seen, "Give a share from 0 to 1.")


def images_of(N: int, K: int) -> int:
    """Images a class by default: a hundredth of all, but no more than a class has in the mean.

    Examples
    --------
    >>> images_of(1005, 19), images_of(60, 19), images_of(100_000, 1000)
    (10, 5, 100)
    """
    return min(N, max(5, min(N // 100, N // max(K, 1))))


def mixed(X: Array, W: Array, m: int, mix: float = 0.5, *, outliers: bool = True) -> Array:
    """Unit class vectors (K, D), each drawn towards the mean of the m images nearest to it.

    Parameters
    ----------
    X : array, shape (N, D)
        Unit rows.
    W : array, shape (K, D)
    m : int
    mix : float
        1 is the images alone.
    outliers : bool
        False leaves out, of the m, those with a local outlier factor above 1.5.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> mixed(X, np.array([[0.8, 0.6]]), 1, 1.0).tolist()
    [[0.6, 0.8]]
    """
    X, W = ops.as_float(X), ops.unit(ops.cast(W, ops.as_float(X)))
    index = nearest(W, m, Y=X)[0]
    V = [_mean(X, index[part], outliers) for part in ops.blocks(len(W), _CLASSES)]
    # Nothing is nearest to a class vector of zeros: the lowest rows would be an accident.
    empty = ops.cast((ops.to_numpy(W) != 0).any(axis=1, keepdims=True), W)
    return ops.unit((1 - mix) * W + mix * empty * ops.unit(ops.concat(V)))


def _mean(X: Array, index: NDArray[np.intp], outliers: bool) -> Array:
    rows = ops.take_rows(X, index.ravel()).reshape((*index.shape, -1))
    if outliers:
        return rows.mean(axis=1)
    keep = np.stack([~outlying(ops.to_numpy(own)) for own in rows])
    factor = ops.cast(keep / keep.sum(axis=1, keepdims=True), X)
    return (rows * factor[:, :, None]).sum(axis=1)


def outlying(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of a few vectors (m, D) lie apart: a local outlier factor above 1.5.

    Each is compared with its min(20, m - 1) nearest. Never all of them lie apart.

    Examples
    --------
    >>> np.flatnonzero(outlying(np.append(np.arange(30.0), 500.0)[:, None])).tolist()
    [30]
    """
    m = len(rows)
    k = min(20, m - 1)
    if k < 1:
        return np.zeros(m, np.bool_)
    wide = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    squares = np.einsum("id,id->i", wide, wide)
    near, far = np.empty((m, k), np.intp), np.empty((m, k))
    for part in ops.blocks(m, _ROWS):
        own = wide[part]
        distance = squares - 2 * own @ wide.T
        distance[np.arange(len(own)), np.arange(part.start, part.stop)] = np.inf
        near[part] = np.argsort(distance, axis=1, kind="stable")[:, :k]
        # Those of the nearest once more, by differences: equal vectors are no distance apart.
        apart = own[:, None] - wide[near[part]]
        far[part] = np.sqrt(np.einsum("ikd,ikd->ik", apart, apart))
    reach = np.maximum(far, far.max(axis=1)[near]).mean(axis=1)
    density = 1 / (reach + 1e-10)
    found = density[near].mean(axis=1) / density > _OUTLYING
    return np.asarray(found & (not found.all()), np.bool_)


@register
class LabelVectors(Member):
    """Class vectors mixed with the mean of the images nearest to them.

    Formula::

        A_k  = the m images with the largest <x_i, w_k>,  w_k of length one
        v_k  = unit(mean of x_i over A_k)
        w'_k = unit((1 - mix) w_k + mix v_k)
        S'   = scale * X W'^T + bias

    It works on the vectors: S is the answer only where this steps back, and a score member other
    than ``cosine`` is not refined but replaced. Of the m images, ``outliers=false`` leaves out
    those with a local outlier factor above 1.5 against their min(20, m - 1) nearest; where these
    are all others, up to m = 21, it finds hardly any.

    Against the released code of Lbl2TransformerVec: there the offset of 0 leaves one image a class,
    the largest number cuts the images in the order in which they were given and not by similarity,
    and the outlier branch calls no outlier detection and leaves a number in place of the vector.

    Assumes that every class has about m images or more in the batch, and that those nearest to the
    class vector are mostly its own; a class that is absent gets the images of others. It keeps S,
    and says why, with fewer than 2 images or m, with one class, where the answers of S are as
    mixed as fewer than 2/3 of the classes would be (exp of their entropy), or where ``guard`` sees
    neighbours agree less than before. A class vector of zeros stays zero.

    Shapes: X (N, D), W (K, D), S (N, K) to S' (N, K). N K D three times, in tiles beside one
    (N, K) array, and with ``guard`` the 10 nearest of each image, N^2 D.

    Source: Schopf, Braun and Matthes, "Evaluating Unsupervised Text Classification: Zero-shot and
    Similarity-based Approaches", NLPIR 2022 (Lbl2TransformerVec); with m=50 the retrieval and the
    prototype of Shin, Xie and Albanie, "ReCo: Retrieve and Co-segment for Zero-shot Transfer",
    NeurIPS 2022, for whole images.

    Parameters
    ----------
    m : int or None
        Images a class. None is max(5, min(N / 100, N / K)), rounded down: a hundredth is the
        correction of Lbl2TransformerVec's default, the limit N / K is ours. ReCo takes 50.
    mix : float
        Share of the images; 0.5 is ours, since Lbl2TransformerVec has 1.
    outliers : bool
        Whether outliers among the m count too.
    guard : bool
        Whether neighbours must agree as before.

    Attributes
    ----------
    W_ : array, shape (K, D), or None
        New class vectors; None where S was kept.
    m_ : int
        Images a class.
    reason_ : str or None
        Why S was kept.
    warning_ : str or None
        What to know where shares look uneven (:func:`byname.refine.guard.caution`).

    Raises
    ------
    RecipeError
        For a parameter that does not fit.
    UsageError
        For an image that holds NaN or infinity.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> X = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.28, 0.96]])
    >>> state = State(W=np.eye(2), S=100 * X)
    >>> member = LabelVectors(m=2).fit(Batch(X), texts, state)
    >>> member.W_.round(2).tolist()
    [[0.99, 0.16], [0.23, 0.97]]
    """

    stage: ClassVar[StageName] = "refine"
    name = "label_vectors"
    needs = frozenset({"X"})
    inductive = False
    Params = LabelVectorsParams
    params: LabelVectorsParams
    W_: Array | None = None
    m_: int = 0
    reason_: str | None = "nothing was learned yet"
    warning_: str | None = None

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Find the nearest images of each class."""
        refuse_nan(self.name, batch.X, logits=state.S)
        N, K = len(batch), texts.n_classes
        self.W_, self.warning_, self.m_ = None, None, self.params.m or images_of(N, K)
        self.reason_ = too_few(state.S, self.m_)
        if self.reason_ is None and self.params.guard:
            self.reason_ = uneven(state.S)
        if self.reason_ is not None:
            return self
        p = self.params
        self.W_ = mixed(batch.X, state.W, self.m_, p.mix, outliers=p.outliers)
        if p.guard:
            near, S2 = nearest(batch.X, NEIGHBOURS)[0], self.apply(batch, texts, state)
            self.reason_, self.warning_ = doubt(near, state.S, S2), caution(near, state.S, S2)
            self.W_ = None if self.reason_ else self.W_
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S' (N, K)."""
        if self.W_ is None:
            return ops.as_float(state.S)
        S = ops.matmul_t(batch.X, self.W_)
        S *= texts.scale
        S += texts.bias
        return barred(S, ops.as_float(state.S))

    def report(self) -> dict[str, Any]:
        """Images a class, and whether and why S was kept."""
        return {"m": self.m_, **told(self.reason_, self.warning_)}
