from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.classifier import Classifier
from byname.errors import RecipeError
from byname.ops import log_softmax, softmax, unit
from byname.recipes import get_recipe
from byname.score.cosine import Cosine
from byname.score.joint_softmax import JointSoftmax
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from tests.helpers import FakeEncoder
from tests.reference.joint_softmax import joint_softmax


def make(seed: int, counts: list[int], dtype: Any = np.float64) -> tuple[Batch, ClassTexts]:
    rng = np.random.default_rng(seed)
    index = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    X = unit(rng.standard_normal((6, 5))).astype(dtype)
    T = unit(rng.standard_normal((len(index), 5))).astype(dtype)
    taxonomy = Taxonomy.from_names([f"class {k}" for k in range(len(counts))])
    return Batch(X), ClassTexts(T, index, taxonomy, scale=20.0, bias=-1.0)


def score(batch: Batch, texts: ClassTexts, state: State | None = None, **params: Any) -> Any:
    return JointSoftmax(**params).apply(batch, texts, state or State())


def normal(p: Any) -> Any:
    """Logarithms up to a constant of the row, brought to probabilities of the classes."""
    return np.log(p / p.sum(axis=1, keepdims=True))


COUNTS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@given(st.integers(0, 999), COUNTS, st.booleans())
def test_it_is_the_plain_formula(seed: int, counts: list[int], weighted: bool) -> None:
    batch, texts = make(seed, counts)
    weight = None
    if weighted:
        rng = np.random.default_rng(seed)
        weight = rng.uniform(0.1, 2, sum(counts)) * (rng.random(sum(counts)) < 0.7)
        weight[[np.flatnonzero(texts.class_index == k)[0] for k in range(len(counts))]] = 1
    p = joint_softmax(batch.X, texts.vectors, texts.class_index, len(counts), 20.0, weight)
    found = score(batch, texts, State(weight=weight))
    np.testing.assert_allclose(log_softmax(found), normal(p), atol=1e-9)


def test_float32_on_real_vectors(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    T = np.ascontiguousarray(task.texts[:9].transpose(1, 0, 2)).reshape(-1, task.texts.shape[2])
    index = np.repeat(np.arange(19), 9)
    texts = ClassTexts(T, index, task.taxonomy, scale=100.0)
    S = score(Batch(task.images[:30]), texts)
    assert S.dtype == np.float32
    p = joint_softmax(task.images[:30], T, index, 19, 100.0)
    np.testing.assert_allclose(log_softmax(S) / 100, normal(p) / 100, atol=1e-5)


@given(st.integers(0, 999), st.integers(1, 5), st.booleans())
def test_with_one_text_a_class_it_is_the_cosine(seed: int, K: int, equal: bool) -> None:
    batch, texts = make(seed, [1] * K)
    W = texts.vectors[np.argsort(texts.class_index)]
    plain = Cosine().apply(batch, texts, State(W=W))
    np.testing.assert_allclose(score(batch, texts, equal_counts=equal), plain, atol=1e-9)


@given(st.integers(0, 999), COUNTS)
def test_it_lies_between_the_mean_and_the_largest(seed: int, counts: list[int]) -> None:
    batch, texts = make(seed, counts)
    S = score(batch, texts)
    for k in range(len(counts)):
        own = 20 * batch.X @ texts.vectors[texts.class_index == k].T - 1
        assert (S[:, k] >= own.mean(axis=1) - 1e-9).all()
        assert (S[:, k] <= own.max(axis=1) + 1e-9).all()


# -- "classes with more texts get no bonus because of the mean, but ... equalise counts"


@given(st.integers(0, 999), COUNTS, st.integers(0, 4))
def test_texts_that_are_given_twice_change_nothing(seed: int, counts: list[int], k: int) -> None:
    batch, texts = make(seed, counts)
    again = np.flatnonzero(texts.class_index == k % len(counts))
    twice = dataclasses.replace(
        texts,
        vectors=np.vstack([texts.vectors, texts.vectors[again]]),
        class_index=np.append(texts.class_index, texts.class_index[again]),
    )
    np.testing.assert_allclose(score(batch, twice), score(batch, texts), atol=1e-9)


@given(st.integers(0, 999), st.integers(1, 5), st.integers(1, 5))
def test_equal_counts_change_nothing_where_they_are_equal(seed: int, K: int, n: int) -> None:
    batch, texts = make(seed, [n] * K)
    np.testing.assert_allclose(
        score(batch, texts, equal_counts=True), score(batch, texts), atol=1e-12
    )


def test_equal_counts_keep_the_heaviest_texts_and_of_equals_the_first() -> None:
    batch, texts = make(4, [2, 4, 3])
    weight = np.ones(9)
    mine = np.flatnonzero(texts.class_index == 1)
    weight[mine[3]], weight[mine[0]] = 3.0, 0.5
    first = np.flatnonzero(texts.class_index == 2)[:2]
    kept = np.zeros(9)
    kept[texts.class_index == 0], kept[first] = 1, 1
    kept[mine[3]], kept[mine[1]] = 3, 1
    np.testing.assert_allclose(
        score(batch, texts, State(weight=weight), equal_counts=True),
        score(batch, texts, State(weight=kept)),
        atol=1e-12,
    )


def test_equal_counts_do_not_count_texts_that_weigh_nothing() -> None:
    batch, texts = make(4, [3, 3])
    weight = np.ones(6)
    weight[np.flatnonzero(texts.class_index == 0)[0]] = 0
    found = score(batch, texts, State(weight=weight), equal_counts=True)
    weight[np.flatnonzero(texts.class_index == 1)[2]] = 0
    np.testing.assert_allclose(found, score(batch, texts, State(weight=weight)), atol=1e-12)


def test_more_texts_have_more_chances_unless_counts_are_equal() -> None:
    rng = np.random.default_rng(0)
    T = unit(rng.standard_normal((101, 16)))
    texts = ClassTexts(T, np.minimum(np.arange(101), 1), Taxonomy.from_names(["few", "many"]))
    batch = Batch(unit(rng.standard_normal((2000, 16))))
    many, equal = (
        (score(batch, texts, equal_counts=equal).argmax(axis=1) == 1).mean()
        for equal in (False, True)
    )
    assert many > 0.85
    assert 0.4 < equal < 0.6


def test_a_class_of_which_no_text_counts_is_never_preferred() -> None:
    batch, texts = make(3, [2, 3])
    weight = (texts.class_index == 1).astype(float)
    for equal in (False, True):
        S = score(batch, texts, State(weight=weight), equal_counts=equal)
        assert (S[:, 0] == -21).all()
        assert np.isfinite(S).all()


def test_a_large_scale_does_not_overflow() -> None:
    batch, texts = make(3, [2, 3, 4], np.float32)
    S = score(batch, dataclasses.replace(texts, scale=1e4))
    assert np.isfinite(S).all()
    best = Cosine().apply(batch, texts, State(W=texts.vectors)).argmax(axis=1)
    assert S.argmax(axis=1).tolist() == texts.class_index[best].tolist(), "close to the maximum"


def test_a_wrong_parameter_is_refused() -> None:
    with pytest.raises(RecipeError, match="equal_counts"):
        get_recipe("joint_softmax[equal_counts=perhaps]")


def test_through_the_classifier() -> None:
    encoder = FakeEncoder()
    said = {"owl": ["an owl with a beak.", "an owl with wings."], "cat": ["a cat."]}
    X = encoder.encode_texts(["a cat.", "an owl with wings.", "a dog."])
    model = Classifier(["owl", "cat"], encoder, prompts=said, score="joint_softmax")
    T = encoder.encode_texts([*said["owl"], *said["cat"]])
    p = joint_softmax(X, T, [0, 0, 1], 2, encoder.info.logit_scale)
    np.testing.assert_allclose(model.predict_proba(X), softmax(normal(p)), atol=1e-4)
    assert model.predict(X[:2]).tolist() == ["cat", "owl"]
