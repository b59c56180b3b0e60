"""Named compositions: one choice a stage, with the paper it comes from."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any

from byname.errors import RecipeError
from byname.stage import STAGES, StageName, create, members, parse_spec

__all__ = ["DEFAULT_RECIPE", "RECIPES", "Recipe", "get_recipe", "list_recipes"]


@dataclass(frozen=True)
class Recipe:
    """One member for each stage, each written as ``"name"`` or ``"name[parameter=value,...]"``.

    Parameters
    ----------
    name, title : str
    prompts, weigh, score, decide : str
    refine : str or None
        None: the logits stay as they are.
    paper, notes : str

    Examples
    --------
    >>> get_recipe("plain").stages()["weigh"]
    'mean'
    """

    name: str
    title: str
    prompts: str
    weigh: str
    score: str
    refine: str | None
    decide: str
    paper: str = ""
    notes: str = ""

    def stages(self) -> dict[StageName, str | None]:
        """Spec of each stage, in the order in which data flows."""
        return {stage: getattr(self, stage) for stage in STAGES}

    def create(self, stage: StageName) -> Any:
        """The member of one stage; None where the recipe has none.

        Raises
        ------
        RecipeError
            For an unknown member or parameter.
        """
        spec = self.stages()[stage]
        return None if spec is None else create(spec, stage)

    @property
    def needs(self) -> frozenset[str]:
        """What the members need, together."""
        made = [self.create(stage) for stage in STAGES]
        return frozenset().union(*(member.needs for member in made if member is not None))


_RADFORD = (
    "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, "
    "ICML 2021"
)
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="plain",
            title="One template, the class with the most similar name",
            prompts="templates[set=single]",
            weigh="mean",
            score="cosine",
            refine=None,
            decide="argmax",
            paper=_RADFORD,
        ),
        Recipe(
            name="ensemble",
            title="80 templates, averaged for each class",
            prompts="templates[set=imagenet]",
            weigh="mean",
            score="cosine",
            refine=None,
            decide="argmax",
            paper=_RADFORD,
            notes="The default. Each other recipe that is a member's name is this one with that "
            "member in its stage.",
        ),
        Recipe(
            name="haprompts",
            title="Hierarchy-aware texts: how a class differs from its peers, what it is a kind of",
            prompts="haprompts[variant=full]",
            weigh="mean",
            score="cosine",
            refine=None,
            decide="argmax",
            paper="Liang & Davis, Making Better Mistakes in CLIP-Based Zero-Shot Classification "
            "with Hierarchy-Aware Language Prompts, arXiv 2503.02248",
            notes="Needs a prompt file (--prompts FILE.json); 'byname prompts make' helps to write "
            "one. --decide crm can make mistakes milder where probabilities are calibrated.",
        ),
        Recipe(
            name="hie",
            title="Texts in levels; finer levels count while they keep agreeing better",
            prompts="haprompts[variant=full]",
            weigh="mean",
            score="hie",
            refine=None,
            decide="argmax",
            paper="Ren et al., ChatGPT-Powered Hierarchical Comparisons for Image Classification, "
            "NeurIPS 2023",
            notes="Needs a prompt file with levels: one made by haprompts, or {class: [[texts of "
            "level 0], [texts of level 1], ...]}.",
        ),
        Recipe(
            name="cpe",
            title="Templates weighed by how clearly they let the worst classes win",
            prompts="templates[set=imagenet]",
            weigh="cpe",
            score="cosine",
            refine=None,
            decide="argmax",
            paper="Shao, Shi, Yang, Guo & Li, Examining the Achilles' Heel of CLIP Models, "
            "arXiv 2310.03324",
            notes="Learns from the unlabeled images. 'cpe[per_class=true]' gives the worst classes "
            "weights of their own.",
        ),
        Recipe(
            name="coder",
            title="Attributes, look-alikes and synonyms; close calls settled by contrasts",
            prompts="atg",
            weigh="mean",
            score="coder",
            refine=None,
            decide="argmax",
            paper="Yi, Ren, Zhan & Ye, Leveraging Cross-Modal Neighbor Representation for Improved "
            "CLIP Classification, CVPR 2024, arXiv 2404.17753",
            notes="Needs a prompt file (--prompts FILE.json) with texts of the kinds name, "
            "attribute, analogous and synonym, and for close calls texts about pairs.",
        ),
    )
}
DEFAULT_RECIPE = "ensemble"


def get_recipe(
    spec: str | Recipe = DEFAULT_RECIPE,
    *,
    prompts: str | None = None,
    weigh: str | None = None,
    score: str | None = None,
    refine: str | None = None,
    decide: str | None = None,
) -> Recipe:
    """A recipe by name, with some stages replaced.

    Parameters
    ----------
    spec : str or Recipe
        A recipe's name, or a weigh, score, refine or decide member, ``"cpe"`` or
        ``"cpe[per_class=true]"``: the recipe of that name, else ``ensemble``, with that stage
        replaced.
    prompts, weigh, score, refine, decide : str, optional
        Members that replace those of the recipe; ``refine="none"`` takes the stage out.

    Returns
    -------
    Recipe
        Whose members are all known, with parameters that fit.

    Raises
    ------
    RecipeError
        For an unknown recipe, member or parameter.

    Examples
    --------
    >>> get_recipe("mean_similarity").stages()["weigh"]
    'mean_similarity'
    >>> get_recipe("plain", decide="reject[min_probability=0.9]").name
    'plain + reject[min_probability=0.9]'
    """
    recipe = spec if isinstance(spec, Recipe) else _named(spec)
    given = {"prompts": prompts, "weigh": weigh, "score": score, "refine": refine, "decide": decide}
    changed: dict[str, Any] = {stage: s.strip() for stage, s in given.items() if s is not None}
    if changed:
        changed["name"] = " + ".join([recipe.name, *_labels(changed)])
        if changed.get("refine", "").lower() == "none":
            changed["refine"] = None
        recipe = dataclasses.replace(recipe, **changed)
    for stage in STAGES:
        recipe.create(stage)
    return recipe


def list_recipes() -> list[dict[str, Any]]:
    """Every name that :func:`get_recipe` takes: the recipes, then the members of a stage.

    Returns
    -------
    list of dict
        With ``name``, ``title``, ``stages`` (stage to spec), ``paper`` and ``needs`` (sorted).

    Examples
    --------
    >>> [row["name"] for row in list_recipes()][:2]
    ['plain', 'ensemble']
    """
    found = list(RECIPES.values())
    for name, cls in members().items():
        if cls.stage != "prompts" and name not in RECIPES:
            title = (cls.__doc__ or "").partition("\n")[0]
            found.append(dataclasses.replace(_named(name), title=title, paper="", notes=""))
    return [
        {
            "name": recipe.name,
            "title": recipe.title,
            "stages": recipe.stages(),
            "paper": recipe.paper,
            "needs": sorted(recipe.needs),
        }
        for recipe in found
    ]


def _named(spec: str) -> Recipe:
    name, given = parse_spec(spec)
    known = {n: cls for n, cls in members().items() if cls.stage != "prompts"}
    base = RECIPES.get(name)
    if base and not given:
        return base
    if name in known:
        title = f"{(base or RECIPES[DEFAULT_RECIPE]).name} with {spec.strip()}"
        changes: dict[str, Any] = {known[name].stage: spec.strip()}
        return dataclasses.replace(
            base or RECIPES[DEFAULT_RECIPE], name=spec.strip(), title=title, **changes
        )
    if base:
        raise RecipeError(
            f"use the recipe '{spec}'",
            f"'{name}' takes no parameters",
            "Give parameters to one of its stages, as in --decide 'reject[min_probability=0.6]'.",
        )
    names = list(dict.fromkeys([*RECIPES, *known]))
    close = difflib.get_close_matches(name, names, 1)
    seen = f"there is no recipe '{name}'"
    guess = f"Did you mean '{close[0]}'? " if close else ""
    if name in members("prompts"):
        seen = f"'{name}' is a prompts member, which is no recipe by itself"
        guess = f"Use --prompts {name} beside a recipe. "
    raise RecipeError(f"use the recipe '{spec}'", seen, f"{guess}Known: {', '.join(names)}.")


def _labels(changed: dict[str, Any]) -> list[str]:
    return [f"{stage}=none" if spec.lower() == "none" else spec for stage, spec in changed.items()]
