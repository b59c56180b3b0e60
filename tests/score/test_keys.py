from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.errors import RecipeError
from byname.ops import unit
from byname.score.keys import Keys
from byname.stage import Batch, ClassTexts, State, Support, create
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from tests.reference import keys as reference
from tests.trees import random_tree

SCALE = 10.0


def make(seed: int, K: int = 4, support: bool = True) -> tuple[Batch, ClassTexts]:
    rng = np.random.default_rng(seed)
    index = rng.integers(-1, K, 4 * K)
    index[:K] = np.arange(K)
    texts = ClassTexts(unit(rng.standard_normal((4 * K, 5))), index,
                       random_tree(rng, K), scale=SCALE, bias=-1.0)  # fmt: skip
    own = Support(unit(rng.standard_normal((7, 5))), rng.integers(0, K, 7), "labelled")
    return Batch(unit(rng.standard_normal((9, 5))), support=own if support else None), texts


def score(batch: Batch, texts: ClassTexts, state: State | None = None, **params: Any) -> Any:
    return Keys(**params).apply(batch, texts, state or State())


def all_keys(batch: Batch, texts: ClassTexts) -> tuple[Any, Any]:
    if batch.support is None:
        return texts.vectors, texts.class_index
    return (
        np.vstack([texts.vectors, batch.support.vectors]),
        np.append(texts.class_index, batch.support.class_index),
    )


def expected(batch: Batch, texts: ClassTexts, k: int = 1) -> Any:
    return reference.keys(
        batch.X, *all_keys(batch, texts), texts.n_classes, k=k, scale=texts.scale, bias=texts.bias
    )


@given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 40), st.booleans())
def test_it_is_the_plain_formula(seed: int, K: int, k: int, support: bool) -> None:
    batch, texts = make(seed, K, support)
    np.testing.assert_allclose(score(batch, texts, k=k), expected(batch, texts, k), atol=1e-9)


@pytest.mark.parametrize("k", [1, 3, 5, 20])
def test_on_real_vectors(shared: Path, k: int) -> None:
    """More than one tile of keys, and examples beside them."""
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz", with_labels=False)
    texts = task.texts_for("templates")
    many = replace(
        texts,
        vectors=unit(np.vstack([texts.vectors, texts.vectors + 0.01, texts.vectors - 0.01])),
        class_index=np.tile(texts.class_index, 3),
    )
    own = Support(task.images[:60], np.arange(60) % 19, "pseudo")
    batch = Batch(task.images[500:520], support=own)
    found = score(batch, many, k=k)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found / 100, expected(batch, many, k) / 100, atol=1e-5)


@given(st.integers(0, 999))
def test_one_key_is_the_nearest_of_each_class(seed: int) -> None:
    batch, texts = make(seed)
    vectors, index = all_keys(batch, texts)
    similar = batch.X @ vectors.T
    near = np.stack([similar[:, index == c].max(axis=1) for c in range(4)], axis=1)
    np.testing.assert_allclose(score(batch, texts), SCALE * near - 1, atol=1e-9)
    used = index >= 0
    answer = index[used][similar[:, used].argmax(axis=1)]
    assert (score(batch, texts).argmax(axis=1) == answer).all()


@given(st.integers(0, 999), st.integers(2, 30))
def test_classes_with_a_vote_stand_before_those_without(seed: int, k: int) -> None:
    batch, texts = make(seed)
    vectors, index = all_keys(batch, texts)
    keys = np.flatnonzero(index >= 0)
    nearest = index[keys[np.argsort(-(batch.X @ vectors[keys].T), axis=1)[:, :k]]]
    for row, mine in zip(score(batch, texts, k=k), nearest, strict=True):
        voted = np.isin(np.arange(4), mine)
        if not voted.all():
            assert row[voted].min() > row[~voted].max()


@given(st.integers(0, 999))
def test_all_keys_vote_by_the_log_sum_exp_of_their_class(seed: int) -> None:
    batch, texts = make(seed)
    vectors, index = all_keys(batch, texts)
    S = SCALE * batch.X @ vectors.T
    full = np.stack([np.logaddexp.reduce(S[:, index == c], axis=1) for c in range(4)], axis=1)
    np.testing.assert_allclose(score(batch, texts, k=99), full - 1, atol=1e-9)


def test_an_example_equal_to_the_image_decides() -> None:
    batch, texts = make(1, support=False)
    own = Support(batch.X, np.arange(9) % 4, "generated")
    S = score(replace(batch, support=own), texts)
    assert (S.argmax(axis=1) == np.arange(9) % 4).all()
    np.testing.assert_allclose(S.max(axis=1), SCALE - 1)


def partial(seed: int, offset: float = 0.0) -> tuple[Batch, ClassTexts]:
    """A support of the classes 0 and 1 alone; with an offset images lie near each other."""
    rng = np.random.default_rng(seed)
    batch, texts = make(seed, support=False)
    shown = unit(rng.standard_normal((7, 5)) + offset)
    own = Support(shown, np.array([0, 1, 0, -1, 1, 1, 0]), "labelled")
    return Batch(unit(batch.X + offset), support=own), texts


@given(st.integers(0, 999), st.sampled_from([1, 3, 20]))
def test_a_support_of_some_classes_is_brought_to_the_spread_of_the_texts(seed: int, k: int) -> None:
    batch, texts = partial(seed)
    assert batch.support is not None
    vectors, index = all_keys(batch, texts)
    used = batch.support.class_index >= 0
    a, b = reference.match(
        batch.X, texts.vectors[texts.class_index >= 0], batch.support.vectors[used]
    )
    # One more number of each vector does the same to all cosines with the support.
    wider = np.hstack([vectors, np.zeros((len(vectors), 1))])
    wider[len(texts.vectors) :] = np.hstack([a * batch.support.vectors, np.full((7, 1), b)])
    X = np.hstack([batch.X, np.ones((9, 1))])
    expected = reference.keys(X, wider, index, 4, k=k, scale=SCALE, bias=-1.0)
    member = Keys(k=k).fit(batch, texts, State())
    np.testing.assert_allclose(member.apply(batch, texts, State()), expected, atol=1e-9)
    assert member.report() == {
        "support_factor": pytest.approx(a), "support_shift": pytest.approx(b)
    }  # fmt: skip


def test_classes_without_support_are_still_answered(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    texts, labels = task.texts_for("templates"), np.asarray(task.labels)
    rows = np.concatenate([np.flatnonzero(labels == k)[:5] for k in range(10)])
    rest = np.setdiff1d(np.arange(len(labels)), rows)
    batch = Batch(task.images[rest], support=Support(task.images[rows], labels[rows], "labelled"))
    right = {}
    for name, member in {"raw": Keys(), "fitted": Keys().fit(batch, texts, State())}.items():
        hit = member.apply(batch, texts, State()).argmax(axis=1) == labels[rest]
        right[name] = [hit[labels[rest] < 10].mean(), hit[labels[rest] >= 10].mean()]
        told = member.details(batch, texts, State())["nearest_class"]
        S = member.apply(batch, texts, State())
        assert told == [texts.taxonomy.class_ids[c] for c in S.argmax(axis=1)]
    assert right["raw"][1] == 0
    assert right["fitted"][1] > 0.8
    assert right["fitted"][0] > 0.8


@pytest.mark.parametrize("case", ["all classes", "no support", "no images", "no text of it"])
def test_cosines_are_taken_as_they_are(case: str) -> None:
    batch, texts = partial(3, offset=1.0)
    if case == "all classes":
        own = Support(batch.support.vectors, np.arange(7) % 4, "labelled")  # type: ignore[union-attr]
        batch = replace(batch, support=own)
    elif case == "no support":
        batch = replace(batch, support=None)
    elif case == "no images":
        batch = replace(batch, X=batch.X[:0])
    else:
        texts = replace(texts, class_index=np.where(texts.class_index > 1, -1, texts.class_index))
    member = Keys().fit(*partial(4), State()).fit(batch, texts, State())
    assert (member.factor_, member.shift_, member.report()) == (1.0, 0.0, {})


def test_cosines_without_a_spread_are_only_shifted() -> None:
    batch, texts = partial(5)
    alike = replace(batch, X=np.repeat(batch.X[:1], 9, axis=0),
                    support=Support(batch.X[:1], np.array([0]), "labelled"))  # fmt: skip
    member = Keys().fit(alike, texts, State())
    assert member.factor_ == 1
    assert member.shift_ < 0


def test_weights_count_only_where_they_are_zero() -> None:
    batch, texts = make(2)
    weight = np.array([0.0, 2.0] * 8)
    index = np.where(weight > 0, texts.class_index, -1)
    fewer = score(batch, replace(texts, class_index=index), k=3)
    np.testing.assert_array_equal(score(batch, texts, State(weight=weight), k=3), fewer)
    np.testing.assert_array_equal(score(batch, replace(texts, weight=weight), k=3), fewer)


def test_a_class_without_a_key() -> None:
    batch, texts = make(3, support=False)
    texts = replace(texts, class_index=np.where(texts.class_index == 2, -1, texts.class_index))
    for k in (1, 5):
        S = score(batch, texts, k=k)
        assert np.isneginf(S[:, 2]).all()
        assert np.isfinite(S[:, [0, 1, 3]]).all()


TREE = Taxonomy(
    [Node("f", "fruit"), Node("c", "citrus", "f"), Node("l", "lemon", "c"), Node("a", "apple", "f"),
     Node("m", "milk")],
    levels=("group", "kind", "item"),
)  # fmt: skip


def test_the_label_at_each_level_is_that_of_the_nearest_key() -> None:
    texts = ClassTexts(np.eye(3), np.arange(3), TREE, scale=SCALE)
    own = Support(unit(np.array([[0.0, 1, 1]])), np.array([2]), "labelled")
    batch = Batch(np.vstack([np.eye(3), own.vectors]), support=own)
    member = Keys()
    nodes = member.level_labels(batch, texts, State())
    assert [[TREE.nodes[n].id for n in row] for row in nodes] == [
        ["f", "c", "l"], ["f", "a", "a"], ["m", "m", "m"], ["m", "m", "m"]
    ]  # fmt: skip
    told = json.loads(json.dumps(member.details(batch, texts, State())))
    assert told == {
        "nearest_key": ["text", "text", "text", "labelled"],
        "nearest_class": ["l", "a", "m", "m"],
        "nearest_group": ["f", "f", "m", "m"],
        "nearest_kind": ["c", "a", "m", "m"],
    }


@given(st.integers(0, 999), st.integers(1, 6))
def test_details_and_levels_agree_with_the_answer(seed: int, K: int) -> None:
    batch, texts = make(seed, K)
    tree, member = texts.taxonomy, Keys()
    best = score(batch, texts).argmax(axis=1)
    told = member.details(batch, texts, State())
    assert told["nearest_class"] == [tree.class_ids[c] for c in best]
    nodes = member.level_labels(batch, texts, State())
    for level in range(1, tree.height + 1):
        cut, index = tree.cut(level)
        found = [tree.nodes[n].id for n in nodes[:, level - 1]]
        assert found == [cut.class_ids[index[c]] for c in best]
        if level < tree.height:
            assert told[f"nearest_level {level}"] == found


def test_no_images() -> None:
    batch, texts = make(4)
    none = replace(batch, X=batch.X[:0])
    assert score(none, texts, k=3).shape == (0, 4)
    assert Keys().level_labels(none, texts, State()).shape == (0, texts.taxonomy.height)
    assert all(values == [] for values in Keys().details(none, texts, State()).values())


def test_no_keys_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"cannot use 'keys': k is 0\. Give 1 or more keys\."):
        create("keys[k=0]", "score")
