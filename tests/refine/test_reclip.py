"""ReCLIP's first stage against dense loops, the projection, and real vectors."""

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
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.refine.reclip import ReClip, directions
from byname.stage import Batch, State, create
from byname.taskfile import Task
from tests.reference import reclip as plain
from tests.refine.test_whole import make

BRANCHES = ["visual", "propagation", "average"]


def fitted(given: Any, **params: Any) -> Any:
    return ReClip(**{"guard": False, **params}).fit(*given).scores_


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 9999),
    st.sampled_from(BRANCHES),
    st.sampled_from(["raw", "projected"]),
    st.integers(2, 5),
    st.integers(2, 40),
    st.integers(1, 20),
    st.sampled_from([None, 3, 4]),  # in one dimension all cosines are 1 or -1
)
def test_loops_agree(
    seed: int, branch: Any, text: Any, K: int, k: int, steps: int, rank: int | None
) -> None:
    given = make(seed, N=30, K=K)
    chosen = {"branch": branch, "text": text, "k": k, "steps": steps, "rank": rank}
    found = fitted(given, **chosen)
    expected = plain.reclip(given[0].X, given[2].W, given[2].S, scale=20, **chosen)
    np.testing.assert_allclose(found / 20, expected / 20, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9999), st.integers(3, 6))
def test_directions_are_those_in_which_texts_differ(seed: int, K: int) -> None:
    rng = np.random.default_rng(seed)
    common = 5 * unit(rng.standard_normal(16))
    W = unit(common + rng.standard_normal((K, 16)))
    U = directions(W)
    assert U is not None
    assert U.shape == (16, K - 1)
    np.testing.assert_allclose(U.T @ U, np.eye(K - 1), atol=1e-9)
    assert np.linalg.norm(common @ U) < 0.5 * np.linalg.norm(common)
    cut = directions(W, 2)
    assert cut is not None
    assert cut.shape == (16, 1)


def test_without_three_different_texts_nothing_is_projected() -> None:
    W = make()[2].W
    assert directions(W[:2]) is None
    assert directions(np.repeat(W[:1], 5, axis=0)) is None
    twins = directions(np.vstack([W, W[:1]]))
    assert twins is not None
    assert twins.shape == (16, 3), "a name that is there twice adds no direction"
    batch, texts, state = make(K=2)
    twice = fitted((batch, texts, state), branch="propagation")
    expected = plain.reclip(batch.X, state.W, state.S, scale=20, branch="propagation")
    np.testing.assert_allclose(twice, expected, atol=1e-6)


def test_classes_of_one_text_and_zero_texts() -> None:
    batch, texts, state = make()
    for W in (np.repeat(state.W[:1], 4, axis=0), np.zeros((4, 16))):
        for branch in BRANCHES:
            found = fitted((batch, texts, State(W=W, S=20 * batch.X @ W.T)), branch=branch)
            assert np.isfinite(found).all()


def test_a_class_without_images_keeps_its_text() -> None:
    batch, texts, state = make()
    W = state.W.copy()
    W[3] = -unit(batch.X.mean(axis=0))
    given = batch, texts, State(W=W, S=20 * batch.X @ W.T)
    member = ReClip(guard=False, k=3).fit(*given)
    assert member.without_ == 1
    assert member.report()["classes_without_images"] == 1
    np.testing.assert_allclose(member.scores_[:, 3], 20 * batch.X @ W[3], atol=1e-6)


def test_the_average_lies_between() -> None:
    given = make()
    visual, average = (fitted(given, branch=b) for b in ("visual", "average"))
    np.testing.assert_allclose(average, (visual + given[2].S) / 2)
    projected = fitted(given, branch="average", text="projected")
    assert not np.allclose(projected, average)


def test_a_bias_is_added_once() -> None:
    batch, texts, state = make()
    S = state.S - 7
    biased = batch, replace(texts, bias=-7.0), State(W=state.W, S=S)
    for branch in ("visual", "average"):
        plainly = fitted((batch, texts, state), branch=branch)
        np.testing.assert_allclose(fitted(biased, branch=branch), plainly - 7)


def test_more_steps_give_other_scores() -> None:
    given = make()
    few, many = (fitted(given, branch="propagation", steps=s) for s in (3, 200))
    assert np.abs(few - many).max() > 0.01


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("k=0", "k is 0. It must be from 1 to 1000."),
        ("alpha=1", "alpha is 1.0. It must be 0 or more, below 1."),
        ("steps=0", "steps is 0. It must be 1 or more."),
        ("tolerance=1", "tolerance is 1.0. It must be 0 or more, below 1."),
        ("rank=1", "rank is 1. It must be 2 or more, or none."),
        ("present=2", "present is 2.0. It must be from 0 to 1."),
    ],
)
def test_wrong_parameters_are_named(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(f"reclip[{spec}]", "refine")
    assert str(error.value) == f"cannot use 'reclip': {seen}"
    with pytest.raises(RecipeError, match="'average'"):
        ReClip(branch="text")
    with pytest.raises(RecipeError, match="'projected'"):
        ReClip(text="none")


@pytest.mark.parametrize(
    ("name", "visual", "propagation"),
    [
        ("clip-rn50", 91.94, 87.56),
        ("clip-vit-b-32", 89.85, 89.55),
        ("clip-vit-l-14", 98.91, 98.31),
    ],
)
def test_real_vectors(shared: Path, name: str, visual: float, propagation: float) -> None:
    task = Task.load(shared / "rs19" / f"{name}.npz")
    texts, batch = task.texts_for("templates"), task.batch()
    for branch, wanted in (("visual", visual), ("propagation", propagation)):
        pipeline = Pipeline(get_recipe(f"reclip[branch={branch}]")).fit(texts, batch)
        S = pipeline.scores(batch)
        assert 100 * (S.argmax(axis=1) == task.labels).mean() == pytest.approx(wanted, abs=0.15)
    few, W = Batch(batch.X[::4]), np.asarray(pipeline.W_)
    plainly = 100 * few.X @ W.T
    for branch in BRANCHES:
        found = fitted((few, texts, State(W=W, S=plainly)), branch=branch)
        expected = plain.reclip(few.X, W, plainly, scale=texts.scale, branch=branch)
        np.testing.assert_allclose(found / 100, expected / 100, atol=1e-5)


def test_long_lists_are_cut_to_250_directions() -> None:
    W = unit(np.random.default_rng(0).standard_normal((501, 300)))
    for K, wanted in ((500, 299), (501, 249)):
        found = directions(W[:K])
        assert found is not None
        assert found.shape == (300, wanted)


def test_texts_that_differ_by_rounding_add_no_direction() -> None:
    W = make()[2].W
    near = unit(W[:1] + 1e-7 * np.random.default_rng(0).standard_normal((1, 16)))
    apart = unit(W[:1] + 1e-3 * np.random.default_rng(0).standard_normal((1, 16)))
    for more, wanted in ((near, 3), (apart, 4)):
        found = directions(np.vstack([W, more]))
        assert found is not None
        assert found.shape == (16, wanted)
