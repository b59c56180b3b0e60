"""TransCLIP-FS against the plain formula, the choice of gamma, and when it steps back."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname import ops
from byname.errors import RecipeError, UsageError
from byname.programs.fewshot import FewShot
from byname.programs.shots import folds
from byname.programs.transclip_fs import TransClipFewShot
from byname.refine.transclip import TransClip
from byname.stage import Batch, ClassTexts, State, Support
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from tests.reference import transclip as plain
from tests.refine.test_whole import make

SEEDS = st.integers(0, 9999)


def labelled(seed: int, shots: int = 2, N: int = 60, **options: Any) -> Any:
    """Texts, labelled images and their ids, other images, their logits and true classes."""
    batch, texts, state = make(seed, N=N + 4 * shots, **options)
    S: Any = state.S
    n, y = 4 * shots, np.arange(N + 4 * shots) % 4
    names = np.array(texts.taxonomy.class_ids)
    return texts, batch.X[:n], names[y[:n]].tolist(), batch.X[n:], S[n:], y[n:]


def index_of(texts: ClassTexts, ids: list[str]) -> list[int]:
    return [texts.taxonomy.class_ids.index(i) for i in ids]


@settings(max_examples=25, deadline=None)
@given(
    SEEDS,
    st.integers(1, 4),
    st.sampled_from([0.002, 0.2, 3.0]),
    st.sampled_from(["posterior", "column"]),
    st.integers(1, 5),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_loops_agree(
    seed: int, shots: int, gamma: float, kind: Any, n: int, rounds: int, weight: float
) -> None:
    texts, L, ids, X, S, _ = labelled(seed, shots, 30)
    keep = [i for i, node_id in enumerate(ids) if node_id != ids[2]]  # one class without any
    L, ids = L[keep], [ids[i] for i in keep]
    options: dict[str, Any] = {"rounds": rounds, "text_weight": weight}
    model = TransClipFewShot(texts, gamma, seeds=kind, neighbours=n, guard=False, **options)
    found = model.fit(L, ids).decision_function(X)
    expected = plain.transclip_fs(
        X, S, L, index_of(texts, ids), gamma=gamma, kind=kind, n=n, **options
    )
    np.testing.assert_allclose(found / 20, expected / 20, atol=1e-5)


def test_defaults_agree_in_float32_and_half() -> None:
    texts, L, ids, X, S, _ = labelled(1)
    expected = plain.transclip_fs(X, S, L, index_of(texts, ids), gamma=0.02)
    model = TransClipFewShot(texts, guard=False).fit(L.astype(np.float32), ids)
    found = model.decision_function(X.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found / 20, expected / 20, atol=1e-5)
    np.testing.assert_allclose(ops.softmax(found).sum(axis=1), 1, atol=1e-5)
    half = TransClipFewShot(texts).fit(L.astype(np.float16), ids)
    assert half.decision_function(X.astype(np.float16)).dtype == np.float32


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_labels_it_is_transclip(seed: int) -> None:
    texts, L, _, X, S, _ = labelled(seed)
    member = TransClip().fit(Batch(X), texts, State(S=S))
    model = TransClipFewShot(texts).fit(L[:0], [])
    np.testing.assert_allclose(model.decision_function(X), member.scores_, atol=1e-9)
    assert model.reason_ == member.reason_
    assert (model.gamma_, model.validation_, model.unchosen_) == (0.02, {}, None)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_orders_count_nothing(seed: int) -> None:
    texts, L, ids, X, _, _ = labelled(seed)
    rng = np.random.default_rng(seed)
    a, b = rng.permutation(len(L)), rng.permutation(len(X))
    found = TransClipFewShot(texts).fit(L, ids).decision_function(X)
    other = TransClipFewShot(texts).fit(L[a], [ids[i] for i in a]).decision_function(X[b])
    np.testing.assert_allclose(other, found[b], atol=1e-6)


def test_labels_mend_what_texts_swap() -> None:
    """Two classes whose texts are each other's: no unlabeled image can tell, one label each can."""
    texts, L, ids, X, _, y = labelled(2, shots=4)
    W = texts.vectors[[1, 0, 2, 3]]
    wrong = ClassTexts(W, texts.class_index, texts.taxonomy, scale=4.0)
    names = np.array(texts.taxonomy.class_ids)
    without = TransClipFewShot(wrong, temperature=5).fit(L[:0], []).predict(X)
    with_ = TransClipFewShot(wrong, 3.0, temperature=5).fit(L, ids).predict(X)
    assert (without == names[y]).mean() < 0.6
    assert (with_ == names[y]).mean() > 0.9


def test_gamma_is_that_of_the_folds() -> None:
    texts, L, ids, X, S, _ = labelled(3, shots=4, N=30, far=0.9)
    index = np.array(index_of(texts, ids))
    model = TransClipFewShot(texts, gammas=(0.5, 0.01, 30.0), seed=5, guard=False).fit(L, ids)
    model.decision_function(X)
    fold = folds(index, L, seed=5)
    text = 20 * L @ np.asarray(texts.vectors).T
    expected = {}
    for gamma in (0.01, 0.5, 30.0):
        right = 0
        for f in range(4):
            held, rest = np.flatnonzero(fold == f), np.flatnonzero(fold != f)
            both, logits = np.concatenate([L[held], X]), np.concatenate([text[held], S])
            z = plain.transclip_fs(both, logits, L[rest], index[rest].tolist(), gamma=gamma)
            right += int((z[: len(held)].argmax(axis=1) == index[held]).sum())
        expected[f"{gamma:g}"] = right / len(L)
    assert model.validation_ == pytest.approx(expected)
    assert model.gamma_ == float(max(expected, key=lambda g: expected[g]))
    assert model.report()["gamma"] == model.gamma_


@pytest.mark.parametrize("shots", [1, 2])
def test_too_few_to_choose_by_is_said(shots: int) -> None:
    texts, L, ids, X, _, _ = labelled(4, shots=shots)
    model = TransClipFewShot(texts).fit(L, ids)
    model.predict(X)
    assert (model.gamma_, model.validation_) == (0.02, {})
    assert model.unchosen_ is not None
    assert "fewer than two classes have 3 labelled images" in model.unchosen_


def test_labels_of_one_class_only() -> None:
    texts, L, ids, X, _, y = labelled(5, shots=4)
    mine = [i for i, node_id in enumerate(ids) if node_id == ids[0]]
    model = TransClipFewShot(texts).fit(L[mine], [ids[0]] * 4)
    found = model.predict(X)
    assert model.reason_ is None
    assert model.unchosen_ is not None
    assert (found == np.array(texts.taxonomy.class_ids)[y]).mean() > 0.9
    assert set(found) == set(texts.taxonomy.class_ids)


def test_few_images() -> None:
    texts, L, ids, X, S, _ = labelled(6)
    model = TransClipFewShot(texts).fit(L, ids)
    one = model.decision_function(X[:1])  # with the labelled ones it is not alone
    assert one.shape == (1, 4)
    assert model.reason_ is None
    assert model.decision_function(X[:0]).shape == (0, 4)
    alone = TransClipFewShot(texts).fit(L[:0], [])
    np.testing.assert_allclose(alone.decision_function(X[:1]), S[:1])
    assert alone.reason_ == "there is 1 image, and others are what it learns from"
    few = TransClipFewShot(texts).fit(L[:2], ids[:2])
    few.decision_function(X[:3])
    assert few.reason_ is not None
    assert TransClipFewShot(texts, guard=False).fit(L[:2], ids[:2]).predict(X[:3]).shape == (3,)


def test_names_that_neither_texts_nor_labels_show() -> None:
    texts, L, ids, X, _, _ = labelled(7)
    extra = ops.unit(np.random.default_rng(0).standard_normal((12, 16)) - 5 * X.mean(axis=0))
    names = Taxonomy.from_names([f"n{k}" for k in range(16)])
    long = ClassTexts(np.concatenate([texts.vectors, extra]), np.arange(16), names, scale=20.0)
    ids = [names.class_ids[k] for k in index_of(texts, ids)]
    model = TransClipFewShot(long).fit(L, ids)
    S = model.decision_function(X)
    assert model.reason_ is not None
    assert model.reason_.startswith("of 16 names the images were answered with")
    np.testing.assert_allclose(S, FewShot(long, alpha=0).fit(L, ids).decision_function(X))
    assert model.report() == {
        "gamma": 0.02, "unchosen": None, "stepped_back": True, "reason": model.reason_,
    }  # fmt: skip


def test_odd_rows() -> None:
    texts, L, ids, X, _, _ = labelled(8)
    L[0], X[0], X[1] = 0, 0, X[2]
    assert np.isfinite(TransClipFewShot(texts, guard=False).fit(L, ids).decision_function(X)).all()
    X[3, 2] = np.nan
    with pytest.raises(UsageError, match="use the images: row 3 holds NaN"):
        TransClipFewShot(texts).fit(L, ids).predict(X)
    L[1, 0] = np.inf
    with pytest.raises(UsageError, match="use the support: row 1 holds NaN or infinity"):
        TransClipFewShot(texts).fit(L, ids)


def test_wrong_settings_are_named() -> None:
    texts, L, ids, X, _, _ = labelled(0)
    with pytest.raises(UsageError, match=r"gamma is 0.0. Give a number above 0"):
        TransClipFewShot(texts, 0.0).fit(L, ids)
    with pytest.raises(UsageError, match="gammas is empty"):
        TransClipFewShot(texts, gammas=()).fit(L, ids)
    for wrong in (0.1, "0.1"):
        with pytest.raises(UsageError, match=r"gammas is .*Give a list of numbers"):
            TransClipFewShot(texts, gammas=wrong).fit(L, ids)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"gamma is '1'. Give a number above 0"):
        TransClipFewShot(texts, "1").fit(L, ids)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"gammas is None. Give a number above 0"):
        TransClipFewShot(texts, gammas=(None,)).fit(L, ids)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="seed is -1"):
        TransClipFewShot(texts, seed=-1).fit(L, ids)
    with pytest.raises(UsageError, match="gammas is -1"):
        TransClipFewShot(texts, gammas=(0.1, -1.0)).fit(L, ids)
    with pytest.raises(RecipeError, match="neighbours is 0"):
        TransClipFewShot(texts, neighbours=0).fit(L, ids)
    with pytest.raises(UsageError, match="Call fit"):
        TransClipFewShot(texts).predict(X)
    with pytest.raises(UsageError, match="no class has this id"):
        TransClipFewShot(texts).fit(L, ["n9", *ids[1:]])
    with pytest.raises(UsageError, match="no class ids were given"):
        TransClipFewShot(texts).fit(L)


def test_parameters_support_and_pickling() -> None:
    texts, L, ids, X, _, _ = labelled(9)
    model = TransClipFewShot(texts, 0.2).fit(L, ids)
    found = model.decision_function(X)
    index = np.array(index_of(texts, ids))
    other = TransClipFewShot(texts, 0.2).fit(Support(L, index, "labelled"))
    np.testing.assert_array_equal(other.decision_function(X), found)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.decision_function(X), found)
    model.set_params(gamma=1.0)
    with pytest.raises(UsageError, match="Call fit"):
        model.predict(X)


@pytest.mark.parametrize("name", ["clip-rn50", "clip-vit-b-32", "clip-vit-l-14"])
def test_real_vectors(shared: Path, name: str) -> None:
    task = Task.load(shared / "rs19" / f"{name}.npz")
    texts, X = task.texts_for("templates"), np.asarray(ops.unit(task.batch().X))
    y, ids = np.asarray(task.labels), np.array(texts.taxonomy.class_ids)
    order = np.random.default_rng(0).permutation(len(X))
    mine = np.concatenate([order[y[order] == k][:4] for k in range(19)])
    rest = np.setdiff1d(np.arange(len(X)), mine)
    model = TransClipFewShot(texts, gammas=(0.02,)).fit(X[mine], ids[y[mine]].tolist())
    assert (model.predict(X[rest]) == ids[y[rest]]).mean() > 0.93
    assert model.reason_ is None
    few = rest[::4]
    S = FewShot(texts, alpha=0).fit(X[mine], ids[y[mine]].tolist()).decision_function(X[few])
    model = TransClipFewShot(texts, 0.02, rounds=3, guard=False).fit(X[mine], ids[y[mine]].tolist())
    found = model.decision_function(X[few])
    expected = plain.transclip_fs(X[few], S, X[mine], y[mine].tolist(), gamma=0.02, rounds=3)
    np.testing.assert_allclose(found / 100, expected / 100, atol=1e-5)
