"""Inputs for any member: ``make_case`` builds what the member says it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from byname.ops import unit
from byname.score.cosine import Cosine
from byname.stage import Batch, ClassTexts, Member, SecondTexts, State, Support
from byname.taxonomy import Node, Taxonomy
from byname.weigh.mean import Mean

D, P = 8, 3
Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    """One input of a member."""

    batch: Batch
    texts: ClassTexts
    state: State

    def with_images(self, **fields: Any) -> Case:
        """The same with other fields of the batch, and the logits that follow."""
        return _with_state(replace(self.batch, **fields), self.texts, self.state.k)


def rows(rng: Rng, *shape: int) -> NDArray[np.float32]:
    """Random unit vectors."""
    return np.asarray(unit(rng.standard_normal(shape).astype(np.float32)))


# How to make each field that a member can need. N images, K classes, M texts.
IMAGE_INPUTS: dict[str, Any] = {
    "X": lambda rng, n, k: None,
    "views": lambda rng, n, k: rows(rng, n, 4, D),
    "tokens": lambda rng, n, k: rows(rng, n, 9, D),
    "second": lambda rng, n, k: rows(rng, n, 5),
    "log_var": lambda rng, n, k: rng.normal(-6, 1, (n, D)).astype(np.float32),
    "class_probs": lambda rng, n, k: (
        rng.dirichlet(np.ones(6), n).astype(np.float32),
        rows(rng, 6, D),
    ),
    "captions": lambda rng, n, k: rows(rng, n, 3, D),
    "reference": lambda rng, n, k: rows(rng, 12, D),
    "support": lambda rng, n, k: Support(rows(rng, 3 * k, D), np.arange(3 * k) % k, "pseudo"),
}
TEXT_INPUTS: dict[str, Any] = {
    "prompt_index": lambda rng, k: np.tile(np.arange(P), k),
    "node_id": lambda rng, k: tuple(f"c{i // P}" for i in range(k * P)),
    "kind": lambda rng, k: ("name", "attribute", "present") * k,
    "level": lambda rng, k: np.tile(np.arange(P), k),
    "group": lambda rng, k: (np.arange(k)[:, None] * 2 + np.array([0, 0, 1])).ravel(),
    "context": lambda rng, k: np.tile(np.arange(P), k),
    "weight": lambda rng, k: rng.uniform(0.5, 2, k * P),
    "text_log_var": lambda rng, k: rng.normal(-6, 1, (k * P, D)).astype(np.float32),
    "text_tokens": lambda rng, k: rows(rng, k * P, 5, D),
    "null": lambda rng, k: rows(rng, 2, D),
    "second_texts": lambda rng, k: SecondTexts(rows(rng, k * P, 5), 20.0),
    "group_names": lambda rng, k: tuple(f"group {i}" for i in range(2 * k)),
    "context_names": lambda rng, k: tuple(f"context {i}" for i in range(P)),
    "pairs": lambda rng, k: tuple(
        (f"c{a}", f"c{b}", (a * P, a * P + 1)) for a in range(k) for b in range(k) if a != b
    ),
}
# Fields of the texts with one entry a text.
TEXT_ROWS = ("prompt_index", "node_id", "kind", "level", "group", "context", "weight",
             "text_log_var", "text_tokens")  # fmt: skip


def make_case(
    needs: frozenset[str] = frozenset(),
    *,
    N: int = 10,
    K: int = 4,
    k: int = 2,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> Case:
    """A case with every input of ``needs``; a test fails that meets a need unknown here."""
    # Texts of inner nodes, "inner", are none where the classes are a flat list.
    if unknown := needs - set(IMAGE_INPUTS) - set(TEXT_INPUTS) - {"inner"}:
        pytest.fail(f"tests/contract/cases.py has to learn how to build {sorted(unknown)}")
    rng = np.random.default_rng(seed)
    names = names or [f"class {i}" for i in range(K)]
    taxonomy = Taxonomy(Node(f"c{i}", name) for i, name in enumerate(names))
    centres = rows(rng, K, D)
    index = np.repeat(np.arange(K), P)
    vectors = unit(centres[index] + 0.3 * rows(rng, K * P, D))
    X = unit(centres[np.arange(N) % K] + 0.5 * rows(rng, N, D)) if N else np.zeros((0, D), "f")
    images = {f: IMAGE_INPUTS[f](rng, N, K) for f in sorted(needs & set(IMAGE_INPUTS)) if f != "X"}
    extra = {"prompt_index"} | (needs & set(TEXT_INPUTS))
    about = {f: TEXT_INPUTS[f](rng, K) for f in sorted(extra)}
    texts = ClassTexts(vectors, index, taxonomy, scale=20.0, **about)
    return _with_state(Batch(X, **images), texts, k)


def _with_state(batch: Batch, texts: ClassTexts, k: int) -> Case:
    """What the simplest members would have handed on."""
    weigh = Mean().fit(batch, texts, State())
    W = weigh.apply(batch, texts, State())
    S = Cosine().apply(batch, texts, State(W=W))
    return Case(batch, texts, State(weight=weigh.weight_, W=W, S=S, k=k))


def permute_classes(case: Case, order: NDArray[np.intp]) -> Case:
    """The same classes, listed in another order, and their texts with them."""
    place, texts = np.argsort(order), case.texts
    own = texts.class_index
    rows = np.concatenate([np.flatnonzero(own == k) for k in (*order, -1)])
    index = np.where(own < 0, -1, place[own])[rows]
    fields: dict[str, Any] = {"class_index": index}
    for name in ("vectors", *TEXT_ROWS):
        if (given := getattr(texts, name)) is not None:
            fields[name] = (
                tuple(given[i] for i in rows) if isinstance(given, tuple) else given[rows]
            )
    if texts.second_texts is not None:
        second = texts.second_texts
        fields["second_texts"] = replace(second, vectors=second.vectors[rows])
    if texts.pairs is not None:
        at = np.argsort(rows).tolist()
        fields["pairs"] = tuple((a, b, tuple(at[m] for m in said)) for a, b, said in texts.pairs)
    taxonomy = Taxonomy(texts.taxonomy.classes[i] for i in order)
    support = case.batch.support
    if support is not None:
        support = replace(support, class_index=place[support.class_index])
    state = replace(case.state, W=case.state.W[order], S=case.state.S[:, order])
    if state.weight is not None and len(state.weight) == len(rows):
        state = replace(state, weight=state.weight[rows])
    texts = replace(texts, taxonomy=taxonomy, **fields)
    return Case(replace(case.batch, support=support), texts, state)


def permute_images(case: Case, order: NDArray[np.intp]) -> Case:
    """The same images in another order."""
    fields: dict[str, Any] = {"X": case.batch.X[order]}
    for name in ("views", "tokens", "second", "log_var", "captions"):
        if getattr(case.batch, name) is not None:
            fields[name] = getattr(case.batch, name)[order]
    if case.batch.class_probs is not None:
        fields["class_probs"] = (case.batch.class_probs[0][order], case.batch.class_probs[1])
    return Case(
        replace(case.batch, **fields), case.texts, replace(case.state, S=case.state.S[order])
    )


def arrays(value: Any) -> list[Any]:
    """All arrays inside a dataclass, tuple or array, in a fixed order."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, tuple | list):
        return [a for v in value for a in arrays(v)]
    if isinstance(value, Batch | ClassTexts | SecondTexts | State | Support | Case):
        return [a for v in vars(value).values() for a in arrays(v)]
    return []


def run(member: Member, case: Case) -> Any:
    """``fit`` and ``apply``."""
    return member.fit(case.batch, case.texts, case.state).apply(case.batch, case.texts, case.state)
