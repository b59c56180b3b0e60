from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from byname.errors import NeedsError, RecipeError
from byname.ops import unit
from byname.recipes import get_recipe
from byname.score.cosine import Cosine
from byname.score.hie import Hie
from byname.stage import Batch, ClassTexts, State
from byname.taxonomy import Taxonomy
from byname.weigh.mean_similarity import MeanSimilarity
from tests.reference import hierarchy

NAMES = ["a", "b", "c"]


def make(
    seed: int, levels: Any, *, D: int = 6, dtype: Any = np.float64
) -> tuple[NDArray[Any], ClassTexts]:
    """Images and texts; ``levels`` is a list of levels for each class."""
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(len(levels)), [len(own) for own in levels])
    vectors = unit(rng.standard_normal((len(index), D))).astype(dtype)
    X = unit(rng.standard_normal((7, D))).astype(dtype)
    taxonomy = Taxonomy.from_names(NAMES[: len(levels)])
    return X, ClassTexts(
        vectors, index, taxonomy, level=np.concatenate(levels).astype(np.intp), scale=20.0
    )


def score(X: Any, texts: ClassTexts, state: State | None = None, **params: Any) -> Any:
    return Hie(**params).apply(Batch(X), texts, state or State())


def expected(X: Any, t: ClassTexts, lam: float = 0.5, eta: float = 0.0) -> Any:
    return hierarchy.hie(
        X, t.vectors, t.class_index, t.level, t.n_classes, lam=lam, eta=eta, scale=t.scale
    )


LEVELS = st.lists(st.integers(-1, 5), min_size=1, max_size=8)


@given(
    st.integers(0, 999),
    st.lists(LEVELS, min_size=1, max_size=3),
    st.floats(0, 1),
    st.sampled_from([-2.0, -0.1, 0.0, 0.1]),
)
def test_it_is_the_plain_formula(seed: int, levels: Any, lam: float, eta: float) -> None:
    X, texts = make(seed, levels)
    np.testing.assert_allclose(
        score(X, texts, lam=lam, eta=eta), expected(X, texts, lam, eta), atol=1e-9
    )


def test_float32_stays_float32_and_close() -> None:
    X, texts = make(1, [[0, 0, 1, 2, 3], [0, 1, 1, 2], [0, 4]], dtype=np.float32)
    S = score(X, texts)
    assert S.dtype == np.float32
    np.testing.assert_allclose(S, expected(X, texts), atol=1e-4)


def test_one_level_is_the_mean_similarity() -> None:
    for level in (-1, 0, 1, 7):
        X, texts = make(2, [[level] * 3, [level] * 2, [level]])
        weigh = MeanSimilarity().fit(Batch(X), texts, State())
        W = weigh.apply(Batch(X), texts, State())
        plain = Cosine().apply(Batch(X), texts, State(W=W))
        np.testing.assert_allclose(score(X, texts), plain, atol=1e-9)


def test_lam_one_is_level_zero_alone() -> None:
    X, texts = make(3, [[0, 1, 2], [0, 0, 1], [0]])
    general = ClassTexts(
        texts.vectors, np.where(texts.level == 0, texts.class_index, -1), texts.taxonomy,
        level=texts.level, scale=20.0,
    )  # fmt: skip
    np.testing.assert_allclose(score(X, texts, lam=1.0), score(X, general), atol=1e-9)


def test_a_level_that_gains_nothing_ends_the_prefix() -> None:
    vectors = np.array([[0.0, 1.0], [0.6, 0.8], [0.8, 0.6], [0.6, 0.8], [1.0, 0.0]])
    texts = ClassTexts(
        vectors, np.zeros(5, np.intp), Taxonomy.from_names(["a"]), level=np.arange(5), scale=1.0
    )
    S = score(np.array([[1.0, 0.0]]), texts)
    assert S[0, 0] == pytest.approx(0.5 * 0.0 + 0.5 * (0.6 + 0.8) / 2), "level 4 comes too late"


def test_weights_of_the_weigh_stage_count() -> None:
    X, texts = make(4, [[0, 0, 1], [0, 1, 1], [0]])
    weight = np.array([0.0, 1.0, 0.5, 0.2, 0.3, 0.0, 1.0])
    keep = weight > 0
    fewer = ClassTexts(
        texts.vectors[keep], texts.class_index[keep], texts.taxonomy, level=texts.level[keep],
        scale=20.0,
    )  # fmt: skip
    np.testing.assert_allclose(score(X, texts, State(weight=weight)), score(X, fewer), atol=1e-9)


def test_on_real_vectors(shared: Path) -> None:
    task = np.load(shared / "rs19" / "clip-vit-b-32.npz")
    X = unit(task["images"][:40].astype(np.float32))
    T = unit(task["texts"][:12].astype(np.float32))
    P, K, D = T.shape
    level = np.tile(np.arange(P) // 3, K)
    vectors = T.transpose(1, 0, 2).reshape(-1, D)
    names = [str(name) for name in task["classes"]]
    index = np.repeat(np.arange(K), P)
    texts = ClassTexts(vectors, index, Taxonomy.from_names(names), level=level, scale=100.0)
    np.testing.assert_allclose(score(X, texts), expected(X, texts), atol=1e-3)


def test_texts_without_levels_are_refused() -> None:
    X, texts = make(0, [[0]])
    without = ClassTexts(texts.vectors, texts.class_index, texts.taxonomy)
    with pytest.raises(NeedsError, match="'hie': it needs 'level'"):
        Hie().check_needs(Batch(X), without)


@pytest.mark.parametrize(
    "spec, seen",
    [
        ("hie[lam=1.5]", "lam is 1.5. Give a number from 0 to 1."),
        ("hie[lam=nan]", "lam is nan. Give a number from 0 to 1."),
        ("hie[eta=-3]", "eta is -3.0. Give a difference of cosines, from -2 to 2."),
    ],
)
def test_parameters_out_of_range(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as error:
        get_recipe(spec)
    assert str(error.value) == f"cannot use 'hie': {seen}"


def test_a_gain_of_exactly_eta_is_none() -> None:
    vectors = np.array([[0.0, 1.0], [0.5, 0.0], [0.75, 0.0]])
    texts = ClassTexts(
        vectors, np.zeros(3, np.intp), Taxonomy.from_names(["a"]), level=np.arange(3), scale=1.0
    )
    X = np.array([[1.0, 0.0]])
    assert score(X, texts, lam=0.0, eta=0.25)[0, 0] == 0.5
    assert score(X, texts, lam=0.0, eta=0.2)[0, 0] == (0.5 + 0.75) / 2
