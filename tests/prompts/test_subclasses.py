from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from byname.errors import PromptError, RecipeError
from byname.prompts.subclasses import Subclasses
from byname.stage import create
from byname.taxonomy import Node, Taxonomy
from tests.prompts.test_cupl import BRACES, CRANES, FRUIT, HOSTILE, one_reply, stays_inert


def names(reply: str, name: str = "apple", **params: Any) -> list[str]:
    """The set of a class after one reply."""
    taxonomy = Taxonomy([Node("a", name)])
    made = one_reply(Subclasses(**params), reply, taxonomy)
    return [p.about for p in made.classes.get("a", ())]


def test_queries() -> None:
    asked = list(Subclasses(n=7, context="fruit").queries(FRUIT))
    assert [(q.class_id, q.about, q.kind) for q in asked] == [
        ("a", "", "subclass"),
        ("u", "", "subclass"),
    ]
    for query in asked:
        assert (query.form, query.temperature, query.samples) == ("list", 0.7, 1)
        assert "names of 7 " in query.text
        assert "(in the sense of: fruit)" in query.text
        assert "{" not in query.text
    assert all("sense" not in q.text for q in Subclasses().queries(FRUIT))
    cranes = list(Subclasses().queries(CRANES))
    assert '"crane (bird)"' in cranes[0].text
    assert len({q.id for q in cranes}) == 2


@pytest.mark.parametrize(
    "reply, found",
    [
        ("Fuji, Gala and crab apple.", ["apple", "Fuji apple", "Gala apple", "crab apple"]),
        ("- Fuji\n- Gala", ["apple", "Fuji apple", "Gala apple"]),
        ("1. **Fuji** (red)\n2. Gala: a sweet one", ["apple", "Fuji apple", "Gala apple"]),
        ("Fuji - red, [Gala], 'Idared'", ["apple", "Fuji apple", "Idared apple"]),
        ("FUJI, Fuji, fuji apple", ["apple", "FUJI apple"]),
        ("Apple, APPLE, apples", ["apple", "apples"]),
        ("Granny-Smith, Cox's Orange", ["apple", "Granny-Smith apple", "Cox's Orange apple"]),
        ("pineapple", ["apple", "pineapple"]),
        ("one two three four five, one two three four five six", ["apple", "one two three four five apple"]),  # noqa: E501
        ('["Fuji", "Gala"]', ["apple", "Fuji apple", "Gala apple"]),
        ("none", ["apple"]),
        ("", ["apple"]),
    ],
)  # fmt: skip
def test_sets(reply: str, found: list[str]) -> None:
    assert names(reply) == found


def test_a_class_name_with_signs_or_many_words_stays_whole() -> None:
    assert names("red crane (bird), grey", "crane (bird)") == [
        "crane (bird)",
        "red crane (bird)",
        "grey crane (bird)",
    ]
    long = "a very long name of six"
    assert names("red a very long name of six", long) == [long, f"red {long}"]


def test_without_the_class_itself() -> None:
    assert names("Fuji, apple", own=False) == ["Fuji apple"]
    assert names("apple", own=False) == []


def test_texts_in_any_order() -> None:
    member = Subclasses(template="{} on a table")
    apple, ugli = member.queries(FRUIT)
    replies = [(apple, "Fuji, a b c d e f"), (ugli, "none"), (apple, "FUJI, Gala")]
    made = member.collect(FRUIT, replies)
    assert [(p.text, p.kind, p.about, p.template) for p in made.classes["a"]] == [
        (f"{name} on a table", "subclass", name, -1)
        for name in ("apple", "Fuji apple", "Gala apple")
    ]
    assert made.texts("u") == ["ugli fruit on a table"], "a set without an answer is its class"
    dropped = made.provenance.model_dump()["answers_dropped"]
    assert dropped == {"too long": 1, "duplicate": 1, "no list": 1}
    assert member.collect(FRUIT, [replies[1], replies[0], replies[2]]) == made
    assert "answers_dropped" not in member.collect(FRUIT, [(apple, "Fuji")]).provenance.model_dump()


def test_a_name_in_two_sets_stays_in_both() -> None:
    tools = Taxonomy.from_names(["kitchen knife", "knife"])
    member = Subclasses()
    made = member.collect(tools, [(q, "kitchen knife") for q in member.queries(tools)])
    assert [p.about for p in made.classes["knife"]] == ["knife", "kitchen knife"]
    assert [p.about for p in made.classes["kitchen-knife"]] == ["kitchen knife"]


@pytest.mark.parametrize("reply", HOSTILE.values(), ids=HOSTILE)
def test_hostile_replies(reply: str, tmp_path: Path) -> None:
    stays_inert(Subclasses(), reply, tmp_path)
    made = one_reply(Subclasses(), reply)
    assert all(len(p.text) < 200 for p in made.classes["a"])


def test_names_are_inert() -> None:
    for query in Subclasses(context="{n}").queries(BRACES):
        assert f'"{BRACES.node(query.class_id).name}" (in the sense of: {{n}})' in query.text
    made = one_reply(Subclasses(template="<{}>"), "red", BRACES)
    assert made.texts("x") == ["<{item} {name} {0}>", "<red {item} {name} {0}>"]


@pytest.mark.parametrize(
    "params, seen",
    [
        ({"n": 0}, "cannot ask for 0 subclasses: it is not 1 to 100. Try n=10."),
        ({"template": "a photo"}, "it holds {} 0 times"),
        ({"template": "{} {}"}, "it holds {} 2 times"),
    ],
)
def test_wrong_parameters(params: dict[str, Any], seen: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Subclasses(**params)
    assert seen in str(caught.value)


def test_the_spec() -> None:
    made = create("subclasses[n=5,own=false,context=article of clothing]").params
    assert (made.n, made.own, made.context) == (5, False, "article of clothing")


def test_a_wording() -> None:
    member = Subclasses(context="fruit")
    raw = {"questions": {"subclass": "{n} of {name}{context}"}, "sentences": {"context": "/{item}"}}
    member.use_wording(raw, "w")
    assert next(member.queries(FRUIT)).text == "10 of apple/fruit"
    with pytest.raises(PromptError, match=r"must hold \{context\} and \{n\} and \{name\}"):
        member.use_wording({"questions": {"subclass": "{name}"}}, "w")


def test_the_published_sets_come_back(shared: Path) -> None:
    """Sets that were made by the same rules are left as they are, repetitions apart."""
    raw = json.loads((shared / "prompts" / "chils-food-101-10.json").read_text("utf-8"))
    kept = repeated = longer = 0
    for name, given in raw.items():
        wanted = list({text.casefold(): text for text in reversed(given)}.values())
        short = [text for text in wanted if len(text.split()) <= max(5, len(name.split()) + 2)]
        found = names("\n".join(f"- {text}" for text in given), name)
        assert {text.casefold() for text in found} == {text.casefold() for text in short} | {name}
        kept += len(found)
        repeated += len(given) - len(wanted)
        longer += len(wanted) - len(short)
    assert (kept, repeated, longer) == (1059, 25, 5)
