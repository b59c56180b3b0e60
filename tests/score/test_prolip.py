from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import NeedsError, RecipeError
from byname.ops import softmax, unit
from byname.score.cosine import Cosine
from byname.score.prolip import Prolip
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from byname.weigh.bprw import Bprw
from byname.weigh.mean import Mean
from tests.reference.prolip import prolip

seeds = st.integers(0, 10_000)


def world(seed: int, counts: Any = (3, 1, 2), D: int = 5, **fields: Any) -> Any:
    rng = np.random.default_rng(seed)
    index = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    texts = ClassTexts(
        unit(rng.standard_normal((len(index), D))),
        index,
        Taxonomy(Node(f"c{k}", f"class {k}") for k in range(len(counts))),
        text_log_var=rng.normal(-4, 1, (len(index), D)),
        scale=20.0,
        bias=-3.0,
        **fields,
    )
    batch = Batch(unit(rng.standard_normal((6, D))))
    weigh = Mean().fit(batch, texts, State())
    return batch, texts, State(weight=weigh.weight_, W=weigh.apply(batch, texts, State()))


def score(batch: Any, texts: Any, state: Any, **params: Any) -> Any:
    return Prolip(**params).fit(batch, texts, state).apply(batch, texts, state)


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from(["mean", "sum"]), st.sampled_from([0.0, 1.0, 2.5]))
def test_loops_agree(seed: int, pooling: str, multiplier: float) -> None:
    batch, texts, state = world(seed, weight=np.random.default_rng(seed).uniform(0.1, 3, 6))
    expected = prolip(
        batch.X, state.W, texts.text_log_var, texts.class_index, texts.weight,
        scale=20.0, bias=-3.0, pooling=pooling, multiplier=multiplier,
    )  # fmt: skip
    found = score(batch, texts, state, pooling=pooling, multiplier=multiplier)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    alone = score(batch, texts, State(W=state.W), pooling=pooling, multiplier=multiplier)
    np.testing.assert_allclose(alone, expected, atol=1e-9)


def test_on_real_vectors_with_made_up_variances(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-l-14.npz")
    texts, batch = task.texts_for("templates"), Batch(task.images[:20])
    rng = np.random.default_rng(0)
    texts = replace(texts, text_log_var=rng.normal(-8, 1, texts.vectors.shape).astype(np.float32))
    weigh = Mean().fit(batch, texts, State())
    state = State(weight=weigh.weight_, W=weigh.apply(batch, texts, State()))
    found = score(batch, texts, state)
    expected = prolip(
        batch.X, state.W, texts.text_log_var, texts.class_index, weigh.weight_, scale=100.0
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found / 100, expected / 100, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_it_is_the_expected_squared_distance(seed: int) -> None:
    """-scale / 2 times E|x - t|^2 over draws, but for what all classes of an image share."""
    batch, texts, state = world(seed, counts=(1, 1, 1))
    rng = np.random.default_rng(seed)
    order = np.argsort(texts.class_index)
    draws = rng.standard_normal((40_000, 5))
    draws = (draws - draws.mean(axis=0)) / draws.std(axis=0)
    sd = np.exp(0.5 * texts.text_log_var[order])
    T = texts.vectors[order]
    far = np.array([[((x - t - s * draws) ** 2).sum(1).mean() for t, s in zip(T, sd, strict=True)]
                    for x in batch.X])  # fmt: skip
    expected = -10 * far
    found = score(batch, texts, state)
    np.testing.assert_allclose(
        found - found.mean(axis=1, keepdims=True),
        expected - expected.mean(axis=1, keepdims=True),
        atol=1e-6,
    )


def test_no_multiplier_is_the_cosine() -> None:
    batch, texts, state = world(1)
    np.testing.assert_allclose(
        score(batch, texts, state, multiplier=0.0), Cosine().apply(batch, texts, state), atol=1e-12
    )


@pytest.mark.parametrize("seed", range(3))
def test_equal_variances_change_no_answer(seed: int) -> None:
    batch, texts, state = world(seed)
    texts = replace(texts, text_log_var=np.full(texts.text_log_var.shape, -2.0))
    np.testing.assert_allclose(
        softmax(score(batch, texts, state)),
        softmax(Cosine().apply(batch, texts, state)),
        atol=1e-12,
    )


def test_an_uncertain_class_loses() -> None:
    texts = ClassTexts(
        np.eye(2), np.array([0, 1]), Taxonomy.from_names(["bank", "heron"]),
        text_log_var=np.log(np.array([[0.4, 0.4], [0.1, 0.1]])), scale=10.0,
    )  # fmt: skip
    batch, state = Batch(unit(np.array([[1.0, 0.9]]))), State(W=np.eye(2))
    assert score(batch, texts, state).argmax() == 1
    assert Cosine().apply(batch, texts, state).argmax() == 0
    member = Prolip().fit(batch, texts, state)
    assert [entry["id"] for entry in member.report()["classes"]] == ["bank", "heron"]
    assert Prolip().report() == {}


def test_with_bprw_it_is_the_variance_of_the_weighted_sum() -> None:
    batch, texts, _ = world(2)
    weigh = Bprw(alpha=2.0).fit(batch, texts, State())
    state = State(weight=weigh.weight_, W=weigh.apply(batch, texts, State()))
    member = Prolip(pooling="sum").fit(batch, texts, state)
    variance = np.exp(texts.text_log_var).sum(axis=1)
    for k in range(3):
        own = texts.class_index == k
        assert member.uncertainty_[k] == pytest.approx(
            (weigh.weight_[own] ** 2 * variance[own]).sum()
        )


def test_texts_without_weight_or_class_do_not_count() -> None:
    batch, texts, state = world(3)
    index, weight = texts.class_index.copy(), np.ones(6)
    index[0], weight[1] = -1, 0
    some = np.exp(texts.text_log_var)
    some[:2] = 99
    other = replace(texts, class_index=index)
    a, b = (
        score(batch, replace(other, text_log_var=v), State(weight=weight, W=state.W))
        for v in (texts.text_log_var, np.log(some))
    )
    np.testing.assert_array_equal(a, b)


def test_without_variances_it_is_refused() -> None:
    batch, texts, _ = world(4)
    with pytest.raises(NeedsError, match="'prolip': it needs 'text_log_var'"):
        Prolip().check_needs(batch, replace(texts, text_log_var=None))


@pytest.mark.parametrize(
    ("params", "seen"),
    [
        ({"pooling": "max"}, "pooling is 'max'. It must be 'mean' or 'sum'."),
        ({"multiplier": -1.0}, "multiplier is -1.0. It must be a finite number, 0 or more."),
        ({"multiplier": float("nan")}, "multiplier is nan. It must be a finite number, 0 or more."),
    ],
)
def test_parameters_out_of_range(params: dict[str, Any], seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        Prolip(**params)
    assert str(error.value) == f"cannot use 'prolip': {seen}"
