"""Rank fusion: against loops, ties, members that step back, bad input, and real vectors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import NeedsError, RecipeError, UsageError
from byname.refine.fusion import Fusion, ranks
from byname.stage import Batch, create
from tests.reference import fusion as plain
from tests.refine import cases
from tests.refine.cases import ENCODERS, fitted, scores, top1

FREE = "transclip[guard=false]+zlap[guard=false]+prior[guard=false]"
MEASURED = {"clip-rn50": 87.86, "clip-vit-b-32": 88.16, "clip-vit-l-14": 96.32}


def each(case: Any, members: str) -> list[Any]:
    return [create(spec, "refine").fit(*case).apply(*case) for spec in members.split("+")]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 7))
def test_ranks_agree_with_counting(seed: int, values: int) -> None:
    S = np.random.default_rng(seed).integers(0, values, (5, 8)).astype(float)
    expected = [[plain.place(row, j) for j in range(8)] for row in S]
    np.testing.assert_array_equal(ranks(S), expected)
    assert (ranks(S).sum(axis=1) == 36).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.sampled_from([0.0, 1.0, 60.0]))
def test_loops_agree(seed: int, c: float) -> None:
    case = cases.given(seed, counts=(12, 9, 15), noise=0.4)
    members = each(case, FREE)
    S = scores(Fusion, case, members=FREE, c=c, guard=False)
    np.testing.assert_allclose(S, plain.by_rank(members, case[2].S, c), atol=1e-5)
    S = scores(Fusion, case, members=FREE, by="probability", guard=False)
    np.testing.assert_allclose(S / 20, plain.by_probability(members) / 20, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9999))
def test_the_order_of_members_counts_nothing(seed: int) -> None:
    case = cases.given(seed, noise=0.4)
    back = "+".join(reversed(FREE.split("+")))
    one, other = (scores(Fusion, case, members=m) for m in (FREE, back))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_members_of_one_mind_are_not_contradicted() -> None:
    case = cases.given(3, noise=0.5)
    members = each(case, FREE)
    same = (np.diff([m.argmax(axis=1) for m in members], axis=0) == 0).all(axis=0)
    assert same.sum() > 50
    for by in ("rank", "probability"):
        found = scores(Fusion, case, members=FREE, by=by, guard=False).argmax(axis=1)
        np.testing.assert_array_equal(found[same], members[0].argmax(axis=1)[same])


def test_the_input_settles_ties_in_any_order_of_classes() -> None:
    """Two members that swap their two best classes tie."""
    S = np.array([[3.0, 2.0, 0.0], [2.0, 3.0, 0.0]], np.float32)
    one, two = np.array([[9.0, 8, 0]] * 2, np.float32), np.array([[8.0, 9, 0]] * 2, np.float32)
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        member, votes = Fusion(), np.zeros((2, 3), np.float32)
        for part, weight in ((one, 1.0), (two, 1.0), (S, 1e-3)):
            member._vote(votes, part[:, order], weight)
        assert np.array(order)[votes.argmax(axis=1)].tolist() == [0, 1]
    without = np.zeros((1, 3))
    for part in (one, two):
        Fusion()._vote(without, part[:1])
    assert without[0, 0] == without[0, 1]


def test_a_member_that_stepped_back_has_no_vote() -> None:
    """rscin has too few images of each class for 50 neighbours."""
    case = cases.given(0, noise=0.4)
    without = fitted(Fusion, case, members="transclip+prior")
    member = fitted(Fusion, case, members="transclip+prior+rscin[k=50]")
    np.testing.assert_array_equal(member.scores_, without.scores_)
    told = member.report()
    assert told["stepped_back"] is False
    assert told["members"]["transclip"] is None
    assert "are fewer than 50 each" in told["members"]["rscin[k=50]"]
    assert json.loads(json.dumps(told)) == told


def test_one_that_is_left_alone_is_taken_as_it_is() -> None:
    case = cases.given(0, noise=0.4)
    member = fitted(Fusion, case, members="transclip+rscin[k=50]")
    np.testing.assert_array_equal(member.scores_, each(case, "transclip")[0])


def test_all_step_back() -> None:
    case = cases.given(0, noise=0.4)
    member = fitted(Fusion, case, members="rscin[k=50]+rscin[k=60]")
    np.testing.assert_array_equal(member.scores_, case[2].S)
    told = member.report()
    assert told["stepped_back"]
    assert told["reason"].startswith("all members did: rscin[k=50]: 120 images")
    again = member.fit(*cases.given(1, counts=(90, 90, 90, 90)))
    assert not again.report()["stepped_back"]


def test_members_that_treat_each_image_by_itself_take_part() -> None:
    case = cases.given(2)
    members = "transclip+zlap[mode=inductive]"
    S = scores(Fusion, case, members=members, guard=False)
    expected = plain.by_rank(each(case, members), case[2].S)
    np.testing.assert_allclose(S, expected, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(cases.BAD) - {"no image"}))
@pytest.mark.parametrize("params", [{}, {"guard": False, "members": FREE}])
def test_bad_input(name: str, params: dict[str, Any]) -> None:
    cases.survives(Fusion, name, **params)


def test_of_no_images_the_scores_are_none() -> None:
    batch, texts, state = cases.given(4)
    member = Fusion().fit(batch, texts, state)
    empty = replace(state, S=state.S[:0])  # type: ignore[index]
    assert member.apply(Batch(batch.X[:0]), texts, empty).shape == (0, 4)
    assert Fusion().report() == {}


def test_nan_is_refused() -> None:
    with pytest.raises(UsageError, match="row 7"):
        fitted(Fusion, cases.poisoned())


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("members=zlap", "members is 'zlap'. It must be two or more, each once, as a+b."),
        ("members=zlap+zlap", "members is 'zlap+zlap'. It must be two or more, each once, as a+b."),
        ("members=zlap+", "members is 'zlap+'. It must be two or more, each once, as a+b."),
        ("c=-1", "c is -1.0. It must be 0 or more."),
        ("present=2", "present is 2.0. It must be from 0 to 1."),
        (
            "members=zlap+fusion",
            "members is 'zlap+fusion'. A member in it takes one parameter at most, and is no "
            "fusion itself.",
        ),
    ],
)
def test_wrong_parameters_are_named(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(f"fusion[{spec}]", "refine")
    assert str(error.value) == f"cannot use 'fusion': {seen}"


def test_members_are_checked_before_any_work() -> None:
    with pytest.raises(RecipeError, match=r"there is no member 'zlab'\. Did you mean 'zlap'"):
        Fusion(members="transclip+zlab")
    with pytest.raises(RecipeError, match="'cpe' is a weigh member"):
        create("fusion[members=zlap+cpe]")
    with pytest.raises(RecipeError, match="'rank' or 'probability'"):
        Fusion(by="vote")
    with pytest.raises(RecipeError, match="one parameter at most"):
        Fusion(members="zlap+transclip[top=4,rounds=2]")
    assert create("fusion[members=transclip[top=4] + zlap]").params.specs == (
        "transclip[top=4]",
        "zlap",
    )


def test_needs_of_members_are_its_needs() -> None:
    batch, texts, _ = cases.given(0, counts=(0, 0))
    with pytest.raises(NeedsError, match="refine member 'fusion'"):
        Fusion().check_needs(batch, texts)
    Fusion().check_needs(batch, texts, frozenset({"X"}))


@pytest.mark.parametrize("name", ENCODERS)
def test_real_vectors(shared: Path, name: str) -> None:
    batch, texts, state, true = cases.real(shared, name)
    member = Fusion().fit(batch, texts, state)
    assert member.report()["members"] == {"transclip": None, "zlap": None, "prior": None}
    assert top1(member.apply(batch, texts, state), true) == pytest.approx(MEASURED[name], abs=0.15)
    assert top1(state.S, true) + 5 < MEASURED[name]
    few = Batch(batch.X[::6]), texts, replace(state, S=state.S[::6])  # type: ignore[index]
    expected = plain.by_rank(each(few, FREE), few[2].S)
    np.testing.assert_allclose(scores(Fusion, few, members=FREE, guard=False), expected, atol=1e-5)
