"""Templates over classes: what their tiles hold, and how their weights reach the texts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from byname.errors import NeedsError
from byname.ops import unit
from byname.weigh import grid as module
from byname.weigh.grid import TemplateGrid
from tests.weigh.test_cpe import texts_of, with_own, world


def tiles(grid: TemplateGrid) -> Any:
    found = list(grid.tiles())
    assert [i for part, _ in found for i in range(part.start, part.stop)] == list(range(grid.P))
    return np.vstack([Z for _, Z in found]).reshape(grid.P, grid.K, -1)


@pytest.mark.parametrize("P", [3, 5, 7, 11, 107])
@pytest.mark.parametrize("share", [1.0, 1e-320])
def test_equal_weights_change_nothing_at_all(P: int, share: float) -> None:
    _, Z = world(0, P=P)
    weight = np.random.default_rng(P).uniform(0.5, 2, 5 * P)
    for texts in (texts_of(Z), texts_of(Z, weight=weight)):
        grid = TemplateGrid(texts, "zpe")
        found = grid.weights(np.full((P, 5), share / P if share == 1 else share))
        np.testing.assert_array_equal(found, grid.base)


def test_weights_keep_the_share_of_the_templates() -> None:
    _, Z = world(1)
    texts = with_own(texts_of(Z), Z[0, :2], 1)
    grid = TemplateGrid(texts, "zpe")
    w = np.random.default_rng(0).uniform(0.1, 1, (4, 5))
    found = grid.weights(w)
    np.testing.assert_allclose(np.bincount(texts.class_index, found), 1)
    np.testing.assert_allclose(found[-2:], 1 / 6)
    np.testing.assert_allclose(found[4:8], w[:, 1] / w[:, 1].sum() * 4 / 6)
    np.testing.assert_allclose(found[:4], w[:, 0] / w[:, 0].sum())


def test_a_class_without_the_templates_that_count_keeps_its_own() -> None:
    _, Z = world(2)
    texts = texts_of(Z)
    assert texts.prompt_index is not None
    keep = np.arange(20) != 5  # class 1 lacks template 1
    cut = replace(
        texts, vectors=texts.vectors[keep], class_index=texts.class_index[keep],
        prompt_index=texts.prompt_index[keep],
    )  # fmt: skip
    found = TemplateGrid(cut, "zpe").weights(np.repeat(np.eye(4)[:, [1]], 5, axis=1))
    np.testing.assert_allclose(found[4:7], 1 / 3)
    np.testing.assert_allclose(found[:4], [0, 1, 0, 0])


def test_tiles_hold_the_texts_however_many_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    _, Z = world(3, P=6)
    shuffled = np.random.default_rng(0).permutation(30)
    texts = texts_of(Z)
    assert texts.prompt_index is not None
    texts = replace(
        texts, vectors=texts.vectors[shuffled], class_index=texts.class_index[shuffled],
        prompt_index=texts.prompt_index[shuffled],
    )  # fmt: skip
    for columns in (4096, 10, 1):
        monkeypatch.setattr(module, "COLUMNS", columns)
        np.testing.assert_allclose(tiles(TemplateGrid(texts, "zpe")), Z, atol=1e-12)


def test_a_class_that_lacks_a_template_is_its_mean_there() -> None:
    _, Z = world(4)
    texts = texts_of(Z)
    assert texts.prompt_index is not None
    keep = np.arange(20) != 5
    cut = replace(
        texts, vectors=texts.vectors[keep], class_index=texts.class_index[keep],
        prompt_index=texts.prompt_index[keep],
    )  # fmt: skip
    filled = Z.copy()
    filled[1, 1] = unit(Z[[0, 2, 3], 1].mean(axis=0))
    np.testing.assert_allclose(tiles(TemplateGrid(cut, "zpe")), filled, atol=1e-12)


def test_without_shared_texts_it_is_refused() -> None:
    _, Z = world(5)
    texts = texts_of(Z)
    for prompt in (None, np.full(20, -1)):
        with pytest.raises(NeedsError, match="'carprt': no text is a template that classes share"):
            TemplateGrid(replace(texts, prompt_index=prompt), "carprt")
