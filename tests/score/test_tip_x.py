"""TIP-X: against loops, what it must be equal to, and each edge."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import EmbeddingsError, NeedsError, RecipeError
from byname.ops import unit
from byname.recipes import get_recipe
from byname.score.tip_x import TipX, confident_images
from byname.stage import Batch, ClassTexts, State, Support, create
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from byname.weigh.mean import Mean
from tests.reference import tip_x as reference

seeds = st.integers(0, 10_000)
Made = tuple[Batch, ClassTexts, State]


def world(seed: int, K: int = 4, N: int = 9, R: int = 12, *, captions: bool = False) -> Made:
    rng = np.random.default_rng(seed)
    W = unit(rng.standard_normal((K, 8)))
    y = rng.permutation(np.arange(R) % K)
    F = unit(W[y] + 0.4 * rng.standard_normal((R, 8)))
    told = unit(W[y] + 0.6 * rng.standard_normal((R, 8))) if captions else None
    X = unit(W[rng.integers(0, K, N)] + 0.4 * rng.standard_normal((N, 8)))
    texts = ClassTexts(W, np.arange(K), Taxonomy.from_names([f"n{k}" for k in range(K)]))
    return Batch(X, support=Support(F, y, "generated", told)), texts, State(W=W)


def scored(made: Made, **params: Any) -> Any:
    return TipX(**params).fit(*made).apply(*made)


def expected(made: Made, **params: Any) -> Any:
    batch, texts, state = made
    support = batch.support
    assert support is not None
    return reference.tip_x(
        batch.X, state.W, support.vectors, support.class_index, captions=support.captions,
        scale=texts.scale, bias=texts.bias, **params,
    )  # fmt: skip


def with_support(made: Made, **fields: Any) -> Made:
    batch, texts, state = made
    assert batch.support is not None
    return replace(batch, support=replace(batch.support, **fields)), texts, state


@settings(max_examples=25, deadline=None)
@given(
    seeds,
    st.sampled_from([0.0, 1.0, 3.0]),
    st.sampled_from([0.0, 5.5, 20.0]),
    st.sampled_from([0.0, 1.0, 2.5]),
    st.sampled_from(["rescale-negate", "negate-rescale"]),
    st.booleans(),
    st.booleans(),
)
def test_loops_agree(
    seed: int, alpha: float, beta: float, gamma: float, order: str, balance: bool, captions: bool
) -> None:
    made = world(seed, R=13, captions=captions)
    params = {"alpha": alpha, "beta": beta, "gamma": gamma, "order": order, "balance": balance}
    np.testing.assert_allclose(scored(made, **params), expected(made, **params), atol=1e-8)


@pytest.mark.parametrize(
    ("name", "top1", "worst"),
    [("clip-rn50", 87.36, 65.4), ("clip-vit-b-32", 88.66, 56.2), ("clip-vit-l-14", 97.71, 91.9)],
)
def test_real_vectors(shared: Path, name: str, top1: float, worst: float) -> None:
    """Within 0.1 of an independent reference, which takes no second choices (88.56 for B/32)."""
    task = Task.load(shared / "rs19" / f"{name}.npz")
    texts, batch = task.texts_for("templates"), task.batch()
    W = Mean().fit(batch, texts, State()).apply(batch, texts, State())
    made = (batch, texts, State(W=W))
    member = TipX().fit(*made)
    S = member.apply(*made)
    assert S.dtype == np.float32
    right = S.argmax(axis=1) == task.labels
    found = 100 * np.sort([right[task.labels == k].mean() for k in range(19)])[:3].mean()
    assert (100 * right.mean(), found) == pytest.approx((top1, worst), abs=0.15)
    assert (member.support_ == 16).all()
    chosen = reference.confident(100 * batch.X.astype(float) @ W.astype(float).T, 16)
    rows, classes = confident_images(batch.X, W, 16)
    for k in range(19):
        assert set(rows[classes == k]) == set(chosen[k])
    few = replace(batch, X=batch.X[::25], support=Support(batch.X[rows], classes, "pseudo"))
    found, plain = scored((few, *made[1:])), expected((few, *made[1:]))
    np.testing.assert_allclose(found / texts.scale, plain / texts.scale, atol=1e-5)


def test_nothing_of_the_cache_is_the_cosine() -> None:
    made = world(1)
    plain = 100 * made[0].X @ made[2].W.T
    np.testing.assert_allclose(scored(made, alpha=0, gamma=0), plain, atol=1e-9)
    empty = with_support(made, vectors=np.zeros((0, 8)), class_index=np.zeros(0, np.intp))
    np.testing.assert_allclose(scored(empty), plain, atol=1e-9)
    nobody = with_support(made, class_index=np.full(12, -1))
    np.testing.assert_allclose(scored(nobody), plain, atol=1e-9)


def test_delta_zero_and_no_captions_are_tip_x() -> None:
    made = world(2, captions=True)
    bare = scored(with_support(made, captions=None))
    np.testing.assert_allclose(scored(made, delta=0), bare, atol=1e-12)
    none_told = with_support(made, captions=np.zeros((12, 8)))
    np.testing.assert_allclose(scored(none_told, delta=0.7), bare, atol=1e-12)
    assert np.abs(scored(made) - bare).max() > 1e-3


def test_a_row_without_a_caption_counts_as_it_is() -> None:
    made = world(3, captions=True)
    assert made[0].support is not None
    told = np.array(made[0].support.captions)
    told[::2] = 0
    half = with_support(made, captions=told)
    np.testing.assert_allclose(scored(half), expected(half), atol=1e-8)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_with_equal_numbers_the_order_does_not_matter(seed: int) -> None:
    made = world(seed, R=12)
    one, other = (scored(made, order=o) for o in ("rescale-negate", "negate-rescale"))
    np.testing.assert_allclose(
        one - one.mean(1, keepdims=True), other - other.mean(1, keepdims=True), atol=1e-8
    )


def test_with_unequal_numbers_the_order_prefers_few_or_many() -> None:
    batch, texts, state = world(4, R=12)
    assert batch.support is not None
    near = unit(batch.X + 1)  # so that all similarities are positive, as in life
    batch = replace(
        batch, X=near, support=replace(batch.support, vectors=unit(batch.support.vectors + 1))
    )
    made = (batch, texts, state)
    one = made[0].support
    assert one is not None
    more = with_support(
        made,
        vectors=np.vstack([one.vectors, one.vectors[one.class_index == 0]]),
        class_index=np.append(one.class_index, np.zeros(3, np.intp)),
    )
    few = scored(more, alpha=0) - scored(made, alpha=0)
    assert (few[:, 0] < 0).all()
    many = scored(more, alpha=0, order="negate-rescale") - scored(
        made, alpha=0, order="negate-rescale"
    )
    assert (many[:, 0] > 0).all()
    np.testing.assert_allclose(few[:, 1:], 0, atol=1e-8)
    np.testing.assert_allclose(scored(more, balance=True), scored(made, balance=True), atol=1e-8)


@settings(max_examples=10, deadline=None)
@given(seeds, st.integers(0, 8))
def test_other_images_of_a_block_do_not_matter(seed: int, i: int) -> None:
    batch, texts, state = world(seed)
    member = TipX().fit(batch, texts, state)
    whole = member.apply(batch, texts, state)
    one = member.apply(replace(batch, X=batch.X[[i]]), texts, state)
    np.testing.assert_allclose(one, whole[[i]], atol=1e-9)


def test_the_ranges_are_those_of_the_images_of_fit() -> None:
    batch, texts, state = world(5)
    member = TipX().fit(batch, texts, state)
    new = replace(batch, X=unit(np.random.default_rng(9).standard_normal((6, 8))))
    found = member.apply(new, texts, state)
    np.testing.assert_allclose(
        found, expected((new, texts, state), fitted=batch.X), atol=1e-8
    )  # fmt: skip


def test_a_class_without_support_is_neither_preferred_nor_punished() -> None:
    made = world(6)
    assert made[0].support is not None
    y = np.array(made[0].support.class_index)
    without = with_support(made, class_index=np.where(y == 2, -1, y))
    S = scored(without)
    extra = S - 100 * made[0].X @ made[2].W.T
    np.testing.assert_allclose(extra[:, 2], extra[:, [0, 1, 3]].mean(axis=1), atol=1e-9)
    kept = y != 2
    assert made[0].support is not None
    fewer = with_support(
        made, vectors=made[0].support.vectors[kept], class_index=y[kept]
    )  # fmt: skip
    np.testing.assert_allclose(S, expected(fewer), atol=1e-8)


def test_equal_signatures_add_nothing_that_tells_classes_apart() -> None:
    """C = 1, and texts that are all the same: D is 0 everywhere, and its range too."""
    for K in (1, 3):
        batch, texts, state = world(7, K=3)
        W = np.repeat(state.W[:1], K, axis=0)
        assert batch.support is not None
        own = replace(batch.support, class_index=np.arange(12) % K)
        same = (
            replace(batch, support=own),
            replace(texts, vectors=W, class_index=np.arange(K),
                    taxonomy=Taxonomy.from_names([f"n{k}" for k in range(K)])),
            State(W=W),
        )  # fmt: skip
        S = scored(same, alpha=0)
        np.testing.assert_allclose(S - S[:, :1], 0, atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(1, 6), st.integers(1, 12), st.integers(1, 9))
def test_the_surest_images(seed: int, K: int, N: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    X, W = unit(rng.standard_normal((N, 5))), unit(rng.standard_normal((K, 5)))
    rows, classes = confident_images(X, W, n, 20.0)
    chosen = reference.confident(20 * X @ W.T, n)
    assert classes.tolist() == np.repeat(np.arange(K), min(n, N)).tolist()
    assert [set(rows[classes == k]) for k in range(K)] == [set(c) for c in chosen]


def test_sure_images_differ_where_their_probabilities_do_not() -> None:
    """softmax is 1 for all of these in floating point; the surest are the least ambiguous."""
    angles = np.array([0.0, 0.3, 0.1, 0.2])
    X = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    rows, classes = confident_images(X, np.eye(2, dtype=np.float32), 2, 1000.0)
    assert rows[classes == 0].tolist() == [0, 2]
    assert rows[classes == 1].tolist() == [1, 3], "nobody's first choice: the surest second ones"


def test_without_support_it_makes_its_own() -> None:
    batch, texts, state = world(8, N=40)
    alone = (Batch(batch.X), texts, state)
    member = TipX(pseudo=5).fit(*alone)
    assert (member.kind_, member.support_.tolist()) == ("pseudo", [5] * 4)
    rows, classes = confident_images(batch.X, state.W, 5)
    given = (Batch(batch.X, support=Support(batch.X[rows], classes, "pseudo")), texts, state)
    np.testing.assert_array_equal(member.apply(*alone), scored(given))


def test_fewer_images_than_asked_for() -> None:
    batch, texts, state = world(9, N=3)
    member = TipX(pseudo=16).fit(Batch(batch.X), texts, state)
    assert member.support_.tolist() == [3] * 4
    assert np.isfinite(member.apply(Batch(batch.X), texts, state)).all()


def test_the_report_is_plain() -> None:
    assert TipX().report() == {}
    made = world(10)
    told = json.loads(json.dumps(TipX().fit(*made).report()))
    assert (told["kind"], told["support"]) == ("generated", 12)
    assert (told["fewest_of_a_class"], told["most_of_a_class"]) == (3, 3)
    assert told["affinity"][0] < told["affinity"][1] <= 1
    assert 0 <= told["divergence"][0] < told["divergence"][1]


def test_no_images_to_learn_from_are_refused() -> None:
    _, texts, _ = world(0)
    with pytest.raises(NeedsError, match="'tip_x': it needs 'X'"):
        TipX().check_needs(Batch(np.zeros((0, 8))), texts)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vectors": np.zeros((12, 7))}, r"vectors \(12, 7\).*Give vectors 8 wide"),
        ({"class_index": np.zeros(3, np.intp)}, r"classes \(3,\)"),
        ({"class_index": np.full(12, 4)}, "class indices from 4 to 4.*one class below 4"),
        ({"captions": np.zeros((2, 8))}, r"captions \(2, 8\)"),
    ],
)
def test_a_support_that_does_not_fit(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(EmbeddingsError, match=message):
        scored(with_support(world(0), **fields))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tip_x[alpha=-1]", "alpha is -1.0. It must be 0 or more."),
        ("tip_x[beta=inf]", "beta is inf. It must be 0 or more."),
        ("tip_x[gamma=nan]", "gamma is nan. It must be 0 or more."),
        ("tip_x[temperature=0]", "temperature is 0.0. It must be 0.001 or more."),
        ("tip_x[delta=1.5]", "delta is 1.5. It must be from 0 to 1."),
        ("tip_x[pseudo=0]", "pseudo is 0. It must be 1 or more."),
    ],
)
def test_parameters_out_of_range(spec: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        get_recipe(spec)
    assert str(error.value) == f"cannot use 'tip_x': {message}"


def test_an_unknown_order_is_named() -> None:
    with pytest.raises(RecipeError, match=r"order is 'x'\. It must be 'rescale-negate' or"):
        TipX(order="x")
    with pytest.raises(RecipeError, match="order='x' does not fit"):
        create("tip_x[order=x]")
