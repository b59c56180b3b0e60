"""DPA: against loops, its gradient, and when it keeps the scores."""

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
from byname.refine.descent import cosine_rate, fixed_order
from byname.refine.dpa import Dpa, DpaParams, loss_gradient, prototypes
from byname.stage import create
from tests.reference import adamw
from tests.reference import dpa as plain
from tests.refine import cases
from tests.refine.cases import ENCODERS, fitted, scores, top1

MEASURED = {"clip-rn50": 90.15, "clip-vit-b-32": 90.35, "clip-vit-l-14": 98.71}


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 9999), st.integers(1, 4), st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.sampled_from(["uniform", None, "n0:0.5;n1:0.2;n2:0.3"]),
)  # fmt: skip
def test_loops_agree(seed: int, rounds: int, a: float, prior: str | None) -> None:
    case = cases.given(seed, counts=(12, 9, 15), noise=0.5, dtype=np.float64)
    batch, texts, state = case
    member = fitted(Dpa, case, rounds=rounds, a=a, prior=prior, guard=False)
    wanted = {"uniform": [1 / 3] * 3, None: None}.get(prior, [0.5, 0.2, 0.3])
    p, done = plain.core(batch.X, state.W, state.S, texts.scale, a, wanted, rounds)
    assert member.rounds_ == done
    np.testing.assert_allclose(np.exp(member.apply(*case)), p, atol=1e-9)


def test_without_images_and_debiasing_it_is_the_plain_score() -> None:
    case = cases.given(0, noise=0.5)
    S = scores(Dpa, case, a=0.0, prior=None)
    np.testing.assert_allclose(softmax(S), softmax(case[2].S), atol=1e-6)


@pytest.mark.parametrize("train", [False, True])
def test_balanced_clusters_are_recovered(train: bool) -> None:
    batch, texts, state, true = cases.clusters(0, counts=(40,) * 6, bias=1.5)
    # So few images make few steps, which must be larger.
    member = Dpa(train=train, lr=0.01).fit(batch, texts, state)
    assert not member.report()["stepped_back"]
    assert top1(state.S, true) < 90
    assert top1(member.apply(batch, texts, state), true) > 95


def test_a_class_without_images_has_its_text() -> None:
    X = np.eye(3)[[0, 0, 1]]
    W = np.array([[1.0, 1, 0], [0, 1, 1], [0, 0, 2]])
    V = prototypes(X, np.array([0, 0, 1]), W)
    np.testing.assert_allclose(V, np.eye(3))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999))
def test_the_gradient_is_that_of_the_loss(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, W, V = rng.normal(size=(7, 4)), rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    y, weight = rng.integers(0, 3, 7), rng.uniform(0.1, 1, 7)
    p = DpaParams(reg=0.7, align=0.4, align_scale=2.0)
    loss, found = loss_gradient(W, X, y, weight, V, 3.0, p)

    def plain_loss(x: Any) -> float:
        own = {"reg": 0.7, "align": 0.4, "align_scale": 2.0}
        return plain.loss(x, X, y, weight, V, 3.0, **own)

    assert loss == pytest.approx(plain_loss(W))
    np.testing.assert_allclose(found, adamw.gradient(plain_loss, W), atol=1e-5, rtol=1e-4)


def test_training_is_the_plain_training() -> None:
    case = cases.given(3, counts=(7, 6), D=3, dtype=np.float64, scale=5.0)
    batch, _, state = case
    settings_ = {"epochs": 2, "batch": 5, "lr": 0.01, "align_scale": 4.0}
    member = fitted(Dpa, case, train=True, guard=False, **settings_)
    X = batch.X[fixed_order(batch.X)]
    rng, rates = np.random.default_rng(0), [cosine_rate(0.01, i, 6) for i in range(6)]
    assert state.W is not None
    W = np.array([plain.unit(w) for w in state.W.astype(np.float64)])
    losses: list[Any] = []
    for _ in range(2):
        # The targets of an epoch are made with what the steps so far have led to.
        now = adamw.adamw(losses, W, rates[: len(losses)], 0.1)
        y, weight, V = plain.targets(X, now, 5.0, 0.5, [0.5, 0.5])
        order = rng.permutation(13)
        for rows in (order[:5], order[5:10], order[10:]):
            own = (X[rows], [y[i] for i in rows], [weight[i] for i in rows], V, 5.0)
            losses.append(
                lambda x, own=own: plain.loss(x, *own, reg=1.0, align=1.0, align_scale=4.0)
            )
    expected = adamw.adamw(losses, W, rates, 0.1)
    assert np.abs(expected - W).max() > 1e-2
    np.testing.assert_allclose(member.W_, expected, atol=1e-5)
    np.testing.assert_allclose(member.apply(*case), 5 * batch.X @ member.W_.T, atol=1e-9)


def test_training_does_not_depend_on_the_order_of_images_and_classes() -> None:
    batch, texts, state = case = cases.given(4)
    rows, order = np.random.default_rng(0).permutation(len(batch)), np.array([2, 0, 3, 1])
    W = fitted(Dpa, case, train=True, epochs=3).W_
    moved = replace(batch, X=batch.X[rows]), texts, replace(state, S=state.S[rows])  # type: ignore[index]
    np.testing.assert_allclose(fitted(Dpa, moved, train=True, epochs=3).W_, W, atol=1e-6)
    other = replace(state, W=state.W[order], S=state.S[:, order])  # type: ignore[index]
    found = fitted(Dpa, (batch, texts, other), train=True, epochs=3).W_
    np.testing.assert_allclose(found, W[order], atol=1e-6)
    again = fitted(Dpa, case, train=True, epochs=3, seed=1).W_
    assert 1e-6 < np.abs(again - W).max() < 0.1


def test_it_debiases_nothing_where_classes_seem_to_be_absent() -> None:
    case = cases.given(5, counts=(60, 60, 0, 0, 0, 0), bias=0.1)
    found = fitted(Dpa, case).report()
    assert found["prior"] is None
    assert "uneven" in found["warning"]
    np.testing.assert_array_equal(scores(Dpa, case), scores(Dpa, case, prior=None))
    for params in ({"guard": False}, {"prior": "n0:0.5;n1:0.5"}):
        assert fitted(Dpa, case, **params).report()["prior"] is not None
    assert fitted(Dpa, cases.given(5)).report()["prior"] == "uniform"


@pytest.mark.parametrize("train", [False, True])
def test_it_steps_back_where_neighbours_agree_less(train: bool) -> None:
    batch, texts, state, true = cases.clusters(6, bias=0.1)
    # A wrong prior gives all images to one class, and steps as large as the vectors scatter them.
    given_prior = "n0:1;n1:0;n2:0;n3:0"
    member = Dpa(train=train, a=0.0, prior=given_prior, lr=1.0, epochs=1).fit(batch, texts, state)
    told = member.report()
    assert told["stepped_back"]
    assert "neighbours agree less than before" in told["reason"]
    assert top1(member.apply(batch, texts, state), true) == top1(state.S, true)


@pytest.mark.parametrize("name", cases.BAD)
@pytest.mark.parametrize("params", [{}, {"guard": False}, {"train": True, "epochs": 2}])
def test_bad_input(name: str, params: dict[str, Any]) -> None:
    cases.survives(Dpa, name, **params)


def test_nan_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot run 'dpa': row 7 holds NaN"):
        fitted(Dpa, cases.poisoned())


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("dpa[a=2]", "a is 2.0. It must be from 0 to 1."),
        ("dpa[prior=equal]", "prior is 'equal'. It must be uniform, none, or shares as"),
        ("dpa[rounds=0]", "rounds is 0. It must be 1 or more."),
        ("dpa[epochs=0]", "epochs is 0. It must be 1 or more."),
        ("dpa[batch=0]", "batch is 0. It must be 1 or more."),
        ("dpa[lr=0]", "lr is 0.0. It must be above 0."),
        ("dpa[reg=-1]", "reg is -1.0. It must be 0 or more."),
        ("dpa[seed=-1]", "seed is -1. It must be 0 or more."),
    ],
)
def test_wrong_parameters_are_named(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(spec, "refine")
    assert str(error.value).startswith(f"cannot use 'dpa': {seen}")
    assert create("dpa[prior=none]").params.prior is None


@pytest.mark.parametrize("name", ENCODERS)
def test_real_vectors(shared: Path, name: str) -> None:
    batch, texts, state, true = cases.real(shared, name)
    member = Dpa().fit(batch, texts, state)
    assert not member.report()["stepped_back"]
    assert member.report()["prior"] == "uniform"
    assert top1(member.apply(batch, texts, state), true) == pytest.approx(MEASURED[name], abs=0.1)
    assert state.S is not None
    few = replace(batch, X=batch.X[::5]), texts, replace(state, S=state.S[::5])
    found = scores(Dpa, few, rounds=2, guard=False)
    p, _ = plain.core(few[0].X, state.W, few[2].S, 100.0, 0.5, [1 / 19] * 19, 2)
    np.testing.assert_allclose(log_softmax(found) / 100, np.log(p) / 100, atol=1e-5)


def test_a_training_that_runs_off_leaves_the_scores() -> None:
    case = cases.given(0)
    with np.errstate(all="ignore"):
        member = fitted(Dpa, case, train=True, lr=1e300, epochs=2, guard=False)
    assert member.report()["reason"] == ("the training ran off to infinity: the rate is too large")
    np.testing.assert_array_equal(member.apply(*case), case[2].S)


def test_a_bias_is_added_and_only_directions_of_class_vectors_count() -> None:
    batch, texts, state = case = cases.given(1, dtype=np.float64)
    params: Any = {"train": True, "epochs": 2, "guard": False}
    plainly = scores(Dpa, case, **params)
    biased = batch, replace(texts, bias=-7.0), state
    np.testing.assert_allclose(scores(Dpa, biased, **params), plainly - 7, atol=1e-9)
    assert state.W is not None
    longer = replace(state, W=state.W * np.array([[1.0], [2.0], [0.5], [9.0]]))
    np.testing.assert_allclose(scores(Dpa, (batch, texts, longer), **params), plainly, atol=1e-9)
