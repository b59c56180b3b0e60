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
from byname.errors import PromptError, RecipeError
from byname.ops import unit
from byname.stage import Batch, ClassTexts, State, create
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from byname.weigh.hierse import Hierse
from byname.weigh.mean import Mean
from tests.helpers import FakeEncoder
from tests.reference import conse as reference
from tests.trees import random_tree

TREES = st.builds(
    lambda seed, K: random_tree(np.random.default_rng(seed), K),
    st.integers(0, 999),
    st.integers(1, 9),
)
EMPTY = Batch(np.empty((0, 6)))


def make(tree: Taxonomy, seed: int, own: bool = True) -> tuple[ClassTexts, dict[str, Any]]:
    """Three texts a class; with ``own``, two texts for every second inner node."""
    rng = np.random.default_rng(seed)
    ids = set(tree.class_ids)
    inner = [n.id for n in tree.nodes if n.id not in ids and n.id][:: 2 if own else 1]
    inner = inner if own else []
    K = len(tree)
    vectors = unit(rng.standard_normal((3 * K + 2 * len(inner), 6)))
    index = np.append(np.repeat(np.arange(K), 3), np.full(2 * len(inner), -1)).astype(np.intp)
    names = (*np.repeat(tree.class_ids, 3).tolist(), *np.repeat(inner, 2).tolist())
    told = {n: vectors[3 * K + 2 * i :][:2].mean(axis=0) for i, n in enumerate(inner)}
    return ClassTexts(vectors, index, tree, node_id=names), told


def weigh(texts: ClassTexts, **params: Any) -> Any:
    member = Hierse(**params).fit(EMPTY, texts, State())
    return member.apply(EMPTY, texts, State())


def mean(texts: ClassTexts) -> Any:
    return Mean().fit(EMPTY, texts, State()).apply(EMPTY, texts, State())


@given(TREES, st.integers(0, 99), st.booleans(), st.integers(1, 8))
def test_it_is_the_plain_formula(tree: Taxonomy, seed: int, own: bool, chain: int) -> None:
    texts, told = make(tree, seed, own)
    expected = reference.hierse(tree, mean(texts), told, chain)
    np.testing.assert_allclose(weigh(texts, chain=chain, unit=False), expected, atol=1e-9)
    found = weigh(texts, chain=chain)
    np.testing.assert_allclose(found, [reference.unit(w) for w in expected], atol=1e-9)


@given(st.integers(1, 9), st.integers(0, 99))
def test_a_flat_list_is_the_mean_bit_for_bit(K: int, seed: int) -> None:
    texts, _ = make(Taxonomy.from_names([f"n{k}" for k in range(K)]), seed)
    texts = replace(texts, vectors=texts.vectors.astype(np.float32))
    for unit_rows in (True, False):
        np.testing.assert_array_equal(weigh(texts, unit=unit_rows), mean(texts))


@given(TREES, st.integers(0, 99))
def test_a_chain_of_one_is_the_mean(tree: Taxonomy, seed: int) -> None:
    texts, _ = make(tree, seed)
    np.testing.assert_array_equal(weigh(texts, chain=1), mean(texts))


@given(TREES, st.integers(0, 99))
def test_ancestors_draw_siblings_together(tree: Taxonomy, seed: int) -> None:
    """With one vector for all inner nodes, every class moves towards it."""
    texts, _ = make(tree, seed, own=False)
    ids = set(tree.class_ids)
    inner = tuple(n.id for n in tree.nodes if n.id not in ids and n.id)
    v = unit(np.random.default_rng(seed).standard_normal(6))
    texts = replace(
        texts,
        vectors=np.vstack([texts.vectors, *[v[None]] * len(inner)]),
        class_index=np.append(texts.class_index, np.full(len(inner), -1)).astype(np.intp),
        node_id=(*(texts.node_id or ()), *inner),
    )
    before, after = mean(texts) @ v, weigh(texts) @ v
    deep = tree.depths[tree.leaf_index] > 1
    assert (after[deep] > before[deep]).all()


def test_the_root_counts_only_with_a_name() -> None:
    nodes = [Node("a", "cat", "r"), Node("b", "dog", "r")]
    named = Taxonomy([Node("r", "pet"), *nodes])
    texts = ClassTexts(np.eye(2), np.arange(2), named)
    root = np.sqrt([0.5, 0.5])
    expected = unit(np.eye(2) + np.exp(-1) * root)
    np.testing.assert_allclose(weigh(texts), expected)
    nameless = replace(texts, taxonomy=Taxonomy.from_names(["cat", "dog"]))
    np.testing.assert_array_equal(weigh(nameless), np.eye(2))


def test_more_than_six_ancestors_are_cut_off() -> None:
    nodes = [Node("n0", "n0"), Node("x", "x")]
    nodes += [Node(f"n{i}", f"n{i}", f"n{i - 1}") for i in range(1, 10)]
    tree = Taxonomy(nodes)
    texts, told = make(tree, 0)
    np.testing.assert_allclose(
        weigh(texts, unit=False), reference.hierse(tree, mean(texts), told, 7), atol=1e-12
    )
    assert np.abs(weigh(texts, chain=10) - weigh(texts)).max() > 1e-5


def test_a_class_without_a_vector_takes_that_of_its_ancestors() -> None:
    tree = Taxonomy([Node("f", "f"), Node("a", "a", "f"), Node("b", "b", "f")])
    texts = ClassTexts(np.array([[0.0, 0.0], [0.6, 0.8]]), np.arange(2), tree)
    np.testing.assert_allclose(weigh(texts)[0], [0.6, 0.8])


def test_a_class_without_texts_is_refused() -> None:
    texts, _ = make(Taxonomy.from_names(["a", "b"]), 0)
    with pytest.raises(PromptError, match="no text, or only texts of weight 0, for the classes 'b"):
        weigh(replace(texts, class_index=np.minimum(texts.class_index, 0)))


def test_on_real_vectors(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz", with_labels=False)
    ids = task.taxonomy.class_ids
    nodes = [Node(f"g{g}", f"group {g}") for g in range(4)]
    tree = Taxonomy([*nodes, *(Node(i, i, f"g{k % 4}") for k, i in enumerate(ids))])
    texts = replace(task.texts_for("templates"), taxonomy=tree)
    found = weigh(texts)
    assert found.dtype == np.float32
    expected = [reference.unit(w) for w in reference.hierse(tree, mean(texts), {})]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_classifier_encodes_the_names_of_groups(tmp_path: Path) -> None:
    tree = tmp_path / "tree.json"
    tree.write_text(json.dumps({"fruit": {"apple": {}, "pear": {}}, "milk": {}}))
    encoder = FakeEncoder()
    model = Classifier(tree, encoder, "plain", weigh="hierse", templates=["{}"], cache=False).fit()
    e = dict(
        zip("apf", encoder.encode_texts(["apple", "pear", "a photo of a fruit."]), strict=True)
    )
    expected = [unit(e["a"] + np.exp(-1) * e["f"]), unit(e["p"] + np.exp(-1) * e["f"])]
    np.testing.assert_allclose(model.pipeline_.W_[:2], expected, atol=1e-6)


def test_a_chain_of_none_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"chain is 0\. Give 1 for the class alone, or more\."):
        create("hierse[chain=0]", "weigh")


@pytest.mark.parametrize("chain", [2.5, True, "x", None])
def test_a_chain_of_another_kind(chain: Any) -> None:
    with pytest.raises(RecipeError, match=r"'hierse': chain=.* does not fit"):
        Hierse(chain=chain)
