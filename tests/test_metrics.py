"""Metrics against plain loops, and against what must hold of any data."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname import metrics as met
from byname.errors import UsageError
from byname.taxonomy import Taxonomy
from tests.reference import metrics as reference
from tests.trees import random_case

seeds = st.integers(0, 10_000)
sizes = st.integers(1, 9)


@given(seed=seeds, K=sizes, N=st.integers(1, 30), m=st.integers(1, 12))
def test_class_metrics_agree_with_loops(seed: int, K: int, N: int, m: int) -> None:
    case = random_case(seed, N, K)
    correct = case.S.argmax(axis=1) == case.labels
    a, n = met.class_accuracy(correct, case.labels, K)
    expected = reference.class_accuracy(correct.tolist(), case.labels.tolist(), K)
    assert {k: x for k, x in enumerate(a) if not np.isnan(x)} == pytest.approx(expected)
    assert n.sum() == N
    values = list(expected.values())
    assert met.balanced_accuracy(a) == pytest.approx(sum(values) / len(values))
    assert met.worst_m(a, m) == pytest.approx(reference.worst_m(expected, m))
    chosen = met.worst_classes(a, m)
    assert len(chosen) == min(m, len(expected))
    assert met.worst_fixed(a, chosen) == pytest.approx(reference.worst_m(expected, m))
    assert met.harmonic_mean(a) == pytest.approx(reference.harmonic_mean(values))
    assert met.geometric_mean(a) == pytest.approx(reference.geometric_mean(values))
    raised, which = met.with_floor(a, n)
    floored = [max(x, 1 / (2 * n[k])) for k, x in expected.items()]
    assert met.harmonic_mean(raised) == pytest.approx(reference.harmonic_mean(floored))
    assert met.geometric_mean(raised) == pytest.approx(reference.geometric_mean(floored))
    assert which.sum() == sum(x == 0 for x in values)


@given(seed=seeds)
def test_means_are_ordered(seed: int) -> None:
    case = random_case(seed)
    correct = case.S.argmax(axis=1) == case.labels
    a, _ = met.class_accuracy(correct, case.labels, 6)
    worst = [float(met.worst_m(a, m)) for m in range(1, 7)]
    assert worst == sorted(worst)
    assert met.harmonic_mean(a) <= met.geometric_mean(a) + 1e-12
    assert met.geometric_mean(a) <= met.balanced_accuracy(a) + 1e-12


@given(seed=seeds, K=sizes, inner=st.booleans(), k=st.integers(1, 9))
def test_distances_agree_with_loops(seed: int, K: int, inner: bool, k: int) -> None:
    case = random_case(seed, 20, K, inner=inner)
    nodes, true = case.answer.node, case.taxonomy.leaf_index[case.labels]
    d = met.tree_distance(case.taxonomy, case.labels, nodes)
    for i, j in np.ndindex(d.shape):
        assert d[i, j] == reference.distance(case.taxonomy, int(true[i]), int(nodes[i, j]))
    expected = reference.severity(d[:, 0].tolist())
    assert met.severity(d[:, 0]) == pytest.approx(expected, nan_ok=True)
    assert met.hd_at_k(d, k) == pytest.approx(
        reference.hd_at_k(case.taxonomy, true.tolist(), nodes, k)
    )
    found = met.hierarchical_scores(case.taxonomy, case.labels, nodes[:, 0])
    assert tuple(found.values()) == pytest.approx(
        reference.hierarchical(case.taxonomy, true.tolist(), nodes[:, 0].tolist()), nan_ok=True
    )


@given(seed=seeds, K=sizes, inner=st.booleans())
def test_hd1_is_the_share_of_mistakes_times_severity(seed: int, K: int, inner: bool) -> None:
    case = random_case(seed, 25, K, inner=inner)
    nodes = case.answer.node[:, 0]
    d = met.tree_distance(case.taxonomy, case.labels, nodes)
    top1 = met.topk_accuracy(nodes[:, None], case.taxonomy.leaf_index[case.labels])
    if top1 == 1:
        assert math.isnan(met.severity(d))
        assert met.hd_at_k(d) == 0
    else:
        assert abs(met.hd_at_k(d) - (1 - top1) * met.severity(d)) < 1e-9


@given(seed=seeds, K=sizes)
def test_distances_between_classes_are_the_lca_heights(seed: int, K: int) -> None:
    taxonomy = random_case(seed, 1, K).taxonomy
    H = met.tree_distance(taxonomy, np.arange(K), np.tile(taxonomy.leaf_index, (K, 1)))
    np.testing.assert_array_equal(H, taxonomy.lca_heights())


@given(seed=seeds, K=st.integers(1, 6))
def test_worst_two_class_agrees_with_loops(seed: int, K: int) -> None:
    case = random_case(seed, 20, K)
    S = case.S.round()  # with ties
    found = met.worst_two_class(S, case.labels)
    assert found == pytest.approx(
        reference.worst_two_class(S.tolist(), case.labels.tolist(), K), nan_ok=True
    )
    often = np.random.default_rng(seed).integers(0, 3, 20)
    weighted = met.worst_two_class(S, case.labels, often.astype(float))
    again = np.repeat(np.arange(20), often)
    assert weighted == pytest.approx(met.worst_two_class(S[again], case.labels[again]), nan_ok=True)


def test_unfilled_ranks_are_left_out() -> None:
    t = Taxonomy.from_names(["a", "b", "c"])
    nodes = np.array([[t.leaf_index[0], t.leaf_index[1], -1]])
    d = met.tree_distance(t, np.array([0]), nodes)
    assert np.isnan(d[0, 2])
    assert met.hd_at_k(d, 3) == 0.5


def test_answering_the_root_says_nothing() -> None:
    t = Taxonomy.from_names(["a", "b"])
    found = met.hierarchical_scores(t, np.array([0, 1]), np.array([0, 0]))
    assert math.isnan(found["precision"])
    assert found["recall"] == found["f1"] == 0


def test_no_images_give_no_number() -> None:
    none = np.zeros(0, np.intp)
    assert math.isnan(met.topk_accuracy(np.zeros((0, 1), np.intp), none))
    a, n = met.class_accuracy(none, none, 2)
    assert np.isnan(a).all()
    assert n.tolist() == [0, 0]
    for number in (met.balanced_accuracy(a), met.worst_m(a, 3), met.harmonic_mean(a)):
        assert math.isnan(number)


def test_class_functions_work_on_the_last_axis() -> None:
    A = np.array([[0.5, 1.0, np.nan], [0.0, 0.25, 0.75]])
    for function in (met.balanced_accuracy, met.harmonic_mean, met.geometric_mean):
        np.testing.assert_allclose(function(A), [function(row) for row in A])
    np.testing.assert_allclose(met.worst_m(A, 2), [0.75, 0.125])
    np.testing.assert_allclose(met.worst_fixed(A, np.array([0, 2])), [0.5, 0.375])


@pytest.mark.parametrize(
    "call", [lambda: met.worst_m(np.ones(2), 0), lambda: met.hd_at_k(np.ones(2), 0)]
)
def test_numbers_below_one(call: object) -> None:
    with pytest.raises(UsageError, match=r"the number is 0\. Give 1 or more"):
        call()  # type: ignore[operator]


def test_severity_on_the_real_tree(shared: Path) -> None:
    from byname.taxonomy_io import read_taxonomy

    taxonomy = read_taxonomy(shared / "taxonomies" / "cub-200.json")
    rng = np.random.default_rng(0)
    labels, answers = rng.integers(0, 200, (2, 500))
    d = met.tree_distance(taxonomy, labels, taxonomy.leaf_index[answers])
    np.testing.assert_array_equal(d, taxonomy.lca_heights()[labels, answers])
    assert abs(met.hd_at_k(d) - np.mean(labels != answers) * met.severity(d)) < 1e-9
