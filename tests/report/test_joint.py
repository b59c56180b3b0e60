"""Answers and classes on a tree, against counting them one by one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from byname.report.joint import OnTree, expected_joint, labelled_joint, with_mean
from byname.taxonomy import Node, Taxonomy

TREE = Taxonomy(
    [
        Node("f", "fruit"),
        Node("c", "citrus", "f"),
        Node("lemon", "lemon", "c"),
        Node("lime", "lime", "c"),
        Node("pear", "pear", "f"),
        Node("milk", "milk"),
    ]
)
N = len(TREE.nodes)


def up(i: int) -> list[int]:
    """A node and all above it, the root last."""
    way = [i]
    while way[-1]:
        way.append(int(TREE.parents[way[-1]]))
    return way


def test_the_mean_is_moved_and_the_order_stays() -> None:
    rng = np.random.default_rng(0)
    right, weight = rng.uniform(0.05, 0.95, 50), rng.uniform(0.5, 3, 50)
    for overall in (0.2, 0.8):
        moved = with_mean(right, weight, overall)
        assert np.average(moved, weights=weight) == pytest.approx(overall, abs=1e-9)
        assert np.argsort(moved).tolist() == np.argsort(right).tolist()
    assert with_mean(right, weight, float(np.average(right, weights=weight))) == pytest.approx(
        right
    )


def test_chances_of_each_image_add_up() -> None:
    rng = np.random.default_rng(1)
    S, weight = rng.standard_normal((30, 4)) * 3, rng.uniform(1, 2, 30)
    best, right = S.argmax(axis=1), rng.uniform(0.1, 0.9, 30)
    said = rng.integers(0, N, 30)
    joint = expected_joint(S, best, right, weight, said, N).toarray()
    wanted = np.zeros((N, 4))
    for i in range(30):
        p = np.exp(S[i])
        p[best[i]] = 0
        p *= (1 - right[i]) / p.sum()
        p[best[i]] = right[i]
        wanted[said[i]] += weight[i] * p
    np.testing.assert_allclose(joint, wanted, atol=1e-12)


def test_only_the_nearest_of_many_classes_share_the_doubt() -> None:
    S = np.arange(50.0)[None]
    one = np.ones(1)
    joint = expected_joint(S, np.array([49]), one * 0.5, one, np.array([0]), 51).toarray()
    assert joint.sum() == pytest.approx(1)
    assert np.flatnonzero(joint[0]).tolist() == list(range(29, 50))


def test_labels_below_zero_are_left_out() -> None:
    joint = labelled_joint(np.array([0, 1, 1]), np.array([1, -1, 1]), (3, 2)).toarray()
    assert joint.tolist() == [[0, 1], [0, 1], [0, 0]]


def test_on_the_tree_as_counted_one_by_one() -> None:
    rng = np.random.default_rng(2)
    said, labels = rng.integers(0, N, 200), rng.integers(0, 4, 200)
    true = np.asarray(TREE.leaf_index)[labels]
    tree = OnTree(labelled_joint(said, labels, (N, 4)), TREE)
    heights = np.zeros(TREE.height + 1)
    both, above = np.zeros(N), 0
    for a, b in zip(said.tolist(), true.tolist(), strict=True):
        common = next(i for i in up(a) if i in up(b))
        heights[TREE.heights[common]] += 1
        above += common == a != b
        for i in up(common):
            both[i] += 1
    assert tree.heights.tolist() == heights.tolist()
    assert tree.both.tolist() == both.tolist()
    assert tree.above == above > 0
    for i in range(N):
        assert tree.said[i] == sum(i in up(a) for a in said.tolist())
        assert tree.true[i] == sum(i in up(b) for b in true.tolist())
    wrong = heights[1:]
    assert tree.severity() == pytest.approx(wrong @ np.arange(1, len(heights)) / wrong.sum())


def test_no_mistake_has_no_severity() -> None:
    leaf = np.asarray(TREE.leaf_index)
    tree = OnTree(labelled_joint(leaf, np.arange(4), (N, 4)), TREE)
    assert tree.severity() is None
    assert tree.above == 0
    assert OnTree(sparse.csr_matrix((N, 4)), TREE).severity() is None
