"""CARPRT: against loops and measured figures, its identities, and its edge cases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import NeedsError, RecipeError
from byname.margins import pseudo_labels
from byname.ops import unit
from byname.recipes import get_recipe
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.weigh.carprt import Carprt
from byname.weigh.mean import Mean
from byname.weigh.mean_similarity import MeanSimilarity
from tests.reference.carprt import carprt
from tests.weigh.test_cpe import texts_of, with_own, world

seeds = st.integers(0, 10_000)
SCALE = 20.0


def fitted(batch: Batch, texts: ClassTexts, **params: Any) -> tuple[Carprt, Any]:
    member = Carprt(**params).fit(batch, texts, State())
    return member, member.apply(batch, texts, State())


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from(["prompt", "zero"]), st.sampled_from([0.3, 1.0, 5.0]))
def test_loops_agree(seed: int, empty: Any, temperature: float) -> None:
    batch, Z = world(seed, P=5, K=6, N=12)
    member, W = fitted(batch, texts_of(Z, scale=SCALE), empty=empty, temperature=temperature)
    w, expected = carprt(batch.X, Z, SCALE, empty=empty, temperature=temperature)
    np.testing.assert_allclose(member.class_weight_, w, atol=1e-8)
    np.testing.assert_allclose(W, expected, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "row", "default"),
    [
        ("clip-rn50", (74.43, 28.6), (74.13, 27.0)),
        ("clip-vit-b-32", (83.28, 47.4), (83.28, 47.4)),
        ("clip-vit-l-14", (88.06, 49.9), (88.06, 49.9)),
    ],
)
def test_real_vectors(
    shared: Path, name: str, row: tuple[float, float], default: tuple[float, float]
) -> None:
    task = Task.load(shared / "rs19" / f"{name}.npz")
    texts, batch = task.texts_for("templates"), task.batch()
    ways: list[tuple[Literal["zero", "prompt"], tuple[float, float]]]
    ways = [("zero", row), ("prompt", default)]
    for empty, wanted in ways:
        _, W = fitted(batch, texts, empty=empty)
        right = pseudo_labels(batch.X, W) == task.labels
        worst = np.sort([right[task.labels == k].mean() for k in range(19)])[:3].mean()
        assert (100 * right.mean(), 100 * worst) == pytest.approx(wanted, abs=0.1)
        few = Batch(batch.X[::20])
        member, W = fitted(few, texts_of(task.texts[::12], scale=100.0), empty=empty)
        w, expected = carprt(few.X, task.texts[::12], 100.0, empty=empty, temperature=1.0)
        np.testing.assert_allclose(member.class_weight_, w, atol=2e-5)
        np.testing.assert_allclose(W, expected, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seeds, st.booleans())
def test_weights_sum_to_one_and_the_order_of_classes_is_nothing(seed: int, own: bool) -> None:
    batch, Z = world(seed)
    order = np.random.default_rng(seed).permutation(5)
    texts = texts_of(Z, scale=SCALE)
    member, W = fitted(batch, texts)
    _, other = fitted(batch, texts_of(Z[:, order], scale=SCALE))
    np.testing.assert_allclose(other, W[order], atol=1e-9)
    texts = with_own(texts, Z[0, :2], 1) if own else texts
    member, _ = fitted(batch, texts)
    np.testing.assert_allclose(np.bincount(texts.class_index, member.weight_), 1, atol=1e-12)
    assert 1 <= member.effective_prompts_ <= 4 + 1e-9
    assert (member.hits_.sum(axis=1) == len(batch)).all()


def test_an_infinite_temperature_is_the_mean_exactly() -> None:
    batch, Z = world(1)
    texts = texts_of(Z, weight=np.random.default_rng(0).uniform(0.5, 2, 20), scale=SCALE)
    for unit_rows, member in ((False, MeanSimilarity()), (True, Mean())):
        _, W = fitted(batch, texts, temperature=np.inf, unit=unit_rows)
        expected = member.fit(batch, texts, State()).apply(batch, texts, State())
        np.testing.assert_array_equal(W, expected)


def unseen(seed: int = 0) -> tuple[Batch, Any]:
    """Class 4 lies opposite to the images in all templates."""
    batch, Z = world(seed)
    Z[:, 4] = -unit(batch.X.mean(axis=0))
    return batch, Z


def test_a_class_that_no_template_predicts() -> None:
    batch, Z = unseen()
    member, _ = fitted(batch, texts_of(Z, scale=SCALE))
    assert (member.hits_[:, 4] == 0).all()
    best = SCALE * np.einsum("id,pkd->pik", batch.X, Z).max(axis=2).mean(axis=1)
    np.testing.assert_allclose(member.score_[:, 4], best, atol=1e-9)
    told = member.report()
    assert told["never_predicted"] == ["c4"]
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    published, _ = fitted(batch, texts_of(Z, scale=SCALE), empty="zero")
    np.testing.assert_allclose(published.class_weight_[:, 4], 0.25)


def test_a_cell_that_no_image_hits() -> None:
    batch, Z = world(3)
    Z[2, 1] = -unit(batch.X.mean(axis=0))
    published, _ = fitted(batch, texts_of(Z, scale=SCALE), empty="zero")
    assert published.hits_[2, 1] == 0 < published.hits_[:, 1].sum()
    assert published.class_weight_[2, 1] < 1e-3, "hardly any weight"
    member, _ = fitted(batch, texts_of(Z, scale=SCALE))
    assert member.class_weight_[2, 1] > 0.05, "the score of the template as a whole"


def test_the_bias_of_the_encoder_changes_nothing() -> None:
    batch, Z = unseen()
    for empty in ("prompt", "zero"):
        _, W = fitted(batch, texts_of(Z, scale=SCALE), empty=empty)
        _, other = fitted(batch, texts_of(Z, scale=SCALE, bias=-40.0), empty=empty)
        np.testing.assert_array_equal(W, other)


@pytest.mark.parametrize("scale", [1e300, 1e308])
@pytest.mark.parametrize("temperature", [1.0, 1e-6, np.inf])
def test_no_scale_is_too_large(scale: float, temperature: float) -> None:
    batch, Z = world(4, N=60)
    member, _ = fitted(batch, texts_of(Z, scale=scale), temperature=temperature)
    w = member.class_weight_
    if temperature == np.inf:
        np.testing.assert_array_equal(w, 0.25)
    else:
        expected, _ = fitted(batch, texts_of(Z, scale=1e9))
        np.testing.assert_allclose(w, expected.class_weight_, atol=1e-12)


@pytest.mark.parametrize("empty", ["prompt", "zero"])
def test_classes_of_the_same_texts_share_their_images(empty: Any) -> None:
    batch, Z = world(3, K=3)
    twice = Z[:, [0, 1, 2, 1]]
    member, W = fitted(batch, texts_of(twice, scale=SCALE), empty=empty)
    alone, _ = fitted(batch, texts_of(Z, scale=SCALE), empty=empty)
    assert alone.hits_[:, 1].min() > 0
    np.testing.assert_allclose(member.hits_[:, 1], member.hits_[:, 3])
    np.testing.assert_allclose(member.hits_[:, 1] * 2, alone.hits_[:, 1])
    np.testing.assert_allclose(member.class_weight_[:, :3], alone.class_weight_)
    np.testing.assert_allclose(W[1], W[3])
    other, _ = fitted(batch, texts_of(twice[:, ::-1], scale=SCALE), empty=empty)
    np.testing.assert_allclose(other.class_weight_[:, ::-1], member.class_weight_)


@pytest.mark.parametrize("value", [None, "a", True])
def test_a_temperature_of_another_kind(value: Any) -> None:
    with pytest.raises(RecipeError, match=r"temperature=.* does not fit"):
        Carprt(temperature=value)


def test_without_images_the_weights_are_equal() -> None:
    batch, Z = world(6)
    assert Carprt().report() == {}
    member, _ = fitted(Batch(batch.X[:0]), texts_of(Z))
    np.testing.assert_allclose(member.weight_, 0.25)


def test_texts_of_one_class_and_missing_templates() -> None:
    batch, Z = world(9)
    own = unit(np.random.default_rng(0).standard_normal((1, 12)))
    texts = with_own(texts_of(Z, scale=SCALE), own, 1)
    keep = np.arange(21) != 6  # class 1 lacks template 2
    assert texts.prompt_index is not None
    cut = replace(
        texts,
        vectors=texts.vectors[keep],
        class_index=texts.class_index[keep],
        prompt_index=texts.prompt_index[keep],
    )
    filled = Z.copy()
    filled[2, 1] = unit(np.vstack([np.delete(Z[:, 1], 2, axis=0), own]).mean(axis=0))
    w, _ = carprt(batch.X, filled, SCALE, empty="prompt", temperature=1.0)
    member, _ = fitted(batch, cut)
    np.testing.assert_allclose(member.class_weight_, w, atol=1e-9)
    assert member.weight_[-1] == pytest.approx(1 / 4), "its share of the class stays"
    left = np.delete(w[:, 1], 2)
    np.testing.assert_allclose(member.weight_[4:7], 0.75 * left / left.sum(), atol=1e-9)


def test_more_templates_than_a_tile_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, Z = world(5, P=7)
    texts = texts_of(Z, scale=SCALE)
    _, whole = fitted(batch, texts)
    monkeypatch.setattr("byname.weigh.grid.COLUMNS", 10)
    monkeypatch.setattr("byname.weigh.carprt._TILE", 70)
    np.testing.assert_allclose(fitted(batch, texts)[1], whole, atol=1e-9)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("carprt[temperature=0]", "temperature is 0.0. Give a number above 0."),
        ("carprt[empty=one]", "empty='one' does not fit"),
    ],
)
def test_wrong_parameters_are_named(spec: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        get_recipe(spec)
    with pytest.raises(RecipeError, match=r"empty is 'one'\. Known: prompt, zero\."):
        Carprt(empty="one")
    batch, Z = world(13)
    with pytest.raises(NeedsError, match="'carprt': no text is a template that classes share"):
        fitted(batch, replace(texts_of(Z), prompt_index=np.full(20, -1)))


def test_the_recipe() -> None:
    assert get_recipe("carprt[empty=zero]").create("weigh").params.empty == "zero"
