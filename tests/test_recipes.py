from __future__ import annotations

import dataclasses

import pytest

from byname.errors import RecipeError
from byname.recipes import DEFAULT_RECIPE, RECIPES, Recipe, get_recipe, list_recipes
from byname.stage import STAGES, Batch, ClassTexts, members

ENSEMBLE = RECIPES["ensemble"]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_complete(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe is RECIPES[name]
    assert recipe.name == name
    assert recipe.title
    assert recipe.paper
    known = {f.name for c in (Batch, ClassTexts) for f in dataclasses.fields(c)}
    assert recipe.needs <= known | {"replies"}
    for stage, spec in recipe.stages().items():
        member = recipe.create(stage)
        assert (member is None) == (spec is None)
        assert member is None or member.stage == stage
    assert list(recipe.stages()) == list(STAGES)


def test_the_default() -> None:
    assert get_recipe() is RECIPES[DEFAULT_RECIPE] is ENSEMBLE
    assert ENSEMBLE.create("prompts").params.set == "imagenet"
    assert RECIPES["plain"].create("prompts").params.set == "single"


@pytest.mark.parametrize(
    "name", [n for n, cls in members().items() if cls.stage != "prompts" and n not in RECIPES]
)
def test_every_member_is_a_recipe(name: str) -> None:
    stage = members()[name].stage
    assert get_recipe(name).stages() == ENSEMBLE.stages() | {stage: name}
    assert get_recipe(name).name == name


def test_parameters_of_a_member() -> None:
    recipe = get_recipe(" reject[min_margin=0.25]")
    assert recipe.decide == recipe.name == "reject[min_margin=0.25]"
    assert recipe.create("decide").params.min_margin == 0.25


def test_stages_are_replaced() -> None:
    recipe = get_recipe("plain", prompts="templates[set=short]", weigh="mean_similarity")
    assert recipe.stages() == RECIPES["plain"].stages() | {
        "prompts": "templates[set=short]",
        "weigh": "mean_similarity",
    }
    assert recipe.name == "plain + templates[set=short] + mean_similarity"
    assert get_recipe(recipe) is recipe
    assert get_recipe(recipe, weigh="mean").weigh == "mean"


def test_refine_none_takes_the_stage_out() -> None:
    recipe = dataclasses.replace(ENSEMBLE, refine="nothing_known")
    assert get_recipe(recipe, refine="none").refine is None
    assert get_recipe(recipe, refine="None").name == "ensemble + refine=none"


@pytest.mark.parametrize(
    "spec, message",
    [
        (
            "ensembel",
            "cannot use the recipe 'ensembel': there is no recipe 'ensembel'. "
            "Did you mean 'ensemble'? Known: plain, ensemble, ",
        ),
        ("", "cannot read '': it is not of the form"),
        (
            "templates",
            "cannot use the recipe 'templates': 'templates' is a prompts member, which is no "
            "recipe by itself. Use --prompts templates beside a recipe. Known: plain, ",
        ),
        (
            "plain[set=short]",
            "cannot use the recipe 'plain[set=short]': 'plain' takes no parameters. Give ",
        ),
        (
            "reject[floor=1]",
            "cannot use 'reject[floor=1]': it has no parameter 'floor'. "
            "It has: min_probability=0.5, min_margin=0.0.",
        ),
        ("reject[min_margin=2]", "cannot use 'reject': min_margin is 2.0. Give a number from 0"),
    ],
)
def test_names_that_do_not_fit(spec: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        get_recipe(spec)
    assert str(error.value).startswith(message)


def test_known_names_are_listed_once() -> None:
    with pytest.raises(RecipeError) as error:
        get_recipe("ensembel")
    names = str(error.value).partition("Known: ")[2].rstrip(".").split(", ")
    assert {"plain", "coder", "cpe", "hie", "reject"} <= set(names)
    assert len(names) == len(set(names))


def test_stage_options_are_checked_at_once() -> None:
    with pytest.raises(RecipeError) as error:
        get_recipe("plain", weigh="cosine")
    message = "cannot use 'cosine' as the weigh stage: 'cosine' is a score member. Known: "
    assert str(error.value).startswith(message)
    with pytest.raises(RecipeError, match=r"no member 'argmx'\. Did you mean 'argmax'"):
        get_recipe("plain", decide="argmx")
    broken = Recipe("x", "X", "templates", "mean", "cosine", "none-such", "argmax")
    with pytest.raises(RecipeError, match="there is no member 'none-such'"):
        get_recipe(broken)


def test_the_list_holds_all_names_that_get_recipe_takes() -> None:
    rows = {row["name"]: row for row in list_recipes()}
    assert list(rows)[: len(RECIPES)] == list(RECIPES)
    known = {n for n, cls in members().items() if cls.stage != "prompts"}
    assert set(rows) == set(RECIPES) | known
    for name, row in rows.items():
        assert {"name", "title", "stages", "needs", "paper"} < set(row)
        for key in ("title", "paper", "formula", "defaults"):
            assert row[key], f"the recipe {name} does not say its {key}"
        assert row["stages"] == get_recipe(name).stages()
        assert row["needs"] == sorted(get_recipe(name).needs)
    assert rows["plain"]["stages"] == {
        "prompts": "templates[set=single]",
        "weigh": "mean",
        "score": "cosine",
        "refine": None,
        "decide": "argmax",
    }
