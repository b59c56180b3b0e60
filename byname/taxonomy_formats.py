"""Texts of known formats to taxonomies: lists of names, nested lists, Newick.

Every function takes what a file holds, never a path, and raises :class:`TaxonomyError` with what
it saw; the caller adds the name of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from byname.errors import TaxonomyError
from byname.taxonomy import Taxonomy
from byname.taxonomy_nodes import Node, clean_text, slug_ids, some

__all__ = ["ASKED", "Entry", "assemble", "nested", "newick", "plain_text"]

ASKED = "read the classes"
DEEP, MAX_DEEP = 100, 2**25  # characters, and 8 a level, of paths of over 100 levels together
_NESTED_HELP = 'Give a list of names, {"group": ["name", ...]} or {"name": ..., "children": [...]}.'


@dataclass
class Entry:
    """A node on its way in; ``parent`` is the position of the parent's entry, -1 for none."""

    name: str
    parent: int = -1
    id: str = ""
    aliases: Any = ()
    description: str = ""
    where: str = ""


def assemble(
    entries: Sequence[Entry], *, levels: Sequence[str] = (), warnings: Sequence[str] = ()
) -> Taxonomy:
    """Entries to a taxonomy; missing ids become slugs of the path of names.

    Raises
    ------
    TaxonomyError
        As :class:`Taxonomy`, and with both places for an id that two entries have.
    """
    first: dict[str, int] = {}
    repeated = []
    for i, e in enumerate(entries):
        if e.id and first.setdefault(e.id, i) != i:
            repeated.append(f"{e.id!r} ({entries[first[e.id]].where} and {e.where})")
    if repeated:
        raise TaxonomyError(
            ASKED, f"several classes have the id {some(repeated)}", "Give each its own id."
        )
    if nameless := [e.where for e in entries if not clean_text(e.name)]:
        raise TaxonomyError(ASKED, f"there is no name at {some(nameless)}", "Give it a name.")
    with_children = {e.parent for e in entries}
    tops = [i for i, e in enumerate(entries) if e.parent < 0]
    root = tops[0] if len(tops) == 1 and tops[0] in with_children else -1
    without_id = [i for i, e in enumerate(entries) if not e.id]
    paths = _paths(entries, without_id, root)
    ids = [e.id for e in entries]
    for i, new in zip(without_id, slug_ids(paths, first), strict=True):
        ids[i] = new
    nodes = (
        Node(ids[i], e.name, ids[e.parent] if e.parent >= 0 else None, e.aliases, e.description)
        for i, e in enumerate(entries)
    )
    return Taxonomy(nodes, levels=levels, warnings=warnings)


def _paths(entries: Sequence[Entry], chosen: Sequence[int], root: int) -> Iterator[list[str]]:
    """Path of names of the chosen entries; refused where they would fill the memory.

    In a chain of 100,000 nodes that have no ids these have 30 GB.
    """
    left = MAX_DEEP
    for i in chosen:
        path = _path(entries, i, root)
        if len(path) > DEEP:
            left -= sum(map(len, path)) + 8 * len(path)
        if left < 0:
            seen = f"at {entries[i].where or repr(entries[i].name)} it is {len(path):,} levels deep"
            raise TaxonomyError(ASKED, seen, "Give the nodes ids, or fewer levels and no circles.")
        yield path


def _path(entries: Sequence[Entry], i: int, root: int) -> list[str]:
    if i == root:
        return [entries[i].name]
    seen: dict[int, None] = {}  # ends the walk in a cycle, which Taxonomy then reports
    while i not in (-1, root) and i not in seen:
        seen[i] = None
        i = entries[i].parent
    return [entries[j].name for j in reversed(seen)]


def plain_text(text: str) -> Taxonomy:
    """One name a line; blank lines, and lines that begin with "#" and a space, are skipped.

    Examples
    --------
    >>> plain_text("# my classes\\nApple\\n#1 fan\\n").class_ids
    ('apple', '1-fan')
    """
    lines = (clean_text(line) for line in re.split(r"\r\n|\r|\n", text) if line[:2] != "# ")
    return Taxonomy.from_names(line for line in lines if line)


# -- nested lists and mappings

_Member = tuple[Entry, Any]
_FIELDS = {"name", "children", "id", "aliases", "description", "levels", "given_order"}


def nested(value: Any) -> Taxonomy:
    """Lists of names, ``{group: names}``, ``{"name", "children"}``, in any mixture and depth.

    Examples
    --------
    >>> nested({"fruit": ["kiwi", "plum"], "dairy": {"milk": []}}).class_ids
    ('fruit.kiwi', 'fruit.plum', 'dairy.milk')
    """
    top: Mapping[str, Any] = value if _is_node(value) else {}
    if top and not top.get("name"):
        value = top.get("children")
    entries: list[Entry] = []
    # A stack instead of recursion: the depth is limited by memory only.
    stack = [(member, -1) for member in reversed(_members(value, "the top level"))]
    while stack:
        (entry, content), parent = stack.pop()
        entry.parent = parent
        if content is not None:
            where = f"the content of {entry.name!r}"
            below = reversed(_members(content, where))
            stack += [(member, len(entries)) for member in below]
        entries.append(entry)
    taxonomy = assemble(entries)
    return _as_it_was(taxonomy, top.get("levels"), top.get("given_order"))


def _members(value: Any, where: str) -> list[_Member]:
    """What a list or mapping holds: entries, each with what is below it (None for nothing)."""
    if _is_node(value):
        return [(_object_entry(value, where), value.get("children"))]
    if isinstance(value, Mapping):
        return [(Entry(str(k), where=f"{where}, key {k!r}"), v) for k, v in value.items()]
    if not isinstance(value, list | tuple):
        raise TaxonomyError(ASKED, f"{where} is {_kind(value)}", _NESTED_HELP)
    members: list[_Member] = []
    for i, item in enumerate(value, 1):
        place = f"item {i} of {where}"
        if isinstance(item, Mapping):
            members += _members(item, place)
        elif _is_text(item):
            members.append((Entry(str(item), where=place), None))
        else:
            raise TaxonomyError(ASKED, f"{place} is {_kind(item)}", _NESTED_HELP)
    return members


def _is_text(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _is_node(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return _is_text(value.get("name")) or ("children" in value and set(value) <= _FIELDS)


def _object_entry(item: Mapping[str, Any], where: str) -> Entry:
    name, node_id, aliases = item.get("name", ""), item.get("id"), item.get("aliases", ())
    where = f"{where} ({clean_text(name)})" if name else where
    described = item.get("description", "")
    listed = aliases if isinstance(aliases, list | tuple) else [aliases]
    for field, values in {"id": [node_id], "aliases": listed, "description": [described]}.items():
        for value in values:
            if not _is_text(value) and value is not None:
                raise TaxonomyError(ASKED, f"{field!r} at {where} is {_kind(value)}", "Give text.")
    return Entry(
        name=str(name),
        id="" if node_id is None else clean_text(node_id),
        aliases=tuple(str(a) for a in listed if a is not None),
        description=str(described or ""),
        where=where,
    )


def _kind(value: Any) -> str:
    kinds = {str: "text", bool: "true or false", type(None): "null", int: "a number"}
    kinds |= {float: "a number", list: "a list", tuple: "a list", dict: "a mapping"}
    shown = f" ({value!r:.40})" if isinstance(value, str | int | float) else ""
    return kinds.get(type(value), f"of type {type(value).__name__}") + shown


def _as_it_was(taxonomy: Taxonomy, levels: Any, order: Any) -> Taxonomy:
    """Put back the names of the levels and the order of classes that a file was written with."""
    nodes = {n.id: n for n in taxonomy.nodes if n.id}
    good_levels = isinstance(levels, list) and len(levels) == taxonomy.height
    good_levels = good_levels and all(isinstance(level, str) for level in levels)
    good_order = isinstance(order, list) and sorted(map(str, order)) == sorted(nodes)
    if not (good_levels or good_order):
        return taxonomy
    ids = [str(i) for i in order] if good_order else list(nodes)
    return Taxonomy((nodes[i] for i in ids), levels=levels if good_levels else ())


# -- Newick

# A parser of our own: the grammar is these two dozen lines, and libraries for it bring toolkits.
_NEWICK = re.compile(
    r"(?P<skip>\s+|\[[^\]]*\])|'(?P<quoted>(?:[^']|'')*)'|(?P<mark>[(),:;])"
    r"|(?P<plain>[^\s()\[\],:;'][^()\[\],:;]*)"
)


def newick(text: str) -> Taxonomy:
    """One Newick tree; branch lengths and [comments] are skipped, "_" outside quotes is a space.

    Inner nodes without a label are named "node 1", "node 2" in preorder; a root without a label
    is left out.

    Examples
    --------
    >>> newick("((kiwi:1,'plum (blue)')fruit,oat_milk);").class_ids
    ('fruit.kiwi', 'fruit.plum-blue', 'oat-milk')
    """
    entries = [Entry("", where="character 1")]
    open_nodes: list[int] = []
    at, state = 0, "new"
    for kind, label, start in _newick_tokens(text):
        if state == "ended":
            raise _newick_error(text, start, "there is more text after ';'")
        if kind in (",", ")") and not open_nodes:
            raise _newick_error(text, start, f"a {kind!r} without a '(' before it")
        if (kind == "(" and state != "new") or (kind == ":" and state in ("colon", "length")):
            raise _newick_error(text, start, f"a {kind!r} where none can be")
        if kind in ("(", ","):
            if kind == "(":
                open_nodes.append(at)
            at, state = len(entries), "new"
            entries.append(Entry("", open_nodes[-1], where=f"character {start + 2}"))
        elif kind == ")":
            at, state = open_nodes.pop(), "closed"
        elif kind in (":", ";"):
            state = {":": "colon", ";": "ended"}[kind]
        elif state == "colon":
            state = "length"
        elif state in ("new", "closed"):
            entries[at].name, state = label, "labelled"
        else:
            raise _newick_error(text, start, f"the label {label!r} follows another label")
    if open_nodes:
        raise _newick_error(text, len(text), f"{len(open_nodes)} '(' are not closed")
    return assemble(_named(entries))


def _newick_tokens(text: str) -> Iterator[tuple[str, str, int]]:
    at = 0
    while at < len(text):
        found = _NEWICK.match(text, at)
        if not found:
            seen = {"'": "a quote that is not closed", "[": "a '[' that is not closed"}
            raise _newick_error(text, at, seen.get(text[at], f"{text[at]!r} where none can be"))
        if found["mark"]:
            yield found["mark"], "", at
        elif found["quoted"] is not None:
            yield "label", clean_text(found["quoted"].replace("''", "'")), at
        elif found["plain"]:
            yield "label", clean_text(found["plain"].replace("_", " ")), at
        at = found.end()


def _position(text: str, at: int) -> str:
    line = text.count("\n", 0, at) + 1
    return f"line {line}, character {at - (text.rfind(chr(10), 0, at) + 1) + 1}"


def _newick_error(text: str, at: int, seen: str) -> TaxonomyError:
    return TaxonomyError(
        ASKED, f"{_position(text, at)}: {seen}", "Newick looks like ((kiwi,plum)fruit,milk);"
    )


def _named(entries: list[Entry]) -> list[Entry]:
    """Names for inner nodes without one; a root without one taken away."""
    inner = {e.parent for e in entries}
    count = 0
    for i, entry in enumerate(entries):
        if i and i in inner and not entry.name:
            count += 1
            entry.name = f"node {count}"
    if entries[0].name or 0 not in inner:
        return entries
    for entry in entries:
        entry.parent -= 1
    return entries[1:]
