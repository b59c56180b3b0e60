"""Temperature without labels: against loops, what never changes, and when it keeps T = 1."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from byname.errors import NeedsError, RecipeError
from byname.ops import softmax, unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.refine.temperature import Temperature, halves_agreement, text_halves
from byname.stage import Batch, ClassTexts, State, create
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from tests.reference import temperature as plain


def make(
    seed: int, *, N: int = 30, K: int = 3, P: int = 6, noise: float = 0.5, scale: float = 20.0
) -> tuple[Batch, ClassTexts, State]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((K, 8))
    index = np.repeat(np.arange(K), P)
    texts = ClassTexts(
        unit(centres[index] + noise * 2 * rng.standard_normal((K * P, 8))), index,
        Taxonomy.from_names([f"n{k}" for k in range(K)]), np.tile(np.arange(P), K), scale=scale,
    )  # fmt: skip
    X = unit(centres[rng.integers(0, K, N)] + noise * 3 * rng.standard_normal((N, 8)))
    W = unit(texts.vectors.reshape(K, P, 8).mean(axis=1))
    return Batch(X), texts, State(W=W, S=scale * X @ W.T, weight=np.full(K * P, 1 / P))


def fitted(batch: Batch, texts: ClassTexts, state: State, **params: Any) -> Temperature:
    return Temperature(**{"min_images": 1, **params}).fit(batch, texts, state)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9999), st.booleans(), st.integers(1, 3))
def test_loops_agree(seed: int, sharpen: bool, splits: int) -> None:
    batch, texts, state = make(seed)
    weight = np.random.default_rng(seed).uniform(0.1, 1, 18)
    state = replace(state, weight=weight)
    member = fitted(batch, texts, state, sharpen=sharpen, splits=splits, seed=4)
    index = texts.class_index
    halves = [text_halves(texts, weight, 4 + i) for i in range(splits)]
    agreement = np.mean(
        [plain.agreement(batch.X, texts.vectors, index, weight, half, 3) for half in halves]
    )
    assert member.agreement_ == pytest.approx(agreement)
    assert member.confidence_ == pytest.approx(plain.confidence(state.S, 1.0))
    T = plain.temperature(state.S, float(agreement))
    soften = agreement < member.confidence_
    assert member.temperature_ == pytest.approx(T if sharpen or soften else 1.0, rel=1e-5)
    S = member.apply(batch, texts, state)
    np.testing.assert_allclose(softmax(S), softmax(state.S / member.temperature_), atol=1e-9)


# Without numbers so small that a division by 20 leaves nothing of them.
LOGITS = st.floats(-50, 50, width=32).map(lambda x: x if abs(x) > 1e-20 else 0.0)


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(np.float32, (5, 4), elements=LOGITS),
    st.floats(0.05, 20),
)
def test_the_answer_and_its_ties_never_change(S: Any, T: float) -> None:
    member = Temperature()
    member.temperature_ = T
    found = member.apply(Batch(np.eye(5)), make(0)[1], State(S=S))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(
        found == found.max(1, keepdims=True), S.max(1, keepdims=True) == S
    )


def test_logits_a_rounding_apart_stay_apart() -> None:
    three, S = np.float32(3), np.array([[1.75, 1.75]], np.float32)
    while S[0, 0] == S[0, 1] or S[0, 0] / three != S[0, 1] / three:
        S = np.array([[S[0, 1], np.nextafter(S[0, 1], np.float32(2))]])
    assert S[0, 0] < S[0, 1], "and the plain division makes them equal"
    member = Temperature()
    member.temperature_ = 3.0
    assert member.apply(Batch(S), make(0)[1], State(S=S)).argmax() == 1


def test_images_that_fit_no_class_stay_so() -> None:
    S = np.array([[-np.inf, -np.inf], [0.0, -np.inf]])
    member = Temperature()
    member.temperature_ = 2.0
    np.testing.assert_array_equal(member.apply(Batch(S), make(0)[1], State(S=S)), S)


def test_what_is_too_sure_is_softened_to_the_agreement() -> None:
    batch, texts, state = make(0, N=400, noise=1.0)
    member = fitted(batch, texts, state)
    assert member.temperature_ > 1.5
    assert member.reason_ is None
    P = softmax(member.apply(batch, texts, state))
    assert P.max(axis=1).mean() == pytest.approx(member.agreement_, abs=1e-6)
    told = member.report()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["temperature"] == member.temperature_


def test_agreement_alone_makes_nothing_surer() -> None:
    batch, texts, state = make(0, N=200, scale=1.0, noise=0.1)
    member = fitted(batch, texts, state)
    assert member.agreement_ > member.confidence_
    assert member.temperature_ == 1
    assert "which is no sign that they are too sure" in (member.reason_ or "")
    np.testing.assert_array_equal(member.apply(batch, texts, state), state.S)
    assert fitted(batch, texts, state, sharpen=True).temperature_ < 1


def test_an_agreement_out_of_reach_is_the_limit() -> None:
    """Of texts that all halves agree upon the probabilities can never be sure enough."""
    batch, texts, state = make(1, noise=0.01)
    member = fitted(batch, texts, replace(state, S=np.zeros((30, 3))), sharpen=True)
    assert member.temperature_ == 0.05
    assert member.reason_ == "the agreement of 100.0% is out of reach: T is the limit"
    wide = replace(state, S=1e6 * state.S)
    twisted = np.where(np.arange(18) % 6 < 3, texts.class_index, (texts.class_index + 1) % 3)
    other = fitted(batch, replace(texts, class_index=twisted), wide)
    assert other.agreement_ < 1
    assert other.temperature_ == 20


def one_text(texts: ClassTexts, state: State) -> tuple[ClassTexts, State]:
    keep = ~np.isin(np.arange(18), range(1, 6))  # class 0 has one
    assert texts.prompt_index is not None
    cut = replace(
        texts,
        vectors=texts.vectors[keep],
        class_index=texts.class_index[keep],
        prompt_index=texts.prompt_index[keep],
    )
    return cut, replace(state, weight=None)


def test_where_it_cannot_be_said_t_stays_1_with_a_reason() -> None:
    batch, texts, state = make(2, N=99)
    assert Temperature().report()["reason"] == "nothing was learned yet"
    few = Temperature(sharpen=True).fit(batch, texts, state)
    assert (few.temperature_, few.reason_) == (1.0, "99 images are fewer than 100")
    assert few.report()["agreement"] is few.report()["confidence"] is None
    cut, without = one_text(texts, state)
    short = fitted(batch, cut, without, sharpen=True)
    wanted = "1 classes have fewer than two texts that count, such as 'n0'"
    assert (short.temperature_, short.reason_) == (1.0, wanted)
    weight = np.where(np.arange(18) > 12, 0.0, 1.0)  # class 2 has one that counts
    zero = fitted(batch, texts, replace(state, weight=weight))
    assert zero.reason_ == "1 classes have fewer than two texts that count, such as 'n2'"
    alone = ClassTexts(texts.vectors, np.zeros(18, np.intp), Taxonomy.from_names(["a"]))
    assert fitted(batch, alone, State(S=state.S[:, :1])).reason_ == "there is one class"
    with pytest.raises(NeedsError, match="'temperature': it needs 'X'"):
        Temperature().check_needs(Batch(batch.X[:0]), texts)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 7), st.booleans())
def test_halves_are_halves(seed: int, P: int, shared: bool) -> None:
    texts = make(seed, P=P)[1]
    texts = texts if shared else replace(texts, prompt_index=None)
    half = text_halves(texts, np.ones(3 * P), seed).reshape(3, P)
    assert set(half.sum(axis=1)) == {P // 2}
    assert (half == half[0]).all(), "templates, or places, land in the same half everywhere"
    order = np.random.default_rng(seed).permutation(3 * P)
    assert (
        texts.prompt_index is None
        or (
            text_halves(
                replace(
                    texts,
                    class_index=texts.class_index[order],
                    prompt_index=texts.prompt_index[order],
                    vectors=texts.vectors[order],
                ),
                np.ones(3 * P),
                seed,
            )
            == half.ravel()[order]
        ).all()
    )


def test_texts_of_one_class_are_dealt_out_beside_templates() -> None:
    texts = make(0, P=4)[1]
    own = replace(
        texts,
        vectors=np.vstack([texts.vectors, texts.vectors[:3]]),
        class_index=np.append(texts.class_index, [1, 1, -1]),
        prompt_index=np.append(texts.prompt_index, [-1, -1, -1]),  # type: ignore[arg-type]
    )
    for seed in range(5):
        half = text_halves(own, np.ones(15), seed)
        assert half[-1] == -1
        counts = [np.bincount(half[own.class_index == k], minlength=2).tolist() for k in range(3)]
        assert counts == [[2, 2], [3, 3], [2, 2]]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 9999))
def test_the_order_of_classes_and_images_does_not_matter(seed: int) -> None:
    batch, texts, state = make(seed, scale=200.0, noise=1.0)
    T = fitted(batch, texts, state).temperature_
    rows, order = np.random.default_rng(seed).permutation(30), np.array([2, 0, 1])
    other = fitted(
        Batch(batch.X[rows]),
        replace(texts, class_index=np.argsort(order)[texts.class_index]),
        replace(state, S=state.S[rows][:, order]),
    )
    assert other.temperature_ == pytest.approx(T, rel=1e-6)


def test_the_seed_chooses_the_splits() -> None:
    batch, texts, state = make(3, N=60, scale=200.0, noise=1.0)
    a = fitted(batch, texts, state, splits=2)
    seeds = [text_halves(texts, state.weight, seed) for seed in (0, 1)]
    found = [halves_agreement(batch.X, texts, state.weight, half) for half in seeds]
    assert a.agreement_ == pytest.approx(np.mean(found))
    assert (seeds[0] != seeds[1]).any()


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("temperature[splits=0]", "splits is 0. Give 1 or more."),
        ("temperature[min_images=0]", "min_images is 0. Give 1 or more."),
        ("temperature[seed=-1]", "seed is -1. Give 0 or more."),
    ],
)
def test_wrong_parameters_are_named(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(spec, "refine")
    assert str(error.value) == f"cannot use 'temperature': {seen}"
    assert get_recipe("temperature").refine == "temperature"


@pytest.mark.parametrize("name", ["clip-rn50", "clip-vit-b-32", "clip-vit-l-14"])
def test_real_vectors(shared: Path, name: str) -> None:
    """Templates agree far more than they are right: it keeps T = 1, and sharpening would hurt."""
    task = Task.load(shared / "rs19" / f"{name}.npz")
    texts, batch = task.texts_for("templates"), task.batch()
    pipeline = Pipeline(get_recipe("temperature")).fit(texts, batch)
    told = pipeline.report()["temperature"]
    assert told["temperature"] == 1
    assert told["agreement"] > told["confidence"]
    assert "no sign" in told["reason"]
    sharp = Pipeline(get_recipe("temperature[sharpen=true]")).fit(texts, batch)
    S, other = pipeline.scores(batch), sharp.scores(batch)
    np.testing.assert_array_equal(S.argmax(axis=1), other.argmax(axis=1))
    assert (S.argmax(axis=1) == task.labels).mean() < told["agreement"] - 0.08
    few = batch.X[::25]
    assert texts.prompt_index is not None
    cut = texts.prompt_index % 18 == 0
    own = replace(
        texts,
        vectors=texts.vectors[cut],
        class_index=texts.class_index[cut],
        prompt_index=texts.prompt_index[cut],
    )
    weight = np.ones(int(cut.sum()))
    member = fitted(Batch(few), own, State(S=S[::25]), splits=1, sharpen=True)
    half = text_halves(own, weight, 0)
    agreement = plain.agreement(few, own.vectors, own.class_index, weight, half, 19)
    assert member.agreement_ == pytest.approx(agreement)
    assert member.temperature_ == pytest.approx(plain.temperature(S[::25], agreement), rel=1e-4)


def test_it_says_that_nothing_changed() -> None:
    batch, texts, state = make(0)
    told = fitted(batch, texts, state, min_images=100).report()
    assert told["stepped_back"]
    assert told["reason"] == "30 images are fewer than 100"
    softened = fitted(batch, texts, replace(state, S=100 * np.asarray(state.S))).report()
    assert softened["temperature"] > 1
    assert not softened["stepped_back"]
    assert softened["reason"] is None
