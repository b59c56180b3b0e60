"""How a class looks, what surrounds it and where in the world it is found, each asked apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from byname.errors import RecipeError
from byname.prompts.lists import ListMember
from byname.prompts.wording import shown_names, with_article
from byname.promptset import Prompt, PromptSet
from byname.queries import Query
from byname.stage import register
from byname.taxonomy import Node, Taxonomy

__all__ = ["Attributes", "AttributesParams", "equalized"]

KINDS = ("looks", "habitat", "place")


@dataclass(frozen=True)
class AttributesParams:
    """Which kinds of questions, joined by "+", and what is done with their answers."""

    kinds: str = "+".join(KINDS)
    domain: str = ""
    equalize: bool = False
    taxonomy: bool = False

    def __post_init__(self) -> None:
        given = [kind.strip() for kind in self.kinds.split("+")]
        if wrong := [kind for kind in given if kind not in KINDS]:
            seen = f"{wrong[0]!r} is no kind" if wrong[0] else "a kind is missing"
            raise RecipeError(
                f"use 'attributes[kinds={self.kinds}]'", seen, f"Kinds: {'+'.join(KINDS)}."
            )

    def parts(self) -> tuple[str, ...]:
        """The kinds, in the order looks, habitat, place."""
        given = {kind.strip() for kind in self.kinds.split("+")}
        return tuple(kind for kind in KINDS if kind in given)


@register
class Attributes(ListMember):
    """Ask for the looks of a class, for its surroundings and for its regions.

    Formula: for each class in turn, of the kinds chosen, one query each, whose answer is a list::

        looks     by what does one tell it from others?   "a photo of a {name} with {item}."
        habitat   what surrounds it?                      "a photo of a {name}, seen {item}."
        place     in what parts of the world is it?       "a photo of a {name}, found in {item}."
        taxonomy  nobody is asked: its ancestors, nearest first
                                       "a photo of a {name}, which belongs to {path}."

    The source scores with a softmax over all texts of all classes together, p[k,j], and answers by
    the mean of p[k,j] over the texts j of class k. There, classes of many texts divide their
    share among more; ``equalize`` makes their numbers equal, as far as answers came.

    Number of queries: K for each of the kinds looks, habitat and place.

    Source: Saha, Van Horn & Maji, "Improved Zero-Shot Classification by Adapting VLMs with Text
    Descriptions", CVPR 2024 (AdaptCLIPZS). Its gains come from training with such texts; by its own
    account they do not help at test time alone. Questions and sentences are byname's own.

    Parameters
    ----------
    kinds : str
        Joined by "+"; all three by default.
    domain : str
        What all classes are kinds of, such as "bird": asked is what tells them from other kinds of
        it. Empty: from other things that look much like it.
    equalize : bool
        Keep of each class and kind the first n texts, n being the smallest number of texts of that
        kind that a class has, those without any left aside. Nothing is made up: a class without
        answers of one kind still has fewer texts. Off: no text is thrown away.
    taxonomy : bool
        Add one text with the names of the ancestors, such as genus, family and order; classes
        right below the root get none.
    wording : Wording, optional
        Of :func:`byname.prompts.wording.merge_wording`; not part of the spec.

    Examples
    --------
    >>> member, birds = Attributes(kinds="looks", domain="bird"), Taxonomy.from_names(["hen"])
    >>> [asked] = member.queries(birds)
    >>> member.collect(birds, [(asked, "- a red comb\\n- a short beak")]).texts("hen")
    ['a photo of a hen with a red comb.', 'a photo of a hen with a short beak.']
    """

    name = "attributes"
    Params = AttributesParams
    params: AttributesParams

    def queries(self, taxonomy: Taxonomy) -> Iterator[Query]:
        """The queries of each class, in the order looks, habitat, place; lazy."""
        domain = self.params.domain.strip()
        others = " ".join(self.sentences("domain" if domain else "no domain", item=domain))
        for class_id, name in shown_names(taxonomy).items():
            values = {"name": name, "a_name": with_article(name), "others": others}
            for kind in self.params.parts():
                yield self.ask(kind, class_id, **values)

    def problem(self, query: Query, reply: str) -> str:
        """What is wrong with a reply, "" for nothing; that there is no place is an answer."""
        wrong = super().problem(query, reply)
        return "" if wrong == "no list" and query.kind == "place" else wrong

    def prompts(self, taxonomy: Taxonomy, query: Query, item: str) -> Iterable[Prompt]:
        """The sentences of one answer; ``about`` is the answer."""
        name = taxonomy.node(query.class_id).name
        for text in self.sentences(query.kind, name=name, item=item):
            yield Prompt(text=text, kind=query.kind, about=item)

    def always(self, taxonomy: Taxonomy, leaf: Node) -> Iterable[Prompt]:
        """With ``taxonomy``, the text on the ancestors of a class."""
        above = taxonomy.ancestors(leaf.id) if self.params.taxonomy else ()
        if above:
            path = ", ".join(taxonomy.node(node_id).name for node_id in above)
            for text in self.sentences("taxonomy", name=leaf.name, path=path):
                yield Prompt(text=text, kind="taxonomy")

    def collect(self, taxonomy: Taxonomy, replies: Iterable[tuple[Query, str]]) -> PromptSet:
        """The prompt set that the replies make; a class without any text is not in it.

        Raises
        ------
        PromptError
            For replies to queries that this member does not ask of this taxonomy.
        """
        made = super().collect(taxonomy, replies)
        if not self.params.equalize:
            return made
        equal = equalized(made, self.params.parts())
        before, after = (found.summary()["texts"] for found in (made, equal))
        lost = {**(made.provenance.model_extra or {}).get("answers_dropped", {})}
        lost["to equalize"] = before - after
        provenance = made.provenance.model_copy(update={"answers_dropped": lost})
        return equal.model_copy(update={"provenance": provenance})


def equalized(made: PromptSet, kinds: Iterable[str]) -> PromptSet:
    """The set with as many texts of each of these kinds as the class that has fewest, but any.

    Parameters
    ----------
    made : PromptSet
    kinds : iterable of str
        Texts of other kinds are all kept.

    Returns
    -------
    PromptSet
        Of each class and kind the first texts, in their order.

    Examples
    --------
    >>> one, two = (Prompt(text=text, kind="looks") for text in ("red", "big"))
    >>> made = equalized(PromptSet(classes={"a": [one, two], "b": [two]}), ["looks"])
    >>> made.texts("a"), made.texts("b")
    (['red'], ['big'])
    """
    counts = [Counter(prompt.kind for prompt in given) for given in made.classes.values()]
    least = {
        kind: min((count[kind] for count in counts if count[kind]), default=0) for kind in kinds
    }
    classes = {}
    for class_id, given in made.classes.items():
        taken: Counter[str] = Counter()
        kept = []
        for prompt in given:
            taken[prompt.kind] += 1
            if taken[prompt.kind] <= least.get(prompt.kind, len(given)):
                kept.append(prompt)
        classes[class_id] = tuple(kept)
    return made.model_copy(update={"classes": classes})
