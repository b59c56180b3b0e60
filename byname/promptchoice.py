"""Which texts a user wants: a member's, a file's, a set, or several together."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from byname.errors import PromptError
from byname.files import names_file
from byname.prompts.states import GROUPS
from byname.prompts.wordnet import WordNet
from byname.promptset import PromptSet
from byname.promptset_io import fill_missing, load_prompts, prompts_of
from byname.stage import PromptMember, create
from byname.taxonomy import Taxonomy
from byname.wordnet import wordnet_lookup

__all__ = ["Prompts", "chosen_prompts", "is_member", "ready_member"]


Prompts: TypeAlias = str | Path | PromptSet | Mapping[str, Any]
"""What a user may give: a member, a file, a sum of these, a set, or ``{class: [texts]}``."""


def is_member(prompts: Prompts | None) -> bool:
    """Whether this names one member of the prompts stage, rather than a file, a set or a sum."""
    return isinstance(prompts, str) and len(_parts(prompts)) == 1 and not _is_file(prompts)


def chosen_prompts(
    prompts: Prompts, taxonomy: Taxonomy, *, allow_missing: bool = False, states: bool = False
) -> PromptSet:
    """The texts of every class.

    Parameters
    ----------
    prompts : str, Path, PromptSet or mapping
        A member ("templates"), a file ("p.json"), or several joined by "+"
        ("templates+p.json"); or ``{class: [texts]}``. A file in a sum need not have texts for
        every class.
    taxonomy : Taxonomy
    allow_missing : bool
        Give a template to classes without any text.
    states : bool
        The score keeps texts of two opposite states apart; otherwise they are warned of.

    Raises
    ------
    PromptError, RecipeError, NeedsError
        For what cannot be read or made, or leaves a class without texts.

    Warns
    -----
    UserWarning
        Where a class has texts of two opposite states, as ``states`` makes them.

    Examples
    --------
    >>> chosen_prompts("templates[set=single]", Taxonomy.from_names(["cat"])).texts("cat")
    ['a photo of a cat.']
    """
    if not isinstance(prompts, str | Path | PromptSet | Mapping):
        raise PromptError(
            "use these prompts",
            f"they are a {type(prompts).__name__}",
            "Give a member's name, a prompt file, a PromptSet, or {class: [texts]}.",
        )
    parts = _parts(prompts) if isinstance(prompts, str) else [prompts]
    made = [_texts(part, taxonomy) for part in parts]
    together = made[0] if len(made) == 1 else PromptSet.concatenate(made)
    if not states:
        _warn_of_states(together)
    return fill_missing(together, taxonomy, allow_missing=allow_missing)


def _warn_of_states(chosen: PromptSet) -> None:
    """Say that texts of two opposite states would be taken for texts of one class."""
    for class_id, prompts in chosen.classes.items():
        kinds = {prompt.kind for prompt in prompts}
        for first, second in GROUPS.values():
            if {first, second} <= kinds:
                warnings.warn(
                    f"the texts of {class_id!r} are of two states, {first!r} and {second!r}: all "
                    "texts of a class are averaged into one vector, which says nothing of either. "
                    "They need the score that asks which of the two: --score two_state, with "
                    "--decide multilabel for all that are present or anomalous.",
                    stacklevel=3,
                )
                return


def _texts(part: Prompts, taxonomy: Taxonomy) -> PromptSet:
    if isinstance(part, PromptSet):
        return part
    if isinstance(part, Mapping):
        return prompts_of(dict(part), taxonomy, "use these prompts", "texts")
    if isinstance(part, Path) or _is_file(part):
        return load_prompts(part, taxonomy)
    return ready_member(part).generate(taxonomy)


def ready_member(spec: str) -> PromptMember:
    """A prompts member with what it needs from outside: ``wordnet`` gets its data.

    Examples
    --------
    >>> ready_member("templates[set=single]").spec
    'templates[set=single]'
    """
    member: PromptMember = create(spec, "prompts")
    if isinstance(member, WordNet):
        member.lookup = wordnet_lookup(member.params.lexicon or None)
    return member


def _is_file(text: str) -> bool:
    return text.lower().endswith(".json") or names_file(text)


def _parts(text: str) -> list[str]:
    """Split at "+" outside of brackets; a file whose own name has a "+" is one part."""
    if names_file(text):
        return [text]
    found = [part.strip() for part in re.split(r"\+(?![^\[]*\])", text)]
    if not all(found):
        raise PromptError(
            f"use the prompts '{text}'",
            "a name is missing",
            "Give a member or a file, or several joined by '+': templates+more.json.",
        )
    return found
