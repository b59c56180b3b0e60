"""Two groups of texts for every class: normal and anomalous, or present and absent."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

from byname.errors import PromptError, RecipeError
from byname.prompts.wording import fill, refuse_halves, with_article
from byname.promptset import Prompt, PromptSet, Provenance
from byname.stage import PromptMember, register
from byname.taxonomy import Taxonomy, clean_text

__all__ = ["GROUPS", "States", "StatesParams", "default_states", "merge_states"]

SetName = Literal["anomaly", "presence"]
Lists = Mapping[str, tuple[str, ...]]
GROUPS: dict[str, tuple[str, str]] = {
    "anomaly": ("normal", "anomalous"),
    "presence": ("present", "absent"),
}
"""The two kinds of each set, in the order of their texts."""
_STATE = re.compile(r"\{(?:a_)?state\}")
_NAME = re.compile(r"\{name\}")


@dataclass(frozen=True)
class StatesParams:
    """Which two states: ``anomaly`` (normal, anomalous) or ``presence`` (present, absent)."""

    set: SetName = "anomaly"

    def __post_init__(self) -> None:
        if self.set not in get_args(SetName):
            raise RecipeError(
                f"use the states '{self.set}'",
                "there is no such set",
                f"Known: {', '.join(get_args(SetName))}.",
            )


@cache
def default_states() -> Mapping[str, Lists]:
    """The sets of states that come with byname, and their templates.

    Examples
    --------
    >>> default_states()["presence"]["absent"]
    ('no {name}', 'without {name}')
    """
    file = resources.files("byname.prompts") / "data" / "states.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    return {name: {k: tuple(v) for k, v in lists.items()} for name, lists in raw.items()}


def merge_states(raw: Any, source: str = "the wording") -> dict[str, Lists]:
    """The states with a user's lists in the place of some of them.

    Parameters
    ----------
    raw : object
        What JSON gave, shaped as ``prompts/data/states.json``: ``{"anomaly": {"templates": [...],
        "normal": [...], "anomalous": [...]}, "presence": {"templates", "present", "absent"}}``.
        What is left out stays. Each state holds {name} once; each template {state}, or {a_state}
        for a state with its article, once; other braces are plain text.
    source : str
        Named in errors.

    Raises
    ------
    PromptError
        For another shape, unknown sets and lists, empty lists and texts, placeholders that are
        missing, and texts that stand twice, be it in both groups.

    Examples
    --------
    >>> merge_states({"anomaly": {"anomalous": ["cracked {name}"]}})["anomaly"]["anomalous"]
    ('cracked {name}',)
    """
    asked = f"use the wording in {source} for 'states'"
    shape = 'Give {"anomaly": {"templates": [...], "normal": [...], "anomalous": [...]}}.'
    base = default_states()
    if not isinstance(raw, dict) or not raw:
        raise PromptError(asked, "it is not an object with 'anomaly' or 'presence'", shape)
    refuse_halves(raw, asked)
    merged = {name: dict(lists) for name, lists in base.items()}
    for name, lists in raw.items():
        if name not in base:
            raise PromptError(asked, f"there is no set {name!r}", f"Sets: {', '.join(base)}.")
        if not isinstance(lists, dict):
            raise PromptError(asked, f"{name!r} is no object", shape)
        if not lists:
            raise PromptError(asked, f"{name!r} has no list", shape)
        for key, texts in lists.items():
            if key not in base[name]:
                raise PromptError(
                    asked,
                    f"there is no list {key!r} in {name!r}",
                    f"Lists: {', '.join(base[name])}.",
                )
            merged[name][key] = _checked(texts, key, f"{name}/{key}", asked)
        first, second = (merged[name][group] for group in GROUPS[name])
        if both := [text for text in first if text in second]:
            raise PromptError(asked, f"{both[0]!r} stands in both groups of {name!r}", "Take one.")
    return {**merged}


def _checked(texts: Any, key: str, where: str, asked: str) -> tuple[str, ...]:
    slot, shown = (_STATE, "{state}") if key == "templates" else (_NAME, "{name}")
    if not isinstance(texts, list) or not texts:
        raise PromptError(asked, f"{where} is no list of texts, or empty", 'Give ["...", ...].')
    made = []
    for i, text in enumerate(texts, 1):
        if not isinstance(text, str):
            seen = f"text {i} of {where} is a {type(text).__name__}"
            raise PromptError(asked, seen, 'Give ["...", ...].')
        clean = clean_text(text)
        if len(slot.findall(clean)) != 1:
            raise PromptError(
                asked,
                f"text {i} of {where}, {text!r}, does not hold {shown} once",
                "Write it where the value goes.",
            )
        if clean in made:
            raise PromptError(asked, f"text {i} of {where}, {text!r}, stands twice", "Take one.")
        made.append(clean)
    return tuple(made)


@register
class States(PromptMember):
    """Every class in two states, for a score that asks "which of the two?" class by class.

    Formula: text[k, g, s, t] = template[t] with state[g, s] of the name of class k. For ``anomaly``
    7 normal and 4 anomalous states in 21 templates: 147 texts of the kind "normal", then 84 of the
    kind "anomalous". For ``presence`` "{name}" and "evidence of {name}", kind "present", then
    "no {name}" and "without {name}", kind "absent". ``template`` runs over both groups and is
    shared by all classes. No query to an LLM.

    A score reads the kinds: with n and a the mean vectors of the two groups of a class, the
    probability of the second is softmax([<x, n>, <x, a>] / T)[1], T = 0.07 for anomalies and
    1 / scale for presence. A weigh member that means over all texts of a class would mix its two
    states into one vector: these texts are for scores that read ``kind``.

    Source: the states of Jeong et al., "WinCLIP: Zero-/Few-Shot Anomaly Classification and
    Segmentation", CVPR 2023; the templates are byname's own, as many, and without the one that
    stands twice in the re-implementations. Presence: the usual protocol of zero-shot radiology.

    Parameters
    ----------
    set : {"anomaly", "presence"}
        Which two states.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> States(set="presence").generate(Taxonomy.from_names(["edema"])).texts("edema")
    ['edema', 'evidence of edema', 'no edema', 'without edema']
    """

    name = "states"
    Params = StatesParams
    params: StatesParams

    def __init__(self, params: Any = None, **kwargs: Any) -> None:
        super().__init__(params, **kwargs)
        self.wording: Mapping[str, Lists] = default_states()

    def use_wording(self, raw: Any, source: str) -> None:
        """Take a user's states and templates; see :func:`merge_states`."""
        self.wording = merge_states(raw, source)

    def generate(self, taxonomy: Taxonomy) -> PromptSet:
        """The texts of both groups for every class, first group first."""
        lists = self.wording[self.params.set]
        plan = [
            (group, state, template)
            for group in GROUPS[self.params.set]
            for state in lists[group]
            for template in lists["templates"]
        ]
        classes = {
            leaf.id: tuple(
                Prompt(text=_text(leaf.name, state, template), kind=group, template=p)
                for p, (group, state, template) in enumerate(plan)
            )
            for leaf in taxonomy.classes
        }
        told: dict[str, Any] = {"generator": self.spec}
        if self.wording is not default_states():
            given = json.dumps({key: lists[key] for key in sorted(lists)})
            told["wording_sha256"] = hashlib.sha256(given.encode()).hexdigest()
        return PromptSet(classes=classes, provenance=Provenance.model_validate(told))


def _text(name: str, state: str, template: str) -> str:
    shown = fill(state, name=name)
    return fill(template, state=shown, a_state=with_article(shown))
