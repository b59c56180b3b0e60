"""Random words and characters in the place of an LLM's descriptions; needs no LLM."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

import numpy as np

from byname.errors import PromptError, RecipeError, quoted
from byname.promptset import Prompt, PromptSet, Provenance
from byname.stage import PromptMember, register
from byname.taxonomy import Taxonomy, clean_text

__all__ = [
    "ALPHABET",
    "Waffle",
    "WaffleParams",
    "WaffleShape",
    "checked_descriptors",
    "waffle_sentence",
    "waffle_shape",
    "word_list",
]

Mode = Literal["both", "words", "chars"]
Descriptors = Mapping[str, Sequence[str]]
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_WORDS, _CHARS, _MIX = range(3)  # streams of random numbers
_IS, _VERB = ("a", "used"), ("has", "often", "typically", "may", "can")


@dataclass(frozen=True)
class WaffleParams:
    """How many texts, of which sort, and what they are prefixed with."""

    seed: int = 0
    pairs: int = 15
    concept: str = ""
    mode: Mode = "both"

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise RecipeError(
                f"use waffle with seed={self.seed}", "it is negative", "Give 0 or more."
            )
        if not 1 <= self.pairs <= 10_000:
            raise RecipeError(
                f"use waffle with pairs={self.pairs}",
                "that is not from 1 to 10000",
                "15 pairs are 30 texts a class.",
            )
        if self.mode not in get_args(Mode):
            raise RecipeError(
                f"use waffle with mode={self.mode!r}",
                "there is no such mode",
                f"Known: {', '.join(get_args(Mode))}.",
            )
        if "," in self.concept or clean_text(self.concept) != self.concept.strip():
            raise RecipeError(
                f"use waffle with concept={self.concept!r}",
                "it holds a comma or a control character",
                "Give what the classes have in common in a few words: concept=food.",
            )


@dataclass(frozen=True)
class WaffleShape:
    """Size of the random texts: m words of l letters; g groups that share L characters."""

    words: int
    letters: int
    groups: int
    characters: int


def waffle_shape(names: Iterable[str]) -> WaffleShape:
    """m, l, g and L of the class names; means are exact, and halves are rounded to even.

    Examples
    --------
    >>> waffle_shape(["cat", "fire engine"])
    WaffleShape(words=2, letters=4, groups=1, characters=6)
    """
    split = [name.split() or [""] for name in names]
    lengths = [[len(word) for word in words] for words in split]
    mean = statistics.mean
    groups = round(mean(Fraction(len(words) - 1) for words in split)) + 1
    longest = math.ceil(mean(Fraction(max(given)) for given in lengths))
    return WaffleShape(
        words=max(1, round(mean(Fraction(len(words)) for words in split))),
        letters=round(mean(Fraction(sum(given), len(given)) for given in lengths)),
        groups=groups,
        # A whole group is added where the length is a multiple already: so did the authors.
        characters=longest + groups - longest % groups,
    )


def waffle_sentence(name: str, descriptor: str, concept: str = "") -> str:
    """The sentence of a descriptor, random or not: "A photo of a {name}, {link} {descriptor}.".

    The link is "which is" before a descriptor that begins with the letter "a" or with "used",
    "which" before has, often, typically, may or can, and else "which has". Letters count and not
    words, so that it is "which candle", as in the authors' code.

    Examples
    --------
    >>> waffle_sentence("crane", "a long neck"), waffle_sentence("crane", "x7q", "bird")
    ('A photo of a crane, which is a long neck.', 'A photo of a bird: a crane, which has x7q.')
    """
    link = "which is" if descriptor.startswith(_IS) else "which has"
    if descriptor.startswith(_VERB):
        link = "which"
    prefix = f"A photo of a {concept.strip()}: a " if concept.strip() else "A photo of a "
    return f"{prefix}{name}, {link} {descriptor}."


@cache
def word_list() -> tuple[str, ...]:
    """Common English words, in alphabetical order.

    Examples
    --------
    >>> len(word_list()) >= 1500, word_list()[0]
    (True, 'able')
    """
    file = resources.files("byname.prompts") / "data" / "words.txt"
    return tuple(file.read_text(encoding="utf-8").split())


def checked_descriptors(descriptors: Descriptors, taxonomy: Taxonomy) -> dict[str, tuple[str, ...]]:
    """Cleaned descriptors of the classes that have any, in the order of the classes.

    Raises
    ------
    PromptError
        For descriptors of unknown classes, and ones that are no texts or empty.
    """
    asked, do = "use the descriptors", "Give {class id: [descriptor, ...]}."
    if not isinstance(descriptors, Mapping):
        raise PromptError(asked, f"they are a {type(descriptors).__name__}", do)
    if unknown := [str(key) for key in descriptors if key not in set(taxonomy.class_ids)]:
        raise PromptError(
            asked,
            f"there are no classes {quoted(unknown)}",
            "Ids must be equal; 'byname taxonomy convert FILE classes.csv' lists yours.",
        )
    made = {}
    for class_id in taxonomy.class_ids:
        given = descriptors.get(class_id, ())
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise PromptError(asked, f"{class_id!r} has a {type(given).__name__}, not a list", do)
        for i, text in enumerate(given, 1):
            if not isinstance(text, str) or not clean_text(text).rstrip(". "):
                seen = f"descriptor {i} of {class_id!r} is empty or no text"
                raise PromptError(asked, seen, "Write it, or leave it out.")
        if given:
            made[class_id] = tuple(clean_text(text).rstrip(". ") for text in given)
    return made


@register
class Waffle(PromptMember):
    """Sentences with random words and random characters, the same for all classes.

    Formula: with m the mean number of words of a class name, l the mean over names of their mean
    word length, g the mean number of spaces plus 1, all rounded, and L the mean length of the
    longest word, rounded up and raised to the next multiple of g (by a whole g where it is one
    already): text[k, p] = "A photo of a {name of k}, {link} {d_p}." with d_p either m random
    words, each cut to its first l characters, or g groups of L/g random characters out of a-z and
    0-9 joined by ", "; :func:`waffle_sentence` has the rule for the link. Pairs of the two are
    drawn once and shared by all K classes: 2 * pairs * K texts, ``template`` = p, kinds "words" and
    "chars". No query to an LLM.

    Published with the score "mean of cosines" over the texts of a class, without normalising the
    mean, and over seeds 0 to 6. It is the control of every member that asks an LLM: what does not
    beat it gains from the number of its texts, and not from their meaning.

    ``descriptors``, an attribute and no parameter, mixes in an LLM's descriptors:
    :meth:`mix_descriptors`. Random texts that happen to be equal are kept, as the method has it.

    Source: Roth et al., "Waffling around for Performance: Visual Classification with Random Words
    and Broad Concepts", ICCV 2023. The list of words is byname's own, and the characters are not
    taken from an LLM's descriptors, so that results differ a little.

    Parameters
    ----------
    seed : int
        Of the random texts.
    pairs : int
        A class has twice as many texts.
    concept : str
        What the classes have in common: "A photo of a {concept}: a {name}, ...".
    mode : {"both", "words", "chars"}
        Pairs of both sorts, or as many texts of one sort.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> made = Waffle(pairs=1).generate(Taxonomy.from_names(["cat", "dog"]))
    >>> made.texts("dog")
    ['A photo of a dog, which has sui.', 'A photo of a dog, which has s69u.']
    """

    name = "waffle"
    Params = WaffleParams
    params: WaffleParams

    def __init__(self, params: Any = None, **kwargs: Any) -> None:
        super().__init__(params, **kwargs)
        self.descriptors: Descriptors | None = None

    def generate(self, taxonomy: Taxonomy) -> PromptSet:
        """2 * pairs texts a class; with ``descriptors``, what :meth:`mix_descriptors` makes."""
        if self.descriptors is not None:
            return self.mix_descriptors(taxonomy, self.descriptors)
        drawn = self._drawn(taxonomy, self.params.pairs)
        classes = {leaf.id: self._shared(leaf.name, drawn) for leaf in taxonomy.classes}
        return PromptSet(classes=classes, provenance=self._provenance(taxonomy))

    def mix_descriptors(self, taxonomy: Taxonomy, descriptors: Descriptors) -> PromptSet:
        """Random texts and an LLM's descriptors together ("Waffle + LLM").

        With q = 2/3 of ``pairs``, rounded down, each class has the 2q random texts of q pairs and
        2q draws, with replacement, of its own descriptors (kind "descriptor", template -1); of
        these 4q, 3q are kept at random: 30 of 40 for 15 pairs. The draws of a class depend on the
        seed and its id, not on the other classes.

        Parameters
        ----------
        taxonomy : Taxonomy
        descriptors : mapping of class id to sequence of str
            Classes without any have the random texts alone, 2 * pairs of them, and are listed in
            the provenance under ``without_descriptors``.

        Raises
        ------
        PromptError
            For descriptors of unknown classes, and ones that are empty or no texts.

        Examples
        --------
        >>> from byname.taxonomy import Taxonomy
        >>> made = Waffle().mix_descriptors(Taxonomy.from_names(["cat"]), {"cat": ["whiskers"]})
        >>> len(made.texts("cat")), "A photo of a cat, which has whiskers." in made.texts("cat")
        (30, True)
        """
        own = checked_descriptors(descriptors, taxonomy)
        drawn = self._drawn(taxonomy, self.params.pairs)
        q = max(1, 2 * self.params.pairs // 3)
        classes = {}
        for leaf in taxonomy.classes:
            shared = self._shared(leaf.name, drawn)
            if leaf.id not in own:
                classes[leaf.id] = shared
                continue
            digest = hashlib.sha256(leaf.id.encode("utf-8", "surrogatepass")).digest()
            rng = _stream(self.params.seed, _MIX, int.from_bytes(digest[:8], "big"))
            picked = rng.integers(0, len(own[leaf.id]), 2 * q)
            texts = [self._sentence(leaf.name, own[leaf.id][i]) for i in picked]
            pool = [*shared[: 2 * q], *(Prompt(text=text, kind="descriptor") for text in texts)]
            classes[leaf.id] = tuple(pool[i] for i in sorted(rng.permutation(4 * q)[: 3 * q]))
        told = {
            "descriptors_sha256": hashlib.sha256(json.dumps(own).encode()).hexdigest(),
            "without_descriptors": [i for i in taxonomy.class_ids if i not in own],
        }
        return PromptSet(classes=classes, provenance=self._provenance(taxonomy, **told))

    def _drawn(self, taxonomy: Taxonomy, pairs: int) -> list[tuple[str, str]]:
        """Kind and text of the random descriptors, those of fewer pairs first."""
        shape = waffle_shape(leaf.name for leaf in taxonomy.classes)
        mode, known = self.params.mode, word_list()
        count = pairs if mode == "both" else 2 * pairs
        # integers() and not choice(): each row is then the same whatever the number of rows.
        rows = _stream(self.params.seed, _WORDS).integers(0, len(known), (count, shape.words))
        words = [" ".join(known[i][: shape.letters] for i in row) for row in rows]
        drawn = _stream(self.params.seed, _CHARS).integers(
            0, len(ALPHABET), (count, shape.groups, shape.characters // shape.groups)
        )
        chars = [", ".join("".join(ALPHABET[i] for i in g) for g in row) for row in drawn]
        sorts = {"words": words, "chars": chars}
        chosen = sorts if mode == "both" else {mode: sorts[mode]}
        return [(kind, texts[p]) for p in range(count) for kind, texts in chosen.items()]

    def _sentence(self, name: str, descriptor: str) -> str:
        return waffle_sentence(name, descriptor, self.params.concept)

    def _shared(self, name: str, drawn: list[tuple[str, str]]) -> tuple[Prompt, ...]:
        return tuple(
            Prompt(text=self._sentence(name, text), kind=kind, template=p)
            for p, (kind, text) in enumerate(drawn)
        )

    def _provenance(self, taxonomy: Taxonomy, **told: Any) -> Provenance:
        shape = asdict(waffle_shape(leaf.name for leaf in taxonomy.classes))
        return Provenance.model_validate({"generator": self.spec, "shape": shape, **told})


def _stream(*path: int) -> np.random.Generator:
    """Random numbers by seed and purpose; PCG64 by name, so that they stay what they are."""
    return np.random.Generator(np.random.PCG64(path))
