"""What tells confused classes apart, as texts of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from byname.prompts.pairs import named_pairs, pair_texts, sibling_pairs
from byname.prompts.replies import parse_list
from byname.prompts.wording import WordedMember, Wording
from byname.promptset import Pair, Prompt, PromptSet
from byname.queries import Query
from byname.stage import register
from byname.taxonomy import Taxonomy

__all__ = ["Contrast"]


@register
class Contrast(WordedMember):
    """Ask by what two confused classes can be told apart, and give the answers to both.

    Formula: the answer to the one query about a pair (A, B) is a list for each side, whose items r
    become texts of A (``about`` B) and of B (``about`` A)::

        "a photo of a {name} with {r}."

    They are texts of their classes, meant to be added to those that these have, and once more
    texts of the pair, in both directions, for programs that settle close calls. A pair of which
    one side has no answer is left out and counted. Where two pairs give a class the same text, it
    is the class's once. A class of no pair gets no text.

    With ``only``, the pairs with at least one such class are asked about, and only such classes
    get texts.

    Number of queries: one a pair. Without ``pairs``, every two classes below one parent are a
    pair: in a flat list K (K - 1) / 2.

    Source: Saha, Lawrence, Van Horn & Maji, "Generate, Transduct, Adapt: Iterative Transduction
    with VLMs", ICCV 2025, arXiv 2501.06031 (GTA-CLIP), its generate step, once. The source repeats
    it and tunes the encoder in between; byname does not. Its pairs are those that unlabeled images
    lie between (``programs.hard_pairs`` proposes such). The question is byname's own.

    Parameters
    ----------
    pairs : iterable of (id, id), optional
        Pairs of classes; not part of the spec. A pair given twice, in whatever order, is asked
        once; classes of one name that their parents do not tell apart either are passed over.
    wording : Wording, optional
        Of :func:`byname.prompts.wording.merge_wording`; not part of the spec.

    Examples
    --------
    >>> waters = Taxonomy.from_names(["river", "lake", "sea"])
    >>> member = Contrast(pairs=[("river", "lake")])
    >>> [asked] = member.queries(waters)
    >>> made = member.collect(waters, [(asked, "A:\\n- a current\\nB:\\n- a round shore")])
    >>> made.texts("lake"), list(made.classes)
    (['a photo of a lake with a round shore.'], ['river', 'lake'])
    """

    name = "contrast"
    per_class = False

    def __init__(
        self,
        params: Any = None,
        *,
        pairs: Iterable[tuple[str, str]] = (),
        wording: Wording | None = None,
        **kw: Any,
    ) -> None:
        super().__init__(params, wording=wording, **kw)
        self.pairs = tuple(pairs)

    def queries(self, taxonomy: Taxonomy) -> Iterator[Query]:
        """One query a pair; lazy."""
        for pair in named_pairs(taxonomy, self.pairs or sibling_pairs(taxonomy)):
            yield self.ask("contrast", pair.a, about=pair.b, name=pair.name, other=pair.other)

    def asked(
        self, taxonomy: Taxonomy, replies: Mapping[str, Sequence[str]] | None = None
    ) -> Iterator[Query]:
        """The queries, of the pairs with a class in ``only``."""
        self.meet(taxonomy)
        for query in self.queries(taxonomy):
            if self.only is None or not self.only.isdisjoint((query.class_id, query.about)):
                yield query

    def remarks(self, taxonomy: Taxonomy) -> list[str]:
        """Where the pairs come from."""
        every = "every two classes below one parent; give the confused ones with --pairs"
        return [] if self.pairs else [f"pairs: {every}"]

    def repeats(self, query: Query, text: str) -> Hashable:
        """A list may answer several questions: only the same answer to the same one repeats."""
        return query.id, text

    def problem(self, query: Query, reply: str) -> str:
        """What is wrong with a reply, "" for nothing: refused, empty, or without any item."""
        return super().problem(query, reply) or ("" if parse_list(reply) else "no list")

    def collect(self, taxonomy: Taxonomy, replies: Iterable[tuple[Query, str]]) -> PromptSet:
        """The prompt set that the replies make; a class without any text is not in it.

        Raises
        ------
        PromptError
            For replies to queries that this member does not ask of this taxonomy.
        """
        answers, provenance = self.answers(taxonomy, replies)
        named = {
            (pair.a, pair.b): pair
            for pair in named_pairs(taxonomy, ((q.class_id, q.about) for q, _ in answers))
        }
        frames = self.wording.sentences["contrast"]
        told: dict[tuple[str, str], dict[str, None]] = {}
        lost = 0
        for query, reply in answers:
            two = pair_texts(taxonomy, named[query.class_id, query.about], reply, frames)
            lost += not two
            for pair in two:
                told.setdefault((pair.a, pair.b), {}).update(dict.fromkeys(pair.texts))
        texts: dict[str, dict[str, Prompt]] = {
            i: {} for i in taxonomy.class_ids if self.only is None or i in self.only
        }
        repeated: Counter[str] = Counter({"pair with one side": lost})
        for (one, other), said in told.items():
            for text in said if one in texts else ():
                repeated["text of another pair"] += text in texts[one]
                texts[one].setdefault(text, Prompt(text=text, kind="contrast", about=other))
        dropped = {reason: n for reason, n in repeated.items() if n}
        if dropped:
            provenance = provenance.model_copy(update={"answers_dropped": dropped})
        return PromptSet(
            classes={i: tuple(made.values()) for i, made in texts.items() if made},
            pairs=tuple(Pair(a=a, b=b, texts=tuple(said)) for (a, b), said in told.items()),
            provenance=provenance,
        )
