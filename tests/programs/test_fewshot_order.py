"""Few-shot methods: neither the order of labelled images nor that of classes changes anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from byname import ops
from byname.programs.fewshot import FewShot
from byname.programs.fewshot_heads import FewShotHead
from byname.programs.transclip_fs import TransClipFewShot
from byname.stage import ClassTexts
from byname.taxonomy import Node, Taxonomy

K, D, SHOTS = 5, 12, 6
METHODS = ("gaussian", "linear", "transclip", "tip", "coder")


def task(seed: int) -> Any:
    """Classes that overlap, so that another split would choose another strength."""
    rng = np.random.default_rng(seed)
    centres = ops.unit(rng.standard_normal((K, D)))
    y = np.repeat(np.arange(K), SHOTS)
    X = ops.unit(centres[y] + 0.35 * rng.standard_normal((len(y), D)))
    other = np.arange(40) % K
    more = ops.unit(centres[other] + 0.35 * rng.standard_normal((40, D)))
    texts = ClassTexts(
        ops.unit(np.repeat(centres, 2, axis=0) + 0.4 * rng.standard_normal((2 * K, D))),
        np.repeat(np.arange(K), 2),
        Taxonomy(Node(f"c{k}", f"class {k}") for k in range(K)),
        scale=20,
    )
    return texts, X, np.array([f"c{k}" for k in y]), more


def answers(method: str, texts: ClassTexts, X: Any, ids: Any, more: Any) -> tuple[Any, Any]:
    """Logits, and all that was chosen."""
    if method == "transclip":
        whole = TransClipFewShot(texts).fit(X, ids)
        S = whole.decision_function(more)
        assert whole.validation_
        return S, (whole.gamma_, *whole.validation_.values())
    if method in ("tip", "coder"):
        cached = FewShot(texts, method).fit(X, ids)  # type: ignore[arg-type]
        found = cached.search(np.linspace(0.1, 60, 25).tolist(), np.linspace(0.1, 20, 20).tolist())
        assert found.tried
        return cached.decision_function(more), (found.alpha, found.beta, found.accuracy)
    head = FewShotHead(texts, method).fit(X, ids)  # type: ignore[arg-type]
    return head.decision_function(more), (head.strength_ or 0.0, *head.validation_.values())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(4))
def test_orders_of_images_and_classes_change_nothing(method: str, seed: int) -> None:
    texts, X, ids, more = task(seed)
    expected, chosen = answers(method, texts, X, ids, more)
    rng = np.random.default_rng(seed)
    for _ in range(2):
        rows, order = rng.permutation(len(X)), rng.permutation(K)
        S, again = answers(method, texts, X[rows], ids[rows], more)
        assert again == chosen
        np.testing.assert_array_equal(S, expected)
        other = replace(
            texts,
            taxonomy=Taxonomy(texts.taxonomy.classes[i] for i in order),
            class_index=np.argsort(order)[texts.class_index],
        )
        S, again = answers(method, other, X[rows], ids[rows], more)
        assert again == pytest.approx(chosen)
        np.testing.assert_allclose(S, expected[:, order], atol=2e-3 if method == "linear" else 1e-8)


def test_the_seed_of_the_folds_counts() -> None:
    texts, X, ids, _ = task(0)
    found = [FewShotHead(texts, seed=seed).fit(X, ids).validation_ for seed in range(4)]
    assert any(one != found[0] for one in found[1:])
