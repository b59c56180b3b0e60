from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.errors import NeedsError, PromptError
from byname.queries import Query, QueryMember, clean_reply, query_id
from byname.taxonomy import Node, Taxonomy

TAXONOMY = Taxonomy.from_names(["cat", "dog"])


class Two(QueryMember):
    name = "two"

    def queries(self, taxonomy: Taxonomy) -> Iterator[Query]:
        for leaf in taxonomy.classes:
            for kind in ("look", "sound"):
                yield Query.make(leaf.id, "", kind, f"{kind} of {leaf.name}?")


ASKED = list(Two().queries(TAXONOMY))


@pytest.mark.parametrize(
    "reply, text",
    [
        ("  It is red.\n", "It is red."),
        ("1", ""),
        (" 1. ", ""),
        ("(2)", ""),
        ("They differ as follows:\n\n1", ""),
        ("They differ in:\n1. colour\n2. size\n3.", "They differ in:\n1. colour\n2. size"),
        ("It is red.\n2", "It is red."),
        ("It has 4", "It has 4"),
        ("It has the following:", "It has the following:"),
        ("Here are the differences: 1", ""),
        ("It is red.\nHere are the differences: 1.", "It is red."),
        ("- colour: grey\n- horns: 1", "- colour: grey\n- horns: 1"),
        ("Legs: 4", "Legs: 4"),
        (" \n\t", ""),
        ("Ünï \N{GRINNING FACE}", "Ünï \N{GRINNING FACE}"),
    ],
)  # fmt: skip
def test_clean_reply(reply: str, text: str) -> None:
    assert clean_reply(reply) == text


@given(st.text())
def test_cleaning_ends_without_space_and_never_adds(reply: str) -> None:
    text = clean_reply(reply)
    assert text == text.strip()
    assert text in reply


@given(*[st.text(max_size=3)] * 4)
def test_ids_tell_the_parts_apart(a: str, b: str, c: str, d: str) -> None:
    found = query_id(a, b, c, d)
    assert len(found) == 16
    assert found == query_id(a, b, c, d)
    assert query_id(a + b, "", c, d) != found or b == ""


def test_replies_are_cleaned_counted_and_put_in_the_order_of_the_queries() -> None:
    look, sound, dog, _ = ASKED
    replies = [(sound, "meow"), (dog, "1"), (look, " furry "), (look, "furry"), (look, "soft"),
               (sound, " ")]  # fmt: skip
    made = Two().collect(TAXONOMY, replies)
    assert made.texts("cat") == ["furry", "soft", "meow"]
    assert [p.kind for p in made.classes["cat"]] == ["look", "look", "sound"]
    assert "dog" not in made.classes
    record = made.provenance.model_dump()
    assert record["dropped"] == {"empty": 1, "number": 1, "refusal": 0, "duplicate": 1}
    assert record["queries"] == 4
    ids = "".join(f"{q.id}\n" for q in ASKED)
    assert record["queries_sha256"] == hashlib.sha256(ids.encode()).hexdigest()
    assert record["generator"] == "two"


def test_the_same_text_may_stand_in_two_classes() -> None:
    made = Two().collect(TAXONOMY, [(q, "furry") for q in ASKED])
    assert (made.texts("cat"), made.texts("dog")) == (["furry"], ["furry"])


def test_replies_to_other_queries() -> None:
    foreign = Query.make("cow", "", "look", "?")
    with pytest.raises(PromptError) as error:
        Two().collect(TAXONOMY, [(foreign, "x"), (ASKED[0], "y")])
    assert str(error.value).startswith(
        "cannot collect the replies for 'two': 1 of them answer no query of these classes, "
        f"first {foreign.id}."
    )


def test_generating_says_what_is_needed() -> None:
    with pytest.raises(NeedsError) as error:
        Two().generate(TAXONOMY)
    assert str(error.value) == (
        "cannot make the prompts 'two': their texts are replies of an LLM, which this run does not "
        "have. Give a prompt file with --prompts FILE.json; 'byname prompts make --style two "
        "--classes CLASSES --emit FILE.jsonl' writes the queries to ask."
    )


def test_the_base_class_has_no_queries() -> None:
    with pytest.raises(TypeError, match=r"QueryMember defines no queries\(\)"):
        list(QueryMember().queries(TAXONOMY))


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry, but I can't help with that.",
        "I\N{RIGHT SINGLE QUOTATION MARK}m sorry",
        '"Sorry, no."',
        "As an AI language model, I see nothing.",
        "I cannot tell",
        "I am unable to do that.",
        "Unfortunately, I know no such thing.",
        "Apologies, I have no such knowledge.",
        "My apologies for that.",
        "I apologise, no.",
        "I don't know.",
        "I do not know what that is.",
    ],
)
def test_refusals_are_dropped_and_counted(reply: str) -> None:
    made = Two().collect(TAXONOMY, [(ASKED[0], reply), (ASKED[1], "meow")])
    assert made.texts("cat") == ["meow"]
    assert made.provenance.model_dump()["dropped"]["refusal"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "A sorry sight.",
        "I can see it.",
        "As an aid it is red.",
        "I cantilever.",
        "Apologies are said.",
    ],
)
def test_what_is_no_refusal(text: str) -> None:
    assert Two().collect(TAXONOMY, [(ASKED[0], text)]).texts("cat") == [text]


def test_half_a_surrogate_pair_is_no_text() -> None:
    assert clean_reply("red \ud800 wings") == "red ? wings"


SORRY = "Sorry, Wrong Number"


@pytest.mark.parametrize(
    "node, reply, kept",
    [
        (Node("c", SORRY), f"{SORRY} is a film poster.", True),
        (Node("c", "film", aliases=(SORRY,)), f'"{SORRY}" is a film poster.', True),
        (Node("c", SORRY), "Sorry, I can't help with that.", False),
        (Node("c", "Sorry"), "Sorry, but I can't help with that.", False),
        (Node("c", "I"), "I can't help with that.", False),
        (Node("c", "Formula 1"), "A photo of Formula\n1", True),
        (Node("c", "Boeing_747"), "Boeing\n747.", True),
        (Node("c", "911"), "911", True),
        (Node("c", "1"), "1", False),
        (Node("c", "Formula 1"), "Here is what tells it:\n\n1.", False),
    ],
)
def test_the_name_of_the_class_is_no_refusal_and_no_number_of_a_list(
    node: Node, reply: str, kept: bool
) -> None:
    member, one = Two(), Taxonomy([node])
    asked = next(member.asked(one))
    assert bool(member.problem(asked, reply)) is not kept
    made = Two().collect(one, [(asked, reply)])
    assert [p.text for given in made.classes.values() for p in given] == [reply] * kept
