from __future__ import annotations

import pytest

from byname.errors import RecipeError
from byname.prompts.templates import Templates, template_set
from byname.stage import create
from byname.taxonomy import Node, Taxonomy

TAXONOMY = Taxonomy([Node("x", "crane"), Node("y", "crane"), Node("z", "dog")])


@pytest.mark.parametrize("name, count", [("imagenet", 80), ("short", 7), ("single", 1)])
def test_sets_are_complete(name: str, count: int) -> None:
    templates = template_set(name)  # type: ignore[arg-type]
    assert len(set(templates)) == len(templates) == count
    for template in templates:
        assert template.count("{}") == 1
        assert template == template.strip()
        assert template.endswith(".")
        assert template.isascii()


@pytest.mark.parametrize("name, count", [("imagenet", 80), ("short", 7), ("single", 1)])
def test_every_class_gets_every_template(name: str, count: int) -> None:
    made = create(f"templates[set={name}]", "prompts").generate(TAXONOMY)
    assert list(made.classes) == ["x", "y", "z"]
    assert made.texts("x") == made.texts("y")
    assert [p.template for p in made.classes["z"]] == list(range(count))
    assert made.provenance.generator == f"templates[set={name}]"
    assert made.align(TAXONOMY) == made


def test_the_single_template() -> None:
    assert Templates(set="single").generate(TAXONOMY).texts("z") == ["a photo of a dog."]


def test_the_default_is_imagenet() -> None:
    assert Templates().params.set == "imagenet"


def test_unknown_sets() -> None:
    message = (
        "cannot use the templates 'cupl': there is no such set. Known: imagenet, short, single."
    )
    with pytest.raises(RecipeError) as error:
        Templates(set="cupl")
    assert str(error.value) == message
    with pytest.raises(RecipeError, match="set='cupl' does not fit"):
        create("templates[set=cupl]")
