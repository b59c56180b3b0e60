"""Every class name in every template: "a photo of a {}."."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, get_args

from byname.errors import RecipeError
from byname.promptset import PromptSet
from byname.stage import PromptMember, register
from byname.taxonomy import Taxonomy

__all__ = ["Templates", "TemplatesParams", "template_set"]

SetName = Literal["imagenet", "short", "single"]


@dataclass(frozen=True)
class TemplatesParams:
    """Which list of templates: ``imagenet`` (80), ``short`` (7) or ``single`` (1)."""

    set: SetName = "imagenet"

    def __post_init__(self) -> None:
        if self.set not in get_args(SetName):
            raise RecipeError(
                f"use the templates '{self.set}'",
                "there is no such set",
                f"Known: {', '.join(get_args(SetName))}.",
            )


@cache
def template_set(name: SetName) -> tuple[str, ...]:
    """The templates of one set, each with ``{}`` where the class name goes.

    Examples
    --------
    >>> template_set("single")
    ('a photo of a {}.',)
    """
    file = resources.files("byname.prompts") / "data" / f"templates_{name}.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())


@register
class Templates(PromptMember):
    """Fill P templates, shared by all classes, with the name of each of the K classes.

    Formula: text[k, p] = template[p] with the name of class k for ``{}``; K * P texts, class by
    class, ``template`` = p.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language
    Supervision", ICML 2021. ``imagenet`` takes up the ideas of its 80 ImageNet templates (quality,
    light, distance, medium, ...) in other words; results with the original wording differ a little.

    Parameters
    ----------
    set : {"imagenet", "short", "single"}
        80, 7 or 1 templates.

    Examples
    --------
    >>> from byname.taxonomy import Taxonomy
    >>> Templates(set="single").generate(Taxonomy.from_names(["cat"])).texts("cat")
    ['a photo of a cat.']
    """

    name = "templates"
    Params = TemplatesParams
    params: TemplatesParams

    def generate(self, taxonomy: Taxonomy) -> PromptSet:
        """K * P texts."""
        chosen = self.params.set
        return PromptSet.from_templates(
            taxonomy, template_set(chosen), generator=f"templates[set={chosen}]"
        )
