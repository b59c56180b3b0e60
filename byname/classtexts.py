"""A prompt set as vectors: what the stages after ``prompts`` work with."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.promptset import PromptSet
from byname.stage import Array, ClassTexts
from byname.taxonomy import Taxonomy

__all__ = ["NULL_TEXTS", "class_texts"]

NULL_TEXTS = ("a photo.", "an image.", "a photo of something.", "an object.", "stuff.")
"""Texts that name no class, for members that ask whether an image shows any class at all."""


def class_texts(
    prompts: PromptSet,
    taxonomy: Taxonomy,
    encode: Callable[[list[str]], Array],
    *,
    scale: float = 100.0,
    bias: float = 0.0,
    pairs: bool = False,
    inner: Sequence[tuple[str, str]] = (),
    null: Sequence[str] = (),
) -> ClassTexts:
    """Encode all texts in one call and keep what each is about.

    Parameters
    ----------
    prompts : PromptSet
        In the order of the taxonomy's classes, as :meth:`PromptSet.align` gives it.
    taxonomy : Taxonomy
    encode : callable
        Texts to unit rows (M, D).
    scale, bias : float
        Of the encoder.
    pairs : bool
        Whether texts about one class against another are encoded too. They come last, belong to
        no class (index -1), have the kind "one-to-one", and their rows are in ``pairs``.
    inner : sequence of (node id, text)
        Texts of nodes above the classes, of the kind "inner", after those of the pairs.
    null : sequence of str
        Texts that name no class.

    Returns
    -------
    ClassTexts
        Texts of the kind "subclass" have the ``group`` of their class and ``about``, texts of the
        kind "context" the ``context`` of their ``about``, numbered by first appearance.

    Examples
    --------
    >>> taxonomy = Taxonomy.from_names(["cat", "dog"])
    >>> prompts = PromptSet.from_templates(taxonomy, ["a {}"])
    >>> class_texts(prompts, taxonomy, lambda texts: np.eye(len(texts))).kind
    ('template', 'template')
    """
    chosen = [pair for pair in prompts.pairs if pair.texts] if pairs else []
    of_pairs = [text for pair in chosen for text in pair.texts]
    made = _about(prompts, taxonomy, [pair.a for pair in chosen for _ in pair.texts], inner)
    texts = [p.text for given in prompts.classes.values() for p in given]
    ends = (len(texts) + np.cumsum([0, *(len(pair.texts) for pair in chosen)])).tolist()
    texts += [*of_pairs, *(text for _, text in inner)]
    vectors = encode([*texts, *null])
    return ClassTexts(
        vectors=vectors[: len(texts)] if null else vectors,
        taxonomy=taxonomy,
        null=vectors[len(texts) :] if null else None,
        scale=scale,
        bias=bias,
        pairs=tuple((p.a, p.b, tuple(range(*ends[i : i + 2]))) for i, p in enumerate(chosen))
        or None,
        **made,
    )


def _about(
    prompts: PromptSet,
    taxonomy: Taxonomy,
    pair_nodes: Sequence[str],
    inner: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """What each text is about: those of classes, then of pairs, then of inner nodes."""
    entries = [(k, p) for k, given in enumerate(prompts.classes.values()) for p in given]
    none = np.full(len(pair_nodes) + len(inner), -1, np.intp)
    groups, group_keys = _numbered(
        [(k, p.about) if p.kind == "subclass" else None for k, p in entries]
    )
    contexts, context_keys = _numbered(
        [p.about if p.kind == "context" else None for _, p in entries]
    )
    level = np.array([p.level for _, p in entries], np.intp)
    ids = taxonomy.class_ids
    return {
        "class_index": np.append(np.array([k for k, _ in entries], np.intp), none),
        "prompt_index": np.append(np.array([p.template for _, p in entries], np.intp), none),
        "node_id": (*(ids[k] for k, _ in entries), *pair_nodes, *(node for node, _ in inner)),
        "kind": (
            *(p.kind for _, p in entries),
            *["one-to-one"] * len(pair_nodes),
            *["inner"] * len(inner),
        ),
        "level": np.append(level, none) if (level >= 0).any() else None,
        "group": np.append(groups, none) if group_keys else None,
        "group_names": tuple(about for _, about in group_keys) or None,
        "context": np.append(contexts, none) if context_keys else None,
        "context_names": tuple(context_keys) or None,
        "weight": np.append([p.weight for _, p in entries], np.ones(len(none))),
    }


def _numbered(keys: Sequence[Hashable | None]) -> tuple[NDArray[np.intp], list[Any]]:
    """Number (M,) of each key, by first appearance, -1 for None; and the different keys."""
    found: dict[Any, int] = {}
    numbers = [-1 if key is None else found.setdefault(key, len(found)) for key in keys]
    return np.array(numbers, np.intp), list(found)
