"""Class lists of a request, on the tree that was given."""

from __future__ import annotations

from typing import Any

import pytest

from byname.errors import BynameError, TaxonomyError
from byname.serve.classlist import ClassItem, described, taxonomy_of
from byname.taxonomy import Node, Taxonomy

BASE = Taxonomy(
    [
        Node("pets", "Pets"),
        Node("cat", "cat", "pets", aliases=("kitty",)),
        Node("dog", "dog", "pets"),
        Node("cow", "cow"),
    ]
)


def made(*items: dict[str, Any]) -> Taxonomy:
    return taxonomy_of([ClassItem(**item) for item in items], BASE)


def test_the_same_list_is_the_same_object() -> None:
    items = [{"id": n.id, "name": n.name} for n in BASE.classes]
    assert made(*items) is BASE
    assert taxonomy_of(None, BASE) is BASE


def test_an_edited_name_keeps_id_and_place_and_loses_its_aliases() -> None:
    found = made({"id": "cat", "name": "tiger"}, {"id": "cow", "name": "cow"})
    assert [(c["id"], c["name"], c["path"]) for c in described(found)] == [
        ("cat", "tiger", ["pets", "cat"]),
        ("cow", "cow", ["cow"]),
    ]
    assert found.node("cat").aliases == ()
    assert made({"id": "cat", "name": "cat"}).node("cat").aliases == ("kitty",)


def test_groups_without_classes_are_left_out() -> None:
    assert [node.id for node in made({"id": "cow", "name": "cow"}).nodes] == ["", "cow"]


def test_new_names_get_ids_of_their_own_in_order() -> None:
    found = made({"name": "Pets"}, {"id": "cow", "name": "cow"}, {"name": "cow"}, {"name": "cow"})
    assert found.class_ids == ("pets-2", "cow", "cow-2", "cow-3")


def test_a_parent_may_be_named_and_taken_away() -> None:
    found = made({"name": "fox", "parent": "pets"}, {"id": "dog", "name": "dog", "parent": None})
    assert found.path("fox") == ("pets", "fox")
    assert found.path("dog") == ("dog",)


@pytest.mark.parametrize(
    "items",
    [
        [],
        [{"name": " "}],
        [{"name": "a\x00"}, {"name": "\n"}],
        [{"id": "a", "name": "x"}, {"id": "a", "name": "y"}],
        [{"id": "pets", "name": "x"}],
        [{"name": "x", "parent": "cat"}],
        [{"name": "x", "parent": "nobody"}],
    ],
)
def test_what_cannot_be_is_refused(items: list[dict[str, Any]]) -> None:
    with pytest.raises(BynameError) as caught:
        made(*items)
    assert caught.value.seen


def test_an_explicit_root_stays_the_only_one() -> None:
    base = Taxonomy([Node("r", "all"), Node("a", "a", "r"), Node("b", "b", "r")])
    found = taxonomy_of([ClassItem(id="a", name="a"), ClassItem(name="c")], base)
    assert (found.root.id, found.height) == ("r", 1)


def test_an_empty_list_says_so() -> None:
    with pytest.raises(TaxonomyError, match="none"):
        taxonomy_of([], BASE)
