from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from byname.decide.argmax import Argmax
from byname.decide.backoff import Backoff, prompt_agreement, temperature_for
from byname.errors import RecipeError
from byname.ops import softmax, unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.stage import Answer, Batch, ClassTexts, State
from byname.taxonomy import Node, Taxonomy
from tests.reference import hierarchy

TREE = Taxonomy(
    [
        Node("f", "fruit"),
        Node("c", "citrus", "f"),
        Node("l", "lemon", "c"),
        Node("o", "orange", "c"),
        Node("a", "apple", "f"),
        Node("m", "milk"),
    ]
)
LOGITS = hnp.arrays(np.float64, (5, 4), elements=st.floats(-5, 5))


def decide(S: Any, threshold: float, k: int = 1, tree: Taxonomy = TREE) -> Answer:
    texts = ClassTexts(np.eye(len(tree)), np.arange(len(tree)), tree)
    member = Backoff(threshold=threshold, calibrate="off")
    return member.apply(Batch(np.empty((len(S), 2))), texts, State(S=np.asarray(S), k=k))


def ids(answer: Answer, tree: Taxonomy = TREE) -> list[str]:
    return [tree.nodes[n].id for n in answer.node[:, 0]]


def test_the_deepest_node_that_is_probable_enough() -> None:
    S = np.log([[0.92, 0.04, 0.02, 0.02], [0.5, 0.45, 0.02, 0.03], [0.4, 0.3, 0.25, 0.05],
                [0.3, 0.2, 0.1, 0.4]])  # fmt: skip
    answer = decide(S, 0.9)
    assert ids(answer) == ["l", "c", "f", ""]
    assert answer.decision.tolist() == ["accept", "backoff", "backoff", "backoff"]
    np.testing.assert_allclose(answer.probability[:, 0], [0.92, 0.95, 0.95, 1.0], rtol=1e-6)
    np.testing.assert_allclose(answer.margin, [0.88, 0.05, 0.1, 0.1], atol=1e-6)
    assert TREE.path_string("") == ""


@given(LOGITS, st.floats(0, 1))
def test_it_is_the_plain_rule(S: NDArray[np.float64], threshold: float) -> None:
    found, expected = ids(decide(S, threshold)), hierarchy.backoff(S, TREE, threshold)
    P = TREE.rollup(softmax(S))
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        # Equal but for the last digit of a sum.
        near = abs(P[i] - threshold).min() < 1e-9 or (
            TREE.heights[TREE.index(a)] == TREE.heights[TREE.index(b)]
            and abs(P[i, TREE.index(a)] - P[i, TREE.index(b)]) < 1e-9
        )
        assert a == b or near


@given(LOGITS)
def test_threshold_zero_is_argmax_and_one_is_the_root(S: NDArray[np.float64]) -> None:
    texts = ClassTexts(np.eye(4), np.arange(4), TREE)
    expected = Argmax().apply(Batch(np.empty((5, 2))), texts, State(S=S, k=3))
    found = decide(S, 0.0, 3)
    np.testing.assert_array_equal(found.node, expected.node)
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-6)
    assert (found.decision == "accept").all()
    root = decide(S, 1.0)
    assert set(ids(root)) == {""}
    assert (root.decision == "backoff").all()
    assert (root.probability == 1).all()


@given(LOGITS, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_answers_more_specifically(
    S: NDArray[np.float64], one: float, other: float
) -> None:
    low, high = sorted((one, other))
    a, b = decide(S, low), decide(S, high)
    assert (TREE.heights[a.node[:, 0]] <= TREE.heights[b.node[:, 0]]).all()
    for x, y, sure in zip(ids(a), ids(b), np.full(5, low > 0.5), strict=True):
        assert not sure or x == y or y in (*TREE.ancestors(x), ""), "answers lie on one path"


@given(LOGITS, st.floats(0, 1))
def test_what_is_answered_clears_the_threshold(S: NDArray[np.float64], threshold: float) -> None:
    answer = decide(S, threshold)
    assert (answer.probability[:, 0] >= threshold - 1e-6).all()
    is_class = TREE.heights[answer.node[:, 0]] == 0
    np.testing.assert_array_equal(answer.decision == "accept", is_class)


def test_after_a_group_follow_the_likeliest_classes() -> None:
    answer = decide(np.log([[0.5, 0.45, 0.02, 0.03], [0.92, 0.04, 0.03, 0.01]]), 0.9, 3)
    assert [[TREE.nodes[n].id for n in row] for row in answer.node] == [
        ["c", "l", "o"],
        ["l", "o", "a"],
    ]
    np.testing.assert_allclose(answer.probability[0], [0.95, 0.5, 0.45], rtol=1e-6)


def test_a_flat_list_answers_a_class_or_nothing() -> None:
    flat = Taxonomy.from_names(["a", "b"])
    answer = decide(np.log([[0.95, 0.05], [0.6, 0.4]]), 0.9, tree=flat)
    assert ids(answer, flat) == ["a", ""]


def test_logits_that_are_no_numbers_answer_the_root() -> None:
    assert ids(decide([[np.nan] * 4, [-np.inf] * 4], 0.9)) == ["", ""]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    S = 3 * np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    whole = decide(S, 0.8, 2)
    monkeypatch.setattr("byname.decide.backoff._BLOCK", 7)
    again = decide(S, 0.8, 2)
    np.testing.assert_array_equal(again.node, whole.node)
    np.testing.assert_array_equal(again.probability, whole.probability)


# -- calibration


@given(st.integers(0, 99), st.integers(2, 5), st.integers(1, 4))
def test_agreement_is_the_plain_count(seed: int, P: int, K: int) -> None:
    rng = np.random.default_rng(seed)
    X, T = rng.normal(size=(6, 5)), rng.normal(size=(P, K, 5))
    texts = ClassTexts(
        T.transpose(1, 0, 2).reshape(-1, 5),
        np.repeat(np.arange(K), P),
        Taxonomy.from_names([f"n{k}" for k in range(K)]),
    )
    assert prompt_agreement(X, texts) == pytest.approx(hierarchy.agreement(X, T))
    order = rng.permutation(P * K)
    mixed = ClassTexts(
        texts.vectors[order],
        texts.class_index[order],
        texts.taxonomy,
        prompt_index=np.tile(np.arange(P), K)[order],
    )
    assert prompt_agreement(X, mixed) == pytest.approx(hierarchy.agreement(X, T))


def test_agreement_that_cannot_be_known() -> None:
    texts = ClassTexts(np.eye(2), np.arange(2), Taxonomy.from_names(["a", "b"]))
    assert np.isnan(prompt_agreement(np.eye(2), texts)), "one text a class"
    more = ClassTexts(np.eye(4), np.array([0, 0, 1, 1]), Taxonomy.from_names(["a", "b"]))
    assert np.isnan(prompt_agreement(np.zeros((0, 4)), more)), "no image"
    uneven = ClassTexts(np.eye(3), np.array([0, 0, 1]), Taxonomy.from_names(["a", "b"]))
    assert prompt_agreement(np.eye(3)[2:], uneven) == 1.0, "a single text stands in for each"
    lost = ClassTexts(np.eye(3), np.array([0, 0, -1]), Taxonomy.from_names(["a", "b"]))
    assert np.isnan(prompt_agreement(np.eye(3), lost)), "a class without a text"


@given(hnp.arrays(np.float64, (6, 3), elements=st.floats(-4, 4)), st.floats(0.5, 0.9))
def test_the_temperature_gives_the_wanted_confidence(
    S: NDArray[np.float64], confidence: float
) -> None:
    T = temperature_for(S, confidence)
    assert 0.05 <= T <= 20.01
    if 0.051 < T < 19.9:
        assert softmax(S / T).max(1).mean() == pytest.approx(confidence, abs=1e-6)


def fitted(shared: Path, encoder: str, **params: Any) -> tuple[Pipeline, Any, Any]:
    task = np.load(shared / "rs19" / f"{encoder}.npz")
    T = unit(task["texts"].astype(np.float32)).transpose(1, 0, 2)
    K, P, D = T.shape
    names = [str(name) for name in task["classes"]]
    texts = ClassTexts(
        T.reshape(-1, D),
        np.repeat(np.arange(K), P),
        Taxonomy.from_names(names),
        prompt_index=np.tile(np.arange(P), K),
        scale=100.0,
    )
    batch = Batch(unit(task["images"].astype(np.float32)))
    settings = ",".join(f"{name}={value}" for name, value in params.items())
    pipeline = Pipeline(get_recipe("ensemble", decide=f"backoff[{settings}]")).fit(texts, batch)
    return pipeline, pipeline.scores(batch), task["labels"]


@pytest.mark.parametrize("encoder", ["clip-rn50", "clip-vit-b-32", "clip-vit-l-14"])
def test_agreement_never_makes_answers_surer(shared: Path, encoder: str) -> None:
    pipeline, S, _ = fitted(shared, encoder)
    member = pipeline.decider
    assert isinstance(member, Backoff)
    assert member.agreement_ > softmax(S).max(1).mean(), "it would sharpen"
    assert member.temperature_ == 1.0
    assert member.report() == {"temperature": 1.0, "agreement": member.agreement_}


def test_prompts_that_disagree_make_answers_more_cautious() -> None:
    rng = np.random.default_rng(0)
    index = np.repeat([0, 1], 4)
    vectors = np.eye(5)[index] + 0.6 * rng.normal(size=(8, 5))
    texts = ClassTexts(vectors, index, Taxonomy.from_names(["a", "b"]))
    batch, S = Batch(rng.normal(size=(40, 5))), np.tile([9.0, 0.0], (40, 1))
    member = Backoff().fit(batch, texts, State(S=S))
    assert 0.5 < member.agreement_ < 0.9
    assert member.temperature_ > 2
    after = softmax(S / member.temperature_).max(1).mean()
    assert after == pytest.approx(member.agreement_, abs=1e-6)


def test_a_probability_at_the_threshold_clears_it_whatever_its_last_digit() -> None:
    """0.8 + 0.1 and the like come out below 0.9 in floating point."""
    p = np.array([[0.7, 0.2, 0.05, 0.05], [0.6, 0.3, 0.05, 0.05], [0.8, 0.1, 0.05, 0.05]])
    sums = TREE.rollup(softmax(np.log(p)))[:, TREE.index("c")]
    assert (sums < 0.9).any(), "else this says nothing"
    assert ids(decide(np.log(p), 0.9)) == ["c", "c", "c"]


def test_among_equals_the_likeliest_node_is_answered() -> None:
    """Below a threshold of 0.5 several nodes of one height may clear it."""
    S = np.log([[0.3, 0.45, 0.05, 0.2], [0.01, 0.02, 0.35, 0.62], [0.25, 0.2, 0.15, 0.4]])
    assert ids(decide(S, 0.25)) == ["o", "m", "m"]
    tree = Taxonomy(
        [Node("x", "x"), Node("y", "y")]
        + [Node(f"{g}{i}", f"{g}{i}", g) for g in "xy" for i in range(2)]
    )
    low = decide(np.log([[0.21, 0.22, 0.28, 0.29]]), 0.4, tree=tree)
    assert ids(low, tree) == ["y"]


def test_without_calibration_or_images_the_temperature_is_one(shared: Path) -> None:
    pipeline, _, _ = fitted(shared, "clip-rn50", calibrate="off")
    assert pipeline.decider.temperature_ == 1.0  # type: ignore[attr-defined]
    texts = ClassTexts(np.eye(4), np.array([0, 0, 1, 1]), Taxonomy.from_names(["a", "b"]))
    member = Backoff().fit(Batch(np.zeros((0, 4))), texts, State(S=np.zeros((0, 2))))
    assert member.temperature_ == 1.0
    assert np.isnan(member.agreement_)
    assert member.report() == {"temperature": 1.0, "agreement": None}


def test_another_level_is_not_calibrated(shared: Path) -> None:
    pipeline, S, _ = fitted(shared, "clip-rn50")
    answer, _ = pipeline.decide(S, level=1)
    uncalibrated, _ = fitted(shared, "clip-rn50", calibrate="off")[0].decide(S, level=1)
    np.testing.assert_array_equal(answer.node, uncalibrated.node)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_thresholds_outside_0_to_1(value: float) -> None:
    with pytest.raises(RecipeError) as error:
        get_recipe(f"backoff[threshold={value}]")
    assert str(error.value) == (
        f"cannot use 'backoff': threshold is {value}. Give a number from 0 to 1."
    )


def test_unknown_calibrations() -> None:
    with pytest.raises(RecipeError, match=r"calibrate is 'labels'\. Known: agreement, off\."):
        Backoff(calibrate="labels")
