"""The class list of a request: names that the user edits, on the tree that was given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from byname.errors import TaxonomyError
from byname.serve.problems import Problem
from byname.taxonomy import Node, Taxonomy, clean_text, slug_ids

__all__ = ["MOST", "ClassItem", "described", "taxonomy_of"]

MOST = 5_000
"""Classes of one request; more may be given at the start."""


class ClassItem(BaseModel):
    """One class: its id where it has one, its name, and its group where that is said.

    Examples
    --------
    >>> ClassItem(name="cat").id is None
    True
    """

    model_config = ConfigDict(extra="ignore")

    id: str | None = Field(default=None, max_length=300)
    name: str = Field(max_length=300)
    parent: str | None = Field(default=None, max_length=300)


def taxonomy_of(items: Sequence[ClassItem] | None, base: Taxonomy) -> Taxonomy:
    """The classes of a request.

    Parameters
    ----------
    items : sequence of ClassItem or None
        None stands for the classes that were given at the start. A class with a known id keeps
        its place in the tree, unless ``parent`` names another group or, as None, the root; a new
        one without an id gets a slug of its name.
    base : Taxonomy
        The classes that were given at the start.

    Raises
    ------
    TaxonomyError
        For no classes, empty names, and ids that repeat.
    Problem
        For a parent that is no group.

    Examples
    --------
    >>> base = Taxonomy.from_names(["cat", "dog"])
    >>> made = taxonomy_of([ClassItem(id="cat", name="kitten"), ClassItem(name="cow")], base)
    >>> [(node.id, node.name) for node in made.classes]
    [('cat', 'kitten'), ('cow', 'cow')]
    >>> taxonomy_of(None, base) is base
    True
    """
    if items is None:
        return base
    if not items:
        raise TaxonomyError("use these classes", "there are none", "Give at least one name.")
    leaves = set(base.class_ids)
    groups = {node.id for node in base.nodes} - leaves
    ids = _ids(items, groups)
    made = []
    for item, own in zip(items, ids, strict=True):
        old = base.node(own) if item.id and own in leaves else None
        same = old is not None and old.name == clean_text(item.name)
        made.append(
            Node(
                own,
                item.name,
                _parent(item, old, base, groups),
                old.aliases if old is not None and same else (),
                old.description if old is not None and same else "",
            )
        )
    used: set[str] = set()
    for node in made:
        up = node.parent
        while up is not None and up not in used:
            used.add(up)
            up = base.node(up).parent
    found = Taxonomy([*(node for node in base.nodes if node.id in used), *made])
    return base if found == base else found


def _ids(items: Sequence[ClassItem], groups: set[str]) -> list[str]:
    given = [clean_text(item.id) if item.id else "" for item in items]
    new = slug_ids(
        ([clean_text(item.name)] for item, own in zip(items, given, strict=True) if not own),
        taken=groups.union(given),
    )
    rest = iter(new)
    found = [own or next(rest) for own in given]
    if clash := groups.intersection(found):
        seen = f"the id {sorted(clash)[0]!r} is that of a group"
        raise TaxonomyError("use these classes", seen, "Give the class another id, or none.")
    return found


def _parent(item: ClassItem, old: Node | None, base: Taxonomy, groups: set[str]) -> str | None:
    top = base.root.id or None
    if "parent" not in item.model_fields_set:
        return old.parent if old is not None else top
    wanted = clean_text(item.parent) if item.parent else ""
    if not wanted:
        return top
    if wanted not in groups:
        asked = f"put the class {item.name[:80]!r} below {wanted[:80]!r}"
        do = "Leave 'parent' out, or name a group of the classes given at the start."
        raise Problem(400, asked, "there is no group with this id", do)
    return wanted


def described(taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """The classes as they are sent: id, name, and the ids from below the root down.

    Examples
    --------
    >>> described(Taxonomy.from_names(["cat"]))
    [{'id': 'cat', 'name': 'cat', 'path': ['cat']}]
    """
    return [
        {"id": node.id, "name": node.name, "path": [*taxonomy.path(node.id)]}
        for node in taxonomy.classes
    ]
