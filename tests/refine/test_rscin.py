"""RsCIN: against loops, what it never changes, and when it keeps the scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import RecipeError, UsageError
from byname.knn import nearest
from byname.refine.rscin import Rscin, smoothing
from byname.stage import Batch, State, create
from tests.reference import rscin as plain
from tests.refine import cases
from tests.refine.cases import ENCODERS, fitted, scores, top1

MEASURED = {"clip-rn50": 76.62, "clip-vit-b-32": 86.57, "clip-vit-l-14": 90.55}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9999), st.sampled_from([(1,), (2,), (1, 2, 3), (1, 8, 9), (4, 1)]))
def test_loops_agree(seed: int, sizes: Any) -> None:
    case = cases.given(seed, counts=(12, 9, 15), noise=0.5)
    S = scores(Rscin, case, k=";".join(map(str, sizes)), guard=False)
    expected = plain.rscin(case[0].X, case[2].S, sizes)
    np.testing.assert_allclose(S / 20, expected / 20, atol=1e-5)


def test_one_image_is_the_score_itself() -> None:
    case = cases.given(0)
    np.testing.assert_array_equal(scores(Rscin, case, k="1"), case[2].S)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9999), st.floats(0.1, 10), st.floats(-50, 50))
def test_scaling_the_whole_matrix_passes_through(seed: int, factor: float, shift: float) -> None:
    """Which is why the minimum and maximum of the published form are not needed."""
    batch, texts, state = case = cases.given(seed, dtype=np.float64)
    moved = replace(state, S=factor * state.S + shift)  # type: ignore[operator]
    S = scores(Rscin, case, guard=False)
    other = scores(Rscin, (batch, texts, moved), guard=False)
    np.testing.assert_allclose(other, factor * S + shift, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9999))
def test_rows_of_the_graph_sum_to_one(seed: int) -> None:
    batch = cases.given(seed, noise=1.0)[0]
    P = smoothing(*nearest(batch.X, 8), (1, 8, 9))
    np.testing.assert_allclose(np.asarray(P.sum(axis=1)).ravel(), 1, atol=1e-12)
    assert P.data.min() >= 0
    assert (P.diagonal() >= 1 / 3).all()


def test_what_moves_has_to_agree_with_its_neighbours() -> None:
    """Each of four images has all others for neighbours: nothing speaks for the one that moves."""
    X = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    S = np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    case = Batch(X), cases.given(0)[1], State(S=S)
    member = fitted(Rscin, case, k="1;2")
    assert "25% of the answers changed, and neighbours hardly agree more" in member.reason_
    np.testing.assert_array_equal(member.apply(*case), S)
    assert scores(Rscin, case, k="1;2", guard=False)[1].tolist() == [0.75, 0.75]


def test_pieces_do_not_mix() -> None:
    batch, texts, state, true = cases.clusters(1, noise=1e-3)
    near = nearest(batch.X, 8)[0]
    assert (true[near] == true[:, None]).all()
    S = state.S + np.where(true == 0, 5, 0)[:, None]
    a = scores(Rscin, (batch, texts, replace(state, S=S)))
    b = scores(Rscin, (batch, texts, state))
    np.testing.assert_allclose((a - b)[true == 0], 5, atol=1e-4)
    np.testing.assert_allclose((a - b)[true > 0], 0, atol=1e-4)


def test_a_class_that_cannot_be_stays_so() -> None:
    batch, texts, state = cases.given(2)
    S = state.S.copy()  # type: ignore[union-attr]
    S[:, 1] = -np.inf
    found = scores(Rscin, (batch, texts, replace(state, S=S)))
    assert not np.isnan(found).any()
    assert np.isneginf(found[:, 1]).all()


def test_it_steps_back_where_classes_are_small() -> None:
    case = cases.given(3, counts=(5,) * 6)
    told = fitted(Rscin, case).report()
    assert told["stepped_back"]
    assert "30 images over some" in told["reason"]
    assert "fewer than 9 each" in told["reason"]
    np.testing.assert_array_equal(scores(Rscin, case), case[2].S)
    assert not fitted(Rscin, case, k="1;2;3").report()["stepped_back"]
    few = fitted(Rscin, cases.given(0, counts=(2, 2, 2))).report()
    assert few["reason"] == "there are 6 images, and it looks at 9 together"


def test_of_no_images_the_scores_are_none() -> None:
    batch, texts, state = cases.given(4)
    member = Rscin().fit(batch, texts, state)
    empty = replace(state, S=state.S[:0])  # type: ignore[index]
    assert member.apply(Batch(batch.X[:0]), texts, empty).shape == (0, 4)


@pytest.mark.parametrize("name", cases.BAD)
@pytest.mark.parametrize("params", [{}, {"guard": False, "k": "1;2"}])
def test_bad_input(name: str, params: dict[str, Any]) -> None:
    cases.survives(Rscin, name, **params)


def test_nan_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot run 'rscin': row 7 holds NaN"):
        fitted(Rscin, cases.poisoned())


@pytest.mark.parametrize("k", ["0", "1;x", "", "-3"])
def test_wrong_parameters_are_named(k: str) -> None:
    with pytest.raises(RecipeError) as error:
        Rscin(k=k)
    wanted = f"cannot use 'rscin': k is {k!r}. Give numbers of 1 or more, such as '1;8;9'."
    assert str(error.value) == wanted
    assert create("rscin[k=1;2;3]").params.sizes == (1, 2, 3)


@pytest.mark.parametrize("name", ENCODERS)
def test_real_vectors(shared: Path, name: str) -> None:
    batch, texts, state, true = cases.real(shared, name)
    member = Rscin().fit(batch, texts, state)
    assert not member.report()["stepped_back"]
    assert top1(member.apply(batch, texts, state), true) == pytest.approx(MEASURED[name], abs=0.1)
    few = Batch(batch.X[::6]), texts, replace(state, S=state.S[::6])  # type: ignore[index]
    found = scores(Rscin, few, guard=False)
    expected = plain.rscin(few[0].X, few[2].S, (1, 8, 9))
    np.testing.assert_allclose(found / 100, expected / 100, atol=1e-5)


def test_opposite_images_count_nothing() -> None:
    P = smoothing(np.array([[1], [0]]), np.array([[-0.5], [-0.5]]), (2,)).toarray()
    np.testing.assert_array_equal(P, np.eye(2))


@pytest.mark.parametrize(("n", "small"), [(8, True), (10, False)])
def test_classes_must_be_as_large_as_the_largest_neighbourhood(n: int, small: bool) -> None:
    reason = fitted(Rscin, cases.given(3, counts=(n,) * 6, noise=0.05, bias=0.05)).reason_
    assert ("fewer than 9 each" in (reason or "")) == small


def test_a_number_alone_and_digits_that_are_none() -> None:
    assert Rscin(k=8).params == Rscin(k="8").params
    assert Rscin(k=8).params.sizes == (8,)
    with pytest.raises(RecipeError, match="k is '²'"):
        create("rscin[k=²]", "refine")
