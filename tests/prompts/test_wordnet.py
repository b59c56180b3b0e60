from __future__ import annotations

from typing import Any

import pytest

from byname.errors import NeedsError, RecipeError
from byname.prompts.wordnet import Sense, WordNet, choose_sense
from byname.promptset import PromptSet
from byname.stage import create
from byname.taxonomy import Node, Taxonomy

MACHINE = Sense("m", ("crane",), "lifts {name} and moves heavy objects;", ("machine", "device"))
BIRD = Sense("b", ("crane", "Wading_Bird_X"), "a large long-necked\nbird", ("bird", "animal"))
CAR = Sense("c", ("car", "auto", "Auto", "machine", "crane", "car_"), "a motor vehicle")
DATA = {"crane": [MACHINE, BIRD], "car": [CAR], "{name}": [Sense("s", ("{name}", "{x} {}"))]}
TREE = Taxonomy(
    [
        Node("g", "Animal"),
        Node("w", "wader", "g"),
        Node("c1", "crane", "w"),
        Node("c2", "crane"),
        Node("v", "car"),
        Node("z", "zorgle"),
    ]
)


def made(taxonomy: Taxonomy = TREE, **params: Any) -> PromptSet:
    member = WordNet(**params)
    member.lookup = lambda name: DATA.get(name, [])
    return member.generate(taxonomy)


def test_texts() -> None:
    found = made()
    assert {i: found.texts(i) for i in found.classes} == {
        "c1": [
            "a photo of a crane.",
            "a photo of a Wading Bird X.",
            "a photo of a crane, a large long-necked bird.",
        ],
        "c2": ["a photo of a crane.", "a photo of a crane, lifts {name} and moves heavy objects."],
        "v": [
            "a photo of a car.",
            "a photo of a auto.",
            "a photo of a machine.",
            "a photo of a car, a motor vehicle.",
        ],
        "z": ["a photo of a zorgle."],
    }
    kinds = [(p.kind, p.template, p.about) for p in found.classes["c1"]]
    assert kinds == [("template", 0, ""), ("synonym", -1, ""), ("gloss", -1, "")]


def test_what_was_chosen_is_told() -> None:
    told = made().provenance.model_dump()
    assert told["senses"] == {"c1": "b", "c2": "m", "v": "c"}
    assert told["guessed"] == ["c2"]
    assert told["without_sense"] == ["z"]
    assert told["dropped"] == {"other_class": 1}  # "crane" of car
    assert told["generator"] == "wordnet"


def test_the_first_sense() -> None:
    told = made(sense="first").provenance.model_dump()
    assert told["senses"] == {"c1": "m", "c2": "m", "v": "c"}
    assert told["guessed"] == ["c1", "c2"]


def test_a_named_root_counts_as_well() -> None:
    tree = Taxonomy([Node("r", "Birds and such"), Node("c", "crane", "r")])
    assert made(tree).provenance.model_dump()["senses"] == {"c": "m"}
    tree = Taxonomy([Node("r", "BIRD"), Node("c", "crane", "r")])
    assert made(tree).provenance.model_dump()["senses"] == {"c": "b"}


def test_choose_sense() -> None:
    assert choose_sense([], ["bird"]) == (None, False)
    assert choose_sense([CAR], []) == (CAR, True)
    assert choose_sense([MACHINE, BIRD], ["animal", "device"]) == (MACHINE, False)
    assert choose_sense([MACHINE, BIRD], ["animal", "bird", "device"]) == (BIRD, True)
    under = Sense("u", ("x",), "", ("Living_Thing",))
    assert choose_sense([MACHINE, under], ["living  thing"]) == (under, True)


def test_parts_can_be_left_out() -> None:
    assert [p.kind for p in made(gloss=False).classes["c1"]] == ["template", "synonym"]
    assert [p.kind for p in made(synonyms=False).classes["c1"]] == ["template", "gloss"]


def test_names_and_lemmas_are_inert_and_senses_may_lack_a_definition() -> None:
    found = made(Taxonomy([Node("x", "{name}")]))
    assert found.texts("x") == ["a photo of a {name}.", "a photo of a {x} {}."]
    assert made(Taxonomy([Node("x", "{name}")])) == found


def test_each_name_is_looked_up_once() -> None:
    asked = []
    member = create("wordnet")

    def lookup(name: str) -> list[Sense]:
        asked.append(name)
        return []

    member.lookup = lookup
    member.generate(TREE)
    assert asked == ["crane", "car", "zorgle"]


def test_without_a_lookup() -> None:
    with pytest.raises(NeedsError) as caught:
        create("wordnet[sense=first]").generate(TREE)
    assert str(caught.value) == (
        "cannot make 'wordnet[sense=first]': it was given no WordNet to look names up in. Install "
        "one, with pip install 'byname[wordnet]' and then python -m wn download oewn:2024; in "
        "Python, set lookup = byname.wordnet.wordnet_lookup()."
    )


@pytest.mark.parametrize(
    "params, seen",
    [
        ({"sense": "best"}, "sense='best': there is no such choice. Known: parent, first."),
        ({"synonyms": False, "gloss": False}, "nothing is left to say. Leave one of them on"),
    ],
)
def test_wrong_parameters(params: dict[str, Any], seen: str) -> None:
    with pytest.raises(RecipeError, match="cannot use wordnet with") as caught:
        WordNet(**params)
    assert seen in str(caught.value)
