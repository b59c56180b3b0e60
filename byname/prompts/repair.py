"""Visible features of the classes that fail, as texts beside or in place of their templates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from byname.prompts.lists import ListMember
from byname.prompts.wording import shown_names
from byname.promptset import Prompt
from byname.queries import Query
from byname.sentences import check_template, descriptor_sentence
from byname.stage import register
from byname.taxonomy import Taxonomy

__all__ = ["RepairParams", "RepairTexts"]


@dataclass(frozen=True)
class RepairParams:
    """The template that the sentences are put into."""

    template: str = "a photo of a {}."

    def __post_init__(self) -> None:
        check_template(self.template)


@register
class RepairTexts(ListMember):
    """Ask for the visible features of the classes that are expected to fail, and of no others.

    Formula: with Q the classes in ``only``, such as those that ``byname diagnose`` finds weak or
    never predicted, the features r that answer the question about a class c of Q become
    ``template({c}, which {verb} {r})``: "a photo of a hen, which has red comb." The verb is that of
    ``descriptors``. The texts hold classes of Q only. Whether they stand beside the texts that a
    class has or take their place is no matter of them: ``mode`` of ``programs.repair.repair``
    chooses it (``add`` or ``replace``; the source does not say which it did).

    Number of queries: size of Q, one a class; K where ``only`` is None.

    Source: Shao et al., arXiv 2310.03324 ("Examining the Achilles' Heel of CLIP Models"), its step
    for the worst classes, reconstructed: no code was published. The question is that of
    ``descriptors``, at temperature 0, and byname's own.

    Parameters
    ----------
    template : str
        With {} where the sentence goes. The default is CLIP's.
    wording : Wording, optional
        Of :func:`byname.prompts.wording.merge_wording`; not part of the spec.

    Examples
    --------
    >>> member, birds = RepairTexts(), Taxonomy.from_names(["hen", "duck"])
    >>> member.only = frozenset({"hen"})
    >>> [asked] = member.asked(birds)
    >>> member.collect(birds, [(asked, "- red comb\\n- a short beak")]).classes["hen"][0].text
    'a photo of a hen, which has red comb.'
    """

    name = "repair"
    Params = RepairParams
    params: RepairParams

    def queries(self, taxonomy: Taxonomy) -> Iterator[Query]:
        """One question a class, of all classes; ``asked`` leaves those of ``only``. Lazy."""
        for class_id, name in shown_names(taxonomy).items():
            yield self.ask("descriptor", class_id, name=name)

    def remarks(self, taxonomy: Taxonomy) -> list[str]:
        """How many of the classes are asked about."""
        K = len(taxonomy.classes)
        if self.only is None:
            return [f"repair asks about all {K} classes: --only names those that fail"]
        return [f"repair asks about {len(self.only & {*taxonomy.class_ids})} of {K} classes"]

    def prompts(self, taxonomy: Taxonomy, query: Query, item: str) -> Iterable[Prompt]:
        """The template with the sentence of one feature; ``about`` is the feature."""
        said = descriptor_sentence(taxonomy.node(query.class_id).name, item)
        text = self.params.template.replace("{}", said)
        return (Prompt(text=text, kind=query.kind, about=item),)
