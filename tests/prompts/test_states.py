from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from byname.errors import PromptError, RecipeError
from byname.prompts.states import States, default_states, merge_states
from byname.stage import create
from byname.taxonomy import Node, Taxonomy

PARTS = Taxonomy([Node("x", "umbrella"), Node("y", "{state} {name} {}"), Node("z", "umbrella")])


def test_counts_are_those_of_the_paper() -> None:
    made = States().generate(PARTS)
    for class_id in PARTS.class_ids:
        prompts = made.classes[class_id]
        assert [p.kind for p in prompts] == ["normal"] * 147 + ["anomalous"] * 84
        assert [p.template for p in prompts] == list(range(231))
        assert len({p.text for p in prompts}) == 231
    assert made.texts("x") == made.texts("z")
    assert made.provenance.model_dump(exclude_defaults=True) == {"generator": "states"}


def test_the_article_is_that_of_the_state() -> None:
    texts = States().generate(PARTS).texts("x")
    assert texts[0] == "a photo of an umbrella."
    assert "a photo of an unblemished umbrella." in texts
    assert "a photo of a damaged umbrella." in texts


def test_names_are_inert() -> None:
    texts = States().generate(PARTS).texts("y")
    assert texts[0] == "a photo of a {state} {name} {}."
    assert all("{state} {name} {}" in text for text in texts)


def test_presence() -> None:
    made = create("states[set=presence]").generate(Taxonomy.from_names(["edema"]))
    assert made.texts("edema") == ["edema", "evidence of edema", "no edema", "without edema"]
    kinds = [(p.kind, p.template) for p in made.classes["edema"]]
    assert kinds == [("present", 0), ("present", 1), ("absent", 2), ("absent", 3)]
    assert made.provenance.generator == "states[set=presence]"


def test_the_default_passes_its_own_check() -> None:
    raw = {n: {k: list(v) for k, v in lists.items()} for n, lists in default_states().items()}
    assert merge_states(raw) == default_states()


def test_a_users_states() -> None:
    member = States()
    raw = {"anomaly": {"anomalous": ["cracked {name}"], "templates": ["{a_state} {x} {{}}"]}}
    member.use_wording(raw, "'w.json'")
    made = member.generate(Taxonomy.from_names(["cup"]))
    assert Counter(p.kind for p in made.classes["cup"]) == {"normal": 7, "anomalous": 1}
    assert made.texts("cup")[-1] == "a cracked cup {x} {{}}"
    assert len(made.provenance.model_dump()["wording_sha256"]) == 64
    assert "cracked {name}" not in default_states()["anomaly"]["anomalous"]
    assert len(States().generate(PARTS).texts("x")) == 231


@pytest.mark.parametrize(
    "raw, seen",
    [
        ([], "not an object with 'anomaly' or 'presence'"),
        ({}, "not an object with 'anomaly' or 'presence'"),
        ({"weather": {}}, "there is no set 'weather'. Sets: anomaly, presence."),
        ({"anomaly": {}}, "'anomaly' has no list"),
        ({"anomaly": {"normal": ["{name}\udfff"]}}, "it holds U+DFFF"),
        ({"anomaly": []}, "'anomaly' is no object"),
        ({"anomaly": {"present": []}}, "there is no list 'present' in 'anomaly'. Lists: templates"),
        ({"anomaly": {"normal": []}}, "anomaly/normal is no list of texts, or empty"),
        ({"anomaly": {"normal": "{name}"}}, "anomaly/normal is no list of texts"),
        ({"anomaly": {"normal": [3]}}, "text 1 of anomaly/normal is a int"),
        ({"anomaly": {"normal": ["new"]}}, "'new', does not hold {name} once"),
        ({"anomaly": {"normal": ["{name} {name}"]}}, "does not hold {name} once"),
        ({"anomaly": {"templates": ["a {name}"]}}, "does not hold {state} once"),
        ({"anomaly": {"templates": ["{state} {a_state}"]}}, "does not hold {state} once"),
        ({"anomaly": {"normal": ["{name}", " {name}"]}}, "' {name}', stands twice"),
        ({"anomaly": {"normal": ["damaged {name}"]}}, "'damaged {name}' stands in both groups"),
    ],
)
def test_wrong_wording(raw: Any, seen: str) -> None:
    with pytest.raises(PromptError, match=r"use the wording in 'w\.json' for 'states'") as caught:
        States().use_wording(raw, "'w.json'")
    assert seen in str(caught.value)


def test_unknown_sets() -> None:
    with pytest.raises(RecipeError) as caught:
        States(set="weather")
    assert str(caught.value) == (
        "cannot use the states 'weather': there is no such set. Known: anomaly, presence."
    )
