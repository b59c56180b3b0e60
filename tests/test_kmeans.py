"""k-means: against loops, its fixed point, the order of rows, and rows that are alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname import kmeans as module
from byname.errors import UsageError
from byname.kmeans import content_key, kmeans, silhouette
from byname.ops import unit
from byname.taskfile import Task
from tests.reference import clusters as plain

SEEDS = st.integers(0, 9999)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 9), st.integers(1, 4))
def test_loops_agree(seed: int, k: int, steps: int) -> None:
    X = np.random.default_rng(seed).standard_normal((25, 4))
    found = kmeans(X, k, seed=seed, iterations=steps)
    first = module._first(X, module._canonical(X), k, np.random.default_rng(seed))
    _, member = plain.lloyd(X, first, steps)
    place = {t: i for i, t in enumerate(sorted(set(member)))}
    assert found.member.tolist() == [place[t] for t in member]
    for t in range(len(found)):
        np.testing.assert_allclose(found.centres[t], X[found.member == t].mean(axis=0))


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(2, 8))
def test_silhouette_is_that_of_pairs(seed: int, k: int) -> None:
    X = unit(np.random.default_rng(seed).standard_normal((30, 4)))
    found = kmeans(X, k)
    assert silhouette(X, found) == pytest.approx(plain.silhouette(X, found.member.tolist()))


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 12))
def test_at_its_end_each_row_is_with_its_nearest_centre(seed: int, k: int) -> None:
    X = np.random.default_rng(seed).standard_normal((60, 3))
    found = kmeans(X, k, iterations=500)
    assert found.steps < 500
    assert plain.nearest(X, found.centres) == found.member.tolist()
    assert len(found) == k
    assert (found.sizes > 0).all()
    assert found.sizes.sum() == 60
    expected = ((X - found.centres[found.member]) ** 2).sum(axis=1)
    np.testing.assert_allclose(found.distance, expected, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_the_order_of_rows_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((200, 5)).astype(np.float32)
    X[20:40] = X[:20]
    order = rng.permutation(200)
    a, b = kmeans(X, 80, seed=3), kmeans(X[order], 80, seed=3)
    assert a.member[order].tolist() == b.member.tolist()


def test_tiles_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    X = unit(np.random.default_rng(0).standard_normal((100, 5)))
    a, s = kmeans(X, 9), silhouette(X, kmeans(X, 9))
    monkeypatch.setattr(module, "_TILE", 63)
    assert kmeans(X, 9).member.tolist() == a.member.tolist()
    assert silhouette(X, a) == pytest.approx(s)


def test_clear_groups_are_found() -> None:
    """Draws by distance, not by lot: 40 groups of 5 each have a first centre."""
    rng = np.random.default_rng(0)
    names = np.repeat(np.arange(40), 5)
    X = 10 * np.eye(40)[names] + 0.01 * rng.standard_normal((200, 40))
    for seed in range(5):
        found = kmeans(X, 40, seed=seed)
        assert (found.sizes == 5).all()
        assert silhouette(np.asarray(unit(X)), found) > 0.99


def test_more_runs_are_never_worse() -> None:
    X = np.random.default_rng(1).standard_normal((120, 3))
    spread = [kmeans(X, 10, restarts=r).distance.sum() for r in (1, 5, 20)]
    assert spread[0] >= spread[1] >= spread[2]
    assert spread[0] > spread[2]


def test_rows_that_are_alike_share_a_cluster() -> None:
    X = np.eye(3, dtype=np.float32)[[0, 0, 0, 1, 1, 2]]
    found = kmeans(X, 5)
    assert len(found) == 3
    assert sorted(found.sizes) == [1, 2, 3]
    assert silhouette(X, found) == pytest.approx(5 / 6), "the row alone counts as 0"
    same = kmeans(np.ones((4, 2)), 3)
    assert (len(same), same.distance.sum()) == (1, 0)
    assert silhouette(np.ones((4, 2)) / np.sqrt(2), same) == 0
    assert len(kmeans(np.zeros((4, 2)), 3)) == 1
    assert len(kmeans(np.eye(2), 9)) == 2, "no more clusters than rows"


def test_a_cluster_without_rows_keeps_its_centre() -> None:
    """It is not drawn to the origin, where it would take the first row; rows may come back."""
    X = np.array([[0.1], [3.0], [9.0], [10.0]])
    found = module._lloyd(X, np.array([[1.5], [9.5], [100.0]]), 20)
    assert found.member.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(found.centres.ravel(), [1.55, 9.5])
    later = np.array([[0.0], [4.0], [10.0], [11.0], [12.0]])
    back = module._lloyd(later, np.array([[1.9], [2.1], [7.9]]), 20)
    assert back.member.tolist() == [0, 1, 2, 2, 2]


@pytest.mark.parametrize("length", [1.0, 100.0])
def test_rows_nearer_than_a_thousandth_are_one_and_others_are_not(length: float) -> None:
    rng = np.random.default_rng(0)
    groups = unit(rng.standard_normal((3, 8)))[np.repeat(np.arange(3), 10)]
    near = length * unit(groups + 1e-4 * rng.standard_normal((30, 8)) / np.sqrt(8))
    assert len(kmeans(near, 9)) == 3
    apart = length * unit(groups[:1] + [[0.02], [0.0], [-0.02]] * np.eye(8)[:1])
    assert len(kmeans(apart, 3)) == 3


def test_content_keys_follow_the_rows() -> None:
    X = np.random.default_rng(0).standard_normal((9000, 6)).astype(np.float32)
    order = np.random.default_rng(1).permutation(len(X))
    np.testing.assert_array_equal(content_key(X)[order], content_key(X[order]))
    assert (content_key(X, 1) != content_key(X)).all()


def test_wrong_settings_are_named() -> None:
    for name in ("k", "iterations", "restarts"):
        with pytest.raises(UsageError, match=f"{name} is 0. Give 1 or more"):
            kmeans(np.eye(2), **{"k": 2, name: 0})
    with pytest.raises(UsageError, match="there are no rows"):
        kmeans(np.zeros((0, 2)), 2)


def test_real_vectors(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    X = task.batch().X[::5]
    found = kmeans(X, 19, restarts=3)
    assert silhouette(X, found) == pytest.approx(
        plain.silhouette(np.asarray(X, np.float64), found.member.tolist()), abs=1e-5
    )
    assert plain.nearest(np.asarray(X, np.float64), found.centres) == found.member.tolist()
    labels = np.asarray(task.labels)[::5]
    pure = sum(np.bincount(labels[found.member == t]).max() for t in range(19)) / len(X)
    assert pure > 0.75, "most images of a cluster are of one class"


def test_a_cluster_that_lost_its_rows_keeps_its_centre() -> None:
    """At the origin it would take the first row."""
    X = np.array([[0.1], [0.9], [10.0], [10.2]])
    found = module._lloyd(X, np.array([[2.0], [10.1], [100.0]]), 9)
    assert found.member.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(found.centres, [[0.5], [10.1]])


@pytest.mark.parametrize(("apart", "clusters"), [(1e-8, 1), (1e-4, 1), (1e-2, 2)])
def test_rows_that_differ_by_hardly_anything_are_one(apart: float, clusters: int) -> None:
    X = np.array([[1.0, 0.0], [1.0, apart], [1.0, 0.0]])
    assert len(kmeans(X, 2)) == clusters
