"""Few labelled images beside the names: cached features, plain (Tip-Adapter) or CODER."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import UsageError
from byname.programs.fewshot_search import ALPHAS, BETAS, Asked, SearchResult, search
from byname.programs.shots import (
    among,
    askable,
    by_content,
    check_number,
    check_texts,
    check_whole,
    deals,
    places,
    read_rows,
    read_support,
)
from byname.score.coder import name_vectors
from byname.stage import Array, ClassTexts, Support

__all__ = ["ALPHAS", "BETAS", "FewShot", "SearchResult", "class_vectors"]

_BLOCK = 1024


class FewShot:
    """Names and a few images of each class that the user has labelled.

    Formula, with A(x, y) the affinity of an image and a support image, W the class vectors::

        logits[i, k] = scale * <x_i, W_k> + bias
                       + alpha * sum over the support j of class k of exp(-beta * (1 - A(x_i, y_j)))

        tip    A(x, y) = <x, y>
        coder  A(x, y) = <c(x), c(y)> / (||c(x)|| ||c(y)||)  with c(x) = G x, G the M class texts

    c(x) is never formed: with R = G^T G (D, D) the product <c(x), c(y)> is x^T R y, exactly. W_k
    is the unit mean of the class's name texts, or of all its texts where it has none. G holds the
    texts of the classes but for synonyms, as in the paper.

    The labels are those of the support, which the user gives on purpose; the images to be
    labelled have none. Their number may differ between classes; a class without support is scored
    by its texts alone.

    Complexity: N * n * D for n support images, once for a whole search; then N * n for each beta,
    and N * K for all values of alpha together.

    Parameters
    ----------
    texts : ClassTexts
        Of K classes.
    features : {"tip", "coder"}
    alpha : float
        Weight of the support; 0 is zero-shot. Default 1, as in Tip-Adapter's code.
    beta : float
        Sharpness. Default 5.5, as in Tip-Adapter's code. CODERs of all images are alike, so they
        need a larger beta, or ``minmax``.
    minmax : bool
        Stretch the affinities of each image to 0..1 over the support, as CODER's code does; where
        they are all equal they become 1.

    Attributes
    ----------
    classes_ : array of str, shape (K,)
        Ids, in the order of the columns of :meth:`decision_function`.
    support_ : Support
        Class by class, in an order that the one given makes no difference to.

    Notes
    -----
    Source: Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot
    Classification", ECCV 2022; Yi, Ren, Zhan & Ye, "Leveraging Cross-Modal Neighbor Representation
    for Improved CLIP Classification", CVPR 2024, arXiv 2404.17753.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> texts = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["cat", "dog"]))
    >>> model = FewShot(texts, alpha=200).fit(np.array([[0.6, 0.8]]), ["cat"])
    >>> model.predict(np.array([[0.6, 0.8], [0.0, 1.0]])).tolist()
    ['cat', 'dog']
    """

    support_: Support

    def __init__(
        self,
        texts: ClassTexts,
        features: Literal["tip", "coder"] = "tip",
        alpha: float = 1.0,
        beta: float = 5.5,
        minmax: bool = False,
    ) -> None:
        self.texts = texts
        self.features = features
        self.alpha = alpha
        self.beta = beta
        self.minmax = minmax

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters as given, in the manner of scikit-learn."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Change parameters; alpha, beta and minmax need no new ``fit``."""
        for name, value in params.items():
            if name not in self.get_params():
                raise UsageError(
                    f"set '{name}'", "FewShot has no such parameter", ", ".join(self.get_params())
                )
            setattr(self, name, value)
        return self

    def fit(
        self, support_X: Array | Support, support_class_ids: Sequence[str] | None = None
    ) -> Self:
        """Store the labelled images.

        Parameters
        ----------
        support_X : array, shape (n, D), or Support
            Unit rows; a Support must be of the kind "labelled".
        support_class_ids : sequence of str, length n
            Ids of their classes; not positions.

        Raises
        ------
        UsageError
            For an unknown id, numbers that do not fit, no image, or settings out of range.
        """
        self._check_settings()
        self.classes_ = np.array(self.texts.taxonomy.class_ids)
        rows, index = read_support(self.texts, support_X, support_class_ids)
        order = by_content(index, rows)
        vectors, index = rows[order], index[order]
        self.support_ = Support(vectors, index, "labelled")
        self._starts = np.flatnonzero(np.diff(index, prepend=-1))
        self._W = class_vectors(self.texts)
        self._R = _gram(self.texts) if self.features == "coder" else None
        keys = vectors if self._R is None else vectors @ self._R
        self._keys = keys / _lengths(keys, vectors, self._R)[:, None]
        return self

    def decision_function(self, X: Array) -> NDArray[Any]:
        """Logits (N, K)."""
        self._check_settings()
        parts = []
        for x in self._blocks("the images", X):
            parts.append(
                self._zero_shot(x) + self.alpha * self._votes(self._affinity(x), self.beta)
            )
        return np.concatenate(parts)

    def predict_proba(self, X: Array) -> NDArray[Any]:
        """Probabilities (N, K): the softmax of the logits."""
        return np.asarray(ops.softmax(self.decision_function(X)))

    def predict(self, X: Array) -> NDArray[np.str_]:
        """Id of the best class of each image, shape (N,)."""
        best = ops.argmax(self.decision_function(X))
        ids: NDArray[np.str_] = self.classes_[best]
        return ids

    def search(
        self,
        betas: Sequence[float] = BETAS,
        alphas: Sequence[float] = ALPHAS,
        *,
        validation: tuple[Array, Sequence[str]] | None = None,
        test: Array | None = None,
        rounds: int = 3,
        seed: int = 0,
    ) -> SearchResult:
        """Choose alpha and beta on labelled images, and keep them.

        Without ``validation`` the library splits the support: into as many folds as the largest
        class has images, up to five, dealt out in three ways that the order of images and classes
        does not change; each fold is answered from the others, its images of classes with three or
        more count, and the best setting over all folds is used with the whole support. With
        fewer than two such classes nothing can be chosen: alpha and beta stay as they are, and the
        result says so.

        Among equals the smallest beta, then the smallest alpha is chosen. Every further round
        searches as many values between half and one and a half times the best so far. A grid of
        one value holds it fixed while the other is searched.

        Parameters
        ----------
        betas, alphas : sequence of float
            Grid of the first round: 500 x 50 by default, as in CODER's code.
        validation : (array of shape (n, D), sequence of str), optional
            Images set aside for it and ids of their classes, in place of the split.
        test : array, shape (N, D), optional
            Images on which the result will be measured: checked to be none of those that it is
            chosen on.
        rounds : int
            3 by default, as in CODER's code.
        seed : int
            Of the split.

        Raises
        ------
        UsageError
            Where the validation part shares images with the test images or the support, or the
            support with the test images: rows whose directions are less than 0.001 apart are one
            image, so that neither other rounding nor another number type hides it.
        """
        check_whole("search", "seed", seed)
        if validation is None:
            parts, reason = self._dealt_out(test, seed)
        else:
            X, index = self._check_validation(validation, test)
            parts, reason = [self._asked(X, index)], None
        on = "the support, split" if validation is None else "validation"
        if reason is not None:
            return SearchResult(self.alpha, self.beta, float("nan"), 0, on, reason)
        best = replace(search(parts, betas, alphas, rounds), on=on)
        self.alpha, self.beta = best.alpha, best.beta
        return best

    # what it is made of

    def _asked(self, X: NDArray[Any], index: NDArray[np.intp]) -> Asked:
        """Images of known class as the search takes them."""
        affinity = np.concatenate([self._affinity(x) for x in self._blocks("them", X)])
        text = self._zero_shot(X).astype(np.float64)
        return Asked(text, index, lambda beta: self._votes(affinity, beta))

    def _dealt_out(self, test: Array | None, seed: int) -> tuple[list[Asked], str | None]:
        """Folds of the support, each asked of a model of the others; or why there are none."""
        self._check_fitted()
        X, index = np.asarray(self.support_.vectors), self.support_.class_index
        self._check_apart(X, "support", test, "test images")
        counted, reason = askable(index)
        if reason is not None:
            return [], reason
        parts = []
        for fold in deals(index, X, seed):
            for f in range(int(fold.max()) + 1):
                held, others = counted & (fold == f), fold != f
                known = Support(X[others], index[others], "labelled")
                model = FewShot(self.texts, self.features, minmax=self.minmax).fit(known)
                parts.append(model._asked(X[held], index[held]))
        return parts, None

    def _zero_shot(self, x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(self.texts.scale * ops.matmul_t(x, self._W) + self.texts.bias)

    def _affinity(self, x: NDArray[Any]) -> NDArray[Any]:
        """A (n, support), the support in order of its classes."""
        A = np.asarray(ops.matmul_t(x, self._keys))
        if self._R is not None:
            A = A / _lengths(x @ self._R, x, self._R)[:, None]
        if self.minmax:
            low, high = A.min(axis=1, keepdims=True), A.max(axis=1, keepdims=True)
            flat = high == low
            A = np.where(flat, 1, (A - low) / np.where(flat, 1, high - low)).astype(A.dtype)
        return A

    def _votes(self, affinity: NDArray[Any], beta: float) -> NDArray[Any]:
        """exp(-beta (1 - A)) V, without the one-hot matrix V: a sum over each class's columns."""
        near = affinity - 1
        near *= beta
        np.exp(near, out=near)
        votes = np.zeros((len(near), len(self._W)), near.dtype)
        votes[:, self.support_.class_index[self._starts]] = np.add.reduceat(
            near, self._starts, axis=1
        )
        return votes

    def _check_fitted(self) -> None:
        if not hasattr(self, "_keys"):
            raise UsageError("predict", "FewShot has no support yet", "Call fit() first.")

    def _blocks(self, what: str, X: Array) -> Iterator[NDArray[Any]]:
        self._check_fitted()
        X = read_rows(what, X, self.texts)
        for part in ops.blocks(len(X), _BLOCK) if len(X) else [slice(0, 0)]:
            yield X[part]

    def _check_validation(
        self, given: tuple[Array, Sequence[str]], test: Array | None
    ) -> tuple[NDArray[Any], NDArray[np.intp]]:
        X = np.concatenate(list(self._blocks("the validation part", given[0])))
        index = places("the validation part", given[1], len(X), self.texts)
        if not len(X):
            raise UsageError("search", "the validation part is empty", "Give one image or more.")
        self._check_apart(X, "validation", self.support_.vectors, "support")
        self._check_apart(X, "validation", test, "test images")
        return X, index

    def _check_apart(self, X: NDArray[Any], what: str, others: Array | None, name: str) -> None:
        if others is None:
            return
        shared = among(X, read_rows(f"the {name}", others, self.texts))
        if shared.any():
            raise UsageError(
                "search for alpha and beta",
                f"{int(shared.sum())} of the {len(X)} {what} images are among the {name}, "
                f"the first in row {int(np.argmax(shared))}",
                f"Choose on images that are not among the {name}.",
            )

    def _check_settings(self) -> None:
        check_texts("use FewShot", self.texts)
        if self.features not in ("tip", "coder"):
            raise UsageError("use FewShot", f"features is {self.features!r}", "tip or coder.")
        for name in ("alpha", "beta"):
            check_number("use FewShot", name, getattr(self, name), zero=True)


def class_vectors(texts: ClassTexts) -> NDArray[Any]:
    """Unit mean (K, D) of the name texts of each class, or of all its texts where it has none."""
    everything = ops.unit(
        ops.segment_sum(texts.vectors, texts.class_index, texts.n_classes, texts.weight)
    )
    names, named = name_vectors(texts)
    return np.where(named[:, None], ops.to_numpy(names), ops.to_numpy(everything))


def _gram(texts: ClassTexts) -> NDArray[Any]:
    """R = G^T G (D, D), summed in float64."""
    used = ops.to_numpy(texts.class_index) >= 0
    if texts.kind is not None:
        used &= np.array([kind != "synonym" for kind in texts.kind], bool)
    vectors = ops.to_numpy(ops.as_float(texts.vectors))
    R = np.zeros((vectors.shape[1],) * 2)
    rows = np.flatnonzero(used)
    for part in ops.blocks(len(rows), _BLOCK):
        G = vectors[rows[part]].astype(np.float64)
        R += G.T @ G
    return R.astype(vectors.dtype)


def _lengths(product: NDArray[Any], x: NDArray[Any], R: NDArray[Any] | None) -> NDArray[Any]:
    """||c(x)|| from x R; ones for plain features, and where the length is zero."""
    if R is None:
        return np.ones(len(x), x.dtype)
    squares = np.einsum("nd,nd->n", product, x, dtype=np.float64)
    return np.where(squares > 0, np.sqrt(np.maximum(squares, 0)), 1).astype(x.dtype)
