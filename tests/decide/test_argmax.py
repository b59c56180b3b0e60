from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from byname.decide.argmax import Argmax
from byname.stage import Answer, Batch, ClassTexts, State
from byname.taxonomy import Node, Taxonomy
from tests.reference import ops_reference as ref

TREE = Taxonomy(
    [Node("g", "G"), Node("a", "A", "g"), Node("h", "H"), Node("b", "B", "h"), Node("c", "C", "g")]
)
LOGITS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 5), st.just(3)),
    elements=st.floats(-30, 30, width=32) | st.just(-np.inf),
)


def decide(S: Any, k: int = 1, taxonomy: Taxonomy = TREE) -> Answer:
    texts = ClassTexts(np.eye(len(taxonomy)), np.arange(len(taxonomy)), taxonomy)
    return Argmax().apply(Batch(np.empty((len(S), 2))), texts, State(S=np.asarray(S), k=k))


@given(LOGITS, st.integers(1, 5))
def test_agrees_with_the_reference(S: NDArray[np.float32], k: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = decide(S, k)
    index = ref.topk(S, k)[1]
    ids = np.array(["a", "b", "c"])[index]
    assert [[TREE.nodes[n].id for n in row] for row in answer.node] == ids.tolist()
    p = ref.softmax(S)
    np.testing.assert_allclose(
        answer.probability, np.take_along_axis(p, index, axis=1), rtol=1e-5, atol=1e-6
    )
    ordered = np.sort(p, axis=1)
    np.testing.assert_allclose(answer.margin, ordered[:, -1] - ordered[:, -2], atol=1e-6)
    assert (answer.decision == "accept").all()
    assert answer.decision.shape == answer.margin.shape == (len(S),)


def test_types() -> None:
    answer = decide(np.zeros((2, 3), np.float64), 2)
    assert answer.node.dtype == np.intp
    assert answer.probability.dtype == answer.margin.dtype == np.float32
    assert answer.decision.dtype.kind == "U"


def test_ranks_are_cut_to_the_classes() -> None:
    assert decide(np.zeros((2, 3)), 9).node.shape == (2, 3)


def test_one_class_is_certain() -> None:
    answer = decide([[-7.0], [3.0]], 2, Taxonomy.from_names(["only"]))
    assert answer.node.tolist() == [[1], [1]]
    assert answer.probability.tolist() == [[1], [1]]
    assert answer.margin.tolist() == [1, 1]


def test_ties_go_to_the_class_that_comes_first() -> None:
    answer = decide(np.full((1, 3), 4.0), 3)
    assert [TREE.nodes[n].id for n in answer.node[0]] == ["a", "b", "c"]
    assert answer.margin.tolist() == [0]


def test_logits_are_ranked_where_probabilities_are_equal_after_rounding() -> None:
    answer = decide(np.array([[0.0, -200.0, -199.0]], np.float32), 3)
    assert [TREE.nodes[n].id for n in answer.node[0]] == ["a", "c", "b"]
    assert answer.probability[0].tolist() == [1, 0, 0]


def test_no_possible_class_has_probability_zero() -> None:
    answer = decide([[-np.inf] * 3])
    assert answer.probability.tolist() == [[0]]
    assert answer.margin.tolist() == [0]


@pytest.mark.torch
def test_torch_logits_are_answered_in_numpy() -> None:
    torch = pytest.importorskip("torch")
    S = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    texts = ClassTexts(np.eye(3), np.arange(3), TREE)
    found = Argmax().apply(Batch(torch.eye(4)), texts, State(S=torch.from_numpy(S), k=2))
    expected = decide(S, 2)
    assert (found.node == expected.node).all()
    np.testing.assert_allclose(found.probability, expected.probability, rtol=1e-6)
