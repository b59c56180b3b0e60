"""TransCLIP against the plain formula, what must hold, and real vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import RecipeError
from byname.ops import softmax, unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.refine import transclip
from byname.refine.transclip import TransClip, TransClipParams
from byname.stage import Batch, State, create
from byname.taskfile import Task
from tests.reference import transclip as plain
from tests.refine.test_whole import make


def fitted(given: Any, **params: Any) -> Any:
    return TransClip(**{"guard": False, **params}).fit(*given).scores_


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 9999),
    st.sampled_from(["posterior", "column"]),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_loops_agree(
    seed: int, kind: Any, top: int, n: int, rounds: int, steps: int, weight: float
) -> None:
    given = make(seed, N=30)
    found = fitted(
        given, seeds=kind, top=top, neighbours=n, rounds=rounds, steps=steps, text_weight=weight
    )
    expected = plain.transclip(
        given[0].X, given[2].S, kind=kind, top=top, n=n, rounds=rounds, steps=steps,
        text_weight=weight,
    )  # fmt: skip
    np.testing.assert_allclose(found / 20, expected / 20, atol=1e-5)


def test_defaults_agree_in_float32() -> None:
    batch, texts, state = make(1)
    single = Batch(batch.X.astype(np.float32)), texts, State(S=state.S.astype(np.float32))
    found = fitted(single)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found / 20, plain.transclip(batch.X, state.S) / 20, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9999))
def test_rows_are_log_probabilities_and_a_shift_of_the_logits_counts_nothing(seed: int) -> None:
    batch, texts, state = make(seed)
    found = fitted((batch, texts, state))
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-9)
    shift = np.random.default_rng(seed).standard_normal((60, 1))
    other = fitted((batch, texts, State(S=state.S + shift)), seeds="posterior")
    np.testing.assert_allclose(other, found, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9999))
def test_a_rotation_of_all_images_counts_nothing_while_the_variance_is_one(seed: int) -> None:
    batch, texts, state = make(seed)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((16, 16)))
    found = fitted((batch, texts, state), rounds=0)
    other = fitted((Batch(batch.X @ turn), texts, state), rounds=0)
    np.testing.assert_allclose(other, found, atol=1e-6)


def test_it_mends_what_bad_texts_split() -> None:
    given = make(4, N=200, far=0.6)
    truth = np.arange(200) % 4
    before = (given[2].S.argmax(axis=1) == truth).mean()
    assert before < 0.95
    member = TransClip().fit(*given)
    assert (member.scores_.argmax(axis=1) == truth).mean() > before + 0.03
    assert member.report() == {"stepped_back": False, "reason": None}


@pytest.mark.parametrize("kind", ["posterior", "column"])
def test_seeds(kind: Any) -> None:
    """By posterior those count that no other class claims, by column those that look most alike."""
    X = unit(np.random.default_rng(0).standard_normal((4, 5)))
    S = np.array([[9.0, 9.5], [8.0, 8.5], [2.0, -5.0], [1.0, -6.0]])
    wanted = {"posterior": X[2] + X[3], "column": X[0] + X[1]}[kind]
    mu = transclip._seeds(X, S, TransClipParams(seeds=kind, top=2))
    np.testing.assert_allclose(mu[0], unit(wanted), atol=1e-3)


def test_a_class_without_mass_keeps_its_prototype() -> None:
    batch, texts, state = make(0)
    S = state.S.copy()
    S[:, 3] = -500  # probability 0 in float32
    found = fitted((batch, texts, State(S=S.astype(np.float32))))
    assert np.isfinite(found).all()
    expected = plain.transclip(batch.X, S.astype(np.float32))
    np.testing.assert_allclose(softmax(found), softmax(expected), atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("top=0", "top is 0. It must be 1 or more."),
        ("neighbours=0", "neighbours is 0. It must be from 1 to 1000."),
        ("temperature=0", "temperature is 0.0. It must be above 0."),
        ("text_weight=-1", "text_weight is -1.0. It must be 0 or more."),
        ("rounds=-1", "rounds is -1. It must be 0 or more."),
        ("steps=0", "steps is 0. It must be 1 or more."),
        ("present=2", "present is 2.0. It must be from 0 to 1."),
    ],
)
def test_wrong_parameters_are_named(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(f"transclip[{spec}]", "refine")
    assert str(error.value) == f"cannot use 'transclip': {seen}"
    with pytest.raises(RecipeError, match="'posterior' or 'column'"):
        TransClip(seeds="row")


@pytest.mark.parametrize(
    ("name", "posterior", "column"),
    [
        ("clip-rn50", 95.92, 95.92),
        ("clip-vit-b-32", 90.35, 95.72),
        ("clip-vit-l-14", 99.10, 99.10),
    ],
)
def test_real_vectors(shared: Path, name: str, posterior: float, column: float) -> None:
    task = Task.load(shared / "rs19" / f"{name}.npz")
    texts, batch = task.texts_for("templates"), task.batch()
    for kind, wanted in (("posterior", posterior), ("column", column)):
        pipeline = Pipeline(get_recipe(f"transclip[seeds={kind}]")).fit(texts, batch)
        S = pipeline.scores(batch)
        assert 100 * (S.argmax(axis=1) == task.labels).mean() == pytest.approx(wanted, abs=0.15)
    few = Batch(batch.X[::4])
    plainly = 100 * few.X @ np.asarray(pipeline.W_).T
    found = fitted((few, texts, State(S=plainly)), rounds=3)
    expected = plain.transclip(few.X, plainly, rounds=3)
    np.testing.assert_allclose(found / 100, expected / 100, atol=1e-5)


def test_which_prototypes_move() -> None:
    """Not those of hardly any mass, nor those whose images have no direction."""
    X = np.array([[1.0, 0], [0, 1], [0, 0]])
    z = np.array([[1.0, 1e-35, 0], [1, 0, 0], [0, 0, 1]])
    mu = unit(np.array([[1.0, 2], [3, -1], [-1, 1]]))
    moved, v = transclip._moved(X, z, mu, (X**2).sum(axis=0))
    np.testing.assert_allclose(moved, [unit(np.ones(2)), mu[1], mu[2]])
    # The images of the first lie as far from its prototype; that without a direction is 0.
    own = (X[:2] - moved[0]) ** 2
    np.testing.assert_allclose(v, (own.sum(axis=0) + mu[2] ** 2) / 3)


def test_more_neighbours_than_anybody_needs_are_refused() -> None:
    with pytest.raises(RecipeError, match="neighbours is 1001"):
        TransClip(neighbours=1001)
