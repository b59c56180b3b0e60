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
from byname.ops import log_softmax, softmax, unit
from byname.prompts.contexts import Contexts
from byname.recipes import get_recipe
from byname.score import perception as module
from byname.score.cosine import Cosine
from byname.score.perception import Perception, PerceptionParams
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from tests.helpers import FakeEncoder
from tests.reference.perception import context_posterior, perception

INFERRING: tuple[Any, ...] = ("with_class", "without_class")


def made(seed: int, K: int, Z: int, *, per: int = 2, dtype: Any = np.float64) -> Any:
    """Images, ``per`` texts for each class and context in random places; with t (K, Z, D)."""
    rng = np.random.default_rng(seed)
    X = unit(rng.standard_normal((7, 6))).astype(dtype)
    T = unit(rng.standard_normal((K, Z, per, 6))).astype(dtype)
    index = np.repeat(np.arange(K), Z * per)
    context = np.tile(np.repeat(np.arange(Z), per), K)
    place = rng.permutation(len(index))
    taxonomy = Taxonomy.from_names([f"class {k}" for k in range(K)])
    texts = ClassTexts(
        T.reshape(-1, 6)[place], index[place], taxonomy, context=context[place], scale=20.0
    )
    return Batch(X), texts, unit(T.astype(float).sum(axis=2))


def score(batch: Batch, texts: ClassTexts, state: State | None = None, **params: Any) -> Any:
    return Perception(**params).apply(batch, texts, state or State())


def generic(t: Any) -> Any:
    return unit(t.sum(axis=0))


SIZES = (st.integers(0, 999), st.integers(1, 4), st.integers(1, 5))


@given(*SIZES, st.floats(0.2, 20), st.sampled_from(INFERRING))
def test_it_is_the_plain_formula(seed: int, K: int, Z: int, tau: float, mode: str) -> None:
    batch, texts, t = made(seed, K, Z)
    g = generic(t) if mode == "without_class" else None
    expected = perception(batch.X, t, 20.0, tau, g)
    np.testing.assert_allclose(score(batch, texts, tau=tau, mode=mode), np.log(expected), atol=1e-8)


@given(*SIZES)
def test_one_step_is_the_cosine_with_the_mean_over_contexts(seed: int, K: int, Z: int) -> None:
    batch, texts, t = made(seed, K, Z)
    texts = dataclasses.replace(texts, bias=-3.0)
    S = score(batch, texts, mode="one_step")
    np.testing.assert_allclose(S, 20 * batch.X @ unit(t.sum(axis=1)).T - 3, atol=1e-9)


@given(*SIZES)
def test_weights_count_within_class_and_context(seed: int, K: int, Z: int) -> None:
    batch, texts, _ = made(seed, K, Z)
    weight = np.random.default_rng(seed).uniform(0.1, 2, len(texts.class_index))
    t = np.zeros((K, Z, 6))
    for m, vector in enumerate(texts.vectors):
        t[texts.class_index[m], np.asarray(texts.context)[m]] += weight[m] * vector
    expected = perception(batch.X, unit(t), 20.0, 3.0)
    S = score(batch, texts, State(weight=weight))
    np.testing.assert_allclose(S, np.log(expected), atol=1e-8)


def test_float32_on_real_vectors(shared: Path) -> None:
    """Three templates each are taken for a context."""
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    T = np.ascontiguousarray(task.texts[:12].transpose(1, 0, 2)).reshape(-1, task.texts.shape[2])
    index, context = np.repeat(np.arange(19), 12), np.tile(np.repeat(np.arange(4), 3), 19)
    texts = ClassTexts(T, index, task.taxonomy, context=context, scale=100.0)
    t = unit(T.astype(float).reshape(19, 4, 3, -1).sum(axis=2))
    for mode in INFERRING:
        S = score(Batch(task.images[:20]), texts, mode=mode)
        assert S.dtype == np.float32
        g = generic(t) if mode == "without_class" else None
        p = perception(task.images[:20], t, 100.0, 3.0, g)
        np.testing.assert_allclose(S / 100, np.log(p) / 100, atol=1e-5)


# -- identities


@given(st.integers(0, 999), st.integers(1, 5), st.sampled_from(INFERRING))
def test_one_context_is_the_plain_cosine(seed: int, K: int, mode: str) -> None:
    batch, texts, t = made(seed, K, 1)
    plain = Cosine().apply(batch, texts, State(W=t[:, 0]))
    np.testing.assert_allclose(score(batch, texts, mode=mode), log_softmax(plain), atol=1e-9)


@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 4))
def test_a_context_that_is_given_twice_changes_nothing(seed: int, K: int, Z: int) -> None:
    """All contexts twice: each has half the probability, and says the same."""
    batch, texts, _ = made(seed, K, Z)
    twice = dataclasses.replace(
        texts,
        vectors=np.vstack([texts.vectors] * 2),
        class_index=np.tile(texts.class_index, 2),
        context=np.append(texts.context, np.asarray(texts.context) + Z),
    )
    np.testing.assert_allclose(score(batch, twice), score(batch, texts), atol=1e-9)


@given(*SIZES)
def test_a_large_tau_is_the_mean_of_the_contexts(seed: int, K: int, Z: int) -> None:
    batch, texts, t = made(seed, K, Z)
    p = np.mean([softmax(20 * batch.X @ t[:, z].T) for z in range(Z)], axis=0)
    np.testing.assert_allclose(np.exp(score(batch, texts, tau=1e9)), p, atol=1e-6)


@pytest.mark.parametrize("mode", INFERRING)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_scale_of_1000_does_not_overflow(dtype: Any, mode: str) -> None:
    """The authors' exponentials have no shift: in half precision, 12 is already too much."""
    batch, texts, _ = made(1, 4, 5, dtype=dtype, per=1)
    texts = dataclasses.replace(texts, scale=1000.0)
    S = score(batch, texts, mode=mode)
    assert np.isfinite(S).all()
    wide = score(
        Batch(batch.X.astype(float)),
        dataclasses.replace(texts, vectors=texts.vectors.astype(float)),
        mode=mode,
    )
    assert wide.min() < -100, "far below what a float32 probability can hold"
    np.testing.assert_allclose(S / 1000, wide / 1000, atol=1e-5)


@pytest.mark.parametrize("mode", INFERRING)
def test_tiles_do_not_change_the_result(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, texts, _ = made(5, 3, 7)
    whole = score(batch, texts, mode=mode)
    told = Perception(mode=mode).details(batch, texts, State())
    for name, value in {"_ROWS": 2, "_TILE": 13, "_LEAST": 3, "_PIECE": 7}.items():
        monkeypatch.setattr(module, name, value)
    np.testing.assert_allclose(score(batch, texts, mode=mode), whole, atol=1e-12)
    cut = Perception(mode=mode).details(batch, texts, State())
    assert cut["context"] == told["context"]
    assert cut["context_probability"] == pytest.approx(told["context_probability"])


# -- what is missing


@pytest.mark.parametrize("mode", INFERRING)
def test_a_missing_pair_has_the_mean_of_the_contexts_that_the_class_has(mode: str) -> None:
    batch, texts, t = made(2, 3, 4)
    keep = ~((texts.class_index == 1) & np.isin(texts.context, [0, 2]))
    fewer = dataclasses.replace(
        texts,
        vectors=texts.vectors[keep],
        class_index=texts.class_index[keep],
        context=np.asarray(texts.context)[keep],
    )
    t[1, [0, 2]] = unit(t[1, [1, 3]].sum(axis=0))
    g = generic(t) if mode == "without_class" else None
    expected = np.log(perception(batch.X, t, 20.0, 3.0, g))
    np.testing.assert_allclose(score(batch, fewer, mode=mode), expected, atol=1e-9)


def test_a_class_without_contexts_has_the_mean_of_its_texts_in_all() -> None:
    batch, texts, t = made(2, 3, 4)
    none = np.where(texts.class_index == 2, -1, texts.context)
    plain = dataclasses.replace(texts, context=none)
    t[2] = unit(texts.vectors[texts.class_index == 2].sum(axis=0))
    expected = np.log(perception(batch.X, t, 20.0, 3.0))
    np.testing.assert_allclose(score(batch, plain), expected, atol=1e-9)


def test_texts_without_a_context_are_not_looked_at_beside_others() -> None:
    batch, texts, _ = made(2, 3, 4)
    more = dataclasses.replace(
        texts,
        vectors=np.vstack([texts.vectors, np.eye(6)]),
        class_index=np.append(texts.class_index, [0, 0, 1, 1, 2, 2]),
        context=np.append(texts.context, [-1] * 6),
    )
    np.testing.assert_allclose(score(batch, more), score(batch, texts), atol=1e-12)


def test_without_any_context_it_is_the_plain_cosine() -> None:
    batch, texts, _ = made(2, 3, 4)
    none = dataclasses.replace(texts, context=np.full(len(texts.class_index), -1))
    W = [unit(texts.vectors[texts.class_index == k].sum(axis=0)) for k in range(3)]
    plain = Cosine().apply(batch, texts, State(W=np.array(W)))
    for mode in INFERRING:
        np.testing.assert_allclose(score(batch, none, mode=mode), log_softmax(plain), atol=1e-9)
    told = Perception().details(batch, none, State())
    assert told == {"context": [None] * 7, "context_probability": [1.0] * 7}


def test_a_generic_word_in_every_context_infers_it_without_class() -> None:
    batch, texts, t = made(3, 3, 4)
    g = unit(np.random.default_rng(8).standard_normal((4, 6)))
    more = dataclasses.replace(
        texts,
        vectors=np.vstack([texts.vectors, g]),
        class_index=np.append(texts.class_index, [-1] * 4),
        context=np.append(texts.context, np.arange(4)),
    )
    expected = np.log(perception(batch.X, t, 20.0, 3.0, g))
    np.testing.assert_allclose(score(batch, more, mode="without_class"), expected, atol=1e-9)
    np.testing.assert_allclose(score(batch, more), score(batch, texts), atol=1e-12)
    lacking = dataclasses.replace(more, context=np.append(texts.context, [0, 1, 2, 2]))
    expected = np.log(perception(batch.X, t, 20.0, 3.0, generic(t)))
    np.testing.assert_allclose(score(batch, lacking, mode="without_class"), expected, atol=1e-9)


def test_numbers_of_contexts_need_not_be_dense() -> None:
    batch, texts, _ = made(3, 3, 3)
    sparse = dataclasses.replace(texts, context=np.array([1, 5, 900])[texts.context])
    np.testing.assert_array_equal(score(batch, sparse), score(batch, texts))
    assert set(Perception().details(batch, sparse, State())["context"]) <= {"1", "5", "900"}


# -- what is told


@given(*SIZES, st.sampled_from(INFERRING))
def test_details_are_the_most_likely_context(seed: int, K: int, Z: int, mode: str) -> None:
    batch, texts, t = made(seed, K, Z)
    names = tuple(f"light={z}" for z in range(Z))
    texts = dataclasses.replace(texts, context_names=names)
    told = Perception(mode=mode).details(batch, texts, State())
    g = generic(t) if mode == "without_class" else None
    for i, x in enumerate(batch.X):
        p = context_posterior(x, t, 20.0, 3.0, g)
        assert told["context"][i] == names[int(np.argmax(p))]
        assert told["context_probability"][i] == pytest.approx(max(p))
    json.dumps(told)


@pytest.mark.parametrize("mode", INFERRING)
def test_the_group_report_counts_the_images_of_each_context(mode: str) -> None:
    batch, texts, _ = made(6, 3, 4)
    texts = dataclasses.replace(texts, context_names=("a", "b", "c", "d"))
    member = Perception(mode=mode)
    assert member.report() == {}
    told = member.fit(batch, texts, State()).report()
    assert told["images"] == 7
    listed = member.details(batch, texts, State())["context"]
    assert {c["context"]: c["share"] for c in told["contexts"]} == {
        name: listed.count(name) / 7 for name in "abcd"
    }
    shares = [c["share"] for c in told["contexts"]]
    assert shares == sorted(shares, reverse=True)
    json.dumps(told)
    assert member.fit(Batch(batch.X[:0]), texts, State()).report() == {}


def test_one_step_infers_no_context() -> None:
    batch, texts, _ = made(6, 3, 4)
    member = Perception(mode="one_step").fit(batch, texts, State())
    assert member.report() == {}
    assert member.details(batch, texts, State()) == {}


# -- arguments


@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan"), float("inf")])
def test_a_wrong_tau_is_refused(tau: float) -> None:
    with pytest.raises(RecipeError) as error:
        get_recipe(f"perception[tau={tau}]")
    assert str(error.value) == f"cannot use 'perception': tau is {tau}. Give a positive number."


def test_another_mode_is_refused() -> None:
    with pytest.raises(RecipeError) as error:
        PerceptionParams(mode="both")  # type: ignore[arg-type]
    known = "with_class, without_class, one_step"
    assert str(error.value) == f"cannot use 'perception': mode is 'both'. Known: {known}."


def test_texts_without_contexts_are_refused() -> None:
    batch, texts, _ = made(0, 1, 1)
    with pytest.raises(NeedsError, match="'perception': it needs 'context'"):
        Perception().check_needs(batch, dataclasses.replace(texts, context=None))


# -- through the whole pipeline


@pytest.mark.parametrize("mode", [*INFERRING, "one_step"])
def test_through_the_classifier(mode: str) -> None:
    encoder, taxonomy = FakeEncoder(), Taxonomy.from_names(["owl", "cat", "cow"])
    prompts = Contexts(factors="illumination").generate(taxonomy)
    said = [p.text for own in prompts.classes.values() for p in own]
    X = encoder.encode_texts(said)
    model = Classifier(taxonomy, encoder, prompts=prompts, score=f"perception[mode={mode}]")
    found = model.predict_proba(X)
    t = X.astype(float).reshape(3, 3, -1)
    scale = encoder.info.logit_scale
    if mode == "one_step":
        expected = softmax(scale * X @ unit(t.sum(axis=1)).T)
    else:
        expected = perception(X, t, scale, 3.0, generic(t) if mode == "without_class" else None)
        pipeline = model.fit(X).pipeline_
        told = pipeline.details(Batch(X), pipeline.scores(Batch(X)))
        assert set(told["context"]) <= {f"illumination={v}" for v in ("any", "bright", "dim")}
        assert pipeline.report()["perception"]["images"] == 9
    np.testing.assert_allclose(found, expected, atol=1e-4)
    if mode == "with_class":
        assert model.predict(X).tolist() == [name for name in taxonomy.class_ids for _ in range(3)]
        assert told["context"] == [p.about for own in prompts.classes.values() for p in own]
