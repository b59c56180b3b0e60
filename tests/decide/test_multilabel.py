from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from byname.decide.multilabel import Multilabel
from byname.errors import RecipeError
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.stage import Answer, Batch, ClassTexts, State, create
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from tests.reference import two_state as reference

K = 4
TAXONOMY = Taxonomy.from_names([f"n{k}" for k in range(K)])
# All different, and far enough apart that their probabilities are too.
LOGITS = st.permutations(range(6 * K)).map(lambda x: np.array(x).reshape(6, K) * 0.5 - 6.1)


def texts(K: int = K) -> ClassTexts:
    names = Taxonomy.from_names([f"n{k}" for k in range(K)])
    return ClassTexts(np.eye(K), np.arange(K), names)


def decide(S: Any, fit: Any = None, **params: Any) -> Answer:
    S = np.asarray(S)
    about, member = texts(S.shape[1]), Multilabel(**params)
    if fit is not None:
        member.fit(Batch(np.empty((len(fit), 2))), about, State(S=np.asarray(fit)))
    return member.apply(Batch(np.empty((len(S), 2))), about, State(S=S))


def said(answer: Answer) -> list[tuple[list[int], str]]:
    """Classes of each image; node k + 1 is class k in a flat list."""
    return [
        ([int(n) - 1 for n in row if n >= 0], str(decision))
        for row, decision in zip(answer.node, answer.decision, strict=True)
    ]


def p_of(S: Any) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.asarray(S, np.float64)))


@given(LOGITS, st.floats(0.01, 0.99))
def test_it_is_the_plain_rule(S: NDArray[np.float64], threshold: float) -> None:
    if np.abs(p_of(S) - threshold).min() < 1e-9:
        return
    answer = decide(S, threshold=threshold)
    expected = reference.multilabel(p_of(S), [threshold] * K)
    assert said(answer) == expected
    for row, p, (classes, _), own in zip(
        answer.node, answer.probability, expected, p_of(S), strict=True
    ):
        np.testing.assert_allclose(p[row >= 0], own[classes], atol=1e-6)
        assert (p[row < 0] == 0).all()
        assert (np.diff(p[row >= 0]) <= 0).all()
    two = np.sort(p_of(S), axis=1)[:, -2:]
    np.testing.assert_allclose(answer.margin, two[:, 1] - two[:, 0], atol=1e-6)
    assert answer.node.shape[1] == max(len(classes) for classes, _ in expected)


def test_half_is_enough_and_less_is_a_rejected_candidate() -> None:
    answer = decide([[0.0, 2.0, -1.0], [-0.1, -3.0, -2.0]])
    assert said(answer) == [([1, 0], "accept"), ([0], "reject")]
    assert answer.probability[1, 0] == pytest.approx(p_of(-0.1))


def test_thresholds_of_zero_and_one() -> None:
    S = [[-3.0, 5.0], [1.0, 2.0]]
    assert said(decide(S, threshold=0.0)) == [([1, 0], "accept"), ([1, 0], "accept")]
    assert said(decide(S, threshold=1.0)) == [([1], "reject"), ([1], "reject")]


@given(LOGITS, st.integers(0, 20).map(lambda n: n / 20))
def test_the_quantile_is_that_of_each_class_on_the_unlabeled_images(
    S: NDArray[np.float64], q: float
) -> None:
    answer = decide(S, S, quantile=q)
    bars = np.sort(p_of(S), axis=0)[int(np.ceil(q * (len(S) - 1)))]
    found, expected = said(answer), reference.multilabel(p_of(S), bars)
    assert found == expected
    counts = np.bincount([k for row, d in found if d == "accept" for k in row], minlength=K)
    assert (counts == len(S) - int(np.ceil(q * (len(S) - 1)))).all()


def test_classes_with_a_high_bar_do_not_stand_before_those_that_pass() -> None:
    seen = np.array([[9.0, 0.0], [9.5, -1.0], [8.0, -2.0], [7.0, -3.0]])
    answer = decide([[9.0, -0.5]], seen, quantile=0.9)
    assert said(answer) == [([0], "reject")]
    answer = decide([[9.0, 0.5]], seen, quantile=0.9)
    assert said(answer) == [([1], "accept")]


def test_the_report_names_the_bars() -> None:
    member, about = Multilabel(quantile=0.5), texts(2)
    S = np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
    member.fit(Batch(np.empty((3, 2))), about, State(S=S))
    assert member.threshold_ is not None
    np.testing.assert_allclose(member.threshold_, p_of([1.0, 1.0]))
    assert member.report() == {"threshold": {"n0": p_of(1.0), "n1": p_of(1.0)}}
    assert Multilabel().report() == {}


def test_logits_that_are_no_log_odds_are_a_warning() -> None:
    def told(S: Any, **params: Any) -> Any:
        S = np.asarray(S, np.float32)
        member, about = Multilabel(**params), texts(S.shape[1])
        member.fit(Batch(np.empty((len(S), 2))), about, State(S=S))
        return member.report().get("warning")

    cosines = np.full((5000, 4), 25.0)
    said = told(cosines)
    assert said.startswith("an image gets 4.0 of 4 classes on average")
    assert "--score two_state with --prompts 'states[set=presence]'" in said
    assert "multilabel[quantile=0.9]" in said
    half = np.where(np.arange(4) < 2, 1.0, -1.0) * np.ones((6, 1))
    assert told(half) is None, "half of the classes are not more than half"
    half[0, 2] = 1.0
    assert told(half).startswith("an image gets 2.2 of 4")
    assert told(cosines[:, :3]) is None
    assert told(cosines, quantile=0.9) is None
    assert told(cosines, threshold=0.0) is None, "all classes are what was asked for"
    assert told(cosines[:0]) is None


def test_the_warning_reaches_the_user() -> None:
    pipeline = Pipeline(replace(get_recipe("ensemble"), decide="multilabel"))
    about = replace(texts(), scale=100.0)
    with pytest.warns(UserWarning, match=r"multilabel: an image gets 4\.0 of 4 classes"):
        pipeline.fit(about, Batch(np.full((3, 4), 0.5)))


def test_without_images_the_threshold_holds() -> None:
    S = [[1.0, -1.0]]
    assert said(decide(S, np.empty((0, 2)), quantile=0.9)) == [([0], "accept")]
    assert said(decide(S, np.empty((0, 2)), quantile=0.9, threshold=0.8)) == [([0], "reject")]


def test_all_images_alike_pass_together() -> None:
    S = np.ones((5, 2))
    assert said(decide(S, S, quantile=0.9)) == [([0, 1], "accept")] * 5


def test_one_class_and_none_of_the_images() -> None:
    answer = decide([[1.0], [-1.0]])
    assert said(answer) == [([0], "accept"), ([0], "reject")]
    np.testing.assert_allclose(answer.margin, p_of([1.0, -1.0]), atol=1e-7)
    assert decide(np.empty((0, 3))).node.shape == (0, 1)


def test_what_is_not_a_number_or_impossible_is_not_accepted() -> None:
    answer = decide([[-np.inf, -np.inf], [np.nan, np.nan]])
    assert answer.decision.tolist() == ["reject", "reject"]
    assert answer.probability[0, 0] == 0


def test_logits_too_far_out_for_probabilities_are_still_ranked() -> None:
    answer = decide(np.array([[90.0, 95.0, 92.0]], np.float32))
    assert said(answer) == [([1, 2, 0], "accept")]
    assert (answer.probability == 1).all()


def test_real_logits_by_quantile(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-rn50.npz", with_labels=False)
    S = 100 * task.images @ task.texts[0].T
    found = said(decide(S, S, quantile=0.95))
    bars = np.sort(S.astype(np.float64), axis=0)[int(np.ceil(0.95 * (len(S) - 1)))]
    expected = [sorted(np.flatnonzero(row >= bars).tolist()) for row in S.astype(np.float64)]
    for (classes, decision), own in zip(found, expected, strict=True):
        assert decision == ("accept" if own else "reject")
        assert not own or sorted(classes) == own


@pytest.mark.parametrize("name", ["threshold", "quantile"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_shares_outside_0_to_1(name: str, value: float) -> None:
    with pytest.raises(RecipeError) as error:
        create(f"multilabel[{name}={value}]", "decide")
    expected = f"cannot use 'multilabel': {name} is {value}. Give a number from 0 to 1."
    assert str(error.value) == expected


@pytest.mark.parametrize("params", [{"threshold": "x"}, {"threshold": None}, {"quantile": "x"}])
def test_shares_that_are_no_numbers(params: Any) -> None:
    with pytest.raises(RecipeError, match=r"'multilabel': .* does not fit"):
        Multilabel(**params)
