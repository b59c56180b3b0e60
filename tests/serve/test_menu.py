"""Which recipes can run on images and names alone."""

from __future__ import annotations

from byname.recipes import list_recipes
from byname.serve.menu import menu


def test_every_recipe_is_offered_or_has_a_reason() -> None:
    can, cannot = menu()
    names = [one["name"] for one in can + cannot]
    assert sorted(names) == sorted(row["name"] for row in list_recipes())
    assert all(one["reason"] for one in cannot)
    assert all(one["idea"] for one in can)
    assert [one["name"] for one in can[:3]] == ["ensemble", "plain", "auto"]
    kinds = [one["kind"] for one in can]
    assert kinds == sorted(kinds, key=["main", "recipe", "member"].index)


def test_what_needs_more_than_names_is_not_offered() -> None:
    can = {one["name"] for one in menu(tree=True)[0]}
    assert {"plain", "ensemble", "cpe", "crm"} <= can
    assert not {"cupl", "coder", "conse"} & can
