from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.classifier import Classifier
from byname.errors import NeedsError, RecipeError
from byname.ops import softmax, unit
from byname.prompts.subclasses import Subclasses
from byname.promptset import PromptSet
from byname.recipes import get_recipe
from byname.score.chils import Chils, ChilsParams
from byname.score.cosine import Cosine
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from tests.helpers import FakeEncoder
from tests.reference import chils as reference

MODES: tuple[Any, ...] = ("reweight", "unweighted", "sum", "own_total", "ensemble")
MODE = st.sampled_from(MODES)


def made(seed: int, sizes: list[int], D: int = 6, dtype: Any = np.float64) -> Any:
    """Images, two texts a subclass in random places, W; with the subclasses' own vectors."""
    rng = np.random.default_rng(seed)
    X = unit(rng.standard_normal((7, D))).astype(dtype)
    group = np.repeat(np.arange(sum(sizes)), 2)
    index = np.repeat(np.repeat(np.arange(len(sizes)), sizes), 2)
    T = unit(rng.standard_normal((len(group), D))).astype(dtype)
    W = unit(rng.standard_normal((len(sizes), D))).astype(dtype)
    place = rng.permutation(len(group))
    taxonomy = Taxonomy.from_names([f"class {k}" for k in range(len(sizes))])
    texts = ClassTexts(T[place], index[place], taxonomy, group=group[place], scale=20.0)
    sets: list[list[Any]] = []
    for k in range(len(sizes)):
        own = np.unique(group[index == k])
        sets.append([unit(T[group == g].sum(axis=0)) for g in own] or [W[k]])
    return Batch(X), texts, State(W=W), sets


def score(batch: Batch, texts: ClassTexts, state: State, mode: Any = "reweight") -> Any:
    return Chils(mode=mode).apply(batch, texts, state)


SIZES = st.lists(st.integers(0, 4), min_size=1, max_size=5)


@given(st.integers(0, 999), SIZES, MODE)
def test_it_is_the_plain_formula(seed: int, sizes: list[int], mode: str) -> None:
    batch, texts, state, sets = made(seed, sizes)
    expected = reference.chils(batch.X, sets, state.W, 20.0, mode)
    S = score(batch, texts, state, mode)
    np.testing.assert_allclose(S, np.log(np.maximum(expected, 1e-30)), atol=1e-8)


@given(st.integers(0, 999), st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_weights_count_within_a_subclass(seed: int, sizes: list[int]) -> None:
    batch, texts, state, _ = made(seed, sizes)
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.1, 2, len(texts.class_index))
    group = np.asarray(texts.group)
    rows = [np.flatnonzero(group == g) for g in range(sum(sizes))]
    sets: list[list[Any]] = [[] for _ in sizes]
    for own in rows:
        mean = (weight[own, None] * texts.vectors[own]).sum(axis=0)
        sets[texts.class_index[own[0]]].append(unit(mean))
    expected = reference.chils(batch.X, sets, state.W, 20.0, "reweight")
    S = score(batch, texts, dataclasses.replace(state, weight=weight))
    np.testing.assert_allclose(np.exp(S), expected, atol=1e-8)


def test_float32_on_real_vectors(shared: Path) -> None:
    """Three templates each are taken for a subclass; the others are the classes' own texts."""
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    T = np.ascontiguousarray(task.texts[:12].transpose(1, 0, 2)).reshape(-1, task.texts.shape[2])
    index, part = np.repeat(np.arange(19), 12), np.tile(np.repeat([0, 1, 2, -1], 3), 19)
    group = np.where(part < 0, -1, 3 * index + part)
    texts = ClassTexts(T, index, task.taxonomy, group=group, scale=100.0)

    def of(k: int, g: int) -> Any:
        return unit(T[(index == k) & (part == g)].astype(float).sum(axis=0))

    sets = [[of(k, g) for g in range(3)] for k in range(19)]
    parents = np.array([of(k, -1) for k in range(19)])
    for mode in MODES:
        S = score(Batch(task.images[:30]), texts, State(), mode)
        assert S.dtype == np.float32
        p = reference.chils(task.images[:30], sets, parents, 100.0, mode)
        np.testing.assert_allclose(S / 100, np.log(np.maximum(p, 1e-30)) / 100, atol=1e-5)


# -- identities


@given(st.integers(0, 999), st.integers(1, 5), MODE)
def test_without_subclasses_every_set_is_the_class_itself(seed: int, K: int, mode: str) -> None:
    batch, texts, state, _ = made(seed, [0] * K)
    W = state.W
    texts = dataclasses.replace(
        texts, vectors=W, class_index=np.arange(K), group=np.full(K, -1), scale=10.0
    )
    twice = 1 if mode in ("unweighted", "ensemble") else 2
    plain = Cosine().apply(batch, dataclasses.replace(texts, scale=10.0 * twice), State(W=W))
    S = score(batch, texts, State(), mode)
    np.testing.assert_allclose(np.exp(S), softmax(plain), atol=1e-9)


@given(st.integers(0, 999), st.integers(1, 5))
def test_with_one_subclass_each_max_and_sum_are_the_same(seed: int, K: int) -> None:
    batch, texts, state, _ = made(seed, [1] * K)
    np.testing.assert_allclose(
        score(batch, texts, state, "reweight"), score(batch, texts, state, "sum"), atol=1e-9
    )


@given(st.integers(0, 999), SIZES)
def test_reweighting_is_unweighted_times_the_classes(seed: int, sizes: list[int]) -> None:
    batch, texts, state, _ = made(seed, sizes)
    product = np.exp(score(batch, texts, state, "unweighted")) * softmax(20 * batch.X @ state.W.T)
    product /= product.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(score(batch, texts, state)), product, atol=1e-9)


def test_a_large_scale_does_not_overflow() -> None:
    batch, texts, state, _ = made(0, [3, 0, 2], dtype=np.float32)
    for mode in MODES:
        S = score(batch, dataclasses.replace(texts, scale=1e4), state, mode)
        assert np.isfinite(S).all()
        assert S.min() >= np.log(np.float32(1e-30)) - 1e-3


# -- the classes' own vectors


def test_texts_without_a_subclass_make_the_class() -> None:
    batch, texts, state, sets = made(1, [2, 3])
    own = unit(np.random.default_rng(9).standard_normal((2, 6)))
    beside = dataclasses.replace(
        texts,
        vectors=np.vstack([texts.vectors, own]),
        class_index=np.append(texts.class_index, [0, 0]),
        group=np.append(texts.group, [-1, -1]),
    )
    parents = np.array([unit(own.sum(axis=0)), state.W[1]])
    expected = reference.chils(batch.X, sets, parents, 20.0, "reweight")
    np.testing.assert_allclose(np.exp(score(batch, beside, state)), expected, atol=1e-9)


def test_else_the_subclass_of_its_name_else_w_of_length_one() -> None:
    batch, texts, state, sets = made(1, [2, 3])
    named = dataclasses.replace(texts, group_names=("x", "CLASS 0", "y", "class 0", "z"))
    parents = np.array([sets[0][1], state.W[1]])
    expected = reference.chils(batch.X, sets, parents, 20.0, "reweight")
    long = State(W=3 * state.W)
    np.testing.assert_allclose(np.exp(score(batch, named, long)), expected, atol=1e-9)


def test_without_a_weigh_stage_the_mean_of_all_texts_is_taken() -> None:
    batch, texts, _, sets = made(1, [2, 3])
    parents = [unit(texts.vectors[texts.class_index == k].sum(axis=0)) for k in range(2)]
    expected = reference.chils(batch.X, sets, parents, 20.0, "reweight")
    np.testing.assert_allclose(np.exp(score(batch, texts, State())), expected, atol=1e-9)


# -- edge cases of the specification


def test_a_subclass_of_two_classes_stays_two() -> None:
    """The same vector in both sets: each has its own column, and p_sup decides."""
    batch, texts, state, _ = made(2, [1, 1])
    same = dataclasses.replace(texts, vectors=np.repeat(texts.vectors[:1], 4, axis=0))
    one_number = dataclasses.replace(same, group=np.zeros(4, np.intp))
    for found in (same, one_number):
        expected = softmax(20 * batch.X @ state.W.T)
        np.testing.assert_allclose(np.exp(score(batch, found, state)), expected, atol=1e-9)
        told = Chils().details(batch, found, state)
        np.testing.assert_allclose(told["subclass_probability"], 0.5)


@given(st.integers(0, 999))
def test_duplicates_inflate_nothing_with_max_but_do_with_sum(seed: int) -> None:
    batch, texts, state, _ = made(seed, [2, 2])
    again = np.flatnonzero(texts.class_index == 0)
    twice = dataclasses.replace(
        texts,
        vectors=np.vstack([texts.vectors, texts.vectors[again]]),
        class_index=np.append(texts.class_index, texts.class_index[again]),
        group=np.append(texts.group, np.asarray(texts.group)[again] + 4),
    )
    for mode in ("reweight", "unweighted"):
        np.testing.assert_allclose(
            score(batch, twice, state, mode), score(batch, texts, state, mode), atol=1e-9
        )
    odds = [np.diff(score(batch, t, state, "sum"), axis=1) for t in (texts, twice)]
    np.testing.assert_allclose(odds[0] - odds[1], np.log(2), atol=1e-6)


def test_a_class_without_children_is_its_own_set() -> None:
    batch, texts, state, sets = made(3, [2, 0, 1])
    assert len(sets[1]) == 1
    expected = reference.chils(batch.X, sets, state.W, 20.0, "unweighted")
    np.testing.assert_allclose(
        np.exp(score(batch, texts, state, "unweighted")), expected, atol=1e-9
    )
    told = Chils().details(batch, texts, dataclasses.replace(state, S=np.eye(3)[[1] * 7]))
    assert told["subclass"] == ["class 1"] * 7


def test_a_subclass_whose_texts_weigh_nothing_is_left_out() -> None:
    batch, texts, state, sets = made(4, [2, 2])
    weight = (np.asarray(texts.group) != 0).astype(float)
    expected = reference.chils(batch.X, [sets[0][1:], sets[1]], state.W, 20.0, "sum")
    found = score(batch, texts, dataclasses.replace(state, weight=weight), "sum")
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-9)
    weight = (texts.class_index != 0).astype(float)
    expected = reference.chils(batch.X, [[state.W[0]], sets[1]], state.W, 20.0, "sum")
    found = score(batch, texts, dataclasses.replace(state, weight=weight), "sum")
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-9)


# -- what is told of each image


@given(st.integers(0, 999), SIZES)
def test_details_are_the_best_subclass_of_the_answered_class(seed: int, sizes: list[int]) -> None:
    batch, texts, state, sets = made(seed, sizes)
    names = tuple(f"kind {g}" for g in range(sum(sizes))) or None
    texts = dataclasses.replace(texts, group_names=names)
    told = Chils().details(batch, texts, state)
    answered = score(batch, texts, state).argmax(axis=1)
    first = np.cumsum([0, *sizes])
    for i, k in enumerate(answered):
        j, p = reference.subclass(batch.X[i], sets, k, 20.0)
        expected = f"kind {first[k] + j}" if sizes[k] else f"class {k}"
        assert told["subclass"][i] == expected
        assert told["subclass_probability"][i] == pytest.approx(p)
    json.dumps(told)


def test_details_without_names_and_without_images() -> None:
    batch, texts, state, _ = made(0, [2])
    assert set(Chils().details(batch, texts, state)["subclass"]) <= {"0", "1"}
    none = Chils().details(Batch(batch.X[:0]), texts, state)
    assert none == {"subclass": [], "subclass_probability": []}


# -- arguments


def test_another_mode_is_refused() -> None:
    with pytest.raises(RecipeError) as error:
        ChilsParams(mode="best")  # type: ignore[arg-type]
    known = "reweight, unweighted, sum, own_total, ensemble"
    assert str(error.value) == f"cannot use 'chils': mode is 'best'. Known: {known}."
    with pytest.raises(RecipeError, match="best"):
        get_recipe("chils[mode=best]")


def test_texts_without_subclasses_are_refused() -> None:
    batch, texts, _, _ = made(0, [1])
    with pytest.raises(NeedsError, match="'chils': it needs 'group'"):
        Chils().check_needs(batch, dataclasses.replace(texts, group=None))


# -- through the whole pipeline


def subclasses(taxonomy: Taxonomy, **answers: str) -> PromptSet:
    member = Subclasses()
    asked = list(member.queries(taxonomy))
    return member.collect(taxonomy, [(query, answers[query.class_id]) for query in asked])


@pytest.mark.parametrize("mode", MODES)
def test_through_the_classifier(mode: str) -> None:
    encoder, taxonomy = FakeEncoder(), Taxonomy.from_names(["apple", "pear"])
    prompts = subclasses(taxonomy, apple="Fuji apple, crab apple", pear="nashi pear, crab apple")
    said = [f"a photo of a {name}." for name in ("nashi pear", "Fuji apple", "pear")]
    X = encoder.encode_texts(said)
    model = Classifier(taxonomy, encoder, prompts=prompts, score=f"chils[mode={mode}]")
    found = model.predict_proba(X)
    sets = [
        [encoder.encode_texts([prompt.text])[0].astype(float) for prompt in prompts.classes[k]]
        for k in ("apple", "pear")
    ]
    parents = [own[0] for own in sets]
    expected = reference.chils(X, sets, parents, encoder.info.logit_scale, mode)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    if mode == "reweight":
        assert model.predict(X).tolist() == ["pear", "apple", "pear"]
        batch = Batch(X)
        pipeline = model.fit(X).pipeline_
        told = pipeline.details(batch, pipeline.scores(batch))
        assert told["subclass"] == ["nashi pear", "Fuji apple", "pear"]


def test_templates_beside_subclasses_make_the_classes() -> None:
    encoder, taxonomy = FakeEncoder(), Taxonomy.from_names(["apple", "pear"])
    prompts = subclasses(taxonomy, apple="Fuji apple", pear="nashi pear")
    both = PromptSet(
        classes={
            k: (*PromptSet.from_templates(taxonomy, ["one {}"]).classes[k], *prompts.classes[k])
            for k in prompts.classes
        },
        provenance=prompts.provenance,
    )
    X = encoder.encode_texts(["a", "b", "c", "d"])
    found = Classifier(taxonomy, encoder, prompts=both, score="chils").predict_proba(X)
    sets = [encoder.encode_texts([p.text for p in prompts.classes[k]]) for k in ("apple", "pear")]
    parents = encoder.encode_texts(["one apple", "one pear"])
    lists = [list(own.astype(float)) for own in sets]
    expected = reference.chils(X, lists, parents, encoder.info.logit_scale, "reweight")
    np.testing.assert_allclose(found, expected, atol=1e-4)
