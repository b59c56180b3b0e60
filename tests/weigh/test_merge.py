"""Merged sources: against loops, and the identities with the mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import PromptError, RecipeError
from byname.ops import unit
from byname.recipes import get_recipe
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from byname.weigh.mean import Mean
from byname.weigh.merge import Merge
from tests.reference.merge import merge

KINDS = ["template", "description", "name"]
MIXES: list[Any] = ["count", "equal"]


def make(seed: int, K: int = 4, M: int = 24) -> ClassTexts:
    rng = np.random.default_rng(seed)
    return ClassTexts(
        unit(rng.standard_normal((M, 6))),
        np.append(np.arange(K), rng.integers(0, K, M - K)),
        Taxonomy.from_names([f"n{k}" for k in range(K)]),
        kind=tuple(rng.choice(KINDS, M)),
        # The first text of a class always counts.
        weight=np.append(np.ones(K), rng.choice([0.0, 0.5, 3.0], M - K)),
    )  # fmt: skip


def fitted(texts: ClassTexts, member: Mean) -> tuple[Any, Any]:
    batch = Batch(texts.vectors[:0])
    member.fit(batch, texts, State())
    return member.weight_, member.apply(batch, texts, State())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.sampled_from(MIXES))
def test_loops_agree(seed: int, mix: Any) -> None:
    texts = make(seed)
    weight, W = fitted(texts, Merge(mix=mix))
    w, expected = merge(texts.vectors, texts.class_index, texts.kind, texts.weight, 4, mix)
    np.testing.assert_allclose(weight, w, atol=1e-9)
    np.testing.assert_allclose(W, expected, atol=1e-9)
    np.testing.assert_allclose(np.bincount(texts.class_index, weight), 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999))
def test_one_kind_is_the_mean_exactly(seed: int) -> None:
    texts = make(seed)
    for kind in (None, ("template",) * 24):
        same = replace(texts, kind=kind)
        _, expected = fitted(same, Mean())
        for mix in MIXES:
            np.testing.assert_array_equal(fitted(same, Merge(mix=mix))[1], expected)


def test_count_is_the_mean_whatever_the_kinds() -> None:
    texts = make(1)
    np.testing.assert_array_equal(fitted(texts, Merge())[1], fitted(texts, Mean())[1])


def test_equal_gives_each_kind_the_same_say() -> None:
    texts = ClassTexts(
        np.eye(6), np.array([0, 0, 0, 1, 1, -1]), Taxonomy.from_names(["a", "b"]),
        kind=("t", "t", "d", "t", "t", "d"),
    )  # fmt: skip
    weight, _ = fitted(texts, Merge(mix="equal"))
    assert weight.tolist() == [0.25, 0.25, 0.5, 0.5, 0.5, 0.0]


def test_a_kind_of_weight_zero_is_no_source() -> None:
    texts = ClassTexts(
        np.eye(3), np.zeros(3, np.intp), Taxonomy.from_names(["a"]),
        kind=("t", "t", "d"), weight=np.array([1.0, 3.0, 0.0]),
    )  # fmt: skip
    assert fitted(texts, Merge(mix="equal"))[0].tolist() == [0.25, 0.75, 0.0]


def test_one_text_a_class_is_that_text() -> None:
    """The unit test of CuPL: one sentence equal to a template gives template zero-shot."""
    texts = ClassTexts(
        unit(np.random.default_rng(0).standard_normal((3, 5))), np.arange(3),
        Taxonomy.from_names(["a", "b", "c"]), kind=("description",) * 3,
    )  # fmt: skip
    for mix in MIXES:
        np.testing.assert_allclose(fitted(texts, Merge(mix=mix))[1], texts.vectors)


def test_on_real_vectors(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    texts = task.texts_for("templates")
    kind = tuple("a" if p < 20 else "b" for p in texts.prompt_index)
    texts = replace(texts, kind=kind)
    index = texts.class_index
    for mix in MIXES:
        weight, W = fitted(texts, Merge(mix=mix))
        w, expected = merge(texts.vectors, index, kind, np.ones(len(index)), 19, mix)
        np.testing.assert_allclose(weight, w, atol=1e-9)
        np.testing.assert_allclose(W, expected, atol=1e-5)
    assert np.abs(fitted(texts, Mean())[1] - W).max() > 1e-4


def test_the_report_names_the_shares() -> None:
    texts = ClassTexts(
        np.eye(4), np.array([0, 0, 0, 1]), Taxonomy.from_names(["a", "b"]),
        kind=("t", "t", "d", "t"),
    )  # fmt: skip
    member = Merge(mix="equal")
    assert member.report() == {}
    member.fit(Batch(np.eye(4)), texts, State())
    assert member.report() == {"shares": {"d": 0.25, "t": 0.75}}


def test_what_does_not_fit() -> None:
    with pytest.raises(RecipeError, match=r"mix is 'half'\. Known: count, equal\."):
        Merge(mix="half")
    with pytest.raises(RecipeError, match="mix='half' does not fit"):
        get_recipe("merge[mix=half]")
    texts = replace(make(0), class_index=np.zeros(24, np.intp))
    with pytest.raises(PromptError, match="no text"):
        fitted(texts, Merge())
    assert get_recipe("merge[mix=equal]").create("weigh").params.mix == "equal"
