"""What answers are worth, given the true labels: accuracies, and distances in the tree.

Labels enter here, in ``calibration.py`` and in ``evaluate.py`` alone. Functions of class accuracies
work on the last axis, so that one call treats all draws of a bootstrap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import UsageError
from byname.taxonomy import Taxonomy

__all__ = [
    "FLOOR",
    "balanced_accuracy",
    "class_accuracy",
    "divide",
    "geometric_mean",
    "harmonic_mean",
    "hd_at_k",
    "hd_each",
    "hierarchical_from_sums",
    "hierarchical_parts",
    "hierarchical_scores",
    "lca_nodes",
    "severity",
    "topk_accuracy",
    "topk_each",
    "tree_distance",
    "with_floor",
    "worst_classes",
    "worst_fixed",
    "worst_m",
    "worst_two_class",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
FLOOR = "a_k >= 1/(2 n_k)"


# -- accuracy over images and over classes


def topk_accuracy(ranked: Ints, labels: Ints, k: int = 1) -> float:
    """Share of images whose label is among the first k answers.

    Parameters
    ----------
    ranked : array of int, shape (N, R)
        Classes, best first; -1 where a rank is not filled. Only min(k, R) ranks can be looked at.
    labels : array of int, shape (N,)
    k : int

    Examples
    --------
    >>> topk_accuracy(np.array([[0, 1], [1, 0]]), np.array([0, 0]), 1)
    0.5
    """
    return _mean(topk_each(ranked, labels, k))


def topk_each(ranked: Ints, labels: Ints, k: int = 1) -> NDArray[np.bool_]:
    """Whether the label of each image is among the first k answers; see :func:`topk_accuracy`."""
    ranked, labels = np.asarray(ranked), np.asarray(labels)
    return np.asarray((ranked[:, :k] == labels[:, None]).any(axis=1))


def class_accuracy(correct: NDArray[Any], labels: Ints, K: int) -> tuple[Floats, Ints]:
    """Accuracy a_k and number of images n_k of each class; a_k is NaN where n_k is 0.

    Parameters
    ----------
    correct : array of bool, shape (N,)
    labels : array of int, shape (N,)
    K : int

    Returns
    -------
    a, n : arrays, shape (K,)

    Examples
    --------
    >>> a, n = class_accuracy(np.array([True, False, True]), np.array([0, 0, 1]), 3)
    >>> a.tolist(), n.tolist()
    ([0.5, 1.0, nan], [2, 1, 0])
    """
    n = np.bincount(labels, minlength=K)
    return divide(np.bincount(labels, np.asarray(correct, np.float64), minlength=K), n), n


def divide(sums: NDArray[Any], counts: NDArray[Any]) -> Floats:
    """The quotient, NaN where the count is 0."""
    sums, counts = np.broadcast_arrays(np.asarray(sums, np.float64), counts)
    found: Floats = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=found, where=counts != 0)
    return found


def balanced_accuracy(a: Floats) -> Any:
    """Mean of the class accuracies on the last axis; NaN stands for a class without images.

    Examples
    --------
    >>> float(balanced_accuracy(np.array([0.5, 1.0, np.nan])))
    0.75
    """
    a = np.asarray(a, np.float64)
    known = ~np.isnan(a)
    return divide(np.where(known, a, 0).sum(axis=-1), known.sum(axis=-1))[()]


def worst_m(a: Floats, m: int) -> Any:
    """Worst@m: mean of the m smallest class accuracies, of all where there are fewer than m.

    Chosen and measured on the same images it is biased low; see :func:`worst_fixed`.

    Examples
    --------
    >>> float(worst_m(np.array([0.5, 1.0, 0.25, np.nan]), 2))
    0.375
    """
    _at_least_one("Worst@m", m)
    a = np.asarray(a, np.float64)
    return balanced_accuracy(np.sort(a, axis=-1)[..., :m])  # NaN is sorted last


def worst_classes(a: Floats, m: int) -> Ints:
    """The m classes of the smallest accuracy, the first on ties; classes without images never.

    Examples
    --------
    >>> worst_classes(np.array([0.5, 1.0, 0.25, np.nan]), 2).tolist()
    [2, 0]
    """
    _at_least_one("Worst@m", m)
    a = np.asarray(a, np.float64)
    return np.argsort(a, kind="stable")[: min(m, int((~np.isnan(a)).sum()))]


def worst_fixed(a: Floats, fixed: Ints) -> Any:
    """Mean accuracy of a fixed set of classes, usually the worst ones of a baseline.

    Worst@m alone hides that another class has become the worst one.

    Examples
    --------
    >>> float(worst_fixed(np.array([0.5, 1.0, 0.25]), np.array([0, 1])))
    0.75
    """
    return balanced_accuracy(np.asarray(a, np.float64)[..., fixed])


def worst_two_class(S: NDArray[Any], labels: Ints, weights: Floats | None = None) -> float:
    """Smallest balanced accuracy of the classifier when only two classes are allowed.

    For classes i, j: ``(mean over y=i of [S_i > S_j] + mean over y=j of [S_j > S_i]) / 2``, the
    smallest over all pairs with images; a tie counts as wrong. NaN below two such classes.

    Parameters
    ----------
    S : array, shape (N, K)
    labels : array of int, shape (N,)
    weights : array, shape (N,), optional
        How often each image counts.

    Notes
    -----
    O(N K). Definition: Bitterwolf et al., "Classifiers should do well even on their worst
    classes", 2022.

    Examples
    --------
    >>> worst_two_class(np.array([[2.0, 1.0], [3.0, 1.0], [0.0, 1.0]]), np.array([0, 1, 1]))
    0.75
    """
    S = np.asarray(S)
    N, K = S.shape
    w = np.ones(N) if weights is None else np.asarray(weights, np.float64)
    wins = S[np.arange(N), labels][:, None] > S
    sums = ops.segment_sum(wins.astype(np.float64), labels, K, w)
    rate = divide(sums, np.bincount(labels, w, minlength=K)[:, None])
    pairs = ((rate + rate.T) / 2)[np.triu_indices(K, 1)]
    return float(np.nanmin(pairs)) if (~np.isnan(pairs)).any() else float("nan")


def with_floor(a: Floats, n: NDArray[Any]) -> tuple[Floats, NDArray[np.bool_]]:
    """Class accuracies raised to ``1/(2 n_k)``, and which ones were: half an image's worth.

    Without a floor, one class at 0 % makes the harmonic and the geometric mean 0, however good
    the others are. Reports name the floor (:data:`FLOOR`).

    Examples
    --------
    >>> a, raised = with_floor(np.array([0.0, 0.5]), np.array([10, 10]))
    >>> a.tolist(), raised.tolist()
    ([0.05, 0.5], [True, False])
    """
    a = np.asarray(a, np.float64)
    floor = divide(np.full(np.shape(n), 0.5), n)
    raised = a < floor
    return np.where(raised, floor, a), raised


def harmonic_mean(a: Floats) -> Any:
    """K / sum(1/a_k) on the last axis, 0 where a class is at 0; NaN classes are left out.

    Examples
    --------
    >>> float(harmonic_mean(np.array([0.5, 1.0]))), float(harmonic_mean(np.array([0.0, 1.0])))
    (0.6666666666666666, 0.0)
    """
    with np.errstate(divide="ignore"):
        return (1 / balanced_accuracy(1 / np.asarray(a, np.float64)))[()]


def geometric_mean(a: Floats) -> Any:
    """exp(mean of ln a_k) on the last axis, 0 where a class is at 0; NaN classes are left out.

    Examples
    --------
    >>> float(geometric_mean(np.array([0.25, 1.0])))
    0.5
    """
    with np.errstate(divide="ignore"):
        return np.exp(balanced_accuracy(np.log(np.asarray(a, np.float64))))[()]


# -- distances in the taxonomy


def lca_nodes(taxonomy: Taxonomy, a: Ints, b: Ints) -> Ints:
    """Lowest common ancestor of nodes, elementwise.

    Parameters
    ----------
    taxonomy : Taxonomy
    a, b : arrays of int, broadcast against each other
        Indices into ``taxonomy.nodes``; for -1 in either the result is -1.

    Notes
    -----
    O(height) steps over the whole array; no (K, K) matrix.

    Examples
    --------
    >>> t = Taxonomy.from_names(["a", "b"])
    >>> lca_nodes(t, np.array([1, 1]), np.array([1, 2])).tolist()
    [1, 0]
    """
    i, j = (x.copy() for x in np.broadcast_arrays(np.asarray(a, np.intp), np.asarray(b, np.intp)))
    absent = (i < 0) | (j < 0)
    i[absent] = j[absent] = 0
    while (apart := i != j).any():
        up = apart & (taxonomy.depths[i] >= taxonomy.depths[j])
        down = apart & ~up
        i[up] = taxonomy.parents[i[up]]
        j[down] = taxonomy.parents[j[down]]
    i[absent] = -1
    return i


def tree_distance(taxonomy: Taxonomy, labels: Ints, nodes: Ints) -> Floats:
    """Height of the lowest common ancestor of the true class and an answered node.

    0 only for the class itself; an answer above the class costs the height of that ancestor.

    Parameters
    ----------
    labels : array of int, shape (N,)
        Indices of classes.
    nodes : array of int, shape (N,) or (N, k)
        Indices of nodes; -1 gives NaN.

    Examples
    --------
    >>> t = Taxonomy.from_names(["a", "b"])
    >>> tree_distance(t, np.array([0, 0]), t.leaf_index[[0, 1]]).tolist()
    [0.0, 1.0]
    """
    nodes = np.asarray(nodes)
    true = taxonomy.leaf_index[labels].reshape(-1, *([1] * (nodes.ndim - 1)))
    found = lca_nodes(taxonomy, true, nodes)
    return np.where(found < 0, np.nan, taxonomy.heights[found])


def severity(distance: Floats) -> float:
    """Mean distance over the mistakes only (distance > 0); NaN where there is no mistake.

    Examples
    --------
    >>> severity(np.array([0.0, 1.0, 2.0]))
    1.5
    """
    distance = np.asarray(distance, np.float64)
    return _mean(distance[distance > 0])


def hd_at_k(distance: Floats, k: int = 1) -> float:
    """HD@k: mean over images of the mean distance of the first k answers.

    Parameters
    ----------
    distance : array, shape (N,) or (N, R)
        NaN for ranks that are not filled, which are left out.

    Examples
    --------
    >>> hd_at_k(np.array([[0.0, 2.0], [1.0, 2.0]]), 2)
    1.25
    """
    return _mean(hd_each(distance, k))


def hd_each(distance: Floats, k: int = 1) -> Floats:
    """Mean distance of the first k answers of each image; see :func:`hd_at_k`."""
    _at_least_one("HD@k", k)
    distance = np.asarray(distance, np.float64)
    return np.asarray(balanced_accuracy(distance.reshape(len(distance), -1)[:, :k]))


def hierarchical_scores(taxonomy: Taxonomy, labels: Ints, nodes: Ints) -> dict[str, float]:
    """Hierarchical precision, recall and F1, summed over images before dividing.

    With A(v) the node v and its ancestors without the root: precision = sum |A(answer) & A(true)|
    / sum |A(answer)|, recall the same over |A(true)|. Answers may be inner nodes; the root says
    nothing and counts 0 of 0. Definition: Kiritchenko et al., 2006.

    Returns
    -------
    dict
        ``precision``, ``recall``, ``f1``; NaN where nothing was answered.

    Examples
    --------
    >>> t = Taxonomy.from_names(["a", "b"])
    >>> hierarchical_scores(t, np.array([0, 0]), t.leaf_index[[0, 1]])
    {'precision': 0.5, 'recall': 0.5, 'f1': 0.5}
    """
    sums = (part.sum() for part in hierarchical_parts(taxonomy, labels, nodes))
    return {name: float(value) for name, value in hierarchical_from_sums(*sums).items()}


def hierarchical_parts(taxonomy: Taxonomy, labels: Ints, nodes: Ints) -> tuple[Ints, Ints, Ints]:
    """For each image |A(answer) & A(true)|, |A(answer)|, |A(true)|: :func:`hierarchical_scores`."""
    true, nodes = taxonomy.leaf_index[labels], np.maximum(nodes, 0)
    both = taxonomy.depths[lca_nodes(taxonomy, true, nodes)]
    return both, taxonomy.depths[nodes], taxonomy.depths[true]


def hierarchical_from_sums(both: Any, said: Any, true: Any) -> dict[str, Floats]:
    """Hierarchical precision, recall and F1 from the sums of the parts over images."""
    return {
        "precision": divide(both, said),
        "recall": divide(both, true),
        "f1": divide(2 * both, said + true),
    }


def _mean(values: NDArray[Any]) -> float:
    values = np.asarray(values, np.float64)
    return float(values.mean()) if values.size else float("nan")


def _at_least_one(what: str, number: int) -> None:
    if number < 1:
        raise UsageError(f"compute {what}", f"the number is {number}", "Give 1 or more.")
