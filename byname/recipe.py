"""What a recipe is: one member for each stage, and where it was published."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

from byname.stage import STAGES, StageName, create

__all__ = ["Recipe", "member_card"]


@dataclass(frozen=True)
class Recipe:
    """One member for each stage, each written as ``"name"`` or ``"name[parameter=value,...]"``.

    Parameters
    ----------
    name, title : str
    prompts, weigh, score, decide : str
    refine : str or None
        None: the logits stay as they are.
    paper, formula, defaults, tuned, notes : str
        Where it is published; what it computes; where the defaults come from; what the paper chose
        with labels, in which its figures are better than a user's can be.

    Examples
    --------
    >>> from byname.recipes import get_recipe
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
    formula: str = ""
    defaults: str = ""
    tuned: str = ""
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


def member_card(name: str, cls: type) -> dict[str, str]:
    """What the docstring of a member says, by the fields of a recipe.

    Examples
    --------
    >>> from byname.stage import members
    >>> member_card("argmax", members()["argmax"])["title"][-1]
    '.'
    """
    text = inspect.cleandoc(cls.__doc__ or "")
    head, _, rest = text.partition("Parameters\n----------\n")
    parameters = re.split(r"\n\n\w[\w ]*\n-{3,}\n", "\n\n" + rest.strip())[0].strip()
    formula = re.search(r"\bFormula\b.*?(?=\n\n\w)", head + "\n\nx", re.S)
    source = re.search(r"^Source: (.*?)(?=\n\n|\Z)", head, re.S | re.M)
    said = formula[0].strip() if formula else ""
    return {
        "title": text.partition("\n")[0],
        "paper": " ".join(source[1].split()) if source else "",
        "formula": re.sub(r"^Formula(?:::|:|,) *", "", said),
        "defaults": parameters,
    }
