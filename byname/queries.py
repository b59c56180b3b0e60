"""Prompts that somebody has to be asked for: the queries, and what becomes of the replies.

A member plans its queries without asking anyone; who answers (an LLM, a person, a file of stored
replies) is no matter of a stage.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from byname.errors import NeedsError, PromptError
from byname.promptset import Prompt, PromptSet, Provenance
from byname.stage import PromptMember
from byname.taxonomy import Node, Taxonomy

__all__ = ["Form", "Query", "QueryMember", "clean_reply", "is_refusal", "query_id"]

Form = Literal["text", "list", "two_lists"]
"""What a reply is to be: a text, a list of texts, or a list for A and one for B."""

# A last line that is nothing but the number of a list item: the reply was cut there.
_LONE_NUMBER = re.compile(r"(?:^|\n)[ \t]*\(?\d+[.)]*[ \t]*$")
# The same on one line: "Here are the differences: 1". An item such as "- horns: 1" is none.
_CUT_HEADING = re.compile(r"(?:^|\n)(?![ \t]*(?:[-*+_•]|\(?\d))[^\n]*:[ \t]*\(?1[.)]*$")
_REFUSAL = re.compile(
    r"(?:i['’]?m sorry|i am sorry|sorry[,.]|as an ai\b|unfortunately, i\b"
    r"|my apologies\b|apologies(?:[,.:;!]| (?:but|for)\b)|i apologi[sz]e\b"
    r"|i (?:don['’]?t|do not) know\b"
    r"|i(?: am|['’]?m) (?:unable|not able)\b|i can(?:no|['’])t\b)",
    re.IGNORECASE,
)
_OPENING = " \t\r\n\"'“*_"
_AFTER_NAME = re.compile(r"[\s,.;:!]*(?:but\s+)?")


def query_id(class_id: str, about: str, kind: str, text: str) -> str:
    """First 16 hexadecimal digits of the sha256 over the JSON list of the four.

    Examples
    --------
    >>> len(query_id("cat", "", "look", "What does a cat look like?"))
    16
    """
    packed = json.dumps([class_id, about, kind, text]).encode()
    return hashlib.sha256(packed).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Query:
    """One question about one class.

    Parameters
    ----------
    id : str
        :func:`query_id` of the next four: the same question has the same id everywhere.
    class_id : str
        Class that the reply becomes a text of; "" for a question about all classes at once.
    about : str
        Node that the class is compared with or seen as a kind of; "" for none.
    kind : str
        What sort of question; the reply's kind in the prompt set.
    text : str
        What to ask, as a single user message.
    stop : str, optional
        Text at which the reply ends; None for none.
    temperature : float
    max_tokens : int
    form : {"text", "list", "two_lists"}
        What the reply is to be; where a server can be held to a JSON schema, it is held to this.
    samples : int
        How many replies are wanted.
    """

    id: str
    class_id: str
    about: str
    kind: str
    text: str
    stop: str | None = None
    temperature: float = 1.0
    max_tokens: int = 150
    form: Form = "text"
    samples: int = 1

    @classmethod
    def make(
        cls,
        class_id: str,
        about: str,
        kind: str,
        text: str,
        *,
        stop: str | None = None,
        temperature: float = 1.0,
        max_tokens: int = 150,
        form: Form = "text",
        samples: int = 1,
    ) -> Query:
        """A query with its id.

        Examples
        --------
        >>> Query.make("cat", "", "look", "What does a cat look like?").max_tokens
        150
        """
        key = query_id(class_id, about, kind, text)
        return cls(key, class_id, about, kind, text, stop, temperature, max_tokens, form, samples)


def is_refusal(reply: str, names: Sequence[str] = ()) -> bool:
    """Whether a reply begins as those do that give no answer.

    Parameters
    ----------
    reply : str
    names : sequence of str
        What the class itself is called: "Sorry, Wrong Number" may open an answer.

    Examples
    --------
    >>> is_refusal("I'm sorry, but I can't help with that."), is_refusal("I see a red apple.")
    (True, False)
    >>> is_refusal("Sorry, Wrong Number is a film.", ["Sorry, Wrong Number"])
    False
    """
    text = reply.lstrip(_OPENING)
    if not _REFUSAL.match(text):
        return False
    for name in sorted(names, key=len, reverse=True):
        head, rest = text[: len(name)], text[len(name) :]
        begins = head.casefold() == name.casefold() and not rest[:1].isalnum()
        # Only of a name that reads as a refusal: a class "I" is no excuse for "I can't help".
        if begins and _REFUSAL.match(f"{name},"):
            return bool(_REFUSAL.match(_AFTER_NAME.sub("", rest, count=1)))
    return True


def clean_reply(reply: str, names: Sequence[str] = ()) -> str:
    """The reply without space around it, and without a list number at which it was cut.

    A heading of which only the number of the first item follows says nothing of the class, and
    becomes "". A number that ends one of ``names``, what the class itself is called, stays.

    Examples
    --------
    >>> clean_reply(" It is red. "), clean_reply("1"), clean_reply("It differs as follows:\\n\\n1")
    ('It is red.', '', '')
    >>> clean_reply("Here are the differences: 1")
    ''
    >>> clean_reply("A photo of Formula\\n1", ["Formula 1"])
    'A photo of Formula\\n1'
    """
    # Half a surrogate pair is no text that could be written.
    whole = reply.encode("utf-8", "replace").decode().strip()
    if any(_ends_in(whole, name) for name in names):
        return whole
    text = _CUT_HEADING.sub("", whole).rstrip()
    cut = _LONE_NUMBER.sub("", text).rstrip()
    return "" if cut != text and cut.endswith(":") else cut


def _ends_in(text: str, name: str) -> bool:
    """Whether the last words are a name that ends in a number; one of a digit or two is no sign."""
    if not name[-1:].isdigit() or (len(name) < 3 and name.isdigit()):
        return False
    tail = " ".join(text[-2 * len(name) - 50 :].split()).rstrip(" .)").casefold()
    before = tail.removesuffix(name.casefold())
    return before != tail and not before[-1:].isalnum()


def _said(node: Node) -> tuple[str, ...]:
    """What a reply may call a class."""
    told = (node.name, *node.aliases)
    spaced = (" ".join(name.replace("_", " ").split()) for name in told)
    return tuple(dict.fromkeys(name for name in (*told, *spaced) if name))


class QueryMember(PromptMember):
    """Member of the prompts stage whose texts are replies to its queries.

    A subclass defines ``queries``; ``collect`` makes the prompt set of them and their replies.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"replies"})
    per_class: ClassVar[bool] = True
    """Whether every class is asked about, whatever the classes are."""
    only: frozenset[str] | None = None
    """Ids of the classes to ask about; None for all."""
    _names: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    @abstractmethod
    def queries(self, taxonomy: Taxonomy) -> Iterator[Query]:
        """Every query, class by class; lazy, and the same for the same taxonomy."""
        raise TypeError(f"{type(self).__name__} defines no queries()")

    def follow_ups(
        self, taxonomy: Taxonomy, replies: Mapping[str, Sequence[str]]
    ) -> Iterator[Query]:
        """Queries that need the replies to others: ``replies`` holds them by query id.

        All that can be asked so far, in a fixed order, those already answered among them.
        """
        return iter(())

    def asked(
        self, taxonomy: Taxonomy, replies: Mapping[str, Sequence[str]] | None = None
    ) -> Iterator[Query]:
        """The queries, of the classes in ``only``, and those that follow from the replies."""
        self.meet(taxonomy)
        every = self.queries(taxonomy)
        if replies:
            every = chain(every, self.follow_ups(taxonomy, replies))
        chosen = self.only
        return every if chosen is None else (q for q in every if q.class_id in chosen)

    def meet(self, taxonomy: Taxonomy) -> None:
        """Learn what the classes are called, for replies are judged by it."""
        self._names = {leaf.id: _said(leaf) for leaf in taxonomy.classes}

    def names(self, query: Query) -> tuple[str, ...]:
        """What the class of a query is called, as far as its taxonomy was met."""
        return self._names.get(query.class_id, ())

    def problem(self, query: Query, reply: str) -> str:
        """What is wrong with a reply, so that it is worth to ask again; "" for nothing."""
        names = self.names(query)
        text = clean_reply(reply, names)
        return "empty" if not text else "refusal" if is_refusal(text, names) else ""

    @abstractmethod
    def use_wording(self, raw: Any, source: str) -> None:
        """Ask in a user's words; ``raw`` is what JSON gave, ``source`` names it in errors."""
        raise TypeError(f"{type(self).__name__} defines no use_wording()")

    def remarks(self, taxonomy: Taxonomy) -> list[str]:
        """What the options do or would do to the number of queries, one line each."""
        return []

    def repeats(self, query: Query, text: str) -> Hashable:
        """Key of a cleaned reply: of the replies of a class with one key, the first is kept."""
        return text

    def level_of(self, taxonomy: Taxonomy, query: Query) -> int:
        """Level of a hierarchy of texts that the reply belongs to; -1 for none."""
        return -1

    def generate(self, taxonomy: Taxonomy) -> PromptSet:
        """Refuse: the texts have to be asked for.

        Raises
        ------
        NeedsError
            Always, saying how to get them.
        """
        raise NeedsError(
            f"make the prompts '{self.spec}'",
            "their texts are replies of an LLM, which this run does not have",
            f"Give a prompt file with --prompts FILE.json; 'byname prompts make --style "
            f"{self.name} --classes CLASSES --emit FILE.jsonl' writes the queries to ask.",
        )

    def collect(self, taxonomy: Taxonomy, replies: Iterable[tuple[Query, str]]) -> PromptSet:
        """The prompt set that the replies make: each reply that :meth:`answers` keeps is a text.

        Parameters
        ----------
        taxonomy : Taxonomy
        replies : iterable of (Query, str)

        Returns
        -------
        PromptSet
            A class without any text left is not in it.

        Raises
        ------
        PromptError
            For replies to queries that this member does not ask of this taxonomy.
        """
        answers, provenance = self.answers(taxonomy, replies)
        classes: dict[str, list[Prompt]] = {node_id: [] for node_id in taxonomy.class_ids}
        for query, text in answers:
            level = self.level_of(taxonomy, query)
            made = Prompt(text=text, kind=query.kind, about=query.about, level=level)
            classes[query.class_id].append(made)
        kept = {node_id: tuple(prompts) for node_id, prompts in classes.items() if prompts}
        return PromptSet(classes=kept, provenance=provenance)

    def answers(
        self, taxonomy: Taxonomy, replies: Iterable[tuple[Query, str]]
    ) -> tuple[list[tuple[Query, str]], Provenance]:
        """The replies that are of use, and the record of what was asked and dropped.

        Replies are cleaned by :func:`clean_reply`; empty ones, refusals and repetitions within a
        class (:meth:`repeats`) are dropped and counted in the provenance. They come in the order
        of the queries, whatever the order they are given in; several replies to one query are all
        kept.

        Raises
        ------
        PromptError
            For replies to queries that this member does not ask of this taxonomy.
        """
        self.meet(taxonomy)
        given: dict[str, list[str]] = {}
        for query, reply in replies:
            given.setdefault(query.id, []).append(reply)
        known, unknown = dict(given), set(given)
        planned, dropped = hashlib.sha256(), Counter(empty=0, number=0, refusal=0, duplicate=0)
        kept: list[tuple[Query, str]] = []
        seen: set[tuple[str, Hashable]] = set()
        n_queries = 0
        for query in self.asked(taxonomy, known):
            n_queries += 1
            planned.update(query.id.encode() + b"\n")
            unknown.discard(query.id)
            names = self.names(query)
            for reply in known.get(query.id, ()):
                text = clean_reply(reply, names)
                if not text:
                    dropped["number" if reply.strip() else "empty"] += 1
                elif is_refusal(text, names):
                    dropped["refusal"] += 1
                elif (key := (query.class_id, self.repeats(query, text))) in seen:
                    dropped["duplicate"] += 1
                else:
                    seen.add(key)
                    kept.append((query, text))
        if unknown:
            first = next(key for key in given if key in unknown)
            raise PromptError(
                f"collect the replies for '{self.spec}'",
                f"{len(unknown)} of them answer no query of these classes, first {first}",
                "Use the classes, options and wording that the queries were written with.",
            )
        provenance = Provenance.model_validate(
            {
                "generator": self.spec,
                "queries_sha256": planned.hexdigest(),
                "queries": n_queries,
                "dropped": dict(dropped),
            }
        )
        return kept, provenance
