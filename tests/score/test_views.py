"""Several views: against loops, what they must be equal to, and each edge."""

from __future__ import annotations

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
from byname.score import views as module
from byname.score.views import Views
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from byname.weigh.mean import Mean
from tests.reference import views as reference

seeds = st.integers(0, 10_000)
Made = tuple[Batch, ClassTexts, State]


def world(seed: int, K: int = 4, N: int = 5, V: int = 3, P: int = 3) -> Made:
    """Vectors in one quarter of space, so that cosines are positive as those of CLIP are."""
    rng = np.random.default_rng(seed)
    index = rng.permutation(np.arange(K * P) % K)
    T = unit(rng.standard_normal((K * P, 6)) + 1)
    views = unit(rng.standard_normal((N, V, 6)) + 1)
    names = Taxonomy.from_names([f"n{k}" for k in range(K)])
    W = unit(np.stack([T[index == k].mean(axis=0) for k in range(K)]))
    X = unit(rng.standard_normal((N, 6)) + 1)
    return Batch(X, views=views), ClassTexts(T, index, names, scale=20.0, bias=-3.0), State(W=W)


def scored(made: Made, **params: Any) -> Any:
    return Views(**params).fit(*made).apply(*made)


def score_of(made: Made, temperature: float = 0.03) -> Any:
    batch, texts, _ = made
    assert batch.views is not None
    return reference.abs_score(
        batch.views, texts.vectors, texts.class_index, texts.n_classes, temperature
    )


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([0.01, 0.03, 0.3, 5.0]), st.integers(1, 4))
def test_soft_matching_is_what_loops_give(seed: int, temperature: float, V: int) -> None:
    made = world(seed, V=V)
    score = score_of(made, temperature)
    S = scored(made, temperature=temperature)
    some = (score > 0).any(axis=1)  # the formula says nothing of others
    expected = reference.as_probability(score)
    np.testing.assert_allclose(softmax(S)[some], expected[some], atol=1e-10)
    assert (S.argmax(axis=1) == score.argmax(axis=1)).all()


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_means_and_maxima_are_what_loops_give(seed: int) -> None:
    made = world(seed)
    views, W = made[0].views, made[2].W
    np.testing.assert_allclose(
        scored(made, method="mean"), reference.mean_of_views(views, W, 20) - 3, atol=1e-10
    )
    np.testing.assert_allclose(
        scored(made, method="max"), reference.best_view(views, W, 20) - 3, atol=1e-10
    )


def test_real_vectors(shared: Path) -> None:
    """Other images of the task stand for views."""
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    texts, batch = task.texts_for("templates"), task.batch()
    W = Mean().fit(batch, texts, State()).apply(batch, texts, State())
    rng = np.random.default_rng(0)
    views = batch.X[rng.integers(0, len(batch.X), (6, 3))]
    made = (replace(batch, X=batch.X[:6], views=views), texts, State(W=W))
    S = scored(made)
    assert S.dtype == np.float32
    np.testing.assert_allclose(softmax(S), reference.as_probability(score_of(made)), atol=1e-5)
    for method, formula in (("mean", reference.mean_of_views), ("max", reference.best_view)):
        found = scored(made, method=method)
        np.testing.assert_allclose(found / 100, formula(views, W, 100) / 100, atol=1e-5)


def test_tiles_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    made = world(1, K=7, N=9, P=5)
    whole = scored(made)
    monkeypatch.setattr(module, "COLUMNS", 8)
    monkeypatch.setattr(module, "ROWS", 5)
    np.testing.assert_allclose(scored(made), whole, atol=1e-10)


def test_one_view_is_that_view() -> None:
    batch, texts, state = world(2, V=1)
    assert batch.views is not None
    plain = 20 * batch.views[:, 0] @ state.W.T - 3
    for method in ("mean", "max"):
        np.testing.assert_allclose(scored((batch, texts, state), method=method), plain, atol=1e-10)
    u = batch.views[:, 0] @ texts.vectors.T / 0.03
    pu = softmax(u) * u
    score = np.stack([pu[:, texts.class_index == k].sum(axis=1) for k in range(4)], axis=1)
    np.testing.assert_allclose(
        softmax(scored((batch, texts, state))), reference.as_probability(score), atol=1e-10
    )


@settings(max_examples=10, deadline=None)
@given(seeds, st.sampled_from(["abs", "mean", "max"]))
def test_the_same_view_again_and_the_order_of_views(seed: int, method: str) -> None:
    batch, texts, state = world(seed)
    assert batch.views is not None
    base = scored((batch, texts, state), method=method)
    twice = replace(batch, views=np.concatenate([batch.views, batch.views[:, ::-1]], axis=1))
    np.testing.assert_allclose(scored((twice, texts, state), method=method), base, atol=1e-8)


@pytest.mark.parametrize("method", ["abs", "mean", "max"])
def test_zero_rows_are_missing_views(method: str) -> None:
    batch, texts, state = world(3)
    assert batch.views is not None
    base = scored((batch, texts, state), method=method)
    more = np.concatenate([np.zeros((5, 2, 6)), batch.views], axis=1)
    found = scored((replace(batch, views=more), texts, state), method=method)
    np.testing.assert_allclose(found, base, atol=1e-10)


@pytest.mark.parametrize("method", ["abs", "mean", "max"])
def test_an_image_without_views_is_its_own(method: str) -> None:
    batch, texts, state = world(4)
    own = scored((replace(batch, views=batch.X[:, None]), texts, state), method=method)
    for none in (np.zeros((5, 3, 6)), np.zeros((5, 0, 6))):
        found = scored((replace(batch, views=none), texts, state), method=method)
        np.testing.assert_allclose(found, own, atol=1e-10)


def test_negative_scores_keep_their_order() -> None:
    """Where all cosines are negative, as an encoder with a bias can have them."""
    batch, texts, state = world(5)
    assert batch.views is not None
    positive = replace(texts, vectors=abs(texts.vectors))
    away = (replace(batch, views=-abs(batch.views)), positive, state)
    score, S = score_of(away), scored(away)
    assert (score < 0).all()
    assert (np.argsort(-S, axis=1) == np.argsort(-score, axis=1)).all()
    mixed = batch.views.copy()
    mixed[:, :, 0] *= -3
    made = (replace(batch, views=unit(mixed)), texts, state)
    order = np.argsort(-score_of(made), axis=1)
    assert (np.argsort(-scored(made), axis=1) == order).all()


def test_texts_of_no_class_and_of_no_weight_are_left_out() -> None:
    batch, texts, state = world(6)
    for weight in (None, np.where(np.arange(12) == 3, 0.0, 0.5)):
        index = texts.class_index.copy()
        if weight is None:
            index[3] = -1
        kept = np.arange(12) != 3
        few = replace(texts, vectors=texts.vectors[kept], class_index=texts.class_index[kept])
        found = scored((batch, replace(texts, class_index=index), replace(state, weight=weight)))
        np.testing.assert_allclose(found, scored((batch, few, state)), atol=1e-10)


def test_views_are_needed_and_must_fit() -> None:
    batch, texts, state = world(0)
    with pytest.raises(NeedsError, match="'views': it needs 'views'"):
        Views().check_needs(Batch(batch.X), texts)
    for wrong in (np.zeros((5, 3, 7)), np.zeros((4, 3, 6)), np.zeros((5, 6))):
        with pytest.raises(EmbeddingsError, match=r"with 'views': the views have the shape"):
            scored((replace(batch, views=wrong), texts, state))


def test_parameters_out_of_range() -> None:
    with pytest.raises(RecipeError) as error:
        get_recipe("views[temperature=0]")
    seen = "cannot use 'views': temperature is 0.0. It must be 0.001 or more."
    assert str(error.value) == seen
    with pytest.raises(RecipeError, match=r"method is 'sum'\. It must be 'abs', 'mean' or"):
        Views(method="sum")
