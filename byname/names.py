"""Which classes a user means by an id, a name or a path: the same in prompt files and in labels."""

from __future__ import annotations

from collections.abc import Iterable

from byname.taxonomy import Taxonomy

__all__ = ["bearers", "name_path"]


def bearers(keys: Iterable[str], taxonomy: Taxonomy) -> dict[str, list[str]]:
    """Ids of the classes that each key may mean: none, one, or several.

    Where all keys are ids, each means that class and no other. Else a key is an id or a name as it
    is written, or else a name in any case, or else a path of ids or names.

    Examples
    --------
    >>> bearers(["DOG", "cow"], Taxonomy.from_names(["cat", "dog"]))
    {'DOG': ['dog'], 'cow': []}
    """
    keys = list(dict.fromkeys(keys))
    if set(keys) <= set(taxonomy.class_ids):
        return {key: [key] for key in keys}
    exact: dict[str, list[str]] = {}
    folded: dict[str, list[str]] = {}
    paths: dict[str, list[str]] = {}
    for node in taxonomy.classes:
        for table, ways in (
            (exact, {node.id, node.name}),
            (folded, {node.name.casefold()}),
            (paths, {taxonomy.path_string(node.id), name_path(taxonomy, node.id)}),
        ):
            for way in ways:
                table.setdefault(way, []).append(node.id)
    return {
        key: exact.get(key) or folded.get(key.strip().casefold()) or paths.get(key) or []
        for key in keys
    }


def name_path(taxonomy: Taxonomy, node_id: str) -> str:
    """Names from the top down to the node, joined by "/".

    Examples
    --------
    >>> name_path(Taxonomy.from_names(["Cat"]), "cat")
    'Cat'
    """
    return "/".join(taxonomy.node(i).name for i in taxonomy.path(node_id))
