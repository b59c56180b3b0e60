"""Pairs of classes that are to be told apart: which, what they are called, and what is said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from byname.errors import PromptError
from byname.prompts.replies import parse_two_lists
from byname.prompts.wording import fill, shown_names
from byname.promptset import Pair
from byname.taxonomy import Taxonomy

__all__ = ["NamedPair", "named_pairs", "pair_texts", "sibling_pairs"]


class NamedPair(NamedTuple):
    """Ids of two classes, and what a question calls them."""

    a: str
    b: str
    name: str
    other: str


def sibling_pairs(taxonomy: Taxonomy) -> Iterator[tuple[str, str]]:
    """Every two classes below one parent, once; lazy.

    Examples
    --------
    >>> list(sibling_pairs(Taxonomy.from_names(["fox", "wolf"])))
    [('fox', 'wolf')]
    """
    below: dict[int, list[str]] = {}
    for node_id, place in zip(taxonomy.class_ids, taxonomy.leaf_index, strict=True):
        below.setdefault(int(taxonomy.parents[place]), []).append(node_id)
    for family in below.values():
        yield from combinations(family, 2)


def named_pairs(taxonomy: Taxonomy, pairs: Iterable[tuple[str, str]]) -> Iterator[NamedPair]:
    """The pairs that can be asked about, each once, in the order given; lazy.

    Classes of one name that their parents do not tell apart either are passed over.

    Raises
    ------
    PromptError
        For an id that is no class, and a class paired with itself.

    Examples
    --------
    >>> taxonomy = Taxonomy.from_names(["fox", "wolf"])
    >>> [pair[:2] for pair in named_pairs(taxonomy, [("fox", "wolf"), ("wolf", "fox")])]
    [('fox', 'wolf')]
    """
    shown = shown_names(taxonomy)
    seen: set[frozenset[str]] = set()
    for a, b in pairs:
        wrong = [i for i in (a, b) if i not in shown]
        if wrong or a == b:
            raise PromptError(
                f"ask how '{a}' and '{b}' differ",
                f"no class has the id '{wrong[0]}'" if wrong else "it is one class twice",
                "Give ids of two classes.",
            )
        both = frozenset((a, b))
        if both not in seen and shown[a].casefold() != shown[b].casefold():
            seen.add(both)
            yield NamedPair(a, b, shown[a], shown[b])


def pair_texts(
    taxonomy: Taxonomy, pair: NamedPair, reply: str, frames: Sequence[str]
) -> tuple[Pair, ...]:
    """What a reply of two lists says of A against B and of B against A.

    Parameters
    ----------
    taxonomy : Taxonomy
    pair : NamedPair
    reply : str
    frames : sequence of str
        Sentences with ``{item}``, and perhaps ``{name}`` and ``{other}``.

    Returns
    -------
    tuple of Pair
        Two; none where one of the two sides has no answer.

    Examples
    --------
    >>> taxonomy = Taxonomy.from_names(["fox", "wolf"])
    >>> [pair] = named_pairs(taxonomy, [("fox", "wolf")])
    >>> [two.texts for two in pair_texts(taxonomy, pair, "A: red\\nB: grey", ["{name}, {item}"])]
    [('fox, red',), ('wolf, grey',)]
    """
    a, b = pair.a, pair.b
    sides = parse_two_lists(reply, pair.name, pair.other)
    if not all(sides):
        return ()
    made = []
    for (one, other), items in zip(((a, b), (b, a)), sides, strict=True):
        names = {"name": taxonomy.node(one).name, "other": taxonomy.node(other).name}
        texts = [fill(frame, item=item, **names) for item in items for frame in frames]
        made.append(Pair(a=one, b=other, texts=tuple(texts)))
    return tuple(made)
