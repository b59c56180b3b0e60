from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.classifier import Classifier
from byname.errors import RecipeError, UsageError
from byname.ops import softmax, unit
from byname.recipes import get_recipe
from byname.score.cosine import Cosine
from byname.score.describe import Describe, DescribeParams, contributions
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from byname.weigh.mean_similarity import MeanSimilarity
from tests.helpers import FakeEncoder
from tests.reference.describe import describe

HOW = ("mean", "max", "sum")


def make(seed: int, counts: list[int], dtype: Any = np.float64) -> tuple[Batch, ClassTexts]:
    rng = np.random.default_rng(seed)
    index = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    X = unit(rng.standard_normal((6, 5))).astype(dtype)
    T = unit(rng.standard_normal((len(index), 5))).astype(dtype)
    taxonomy = Taxonomy.from_names([f"class {k}" for k in range(len(counts))])
    return Batch(X), ClassTexts(T, index, taxonomy, scale=20.0, bias=-1.0)


def score(batch: Batch, texts: ClassTexts, state: State | None = None, how: Any = "mean") -> Any:
    return Describe(aggregate=how).apply(batch, texts, state or State())


COUNTS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@given(st.integers(0, 999), COUNTS, st.sampled_from(HOW), st.booleans())
def test_it_is_the_plain_formula(seed: int, counts: list[int], how: str, weighted: bool) -> None:
    batch, texts = make(seed, counts)
    weight = None
    if weighted:
        rng = np.random.default_rng(seed)
        weight = rng.uniform(0.1, 2, sum(counts)) * (rng.random(sum(counts)) < 0.7)
        weight[[np.flatnonzero(texts.class_index == k)[0] for k in range(len(counts))]] = 1
    expected = describe(batch.X, texts.vectors, texts.class_index, len(counts), how, weight)
    found = score(batch, texts, State(weight=weight), how)
    np.testing.assert_allclose(found, 20 * expected - 1, atol=1e-9)


@given(st.integers(0, 999), COUNTS)
def test_the_mean_is_mean_similarity_with_cosine(seed: int, counts: list[int]) -> None:
    batch, texts = make(seed, counts)
    weight = np.random.default_rng(seed).uniform(0.1, 2, sum(counts))
    texts = dataclasses.replace(texts, weight=weight)
    weigh = MeanSimilarity().fit(batch, texts, State())
    state = State(weight=weigh.weight_, W=weigh.apply(batch, texts, State()))
    plain = Cosine().apply(batch, texts, state)
    np.testing.assert_allclose(score(batch, texts, state), plain, atol=1e-12)


@given(st.integers(0, 999), st.integers(1, 5))
def test_with_one_text_a_class_all_aggregates_are_the_cosine(seed: int, K: int) -> None:
    batch, texts = make(seed, [1] * K)
    W = texts.vectors[np.argsort(texts.class_index)]
    plain = Cosine().apply(batch, texts, State(W=W))
    for how in HOW:
        np.testing.assert_allclose(score(batch, texts, how=how), plain, atol=1e-12)


def test_float32_on_real_vectors(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    T = np.ascontiguousarray(task.texts[:9].transpose(1, 0, 2)).reshape(-1, task.texts.shape[2])
    index = np.repeat(np.arange(19), 9)
    texts = ClassTexts(T, index, task.taxonomy, scale=100.0)
    for how in HOW:
        S = score(Batch(task.images[:30]), texts, how=how)
        assert S.dtype == np.float32
        expected = describe(task.images[:30], T, index, 19, how)
        np.testing.assert_allclose(S / 100, expected, atol=1e-5)


def test_a_class_with_only_the_bare_template_is_scored_by_it() -> None:
    """An empty answer of the LLM leaves a class with one text beside others with many."""
    batch, texts = make(3, [1, 5, 4])
    bare = texts.vectors[texts.class_index == 0][0]
    for how in HOW:
        S = score(batch, texts, how=how)
        np.testing.assert_allclose(S[:, 0], 20 * batch.X @ bare - 1, atol=1e-12)


def test_a_class_of_which_no_text_counts_is_never_preferred() -> None:
    batch, texts = make(3, [2, 3])
    weight = (texts.class_index == 1).astype(float)
    for how in HOW:
        S = score(batch, texts, State(weight=weight), how)
        assert (S[:, 0] == -21).all()
        assert np.isfinite(S).all()


def test_unequal_texts_cost_their_class() -> None:
    """The mean is not brought to length one."""
    T = unit(np.array([[1.0, 1.0], [1.0, -1.0], [1.0, 0.5]]))
    texts = ClassTexts(T, np.array([0, 0, 1]), Taxonomy.from_names(["a", "b"]), scale=1.0)
    S = score(Batch(np.array([[1.0, 0.0]])), texts)
    assert S[0, 0] == pytest.approx(np.sqrt(0.5))
    assert S.argmax() == 1


# -- explanations


@given(st.integers(0, 999), COUNTS)
def test_shares_add_up_to_the_score(seed: int, counts: list[int]) -> None:
    batch, texts = make(seed, counts)
    weight = np.random.default_rng(seed).uniform(0.1, 2, sum(counts))
    state = State(weight=weight)
    S = score(batch, texts, state)
    k = np.arange(6) % len(counts)
    for i, told in enumerate(contributions(batch, texts, state, k)):
        assert told.class_index == k[i]
        assert sum(text.share for text in told.texts) == pytest.approx(told.score)
        assert 20 * told.score - 1 == pytest.approx(S[i, k[i]])
        assert len(told.texts) == counts[k[i]]
        cosines = [text.cosine for text in told.texts]
        assert cosines == sorted(cosines, reverse=True)
        for text in told.texts:
            assert text.cosine == pytest.approx(float(batch.X[i] @ texts.vectors[text.row]))
            assert text.share == text.weight * text.cosine
            assert texts.class_index[text.row] == k[i]


def test_a_rival_is_told_beside() -> None:
    batch, texts = make(1, [3, 2, 4])
    first, second = np.argsort(-score(batch, texts), axis=1)[:, :2].T
    told = contributions(batch, texts, State(), first, 2, rival=second)
    alone = contributions(batch, texts, State(), second, 2)
    assert [image.rival for image in told] == alone
    assert all(image.score >= image.rival.score for image in told if image.rival)
    assert {len(image.texts) for image in told} == {2}
    assert json.loads(json.dumps(dataclasses.asdict(told[0])))["rival"]["texts"][0]["row"] >= 0


def test_an_edited_text_is_scored_without_the_images_being_encoded_again() -> None:
    batch, texts = make(2, [2, 2])
    vectors = texts.vectors.copy()
    row = int(np.flatnonzero(texts.class_index == 0)[0])
    vectors[row] = batch.X[0]
    edited = dataclasses.replace(texts, vectors=vectors)
    told = contributions(batch, edited, State(), np.zeros(6, np.intp), 1)[0]
    assert told.texts[0].row == row
    assert told.texts[0].cosine == pytest.approx(1)
    assert score(batch, edited)[0, 0] > score(batch, texts)[0, 0]


def test_no_answer_and_no_text_have_an_empty_explanation() -> None:
    batch, texts = make(2, [2, 2])
    state = State(weight=(texts.class_index == 1).astype(float))
    told = contributions(batch, texts, state, [-1, 0, 1, 1, 1, 1])
    assert [len(image.texts) for image in told] == [0, 0, 2, 2, 2, 2]
    assert [image.score for image in told[:2]] == [0, 0]
    none = contributions(Batch(batch.X[:0]), texts, state, [])
    assert none == []


@pytest.mark.parametrize(
    "index, top, seen",
    [
        ([0, 1], None, "class_index has the shape (2,) and the type int64. Give one class"),
        (np.zeros(6), None, "class_index has the shape (6,) and the type float64. Give one"),
        ([0, 1, 2, 0, 0, 0], None, "class_index goes from 0 to 2. Count the 2 classes from 0;"),
        ([0, -2, 1, 0, 0, 0], None, "class_index goes from -2 to 1. Count the 2 classes"),
        ([0] * 6, 0, "top is 0. Give 1 or more, or none for all."),
    ],
)
def test_wrong_classes_are_refused(index: Any, top: int | None, seen: str) -> None:
    batch, texts = make(2, [2, 2])
    with pytest.raises(UsageError) as error:
        contributions(batch, texts, State(), index, top)
    assert str(error.value).startswith(f"cannot explain 6 images: {seen}")


def test_details_name_the_best_text_of_the_answered_class() -> None:
    batch, texts = make(5, [3, 2, 4])
    S = np.zeros((6, 3))
    S[np.arange(6), [0, 1, 2, 0, 1, 2]] = 1
    told = Describe().details(batch, texts, State(S=S))
    for i, k in enumerate([0, 1, 2, 0, 1, 2]):
        mine = np.flatnonzero(texts.class_index == k)
        cosines = texts.vectors[mine] @ batch.X[i]
        assert told["best_text_row"][i] == mine[cosines.argmax()]
        assert told["best_text_cosine"][i] == pytest.approx(cosines.max())
    json.dumps(told)
    own = Describe().details(batch, texts, State())
    best = score(batch, texts).argmax(axis=1)
    assert [texts.class_index[row] for row in own["best_text_row"]] == best.tolist()


def test_another_aggregate_is_refused() -> None:
    with pytest.raises(RecipeError) as error:
        DescribeParams(aggregate="median")  # type: ignore[arg-type]
    expected = "cannot use 'describe': aggregate is 'median'. Give mean, max or sum."
    assert str(error.value) == expected
    with pytest.raises(RecipeError, match="median"):
        get_recipe("describe[aggregate=median]")


@pytest.mark.parametrize("how", HOW)
def test_through_the_classifier(how: str) -> None:
    encoder = FakeEncoder()
    said = {"owl": ["an owl, which has a beak.", "an owl, which has wings."], "cat": ["a cat."]}
    X = encoder.encode_texts(["a cat.", "an owl, which has wings."])
    model = Classifier(["owl", "cat"], encoder, prompts=said, score=f"describe[aggregate={how}]")
    found = model.predict_proba(X)
    T = encoder.encode_texts([*said["owl"], *said["cat"]])
    expected = softmax(encoder.info.logit_scale * describe(X, T, [0, 0, 1], 2, how))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert model.predict(X).tolist() == ["cat", "owl"]
