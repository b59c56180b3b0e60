"""BPRW: against loops, its limits, and that EM climbs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from byname.errors import NeedsError, PromptError, RecipeError
from byname.ops import unit
from byname.recipes import get_recipe
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from byname.weigh.bprw import Bprw, _nearest
from byname.weigh.mean import Mean
from tests.reference import bprw as reference

seeds = st.integers(0, 10_000)


def world(
    seed: int, counts: Any = (3, 1, 5), N: int = 20, D: int = 6, **fields: Any
) -> tuple[Batch, ClassTexts]:
    """Images around centres, and ``counts`` texts of each class near them, the rows mixed."""
    rng = np.random.default_rng(seed)
    K = len(counts)
    centres = unit(rng.standard_normal((K, D)))
    index = rng.permutation(np.repeat(np.arange(K), counts))
    T = unit(centres[index] + 0.4 * rng.standard_normal((len(index), D)))
    X = unit(centres[rng.integers(0, K, N)] + 0.3 * rng.standard_normal((N, D)))
    taxonomy = Taxonomy(Node(f"c{k}", f"class {k}") for k in range(K))
    return Batch(X), ClassTexts(T, index, taxonomy, scale=20.0, **fields)


def with_variances(seed: int, **kwargs: Any) -> tuple[Batch, ClassTexts]:
    batch, texts = world(seed, **kwargs)
    rng = np.random.default_rng(seed + 1)
    return (
        replace(batch, log_var=rng.normal(-3, 0.5, batch.X.shape)),
        replace(texts, text_log_var=rng.normal(-3, 0.5, texts.vectors.shape)),
    )


def fitted(batch: Batch, texts: ClassTexts, **params: Any) -> tuple[Bprw, Any]:
    member = Bprw(**params).fit(batch, texts, State())
    return member, member.apply(batch, texts, State())


@settings(max_examples=25, deadline=None)
@given(
    seeds,
    st.sampled_from([1, 7, 100]),
    st.sampled_from([1.0, 2.0, 100.0]),
    st.sampled_from([None, 0.5]),
)
@example(seed=625, top=1, alpha=1.0, tau2=None)  # a share goes to nothing
@example(seed=1129, top=1, alpha=1.0, tau2=None)
def test_loops_agree(seed: int, top: int, alpha: float, tau2: float | None) -> None:
    batch, texts = world(seed)
    kwargs: dict[str, Any] = {"top": top, "alpha": alpha, "max_iter": 60}
    member, W = fitted(batch, texts, tau2=tau2, **kwargs)
    weight, expected = reference.bprw(
        batch.X, texts.vectors, texts.class_index, 3, tau2=tau2 or 1 / 20, **kwargs
    )
    np.testing.assert_allclose(member.weight_, weight, atol=1e-9)
    np.testing.assert_allclose(W, expected, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(seeds, st.sampled_from([1.0, 5.0, 100.0]))
def test_loops_agree_on_the_published_form(seed: int, alpha: float) -> None:
    batch, texts = with_variances(seed, N=9)
    member, W = fitted(batch, texts, alpha=alpha, top=5, samples=3, max_iter=40)
    weight, expected = reference.bprw(
        batch.X, texts.vectors, texts.class_index, 3, tau2=1.0, alpha=alpha, top=5, samples=3,
        max_iter=40, log_var=batch.log_var, text_log_var=texts.text_log_var,
        noise=np.random.default_rng(0).standard_normal((5, 3, 6)),
    )  # fmt: skip
    assert member.form_ == "variances"
    np.testing.assert_allclose(member.weight_, weight, atol=1e-9)
    np.testing.assert_allclose(W, expected, atol=1e-9)


def test_on_real_vectors(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    texts, batch = task.texts_for("templates"), task.batch()
    chosen = np.flatnonzero((texts.class_index < 4) & (texts.prompt_index % 9 == 0))
    few = ClassTexts(
        texts.vectors[chosen], texts.class_index[chosen],
        Taxonomy(task.taxonomy.classes[:4]), scale=100.0,
    )  # fmt: skip
    member, W = fitted(batch, few)
    weight, expected = reference.bprw(batch.X, few.vectors, few.class_index, 4, tau2=0.01, tol=1e-9)
    assert W.dtype == np.float32
    np.testing.assert_allclose(member.weight_, weight, atol=1e-5)
    np.testing.assert_allclose(W, expected, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from([1.0, 1.5, 100.0]), st.booleans())
def test_a_step_never_lowers_the_posterior(seed: int, alpha: float, variances: bool) -> None:
    batch, texts = with_variances(seed, counts=(5,)) if variances else world(seed, counts=(5,))
    T = texts.vectors
    if variances:
        noise = np.random.default_rng(0).standard_normal((20, 2, 6))
        mean = T.mean(axis=0)
        near = np.argsort(-(batch.X @ mean), kind="stable")
        sd = np.exp(0.5 * batch.log_var[near])[:, None]
        items = (batch.X[near][:, None] + sd * noise).reshape(-1, 6)
        var = np.exp(texts.text_log_var)
    else:
        items, var = batch.X, np.full(T.shape, 1 / 20)
    L = np.array(
        [[reference.log_normal(x, t, v) for t, v in zip(T, var, strict=True)] for x in items]
    )
    values = []
    for steps in (1, 2, 3, 5, 10, 50):
        pi = fitted(batch, texts, alpha=alpha, samples=2, max_iter=steps)[0].weight_
        copies = 1.0 if variances else 2.0
        values.append(reference.objective(L, pi, np.full(5, alpha - 1), copies))
    start = reference.objective(L, np.full(5, 0.2), np.full(5, alpha - 1), copies)
    assert (np.diff([start, *values]) >= -1e-9 * abs(start)).all()


@settings(max_examples=15, deadline=None)
@given(seeds, st.booleans())
def test_shares_sum_to_one_and_make_w(seed: int, variances: bool) -> None:
    batch, texts = with_variances(seed) if variances else world(seed)
    member, W = fitted(batch, texts)
    np.testing.assert_allclose(np.bincount(texts.class_index, member.weight_), 1, atol=1e-12)
    expected = [
        (member.weight_[:, None] * texts.vectors)[texts.class_index == k].sum(axis=0)
        for k in range(3)
    ]
    np.testing.assert_allclose(W, expected, atol=1e-12)
    assert member.n_iter_ <= 1000
    assert ((member.effective_texts_ > 0.99) & (member.effective_texts_ < 5.01)).all()


@pytest.mark.parametrize("alpha", [1.0, 100.0])
@pytest.mark.parametrize("variances", [False, True])
def test_identical_texts_keep_equal_shares(alpha: float, variances: bool) -> None:
    batch, texts = with_variances(1, counts=(4, 4))
    same = np.repeat(texts.vectors[:1], 8, axis=0)
    texts = replace(texts, vectors=same, text_log_var=np.repeat(texts.text_log_var[:1], 8, axis=0))
    if not variances:
        batch = replace(batch, log_var=None)
    member, _ = fitted(batch, texts, alpha=alpha)
    np.testing.assert_allclose(member.weight_, 0.25, atol=1e-12)
    assert member.form_ == ("variances" if variances else "isotropic")


def test_one_text_has_all_of_its_class() -> None:
    batch, texts = world(2, counts=(1, 1, 1))
    member, W = fitted(batch, texts)
    assert member.weight_.tolist() == [1, 1, 1]
    np.testing.assert_array_equal(W[texts.class_index], texts.vectors)


def test_a_strong_prior_gives_the_mean() -> None:
    batch, texts = world(3, weight=np.random.default_rng(0).uniform(0.5, 2, 9))
    member, W = fitted(batch, texts, alpha=1e12)
    mean = Mean().fit(batch, texts, State())
    np.testing.assert_allclose(member.weight_, mean.weight_, atol=1e-9)
    np.testing.assert_allclose(unit(W), mean.apply(batch, texts, State()), atol=1e-9)


def test_without_images_it_is_the_mean_but_for_its_length() -> None:
    batch, texts = world(4)
    with pytest.raises(NeedsError, match="'bprw': it needs 'X'"):
        Bprw().check_needs(Batch(batch.X[:0]), texts)
    member, _ = fitted(Batch(batch.X[:0]), texts)
    np.testing.assert_array_equal(member.weight_, Mean().fit(batch, texts, State()).weight_)


def test_a_text_that_explains_the_images_gains() -> None:
    x = np.array([1.0, 0.0, 0.0])
    T = unit(np.array([[0.9, 0.1, 0.0], [0.2, 1.0, 0.0], [0.2, 0.0, 1.0]]))
    texts = ClassTexts(T, np.zeros(3, np.intp), Taxonomy.from_names(["cat"]))
    batch = Batch(np.repeat(x[None], 50, axis=0))
    weak, strong = (fitted(batch, texts, alpha=a)[0].weight_ for a in (100.0, 1.0))
    assert 1 / 3 < weak[0] < strong[0]
    assert strong[0] > 0.999


def test_a_wide_gaussian_gives_equal_shares() -> None:
    batch, texts = world(5, counts=(4, 4))
    np.testing.assert_allclose(fitted(batch, texts, tau2=1e9)[0].weight_, 0.25, atol=1e-7)


def test_only_the_nearest_images_count() -> None:
    batch, texts = world(6, counts=(4,), N=30)
    mean = texts.vectors.mean(axis=0)
    near = np.argsort(-(batch.X @ mean), kind="stable")[:10]
    some = fitted(Batch(batch.X[near]), texts, alpha=2.0)[0].weight_
    np.testing.assert_allclose(fitted(batch, texts, alpha=2.0, top=10)[0].weight_, some, atol=1e-12)
    everything = fitted(batch, texts, alpha=2.0)[0].weight_
    assert np.abs(everything - some).max() > 1e-3


def test_more_ties_than_room() -> None:
    batch, texts = world(7, counts=(4,), N=1)
    same = Batch(np.repeat(batch.X, 30, axis=0))
    one = fitted(Batch(np.repeat(batch.X, 10, axis=0)), texts)[0].weight_
    np.testing.assert_allclose(fitted(same, texts, top=10)[0].weight_, one, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_draws_belong_to_ranks_and_not_to_rows(seed: int) -> None:
    batch, texts = with_variances(seed)
    order = np.random.default_rng(seed).permutation(len(batch))
    other = Batch(batch.X[order], log_var=batch.log_var[order])
    a, b = (fitted(images, texts, top=6)[0].weight_ for images in (batch, other))
    np.testing.assert_allclose(a, b, atol=1e-10)
    assert np.abs(fitted(batch, texts, seed=1)[0].weight_ - a).max() > 0


def test_draws_of_no_spread_are_the_images() -> None:
    """An encoder without variances is the limit of one with: the balance with the prior stays."""
    batch, texts = world(8)
    plain = fitted(batch, texts, tau2=0.05)[0].weight_
    sure = replace(batch, log_var=np.full(batch.X.shape, -60.0))
    same = replace(texts, text_log_var=np.full(texts.vectors.shape, np.log(0.05)))
    member, _ = fitted(sure, same)
    assert member.form_ == "variances"
    np.testing.assert_allclose(member.weight_, plain, atol=1e-6)


def test_one_side_with_variances_is_not_enough() -> None:
    batch, texts = with_variances(9)
    plain = fitted(Batch(batch.X), replace(texts, text_log_var=None))[0].weight_
    for images, words in (
        (Batch(batch.X), texts),
        (batch, replace(texts, text_log_var=None)),
    ):
        member, _ = fitted(images, words)
        assert member.form_ == "isotropic"
        np.testing.assert_array_equal(member.weight_, plain)


def test_inverse_variances_as_the_prior() -> None:
    batch, texts = with_variances(10, counts=(3,))
    texts = replace(
        texts, text_log_var=np.log(np.array([1.0, 2.0, 4.0]))[:, None] + np.zeros((3, 6))
    )
    member, _ = fitted(batch, texts, power=1.0, alpha=1e12)
    np.testing.assert_allclose(member.weight_, np.array([4, 2, 1]) / 7, atol=1e-9)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 500.0, -500.0])
def test_extreme_variances_leave_numbers(value: float) -> None:
    batch, texts = with_variances(11)
    batch.log_var[0] = value
    texts.text_log_var[0] = value
    member, W = fitted(batch, texts)
    assert np.isfinite(W).all()
    np.testing.assert_allclose(np.bincount(texts.class_index, member.weight_), 1, atol=1e-9)


def test_a_text_of_length_zero_says_nothing() -> None:
    batch, texts = world(12)
    vectors = texts.vectors.copy()
    three = np.flatnonzero(texts.class_index == 0)
    vectors[three[0]] = 0
    weight = fitted(batch, replace(texts, vectors=vectors))[0].weight_
    assert weight[three[0]] == 0
    assert weight[three[1:]].sum() == pytest.approx(1)
    vectors[three] = 0
    weight = fitted(batch, replace(texts, vectors=vectors))[0].weight_
    np.testing.assert_allclose(weight[three], 1 / 3)


def test_blocks_of_classes_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, texts = world(13, counts=(3, 1, 5, 2, 7, 3), N=40)
    whole = fitted(batch, texts, alpha=2.0)[0].weight_
    monkeypatch.setattr("byname.weigh.bprw.TILE", 1)
    np.testing.assert_allclose(fitted(batch, texts, alpha=2.0)[0].weight_, whole, atol=1e-12)


def test_report() -> None:
    batch, texts = world(14)
    assert Bprw().report() == {}
    told = fitted(batch, texts)[0].report()
    assert told["form"] == "isotropic"
    assert told["images_per_class"] == 20
    assert told["effective_texts"]["lowest"] == pytest.approx(1)
    assert 1 < told["effective_texts"]["mean"] <= 3


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("bprw[top=0]", "top is 0. It must be 1 or more."),
        ("bprw[tau2=0]", "tau2 is 0.0. It must be a variance above 0, or none."),
        ("bprw[tau2=nan]", "tau2 is nan. It must be a variance above 0, or none."),
        ("bprw[alpha=0.5]", "alpha is 0.5. It must be a finite number, 1 or more."),
        ("bprw[samples=0]", "samples is 0. It must be 1 or more."),
        ("bprw[power=-1]", "power is -1.0. It must be a finite number, 0 or more."),
        ("bprw[tol=-1]", "tol is -1.0. It must be 0 or more."),
        ("bprw[max_iter=0]", "max_iter is 0. It must be 1 or more."),
        ("bprw[seed=-1]", "seed is -1. It must be 0 or more."),
    ],
)
def test_parameters_out_of_range(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        get_recipe(spec)
    assert str(error.value) == f"cannot use 'bprw': {seen}"


@pytest.mark.parametrize(
    "params", [{"top": 2.5}, {"max_iter": 10.5}, {"samples": True}, {"alpha": None}, {"tau2": "x"}]
)
def test_parameters_of_another_kind(params: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=f"cannot use 'bprw': {next(iter(params))}=.* not fit"):
        Bprw(**params)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_a_variance_that_is_no_number_is_refused(power: float) -> None:
    batch, texts = with_variances(3)
    assert texts.text_log_var is not None
    texts.text_log_var[4, 1] = np.nan
    with pytest.raises(PromptError, match="row 4 of 'text_log_var' holds NaN"):
        fitted(batch, texts, power=power)


def test_a_class_without_numbers_takes_no_image_of_another() -> None:
    X, W = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[np.nan, np.nan], [1.0, 0.0]])
    assert _nearest(X, W, 1)[1].tolist() == [0]
