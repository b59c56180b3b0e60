"""Labels that spread from the class texts over a graph of nearest images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import ops
from byname.errors import RecipeError
from byname.refine.guard import NEIGHBOURS
from byname.refine.propagation import class_columns, normalised, row_logits
from byname.refine.whole import Near, WholeBatch, adjacency, neighbours
from byname.stage import Batch, ClassTexts, State, register

__all__ = ["ZLap", "ZLapParams"]

Mode = Literal["transductive", "inductive", "sparse"]
_ROWS = 2048


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
            "k": (self.k >= 1, "1 or more"),
            "gamma": (0 < self.gamma <= 100, "above 0, at most 100"),
            "alpha": (0 <= self.alpha < 1, "0 or more, below 1"),
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
    without anything, of an image in a piece of the graph without a text, is softmax(S).

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
        1e-6, as released.
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

    Raises
    ------
    RecipeError
        For a parameter that does not fit.
    UsageError
        For an image with NaN or infinity, by its row.

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

    def __init__(self, params: Any = None, **kwargs: Any) -> None:
        super().__init__(params, **kwargs)
        if self.params.mode != "transductive":
            self.inductive = True  # type: ignore[misc]

    def _near(self) -> int:
        return self.params.k

    def _refined(self, X: Any, texts: ClassTexts, state: State, near: Near) -> NDArray[Any]:
        K = texts.n_classes
        Z = self._columns(X, state, near)[K:]
        return row_logits(Z, state.S)

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
        if not self.inductive:
            return super().fit(batch, texts, state)
        X = ops.as_float(batch.X if batch.reference is None else batch.reference)
        S = ops.as_float(texts.scale * ops.matmul_t(X, ops.unit(state.W)))
        self.reference_: Any = X
        self.reason_, self.warning_ = self.too_little(X, S), None
        if self.reason_ is None:
            near = neighbours(X, max(self.params.k, NEIGHBOURS))
            Z = self._columns(X, State(W=state.W, S=S), near)
            self.columns_: Any = _largest(Z) if self.params.mode == "sparse" else Z
            if self.params.guard:
                self._look(near[0][:, :NEIGHBOURS], S, self._later(X, S, state.W))
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """S' (N, K)."""
        if not self.inductive:
            return super().apply(batch, texts, state)
        S = ops.as_float(state.S)
        if self.reason_ is not None or not len(batch):
            return S
        return ops.cast(self._later(batch.X, S, state.W), S)

    def _later(self, X: Any, S: Any, W: Any) -> NDArray[Any]:
        """S' (N, K) of images that need not be in the graph."""
        p = self.params
        index, cosine = neighbours(X, p.k, Y=self.reference_)
        starts = np.arange(len(index) + 1) * index.shape[1]
        values = np.maximum(cosine, 0).ravel()
        shape = (len(index), int(self.reference_.shape[0]))
        to_image = sparse.csr_matrix((values, index.ravel(), starts), shape=shape)
        y = sparse.hstack([text_edges(X, W, p.k, p.gamma), to_image], format="csr")
        found = y @ self.columns_
        found = found.toarray() if sparse.issparse(found) else found
        return row_logits(np.asarray(found), S)


def text_edges(X: Any, W: Any, k: int, gamma: float) -> sparse.csr_matrix:
    """max(cosine, 0)^gamma of each image's k nearest class texts, as (N, K)."""
    # In float64: the power makes much of a small difference.
    W = ops.unit(ops.to_numpy(W).astype(np.float64))
    K = len(W)
    index, value = [], []
    for rows in ops.blocks(len(X), _ROWS):
        best, place = ops.topk(ops.to_numpy(X[rows]).astype(np.float64) @ W.T, k)
        index.append(place.ravel())
        value.append(np.maximum(best, 0).ravel() ** gamma)
    starts = np.arange(len(X) + 1) * min(k, K)
    if not index:
        return sparse.csr_matrix((0, K))
    data = (np.concatenate(value), np.concatenate(index), starts)
    return sparse.csr_matrix(data, shape=(len(X), K))


def _largest(Z: NDArray[Any]) -> sparse.csr_matrix:
    """The largest entry of each row alone."""
    place = Z.argmax(axis=1)
    value = np.maximum(Z[np.arange(len(Z)), place], 0)
    return sparse.csr_matrix((value, place, np.arange(len(Z) + 1)), shape=Z.shape)
