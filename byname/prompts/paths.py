"""Class names with the names above them in the taxonomy; needs no LLM."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

from byname.errors import PromptError, RecipeError
from byname.prompts.wording import fill
from byname.promptset import Prompt, PromptSet, Provenance
from byname.stage import PromptMember, register
from byname.taxonomy import Node, Taxonomy, clean_text

__all__ = ["Paths", "PathsParams"]

Ancestors = Literal["parent", "all"]
PLAIN = "a photo of a {name}."


@dataclass(frozen=True)
class PathsParams:
    """Which ancestors are named, and in what words."""

    ancestors: Ancestors = "parent"
    template: str = "a photo of a {name}, a kind of {parent}."
    plain: bool = True

    def __post_init__(self) -> None:
        if self.ancestors not in get_args(Ancestors):
            raise RecipeError(
                f"use paths with ancestors={self.ancestors!r}",
                "there is no such choice",
                f"Known: {', '.join(get_args(Ancestors))}.",
            )
        counts = [self.template.count(slot) for slot in ("{name}", "{parent}")]
        if counts != [1, 1] or clean_text(self.template) != self.template:
            raise RecipeError(
                f"use paths with template={self.template!r}",
                f"it holds {{name}} {counts[0]} and {{parent}} {counts[1]} times"
                if counts != [1, 1]
                else "it begins or ends with a space, or holds a control character",
                "Write each once, on one line: 'a photo of a {name} which is a kind of {parent}.'",
            )


@register
class Paths(PromptMember):
    """Say of what kind a class is, by the names above it in the taxonomy.

    Formula: text[k, j] = template with the name of class k for {name} and that of its j-th
    ancestor, nearest first and the root left out, for {parent}. ``ancestors=parent`` is j = 0
    alone; ``ancestors=all`` is every j and, for two ancestors or more, the whole chain: "a photo of
    a {name}, a kind of {parent}, a kind of {grandparent}." No query to an LLM.

    Kind "path", ``about`` the ancestor's id, ``level`` its depth, ``template`` = j where each class
    has a j-th ancestor, else -1; the chain has the kind "chain" and is about the class as a whole.
    An ancestor that bears the name of the class, or of a nearer ancestor, is passed over, and
    counted in the provenance (``same_name``). Classes right below the root have no ancestor to
    name, and get "a photo of a {name}.", of kind "template".

    Source: byname's own member for the common practice of naming the parent in a prompt, which
    tells classes of one name apart ("crane, a kind of bird"); no one paper.

    Parameters
    ----------
    ancestors : {"parent", "all"}
        The nearest one, or a text for each and one for the whole chain.
    template : str
        With {name} and {parent} once each. In a recipe's text it can hold no comma.
    plain : bool
        False leaves out classes right below the root, for use beside other texts:
        ``templates+paths[plain=false]``.

    Examples
    --------
    >>> from byname.taxonomy import Node, Taxonomy
    >>> tree = Taxonomy([Node("b", "bird"), Node("c", "crane", "b"), Node("m", "mug")])
    >>> made = Paths().generate(tree)
    >>> made.texts("c"), made.texts("m")
    (['a photo of a crane, a kind of bird.'], ['a photo of a mug.'])
    """

    name = "paths"
    Params = PathsParams
    params: PathsParams

    def generate(self, taxonomy: Taxonomy) -> PromptSet:
        """The texts of every class, or with ``plain=false`` of those below an inner node.

        Raises
        ------
        PromptError
            With ``plain=false``, where no class has an ancestor to name.
        """
        dropped: Counter[str] = Counter(same_name=0)
        above = {leaf.id: self._above(taxonomy, leaf, dropped) for leaf in taxonomy.classes}
        shared = min(len(nodes) for nodes in above.values())
        classes = {
            leaf.id: tuple(self._prompts(taxonomy, leaf, above[leaf.id], shared))
            for leaf in taxonomy.classes
        }
        classes = {class_id: prompts for class_id, prompts in classes.items() if prompts}
        if not classes:
            raise PromptError(
                f"make '{self.spec}'",
                "no class lies below another node than the root",
                "Give a tree of classes, or leave plain=false out.",
            )
        provenance = {"generator": self.spec, "dropped": dict(dropped)}
        return PromptSet(classes=classes, provenance=Provenance.model_validate(provenance))

    def _above(self, taxonomy: Taxonomy, leaf: Node, dropped: Counter[str]) -> list[Node]:
        """The ancestors to name, nearest first."""
        seen, kept = {leaf.name.casefold()}, []
        for node in map(taxonomy.node, taxonomy.ancestors(leaf.id)):
            if node.name.casefold() in seen:
                dropped["same_name"] += 1
                continue
            seen.add(node.name.casefold())
            kept.append(node)
        return kept[:1] if self.params.ancestors == "parent" else kept

    def _prompts(
        self, taxonomy: Taxonomy, leaf: Node, above: list[Node], shared: int
    ) -> list[Prompt]:
        if not above:
            text = fill(PLAIN, name=leaf.name)
            return [Prompt(text=text, kind="template")] if self.params.plain else []
        made = [
            Prompt(
                text=fill(self.params.template, name=leaf.name, parent=node.name),
                kind="path",
                about=node.id,
                level=int(taxonomy.depths[taxonomy.index(node.id)]),
                template=j if j < shared else -1,
            )
            for j, node in enumerate(above)
        ]
        if len(above) > 1:
            chain = ", a kind of ".join(node.name for node in above)
            text = fill(self.params.template, name=leaf.name, parent=chain)
            made.append(Prompt(text=text, kind="chain"))
        return made
