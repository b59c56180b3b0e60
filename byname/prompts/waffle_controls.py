"""Controls for descriptors: what is left of their gain once their meaning is taken away.

Each makes the texts of all classes out of an LLM's descriptors, whose own texts are those of
:func:`described`. Score all with one recipe: the semantic gain of the descriptors is their accuracy
less that of :func:`shared_random`. Published for WaffleCLIP (Roth et al., ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from byname.errors import PromptError, RecipeError, quoted
from byname.prompts.waffle import checked_descriptors, waffle_sentence
from byname.promptset import Prompt, PromptSet, Provenance
from byname.taxonomy import Taxonomy

__all__ = ["described", "per_class_random", "scrambled", "shared_random", "swapped"]

Descriptors = Mapping[str, Sequence[str]]
Sentence = Callable[[str, str], str]


def described(
    taxonomy: Taxonomy, descriptors: Descriptors, *, sentence: Sentence = waffle_sentence
) -> PromptSet:
    """Every class with its own descriptors: what the controls are compared with.

    Parameters
    ----------
    taxonomy : Taxonomy
    descriptors : mapping of class id to sequence of str
        At least one for every class.
    sentence : callable
        Class name and descriptor to text.

    Raises
    ------
    PromptError
        For classes without descriptors, unknown classes, and descriptors that are empty.

    Examples
    --------
    >>> described(Taxonomy.from_names(["cat"]), {"cat": ["whiskers"]}).texts("cat")
    ['A photo of a cat, which has whiskers.']
    """
    return _made(taxonomy, _all(taxonomy, descriptors), "described", sentence)


def shared_random(
    taxonomy: Taxonomy,
    descriptors: Descriptors,
    *,
    seed: int = 0,
    sentence: Sentence = waffle_sentence,
) -> PromptSet:
    """The same random descriptors, out of those of all classes, for every class.

    As many as a class has in the mean, rounded up; ``template`` is their index. For the parameters
    and errors see :func:`described`.

    Examples
    --------
    >>> given = {"cat": ["whiskers"], "dog": ["a wet nose"]}
    >>> made = shared_random(Taxonomy.from_names(["cat", "dog"]), given)
    >>> [text.replace("dog", "cat") for text in made.texts("dog")] == made.texts("cat")
    True
    """
    own = _all(taxonomy, descriptors)
    pool = [text for texts in own.values() for text in texts]
    picked = _rng(seed).choice(len(pool), _mean_count(own), replace=False)
    chosen = tuple(pool[i] for i in picked)
    return _made(taxonomy, dict.fromkeys(own, chosen), "shared_random", sentence, seed, shared=True)


def per_class_random(
    taxonomy: Taxonomy,
    descriptors: Descriptors,
    *,
    seed: int = 0,
    sentence: Sentence = waffle_sentence,
) -> PromptSet:
    """Random descriptors, out of those of all classes, other ones for each class.

    As many as a class has in the mean, rounded up, none twice. For the parameters and errors see
    :func:`described`.

    Examples
    --------
    >>> given = {"cat": ["whiskers", "claws"], "dog": ["a wet nose"]}
    >>> len(per_class_random(Taxonomy.from_names(["cat", "dog"]), given).texts("dog"))
    2
    """
    own = _all(taxonomy, descriptors)
    pool = [text for texts in own.values() for text in texts]
    rng, count = _rng(seed), _mean_count(own)
    chosen = {i: tuple(pool[j] for j in rng.choice(len(pool), count, replace=False)) for i in own}
    return _made(taxonomy, chosen, "per_class_random", sentence, seed)


def swapped(
    taxonomy: Taxonomy,
    descriptors: Descriptors,
    *,
    seed: int = 0,
    sentence: Sentence = waffle_sentence,
) -> PromptSet:
    """Every class with the whole list of another class, no class with its own.

    The classes are put on a random circle, and each takes the list of the one before it. For the
    parameters and errors see :func:`described`; there is one more for a single class.

    Examples
    --------
    >>> given = {"cat": ["whiskers"], "dog": ["a wet nose"]}
    >>> swapped(Taxonomy.from_names(["cat", "dog"]), given).texts("dog")
    ['A photo of a dog, which has whiskers.']
    """
    own = _all(taxonomy, descriptors)
    if len(own) < 2:
        raise PromptError(
            "swap the descriptors of classes", "there is one class", "Give two or more."
        )
    ids = list(own)
    circle = _rng(seed).permutation(len(ids))
    takes = {ids[i]: own[ids[j]] for i, j in zip(circle, np.roll(circle, 1), strict=True)}
    return _made(taxonomy, {i: takes[i] for i in ids}, "swapped", sentence, seed)


def scrambled(
    taxonomy: Taxonomy,
    descriptors: Descriptors,
    *,
    seed: int = 0,
    within: Literal["descriptor", "class"] = "descriptor",
    sentence: Sentence = waffle_sentence,
) -> PromptSet:
    """Every class with its own descriptors, their words in random order.

    ``within="class"`` draws the words of each descriptor, with replacement, from all words of the
    class instead; the published figures are of that. For the other parameters and errors see
    :func:`described`.

    Examples
    --------
    >>> given = {"cat": ["long white whiskers"]}
    >>> text = scrambled(Taxonomy.from_names(["cat"]), given, seed=1).texts("cat")[0]
    >>> sorted(text.removesuffix(".").split(" which has ")[1].split())
    ['long', 'whiskers', 'white']
    """
    if within not in ("descriptor", "class"):
        raise RecipeError(
            f"scramble words within {within!r}", "there is no such choice", "descriptor or class."
        )
    rng, chosen = _rng(seed), {}
    for class_id, texts in _all(taxonomy, descriptors).items():
        words = [text.split() for text in texts]
        if within == "class":
            pool = [word.replace(".", "") for given in words for word in given]
            mixed = [[pool[i] for i in rng.integers(0, len(pool), len(g))] for g in words]
        else:
            mixed = [[given[i] for i in rng.permutation(len(given))] for given in words]
        chosen[class_id] = tuple(" ".join(given) for given in mixed)
    name = "scrambled" if within == "descriptor" else "scrambled[within=class]"
    return _made(taxonomy, chosen, name, sentence, seed)


def _all(taxonomy: Taxonomy, descriptors: Descriptors) -> dict[str, tuple[str, ...]]:
    own = checked_descriptors(descriptors, taxonomy)
    if missing := [i for i in taxonomy.class_ids if i not in own]:
        raise PromptError(
            "make controls of the descriptors",
            f"there are none for {quoted(missing)}",
            "Give every class one or more, or leave these classes out.",
        )
    return own


def _mean_count(own: Mapping[str, Sequence[str]]) -> int:
    return -(-sum(map(len, own.values())) // len(own))


def _rng(seed: int) -> np.random.Generator:
    if seed < 0:
        raise RecipeError(f"make controls with seed={seed}", "it is negative", "Give 0 or more.")
    return np.random.Generator(np.random.PCG64([seed, 3]))


def _made(
    taxonomy: Taxonomy,
    chosen: Mapping[str, Sequence[str]],
    control: str,
    sentence: Sentence,
    seed: int | None = None,
    *,
    shared: bool = False,
) -> PromptSet:
    classes = {
        class_id: tuple(
            Prompt(
                text=sentence(taxonomy.node(class_id).name, text),
                kind="descriptor",
                template=p if shared else -1,
            )
            for p, text in enumerate(texts)
        )
        for class_id, texts in chosen.items()
    }
    told = {"control": control} | ({} if seed is None else {"seed": seed})
    provenance = Provenance.model_validate({"generator": f"waffle_controls.{control}", **told})
    return PromptSet(classes=classes, provenance=provenance)
