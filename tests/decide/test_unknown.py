"""Rejection by null texts: against loops, on any level, and what it does not depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.decide.argmax import Argmax
from byname.decide.unknown import Unknown
from byname.errors import NeedsError, RecipeError
from byname.ops import unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.stage import Batch, ClassTexts, State, create
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from tests.reference.unknown import null_margins

TREE = Taxonomy(
    [Node("f", "fruit"), Node("a", "apple", "f"), Node("p", "pear", "f"), Node("m", "milk")]
)


def make(seed: int, N: int = 12, P: int = 3, D: int = 6) -> tuple[Batch, ClassTexts, State]:
    rng = np.random.default_rng(seed)
    texts = ClassTexts(
        unit(rng.standard_normal((3 * P, D))), np.repeat(np.arange(3), P), TREE,
        node_id=tuple(np.repeat(["a", "p", "m"], P).tolist()),
        null=unit(rng.standard_normal((4, D))), scale=20.0,
    )  # fmt: skip
    X = unit(rng.standard_normal((N, D)))
    W = texts.vectors.reshape(3, P, D).mean(axis=1)
    return Batch(X), texts, State(W=W, S=20 * X @ W.T, weight=np.full(3 * P, 1 / P), k=2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.floats(-5, 5))
def test_loops_agree(seed: int, min_margin: float) -> None:
    batch, texts, state = make(seed)
    member = Unknown(min_margin=min_margin)
    margins = null_margins(batch.X, state.W, texts.null, 20.0)
    found = member.details(batch, texts, state)["null_margin"]
    np.testing.assert_allclose(np.array(found) / 20, np.array(margins) / 20, atol=1e-9)
    answer, plain = member.apply(batch, texts, state), Argmax().apply(batch, texts, state)
    clear = np.abs(np.array(margins) - min_margin) > 1e-6
    expected = np.where(np.array(margins) >= min_margin, "accept", "reject")
    assert (answer.decision == expected)[clear].all()
    np.testing.assert_array_equal(answer.node, plain.node)
    np.testing.assert_array_equal(answer.probability, plain.probability)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9999))
def test_a_larger_margin_rejects_no_fewer(seed: int) -> None:
    batch, texts, state = make(seed)
    shares = [
        (Unknown(min_margin=m).apply(batch, texts, state).decision == "reject").mean()
        for m in (-40, -1, 0, 1, 40)
    ]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9999), st.floats(0.1, 10))
def test_the_length_of_class_vectors_and_the_logits_do_not_count(seed: int, by: float) -> None:
    batch, texts, state = make(seed)
    a = Unknown().details(batch, texts, state)["null_margin"]
    other = replace(state, W=by * state.W, S=-state.S)
    b = Unknown().details(batch, replace(texts, bias=-9.0), other)["null_margin"]
    np.testing.assert_allclose(a, b, atol=1e-9)


@pytest.mark.parametrize("named", [True, False])
def test_a_level_above_compares_with_the_same_classes(named: bool) -> None:
    _, texts, _ = make(3)
    batch = make(3, N=30)[0]
    texts = texts if named else replace(texts, node_id=None)
    pipeline = Pipeline(get_recipe("unknown")).fit(texts)
    S = pipeline.scores(batch)
    leaves, _ = pipeline.decide(S, batch=batch)
    groups, tree = pipeline.decide(S, level=1, batch=batch)
    assert {tree.nodes[n].id for n in groups.node[:, 0]} <= {"f", "m"}
    assert len(groups.decision) == 30
    assert 0 < (leaves.decision == "reject").sum() < 30
    if named:
        np.testing.assert_array_equal(groups.decision, leaves.decision)


def test_weights_of_the_weigh_stage_count_on_a_level_too() -> None:
    batch, texts, _ = make(4, N=40)
    texts = replace(texts, weight=np.random.default_rng(0).uniform(0.1, 2, 9))
    pipeline = Pipeline(get_recipe("unknown[min_margin=1]")).fit(texts)
    S = pipeline.scores(batch)
    a, b = (pipeline.decide(S, level=level, batch=batch)[0].decision for level in (None, 1))
    np.testing.assert_array_equal(a, b)


def test_vectors_that_are_not_numbers_are_rejected() -> None:
    batch, texts, state = make(5)
    X = batch.X.copy()
    X[0] = np.nan
    assert Unknown(min_margin=-99).apply(Batch(X), texts, state).decision[0] == "reject"


def test_what_it_needs() -> None:
    batch, texts, state = make(6)
    with pytest.raises(NeedsError, match="'unknown': it needs 'null'"):
        Unknown().check_needs(batch, replace(texts, null=None))
    pipeline = Pipeline(get_recipe("unknown")).fit(texts)
    with pytest.raises(NeedsError, match="vectors of the images, 6 wide, and got 0 columns"):
        pipeline.decide(state.S)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_wrong_parameters_are_named(value: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(f"unknown[min_margin={value}]", "decide")
    assert str(error.value) == (
        f"cannot use 'unknown': min_margin is {value}. Give a number of logits."
    )
    assert create("unknown").params.min_margin == 0


def test_real_vectors(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    texts = task.texts_for("templates[set=single]")
    null: Any = unit(task.texts.mean(axis=1))[::20]
    texts, batch = replace(texts, null=null), Batch(task.images[::10])
    pipeline = Pipeline(get_recipe("unknown")).fit(texts)
    found = pipeline.details(batch, pipeline.scores(batch))["null_margin"]
    expected = null_margins(batch.X, texts.vectors, null, 100.0)
    np.testing.assert_allclose(np.array(found) / 100, np.array(expected) / 100, atol=1e-5)
