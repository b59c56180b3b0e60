"""Rejection by distance: against loops, its threshold, and what it is blind to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.decide.argmax import Argmax
from byname.decide.unknown_distance import UnknownDistance
from byname.errors import NeedsError, RecipeError
from byname.ops import unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.stage import Batch, State, create
from byname.taskfile import Task
from tests.decide.test_unknown import make
from tests.reference.unknown import distance_threshold, nearest


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.floats(0, 4))
def test_loops_agree(seed: int, deviations: float) -> None:
    batch, texts, state = make(seed, N=15)
    member = UnknownDistance(deviations=deviations).fit(batch, texts, state)
    threshold = distance_threshold(batch.X, state.W, deviations)
    near = np.array([nearest(x, state.W) for x in batch.X])
    assert member.threshold_ == pytest.approx(threshold, abs=1e-5)
    found = member.details(batch, texts, state)["nearest_cosine"]
    np.testing.assert_allclose(found, near, atol=1e-9)
    answer, plain = member.apply(batch, texts, state), Argmax().apply(batch, texts, state)
    clear = np.abs(near - threshold) > 1e-5
    assert (answer.decision == np.where(near >= threshold, "accept", "reject"))[clear].all()
    np.testing.assert_array_equal(answer.node, plain.node)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9999), st.floats(0.1, 10))
def test_the_length_of_class_vectors_does_not_count(seed: int, by: float) -> None:
    batch, texts, state = make(seed)
    a = UnknownDistance().fit(batch, texts, state).threshold_
    b = UnknownDistance().fit(batch, texts, replace(state, W=by * state.W)).threshold_
    assert a == pytest.approx(b, abs=1e-9)


def test_more_deviations_reject_no_more() -> None:
    batch, texts, state = make(1, N=60)
    shares = []
    for deviations in (0, 0.5, 1, 2, 50):
        member = UnknownDistance(deviations=deviations).fit(batch, texts, state)
        shares.append((member.apply(batch, texts, state).decision == "reject").mean())
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 0.5, "half lies below the median"
    assert shares[-1] == 0


def test_a_few_foreign_images_are_found_and_a_majority_is_not() -> None:
    rng = np.random.default_rng(0)
    _, texts, state = make(2, D=40)
    W = unit(state.W)
    known = unit(W[rng.integers(0, 3, 100)] + 0.1 * rng.standard_normal((100, 40)))
    foreign = unit(rng.standard_normal((300, 40)))
    state = replace(state, W=W)
    shares = []
    for n in (10, 300):
        X = np.vstack([known, foreign[:n]])
        s = replace(state, S=X @ W.T)
        member = UnknownDistance().fit(Batch(X), texts, s)
        shares.append((member.apply(Batch(X), texts, s).decision[100:] == "reject").mean())
    assert shares[0] == 1
    assert shares[1] < 0.2


def test_identical_images_are_all_accepted() -> None:
    batch, texts, state = make(3)
    X = np.repeat(batch.X[:1], 9, axis=0).astype(np.float32)
    state = replace(state, S=X @ state.W.T)
    for deviations in (0.0, 2.5):
        member = UnknownDistance(deviations=deviations).fit(Batch(X), texts, state)
        assert (member.apply(Batch(X), texts, state).decision == "accept").all()


def test_without_images_nothing_is_rejected() -> None:
    batch, texts, state = make(4)
    member = UnknownDistance().fit(batch, texts, state)
    told = member.report()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["threshold"] < told["median"]
    empty = State(W=state.W, S=state.S[:0])
    member.fit(Batch(batch.X[:0]), texts, empty)
    assert member.report() == {"threshold": None, "median": None, "mad": None}
    assert (member.apply(batch, texts, state).decision == "accept").all()


def test_a_level_above_has_the_same_threshold() -> None:
    batch, texts, _ = make(5, N=40)
    pipeline = Pipeline(get_recipe("unknown_distance[deviations=0.7]")).fit(texts, batch)
    S = pipeline.scores(batch)
    a, b = (pipeline.decide(S, level=level, batch=batch)[0].decision for level in (None, 1))
    assert 0 < (a == "reject").sum() < 40
    np.testing.assert_array_equal(a, b)


def test_what_it_needs() -> None:
    batch, texts, state = make(6)
    with pytest.raises(NeedsError, match="'unknown_distance': it needs 'X'"):
        UnknownDistance().check_needs(Batch(batch.X[:0]), texts)
    pipeline = Pipeline(get_recipe("unknown_distance")).fit(texts, batch)
    with pytest.raises(NeedsError, match="vectors of the images, 6 wide, and got 0 columns"):
        pipeline.decide(state.S)


def test_vectors_that_are_not_numbers_are_rejected() -> None:
    batch, texts, state = make(7)
    member = UnknownDistance(deviations=99.0).fit(batch, texts, state)
    X = batch.X.copy()
    X[0] = np.nan
    assert member.apply(Batch(X), texts, state).decision[0] == "reject"


@pytest.mark.parametrize("value", ["nan", "-0.5"])
def test_wrong_parameters_are_named(value: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(f"unknown_distance[deviations={value}]", "decide")
    assert str(error.value) == (
        f"cannot use 'unknown_distance': deviations is {value}. Give a number of 0 or more."
    )
    assert create("unknown_distance").params.deviations == 2.5


def test_real_vectors(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    texts, batch = task.texts_for("templates[set=single]"), Batch(task.images[::10])
    pipeline = Pipeline(get_recipe("unknown_distance")).fit(texts, batch)
    threshold = pipeline.report()["unknown_distance"]["threshold"]
    expected = distance_threshold(batch.X, texts.vectors, 2.5)
    assert threshold == pytest.approx(expected, abs=1e-5)
