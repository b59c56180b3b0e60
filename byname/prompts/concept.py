"""What all classes have in common, said before each name: "a photo of a bird: a crane."."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from byname.errors import RecipeError
from byname.prompts.replies import parse_list
from byname.prompts.wording import WordedMember, fill
from byname.promptset import Prompt, PromptSet
from byname.queries import Query, clean_reply, is_refusal
from byname.stage import register
from byname.taxonomy import Taxonomy

__all__ = ["Concept", "ConceptParams", "concept_of"]

MOST_WORDS = 5
_LONGEST = 80  # characters: five words that are words are shorter
_LEAD = re.compile(
    r"(?:(?:they|these|all of (?:them|these)|all)(?: all)? (?:are|have)(?: all)? "
    r"|(?:all )?(?:kinds?|types?|sorts?) of |(?:an?|the|all) )+"
)
_NOTHING = re.compile(r"(?:nothing|none|n/a)\b.*")
_MARKS = re.compile(r"\*\*|__|`|^[-*+•#>\s]+|^\(?\d{1,3}[.)]\s+")
_EDGES = " \t\"'“”‘’«».,;:!?()[]{}"


@dataclass(frozen=True)
class ConceptParams:
    """Which names are shown, and how a text is made with a concept and without one."""

    seed: int = 0
    n: int = 25
    template: str = "a photo of a {concept}: a {name}."
    plain: str = "a photo of a {name}."

    def __post_init__(self) -> None:
        if self.n < 1:
            raise RecipeError(
                f"use 'concept[n={self.n}]'", "no class would be shown", "Give 1 or more; 25."
            )
        for field, slots in (("template", ("{concept}", "{name}")), ("plain", ("{name}",))):
            text = getattr(self, field)
            for slot in ("{concept}", "{name}"):
                found, wanted = text.count(slot), int(slot in slots)
                if found != wanted:
                    raise RecipeError(
                        f"use 'concept[{field}={text}]'",
                        f"it holds {slot} {found} times",
                        f"Write {' and '.join(slots)} once, and no other placeholder.",
                    )


@register
class Concept(WordedMember):
    """Ask once what all classes have in common, and say it before each name.

    Formula: with c the answer for a seeded choice of at most n names (:func:`concept_of`), one text
    a class, shared by all (template 0)::

        text(k) = "a photo of a {c}: a {name}."      c not empty
                = "a photo of a {name}."             c empty: nothing in common, no usable answer

    Equal names are shown once. The choice is the first n of the names in the order of the SHA-256
    of seed and name: random, and the same for any order of the classes, machine and version.
    ``only`` narrows the classes that get a text; the question is about all classes all the same.

    Number of queries: 1.

    Source: Roth et al., "Waffling around for Performance: Visual Classification with Random Words
    and Broad Concepts", ICCV 2023, arXiv 2306.07282 (its high-level concepts). The question is
    byname's own. The released code takes a last "s" off always; here it stays in "ss", "us" and
    "is", as in "glass" and "cactus".

    Parameters
    ----------
    seed : int
        Of the choice of names.
    n : int
        Names shown at most; 25 in the released code.
    template : str
        With {concept} and {name} once each.
    plain : str
        In place of it where there is no concept; with {name} once.
    wording : Wording, optional
        Of :func:`byname.prompts.wording.merge_wording`; not part of the spec.

    Examples
    --------
    >>> member, birds = Concept(), Taxonomy.from_names(["crane", "hen"])
    >>> [asked] = member.queries(birds)
    >>> member.collect(birds, [(asked, "Birds.")]).texts("hen")
    ['a photo of a bird: a hen.']
    """

    name = "concept"
    Params = ConceptParams
    params: ConceptParams
    per_class = False

    def shown(self, taxonomy: Taxonomy) -> list[str]:
        """The names that are asked about."""
        names = sorted({leaf.name for leaf in taxonomy.classes}, key=self._place)
        return names[: self.params.n]

    def _place(self, name: str) -> tuple[bytes, str]:
        packed = f"{self.params.seed}\n{name}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(packed).digest(), name

    def queries(self, taxonomy: Taxonomy) -> Iterator[Query]:
        """The one query; its class id is "", for it is about all."""
        names = self.shown(taxonomy)
        if names:
            yield self.ask("concept", "", names="; ".join(names))

    def asked(
        self, taxonomy: Taxonomy, replies: Mapping[str, Sequence[str]] | None = None
    ) -> Iterator[Query]:
        """The one query, whatever ``only`` is."""
        return self.queries(taxonomy)

    def problem(self, query: Query, reply: str) -> str:
        """What is wrong with a reply, "" for nothing: refused, empty, or too long a concept."""
        if wrong := super().problem(query, reply):
            return wrong
        phrase = _phrase(reply)
        return "empty" if not phrase else "" if _short(phrase) else "more than five words"

    def collect(self, taxonomy: Taxonomy, replies: Iterable[tuple[Query, str]]) -> PromptSet:
        """One text a class; the record holds the ``concept``, which may be "".

        Raises
        ------
        PromptError
            For replies to queries that this member does not ask of this taxonomy.
        """
        answers, provenance = self.answers(taxonomy, replies)
        found = [concept_of(reply) for _, reply in answers]
        concept = next(filter(None, found), "")
        said = [_phrase(reply) for _, reply in answers]
        wrong = {
            "more than five words": sum(not _short(phrase) for phrase in said),
            "no concept": sum(not phrase for phrase in said),
        }
        record: dict[str, Any] = {"concept": concept}
        if any(wrong.values()):
            record["answers_dropped"] = {reason: n for reason, n in wrong.items() if n}
        template = self.params.template if concept else self.params.plain
        classes = {
            leaf.id: (
                Prompt(
                    text=fill(template, concept=concept, name=leaf.name),
                    kind="concept",
                    about=concept,
                    template=0,
                ),
            )
            for leaf in taxonomy.classes
            if self.only is None or leaf.id in self.only
        }
        return PromptSet(classes=classes, provenance=provenance.model_copy(update=record))


def concept_of(reply: str) -> str:
    """The concept that a reply names, in lower case and without a plural s; "" for none.

    Of several lines the first that is no heading counts, of JSON the first text. Words around it
    ("They are all types of ...", an article, "Answer:") and characters that cannot be seen go.
    Whatever is then longer than five words or 80 characters, refused, or "nothing" is no concept.

    Examples
    --------
    >>> concept_of("They are all types of Birds."), concept_of("Answer:\\n**musical instruments**")
    ('bird', 'musical instrument')
    >>> concept_of("nothing"), concept_of("They all seem to live near to some water")
    ('', '')
    """
    phrase = _phrase(reply)
    if not _short(phrase) or _NOTHING.fullmatch(phrase):
        return ""
    plural = phrase.endswith("s") and not phrase.endswith(("ss", "us", "is", " s"))
    return phrase[:-1] if plural and phrase != "s" else phrase


def _phrase(reply: str) -> str:
    """What the reply says, without what stands around it; "" for a refusal."""
    text = clean_reply(reply)
    if is_refusal(text):
        return ""
    if text.startswith(("{", "[", "`")):
        lines = parse_list(text)
    else:
        stripped = (line.strip() for line in text.splitlines())
        lines = [line for line in stripped if line and not line.rstrip("*_ ").endswith(":")]
    line = _MARKS.sub("", lines[0] if lines else "")
    said = line.rpartition(": ")[2]
    visible = "".join(c if c.isprintable() else " " if c.isspace() else "" for c in said)
    plain = " ".join(visible.split()).strip(_EDGES).lower()
    return _LEAD.sub("", plain, count=1) if _LEAD.match(plain) else plain


def _short(phrase: str) -> bool:
    return len(phrase.split()) <= MOST_WORDS and len(phrase) <= _LONGEST
