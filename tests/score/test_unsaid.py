"""A class of which no text counts is never answered; extremes and spoilt rows stay harmless."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from byname.errors import NeedsError
from byname.ops import softmax, unit
from byname.score.encoders import Encoders
from byname.score.pcs import Pcs
from byname.score.perception import Perception
from byname.score.tip_x import TipX
from byname.score.two_state import TwoState
from byname.score.xmore import Xmore
from byname.stage import Batch, ClassTexts, SecondTexts, State, Support, create
from byname.taxonomy import Taxonomy
from tests.contract.cases import Case, make_case, run

SPECS = [
    "chils", "chils[mode=unweighted]", "chils[mode=sum]", "chils[mode=own_total]",
    "chils[mode=ensemble]", "perception", "perception[mode=without_class]",
    "perception[mode=one_step]", "descent", "descent[mode=beam]", "tip_x", "xmore", "views",
    "views[method=mean]", "views[method=max]", "pcs", "pcs[soft=true]", "filip", "encoders",
    "encoders[combine=probabilities]", "prolip", "prolip[multiplier=100]", "describe",
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_a_class_without_texts_is_never_answered(spec: str) -> None:
    """Every image lies opposite to all classes, so that a cosine of 0 would win."""
    member = create(spec, "score")
    case = make_case(member.needs)
    W = np.abs(case.state.W)
    W[0] = 0
    T, index = np.abs(case.texts.vectors), case.texts.class_index
    texts = replace(case.texts, vectors=T, class_index=np.where(index == 0, -1, index), bias=-2.0)
    if texts.second_texts is not None:
        texts = replace(texts, second_texts=SecondTexts(np.abs(texts.second_texts.vectors), 20.0))
    if texts.text_tokens is not None:
        texts = replace(texts, text_tokens=np.abs(texts.text_tokens))
    fields = {
        name: -np.abs(given)
        for name in ("X", "views", "tokens", "second", "captions")
        if (given := getattr(case.batch, name)) is not None
    }
    S = run(member, Case(replace(case.batch, **fields), texts, State(W=W)))
    assert np.isfinite(S).all()
    assert (S[:, 0] < S[:, 1:].max(axis=1)).all()


def simple(scale: float = 20.0, **fields: Any) -> ClassTexts:
    return ClassTexts(
        np.eye(2), np.arange(2), Taxonomy.from_names(["a", "b"]), scale=scale, **fields
    )


X = np.array([[0.8, 0.6], [0.0, 1.0]])


def test_two_state_without_any_state_has_nothing_to_ask() -> None:
    texts = simple(kind=("template", "template"))
    for call in (TwoState().apply, lambda b, t, s: TwoState().check_needs(b, t)):
        with pytest.raises(NeedsError, match=r"no text is of one of two states"):
            call(Batch(X), texts, State())
    TwoState().check_needs(Batch(X), simple(kind=("template", "present")))


def test_a_view_that_is_not_finite_has_no_vote() -> None:
    views = np.array([[[np.nan, np.nan], [0.0, 1.0]], [[np.inf, 0.0], [0.0, 1.0]]])
    spoilt = np.array([[0.8, 0.6], [np.nan, 0.0]])
    texts, state = simple(), State(W=np.eye(2))
    for soft in (False, True):
        S = Pcs(soft=soft, keep=1.0).apply(Batch(spoilt, views=views), texts, state)
        without = np.where(np.isfinite(views), views, 0)
        without[1, 0] = 0
        zero = np.where(np.isfinite(spoilt), spoilt, 0)
        expected = Pcs(soft=soft, keep=1.0).apply(Batch(zero, views=without), texts, state)
        np.testing.assert_allclose(S, expected)
    shares = softmax(Pcs().apply(Batch(spoilt, views=views), texts, state))
    np.testing.assert_allclose(shares, [[0.5, 0.5], [0.0, 1.0]], atol=1e-12)


def test_a_share_of_the_views_is_not_rounded_up_for_rounding() -> None:
    """0.28 * 25 is a little more than 7, and must stay 7 views."""
    angles = np.linspace(0.1, 0.7, 25)
    V = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # the first is the surest
    batch, state = Batch(V[:1], views=V[None, 1:]), State(W=np.eye(2))
    found = softmax(Pcs(soft=True, keep=0.28).apply(batch, simple(2.0), state))
    assert 0.28 * 25 > 7
    np.testing.assert_allclose(found, softmax(2.0 * V[:7]).mean(axis=0)[None], atol=1e-12)


def test_a_tiny_temperature_and_a_large_beta_stay_finite() -> None:
    texts = simple(kind=("present", "present"))
    pair = replace(texts, vectors=np.eye(2, dtype=np.float32), class_index=np.zeros(2, int),
                   kind=("present", "absent"))  # fmt: skip
    S = TwoState(tau=1e-40).apply(Batch(X.astype(np.float32)), pair, State())
    assert np.isfinite(S).all()
    assert S[0, 0] > 0 > S[1, 0]
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((30, 33)).astype(np.float32))
    own = Batch(rows, support=Support(rows, np.arange(30) % 2, "labelled"))
    state = State(W=unit(rng.standard_normal((2, 33)).astype(np.float32)))
    S = TipX(beta=1e9).fit(own, texts, state).apply(own, texts, state)
    assert np.isfinite(S).all()


def test_encoders_at_a_huge_scale() -> None:
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((9, 2)).astype(np.float32))
    texts = simple(1e30, second_texts=SecondTexts(np.eye(2, dtype=np.float32), 20.0))
    batch, state = Batch(rows, second=rows), State(W=np.eye(2, dtype=np.float32))
    S = Encoders().fit(batch, texts, state).apply(batch, texts, state)
    np.testing.assert_allclose(S, 1e30 * rows, rtol=1e-4)


@pytest.mark.parametrize("mode", ["with_class", "without_class"])
def test_contexts_count_alike_where_all_is_in_logarithms(mode: Any) -> None:
    """At a scale where probabilities vanish, against the formula in one piece."""
    rng = np.random.default_rng(1)
    T, x = unit(rng.standard_normal((2, 3, 5))), unit(rng.standard_normal((4, 5)))
    texts = ClassTexts(
        T.reshape(6, 5), np.repeat([0, 1], 3), Taxonomy.from_names(["a", "b"]),
        context=np.tile(np.arange(3), 2), scale=400.0,
    )  # fmt: skip
    F = 400.0 * np.einsum("nd,kzd->nkz", x, T)
    A = np.logaddexp.reduce(F / 3, axis=1)
    if mode == "without_class":
        A = 400.0 / 3 * x @ unit(T.sum(axis=0)).T
    A = A - np.logaddexp.reduce(A, axis=1, keepdims=True)
    inside = F - np.logaddexp.reduce(F, axis=1, keepdims=True)
    expected = np.logaddexp.reduce(A[:, None] + inside, axis=2)
    assert expected.min() < -70
    S = Perception(mode=mode).apply(Batch(x), texts, State())
    np.testing.assert_allclose(S, expected, rtol=1e-9, atol=1e-9)


def test_where_no_certainty_is_left_image_and_captions_count_alike() -> None:
    """Certainties of 0 of image and captions, in a run where others are sure."""
    batch = Batch(
        np.array([[0.6, 0.6], [0.9, 0.1], [0.0, 0.0]]),
        captions=np.array([[[0.5, 0.5]], [[0.1, 0.9]], [[0.3, 0.3]]]),
    )
    texts, state = simple(4.0), State(W=np.eye(2))
    found = softmax(Xmore().fit(batch, texts, state).apply(batch, texts, state))
    np.testing.assert_allclose(found[[0, 2]], 0.5, atol=1e-12)
    flat = Batch(np.zeros((2, 2)), captions=np.full((2, 1, 2), 0.5))
    alike = softmax(Xmore().fit(flat, texts, state).apply(flat, texts, state))
    np.testing.assert_allclose(alike, 0.5, atol=1e-12)
    unsure = Batch(np.array([[0.9, 0.1]]), captions=np.full((1, 1, 2), 0.5))
    half = softmax(Xmore().fit(unsure, texts, state).apply(unsure, texts, state))
    np.testing.assert_allclose(half, (softmax(4.0 * unsure.X) + 0.5) / 2, atol=1e-12)
