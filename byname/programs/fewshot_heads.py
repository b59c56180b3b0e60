"""Few labelled images beside the names: a shared Gaussian, or a linear head from the texts on.

How much the labelled images count is chosen by cross-validation among them; no other label is ever
asked for. Both are the zero-shot answer where the images add nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from byname import ops
from byname.errors import UsageError
from byname.estimator import Estimator
from byname.programs.fewshot import FewShot
from byname.programs.shots import DEALS, check_number, check_texts, check_whole, deals
from byname.stage import Array, ClassTexts, Support

__all__ = ["FewShotHead", "gaussian_head", "linear_head"]

Head = tuple[NDArray[np.float64], NDArray[np.float64]]
ALPHAS = tuple(np.logspace(-4, 3, 15).tolist())
LAMBDAS = (1.0, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
_BLOCK = 4096


def gaussian_head(X: NDArray[Any], index: NDArray[np.intp], K: int) -> Head:
    """Linear discriminants (K, D) and offsets (K,) of Gaussians with one covariance.

    Formula::

        m_k = mean of the rows of class k;   C = covariance of the rows about their m
        P   = D ((n - 1) C + trace(C) I)^-1
        g_k(x) = <P m_k, x> - <m_k, P m_k> / 2,  less its mean over the classes that have rows

    A class without rows has g_k = 0. Where every row is the mean of its class, P is I.

    Examples
    --------
    >>> w, b = gaussian_head(np.eye(2), np.array([0, 1]), 3)
    >>> (np.eye(2) @ w.T + b).tolist()
    [[0.5, -0.5, 0.0], [-0.5, 0.5, 0.0]]
    """
    X = X.astype(np.float64)
    seen = np.bincount(index, minlength=K) > 0
    means = np.asarray(ops.segment_mean(X, index, K))
    off = X - means[index]
    D, n = X.shape[1], len(X)
    C = off.T @ off / max(n - 1, 1)
    trace = float(np.trace(C))
    P = np.eye(D)
    if trace > 1e-12:
        P = D * np.linalg.inv((n - 1) * C + trace * np.eye(D))
    w = means @ P
    b = -0.5 * np.einsum("kd,kd->k", w, means)
    w, b = w - w[seen].mean(axis=0), b - b[seen].mean()
    return np.where(seen[:, None], w, 0), np.where(seen, b, 0)


def linear_head(
    X: NDArray[Any], text: NDArray[Any], index: NDArray[np.intp], weight: float, start: Any = None
) -> Head:
    """What a linear head adds to the text logits: (K, D) and offsets, which are zero.

    Formula, convex, by L-BFGS from zero, which is the zero-shot answer::

        minimise over V   mean of cross-entropy(text_i + V x_i, y_i) + weight / 2 * ||V||^2

    The rows of the best V are sums of images, so only their span is searched.

    Parameters
    ----------
    X : array, shape (n, D)
    text : array, shape (n, K)
        Their text logits.
    index : array of int, shape (n,)
    weight : float
    start : array, shape (K, D), optional
        Where to begin in place of zero; it does not change the result.

    Examples
    --------
    >>> V, b = linear_head(np.eye(2), np.zeros((2, 2)), np.array([1, 0]), 0.1)
    >>> (np.eye(2) @ V.T).argmax(axis=1).tolist()
    [1, 0]
    """
    text, rows = text.astype(np.float64), np.arange(len(X))
    U, size, Q = np.linalg.svd(X.astype(np.float64), full_matrices=False)
    Z, K = U * size, text.shape[1]  # X = Z Q, with the r rows of Q orthonormal

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        B = flat.reshape(K, -1)
        logp = np.asarray(ops.log_softmax(text + Z @ B.T))
        G = np.exp(logp)
        G[rows, index] -= 1
        value = -logp[rows, index].mean() + weight / 2 * float((B**2).sum())
        return float(value), (G.T @ Z / len(Z) + weight * B).ravel()

    first = np.zeros((K, len(Q))) if start is None else np.asarray(start) @ Q.T
    options = {"maxiter": 200, "gtol": 1e-5}
    found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(K, -1) @ Q, np.zeros(K)


class FewShotHead(Estimator):
    """Names and a few labelled images of some classes: text logits plus a linear head.

    Formula::

        gaussian  logits = scale * <x, W_k> + bias + alpha * g_k(x)     see gaussian_head
        linear    logits = scale * <x, W_k> + bias + <V_k, x>           see linear_head

    W_k is the unit mean of the texts as in :class:`FewShot`. ``alpha``, or the weight of the
    penalty in ``linear``, is chosen by cross-validation among the labelled images, stratified, in
    as many folds as the largest class has images, up to 5, dealt out in three ways that the order
    of images and classes does not change; among equals the strength that is nearest to zero-shot.
    Zero-shot itself is one of the choices. Then the head is learned from all of them. Where fewer
    than two classes have two images there is nothing to validate on, and ``strength`` must be
    given.

    Parameters
    ----------
    texts : ClassTexts
        Of K classes.
    head : {"gaussian", "linear"}
    strength : float, optional
        alpha, or the penalty's weight (larger is nearer to zero-shot), in place of the choice.
    use_texts : bool
        False leaves the texts out of ``gaussian``, as a control: how far the images go by
        themselves.
    seed : int
        Of the folds.

    Attributes
    ----------
    classes_ : array of str, shape (K,)
    strength_ : float or None
        What was chosen; None is zero-shot.
    validation_ : dict of str to float
        Accuracy over the folds by strength; ``"zero-shot"`` among them. Empty where it was given.

    Notes
    -----
    Source: gaussian, Wang et al., "A Hard-to-Beat Baseline for Training-free CLIP-based
    Adaptation", ICLR 2024; linear, after Silva-Rodriguez et al., "A Closer Look at the Few-Shot
    Adaptation of Large Vision-Language Models", CVPR 2024 (start and anchor at the texts, with one
    weight chosen by validation where they have multipliers). Both papers' strengths are chosen on
    validation labels or fixed; the grids are ours: alpha 15 values from 1e-4 to 1e3, weight 7
    from 1 to 3e-4.

    gaussian: D^3 + n D^2 once a fold. linear: up to 200 times n K min(n, D) a weight and fold.
    There are up to 15 folds.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> X = np.array([[0.6, 0.8], [0.64, 0.77], [0.0, 1.0], [0.1, 0.99]])
    >>> model = FewShotHead(texts).fit(X, ["cat", "cat", "dog", "dog"])
    >>> model.predict(X).tolist()
    ['cat', 'cat', 'dog', 'dog']
    """

    def __init__(
        self,
        texts: ClassTexts,
        head: Literal["gaussian", "linear"] = "gaussian",
        strength: float | None = None,
        use_texts: bool = True,
        seed: int = 0,
    ) -> None:
        self.texts = texts
        self.head = head
        self.strength = strength
        self.use_texts = use_texts
        self.seed = seed

    _derived = frozenset({"_plain", "_head"})

    def fit(self, X: Array | Support, class_ids: Sequence[str] | None = None) -> Self:
        """Learn from labelled images.

        Parameters
        ----------
        X : array, shape (n, D), or Support
            Unit rows; a Support must be of the kind "labelled".
        class_ids : sequence of str, length n
            Ids of their classes; not positions.

        Raises
        ------
        UsageError
            As :meth:`FewShot.fit`, and where ``strength`` is needed.
        """
        self._check()
        # Checks and class vectors are those of FewShot; at alpha 0 it is zero-shot.
        self._plain = FewShot(self.texts, alpha=0.0).fit(X, class_ids)
        support = self._plain.support_
        rows, index = np.asarray(support.vectors), support.class_index
        self.classes_ = self._plain.classes_
        self.validation_: dict[str, float] = {}
        self.strength_: float | None = self.strength
        if self.strength is None:
            self.strength_ = self._choose(rows, index)
        self._head = None if self.strength_ is None else self._learn(rows, index, self.strength_)
        self._remember()
        return self

    def decision_function(self, X: Array) -> NDArray[Any]:
        """Logits (N, K)."""
        self._refresh()
        if not hasattr(self, "_plain"):
            raise UsageError("predict", "FewShotHead knows no images yet", "Call fit() first.")
        S = self._text(X)
        if self._head is None:
            return S
        X, (V, b) = np.asarray(ops.as_float(ops.to_numpy(X))), self._head
        V, b = V.astype(S.dtype), b.astype(S.dtype)
        for part in ops.blocks(len(X), _BLOCK):
            S[part] += X[part] @ V.T + b
        return S

    def predict_proba(self, X: Array) -> NDArray[Any]:
        """Probabilities (N, K): the softmax of the logits."""
        return np.asarray(ops.softmax(self.decision_function(X)))

    def predict(self, X: Array) -> NDArray[np.str_]:
        """Id of the best class of each image, shape (N,)."""
        best = ops.argmax(self.decision_function(X))
        ids: NDArray[np.str_] = self.classes_[best]
        return ids

    # what it is made of

    def _text(self, X: Array) -> NDArray[Any]:
        S = self._plain.decision_function(X)
        return S if self.use_texts else np.zeros_like(S)

    def _learn(
        self, X: NDArray[Any], index: NDArray[np.intp], strength: float, start: Any = None
    ) -> Head:
        K = len(self.classes_)
        if self.head == "gaussian":
            w, b = gaussian_head(X, index, K)
            return strength * w, strength * b
        return linear_head(X, self._text(X), index, strength, start)

    def _choose(self, X: NDArray[Any], index: NDArray[np.intp]) -> float | None:
        """Strength with the most right answers over the folds; the list goes from zero-shot on."""
        if (np.bincount(index) > 1).sum() < 2:
            # With one such class, whatever favours it would look best.
            raise UsageError(
                "choose how much the labelled images count",
                "fewer than two classes have two of them, so none can be set aside",
                "Label a second image of two classes or more, or give strength.",
            )
        grid = ALPHAS if self.head == "gaussian" else LAMBDAS
        counted = np.bincount(index)[index] > 1  # of others nothing is known in their fold
        text = self._text(X)
        zero = DEALS * float((ops.argmax(text) == index)[counted].sum())
        right = np.zeros(len(grid))
        for fold in deals(index, X, self.seed):
            for f in range(int(fold.max()) + 1):
                held = fold == f
                right += self._right(X, index, text, held, held & counted, grid)
        names = ["zero-shot", *(f"{value:g}" for value in grid)]
        shares = np.array([zero, *right]) / (DEALS * counted.sum())
        self.validation_ = dict(zip(names, shares.tolist(), strict=True))
        best = int(np.argmax(right))
        return None if self.use_texts and right[best] <= zero else grid[best]

    def _right(
        self, X: Any, index: Any, text: Any, held: Any, asked: Any, grid: Sequence[float]
    ) -> NDArray[np.float64]:
        """Right answers of one fold's images by strength."""
        right, start = np.zeros(len(grid)), None
        learn: Callable[..., Head] = self._learn
        once = learn(X[~held], index[~held], 1.0) if self.head == "gaussian" else None
        for i, value in enumerate(grid):
            if once is not None:
                V, b = value * once[0], value * once[1]
            else:
                V, b = learn(X[~held], index[~held], value, start)
                start = V  # the next, weaker penalty begins where this one ended
            S = text[asked] + X[asked] @ V.T + b
            right[i] = float((ops.argmax(S) == index[asked]).sum())
        return right

    def _check(self) -> None:
        if self.head not in ("gaussian", "linear"):
            raise UsageError("use FewShotHead", f"head is {self.head!r}", "gaussian or linear.")
        if self.head == "linear" and not self.use_texts:
            seen = "use_texts=False is for the Gaussian head"
            raise UsageError("use FewShotHead", seen, "A linear head starts at the texts.")
        check_texts("use FewShotHead", self.texts)
        check_whole("use FewShotHead", "seed", self.seed)
        if not isinstance(self.use_texts, bool | np.bool_):
            seen = f"use_texts is {self.use_texts!r}"
            raise UsageError("use FewShotHead", seen, "Give true or false.")
        if self.strength is not None:
            check_number("use FewShotHead", "strength", self.strength)
