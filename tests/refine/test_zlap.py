"""ZLaP against dense loops, the dual against one solve for each image, and real vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from byname.errors import RecipeError, UsageError
from byname.ops import log_softmax, unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.refine.propagation import class_columns, normalised, row_logits
from byname.refine.zlap import ZLap
from byname.stage import Batch, State, create
from byname.taskfile import Task
from tests.reference import zlap as plain
from tests.refine.test_whole import make

ALPHA = "It must be above 0, below 1; 0 with mode inductive or sparse alone."


def fitted(given: Any, **params: Any) -> Any:
    return ZLap(**{"guard": False, **params}).fit(*given).apply(*given)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 9999),
    st.integers(1, 8),
    st.sampled_from([1.0, 3.0, 5.0]),
    st.sampled_from([0.01, 0.3, 0.99]),
    st.booleans(),
    st.integers(2, 50),  # after one step nothing has spread
)
def test_loops_agree(
    seed: int, k: int, gamma: float, alpha: float, itself: bool, steps: int
) -> None:
    given = make(seed, N=30)
    chosen = {"k": k, "gamma": gamma, "alpha": alpha, "itself": itself, "steps": steps}
    found = fitted(given, **chosen)
    expected = plain.zlap(given[0].X, given[2].W, given[2].S, **chosen)  # type: ignore[arg-type]
    np.testing.assert_allclose(found / 20, expected / 20, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9999), st.booleans(), st.booleans())
def test_later_images_by_the_dual_and_by_the_sparse_form(seed: int, fast: bool, own: bool) -> None:
    batch, texts, state = make(seed, N=40)
    mode: Any = "sparse" if fast else "inductive"
    member = ZLap(mode=mode, guard=False, tolerance=1e-12)
    assert member.inductive
    assert not ZLap().inductive
    X, S = batch.X[:10], state.S[:10]
    seen = Batch(batch.X[10:]) if own else Batch(X, reference=batch.X[10:])
    member.fit(seen, texts, State(W=state.W, S=state.S[10:]))
    found = member.apply(Batch(X), texts, replace(state, S=S))
    expected = plain.later(X, batch.X[10:], state.W, S, sparse=fast)
    np.testing.assert_allclose(found / 20, expected / 20, atol=1e-5)
    each = [member.apply(Batch(X[[i]]), texts, replace(state, S=S[[i]]))[0] for i in range(len(X))]
    np.testing.assert_allclose(each, found, atol=1e-9)


@pytest.mark.parametrize("mode", ["inductive", "sparse"])
def test_what_was_learned_for_later_images_is_not_used_where_it_failed(mode: Any) -> None:
    batch, texts, state = make()
    member = ZLap(mode=mode).fit(batch, texts, state)
    assert not member.report()["stepped_back"]
    assert not np.array_equal(member.apply(batch, texts, state), state.S)
    assert member.apply(Batch(batch.X[:0]), texts, replace(state, S=state.S[:0])).shape == (0, 4)
    few = replace(state, S=state.S[:1])
    member.fit(Batch(batch.X[:1]), texts, few)
    assert member.report()["stepped_back"]
    np.testing.assert_array_equal(member.apply(batch, texts, state), state.S)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9999), st.sampled_from([0.3, 0.9, 0.99]))
def test_columns_solve_the_system(seed: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    W = rng.uniform(size=(45, 45)) * (rng.uniform(size=(45, 45)) < 0.1)
    W[7] = W[:, 7] = 0  # a node without an edge
    V = normalised(sparse.csr_matrix(W + W.T))
    Z = class_columns(V, 40, alpha, tolerance=1e-10, steps=500, dtype=np.float64)
    np.testing.assert_allclose(
        Z, np.linalg.inv(np.eye(45) - alpha * V.toarray())[:, :40], atol=1e-7
    )
    assert (Z[7] == np.eye(45)[7, :40]).all()


def test_an_image_no_text_reaches_keeps_its_scores() -> None:
    """Behind all texts, and with no neighbour on its side."""
    batch, texts, _ = make(D=16)
    W = np.hstack([np.eye(4), np.zeros((4, 12))])
    X = unit(np.eye(4, 16)[np.arange(60) % 4] + 0.05 * np.abs(batch.X))
    X[0] = 0
    X[0, :4] = -0.5
    S = 20 * X @ W.T
    found = fitted((Batch(X), texts, State(W=W, S=S)), k=3)
    np.testing.assert_allclose(found[0], log_softmax(S)[0], atol=1e-9)
    Z = np.array([[0.0, 0.0], [-1e-9, 2.0]])
    np.testing.assert_allclose(np.exp(row_logits(Z, np.zeros((2, 2)))), [[0.5, 0.5], [1e-6, 1]])


def test_class_vectors_count_by_their_direction() -> None:
    batch, texts, state = make()
    longer = replace(state, W=state.W * np.array([[1.0], [2.0], [0.5], [9.0]]))
    np.testing.assert_allclose(
        fitted((batch, texts, longer)), fitted((batch, texts, state)), atol=1e-9
    )


def test_twins_among_the_class_vectors_share() -> None:
    batch, texts, state = make()
    W = state.W.copy()
    W[1] = W[0]
    found = fitted((batch, texts, State(W=W, S=20 * batch.X @ W.T)))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 0], found[:, 1], atol=1e-9)


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("k=0", "k is 0. It must be from 1 to 1000."),
        ("gamma=0", "gamma is 0.0. It must be above 0, at most 100."),
        ("alpha=1", f"alpha is 1.0. {ALPHA}"),
        ("alpha=0", f"alpha is 0.0. {ALPHA}"),
        ("k=1001", "k is 1001. It must be from 1 to 1000."),
        ("tolerance=1", "tolerance is 1.0. It must be 0 or more, below 1."),
        ("steps=0", "steps is 0. It must be 1 or more."),
        ("present=-1", "present is -1.0. It must be from 0 to 1."),
    ],
)
def test_wrong_parameters_are_named(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(f"zlap[{spec}]", "refine")
    assert str(error.value) == f"cannot use 'zlap': {seen}"
    with pytest.raises(RecipeError, match=r"'inductive'.* or 'sparse'"):
        ZLap(mode="dual")


@pytest.mark.parametrize("gamma", [25.0, 60.0])
def test_tiny_edges_to_the_texts_still_spread(gamma: float) -> None:
    """Cosines of 0.2 to the power of 25 are below any fixed tolerance."""
    batch, texts, state = make(2)
    W = unit(0.2 * state.W + unit(np.random.default_rng(0).standard_normal(16)) * np.sqrt(0.96))
    X = unit(batch.X - 0.5 * batch.X.mean(axis=0))
    S = 20 * X @ W.T
    member = ZLap(gamma=gamma, guard=False, k=3).fit(Batch(X), texts, State(W=W, S=S))
    expected = plain.zlap(X, W, S, gamma=gamma, k=3)
    np.testing.assert_allclose(member.scores_ / 20, expected / 20, atol=1e-5)
    told = member.report()
    assert not told["stepped_back"]
    assert told["unreached"] < 30
    assert np.abs(member.scores_ - log_softmax(S)).max() > 0.1


def test_where_no_text_reaches_an_image_it_says_so() -> None:
    batch, texts, state = make()
    for params in ({}, {"guard": False}):
        member = ZLap(steps=1, **params).fit(batch, texts, state)
        told = member.report()
        assert told["unreached"] == 60
        assert told["stepped_back"]
        assert told["reason"] == "no text reaches any image: too little spreads over the graph"
        np.testing.assert_array_equal(member.apply(batch, texts, state), state.S)
    assert ZLap(k=3).fit(batch, texts, state).report()["unreached"] == 0


def test_a_tenth_without_a_text_is_a_warning() -> None:
    """Images behind all texts, with one another for neighbours."""
    batch, texts, _ = make()
    W = np.hstack([np.eye(4), np.zeros((4, 12))])
    for lost, told in ((5, False), (7, True)):
        X = unit(np.eye(4, 16)[np.arange(60) % 4] + 0.05 * np.abs(batch.X))
        X[:lost] = 0
        X[:lost, 15] = -1
        case = Batch(X), texts, State(W=W, S=20 * X @ W.T)
        for mode in ("transductive", "inductive"):
            report = ZLap(mode=mode, k=3).fit(*case).report()  # type: ignore[arg-type]
            assert report["unreached"] == lost
            assert not report["stepped_back"]
            wanted = f"no text reaches {lost} of 60 images, which keep their scores"
            assert (report.get("warning") == wanted) == told


def test_equal_texts_beyond_the_last_neighbour_keep_their_images() -> None:
    batch, texts, state = make()
    W = state.W[[0, 1, 2, 3, 0, 0]]
    six = replace(texts, vectors=W, class_index=np.arange(6))
    case = batch, six, State(W=W, S=20 * batch.X @ W.T)
    for params in ({"k": 1}, {"k": 2}, {"k": 1, "mode": "inductive"}):
        found = ZLap(guard=False, **params).fit(*case).apply(*case)  # type: ignore[arg-type]
        np.testing.assert_allclose(found[:, 4], found[:, 0], atol=1e-9)
        np.testing.assert_allclose(found[:, 5], found[:, 0], atol=1e-9)
        assert found[:, 0].max() > -2


def test_the_guard_of_later_images_looks_at_ten_neighbours() -> None:
    """With k = 1 the nearest alone would agree."""
    batch, texts, state = make()
    W = np.random.default_rng(3).standard_normal((4, 16))
    case = batch, texts, replace(state, W=W)  # S is right, and the texts are not
    member = ZLap(mode="inductive", k=1).fit(*case)
    assert "neighbours agree less than before" in (member.reason_ or "")
    np.testing.assert_array_equal(member.apply(*case), state.S)
    assert ZLap(mode="inductive", k=1, guard=False).fit(*case).reason_ is None
    _, told = seen_by_guard(ZLap(mode="inductive", k=1), make())
    assert told == 10


def seen_by_guard(member: Any, case: Any) -> tuple[Any, int]:
    """How many neighbours of each image the guard is shown."""
    widths = []
    before = member._look
    member._look = lambda index, *more: (widths.append(index.shape[1]), before(index, *more))
    return member.fit(*case), widths[0]


def test_reference_images_of_another_width_are_refused() -> None:
    batch, texts, state = make()
    with pytest.raises(UsageError, match="reference vectors are 7 wide, the class vectors 16"):
        ZLap(mode="inductive").fit(replace(batch, reference=batch.X[:, :7]), texts, state)


def test_it_answers_nothing_before_it_has_learned() -> None:
    with pytest.raises(UsageError, match="cannot apply 'zlap' to 60 images: it learned from none"):
        ZLap(mode="inductive").apply(*make())


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("clip-rn50", 78.11), ("clip-vit-b-32", 82.79), ("clip-vit-l-14", 89.55)],
)
def test_real_vectors(shared: Path, name: str, wanted: float) -> None:
    task = Task.load(shared / "rs19" / f"{name}.npz")
    texts, batch = task.texts_for("templates"), task.batch()
    pipeline = Pipeline(get_recipe("zlap")).fit(texts, batch)
    S = pipeline.scores(batch)
    assert 100 * (S.argmax(axis=1) == task.labels).mean() == pytest.approx(wanted, abs=0.15)
    few, W = Batch(batch.X[::4]), unit(np.asarray(pipeline.W_))
    plainly = 100 * few.X @ W.T
    found = fitted((few, texts, State(W=W, S=plainly)))
    expected = plain.zlap(few.X, W, plainly)
    np.testing.assert_allclose(found / 100, expected / 100, atol=1e-5)
