"""How many queries each style asks, on real trees; and that the same tree is asked the same."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from byname.queries import QueryMember
from byname.stage import create, members
from byname.taxonomy_io import read_taxonomy
from tests.prompts.test_haprompts import COUNTS as HAPROMPTS

K = {"food-101": 101, "ucf-101": 101, "cub-200": 200, "sun-324": 324, "imagenet-998": 998}
# Two classes below one parent: the sum over groups of n (n - 1) / 2, n being its own leaves.
PAIRS = {
    "food-101": 406,
    "ucf-101": 432,
    "cub-200": 1131,
    "sun-324": 3698,
    "imagenet-998": 1709,
}
VARIANTS = ("lp", "ap", "comp", "path", "full")


def per_class(queries: int, replies: int | None = None) -> Callable[[str], tuple[int, int]]:
    """So many queries a class, and so many replies asked for."""
    return lambda tree: (queries * K[tree], (queries if replies is None else replies) * K[tree])


def published(variant: str) -> Callable[[str], tuple[int, int]]:
    """The published counts of haprompts, one reply each."""
    return lambda tree: (HAPROMPTS[tree][VARIANTS.index(variant)],) * 2


def pairs(tree: str) -> tuple[int, int]:
    """One question a pair of classes below one parent."""
    return PAIRS[tree], PAIRS[tree]


# Style, with its parameters: from the name of a tree to the number of queries, and of replies.
COUNTS: dict[str, Callable[[str], tuple[int, int]]] = {
    "haprompts": published("full"),
    "haprompts[variant=comp]": published("comp"),
    "haprompts[variant=path]": published("path"),
    "cupl": per_class(3, 30),
    "cupl[samples=4]": per_class(3, 12),
    "cupl[variant=full]": per_class(5, 50),
    "cupl[variant=full,domain=things]": per_class(5, 50),
    "descriptors": per_class(1),
    "subclasses": per_class(1),
    "repair": per_class(1),
    "atg": per_class(3),
    "atg[kinds=one-to-one]": pairs,
    "contrast": pairs,
    "attributes": per_class(3),
    "attributes[kinds=looks+place]": per_class(2),
    "sounds": per_class(1),  # and then at most n a class, by the replies
    "concept": lambda tree: (1, 1),
}
# Not per class, or not to be counted on every tree: say why.
NOT_COUNTED: dict[str, str] = {}


def test_every_style_is_counted() -> None:
    asking = {n for n, cls in members("prompts").items() if issubclass(cls, QueryMember)}
    assert asking == {spec.partition("[")[0] for spec in COUNTS} | set(NOT_COUNTED)


@pytest.mark.parametrize("tree", K)
def test_numbers_of_queries(shared: Path, tree: str) -> None:
    taxonomy = read_taxonomy(shared / "taxonomies" / f"{tree}.json")
    assert len(taxonomy.classes) == K[tree]
    found = {}
    for spec in COUNTS:
        asked = [query.samples for query in create(spec).queries(taxonomy)]
        found[spec] = len(asked), sum(asked)
    assert found == {spec: count(tree) for spec, count in COUNTS.items()}


def digest(tree: Path) -> str:
    """Of the ids of all queries of all styles, in order, each style made anew."""
    taxonomy = read_taxonomy(tree)
    packed = hashlib.sha256()
    for spec in COUNTS:
        for query in create(spec).queries(taxonomy):
            packed.update(f"{spec} {query.id}\n".encode())
    return packed.hexdigest()


@pytest.mark.parametrize("tree", ["food-101", "cub-200"])
def test_the_same_tree_is_asked_the_same_in_the_same_order(shared: Path, tree: str) -> None:
    """Also by a process with other hashes of strings."""
    path = shared / "taxonomies" / f"{tree}.json"
    code = "import sys, pathlib; from tests.prompts.test_counts import digest; "
    code += "print(digest(pathlib.Path(sys.argv[1])))"
    other = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert digest(path) == digest(path) == other.stdout.strip()
