"""What a class sounds like, and scenes in which one hears it: texts for audio encoders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from byname.errors import RecipeError
from byname.prompts.lists import ListMember
from byname.prompts.replies import parse_list
from byname.prompts.wording import shown_names
from byname.promptset import Prompt, PromptSet
from byname.queries import Query, clean_reply, is_refusal
from byname.sentences import check_template
from byname.stage import register
from byname.taxonomy import Node, Taxonomy

__all__ = ["Sounds", "SoundsParams"]

_ERROR = re.compile(r"error(?:\s*[:.!(].*)?", re.I | re.S)
_FORBIDDEN = re.compile(r"\b(?:heard|sounds?)\b", re.I)
_LONGEST = 1000  # characters of a description: it is asked about, and somebody pays for that


@dataclass(frozen=True)
class SoundsParams:
    """How many descriptions and captions, and the template that may stand beside them."""

    n: int = 5
    scenes: int = 10
    template: str = "This is a sound of {}."
    mix: bool = True

    def __post_init__(self) -> None:
        for field, value in (("n", self.n), ("scenes", self.scenes)):
            if not 1 <= value <= 100:
                raise RecipeError(
                    f"use 'sounds[{field}={value}]'", "it is not from 1 to 100", "Give a few."
                )
        check_template(self.template)


@register
class Sounds(ListMember):
    """Ask how a class sounds, then ask for captions of scenes with each of these sounds.

    Formula: the answer to one query a class is a list of descriptions d_1..d_n; for each of them
    one more query asks for captions of scenes with that sound, which are the texts::

        texts(k) = [template(k)] + the first `scenes` captions of d_1, of d_2, ..., of d_n

    The first n descriptions are asked about as they came, all replies to a query taken together.
    Left out are "Error" in place of an answer and descriptions above 1,000 characters. Captions
    that say "heard", "sound" or "sounds" though it was forbidden are dropped and counted, unless
    the word is part of the class's own name. An underscore in a name is read as a space.

    Number of queries: K first, then one for each description, at most n K.

    Source: Ghosh et al., "ReCLAP: Improving Zero Shot Audio Classification by Describing Sounds",
    ICASSP 2025, arXiv 2409.09213. Temperature 0.7 and the numbers 5 and 10 are the paper's; the
    questions are byname's own. Part of its gain is from its own checkpoint and not from the texts.

    Parameters
    ----------
    n : int
        Descriptions a class, 1 to 100.
    scenes : int
        Captions a description, 1 to 100.
    template : str
        With {} where the name goes. For kinds of music the source has "This is a {} song.".
    mix : bool
        Whether the template is a text of each class beside the captions. On, so that a class
        without any usable answer still has one; among 50 captions it counts little.
    wording : Wording, optional
        Of :func:`byname.prompts.wording.merge_wording`; not part of the spec.

    Examples
    --------
    >>> member, pets = Sounds(), Taxonomy.from_names(["dog_bark"])
    >>> [first] = member.queries(pets)
    >>> replies = {first.id: ["- Short, harsh bursts."]}
    >>> [_, second] = member.asked(pets, replies)
    >>> said = [(first, "- Short, harsh bursts."), (second, "- A dog barks, and a car goes by.")]
    >>> member.collect(pets, said).texts("dog_bark")
    ['This is a sound of dog bark.', 'A dog barks, and a car goes by']
    """

    name = "sounds"
    Params = SoundsParams
    params: SoundsParams

    def queries(self, taxonomy: Taxonomy) -> Iterator[Query]:
        """One query a class; lazy. The others need their replies."""
        for class_id, name in shown_names(taxonomy).items():
            yield self.ask("sound", class_id, name=_spaced(name), count=str(self.params.n))

    def follow_ups(
        self, taxonomy: Taxonomy, replies: Mapping[str, Sequence[str]]
    ) -> Iterator[Query]:
        """One query for each description so far, class by class."""
        count, shown = str(self.params.scenes), shown_names(taxonomy)
        for query in self.queries(taxonomy):
            name = _spaced(shown[query.class_id])
            for item in self._descriptions(replies.get(query.id, ())):
                yield self.ask("scene", query.class_id, name=name, item=item, count=count)

    def remarks(self, taxonomy: Taxonomy) -> list[str]:
        """How many queries follow from the replies."""
        return [
            f"follow-up queries: at most {self.params.n * len(taxonomy)}, "
            f"{self.params.n} a class, once the first are answered"
        ]

    def items(self, taxonomy: Taxonomy, query: Query, reply: str) -> list[str]:
        """Descriptions or captions, with those that are no use."""
        return _sentences(reply)

    def problem(self, query: Query, reply: str) -> str:
        """What is wrong with a reply, "" for nothing: refused, empty, or nothing but errors."""
        wrong = super().problem(query, reply)
        return wrong or ("" if any(map(_usable, _sentences(reply))) else "no list")

    def always(self, taxonomy: Taxonomy, leaf: Node) -> Iterable[Prompt]:
        """With ``mix``, the template."""
        if self.params.mix:
            text = self.params.template.replace("{}", _spaced(leaf.name))
            yield Prompt(text=text, kind="template", template=0)

    def prompts(self, taxonomy: Taxonomy, query: Query, item: str) -> Iterable[Prompt]:
        """The text of one caption."""
        name = _spaced(taxonomy.node(query.class_id).name)
        for text in self.sentences("scene", item=item, name=name):
            yield Prompt(text=text, kind="scene")

    def collect(self, taxonomy: Taxonomy, replies: Iterable[tuple[Query, str]]) -> PromptSet:
        """The prompt set that the replies make; a class without any text is not in it.

        Raises
        ------
        PromptError
            For replies to queries that this member does not ask of this taxonomy.
        """
        answers, provenance = self.answers(taxonomy, replies)
        made = {
            leaf.id: {prompt.text: prompt for prompt in self.always(taxonomy, leaf)}
            for leaf in taxonomy.classes
            if self.only is None or leaf.id in self.only
        }
        lost: Counter[str] = Counter()
        for query, reply in answers:
            if query.kind == "sound":
                lost["no list"] += not self._descriptions([reply])
                continue
            for item in self._captions(taxonomy, query, reply, lost):
                for prompt in self.prompts(taxonomy, query, item):
                    made[query.class_id].setdefault(prompt.text, prompt)
        if lost.total():
            counts = {reason: n for reason, n in lost.items() if n}
            provenance = provenance.model_copy(update={"answers_dropped": counts})
        kept = {class_id: tuple(texts.values()) for class_id, texts in made.items() if texts}
        return PromptSet(classes=kept, provenance=provenance)

    def _descriptions(self, replies: Sequence[str]) -> list[str]:
        found: dict[str, str] = {}
        for item in (item for reply in replies for item in _sentences(clean_reply(reply))):
            if _usable(item) and len(item) <= _LONGEST:
                found.setdefault(item.casefold(), item)
        return list(found.values())[: self.params.n]

    def _captions(
        self, taxonomy: Taxonomy, query: Query, reply: str, lost: Counter[str]
    ) -> list[str]:
        """The captions in a reply that are of use; the others are counted."""
        own = _words(_spaced(taxonomy.node(query.class_id).name))
        kept, found = [], _sentences(reply)
        lost["no list"] += not found
        for item in found:
            if not _usable(item):
                lost["error"] += 1
            elif _words(item) - own:
                lost["forbidden word"] += 1
            else:
                kept.append(item)
        lost["more than asked for"] += max(len(kept) - self.params.scenes, 0)
        return kept[: self.params.scenes]


def _spaced(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def _sentences(reply: str) -> list[str]:
    """The items of a list of sentences, which have commas of their own."""
    text = reply.strip()
    # A reply of several lines is never split at commas, and a line that ends in ":" is no item.
    return parse_list(text if text.startswith(("{", "[", "`")) else f"{text}\n:")


def _usable(item: str) -> bool:
    return not (_ERROR.fullmatch(item) or is_refusal(item))


def _words(text: str) -> set[str]:
    """The forbidden words in it."""
    return {word.casefold() for word in _FORBIDDEN.findall(text)}
