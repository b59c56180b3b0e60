"""Clusters that vote: against loops, what they smooth, and when they keep the scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import NeedsError, RecipeError, UsageError
from byname.kmeans import kmeans
from byname.ops import log_softmax, softmax, unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.refine.clusters import ClusterVote, cluster_logits, clusters_of, coherence
from byname.stage import Batch, ClassTexts, State, create
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from tests.reference import clusters as plain

SEEDS = st.integers(0, 9999)


def make(
    seed: int = 0, *, N: int = 60, K: int = 3, D: int = 8, noise: float = 0.2, text: float = 0.3
) -> tuple[Batch, ClassTexts, State]:
    """Images around K centres; class vectors off them."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((K, D)))
    X = unit(centres[np.arange(N) % K] + noise * rng.standard_normal((N, D)))
    W = unit(centres + text * rng.standard_normal((K, D)))
    texts = ClassTexts(W, np.arange(K), Taxonomy.from_names([f"n{k}" for k in range(K)]), scale=20)
    return Batch(X), texts, State(W=W, S=20 * X @ W.T)


def fitted(case: tuple[Batch, ClassTexts, State], **params: Any) -> tuple[ClusterVote, Any]:
    member = ClusterVote(**params).fit(*case)
    return member, member.apply(*case)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(2, 9), st.floats(0.5, 20))
def test_loops_agree(seed: int, clusters: int, sharpness: float) -> None:
    case = make(seed, N=30)
    member, S = fitted(case, clusters=clusters, sharpness=sharpness, guard=False)
    assert member.clusters_ is not None
    expected = plain.vote(case[0].X, case[2].S, member.clusters_.member.tolist(), sharpness)
    np.testing.assert_allclose(S, expected, rtol=0, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_logits_of_a_cluster_are_those_of_its_unit_centre(seed: int) -> None:
    batch, texts, state = make(seed)
    found = kmeans(batch.X, 7)
    expected = 20 * unit(found.centres) @ texts.vectors.T
    np.testing.assert_allclose(cluster_logits(state.S, found), expected, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_the_answers_are_probabilities(seed: int) -> None:
    member, S = fitted(make(seed), guard=False)
    assert member.reason_ is None
    np.testing.assert_allclose(np.exp(S).sum(axis=1), 1, atol=1e-9)


def test_one_image_a_cluster_is_the_image_itself() -> None:
    """Sharp membership in clusters of one: what each image said by itself."""
    case = make(N=12)
    _, S = fitted(case, clusters=12, guard=False)
    np.testing.assert_allclose(S, log_softmax(case[2].S), atol=1e-6)


def test_stray_answers_follow_their_cluster() -> None:
    batch, texts, state = make(noise=0.05, text=0.1, N=90)
    rng = np.random.default_rng(0)
    wrong = rng.choice(90, 12, replace=False)
    S = np.array(state.S)
    S[wrong] = S[wrong][:, [1, 2, 0]]
    truth = np.arange(90) % 3
    assert (S.argmax(axis=1) == truth).mean() < 0.9
    member, after = fitted((batch, texts, replace(state, S=S)), clusters=6)
    assert (after.argmax(axis=1) == truth).all()
    told = member.report()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["stepped_back"] is False
    assert told["clusters"] == 6
    assert 0.7 < told["coherence"] < 1
    assert len(set(member.details(batch, texts, state)["cluster"])) == 6


def test_any_score_member_is_refined() -> None:
    """S need not be cosines: the members' logits are averaged."""
    batch, texts, _ = make()
    S = -((batch.X @ texts.vectors.T - 1) ** 2) * 9
    member, after = fitted((batch, texts, State(S=S)), clusters=6, guard=False)
    expected = plain.vote(batch.X, S, member.clusters_.member.tolist(), 5)  # type: ignore[union-attr]
    np.testing.assert_allclose(after, expected, atol=1e-6)


def test_clusters_that_go_across_the_classes_are_not_believed() -> None:
    """The images group by something else than what the scores tell apart."""
    rng = np.random.default_rng(1)
    batch, texts, state = make(N=120)
    S = np.asarray(20 * rng.standard_normal((120, 3)))
    member, after = fitted((batch, texts, replace(state, S=S)), clusters=6)
    np.testing.assert_array_equal(after, S)
    told = member.report()
    assert told["stepped_back"] is True
    assert told["reason"].startswith("the clusters do not go with the classes: beyond chance, ")
    assert told["clusters"] is None
    assert member.details(batch, texts, state) == {}
    bold, other = fitted((batch, texts, replace(state, S=S)), clusters=6, guard=False)
    assert bold.reason_ is None
    assert (other.argmax(axis=1) != S.argmax(axis=1)).any()


def test_fewer_clusters_than_classes_lose_some_and_are_noticed() -> None:
    case = make(N=120, K=12, D=16, noise=0.05, text=0.05)
    member, after = fitted(case, clusters=2)
    assert member.reason_ is not None
    np.testing.assert_array_equal(after, case[2].S)


@pytest.mark.parametrize(
    ("N", "K", "params", "reason"),
    [
        (1, 3, {}, "there is 1 image, and others are what it learns from"),
        (9, 3, {}, "there are 9 images, which is too few for two clusters"),
        (9, 3, {"clusters": 10}, "there are 9 images, and it looks at 10 together"),
        (60, 1, {}, "there is one class"),
    ],
)
def test_too_few_are_left_as_they_are(N: int, K: int, params: Any, reason: str) -> None:
    case = make(N=N, K=K)
    member, S = fitted(case, guard=False, **params)
    assert member.report() == {
        "clusters": None, "coherence": None, "stepped_back": True, "reason": reason
    }  # fmt: skip
    np.testing.assert_array_equal(S, case[2].S)


def test_numbers_that_are_none_are_refused() -> None:
    batch, texts, state = make()
    X = np.array(batch.X)
    X[7, 2] = np.nan
    with pytest.raises(UsageError, match="cannot run 'clusters': row 7 holds NaN or infinity"):
        ClusterVote().fit(Batch(X), texts, state)
    with pytest.raises(NeedsError, match="'clusters': it needs 'X'"):
        ClusterVote().check_needs(Batch(X[:0]), texts)
    assert ClusterVote().report()["reason"] == "nothing was learned yet"


def test_duplicate_images_are_one_cluster() -> None:
    batch, texts, state = make(N=20)
    X = np.repeat(batch.X, 5, axis=0)
    S = np.repeat(np.asarray(state.S), 5, axis=0)
    member, after = fitted((Batch(X), texts, State(S=S)), clusters=30, guard=False)
    assert member.report()["clusters"] == 20
    np.testing.assert_allclose(softmax(after), softmax(S), atol=1e-5)
    same = np.repeat(batch.X[:1], 20, axis=0)
    member, after = fitted((Batch(same), texts, State(S=same @ texts.vectors.T)), guard=False)
    assert member.report()["clusters"] == 1
    assert np.ptp(after, axis=0).max() < 1e-9


def test_images_without_a_vector_keep_their_own() -> None:
    batch, texts, state = make(N=40)
    X, S = np.array(batch.X), np.array(state.S)
    X[3], S[3] = 0, [5.0, 0.0, 0.0]
    _, after = fitted((Batch(X), texts, replace(state, S=S)), guard=False)
    np.testing.assert_allclose(after[3], log_softmax(S[[3]])[0], atol=1e-9)


def test_groups_apart_and_a_class_that_nobody_is() -> None:
    """Two groups a thousand times farther apart than wide; a third class never predicted."""
    rng = np.random.default_rng(0)
    X = unit(np.eye(8)[np.repeat([0, 1], 30)] + 1e-3 * rng.standard_normal((60, 8)))
    W = np.eye(8)[[0, 1, 2]]
    texts = ClassTexts(W, np.arange(3), Taxonomy.from_names(["a", "b", "c"]), scale=20)
    member, S = fitted((Batch(X), texts, State(S=20 * X @ W.T)), clusters=2)
    assert member.reason_ is None
    assert S.argmax(axis=1).tolist() == [0] * 30 + [1] * 30
    assert np.isfinite(S).all()


@pytest.mark.parametrize("n", [9, 10])
def test_a_class_needs_images_for_clusters_of_its_own(n: int) -> None:
    X = np.repeat(np.eye(8)[:3], n, axis=0)
    texts = ClassTexts(np.eye(8)[:3], np.arange(3), Taxonomy.from_names(["a", "b", "c"]), scale=20)
    state = State(S=20 * X[:, :3])
    few = "27 images over some 3.0 classes are fewer than 10 each, and a cluster would hold several"
    member, S = fitted((Batch(X), texts, state))
    assert member.reason_ == (few if n == 9 else None)
    np.testing.assert_array_equal(S.argmax(axis=1), np.repeat(np.arange(3), n))
    assert fitted((Batch(X), texts, state), guard=False)[0].reason_ is None


def test_uneven_shares_are_told() -> None:
    X = np.repeat(np.eye(8)[:3], [60, 3, 3], axis=0)
    texts = ClassTexts(np.eye(8)[:3], np.arange(3), Taxonomy.from_names(["a", "b", "c"]), scale=20)
    report = fitted((Batch(X), texts, State(S=20 * X[:, :3])))[0].report()
    assert not report["stepped_back"]
    assert "only as mixed as 1.4 of 3 names" in report["warning"]


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_order_of_classes_and_images_does_not_matter(seed: int) -> None:
    batch, texts, state = make(seed, noise=0.4)
    rows, order = np.random.default_rng(seed).permutation(60), np.array([2, 0, 1])
    _, S = fitted((batch, texts, state))
    other = replace(texts, class_index=np.argsort(order)[texts.class_index])
    _, again = fitted((Batch(batch.X[rows]), other, State(S=np.asarray(state.S)[rows][:, order])))
    np.testing.assert_allclose(again, S[rows][:, order], atol=1e-7)


def test_small_words() -> None:
    assert [clusters_of(*a) for a in ((1005, 19), (40, 19), (4, 2))] == [190, 8, 0]
    assert coherence(np.array([0, 0, 0]), np.array([0, 0, 0]), 2) == 1
    assert coherence(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), 2) == 0


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("clusters[clusters=1]", "clusters is 1. Give 2 or more."),
        ("clusters[iterations=0]", "iterations is 0. Give 1 or more."),
        ("clusters[restarts=0]", "restarts is 0. Give 1 or more."),
        ("clusters[seed=-1]", "seed is -1. Give 0 or more."),
        ("clusters[sharpness=0]", "sharpness is 0.0. Give a number above 0."),
    ],
)
def test_wrong_parameters_are_named(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(spec, "refine")
    assert str(error.value) == f"cannot use 'clusters': {seen}"


@pytest.mark.parametrize("name", ["clip-rn50", "clip-vit-b-32", "clip-vit-l-14"])
def test_real_vectors(shared: Path, name: str) -> None:
    task = Task.load(shared / "rs19" / f"{name}.npz")
    texts, batch = task.texts_for("templates"), task.batch()
    S = Pipeline(get_recipe("ensemble")).fit(texts, batch).scores(batch)
    member, after = fitted((batch, texts, State(S=S)))
    assert member.reason_ is None
    assert member.report()["clusters"] == clusters_of(1005, 19) == 190
    gain = (after.argmax(axis=1) == task.labels).mean() - (S.argmax(axis=1) == task.labels).mean()
    assert gain > 0.02
    expected = plain.vote(batch.X, S, member.clusters_.member.tolist(), 5)  # type: ignore[union-attr]
    np.testing.assert_allclose(after, expected, atol=1e-5 * 100)
    few = batch.X[::20]
    member, after = fitted((Batch(few), texts, State(S=S[::20])), guard=False)
    expected = plain.vote(few, S[::20], member.clusters_.member.tolist(), 5)  # type: ignore[union-attr]
    np.testing.assert_allclose(after, expected, atol=1e-5 * 100)


def test_more_runs_find_better_clusters() -> None:
    case = make(3, N=200, K=12, D=16)
    spread = {}
    for restarts in (1, 10):
        member, _ = fitted(case, clusters=12, restarts=restarts, guard=False)
        assert member.clusters_ is not None
        spread[restarts] = member.clusters_.distance.sum()
        expected = kmeans(case[0].X, 12, iterations=30, restarts=restarts)
        np.testing.assert_array_equal(member.clusters_.member, expected.member)
    assert spread[10] < spread[1] - 0.01


def test_what_was_not_believed_is_dropped() -> None:
    batch, texts, state = make(N=120)
    S = np.asarray(20 * np.random.default_rng(1).standard_normal((120, 3)))
    member, _ = fitted((batch, texts, replace(state, S=S)), clusters=6)
    assert member.reason_ is not None
    assert member.logits_ is None


def test_logits_out_of_range_are_not_believed() -> None:
    batch, texts, _ = make(N=60)
    X = np.array(batch.X, np.float32)
    X[1::2] = -X[::2]  # a cluster with a mean of almost no length
    S = np.full((60, 3), 1e38, np.float32)
    with np.errstate(all="ignore"):
        member = ClusterVote(clusters=2, guard=False).fit(Batch(X * 1e-3), texts, State(S=S))
    assert member.reason_ == "the logits of the clusters are not finite"
