"""Members whose replies are lists, of which every item becomes texts."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable

from byname.prompts.replies import parse_list
from byname.prompts.wording import WordedMember
from byname.promptset import Prompt, PromptSet
from byname.queries import Query
from byname.taxonomy import Node, Taxonomy

__all__ = ["ListMember"]


class ListMember(WordedMember):
    """Query member that turns each item of a reply into prompts of the query's class.

    A subclass defines ``queries`` and ``prompts``, and may define ``always`` and ``items``. Of the
    texts of a class, the first of equal ones is kept.
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
        for query, reply in answers:
            items = self.items(taxonomy, query, reply)
            lost["no list"] += not items
            for item in items:
                for prompt in self.prompts(taxonomy, query, item):
                    made[query.class_id].setdefault(prompt.text, prompt)
        if lost.total():
            provenance = provenance.model_copy(update={"answers_dropped": dict(lost)})
        kept = {class_id: tuple(texts.values()) for class_id, texts in made.items() if texts}
        return PromptSet(classes=kept, provenance=provenance)
