"""NoLA: the teachers and the head against loops, and when the scores are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import RecipeError, UsageError
from byname.ops import log_softmax, softmax
from byname.refine.descent import fixed_order
from byname.refine.nola import Head, Nola, surest
from byname.stage import create
from tests.reference import adamw
from tests.reference import nola as plain
from tests.refine import cases
from tests.refine.cases import ENCODERS, fitted, scores, top1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 6), st.integers(2, 6))
def test_the_teachers_are_those_of_the_loops(seed: int, k: int, K: int) -> None:
    S = np.random.default_rng(seed).normal(0, 2, (9, K)) + np.arange(K)  # some are never first
    rows, y, missing = surest(S, k)
    expected = plain.teachers(S, k)
    assert dict(zip(rows.tolist(), y.tolist(), strict=True)) == expected
    assert rows.tolist() == sorted(expected)
    assert missing.tolist() == sorted(set(range(K)) - set(expected.values()))


def test_all_predicted_images_teach_where_k_is_large() -> None:
    S = np.random.default_rng(0).normal(0, 2, (30, 3))
    rows, y, missing = surest(S, 100)
    assert rows.tolist() == list(range(30))
    assert (y == S.argmax(axis=1)).all()
    assert not len(missing)


def test_second_choices_teach_a_class_that_nobody_has_first() -> None:
    S = np.array([[5.0, 4.0, 0.0], [5.0, 3.0, 0.0], [5.0, 0.0, 1.0], [9.0, 0.0, 0.0]])
    rows, y, missing = surest(S, 1)
    assert (rows.tolist(), y.tolist()) == ([0, 2, 3], [1, 2, 0])
    assert not len(missing)
    # Image 0 teaches class 0, of which it is surer; nothing is left for the others.
    one, of, none = surest(S[:1], 5)
    assert (one.tolist(), of.tolist(), none.tolist()) == ([0], [0], [1, 2])


def test_the_gradient_is_that_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(6, 3)), rng.integers(0, 2, 6)
    head = Head(3, 2, 4, seed=1)
    head.B[:], head.b[:] = rng.normal(size=(4, 2)), rng.normal(size=2)
    flat = np.concatenate([v.ravel() for v in (head.A, head.a, head.B, head.b)])
    loss, found = head.gradients(X, y)
    expected = adamw.gradient(lambda x: plain.loss(x, 3, 4, 2, X, y), flat)
    assert loss == pytest.approx(plain.loss(flat, 3, 4, 2, X, y))
    np.testing.assert_allclose(np.concatenate([g.ravel() for g in found]), expected, atol=1e-7)


def test_it_is_the_plain_training() -> None:
    batch, _, state = case = cases.given(2, counts=(6, 7), D=3, dtype=np.float64)
    member = fitted(Nola, case, hidden=3, epochs=2, batch=5, lr=0.01, guard=False)
    F = plain.features(batch.X)
    expected = plain.teachers(state.S, 16)
    rows = np.array(sorted(expected))
    y = np.array([expected[i] for i in rows])
    order = fixed_order(F[rows])
    X, y = F[rows][order], y[order]
    start = Head(3, 2, 3, seed=0)
    flat = np.concatenate([v.ravel() for v in (start.A, start.a, start.B, start.b)])
    losses: list[Any] = []
    for _ in range(2):
        shuffled = start._rng.permutation(len(X))
        for own in (shuffled[i : i + 5] for i in range(0, len(X), 5)):
            losses.append(lambda x, own=own: plain.loss(x, 3, 3, 2, X[own], y[own]))
    moved = adamw.adamw(losses, flat, [0.01] * len(losses), 0.0)
    S = log_softmax(plain.head(moved, 3, 3, 2, F))
    assert np.abs(moved - flat).max() > 1e-2
    np.testing.assert_allclose(member.apply(*case), S, atol=1e-5)


def test_the_head_looks_at_the_second_encoder_where_there_is_one() -> None:
    batch, texts, state, true = cases.clusters(3, noise=0.5)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((4, 5))
    second = (7 * centres[true] + rng.standard_normal((len(true), 5))).astype(np.float32)
    with_second = replace(batch, second=second), texts, state
    assert fitted(Nola, with_second).head_.A.shape == (5, 256)
    own, other = scores(Nola, (batch, texts, state)), scores(Nola, with_second)
    assert top1(other, true) > max(top1(own, true), top1(state.S, true)) + 5
    for factor, shift in ((3.0, 0.0), (1.0, 2.0)):  # neither length nor place matters
        moved = replace(with_second[0], second=factor * second + np.float32(shift))
        np.testing.assert_allclose(scores(Nola, (moved, texts, state)), other, atol=0.05)


def test_mix_averages_probabilities() -> None:
    case = cases.given(4, noise=0.5)
    head, text = softmax(scores(Nola, case)), softmax(case[2].S)
    found = np.exp(scores(Nola, case, mix=0.25))
    np.testing.assert_allclose(found, 0.75 * head + 0.25 * text, atol=1e-5)
    np.testing.assert_allclose(np.exp(scores(Nola, case, mix=1.0)), text, atol=1e-5)


def test_the_order_of_images_and_classes_does_not_matter() -> None:
    batch, texts, state = case = cases.given(5, noise=0.5)
    rows, order = np.random.default_rng(0).permutation(len(batch)), np.array([2, 0, 3, 1])
    S = scores(Nola, case)
    moved = replace(batch, X=batch.X[rows]), texts, replace(state, S=state.S[rows])  # type: ignore[index]
    np.testing.assert_allclose(scores(Nola, moved), S[rows], atol=1e-3)
    other = batch, texts, replace(state, S=state.S[:, order])  # type: ignore[index]
    np.testing.assert_allclose(scores(Nola, other), S[:, order], atol=1e-3)


def test_how_many_teach() -> None:
    case = cases.given(6, counts=(200, 200))
    assert fitted(Nola, case).report()["teachers"] == 80
    assert fitted(Nola, case, share=0.0).report()["teachers"] == 32
    assert fitted(Nola, case, k=150).report()["teachers"] == 300


def test_it_steps_back_where_classes_are_absent() -> None:
    case = cases.given(7, counts=(60, 60, 0, 0, 0, 0), bias=0.1)
    told = fitted(Nola, case).report()
    assert told["stepped_back"]
    assert "as mixed as 2.0 of the 6 classes" in told["reason"]
    forced = fitted(Nola, case, guard=False).report()
    assert not forced["stepped_back"]
    assert forced["teachers"] >= 32


def test_classes_that_nothing_teaches_are_named() -> None:
    batch, texts, state = cases.given(8, counts=(30, 30, 0))
    S = state.S.copy()  # type: ignore[union-attr]
    S[:, 2] = -1000
    member = Nola(guard=False).fit(batch, texts, replace(state, S=S))
    # Images have it as third choice, and teach the class of which they are surer.
    assert member.report()["untaught"] == ([] if member.teachers_ > 32 else ["n2"])
    one = Nola(guard=False, k=60).fit(batch, texts, replace(state, S=S))
    assert one.report()["untaught"] == ["n2"]
    assert (one.apply(batch, texts, replace(state, S=S)).argmax(axis=1) < 2).all()


def test_it_steps_back_where_neighbours_agree_less() -> None:
    batch, texts, state, true = cases.clusters(9)
    noise = np.random.default_rng(0).standard_normal((len(batch), 6)).astype(np.float32)
    member = Nola().fit(replace(batch, second=noise), texts, state)
    assert "neighbours agree less than before" in member.report()["reason"]
    assert top1(member.apply(batch, texts, state), true) == top1(state.S, true)


@pytest.mark.parametrize("name", cases.BAD)
@pytest.mark.parametrize("params", [{"epochs": 3}, {"guard": False, "epochs": 3}])
def test_bad_input(name: str, params: dict[str, Any]) -> None:
    cases.survives(Nola, name, **params)


def test_nan_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot run 'nola': row 7 holds NaN"):
        fitted(Nola, cases.poisoned())
    batch, texts, state = cases.given(0)
    second = np.ones((len(batch), 3), np.float32)
    second[4] = np.nan
    with pytest.raises(UsageError, match="cannot run 'nola': row 4 holds NaN"):
        fitted(Nola, (replace(batch, second=second), texts, state))


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("nola[k=0]", "k is 0. It must be 1 or more."),
        ("nola[hidden=0]", "hidden is 0. It must be 1 or more."),
        ("nola[share=2]", "share is 2.0. It must be from 0 to 1."),
        ("nola[mix=-1]", "mix is -1.0. It must be from 0 to 1."),
        ("nola[lr=0]", "lr is 0.0. It must be above 0."),
        ("nola[seed=-1]", "seed is -1. It must be 0 or more."),
    ],
)
def test_wrong_parameters_are_named(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(spec, "refine")
    assert str(error.value) == f"cannot use 'nola': {seen}"


@pytest.mark.parametrize("name", ENCODERS)
def test_real_vectors(shared: Path, name: str) -> None:
    batch, texts, state, true = cases.real(shared, name)
    rows, y, missing = surest(state.S, 16)
    assert dict(zip(rows.tolist(), y.tolist(), strict=True)) == plain.teachers(state.S, 16)
    assert not len(missing)
    assert (y == true[rows]).mean() > 0.94
    member = Nola().fit(batch, texts, state)
    assert not member.report()["stepped_back"]
    assert top1(member.apply(batch, texts, state), true) > top1(state.S, true) + 8


def test_names_that_nothing_teaches_are_a_warning() -> None:
    batch, texts, state = cases.given(8, counts=(30, 30, 0))
    S = state.S.copy()  # type: ignore[union-attr]
    S[:, 2] = -1000
    for guard in (True, False):
        member = Nola(guard=guard, k=60).fit(batch, texts, replace(state, S=S))
        warned = member.report().get("warning", "") if not member.reason_ else member.warning_
        assert (warned or "").startswith("1 of 3 names had no image to learn from")
    assert "warning" not in fitted(Nola, cases.given(8)).report()


def test_a_training_that_runs_off_leaves_the_scores() -> None:
    case = cases.given(0)
    with np.errstate(all="ignore"):
        member = fitted(Nola, case, lr=1e300, epochs=3, guard=False)
    assert member.report()["reason"] == ("the training ran off to infinity: the rate is too large")
    np.testing.assert_array_equal(member.apply(*case), case[2].S)
