from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from byname.ops import unit
from byname.stage import ClassTexts
from byname.taxonomy import Node, Taxonomy
from byname.taxonomy_vectors import inner_rows, node_vectors

TREE = Taxonomy(
    [
        Node("f", "fruit"),
        Node("c", "citrus", "f"),
        Node("l", "lemon", "c"),
        Node("o", "orange", "c"),
        Node("a", "apple", "f"),
        Node("m", "milk"),
    ]
)
RNG = np.random.default_rng(0)
W = unit(RNG.standard_normal((4, 5)))  # lemon, orange, apple, milk


def texts(extra: Any = (), ids: tuple[str, ...] = (), **fields: Any) -> ClassTexts:
    vectors = np.vstack([W, np.asarray(extra, np.float64).reshape(-1, 5)])
    index = np.append(np.arange(4), np.full(len(ids), -1)).astype(np.intp)
    return ClassTexts(vectors, index, TREE, node_id=(*TREE.class_ids, *ids), **fields)


def at(V: Any, node_id: str) -> Any:
    return V[TREE.index(node_id)]


def test_without_own_texts_a_node_is_the_mean_of_the_classes_below() -> None:
    V = node_vectors(texts(), W)
    np.testing.assert_allclose(at(V, "c"), unit(W[0] + W[1]))
    np.testing.assert_allclose(at(V, "f"), unit(W[0] + W[1] + W[2]))
    np.testing.assert_allclose(at(V, ""), unit(W.sum(axis=0)))
    np.testing.assert_array_equal(V[TREE.leaf_index], W)
    alone = replace(texts(), node_id=None)
    np.testing.assert_array_equal(node_vectors(alone, W), V)


def test_own_texts_count_by_their_weights_and_classes_stay_as_they_are() -> None:
    extra = RNG.standard_normal((3, 5))
    given = texts(extra, ("f", "f", "c"), weight=np.array([1.0, 1, 1, 1, 3, 1, 2]))
    V = node_vectors(given, 0.5 * W)
    np.testing.assert_allclose(at(V, "f"), unit(3 * extra[0] + extra[1]))
    np.testing.assert_allclose(at(V, "c"), unit(extra[2]))
    np.testing.assert_array_equal(V[TREE.leaf_index], 0.5 * W)


def test_classes_count_alike_whatever_their_length() -> None:
    V = node_vectors(texts(), W * np.array([[1.0], [5.0], [0.1], [1.0]]))
    np.testing.assert_allclose(at(V, "c"), unit(W[0] + W[1]))


@pytest.mark.parametrize(
    ("node_id", "kind"), [("f", "one-to-one"), ("l", "inner"), ("", "inner"), ("zz", "inner")]
)
def test_texts_that_are_not_about_an_inner_node(node_id: str, kind: str) -> None:
    given = texts(np.ones(5), (node_id,), kind=("template",) * 4 + (kind,))
    assert len(inner_rows(given)[0]) == 0
    np.testing.assert_array_equal(node_vectors(given, W), node_vectors(texts(), W))


def test_texts_that_cancel_out_or_weigh_nothing_are_none() -> None:
    v = RNG.standard_normal(5)
    plain = node_vectors(texts(), W)
    np.testing.assert_array_equal(node_vectors(texts([v, -v], ("f", "f")), W), plain)
    light = texts(v, ("f",), weight=np.array([1.0, 1, 1, 1, 0]))
    np.testing.assert_array_equal(node_vectors(light, W), plain)


def test_the_type_is_that_of_the_class_vectors() -> None:
    assert node_vectors(texts(), W.astype(np.float32)).dtype == np.float32
    assert node_vectors(texts(), W.astype(np.float16)).dtype == np.float32
