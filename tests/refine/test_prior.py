"""Prior matching: against loops, what defines the offsets, and when it keeps the scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import NeedsError, RecipeError, UsageError
from byname.ops import softmax, unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.refine.prior import Prior, match
from byname.stage import Batch, create
from tests.reference import prior as plain
from tests.refine import cases
from tests.refine.cases import ENCODERS, fitted, scores, top1

MEASURED = {"clip-rn50": 82.89, "clip-vit-b-32": 87.86, "clip-vit-l-14": 93.43}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 20), st.booleans())
def test_loops_agree(seed: int, steps: int, uniform: bool) -> None:
    rng = np.random.default_rng(seed)
    S = rng.normal(0, 3, (25, 4))
    target = np.full(4, 0.25) if uniform else rng.dirichlet(np.full(4, 5.0))
    b, taken = match(S, target, tolerance=1e-300, max_steps=steps)
    assert taken == steps
    np.testing.assert_allclose(b, plain.offsets(S, target, steps), rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999))
def test_the_shares_are_the_target_and_the_offsets_are_unique(seed: int) -> None:
    rng = np.random.default_rng(seed)
    S, target = rng.normal(0, 2, (40, 5)), rng.dirichlet(np.full(5, 3.0))
    b, steps = match(S, target)
    assert steps < 1000
    np.testing.assert_allclose(softmax(S - b).mean(axis=0), target, atol=1e-6)
    assert abs(b.mean()) < 1e-12
    shift = rng.normal(0, 3, 5)  # a bias of the classes makes no difference
    other, _ = match(S + shift, target)
    np.testing.assert_allclose(other - b, shift - shift.mean(), atol=1e-3)


def test_matched_scores_stay_as_they_are() -> None:
    case = cases.given(1, noise=0.6, dtype=np.float64)
    S = scores(Prior, case, guard=False)
    assert np.abs(S - case[2].S).max() > 0.1
    again = scores(Prior, (case[0], case[1], replace(case[2], S=S)), guard=False)
    np.testing.assert_allclose(again, S, atol=1e-3)


def test_the_other_modes_are_their_formulas() -> None:
    batch, texts, state = case = cases.given(2)
    assert state.S is not None
    S = state.S.astype(np.float64)
    once = np.log(softmax(S).mean(axis=0) * 4)
    member = fitted(Prior, case, mode="once", guard=False)
    np.testing.assert_allclose(member.offset_, once - once.mean(), atol=1e-5)
    np.testing.assert_allclose(member.offset_, plain.offsets(S, [0.25] * 4, 1), atol=1e-5)
    mean = fitted(Prior, case, mode="mean_image", guard=False)
    np.testing.assert_allclose(mean.offset_, S.mean(axis=0) - S.mean(), atol=1e-5)
    image = unit(batch.X.mean(axis=0)) * np.linalg.norm(batch.X.mean(axis=0))
    np.testing.assert_allclose(S.mean(axis=0), 20 * image @ state.W.T, atol=1e-4)  # type: ignore[union-attr]
    null = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    told = replace(texts, null=null)
    found = Prior(mode="null").fit(Batch(batch.X[:0]), told, state)  # needs no image
    assert found.offset_ is not None
    b = 20 * (null.astype(np.float64) @ state.W.T).mean(axis=0)  # type: ignore[union-attr]
    np.testing.assert_allclose(found.offset_, b - b.mean(), atol=1e-5)
    np.testing.assert_allclose(found.apply(batch, told, state), S - (b - b.mean()), atol=1e-4)


def test_null_texts_are_needed_only_where_they_are_used() -> None:
    batch, texts, _ = cases.given(2)
    Prior().check_needs(batch, texts)
    with pytest.raises(NeedsError, match=r"prior\[mode=null\]': it needs 'null'"):
        Prior(mode="null").check_needs(batch, texts)
    told = replace(texts, null=texts.vectors[:1])
    Prior(mode="null").check_needs(Batch(batch.X[:0]), told)
    with pytest.raises(NeedsError, match="'prior': it needs 'X'"):
        Prior().check_needs(Batch(batch.X[:0]), told)


def test_given_shares() -> None:
    case = cases.given(3, counts=(60, 20, 10, 10))
    member = fitted(Prior, case, target="n0:0.6;n1:0.2", guard=False)
    np.testing.assert_allclose(member.target_, [0.6, 0.2, 0.1, 0.1])
    S = member.apply(*case)
    np.testing.assert_allclose(softmax(S).mean(axis=0), member.target_, atol=1e-5)
    none = fitted(Prior, case, target="n3:0", guard=False)
    assert none.target_[3] == pytest.approx(1e-6, rel=1e-3)
    assert (none.apply(*case).argmax(axis=1) != 3).all()
    assert create("prior[target=n0:0.6;n1:0.2]").params.target == "n0:0.6;n1:0.2"


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("x:0.5", "'x:0.5' names no class of this list"),
        ("n0:much", "the share of 'n0' is 'much'"),
        ("n0:-1", "the share of 'n0' is -1"),
        ("n0:0.7;n1:0.7", "the shares add up to 1.4"),
        ("n0:0.1;n1:0.1;n2:0.1;n3:0.1", "the shares add up to 0.4"),
    ],
)
def test_shares_that_do_not_fit(target: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        fitted(Prior, cases.given(0), target=target)
    assert str(error.value).startswith(f"cannot use 'prior': {seen}. Give 'id:share;id:share'")


def test_estimated_shares() -> None:
    case = cases.given(4, counts=(50, 30, 30, 10), dtype=np.float64)
    member = fitted(Prior, case, target="estimated", guard=False)
    assert case[2].W is not None
    np.testing.assert_allclose(member.target_, plain.estimated(case[0].X, case[2].W, 5))
    assert member.target_[0] > 0.3 > 0.15 > member.target_[3]


def test_few_images_shrink_the_offsets() -> None:
    full = cases.given(5, counts=(5, 5, 5, 5), dtype=np.float64)
    b, _ = match(full[2].S, np.full(4, 0.25))
    np.testing.assert_allclose(fitted(Prior, full, guard=False).offset_, b)
    fewer = cases.given(5, counts=(5, 5, 5, 4), dtype=np.float64)
    b, _ = match(fewer[2].S, np.full(4, 0.25))
    np.testing.assert_allclose(fitted(Prior, fewer, guard=False).offset_, b * 19 / 39)


def test_saturated_logits_and_impossible_classes() -> None:
    batch, texts, state = cases.given(6)
    assert state.S is not None
    sharp = replace(state, S=state.S * 1000)
    assert np.isfinite(scores(Prior, (batch, texts, sharp), guard=False)).all()
    S = state.S.copy()
    S[:, 2] = -np.inf
    for mode in ("match", "once", "mean_image"):
        member = fitted(Prior, (batch, texts, replace(state, S=S)), mode=mode, guard=False)
        found = member.apply(batch, texts, replace(state, S=S))
        assert (found[:, 2] == -np.inf).all()
        assert np.isfinite(found[:, [0, 1, 3]]).all()
        assert member.target_[2] == member.offset_[2] == 0


def test_it_is_inductive() -> None:
    batch, texts, state = cases.given(7)
    assert Prior.inductive
    member = Prior(guard=False).fit(batch, texts, state)
    assert state.S is not None
    one = member.apply(Batch(batch.X[:1]), texts, replace(state, S=state.S[:1]))
    np.testing.assert_array_equal(one, member.apply(batch, texts, state)[:1])


def test_a_bias_of_the_scores_is_mended_though_one_class_has_all_answers() -> None:
    batch, texts, state, true = cases.clusters(8, counts=(40,) * 4)
    biased = replace(state, S=state.S + np.array([30, 0, 0, 0], np.float32))  # type: ignore[operator]
    member = Prior().fit(batch, texts, biased)
    assert (biased.S.argmax(axis=1) == 0).mean() > 0.9  # type: ignore[union-attr]
    assert not member.report()["stepped_back"]
    assert top1(member.apply(batch, texts, biased), true) > 90


def test_it_steps_back_where_classes_are_absent() -> None:
    batch, texts, state, true = cases.clusters(9, counts=(60, 60, 0, 0, 0, 0), bias=0.1)
    member = Prior().fit(batch, texts, state)
    told = member.report()
    assert told["stepped_back"]
    assert "neighbours agree less than before" in told["reason"]
    assert told["offset"] is None
    np.testing.assert_array_equal(member.apply(batch, texts, state), state.S)
    forced = Prior(guard=False).fit(batch, texts, state).apply(batch, texts, state)
    assert top1(forced, true) < top1(state.S, true) - 20


def test_uniform_shares_are_doubted_where_few_classes_seem_to_be_there() -> None:
    batch, texts, state, _ = cases.clusters(1, counts=(60, 60, 60, 0, 0, 0), noise=0.01, bias=0.0)
    # With this tolerance it takes no step, so that neighbours agree as before, but not more.
    member = Prior(tolerance=0.9).fit(batch, texts, state)
    assert "are as mixed as 3.0 of the 6 classes" in member.report()["reason"]
    named = Prior(target="n0:0.33;n1:0.33;n2:0.33", tolerance=0.9).fit(batch, texts, state)
    assert not named.report()["stepped_back"], "shares that the user gives are not doubted"


@pytest.mark.parametrize("name", cases.BAD)
@pytest.mark.parametrize("params", [{}, {"target": "estimated"}, {"guard": False}])
def test_bad_input(name: str, params: dict[str, Any]) -> None:
    cases.survives(Prior, name, **params)


def test_nan_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot run 'prior': row 7 holds NaN or infinity"):
        fitted(Prior, cases.poisoned())
    with pytest.raises(UsageError, match="row 7 holds NaN"):
        fitted(Prior, cases.poisoned(float("inf")), guard=False)


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("prior[target=equal]", "target is 'equal'. It must be uniform, estimated, or shares"),
        ("prior[tolerance=0]", "tolerance is 0.0. It must be above 0 and below 1."),
        ("prior[max_steps=0]", "max_steps is 0. It must be 1 or more."),
    ],
)
def test_wrong_parameters_are_named(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(spec, "refine")
    assert str(error.value).startswith(f"cannot use 'prior': {seen}")
    with pytest.raises(RecipeError, match="It must be match, once"):
        Prior(mode="twice")


@pytest.mark.parametrize("name", ENCODERS)
def test_real_vectors(shared: Path, name: str) -> None:
    batch, texts, state, true = cases.real(shared, name)
    member = Prior().fit(batch, texts, state)
    assert not member.report()["stepped_back"]
    S = member.apply(batch, texts, state)
    assert top1(S, true) == pytest.approx(MEASURED[name], abs=0.1)
    pipeline = Pipeline(get_recipe("prior")).fit(texts, batch)
    assert pipeline.inductive
    np.testing.assert_allclose(pipeline.scores(batch), S, atol=1e-3)
    assert state.S is not None
    rows = state.S[::10]
    b, _ = match(rows, np.full(19, 1 / 19), tolerance=1e-300, max_steps=10)
    np.testing.assert_allclose(b, plain.offsets(rows, [1 / 19] * 19, 10), atol=1e-3)
    np.testing.assert_allclose(b / 100, plain.offsets(rows, [1 / 19] * 19, 10) / 100, atol=1e-5)


def test_rare_and_underflowing_classes_reach_their_share() -> None:
    S = np.random.default_rng(0).normal(0, 2, (50, 3))
    target = np.array([1e-5, 0.5, 0.5 - 1e-5])
    b, _ = match(S, target, tolerance=1e-8)
    np.testing.assert_allclose(softmax(S - b).mean(axis=0), target, atol=1e-7)
    S[:, 2] -= 2000  # whose probability is 0 in any arithmetic
    b, steps = match(S, np.full(3, 1 / 3))
    assert steps < 1000
    np.testing.assert_allclose(softmax(S - b).mean(axis=0), 1 / 3, atol=1e-5)


@pytest.mark.parametrize(("mode", "told"), [("once", True), ("mean_image", False)])
def test_one_step_towards_uniform_shares_is_doubted_too(mode: Any, told: bool) -> None:
    case = cases.given(1, counts=(60, 60, 60, 0, 0, 0), noise=0.001, bias=0.0)
    reason = fitted(Prior, case, mode=mode).reason_ or ""
    assert reason.startswith("uniform shares are doubtful") == told


def test_shares_that_were_not_reached_are_told() -> None:
    case = cases.given(3, counts=(60, 20, 10, 10), noise=0.5)
    told = fitted(Prior, case, max_steps=1, guard=False).report()
    assert told["steps"] == 1
    assert told["deviation"] > 1e-3
    assert told["warning"].startswith("after 1 steps a class is still 0.")
    done = fitted(Prior, case, guard=False).report()
    assert done["deviation"] < 1e-5
    assert "warning" not in done
    assert fitted(Prior, case, mode="once", guard=False).report()["deviation"] is None


def test_it_answers_nothing_before_it_has_learned() -> None:
    with pytest.raises(UsageError, match="cannot apply 'prior' to 120 images: it learned from no"):
        Prior().apply(*cases.given(0))
