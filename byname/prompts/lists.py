"""Members whose replies are lists, of which every item becomes texts."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any

from byname.prompts.replies import parse_list
from byname.prompts.wording import WordedMember
from byname.promptset import Prompt, PromptSet
from byname.queries import Query
from byname.taxonomy import Node, Taxonomy

__all__ = ["ListMember"]

LONGEST = 1000  # characters of an item


class ListMember(WordedMember):
    """Query member that turns each item of a reply into prompts of the query's class.

    A subclass defines ``queries`` and ``prompts``, and may define ``always`` and ``items``. Of the
    texts of a class, the first of equal ones is kept.

    Items of more than 1,000 characters are cut at a word, and dropped where none ends before. The
    provenance counts the first as ``answers_cut``, the others as "too long" in ``answers_dropped``.
    """

    @abstractmethod
    def prompts(self, taxonomy: Taxonomy, query: Query, item: str) -> Iterable[Prompt]:
        """What one answer to a query says of its class."""
        raise TypeError(f"{type(self).__name__} defines no prompts()")

    def always(self, taxonomy: Taxonomy, leaf: Node) -> Iterable[Prompt]:
        """Texts of a class that nobody is asked for; they come first."""
        return ()

    def items(self, taxonomy: Taxonomy, query: Query, reply: str) -> list[str]:
        """The answers that a reply holds."""
        return parse_list(reply)

    def repeats(self, query: Query, text: str) -> Hashable:
        """A list may answer several questions: only the same answer to the same one repeats."""
        return query.id, text

    def problem(self, query: Query, reply: str) -> str:
        """What is wrong with a reply, "" for nothing: refused, empty, or without any item."""
        return super().problem(query, reply) or ("" if parse_list(reply) else "no list")

    def collect(self, taxonomy: Taxonomy, replies: Iterable[tuple[Query, str]]) -> PromptSet:
        """The prompt set that the replies make; a class without any text is not in it.

        Raises
        ------
        PromptError
            For replies to queries that this member does not ask of this taxonomy.
        """
        answers, provenance = self.answers(taxonomy, replies)
        made: dict[str, dict[str, Prompt]] = {
            leaf.id: {prompt.text: prompt for prompt in self.always(taxonomy, leaf)}
            for leaf in taxonomy.classes
            if self.only is None or leaf.id in self.only
        }
        lost: Counter[str] = Counter()
        cut = 0
        for query, reply in answers:
            items = self.items(taxonomy, query, reply)
            lost["no list"] += not items
            for item in items:
                short = _shortened(item)
                lost["too long"] += not short
                cut += bool(short) and short != item
                for prompt in self.prompts(taxonomy, query, short) if short else ():
                    made[query.class_id].setdefault(prompt.text, prompt)
        told: dict[str, Any] = {"answers_dropped": dict(+lost)} if lost.total() else {}
        if told or cut:
            provenance = provenance.model_copy(update=told | ({"answers_cut": cut} if cut else {}))
        kept = {class_id: tuple(texts.values()) for class_id, texts in made.items() if texts}
        return PromptSet(classes=kept, provenance=provenance)


def _shortened(item: str) -> str:
    """The item cut at a word where it is too long; "" where no word ends early enough."""
    return item if len(item) <= LONGEST else item[: LONGEST + 1].rpartition(" ")[0].rstrip()
