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
from byname.decide.crm import Crm
from byname.errors import RecipeError
from byname.ops import softmax, unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.stage import Answer, Batch, ClassTexts, Member, State
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
K = 4
# Logits with steps, so that two of them are equal or clearly differ.
LOGITS = hnp.arrays(np.float64, (5, K), elements=st.integers(-12, 12).map(lambda n: n / 4))


def decide(member: Member, S: Any, k: int = 1, tree: Taxonomy = TREE) -> Answer:
    texts = ClassTexts(np.eye(len(tree)), np.arange(len(tree)), tree)
    answer = member.apply(Batch(np.empty((len(S), 2))), texts, State(S=np.asarray(S), k=k))
    assert isinstance(answer, Answer)
    return answer


def classes(answer: Answer, tree: Taxonomy = TREE) -> NDArray[np.intp]:
    place = {int(node): i for i, node in enumerate(tree.leaf_index)}
    return np.vectorize(place.__getitem__, otypes=[np.intp])(answer.node)


@given(LOGITS)
def test_cost_one_for_every_mistake_is_argmax(S: NDArray[np.float64]) -> None:
    for costs in (1 - np.eye(K), 7.5 * (1 - np.eye(K))):
        found, expected = decide(Crm(costs=costs), S, K), decide(Argmax(), S, K)
        np.testing.assert_array_equal(found.node, expected.node)
        np.testing.assert_allclose(found.probability, expected.probability, atol=1e-6)
        np.testing.assert_array_equal(found.margin, expected.margin)
    flat = Taxonomy.from_names(list("abcd"))
    np.testing.assert_array_equal(decide(Crm(), S, 2, flat).node, decide(Argmax(), S, 2, flat).node)


@given(LOGITS)
def test_no_answer_has_a_lower_expected_cost(S: NDArray[np.float64]) -> None:
    risk = hierarchy.risks(S, TREE.lca_heights())
    found = classes(decide(Crm(), S))[:, 0]
    assert (risk[np.arange(5), found] <= risk.min(1) + 1e-8).all()
    likeliest = classes(decide(Argmax(), S))[:, 0]
    assert (risk[np.arange(5), found] <= risk[np.arange(5), likeliest] + 1e-8).all()


@given(LOGITS)
def test_all_ranks_ascend_in_risk_and_hold_each_class_once(S: NDArray[np.float64]) -> None:
    answer = decide(Crm(), S, K)
    order = classes(answer)
    risk = np.take_along_axis(hierarchy.risks(S, TREE.lca_heights()), order, axis=1)
    assert (np.diff(risk, axis=1) >= -1e-8).all()
    assert (np.sort(order, axis=1) == np.arange(K)).all()
    np.testing.assert_allclose(
        answer.probability, np.take_along_axis(softmax(S), order, axis=1), atol=1e-6
    )
    np.testing.assert_array_equal(decide(Crm(), S, 2).node, answer.node[:, :2])
    np.testing.assert_array_equal(decide(Crm(), S, 1).node, answer.node[:, :1])


def test_a_split_between_relatives_beats_a_likelier_stranger() -> None:
    S = np.log([[0.3, 0.28, 0.02, 0.4]])
    assert classes(decide(Argmax(), S)).tolist() == [[3]]
    answer = decide(Crm(), S)
    assert classes(answer).tolist() == [[0]]
    assert answer.probability[0, 0] == pytest.approx(0.3)
    assert answer.margin[0] == pytest.approx(0.1)
    assert answer.decision.tolist() == ["accept"]


def test_small_probabilities_are_not_rounded_away() -> None:
    p = np.array([[0.5, 0.5 - 3e-6, 1e-6, 2e-6]])
    costs = np.ones((4, 4)) - np.eye(4)
    costs[3, 0] = 1e7
    assert classes(decide(Crm(costs=costs), np.log(p).astype(np.float32))).tolist() == [[1]]


def test_the_order_of_many_images_and_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    S = np.random.default_rng(0).normal(size=(50, K)).astype(np.float32)
    whole = decide(Crm(), S, 3)
    monkeypatch.setattr("byname.decide.crm._BLOCK", 7)
    np.testing.assert_array_equal(decide(Crm(), S, 3).node, whole.node)


def test_another_level(shared: Path) -> None:
    task = np.load(shared / "rs19" / "clip-rn50.npz")
    K = len(task["classes"])
    groups = {name: ("built" if i % 2 else "open") for i, name in enumerate(task["classes"])}
    nodes = [Node("built", "built"), Node("open", "open")]
    nodes += [Node(str(name), str(name), group) for name, group in groups.items()]
    tree = Taxonomy(nodes)
    T = unit(task["texts"].astype(np.float32)).transpose(1, 0, 2)
    texts = ClassTexts(T.reshape(-1, T.shape[2]), np.repeat(np.arange(K), T.shape[1]), tree)
    pipeline = Pipeline(get_recipe("crm")).fit(texts)
    S = pipeline.scores(Batch(unit(task["images"].astype(np.float32))))
    answer, same = pipeline.decide(S)
    risk = hierarchy.risks(S[:60], tree.lca_heights())
    found = classes(answer, same)[:60, 0]
    assert (risk[np.arange(60), found] <= risk.min(1) + 1e-5).all()
    cut_answer, cut = pipeline.decide(S, level=1)
    assert {cut.nodes[n].id for n in cut_answer.node[:, 0]} <= {"built", "open"}
    pipeline.decider = Crm(costs=1 - np.eye(K))
    np.testing.assert_array_equal(
        pipeline.decide(S)[0].node, Pipeline(get_recipe("argmax")).fit(texts).decide(S)[0].node
    )


@pytest.mark.parametrize(
    "costs, seen",
    [
        (np.zeros((2, 3)), "their shape is (2, 3). Give a square matrix (K, K)."),
        (np.zeros(3), "their shape is (3,). Give a square matrix (K, K)."),
        ([[0, np.nan], [1, 0]], "row 0, column 1 is nan, not finite. Give numbers."),
        ([[0, np.inf], [1, 0]], "row 0, column 1 is inf, not finite. Give numbers."),
        ([[0, 1], [-1, 0]], "row 1, column 0 is -1.0, negative. Give 0 or more."),
        ([[0, 1], [1, 2]], "row 1, column 1 is 2.0, not 0. The right answer costs nothing."),
    ],
)
def test_costs_that_do_not_fit(costs: Any, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        Crm(costs=costs)
    assert str(error.value) == f"cannot weigh mistakes by these costs: {seen}"


@pytest.mark.parametrize("costs", ["x", [[0, 1], [1]], [[0, "a"], ["b", 0]], object()])
def test_costs_that_are_no_numbers(costs: Any) -> None:
    with pytest.raises(RecipeError, match=r"not numbers in rows of one length\. Give a square"):
        Crm(costs=costs)


def test_costs_of_other_classes() -> None:
    with pytest.raises(RecipeError, match=r"they are for 2 classes and there are 4\. Give a row"):
        decide(Crm(costs=[[0, 1], [1, 0]]), np.zeros((1, 4)))


def test_costs_of_zero_are_a_tie_for_the_likeliest() -> None:
    S = np.log([[0.2, 0.5, 0.2, 0.1]])
    assert classes(decide(Crm(costs=np.zeros((4, 4))), S)).tolist() == [[1]]


def test_the_users_matrix_is_copied() -> None:
    costs = 1 - np.eye(4)
    member = Crm(costs=costs)
    costs[:] = -1
    assert classes(decide(member, np.log([[0.2, 0.5, 0.2, 0.1]]))).tolist() == [[1]]


def test_unknown_costs() -> None:
    with pytest.raises(RecipeError, match="cost='path' does not fit"):
        get_recipe("crm[cost=path]")
    with pytest.raises(RecipeError, match=r"cannot use 'crm': cost is 'path'\. Known: lca\."):
        Crm(cost="path")
