from __future__ import annotations

import pytest

from byname.errors import PromptError
from byname.prompts.wording import fill, merge_wording, with_article


@pytest.mark.parametrize(
    "said",
    ["an apple", "an hour", "an heirloom", "an urchin", "an usher", "an unimpressed cat", "a cat"],
)
def test_an(said: str) -> None:
    assert with_article(said.split(" ", 1)[1]) == said


@pytest.mark.parametrize(
    "said", ["a unicorn", "a uniform", "a ukulele", "a eucalyptus", "a utensil", "a one-way sign"]
)
def test_article(said: str) -> None:
    assert with_article(said.split(" ", 1)[1]) == said


def test_fill_is_one_pass() -> None:
    assert fill("{name} {item} {x}", name="{item}", item="{name}") == "{item} {name} {x}"


@pytest.mark.parametrize(
    "raw, seen",
    [
        ([], "not an object"),
        ({}, "not an object"),
        ({"question": {}}, "not an object"),
        ({"questions": []}, "'questions' is no object"),
        ({"questions": {"x": "y {name}"}}, "there is no kind 'x'"),
        ({"questions": {"synonym": "no slot"}}, "must hold {name}"),
        ({"questions": {"synonym": "{name} and {other}"}}, "must hold {name} and no other"),
        ({"questions": {"synonym": 3}}, "questions/synonym"),
        ({"questions": {"synonym": {"text": "{name}", "temperature": 9}}}, "temperature"),
        ({"sentences": {"attribute": ["no item"]}}, "must hold {item}"),
        ({"sentences": {"attribute": ["{item} {other}"]}}, "must hold {item}"),
        ({"sentences": {"attribute": 3}}, "sentences/attribute"),
        ({"sentences": {"attribute": []}}, "sentences/attribute"),
        ({"questions": {}}, "it changes nothing"),
        ({"questions": {"synonym": {"max_tokens": True}}}, "synonym/max_tokens"),
        ({"questions": {"synonym": {"samples": "3"}}}, "synonym/samples"),
        ({"questions": {"synonym": {"temperature": True}}}, "synonym/temperature"),
        ({"questions": {"synonym": {"stop": ""}}}, "synonym/stop"),
        (
            {"questions": {"synonym": "{name}\udc80"}},
            "it holds U+DC80, which is no whole character",
        ),
    ],
)
def test_wrong_wording(raw: object, seen: str) -> None:
    with pytest.raises(PromptError, match=r"use the wording in 'w\.json' for 'atg'") as caught:
        merge_wording("atg", raw, "'w.json'")
    assert seen in str(caught.value)


def test_merged() -> None:
    raw = {"questions": {"synonym": {"text": "{name} in {curly}?", "samples": 3}}}
    made = merge_wording("atg", {**raw, "sentences": {"attribute": "{item}: {name}"}})
    assert (made.questions["synonym"].samples, made.questions["synonym"].form) == (3, "list")
    assert made.sentences["attribute"] == ("{item}: {name}",)
    assert made.questions["attribute"] == merge_wording("atg", raw).questions["attribute"]


@pytest.mark.parametrize(
    "style, kind",
    [("attributes", "looks"), ("attributes", "domain"), ("sounds", "scene"), ("cupl", "domain")],
)
def test_no_style_takes_an_empty_list(style: str, kind: str) -> None:
    with pytest.raises(PromptError, match=f"at sentences/{kind}"):
        merge_wording(style, {"sentences": {kind: []}})
