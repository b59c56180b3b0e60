"""Late interaction: against loops, what it must be equal to, and each edge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import EmbeddingsError, NeedsError, RecipeError
from byname.ops import unit
from byname.recipes import get_recipe
from byname.score import filip as module
from byname.score.cosine import Cosine
from byname.score.filip import Filip
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from byname.weigh.mean_similarity import MeanSimilarity
from tests.reference.filip import filip

seeds = st.integers(0, 10_000)
ways = st.sampled_from(["i2t", "t2i", "both"])
Made = tuple[Batch, ClassTexts, State]


def world(seed: int, K: int = 3, N: int = 5, T: int = 4, L: int = 3, P: int = 2) -> Made:
    """Tokens of any length, some of them padding; the first image and text have none."""
    rng = np.random.default_rng(seed)
    index = rng.permutation(np.arange(K * P) % K)
    tokens, words = rng.standard_normal((N, T, 6)), rng.standard_normal((K * P, L, 6))
    tokens[rng.random((N, T)) < 0.2] = 0
    words[rng.random((K * P, L)) < 0.2] = 0
    tokens[0] = words[0] = 0
    X, vectors = unit(rng.standard_normal((N, 6))), unit(rng.standard_normal((K * P, 6)))
    names = Taxonomy.from_names([f"n{k}" for k in range(K)])
    weight = rng.uniform(0.5, 2, K * P)
    texts = ClassTexts(
        vectors, index, names, text_tokens=words, weight=weight, scale=20.0, bias=-1.0
    )
    return Batch(X, tokens=tokens), texts, State()


def scored(made: Made, **params: Any) -> Any:
    return Filip(**params).fit(*made).apply(*made)


def expected(made: Made, direction: str, weight: Any = None) -> Any:
    batch, texts, _ = made
    weight = texts.weight if weight is None else weight
    cosines = filip(
        batch.X, batch.tokens, texts.vectors, texts.text_tokens, texts.class_index, weight,
        texts.n_classes, direction,
    )  # fmt: skip
    return texts.scale * cosines + texts.bias


@settings(max_examples=25, deadline=None)
@given(seeds, ways)
def test_loops_agree(seed: int, direction: str) -> None:
    made = world(seed)
    np.testing.assert_allclose(
        scored(made, direction=direction), expected(made, direction), atol=1e-9
    )


@pytest.mark.parametrize("direction", ["i2t", "t2i", "both"])
def test_real_vectors(shared: Path, direction: str) -> None:
    """Images of the task stand for patches, texts of a class for words."""
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    texts, batch = task.texts_for("templates"), task.batch()
    first = np.flatnonzero(texts.prompt_index == 0)
    words = np.stack([texts.vectors[texts.class_index == k][:5] for k in range(19)])
    few = ClassTexts(
        texts.vectors[first], texts.class_index[first], texts.taxonomy, text_tokens=words,
        weight=np.ones(19), scale=100.0,
    )  # fmt: skip
    tokens = batch.X[np.random.default_rng(0).integers(0, len(batch.X), (12, 7))]
    made = (Batch(batch.X[:12], tokens=tokens), few, State())
    found = scored(made, direction=direction)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found / 100, expected(made, direction) / 100, atol=1e-5)


@pytest.mark.parametrize("direction", ["i2t", "t2i", "both"])
def test_one_token_each_is_the_cosine(direction: str) -> None:
    batch, texts, _ = world(1)
    one = (
        replace(batch, tokens=3 * batch.X[:, None]),
        replace(texts, text_tokens=0.5 * texts.vectors[:, None]),
        State(),
    )
    weigh = MeanSimilarity().fit(*one)
    plain = Cosine().apply(batch, texts, State(W=weigh.apply(*one)))
    np.testing.assert_allclose(scored(one, direction=direction), plain, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(seeds, ways)
def test_padding_and_the_order_of_tokens_do_not_matter(seed: int, direction: str) -> None:
    batch, texts, state = world(seed)
    assert batch.tokens is not None
    assert texts.text_tokens is not None
    longer = np.concatenate([np.zeros((5, 2, 6)), batch.tokens[:, ::-1]], axis=1)
    words = np.concatenate([texts.text_tokens[:, ::-1], np.zeros((6, 3, 6))], axis=1)
    other = (replace(batch, tokens=longer), replace(texts, text_tokens=words), state)
    np.testing.assert_allclose(
        scored(other, direction=direction),
        scored((batch, texts, state), direction=direction),
        atol=1e-9,
    )


def test_negative_similarities_are_not_raised_to_the_zero_of_padding() -> None:
    batch, texts, state = world(2, K=1, N=1, P=1)
    tokens, words = np.zeros((1, 3, 6)), np.zeros((1, 2, 6))
    tokens[0, 0], words[0, 1] = texts.vectors[0], -texts.vectors[0]
    made = (replace(batch, tokens=tokens), replace(texts, text_tokens=words), state)
    for direction in ("i2t", "t2i", "both"):
        np.testing.assert_allclose(scored(made, direction=direction), [[-21.0]], atol=1e-9)


def test_the_directions_are_each_others_mirror() -> None:
    """Texts as images and images as texts, one of each class."""
    batch, texts, state = world(3, K=5, P=1)
    index = np.arange(5)
    straight = (batch, replace(texts, class_index=index, bias=0.0), state)
    mirror = (
        Batch(texts.vectors, tokens=texts.text_tokens),
        replace(texts, vectors=batch.X, text_tokens=batch.tokens, class_index=index, bias=0.0),
        state,
    )
    np.testing.assert_allclose(
        scored(straight, direction="t2i"), scored(mirror, direction="i2t").T, atol=1e-9
    )


@pytest.mark.parametrize("direction", ["i2t", "t2i", "both"])
def test_tiles_do_not_matter(direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = world(4, K=4, P=3)
    whole = scored(made, direction=direction)
    monkeypatch.setattr(module, "COLUMNS", 7)
    monkeypatch.setattr(module, "ROWS", 9)
    np.testing.assert_allclose(scored(made, direction=direction), whole, atol=1e-9)


def test_weights_of_the_weigh_stage_count() -> None:
    batch, texts, _ = world(5)
    weight = np.random.default_rng(0).uniform(0.1, 1, 6)
    weight[np.flatnonzero(texts.class_index == 1)[0]] = 0
    made = (batch, texts, State(weight=weight))
    np.testing.assert_allclose(scored(made), expected(made, "i2t", weight), atol=1e-9)


def test_a_class_without_texts_that_count() -> None:
    batch, texts, _ = world(6)
    weight = np.where(texts.class_index == 2, 0.0, 1.0)
    found = scored((batch, texts, State(weight=weight)))
    np.testing.assert_array_equal(found[:, 2], -21.0)  # a cosine of -1
    assert (found[:, :2] > -21).all()


def test_no_places_for_tokens_are_the_vectors_alone() -> None:
    batch, texts, state = world(7)
    empty = (
        replace(batch, tokens=np.zeros((5, 0, 6))),
        replace(texts, text_tokens=np.zeros((6, 0, 6))),
        state,
    )
    one = (
        replace(batch, tokens=batch.X[:, None]),
        replace(texts, text_tokens=texts.vectors[:, None]),
        state,
    )
    np.testing.assert_allclose(scored(empty), scored(one), atol=1e-9)


def test_tokens_are_needed_and_must_fit() -> None:
    batch, texts, state = world(0)
    with pytest.raises(NeedsError, match="'filip': it needs 'text_tokens'"):
        Filip().check_needs(batch, replace(texts, text_tokens=None))
    with pytest.raises(NeedsError, match="'filip': it needs 'tokens'"):
        Filip().check_needs(Batch(batch.X), texts)
    with pytest.raises(EmbeddingsError, match=r"tokens of the images have the shape \(5, 4, 7\)"):
        scored((replace(batch, tokens=np.zeros((5, 4, 7))), texts, state))
    with pytest.raises(EmbeddingsError, match=r"tokens of the texts have the shape \(2, 3, 6\)"):
        scored((batch, replace(texts, text_tokens=np.zeros((2, 3, 6))), state))


def test_an_unknown_direction_is_named() -> None:
    with pytest.raises(RecipeError, match=r"direction is 'x'. It must be 'i2t', 't2i' or 'both'\."):
        Filip(direction="x")
    with pytest.raises(RecipeError, match="direction='x' does not fit"):
        get_recipe("filip[direction=x]")
