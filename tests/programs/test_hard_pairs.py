from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from byname import ops
from byname.errors import UsageError
from byname.programs.hard_pairs import hard_pairs
from byname.taxonomy import Node, Taxonomy

TREE = Taxonomy(
    [
        Node("f", "fruit"),
        Node("v", "vegetable"),
        *(Node(i, i, "f") for i in ("apple", "pear", "plum")),
        *(Node(i, i, "v") for i in ("leek", "kale")),
    ]
)


def test_confusions_come_first_and_agree_with_a_plain_count() -> None:
    S = np.random.default_rng(0).normal(0, 1, (200, 5))
    S[:, [0, 3]] += 1.5
    weight: dict[tuple[str, str], float] = {}
    for row in S:
        p = np.exp(row) / np.exp(row).sum()
        a, b = sorted(np.argsort(-p)[:2])
        key = (TREE.class_ids[a], TREE.class_ids[b])
        weight[key] = weight.get(key, 0.0) + 1 - abs(p[a] - p[b])
    expected = sorted(weight, key=lambda key: -weight[key])
    found = hard_pairs(TREE, S, q=100, siblings=False)
    assert found == expected
    assert found[0] == ("apple", "leek")
    assert hard_pairs(TREE, S, q=2) == expected[:2]


def test_siblings_fill_what_is_left_each_once() -> None:
    S = np.array([[9.0, 9.0, 0, 0, 0]])
    siblings = [*combinations(("apple", "pear", "plum"), 2), ("leek", "kale")]
    assert hard_pairs(TREE, S) == siblings
    assert hard_pairs(TREE) == siblings
    W = ops.unit(np.array([[1.0, 0], [0, 1], [0.1, 1], [1, 0], [1, 0]]))
    nearest = hard_pairs(TREE, W=W)
    assert nearest[:2] == [("leek", "kale"), ("pear", "plum")]


def test_a_flat_list_has_no_siblings() -> None:
    flat = Taxonomy.from_names(["a", "b", "c"])
    assert hard_pairs(flat) == []
    assert hard_pairs(flat, np.zeros((0, 3))) == []
    assert hard_pairs(Taxonomy.from_names(["a"]), np.zeros((4, 1))) == []


def test_the_order_of_classes_does_not_matter() -> None:
    S = np.random.default_rng(1).normal(0, 1, (50, 5))
    order = np.array([4, 2, 0, 3, 1])
    nodes = [n for n in TREE.nodes if n.id in ("f", "v")]
    other = Taxonomy([*nodes, *(TREE.classes[i] for i in order)])
    a, b = hard_pairs(TREE, S), hard_pairs(other, S[:, order])
    assert [frozenset(p) for p in a[:8]] == [frozenset(p) for p in b[:8]]


def test_bad_arguments() -> None:
    with pytest.raises(UsageError, match="S is for 3 classes, of which there are 5"):
        hard_pairs(TREE, np.zeros((2, 3)))
    with pytest.raises(UsageError, match="W is for 3 classes"):
        hard_pairs(TREE, W=np.zeros((3, 2)))
    with pytest.raises(UsageError, match="q is 0"):
        hard_pairs(TREE, q=0)
