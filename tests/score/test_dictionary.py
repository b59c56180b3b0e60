"""The relevance model: its pairs, that it is at its least, and its scores against loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import RecipeError
from byname.ops import unit
from byname.recipes import get_recipe
from byname.score.cosine import Cosine
from byname.score.dictionary import Dictionary, DictionaryParams, _Words
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from tests.reference import dictionary as reference

seeds = st.integers(0, 10_000)
KINDS = ("name", "attribute", "synonym", "attribute", "attribute")


def world(seed: int, counts: Any = (5, 4, 5), D: int = 6, kinds: bool = False) -> Any:
    """Texts class by class; with kinds the third class alone has no name."""
    rng = np.random.default_rng(seed)
    K = len(counts)
    centres = rng.standard_normal((K, D))
    index = np.repeat(np.arange(K), counts)
    T = unit(centres[index] + 0.5 * rng.standard_normal((len(index), D)) + 0.5)
    X = unit(centres[rng.integers(0, K, 8)] + 0.5 * rng.standard_normal((8, D)))
    kind = tuple(
        KINDS[i % 5] if k != 2 else "attribute" for k, n in enumerate(counts) for i in range(n)
    )
    texts = ClassTexts(
        T,
        index,
        Taxonomy(Node(f"c{k}", f"class {k}") for k in range(K)),
        scale=20.0,
        bias=-2.0,
        kind=kind if kinds else None,
    )
    W = unit(np.array([T[index == k].mean(axis=0) for k in range(K)]))
    return Batch(X), texts, State(W=W)


def score(batch: Any, texts: Any, state: Any, **params: Any) -> tuple[Dictionary, Any]:
    member = Dictionary(**params).fit(batch, texts, state)
    return member, member.apply(batch, texts, state)


def expected(member: Dictionary, batch: Batch, texts: ClassTexts, center: bool) -> Any:
    T, X, K = texts.vectors, batch.X, texts.n_classes
    if center:
        T, X = reference.centre(T, texts.class_index, K), reference.centre_images(X, K)
    named = reference.words(T, texts.class_index, K, texts.kind)
    assert member.coef_ is not None
    return reference.scores(X, named, member.coef_, member.intercept_)


@settings(max_examples=15, deadline=None)
@given(seeds, st.booleans(), st.booleans(), st.sampled_from([0.5, 50.0]))
def test_loops_agree(seed: int, kinds: bool, center: bool, C: float) -> None:
    batch, texts, state = world(seed, kinds=kinds)
    member, S = score(batch, texts, state, center=center, C=C)
    np.testing.assert_allclose(S, expected(member, batch, texts, center), atol=1e-9)
    assert (S < 0).all()


@pytest.mark.parametrize("center", [True, False])
def test_on_real_vectors(shared: Path, center: bool) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    texts = task.texts_for("templates")
    chosen = np.flatnonzero((texts.class_index < 5) & (texts.prompt_index % 9 == 0))
    few = ClassTexts(
        texts.vectors[chosen], texts.class_index[chosen],
        Taxonomy(task.taxonomy.classes[:5]), scale=100.0,
    )  # fmt: skip
    batch, state = Batch(task.images[:12]), State(W=np.zeros((5, 512), np.float32))
    member, S = score(batch, few, state, center=center)
    assert S.dtype == np.float32
    np.testing.assert_allclose(S, expected(member, batch, few, center), atol=1e-5)


@pytest.mark.parametrize(("C", "negatives"), [(1.0, 1), (100.0, 1), (1.0, 3)])
def test_the_regression_is_at_its_least(C: float, negatives: int) -> None:
    batch, texts, state = world(1, counts=(20, 20, 20))
    member, _ = score(batch, texts, state, C=C, negatives=negatives)
    words = _Words(texts, state, center=True)
    (U, V), (A, B) = words.pairs(DictionaryParams(C=C, negatives=negatives))
    u, v = np.concatenate([U, A]), np.concatenate([V, B])
    F = np.concatenate([u * v, np.abs(u - v)], axis=1)
    y = np.arange(len(u)) < len(U)
    assert member.pairs_ == (60, 60 * negatives)
    slope = reference.loss_slope(F, y, C, member.coef_, member.intercept_)
    assert np.abs(slope).max() < 1e-4 * C


@settings(max_examples=15, deadline=None)
@given(seeds, st.booleans())
def test_pairs_are_what_they_say(seed: int, kinds: bool) -> None:
    _, texts, state = world(seed, kinds=kinds)
    words = _Words(texts, state, center=False)
    (U, V), (A, B) = words.pairs(DictionaryParams(seed=seed))
    T, index = texts.vectors, texts.class_index

    def row(x: Any) -> int:
        return int(np.abs(T - x).max(axis=1).argmin())

    for u, v in zip(U, V, strict=True):
        own = [m for m in range(len(T)) if index[m] == index[row(u)] and m != row(u)]
        named = [T[m] for m in own if texts.kind and texts.kind[m] in ("name", "synonym")]
        choices = named or [unit(np.mean([T[m] for m in own], axis=0))]
        assert min(np.abs(c - v).max() for c in choices) < 1e-9
    for u, v in zip(A, B, strict=True):
        own_words = words.vectors[words.table[index[row(u)]]]
        assert np.abs(own_words - v).max(axis=1).min() > 1e-3
        assert np.abs(words.vectors - v).max(axis=1).min() < 1e-12


def test_a_single_name_is_no_example_of_itself() -> None:
    _, texts, state = world(2, kinds=True)
    first = np.append(True, np.diff(texts.class_index) > 0)
    texts = replace(texts, kind=tuple(np.where(first, "name", "attribute").tolist()))
    (U, V), _ = _Words(texts, state, center=False).pairs(DictionaryParams())
    assert len(U) == 14 - 3
    assert (np.abs(U - V).max(axis=1) > 1e-6).all()


def test_homonyms_are_no_negatives() -> None:
    """Two classes of one name: the word of the other says nothing against a text."""
    _, texts, state = world(3, kinds=True)
    vectors = texts.vectors.copy()
    vectors[5] = vectors[0]  # the name of class 1 is that of class 0
    vectors[7] = vectors[2]  # and so is its synonym
    texts = replace(texts, vectors=vectors)
    _, (A, B) = _Words(texts, state, center=False).pairs(DictionaryParams(negatives=8))
    first = np.array([np.abs(vectors[:9] - a).max(axis=1).min() < 1e-12 for a in A])
    shared = np.array([np.abs(vectors[[0, 2]] - b).max(axis=1).min() < 1e-12 for b in B])
    assert first.any()
    assert shared.any()
    assert not (first & shared).any()


def test_words_of_many_classes_are_not_trained_on() -> None:
    batch, texts, state = world(4, counts=(2,) * 8)
    vectors = texts.vectors.copy()
    vectors[:12:2] = vectors[0]  # the name of the first six classes
    texts = replace(texts, vectors=vectors, kind=("name", "attribute") * 8)
    (U, V), (_, B) = _Words(texts, state, center=False).pairs(DictionaryParams(negatives=5))
    assert len(U) == 2  # the attributes of the last two; a name is no example of itself
    for pair in (V, B):
        assert (np.abs(pair - vectors[0]).max(axis=1) > 1e-6).all()
    assert np.isfinite(score(batch, texts, state)[1]).all()


@pytest.mark.parametrize("case", ["one class", "one text a class", "identical"])
@pytest.mark.parametrize("center", [True, False])
def test_nothing_to_learn_from_is_the_cosine(case: str, center: bool) -> None:
    counts = {"one class": (4,), "one text a class": (1, 1, 1), "identical": (3, 3)}[case]
    batch, texts, state = world(5, counts=counts)
    if case == "identical":
        texts = replace(texts, vectors=np.repeat(texts.vectors[:1], 6, axis=0))
    member, S = score(batch, texts, state, center=center)
    assert member.coef_ is None
    assert member.report()["fell_back_to_cosine"]
    np.testing.assert_allclose(S, Cosine().apply(batch, texts, state), rtol=1e-12)


def test_texts_without_weight_or_class_do_not_count() -> None:
    batch, texts, state = world(6)
    index, weight = texts.class_index.copy(), np.ones(14)
    index[0], weight[6] = -1, 0
    other = texts.vectors.copy()
    other[[0, 6]] = other[[6, 0]]
    a, b = (
        score(batch, replace(texts, class_index=index, weight=weight, vectors=v), state)[1]
        for v in (texts.vectors, other)
    )
    np.testing.assert_array_equal(a, b)


def test_a_class_without_words_is_never_answered() -> None:
    batch, texts, state = world(7)
    index = np.where(texts.class_index == 1, -1, texts.class_index)
    _, S = score(batch, replace(texts, class_index=index), state)
    np.testing.assert_allclose(S[:, 1], np.log(1e-30))
    assert (S[:, [0, 2]] > -60).all()


def test_blocks_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, texts, state = world(8, kinds=True)
    whole = score(batch, texts, state)[1]
    monkeypatch.setattr("byname.score.dictionary.ROWS", 3)
    np.testing.assert_allclose(score(batch, texts, state)[1], whole, atol=1e-12)


def test_many_texts_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, texts, state = world(9, counts=(20, 20))
    monkeypatch.setattr("byname.score.dictionary.PAIRS", 10)
    member, S = score(batch, texts, state)
    assert member.pairs_ == (10, 10)
    assert np.isfinite(S).all()


@settings(max_examples=15, deadline=None)
@given(seeds, st.booleans(), st.booleans())
def test_the_order_of_classes_and_texts_changes_nothing(seed: int, kinds: bool, few: bool) -> None:
    batch, texts, state = world(seed, kinds=kinds)
    rng = np.random.default_rng(seed)
    order, rows = rng.permutation(3), rng.permutation(14)
    other = replace(
        texts,
        vectors=texts.vectors[rows],
        class_index=np.argsort(order)[texts.class_index[rows]],
        kind=tuple(texts.kind[i] for i in rows) if kinds else None,
        taxonomy=Taxonomy(texts.taxonomy.classes[i] for i in order),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("byname.score.dictionary.PAIRS", 6 if few else 8192)
        a = score(batch, texts, state, negatives=2)[1]
        b = score(batch, other, replace(state, W=state.W[order]), negatives=2)[1]
    np.testing.assert_allclose(b, a[:, order], atol=1e-12)


def test_seeds() -> None:
    batch, texts, state = world(10)
    a, again, other = (score(batch, texts, state, seed=s)[1] for s in (0, 0, 1))
    np.testing.assert_array_equal(a, again)
    assert np.abs(a - other).max() > 0


def test_an_offset_between_images_and_texts_is_overcome() -> None:
    rng = np.random.default_rng(0)
    index, y = np.repeat([0, 1, 2], 40), np.arange(90) % 3
    base = np.eye(6)[:3] * 0.5
    T = unit(base[index] + [0, 0, 0, 2, 0, 0] + 0.1 * rng.standard_normal((120, 6)))
    X = unit(base[y] + [1.0, 0, 0, 0, 2, 0] + 0.1 * rng.standard_normal((90, 6)))
    texts = ClassTexts(T, index, Taxonomy.from_names(["a", "b", "c"]))
    right = [
        (score(Batch(X), texts, State(W=T[:3]), center=c)[1].argmax(axis=1) == y).mean()
        for c in (True, False)
    ]
    assert right[0] > 0.95
    assert right[1] < right[0]


def test_report() -> None:
    batch, texts, state = world(11)
    assert Dictionary().report() == {}
    told = score(batch, texts, state, C=1000.0)[0].report()
    assert (told["positive_pairs"], told["negative_pairs"], told["words"]) == (14, 14, 3)
    assert told["accuracy_on_pairs"] > 0.6


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("dictionary[C=0]", "C is 0.0. It must be a finite number above 0."),
        ("dictionary[C=nan]", "C is nan. It must be a finite number above 0."),
        ("dictionary[negatives=0]", "negatives is 0. It must be 1 or more."),
        ("dictionary[seed=-1]", "seed is -1. It must be 0 or more."),
    ],
)
def test_parameters_out_of_range(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        get_recipe(spec)
    assert str(error.value) == f"cannot use 'dictionary': {seen}"
