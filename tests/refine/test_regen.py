"""ReGen rounds: against loops, what must hold, bad input, and real vectors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import RecipeError, UsageError
from byname.ops import softmax, unit
from byname.refine.regen import Regen, smoothed_head
from byname.stage import Batch, create
from tests.reference import regen as plain
from tests.refine import cases
from tests.refine.cases import ENCODERS, fitted, scores, top1

MEASURED = {"clip-rn50": 83.28, "clip-vit-b-32": 91.14, "clip-vit-l-14": 96.72}


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 9999),
    st.integers(1, 4),
    st.integers(1, 6),
    st.sampled_from([3, 100]),
    st.sampled_from([0.0, 0.1, 0.5]),
)
def test_loops_agree(seed: int, rounds: int, k: int, top: int, smoothing: float) -> None:
    case = cases.given(seed, counts=(12, 9, 15), noise=0.3, dtype=np.float64)
    params: Any = {"rounds": rounds, "k": k, "top": top, "smoothing": smoothing}
    member = fitted(Regen, case, guard=False, **params)
    expected, counts = plain.regen(case[0].X, case[2].S, **params)
    np.testing.assert_allclose(member.scores_ / 20, expected / 20, atol=1e-5)
    assert member.kept_ == counts


def test_single_precision_agrees() -> None:
    case = cases.given(5, noise=0.2)
    found = scores(Regen, case, guard=False)
    assert found.dtype == np.float32
    expected, _ = plain.regen(case[0].X, case[2].S)
    np.testing.assert_allclose(found / 20, expected / 20, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.sampled_from([0.0, 0.1, 0.6]), st.sampled_from([0.001, 0.1]))
def test_the_head_is_where_the_gradient_is_nothing(
    seed: int, smoothing: float, weight: float
) -> None:
    rng = np.random.default_rng(seed)
    F, index = unit(rng.standard_normal((40, 6))), np.arange(40) % 3
    V = smoothed_head(F, index, 3, smoothing=smoothing, weight=weight, steps=1000)
    T = (1 - smoothing) * np.eye(3)[index] + smoothing / 3
    G = (softmax(F @ V.T) - T).T @ F / 40 + weight * V
    assert np.abs(G).max() < 1e-9
    np.testing.assert_allclose(V.sum(axis=0), 0, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999))
def test_rows_are_log_probabilities(seed: int) -> None:
    found = scores(Regen, cases.given(seed, noise=0.3, dtype=np.float64), guard=False)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-9)


def test_the_first_round_keeps_what_the_texts_say_and_no_more_than_the_bound() -> None:
    """Of three well apart classes of 20, 30 and 10 images 20 each may teach."""
    case = cases.given(1, counts=(20, 30, 10), noise=0.05, bias=0.1)
    member = fitted(Regen, case, rounds=1)
    assert member.report()["kept"] == [50]
    assert fitted(Regen, case, rounds=1, top=4).report()["kept"] == [12]
    assert member.report()["missing"] == 0


def test_it_mends_what_bad_texts_split() -> None:
    batch, texts, state, true = cases.clusters(7, noise=0.25, bias=0.8)
    member = Regen().fit(batch, texts, state)
    assert top1(member.scores_, true) > top1(state.S, true) + 3
    told = member.report()
    assert told["stepped_back"] is False
    assert len(told["kept"]) == 3
    assert json.loads(json.dumps(told)) == told


def test_a_class_of_which_nothing_is_left_keeps_its_probability() -> None:
    """No image is answered with the last class, which is every image's second choice."""
    batch, texts, state = cases.given(2, noise=0.2)
    S = np.array(state.S)
    S[:, 3] = np.sort(S[:, :3], axis=1)[:, -1] - 1
    state = replace(state, S=S)
    member = fitted(Regen, (batch, texts, state), guard=False)
    assert member.report()["missing"] == 1
    before, after = softmax(state.S), np.exp(member.scores_)
    np.testing.assert_allclose(after[:, 3], before[:, 3], rtol=1e-4)
    assert (after.argmax(axis=1) != before.argmax(axis=1)).any()


def test_an_image_is_no_query_of_its_own() -> None:
    """The one odd image among those of class 0 is taken out by the others, not kept by itself."""
    rng = np.random.default_rng(0)
    X = unit(np.vstack([np.eye(8)[:1] + 0.05 * rng.standard_normal((9, 8)),
                        np.eye(8)[1:2] + 0.05 * rng.standard_normal((9, 8))]))  # fmt: skip
    _, texts, state = cases.given(0, counts=(9, 9), D=8)
    S = 20 * X[:, :2]
    S[0] = [0, 20]  # said to be of class 1, amid the images of class 0
    given = Batch(X), texts, replace(state, S=S)
    kept = Regen(k=3)._retrieved(X, np.arange(18), S.argmax(axis=1), 9)
    assert 0 not in kept[0][kept[1] == 1]
    assert fitted(Regen, given, k=3).scores_[0].argmax() == 0


def test_fewer_than_two_classes_left() -> None:
    batch, texts, state = cases.given(0)
    S = state.S.copy()  # type: ignore[union-attr]
    S[:, 0] += 100
    member = fitted(Regen, (batch, texts, replace(state, S=S)))
    told = member.report()
    assert (told["stepped_back"], told["reason"]) == (True, "images are left of 1 of 4 classes")
    np.testing.assert_array_equal(member.scores_, S)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_fewer_images_than_two_for_each_answered_name(count: int) -> None:
    """Images of three of nineteen names teach from six on."""
    counts = [2, 2, 2] + [0] * 16
    batch, texts, state = cases.given(3, counts=counts, noise=0.02, bias=0.05, D=32)
    S = np.asarray(state.S)
    order = np.array([0, 2, 4, 1, 3, 5])
    assert S[order].argmax(axis=1).tolist() == [0, 1, 2] * 2
    few = Batch(batch.X[order[:count]]), texts, replace(state, S=S[order[:count]])
    told = fitted(Regen, few).report()
    assert told["stepped_back"] is True
    named = min(count, 3)
    assert told["reason"] == f"there are {count} images for {named} names: too few to learn from"
    enough = fitted(Regen, (Batch(batch.X[order]), texts, replace(state, S=S[order])))
    assert "too few" not in str(enough.report().get("reason"))
    assert enough.kept_


def test_logits_are_taken_to_be_of_one_level() -> None:
    """A number added to all logits of an image changes what its class retrieves, as documented."""
    batch, texts, state = cases.given(1, counts=(20, 30, 10), noise=0.05, bias=0.1)
    shift = np.linspace(0, 50, 60, dtype=np.float32)[:, None]
    moved = replace(state, S=np.asarray(state.S) + shift)
    plain_, other = (fitted(Regen, (batch, texts, s), guard=False, rounds=1, top=4)
                     for s in (state, moved))  # fmt: skip
    assert not np.allclose(plain_.scores_, other.scores_, atol=1e-3)


@pytest.mark.parametrize("name", sorted(set(cases.BAD) - {"no image"}))
@pytest.mark.parametrize("params", [{}, {"guard": False, "k": 2, "rounds": 4}])
def test_bad_input(name: str, params: dict[str, Any]) -> None:
    cases.survives(Regen, name, **params)


def test_of_no_images_the_scores_are_none() -> None:
    batch, texts, state = cases.given(4)
    member = Regen().fit(batch, texts, state)
    empty = replace(state, S=state.S[:0])  # type: ignore[index]
    assert member.apply(Batch(batch.X[:0]), texts, empty).shape == (0, 4)
    assert Regen().report() == {}


def test_nan_is_refused() -> None:
    with pytest.raises(UsageError, match="row 7"):
        fitted(Regen, cases.poisoned())


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("top=0", "top is 0. It must be 1 or more."),
        ("rounds=0", "rounds is 0. It must be 1 or more."),
        ("k=0", "k is 0. It must be 1 or more."),
        ("steps=0", "steps is 0. It must be 1 or more."),
        ("smoothing=1", "smoothing is 1.0. It must be 0 or more, below 1."),
        ("weight=0", "weight is 0.0. It must be above 0."),
        ("present=2", "present is 2.0. It must be from 0 to 1."),
    ],
)
def test_wrong_parameters_are_named(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(f"regen[{spec}]", "refine")
    assert str(error.value) == f"cannot use 'regen': {seen}"


@pytest.mark.parametrize("name", ENCODERS)
def test_real_vectors(shared: Path, name: str) -> None:
    batch, texts, state, true = cases.real(shared, name)
    member = Regen().fit(batch, texts, state)
    assert not member.report()["stepped_back"]
    assert top1(member.apply(batch, texts, state), true) == pytest.approx(MEASURED[name], abs=0.15)
    assert top1(state.S, true) + 9 < MEASURED[name]
    X, S = np.asarray(batch.X[::4], np.float64), np.asarray(state.S, np.float64)[::4]
    found = scores(Regen, (Batch(X), texts, replace(state, S=S)), guard=False)
    np.testing.assert_allclose(found / 100, plain.regen(X, S)[0] / 100, atol=1e-5)
