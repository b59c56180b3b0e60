"""Is it the meaning of descriptors that helps? The WaffleCLIP controls as rows of a table.

Descriptors are compared with texts out of which their meaning was taken: random ones shared by all
classes, random ones for each class, those of another class, and their own with the words in random
order. What is left over ``shared_random`` is the semantic gain (Roth et al., ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from byname.errors import PromptError, UsageError
from byname.evaluate import Contender
from byname.prompts import waffle_controls
from byname.promptset import PromptSet
from byname.recipes import Recipe, get_recipe
from byname.taxonomy import Taxonomy

__all__ = ["CONTROLS", "ControlRow", "control_contenders", "control_rows", "descriptors_of"]

CONTROLS = ("described", "shared_random", "per_class_random", "swapped", "scrambled")
BASE = "shared_random"


@dataclass(frozen=True)
class ControlRow:
    """One control: mean and deviation of a metric over the seeds, and its gain over the base."""

    control: str
    seeds: int
    mean: float
    deviation: float
    gain: float


def descriptors_of(prompts: PromptSet, taxonomy: Taxonomy) -> dict[str, tuple[str, ...]]:
    """The descriptors of every class: what the texts of the kind "descriptor" are about.

    Raises
    ------
    PromptError
        For a class without one.

    Examples
    --------
    >>> from byname.promptset import Prompt
    >>> said = Prompt(text="cat, which has whiskers", kind="descriptor", about="whiskers")
    >>> descriptors_of(PromptSet(classes={"cat": (said,)}), Taxonomy.from_names(["cat"]))
    {'cat': ('whiskers',)}
    """
    found = {
        class_id: tuple(dict.fromkeys(p.about for p in given if p.kind == "descriptor" and p.about))
        for class_id, given in prompts.classes.items()
    }
    missing = [i for i in taxonomy.class_ids if not found.get(i)]
    if missing:
        raise PromptError(
            "make controls of the descriptors",
            f"{len(missing)} classes have none, the first is {missing[0]!r}",
            "Give a file made by 'byname prompts make --style descriptors', with all classes.",
        )
    return found


def control_contenders(
    taxonomy: Taxonomy, descriptors: Mapping[str, tuple[str, ...]], *, seeds: int = 7
) -> dict[str, Contender]:
    """A row of the table for each control and seed, all scored as WaffleCLIP does.

    Parameters
    ----------
    taxonomy : Taxonomy
    descriptors : mapping of class id to descriptors
    seeds : int
        How many random draws of each control; 7 as published.

    Returns
    -------
    dict of str to Contender
        Named "swapped/0", "swapped/1", ...; "described" has no seed.
    """
    if seeds < 1:
        raise UsageError("run the controls", f"seeds is {seeds}", "Give 1 or more; 7.")
    recipe: Recipe = get_recipe("ensemble", weigh="mean_similarity")
    found = {"described": Contender(recipe, waffle_controls.described(taxonomy, descriptors))}
    for name in CONTROLS[1:]:
        if name == "swapped" and len(taxonomy) < 2:
            continue
        make = getattr(waffle_controls, name)
        for seed in range(seeds):
            found[f"{name}/{seed}"] = Contender(recipe, make(taxonomy, descriptors, seed=seed))
    return found


def control_rows(table: Mapping[str, Mapping[str, Any]], metric: str = "top1") -> list[ControlRow]:
    """Mean and deviation over the seeds of each control, from a table of :func:`evaluate_images`.

    Examples
    --------
    >>> table = {n: {"top1": {"value": v}} for n, v in
    ...          {"described": 0.6, "shared_random/0": 0.5, "shared_random/1": 0.52}.items()}
    >>> [(r.control, round(r.gain, 2)) for r in control_rows(table)]
    [('described', 0.09), ('shared_random', 0.0)]
    """
    values: dict[str, list[float]] = {}
    for name, row in table.items():
        control = name.partition("/")[0]
        if control in CONTROLS and metric in row:
            values.setdefault(control, []).append(float(row[metric]["value"]))
    if BASE not in values:
        raise UsageError("read the controls", f"the table has no '{BASE}'", "Run them all.")
    base = float(np.mean(values[BASE]))
    return [
        ControlRow(
            name,
            len(found),
            float(np.mean(found)),
            float(np.std(found, ddof=1)) if len(found) > 1 else 0.0,
            float(np.mean(found)) - base,
        )
        for name in CONTROLS
        if (found := values.get(name))
    ]
