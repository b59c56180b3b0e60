"""Agreement over views: against loops, what it must be equal to, and each edge."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import EmbeddingsError, NeedsError, RecipeError
from byname.ops import softmax, unit
from byname.recipes import get_recipe
from byname.score import pcs as module
from byname.score.pcs import Pcs
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from byname.weigh.mean import Mean
from tests.reference import views as reference

seeds = st.integers(0, 10_000)
Made = tuple[Batch, ClassTexts, State]


def world(seed: int, K: int = 4, N: int = 9, V: int = 5) -> Made:
    rng = np.random.default_rng(seed)
    W, X = unit(rng.standard_normal((K, 6))), unit(rng.standard_normal((N, 6)))
    views = unit(X[:, None] + 0.4 * rng.standard_normal((N, V, 6)))
    views[rng.random((N, V)) < 0.2] = 0
    names = Taxonomy.from_names([f"n{k}" for k in range(K)])
    return Batch(X, views=views), ClassTexts(W, np.arange(K), names, scale=10.0), State(W=W)


def shares(made: Made, **params: Any) -> Any:
    return softmax(Pcs(**params).fit(*made).apply(*made))


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 6), st.integers(0, 6))
def test_votes_are_what_loops_count(seed: int, K: int, V: int) -> None:
    made = world(seed, K, V=V)
    batch, _, state = made
    np.testing.assert_allclose(
        shares(made), reference.votes(batch.X, batch.views, state.W), atol=1e-9
    )


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([0.1, 0.5, 0.7, 1.0]))
def test_the_surest_views_are_what_loops_average(seed: int, keep: float) -> None:
    made = world(seed)
    batch, _, state = made
    wanted = reference.surest(batch.X, batch.views, state.W, 10, keep)
    np.testing.assert_allclose(shares(made, soft=True, keep=keep), wanted, atol=1e-9)


def test_real_vectors(shared: Path) -> None:
    """The nearest other images of the task stand for views."""
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    texts, batch = task.texts_for("templates"), task.batch()
    W = Mean().fit(batch, texts, State()).apply(batch, texts, State())
    X = batch.X[::20]
    views = batch.X[np.argsort(-X @ batch.X.T, axis=1)[:, 1:6]]
    made = (Batch(X, views=views), texts, State(W=W))
    found = Pcs().apply(*made)
    assert found.dtype == np.float32
    np.testing.assert_allclose(softmax(found), reference.votes(X, views, W), atol=1e-5)
    wanted = reference.surest(X, views, W, 100, 0.5)
    np.testing.assert_allclose(shares(made, soft=True), wanted, atol=1e-5)


def test_identical_views_agree() -> None:
    batch, texts, state = world(1)
    same = (replace(batch, views=np.repeat(batch.X[:, None], 7, axis=1)), texts, state)
    S = Pcs().apply(*same)
    np.testing.assert_array_equal(S.max(axis=1), 0.0)
    assert Pcs().details(*same) == {"agreement": [1.0] * 9}
    plain = softmax(10 * batch.X @ state.W.T)
    assert (S.argmax(axis=1) == plain.argmax(axis=1)).all()
    np.testing.assert_allclose(shares(same, soft=True), plain, atol=1e-9)


def test_without_views_the_image_alone_votes() -> None:
    batch, texts, state = world(2)
    for none in (np.zeros((9, 4, 6)), np.zeros((9, 0, 6))):
        made = (replace(batch, views=none), texts, state)
        np.testing.assert_array_equal(Pcs().apply(*made).max(axis=1), 0.0)


def test_nothing_that_votes_is_no_opinion() -> None:
    batch, texts, state = world(3)
    X = batch.X.copy()
    X[0] = 0
    assert batch.views is not None
    views = batch.views.copy()
    views[0] = 0
    for soft in (False, True):
        found = shares((Batch(X, views=views), texts, state), soft=soft)
        np.testing.assert_allclose(found[0], 0.25, atol=1e-9)
        np.testing.assert_allclose(found[1:], shares((batch, texts, state), soft=soft)[1:])


def test_an_image_whose_own_vector_is_zero_leaves_it_to_its_views() -> None:
    batch, texts, state = world(4)
    X = batch.X.copy()
    X[0] = 0
    wanted = reference.votes(X, batch.views, state.W)
    found = shares((replace(batch, X=X), texts, state))
    np.testing.assert_allclose(found, wanted, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(seeds, st.booleans())
def test_the_order_of_views_does_not_matter(seed: int, soft: bool) -> None:
    batch, texts, state = world(seed)
    assert batch.views is not None
    other = replace(batch, views=batch.views[:, ::-1])
    found = shares((other, texts, state), soft=soft)
    np.testing.assert_allclose(found, shares((batch, texts, state), soft=soft), atol=1e-12)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    made = world(5)
    whole = Pcs(soft=True).apply(*made)
    monkeypatch.setattr(module, "CELLS", 50)
    np.testing.assert_allclose(Pcs(soft=True).apply(*made), whole, atol=1e-12)


def test_details_are_the_share_of_the_answer() -> None:
    made = world(6)
    told = json.loads(json.dumps(Pcs().details(*made)))
    np.testing.assert_allclose(told["agreement"], shares(made).max(axis=1), atol=1e-9)


def test_views_are_needed_and_must_fit() -> None:
    batch, texts, state = world(0)
    with pytest.raises(NeedsError, match="'pcs': it needs 'views'"):
        Pcs().check_needs(Batch(batch.X), texts)
    wrong = (replace(batch, views=np.zeros((9, 5, 7))), texts, state)
    with pytest.raises(EmbeddingsError, match=r"with 'pcs': the views have the shape \(9, 5, 7\)"):
        Pcs().apply(*wrong)


@pytest.mark.parametrize("keep", ["0", "1.5", "nan"])
def test_parameters_out_of_range(keep: str) -> None:
    with pytest.raises(RecipeError) as error:
        get_recipe(f"pcs[keep={keep}]")
    assert str(error.value) == f"cannot use 'pcs': keep is {float(keep)}. Give a share up to 1."
