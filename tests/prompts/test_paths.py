from __future__ import annotations

from typing import Any

import pytest

from byname.errors import PromptError, RecipeError
from byname.prompts.paths import Paths
from byname.promptset import PromptSet
from byname.stage import create
from byname.taxonomy import Node, Taxonomy

TREE = Taxonomy(
    [
        Node("a", "animal"),
        Node("b", "bird", "a"),
        Node("c", "crane", "b"),
        Node("d", "dog", "a"),
        Node("m", "machine"),
        Node("k", "crane", "m"),
        Node("t", "toast"),
    ]
)
DEEP = Taxonomy(
    [Node("r", "root"), Node("a", "animal", "r"), Node("b", "bird", "a"), Node("c", "crane", "b")]
)


def test_parents() -> None:
    made = Paths().generate(TREE)
    assert {i: made.texts(i) for i in made.classes} == {
        "c": ["a photo of a crane, a kind of bird."],
        "d": ["a photo of a dog, a kind of animal."],
        "k": ["a photo of a crane, a kind of machine."],
        "t": ["a photo of a toast."],
    }
    (prompt,) = made.classes["c"]
    assert (prompt.kind, prompt.about, prompt.level, prompt.template) == ("path", "b", 2, -1)
    (prompt,) = made.classes["t"]
    assert (prompt.kind, prompt.about, prompt.level, prompt.template) == ("template", "", -1, -1)
    assert made.provenance.generator == "paths"


def test_a_template_that_all_classes_share_is_numbered() -> None:
    (prompt,) = Paths().generate(DEEP).classes["c"]
    assert prompt.template == 0


def test_all_ancestors() -> None:
    made = Paths(ancestors="all").generate(TREE)
    assert made.texts("c") == [
        "a photo of a crane, a kind of bird.",
        "a photo of a crane, a kind of animal.",
        "a photo of a crane, a kind of bird, a kind of animal.",
    ]
    assert made.texts("d") == ["a photo of a dog, a kind of animal."]
    prompts = made.classes["c"]
    assert [(p.kind, p.about, p.level) for p in prompts] == [
        ("path", "b", 2),
        ("path", "a", 1),
        ("chain", "", -1),
    ]
    found = Paths(ancestors="all").generate(DEEP).classes["c"]
    assert [p.template for p in found] == [0, 1, -1]


def test_without_the_plain_text() -> None:
    assert list(create("paths[plain=false]").generate(TREE).classes) == ["c", "d", "k"]
    together = PromptSet.concatenate(
        [create("templates[set=single]").generate(TREE), Paths(plain=False).generate(TREE)]
    )
    assert [len(prompts) for prompts in together.align(TREE).classes.values()] == [2, 2, 2, 1]
    with pytest.raises(PromptError) as caught:
        Paths(plain=False).generate(Taxonomy.from_names(["cat"]))
    assert str(caught.value) == (
        "cannot make 'paths[plain=false]': no class lies below another node than the root. "
        "Give a tree of classes, or leave plain=false out."
    )


def test_ancestors_of_the_same_name_are_passed_over() -> None:
    tree = Taxonomy(
        [Node("a", "Animal"), Node("b", "Crane", "a"), Node("c", "crane", "b"), Node("x", "x")]
    )
    made = Paths().generate(tree)
    assert made.texts("c") == ["a photo of a crane, a kind of Animal."]
    assert made.provenance.model_dump()["dropped"] == {"same_name": 1}


def test_a_named_root_is_no_kind() -> None:
    made = Paths().generate(Taxonomy([Node("r", "root"), Node("c", "cat", "r")]))
    assert made.texts("c") == ["a photo of a cat."]


def test_names_are_inert() -> None:
    tree = Taxonomy([Node("p", "{name} {}"), Node("c", "{parent}", "p"), Node("x", "x")])
    assert Paths().generate(tree).texts("c") == ["a photo of a {parent}, a kind of {name} {}."]
    made = create("paths[template={name} ({parent})]").generate(tree)
    assert made.texts("c") == ["{parent} ({name} {})"]
    assert made.provenance.generator == "paths[template={name} ({parent})]"


@pytest.mark.parametrize(
    "params, seen",
    [
        ({"ancestors": "none"}, "ancestors='none': there is no such choice. Known: parent, all."),
        ({"template": "a {name}"}, "it holds {name} 1 and {parent} 0 times. Write each once"),
        ({"template": "{name}{name} {parent}"}, "it holds {name} 2 and {parent} 1 times"),
        ({"template": ""}, "it holds {name} 0 and {parent} 0 times"),
        ({"template": "{name}\n{parent}"}, "holds a control character"),
        ({"template": " {name} {parent}"}, "begins or ends with a space"),
    ],
)
def test_wrong_parameters(params: dict[str, Any], seen: str) -> None:
    with pytest.raises(RecipeError, match="cannot use paths with") as caught:
        Paths(**params)
    assert seen in str(caught.value)
