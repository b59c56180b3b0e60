"""Short phrases on what can be seen of a class, each made a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from byname.prompts.lists import ListMember
from byname.prompts.wording import shown_names
from byname.promptset import Prompt
from byname.queries import Query
from byname.sentences import descriptor_sentence
from byname.stage import register
from byname.taxonomy import Taxonomy

__all__ = ["Descriptors", "DescriptorsParams"]


@dataclass(frozen=True)
class DescriptorsParams:
    """What stands around a descriptor."""

    prefix: str = ""
    suffix: str = ""
    include_name: bool = True
    compat: bool = False


@register
class Descriptors(ListMember):
    """Ask for the visible features of a class, and make a sentence of each.

    Formula: the list of features r that answers the one question about a class c becomes the texts
    ``{prefix} {c}, which {verb} {r}{suffix}``, of which the verb is::

        is    r begins with the word a, an or used
        ""    r begins with the word has, often, typically, may or can
        has   else

    The score of the source is the mean of the cosines to a class's texts, without making it a unit
    vector again.

    Number of queries: K, one a class.

    Source: Menon & Vondrick, "Visual Classification via Description from Large Language Models",
    ICLR 2023, arXiv 2210.07183 (DCLIP). Two worked examples, temperature 0 and 100 tokens are the
    source's; question and examples are byname's own, so results with the original differ.

    Parameters
    ----------
    prefix : str
        Before each sentence, such as "a photo of a"; a space follows it.
    suffix : str
        After each sentence, such as "." or "in a kitchen".
    include_name : bool
        Off: the texts are the features alone.
    compat : bool
        The verb by first letters and not by words, as in the released code: "which is avocado",
        "which candles". Of the 499 descriptors of Food-101 that were published as sentences too,
        7 differ by it.
    wording : Wording, optional
        Of :func:`byname.prompts.wording.merge_wording`; not part of the spec.

    Examples
    --------
    >>> member, hens = Descriptors(suffix="."), Taxonomy.from_names(["hen"])
    >>> asked = list(member.queries(hens))
    >>> member.collect(hens, [(asked[0], "- a red comb\\n- often brown\\n- feathers")]).texts("hen")
    ['hen, which is a red comb.', 'hen, which often brown.', 'hen, which has feathers.']
    """

    name = "descriptors"
    Params = DescriptorsParams
    params: DescriptorsParams

    def queries(self, taxonomy: Taxonomy) -> Iterator[Query]:
        """One question a class; lazy."""
        for class_id, name in shown_names(taxonomy).items():
            yield self.ask("descriptor", class_id, name=name)

    def prompts(self, taxonomy: Taxonomy, query: Query, item: str) -> Iterable[Prompt]:
        """The sentence of one feature; ``about`` is the feature."""
        text = descriptor_sentence(
            taxonomy.node(query.class_id).name,
            item,
            prefix=self.params.prefix,
            suffix=self.params.suffix,
            include_name=self.params.include_name,
            compat=self.params.compat,
        )
        return (Prompt(text=text, kind=query.kind, about=item),)
