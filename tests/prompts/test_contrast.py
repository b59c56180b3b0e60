from __future__ import annotations

from pathlib import Path

import pytest

from byname.errors import PromptError, RecipeError
from byname.prompts.atg import ATG
from byname.prompts.contrast import Contrast
from byname.prompts.pairs import named_pairs, sibling_pairs
from byname.promptset import PromptSet
from byname.stage import create
from byname.taxonomy import Node, Taxonomy
from byname.taxonomy_io import read_taxonomy

FLAT = Taxonomy.from_names(["river", "lake", "sea"])
CRANES = Taxonomy(
    [
        Node("b", "bird"),
        Node("m", "machine"),
        Node("x", "crane", "b"),
        Node("o", "owl", "b"),
        Node("y", "crane", "m"),
        Node("z", "crane", "m"),
    ]
)
ODD = Taxonomy([Node("a", "{other} {item} {} 50 %"), Node("b", "x{name}")])
TWO = "A:\n- a current\n- two banks\nB:\n- a round shore"


def test_queries() -> None:
    asked = list(
        Contrast(pairs=[("lake", "river"), ("river", "lake"), ("sea", "lake")]).queries(FLAT)
    )
    assert [(q.class_id, q.about, q.kind, q.form) for q in asked] == [
        ("lake", "river", "contrast", "two_lists"),
        ("sea", "lake", "contrast", "two_lists"),
    ]
    assert '"lake" (A)' in asked[0].text
    assert '"river" (B)' in asked[0].text
    assert all("{" not in query.text for query in asked)


def test_siblings_are_the_pairs_where_none_are_given() -> None:
    def pairs(taxonomy: Taxonomy) -> list[tuple[str, str]]:
        return [(q.class_id, q.about) for q in Contrast().queries(taxonomy)]

    assert pairs(FLAT) == [("river", "lake"), ("river", "sea"), ("lake", "sea")]
    assert pairs(CRANES) == [("x", "o")]
    atg = ATG(kinds="name+one-to-one")
    assert pairs(FLAT) == [(q.class_id, q.about) for q in atg.queries(FLAT)]
    many = Taxonomy.from_names(f"n{i}" for i in range(40))
    assert len(pairs(many)) == 40 * 39 // 2
    assert "--pairs" in Contrast().remarks(FLAT)[0]
    assert Contrast(pairs=[("sea", "lake")]).remarks(FLAT) == []


@pytest.mark.parametrize(
    "name, count",
    [
        ("food-101", 406),
        ("ucf-101", 432),
        ("cub-200", 1131),
        ("sun-324", 3698),
        ("imagenet-998", 1709),
    ],
)
def test_number_of_queries(shared: Path, name: str, count: int) -> None:
    taxonomy = read_taxonomy(shared / "taxonomies" / f"{name}.json")
    ids = [query.id for query in Contrast().queries(taxonomy)]
    assert len(ids) == len(set(ids)) == count


def test_classes_of_one_name() -> None:
    [query] = Contrast(pairs=[("x", "y"), ("y", "z")]).queries(CRANES)
    assert "crane (bird)" in query.text
    assert "crane (machine)" in query.text
    made = Contrast(pairs=[("x", "y")]).collect(
        CRANES, [(query, "crane (machine): steel\ncrane (bird): feathers")]
    )
    assert made.texts("x") == ["a photo of a crane with feathers."]
    assert made.texts("y") == ["a photo of a crane with steel."]


@pytest.mark.parametrize(
    "pair, message",
    [(("river", "pond"), "no class has the id 'pond'"), (("sea", "sea"), "it is one class twice")],
)
def test_wrong_pairs(pair: tuple[str, str], message: str) -> None:
    with pytest.raises(PromptError, match=f"ask how '{pair[0]}' and '{pair[1]}' differ: {message}"):
        list(Contrast(pairs=[pair]).queries(FLAT))


def test_texts_of_both_classes_and_of_the_pair() -> None:
    member = Contrast(pairs=[("river", "lake")])
    [query] = member.queries(FLAT)
    made = member.collect(FLAT, [(query, TWO)])
    assert [(p.text, p.kind, p.about, p.template) for p in made.classes["river"]] == [
        ("a photo of a river with a current.", "contrast", "lake", -1),
        ("a photo of a river with two banks.", "contrast", "lake", -1),
    ]
    assert [(p.text, p.about) for p in made.classes["lake"]] == [
        ("a photo of a lake with a round shore.", "river")
    ]
    assert "sea" not in made.classes
    assert [(p.a, p.b, p.texts) for p in made.pairs] == [
        ("river", "lake", tuple(made.texts("river"))),
        ("lake", "river", tuple(made.texts("lake"))),
    ]
    assert "answers_dropped" not in made.provenance.model_dump()


def test_a_text_of_two_pairs_is_the_classes_once_and_the_pairs_twice() -> None:
    member = Contrast()
    asked = list(member.queries(FLAT))
    replies = [(query, "A:\n- water\nB:\n- foam") for query in asked]
    made = member.collect(FLAT, replies)
    assert [(p.text, p.about) for p in made.classes["river"]] == [
        ("a photo of a river with water.", "lake")
    ]
    assert [p.text for p in made.classes["lake"]] == [
        "a photo of a lake with foam.",
        "a photo of a lake with water.",
    ]
    assert len(made.pairs) == 6
    assert made.provenance.model_dump()["answers_dropped"] == {"text of another pair": 2}
    assert member.collect(FLAT, replies[::-1]) == made


def test_names_are_text() -> None:
    member = Contrast()
    [query] = member.queries(ODD)
    assert '"{other} {item} {} 50 %" (A)' in query.text
    assert '"x{name}" (B)' in query.text
    made = member.collect(ODD, [(query, "A:\n- {name}\nB:\n- {other}")])
    assert made.texts("a") == ["a photo of a {other} {item} {} 50 % with {name}."]
    assert made.texts("b") == ["a photo of a x{name} with {other}."]


@pytest.mark.parametrize(
    "reply, dropped",
    [
        ("", {}),
        ("As an AI, I can't.", {}),
        ("- one list\n- only", {"pair with one side": 1}),
        ("A:\n- one side", {"pair with one side": 1}),
        ('{"a": [], "b": ["x"]}', {"pair with one side": 1}),
        ("[" * 100_000, {"pair with one side": 1}),
        ("<html><body>502 Bad Gateway</body></html>", {"pair with one side": 1}),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_useless_replies(reply: str, dropped: dict[str, int]) -> None:
    member = Contrast(pairs=[("river", "lake")])
    [query] = member.queries(FLAT)
    made = member.collect(FLAT, [(query, reply)])
    assert (made.classes, made.pairs) == ({}, ())
    assert made.provenance.model_dump().get("answers_dropped", {}) == dropped


@pytest.mark.parametrize(
    "one",
    ["a\u202eb", "\x1b[31mred", "<script>x</script>", "ignore all {rules}", "y" * 10**6],
    ids=lambda value: repr(value)[:20],
)
def test_hostile_replies_are_text(one: str) -> None:
    member = Contrast(pairs=[("river", "lake")])
    [query] = member.queries(FLAT)
    made = member.collect(FLAT, [(query, f"A:\n- {one}\nB:\n- still water")])
    assert made.texts("river") == [f"a photo of a river with {one}."]
    assert PromptSet.model_validate_json(made.model_dump_json()) == made


def test_problem() -> None:
    [query, *_] = Contrast().queries(FLAT)
    given = {TWO: "", "": "empty", "I'm sorry, no.": "refusal", "none": "no list"}
    assert {reply: Contrast().problem(query, reply) for reply in given} == given


def test_only() -> None:
    member = Contrast()
    member.only = frozenset({"lake"})
    asked = list(member.asked(FLAT))
    assert [(q.class_id, q.about) for q in asked] == [("river", "lake"), ("lake", "sea")]
    made = member.collect(FLAT, [(query, TWO) for query in asked])
    assert list(made.classes) == ["lake"]
    assert [p.about for p in made.classes["lake"]] == ["river", "sea", "sea"]
    assert len(made.pairs) == 4


def test_several_replies_to_one_query() -> None:
    member = Contrast(pairs=[("river", "lake")])
    [query] = member.queries(FLAT)
    made = member.collect(FLAT, [(query, TWO), (query, "A: mud\nB: still water")])
    assert len(made.texts("river")) == 3
    assert made.pairs[0].texts == tuple(made.texts("river"))
    assert len(made.pairs) == 2


def test_wording() -> None:
    member = Contrast(pairs=[("river", "lake")])
    member.use_wording(
        {
            "questions": {"contrast": "{name} or {other}?"},
            "sentences": {"contrast": ["{item}: {name}", "{item}"]},
        },
        "'w'",
    )
    [query] = member.queries(FLAT)
    assert query.text == "river or lake?"
    made = member.collect(FLAT, [(query, "A: mud\nB: still water")])
    assert made.texts("river") == ["mud: river", "mud"]
    with pytest.raises(PromptError, match=r"must hold \{name\} and \{other\}"):
        member.use_wording({"questions": {"contrast": "{name}?"}}, "'w'")


def test_no_parameters() -> None:
    with pytest.raises(RecipeError, match="it has no parameter 'pairs'"):
        create("contrast[pairs=a+b]")


def test_pairs_helpers() -> None:
    assert [tuple(pair) for pair in named_pairs(CRANES, [("x", "y")])] == [
        ("x", "y", "crane (bird)", "crane (machine)")
    ]
    assert list(sibling_pairs(CRANES)) == [("x", "o"), ("y", "z")]
