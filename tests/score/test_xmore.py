"""X-MoRe: against loops, what it must be equal to, and each edge."""

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
from byname.score.xmore import Xmore
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from byname.weigh.mean import Mean
from tests.reference.xmore import xmore

seeds = st.integers(0, 10_000)
Made = tuple[Batch, ClassTexts, State]


def world(seed: int, K: int = 4, N: int = 9, J: int = 5, scale: float = 10.0) -> Made:
    """Every image has a number of captions of its own, the third none."""
    rng = np.random.default_rng(seed)
    W, X = unit(rng.standard_normal((K, 6))), unit(rng.standard_normal((N, 6)))
    captions = unit(rng.standard_normal((N, J, 6)))
    captions[rng.random((N, J)) < 0.3] = 0
    captions[2:3] = 0
    names = Taxonomy.from_names([f"n{k}" for k in range(K)])
    texts = ClassTexts(W, np.arange(K), names, scale=scale)
    return Batch(X, captions=captions), texts, State(W=W)


def scored(made: Made, **params: Any) -> Any:
    return softmax(Xmore(**params).fit(*made).apply(*made))


def expected(made: Made, **params: Any) -> Any:
    batch, texts, state = made
    return xmore(batch.X, batch.captions, state.W, scale=texts.scale, **params)[0]


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([1, 2, 3, 16]), st.booleans())
def test_loops_agree(seed: int, top: int, parity: bool) -> None:
    made = world(seed)
    np.testing.assert_allclose(
        scored(made, top=top, parity=parity), expected(made, top=top, parity=parity), atol=1e-10
    )


@pytest.mark.parametrize("parity", [False, True])
def test_real_vectors(shared: Path, parity: bool) -> None:
    """Texts of the classes of other images stand for captions."""
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    texts, batch = task.texts_for("templates"), task.batch()
    W = Mean().fit(batch, texts, State()).apply(batch, texts, State())
    rng = np.random.default_rng(0)
    captions = texts.vectors[rng.integers(0, len(texts.vectors), (60, 20))]
    made = (replace(batch, X=batch.X[:60], captions=captions), texts, State(W=W))
    found = scored(made, parity=parity)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(made, parity=parity), atol=1e-5)


@pytest.mark.parametrize("parity", [False, True])
def test_without_captions_the_image_alone_answers(parity: bool) -> None:
    batch, texts, state = world(1)
    plain = softmax(10 * batch.X @ state.W.T)
    found = scored((batch, texts, state), parity=parity)
    np.testing.assert_allclose(found[2], plain[2], atol=1e-12)
    none = replace(batch, captions=np.zeros((9, 5, 6)))
    np.testing.assert_allclose(scored((none, texts, state), parity=parity), plain, atol=1e-12)
    no_places = replace(batch, captions=np.zeros((9, 0, 6)))
    np.testing.assert_allclose(scored((no_places, texts, state), parity=parity), plain, atol=1e-12)


def test_images_without_captions_change_nothing_for_the_others() -> None:
    batch, texts, state = world(2)
    assert batch.captions is not None
    kept = batch.captions.any(axis=(1, 2))
    fewer = replace(batch, X=batch.X[kept], captions=batch.captions[kept])
    for parity in (False, True):
        found = scored((batch, texts, state), parity=parity)[kept]
        np.testing.assert_allclose(found, scored((fewer, texts, state), parity=parity), atol=1e-12)


def test_one_class_is_certain() -> None:
    """log C = 0."""
    for parity in (False, True):
        np.testing.assert_array_equal(scored(world(3, K=1), parity=parity), np.ones((9, 1)))


def test_in_a_stream_the_first_image_has_the_weights_one_and_one() -> None:
    batch, texts, state = world(4)
    assert batch.captions is not None
    found = scored((batch, texts, state), parity=True)[0]
    told = [softmax(10 * state.W @ c) for c in batch.captions[0] if c.any()]
    image = softmax(10 * state.W @ batch.X[0])
    np.testing.assert_allclose(found, (image + np.mean(told, axis=0)) / 2, atol=1e-12)


def test_only_the_published_rule_depends_on_the_order() -> None:
    batch, texts, state = world(5)
    assert batch.captions is not None
    other = replace(batch, X=batch.X[::-1], captions=batch.captions[::-1])
    np.testing.assert_allclose(
        scored((other, texts, state))[::-1], scored((batch, texts, state)), atol=1e-12
    )
    backwards = scored((other, texts, state), parity=True)[::-1]
    assert np.abs(backwards - scored((batch, texts, state), parity=True)).max() > 1e-3
    assert Xmore().inductive
    assert not Xmore(parity=True).inductive


def test_the_means_are_those_of_fit() -> None:
    made, new = world(6), world(7)
    member = Xmore().fit(*made)
    assert made[0].captions is not None
    _, means = xmore(made[0].X, made[0].captions, made[2].W, scale=10.0)
    assert (member.alpha_, member.beta_) == pytest.approx(means)
    batch = new[0]
    found = softmax(member.apply(batch, *made[1:]))
    wanted, _ = xmore(batch.X, batch.captions, made[2].W, scale=10.0, fitted=means)
    np.testing.assert_allclose(found, wanted, atol=1e-10)


def test_the_nearest_captions_count() -> None:
    batch, texts, state = world(8)
    captions = np.stack([-batch.X, batch.X, 0.5 * batch.X], axis=1)
    near = scored((replace(batch, captions=captions), texts, state), top=1)
    np.testing.assert_allclose(near, softmax(10 * batch.X @ state.W.T), atol=1e-12)


def test_identical_texts_and_no_certainty_at_all() -> None:
    batch, texts, state = world(9)
    same = State(W=np.repeat(state.W[:1], 4, axis=0))
    for parity in (False, True):
        np.testing.assert_allclose(scored((batch, texts, same), parity=parity), 0.25, atol=1e-9)


def test_details_and_report() -> None:
    batch, texts, state = world(10)
    member = Xmore(top=2)
    assert member.report() == {}
    member.fit(batch, texts, state)
    told = json.loads(json.dumps(member.report()))
    assert 0 < told["certainty_of_images"] < 1
    assert told["certainty_of_captions"] == member.beta_
    about = json.loads(json.dumps(member.details(batch, texts, state)))
    assert batch.captions is not None
    counts = np.minimum(batch.captions.any(axis=2).sum(axis=1), 2)
    assert about["captions"] == counts.tolist()
    assert [v is None for v in about["certainty_captions"]] == (counts == 0).tolist()
    used = [a for a, n in zip(about["certainty_image"], counts, strict=True) if n]
    assert np.mean(used) == pytest.approx(member.alpha_)


def test_captions_are_needed_and_must_fit() -> None:
    batch, texts, state = world(0)
    with pytest.raises(NeedsError, match="'xmore': it needs 'captions'"):
        Xmore().check_needs(Batch(batch.X), texts)
    for wrong in (np.zeros((9, 5, 7)), np.zeros((8, 5, 6)), np.zeros((9, 6))):
        with pytest.raises(EmbeddingsError, match=r"captions have the shape .*Give vectors"):
            scored((replace(batch, captions=wrong), texts, state))


def test_parameters_out_of_range() -> None:
    with pytest.raises(RecipeError) as error:
        get_recipe("xmore[top=0]")
    assert str(error.value) == "cannot use 'xmore': top is 0. Give 1 or more captions."
