"""How questions are worded, by data files that a user can replace in part."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from typing import Annotated, Any

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from byname.errors import PromptError
from byname.queries import Form, Query, QueryMember
from byname.taxonomy import Node, Taxonomy

__all__ = [
    "Question",
    "WordedMember",
    "Wording",
    "default_wording",
    "fill",
    "merge_wording",
    "refuse_halves",
    "shown_names",
    "with_article",
    "with_parent",
]

_SLOT = re.compile(r"\{([a-z_]+)\}")
# By sound and not by letter: "an hour", "a unicorn".
_AN = re.compile(
    r"(?!eu|uni(?![mn])|us[aeu]|uk|ur[ai]n|ut[eio]|one\b|once)[aeiou]|hour|honest|heir|hono", re.I
)


class Question(BaseModel):
    """How one kind of question is worded, and how it is to be asked.

    ``text`` holds placeholders such as ``{name}``, by the kind of question; other braces are plain
    text. ``alone`` is the text of a haprompts path question for a class right below the root.
    ``form`` says what the reply is to be, and ``samples`` how many replies to ask for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str
    alone: str = ""
    stop: Annotated[str, Field(min_length=1)] | None = None
    temperature: float = Field(default=1.0, ge=0, le=2, strict=True)
    max_tokens: int = Field(default=150, ge=1, strict=True)
    form: Form = "text"
    samples: int = Field(default=1, ge=1, le=1000, strict=True)


class Wording(BaseModel):
    """Questions by kind, and by kind the sentences that an answer is put into."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    questions: dict[str, Question]
    sentences: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = {}


@cache
def default_wording(style: str) -> Wording:
    """The wording of a style that comes with byname: ``prompts/data/<style>.json``.

    Examples
    --------
    >>> "{name}" in default_wording("atg").questions["attribute"].text
    True
    """
    file = resources.files("byname.prompts") / "data" / f"{style}.json"
    return Wording.model_validate(json.loads(file.read_text(encoding="utf-8")))


def merge_wording(style: str, raw: Any, source: str = "the wording") -> Wording:
    """The wording of a style with a user's changes laid over it.

    Parameters
    ----------
    style : str
    raw : object
        What JSON gave: ``{"questions": {kind: {"text": ...}}, "sentences": {kind: [...]}}``, or
        texts in place of the inner objects. What is left out stays. A question holds the same
        placeholders as the one it replaces, a sentence none that the style's own sentences of
        that kind do not hold.
    source : str
        Named in errors.

    Raises
    ------
    PromptError
        For another shape, unknown kinds, lists without any sentence, and placeholders that are
        missing or unknown.

    Examples
    --------
    >>> raw = {"questions": {"synonym": "Other words for {name}?"}}
    >>> merge_wording("atg", raw).questions["synonym"].text
    'Other words for {name}?'
    """
    base, asked = default_wording(style), f"use the wording in {source} for '{style}'"
    shape = 'Give {"questions": {kind: {"text": ...}}, "sentences": {kind: [...]}}.'
    if not isinstance(raw, dict) or not raw or set(raw) - {"questions", "sentences"}:
        raise PromptError(asked, "it is not an object with 'questions' or 'sentences'", shape)
    refuse_halves(raw, asked)
    merged: dict[str, dict[str, Any]] = base.model_dump()
    for part, known in merged.items():
        given = raw.get(part, {})
        if not isinstance(given, dict):
            raise PromptError(asked, f"'{part}' is no object", shape)
        if unknown := [key for key in given if key not in known]:
            seen = f"there is no kind {unknown[0]!r} in '{part}'"
            raise PromptError(asked, seen, f"Kinds: {', '.join(known) or 'none'}.")
        for kind, value in given.items():
            if part == "sentences":
                known[kind] = [value] if isinstance(value, str) else value
            elif isinstance(value, str):
                known[kind] = {**known[kind], "text": value}
            else:
                known[kind] = {**known[kind], **value} if isinstance(value, dict) else value
    if not any(raw.values()):
        raise PromptError(asked, "it changes nothing", shape)
    try:
        made = Wording.model_validate(merged)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = "/".join(map(str, first["loc"]))
        raise PromptError(asked, f"at {where}: {first['msg']}", shape) from None
    _check_slots(asked, base, made)
    return made


def refuse_halves(raw: Any, asked: str) -> None:
    """Refuse texts with half a character, which no file can hold, or U+FFFD in place of one.

    Raises
    ------
    PromptError

    Examples
    --------
    >>> refuse_halves({"text": "half"}, "use the wording")
    """
    if found := re.search(
        "[\ud800-\udfff\ufffd]", json.dumps(raw, ensure_ascii=False, default=str)
    ):
        raise PromptError(
            asked,
            f"it holds U+{ord(found[0]):04X}, which is no whole character",
            "Write the whole character, or save the file as UTF-8.",
        )


def _check_slots(asked: str, base: Wording, made: Wording) -> None:
    for kind, question in made.questions.items():
        wanted = set(_SLOT.findall(base.questions[kind].text))
        if set(_SLOT.findall(question.text)) & (wanted | _known(base)) != wanted:
            raise PromptError(
                asked,
                f"the question {kind!r} must hold {_braced(wanted)} and no other placeholder",
                "Write each where its value goes.",
            )
    for kind, sentences in made.sentences.items():
        allowed = set().union(*(_SLOT.findall(text) for text in base.sentences[kind])) | {"name"}
        needed = {"item"} & allowed
        for text in sentences:
            if not needed <= set(_SLOT.findall(text)) & (allowed | _known(base)) <= allowed:
                raise PromptError(
                    asked,
                    f"the sentence {text!r} for {kind!r} must hold {_braced(needed or {'name'})}",
                    f"It may hold {_braced(allowed)}.",
                )


def _known(base: Wording) -> set[str]:
    """Every placeholder of the style: anything else in braces is plain text."""
    texts = [question.text for question in base.questions.values()]
    texts += [text for given in base.sentences.values() for text in given]
    return {slot for text in texts for slot in _SLOT.findall(text)}


def _braced(slots: set[str]) -> str:
    return " and ".join(f"{{{slot}}}" for slot in sorted(slots)) or "none"


def fill(text: str, /, **values: str) -> str:
    """The text with values for its placeholders, in one pass; what has no value stays.

    No str.format: names, wordings and answers are other people's text.

    Examples
    --------
    >>> fill("a {name} of {x}, {{}}", name="{x}")
    'a {x} of {x}, {{}}'
    """
    return _SLOT.sub(lambda found: values.get(found[1], found[0]), text)


def with_article(name: str) -> str:
    """The name with "a" or "an", by sound.

    Examples
    --------
    >>> [with_article(n) for n in ("umbrella", "unicorn", "hourglass", "Owl", "cat")]
    ['an umbrella', 'a unicorn', 'an hourglass', 'an Owl', 'a cat']
    """
    return f"{'an' if _AN.match(name) else 'a'} {name}"


def with_parent(taxonomy: Taxonomy, node: Node) -> str:
    """The name, with that of the parent in brackets where there is one below the root.

    Examples
    --------
    >>> tree = Taxonomy([Node("b", "bird"), Node("x", "crane", "b"), Node("t", "tool")])
    >>> with_parent(tree, tree.node("x")), with_parent(tree, tree.node("b"))
    ('crane (bird)', 'bird')
    """
    above = taxonomy.ancestors(node.id)
    return f"{node.name} ({taxonomy.node(above[0]).name})" if above else node.name


def shown_names(taxonomy: Taxonomy) -> dict[str, str]:
    """What each class is called in a question: with its parent where the name is not unique.

    Examples
    --------
    >>> shown_names(Taxonomy.from_names(["cat", "dog"]))
    {'cat': 'cat', 'dog': 'dog'}
    """
    repeated = taxonomy.duplicates()
    return {
        node.id: with_parent(taxonomy, node) if node.name in repeated else node.name
        for node in taxonomy.classes
    }


class WordedMember(QueryMember):
    """Query member whose questions and sentences are those of a data file of its own name."""

    def __init__(self, params: Any = None, *, wording: Wording | None = None, **kw: Any) -> None:
        super().__init__(params, **kw)
        self.wording = wording or default_wording(self.name)

    def use_wording(self, raw: Any, source: str) -> None:
        """Ask in a user's words; see :func:`merge_wording`."""
        self.wording = merge_wording(self.name, raw, source)

    def ask(self, kind: str, class_id: str, about: str = "", **values: str) -> Query:
        """The query of a kind, its placeholders filled."""
        question = self.wording.questions[kind]
        return Query.make(
            class_id,
            about,
            kind,
            fill(question.text, **values),
            # The reply would end inside of a name that holds the stop: "A St" of "St. Bernard".
            stop=None
            if question.stop and question.stop in values.get("name", "")
            else question.stop,
            temperature=question.temperature,
            max_tokens=question.max_tokens,
            form=question.form,
            samples=question.samples,
        )

    def sentences(self, kind: str, **values: str) -> list[str]:
        """The sentences of a kind, filled with an answer."""
        return [fill(text, **values) for text in self.wording.sentences.get(kind, ())]
