"""How answers and classes go together, as expected and as labelled, and what that is on a tree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import ops
from byname.metrics import lca_nodes
from byname.taxonomy import Taxonomy

__all__ = ["OnTree", "expected_joint", "labelled_joint", "right_of_each"]

RIVALS = 20  # classes of an image, beside its answer, among which its doubt is shared out
ROWS = 4096
Floats = NDArray[np.float64]


def right_of_each(expected: Floats, answers: NDArray[np.intp], overall: float) -> Floats:
    """Chance that each answer is right: that of its class, moved so that the mean is ``overall``.

    Formula: logistic(logit(expected[k]) + d), with one d for all images.

    Parameters
    ----------
    expected : array, shape (K,)
        Expected accuracy of each class.
    answers : array of int, shape (N,)
    overall : float

    Examples
    --------
    >>> right_of_each(np.array([0.9, 0.5]), np.array([0, 0, 1, 1]), 0.7).round(2).tolist()
    [0.9, 0.9, 0.5, 0.5]
    """
    p = np.clip(expected, 0.005, 0.995)[answers]
    z = np.log(p / (1 - p))
    low, high = -20.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        if (1 / (1 + np.exp(-z - middle))).mean() < overall:
            low = middle
        else:
            high = middle
    return np.asarray(1 / (1 + np.exp(-z - (low + high) / 2)))


def expected_joint(S: Any, answers: NDArray[np.intp], right: Floats) -> sparse.csr_matrix:
    """Images (K, K) expected by answer (rows) and true class (columns); the sum is N.

    Image i counts ``right[i]`` at its answer, and the rest at its 20 best other classes, as their
    probabilities are to each other.

    Parameters
    ----------
    S : array, shape (N, K)
        Logits.
    answers : array of int, shape (N,)
    right : array, shape (N,)

    Examples
    --------
    >>> S = np.array([[4.0, 0, 0], [0, 4, 0]])
    >>> expected_joint(S, np.array([0, 1]), np.array([0.8, 1.0])).toarray().round(2).tolist()
    [[0.8, 0.1, 0.1], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    N, K = S.shape
    kept = min(RIVALS, K - 1)
    parts = [(answers, answers, right)]
    for rows in ops.blocks(N if kept else 0, ROWS):
        part = np.array(S[rows], np.float64)
        place, own = np.arange(len(part)), answers[rows]
        part[place, own] = -np.inf
        best = np.argpartition(-part, kept - 1, axis=1)[:, :kept]
        value = np.take_along_axis(part, best, axis=1)
        share = np.exp(value - value.max(axis=1, keepdims=True))
        share *= ((1 - right[rows]) / share.sum(axis=1))[:, None]
        parts.append((np.repeat(own, kept), best.ravel(), share.ravel()))
    answer, true, weight = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return sparse.csr_matrix((weight, (answer, true)), shape=(K, K))


def labelled_joint(
    answers: NDArray[np.intp], labels: NDArray[np.intp], K: int
) -> sparse.csr_matrix:
    """Images (K, K) by answer and label; those with a label below 0 are left out."""
    known = labels >= 0
    ones = np.ones(int(known.sum()))
    return sparse.csr_matrix((ones, (answers[known], labels[known])), shape=(K, K))


class OnTree:
    """Answers and classes on a taxonomy: what is right for each node, and how high mistakes are.

    Parameters
    ----------
    joint : sparse matrix, shape (K, K)
        Images by answer and true class.
    taxonomy : Taxonomy

    Attributes
    ----------
    said, true, both : array, shape (n_nodes,)
        Images answered in the subtree of each node, images whose class is in it, and images of
        which both hold.
    heights : array, shape (height + 1,)
        Images by the height of the lowest common ancestor of answer and class; 0 is right.

    Examples
    --------
    >>> tree = OnTree(sparse.csr_matrix([[8, 2], [0, 5]]), Taxonomy.from_names(["cat", "dog"]))
    >>> tree.said.tolist(), tree.both.tolist(), tree.heights.tolist(), round(tree.severity(), 2)
    ([15.0, 10.0, 5.0], [15.0, 8.0, 5.0], [13.0, 2.0], 1.0)
    """

    def __init__(self, joint: sparse.csr_matrix, taxonomy: Taxonomy) -> None:
        pairs = joint.tocoo()
        leaf = np.asarray(taxonomy.leaf_index)
        said, true = leaf[pairs.row], leaf[pairs.col]
        weight, n = np.asarray(pairs.data, np.float64), len(taxonomy.nodes)
        common = lca_nodes(taxonomy, said, true)
        self.heights = np.bincount(
            taxonomy.heights[common], weight, minlength=taxonomy.height + 1
        ).astype(np.float64)
        self.said, self.true, self.both = (
            np.bincount(at, weight, minlength=n).astype(np.float64) for at in (said, true, common)
        )
        for i in range(n - 1, 0, -1):  # children come after their parents
            for sums in (self.said, self.true, self.both):
                sums[taxonomy.parents[i]] += sums[i]

    def severity(self) -> float | None:
        """Mean height of the mistakes; None without any."""
        wrong = self.heights[1:]
        total = float(wrong.sum())
        return float(wrong @ np.arange(1, len(self.heights)) / total) if total > 0 else None
