"""A prompt set as vectors: what the stages after ``prompts`` work with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from byname.promptset import PromptSet
from byname.stage import Array, ClassTexts
from byname.taxonomy import Taxonomy

__all__ = ["class_texts"]


def class_texts(
    prompts: PromptSet,
    taxonomy: Taxonomy,
    encode: Callable[[list[str]], Array],
    *,
    scale: float = 100.0,
    bias: float = 0.0,
    pairs: bool = False,
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

    Returns
    -------
    ClassTexts

    Examples
    --------
    >>> taxonomy = Taxonomy.from_names(["cat", "dog"])
    >>> prompts = PromptSet.from_templates(taxonomy, ["a {}"])
    >>> class_texts(prompts, taxonomy, lambda texts: np.eye(len(texts))).kind
    ('template', 'template')
    """
    ids = taxonomy.class_ids
    entries = [(k, p) for k, given in enumerate(prompts.classes.values()) for p in given]
    chosen = [pair for pair in prompts.pairs if pair.texts] if pairs else []
    of_pairs = [text for pair in chosen for text in pair.texts]
    ends = len(entries) + np.cumsum([0, *(len(pair.texts) for pair in chosen)])
    none = np.full(len(of_pairs), -1, np.intp)
    level = np.array([p.level for _, p in entries], np.intp)
    return ClassTexts(
        vectors=encode([p.text for _, p in entries] + of_pairs),
        class_index=np.append(np.array([k for k, _ in entries], np.intp), none),
        taxonomy=taxonomy,
        prompt_index=np.append(np.array([p.template for _, p in entries], np.intp), none),
        node_id=(*(ids[k] for k, _ in entries), *(p.a for p in chosen for _ in p.texts)),
        kind=(*(p.kind for _, p in entries), *["one-to-one"] * len(of_pairs)),
        level=np.append(level, none) if (level >= 0).any() else None,
        weight=np.append([p.weight for _, p in entries], np.ones(len(of_pairs))),
        scale=scale,
        bias=bias,
        pairs=tuple(
            (pair.a, pair.b, tuple(range(start, stop)))
            for pair, start, stop in zip(chosen, ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        )
        or None,
    )
