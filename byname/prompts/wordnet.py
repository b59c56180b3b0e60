"""Synonyms and glosses of class names from WordNet; needs its data, and no LLM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from byname.errors import NeedsError, RecipeError
from byname.prompts.wording import fill
from byname.promptset import Prompt, PromptSet, Provenance
from byname.stage import PromptMember, register
from byname.taxonomy import Node, Taxonomy, clean_text

__all__ = ["Lookup", "Sense", "WordNet", "WordNetParams", "choose_sense"]

Choice = Literal["parent", "first"]
PLAIN, GLOSS = "a photo of a {name}.", "a photo of a {name}, {definition}."


@dataclass(frozen=True)
class Sense:
    """One meaning of a name.

    Parameters
    ----------
    id : str
        Of the synset.
    lemmas : tuple of str
        Words of this meaning, the looked-up one among them; "_" may stand for a space.
    definition : str
        "" where there is none.
    hypernyms : tuple of str
        Names of everything above it, at any height.
    """

    id: str
    lemmas: tuple[str, ...]
    definition: str = ""
    hypernyms: tuple[str, ...] = ()


Lookup: TypeAlias = Callable[[str], Sequence[Sense]]
"""A name to its senses, the most usual first."""


@dataclass(frozen=True)
class WordNetParams:
    """Which sense is taken, what is said of it, and out of which data."""

    sense: Choice = "parent"
    synonyms: bool = True
    gloss: bool = True
    lexicon: str = ""

    def __post_init__(self) -> None:
        if self.sense not in get_args(Choice):
            raise RecipeError(
                f"use wordnet with sense={self.sense!r}",
                "there is no such choice",
                f"Known: {', '.join(get_args(Choice))}.",
            )
        if not (self.synonyms or self.gloss):
            raise RecipeError(
                "use wordnet with synonyms=false and gloss=false",
                "nothing is left to say",
                "Leave one of them on, or use templates.",
            )


def choose_sense(senses: Sequence[Sense], above: Sequence[str]) -> tuple[Sense | None, bool]:
    """The sense with most of the names ``above`` among its hypernyms, the first of equals.

    Returns
    -------
    sense : Sense or None
        None where there is no sense at all.
    sure : bool
        Whether it was the only one, or alone had the most of the names.

    Examples
    --------
    >>> bird = Sense("1", ("crane",), hypernyms=("bird", "animal"))
    >>> machine = Sense("2", ("crane",), hypernyms=("machine",))
    >>> choose_sense([machine, bird], ["Bird"])[0].id, choose_sense([machine, bird], [])[1]
    ('1', False)
    """
    if not senses:
        return None, False
    wanted = {_plain(name) for name in above}
    found = [len(wanted & {_plain(name) for name in sense.hypernyms}) for sense in senses]
    return senses[found.index(max(found))], len(senses) == 1 or found.count(max(found)) == 1


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").casefold().split())


@register
class WordNet(PromptMember):
    """What WordNet says of a class: its other names, and its definition.

    Formula: with s the sense of the class's name, texts of the class are "a photo of a {name}."
    (kind "template", ``template`` 0), "a photo of a {lemma}." for each other lemma of s (kind
    "synonym") and "a photo of a {name}, {definition of s}." (kind "gloss"), the latter two of this
    class only (``template`` -1). No query to an LLM.

    A name of several senses is not guessed at in silence. ``sense=parent`` takes the sense with
    most of the names above the class in the taxonomy (that of a named root included) among its own
    hypernyms, at any height, and the first of equals; ``sense=first`` takes the first. The
    provenance has the sense of each class (``senses``), the classes whose sense is but the first
    of several (``guessed``), and those without a sense (``without_sense``), which have the plain
    text alone. A lemma that is another class's name is dropped and counted (``dropped``).

    ``lookup``, an attribute and no parameter, looks names up: ``byname.wordnet.wordnet_lookup()``.

    Source: Miller, "WordNet: A Lexical Database for English", CACM 1995; its glosses in prompts as
    in Menon and Vondrick's baselines, ICLR 2023. The choice of the sense is byname's own.

    Parameters
    ----------
    sense : {"parent", "first"}
        How one of several senses is chosen.
    synonyms : bool
        A text for each other lemma.
    gloss : bool
        A text with the definition.
    lexicon : str
        Which data, for whoever sets ``lookup``: oewn:2024. Empty for the only English one.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> member = WordNet()
    >>> member.lookup = lambda name: [Sense("x", ("puma", "mountain_lion"), "a large wildcat")]
    >>> member.generate(Taxonomy.from_names(["puma"])).texts("puma")[1:]
    ['a photo of a mountain lion.', 'a photo of a puma, a large wildcat.']
    """

    name = "wordnet"
    Params = WordNetParams
    params: WordNetParams
    needs = frozenset({"wordnet"})

    def __init__(self, params: Any = None, **kwargs: Any) -> None:
        super().__init__(params, **kwargs)
        self.lookup: Lookup | None = None

    def generate(self, taxonomy: Taxonomy) -> PromptSet:
        """The texts of every class.

        Raises
        ------
        NeedsError
            Without ``lookup``.
        """
        if self.lookup is None:
            raise NeedsError(
                f"make '{self.spec}'",
                "it was given no WordNet to look names up in",
                "Install one, with pip install 'byname[wordnet]' and then python -m wn download "
                "oewn:2024; in Python, set lookup = byname.wordnet.wordnet_lookup().",
            )
        known: dict[str, Sequence[Sense]] = {}
        senses: dict[str, str] = {}
        told: dict[str, list[str]] = {"without_sense": [], "guessed": []}
        dropped: Counter[str] = Counter(other_class=0)
        classes = {}
        taken = {_plain(leaf.name) for leaf in taxonomy.classes}
        for leaf in taxonomy.classes:
            if leaf.name not in known:
                known[leaf.name] = self.lookup(leaf.name)
            sense, sure = choose_sense(known[leaf.name], self._above(taxonomy, leaf))
            made = [Prompt(text=fill(PLAIN, name=leaf.name), kind="template", template=0)]
            if sense is None:
                told["without_sense"].append(leaf.id)
            else:
                senses[leaf.id] = sense.id
                made += self._prompts(leaf, sense, taken, dropped)
                if not sure:
                    told["guessed"].append(leaf.id)
            classes[leaf.id] = tuple(made)
        provenance = {"generator": self.spec, "senses": senses, **told, "dropped": dict(dropped)}
        return PromptSet(classes=classes, provenance=Provenance.model_validate(provenance))

    def _above(self, taxonomy: Taxonomy, leaf: Node) -> list[str]:
        if self.params.sense == "first":
            return []
        names = [taxonomy.node(i).name for i in taxonomy.ancestors(leaf.id)]
        return [*names, taxonomy.root.name] if taxonomy.root.name else names

    def _prompts(
        self, leaf: Node, sense: Sense, taken: set[str], dropped: Counter[str]
    ) -> list[Prompt]:
        made = []
        seen = {_plain(leaf.name)}
        for raw in sense.lemmas if self.params.synonyms else ():
            lemma = clean_text(raw.replace("_", " "))
            key = _plain(lemma)
            if not key or key in seen:
                continue
            seen.add(key)
            if key in taken:
                dropped["other_class"] += 1
            else:
                made.append(Prompt(text=fill(PLAIN, name=lemma), kind="synonym"))
        definition = clean_text(sense.definition).rstrip(".; ")
        if self.params.gloss and definition:
            text = fill(GLOSS, name=leaf.name, definition=definition)
            made.append(Prompt(text=text, kind="gloss"))
        return made
