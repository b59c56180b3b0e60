"""Five kinds of texts around a class: its name, attributes, look-alikes, synonyms and contrasts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from byname import ops
from byname.errors import PromptError, RecipeError
from byname.prompts.atg_wording import KINDS, ONE_TO_ONE, SLOT, ATGWording, atg_wording
from byname.prompts.pairs import NamedPair, named_pairs, pair_texts, sibling_pairs
from byname.prompts.replies import parse_list
from byname.prompts.wording import Question, shown_names
from byname.promptset import Pair, Prompt, PromptSet
from byname.queries import Query, QueryMember
from byname.stage import Array, register
from byname.taxonomy import Taxonomy

__all__ = ["ATG", "ATGParams", "ATGWording", "atg_wording", "drop_too_close", "pair_queries"]

Embed = Callable[[list[str]], Array]
_BLOCK = 4096


@dataclass(frozen=True)
class ATGParams:
    """Which kinds of texts, joined by "+", and the template for names and synonyms."""

    kinds: str = "name+attributes+analogous+synonyms"
    template: str = "a photo of a {}."

    def __post_init__(self) -> None:
        known = ("name", *KINDS, ONE_TO_ONE)
        wrong = [kind for kind in self.parts() if kind not in known]
        if wrong or not self.parts():
            seen = f"{wrong[0]!r} is no kind" if wrong else "no kind is given"
            raise RecipeError(f"use 'atg[kinds={self.kinds}]'", seen, f"Kinds: {'+'.join(known)}.")
        if self.template.count("{}") != 1:
            raise RecipeError(
                f"use the template {self.template!r}",
                f"it holds {{}} {self.template.count('{}')} times",
                "Write {} once, where the class name goes: 'a photo of a {}.'",
            )

    def parts(self) -> tuple[str, ...]:
        """The kinds as given, without repetitions."""
        given = [kind.strip() for kind in self.kinds.split("+")]
        return tuple(dict.fromkeys(kind for kind in given if kind))


@register
class ATG(QueryMember):
    """Ask for what is near a class in meaning: the texts that ``coder`` scores.

    Formula: for each class in turn, of the kinds chosen::

        name        the template with the class's name; nobody is asked
        attribute   one query: what can be seen of it?        one text an answer
        analogous   one query: what else looks like it?       one text an answer
        synonym     one query: what else is it called?        the template with each answer
        one-to-one  one query a pair (A, B) of classes: how do they differ?     sentences x answers,
                    of A against B and of B against A

    Answers are lists (bullets, numbers or commas); their order is kept and repetitions are
    dropped. A synonym, or a look-alike, that is the name of a class is dropped, and so is, where
    ``collect`` is given ``embed``, a look-alike too close to another class
    (:func:`drop_too_close`). A pair of which one side has no answer is left out.

    Number of queries: K for each of the kinds attribute, analogous and synonym, and one a pair.

    Source: Yi, Ren, Zhan & Ye, "Leveraging Cross-Modal Neighbor Representation for Improved CLIP
    Classification", CVPR 2024, arXiv 2404.17753 (its Auto Text Generator). Questions and
    sentences are byname's own, so results with the original wording differ; synonyms are asked of
    the LLM and not of WordNet.

    Parameters
    ----------
    kinds : str
        Joined by "+"; all but one-to-one by default. With "one-to-one", and without ``pairs``,
        every two classes below one parent are a pair: in a flat list these are all pairs, whose
        number grows with the square of K.
    template : str
        For names and synonyms, with {} where they go. The default is CLIP's.
    pairs : iterable of (id, id), optional
        Pairs of classes to be told apart, as ``programs.hard_pairs`` proposes them from unlabeled
        images; asked about whether or not ``kinds`` holds "one-to-one". Not part of the spec.
    wording : ATGWording, optional
        Of :func:`atg_wording`; not part of the spec.

    Examples
    --------
    >>> member = ATG(kinds="name+synonyms")
    >>> taxonomy = Taxonomy.from_names(["sofa", "cat"])
    >>> queries = list(member.queries(taxonomy))
    >>> member.collect(taxonomy, [(queries[0], "- couch"), (queries[1], "none")]).texts("sofa")
    ['a photo of a sofa.', 'a photo of a couch.']
    """

    name = "atg"
    Params = ATGParams
    params: ATGParams

    def __init__(
        self,
        params: Any = None,
        *,
        pairs: Iterable[tuple[str, str]] = (),
        wording: ATGWording | None = None,
        **kw: Any,
    ) -> None:
        super().__init__(params, **kw)
        self.pairs = tuple(pairs)
        self.wording = wording

    def use_wording(self, raw: Any, source: str) -> None:
        """Ask in a user's words; see :func:`atg_wording`."""
        self.wording = atg_wording(raw, source)

    def queries(self, taxonomy: Taxonomy) -> Iterator[Query]:
        """The queries of each class, then those of the pairs; lazy."""
        wording = self.wording or atg_wording()
        kinds = [KINDS[part] for part in KINDS if part in self.params.parts()]
        shown = shown_names(taxonomy)
        for leaf in taxonomy.classes:
            for kind in kinds:
                names = {"name": shown[leaf.id]}
                yield _query(leaf.id, "", kind, wording.questions[kind], names)
        pairs: Iterable[tuple[str, str]] = self.pairs
        if ONE_TO_ONE in self.params.parts() and not self.pairs:
            pairs = sibling_pairs(taxonomy)
        yield from pair_queries(taxonomy, pairs, wording)

    def repeats(self, query: Query, text: str) -> Hashable:
        """A list may answer several questions: only the same answer to the same one repeats."""
        return query.kind, query.about, text

    def generate(self, taxonomy: Taxonomy) -> PromptSet:
        """The names alone need no replies; all else raises NeedsError, which says what to do."""
        if self.params.parts() == ("name",) and not self.pairs:
            return self.collect(taxonomy, ())
        return super().generate(taxonomy)

    def collect(
        self,
        taxonomy: Taxonomy,
        replies: Iterable[tuple[Query, str]],
        *,
        embed: Embed | None = None,
        limit: float = 0.9,
    ) -> PromptSet:
        """The prompt set that the replies make.

        Parameters
        ----------
        taxonomy : Taxonomy
        replies : iterable of (Query, str)
        embed : callable, optional
            Texts to vectors (n, D); with it, look-alikes too close to another class are dropped.
        limit : float
            See :func:`drop_too_close`.

        Raises
        ------
        PromptError
            For replies to queries that this member does not ask of this taxonomy.
        """
        raw = super().collect(taxonomy, replies)
        wording, template = self.wording or atg_wording(), self.params.template
        items, pairs, lost = self._answers(taxonomy, raw, wording)
        if embed is not None:
            lost["too close"] = self._drop_close(taxonomy, items, embed, limit)
        classes = {}
        for leaf in taxonomy.classes:
            made: list[Prompt] = []
            if "name" in self.params.parts():
                text = template.replace("{}", leaf.name)
                made.append(Prompt(text=text, kind="name", template=0))
            for kind in KINDS.values():
                own = wording.sentences.get(kind, ())
                frames = (template.replace("{}", "{item}"),) if kind == "synonym" else own
                made += [
                    Prompt(text=_fill(frame, name=leaf.name, item=item), kind=kind, about=item)
                    for item in items[kind][leaf.id]
                    for frame in frames
                ]
            if made:
                classes[leaf.id] = tuple(made)
        provenance = raw.provenance.model_copy(update={"answers_dropped": dict(lost)})
        return PromptSet(classes=classes, pairs=tuple(pairs), provenance=provenance)

    def _answers(
        self, taxonomy: Taxonomy, raw: PromptSet, wording: ATGWording
    ) -> tuple[dict[str, dict[str, list[str]]], list[Pair], Counter[str]]:
        """Answers by kind and class, the pairs, and how many answers were dropped why."""
        items: dict[str, dict[str, list[str]]] = {
            kind: {node_id: [] for node_id in taxonomy.class_ids} for kind in KINDS.values()
        }
        taken = {node.name.casefold() for node in taxonomy.classes}
        shown = shown_names(taxonomy)
        pairs: list[Pair] = []
        lost: Counter[str] = Counter()
        for class_id, prompts in raw.classes.items():
            for prompt in prompts:
                if prompt.kind == ONE_TO_ONE:
                    pair = NamedPair(class_id, prompt.about, shown[class_id], shown[prompt.about])
                    two = pair_texts(taxonomy, pair, prompt.text, wording.sentences[ONE_TO_ONE])
                    lost["pair with one side"] += not two
                    pairs += two
                    continue
                kept = items[prompt.kind][class_id]
                for item in parse_list(prompt.text):
                    if prompt.kind != "attribute" and item.casefold() in taken:
                        lost["name of a class"] += 1
                    elif item.casefold() not in {old.casefold() for old in kept}:
                        kept.append(item)
        return items, pairs, lost

    def _drop_close(
        self,
        taxonomy: Taxonomy,
        items: dict[str, dict[str, list[str]]],
        embed: Embed,
        limit: float,
    ) -> int:
        template, before = self.params.template, items["analogous"]
        names = embed([template.replace("{}", node.name) for node in taxonomy.classes])

        def embed_item(texts: list[str]) -> Array:
            return embed([template.replace("{}", text) for text in texts])

        items["analogous"] = drop_too_close(before, embed_item, names, limit)
        return sum(len(before[i]) - len(items["analogous"][i]) for i in before)


def pair_queries(
    taxonomy: Taxonomy, pairs: Iterable[tuple[str, str]], wording: ATGWording | None = None
) -> Iterator[Query]:
    """One query for each pair of classes: by what can they be told apart?

    A pair given twice, in whatever order, is asked once; classes of one name that their parents
    do not tell apart either cannot be asked about and are passed over.

    Raises
    ------
    PromptError
        For an id that is no class, and a class paired with itself.

    Examples
    --------
    >>> taxonomy = Taxonomy.from_names(["fox", "wolf"])
    >>> [(q.class_id, q.about) for q in pair_queries(taxonomy, [("fox", "wolf"), ("wolf", "fox")])]
    [('fox', 'wolf')]
    """
    question = (wording or atg_wording()).questions[ONE_TO_ONE]
    for a, b, name, other in named_pairs(taxonomy, pairs):
        yield _query(a, b, ONE_TO_ONE, question, {"name": name, "other": other})


def drop_too_close(
    candidates: Mapping[str, Sequence[str]],
    embed: Embed,
    class_vectors: Array,
    limit: float = 0.9,
) -> dict[str, list[str]]:
    """Leave out candidates that are, in the encoder's eyes, another class of the list.

    Parameters
    ----------
    candidates : mapping of str to sequence of str
        Texts of each of the K classes, in the order of the classes.
    embed : callable
        Texts to vectors (n, D); called once.
    class_vectors : array, shape (K, D)
        Vectors of the classes' names.
    limit : float
        Largest cosine to another class that is kept; 0.9 in the paper's code, for ViT-L/14.

    Returns
    -------
    dict
        The same classes, with the texts that are kept.

    Examples
    --------
    >>> vectors = {"okapi": [0.6, 0.8], "horse": [0.0, 1.0]}
    >>> drop_too_close({"zebra": ["okapi", "horse"], "pony": ["horse"]},
    ...                lambda texts: np.array([vectors[t] for t in texts]), np.eye(2))
    {'zebra': ['okapi'], 'pony': ['horse']}
    """
    texts = list(dict.fromkeys(text for given in candidates.values() for text in given))
    if not texts:
        return {key: [] for key in candidates}
    if len(candidates) != len(class_vectors):
        raise PromptError(
            "drop texts too close to other classes",
            f"there are {len(candidates)} classes and {len(class_vectors)} class vectors",
            "Give one vector a class, in the same order.",
        )
    names = ops.unit(class_vectors)
    vectors = ops.like(ops.unit(embed(texts)), names)
    # The two classes nearest to a text tell, for every class, how near the nearest other one is.
    parts = [ops.topk(ops.matmul_t(vectors[b], names), 2) for b in ops.blocks(len(texts), _BLOCK)]
    value = np.concatenate([ops.to_numpy(v) for v, _ in parts])
    nearest = np.concatenate([ops.to_numpy(i)[:, 0] for _, i in parts])
    second = value[:, 1] if value.shape[1] > 1 else np.full(len(texts), -np.inf)
    place = {text: i for i, text in enumerate(texts)}

    def other(text: str, k: int) -> float:
        i = place[text]
        return float(second[i] if nearest[i] == k else value[i, 0])

    return {
        key: [text for text in given if other(text, k) <= limit]
        for k, (key, given) in enumerate(candidates.items())
    }


def _query(a: str, about: str, kind: str, question: Question, names: dict[str, str]) -> Query:
    return Query.make(
        a,
        about,
        kind,
        _fill(question.text, **names),
        stop=None if question.stop and question.stop in names["name"] else question.stop,
        temperature=question.temperature,
        max_tokens=question.max_tokens,
        form=question.form,
        samples=question.samples,
    )


def _fill(text: str, **names: str) -> str:
    """One pass and no str.format: names and answers are other people's text."""
    return SLOT.sub(lambda found: names[found[1]], text)
