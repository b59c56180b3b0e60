"""The contract of the five stages: what flows through them, and the registry of their members.

A member is one file in one stage folder: a frozen dataclass of parameters, one class, one
``@register``. It knows arrays, taxonomies and prompt sets; never files, encoders or clients.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
import re
import typing
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, Self, TypeVar

from byname.errors import NeedsError, RecipeError
from byname.flow import Answer, Array, Batch, ClassTexts, SecondTexts, State, Support

if typing.TYPE_CHECKING:
    from byname.promptset import PromptSet
    from byname.taxonomy import Taxonomy

__all__ = [
    "STAGES",
    "Answer",
    "Array",
    "Batch",
    "ClassTexts",
    "Member",
    "PromptMember",
    "SecondTexts",
    "State",
    "Support",
    "create",
    "members",
    "parse_spec",
    "register",
]

StageName = Literal["prompts", "weigh", "score", "refine", "decide"]
STAGES: tuple[StageName, ...] = ("prompts", "weigh", "score", "refine", "decide")


@dataclass(frozen=True)
class NoParams:
    """For members without parameters."""


class _Configured:
    """A name, a stage and a frozen dataclass of parameters."""

    stage: ClassVar[StageName]
    name: ClassVar[str]
    Params: ClassVar[type] = NoParams
    params: Any

    def __init__(self, params: Any = None, **kwargs: Any) -> None:
        if params is not None and kwargs:
            raise TypeError("give either a Params object or keywords, not both")
        self.params = params if params is not None else _made(type(self), kwargs)

    @property
    def spec(self) -> str:
        """The member as a user would write it, with the parameters that differ from the default."""
        changed = [
            f"{f.name}={_show(getattr(self.params, f.name))}"
            for f in dataclasses.fields(self.params)
            if getattr(self.params, f.name) != f.default
        ]
        return self.name + (f"[{','.join(changed)}]" if changed else "")

    def spec_all(self) -> list[str]:
        """Every parameter with its value, as ``name=value``."""
        names = [f.name for f in dataclasses.fields(self.params)]
        return [f"{name}={_show(getattr(self.params, name))}" for name in names]

    def __repr__(self) -> str:
        return f"<{self.stage} {self.spec}>"


class PromptMember(_Configured):
    """Member of the first stage: classes to texts."""

    stage: ClassVar[StageName] = "prompts"
    needs: ClassVar[frozenset[str]] = frozenset()

    def generate(self, taxonomy: Taxonomy) -> PromptSet:
        """Texts for every class; deterministic."""
        raise TypeError(f"{type(self).__name__} defines no generate()")


T = TypeVar("T")


class Member(_Configured):
    """Member of one of the stages after ``prompts``.

    ``fit`` learns from the unlabeled batch and the texts and stores what it learned in attributes
    ending in ``_``; ``apply`` returns, by stage:

    ========  ==========================================================================
    weigh     W (K, D); and ``weight_`` (M,) is set by ``fit``
    score     S (N, K) from ``state.W``
    refine    S' (N, K) from ``state.S``
    decide    :class:`Answer`
    ========  ==========================================================================

    ``needs`` names fields of Batch or ClassTexts that must be given, or ``"X"`` for a member whose
    ``fit`` must see images. ``inductive`` says that, once fitted, ``apply`` treats each image by
    itself, so that images can be streamed. ``uses`` names inputs that the member looks at where
    they are given. A decide member with ``all_ranks`` answers as many classes as it accepts, up to
    K, and does not look at ``state.k``; it is handed the batch of the images that S is about, and
    W of the classes, also where S is over the groups of a level. ``of_classes`` says of a decide
    member that what it learned does not depend on the level, so that it need not learn anew;
    ``levels`` is False where no group can be answered. What ``report`` holds as "warning" is shown
    to the user.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    uses: ClassVar[frozenset[str]] = frozenset()
    inductive: ClassVar[bool] = True
    all_ranks: ClassVar[bool] = False
    of_classes: ClassVar[bool] = False
    levels: ClassVar[bool] = True

    def fit(self, batch: Batch, texts: ClassTexts, state: State) -> Self:
        """Learn from unlabeled images; the default learns nothing."""
        return self

    def apply(self, batch: Batch, texts: ClassTexts, state: State) -> Any:
        """Compute the stage's output."""
        raise TypeError(f"{type(self).__name__} defines no apply()")

    def report(self) -> dict[str, Any]:
        """What ``fit`` learned and users may want to see, ready for JSON; empty by default."""
        return {}

    def once(self, texts: ClassTexts, state: State, make: Callable[[], T]) -> T:
        """What ``make`` gives, kept as long as texts, weights and W are the same objects.

        For what is made of the texts alone: images come in blocks, and each would make it anew.
        """
        held, key = self.__dict__.get("_held"), (texts, state.weight, state.W)
        if held is None or any(a is not b for a, b in zip(held[0], key, strict=True)):
            held = self._held = (key, make())
        made: T = held[1]
        return made

    def details(self, batch: Batch, texts: ClassTexts, state: State) -> dict[str, list[Any]]:
        """What can be said of each image beside the answer, such as its subclass or context.

        Lists of N values, ready for JSON; empty by default. Called after ``fit``.
        """
        return {}

    def check_needs(
        self, batch: Batch, texts: ClassTexts, skip: frozenset[str] = frozenset()
    ) -> None:
        """Raise NeedsError for the first unmet need that is not in ``skip``, before any work."""
        for need in sorted(self.needs - skip):
            if need == "X":
                met = len(batch) > 0
            else:
                met = getattr(batch, need, None) is not None or (
                    getattr(texts, need, None) is not None
                )
            if not met:
                how = _HOW.get(need, "It can stand in a task file (docs/formats.md).")
                raise NeedsError(
                    f"run the {self.stage} member '{self.name}'",
                    f"it needs '{need}', which this run does not have",
                    f"{how} Or choose another member (byname list members).",
                )


AnyMember = type[_Configured]
M = TypeVar("M", bound=AnyMember)
_REGISTRY: dict[str, AnyMember] = {}


def register(cls: M) -> M:
    """Class decorator: make a member known under its ``name``, unique over all stages."""
    other = _REGISTRY.get(cls.name)
    if other is not None and (other.__module__, other.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise ValueError(f"the member name {cls.name!r} is taken by {other.__module__}")
    if not (dataclasses.is_dataclass(cls.Params) and cls.Params.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise TypeError(f"{cls.__name__}.Params must be a frozen dataclass")
    _REGISTRY[cls.name] = cls
    return cls


def members(stage: StageName | None = None) -> dict[str, AnyMember]:
    """Registered members by name, in alphabetical order, of one stage or of all."""
    _load_all()
    return {n: c for n, c in sorted(_REGISTRY.items()) if stage in (None, c.stage)}


# How a user gives what a member needs.
_HOW = {
    "X": "Give at least one image.",
    "views": "Add --with views=uniform[n=8].",
    "second": "Add --with second=ENCODER.",
    "second_texts": "Add --with second=ENCODER.",
    "captions": "Add --with captions=FILE.",
    "class_probs": "Add --with class_probs=FILE.",
    "reference": "Add --with reference=IMAGES.",
    "support": "Add --with support=FOLDER.",
    "context": "Add --prompts contexts.",
    "group": "Add --prompts FILE.json made by 'byname prompts make --style subclasses'.",
    "level": "Add --prompts FILE.json with levels, such as one made by --style haprompts.",
    "prompt_index": "Use templates: --prompts templates.",
    "log_var": "Use an encoder that gives variances (docs/formats.md).",
    "text_log_var": "Use an encoder that gives variances (docs/formats.md).",
}


def create(spec: str, stage: StageName | None = None) -> Any:
    """Make a member from ``"cpe"`` or ``"cpe[per_class=true]"``.

    Raises
    ------
    RecipeError
        For an unknown name, a member of another stage, an unknown parameter, or a value that does
        not fit the parameter.

    Examples
    --------
    >>> create("reject[min_probability=0.5]", "decide").params.min_probability
    0.5
    """
    name, given = parse_spec(spec)
    known = members(stage)
    if name not in known:
        other = members().get(name)
        seen = f"'{name}' is a {other.stage} member" if other else f"there is no member '{name}'"
        close = difflib.get_close_matches(name, known, 1)
        guess = f"Did you mean '{close[0]}'? " if close else ""
        raise RecipeError(
            f"use '{spec}'" + (f" as the {stage} stage" if stage else ""),
            seen,
            f"{guess}Known: {', '.join(known) or 'none'}.",
        )
    return known[name](known[name].Params(**_typed(spec, known[name].Params, given)))


def parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Split ``"name[a=1,b=x]"`` into the name and its parameters as text."""
    found = re.fullmatch(r"\s*([A-Za-z][\w-]*)\s*(?:\[(.*)\])?\s*", spec, re.S)
    if not found:
        raise RecipeError(
            f"read '{spec}'", "it is not of the form name or name[parameter=value,...]"
        )
    given: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in (found[2] or "").split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f"read '{spec}'", f"'{part}' is not of the form parameter=value")
        if key.strip() in given:
            raise RecipeError(f"read '{spec}'", f"{key.strip()} is given twice", "Give it once.")
        given[key.strip()] = value.strip()
    return found[1], given


def _made(cls: type[_Configured], given: dict[str, Any]) -> Any:
    """Parameters from Python keywords; what they do not refuse by themselves must fit its type."""
    try:
        made = cls.Params(**given)
    except TypeError:
        _check_types(cls, given)
        raise
    _check_types(cls, given)
    return made


def _check_types(cls: type[_Configured], given: dict[str, Any]) -> None:
    import pydantic

    hints = typing.get_type_hints(cls.Params) if given else {}
    for key in given.keys() & hints.keys():
        value = given[key]
        plain = value.item() if hasattr(value, "item") and not hasattr(value, "__len__") else value
        try:
            pydantic.TypeAdapter(hints[key]).validate_python(plain, strict=True)
        except pydantic.ValidationError as error:
            seen = f"{key}={value!r} does not fit: {error.errors()[0]['msg']}"
            raise RecipeError(f"use '{cls.name}'", seen) from None


def _typed(spec: str, params: type, given: dict[str, str]) -> dict[str, Any]:
    """Texts to the types of the dataclass fields, by pydantic."""
    import pydantic

    hints = typing.get_type_hints(params)
    values = {}
    for key, text in given.items():
        if key not in hints:
            known = ", ".join(f"{k}={_show(f.default)}" for k, f in _fields(params).items())
            raise RecipeError(
                f"use '{spec}'", f"it has no parameter '{key}'", f"It has: {known or 'none'}."
            )
        kind = pydantic.TypeAdapter(hints[key])
        try:
            if text.lower() == "none":
                with suppress(pydantic.ValidationError):
                    values[key] = kind.validate_python(None)
                    continue
            # "none" may also be one of the words that a parameter takes.
            values[key] = kind.validate_python(text)
        except pydantic.ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise RecipeError(f"use '{spec}'", f"{key}={text!r} does not fit: {reason}") from None
    return values


def _fields(params: type) -> dict[str, Any]:
    return {f.name: f for f in dataclasses.fields(params)}


def _show(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@cache
def _load_all() -> None:
    """Import every module of the five stage folders, once, so that their members register."""
    for stage in STAGES:
        package = importlib.import_module(f"byname.{stage}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"byname.{stage}.{module.name}")
