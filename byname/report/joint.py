"""How answers and classes go together, as expected and as labelled, and what that is on a tree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import ops
from byname.metrics import lca_nodes
from byname.taxonomy import Taxonomy

__all__ = ["OnTree", "expected_joint", "labelled_joint", "with_mean"]

RIVALS = 20  # classes of an image, beside its answer, among which its doubt is shared out
ROWS = 4096
Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


def with_mean(right: Floats, weight: Floats, overall: float) -> Floats:
    """Chances that answers are right, moved so that their mean is ``overall``.

    Formula: logistic(logit(right[i]) + d), with one d for all images.

    Parameters
    ----------
    right, weight : array, shape (n,)
        Chance of each image, and how many images it stands for.
    overall : float

    Examples
    --------
    >>> with_mean(np.array([0.9, 0.5]), np.array([1.0, 1.0]), 0.7).round(2).tolist()
    [0.9, 0.5]
    """
    p = np.clip(right, 0.005, 0.995)
    z, share = np.log(p / (1 - p)), weight / max(float(weight.sum()), 1e-12)
    low, high = -20.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        if share @ (1 / (1 + np.exp(-z - middle))) < overall:
            low = middle
        else:
            high = middle
    return np.asarray(1 / (1 + np.exp(-z - (low + high) / 2)))


def expected_joint(
    S: Any, best: Ints, right: Floats, weight: Floats, said: Ints, n_nodes: int
) -> sparse.csr_matrix:
    """Images (n_nodes, K) expected by answered node (rows) and true class (columns).

    Image i is of class ``best[i]`` with the chance ``right[i]``, else of one of its 20 best other
    classes, as their probabilities are to each other; whatever node is answered for it.

    Parameters
    ----------
    S : array, shape (n, K)
        Logits.
    best : array of int, shape (n,)
        Classes of the highest logit.
    right, weight : array, shape (n,)
        Chance that ``best`` is the true class, and how many images this one stands for.
    said : array of int, shape (n,)
        Answered nodes.
    n_nodes : int

    Examples
    --------
    >>> S, ones = np.array([[4.0, 0, 0], [0, 4, 0]]), np.ones(2)
    >>> best, said = np.array([0, 1]), np.array([1, 0])
    >>> expected_joint(S, best, np.array([0.8, 1.0]), ones, said, 4).toarray().round(2).tolist()
    [[0.0, 1.0, 0.0], [0.8, 0.1, 0.1], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    n, K = S.shape
    kept = min(RIVALS, K - 1)
    parts = [(said, best, weight * right)]
    for rows in ops.blocks(n if kept else 0, ROWS):
        part = np.array(S[rows], np.float64)
        part[np.arange(len(part)), best[rows]] = -np.inf
        others = np.argpartition(-part, kept - 1, axis=1)[:, :kept]
        value = np.take_along_axis(part, others, axis=1)
        share = np.exp(value - value.max(axis=1, keepdims=True))
        share *= (weight[rows] * (1 - right[rows]) / share.sum(axis=1))[:, None]
        parts.append((np.repeat(said[rows], kept), others.ravel(), share.ravel()))
    answer, true, value = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return sparse.csr_matrix((value, (answer, true)), shape=(n_nodes, K))


def labelled_joint(said: Ints, labels: Ints, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Images by answer and label; those with a label below 0 are left out."""
    known = labels >= 0
    ones = np.ones(int(known.sum()))
    return sparse.csr_matrix((ones, (said[known], labels[known])), shape=shape)


class OnTree:
    """Answers and classes on a taxonomy: what is right for each node, and how high mistakes are.

    Parameters
    ----------
    joint : sparse matrix, shape (n_nodes, K)
        Images by answered node and true class.
    taxonomy : Taxonomy

    Attributes
    ----------
    said, true, both : array, shape (n_nodes,)
        Images answered in the subtree of each node, images whose class is in it, and images of
        which both hold.
    heights : array, shape (height + 1,)
        Images by the height of the lowest common ancestor of answer and class; 0 is right.
    above : float
        Images whose answer is no class, but a group that holds their class.

    Examples
    --------
    >>> joint = sparse.csr_matrix([[0, 0], [8, 2], [0, 5]])
    >>> tree = OnTree(joint, Taxonomy.from_names(["cat", "dog"]))
    >>> tree.said.tolist(), tree.both.tolist(), tree.heights.tolist(), round(tree.severity(), 2)
    ([15.0, 10.0, 5.0], [15.0, 8.0, 5.0], [13.0, 2.0], 1.0)
    """

    def __init__(self, joint: sparse.csr_matrix, taxonomy: Taxonomy) -> None:
        pairs = joint.tocoo()
        said, true = pairs.row.astype(np.intp), np.asarray(taxonomy.leaf_index)[pairs.col]
        weight, n = np.asarray(pairs.data, np.float64), len(taxonomy.nodes)
        common = lca_nodes(taxonomy, said, true)
        self.heights = np.bincount(
            taxonomy.heights[common], weight, minlength=taxonomy.height + 1
        ).astype(np.float64)
        self.above = float(weight[(common == said) & (said != true)].sum())
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
