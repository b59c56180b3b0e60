"""Expected accuracy without labels: the formula, its limits, and what it must not depend on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from byname import expectation
from byname.diagnose import diagnose
from byname.expectation import POOLED, TEXTS, ahead, centred, interval, look, signals
from byname.margins import cmm
from byname.ops import softmax, unit
from byname.recipes import get_recipe
from byname.refine import whole
from byname.refine.auto import Auto
from byname.refine.whole import neighbours
from byname.stage import Batch, ClassTexts, State
from byname.taxonomy import Taxonomy


def world(seed: int = 0, n: int = 40, K: int = 4, spoilt: float = 0.6) -> tuple[Any, Any, Any]:
    """Vectors, class texts that miss their classes by an error, and logits; the last is absent."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((K, 24)))
    truth = np.repeat(np.arange(K - 1), n)
    X = unit(centres[truth] + 0.15 * rng.standard_normal((len(truth), 24)))
    W = unit(centres + spoilt * unit(rng.standard_normal((K, 24))))
    return X, W, 15 * X @ W.T


def texts_of(W: Any) -> ClassTexts:
    return ClassTexts(W, np.arange(len(W)), Taxonomy.from_names([f"c{k}" for k in range(len(W))]))


def logit(p: Any) -> Any:
    p = np.clip(p, 0.02, 0.98)
    return np.log(p / (1 - p))


def logistic(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("changed", [False, True])
def test_the_formula(changed: bool) -> None:
    """Written out again, in float64 and with loops."""
    X, W, S = world()
    N, K = S.shape
    y = S.argmax(axis=1)
    if changed:
        y[::7] = (y[::7] + 1) % K
    c = POOLED if changed else TEXTS
    P, G = softmax(S), X @ X.T
    np.fill_diagonal(G, -2)
    q = np.array([P[np.argsort(-g)[:10]].mean(axis=0) for g in G])
    z = softmax(Auto().fit(Batch(X), texts_of(W), State(W=W, S=S.astype("f4"))).scores_)
    T = S - S.mean(axis=0)
    right = []
    for i in range(N):
        m = (T[i, y[i]] - max(np.delete(T[i], y[i]))) / T[i].std()
        v = [1, np.clip(m, -3, 4), logit(q[i, y[i]]), logit(z[i, y[i]])]
        right.append(logistic(np.dot(v, [*c["image"].values()])))
    values, count = cmm((X, W), y)
    p = count[count > 0] / N
    each = np.zeros(K)
    same = np.mean([z[i, y[i]] for i in range(N)])
    for k in np.flatnonzero(count):
        own = y == k
        v = [
            1,
            np.clip(values[k] / (X @ W.T).std(axis=1).mean(), -1, 5),
            np.log(np.clip(count[k] / N * np.exp(-(p * np.log(p)).sum()), 0.05, 20)),
            logit(q[own, k].sum() / q[:, k].sum()),
            logit((z[own, k].sum() + same) / (z[:, k].sum() + 1)),
        ]
        each[k] = logistic(np.dot(v, [*c["class"].values()]))
    p = np.array([np.mean(right), q.mean(axis=0) @ each])
    overall = logistic(np.dot([1, *np.log(p / (1 - p))], [*c["overall"].values()]))
    found = signals(X, W, S, y)
    assert found.pooled_answers == changed
    np.testing.assert_allclose(found.right(), right, atol=2e-5)
    np.testing.assert_allclose(found.expected(), each, atol=2e-5)
    assert found.overall() == pytest.approx(overall, abs=2e-5)
    np.testing.assert_allclose(found.mass, q.mean(axis=0), atol=1e-6)


def test_a_class_without_answers_has_accuracy_0_for_certain() -> None:
    X, W, S = world()
    S[:, 3] = -99
    found = signals(X, W, S)
    assert found.count[3] == 0
    assert found.expected()[3] == 0
    assert found.intervals()[3].tolist() == [0, 0]
    assert (found.expected()[:3] > 0).all()


def test_intervals_hold_the_estimate_and_widen_with_fewer_images() -> None:
    X, W, S = world()
    found = signals(X, W, S)
    low, high = found.intervals().T
    assert ((low <= found.expected()) & (found.expected() <= high)).all()
    assert found.interval()[0] < found.overall() < found.interval()[1]
    e = np.array(0.7)
    widths = [float(np.ptp(interval(e, np.array(n), 0.5, 0.5))) for n in (5, 20, 100, 1e9)]
    assert widths == sorted(widths, reverse=True)
    assert interval(e, np.array(1e9), 0.0, 0.0) == pytest.approx([0.7, 0.7], abs=1e-3)
    ends = interval(np.array([0.99, 0.01]), np.array([9.0, 9.0]), 0.5, 0.5)
    assert ends[[0, 1], [1, 0]].tolist() == [1, 0]
    low, high = interval(e, np.array(1e9), 2.0, 0.5)
    assert low < 0.1 < 0.8 < high


def test_poorer_texts_are_expected_to_do_worse() -> None:
    better, worse = (
        np.mean([signals(*world(seed, spoilt=s)).overall() for seed in range(6)]) for s in (0.3, 2)
    )
    assert better > worse + 0.1


def test_it_does_not_depend_on_the_order() -> None:
    X, W, S = world()
    rng = np.random.default_rng(3)
    rows, columns = rng.permutation(len(X)), rng.permutation(len(W))
    a, b = signals(X, W, S), signals(X[rows], W[columns], S[rows][:, columns])
    np.testing.assert_allclose(b.expected(), a.expected()[columns], atol=1e-5)
    assert b.overall() == pytest.approx(a.overall(), abs=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 9])
@pytest.mark.parametrize("K", [1, 2, 4])
def test_few_images_and_few_classes(n: int, K: int) -> None:
    X, W, S = world()
    found = signals(X[:n], W[:K], S[:n, :K])
    assert np.isfinite(found.expected()).all()
    assert 0 <= found.interval()[0] <= found.overall() <= found.interval()[1] <= 1
    assert found.n == pytest.approx(n)


def test_all_images_alike_and_all_answers_alike() -> None:
    X, W, S = world()
    for A, B in ((np.tile(X[:1], (30, 1)), np.tile(S[:1], (30, 1))), (X, np.zeros_like(S))):
        found = signals(A, W, B)
        assert np.isfinite(found.expected()).all()
        assert 0 < found.overall() < 1


def test_many_images_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    X, W, S = world(n=300)
    S[:, 3] -= 100
    S[17, 3] = 99  # a class with one answer
    whole = signals(X, W, S)
    monkeypatch.setattr(expectation, "SAMPLE", 400)
    part = look(X, W, S)
    assert len(part.y) < 440
    assert 3 in part.y
    found = part.signals()
    np.testing.assert_array_equal(found.count, whole.count)
    assert found.weight.sum() == pytest.approx(1)
    assert found.overall() == pytest.approx(whole.overall(), abs=0.05)
    np.testing.assert_allclose(found.expected()[:3], whole.expected()[:3], atol=0.1)
    monkeypatch.setattr(expectation, "CELLS", 800)
    monkeypatch.setattr(expectation, "LEAST", 50)
    assert len(look(X, W, S).y) < 240


def test_a_draw_counts_images_again() -> None:
    X, W, S = world()
    seen = look(X, W, S)
    one = seen.signals(np.ones(len(X)))
    np.testing.assert_allclose(one.expected(), seen.signals().expected(), atol=1e-9)
    twice = seen.signals(np.full(len(X), 2.0))
    assert twice.n == 2 * len(X)
    assert twice.overall() == pytest.approx(one.overall(), abs=1e-3)
    assert np.ptp(twice.interval()) < np.ptp(one.interval())


def test_a_text_that_is_near_to_all_images_is_level_after_centring() -> None:
    _, _, S = world()
    y = S.argmax(axis=1)
    lifted = S + np.array([99, 0, 0, 0])
    np.testing.assert_allclose(centred(lifted, y), centred(S, y), atol=1e-9)
    np.testing.assert_allclose(centred(0.3 * S, y), centred(S, y), atol=1e-9)
    assert (centred(np.tile(S[:1], (30, 1)), np.zeros(30, int)) == 0).all()


def test_texts_that_take_images_of_all_kinds_are_expected_to_do_worse() -> None:
    X, W, S = world(spoilt=0.3)
    spoilt = S + np.array([S.std() * 4, 0, 0, 0])
    assert signals(X, W, spoilt).overall() < signals(X, W, S).overall() - 0.2


def test_the_scale_of_the_logits_moves_the_estimate_little() -> None:
    X, W, S = world(spoilt=0.3)
    found = [signals(X, W, scale * S).overall() for scale in (0.5, 1, 2)]
    assert np.ptp(found) < 0.2


def test_neighbours_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(X: Any, k: int) -> Any:
        calls.append(len(X))
        return neighbours(X, k)

    monkeypatch.setattr(expectation, "neighbours", counted)
    monkeypatch.setattr(whole, "neighbours", counted)
    monkeypatch.setattr(expectation, "_KEPT", {})
    X, W, S = world()
    one = look(X, W, S)
    assert calls == [len(X)]
    two = look(X.copy(), W[:3], S[:, :3])
    assert calls == [len(X)]
    assert two.q.shape == (len(X), 3)
    np.testing.assert_array_equal(one.q, look(X, W, S).q)
    look(X[::-1], W, S)
    look(X[:-1], W, S[:-1])
    assert calls == [len(X), len(X), len(X) - 1]


def test_auto_is_that_of_the_recipes() -> None:
    """Also where it steps back: its neighbours are only looked up elsewhere."""
    for n, K in ((40, 4), (2, 4), (40, 2)):
        X, W, S = world(n=n)
        member = Auto().fit(Batch(X), texts_of(W[:K]), State(W=W[:K], S=S[:, :K].astype("f4")))
        np.testing.assert_array_equal(look(X, W[:K], S[:, :K]).z, softmax(member.scores_))


def test_how_far_an_answer_is_ahead() -> None:
    S = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [5.0, 5.0, 0.0]])
    assert ahead(S, np.array([0, 1, 1])).tolist() == [1.0, -2.0, 0.0]
    assert ahead(S[:, :1], np.zeros(3, int)).tolist() == [3.0, 3.0, 5.0]


def test_answers_that_were_refined_are_seen_from_the_scores_before() -> None:
    X, W, _ = world(spoilt=1.2)
    member = Auto(guard=False).fit(Batch(X), texts_of(W), State(W=W, S=100 * X @ W.T))
    y = member.scores_.argmax(axis=1)
    assert (y != (X @ W.T).argmax(axis=1)).any()
    found = signals(X, W, 100 * X @ W.T, y)
    assert found.pooled_answers
    assert replace(found, pooled_answers=False).overall() != found.overall()
    told = diagnose(texts_of(W), X, get_recipe("plain", refine="auto[guard=false]"))
    assert told.expected_accuracy == pytest.approx(found.overall(), abs=1e-4)
