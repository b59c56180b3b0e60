"""Which texts a user wants: a member's, a file's, a set, or several together."""

from __future__ import annotations

import re
from pathlib import Path

from byname.promptset import PromptSet
from byname.promptset_io import fill_missing, load_prompts
from byname.stage import PromptMember, create
from byname.taxonomy import Taxonomy

__all__ = ["chosen_prompts", "is_member"]


def is_member(prompts: str | Path | PromptSet | None) -> bool:
    """Whether this names one member of the prompts stage, rather than a file, a set or a sum."""
    return isinstance(prompts, str) and len(_parts(prompts)) == 1 and not _is_file(prompts)


def chosen_prompts(
    prompts: str | Path | PromptSet, taxonomy: Taxonomy, *, allow_missing: bool = False
) -> PromptSet:
    """The texts of every class.

    Parameters
    ----------
    prompts : str, Path or PromptSet
        A member ("templates"), a file ("p.json"), or several joined by "+"
        ("templates+p.json"). A file in a sum need not have texts for every class.
    taxonomy : Taxonomy
    allow_missing : bool
        Give a template to classes without any text.

    Raises
    ------
    PromptError, RecipeError, NeedsError
        For what cannot be read or made, or leaves a class without texts.

    Examples
    --------
    >>> chosen_prompts("templates[set=single]", Taxonomy.from_names(["cat"])).texts("cat")
    ['a photo of a cat.']
    """
    parts = [prompts] if isinstance(prompts, PromptSet | Path) else _parts(prompts)
    made = [_texts(part, taxonomy) for part in parts]
    together = made[0] if len(made) == 1 else PromptSet.concatenate(made)
    return fill_missing(together, taxonomy, allow_missing=allow_missing)


def _texts(part: str | Path | PromptSet, taxonomy: Taxonomy) -> PromptSet:
    if isinstance(part, PromptSet):
        return part
    if isinstance(part, Path) or _is_file(part):
        return load_prompts(part, taxonomy)
    member: PromptMember = create(part, "prompts")
    return member.generate(taxonomy)


def _is_file(text: str) -> bool:
    return text.lower().endswith(".json") or Path(text).is_file()


def _parts(text: str) -> list[str]:
    """Split at "+" outside of brackets; a file whose own name has a "+" is one part."""
    if Path(text).is_file():
        return [text]
    return [part.strip() for part in re.findall(r"(?:\[[^\]]*\]|[^+\[])+", text)]
