"""ZPE: against loops and measured figures, its identities, and its edge cases."""

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
from byname.margins import pseudo_labels
from byname.ops import unit
from byname.recipes import get_recipe
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.weigh.mean import Mean
from byname.weigh.mean_similarity import MeanSimilarity
from byname.weigh.zpe import Zpe
from tests.reference.zpe import zpe
from tests.weigh.test_cpe import texts_of, with_own, world

seeds = st.integers(0, 10_000)
SCALE = 20.0


def fitted(batch: Batch, texts: ClassTexts, **params: Any) -> tuple[Zpe, Any]:
    member = Zpe(**params).fit(batch, texts, State())
    return member, member.apply(batch, texts, State())


def given_reference(seed: int = 0, R: int = 9) -> Any:
    return unit(np.random.default_rng(seed).standard_normal((R, 12)))


@settings(max_examples=30, deadline=None)
@given(
    seeds,
    st.sampled_from(["auto", "both", "test", "reference", "none"]),
    st.sampled_from([None, 0.5, 2.0]),
    st.sampled_from([0.3, 1.0, 5.0]),
)
def test_loops_agree(seed: int, mode: Any, tau: float | None, temperature: float) -> None:
    batch, Z = world(seed, P=6, K=5, N=20)
    R = given_reference(seed)
    batch = replace(batch, reference=R)
    texts = texts_of(Z, scale=SCALE)
    member, W = fitted(batch, texts, mode=mode, select=tau, temperature=temperature)
    used = "both" if mode == "auto" else mode
    scores, w, expected = zpe(
        batch.X, Z, SCALE, R=R, mode=used, tau=tau, temperature=temperature
    )  # fmt: skip
    assert member.mode_ == used
    np.testing.assert_allclose(member.score_ / SCALE, np.array(scores) / SCALE, atol=1e-9)
    np.testing.assert_allclose(member.prompt_weight_, w, atol=1e-8)
    np.testing.assert_allclose(W, expected, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("clip-rn50", (71.24, 27.6)),
        ("clip-vit-b-32", (80.80, 35.7)),
        ("clip-vit-l-14", (85.57, 43.1)),
    ],
)
def test_real_vectors(shared: Path, name: str, row: tuple[float, float]) -> None:
    task = Task.load(shared / "rs19" / f"{name}.npz")
    batch = task.batch()
    member, W = fitted(batch, task.texts_for("templates"))
    right = pseudo_labels(batch.X, W) == task.labels
    worst = np.sort([right[task.labels == k].mean() for k in range(19)])[:3].mean()
    assert (100 * right.mean(), 100 * worst) == pytest.approx(row, abs=0.1)
    assert 76 < member.effective_prompts_ < 98, "as measured: 77 to 97 of 107"
    few = Batch(batch.X[::20], reference=batch.X[1::30])
    texts = replace(texts_of(task.texts[::12]), scale=100.0)
    for mode in ("both", "test"):
        member, W = fitted(few, texts, mode=mode)
        _, w, expected = zpe(
            few.X, task.texts[::12], 100.0, R=few.reference, mode=mode, tau=None, temperature=1.0
        )
        np.testing.assert_allclose(member.prompt_weight_, w, atol=1e-5)
        np.testing.assert_allclose(W, expected, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_one_matrix_stands_for_the_weighted_logits(seed: int) -> None:
    """W is not brought to length one, so that <x, W_k> is the weighted sum of the logits."""
    batch, Z = world(seed)
    member, W = fitted(batch, texts_of(Z, scale=SCALE))
    logits = np.einsum("id,pkd->ipk", batch.X, Z)
    np.testing.assert_allclose(
        batch.X @ W.T, np.einsum("p,ipk->ik", member.prompt_weight_, logits), atol=1e-9
    )
    _, unit_rows = fitted(batch, texts_of(Z, scale=SCALE), unit=True)
    np.testing.assert_allclose(unit_rows, unit(W), atol=1e-9)


def test_an_infinite_temperature_is_the_mean_exactly() -> None:
    batch, Z = world(1)
    texts = texts_of(Z, weight=np.random.default_rng(0).uniform(0.5, 2, 20), scale=SCALE)
    for unit_rows, member in ((False, MeanSimilarity()), (True, Mean())):
        found, W = fitted(batch, texts, temperature=np.inf, unit=unit_rows)
        expected = member.fit(batch, texts, State()).apply(batch, texts, State())
        np.testing.assert_array_equal(W, expected)
        assert found.effective_prompts_ == pytest.approx(4)


@settings(max_examples=15, deadline=None)
@given(seeds, st.booleans())
def test_weights_sum_to_one_and_the_order_of_images_is_nothing(seed: int, own: bool) -> None:
    batch, Z = world(seed)
    texts = texts_of(Z, scale=SCALE)
    texts = with_own(texts, Z[0, :2], 1) if own else texts
    member, W = fitted(batch, texts)
    sums = np.bincount(texts.class_index, member.weight_)
    np.testing.assert_allclose(sums, 1, atol=1e-12)
    assert 1 <= member.effective_prompts_ <= 4 + 1e-9
    shuffled = Batch(batch.X[np.random.default_rng(seed).permutation(len(batch))])
    np.testing.assert_allclose(fitted(shuffled, texts)[1], W, atol=1e-9)


def test_the_scale_decides_how_sharply_it_selects() -> None:
    """At a large scale one template is left: temperature takes it back exactly."""
    batch, Z = world(2)
    mild, _ = fitted(batch, texts_of(Z, scale=1.0))
    sharp, _ = fitted(batch, texts_of(Z, scale=1000.0))
    cooled, _ = fitted(batch, texts_of(Z, scale=1000.0), temperature=1000.0)
    assert sharp.effective_prompts_ < 1.1 < 3.9 < mild.effective_prompts_
    np.testing.assert_allclose(cooled.prompt_weight_, mild.prompt_weight_)


def test_few_images_a_class_are_a_warning() -> None:
    batch, Z = world(3, N=49)
    assert Zpe().report() == {}
    told = fitted(batch, texts_of(Z))[0].report()
    assert told["warning"].startswith("49 images for 5 classes: with fewer than 10 a class")
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    enough = fitted(world(3, N=50)[0], texts_of(Z))[0].report()
    assert enough["warning"] is None
    assert (enough["prompts"], enough["mode"]) == (4, "test")
    seen = replace(batch, reference=given_reference())
    assert fitted(seen, texts_of(Z), mode="reference")[0].report()["warning"] is None
    assert fitted(seen, texts_of(Z))[0].report()["warning"] is not None


def test_identical_templates_are_all_kept() -> None:
    batch, Z = world(4)
    texts = texts_of(np.repeat(Z[:1], 5, axis=0).astype(np.float32), scale=SCALE)
    for tau in (None, 0.0, 0.5, 2.0):
        member, W = fitted(batch, texts, select=tau)
        np.testing.assert_allclose(member.prompt_weight_, 0.2, atol=1e-5)
        np.testing.assert_allclose(W, Z[0], atol=1e-5)


def test_selection_keeps_those_far_above_the_median() -> None:
    batch, Z = world(5, P=9)
    every, _ = fitted(batch, texts_of(Z, scale=SCALE))
    some, _ = fitted(batch, texts_of(Z, scale=SCALE), select=0.5)
    a = every.score_
    far = (a - np.median(a)) / np.median(np.abs(a - np.median(a))) > 0.5
    assert 0 < far.sum() < 9
    np.testing.assert_array_equal(some.prompt_weight_ > 0, far)
    none, _ = fitted(batch, texts_of(Z, scale=SCALE), select=1e6)
    np.testing.assert_allclose(none.prompt_weight_, every.prompt_weight_)


@pytest.mark.parametrize("tau", [0.0, 0.5, 2.0])
def test_the_one_that_stands_out_among_equals_is_kept(tau: float) -> None:
    """MAD is 0 there: all that is above the median is far above it."""
    batch, Z = world(7, P=2)
    low, high = np.argsort(fitted(batch, texts_of(Z, scale=SCALE))[0].score_)
    for most, least, left in ((low, high, 1), (high, low, 5)):
        five = Z[[most, most, least, most, most]]
        member, W = fitted(batch, texts_of(five, scale=SCALE), select=tau)
        _, w, expected = zpe(
            batch.X, five, SCALE, R=None, mode="test", tau=tau, temperature=1.0
        )  # fmt: skip
        np.testing.assert_allclose(member.prompt_weight_, w, atol=1e-8)
        np.testing.assert_allclose(W, expected, atol=1e-8)
        assert (member.prompt_weight_ > 0).sum() == left


def test_no_scale_is_too_large() -> None:
    batch, Z = world(8)
    found = fitted(batch, texts_of(Z, scale=1e308), temperature=1e-3)[0].prompt_weight_
    expected = fitted(batch, texts_of(Z, scale=1e9))[0].prompt_weight_
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("params", [{"temperature": "a"}, {"temperature": None}, {"select": "x"}])
def test_parameters_of_another_kind(params: Any) -> None:
    with pytest.raises(RecipeError, match=f"'zpe': {next(iter(params))}=.* does not fit"):
        Zpe(**params)


def test_without_images_the_weights_are_equal() -> None:
    batch, Z = world(6)
    member, _ = fitted(Batch(batch.X[:0]), texts_of(Z))
    np.testing.assert_allclose(member.weight_, 0.25)


def test_texts_of_one_class_stand_beside_the_templates() -> None:
    batch, Z = world(9)
    texts = texts_of(Z, scale=SCALE)
    plain, _ = fitted(batch, texts)
    member, _ = fitted(batch, with_own(texts, given_reference(R=2), 1))
    np.testing.assert_allclose(member.prompt_weight_, plain.prompt_weight_)
    np.testing.assert_allclose(member.weight_[-2:], 1 / 6)
    np.testing.assert_allclose(member.weight_[4:8] * 6 / 4, plain.prompt_weight_)


@pytest.mark.parametrize("drop", [[6], [5, 6, 7], [4, 5, 6, 7]])
def test_a_template_that_a_class_lacks_is_scored_with_the_mean(drop: list[int]) -> None:
    batch, Z = world(10)
    own = given_reference(R=1)
    texts = with_own(texts_of(Z, scale=SCALE), own, 1)
    keep = ~np.isin(np.arange(21), drop)
    assert texts.prompt_index is not None
    cut = replace(
        texts,
        vectors=texts.vectors[keep],
        class_index=texts.class_index[keep],
        prompt_index=texts.prompt_index[keep],
    )
    filled, lost = Z.copy(), [m - 4 for m in drop]
    filled[lost, 1] = unit(np.vstack([np.delete(Z[:, 1], lost, axis=0), own]).mean(axis=0))
    scores, _, _ = zpe(batch.X, filled, SCALE, R=None, mode="test", tau=None, temperature=1.0)
    member, _ = fitted(batch, cut)
    np.testing.assert_allclose(member.score_, scores, atol=1e-8)
    np.testing.assert_allclose(np.bincount(cut.class_index, member.weight_), 1)


def test_a_class_without_any_kept_template_keeps_what_it_has() -> None:
    batch, Z = world(11)
    texts = texts_of(Z, scale=SCALE)
    best = int(np.argmax(fitted(batch, texts)[0].score_))
    keep = np.arange(20) != 4 + best  # class 1 lacks the best
    assert texts.prompt_index is not None
    cut = replace(
        texts,
        vectors=texts.vectors[keep],
        class_index=texts.class_index[keep],
        prompt_index=texts.prompt_index[keep],
    )
    member, _ = fitted(batch, cut, temperature=1e-9)
    assert member.prompt_weight_[best] == pytest.approx(1)
    np.testing.assert_allclose(member.weight_[4:7], 1 / 3)


def test_several_texts_of_a_class_in_a_template_are_their_mean() -> None:
    batch, Z = world(12)
    texts = texts_of(Z, scale=SCALE)
    twice = with_own(texts, Z[1, 2:3], 2)
    assert twice.prompt_index is not None
    twice.prompt_index[-1] = 1
    member, _ = fitted(batch, twice)
    np.testing.assert_allclose(member.score_, fitted(batch, texts)[0].score_, atol=1e-9)
    np.testing.assert_allclose(member.weight_[9], member.weight_[-1])


def test_inputs_that_do_not_fit() -> None:
    batch, Z = world(13)
    texts = texts_of(Z)
    with pytest.raises(NeedsError, match=r"'zpe\[mode=both\]': it needs 'reference'"):
        fitted(batch, texts, mode="both")
    with pytest.raises(NeedsError, match="mode=test"):
        fitted(replace(batch, reference=given_reference(R=0)), texts, mode="reference")
    with pytest.raises(EmbeddingsError, match="they are 5 wide, the images 12"):
        fitted(replace(batch, reference=np.ones((2, 5))), texts)
    with pytest.raises(NeedsError, match="'zpe': no text is a template that classes share"):
        fitted(batch, replace(texts, prompt_index=np.full(20, -1)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("zpe[mode=all]", "mode='all' does not fit"),
        ("zpe[select=nan]", "select is nan. Give a number of deviations, or none."),
        ("zpe[temperature=0]", "temperature is 0.0. Give a number above 0."),
        ("zpe[temperature=nan]", "temperature is nan. Give a number above 0."),
    ],
)
def test_wrong_parameters_are_named(spec: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        get_recipe(spec)
    with pytest.raises(RecipeError, match=r"mode is 'all'\. Known: auto, both"):
        Zpe(mode="all")


def test_the_recipe() -> None:
    assert get_recipe("zpe[select=0.5]").create("weigh").params.select == 0.5
    assert get_recipe("zpe").create("weigh").params.select is None
