"""Every weigh member learns the same from vectors on disk as from an array."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byname import ops, stage
from byname.margins import AT_ONCE, cmm, cmm_each
from byname.stage import Batch, ClassTexts, State
from byname.taxonomy import Taxonomy
from byname.weigh import bprw
from tests.stored import on_disk, unit_vectors

K, P, D, N = 6, 5, 8, 300
SPECS = [
    *stage.members("weigh"),
    "cpe[variant=B,per_class=true,q=all]",
    "cpe[temperature=auto,rounds=3]",
    "zpe[mode=test]",
    "carprt[empty=zero]",
    "bprw[top=20,alpha=2]",
    "labeldesc[head=prototype]",
]


def texts() -> ClassTexts:
    rng = np.random.default_rng(3)
    centre = rng.standard_normal((K, 1, D))
    T = ops.unit((centre + 0.7 * rng.standard_normal((K, P, D))).reshape(-1, D).astype(np.float32))
    return ClassTexts(
        T,
        np.repeat(np.arange(K), P),
        Taxonomy.from_names([f"class {k}" for k in range(K)]),
        prompt_index=np.tile(np.arange(P), K),
        kind=("template",) * (K * P),
        text_log_var=rng.standard_normal((K * P, D)),
        scale=20.0,
    )


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """An array, and the same on disk, which nothing may make an array of."""
    held, kept = on_disk(tmp_path / "x.parquet", unit_vectors(N, D), monkeypatch, group=64)
    monkeypatch.setattr("byname.stored.BLOCK", 50)
    return held.vectors, kept.vectors


@pytest.mark.parametrize("spec", SPECS)
def test_the_same_weights_and_class_vectors(
    both: tuple[Any, Any], spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bprw, "STREAMED", 70)
    known, found = texts(), []
    for X in both:
        member = stage.create(spec, "weigh").fit(Batch(X), known, State())
        W = member.apply(Batch(X), known, State(weight=member.weight_))
        found.append((member.weight_, W, member.report()))
    np.testing.assert_allclose(found[1][0], found[0][0], atol=1e-6)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-6)
    assert found[1][2].keys() == found[0][2].keys()


def test_bprw_with_variances_of_the_images(both: tuple[Any, Any]) -> None:
    known, log_var = texts(), np.random.default_rng(5).standard_normal((N, D))
    found = [
        stage.create("bprw", "weigh").fit(Batch(X, log_var=log_var), known, State()) for X in both
    ]
    assert found[0].form_ == found[1].form_ == "variances"
    np.testing.assert_allclose(found[1].weight_, found[0].weight_, atol=1e-6)


@pytest.mark.parametrize("held", [0, bprw.HELD])
def test_bprw_holds_near_images_only_where_they_are_few(
    both: tuple[Any, Any], held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bprw, "HELD", held)
    found = [stage.create("bprw[top=9]", "weigh").fit(Batch(X), texts(), State()) for X in both]
    np.testing.assert_allclose(found[1].weight_, found[0].weight_, atol=1e-6)


@pytest.mark.parametrize("variant", ["A", "B"])
@pytest.mark.parametrize("at_once", [1, 3 * 4 * K * D, AT_ONCE])
def test_margins_of_several_sets_are_those_of_each(
    both: tuple[Any, Any], variant: Any, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byname.margins.AT_ONCE", at_once)
    sets = [unit_vectors(K, D, seed) for seed in range(5)]
    y = np.random.default_rng(0).integers(-1, K - 1, N)  # one class has no image
    X, S = both
    each = np.stack([cmm((X, W), y, variant)[0] for W in sets])
    np.testing.assert_array_equal(cmm_each(X, sets, y, variant), each)
    np.testing.assert_allclose(cmm_each(S, sets, y, variant), each, atol=1e-6)
    assert np.isneginf(each[:, -1]).all()


def test_a_reference_on_disk(both: tuple[Any, Any]) -> None:
    known = replace(texts(), scale=5.0)
    found = [
        stage.create("zpe[mode=both]", "weigh").fit(Batch(X, reference=X), known, State())
        for X in both
    ]
    np.testing.assert_allclose(found[1].weight_, found[0].weight_, atol=1e-6)
