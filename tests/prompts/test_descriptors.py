from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.errors import PromptError
from byname.prompts.descriptors import Descriptors
from byname.sentences import descriptor_sentence
from byname.stage import create
from byname.taxonomy import Taxonomy
from tests.prompts.test_cupl import BRACES, CRANES, FRUIT, HOSTILE, one_reply, stays_inert

# Where the released rule looks at letters ("candied", "mayonnaise", "and", "avocado").
BY_LETTERS = {
    ("cannoli", "candied fruit"),
    ("chocolate cake", "candles (optional)"),
    ("club sandwich", "mayonnaise or another sauce"),
    ("deviled eggs", "mayonnaise"),
    ("garlic bread", "and butter or olive oil"),
    ("lobster roll sandwich", "mayonnaise, celery, and lemon juice often added to the filling"),
    ("tuna tartare", "avocado"),
}
# The descriptor file has empty lists here: the sentences were made of other answers.
WITHOUT = {"donuts", "french fries", "fried calamari", "mussels", "oysters"}


@pytest.mark.parametrize(
    "descriptor, said",
    [
        ("red comb", "has red comb"),
        ("a red comb", "is a red comb"),
        ("An egg", "is An egg"),
        ("a", "is a"),
        ("used to cut", "is used to cut"),
        ("usedom style", "has usedom style"),
        ("used-car smell", "has used-car smell"),
        ("a-frame roof", "has a-frame roof"),
        ("avocado", "has avocado"),
        ("and salt", "has and salt"),
        ("has legs", "has legs"),
        ("Has legs", "Has legs"),
        ("hash marks", "has hash marks"),
        ("often brown", "often brown"),
        ("typically: brown", "typically: brown"),
        ("may be brown", "may be brown"),
        ("mayonnaise", "has mayonnaise"),
        ("can be brown", "can be brown"),
        ("candles", "has candles"),
        ("can't fly", "has can't fly"),
        ("usually brown", "has usually brown"),
        ("  red \n comb ", "has red comb"),
        ("{name} {0} %s <b>", "has {name} {0} %s <b>"),
    ],
)
def test_the_rule(descriptor: str, said: str) -> None:
    assert descriptor_sentence("hen", descriptor) == f"hen, which {said}"


def test_around_the_sentence() -> None:
    say = descriptor_sentence
    assert (
        say("hen", "red", prefix="a photo of a", suffix=".") == "a photo of a hen, which has red."
    )
    assert say("hen", "red", prefix="see: ", suffix=" here") == "see: hen, which has red here"
    assert say("hen", "red", suffix="in a yard") == "hen, which has red in a yard"
    assert say("hen", "a comb", include_name=False, suffix=".") == "a comb."
    assert say("{0} {}", "a") == "{0} {}, which is a"


@given(st.text(), st.text())
def test_the_rule_keeps_all_words(name: str, descriptor: str) -> None:
    said = descriptor_sentence(name, descriptor)
    head, tail = " ".join(name.split()), " ".join(descriptor.split())
    assert said.startswith(f"{head}, which ")
    assert said.removeprefix(f"{head}, which ") in {tail, f"is {tail}", f"has {tail}"}


def test_the_published_sentences(shared: Path) -> None:
    folder = shared / "prompts"
    phrases = json.loads((folder / "dclip-descriptors-food-101.json").read_text("utf-8"))
    sentences = json.loads((folder / "descriptors-as-sentences-food-101.json").read_text("utf-8"))
    assert set(phrases) == set(sentences)
    assert {name for name in phrases if not phrases[name]} == WITHOUT
    pairs = [
        (name, phrase, sentence)
        for name in phrases
        if name not in WITHOUT
        for phrase, sentence in zip(phrases[name], sentences[name], strict=True)
    ]
    assert len(pairs) == 499
    found: Counter[bool] = Counter()
    for name, phrase, sentence in pairs:
        assert descriptor_sentence(name, phrase, suffix=".", compat=True) == sentence
        same = descriptor_sentence(name, phrase, suffix=".") == sentence
        found[same] += 1
        assert same != ((name, phrase) in BY_LETTERS), phrase
    assert found == {True: 492, False: 7}


def test_queries() -> None:
    asked = list(Descriptors().queries(FRUIT))
    assert [(q.class_id, q.about, q.kind) for q in asked] == [
        ("a", "", "descriptor"),
        ("u", "", "descriptor"),
    ]
    for query in asked:
        assert (query.form, query.temperature, query.max_tokens) == ("list", 0, 100)
        assert (query.stop, query.samples) == (None, 1)
        assert query.text.count("For ") == 2, "two worked examples"
    cranes = list(Descriptors().queries(CRANES))
    assert "crane (bird)" in cranes[0].text
    assert len({q.id for q in cranes}) == 2


def test_texts_in_any_order() -> None:
    member = Descriptors(suffix=".")
    apple, ugli = member.queries(FRUIT)
    replies = [
        (apple, "Sure:\n- a stem\n- **Red** skin.\n- often shiny\n- a stem"),
        (ugli, "1. wrinkles\n2. a stem"),
        (apple, "- seeds, inside"),
    ]
    made = member.collect(FRUIT, replies)
    assert made.texts("a") == [
        "apple, which is a stem.",
        "apple, which has Red skin.",
        "apple, which often shiny.",
        "apple, which has seeds, inside.",
    ]
    assert made.texts("u") == ["ugli fruit, which has wrinkles.", "ugli fruit, which is a stem."]
    assert [p.about for p in made.classes["u"]] == ["wrinkles", "a stem"]
    assert member.collect(FRUIT, [replies[1], replies[0], replies[2]]) == made


def test_options() -> None:
    assert one_reply(Descriptors(include_name=False), "- a stem").texts("a") == ["a stem"]
    compat = create("descriptors[compat=true,prefix=a photo of an,suffix=.]")
    assert one_reply(compat, "- and skin").texts("a") == ["a photo of an apple, which is and skin."]


def test_a_class_without_a_descriptor_is_left_out_and_told() -> None:
    made = one_reply(Descriptors(), "none")
    assert made.classes == {}
    assert made.provenance.model_dump()["answers_dropped"] == {"no list": 1}
    query = next(Descriptors().queries(FRUIT))
    assert Descriptors().problem(query, "none") == "no list"
    assert Descriptors().problem(query, "- a stem") == ""


@pytest.mark.parametrize("reply", HOSTILE.values(), ids=HOSTILE)
def test_hostile_replies(reply: str, tmp_path: Path) -> None:
    stays_inert(Descriptors(suffix="."), reply, tmp_path)


def test_json_is_read() -> None:
    texts = ["apple, which has red skin", "apple, which has round shape"]
    assert one_reply(Descriptors(), HOSTILE["json"]).texts("a") == texts
    assert one_reply(Descriptors(), HOSTILE["fenced json"]).texts("a") == texts


def test_names_are_inert() -> None:
    for query in Descriptors().queries(BRACES):
        name = BRACES.node(query.class_id).name
        assert f'"{name}"' in query.text
    assert one_reply(Descriptors(), "- {name}", BRACES).texts("x") == [
        "{item} {name} {0}, which has {name}"
    ]


def test_a_wording() -> None:
    member = Descriptors()
    member.use_wording({"questions": {"descriptor": "See {name}?"}}, "w")
    assert [q.text for q in member.queries(Taxonomy.from_names(["hen"]))] == ["See hen?"]
    with pytest.raises(PromptError, match=r"must hold \{name\}"):
        member.use_wording({"questions": {"descriptor": "See?"}}, "w")


def test_endless_items_are_cut_or_dropped() -> None:
    long, endless = "red " * 400, "x" * 1001
    made = one_reply(Descriptors(), f"- {long}\n- {endless}\n- a stem\n- {'y' * 1000}")
    first, *others = next(iter(made.classes.values()))
    assert first.about == ("red " * 250).strip()
    assert [prompt.about for prompt in others] == ["a stem", "y" * 1000]
    record = made.provenance.model_dump()
    assert (record["answers_dropped"], record["answers_cut"]) == ({"too long": 1}, 1)
