"""CPE: against loops, its limits, and what must hold whatever the vectors are."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import NeedsError, RecipeError
from byname.margins import cmm, pseudo_labels
from byname.ops import softmax, unit
from byname.recipes import get_recipe
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from byname.weigh.cpe import Cpe
from byname.weigh.mean import Mean
from tests.reference.cpe import cpe_loops

seeds = st.integers(0, 10_000)


def texts_of(Z: Any, **fields: Any) -> ClassTexts:
    """(P, K, D) class by class."""
    P, K, D = Z.shape
    taxonomy = Taxonomy(Node(f"c{k}", f"class {k}") for k in range(K))
    return ClassTexts(
        Z.transpose(1, 0, 2).reshape(-1, D),
        np.repeat(np.arange(K), P),
        taxonomy,
        np.tile(np.arange(P), K),
        **fields,
    )


def world(seed: int, P: int = 4, K: int = 5, N: int = 40) -> tuple[Batch, Any]:
    """Images around centres, and texts near the centres."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((K, 12)))
    X = unit(centres[rng.integers(0, K, N)] + 0.3 * rng.standard_normal((N, 12)))
    return Batch(X), unit(centres + 0.25 * rng.standard_normal((P, K, 12)))


def fitted(batch: Batch, texts: ClassTexts, **params: Any) -> tuple[Cpe, Any]:
    member = Cpe(**params).fit(batch, texts, State())
    return member, member.apply(batch, texts, State())


def mean_of(batch: Batch, texts: ClassTexts) -> Any:
    return Mean().fit(batch, texts, State()).apply(batch, texts, State())


@settings(max_examples=25, deadline=None)
@given(seeds, st.booleans(), st.sampled_from("AB"), st.sampled_from([0.1, 0.5, 1.0]))
def test_loops_agree(seed: int, per_class: bool, variant: str, q: float) -> None:
    batch, Z = world(seed)
    member, W = fitted(batch, texts_of(Z), q=q, per_class=per_class, variant=variant)
    w, expected = cpe_loops(batch.X, Z, t=0.01, q=q, per_class=per_class, variant=variant)
    np.testing.assert_allclose(member.weight_.reshape(5, 4), w.T, atol=1e-7)
    np.testing.assert_allclose(W, expected, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "shared_row", "own_row"),
    [
        ("clip-rn50", (71.54, 32.2), (71.74, 33.3)),
        ("clip-vit-b-32", (81.39, 41.3), (81.39, 41.3)),
        ("clip-vit-l-14", (86.17, 45.8), (86.57, 48.7)),
    ],
)
def test_real_vectors(
    shared: Path, name: str, shared_row: tuple[float, float], own_row: tuple[float, float]
) -> None:
    task = Task.load(shared / "rs19" / f"{name}.npz")
    texts, batch = task.texts_for("templates"), task.batch()
    for per_class, row in ((False, shared_row), (True, own_row)):
        member, W = fitted(batch, texts, per_class=per_class)
        right = pseudo_labels(batch.X, W) == task.labels
        worst = np.sort([right[task.labels == k].mean() for k in range(19)])[:3].mean()
        assert (100 * right.mean(), 100 * worst) == pytest.approx(row, abs=0.15)
    Z = unit(task.texts.astype(float))[::12]
    X = unit(task.images.astype(float))
    few = replace(texts_of(Z.astype(np.float32)), scale=100.0)
    member, W = fitted(batch, few)
    w, expected = cpe_loops(X, Z, t=0.01, q=0.1, per_class=False, variant="A")
    np.testing.assert_allclose(member.weight_.reshape(19, -1), w.T, atol=1e-5)
    np.testing.assert_allclose(W, expected, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(seeds, st.booleans(), st.sampled_from([0.001, 0.01, 1.0, "auto"]), st.booleans())
def test_weights_sum_to_one(seed: int, per_class: bool, temperature: Any, prune: bool) -> None:
    batch, Z = world(seed)
    member, W = fitted(
        batch, texts_of(Z), per_class=per_class, temperature=temperature, prune=prune
    )
    np.testing.assert_allclose(member.weight_.reshape(5, 4).sum(axis=1), 1, atol=1e-12)
    assert (member.weight_ >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(W, axis=1), 1, atol=1e-6)
    assert 1 <= member.effective_prompts_ <= 4 + 1e-9


@settings(max_examples=15, deadline=None)
@given(seeds, st.booleans(), st.sampled_from([0.01, "auto"]))
def test_the_order_of_classes_does_not_matter(seed: int, per_class: bool, t: Any) -> None:
    batch, Z = world(seed)
    order = np.random.default_rng(seed).permutation(5)
    _, W = fitted(batch, texts_of(Z), per_class=per_class, temperature=t)
    _, other = fitted(batch, texts_of(Z[:, order]), per_class=per_class, temperature=t)
    np.testing.assert_allclose(other, W[order], atol=1e-9)


@pytest.mark.parametrize("per_class", [False, True])
def test_an_infinite_temperature_is_the_mean_exactly(per_class: bool) -> None:
    batch, Z = world(1)
    texts = texts_of(Z, weight=np.random.default_rng(0).uniform(0.5, 2, 20))
    member, W = fitted(batch, texts, temperature=np.inf, per_class=per_class)
    np.testing.assert_array_equal(W, mean_of(batch, texts))
    assert member.effective_prompts_ == pytest.approx(4)


def test_equal_templates_are_the_mean_exactly() -> None:
    batch, Z = world(2)
    texts = texts_of(np.repeat(Z[:1], 3, axis=0))
    for t in (0, 0.01, "auto"):
        _, W = fitted(batch, texts, temperature=t)
        np.testing.assert_array_equal(W, mean_of(batch, texts))


@pytest.mark.parametrize("temperature", [0, 1e-6])
def test_temperature_zero_picks_the_best_template(temperature: float) -> None:
    batch, Z = world(3)
    member, W = fitted(batch, texts_of(Z), temperature=temperature)
    best = int(member.score_.argmax())
    np.testing.assert_allclose(member.prompt_weight_, np.eye(4)[best], atol=1e-9)
    np.testing.assert_allclose(W, Z[best], atol=1e-9)
    assert member.effective_prompts_ == pytest.approx(1)


@pytest.mark.parametrize("params", [{}, {"per_class": True}, {"temperature": "auto"}])
def test_a_planted_bad_template_gets_low_weight(params: dict[str, Any]) -> None:
    batch, Z = world(4, P=6)
    Z[2] = np.roll(Z[2], 1, axis=0)  # it names each class by its neighbour's name
    member, _ = fitted(batch, texts_of(Z), q="all", **params)
    assert member.prompt_weight_[2] < 0.02
    assert member.weight_.reshape(5, 6)[:, 2].max() < 0.02
    pruned, _ = fitted(batch, texts_of(Z), q="all", prune=True, **params)
    assert (pruned.weight_.reshape(5, 6)[:, 2] == 0).all()


def test_classes_that_nobody_is_assigned_to_come_first() -> None:
    batch, Z = world(5)
    Z[:, 3] = -Z[:, 0]
    keep = pseudo_labels(batch.X, unit(Z.mean(axis=0))) == 0
    member, _ = fitted(Batch(np.vstack([batch.X[keep], Z[0, 1:3]])), texts_of(Z), q=0.6)
    assert set(member.worst_[:2].tolist()) == {3, 4}
    assert np.isneginf(member.cmm_[[3, 4]]).all()
    assert np.isneginf(member.cmm_after_[[3, 4]]).all()


def test_a_list_longer_than_what_the_images_show_still_selects() -> None:
    """All of Q is never predicted: the predicted classes are scored in its place."""
    batch, Z = world(6, K=20)
    y = pseudo_labels(batch.X, unit(Z.mean(axis=0)))
    two = np.isin(y, np.unique(y)[:2])
    Z[1] = np.roll(Z[1], 1, axis=0)
    member, _ = fitted(Batch(batch.X[two]), texts_of(Z), q=0.1)
    assert np.isneginf(member.cmm_[member.worst_]).all()
    assert member.prompt_weight_[1] < 0.02


@pytest.mark.parametrize("rows", [[], [0], [0, 0, 0]])
def test_nothing_to_compare_is_the_mean_without_a_warning(rows: list[int]) -> None:
    batch, Z = world(7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        member, W = fitted(Batch(batch.X[rows]), texts_of(Z))
    np.testing.assert_array_equal(W, mean_of(batch, texts_of(Z)))
    assert member.rounds_ == 0
    assert member.effective_prompts_ == pytest.approx(4)


def test_a_second_round_starts_from_the_new_answers() -> None:
    batch, Z = world(8, N=200)
    Z[0] = np.roll(Z[0], 1, axis=0)
    texts = texts_of(Z)
    one, W = fitted(batch, texts)
    two, other = fitted(batch, texts, rounds=2)
    assert (one.rounds_, two.rounds_) == (1, 2)
    assert np.abs(W - other).max() > 1e-4
    many, _ = fitted(batch, texts, rounds=50, q="all")
    assert many.rounds_ < 10, "it settles"


def with_own(texts: ClassTexts, vectors: Any, k: int) -> ClassTexts:
    assert texts.prompt_index is not None
    n = len(vectors)
    return replace(
        texts,
        vectors=np.vstack([texts.vectors, vectors]),
        class_index=np.append(texts.class_index, [k] * n),
        prompt_index=np.append(texts.prompt_index, [-1] * n),
    )


def test_texts_of_one_class_stand_beside_the_templates() -> None:
    batch, Z = world(9)
    own = unit(np.random.default_rng(0).standard_normal((2, 12)))
    texts = with_own(texts_of(Z), own, 1)
    member, _ = fitted(batch, texts, temperature=0.001)
    np.testing.assert_allclose(member.weight_[-2:], 1 / 6)
    np.testing.assert_allclose(member.weight_[4:8].sum(), 4 / 6)
    np.testing.assert_allclose(member.weight_[4:8] * 6 / 4, member.prompt_weight_)
    _, equal = fitted(batch, texts, temperature=np.inf)
    np.testing.assert_array_equal(equal, mean_of(batch, texts))


def test_texts_of_one_class_in_place_of_the_templates() -> None:
    batch, Z = world(9)
    own = unit(np.random.default_rng(0).standard_normal((2, 12)))
    texts = with_own(texts_of(Z), own, 1)
    member, W = fitted(batch, texts, mode="replace")
    np.testing.assert_allclose(W[1], unit(own.mean(axis=0)))
    assert (member.weight_[4:8] == 0).all()
    np.testing.assert_allclose(member.weight_[-2:], 0.5)


def test_a_class_may_lack_templates() -> None:
    batch, Z = world(10)
    texts = texts_of(Z)
    keep = np.ones(20, bool)
    keep[[5, 6, 7]] = False  # class 1 has template 0 alone
    assert texts.prompt_index is not None
    cut = replace(
        texts,
        vectors=texts.vectors[keep],
        class_index=texts.class_index[keep],
        prompt_index=texts.prompt_index[keep],
    )
    member, W = fitted(batch, cut, temperature=0)
    np.testing.assert_allclose(W[1], Z[0, 1], atol=1e-9)
    assert member.weight_[4] == pytest.approx(1)


def test_a_template_that_a_class_lacks_is_scored_with_zbar() -> None:
    batch, Z = world(10)
    texts = texts_of(Z)
    keep = np.arange(20) != 6  # class 1 lacks template 2
    assert texts.prompt_index is not None
    cut = replace(
        texts,
        vectors=texts.vectors[keep],
        class_index=texts.class_index[keep],
        prompt_index=texts.prompt_index[keep],
    )
    member, _ = fitted(batch, cut, q="all")
    filled = Z.copy()
    filled[2, 1] = unit(np.delete(Z[:, 1], 2, axis=0).mean(axis=0))
    zbar = unit(filled.mean(axis=0))
    zbar[1] = filled[2, 1]
    y = pseudo_labels(batch.X, zbar)
    expected = [cmm((batch.X, z), y)[0][np.unique(y)].mean() for z in filled]
    np.testing.assert_allclose(member.score_, expected, atol=1e-9)


@pytest.mark.parametrize("per_class", [False, True])
def test_auto_is_what_it_says(per_class: bool) -> None:
    """All predicted classes are scored; logits are z / 2, z = (s - median) / MAD."""
    batch, Z = world(12, P=7)
    member, _ = fitted(batch, texts_of(Z), temperature="auto", q=0.2, per_class=per_class)
    y = pseudo_labels(batch.X, unit(Z.mean(axis=0)))
    margins = np.stack([cmm((batch.X, z), y)[0] for z in Z])
    score = margins[:, np.unique(y)].mean(axis=1)
    np.testing.assert_allclose(member.score_, score, atol=1e-9)

    def z(s: Any) -> Any:
        return (s - np.median(s)) / np.median(np.abs(s - np.median(s)))

    np.testing.assert_allclose(member.prompt_weight_, softmax(z(score) / 2), atol=1e-9)
    (hard,) = member.worst_
    own = (z(score) + z(margins[:, hard])) / 2 if per_class else z(score) / 2
    np.testing.assert_allclose(member.weight_.reshape(5, 7)[hard], softmax(own), atol=1e-9)


def test_the_report_is_plain_and_by_id() -> None:
    batch, Z = world(5)
    assert Cpe().report() == {}
    member, _ = fitted(batch, texts_of(Z), q=0.4)
    told = json.loads(json.dumps(member.report(), allow_nan=False))
    assert told["effective_prompts"] == member.effective_prompts_
    assert told["prompts"] == 4
    assert told["worst"] == [
        {"id": f"c{k}", "cmm": member.cmm_[k], "cmm_after": member.cmm_after_[k]}
        for k in member.worst_
    ]
    alone, _ = fitted(Batch(batch.X[:1]), texts_of(Z))
    assert json.loads(json.dumps(alone.report(), allow_nan=False))["worst"][0]["cmm"] is None


def test_texts_that_no_classes_share_are_refused() -> None:
    batch, Z = world(11)
    texts = replace(texts_of(Z), prompt_index=np.full(20, -1))
    with pytest.raises(NeedsError, match=r"no text is a template that classes share"):
        Cpe().fit(batch, texts, State())
    with pytest.raises(NeedsError, match="it needs 'prompt_index'"):
        Cpe().check_needs(batch, replace(texts, prompt_index=None))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cpe[temperature=-1]", "temperature is -1.0. It must be 0 or more, or 'auto'"),
        ("cpe[q=0]", "q is 0.0"),
        ("cpe[q=2]", "q is 2.0"),
        ("cpe[rounds=0]", "rounds is 0"),
        ("cpe[variant=C]", "variant='C' does not fit"),
        ("cpe[mode=mix]", "mode='mix' does not fit"),
    ],
)
def test_wrong_parameters_are_named(spec: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        get_recipe(spec)


def test_the_recipe() -> None:
    assert get_recipe("cpe").stages()["weigh"] == "cpe"
    assert get_recipe("cpe[q=all,temperature=auto]").create("weigh").params.q == "all"
