from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.decide.argmax import Argmax
from byname.decide.descend import Descend
from byname.errors import RecipeError
from byname.ops import softmax
from byname.stage import Answer, Batch, ClassTexts, Member, State, create
from byname.taxonomy import Node, Taxonomy
from tests.reference import descent as reference
from tests.trees import random_tree

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
TREES = st.builds(
    lambda seed, K: random_tree(np.random.default_rng(seed), K),
    st.integers(0, 999),
    st.integers(1, 9),
)


def decide(S: Any, tree: Taxonomy = TREE, k: int = 1, member: Member | None = None) -> Answer:
    texts = ClassTexts(np.eye(len(tree)), np.arange(len(tree)), tree)
    chosen = member or Descend()
    answer = chosen.apply(Batch(np.empty((len(S), 2))), texts, State(S=np.asarray(S), k=k))
    assert isinstance(answer, Answer)
    return answer


def ids(answer: Answer, tree: Taxonomy = TREE) -> list[str]:
    return [tree.nodes[n].id for n in answer.node[:, 0]]


def test_it_stops_where_two_are_about_as_likely() -> None:
    P = [[0.9, 0.04, 0.02, 0.04], [0.42, 0.4, 0.1, 0.08], [0.3, 0.16, 0.45, 0.09],
         [0.25, 0.2, 0.05, 0.5]]  # fmt: skip
    answer = decide(np.log(P))
    assert ids(answer) == ["l", "c", "f", ""]
    assert answer.decision.tolist() == ["accept", "backoff", "backoff", "backoff"]
    np.testing.assert_allclose(answer.probability[:, 0], [0.9, 0.82, 0.91, 1.0], rtol=1e-6)
    np.testing.assert_allclose(answer.margin, [0.86, 0.02, 0.15, 0.25], atol=1e-6)


@given(TREES, st.integers(0, 999), st.sampled_from([0.0, 0.05, 0.3, 0.9]))
def test_it_is_the_plain_rule(tree: Taxonomy, seed: int, tau: float) -> None:
    S = 2 * np.random.default_rng(seed).standard_normal((6, len(tree)))
    expected = [reference.descend(tree, p, tau) for p in softmax(S)]
    answer = decide(S, tree, member=Descend(tau=tau))
    assert ids(answer, tree) == expected
    leaf = [node in tree.class_ids for node in expected]
    assert (answer.decision == np.where(leaf, "accept", "backoff")).all()


@given(TREES, st.integers(0, 999))
def test_without_a_lead_to_keep_it_ends_at_a_class(tree: Taxonomy, seed: int) -> None:
    S = np.random.default_rng(seed).standard_normal((6, len(tree)))
    S[0] = 0.0
    answer = decide(S, tree, member=Descend(tau=0.0))
    assert (answer.decision == "accept").all()
    assert set(ids(answer, tree)) <= set(tree.class_ids)


@given(st.integers(1, 9), st.integers(0, 999), st.integers(1, 9))
def test_on_a_flat_list_it_is_argmax(K: int, seed: int, k: int) -> None:
    tree = Taxonomy.from_names([f"n{i}" for i in range(K)])
    S = np.random.default_rng(seed).standard_normal((6, K))
    found = decide(S, tree, k, Descend(tau=0.0))
    expected = decide(S, tree, k, Argmax())
    np.testing.assert_array_equal(found.node, expected.node)
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-6)
    np.testing.assert_allclose(found.margin, expected.margin, atol=1e-6)


@given(TREES, st.integers(0, 999), st.integers(1, 9), st.sampled_from([0.0, 0.2]))
def test_the_likeliest_classes_follow_the_answer(
    tree: Taxonomy, seed: int, k: int, tau: float
) -> None:
    S = 2 * np.random.default_rng(seed).standard_normal((6, len(tree)))
    answer = decide(S, tree, k, Descend(tau=tau))
    assert answer.node.shape == (6, min(k, len(tree)))
    P = softmax(S)
    for i, row in enumerate(answer.node):
        ranked = tree.leaf_index[np.argsort(-P[i], kind="stable")]
        rest = [n for n in ranked if n != row[0]][: len(row) - 1]
        assert row[1:].tolist() == rest
        own = tree.rollup(P)[i, row[1:]]
        np.testing.assert_allclose(answer.probability[i, 1:], own, atol=1e-6)


def test_the_likeliest_class_may_lie_in_a_group_that_is_not() -> None:
    S = np.log([[0.22, 0.2, 0.2, 0.38]])
    assert ids(decide(S, member=Argmax())) == ["m"]
    answer = decide(S, k=3, member=Descend(tau=0.0))
    assert [TREE.nodes[n].id for n in answer.node[0]] == ["l", "m", "o"]


def test_a_single_child_is_no_fork() -> None:
    tree = Taxonomy([Node("f", "f"), Node("g", "g", "f"), Node("a", "a", "g"), Node("m", "m")])
    assert ids(decide(np.log([[0.7, 0.3]]), tree), tree) == ["a"]
    assert ids(decide(np.log([[0.52, 0.48]]), tree), tree) == [""]


def test_what_is_impossible_or_no_number_stays_at_the_root() -> None:
    S = [[-np.inf] * 4, [np.nan] * 4]
    answer = decide(S)
    assert ids(answer) == ["", ""]
    assert answer.probability[:, 0].tolist() == [1, 1], "everything is below the root"
    assert decide(S, member=Descend(tau=0.0)).decision.tolist() == ["accept", "accept"]


def test_a_lead_of_just_tau_is_enough() -> None:
    tree = Taxonomy.from_names(["a", "b"])
    mass = np.array([[1, 0.75, 0.25], [1, 0.625, 0.375]])
    assert Descend(tau=0.5)._ends(mass, tree).tolist() == [1, 0]


def test_no_images() -> None:
    assert decide(np.empty((0, 4)), k=2).node.shape == (0, 2)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_lead_outside_0_to_1(value: float) -> None:
    with pytest.raises(RecipeError) as error:
        create(f"descend[tau={value}]", "decide")
    assert str(error.value) == f"cannot use 'descend': tau is {value}. Give a number from 0 to 1."


@pytest.mark.parametrize("value", ["x", None])
def test_a_lead_of_another_kind(value: Any) -> None:
    with pytest.raises(RecipeError, match=r"'descend': tau=.* does not fit"):
        Descend(tau=value)
