"""Class texts without what they share, labels that spread from them, and what the images say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import ops
from byname.errors import RecipeError
from byname.refine.propagation import class_columns, normalised, row_logits
from byname.refine.whole import WholeBatch, neighbours
from byname.stage import ClassTexts, State, register

__all__ = ["ReClip", "ReClipParams", "directions"]

Branch = Literal["visual", "propagation", "average"]
Text = Literal["raw", "projected"]
_ROWS = 4096
_RANK = 1e-5  # of the largest singular value: texts that differ by less are the same


@dataclass(frozen=True)
class ReClipParams:
    """Which of the answers is given, the graph, and how far labels spread."""

    branch: Branch = "visual"
    text: Text = "raw"
    k: int = 20
    alpha: float = 0.99
    steps: int = 20
    tolerance: float = 1e-6
    rank: int | None = None
    present: float = 0.5
    guard: bool = True

    def __post_init__(self) -> None:
        rules = {
            "branch": (self.branch in get_args(Branch), " or ".join(map(repr, get_args(Branch)))),
            "text": (self.text in get_args(Text), "'raw' or 'projected'"),
            "k": (1 <= self.k <= 1000, "from 1 to 1000"),
            "alpha": (0 <= self.alpha < 1, "0 or more, below 1"),
            "steps": (self.steps >= 1, "1 or more"),
            "tolerance": (0 <= self.tolerance < 1, "0 or more, below 1"),
            "rank": (self.rank is None or self.rank >= 2, "2 or more, or none"),
            "present": (0 <= self.present <= 1, "from 0 to 1"),
        }
        for name, (fits, rule) in rules.items():
            if not fits:
                seen = f"{name} is {getattr(self, name)!r}"
                raise RecipeError("use 'reclip'", seen, f"It must be {rule}.")


@register
class ReClip(WholeBatch):
    """ReCLIP without training: projection, label propagation, and class means of the images.

    Formula, with the K texts w at length one, unit() per row::

        W = V S U^T  (thin SVD, singular values falling),  U' = columns 2 to r of U
        a = unit(texts, then images, times U')
        A_ij = (<a_i, a_j> + 1) / 2 for the k nearest others j of each row i
        L    = I - alpha D^-1/2 (A + A^T)/2 D^-1/2,  D the sums of rows
        z_c  = ``steps`` steps of conjugate gradients towards L^-1 e_c
        p_ic = z_ic / sum_l z_il,  label_i = argmax_c z_ic
        v_c  = unit( sum of the images x with label c );  w_c where there are none
        S'   = log max(p, 1e-6)                           branch "propagation"
        S'   = scale X v^T + bias                         branch "visual"
        S'   = half of each: visual, and the text logits  branch "average"

    The text logits of the average are those that came in (``text="raw"``) or scale times the
    cosine after the projection (``text="projected"``). The first column of U is the direction that
    all class texts share. r is the rank of W, at most ``rank``: 768, or 250 with more than 500
    classes. With fewer than three classes, or texts of rank one, nothing is projected.

    It works on the vectors: what another score member than ``cosine`` says is used for the checks,
    for images that no text reaches, and in the average with raw text logits, and not else.

    At alpha 0.99 the system is far from solved after 20 steps, as in the released code, and the
    number of steps is part of the method: more of them give other answers.

    Assumes that near images belong to one class, and that every name of the list occurs: each has a
    label to hand on; and that a class has k images or more, since otherwise most neighbours of an
    image are of other classes, and answers collapse. Goes back to S, and says so in the report,
    with fewer than two images or classes; and, unless ``guard`` is false, where S answers with less
    than the share ``present`` of the names, where there are fewer than k images a class, or where
    afterwards neighbours agree less than before (:mod:`byname.refine.guard`). A class
    that its neighbour has swallowed goes unnoticed; where shares look uneven, the report warns.

    Shapes: X (N, D), W (K, D) to S' (N, K). Neighbours cost (N + K)^2 min(K, D), in tiles, and
    N^2 D for ``guard``; then 4 steps k N K. Memory: one array like S beside S', blocks of 32
    classes, and the projected images.

    Source: Hu et al., "ReCLIP: Refine Contrastive Language Image Pre-Training with Source Free
    Domain Adaptation", WACV 2024: the first stage, and one round of its two branches, without the
    training of the encoders.

    Parameters
    ----------
    branch : {"visual", "propagation", "average"}
        The paper's answer is the average, after training; "visual" as the default is ours, chosen
        with the accuracies of the branches on the rs19 vectors in view.
    text : {"raw", "projected"}
        For the average alone; "raw" is ours.
    k : int
        20, as released.
    alpha : float
        0.99, as released.
    steps : int
        20, as released.
    tolerance : float
        1e-6, as released.
    rank : int or None
        None: 768, or 250 with more than 500 classes, as released.
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
    without_ : int
        Classes that no image was labelled with, which keep their text as ``v_c``.

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
    >>> X = ops.unit(np.array([[9, 1, 0], [9, 2, 0], [9, 3, 0], [5, 9, 9], [6, 8, 9], [8, 7, 9]]))
    >>> state = State(W=texts.vectors, S=5 * X[:, :2])
    >>> member = ReClip(k=2).fit(Batch(X), texts, state)
    >>> state.S.argmax(axis=1).tolist(), member.scores_.argmax(axis=1).tolist()
    ([0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1])
    """

    name = "reclip"
    Params = ReClipParams
    params: ReClipParams
    without_: int = 0

    def _near(self) -> int:
        return 0  # of its own it looks at neighbours after the projection

    def _images(self, K: int) -> int:
        return self.params.k * K

    def _refined(self, X: Any, texts: ClassTexts, state: State, near: Any) -> NDArray[Any]:
        p, S = self.params, ops.to_numpy(ops.as_float(state.S))
        self.without_ = 0
        W = ops.unit(ops.to_numpy(state.W).astype(np.float64))
        U = directions(W, p.rank)
        images, names = _projected(X, U), _projected(W, U)
        Z = self._spread(names, images, X, S.dtype)
        if p.branch == "propagation":
            return row_logits(Z, S)
        found = self._visual(ops.to_numpy(ops.as_float(X)), W, Z, texts)
        if p.branch == "average":
            for rows in ops.blocks(len(S), _ROWS):
                text = S[rows]
                if p.text == "projected":
                    text = texts.scale * (images[rows] @ names.T) + texts.bias
                found[rows] = (found[rows] + text) / 2
        return found

    def _spread(self, names: Any, images: Any, X: Any, dtype: Any) -> NDArray[Any]:
        """Z (N, K): how much of each text's label arrives at each image."""
        p, K = self.params, len(names)
        nodes = ops.like(np.vstack([names, images]).astype(dtype), X)
        index, cosine = neighbours(nodes, p.k)
        starts = np.arange(len(index) + 1) * index.shape[1]
        weight = np.maximum((cosine.ravel() + 1) / 2, 0)
        A = sparse.csr_matrix((weight, index.ravel(), starts), shape=(len(index), len(index)))
        V = normalised((A + A.T) / 2)
        return class_columns(V, K, p.alpha, tolerance=p.tolerance, steps=p.steps, dtype=dtype)[K:]

    def _visual(self, X: Any, W: Any, Z: NDArray[Any], texts: ClassTexts) -> NDArray[Any]:
        """Logits (N, K), in the place of Z, by the means of the images that Z labels alike."""
        label = np.concatenate([Z[rows].argmax(axis=1) for rows in ops.blocks(len(Z), _ROWS)])
        means = ops.unit(ops.segment_sum(X, label, len(W))).astype(np.float64)
        empty = ~means.any(axis=1)
        self.without_ = int(empty.sum())
        v = np.where(empty[:, None], W, means).astype(X.dtype)
        for rows in ops.blocks(len(Z), _ROWS):
            Z[rows] = texts.scale * (X[rows] @ v.T) + texts.bias
        return Z

    def report(self) -> dict[str, Any]:
        """Whether it stepped back to S, and why, and how many classes no image was labelled as."""
        found = super().report()
        return {**found, "classes_without_images": self.without_} if found else found


def directions(W: NDArray[np.float64], rank: int | None = None) -> NDArray[np.float64] | None:
    """Orthonormal directions (D, r - 1) in which the texts (K, D) differ; None for no projection.

    Examples
    --------
    >>> directions(np.array([[1.0, 0.6, 0], [1.0, -0.6, 0], [1.0, 0, 0.1]])).round(3).shape
    (3, 2)
    """
    K = len(W)
    if K < 3:
        return None
    _, values, Vt = np.linalg.svd(W, full_matrices=False)
    r = min(int((values > _RANK * values[0]).sum()), rank or (250 if K > 500 else 768))
    return Vt[1:r].T if r > 1 else None


def _projected(rows: Any, U: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Unit rows in the coordinates U; as they are where it is None."""
    rows = ops.to_numpy(rows)
    out = np.empty((len(rows), rows.shape[1] if U is None else U.shape[1]))
    for part in ops.blocks(len(rows), _ROWS):
        x = rows[part].astype(np.float64)
        out[part] = ops.unit(x if U is None else x @ U)
    return out
