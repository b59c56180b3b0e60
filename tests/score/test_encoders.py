from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from byname import ops
from byname.errors import EmbeddingsError, NeedsError, RecipeError
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.score.cosine import Cosine
from byname.score.encoders import Encoders
from byname.stage import Batch, ClassTexts, SecondTexts, State, create
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from byname.weigh.mean import Mean
from tests.reference import encoders as ref

WEIGHTS = st.one_of(st.floats(0, 1), st.just("zpe"))


def unit_rows(rng: np.random.Generator, *shape: int) -> NDArray[Any]:
    return np.asarray(ops.unit(rng.standard_normal(shape) + 0.2))


def case(
    seed: int = 0, N: int = 9, K: int = 4, P: int = 3, scale2: float = 20.0, bias2: float = 0.0
) -> tuple[Batch, ClassTexts, State]:
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(K), P)
    texts = ClassTexts(
        unit_rows(rng, K * P, 6), index, Taxonomy.from_names([f"c{k}" for k in range(K)]),
        second_texts=SecondTexts(unit_rows(rng, K * P, 5), scale2, bias2), scale=20.0,
    )  # fmt: skip
    batch = Batch(unit_rows(rng, N, 6), second=unit_rows(rng, N, 5))
    return batch, texts, stated(texts, rng.uniform(0.1, 1, K * P))


def stated(texts: ClassTexts, weight: Any = None) -> State:
    weighed = replace(texts, weight=weight)
    mean = Mean().fit(Batch(texts.vectors[:0]), weighed, State())
    W = mean.apply(Batch(texts.vectors[:0]), weighed, State())
    return State(weight=mean.weight_, W=W)


def twice(batch: Batch, texts: ClassTexts, scale: float) -> tuple[Batch, ClassTexts]:
    """The first encoder as the second one, too."""
    second = SecondTexts(texts.vectors, scale, 0.0)
    return replace(batch, second=batch.X), replace(texts, second_texts=second)


def run(batch: Batch, texts: ClassTexts, state: State, **params: Any) -> Any:
    return Encoders(**params).fit(batch, texts, state).apply(batch, texts, state)


def both(batch: Batch, texts: ClassTexts, state: State) -> list[NDArray[Any]]:
    """S of each encoder by itself, from the formulas."""
    own, K = texts.second_texts, texts.n_classes
    assert own is not None
    W = ref.class_vectors(texts.vectors, texts.class_index, state.weight, K)
    W2 = ref.class_vectors(own.vectors, texts.class_index, state.weight, K)
    one = texts.scale * np.asarray(batch.X, float) @ W.T + texts.bias
    return [one, own.scale * np.asarray(batch.second, float) @ W2.T + own.bias]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    WEIGHTS,
    st.sampled_from(["logits", "probabilities"]),
    st.sampled_from([20.0, 20.01, 5.0, 60.0]),
    st.sampled_from(["auto", "spread", "none"]),
    st.floats(0.3, 3),
)
def test_it_is_the_plain_formula(
    seed: int, weight: Any, combine: Any, scale2: float, match: Any, temperature: float
) -> None:
    batch, texts, state = case(seed, scale2=scale2, bias2=-3.0)
    found = run(
        batch, texts, state, weight=weight, combine=combine, match=match, temperature=temperature
    )
    matches = match == "spread" or (match == "auto" and scale2 in (5.0, 60.0))
    weights = weight if weight == "zpe" else [weight, 1 - weight]
    expected, _ = ref.ensemble(
        both(batch, texts, state), weights, combine=combine, match=matches, temperature=temperature
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("weight", [0.3, "zpe"])
@pytest.mark.parametrize("combine", ["logits", "probabilities"])
def test_on_real_vectors(shared: Path, weight: Any, combine: str) -> None:
    folder = shared / "rs19"
    one, two = (
        Task.load(folder / f"clip-{n}.npz", with_labels=False) for n in ("rn50", "vit-b-32")
    )
    texts, other = (t.texts_for("templates[set=single]") for t in (one, two))
    texts = replace(texts, second_texts=SecondTexts(other.vectors))
    batch = Batch(one.images[::20], second=two.images[::20])
    state = stated(texts)
    found = run(batch, texts, state, weight=weight, combine=combine)
    weights = weight if weight == "zpe" else [weight, 1 - weight]
    expected, _ = ref.ensemble(both(batch, texts, state), weights, combine=combine)
    assert found.dtype == np.float32
    if combine == "logits":
        np.testing.assert_allclose(found / 100, expected / 100, rtol=0, atol=1e-5)
    else:
        np.testing.assert_allclose(ops.softmax(found), ops.softmax(expected), rtol=0, atol=1e-5)


@given(st.integers(0, 999), WEIGHTS, st.sampled_from(["auto", "spread", "none"]))
def test_the_same_encoder_twice_is_the_single_model(seed: int, weight: Any, match: Any) -> None:
    batch, texts, state = case(seed)
    batch, texts = twice(batch, texts, 20.0)
    single = Cosine().apply(batch, texts, state)
    found = run(batch, texts, state, weight=weight, match=match)
    np.testing.assert_allclose(found, single, rtol=0, atol=1e-9)
    mixed = run(batch, texts, state, weight=weight, match=match, combine="probabilities")
    np.testing.assert_allclose(ops.softmax(mixed), ops.softmax(single), rtol=0, atol=1e-9)


@given(st.integers(0, 999), WEIGHTS, st.floats(1, 300))
def test_at_another_scale_it_is_the_single_model_once_matched(
    seed: int, weight: Any, scale: float
) -> None:
    batch, texts, state = case(seed)
    batch, texts = twice(batch, texts, scale)
    single = Cosine().apply(batch, texts, state)
    found = run(batch, texts, state, weight=weight, match="spread")
    np.testing.assert_allclose(found, single, rtol=0, atol=1e-8)


def test_weights_of_one_and_zero_are_one_encoder_alone() -> None:
    batch, texts, state = case(3)
    one, two = both(batch, texts, state)
    np.testing.assert_allclose(run(batch, texts, state, weight=1), one, atol=1e-9)
    np.testing.assert_allclose(run(batch, texts, state, weight=0), two, atol=1e-9)


def test_zpe_prefers_the_encoder_whose_debiased_maxima_are_larger() -> None:
    batch, texts, state = case(1, N=40)
    flat = replace(batch, second=ops.unit(0.05 * np.asarray(batch.second) + np.ones(5)))
    member = Encoders(weight="zpe").fit(flat, texts, state)
    assert member.scores_[0] > member.scores_[1]
    assert member.shares_[0] > 0.5
    report = member.report()
    assert report["weights"] == list(member.shares_)
    assert report["scores"] == list(member.scores_)
    assert "scores" not in Encoders().fit(batch, texts, state).report()
    assert Encoders().report() == {}
    soft = Encoders(weight="zpe", temperature=1e6).fit(flat, texts, state)
    assert soft.shares_[0] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("N", [0, 1])
def test_without_images_the_weights_are_equal_and_scales_decide(N: int) -> None:
    batch, texts, state = case(2, N=N, scale2=50.0)
    member = Encoders(weight="zpe").fit(batch, texts, state)
    if N == 0:
        assert member.shares_[0] == 0.5
        assert member.temperature_ == 2.5
    else:
        assert member.shares_[0] == pytest.approx(0.5, abs=1e-12), "one image lies at its own mean"
    assert member.apply(batch, texts, state).shape == (N, 4)


def test_one_class_and_identical_texts() -> None:
    batch, texts, state = case(4, K=1, scale2=40.0)
    one = Encoders(weight="zpe").fit(batch, texts, state)
    assert one.shares_[0] == pytest.approx(0.5, abs=1e-9), "one class has nothing but its mean"
    assert one.temperature_ == 2.0
    batch, texts, _ = case(4, scale2=40.0)
    same = replace(
        texts, vectors=np.repeat(texts.vectors[:1], 12, axis=0),
        second_texts=SecondTexts(np.tile(unit_rows(np.random.default_rng(0), 5), (12, 1)), 40.0),
    )  # fmt: skip
    member = Encoders(weight="zpe").fit(batch, same, stated(same))
    assert member.shares_[0] == pytest.approx(0.5, abs=0.02)
    assert member.temperature_ == 2.0


def test_a_text_of_no_class_counts_nowhere() -> None:
    batch, texts, _ = case(5)
    index = texts.class_index.copy()
    index[1] = -1
    own = texts.second_texts
    assert own is not None
    odd = own.vectors.copy()
    odd[1] = -odd[1]
    fewer = replace(texts, class_index=index)
    other = replace(fewer, second_texts=replace(own, vectors=odd))
    state = stated(fewer)
    np.testing.assert_array_equal(run(batch, fewer, state), run(batch, other, state))


def test_in_a_pipeline_and_its_details() -> None:
    batch, texts, _ = case(6, N=30)
    pipeline = Pipeline(get_recipe("encoders[weight=zpe]")).fit(texts, batch)
    S = pipeline.scores(batch)
    np.testing.assert_array_equal(S, pipeline.scores(batch, block=7))
    state = stated(texts)
    one, two = both(batch, texts, state)
    told = pipeline.score.details(batch, texts, state)["encoders_agree"]
    assert told == (one.argmax(1) == two.argmax(1)).tolist()
    assert set(told) == {True, False}
    assert pipeline.inductive
    with pytest.raises(NeedsError, match="'encoders': it needs 'second'"):
        pipeline.scores(Batch(batch.X))


def test_vectors_that_do_not_fit() -> None:
    batch, texts, state = case()
    own = texts.second_texts
    assert own is not None
    short = replace(texts, second_texts=SecondTexts(own.vectors[1:]))
    with pytest.raises(EmbeddingsError, match=r"shape \(11, 5\), for 12 texts"):
        Encoders().fit(batch, short, state)
    member = Encoders().fit(batch, texts, state)
    for second in (np.asarray(batch.second)[1:], batch.X):
        with pytest.raises(EmbeddingsError, match=r"for 9 images and texts 5 wide"):
            member.apply(replace(batch, second=second), texts, state)


@pytest.mark.parametrize(
    "spec, seen",
    [
        ("weight=1.5", "weight is 1.5. It must be from 0 to 1, or 'zpe'."),
        ("weight=nan", "weight is nan. It must be from 0 to 1, or 'zpe'."),
        ("temperature=0", "temperature is 0.0. It must be above 0 and finite."),
    ],
)
def test_parameters_out_of_range(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(f"encoders[{spec}]", "score")
    assert str(error.value) == f"cannot use 'encoders': {seen}"


@pytest.mark.parametrize("name", ["combine", "match"])
def test_unknown_choices(name: str) -> None:
    with pytest.raises(RecipeError, match=f"{name} is 'x'. It must be '"):
        Encoders(**{name: "x"})
    with pytest.raises(RecipeError, match="does not fit"):
        create(f"encoders[{name}=x]", "score")
