"""Texts of a member, a file, a set, or several together."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from byname.errors import NeedsError, PromptError, RecipeError
from byname.promptchoice import chosen_prompts, is_member
from byname.promptset import PromptSet
from byname.taxonomy import Taxonomy

PETS = Taxonomy.from_names(["cat", "dog"])


@pytest.fixture
def more(tmp_path: Path) -> Path:
    path = tmp_path / "more+better.json"
    path.write_text(json.dumps({"dog": ["a dog has a wet nose"]}))
    return path


def test_a_sum_adds_texts_and_the_file_may_cover_some_classes_only(more: Path) -> None:
    plain = more.rename(more.with_name("more.json"))
    made = chosen_prompts(f"templates[set=single]+{plain}", PETS)
    assert made.texts("cat") == ["a photo of a cat."]
    assert made.texts("dog") == ["a photo of a dog.", "a dog has a wet nose"]
    assert [p.template for p in made.classes["dog"]] == [0, -1]
    assert made.provenance.generator == "templates[set=single] + more.json"


def test_a_file_alone_must_cover_every_class(more: Path) -> None:
    with pytest.raises(PromptError, match="no texts for 1 of 2 classes: 'cat'"):
        chosen_prompts(str(more), PETS)
    with pytest.warns(UserWarning, match="1 of 2 classes have no texts"):
        made = chosen_prompts(more, PETS, allow_missing=True)
    assert made.texts("cat") == ["a photo of a cat."]


def test_templates_of_two_parts_stay_apart() -> None:
    made = chosen_prompts("templates[set=single]+templates[set=short]", PETS)
    assert [p.template for p in made.classes["cat"]] == list(range(8))


def test_what_is_a_member(more: Path) -> None:
    assert is_member("templates")
    assert is_member("haprompts[variant=lp+path]")
    assert not is_member("templates+p.json")
    assert not is_member(str(more))
    assert not is_member(PromptSet(classes={}))
    assert not is_member(None)


def test_unknown_parts() -> None:
    with pytest.raises(RecipeError, match="there is no member 'tmplates'"):
        chosen_prompts("tmplates+templates", PETS)
    with pytest.raises(PromptError, match=r"nowhere\.json"):
        chosen_prompts("templates+nowhere.json", PETS)
    with pytest.raises(NeedsError, match="replies of an LLM"):
        chosen_prompts("haprompts[variant=lp+path]+templates", PETS)


@pytest.mark.parametrize("text", ["", "+", "templates+", "a.json++b.json"])
def test_a_name_that_is_missing(text: str) -> None:
    with pytest.raises(PromptError, match="a name is missing"):
        chosen_prompts(text, PETS)


def test_texts_pasted_in_place_of_a_file() -> None:
    with pytest.raises(RecipeError, match="cannot read"):
        chosen_prompts("x y" * 200, PETS)
    with pytest.raises(RecipeError, match="cannot read 'templates"):
        chosen_prompts("templates[set=short", PETS)


def test_a_mapping_of_texts_and_what_is_none() -> None:
    made = chosen_prompts({"Dog": ["a dog"], "cat": ["a cat"]}, PETS)
    assert made.texts("dog") == ["a dog"]
    assert list(made.classes) == ["cat", "dog"]
    with pytest.raises(PromptError, match=r"they are a int\. Give a member's name"):
        chosen_prompts(7, PETS)  # type: ignore[arg-type]


@pytest.mark.parametrize("chosen", ["anomaly", "presence"])
def test_texts_of_two_states_are_no_texts_of_a_class(chosen: str) -> None:
    with pytest.warns(UserWarning, match="averaged into one vector, which says nothing of either"):
        made = chosen_prompts(f"states[set={chosen}]", PETS)
    with pytest.warns(UserWarning, match="--score two_state, with --decide multilabel"):
        chosen_prompts(made, PETS)
    normal = {i: [p for p in told if p.kind == told[0].kind] for i, told in made.classes.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen_prompts(PromptSet(classes=normal), PETS)
        chosen_prompts(made, PETS, states=True)  # for a score that keeps the two apart
