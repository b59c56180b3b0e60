"""Finer names below each class: what kinds of it there are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from byname.errors import RecipeError
from byname.prompts.lists import ListMember
from byname.prompts.replies import parse_list
from byname.prompts.wording import shown_names
from byname.promptset import Prompt, PromptSet
from byname.queries import Query
from byname.sentences import check_template
from byname.stage import register
from byname.taxonomy import Node, Taxonomy

__all__ = ["Subclasses", "SubclassesParams"]

_LONGEST = 100  # characters: a name without any space in a megabyte is no name
_WORDS = 5
# What follows the name on its line explains it: "Fuji (red)", "Fuji: a red one", "Fuji - red".
_EXPLAINS = re.compile(r"[(\[{:;<|]|\s[-–—]\s")
_EDGES = " \t\"'“”‘’.,;:!?*#<>()[]{}|\\/_-–—•"


@dataclass(frozen=True)
class SubclassesParams:
    """How many to ask for, in what sense, and what becomes of them."""

    n: int = 10
    context: str = ""
    own: bool = True
    template: str = "a photo of a {}."

    def __post_init__(self) -> None:
        if not 1 <= self.n <= 100:
            raise RecipeError(f"ask for {self.n} subclasses", "it is not 1 to 100", "Try n=10.")
        check_template(self.template)


@register
class Subclasses(ListMember):
    """Ask which kinds of a class there are, and let each be a name of its own.

    Formula: the set of a class is the class itself (``own``) and the names in the answer to the one
    question about it. The text of a name is the template with it; its kind is "subclass", and
    ``about`` is the name, by which a scorer tells the members of a set apart (the source scores
    over the union of all sets and maps back to the classes; a name in two sets stays in both).

    A name is cleaned of what explains it (brackets, what follows a colon or dash) and of
    punctuation around it. Names of more than 5 words are dropped, or of more than two words beyond
    those of the class where that is more. A name in which the class's own does not occur gets it
    appended ("Fuji" of the class "apple" becomes "Fuji apple"), upper and lower case being alike.
    Of equal names of a class, upper and lower case being alike, the first is kept.

    Number of queries: K, one a class. Where the taxonomy itself goes below the classes, no LLM is
    needed: its leaves are the sets.

    Source: Novack, McAuley, Lipton & Garg, "CHiLS: Zero-Shot Image Classification with
    Hierarchical Label Sets", ICML 2023, arXiv 2302.02551. Ten names and temperature 0.7 are the
    source's; the question is byname's own, so results with the original wording differ.

    Parameters
    ----------
    n : int
        How many names to ask for; what an answer has beyond it is kept.
    context : str
        In what sense the classes are meant: "article of clothing", "fruit", "office supply".
    own : bool
        Put the class itself into its set. Off: an answer with the class's own name is dropped.
    template : str
        With {} where the name goes. The default is CLIP's.
    wording : Wording, optional
        Of :func:`byname.prompts.wording.merge_wording`; not part of the spec.

    Examples
    --------
    >>> member, fruit = Subclasses(), Taxonomy.from_names(["apple"])
    >>> asked = list(member.queries(fruit))
    >>> [p.about for p in member.collect(fruit, [(asked[0], "Fuji, crab apple")]).classes["apple"]]
    ['apple', 'Fuji apple', 'crab apple']
    """

    name = "subclasses"
    Params = SubclassesParams
    params: SubclassesParams

    def queries(self, taxonomy: Taxonomy) -> Iterator[Query]:
        """One question a class; lazy."""
        context, n = self.params.context.strip(), str(self.params.n)
        said = "".join(self.sentences("context", item=context)[:1]) if context else ""
        for class_id, name in shown_names(taxonomy).items():
            yield self.ask("subclass", class_id, name=name, context=said, n=n)

    def always(self, taxonomy: Taxonomy, leaf: Node) -> Iterable[Prompt]:
        """The class as a member of its own set."""
        return (self._prompt(leaf.name),) if self.params.own else ()

    def items(self, taxonomy: Taxonomy, query: Query, reply: str) -> list[str]:
        """The cleaned names of a reply, the class's own among them; too long ones left out."""
        name = taxonomy.node(query.class_id).name
        return [made for item in parse_list(reply) if (made := _subclass(item, name))]

    def prompts(self, taxonomy: Taxonomy, query: Query, item: str) -> Iterable[Prompt]:
        """The template with the name; none for the class's own name where ``own`` is off."""
        own = item.casefold() == taxonomy.node(query.class_id).name.casefold()
        return () if own and not self.params.own else (self._prompt(item),)

    def collect(self, taxonomy: Taxonomy, replies: Iterable[tuple[Query, str]]) -> PromptSet:
        """The sets that the replies make; names that were dropped are counted in the provenance.

        Raises
        ------
        PromptError
            For replies to queries that this member does not ask of this taxonomy.
        """
        given = list(replies)
        made = super().collect(taxonomy, given)
        lost = Counter(made.provenance.model_dump().get("answers_dropped", {}))
        for query, reply in self.answers(taxonomy, given)[0]:
            lost["too long"] += len(parse_list(reply)) - len(self.items(taxonomy, query, reply))
        classes = {}
        for class_id, prompts in made.classes.items():
            names: dict[str, Prompt] = {}
            for prompt in prompts:
                names.setdefault(prompt.about.casefold(), prompt)
            lost["duplicate"] += len(prompts) - len(names)
            classes[class_id] = tuple(names.values())
        found = {reason: n for reason, n in lost.items() if n}
        update = {"answers_dropped": found} if found else {}
        provenance = made.provenance.model_copy(update=update)
        return made.model_copy(update={"classes": classes, "provenance": provenance})

    def _prompt(self, name: str) -> Prompt:
        text = self.params.template.replace("{}", name)
        return Prompt(text=text, kind="subclass", about=name)


def _subclass(item: str, name: str) -> str:
    """The cleaned name of a subclass with that of its class in it; "" for none."""
    key = name.casefold()
    text = _EXPLAINS.split(item, maxsplit=1)[0].strip(_EDGES)
    if key in item.casefold() and key not in text.casefold():
        text = item  # the class's own name holds such signs
    if not text or len(text) > _LONGEST + len(name):
        return ""
    if len(text.split()) > max(_WORDS, len(name.split()) + 2):
        return ""
    return text if key in text.casefold() else f"{text} {name}"
