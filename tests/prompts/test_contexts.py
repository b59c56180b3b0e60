from __future__ import annotations

from collections import Counter

import pytest

from byname.errors import PromptError, RecipeError
from byname.prompts.contexts import Contexts, default_factors, merge_factors
from byname.stage import create
from byname.taxonomy import Node, Taxonomy

OWL = Taxonomy.from_names(["owl"])
CRANES = Taxonomy([Node("a", "crane {} {phrase} 50 %"), Node("b", "crane"), Node("c", "crane")])


def test_default() -> None:
    made = Contexts().generate(CRANES)
    assert {len(prompts) for prompts in made.classes.values()} == {9}
    assert made.provenance.model_dump()["contexts"] == 9
    for prompts in made.classes.values():
        assert [p.template for p in prompts] == list(range(9))
        assert [p.about for p in prompts] == [p.about for p in made.classes["b"]]
    first, *_, last = made.classes["b"]
    assert (first.about, first.text) == ("quality=any;illumination=any", "a photo of a crane.")
    assert last.about == "quality=poor;illumination=dim"
    assert last.text == "a photo of a crane, blurred and grainy, in dim light."
    assert {p.kind for p in made.classes["b"]} == {"context"}
    assert made.texts("b") == made.texts("c")
    assert made.texts("a")[1] == "a photo of a crane {} {phrase} 50 %, in bright light."


def test_several_phrases_are_one_context() -> None:
    made = Contexts(factors="quantity+illumination").generate(OWL).classes["owl"]
    by_context = Counter(prompt.about for prompt in made)
    assert len(by_context) == 9
    assert by_context["quantity=many;illumination=dim"] == 2
    assert by_context["quantity=one;illumination=dim"] == 1
    assert [p.template for p in made] == list(range(12))
    texts = [p.text for p in made if p.about == "quantity=many;illumination=dim"]
    assert texts == [
        "a photo of a owl, a whole group of them, in dim light.",
        "a photo of a owl, a great number of them, in dim light.",
    ]


def test_the_order_of_factors_is_the_users() -> None:
    made = Contexts(factors="illumination+quality").generate(OWL).classes["owl"]
    assert made[-1].about == "illumination=dim;quality=poor"
    assert made[-1].text == "a photo of a owl, in dim light, blurred and grainy."


@pytest.mark.parametrize("factor", default_factors())
def test_every_preset(factor: str) -> None:
    made = Contexts(factors=factor).generate(OWL).classes["owl"]
    phrases = [p for said in default_factors()[factor].values() for p in said]
    assert len(made) == 1 + len(phrases)
    assert len({p.text for p in made}) == len(made)
    assert made[0].about == f"{factor}=any"
    assert merge_factors({"factors": {factor: default_factors()[factor]}}) == default_factors()


def test_presets_share_no_phrase() -> None:
    phrases = [p for given in default_factors().values() for said in given.values() for p in said]
    assert len(set(phrases)) == len(phrases)
    assert set(default_factors()) >= {
        *("orientation", "background", "quality", "illumination", "quantity", "perspective"),
        *("art", "medium", "condition", "colours", "size"),
    }


@pytest.mark.parametrize(
    "template, first, second",
    [
        ("a photo of a {}.", "a photo of a owl.", "a photo of a owl, in bright light."),
        ("a {} there", "a owl there", "a owl there, in bright light"),
        ("{}", "owl", "owl, in bright light"),
    ],
)
def test_template(template: str, first: str, second: str) -> None:
    made = Contexts(factors="illumination", template=template).generate(OWL)
    assert made.texts("owl")[:2] == [first, second]


@pytest.mark.parametrize(
    "spec, message",
    [
        ("contexts[factors=]", "the name of a factor is missing. Join factors by '+'"),
        ("contexts[factors=quality+]", "the name of a factor is missing"),
        ("contexts[factors=quality+quality]", "'quality' stands twice"),
        ("contexts[cap=0]", "at least one context"),
        ("contexts[template=a photo]", "it holds {} 0 times"),
        ("contexts[template={} {}]", "it holds {} 2 times"),
        ("contexts[cap=x]", "cap='x' does not fit"),
    ],
)
def test_wrong_parameters(spec: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        create(spec)
    assert message in str(caught.value)


def test_too_many_contexts() -> None:
    with pytest.raises(
        RecipeError, match=r"it makes 9 contexts, of 9 texts a class, and at most 8 "
    ):
        Contexts(cap=8).generate(OWL)
    assert len(Contexts(cap=9).generate(OWL).texts("owl")) == 9
    every = "+".join(default_factors())
    with pytest.raises(RecipeError, match=r"it makes \d{7,} contexts.*at most 512 .*fewer factors"):
        Contexts(factors=every).generate(OWL)
    many = Contexts(factors="w")
    many.use_wording({"factors": {"w": {"x": [str(i) for i in range(10_000)]}}}, "'w'")
    with pytest.raises(RecipeError, match="it makes 2 contexts, of 10001 texts a class"):
        many.generate(OWL)


def test_unknown_factor() -> None:
    with pytest.raises(
        RecipeError, match=r"there is no factor 'weather'.*Known: quality, .*--word"
    ):
        Contexts(factors="quality+weather").generate(OWL)


def test_own_factors() -> None:
    member = Contexts(factors="weather+quality")
    raw = {
        "factors": {
            "weather": {"rain": " in the  rain ", "heavy snow": ["in {name}", "in {}"]},
            "quality": {"low": "on a poor film"},
        }
    }
    member.use_wording(raw, "'w.json'")
    made = member.generate(OWL).classes["owl"]
    assert made[-1].about == "weather=heavy snow;quality=low"
    assert made[-1].text == "a photo of a owl, in {}, on a poor film."
    assert made[2].text == "a photo of a owl, in the rain."
    assert len(made) == 8
    assert len({p.about for p in made}) == 6


@pytest.mark.parametrize(
    "raw, seen",
    [
        ([], "not an object with 'factors'"),
        ({}, "not an object with 'factors'"),
        ({"factors": [], "x": 1}, "not an object with 'factors'"),
        ({"factors": {}}, "it has no factor"),
        ({"factors": {"w": {"rain": "x\ud800"}}}, "it holds U+D800"),
        ({"factors": {"w": "rain"}}, "at factors/w:"),
        ({"factors": {"w": {"rain": 3}}}, "at factors/w/rain:"),
        ({"factors": {"w": {"rain": [3]}}}, "at factors/w/rain/0:"),
        ({"factors": {"w": {}}}, "the factor 'w' has no value"),
        ({"factors": {"w": {"rain": []}}}, "'rain' of 'w' has no phrase"),
        ({"factors": {"w": {"rain": " "}}}, "a phrase of 'rain' of 'w' is empty"),
        ({"factors": {"w": {"any": "x"}}}, "has the value 'any'"),
        ({"factors": {"w": {"a=b": "x"}}}, "the value 'a=b' of 'w'"),
        ({"factors": {"w": {"a;b": "x"}}}, "the value 'a;b' of 'w'"),
        ({"factors": {"A+b": {"a": "x"}}}, "the factor 'A+b'"),
        ({"factors": {"w": {"a": "x", "b": ["y", "X "]}}}, "the phrase 'X' stands twice in 'w'"),
    ],
)
def test_wrong_factors(raw: object, seen: str) -> None:
    with pytest.raises(PromptError, match=r"use the wording in 'w\.json' for 'contexts'") as caught:
        Contexts().use_wording(raw, "'w.json'")
    assert seen in str(caught.value)
