from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import NeedsError, PromptError, RecipeError
from byname.ops import unit
from byname.recipes import get_recipe
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from byname.weigh.mean import Mean
from byname.weigh.uncertainty import Uncertainty
from tests.reference.uncertainty import uncertainty

seeds = st.integers(0, 10_000)
NONE = Batch(np.empty((0, 5)))
MODES = [("share", 0.5), ("share", 0.3), ("k", 1), ("k", 2), ("global", 1), ("global", 4)]
MODES += [("std", 0.0), ("std", -5.0), ("std", 0.7)]


def world(seed: int, counts: Any = (3, 1, 5), D: int = 5, **fields: Any) -> ClassTexts:
    rng = np.random.default_rng(seed)
    index = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    taxonomy = Taxonomy(Node(f"c{k}", f"class {k}") for k in range(len(counts)))
    return ClassTexts(
        unit(rng.standard_normal((len(index), D))), index, taxonomy,
        text_log_var=rng.normal(-4, 1, (len(index), D)), **fields,
    )  # fmt: skip


def fitted(texts: ClassTexts, mode: str = "share", value: float | None = None) -> Any:
    name = {"share": "share", "k": "k", "global": "k", "std": "a"}[mode]
    params: dict[str, Any] = {} if value is None else {name: value}
    return Uncertainty(mode=mode, **params).fit(NONE, texts, State())


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from(MODES))
def test_loops_agree(seed: int, how: tuple[str, float]) -> None:
    texts = world(seed)
    member = fitted(texts, *how)
    weight, W = uncertainty(texts.vectors, texts.text_log_var, texts.class_index, 3, *how)
    np.testing.assert_allclose(member.weight_, weight, atol=1e-12)
    np.testing.assert_allclose(member.apply(NONE, texts, State()), W, atol=1e-12)


def test_on_real_vectors_with_made_up_variances(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-rn50.npz")
    texts = task.texts_for("templates")
    rng = np.random.default_rng(0)
    texts = replace(texts, text_log_var=rng.normal(-6, 1, texts.vectors.shape).astype(np.float32))
    batch = task.batch()
    for how in (("share", 0.5), ("global", 400)):
        member = fitted(texts, *how)
        weight, W = uncertainty(texts.vectors, texts.text_log_var, texts.class_index, 19, *how)
        found = member.apply(batch, texts, State())
        assert found.dtype == np.float32
        np.testing.assert_allclose(member.weight_, weight, atol=1e-12)
        np.testing.assert_allclose(found, W, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_one_text_a_class_is_prompt_selection(seed: int) -> None:
    texts = world(seed)
    member = fitted(texts, "k", 1)
    W = member.apply(NONE, texts, State())
    for k in range(3):
        own = np.flatnonzero(texts.class_index == k)
        best = own[np.exp(texts.text_log_var[own]).sum(axis=1).argmin()]
        assert member.weight_[best] == 1
        np.testing.assert_allclose(W[k], texts.vectors[best], atol=1e-12)


@pytest.mark.parametrize("how", [("share", 1.0), ("k", 5), ("k", 99), ("global", 9), ("std", 99)])
def test_all_texts_are_the_mean(how: tuple[str, float]) -> None:
    texts = world(1, weight=np.random.default_rng(0).uniform(0.5, 2, 9))
    mean = Mean().fit(NONE, texts, State())
    member = fitted(texts, *how)
    np.testing.assert_allclose(member.weight_, mean.weight_, atol=1e-12)
    np.testing.assert_allclose(
        member.apply(NONE, texts, State()), mean.apply(NONE, texts, State()), atol=1e-12
    )


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from(MODES), st.floats(-5, 5))
def test_the_scale_of_variances_does_not_matter(
    seed: int, how: tuple[str, float], shift: float
) -> None:
    texts = world(seed)
    other = replace(texts, text_log_var=texts.text_log_var + shift)
    np.testing.assert_array_equal(fitted(texts, *how).kept_, fitted(other, *how).kept_)


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from(MODES))
def test_the_most_certain_text_of_a_class_is_always_kept(seed: int, how: tuple[str, float]) -> None:
    texts = world(seed)
    member = fitted(texts, *how)
    for k in range(3):
        own = np.flatnonzero(texts.class_index == k)
        assert member.kept_[own[member.u_[own].argmin()]]
        if not member.kept_[own].all():
            worst = member.u_[own][member.kept_[own]].max()
            assert (member.u_[own][~member.kept_[own]] > worst).all()


@pytest.mark.parametrize("how", MODES)
def test_equal_variances_are_kept_together(how: tuple[str, float]) -> None:
    texts = world(2)
    texts = replace(texts, text_log_var=np.full((9, 5), -3.1))
    if how != ("std", -5.0):
        assert fitted(texts, *how).kept_.all()
    texts = replace(texts, text_log_var=np.array([[-3.0], [-3.0], [-1.0]] * 3) + np.zeros((9, 5)),
                    class_index=np.repeat([0, 1, 2], 3))  # fmt: skip
    assert fitted(texts, "k", 1).kept_.tolist() == [True, True, False] * 3


def test_texts_without_weight_or_class_do_not_count() -> None:
    texts = world(3, counts=(4, 4))
    order = np.argsort(texts.class_index, kind="stable")
    texts = replace(
        texts, vectors=texts.vectors[order], class_index=np.array([0, 0, 0, -1, 1, 1, 1, 1]),
        text_log_var=np.arange(8.0)[:, None] - np.zeros((8, 5)),
        weight=np.array([0, 1, 1, 1, 1, 1, 1, 0.0]),
    )  # fmt: skip
    assert fitted(texts, "k", 1).kept_.tolist() == [False, True, False, False, True] + [False] * 3
    assert fitted(texts, "global", 2).kept_.sum() == 3


def test_texts_that_do_not_count_are_not_in_the_report() -> None:
    u = np.array([[0.1], [0.3], [0.9], [0.2]]) + np.zeros((4, 5))
    texts = replace(
        world(4, counts=(3, 1)), text_log_var=np.log(u), class_index=np.array([0, 0, 0, 1]),
        weight=np.array([1.0, 1.0, 0.0, 1.0]),
    )  # fmt: skip
    first, second = fitted(texts).report()["classes"]
    assert (first["id"], first["texts"], first["kept"]) == ("c0", 2, 1)
    assert first["uncertainty"] == pytest.approx(1.0)
    assert (second["id"], second["texts"]) == ("c1", 1)
    none = replace(texts, weight=np.array([0.0, 1.0, 1.0, 1.0]))
    assert fitted(none).report()["classes"][0]["lowest"] == pytest.approx(1.5)


def test_a_variance_right_at_the_limit_is_kept_whatever_rounding_says() -> None:
    """Of two texts the vaguer one is at the mean and one standard deviation more."""
    rng = np.random.default_rng(0)
    for log_var in rng.normal(-3, 1, (40, 2, 5)):
        texts = replace(world(2, counts=(2,)), text_log_var=log_var)
        assert fitted(texts, "std", 1.0).kept_.all()
        assert fitted(texts, "std", 1 - 1e-9).kept_.sum() == 1


@pytest.mark.parametrize("how", MODES)
def test_endless_variances_leave_numbers(how: tuple[str, float]) -> None:
    texts = replace(world(2, counts=(3,)), text_log_var=np.array([[1e4], [-np.inf], [np.inf]]))
    member = fitted(texts, *how)
    assert member.kept_[1]
    assert member.weight_.sum() == pytest.approx(1)
    assert np.isfinite(member.report()["classes"][0]["uncertainty"])


def test_a_variance_that_is_no_number_is_refused() -> None:
    texts = world(2)
    assert texts.text_log_var is not None
    texts.text_log_var[7, 2] = np.nan
    with pytest.raises(PromptError, match="row 7 of 'text_log_var' holds NaN"):
        fitted(texts)


def test_report_puts_the_most_ambiguous_class_first() -> None:
    texts = world(4, counts=(2, 1))
    u = np.array([[0.1], [0.5], [0.3]]) + np.zeros((3, 5))
    texts = replace(texts, class_index=np.array([0, 1, 0]), text_log_var=np.log(u))
    assert Uncertainty().report() == {}
    told = fitted(texts).report()["classes"]
    assert [entry["id"] for entry in told] == ["c1", "c0"]
    assert told[1]["uncertainty"] == pytest.approx(1.0)
    assert told[1]["lowest"] == pytest.approx(0.5)
    assert (told[1]["kept"], told[1]["texts"]) == (1, 2)


def test_without_variances_it_is_refused() -> None:
    texts = replace(world(5), text_log_var=None)
    with pytest.raises(NeedsError, match="'uncertainty': it needs 'text_log_var'"):
        Uncertainty().check_needs(NONE, texts)


@pytest.mark.parametrize(
    ("params", "seen"),
    [
        ({"mode": "best"}, "mode is 'best'. It must be 'share', 'k', 'global' or 'std'."),
        ({"share": 0.0}, "share is 0.0. It must be a share above 0, up to 1."),
        ({"share": 1.5}, "share is 1.5. It must be a share above 0, up to 1."),
        ({"k": 0}, "k is 0. It must be 1 or more."),
        ({"a": float("nan")}, "a is nan. It must be a finite number of standard deviations."),
    ],
)
def test_parameters_out_of_range(params: dict[str, Any], seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        Uncertainty(**params)
    assert str(error.value) == f"cannot use 'uncertainty': {seen}"


def test_a_spec_reaches_the_parameters() -> None:
    member = get_recipe("uncertainty[mode=global,k=3]").create("weigh")
    assert (member.params.mode, member.params.k) == ("global", 3)


@pytest.mark.parametrize("params", [{"k": 1.5}, {"k": True}, {"share": "x"}, {"a": None}])
def test_parameters_of_another_kind(params: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=f"'uncertainty': {next(iter(params))}=.* does not fit"):
        Uncertainty(**params)
