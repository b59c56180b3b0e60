"""Whole sentences about each class, several to a question."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from byname.errors import RecipeError
from byname.prompts.replies import parse_list
from byname.prompts.wording import WordedMember, shown_names, with_article
from byname.promptset import Prompt, PromptSet
from byname.queries import Query
from byname.sentences import sentence_ends
from byname.stage import register
from byname.taxonomy import Taxonomy

__all__ = ["CuPL", "CuPLParams", "first_sentence"]

VARIANTS = {
    "base": ("look", "meaning", "traits"),
    "full": ("appearance", "recognition", "drawing", "web_photo", "caption"),
}
_ITEM = re.compile(r"(?:(?:[-*+•]|\(?\d{1,3}[.)])\s+)+")
_HEAD = re.compile(r"#{1,6}\s+\S.*|(\*\*|__)(?:(?!\1).)+\1")
_JSON = re.compile(r"(?:```\w*\s*)?[\[{]\s*[\"\[{]")
_QUOTES = ' \t"“”*_`'
_CLOSING = "\"'”’)]*_"
_ENDS = (".", "!", "?", "…", "。", "！", "？")


@dataclass(frozen=True)
class CuPLParams:
    """Which questions, how many replies to each, and what they say of the classes."""

    variant: str = "base"
    samples: int | None = None
    domain: str = ""
    compat: bool = False

    def __post_init__(self) -> None:
        asked = f"use 'cupl[variant={self.variant}]'"
        if self.variant not in VARIANTS:
            known = " and ".join(VARIANTS)
            raise RecipeError(asked, f"there is no variant '{self.variant}'", f"Known: {known}.")
        if self.samples is not None and not 1 <= self.samples <= 1000:
            raise RecipeError(asked, f"samples is {self.samples}", "Give 1 to 1000, or none.")
        if self.domain and self.variant == "base":
            seen = f"its questions have no place for the domain '{self.domain}'"
            raise RecipeError(asked, seen, "Use variant=full, or leave domain out.")


@register
class CuPL(WordedMember):
    """Ask for sentences that describe a class, and take them as they are.

    Formula: for each class, each question of the variant is asked for several replies, of which
    each becomes one text: its first sentence (:func:`first_sentence`). The kind of a text is that
    of its question::

        base   look, meaning, traits                                      3 questions
        full   appearance, recognition, drawing, web_photo, caption       5 questions

    The questions end at a full stop; that of a class whose name holds one ("St. Bernard") does not.
    Repeated sentences of a class are dropped. Texts are meant for ``weigh mean``: the unit mean of
    unit vectors.

    Number of queries: 3 K (base) or 5 K (full), of 10 replies each: 30 or 50 texts a class.

    Source: Pratt, Covert, Liu & Farhadi, "What does a platypus look like? Generating customized
    prompts for zero-shot image classification", ICCV 2023, arXiv 2209.03320. Temperature 0.99, 50
    tokens, stop at a full stop and 10 replies are the paper's; the questions are byname's own, so
    results with the original wording differ. The paper's full variant has other questions for
    each data set; here they are the same, and name the ``domain``.

    Parameters
    ----------
    variant : str
        ``base`` or ``full``.
    samples : int, optional
        Replies to each question; None for as many as the wording says, which is 10.
    domain : str
        What the classes are kinds of, for the questions of ``full``: "food", "bird".
    compat : bool
        "an" only before the capitals A, E, I, O and U, as in the released code: "a umbrella".
    wording : Wording, optional
        Of :func:`byname.prompts.wording.merge_wording`; not part of the spec.

    Examples
    --------
    >>> member, owls = CuPL(samples=2), Taxonomy.from_names(["owl"])
    >>> first = next(member.queries(owls))
    >>> first.samples, "an owl" in first.text
    (2, True)
    >>> replies = [(first, "An owl has a flat face"), (first, "An owl has a flat face. It ")]
    >>> member.collect(owls, replies).texts("owl")
    ['An owl has a flat face.']
    """

    name = "cupl"
    Params = CuPLParams
    params: CuPLParams

    def queries(self, taxonomy: Taxonomy) -> Iterator[Query]:
        """The questions of each class in turn; lazy."""
        samples, domain = self.params.samples, self.params.domain.strip()
        said = "".join(self.sentences("domain", item=domain)[:1]) if domain else ""
        for class_id, name in shown_names(taxonomy).items():
            a_name = _article_of_letters(name) if self.params.compat else with_article(name)
            for kind in VARIANTS[self.params.variant]:
                query = self.ask(kind, class_id, name=name, a_name=a_name, domain=said)
                yield query if samples is None else dataclasses.replace(query, samples=samples)

    def problem(self, query: Query, reply: str) -> str:
        """What is wrong with a reply, "" for nothing: refused, empty, or without a sentence."""
        said = first_sentence(reply, self.names(query))
        return super().problem(query, reply) or ("" if said else "no sentence")

    def repeats(self, query: Query, text: str) -> Hashable:
        """Replies repeat when their first sentences do."""
        return first_sentence(text, self.names(query)) or (query.id, text)

    def collect(self, taxonomy: Taxonomy, replies: Iterable[tuple[Query, str]]) -> PromptSet:
        """The first sentence of each reply; a class without any is not in it.

        Raises
        ------
        PromptError
            For replies to queries that this member does not ask of this taxonomy.
        """
        answers, provenance = self.answers(taxonomy, replies)
        made: dict[str, list[Prompt]] = {class_id: [] for class_id in taxonomy.class_ids}
        lost = 0
        for query, reply in answers:
            if text := first_sentence(reply, self.names(query)):
                made[query.class_id].append(Prompt(text=text, kind=query.kind))
            else:
                lost += 1
        if lost:
            dropped = {"answers_dropped": {"no sentence": lost}}
            provenance = provenance.model_copy(update=dropped)
        kept = {class_id: tuple(texts) for class_id, texts in made.items() if texts}
        return PromptSet(classes=kept, provenance=provenance)


def first_sentence(reply: str, names: Sequence[str] = ()) -> str:
    """The reply up to its first full stop, on one line; "" where it says nothing.

    Lines that end in a colon introduce, and are left out, as are headings that something follows;
    of several paragraphs, or items of a list, the first counts. An item of a word or two is no
    sentence. The full stop at which a server ended the reply is put back. Of JSON, the first text
    counts.

    Parameters
    ----------
    reply : str
    names : sequence of str
        What the class is called: a full stop in "St. Bernard" ends no sentence.

    Examples
    --------
    >>> first_sentence("A wren is about 3.5 inches long. It sings")
    'A wren is about 3.5 inches long.'
    >>> first_sentence("Here you are:\\n\\n1. A wren is small\\n   and brown\\n2. It sings")
    'A wren is small and brown.'
    >>> first_sentence("**Wren**\\n\\nA wren is small.")
    'A wren is small.'
    """
    text = reply.strip()
    if _JSON.match(text):
        text = next(iter(parse_list(text)), "")
    lines: list[str] = []
    heading, listed = "", False
    for line in map(str.strip, text.splitlines()):
        item = _ITEM.match(line)
        if lines and (not line or item):
            break
        if line.endswith((":", ":**", ":__")):
            lines, heading = [], ""
        elif not lines and _heads(line):
            heading = heading or line.lstrip("# ")
        elif line:
            listed = listed or bool(item)
            lines.append(line[item.end() :] if item else line)
    text = " ".join(" ".join(lines or [heading]).split())
    if listed and text.isascii() and len(text.split()) < 3:
        return ""
    ends = sentence_ends(text, names)
    stop = next(
        (i for i in ends if text[max(i - 9, 0) : i].rstrip(_CLOSING).endswith((".", "。"))), None
    )
    text = text[:stop].strip(_QUOTES)
    if not any(letter.isalpha() for letter in text):
        return ""
    return text if text.endswith(_ENDS) else f"{text.rstrip(',;:-–— ')}."


def _heads(line: str) -> bool:
    """Whether a line of markdown is a heading: "# Wren" or "**Wren**", and no bold sentence."""
    bold = line.startswith(("**", "__"))
    return bool(_HEAD.fullmatch(line)) and not (bold and line.rstrip("*_ ").endswith(_ENDS))


def _article_of_letters(name: str) -> str:
    return f"{'an' if name[:1] in tuple('AEIOU') else 'a'} {name}"
