from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.errors import PromptError, RecipeError
from byname.prompts.concept import Concept, concept_of
from byname.queries import Query
from byname.stage import create
from byname.taxonomy import Node, Taxonomy

MANY = Taxonomy.from_names(f"thing {i}" for i in range(60))
CRANES = Taxonomy([Node("a", "crane"), Node("b", "crane"), Node("c", "{concept} {name} 50 %")])


def ask(member: Concept, taxonomy: Taxonomy) -> Query:
    [query] = member.asked(taxonomy)
    return query


def test_one_query() -> None:
    query = ask(Concept(), CRANES)
    assert (query.class_id, query.about, query.kind, query.form) == ("", "", "concept", "text")
    assert query.text.count("crane") == 1
    assert "{concept} {name} 50 %" in query.text
    assert "{names}" not in query.text


def test_at_most_25_names_by_seed() -> None:
    shown = Concept().shown(MANY)
    assert len(set(shown)) == 25
    assert set(shown) <= {leaf.name for leaf in MANY.classes}
    backwards = Taxonomy.from_names(f"thing {i}" for i in reversed(range(60)))
    assert Concept().shown(backwards) == shown
    assert set(Concept(seed=1).shown(MANY)) != set(shown)
    assert Concept(n=60).shown(MANY)[:25] == shown
    assert all(name in ask(Concept(), MANY).text for name in shown)
    # Written down, so that a change of the choice is seen: it changes the id of the query.
    assert Concept(n=3).shown(Taxonomy.from_names([*"abcdefg"])) == ["d", "a", "b"]


@pytest.mark.parametrize(
    "reply, concept",
    [
        ("Birds", "bird"),
        (" **Birds.** \n\nThey all have feathers and wings, you know.", "bird"),
        ("musical instruments", "musical instrument"),
        ("They are all types of food.", "food"),
        ("All of them are animals", "animal"),
        ("All are kinds of fish", "fish"),
        ("a bird of prey", "bird of prey"),
        ("Answer: Vehicles", "vehicle"),
        ("Here you are:\n- Vehicles", "vehicle"),
        ("1. Vehicles\n2. Cars", "vehicle"),
        ('{"concept": "Land vehicles"}', "land vehicle"),
        ('"Plants"', "plant"),
        ("glass", "glass"),
        ("cactus", "cactus"),
        ("grasses", "grasse"),
        ("one two three four five", "one two three four five"),
        ("one two three four five six", ""),
        ("nothing", ""),
        ("None.", ""),
        ("They have nothing in common.", ""),
        ("", ""),
        ("1", ""),
        ("**", ""),
        ("I'm sorry, I can't say.", ""),
        ("x" * 10**6, ""),
        ("word " * 10**5, ""),
        ("sea\u202ebirds\x00", "seabird"),
        ("sea\tbirds", "sea bird"),
        ("0\tS", "0 s"),
        ("s", "s"),
        ("<b>birds</b>", "<b>birds</b>"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_concept_of(reply: str, concept: str) -> None:
    assert concept_of(reply) == concept


@given(st.text(max_size=60))
def test_a_concept_is_short_plain_text(reply: str) -> None:
    concept = concept_of(reply)
    assert len(concept.split()) <= 5
    assert concept == " ".join(concept.split())
    assert concept.isprintable()


def test_texts() -> None:
    member = Concept()
    made = member.collect(CRANES, [(ask(member, CRANES), "Things that lift.")])
    assert list(made.classes) == ["a", "b", "c"]
    [prompt] = made.classes["b"]
    assert prompt.text == "a photo of a things that lift: a crane."
    assert (prompt.kind, prompt.about, prompt.template) == ("concept", "things that lift", 0)
    assert made.texts("c") == ["a photo of a things that lift: a {concept} {name} 50 %."]
    assert made.provenance.model_dump()["concept"] == "things that lift"
    assert made.provenance.model_dump()["queries"] == 1


def test_a_concept_with_braces_is_text() -> None:
    member = Concept()
    made = member.collect(CRANES, [(ask(member, CRANES), "kept {name} here")])
    assert made.texts("a") == ["a photo of a kept {name} here: a crane."]


@pytest.mark.parametrize(
    "replies, dropped",
    [
        ([], {}),
        (["nothing"], {}),
        (["As an AI I cannot"], {}),
        (
            ["they all seem to stand around somewhere"],
            {"answers_dropped": {"more than five words": 1}},
        ),
    ],
)
def test_no_concept(replies: list[str], dropped: dict[str, object]) -> None:
    member = Concept()
    query = ask(member, CRANES)
    made = member.collect(CRANES, [(query, reply) for reply in replies])
    assert made.texts("a") == ["a photo of a crane."]
    assert made.classes["a"][0].about == ""
    record = made.provenance.model_dump()
    assert record["concept"] == ""
    assert {k: v for k, v in record.items() if k == "answers_dropped"} == dropped


def test_of_several_replies_the_first_concept_counts() -> None:
    member = Concept()
    query = ask(member, CRANES)
    said = ["one two three four five six", "nothing", "machines", "birds"]
    made = member.collect(CRANES, [(query, reply) for reply in said])
    assert made.provenance.model_dump()["concept"] == "machine"


def test_problem() -> None:
    query = ask(Concept(), CRANES)
    given = {
        "Birds": "",
        "nothing": "",
        "": "empty",
        "**": "empty",
        "I'm sorry": "refusal",
        "one two three four five six": "more than five words",
    }
    assert {reply: Concept().problem(query, reply) for reply in given} == given


def test_only_narrows_the_texts_and_not_the_question() -> None:
    member = Concept()
    whole = ask(member, CRANES)
    member.only = frozenset({"c"})
    assert ask(member, CRANES) == whole
    assert list(member.collect(CRANES, [(whole, "birds")]).classes) == ["c"]


@pytest.mark.parametrize(
    "spec, message",
    [
        ("concept[n=0]", "no class would be shown"),
        ("concept[template=a {name}]", "it holds {concept} 0 times"),
        ("concept[template={concept} {concept} {name}]", "it holds {concept} 2 times"),
        ("concept[template=a {}]", "Write {concept} and {name} once"),
        ("concept[plain={concept} {name}]", "it holds {concept} 1 times"),
        ("concept[plain=a photo]", "it holds {name} 0 times"),
        ("concept[seed=x]", "seed='x' does not fit"),
    ],
)
def test_wrong_parameters(spec: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        create(spec)
    assert message in str(caught.value)


def test_own_templates() -> None:
    member = create("concept[template=An X-ray of {name}; {concept}.,plain=An X-ray of {name}.]")
    made = member.collect(CRANES, [(ask(member, CRANES), "bones")])
    assert made.texts("a") == ["An X-ray of crane; bone."]
    assert member.collect(CRANES, ()).texts("a") == ["An X-ray of crane."]


def test_wording() -> None:
    member = Concept()
    member.use_wording({"questions": {"concept": "What are {names}?"}}, "'w'")
    assert ask(member, Taxonomy.from_names(["cat"])).text == "What are cat?"
    with pytest.raises(PromptError, match=r"must hold \{names\}"):
        member.use_wording({"questions": {"concept": "What?"}}, "'w'")
