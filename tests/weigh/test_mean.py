from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from byname import ops
from byname.errors import PromptError
from byname.stage import Batch, ClassTexts, State
from byname.taxonomy import Taxonomy
from byname.weigh.mean import Mean, class_weights
from byname.weigh.mean_similarity import MeanSimilarity
from tests.reference import stages_reference as ref

K, D = 3, 4
TAXONOMY = Taxonomy.from_names(["a", "b", "c"])
EMPTY, STATE = Batch(np.empty((0, D))), State()


@st.composite
def class_texts(draw: st.DrawFn, weighted: bool = True) -> ClassTexts:
    extra = draw(st.lists(st.integers(-1, K - 1), max_size=6))
    index = np.array(draw(st.permutations([*range(K), *extra])), np.intp)
    vectors = draw(hnp.arrays(np.float64, (len(index), D), elements=st.floats(-1, 1, width=16)))
    weights = hnp.arrays(np.float64, len(index), elements=st.floats(0.1, 5))
    weight = draw(st.none() | weights) if weighted else None
    return ClassTexts(ops.unit(vectors), index, TAXONOMY, weight=weight)


def fitted(member: Any, texts: ClassTexts) -> Any:
    return member.fit(EMPTY, texts, STATE).apply(EMPTY, texts, STATE)


@given(class_texts())
def test_both_agree_with_the_reference(texts: ClassTexts) -> None:
    args = (texts.vectors, texts.class_index, texts.weight, K)
    means = ref.class_means(*args)
    np.testing.assert_allclose(fitted(MeanSimilarity(), texts), means, atol=1e-12)
    lengths = np.linalg.norm(means, axis=1)
    clear = (lengths > 1e-6) | (lengths == 0)  # where texts cancel, only rounding is left
    np.testing.assert_allclose(fitted(Mean(), texts)[clear], ref.mean(*args)[clear], atol=1e-9)
    np.testing.assert_allclose(
        class_weights(texts), ref.class_weights(texts.class_index, texts.weight, K), rtol=1e-12
    )


@given(class_texts(weighted=False))
def test_equal_weights_are_the_mean_of_the_texts(texts: ClassTexts) -> None:
    plain = [texts.vectors[texts.class_index == k].mean(axis=0) for k in range(K)]
    np.testing.assert_allclose(fitted(MeanSimilarity(), texts), plain, atol=1e-12)


@given(class_texts(), st.floats(1e-3, 1e3))
def test_weights_sum_to_one_and_their_size_does_not_matter(texts: ClassTexts, by: float) -> None:
    weight = class_weights(texts)
    used = texts.class_index >= 0
    sums = np.bincount(texts.class_index[used], weight[used], minlength=K)
    np.testing.assert_allclose(sums, 1, rtol=1e-12)
    assert (weight[~used] == 0).all()
    given_weight = np.ones(len(weight)) if texts.weight is None else texts.weight
    scaled = ClassTexts(texts.vectors, texts.class_index, TAXONOMY, weight=given_weight * by)
    np.testing.assert_allclose(class_weights(scaled), weight, rtol=1e-9)


@given(class_texts(), st.integers(0, 2**32 - 1))
def test_the_two_differ_by_the_length_of_the_mean(texts: ClassTexts, seed: int) -> None:
    X = ops.unit(np.random.default_rng(seed).standard_normal((5, D)))
    of_means = X @ fitted(Mean(), texts).T
    means = fitted(MeanSimilarity(), texts)
    np.testing.assert_allclose(X @ means.T, np.linalg.norm(means, axis=1) * of_means, atol=1e-12)


@pytest.mark.parametrize("member", [Mean, MeanSimilarity])
def test_texts_of_no_class_and_of_weight_zero_count_nothing(member: Any) -> None:
    vectors = np.array([[1.0, 0], [0, 1], [1, 0]])
    taxonomy = Taxonomy.from_names(["a"])
    texts = ClassTexts(vectors, np.array([0, 0, -1]), taxonomy, weight=np.array([0.0, 2.0, np.nan]))
    with np.errstate(all="raise"):
        assert fitted(member(), texts).tolist() == [[0, 1]]


def test_tiny_and_huge_weights() -> None:
    for size in (1e-310, 1e308):
        texts = ClassTexts(
            np.eye(2), np.array([0, 0]), Taxonomy.from_names(["a"]), weight=[size] * 2
        )
        np.testing.assert_allclose(class_weights(texts), 0.5)


def test_a_class_of_zeros_stays_zero() -> None:
    texts = ClassTexts(np.zeros((3, D)), np.arange(3), TAXONOMY)
    assert fitted(Mean(), texts).tolist() == np.zeros((3, D)).tolist()


def test_rows_of_mean_have_length_one_in_float32() -> None:
    vectors = np.random.default_rng(0).standard_normal((30, D)).astype(np.float16)
    found = fitted(Mean(), ClassTexts(vectors, np.arange(30) % 3, TAXONOMY))
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("member", [Mean, MeanSimilarity])
@pytest.mark.parametrize(
    "index, weight, message",
    [
        (
            [0, 0, -1],
            None,
            "cannot weigh the texts: no text, or only texts of weight 0, for the classes 'b', 'c'. "
            "Give each class at least one text of positive weight.",
        ),
        ([0, 1, 2], [1, 0, 1], "cannot weigh the texts: no text, or only texts of weight 0, for"),
        ([0, 1, 2], [1, -2, 1], "cannot weigh the texts: text 1 has the weight -2.0. Give weights"),
        ([0, 1, 2], [1, 1, np.nan], "cannot weigh the texts: text 2 has the weight nan. Give"),
        ([0, 1, 2], [np.inf, 1, 1], "cannot weigh the texts: text 0 has the weight inf. Give"),
    ],
)
def test_classes_without_texts(member: Any, index: Any, weight: Any, message: str) -> None:
    texts = ClassTexts(np.eye(3, D), np.array(index), TAXONOMY, weight=weight)
    with pytest.raises(PromptError) as error:
        member().fit(EMPTY, texts, STATE)
    assert str(error.value).startswith(message)


def test_many_classes_without_texts_are_counted() -> None:
    taxonomy = Taxonomy.from_names([f"c{i}" for i in range(9)])
    with pytest.raises(PromptError, match="'c2', 'c3', 'c4', 'c5' and 3 more"):
        class_weights(ClassTexts(np.eye(1, D), np.array([0]), taxonomy))
