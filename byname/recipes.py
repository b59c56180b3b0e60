"""Named compositions: one choice a stage, with the paper it comes from."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from byname.errors import RecipeError
from byname.recipe import Recipe, member_card
from byname.recipe_table import RECIPES
from byname.stage import STAGES, members, parse_spec

__all__ = ["DEFAULT_RECIPE", "RECIPES", "Recipe", "get_recipe", "list_recipes"]


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
        With ``name``, ``title``, ``stages`` (stage to spec), ``needs`` (sorted), and ``paper``,
        ``formula``, ``defaults``, ``tuned`` and ``notes``, in words.

    Examples
    --------
    >>> [row["name"] for row in list_recipes()][:2]
    ['plain', 'ensemble']
    """
    found = list(RECIPES.values())
    for name, cls in members().items():
        if cls.stage != "prompts" and name not in RECIPES:
            card: dict[str, Any] = {"tuned": "", "notes": "", **member_card(name, cls)}
            found.append(dataclasses.replace(_named(name), **card))
    return [
        {
            "name": recipe.name,
            "title": recipe.title,
            "stages": recipe.stages(),
            "needs": sorted(recipe.needs),
            "paper": recipe.paper,
            "formula": recipe.formula,
            "defaults": recipe.defaults,
            "tuned": recipe.tuned,
            "notes": recipe.notes,
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
