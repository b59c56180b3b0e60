"""How ``atg`` asks, and the sentences that it puts answers into."""

from __future__ import annotations

import re
from typing import Any, Self

import pydantic
from pydantic import BaseModel, ConfigDict

from byname.errors import PromptError
from byname.prompts.wording import Question, default_wording, merge_wording

__all__ = ["KINDS", "ONE_TO_ONE", "SLOT", "ATGWording", "atg_wording"]

ONE_TO_ONE = "one-to-one"
KINDS = {"attributes": "attribute", "analogous": "analogous", "synonyms": "synonym"}
SLOT = re.compile(r"\{(name|item|other)\}")
_DEFAULT = object()


class ATGWording(BaseModel):
    """Questions by kind, and the sentences that an answer is put into.

    A question holds ``{name}``, and that of "one-to-one" also ``{other}``; a sentence holds
    ``{item}``, and may hold ``{name}`` and, for "one-to-one", ``{other}``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    questions: dict[str, Question]
    sentences: dict[str, tuple[str, ...]]

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Self:
        for kind in (*KINDS.values(), ONE_TO_ONE):
            pair = {"other"} if kind == ONE_TO_ONE else set()
            if kind not in self.questions or not self.sentences.get(kind, kind == "synonym"):
                raise ValueError(f"it has no question or no sentence for {kind!r}")
            slots = set(SLOT.findall(self.questions[kind].text))
            if slots != {"name", *pair}:
                raise ValueError(f"the question for {kind!r} holds {sorted(slots)}")
            for text in self.sentences.get(kind, ()):
                if not {"item"} <= set(SLOT.findall(text)) <= {"item", "name", *pair}:
                    raise ValueError(f"the sentence {text!r} for {kind!r} must hold {{item}}")
        return self


def atg_wording(raw: Any = _DEFAULT, source: str = "the wording") -> ATGWording:
    """The wording that comes with byname, with a user's changes laid over it.

    Parameters
    ----------
    raw : object, optional
        What JSON gave: ``{"questions": {kind: {"text": ...}}, "sentences": {kind: [...]}}``; what
        is left out stays. See :func:`byname.prompts.wording.merge_wording`.
    source : str
        Named in errors.

    Raises
    ------
    PromptError
        For another shape, unknown kinds, and placeholders that are missing or unknown.

    Examples
    --------
    >>> sorted(atg_wording().questions)
    ['analogous', 'attribute', 'one-to-one', 'synonym']
    """
    found = default_wording("atg") if raw is _DEFAULT else merge_wording("atg", raw, source)
    try:
        return ATGWording.model_validate(found.model_dump())
    except pydantic.ValidationError as error:
        asked = f"use the wording in {source} for 'atg'"
        seen = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise PromptError(asked, seen, "Write {item} in each sentence.") from None
