"""One node of the tree, its id and its text, and the checks before a tree is made of nodes."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from byname.errors import TaxonomyError, some

__all__ = ["Node", "check_nodes", "clean_text", "preorder", "slug_ids", "some"]

# Control characters, the two Unicode line ends and the byte order mark, which joined files carry
# inside; and halves of characters, which no file can hold.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ASKED = "use these classes"


def clean_text(text: object) -> str:
    """NFC, control characters replaced by a space, no space at the ends.

    Examples
    --------
    >>> clean_text(" Granny\\nSmith ")
    'Granny Smith'
    """
    plain = _SURROGATE.sub("\ufffd", _CONTROL.sub(" ", str(text)))
    return unicodedata.normalize("NFC", plain).strip()


def slug_ids(paths: Iterable[Sequence[str]], taken: Iterable[str] = ()) -> list[str]:
    """Ids out of paths of names, root first and left out.

    Each name is lower-cased and what is neither letter, digit, mark nor "_" becomes "-"; parts
    are joined by "."; a name of which nothing is left is "class"; clashes get "-2", "-3".

    Parameters
    ----------
    paths : iterable of sequences of str
    taken : iterable of str, optional
        Ids that are in use.

    Examples
    --------
    >>> slug_ids([["Fruit", "Red Apple"], ["Fruit", "red apple"], ["!"]])
    ['fruit.red-apple', 'fruit.red-apple-2', 'class']
    """
    used, last = set(taken), Counter[str]()
    known: dict[str, str] = {}
    ids = []
    for path in paths:
        parts = [
            known[name] if name in known else known.setdefault(name, _slug(name)) for name in path
        ]
        base = new = ".".join(parts) or "class"
        while new in used:
            last[base] = max(last[base], 1) + 1
            new = f"{base}-{last[base]}"
        used.add(new)
        ids.append(new)
    return ids


def _slug(name: str) -> str:
    kept = (
        c if c.isalnum() or c == "_" or unicodedata.category(c)[0] == "M" else " "
        for c in clean_text(name).lower()
    )
    return "-".join("".join(kept).split()) or "class"


@dataclass(frozen=True)
class Node:
    """One node of the tree: a class, or a group of classes.

    Every text is cleaned by :func:`clean_text`; aliases are split at ";" and empty ones dropped.

    Parameters
    ----------
    id : str
        Unique in its taxonomy.
    name : str
        What people call it.
    parent : str, optional
        Id of the parent; None for the root, and for the nodes below a root that was not given.
    aliases : tuple of str, optional
    description : str, optional

    Examples
    --------
    >>> Node("a", " Apple ", aliases=("malus;pome",)).aliases
    ('malus', 'pome')
    """

    id: str
    name: str
    parent: str | None = None
    aliases: tuple[str, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        given = (self.aliases,) if isinstance(self.aliases, str) else self.aliases
        aliases = (part.strip() for alias in given for part in clean_text(alias).split(";"))
        parent = None if self.parent is None else clean_text(self.parent) or None
        for key, value in {
            "id": clean_text(self.id),
            "name": clean_text(self.name),
            "parent": parent,
            "aliases": tuple(filter(None, aliases)),
            "description": clean_text(self.description),
        }.items():
            object.__setattr__(self, key, value)


def check_nodes(given: list[Node]) -> None:
    """Raise TaxonomyError for no nodes, empty or repeated ids, empty names, unknown parents."""
    if not given:
        raise TaxonomyError(_ASKED, "there are none", "Give at least one name.")
    if "" in (ids := [node.id for node in given]):
        names = [repr(node.name) for node in given if not node.id]
        raise TaxonomyError(_ASKED, f"the id of {some(names)} is empty", "Give every node an id.")
    if repeated := [i for i, n in Counter(ids).items() if n > 1]:
        raise TaxonomyError(
            _ASKED, f"several nodes have the id {some(repeated)}", "Give every node its own id."
        )
    if nameless := [node.id for node in given if not node.name]:
        raise TaxonomyError(
            _ASKED, f"the name of {some(nameless)} is empty", "Give every node a name."
        )
    known = set(ids)
    orphans = [n for n in given if n.parent is not None and n.parent not in known]
    if orphans:
        listed = [f"{n.id} (parent {n.parent})" for n in orphans]
        raise TaxonomyError(
            _ASKED,
            f"parents that do not exist: {some(listed)}",
            "Add the missing parents as nodes of their own, or leave the parent empty.",
        )


def preorder(given: list[Node]) -> tuple[tuple[Node, ...], NDArray[np.intp], list[int]]:
    """Nodes in preorder with a root, parents as indices, and where each given node went.

    Raises TaxonomyError for a cycle.
    """
    below: dict[str | None, list[int]] = {}
    for i, node in enumerate(given):
        below.setdefault(node.parent, []).append(i)
    tops = below.get(None, [])
    real_root = len(tops) == 1 and given[tops[0]].id in below
    nodes: list[Node] = [] if real_root else [Node(id="", name="")]
    parents = [] if real_root else [-1]
    where = [-1] * len(given)
    stack = [(i, -1 if real_root else 0) for i in reversed(tops)]
    while stack:
        i, parent = stack.pop()
        where[i] = len(nodes)
        nodes.append(given[i])
        parents.append(parent)
        stack += [(c, where[i]) for c in reversed(below.get(given[i].id, []))]
    if -1 in where:
        _raise_cycle(given, where.index(-1))
    return tuple(nodes), np.array(parents, np.intp), where


def _raise_cycle(given: list[Node], start: int) -> None:
    parent_of = {node.id: node.parent for node in given}
    seen: dict[str, None] = {}
    at = given[start].id
    while at not in seen:
        seen[at] = None
        at = parent_of[at] or ""
    walk = list(seen)
    cycle = walk[walk.index(at) :]
    arrows = " -> ".join([*cycle[:10], *(["..."] if len(cycle) > 10 else []), at])
    raise TaxonomyError(
        _ASKED,
        f"the parents run in a circle: {arrows}",
        "Change one of these parents, or leave it empty.",
    )
