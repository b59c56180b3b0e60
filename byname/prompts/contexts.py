"""Every class name in every context: quality, light, background, and so on. Nobody is asked."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import product
from typing import Any, NamedTuple

import pydantic
from pydantic import BaseModel, ConfigDict

from byname.errors import PromptError, RecipeError
from byname.prompts.wording import refuse_halves
from byname.promptset import Prompt, PromptSet, Provenance
from byname.sentences import check_template
from byname.stage import PromptMember, register
from byname.taxonomy import Taxonomy

__all__ = ["ANY", "Contexts", "ContextsParams", "Factors", "default_factors", "merge_factors"]

ANY = "any"
"""The value of every factor that says nothing."""
_PHRASES = 16  # texts a context at most, on average: a bound on memory for a user's own factors
_FACTOR = re.compile(r"[a-z][a-z0-9_-]*")
_VALUE = re.compile(r"\w(?:[\w -]*\w)?")

Factors = Mapping[str, Mapping[str, tuple[str, ...]]]
"""The phrases of each value of each factor; the empty phrase is not written down."""


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    factors: dict[str, dict[str, tuple[str, ...]]]


@cache
def default_factors() -> Factors:
    """The factors that come with byname.

    Examples
    --------
    >>> list(default_factors())[:3], default_factors()["quality"]["good"]
    (['quality', 'illumination', 'orientation'], ('sharp and clear',))
    """
    file = resources.files("byname.prompts") / "data" / "contexts.json"
    return _File.model_validate(json.loads(file.read_text(encoding="utf-8"))).factors


def merge_factors(raw: Any, source: str = "the wording") -> Factors:
    """The factors with a user's laid over them: a factor that is given takes the place of its own.

    Parameters
    ----------
    raw : object
        What JSON gave: ``{"factors": {factor: {value: [phrase, ...]}}}``, or a text in place of a
        list of one.
    source : str
        Named in errors.

    Raises
    ------
    PromptError
        For another shape, names that a context could not be written with, the value "any", which
        every factor has by itself, and phrases that are empty or stand twice in a factor.

    Examples
    --------
    >>> merge_factors({"factors": {"weather": {"rain": "in the rain"}}})["weather"]
    {'rain': ('in the rain',)}
    """
    asked, shape = f"use the wording in {source} for 'contexts'", _SHAPE
    if not isinstance(raw, dict) or set(raw) != {"factors"} or not isinstance(raw["factors"], dict):
        raise PromptError(asked, "it is not an object with 'factors'", shape)
    if not raw["factors"]:
        raise PromptError(asked, "it has no factor", shape)
    refuse_halves(raw, asked)
    listed = {
        factor: {value: [said] if isinstance(said, str) else said for value, said in given.items()}
        if isinstance(given, dict)
        else given
        for factor, given in raw["factors"].items()
    }
    try:
        made = _File.model_validate({"factors": listed}).factors
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = "/".join(map(str, first["loc"]))
        raise PromptError(asked, f"at {where}: {first['msg']}", shape) from None
    made = {
        factor: {value: tuple(" ".join(p.split()) for p in said) for value, said in values.items()}
        for factor, values in made.items()
    }
    for factor, values in made.items():
        if wrong := _wrong(factor, values):
            raise PromptError(asked, wrong, shape)
    return {**default_factors(), **made}


_SHAPE = (
    'Give {"factors": {"weather": {"rain": ["in the rain"], "snow": ["in the snow"]}}}; the value '
    f"'{ANY}', which says nothing, is added to every factor."
)


def _wrong(factor: str, values: Mapping[str, tuple[str, ...]]) -> str:
    """What is wrong with a factor; "" for nothing."""
    if not _FACTOR.fullmatch(factor):
        return f"the factor {factor!r} is not named with small letters, digits, '-' and '_'"
    if not values:
        return f"the factor '{factor}' has no value"
    phrases: set[str] = set()
    for value, said in values.items():
        if value == ANY:
            return f"the factor '{factor}' has the value '{ANY}', which it has by itself"
        if not _VALUE.fullmatch(value):
            return f"the value {value!r} of '{factor}' is not named with letters, digits and spaces"
        if not said:
            return f"the value '{value}' of '{factor}' has no phrase"
        for phrase in said:
            if not phrase:
                return f"a phrase of '{value}' of '{factor}' is empty"
            if phrase.casefold() in phrases:
                return f"the phrase {phrase!r} stands twice in '{factor}'"
            phrases.add(phrase.casefold())
    return ""


@dataclass(frozen=True)
class ContextsParams:
    """Which factors, joined by "+", how many contexts at most, and the template."""

    factors: str = "quality+illumination"
    cap: int = 512
    template: str = "a photo of a {}."

    def __post_init__(self) -> None:
        names = self.names()
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None or "" in names:
            seen = f"'{twice}' stands twice" if twice else "the name of a factor is missing"
            raise RecipeError(
                f"use 'contexts[factors={self.factors}]'",
                seen,
                f"Join factors by '+': {'+'.join(list(default_factors())[:3])}.",
            )
        if self.cap < 1:
            raise RecipeError(
                f"use 'contexts[cap={self.cap}]'", "there is at least one context", "Give 512."
            )
        check_template(self.template)

    def names(self) -> list[str]:
        """The factors, in the order given."""
        return [name.strip() for name in self.factors.split("+")]


class _Context(NamedTuple):
    about: str
    phrases: tuple[str, ...]  # one a factor that says something


@register
class Contexts(PromptMember):
    """Say of each class in what circumstances its photo may have been taken.

    Formula: each factor F_j has values, and each value phrases; one value more, ``any``, says
    nothing. A context z is one value a factor, Z = product over j of (1 + number of values of F_j)
    contexts in all, and each choice of one phrase for each value of it is a text::

        text(k, z) = "a photo of a {name of k}, {phrase of F_1}, {phrase of F_2}, ..."

    ``about`` is the context, as in "quality=good;illumination=any", factors in the order given. The
    first context is ``any`` throughout: the template alone. ``template`` is the running number of
    (context, phrases), shared by all classes. A scorer that infers the context of an image takes
    the texts of one class and one ``about`` together: t[k,z] is the mean of their vectors, made a
    unit vector, and z is the place of ``about`` among the different ones of a class.

    Number of queries: 0. Texts: K times the product over j of (1 + number of phrases of F_j).

    Source: An et al., "PerceptionCLIP: Visual Classification by Inferring and Conditioning on
    Contexts", ICLR 2024, arXiv 2308.01313. The ideas of the factors are the source's, values and
    phrases are byname's own. The source chooses the factors of each data set by their accuracy on
    it; byname does not.

    Parameters
    ----------
    factors : str
        Joined by "+". The default was fixed by reasoning, before any trial: quality and
        illumination are properties of a photo and not of a thing, so they fit classes of every
        kind, and make 9 contexts. The others fit some: an owl has no "medium".
    cap : int
        Most contexts; more are an error.
    template : str
        With {} where the name goes; phrases go before its full stop.

    Examples
    --------
    >>> made = Contexts(factors="illumination").generate(Taxonomy.from_names(["owl"]))
    >>> for prompt in made.classes["owl"]:
    ...     print(prompt.template, prompt.about, "->", prompt.text)
    0 illumination=any -> a photo of a owl.
    1 illumination=bright -> a photo of a owl, in bright light.
    2 illumination=dim -> a photo of a owl, in dim light.
    """

    name = "contexts"
    Params = ContextsParams
    params: ContextsParams
    values: Factors | None = None

    def use_wording(self, raw: Any, source: str) -> None:
        """Take a user's factors; see :func:`merge_factors`."""
        self.values = merge_factors(raw, source)

    def generate(self, taxonomy: Taxonomy) -> PromptSet:
        """The texts, class by class and context by context.

        Raises
        ------
        RecipeError
            For a factor that there is none of, and more contexts than ``cap``.
        """
        contexts = list(self._contexts())
        before, after = self.params.template.split("{}")
        stop = "." if after.endswith(".") else ""
        after = after.removesuffix(".")
        ends = [", ".join([after, *said]) + stop if said else after + stop for _, said in contexts]
        classes = {
            leaf.id: tuple(
                Prompt(text=before + leaf.name + end, kind="context", about=about, template=index)
                for index, ((about, _), end) in enumerate(zip(contexts, ends, strict=True))
            )
            for leaf in taxonomy.classes
        }
        record = {"generator": self.spec, "contexts": len({about for about, _ in contexts})}
        return PromptSet(classes=classes, provenance=Provenance.model_validate(record))

    def _contexts(self) -> Iterator[_Context]:
        """Every context with every choice of phrases, the last factor fastest."""
        names, known = self.params.names(), self.values or default_factors()
        asked = f"use 'contexts[factors={self.params.factors}]'"
        if unknown := [name for name in names if name not in known]:
            raise RecipeError(
                asked,
                f"there is no factor '{unknown[0]}'",
                f"Known: {', '.join(known)}. Others can be given with --wording FILE.json.",
            )
        choices = [{ANY: ("",), **known[name]} for name in names]
        size = math.prod(len(values) for values in choices)
        texts = math.prod(sum(map(len, values.values())) for values in choices)
        if size > self.params.cap or texts > _PHRASES * self.params.cap:
            raise RecipeError(
                asked,
                f"it makes {size} contexts, of {texts} texts a class, and at most "
                f"{self.params.cap} contexts of {_PHRASES * self.params.cap} texts are allowed",
                "Name fewer factors, or set cap higher.",
            )
        for values in product(*choices):
            pairs = zip(names, values, strict=True)
            about = ";".join(f"{name}={value}" for name, value in pairs)
            said = (given[value] for given, value in zip(choices, values, strict=True))
            for phrases in product(*said):
                yield _Context(about, tuple(filter(None, phrases)))
