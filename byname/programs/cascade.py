"""Cheap estimators first: what they are surest of they keep, the rest goes on to dearer ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from byname.embeddings import Embeddings
from byname.errors import UsageError
from byname.estimator import Estimator

__all__ = ["Cascade", "CascadeResult", "Link"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Link:
    """What one estimator did: images it saw and kept, and answers that are its own."""

    name: str
    seen: int
    kept: int
    answered: int
    share_seen: float
    cost: float
    seconds: float


@dataclass(frozen=True, eq=False)
class CascadeResult:
    """The answers of a cascade over N items and M links.

    Parameters
    ----------
    labels : array, shape (N,)
    link : array of int, shape (N,)
        Whose label it is.
    stopped : array of int, shape (N,)
        The last link that saw the item.
    confidence, rank : arrays, shape (N, M)
        NaN where a link did not see the item. Ranks are relative, above 0 and up to 1.
    links : tuple of Link
    """

    labels: NDArray[Any]
    link: NDArray[np.intp]
    stopped: NDArray[np.intp]
    confidence: Floats
    rank: Floats
    links: tuple[Link, ...]


class Cascade(Estimator):
    """Estimators in the order of their cost, each for what those before were unsure of.

    Formula, for M links and n items::

        link j of M    keeps the floor(n_remaining / (M - j + 1)) items it is surest of,
                       of them those with a confidence of ``threshold`` or more;
                       the last keeps all that is left, the others go on
        r[i, j]        rank of item i's confidence among those that link j gave, ties averaged,
                       divided by their number
        answer of i    the label of the link with the largest r[i, j], of those that saw i;
                       among equals the last

    So each link keeps the same share of the items. An item that went on can still be answered by an
    earlier link. Ranks of late links compare only hard items with each other. Items of one
    confidence at the border are kept in their order.

    Streamed (:meth:`stream`), each item is treated by itself: a link keeps it where its confidence
    is not below the smallest that it kept of the items of ``fit``, and ranks are those among them:
    of a confidence that none of n had, the share of them below it, and 1 / 2n where that is none.
    Items that tie with that smallest confidence are all kept, since nothing orders items that come
    one by one: where confidences saturate, at 1.0 say, streaming keeps more than the share.

    Complexity: link j sees (M - j + 1) / M of the items.

    Source: Farr et al., "LLM Chain Ensembles for Scalable and Accurate Data Annotation", 2024,
    there for language models.

    Parameters
    ----------
    estimators : sequence
        Classifiers (``predict_proba`` or ``decision_function``, and ``classes_``), or callables
        that answer items with (labels, confidences). Cheapest first.
    threshold : float, optional
        Least confidence with which any link but the last keeps an item. None by default.
    confidence : {"probability", "margin"}
        Of classifiers: the largest probability, or its lead over the second. Those without
        ``predict_proba`` give the lead of the largest score. Default "probability".
    costs : sequence of float, optional
        Cost of one item at each link; 1 by default.
    names : sequence of str, optional

    Attributes
    ----------
    thresholds_ : array, shape (M,)
        After ``fit``: least confidence that each link keeps when streamed; infinite where it kept
        nothing.

    Examples
    --------
    >>> cheap = lambda items: (["cat"] * len(items), [item / 10 for item in items])
    >>> dear = lambda items: (["dog"] * len(items), [0.5] * len(items))
    >>> found = Cascade([cheap, dear]).run([9, 1, 8, 2])
    >>> found.labels.tolist(), [link.seen for link in found.links]
    (['cat', 'dog', 'cat', 'dog'], [4, 2])
    """

    thresholds_: Floats
    _light = frozenset({"costs", "names"})
    _derived = frozenset({"_given"})

    def __init__(
        self,
        estimators: Sequence[Any] = (),
        *,
        threshold: float | None = None,
        confidence: Literal["probability", "margin"] = "probability",
        costs: Sequence[float] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.estimators = estimators
        self.threshold = threshold
        self.confidence = confidence
        self.costs = costs
        self.names = names

    def fit(self, X: Any, y: None = None) -> Self:
        """Learn the thresholds and ranks for :meth:`stream` from unlabeled items."""
        if y is not None:
            raise UsageError("fit", "labels were given", "Items alone are learned from.")
        self._forget()
        found = self.run(X)
        M = len(self.estimators)
        kept = [found.confidence[found.stopped == j, j] for j in range(M)]
        self.thresholds_ = np.array([k.min(initial=np.inf) for k in kept[:-1]] + [-np.inf])
        given = [c[~np.isnan(c)] for c in found.confidence.T]
        self._given = [np.sort(c) for c in given]
        self._remember()
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Labels (N,); all items are ranked together."""
        return self.run(X).labels

    def run(self, X: Any) -> CascadeResult:
        """Answer a batch of items.

        Parameters
        ----------
        X : list, array or Embeddings
            Items that the estimators take, of which parts can be taken.

        Raises
        ------
        UsageError
            For settings out of range, and estimators that do not answer every item.
        """
        M = self._check()

        def keep(j: int, c: Floats) -> NDArray[np.bool_]:
            kept = np.zeros(len(c), bool)
            kept[np.argsort(-c, kind="stable")[: len(c) // (M - j)]] = True
            return kept if self.threshold is None else kept & (c >= self.threshold)

        def rank(j: int, c: Floats) -> Floats:
            return np.asarray(rankdata(c) / max(len(c), 1), float)

        return self._run(X, keep, rank)

    def stream(self, X: Any) -> CascadeResult:
        """Answer items one by one: no answer depends on other items of X, but on those of ``fit``.

        Raises
        ------
        UsageError
            Before ``fit``, and as :meth:`run`.
        """
        self._check()
        self._refresh()
        if not hasattr(self, "thresholds_"):
            seen = "no thresholds have been learned with these settings"
            raise UsageError("stream items", seen, "Call fit() with some items.")

        def keep(j: int, c: Floats) -> NDArray[np.bool_]:
            return np.asarray(c >= self.thresholds_[j])

        def rank(j: int, c: Floats) -> Floats:
            known = self._given[j]
            below, upto = (np.searchsorted(known, c, side) for side in ("left", "right"))
            # As ranks with averaged ties, for what is among the known ones. Others get no part of
            # a step: a step of a late link, which knows fewer, is longer.
            place = np.where(upto > below, (below + upto + 1) / 2, np.maximum(below, 0.5))
            return np.asarray(place / max(len(known), 1), float)

        return self._run(X, keep, rank)

    def _run(
        self,
        X: Any,
        keep: Callable[[int, Floats], NDArray[np.bool_]],
        rank: Callable[[int, Floats], Floats],
    ) -> CascadeResult:
        if isinstance(X, str | Path):
            seen = f"the items are one name, {str(X)!r}"
            raise UsageError("run the cascade", seen, "Give a list, an array or Embeddings.")
        N, M = len(X), len(self.estimators)
        left = np.arange(N)
        said = np.full((N, M), None, object)
        confidence, ranks = np.full((N, M), np.nan), np.full((N, M), np.nan)
        stopped, seconds = np.full(N, M - 1), []
        for j, estimator in enumerate(self.estimators):
            start = time.perf_counter()
            if len(left):
                said[left, j], confidence[left, j] = self._ask(j, estimator, X, left)
            seconds.append(time.perf_counter() - start)
            ranks[left, j] = rank(j, confidence[left, j])
            if j < M - 1:
                kept = keep(j, confidence[left, j])
                stopped[left[kept]] = j
                left = left[~kept]
        # The last of the largest: turned round, the first.
        link = M - 1 - np.argmax(np.where(np.isnan(ranks), -1, ranks)[:, ::-1], axis=1)
        labels = _one_kind(said[np.arange(N), link])
        return CascadeResult(
            labels, link, stopped, confidence, ranks, self._links(link, stopped, seconds)
        )

    def _heavy(self) -> dict[str, Any]:
        # By identity: estimators hold arrays and sessions, which cannot be compared or copied.
        return super()._heavy() | {"estimators": tuple(map(id, self.estimators))}

    def _links(
        self, link: NDArray[np.intp], stopped: NDArray[np.intp], seconds: list[float]
    ) -> tuple[Link, ...]:
        M, N = len(self.estimators), len(link)
        costs = [1.0] * M if self.costs is None else [float(c) for c in self.costs]
        names = map(str, range(M) if self.names is None else self.names)
        found = []
        for j, name in enumerate(names):
            seen, kept = int((stopped >= j).sum()), int((stopped == j).sum())
            own = int((link == j).sum())
            share = seen / N if N else 0.0
            found.append(Link(name, seen, kept, own, share, seen * costs[j], seconds[j]))
        return tuple(found)

    def _ask(
        self, j: int, estimator: Any, X: Any, rows: NDArray[np.intp]
    ) -> tuple[NDArray[Any], Floats]:
        """Labels and confidences of some items; one that is not a number is the least of all."""
        items, n = _take(X, rows), len(rows)
        if hasattr(estimator, "classes_") or hasattr(estimator, "predict_proba"):
            labels, confidence = _classify(estimator, items, self.confidence)
        else:
            said = estimator(items)
            try:
                labels, confidence = said
                confidence = np.asarray(confidence, float)
            except (TypeError, ValueError):
                seen = "it gave no pair of labels and numbers"
                raise UsageError(f"ask link {j} of the cascade", seen) from None
        if len(labels) != n or confidence.shape != (n,):
            seen = " x ".join(map(str, confidence.shape)) or "no list of"
            raise UsageError(
                f"ask link {j} of the cascade",
                f"it gave {len(labels)} labels and {seen} confidences for {n} items",
                "It must answer every item with a label and a number.",
            )
        column, sure = np.empty(n, object), np.asarray(confidence, float)
        for i, label in enumerate(labels):
            column[i] = label
        return column, np.where(np.isnan(sure), -np.inf, sure)

    def _check(self) -> int:
        asked, M = "run the cascade", len(self.estimators)
        if not M:
            raise UsageError(asked, "it has no estimator", "Give one or more.")
        if self.confidence not in ("probability", "margin"):
            seen = f"confidence is {self.confidence!r}"
            raise UsageError(asked, seen, "Known: probability, margin.")
        if self.threshold is not None and not _is_number(self.threshold):
            seen = f"threshold is {self.threshold!r}"
            raise UsageError(asked, seen, "Give a number, or None.")
        for name in ("costs", "names"):
            given = getattr(self, name)
            if given is not None and len(given) != M:
                seen = f"there are {M} estimators and {len(given)} {name}"
                raise UsageError(asked, seen, "Give one for each.")
        odd = [c for c in (() if self.costs is None else self.costs) if not _is_number(c) or c < 0]
        if odd:
            raise UsageError(asked, f"a cost is {odd[0]!r}", "Give numbers, none negative.")
        return M


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float | np.integer | np.floating) and not np.isnan(x)


def _one_kind(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels in an array of texts or of numbers, where all are; else as they are."""
    for kind in (str, Number):
        if all(isinstance(label, kind) for label in labels):
            return np.array(labels.tolist(), str if kind is str else None)
    return labels


def _classify(model: Any, items: Any, confidence: str) -> tuple[NDArray[Any], Floats]:
    """Labels and confidences of a classifier; None, and NaN, for what it could not read."""
    has = hasattr(model, "predict_proba")
    P = np.asarray(model.predict_proba(items) if has else model.decision_function(items), float)
    if P.ndim == 1 and len(model.classes_) == 2:
        P = np.stack([-P / 2, P / 2], axis=1)  # of two classes some give the margin alone
    if P.ndim != 2 or P.shape[1] != len(model.classes_):
        seen = f"{type(model).__name__} gave scores of the shape {P.shape}"
        seen += f" for {len(model.classes_)} classes"
        raise UsageError("read a classifier's scores", seen, "Give one column for each class.")
    safe = np.where(np.isnan(P), -np.inf, P)
    top = -np.sort(-safe, axis=1)[:, :2]
    sure = top[:, 0]
    if (confidence == "margin" or not has) and top.shape[1] > 1:
        with np.errstate(invalid="ignore"):
            sure = top[:, 0] - top[:, 1]
    labels = np.asarray(model.classes_, object)[safe.argmax(axis=1)]
    labels[np.isnan(P).all(axis=1)] = None
    return labels, sure


def _take(X: Any, rows: NDArray[np.intp]) -> Any:
    """Some items, of the kind that X is."""
    if len(rows) == len(X):
        return X
    if isinstance(X, Embeddings):
        return Embeddings(
            tuple(X.keys[i] for i in rows), X.vectors[rows], X.encoder, X.fingerprint, root=X.root
        )
    return [X[i] for i in rows] if isinstance(X, list | tuple) else X[rows]
