from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from byname import ops
from byname.decide.conformal import (
    Conformal,
    conformal_sets,
    conformal_threshold,
    nonconformity,
    thresholds,
)
from byname.errors import EmbeddingsError, NeedsError, RecipeError, UsageError
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.stage import Answer, Batch, ClassTexts, SecondTexts, State, create
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from tests.reference import conformal as ref
from tests.reference.encoders import class_vectors

VARIANTS = st.sampled_from(["split", "adaptive"])
TREE = Taxonomy(
    [Node("f", "fruit"), Node("a", "apple", "f"), Node("p", "pear", "f"), Node("m", "milk")]
)


def made(
    seed: int = 0, N: int = 40, K: int = 4, taxonomy: Taxonomy | None = None, noise: float = 0.6
) -> tuple[Batch, ClassTexts]:
    """Images that two encoders see alike, more or less."""
    rng = np.random.default_rng(seed)
    taxonomy = taxonomy or Taxonomy.from_names([f"c{k}" for k in range(K)])
    K, index = len(taxonomy), np.repeat(np.arange(len(taxonomy)), 2)
    y = rng.integers(0, K, N)
    sides = []
    for d in (6, 5):
        centres = ops.unit(rng.standard_normal((K, d)))
        texts = ops.unit(centres[index] + 0.2 * rng.standard_normal((2 * K, d)))
        sides.append((ops.unit(centres[y] + noise * rng.standard_normal((N, d))), texts))
    ids = tuple(taxonomy.class_ids[k] for k in index)
    (X, T), (X2, T2) = sides
    texts = ClassTexts(
        T, index, taxonomy, node_id=ids, scale=5.0, second_texts=SecondTexts(T2, 10.0)
    )
    return Batch(X, second=X2), texts


def slow(batch: Batch, texts: ClassTexts) -> NDArray[np.intp]:
    own = texts.second_texts
    assert own is not None
    W = class_vectors(own.vectors, texts.class_index, np.ones(len(own.vectors)), texts.n_classes)
    return np.asarray((np.asarray(batch.second, float) @ W.T).argmax(axis=1))


def fitted(batch: Batch, texts: ClassTexts, **params: Any) -> tuple[Pipeline, Any]:
    recipe = replace(get_recipe("ensemble"), decide="conformal")
    pipeline = Pipeline(recipe)
    pipeline.decider = Conformal(**params)
    pipeline.fit(texts, batch)
    return pipeline, pipeline.scores(batch)


def kept(answer: Answer, taxonomy: Taxonomy) -> list[list[int]]:
    place = {int(n): k for k, n in enumerate(taxonomy.leaf_index)}
    return [sorted(place[int(n)] for n in row if n >= 0) for row in answer.node]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 999), st.integers(1, 60), st.integers(1, 5), VARIANTS, st.booleans(),
    st.sampled_from([0.01, 0.1, 0.3, 0.9]),
)  # fmt: skip
def test_it_is_the_plain_formula(
    seed: int, N: int, K: int, variant: Any, per_class: bool, eps: float
) -> None:
    batch, texts = made(seed, N, K)
    pipeline, S = fitted(batch, texts, eps=eps, variant=variant, per_class=per_class)
    answer, taxonomy = pipeline.decide(S, batch=batch)
    P = ops.softmax(S)
    expected = ref.sets(P, P, slow(batch, texts), eps, variant, per_class)
    assert kept(answer, taxonomy) == expected
    sizes = (answer.node >= 0).sum(axis=1)
    assert pipeline.decider.details(batch, texts, State(S=S))["set_size"] == sizes.tolist()
    assert answer.node.shape[1] == sizes.max()
    ranked = [p[n >= 0] for n, p in zip(answer.node, answer.probability, strict=True)]
    assert all((np.diff(p) <= 0).all() for p in ranked)
    assert (answer.probability[answer.node < 0] == 0).all()


@pytest.mark.parametrize("variant", ["split", "adaptive"])
def test_on_real_vectors(shared: Path, variant: Any) -> None:
    one, two = (
        Task.load(shared / "rs19" / f"clip-{n}.npz", with_labels=False)
        for n in ("rn50", "vit-l-14")
    )
    texts, other = (t.texts_for("templates[set=single]") for t in (one, two))
    texts = replace(texts, second_texts=SecondTexts(other.vectors))
    batch = Batch(one.images[::5], second=two.images[::5])
    pipeline, S = fitted(batch, texts, eps=0.1, variant=variant)
    P = ops.softmax(np.asarray(S, float))
    answer, taxonomy = pipeline.decide(S, batch=batch)
    expected = ref.sets(P, P, slow(batch, texts), 0.1, variant)
    assert kept(answer, taxonomy) == expected
    mine = slow(batch, texts)
    covered = np.mean([y in row for y, row in zip(mine, expected, strict=True)])
    assert 0.9 <= covered < 1, "on the calibration images themselves"


def test_nonconformity_counts_equal_classes_alike() -> None:
    P = np.array([[0.25, 0.5, 0.25], [1 / 3, 1 / 3, 1 / 3]])
    expected = np.array([[1, 0.5, 1], [1, 1, 1]])
    np.testing.assert_allclose(nonconformity(P, "adaptive"), expected)
    np.testing.assert_allclose(nonconformity(P), 1 - P)


@given(st.integers(1, 200), st.floats(0.005, 0.995))
def test_the_handle_counts_one_more_image(n: int, eps: float) -> None:
    values = np.random.default_rng(n).permutation(n) + 1.0
    rank = math.ceil(round((n + 1) * (1 - eps), 9))
    assert conformal_threshold(values, eps) == (rank if rank <= n else math.inf)


def test_nearly_every_miss_allowed_is_the_smallest_value() -> None:
    assert conformal_threshold([0.2, 0.1], 1 - 1e-12) == 0.1
    assert conformal_threshold([], 1 - 1e-12) == math.inf
    q = thresholds([0.2, 0.1], [0, 0], 2, 1 - 1e-12, per_class=True)
    assert q.tolist() == [0.1, math.inf]


def test_scores_that_are_no_numbers_calibrate_nothing() -> None:
    with pytest.raises(UsageError, match="cannot calibrate on these images: a score is NaN"):
        conformal_threshold([0.1, np.nan], 0.5)
    batch, texts = made(6, 3)
    S = np.eye(4)[:3]
    S[1] = np.nan
    with pytest.raises(UsageError, match="a score is NaN"):
        Conformal(eps=0.5).fit(batch, texts, State(S=S))


def test_the_weights_of_the_texts_count_for_the_second_encoder() -> None:
    about = Taxonomy.from_names(["a", "b"])
    T2 = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.8, 0.6]])
    texts = ClassTexts(np.eye(4), np.array([0, 0, 1, 1]), about, second_texts=SecondTexts(T2))
    batch = Batch(np.eye(4)[:1], second=np.array([[1.0, 0.0]]))

    def agrees(texts: ClassTexts, weight: Any = None) -> float:
        state = State(S=np.array([[1.0, 0.0]]), weight=weight)
        return Conformal(eps=0.5).fit(batch, texts, state).agreement_

    first, last = np.array([1.0, 0, 0, 1.0]), np.array([0, 1.0, 0, 1.0])
    assert (agrees(texts, first), agrees(texts, last)) == (1, 0)
    assert (agrees(replace(texts, weight=first)), agrees(replace(texts, weight=last))) == (1, 0)
    assert agrees(replace(texts, weight=last), first) == 1, "what was learned goes first"


def test_with_a_level_texts_must_name_their_classes() -> None:
    batch, texts = made(4, 20, taxonomy=TREE)
    texts = replace(texts, node_id=None)
    pipeline, S = fitted(batch, texts, eps=0.1)
    assert pipeline.decide(S, batch=batch)[1] is texts.taxonomy
    with pytest.raises(NeedsError, match=r"no node_id\), only of which group"):
        pipeline.decide(S, level=1, batch=batch)


def test_a_handle_beyond_the_images_keeps_everything() -> None:
    assert conformal_threshold(np.arange(98.0), 0.01) == math.inf
    assert conformal_threshold(np.arange(99.0), 0.01) == 98
    assert conformal_threshold([], 0.5) == math.inf
    batch, texts = made(1, 12)
    pipeline, S = fitted(batch, texts)
    answer, taxonomy = pipeline.decide(S, batch=batch)
    assert kept(answer, taxonomy) == [[0, 1, 2, 3]] * 12
    report = pipeline.decider.report()
    assert report["threshold"] is None
    assert report["always_kept"] == 4
    assert report["calibration_images"] == 12


def test_an_empty_set_is_the_most_probable_class() -> None:
    P = np.array([[0.4, 0.35, 0.25]])
    assert conformal_sets(P, 0.1).tolist() == [[True, False, False]]
    assert conformal_sets(P, 0.1, "adaptive").tolist() == [[True, False, False]]
    tie = np.array([[0.5, 0.5]])
    assert conformal_sets(tie, 0.1).tolist() == [[True, False]]


def test_each_class_has_its_own_threshold() -> None:
    alpha, y = np.array([0.1, 0.2, 0.3, 0.7, 0.8]), np.array([0, 0, 0, 1, 1])
    q = thresholds(alpha, y, 3, 0.4, per_class=True)
    assert q.tolist() == [0.3, 0.8, math.inf], "nobody answers the last class"
    assert thresholds(alpha, y, 3, 0.4).tolist() == [0.7] * 3


def coverage(
    seed: int, variant: Any, per_class: bool, eps: float, trials: int = 400, n: int = 60
) -> tuple[float, NDArray[np.float64]]:
    """Share of trials in which one new image's slow answer is kept; all, and by that answer."""
    rng, K = np.random.default_rng(seed), 3
    hit, of = np.zeros(K), np.zeros(K)
    for _ in range(trials):
        # The slow scorer answers by the fast one's scores, blurred: never the same rule.
        S = rng.normal(0, 1.5, (n + 1, K))
        y = (S + rng.gumbel(0, 1.5, S.shape)).argmax(axis=1)
        P = ops.softmax(S)
        alpha = nonconformity(P[:n], variant)[np.arange(n), y[:n]]
        q = thresholds(alpha, y[:n], K, eps, per_class)
        new = conformal_sets(P[n:], q, variant)[0]
        of[y[n]] += 1
        hit[y[n]] += new[y[n]]
    return hit.sum() / trials, hit / of


@pytest.mark.parametrize("variant", ["split", "adaptive"])
@pytest.mark.parametrize("eps", [0.05, 0.2])
def test_coverage_of_the_slow_answer(variant: Any, eps: float) -> None:
    trials, n = 1500, 60
    found, _ = coverage(7, variant, False, eps, trials, n)
    error = 3 * math.sqrt(eps * (1 - eps) / trials)
    assert found >= 1 - eps - error
    assert found <= 1 - eps + 1 / (n + 1) + error + (0.02 if variant == "adaptive" else 0)


def test_coverage_by_class() -> None:
    _, by_class = coverage(8, "split", True, 0.2, 1200)
    assert (by_class >= 0.8 - 3 * math.sqrt(0.16 / 300)).all()


def test_coverage_is_about_the_second_encoder() -> None:
    batch, texts = made(3, 600, 5, noise=1.0)
    half = [Batch(batch.X[p], second=batch.second[p]) for p in (slice(0, 300), slice(300, 600))]  # type: ignore[index]
    pipeline, _ = fitted(half[0], texts, eps=0.1)
    answer, taxonomy = pipeline.decide(pipeline.scores(half[1]), batch=half[1])
    sets, y = kept(answer, taxonomy), slow(half[1], texts)
    covered = np.mean([k in row for k, row in zip(y, sets, strict=True)])
    assert covered >= 0.9 - 3 * math.sqrt(0.09 / 300) * math.sqrt(2)
    assert np.mean([len(row) for row in sets]) < 5
    report = pipeline.decider.report()
    assert report["covers"] == "the answer of the second encoder"
    own = pipeline.scores(half[0]).argmax(axis=1)
    assert report["agreement"] == pytest.approx((own == slow(half[0], texts)).mean())


def test_with_a_level_groups_are_kept() -> None:
    batch, texts = made(4, 200, taxonomy=TREE, noise=0.8)
    pipeline, S = fitted(batch, texts, eps=0.1)
    answer, cut = pipeline.decide(S, level=1, batch=batch)
    own = texts.second_texts
    assert own is not None
    W = class_vectors(own.vectors, texts.class_index, np.ones(6), 3)
    mass = ops.softmax(own.scale * np.asarray(batch.second) @ W.T)  # apple, pear, milk
    P = ops.softmax(S)
    groups = [p[:, [0, 2]] + p[:, [1]] * [1, 0] for p in (mass, P)]
    expected = ref.sets(groups[1], groups[1], groups[0].argmax(axis=1), 0.1)
    assert [cut.classes[k].id for k in (0, 1)] == ["f", "m"]
    assert kept(answer, cut) == expected
    assert {len(row) for row in expected} == {1, 2}
    with pytest.raises(NeedsError, match="'conformal': it needs 'second'"):
        pipeline.decide(S, level=1)


def test_a_class_is_summed_to_its_group_before_the_largest_is_taken() -> None:
    # Apple and pear share what the image shows; by itself each loses against milk.
    T2 = np.array([[0.6, 0.8, 0], [0.6, -0.8, 0], [0.7, 0, math.sqrt(0.51)]])
    texts = ClassTexts(
        np.eye(3), np.arange(3), TREE, node_id=("a", "p", "m"), second_texts=SecondTexts(T2, 5.0)
    )
    x = np.array([[1.0, 0.0, 0.0]])
    assert slow(Batch(x, second=x), texts).tolist() == [2]
    pipeline, _ = fitted(Batch(x, second=x), texts, eps=0.6)
    S = np.log([[0.2, 0.2, 0.6]])
    answer, cut = pipeline.decide(S, level=1, batch=Batch(x, second=x))
    # Calibrated on "fruit", of which the fast scorer says 0.4, all at 0.6 or below are kept.
    assert sorted(cut.nodes[n].id for n in answer.node[0]) == ["f", "m"]


def test_no_images_no_promise() -> None:
    batch, texts = made(5, 3)
    member = Conformal()
    assert member.report() == {}
    none = Batch(batch.X[:0], second=batch.second[:0])  # type: ignore[index]
    member.fit(none, texts, State(S=np.zeros((0, 4))))
    answer = member.apply(batch, texts, State(S=np.zeros((3, 4))))
    assert answer.node.shape == (3, 4)
    assert member.report()["agreement"] is None
    with pytest.raises(NeedsError, match="needs 'X'"):
        member.check_needs(none, texts)


def test_scores_that_are_no_numbers_keep_the_first_class() -> None:
    batch, texts = made(6, 3)
    member = Conformal(eps=0.5).fit(batch, texts, State(S=np.eye(4)[:3]))
    answer = member.apply(batch, texts, State(S=np.full((1, 4), np.nan)))
    assert answer.node.tolist() == [[1]]


def test_vectors_that_do_not_fit() -> None:
    batch, texts = made(0, 6)
    state = State(S=np.zeros((6, 4)))
    with pytest.raises(EmbeddingsError, match=r"shapes \(5, 5\) and \(8, 5\), for 6 images and 8"):
        Conformal().fit(replace(batch, second=batch.second[1:]), texts, state)  # type: ignore[index]
    narrow = replace(texts, second_texts=SecondTexts(texts.vectors))
    with pytest.raises(EmbeddingsError, match="of one encoder"):
        Conformal().fit(batch, narrow, state)


@pytest.mark.parametrize("eps", [0, 1, -0.1, float("nan")])
def test_eps_out_of_range(eps: float) -> None:
    with pytest.raises(RecipeError) as error:
        create(f"conformal[eps={eps}]", "decide")
    seen = f"eps is {float(eps)}. It must be above 0 and below 1."
    assert str(error.value) == f"cannot use 'conformal': {seen}"


def test_unknown_variant() -> None:
    with pytest.raises(RecipeError, match="variant is 'x'"):
        Conformal(variant="x")


@pytest.mark.parametrize("eps", ["x", None])
def test_eps_of_another_kind(eps: Any) -> None:
    with pytest.raises(RecipeError, match=r"eps=.* does not fit"):
        Conformal(eps=eps)
