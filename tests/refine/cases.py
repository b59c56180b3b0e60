"""Images in clusters around class vectors, and what is wrong with them in practice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from byname.ops import unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.stage import Batch, ClassTexts, State
from byname.taskfile import Task
from byname.taxonomy import Taxonomy

Given = tuple[Batch, ClassTexts, State]
ENCODERS = ["clip-rn50", "clip-vit-b-32", "clip-vit-l-14"]


def clusters(
    seed: int, *, counts: Any = (30, 30, 30, 30), D: int = 16, noise: float = 0.15,
    bias: float = 0.4, scale: float = 20.0, dtype: Any = np.float32,
) -> tuple[Batch, ClassTexts, State, Any]:  # fmt: skip
    """Clusters of images, class vectors beside their middles, and the true class of each image."""
    rng = np.random.default_rng(seed)
    K = len(counts)
    centres = unit(rng.standard_normal((K, D)))
    true = np.repeat(np.arange(K), counts)
    X = unit(centres[true] + noise * rng.standard_normal((len(true), D))).astype(dtype)
    W = unit(centres + bias * unit(rng.standard_normal((K, D)))).astype(dtype)
    names = [f"n{k}" for k in range(K)]
    texts = ClassTexts(W, np.arange(K), Taxonomy.from_names(names), scale=scale)
    return Batch(X), texts, State(W=W, S=(scale * X @ W.T).astype(dtype)), true


def given(seed: int, **options: Any) -> Given:
    return clusters(seed, **options)[:3]


def with_images(case: Given, X: Any) -> Given:
    batch, texts, state = case
    assert state.W is not None
    S = (texts.scale * X @ state.W.T).astype(X.dtype)
    return replace(batch, X=X), texts, replace(state, S=S)


def _zero(case: Given) -> Given:
    X = case[0].X.copy()
    X[::7] = 0
    return with_images(case, X)


def _never(case: Given) -> Given:
    """The last class lies on the other side of all images."""
    batch, texts, state = case
    W = texts.vectors.copy()
    W[-1] = -W[0]
    return with_images((batch, replace(texts, vectors=W), replace(state, W=W)), batch.X)


# Inputs that are no reason to fail: the answer is (N, K), finite, and the same for equal images.
BAD: dict[str, Callable[[], Given]] = {
    "no image": lambda: given(0, counts=(0, 0, 0)),
    "one image": lambda: given(0, counts=(1, 0, 0)),
    "two images": lambda: given(0, counts=(1, 1, 0)),
    "fewer than k": lambda: given(0, counts=(2, 2, 2)),
    "one class": lambda: given(0, counts=(30,)),
    "duplicates": lambda: with_images(given(0), np.repeat(given(0)[0].X[::10], 10, axis=0)),
    "all the same": lambda: with_images(given(0), np.repeat(given(0)[0].X[:1], 50, axis=0)),
    "zero vectors": lambda: _zero(given(0)),
    "all zero": lambda: with_images(given(0), np.zeros_like(given(0)[0].X)),
    "in pieces": lambda: given(0, noise=1e-4),
    "a class never predicted": lambda: _never(given(0)),
    "a class absent": lambda: given(0, counts=(30, 30, 30, 0)),
}


def survives(cls: Any, name: str, **params: Any) -> Any:
    """Scores of a bad input, with the member, after the checks that hold for all of them."""
    case = BAD[name]()
    batch, _, state = case
    member = cls(**params)
    if len(batch):
        member.fit(*case)
    S = member.apply(*case)
    assert S.shape == state.S.shape  # type: ignore[union-attr]
    assert S.dtype == np.float32
    assert np.isfinite(S).all()
    _, first, inverse = np.unique(batch.X, axis=0, return_index=True, return_inverse=True)
    np.testing.assert_allclose(S, S[first][inverse.ravel()], atol=1e-3)
    if name in ("no image", "one image", "one class"):
        np.testing.assert_array_equal(S, state.S)
        assert member.report()["stepped_back"]
        assert member.report()["reason"]
    return S, member


def poisoned(value: float = float("nan")) -> Given:
    """Row 7 holds a NaN."""
    batch, texts, state = given(0)
    X = batch.X.copy()
    X[7, 3] = value
    return with_images((batch, texts, state), X)


def fitted(cls: Any, case: Given, **params: Any) -> Any:
    return cls(**params).fit(*case)


def scores(cls: Any, case: Given, **params: Any) -> Any:
    return fitted(cls, case, **params).apply(*case)


def real(shared: Path, name: str) -> tuple[Batch, ClassTexts, State, Any]:
    """The vectors of rs19, what the recipe ``ensemble`` makes of them, and the true classes."""
    task = Task.load(shared / "rs19" / f"{name}.npz")
    texts, batch = task.texts_for("templates"), task.batch()
    pipeline = Pipeline(get_recipe("ensemble")).fit(texts, batch)
    state = State(weight=pipeline.weight_, W=pipeline.W_, S=pipeline.scores(batch))
    return batch, texts, state, task.labels


def top1(S: Any, true: Any) -> float:
    return float(100 * (np.asarray(S).argmax(axis=1) == true).mean())
