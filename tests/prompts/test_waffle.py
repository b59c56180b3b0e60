from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.errors import PromptError, RecipeError
from byname.prompts import waffle_controls as controls
from byname.prompts.waffle import (
    ALPHABET,
    Waffle,
    waffle_sentence,
    waffle_shape,
    word_list,
)
from byname.promptset import PromptSet
from byname.stage import create
from byname.taxonomy import Node, Taxonomy
from tests.reference import waffle as reference

PETS = Taxonomy.from_names(["cat", "fire engine", "red panda bear"])
OWN = {
    "cat": ["whiskers", "a long tail", "claws"],
    "fire-engine": ["has a ladder"],
    "red-panda-bear": ["used to cold", "a ringed tail"],
}
WORD = st.text("abcdeé{}-", min_size=1, max_size=9)
NAMES = st.lists(st.lists(WORD, min_size=1, max_size=4).map(" ".join), min_size=1, max_size=8)


def descriptors(made: PromptSet, class_id: str, name: str) -> list[str]:
    """What stands after the link."""
    found = [
        re.fullmatch(rf"A photo of a {re.escape(name)}, which(?: is| has)? (.*)\.", text)
        for text in made.texts(class_id)
    ]
    assert all(found)
    return [match[1] for match in found if match]


@given(NAMES)
def test_sizes_are_those_of_the_description(names: list[str]) -> None:
    shape = waffle_shape(names)
    m, length, g, L = reference.sizes(names)
    assert (shape.words, shape.groups) == (m, g)
    # Means of quotients: the reference is in floats, a half may fall to the other side of it.
    assert abs(shape.letters - length) <= 1
    assert (shape.characters, shape.characters % g) == (L, 0)


@pytest.mark.parametrize(
    "names, expected",
    [
        (["cat"], (1, 3, 1, 4)),  # a whole group more, though 3 is a multiple of 1
        (["cat", "dog house"], (2, 4, 1, 5)),  # 1.5 words; 0.5 spaces are rounded to even, 0
        (["fire engine"], (2, 5, 2, 8)),  # 6 is a multiple of 2 and still raised
        (["a b c", "d e f g"], (4, 1, 3, 3)),  # 3.5 words are 4; 2.5 spaces are 2
    ],
)
def test_sizes_by_hand(names: list[str], expected: tuple[int, ...]) -> None:
    shape = waffle_shape(names)
    found = (shape.words, shape.letters, shape.groups, shape.characters)
    assert found == expected == reference.sizes(names)


@given(st.text("abchsutmyp 0", min_size=1), st.sampled_from(["", "bird"]))
def test_sentences_are_those_of_the_description(d: str, concept: str) -> None:
    assert waffle_sentence("cat", d, concept) == reference.sentence("cat", d, concept)


@pytest.mark.parametrize(
    "d, link",
    [
        ("a tail", "which is"),
        ("apk3", "which is"),
        ("used by cooks", "which is"),
        ("has ears", "which"),
        ("often red", "which"),
        ("typically round", "which"),
        ("may sting", "which"),
        ("cand", "which"),
        ("long ears", "which has"),
        ("A tail", "which has"),
    ],
)
def test_links(d: str, link: str) -> None:
    text = waffle_sentence("cat", d)
    assert text == reference.sentence("cat", d) == f"A photo of a cat, {link} {d}."


def test_the_list_of_words() -> None:
    words = word_list()
    assert len(words) >= 1500
    assert list(words) == sorted(set(words))
    assert all(re.fullmatch("[a-z]+", word) for word in words)
    assert len(set(ALPHABET)) == len(ALPHABET) == 36


def test_pairs_are_shared_by_all_classes() -> None:
    made = Waffle().generate(PETS)
    assert list(made.classes) == list(PETS.class_ids)
    for leaf in PETS.classes:
        prompts = made.classes[leaf.id]
        assert [p.template for p in prompts] == list(range(30))
        assert [p.kind for p in prompts] == ["words", "chars"] * 15
        assert descriptors(made, leaf.id, leaf.name) == descriptors(made, "cat", "cat")


def test_sizes_of_the_random_texts() -> None:
    shape = waffle_shape(leaf.name for leaf in PETS.classes)
    starts = {word[: shape.letters] for word in word_list()}
    found = descriptors(Waffle(pairs=50).generate(PETS), "cat", "cat")
    for words in found[::2]:
        assert len(words.split()) == shape.words
        assert set(words.split()) <= starts
    for chars in found[1::2]:
        groups = chars.split(", ")
        assert {len(group) for group in groups} == {shape.characters // shape.groups}
        assert len(groups) == shape.groups
        assert set("".join(groups)) <= set(ALPHABET)
    assert len(set(found)) > 95


def test_the_texts_are_the_same_everywhere() -> None:
    made = Waffle(seed=3, pairs=2).generate(Taxonomy.from_names(["cat", "polar bear"]))
    assert made.texts("cat") == GOLDEN


GOLDEN = [
    "A photo of a cat, which has spot blun.",
    "A photo of a cat, which has 9juo1.",
    "A photo of a cat, which has clos damp.",
    "A photo of a cat, which has mfp4t.",
]


def test_fewer_pairs_are_the_first_of_more() -> None:
    few, many = Waffle(pairs=4).generate(PETS), Waffle(pairs=9).generate(PETS)
    assert many.texts("cat")[:8] == few.texts("cat")


def test_seeds_differ_and_the_order_of_classes_does_not() -> None:
    assert Waffle(seed=1).generate(PETS).texts("cat") != Waffle().generate(PETS).texts("cat")
    turned = Taxonomy(reversed(PETS.classes))
    assert Waffle().generate(turned).texts("cat") == Waffle().generate(PETS).texts("cat")


@pytest.mark.parametrize("mode", ["words", "chars"])
def test_one_sort(mode: str) -> None:
    both, made = Waffle().generate(PETS), create(f"waffle[mode={mode}]").generate(PETS)
    assert [p.kind for p in made.classes["cat"]] == [mode] * 30
    of_both = [p.text for p in both.classes["cat"] if p.kind == mode]
    assert made.texts("cat")[:15] == of_both


def test_concepts_braces_one_class_and_classes_of_one_name() -> None:
    tree = Taxonomy([Node("x", "{name} {}"), Node("y", "{name} {}")])
    made = create("waffle[concept=food,pairs=1]").generate(tree)
    assert made.texts("x") == made.texts("y")
    assert all(t.startswith("A photo of a food: a {name} {}, which ") for t in made.texts("x"))
    assert len(Waffle().generate(Taxonomy.from_names(["cat"])).texts("cat")) == 30
    assert made.provenance.generator == "waffle[pairs=1,concept=food]"
    assert made.provenance.model_dump()["shape"]["words"] == 2


@pytest.mark.parametrize(
    "params, seen",
    [
        ({"seed": -1}, "cannot use waffle with seed=-1: it is negative. Give 0 or more."),
        ({"pairs": 0}, "with pairs=0: that is not from 1 to 10000. 15 pairs are 30 texts"),
        ({"pairs": 10_001}, "not from 1 to 10000"),
        ({"mode": "x"}, "with mode='x': there is no such mode. Known: both, words, chars."),
        ({"concept": "a,b"}, "holds a comma or a control character"),
        ({"concept": "a\nb"}, "holds a comma or a control character"),
    ],
)
def test_wrong_parameters(params: dict[str, Any], seen: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Waffle(**params)
    assert seen in str(caught.value)


# -- with an LLM's descriptors


def test_the_mixture_keeps_30_of_40() -> None:
    member = Waffle()
    member.descriptors = OWN
    made, plain = member.generate(PETS), Waffle().generate(PETS)
    assert member.generate(PETS) == made == member.mix_descriptors(PETS, OWN)
    for leaf in PETS.classes:
        prompts = made.classes[leaf.id]
        assert len(prompts) == 30
        own = [p for p in prompts if p.kind == "descriptor"]
        assert 10 <= len(own) <= 20
        assert {p.template for p in own} == {-1}
        allowed = {waffle_sentence(leaf.name, d) for d in OWN[leaf.id]}
        assert {p.text for p in own} <= allowed
        random = [p for p in prompts if p.kind != "descriptor"]
        assert set(random) <= set(plain.classes[leaf.id][:20])
        assert [p.template for p in random] == sorted({p.template for p in random})
    kept = [{p.template for p in made.classes[i]} for i in PETS.class_ids]
    assert kept[0] != kept[1], "each class keeps its own 30"
    assert made.provenance.generator == "waffle"
    assert len(made.provenance.model_dump()["descriptors_sha256"]) == 64


def test_the_draws_of_a_class_do_not_depend_on_the_others() -> None:
    turned = Taxonomy(reversed(PETS.classes))
    made = Waffle().mix_descriptors(PETS, OWN)
    assert Waffle().mix_descriptors(turned, OWN).classes["cat"] == made.classes["cat"]
    some = {"cat": OWN["cat"]}
    partly = Waffle().mix_descriptors(PETS, some)
    assert partly.classes["cat"] == made.classes["cat"]
    assert len(partly.classes["fire-engine"]) == 30
    told = partly.provenance.model_dump()["without_descriptors"]
    assert told == ["fire-engine", "red-panda-bear"]


@pytest.mark.parametrize("pairs, count", [(1, 3), (2, 3), (3, 6), (15, 30)])
def test_sizes_of_the_mixture(pairs: int, count: int) -> None:
    made = Waffle(pairs=pairs).mix_descriptors(PETS, OWN)
    assert len(made.texts("cat")) == count


WRONG: list[tuple[Any, str]] = [
    ([], "they are a list"),
    ({"dog": ["x"]}, "there are no classes 'dog'"),
    ({"cat": "whiskers"}, "'cat' has a str, not a list"),
    ({"cat": 3}, "'cat' has a int, not a list"),
    ({"cat": ["x", " . "]}, "descriptor 2 of 'cat' is empty or no text"),
    ({"cat": [None]}, "descriptor 1 of 'cat' is empty or no text"),
]


@pytest.mark.parametrize("given, seen", WRONG)
def test_wrong_descriptors(given: Any, seen: str) -> None:
    for make in (Waffle().mix_descriptors, controls.described):
        with pytest.raises(PromptError, match="cannot use the descriptors") as caught:
            make(PETS, given)
        assert seen in str(caught.value)


# -- controls


def test_described() -> None:
    made = controls.described(PETS, {**OWN, "cat": ["whiskers.", "{name}\n{}"]})
    assert made.texts("cat") == [
        "A photo of a cat, which has whiskers.",
        "A photo of a cat, which has {name} {}.",
    ]
    assert {p.kind for p in made.classes["cat"]} == {"descriptor"}
    own = controls.described(PETS, OWN, sentence=lambda name, d: f"{name}: {d}")
    assert own.texts("fire-engine") == ["fire engine: has a ladder"]


def test_shared_random() -> None:
    made = controls.shared_random(PETS, OWN, seed=2)
    shown = [descriptors(made, leaf.id, leaf.name) for leaf in PETS.classes]
    assert shown[0] == shown[1] == shown[2]
    assert len(set(shown[0])) == 2  # six descriptors of three classes
    assert set(shown[0]) <= {d for texts in OWN.values() for d in texts}
    assert [p.template for p in made.classes["cat"]] == [0, 1]
    drawn = {tuple(controls.shared_random(PETS, OWN, seed=s).texts("cat")) for s in range(10)}
    assert len(drawn) > 3


def test_per_class_random() -> None:
    made = controls.per_class_random(PETS, OWN)
    shown = [descriptors(made, leaf.id, leaf.name) for leaf in PETS.classes]
    assert [len(set(texts)) for texts in shown] == [2, 2, 2]
    assert len({tuple(texts) for texts in shown}) > 1
    assert {p.template for p in made.classes["cat"]} == {-1}


@pytest.mark.parametrize("seed", range(20))
def test_swapped_is_a_derangement(seed: int) -> None:
    made = controls.swapped(PETS, OWN, seed=seed, sentence=lambda _, descriptor: descriptor)
    assert list(made.classes) == list(PETS.class_ids)
    shown = {class_id: made.texts(class_id) for class_id in made.classes}
    assert all(shown[i] != OWN[i] for i in OWN)
    assert sorted(shown.values()) == sorted(OWN.values())


def test_scrambled() -> None:
    long = {**OWN, "cat": ["one two three four five", "six"]}
    made = controls.scrambled(PETS, long)
    first, second = descriptors(made, "cat", "cat")
    assert sorted(first.split()) == sorted(long["cat"][0].split())
    assert first != long["cat"][0]
    assert second == "six"
    within = controls.scrambled(PETS, long, within="class", seed=1)
    words = [text.split() for text in descriptors(within, "cat", "cat")]
    assert [len(given) for given in words] == [5, 1]
    assert {w for given in words for w in given} <= {*long["cat"][0].split(), "six"}
    assert within.provenance.model_dump()["control"] == "scrambled[within=class]"


@pytest.mark.parametrize(
    "control",
    [controls.shared_random, controls.per_class_random, controls.swapped, controls.scrambled],
)
def test_controls_are_seeded_and_need_every_class(control: Callable[..., PromptSet]) -> None:
    made = control(PETS, OWN, seed=5)
    assert control(PETS, OWN, seed=5) == made == made.align(PETS)
    assert made.provenance.model_dump()["seed"] == 5
    with pytest.raises(PromptError, match="there are none for 'fire-engine', 'red-panda-bear'"):
        control(PETS, {"cat": ["x"]})
    with pytest.raises(RecipeError, match="seed=-1: it is negative"):
        control(PETS, OWN, seed=-1)


def test_controls_that_cannot_be() -> None:
    with pytest.raises(PromptError, match=r"there is one class\. Give two or more"):
        controls.swapped(Taxonomy.from_names(["cat"]), {"cat": ["x"]})
    with pytest.raises(RecipeError, match="within 'word'"):
        controls.scrambled(PETS, OWN, within="word")  # type: ignore[arg-type]
