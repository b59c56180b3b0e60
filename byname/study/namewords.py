"""What the names of classes are like, as words: alike, one inside the other, or no words at all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from byname.errors import NeedsError
from byname.promptcheck_names import words_of
from byname.prompts.wordnet import Lookup, Sense
from byname.taxonomy import Node, Taxonomy
from byname.wordnet import wordnet_lookup

__all__ = [
    "Pair",
    "broader",
    "group_names",
    "installed",
    "nearly_same",
    "no_words",
    "several_senses",
]

# Words that only count things.
COUNTERS = frozenset(
    {"category", "class", "cls", "cluster", "concept", "file", "group", "id", "image", "img"}
    | {"item", "klass", "label", "node", "obj", "object", "other", "part", "sample", "tag"}
    | {"thing", "type", "unknown"}
)
_COUNTED = re.compile(r"([^\W\d_]+)[\s\-_.#:]*\d+")
_CODE = re.compile(r"[nvar]\d{8}|[0-9a-f]{8,}|[0-9a-f]{8}-[0-9a-f-]{27}", re.IGNORECASE)
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
DIGITS = 5  # in a name, from which it is a number rather than a model
# Hypernyms of nearly all things: two meanings that share no others have nothing in common.
ROOTS = frozenset(
    {"entity", "physical entity", "abstract entity", "abstraction", "object", "physical object"}
    | {"whole", "unit", "thing", "matter"}
)
MEANINGS = 2  # of the most usual that are compared


@dataclass(frozen=True)
class Pair:
    """Ids of two nodes, and the names by which they were met."""

    a: str
    b: str
    name_a: str
    name_b: str


def _names(node: Node) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (node.name, *node.aliases))))


def _key(name: str) -> str:
    """The same for "Hot-dogs" and "hot dog"; the name itself where it has no words."""
    return "".join(words_of(name)) or name.casefold()


def nearly_same(taxonomy: Taxonomy) -> list[Pair]:
    """Classes whose names differ in case, accents, plural, spaces or punctuation only.

    Names that are the same but for their case are left out: the flag "ambiguous name" has them.

    Examples
    --------
    >>> [(p.a, p.b) for p in nearly_same(Taxonomy.from_names(["hot dog", "Hot-dogs", "cat"]))]
    [('hot-dog', 'hot-dogs')]
    """
    bearers: dict[str, list[tuple[str, str]]] = {}
    for node in taxonomy.classes:
        for name in _names(node):
            bearers.setdefault(_key(name), []).append((node.id, name))
    exact = {n.id: {name.casefold() for name in _names(n)} for n in taxonomy.classes}
    found: dict[frozenset[str], Pair] = {}
    for given in bearers.values():
        first, *others = sorted(given)
        for class_id, name in others:
            apart = class_id != first[0] and exact[class_id].isdisjoint(exact[first[0]])
            if apart and (both := frozenset((first[0], class_id))) not in found:
                found[both] = Pair(first[0], class_id, first[1], name)
    return sorted(found.values(), key=lambda pair: (pair.a, pair.b))


def group_names(taxonomy: Taxonomy) -> list[Pair]:
    """Classes (a) with the name of a group (b) that has classes besides them.

    Examples
    --------
    >>> tree = Taxonomy([Node("f", "Fruit"), Node("a", "Apple", "f"), Node("x", "fruits", "f")])
    >>> [(p.a, p.b) for p in group_names(tree)]
    [('x', 'f')]
    """
    groups: dict[str, list[Node]] = {}
    for i, node in enumerate(taxonomy.nodes):
        if taxonomy.heights[i] > 0:
            for key in {_key(name) for name in _names(node)}:
                groups.setdefault(key, []).append(node)
    below = dict.fromkeys((node.id for node in taxonomy.nodes), 0)
    for node in taxonomy.classes:
        for above in taxonomy.ancestors(node.id):
            below[above] = below.get(above, 0) + 1
    found = []
    for node in taxonomy.classes:
        path = set(taxonomy.ancestors(node.id))
        for name in _names(node):
            for group in groups.get(_key(name), ()):
                if group.id not in path or below[group.id] > 1:
                    found.append(Pair(node.id, group.id, name, group.name))
    return sorted({(p.a, p.b): p for p in found}.values(), key=lambda p: (p.a, p.b))


def broader(taxonomy: Taxonomy, look_up: Lookup | None = None) -> list[Pair]:
    """Classes (a) whose name is how another's (b) ends, or stands above it in WordNet.

    "dog" beside "guide dog" may be the broader class; beside "hot dog" it is not.

    Parameters
    ----------
    taxonomy : Taxonomy
    look_up : callable, optional
        A name to its senses, as :func:`byname.wordnet.wordnet_lookup` makes it.

    Examples
    --------
    >>> [(p.a, p.b) for p in broader(Taxonomy.from_names(["dog", "guide dog", "cat"]))]
    [('dog', 'guide-dog')]
    """
    ends: dict[str, list[tuple[str, str]]] = {}
    for node in taxonomy.classes:
        for name in _names(node):
            ends.setdefault(_key(name), []).append((node.id, name))
    found: dict[tuple[str, str], Pair] = {}
    for node in taxonomy.classes:
        for name, end in _above(node, look_up):
            for class_id, said in ends.get(end, ()):
                if class_id != node.id:
                    found.setdefault((class_id, node.id), Pair(class_id, node.id, said, name))
    return [found[key] for key in sorted(found)]


def _above(node: Node, look_up: Lookup | None) -> Iterator[tuple[str, str]]:
    """Names of a class, each with the keys of what may be broader."""
    for name in _names(node):
        words = words_of(name)
        for start in range(1, len(words)):
            yield name, "".join(words[start:])
    if look_up is not None:
        for sense in look_up(node.name)[:1]:
            for above in sense.hypernyms:
                yield node.name, _key(above.replace("_", " "))


def no_words(taxonomy: Taxonomy) -> list[str]:
    """Ids of the classes whose name says nothing: a number, a code, a letter, "part-17".

    Examples
    --------
    >>> no_words(Taxonomy.from_names(["part-17", "n02084071", "q", "42", "Boeing 747", "猫"]))
    ['42', 'n02084071', 'part-17', 'q']
    """
    return sorted(node.id for node in taxonomy.classes if _says_nothing(node.name))


def _says_nothing(name: str) -> bool:
    text = name.strip()
    letters, digits = [c for c in text if c.isalpha()], sum(c.isdigit() for c in text)
    if digits and _CODE.fullmatch(text):
        return True
    if len(letters) < 2:
        # One letter of a script that writes words with letters, or none at all.
        return not letters or (len(text) == 1 and bool(_LATIN.fullmatch(letters[0])))
    counted = _COUNTED.fullmatch(text)
    if counted and counted[1].casefold() in COUNTERS:
        return True
    return digits >= DIGITS and digits > len(letters)


def several_senses(taxonomy: Taxonomy, look_up: Lookup) -> list[str]:
    """Ids of the classes of whose name the two most usual meanings have nothing in common.

    Nothing in common is to share no hypernym but those of nearly all things. Names of which WordNet
    has a group of the class above one meaning alone are clear.

    Examples
    --------
    >>> bird = Sense("1", ("crane",), "", ("bird", "animal", "object", "entity"))
    >>> lift = Sense("2", ("crane",), "", ("machine", "device", "object", "entity"))
    >>> several_senses(Taxonomy.from_names(["crane"]), lambda name: [bird, lift])
    ['crane']
    """
    found = []
    for node in taxonomy.classes:
        senses = list(look_up(node.name))[:MEANINGS]
        if len(senses) < MEANINGS:
            continue
        above = [{name.replace("_", " ") for name in one.hypernyms} for one in senses]
        if set.intersection(*above) <= ROOTS and not _told_by_group(taxonomy, node, senses):
            found.append(node.id)
    return sorted(found)


def _told_by_group(taxonomy: Taxonomy, node: Node, senses: Sequence[Sense]) -> bool:
    above = [taxonomy.root, *map(taxonomy.node, taxonomy.ancestors(node.id))]
    groups = {_key(name) for one in above for name in _names(one)}
    fits = [any(_key(h.replace("_", " ")) in groups for h in sense.hypernyms) for sense in senses]
    return sum(fits) == 1


def installed() -> Lookup | None:
    """WordNet, where the library and its data are there; nothing is downloaded."""
    try:
        return wordnet_lookup()
    except NeedsError:
        return None
