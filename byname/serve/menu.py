"""Which recipes can run here: each is tried on a few made-up vectors."""

from __future__ import annotations

import warnings
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.classtexts import NULL_TEXTS, class_texts
from byname.errors import BynameError
from byname.pipeline import Pipeline
from byname.promptchoice import chosen_prompts
from byname.recipes import RECIPES, get_recipe, list_recipes
from byname.stage import Batch
from byname.taxonomy import Node, Taxonomy
from byname.textvectors import inputs_of

__all__ = ["kind", "menu"]

DIM = 16
MAIN = ("ensemble", "plain", "auto")  # what to begin with, in this order


def menu(tree: bool = False) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Recipes that run on images and class names alone, and the others with what they lack.

    Parameters
    ----------
    tree : bool
        Whether the classes stand in a tree.

    Returns
    -------
    list of dict
        ``name``, ``idea``, and ``kind``: "main", then other recipes ("recipe"), then single
        members of a stage in the place of that of the default recipe ("member").
    list of dict
        ``name`` and ``reason``.

    Examples
    --------
    >>> can, cannot = menu()
    >>> can[0]["name"], "cupl" in {one["name"] for one in cannot}
    ('ensemble', True)
    """
    taxonomy = _trial(tree)
    X = _vectors([f"image {i}" for i in range(12)])
    can, cannot = [], []
    for row in sorted(list_recipes(), key=_place):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _try(row["name"], taxonomy, X)
        except BynameError as error:
            cannot.append({"name": row["name"], "reason": f"{error.seen}. {error.do}".strip()})
        else:
            can.append({"name": row["name"], "idea": row["title"], "kind": kind(row["name"])})
    return can, cannot


def kind(name: str) -> str:
    """Where a recipe stands in the menu.

    Examples
    --------
    >>> kind("plain"), kind("cpe"), kind("reject")
    ('main', 'recipe', 'member')
    """
    return "main" if name in MAIN else "recipe" if name in RECIPES else "member"


def _place(row: dict[str, Any]) -> int:
    """Main ones first; the others stay as they are listed."""
    return MAIN.index(row["name"]) if row["name"] in MAIN else len(MAIN)


def _try(name: str, taxonomy: Taxonomy, X: NDArray[np.float32]) -> None:
    recipe = get_recipe(name)
    needs, uses = inputs_of(recipe)
    wanted = needs | uses
    texts = class_texts(
        chosen_prompts(recipe.prompts, taxonomy),
        taxonomy,
        _vectors,
        pairs="pairs" in wanted,
        inner=[(node.id, node.name) for node in taxonomy.nodes[1:] if node.id.startswith("g")]
        if "inner" in wanted
        else (),
        null=NULL_TEXTS if "null" in wanted else (),
    )
    pipeline = Pipeline(recipe).fit(texts, Batch(X))
    pipeline.decide(pipeline.scores(Batch(X)), batch=Batch(X))


def _trial(tree: bool) -> Taxonomy:
    if not tree:
        return Taxonomy.from_names(["cat", "dog", "cow", "pig"])
    groups = [Node("g1", "pet"), Node("g2", "cattle")]
    below = [("cat", "g1"), ("dog", "g1"), ("cow", "g2"), ("pig", "g2")]
    return Taxonomy([*groups, *(Node(name, name, parent) for name, parent in below)])


def _vectors(texts: Any) -> NDArray[np.float32]:
    """Unit rows that depend on nothing but the text."""
    made = np.zeros((len(texts), DIM), np.float32)
    for row, text in zip(made, texts, strict=True):
        row[:] = np.random.default_rng(zlib.crc32(text.encode())).normal(size=DIM)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made
