"""LabelDesc heads: against refitting in float64, their limits, and what centring does."""

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
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from byname.weigh.labeldesc import GRID, Labeldesc
from byname.weigh.mean import Mean
from tests.reference import labeldesc as reference

seeds = st.integers(0, 10_000)


def world(seed: int, counts: Any = (3, 4, 2), D: int = 6, N: int = 15, **fields: Any) -> Any:
    rng = np.random.default_rng(seed)
    K = len(counts)
    centres = rng.standard_normal((K, D))
    index = rng.permutation(np.repeat(np.arange(K), counts))
    T = unit(centres[index] + 0.7 * rng.standard_normal((len(index), D)) + 1)
    X = unit(centres[rng.integers(0, K, N)] + 0.5 * rng.standard_normal((N, D)) - 1)
    taxonomy = Taxonomy(Node(f"c{k}", f"class {k}") for k in range(K))
    return Batch(X), ClassTexts(T, index, taxonomy, scale=20.0, **fields)


def fitted(batch: Batch, texts: ClassTexts, **params: Any) -> tuple[Labeldesc, Any]:
    member = Labeldesc(**params).fit(batch, texts, State())
    return member, member.apply(batch, texts, State())


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from([(3, 4, 2), (1, 5, 2), (2, 2), (1, 1, 3, 2, 2, 2, 2)]))
def test_ridge_is_that_of_refitting(seed: int, counts: Any) -> None:
    batch, texts = world(seed, counts)
    index, K = texts.class_index, len(counts)
    member, W = fitted(batch, texts)
    z, v, means, mu = reference.prepared(texts.vectors, index, K)
    errors = {s: reference.loo(z, v, index, K, s) for s in GRID[::4]}
    for strength, error in errors.items():
        assert member.loo_[strength] == pytest.approx(error, rel=1e-6)
    assert member.loo_[member.strength_] == pytest.approx(min(member.loo_.values()))
    B, _ = reference.ridge(z, v, index, K, member.strength_)
    expected = reference.vectors(B, means, mu, index, batch.X)
    np.testing.assert_allclose(W, expected, atol=1e-7)


def test_on_real_vectors(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    texts = task.texts_for("templates")
    chosen = np.flatnonzero(texts.prompt_index % 12 == 0)
    few = replace(
        texts, vectors=texts.vectors[chosen], class_index=texts.class_index[chosen],
        prompt_index=None, node_id=None, kind=None,
    )  # fmt: skip
    member, W = fitted(task.batch(), few, strength=0.1)
    z, v, means, mu = reference.prepared(few.vectors, few.class_index, 19)
    B, _ = reference.ridge(z, v, few.class_index, 19, 0.1)
    expected = reference.vectors(B, means, mu, few.class_index, task.images)
    assert W.dtype == np.float32
    np.testing.assert_allclose(W, expected, atol=1e-5)
    assert np.bincount(few.class_index, member.weight_) == pytest.approx(1)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_more_classes_than_dimensions(seed: int) -> None:
    """The same error by the other of two ways to sum it up."""
    batch, texts = world(seed, counts=(2,) * 9, D=4)
    member, _ = fitted(batch, texts)
    z, v, _, _ = reference.prepared(texts.vectors, texts.class_index, 9)
    error = reference.loo(z, v, texts.class_index, 9, GRID[6])
    assert member.loo_[GRID[6]] == pytest.approx(error, rel=1e-6)


def test_many_texts_are_left_out_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, texts = world(11, counts=(8, 8, 8))
    every = fitted(batch, texts)[0].loo_
    monkeypatch.setattr("byname.weigh.labeldesc.LEFT_OUT", 24)
    assert fitted(batch, texts)[0].loo_ == every
    monkeypatch.setattr("byname.weigh.labeldesc.LEFT_OUT", 12)
    some = fitted(batch, texts)[0].loo_
    assert all(0 < some[s] < every[s] for s in GRID), "a sum over half of the texts"


@pytest.mark.parametrize("seed", range(4))
def test_logistic_is_at_its_least(seed: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    batch, texts = world(seed, counts=(5, 2, 3))
    member = Labeldesc(head="logistic", center=False).fit(batch, texts, State())
    assert member.strength_ == pytest.approx(1 / 10)
    z, v, _, _ = reference.prepared(texts.vectors, texts.class_index, 3)
    model = linear_model.LogisticRegression(C=1 / (0.1 * v.sum()), tol=1e-10, max_iter=5000)
    model.fit(z, texts.class_index, sample_weight=v / v.sum())
    c = np.sqrt((model.coef_**2).sum(axis=1).mean())
    np.testing.assert_allclose(member.W_, model.coef_ / c, atol=1e-4)


@pytest.mark.parametrize("head", ["ridge", "logistic", "prototype"])
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_classes_does_not_matter(seed: int, head: str) -> None:
    batch, texts = world(seed, counts=(3, 2, 4, 1))
    order = np.random.default_rng(seed).permutation(4)
    other = replace(texts, class_index=np.argsort(order)[texts.class_index])
    a, b = fitted(batch, texts, head=head)[1], fitted(batch, other, head=head)[1]
    np.testing.assert_allclose(b, a[order], atol=1e-4)


def test_prototypes_without_centring_are_the_mean() -> None:
    batch, texts = world(1, weight=np.random.default_rng(0).uniform(0.5, 2, 9))
    member, W = fitted(batch, texts, head="prototype", center=False)
    mean = Mean().fit(batch, texts, State())
    np.testing.assert_array_equal(member.weight_, mean.weight_)
    np.testing.assert_allclose(W, mean.apply(batch, texts, State()), atol=1e-9)


@pytest.mark.parametrize("head", ["ridge", "logistic"])
def test_a_strength_without_bounds_gives_the_prototypes(head: str) -> None:
    batch, texts = world(2, counts=(3, 3, 3))
    W = fitted(Batch(batch.X[:0]), texts, head=head, strength=1e7)[1]
    P = fitted(Batch(batch.X[:0]), texts, head="prototype")[1]
    np.testing.assert_allclose(unit(W), P, atol=1e-3)


@pytest.mark.parametrize("head", ["ridge", "logistic"])
def test_a_class_with_one_text_falls_back_to_its_prototype(head: str) -> None:
    batch, texts = world(3, counts=(4, 1, 3))
    none = Batch(batch.X[:0])
    W = fitted(none, texts, head=head)[1]
    P = fitted(none, texts, head="prototype")[1]
    np.testing.assert_allclose(W[1], P[1], atol=1e-12)
    assert np.abs(W[0] - P[0]).max() > 1e-3
    batch, single = world(4, counts=(1, 1, 1))
    member, W = fitted(none, single, head=head)
    np.testing.assert_allclose(W, fitted(none, single, head="prototype")[1], atol=1e-12)
    assert (member.strength_, member.loo_) == (0.0, {})


@pytest.mark.parametrize("head", ["ridge", "logistic", "prototype"])
def test_classes_count_the_same_however_many_texts(head: str) -> None:
    batch, texts = world(5, counts=(3, 2, 3))
    twice = np.append(np.arange(8), np.flatnonzero(texts.class_index == 0))
    more = replace(texts, vectors=texts.vectors[twice], class_index=texts.class_index[twice])
    a = fitted(batch, texts, head=head, strength=0.1)[1]
    b = fitted(batch, more, head=head, strength=0.1)[1]
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("N", [1, 15, 3000])
def test_centring_takes_out_what_all_images_share(N: int) -> None:
    batch, texts = world(6, N=N)
    plain = fitted(Batch(batch.X[:0]), texts)[1]
    W = fitted(batch, texts)[1]
    left = 1 - N / (N + 15)
    before, after = (batch.X.mean(axis=0) @ m.T for m in (plain, W))
    np.testing.assert_allclose(after, left * before, atol=1e-12)
    np.testing.assert_array_equal(fitted(batch, texts, center=False)[1], plain)


def test_an_offset_between_images_and_texts_is_overcome() -> None:
    """Images that lie on the side of one class are told apart all the same."""
    rng = np.random.default_rng(0)
    T = unit(np.array([[1, 0.2, 0, 0], [1, 0.2, 0.1, 0], [1, -0.2, 0, 0], [1, -0.2, 0.1, 0]]))
    y = np.arange(200) % 2
    X = np.array([0.0, 0.5, 0.0, 1.0]) + np.outer(1 - 2 * y, [0, 0.2, 0, 0])
    X = unit(X + 0.02 * rng.standard_normal((200, 4)))
    texts = ClassTexts(T, np.array([0, 0, 1, 1]), Taxonomy.from_names(["a", "b"]))
    batch = Batch(X)
    mean = Mean().fit(batch, texts, State()).apply(batch, texts, State())
    assert ((X @ mean.T).argmax(axis=1) == y).mean() == 0.5
    assert ((X @ fitted(batch, texts)[1].T).argmax(axis=1) == y).mean() == 1


@pytest.mark.parametrize("head", ["ridge", "logistic", "prototype"])
def test_nothing_to_tell_apart(head: str) -> None:
    batch, one = world(7, counts=(3,))
    mean = Mean().fit(batch, one, State()).apply(batch, one, State())
    none = Batch(batch.X[:0])
    np.testing.assert_allclose(fitted(none, one, head=head)[1], mean, atol=1e-9)
    batch, texts = world(8)
    same = replace(texts, vectors=np.repeat(texts.vectors[:1], 9, axis=0))
    W = fitted(none, same, head=head)[1]
    np.testing.assert_allclose(W, same.vectors[:3], atol=1e-9)


def test_texts_without_weight_or_class_do_not_count() -> None:
    batch, texts = world(9, counts=(4, 4))
    index, weight = texts.class_index.copy(), np.ones(8)
    index[0], weight[1] = -1, 0
    vectors = texts.vectors.copy()
    vectors[:2] = vectors[1::-1]
    a, b = (
        fitted(batch, replace(texts, class_index=index, weight=weight, vectors=v))[1]
        for v in (texts.vectors, vectors)
    )
    np.testing.assert_allclose(a, b, atol=1e-12)


def test_images_that_cancel_out_centre_nothing() -> None:
    batch, texts = world(3)
    none = fitted(Batch(batch.X[:0]), texts)[1]
    for shift in (0.0, 1e-9):
        both = np.vstack([batch.X, -batch.X]) + shift
        np.testing.assert_array_equal(fitted(Batch(both), texts)[1], none)


def test_among_strengths_of_equal_error_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, texts = world(4)
    errors = np.ones(len(GRID))
    errors[[0, -1]] = 1 - 1e-12, 2
    monkeypatch.setattr("byname.weigh.labeldesc._loo", lambda *_: errors)
    assert fitted(batch, texts)[0].strength_ == GRID[-2]


def test_report() -> None:
    batch, texts = world(10)
    assert Labeldesc().report() == {}
    told = fitted(batch, texts)[0].report()
    assert told["head"] == "ridge"
    assert [entry["strength"] for entry in told["tried"]] == list(GRID)
    assert min(told["tried"], key=lambda t: t["loo_error"])["strength"] == told["strength"]


@pytest.mark.parametrize(
    ("params", "seen"),
    [
        ({"head": "svm"}, "head is 'svm'. It must be 'ridge', 'logistic' or 'prototype'."),
        ({"strength": 0}, "strength is 0. It must be a number above 0, or 'auto'."),
        ({"strength": "best"}, "strength is 'best'. It must be a number above 0, or 'auto'."),
        ({"strength": float("nan")}, "strength is nan. It must be a number above 0, or 'auto'."),
    ],
)
def test_parameters_out_of_range(params: dict[str, Any], seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        Labeldesc(**params)
    assert str(error.value) == f"cannot use 'labeldesc': {seen}"


def test_a_spec_reaches_the_parameters() -> None:
    member = get_recipe("labeldesc[head=logistic,strength=0.5]").create("weigh")
    assert (member.params.head, member.params.strength) == ("logistic", 0.5)
    assert get_recipe("labeldesc").create("weigh").params.strength == "auto"
