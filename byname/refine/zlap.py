"""Labels that spread from the class texts over a graph of nearest images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import ops
from byname.errors import RecipeError, UsageError
from byname.refine.guard import NEIGHBOURS
from byname.refine.propagation import class_columns, normalised, row_logits
from byname.refine.shares import refuse_nan
from byname.refine.whole import (
    Near,
    WholeBatch,
    adjacency,
    barred,
    neighbours,
    refuse_others,
)
from byname.stage import Batch, ClassTexts, State, register

__all__ = ["ZLap", "ZLapParams"]

Mode = Literal["transductive", "inductive", "sparse"]
_ROWS = 2048
_FEW = 0.1  # of the images without a text that reaches them, above which it warns


@dataclass(frozen=True)
class ZLapParams:
    """The graph, how far labels spread, and whether for these images or for later ones."""

    mode: Mode = "transductive"
    k: int = 5
    gamma: float = 5.0
    alpha: float = 0.3
    itself: bool = True
    tolerance: float = 1e-6
    steps: int = 50
    present: float = 0.5
    guard: bool = True

    def __post_init__(self) -> None:
        rules = {
            "mode": (self.mode in get_args(Mode), " or ".join(map(repr, get_args(Mode)))),
            "k": (1 <= self.k <= 1000, "from 1 to 1000"),
            "gamma": (0 < self.gamma <= 100, "above 0, at most 100"),
            "alpha": (
                0 <= self.alpha < 1 and (self.alpha > 0 or self.mode != "transductive"),
                "above 0, below 1; 0 with mode inductive or sparse alone",
            ),
            "tolerance": (0 <= self.tolerance < 1, "0 or more, below 1"),
            "steps": (self.steps >= 1, "1 or more"),
            "present": (0 <= self.present <= 1, "from 0 to 1"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'zlap'", seen, f"It must be {rule}.")


@register
class ZLap(WholeBatch):
    """ZLaP: label propagation from class texts over a graph of texts and images.

    Formula, with the K texts w, at length one, and the N images x as nodes::

        W_ij = max(<x_i, x_j>, 0)           for the k nearest images j of image i
        W_ic = max(<x_i, w_c>, 0)^gamma     for the k nearest texts c of image i
        W'   = W + W^T without diagonal,  V = D^-1/2 W' D^-1/2,  D the sums of rows, 1 for 0
        z_c  = (I - alpha V)^-1 e_c         by conjugate gradients, for each class c
        S'_ic = log max( z_ic / sum_l z_il, 1e-6 )                          mode "transductive"
        y_t  = (<x_t, w_c>^gamma of the k nearest texts, <x_t, x_j> of the k nearest images)
        S'_tc = log max( p_tc, 1e-6 ),  p_t ~ y_t^T Z                       mode "inductive"

    The image itself counts among its k (``itself``), as in the released code, so that k - 1 others
    are left. Texts have no neighbours of their own and there are no edges between texts. A row
    without anything, of an image in a piece of the graph without a text, is softmax(S), and the
    report counts such images as "unreached". Texts as near as the k-th one have an edge too. It
    works on the vectors: what another score member than ``cosine`` says is used for the checks and
    for unreached images alone.

    The released inductive form solves (I - alpha V) u_t = y_t for each image t that comes later and
    reads u_t at the class nodes; since the matrix is symmetric that is y_t^T Z, with one solve for
    each class and none for an image. ``mode="sparse"`` keeps only the largest entry of each row of
    Z, which takes O(N + K) numbers. Both learn from ``batch.reference``, or else from the images of
    ``fit``, of which each has itself as a neighbour then, and treat every image by itself.

    Assumes that near images belong to one class and that the text similarities of different classes
    can be compared. Goes back to S, and says so in the report, with fewer than two images or
    classes; and, unless ``guard`` is false, where S answers with less than the share ``present`` of
    the names, as a text that belongs to no image still hands its label to those nearest to it, or
    where afterwards neighbours agree less than before (:mod:`byname.refine.guard`). Every text
    hands on one label, however many images it has, so that rare classes take images from frequent
    ones: where the shares of S look uneven it warns, since it cannot tell that from biased texts,
    which it mends.

    Shapes: X (N, D), W (K, D) to S' (N, K). Neighbours cost N^2 D, in tiles; then some ten steps of
    4 k N K. Memory: S' and blocks of 32 classes.

    Source: Stojnic, Kalantidis and Tolias, "Label Propagation for Zero-shot Classification with
    Vision-Language Models", CVPR 2024, without their class proxies.

    Parameters
    ----------
    mode : {"transductive", "inductive", "sparse"}
    k : int
        5, as released.
    gamma : float
        5, as released.
    alpha : float
        0.3, as released.
    itself : bool
        Whether the image counts among its own k; true, as released.
    tolerance : float
        1e-6, as released; here of alpha |V e_c| and not of 1, since with a large ``gamma`` all that
        spreads is below 1e-6.
    steps : int
        50, as released.
    present : float
        0.5 is ours, after a look at the rs19 vectors with names added that are not there.
    guard : bool
        Whether it may go back to S.

    Attributes
    ----------
    scores_ : array, shape (N, K)
        S' of the images of ``fit``, or S where it stepped back.
    reason_ : str or None
        Why it stepped back.
    unreached_ : int or None
        Images that no text reaches; None where it was not looked at.

    Raises
    ------
    RecipeError
        For a parameter that does not fit.
    UsageError
        For an image with NaN or infinity, by its row, and for ``reference`` of another width.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2, 3), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> X = ops.unit(np.array([[9, 1, 0], [9, 2, 0], [9, 3, 0], [5, 9, 9], [6, 8, 9], [8, 7, 9]]))
    >>> state = State(W=texts.vectors, S=5 * X[:, :2])
    >>> member = ZLap(k=3, alpha=0.9).fit(Batch(X), texts, state)
    >>> state.S.argmax(axis=1).tolist(), member.scores_.argmax(axis=1).tolist()
    ([0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1])
    """

    name = "zlap"
    uses = frozenset({"reference"})
    Params = ZLapParams
    params: ZLapParams
    unreached_: int | None = None

    def __init__(self, params: Any = None, **kwargs: Any) -> None:
        super().__init__(params, **kwargs)
        if self.params.mode != "transductive":
            self.inductive = True  # type: ignore[misc]

    def _near(self) -> int:
        return self.params.k

    def _refined(self, X: Any, texts: ClassTexts, state: State, near: Near) -> NDArray[Any]:
        Z = self._columns(X, state, near)[int(state.W.shape[0]) :]  # type: ignore[union-attr]
        self._count(Z)
        return row_logits(Z, state.S)

    def _count(self, Z: NDArray[Any]) -> None:
        """How many rows (N, K) no text reaches; with all of them S must stay."""
        N = len(Z)
        self.unreached_ = lost = int(
            sum((Z[r].max(axis=1) <= 0).sum() for r in ops.blocks(N, _ROWS))
        )
        if lost == N:
            self.reason_ = "no text reaches any image: too little spreads over the graph"
        elif lost > _FEW * N:
            self.warning_ = f"no text reaches {lost} of {N} images, which keep their scores"

    def _columns(self, X: Any, state: State, near: Near) -> NDArray[Any]:
        """Z (K + N, K), the rows of the texts first."""
        p = self.params
        images = adjacency(near, p.k, itself=p.itself)
        to_text = text_edges(X, state.W, p.k, p.gamma)
        V = normalised(sparse.bmat([[None, to_text.T], [to_text, images]], format="csr"))
        dtype = ops.to_numpy(ops.as_float(cast(Any, state.S)[:0])).dtype
        return class_columns(
            V, to_text.shape[1], p.alpha, tolerance=p.tolerance, steps=p.steps, dtype=dtype
        )

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Compute the new scores of these images, or what later ones are scored with."""
        self.unreached_ = None
        if not self.inductive:
            return super().fit(batch, texts, state)
        X, S = self._learned_from(batch, texts, state)
        refuse_nan(self.name, X, logits=S)
        self.reference_: Any = X
        self.reason_, self.warning_ = self.too_little(X, S), None
        if self.reason_ is None:
            near = neighbours(X, max(self.params.k, NEIGHBOURS))
            Z = self._columns(X, State(W=state.W, S=S), near)
            self.columns_: Any = _largest(Z) if self.params.mode == "sparse" else Z
            if self.params.guard:
                found = self._later(X, S, state.W, count=True)
                if self.reason_ is None:
                    self._look(near[0][:, :NEIGHBOURS], S, found)
        return self

    def _learned_from(self, batch: Batch, texts: ClassTexts, state: State) -> tuple[Any, Any]:
        """X and S of the images whose graph is kept."""
        if batch.reference is None:
            return ops.as_float(batch.X), ops.as_float(state.S)
        X = ops.as_float(batch.reference)
        wide, known = int(X.shape[1]), int(state.W.shape[1])  # type: ignore[union-attr]
        if wide != known:
            raise UsageError(
                f"run '{self.name}'",
                f"the reference vectors are {wide} wide, the class vectors {known}",
                "Both must come from one encoder.",
            )
        return X, ops.as_float(texts.scale * ops.matmul_t(X, ops.unit(state.W)))

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S' (N, K)."""
        if not self.inductive:
            return super().apply(batch, texts, state)
        S = ops.as_float(state.S)
        if not len(batch):
            return S
        if not self.report():
            refuse_others(self.name, None, batch.X)
        if self.reason_ is not None:
            return S
        return ops.cast(self._later(batch.X, S, state.W), S)

    def report(self) -> dict[str, Any]:
        """Whether it stepped back to S, and why, and how many images no text reaches."""
        found = super().report()
        return {**found, "unreached": self.unreached_} if found else found

    def _later(self, X: Any, S: Any, W: Any, *, count: bool = False) -> NDArray[Any]:
        """S' (N, K) of images that need not be in the graph."""
        p = self.params
        index, cosine = neighbours(X, p.k, Y=self.reference_)
        starts = np.arange(len(index) + 1) * index.shape[1]
        values = np.maximum(cosine, 0).ravel()
        shape = (len(index), int(self.reference_.shape[0]))
        to_image = sparse.csr_matrix((values, index.ravel(), starts), shape=shape)
        y = sparse.hstack([text_edges(X, W, p.k, p.gamma), to_image], format="csr")
        found = y @ self.columns_
        found = np.asarray(found.toarray() if sparse.issparse(found) else found)
        if count:
            self._count(found)
        made: NDArray[Any] = barred(row_logits(found, S), S)
        return made


def text_edges(X: Any, W: Any, k: int, gamma: float) -> sparse.csr_matrix:
    """max(cosine, 0)^gamma of each image's k nearest class texts, as (N, K).

    Texts that are as near as the k-th one count too, so that of equal texts none loses its images.

    Examples
    --------
    >>> text_edges(np.eye(2), np.array([[1.0, 0], [1, 0], [0, 1]]), 1, 5.0).toarray().tolist()
    [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    # In float64: the power makes much of a small difference.
    W = ops.unit(ops.to_numpy(W).astype(np.float64))
    K = len(W)
    # Equal texts are multiplied once, since a product may be rounded by the place of its column.
    _, first, same = np.unique(W, axis=0, return_index=True, return_inverse=True)
    parts = []
    for rows in ops.blocks(len(X), _ROWS):
        x = ops.to_numpy(X[rows]).astype(np.float64)
        cosine = x @ W.T if len(first) == K else (x @ W[first].T)[:, same.ravel()]
        least = ops.topk(cosine, k)[0][:, -1:]
        row, column = np.nonzero((cosine >= least) & (cosine > 0))
        data = (cosine[row, column] ** gamma, (row, column))
        parts.append(sparse.csr_matrix(data, shape=(len(x), K)))
    return sparse.vstack(parts, format="csr") if parts else sparse.csr_matrix((0, K))


def _largest(Z: NDArray[Any]) -> sparse.csr_matrix:
    """The largest entry of each row alone."""
    place = Z.argmax(axis=1)
    value = np.maximum(Z[np.arange(len(Z)), place], 0)
    return sparse.csr_matrix((value, place, np.arange(len(Z) + 1)), shape=Z.shape)
