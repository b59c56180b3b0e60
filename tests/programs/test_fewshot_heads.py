"""Heads from few labelled images: against loops, the choice of strength, what stays zero-shot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from byname import ops
from byname.errors import UsageError
from byname.programs.fewshot import FewShot
from byname.programs.fewshot_heads import FewShotHead, gaussian_head, linear_head
from byname.programs.shots import deals, folds
from byname.stage import ClassTexts, Support
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy
from tests.reference import fewshot_heads as plain

SEEDS = st.integers(0, 9999)
D = 10


def rows(rng: np.random.Generator, *shape: int) -> NDArray[Any]:
    return np.asarray(ops.unit(rng.standard_normal(shape)))


def task(seed: int, K: int = 4, shots: int = 4, noise: float = 0.2) -> Any:
    """Texts that are far off, labelled images, their ids, and further images with labels."""
    rng = np.random.default_rng(seed)
    centres = rows(rng, K, D)
    texts = ClassTexts(
        ops.unit(centres + 0.5 * rng.standard_normal((K, D))),
        np.arange(K),
        Taxonomy(Node(f"c{k}", f"class {k}") for k in range(K)),
        scale=20,
    )
    of, y = np.repeat(np.arange(K), shots), np.arange(60) % K
    X = np.asarray(ops.unit(centres[of] + noise * rng.standard_normal((len(of), D))))
    more = np.asarray(ops.unit(centres[y] + noise * rng.standard_normal((60, D))))
    return texts, X, [f"c{k}" for k in of], more, np.array([f"c{k}" for k in y])


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 4), st.floats(0.01, 10))
def test_gaussian_agrees_with_loops(seed: int, shots: int, alpha: float) -> None:
    texts, X, ids, more, _ = task(seed, shots=shots)
    index = [int(i[1:]) for i in ids]
    keep = [n for n, i in enumerate(index) if i != 2]  # one class without images
    X, index = X[keep], [index[n] for n in keep]
    model = FewShotHead(texts, strength=alpha).fit(X, [f"c{i}" for i in index])
    S = 20 * more @ np.asarray(texts.vectors).T
    expected = plain.gaussian(X, index, 4, more)
    np.testing.assert_allclose(model.decision_function(more), S + alpha * expected, atol=1e-6)
    assert (expected[:, 2] == 0).all()
    alone = FewShotHead(texts, strength=alpha, use_texts=False).fit(X, [f"c{i}" for i in index])
    np.testing.assert_allclose(alone.decision_function(more), alpha * expected, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from([1.0, 0.1, 0.01]))
def test_linear_finds_the_least_loss(seed: int, weight: float) -> None:
    """Convex: where no small step lowers it, it is the least."""
    texts, X, ids, _, _ = task(seed, shots=2)
    index, text = np.array([int(i[1:]) for i in ids]), 20 * X @ np.asarray(texts.vectors).T
    V, b = linear_head(X, text, index, weight)
    assert (b == 0).all()
    least = plain.loss(V, X, text, index, weight)
    assert least <= plain.loss(np.zeros_like(V), X, text, index, weight)
    rng = np.random.default_rng(seed)
    for _ in range(5):
        step = 1e-2 * rng.standard_normal(V.shape)
        assert plain.loss(V + step, X, text, index, weight) > least
    again, _ = linear_head(X, text, index, weight, start=rng.standard_normal(V.shape))
    assert plain.loss(again, X, text, index, weight) == pytest.approx(least, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(2, 5))
def test_folds_are_even_in_every_class(seed: int, counts: list[int], most: int) -> None:
    rng = np.random.default_rng(seed)
    index = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    X = rng.standard_normal((len(index), 3))
    fold = folds(index, X, most, seed)
    assert fold.max() == min(most, max(counts)) - 1
    for k, n in enumerate(counts):
        shares = np.bincount(fold[index == k], minlength=int(fold.max()) + 1)
        assert np.ptp(shares) <= 1
        if n > 1:
            assert shares.max() < n, "some are always left to learn from"
    assert (folds(index, X, most, seed) == fold).all()
    order = rng.permutation(len(index))
    assert (folds(index[order], X[order], most, seed) == fold[order]).all()
    classes = rng.permutation(len(counts))
    assert (folds(classes[index], X, most, seed) == fold).all()


def test_deals_differ() -> None:
    X, index = np.random.default_rng(0).standard_normal((40, 8)), np.repeat(np.arange(4), 10)
    dealt = [*deals(index, X, 0), *deals(index, X, 1)]
    assert len({fold.tobytes() for fold in dealt}) == 6


@pytest.mark.parametrize("head", ["gaussian", "linear"])
def test_labelled_images_help_where_texts_are_off(head: Any) -> None:
    texts, X, ids, more, y = task(3)
    zero = (FewShot(texts, alpha=0).fit(X, ids).predict(more) == y).mean()
    model = FewShotHead(texts, head).fit(X, ids)
    assert (model.predict(more) == y).mean() > zero + 0.05
    assert model.strength_ is not None
    best = max(model.validation_.values())
    assert model.validation_[f"{model.strength_:g}"] == best > model.validation_["zero-shot"]
    np.testing.assert_allclose(model.predict_proba(more).sum(axis=1), 1)


@pytest.mark.parametrize("head", ["gaussian", "linear"])
def test_images_that_tell_nothing_leave_it_zero_shot(head: Any) -> None:
    """Texts that are right, and no other strength with more right answers."""
    texts, X, ids, more, _ = task(0, noise=0.01)
    centres = ops.segment_mean(X, np.array([int(i[1:]) for i in ids]), 4)
    good = ClassTexts(ops.unit(centres), np.arange(4), texts.taxonomy, scale=20)
    model = FewShotHead(good, head).fit(X, ids)
    assert model.validation_["zero-shot"] == 1
    assert model.strength_ is None
    np.testing.assert_array_equal(
        model.decision_function(more), FewShot(good, alpha=0).fit(X, ids).decision_function(more)
    )


@pytest.mark.parametrize("lone", [False, True])
def test_the_choice_is_that_of_the_folds(lone: bool) -> None:
    """Of a class with one image nothing is known in its fold: it is not asked for."""
    texts, X, ids, _, _ = task(5, shots=3, noise=0.5)
    index = np.array([int(i[1:]) for i in ids])
    text = 20 * X @ np.asarray(texts.vectors).T
    if lone:  # one that the texts answer right
        own = next(n for n in range(9, 12) if text[n].argmax() == 3)
        keep = [*range(9), own]
        X, ids, index, text = X[keep], [ids[n] for n in keep], index[keep], text[keep]
    model = FewShotHead(texts, seed=1).fit(X, ids)
    counted = np.bincount(index)[index] > 1
    for name, accuracy in model.validation_.items():
        right = 0
        for fold in deals(index, X, 1):
            for f in range(3):
                w, b = gaussian_head(X[fold != f], index[fold != f], 4)
                alpha = 0.0 if name == "zero-shot" else float(name)
                asked = (fold == f) & counted
                S = text[asked] + alpha * (X[asked] @ w.T + b)
                right += int((S.argmax(axis=1) == index[asked]).sum())
        assert accuracy == pytest.approx(right / 3 / counted.sum())


def test_a_class_of_one_image_is_learned_and_not_asked_for() -> None:
    texts, X, ids, _, _ = task(1, shots=3)
    keep = [i for i, c in enumerate(ids) if c != "c3"] + [len(ids) - 1]
    model = FewShotHead(texts).fit(X[keep], [ids[i] for i in keep])
    assert all(round(27 * v) == pytest.approx(27 * v) for v in model.validation_.values())
    assert "c3" in model.set_params(strength=1e3).fit(X[keep], [ids[i] for i in keep]).predict(X)


def test_nothing_to_validate_on_is_said() -> None:
    texts, X, ids, more, _ = task(1, shots=1)
    with pytest.raises(UsageError, match="fewer than two classes have two of them, so none can"):
        FewShotHead(texts).fit(X, ids)
    with pytest.raises(UsageError, match="fewer than two classes have two of them"):
        FewShotHead(texts, "linear").fit(np.repeat(X, 3, axis=0)[:4], ["c0"] * 3 + ["c1"])
    model = FewShotHead(texts, strength=0.5).fit(X, ids)
    assert (model.validation_, model.strength_) == ({}, 0.5)
    assert len(model.predict(more)) == 60
    same = FewShotHead(texts, strength=1.0).fit(np.repeat(X[:1], 3, axis=0), ["c0"] * 3)
    assert (same.decision_function(more) == FewShot(texts, alpha=0).fit(X, ids)
            .decision_function(more)).all()  # fmt: skip


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"head": "deep"}, "head is 'deep'. gaussian or linear"),
        ({"head": "linear", "use_texts": False}, "use_texts=False is for the Gaussian head"),
        ({"strength": 0.0}, "strength is 0.0. Give a number above 0"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"strength": "1"}, "strength is '1'. Give a number above 0"),
        ({"strength": True}, "strength is True"),
        ({"strength": [1.0]}, r"strength is \[1.0\]"),
        ({"seed": -1}, "seed is -1. Give 0 or more, a whole number"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"seed": None}, "seed is None"),
        ({"use_texts": "no"}, "use_texts is 'no'. Give true or false"),
        ({"head": ["linear"]}, r"head is \['linear'\]"),
    ],
)
def test_wrong_settings_are_named(options: Any, seen: str) -> None:
    texts, X, ids, _, _ = task(0)
    with pytest.raises(UsageError, match=seen):
        FewShotHead(texts, **options).fit(X, ids)


def test_wrong_images_are_named() -> None:
    texts, X, ids, more, _ = task(0)
    with pytest.raises(UsageError, match="Call fit"):
        FewShotHead(texts).predict(X)
    with pytest.raises(UsageError, match="no class has this id"):
        FewShotHead(texts).fit(X, ["c9", *ids[1:]])
    with pytest.raises(UsageError, match="it is pseudo"):
        FewShotHead(texts).fit(Support(X, np.zeros(len(X), np.intp), "pseudo"))
    with pytest.raises(UsageError, match="use the support: they are no array of numbers"):
        FewShotHead(texts).fit([["a"] * D] * 2, ["c0", "c1"])
    with pytest.raises(UsageError, match="use the support: they are no array of numbers"):
        FewShotHead(texts).fit([[0.1, 0.2], [0.1]], ["c0", "c1"])
    for wrong in (7, "c0"):
        with pytest.raises(UsageError, match="Give a list with one id an image"):
            FewShotHead(texts).fit(X, wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"the class \['c0'\] of the support: no class has"):
        FewShotHead(texts).fit(X[:1], [["c0"]])  # type: ignore[list-item]
    with pytest.raises(UsageError, match=r"texts is of the type ndarray. Give ClassTexts"):
        FewShotHead(np.eye(3)).fit(X, ids)  # type: ignore[arg-type]
    X[2, 1] = np.nan
    with pytest.raises(UsageError, match="row 2 holds NaN"):
        FewShotHead(texts).fit(X, ids)
    assert more.shape == (60, D)


def test_a_support_in_place_of_ids_and_float16() -> None:
    texts, X, ids, more, y = task(2)
    index = np.array([int(i[1:]) for i in ids])
    a = FewShotHead(texts).fit(X, ids)
    b = FewShotHead(texts).fit(Support(X, index, "labelled"))
    np.testing.assert_array_equal(a.decision_function(more), b.decision_function(more))
    half = FewShotHead(texts).fit(X.astype(np.float16), ids)
    assert half.decision_function(more.astype(np.float16)).dtype == np.float32
    assert (half.predict(more) == y).mean() > 0.8


def test_real_vectors(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    texts, X = task.texts_for("templates"), np.asarray(ops.unit(task.batch().X))
    y, ids = np.asarray(task.labels), np.array(task.texts_for("templates").taxonomy.class_ids)
    order = np.random.default_rng(0).permutation(len(X))
    mine = np.concatenate([order[y[order] == k][:4] for k in range(19)])
    rest = np.setdiff1d(np.arange(len(X)), mine)
    model = FewShotHead(texts).fit(X[mine], ids[y[mine]])
    assert (model.predict(X[rest]) == ids[y[rest]]).mean() > 0.93
    g = plain.gaussian(X[mine], y[mine].tolist(), 19, X[rest[:20]].astype(np.float64))
    w, b = gaussian_head(X[mine], y[mine], 19)
    scale = float(np.abs(g).max())
    np.testing.assert_allclose((X[rest[:20]] @ w.T + b) / scale, g / scale, atol=1e-5)
