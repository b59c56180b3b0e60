from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from byname.decide.argmax import Argmax
from byname.decide.reject import Reject
from byname.errors import RecipeError
from byname.stage import Answer, Batch, ClassTexts, Member, State, create
from byname.taxonomy import Taxonomy

TEXTS = ClassTexts(np.eye(3), np.arange(3), Taxonomy.from_names(["a", "b", "c"]))
LOGITS = hnp.arrays(np.float64, (4, 3), elements=st.floats(-5, 5))


def decide(member: Member, S: Any, k: int = 1) -> Answer:
    answer = member.apply(Batch(np.empty((len(S), 2))), TEXTS, State(S=np.asarray(S), k=k))
    assert isinstance(answer, Answer)
    return answer


def log(*p: float) -> list[float]:
    return np.log(p).tolist()


def test_floors() -> None:
    S = [log(0.6, 0.3, 0.1), log(0.45, 0.35, 0.2), log(0.49, 0.01, 0.5)]
    assert decide(Reject(), S).decision.tolist() == ["accept", "reject", "accept"]
    margin = Reject(min_probability=0.0, min_margin=0.2)
    assert decide(margin, S).decision.tolist() == ["accept", "reject", "reject"]
    both = Reject(min_probability=0.61, min_margin=0.2)
    assert decide(both, S).decision.tolist() == ["reject"] * 3


@given(LOGITS, st.floats(0, 1), st.floats(0, 1))
def test_ranks_are_those_of_argmax_and_floors_are_kept(
    S: NDArray[np.float64], probability: float, margin: float
) -> None:
    found = decide(Reject(min_probability=probability, min_margin=margin), S, 2)
    expected = decide(Argmax(), S, 2)
    assert (found.node == expected.node).all()
    assert (found.probability == expected.probability).all()
    accepted = found.decision == "accept"
    assert (found.probability[accepted, 0] >= np.float32(probability)).all()
    assert (found.margin[accepted] >= np.float32(margin)).all()
    assert set(found.decision) <= {"accept", "reject"}


@given(LOGITS)
def test_floors_of_zero_accept_everything(S: NDArray[np.float64]) -> None:
    found = decide(Reject(min_probability=0.0), S)
    assert (found.decision == "accept").all()


def test_what_is_not_a_number_is_rejected() -> None:
    assert decide(Reject(min_probability=0.0), [[np.nan] * 3]).decision.tolist() == ["reject"]


def test_the_default_is_a_majority() -> None:
    assert create("reject").params.min_probability == 0.5
    assert create("reject").params.min_margin == 0


@pytest.mark.parametrize("name", ["min_probability", "min_margin"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_floors_outside_0_to_1(name: str, value: float) -> None:
    message = f"cannot use 'reject': {name} is {value}. Give a number from 0 to 1."
    with pytest.raises(RecipeError) as error:
        create(f"reject[{name}={value}]", "decide")
    assert str(error.value) == message
