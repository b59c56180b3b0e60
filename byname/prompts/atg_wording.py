"""How ``atg`` asks, and the sentences that it puts answers into."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Self

import pydantic
from pydantic import BaseModel, ConfigDict

from byname.errors import PromptError
from byname.prompts.wording import Question

__all__ = ["KINDS", "ONE_TO_ONE", "SLOT", "ATGWording", "atg_wording"]

ONE_TO_ONE = "one-to-one"
KINDS = {"attributes": "attribute", "analogous": "analogous", "synonyms": "synonym"}
SLOT = re.compile(r"\{(name|item|other)\}")


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


def atg_wording(raw: Mapping[str, Any] | None = None) -> ATGWording:
    """The wording that comes with byname, with a user's changes laid over it.

    Parameters
    ----------
    raw : mapping, optional
        ``{"questions": {kind: {"text": ...}}, "sentences": {kind: [...]}}``; what is left out
        stays.

    Raises
    ------
    PromptError
        Where a placeholder or a part is missing.

    Examples
    --------
    >>> sorted(atg_wording().questions)
    ['analogous', 'attribute', 'one-to-one', 'synonym']
    """
    base = _default_wording()
    changes = dict(raw or {})
    try:
        merged = {
            **base,
            **{part: {**base.get(part, {}), **dict(changes[part])} for part in changes},
        }
        return ATGWording.model_validate(merged)
    except (pydantic.ValidationError, TypeError, ValueError) as error:
        seen = error.errors()[0]["msg"] if isinstance(error, pydantic.ValidationError) else error
        raise PromptError(
            "use the wording for 'atg'",
            str(seen),
            'Give {"questions": {kind: {"text": ...}}, "sentences": {kind: [...]}}.',
        ) from None


@cache
def _default_wording() -> dict[str, Any]:
    file = resources.files("byname.prompts") / "data" / "atg.json"
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return loaded
