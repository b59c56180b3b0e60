from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from byname.errors import RecipeError
from byname.ops import unit
from byname.refine.auto import Auto
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from tests.reference import anchor as reference
from tests.refine.test_anchor import ENCODERS, scores, world


def texts_of(W: NDArray[Any]) -> ClassTexts:
    return ClassTexts(W, np.arange(len(W)), Taxonomy.from_names([f"c{k}" for k in range(len(W))]))


def world_of(seed: int, **sizes: int) -> Any:
    return world(seed, **sizes)


def side_of(rng: np.random.Generator, D: int) -> NDArray[Any]:
    return np.asarray(unit(rng.standard_normal(D)))


def long_list(seed: int, extra: int = 200) -> Any:
    """8 classes far from the mean of all vectors, and names near to them that no image shows."""
    rng = np.random.default_rng(seed)
    D, K = 256, 8
    mean = unit(rng.standard_normal(D))
    centre = unit(rng.standard_normal((K, D)))
    y = np.repeat(np.arange(K), 25)
    X = unit(2 * mean + centre[y] + 0.08 * rng.standard_normal((len(y), D)))
    W = unit(2 * unit(0.3 * mean + side_of(rng, D)) + centre + 0.05 * rng.standard_normal((K, D)))
    base = W[rng.integers(0, K, extra)]
    side = rng.standard_normal(base.shape)
    side = unit(side - (side * base).sum(axis=1, keepdims=True) * base)
    cosine = rng.uniform(0.5, 0.9, (extra, 1))
    W = np.concatenate([W, cosine * base + np.sqrt(1 - cosine**2) * side])
    return Batch(X), texts_of(W), State(W=W, S=100 * X @ W.T), y


@given(st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_agrees_with_the_reference(seed: int) -> None:
    case = world_of(seed, K=6)
    member = Auto(guard=False)
    S = scores(member, case)
    z, answer, b = reference.auto(case[0].X, case[2].S, case[2].W)
    assert member.strength_ == b
    assert S.argmax(axis=1).tolist() == answer.tolist()
    same = z.argmax(axis=1) == answer
    np.testing.assert_allclose(np.exp(S[same]), z[same], atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_agrees_on_real_vectors(shared: Path, name: str) -> None:
    task = Task.load(shared / "rs19" / f"{name}.npz", with_labels=False)
    X, W = task.images[::3], unit(task.texts.mean(axis=0))
    S = np.asarray(100 * X @ W.T)
    member = Auto(guard=False)
    found = scores(member, (Batch(X), texts_of(W), State(W=W, S=S)))
    z, answer, b = reference.auto(X, S, W)
    assert member.strength_ == b
    assert (found.argmax(axis=1) == answer).mean() > 0.998
    same = z.argmax(axis=1) == answer
    np.testing.assert_allclose(np.exp(found[same]), z[same], atol=1e-4)


@given(st.integers(0, 30))
@settings(max_examples=10, deadline=None)
def test_the_slope_and_what_it_leaves_agree_with_the_reference(seed: int) -> None:
    batch, texts, state, _ = long_list(seed)
    member = Auto(rounds=1).fit(batch, texts, state)
    np.testing.assert_allclose(member.slope_, reference.excess(state.S, state.W)[1], rtol=1e-5)
    assert member.slope_ > 0


def test_nearness_that_explains_nothing_is_not_used() -> None:
    rng = np.random.default_rng(0)
    batch, _, _ = world(0)
    W = unit(rng.standard_normal((40, 12)))
    state = State(W=W, S=rng.standard_normal((len(batch), 40)))
    assert Auto().fit(batch, texts_of(W), state).slope_ == 0


@pytest.mark.parametrize("seed", range(3))
def test_names_unlike_the_others_are_not_lifted(seed: int) -> None:
    batch, texts, state, y = long_list(seed)
    member = Auto()
    answer = scores(member, (batch, texts, state)).argmax(axis=1)
    lifted = (state.S - np.median(state.S, axis=0)).argmax(axis=1)
    assert (answer == y).mean() > 0.9
    assert (answer == y).mean() > (state.S.argmax(axis=1) == y).mean() + 0.05
    assert (answer == y).mean() > (lifted == y).mean() + 0.05
    notes = member.report()["notes"]
    assert any("were not lifted" in note for note in notes)
    assert any("names have no image" in note for note in notes)


@given(st.integers(0, 200))
@settings(max_examples=30, deadline=None)
def test_a_wide_margin_never_moves_in_the_rounds(seed: int) -> None:
    case = world_of(seed)
    member = Auto(guard=False)
    S = scores(member, case)
    T = case[2].S - member.strength_ * reference.excess(case[2].S, case[2].W)[0]
    two = np.sort(T, axis=1)[:, -2:]
    best = T.argmax(axis=1)
    far = two[:, 1] - two[:, 0] > 5
    # Given back are hits of a name only, whose first answer in T is that name.
    assert (S.argmax(axis=1) == best)[far].all()


def test_takes_a_hub_off() -> None:
    """A text near to all images wins half of them; its column's mean gives it away."""
    batch, texts, state = world_of(1, N=120, K=5)
    truth = state.S.argmax(axis=1)
    S = state.S.copy()
    S[:, 0] += 12
    member = Auto()
    found = scores(member, (batch, texts, State(W=state.W, S=S))).argmax(axis=1)
    assert member.strength_ > 0
    assert (S.argmax(axis=1) == truth).mean() < 0.8 < (found == truth).mean()


def test_images_that_are_all_the_same_change_nothing() -> None:
    batch, texts, state = world_of(0)
    X = np.repeat(batch.X[:1], 40, axis=0)
    S = np.asarray(20 * X @ state.W.T)
    member = Auto()
    found = scores(member, (Batch(X), texts, State(W=state.W, S=S)))
    assert member.strength_ == 0
    assert (found.argmax(axis=1) == S.argmax(axis=1)).all()


@pytest.mark.parametrize("present", [-0.1, 1.5, float("nan")])
def test_refuses_a_share_that_is_none(present: float) -> None:
    with pytest.raises(RecipeError, match="Give a share from 0 to 1"):
        Auto(present=present)


@pytest.mark.parametrize("seed", range(5))
def test_a_folder_of_one_class_is_not_torn_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    W = unit(rng.standard_normal((19, 32)))
    X = unit(W[0] + 0.2 * rng.standard_normal((40, 32)))
    state = State(W=W, S=np.asarray(100 * X @ W.T))
    state.S[:3] = state.S[:3, ::-1]
    member = Auto()
    found = scores(member, (Batch(X), texts_of(W), state))
    np.testing.assert_array_equal(found, state.S)
    assert "one class may be all that is there" in member.report()["reason"]
    assert member.report()["strength"] == 0


def test_flat_scores_are_kept() -> None:
    batch, texts, state = world_of(0, K=6)
    member = Auto()
    found = scores(member, (batch, texts, State(W=state.W, S=np.zeros_like(state.S))))
    assert not found.any()
    assert member.report()["stepped_back"]
