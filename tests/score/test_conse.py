from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.errors import EmbeddingsError, NeedsError, RecipeError
from byname.ops import softmax, unit
from byname.score.conse import Conse, semantic_vectors
from byname.score.cosine import Cosine
from byname.stage import Batch, ClassTexts, State, create
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from tests.reference import conse as reference

SCALE = 20.0


def make(seed: int, K: int = 4, K0: int = 15, D: int = 6) -> tuple[Batch, ClassTexts]:
    rng = np.random.default_rng(seed)
    X, W, V = (unit(rng.standard_normal((n, D))) for n in (8, K, K0))
    probs = rng.dirichlet(np.full(K0, 0.3), 8)
    texts = ClassTexts(W, np.arange(K), Taxonomy.from_names([f"n{k}" for k in range(K)]),
                       scale=SCALE, bias=-1.5)  # fmt: skip
    return Batch(X, class_probs=(probs, V)), texts


def score(batch: Batch, texts: ClassTexts, W: Any = None, **params: Any) -> Any:
    return Conse(**params).apply(batch, texts, State(W=texts.vectors if W is None else W))


def expected(batch: Batch, texts: ClassTexts, W: Any = None, **params: Any) -> Any:
    assert batch.class_probs is not None
    W = texts.vectors if W is None else W
    return reference.conse(
        batch.X, *batch.class_probs, W, scale=texts.scale, bias=texts.bias, **params
    )


@given(st.integers(0, 999), st.integers(1, 20), st.floats(0, 1))
def test_it_is_the_plain_formula(seed: int, top: int, lam: float) -> None:
    batch, texts = make(seed)
    W = texts.vectors * np.array([[1.0], [0.5], [1.0], [0.0]])
    found = score(batch, texts, W, top=top, lam=lam)
    np.testing.assert_allclose(found, expected(batch, texts, W, top=top, lam=lam), atol=1e-9)


def test_on_real_vectors(shared: Path) -> None:
    """Ten of the classes stand for another classifier, the rest are asked for."""
    task = Task.load(shared / "rs19" / "clip-rn50.npz", with_labels=False)
    V, W, X = task.texts[0, :10], task.texts[1], task.images[:50]
    P = softmax(100 * X @ V.T)
    batch = Batch(X, class_probs=(P, V))
    texts = task.texts_for("templates[set=single]")
    found = score(batch, texts, W, top=3, lam=0.7)
    assert found.dtype == np.float32
    plain = expected(batch, texts, W, top=3, lam=0.7)
    np.testing.assert_allclose(found / 100, plain / 100, atol=1e-5)


@given(st.integers(0, 999))
def test_one_label_is_the_class_nearest_to_it(seed: int) -> None:
    batch, texts = make(seed)
    assert batch.class_probs is not None
    P, V = batch.class_probs
    nearest = (V @ texts.vectors.T).argmax(axis=1)[P.argmax(axis=1)]
    assert (score(batch, texts, top=1).argmax(axis=1) == nearest).all()


@given(st.integers(0, 999), st.integers(1, 9))
def test_the_same_labels_and_a_sure_classifier_give_its_answer(seed: int, K: int) -> None:
    batch, texts = make(seed, K)
    answer = np.random.default_rng(seed).integers(0, K, 8)
    batch = Batch(batch.X, class_probs=(np.eye(K)[answer], texts.vectors))
    S = score(batch, texts)
    assert (S.argmax(axis=1) == answer).all()
    np.testing.assert_allclose(S.max(axis=1), SCALE - 1.5)


@given(st.integers(0, 999))
def test_a_share_of_zero_is_the_cosine(seed: int) -> None:
    batch, texts = make(seed)
    plain = Cosine().apply(batch, texts, State(W=texts.vectors))
    np.testing.assert_allclose(score(batch, texts, lam=0.0), plain, atol=1e-12)


def test_a_label_without_a_vector_is_passed_over() -> None:
    batch, texts = make(1)
    assert batch.class_probs is not None
    P, V = batch.class_probs
    V = V.copy()
    V[[0, 3, 7]] = 0
    keep = V.any(axis=1)
    P = np.where(keep, P, 50 * P)  # however likely it is
    found = score(Batch(batch.X, class_probs=(P, V)), texts, top=4)
    fewer = score(Batch(batch.X, class_probs=(P[:, keep], V[keep])), texts, top=4)
    np.testing.assert_allclose(found, fewer)


def test_no_label_with_a_vector_and_no_class_vector() -> None:
    batch, texts = make(2)
    assert batch.class_probs is not None
    P, V = batch.class_probs
    nothing = score(Batch(batch.X, class_probs=(P, 0 * V)), texts)
    np.testing.assert_array_equal(nothing, np.full_like(nothing, texts.bias))
    W = texts.vectors * np.array([[1.0], [0.0], [1.0], [1.0]])
    S = score(batch, texts, W)
    np.testing.assert_array_equal(S[:, 1], np.full(8, -SCALE - 1.5))
    impossible = score(Batch(batch.X, class_probs=(0 * P, V)), texts)
    np.testing.assert_array_equal(impossible, nothing)


def test_probabilities_need_not_sum_to_one() -> None:
    batch, texts = make(3)
    assert batch.class_probs is not None
    P, V = batch.class_probs
    halves = Batch(batch.X, class_probs=(0.5 * P, V))
    np.testing.assert_allclose(score(halves, texts), score(batch, texts), atol=1e-12)
    assert semantic_vectors(P[:0], V, 3).shape == (0, 6)


def test_what_does_not_fit_is_refused() -> None:
    batch, texts = make(4)
    assert batch.class_probs is not None
    P, V = batch.class_probs
    for probs in ((P[:-1], V), (P[:, :-1], V), (P, V[:, :-1])):
        with pytest.raises(EmbeddingsError, match=r"cannot use 'conse': the probabilities have"):
            score(Batch(batch.X, class_probs=probs), texts)
    for wrong in (-0.1, np.nan):
        bad = P.copy()
        bad[2, 1] = wrong
        with pytest.raises(
            EmbeddingsError, match=r"negative or not a number\. Give the softmax of"
        ):
            score(Batch(batch.X, class_probs=(bad, V)), texts)
    with pytest.raises(NeedsError, match="'conse': it needs 'class_probs'"):
        Conse().check_needs(Batch(batch.X), texts)


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("conse[top=0]", "top is 0. Give 1 or more labels."),
        ("conse[lam=1.5]", "lam is 1.5. Give a number from 0 to 1."),
        ("conse[lam=nan]", "lam is nan. Give a number from 0 to 1."),
    ],
)
def test_parameters_out_of_range(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(spec, "score")
    assert str(error.value) == f"cannot use 'conse': {seen}"
