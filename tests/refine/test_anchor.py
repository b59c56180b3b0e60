from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from byname.errors import RecipeError, UsageError
from byname.ops import unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.refine.anchor import Anchor, moved_to
from byname.refine.mixture import anchored, hits_of
from byname.refine.whole import adjacency, neighbours
from byname.stage import Batch, ClassTexts, State, create
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from tests.reference import anchor as reference

ENCODERS = ("clip-rn50", "clip-vit-b-32", "clip-vit-l-14")


def world(seed: int, N: int = 60, K: int = 4, D: int = 12) -> tuple[Batch, ClassTexts, State]:
    rng = np.random.default_rng(seed)
    centre = unit(rng.standard_normal((K, D)))
    X = unit(centre[rng.integers(0, K, N)] + 0.25 * rng.standard_normal((N, D)))
    W = unit(centre + 0.3 * rng.standard_normal((K, D)))
    texts = ClassTexts(W, np.arange(K), Taxonomy.from_names([f"c{k}" for k in range(K)]))
    return Batch(X), texts, State(W=W, S=20 * X @ W.T)


def scores(member: Any, world_: Any) -> NDArray[Any]:
    batch, texts, state = world_
    return np.asarray(member.fit(batch, texts, state).apply(batch, texts, state))


@given(st.integers(0, 50), st.sampled_from([0.0, 1.0, 3.0]), st.sampled_from([1, 8]))
@settings(max_examples=25, deadline=None)
def test_agrees_with_the_reference(seed: int, bound: float, rounds: int) -> None:
    case = world(seed)
    S = scores(Anchor(bound=bound, rounds=rounds, guard=False), case)
    z, answer = reference.anchor(case[0].X, case[2].S, bound, rounds)
    assert S.argmax(axis=1).tolist() == answer.tolist()
    same = z.argmax(axis=1) == answer
    np.testing.assert_allclose(np.exp(S[same]), z[same], atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_agrees_on_real_vectors(shared: Path, name: str) -> None:
    task = Task.load(shared / "rs19" / f"{name}.npz", with_labels=False)
    X, W = task.images[::3], unit(task.texts.mean(axis=0))
    S = np.asarray(100 * X @ W.T)
    texts = ClassTexts(W, np.arange(len(W)), task.taxonomy)
    found = scores(Anchor(guard=False), (Batch(X), texts, State(W=W, S=S)))
    z, answer = reference.anchor(X, S)
    assert (found.argmax(axis=1) == answer).mean() > 0.998
    same = z.argmax(axis=1) == answer
    np.testing.assert_allclose(np.exp(found[same]), z[same], atol=1e-4)


@given(st.integers(0, 200))
@settings(max_examples=30, deadline=None)
def test_a_wide_margin_never_moves_in_the_rounds(seed: int) -> None:
    case = world(seed)
    t = case[2].S
    rho = (hits_of(t)[1] > 0).mean()
    T = t - rho / 2 * t.mean(axis=0)
    two = np.sort(T, axis=1)[:, -2:]
    far = two[:, 1] - two[:, 0] > 3
    S = scores(Anchor(guard=False), case)
    # A name's clearest hits may be given back to it afterwards; its first answer is the same then.
    moved = far & (S.argmax(axis=1) != T.argmax(axis=1)) & (S.argmax(axis=1) != t.argmax(axis=1))
    assert not moved.any()
    A = adjacency(neighbours(case[0].X, 3), 3)
    z = anchored(case[0].X, T, A, rho, 3.0, 8)
    assert (z.argmax(axis=1) == T.argmax(axis=1))[far].all()


@given(st.integers(0, 200), st.sampled_from(["anchor", "auto"]))
@settings(max_examples=40, deadline=None)
def test_a_name_with_five_hits_is_never_emptied(seed: int, name: str) -> None:
    batch, texts, state = world(seed, K=8)
    member = create(f"{name}[guard=false]")
    S = scores(member, (batch, texts, state))
    t = state.S
    if name == "auto":
        t = t - member.strength_ * reference.excess(t, state.W)[0]
    answer = np.bincount(S.argmax(axis=1), minlength=8)
    assert (answer[hits_of(t)[1] >= 5] > 0).all()


@pytest.mark.parametrize("name", ["anchor", "auto"])
def test_too_few_images_change_nothing(name: str) -> None:
    for N, K in ((1, 3), (3, 4), (6, 1)):
        case = world(0, N=N, K=K)
        member = create(name)
        np.testing.assert_array_equal(scores(member, case), case[2].S)
        told = member.report()
        assert told["stepped_back"]
        assert told["reason"]


@pytest.mark.parametrize("name", ["anchor", "auto"])
def test_images_that_are_not_finite_are_refused(name: str) -> None:
    batch, texts, state = world(0)
    X = batch.X.copy()
    X[7, 0] = np.nan
    with pytest.raises(UsageError, match="row 7 holds NaN"):
        create(name).fit(Batch(X), texts, state)


@pytest.mark.parametrize("name", ["anchor", "auto"])
@pytest.mark.parametrize("edge", ["duplicates", "zero", "pieces", "never"])
def test_strange_batches_stay_finite(name: str, edge: str) -> None:
    batch, texts, _ = world(3)
    X = batch.X.copy()
    if edge == "duplicates":
        X[10:40] = X[0]
    elif edge == "zero":
        X[5] = 0
    elif edge == "pieces":
        X[:30], X[30:] = np.eye(12)[0], np.eye(12)[1]
    S = 20 * X @ np.asarray(texts.vectors).T
    if edge == "never":
        S[:, 2] = -50
    found = scores(create(name), (Batch(X), texts, State(W=texts.vectors, S=S)))
    assert np.isfinite(found).all()
    assert found.shape == S.shape


@pytest.mark.parametrize(
    "spec, message",
    [
        ("anchor[bound=-1]", "bound is -1.0. Give 0 or more."),
        ("auto[rounds=0]", "rounds is 0. Give 1 or more."),
    ],
)
def test_parameters_that_do_not_fit(spec: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(spec)
    assert str(error.value).endswith(message)


@pytest.mark.parametrize(
    "name, top1, worst3",
    [("clip-rn50", 94.53, 82.8), ("clip-vit-b-32", 94.73, 80.1), ("clip-vit-l-14", 98.31, 92.6)],
)
def test_the_figures_of_its_specification(
    shared: Path, name: str, top1: float, worst3: float
) -> None:
    """Labels are used to score only."""
    task = Task.load(shared / "rs19" / f"{name}.npz")
    texts, batch = task.texts_for("templates[set=imagenet]"), task.batch()
    answer = np.asarray(Pipeline(get_recipe("anchor")).fit(texts).scores(batch)).argmax(axis=1)
    assert task.labels is not None
    each = [100 * (answer[task.labels == k] == k).mean() for k in range(19)]
    assert abs(100 * (answer == task.labels).mean() - top1) < 0.5
    assert abs(np.sort(each)[:3].mean() - worst3) < 1


def test_few_names_with_hits_are_no_reason_by_default() -> None:
    batch, texts, _ = world(2, N=90, K=3)
    W = np.concatenate([texts.vectors, unit(np.random.default_rng(0).standard_normal((9, 12)))])
    longer = ClassTexts(W, np.arange(12), Taxonomy.from_names([f"c{k}" for k in range(12)]))
    case = batch, longer, State(W=W, S=20 * batch.X @ W.T)
    used = (hits_of(case[2].S)[1] > 0).sum()
    assert used <= 6
    assert not Anchor().fit(*case).report()["stepped_back"]
    assert "may not be there" in Anchor(present=0.6).fit(*case).report()["reason"]


@pytest.mark.parametrize("present", [-0.1, 1.1, float("nan")])
def test_a_share_of_the_names_is_a_share(present: float) -> None:
    with pytest.raises(RecipeError, match=r"present is .* Give a share from 0 to 1\."):
        Anchor(present=present)


def test_a_name_that_is_given_back_wins_clearly() -> None:
    """Also in float32, where less than a thousandth would be rounded away."""
    z = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    found = moved_to(z, np.array([1, 1]))
    assert found.dtype == np.float32
    assert found[0, 1] - found[0, 0] == pytest.approx(1e-3, abs=1e-5)
    np.testing.assert_allclose(found[1], np.log(z[1]), atol=1e-6)
