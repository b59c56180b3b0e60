from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname import Classifier
from byname.errors import RecipeError
from byname.ops import softmax, unit
from byname.score.cosine import Cosine
from byname.score.descent import Descent
from byname.stage import Batch, ClassTexts, State, create
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from tests.helpers import FakeEncoder
from tests.reference import descent as reference
from tests.trees import random_tree

TREES = st.builds(
    lambda seed, K: random_tree(np.random.default_rng(seed), K),
    st.integers(0, 999),
    st.integers(1, 9),
)
SCALE = 8.0


def make(tree: Taxonomy, seed: int, own: bool = True) -> tuple[Any, Any, ClassTexts, Any]:
    """Images, class vectors, and texts with, if ``own``, one for every second inner node."""
    rng = np.random.default_rng(seed)
    K, ids = len(tree), set(tree.class_ids)
    inner = [n.id for n in tree.nodes[1:] if n.id not in ids][:: 2 if own else 99][: 99 * own]
    vectors = unit(rng.standard_normal((K + len(inner), 6)))
    index = np.append(np.arange(K), np.full(len(inner), -1)).astype(np.intp)
    texts = ClassTexts(vectors, index, tree, node_id=(*tree.class_ids, *inner), scale=SCALE)
    X = unit(rng.standard_normal((7, 6)))
    return X, vectors[:K], texts, dict(zip(inner, vectors[K:], strict=True))


def score(X: Any, W: Any, texts: ClassTexts, **params: Any) -> Any:
    return Descent(**params).apply(Batch(X), texts, State(W=W))


@given(TREES, st.integers(0, 99), st.booleans())
def test_it_is_the_plain_formula(tree: Taxonomy, seed: int, own: bool) -> None:
    X, W, texts, told = make(tree, seed, own)
    S = score(X, W, texts)
    np.testing.assert_allclose(S, reference.full(tree, X, W, told, SCALE), atol=1e-9)
    np.testing.assert_allclose(np.exp(S).sum(axis=1), 1, atol=1e-9)


@given(TREES, st.integers(0, 99), st.integers(1, 4))
def test_a_beam_is_the_plain_search(tree: Taxonomy, seed: int, beam: int) -> None:
    X, W, texts, told = make(tree, seed)
    params: Any = {"mode": "greedy"} if beam == 1 else {"mode": "beam", "beam": beam}
    for x, row in zip(X, score(X, W, texts, **params), strict=True):
        found = reference.beam(tree, x, W, told, SCALE, beam)
        reached = [leaf in found for leaf in tree.class_ids]
        expected = [found[leaf] for leaf in tree.class_ids if leaf in found]
        np.testing.assert_allclose(row[reached], expected, atol=1e-9)
        rest = row[~np.array(reached)]
        assert (rest < min(expected)).all()
        assert (rest < np.log(1e-30)).all()
        assert len(set(rest)) <= 1


@given(TREES, st.integers(0, 99))
def test_a_beam_as_wide_as_the_tree_is_full(tree: Taxonomy, seed: int) -> None:
    X, W, texts, _ = make(tree, seed)
    wide = score(X, W, texts, mode="beam", beam=len(tree.nodes))
    np.testing.assert_allclose(wide, score(X, W, texts), atol=1e-9)


@given(TREES, st.integers(0, 99))
def test_a_beam_of_one_is_greedy_and_wider_ones_find_no_less(tree: Taxonomy, seed: int) -> None:
    X, W, texts, _ = make(tree, seed)
    greedy = score(X, W, texts, mode="greedy")
    np.testing.assert_array_equal(score(X, W, texts, mode="beam", beam=1), greedy)
    assert ((greedy > np.log(1e-30)).sum(axis=1) == 1).all()
    best = score(X, W, texts).max(axis=1)
    assert (greedy.max(axis=1) <= best + 1e-9).all()


@given(st.integers(1, 9), st.integers(0, 99))
def test_a_flat_list_is_the_cosine_less_a_number_an_image(K: int, seed: int) -> None:
    X, W, texts, _ = make(Taxonomy.from_names([f"n{k}" for k in range(K)]), seed)
    texts, W = replace(texts, bias=-3.0), W * np.linspace(0.5, 1, K)[:, None]
    plain = Cosine().apply(Batch(X), texts, State(W=W))
    found = score(X, W, texts)
    np.testing.assert_allclose(found - found[:, :1], plain - plain[:, :1], atol=1e-9)
    np.testing.assert_allclose(softmax(found), softmax(plain), atol=1e-12)


def test_a_greedy_mistake_near_the_root_cannot_be_undone() -> None:
    """The likeliest class lies in the group that is not likeliest."""
    tree = Taxonomy([Node("f", "f"), Node("g", "g"), Node("a", "a", "f"), Node("b", "b", "f"),
                     Node("c", "c", "g"), Node("d", "d", "g")])  # fmt: skip
    W = np.array([[1.0, 0, 0], [0.99, 0, 0.1], [0.9, 0.1, 0], [0, 0, 1]])
    extra = np.array([[1.0, 0, 0], [0.95, 0.05, 0]])
    texts = ClassTexts(
        np.vstack([W, extra]), np.array([0, 1, 2, 3, -1, -1]), tree,
        node_id=("a", "b", "c", "d", "f", "g"), scale=SCALE,
    )  # fmt: skip
    X = np.array([[1.0, 0, 0]])
    assert score(X, W, texts, mode="greedy").argmax() == 0
    assert score(X, W, texts).argmax() == score(X, W, texts, mode="beam").argmax() == 2


def test_a_single_child_is_certain() -> None:
    tree = Taxonomy([Node("f", "f"), Node("g", "g", "f"), Node("a", "a", "g"), Node("m", "m")])
    X, W, texts, _ = make(tree, 3, own=False)
    plain = SCALE * X @ W.T
    np.testing.assert_allclose(softmax(score(X, W, texts)), softmax(plain), atol=1e-9)


def test_many_images_are_taken_in_blocks() -> None:
    X, W, texts, _ = make(random_tree(np.random.default_rng(1), 7), 1)
    many = np.repeat(X, 400, axis=0)
    for mode in ("full", "beam"):
        expected = np.repeat(score(X, W, texts, mode=mode), 400, axis=0)
        np.testing.assert_allclose(score(many, W, texts, mode=mode), expected, atol=1e-12)


def test_on_real_vectors(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz", with_labels=False)
    ids = task.taxonomy.class_ids
    nodes = [Node(f"g{g}", f"group {g}") for g in range(4)]
    tree = Taxonomy([*nodes, *(Node(i, i, f"g{k % 4}") for k, i in enumerate(ids))])
    texts = replace(task.texts_for("templates[set=single]"), taxonomy=tree)
    X, W = task.images[:40], texts.vectors
    found = score(X, W, texts)
    assert found.dtype == np.float32
    expected = reference.full(tree, X, W, {}, 100.0)
    np.testing.assert_allclose(found / 100, expected / 100, atol=1e-5)


def test_the_classifier_encodes_the_names_of_groups(tmp_path: Path) -> None:
    path = tmp_path / "tree.json"
    path.write_text(json.dumps({"fruit": {"apple": {}, "pear": {}}, "milk": {}}))
    encoder = FakeEncoder()
    model = Classifier(path, encoder, "plain", score="descent", templates=["{}"], cache=False)
    X = unit(np.random.default_rng(0).standard_normal((5, encoder.info.dim)).astype(np.float32))
    S = model.decision_function(X)
    tree = model.taxonomy_
    W = encoder.encode_texts(["apple", "pear", "milk"])
    (fruit,) = encoder.encode_texts(["a photo of a fruit."])
    expected = reference.full(tree, X, W, {tree.nodes[1].id: fruit}, encoder.info.logit_scale)
    np.testing.assert_allclose(S, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("descent[mode=up]", "mode='up' does not fit"),
        ("descent[beam=0]", r"beam is 0\. Give 1 or more paths\."),
    ],
)
def test_wrong_parameters_are_named(spec: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        create(spec, "score")
    with pytest.raises(RecipeError, match=r"mode is 'up'\. Known: full, beam, greedy"):
        Descent(mode="up")
