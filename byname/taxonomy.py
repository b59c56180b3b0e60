"""The classes and the tree above them.

The leaves of the tree are the classes; a flat list of names is a tree of height 1. Everything is
addressed by id: names are for reading and may repeat. Distances between classes are heights of
lowest common ancestors: 0 for a class and itself, 1 for siblings that are leaves, and so on.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname.errors import TaxonomyError, UsageError
from byname.taxonomy_nodes import Node, check_nodes, clean_text, preorder, slug_ids, some

__all__ = ["Node", "Taxonomy", "clean_text", "slug_ids"]


class Taxonomy:
    """The classes, as the leaves of a tree.

    If exactly one node has no parent, and it has children, it is the root. Otherwise a root with
    the id "" and the name "" is put above all nodes without a parent.

    Parameters
    ----------
    nodes : iterable of Node
        In any order; children and classes keep the order in which they are given.
    levels : sequence of str, optional
        Names of the depths 1..height, such as ``("group", "coarse", "name")``.
    warnings : sequence of str, optional
        What a reader has to say; the findings of the checks are added.

    Attributes
    ----------
    nodes : tuple of Node
        In preorder, the root first.
    classes : tuple of Node, length K
        The leaves, in the order in which they were given.
    class_ids : tuple of str, length K
    leaf_index : array of intp, shape (K,)
        Where the classes stand in ``nodes``.
    parents, depths, heights : arrays of intp, shape (n_nodes,)
        Index of the parent (-1 for the root); depth (root 0); height (leaf 0).
    levels, warnings : tuples of str

    Raises
    ------
    TaxonomyError
        No classes, empty or duplicate ids, empty names, a parent that does not exist, a cycle.

    Examples
    --------
    >>> t = Taxonomy([Node("f", "Fruit"), Node("a", "Apple", "f"), Node("p", "Pear", "f"),
    ...               Node("m", "Milk")])
    >>> t.class_ids, t.path("p"), t.lca("a", "p")
    (('a', 'p', 'm'), ('f', 'p'), 'f')
    >>> t.lca_heights().tolist()
    [[0, 1, 2], [1, 0, 2], [2, 2, 0]]
    """

    def __init__(
        self, nodes: Iterable[Node], *, levels: Sequence[str] = (), warnings: Sequence[str] = ()
    ) -> None:
        given = list(nodes)
        check_nodes(given)
        self.nodes, parents, self._given = preorder(given)
        n = len(self.nodes)
        depths, heights = np.zeros(n, np.intp), np.zeros(n, np.intp)
        self._children: tuple[list[int], ...] = tuple([] for _ in range(n))
        for i in range(1, n):
            depths[i] = depths[parents[i]] + 1
            self._children[parents[i]].append(i)
        for i in range(n - 1, 0, -1):
            heights[parents[i]] = max(heights[parents[i]], heights[i] + 1)
        self.parents, self.depths, self.heights = map(_frozen, (parents, depths, heights))
        leaves = [i for i in self._given if not self._children[i]]
        self.leaf_index = _frozen(np.array(leaves, np.intp))
        self.classes = tuple(self.nodes[i] for i in leaves)
        self.class_ids = tuple(node.id for node in self.classes)
        self._index = {node.id: i for i, node in enumerate(self.nodes)}
        self.levels = tuple(levels)
        if self.levels and (len(set(self.levels)), len(self.levels)) != (self.height,) * 2:
            raise TaxonomyError(
                f"name the levels {', '.join(self.levels)}",
                f"the tree has {self.height} levels below its root",
                "Give each level one name of its own, from the root to the leaves.",
            )
        self.warnings = tuple(dict.fromkeys([*warnings, *self._findings()]))

    @classmethod
    def from_names(cls, names: Iterable[str]) -> Taxonomy:
        """Make a flat taxonomy; the ids are slugs of the names.

        Examples
        --------
        >>> Taxonomy.from_names(["Red Apple", "Pear"]).class_ids
        ('red-apple', 'pear')
        """
        if isinstance(names, str):
            raise TaxonomyError(
                "make a list of classes", f"one text was given, {names!r}", f"Give [{names!r}]."
            )
        texts = [clean_text(name) for name in names]
        ids = slug_ids([text] for text in texts)
        return cls(Node(id=i, name=text) for i, text in zip(ids, texts, strict=True))

    # -- identity

    def __len__(self) -> int:
        """K, the number of classes."""
        return len(self.classes)

    def __contains__(self, node_id: object) -> bool:
        """Whether a node, class or not, has this id."""
        return node_id in self._index

    def __eq__(self, other: object) -> bool:
        """Same nodes in the same order, and same order of classes."""
        if not isinstance(other, Taxonomy):
            return NotImplemented
        return self.class_ids == other.class_ids and self.nodes == other.nodes

    def __hash__(self) -> int:
        return hash(self.class_ids)

    def __repr__(self) -> str:
        return f"<Taxonomy: {len(self)} classes, {len(self.nodes)} nodes, height {self.height}>"

    def fingerprint(self) -> str:
        """Sha256 in hexadecimal over all nodes, their order, and the order of the classes."""
        rows = [[n.id, n.parent, n.name, n.aliases, n.description] for n in self.nodes]
        return hashlib.sha256(json.dumps([rows, self.class_ids]).encode()).hexdigest()

    # -- the tree

    @property
    def root(self) -> Node:
        """The root; its id and name are "" where none was given."""
        return self.nodes[0]

    @property
    def height(self) -> int:
        """Height of the root; 1 for a flat list."""
        return int(self.heights[0])

    def index(self, node_id: str) -> int:
        """Index of a node in ``nodes``.

        Raises
        ------
        TaxonomyError
            If there is no such id.
        """
        try:
            return self._index[node_id]
        except (KeyError, TypeError):
            close = difflib.get_close_matches(str(node_id), self._index, 1)
            raise TaxonomyError(
                f"find the class or group with the id {node_id!r}",
                f"none of the {len(self.nodes)} ids is equal to it",
                f"Did you mean {close[0]!r}?"
                if close
                else f"Ids begin with {self.class_ids[0]!r}.",
            ) from None

    def node(self, node_id: str) -> Node:
        """The node with this id."""
        return self.nodes[self.index(node_id)]

    def _up(self, i: int) -> list[int]:
        """The node and its ancestors, nearest first, the root left out."""
        chain_up = []
        while i > 0:
            chain_up.append(i)
            i = int(self.parents[i])
        return chain_up

    def path(self, node_id: str) -> tuple[str, ...]:
        """Ids from below the root down to the node; () for the root."""
        return tuple(self.nodes[i].id for i in reversed(self._up(self.index(node_id))))

    def path_string(self, node_id: str) -> str:
        """The path joined by "/"; "%" and "/" inside an id are written %25 and %2F."""
        return "/".join(i.replace("%", "%25").replace("/", "%2F") for i in self.path(node_id))

    def ancestors(self, node_id: str) -> tuple[str, ...]:
        """Ids above the node, nearest first, the root left out."""
        return self.path(node_id)[-2::-1]

    def children(self, node_id: str) -> tuple[str, ...]:
        """Ids below the node, in the order given."""
        return tuple(self.nodes[i].id for i in self._children[self.index(node_id)])

    def siblings(self, node_id: str) -> tuple[str, ...]:
        """Ids of the other children of the node's parent, in the order given."""
        i = self.index(node_id)
        family = self._children[self.parents[i]] if i else []
        return tuple(self.nodes[j].id for j in family if j != i)

    def lca(self, a: str, b: str) -> str:
        """Id of the lowest node that is above or equal to both."""
        i, j = self.index(a), self.index(b)
        while i != j:
            if self.depths[i] >= self.depths[j]:
                i = int(self.parents[i])
            else:
                j = int(self.parents[j])
        return self.nodes[i].id

    # -- arrays

    @cached_property
    def _spans(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """First and one past the last leaf of each node in preorder; that place of each class."""
        is_leaf = self.heights == 0
        lo = np.cumsum(is_leaf) - is_leaf
        hi = lo + is_leaf
        for i in range(len(self.nodes) - 1, 0, -1):
            hi[self.parents[i]] = max(hi[self.parents[i]], hi[i])
        return lo, hi, lo[self.leaf_index]

    @cached_property
    def _lca_heights(self) -> NDArray[Any]:
        lo, hi, place = self._spans
        dtype = np.uint8 if self.height < 256 else np.int16 if self.height < 2**15 else np.int32
        below = np.zeros((len(self), len(self)), dtype)
        # Every pair of classes falls into exactly one of these blocks: that of its lowest common
        # ancestor, between one child and the children before it.
        for i, children in enumerate(self._children):
            for c in children[1:]:
                below[lo[c] : hi[c], lo[i] : lo[c]] = self.heights[i]
        full = np.maximum(below, below.T)
        return _frozen(full if (np.diff(place) > 0).all() else full[np.ix_(place, place)])

    def lca_heights(self) -> NDArray[Any]:
        """Height of the lowest common ancestor of every pair of classes.

        Returns
        -------
        array of uint8 (int16 for a tree higher than 255), shape (K, K)
            Read-only, in the order of ``classes``.
        """
        return self._lca_heights

    @cached_property
    def _descendants(self) -> Any:
        ups = [[*self._up(int(i)), 0] for i in self.leaf_index]
        rows = np.fromiter(chain.from_iterable(ups), np.intp)
        columns = np.repeat(np.arange(len(self)), [len(up) for up in ups])
        ones = np.ones(len(rows), np.float32)
        return sparse.csr_array((ones, (rows, columns)), shape=(len(self.nodes), len(self)))

    def rollup(self, P: NDArray[Any]) -> NDArray[Any]:
        """Probability of every node: the sum over its classes.

        Parameters
        ----------
        P : array of float, shape (N, K)

        Returns
        -------
        array, shape (N, n_nodes)
            In the order of ``nodes``; float64 for float64, else float32.

        Examples
        --------
        >>> Taxonomy.from_names(["a", "b"]).rollup(np.array([[0.25, 0.75]])).tolist()
        [[1.0, 0.25, 0.75]]
        """
        P = np.asarray(P)
        if P.ndim != 2 or P.shape[1] != len(self):
            raise UsageError(
                "sum probabilities up the taxonomy",
                f"their shape is {P.shape} and there are {len(self)} classes",
                "Give an array with one row an image and one column a class.",
            )
        dtype = np.float64 if P.dtype == np.float64 else np.float32
        return np.ascontiguousarray((self._descendants @ P.T.astype(dtype)).T, dtype)

    def cut(self, level: int | str) -> tuple[Taxonomy, NDArray[np.intp]]:
        """The taxonomy that ends at a depth: the nodes there become the classes.

        Parameters
        ----------
        level : int or str
            A depth from 1 to the height, as a number or text, or one of ``levels``. Classes that
            are less deep stay.

        Returns
        -------
        taxonomy : Taxonomy
            With the same ids; classes in the order in which their first leaves appear.
        index : array of intp, shape (K,)
            For each class, its new class.

        Raises
        ------
        TaxonomyError
            If there is no such level.
        """
        depth = self._depth_of(level)
        place = np.array([self._up(int(i))[-depth:][0] for i in self.leaf_index], np.intp)
        order = list(dict.fromkeys(place.tolist()))
        # A new class takes the place, among the nodes as given, of its first leaf.
        rank = np.full(len(self.nodes), len(self.nodes))
        rank[self._given] = np.arange(len(self._given))
        for k in range(len(self) - 1, -1, -1):
            rank[place[k]] = rank[self.leaf_index[k]]
        kept = sorted((i for i in self._given if self.depths[i] <= depth), key=rank.__getitem__)
        new = Taxonomy((self.nodes[i] for i in kept), levels=self.levels[:depth])
        position = {node: k for k, node in enumerate(order)}
        return new, np.array([position[i] for i in place.tolist()], np.intp)

    def _depth_of(self, level: int | str) -> int:
        if level in self.levels:
            return self.levels.index(str(level)) + 1
        text = str(level).strip()
        if text.isdecimal() and 1 <= int(text) <= self.height:
            return int(text)
        names = f" or {', '.join(self.levels)}" if self.levels else ""
        raise TaxonomyError(
            f"cut the classes at level {level!r}",
            "there is no such level",
            f"Levels: 1 to {self.height} (depth below the root){names}.",
        )

    # -- names and rows

    def duplicates(self) -> dict[str, list[str]]:
        """Names that several classes bear, with the ids of these classes."""
        bearers: dict[str, list[str]] = {}
        for node in self.classes:
            bearers.setdefault(node.name, []).append(node.id)
        return {name: ids for name, ids in bearers.items() if len(ids) > 1}

    def unique_names(self) -> dict[str, str]:
        """Id of the class of every name that exactly one class bears."""
        repeated = self.duplicates()
        return {node.name: node.id for node in self.classes if node.name not in repeated}

    def to_records(self) -> list[dict[str, str]]:
        """One row a node, in the order given; a root that was not given is left out."""
        nodes = (self.nodes[i] for i in self._given)
        return [
            {
                "id": node.id,
                "parent": node.parent or "",
                "name": node.name,
                "aliases": ";".join(node.aliases),
                "description": node.description,
            }
            for node in nodes
        ]

    def _findings(self) -> list[str]:
        found = []
        if repeated := self.duplicates():
            listed = [f"{name!r} (ids {', '.join(ids)})" for name, ids in repeated.items()]
            found.append(f"names that several classes bear ({len(repeated)}): {some(listed)}")
        single = [self.nodes[i].id for i, c in enumerate(self._children) if i and len(c) == 1]
        if single:
            found.append(f"inner nodes with a single child ({len(single)}): {some(single)}")
        return found


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
