"""Cheap estimators first: what they are surest of they keep, the rest goes on to dearer ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from byname.embeddings import Embeddings
from byname.errors import UsageError

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


class Cascade:
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
    is not below the smallest that it kept of the items of ``fit``, and ranks are those among them.

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

    def __init__(
        self,
        estimators: Sequence[Any],
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
        found = self.run(X)
        M = len(self.estimators)
        kept = [found.confidence[found.stopped == j, j] for j in range(M)]
        self.thresholds_ = np.array([k.min(initial=np.inf) for k in kept[:-1]] + [-np.inf])
        given = [c[~np.isnan(c)] for c in found.confidence.T]
        self._given = [np.sort(c) for c in given]
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
        if not hasattr(self, "thresholds_"):
            raise UsageError(
                "stream items", "no thresholds have been learned", "Call fit() with some items."
            )

        def keep(j: int, c: Floats) -> NDArray[np.bool_]:
            return np.asarray(c >= self.thresholds_[j])

        def rank(j: int, c: Floats) -> Floats:
            known = self._given[j]
            below, upto = (np.searchsorted(known, c, side) for side in ("left", "right"))
            # As ranks with averaged ties, for what is among the known ones.
            return np.asarray((below + (upto - below + 1) / 2) / max(len(known), 1), float)

        return self._run(X, keep, rank)

    def _run(
        self,
        X: Any,
        keep: Callable[[int, Floats], NDArray[np.bool_]],
        rank: Callable[[int, Floats], Floats],
    ) -> CascadeResult:
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
        labels = np.array(said[np.arange(N), link].tolist())
        return CascadeResult(
            labels, link, stopped, confidence, ranks, self._links(link, stopped, seconds)
        )

    def _links(
        self, link: NDArray[np.intp], stopped: NDArray[np.intp], seconds: list[float]
    ) -> tuple[Link, ...]:
        M, N = len(self.estimators), len(link)
        costs, names = self.costs or [1.0] * M, self.names or [str(j) for j in range(M)]
        found = []
        for j in range(M):
            seen, kept = int((stopped >= j).sum()), int((stopped == j).sum())
            own = int((link == j).sum())
            share = seen / N if N else 0.0
            found.append(Link(names[j], seen, kept, own, share, seen * costs[j], seconds[j]))
        return tuple(found)

    def _ask(
        self, j: int, estimator: Any, X: Any, rows: NDArray[np.intp]
    ) -> tuple[NDArray[Any], Floats]:
        """Labels and confidences of some items; one that is not a number is the least of all."""
        items, n = _take(X, rows), len(rows)
        if hasattr(estimator, "classes_") or hasattr(estimator, "predict_proba"):
            labels, confidence = _classify(estimator, items, self.confidence)
        else:
            labels, confidence = estimator(items)
        if len(labels) != n or len(confidence) != n:
            raise UsageError(
                f"ask link {j} of the cascade",
                f"it gave {len(labels)} labels and {len(confidence)} confidences for {n} items",
                "It must answer every item.",
            )
        column = np.empty(n, object)
        column[:] = list(labels)
        sure = np.asarray(confidence, float)
        return column, np.where(np.isnan(sure), -np.inf, sure)

    def _check(self) -> int:
        asked, M = "run the cascade", len(self.estimators)
        if not M:
            raise UsageError(asked, "it has no estimator", "Give one or more.")
        if self.confidence not in ("probability", "margin"):
            seen = f"confidence is {self.confidence!r}"
            raise UsageError(asked, seen, "Known: probability, margin.")
        for name in ("costs", "names"):
            given = getattr(self, name)
            if given is not None and len(given) != M:
                seen = f"there are {M} estimators and {len(given)} {name}"
                raise UsageError(asked, seen, "Give one for each.")
        return M


def _classify(model: Any, items: Any, confidence: str) -> tuple[NDArray[Any], Floats]:
    """Labels and confidences of a classifier; None, and NaN, for what it could not read."""
    has = hasattr(model, "predict_proba")
    P = np.asarray(model.predict_proba(items) if has else model.decision_function(items), float)
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
