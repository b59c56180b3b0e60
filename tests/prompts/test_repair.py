from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from byname.classtexts import class_texts
from byname.errors import RecipeError
from byname.programs.repair import repair
from byname.prompts.repair import RepairTexts
from byname.promptset import PromptSet
from byname.stage import create
from byname.taxonomy import Taxonomy
from tests.prompts.test_cupl import BRACES, FRUIT, HOSTILE, one_reply, stays_inert


def only(*class_ids: str) -> RepairTexts:
    member = RepairTexts()
    member.only = frozenset(class_ids)
    return member


def test_only_the_failing_classes_are_asked_about() -> None:
    assert [q.class_id for q in only("u").asked(FRUIT)] == ["u"]
    assert [q.class_id for q in RepairTexts().asked(FRUIT)] == ["a", "u"]
    assert list(only().asked(FRUIT)) == []
    for query in RepairTexts().queries(FRUIT):
        assert (query.kind, query.form, query.temperature) == ("descriptor", "list", 0)


def test_remarks() -> None:
    assert RepairTexts().remarks(FRUIT) == [
        "repair asks about all 2 classes: --only names those that fail"
    ]
    assert only("u", "unknown").remarks(FRUIT) == ["repair asks about 1 of 2 classes"]


def test_texts_in_any_order() -> None:
    member = RepairTexts()
    apple, ugli = member.queries(FRUIT)
    replies = [(apple, "- a stem\n- red skin"), (ugli, "- often wrinkled")]
    made = member.collect(FRUIT, replies)
    assert [(p.text, p.about, p.template) for p in made.classes["a"]] == [
        ("a photo of a apple, which is a stem.", "a stem", -1),
        ("a photo of a apple, which has red skin.", "red skin", -1),
    ]
    assert made.texts("u") == ["a photo of a ugli fruit, which often wrinkled."]
    assert member.collect(FRUIT, reversed(replies)) == made
    failing = only("u")
    assert failing.collect(FRUIT, replies[1:]).classes == {"u": made.classes["u"]}
    assert failing.collect(FRUIT, replies[1:]).provenance.model_dump()["queries"] == 1


def test_the_template() -> None:
    made = create("repair[template=art of {} {x}]")
    assert one_reply(made, "- {0}").texts("a") == ["art of apple, which has {0} {x}"]
    with pytest.raises(RecipeError, match=r"it holds \{\} 0 times"):
        RepairTexts(template="a photo")


@pytest.mark.parametrize("reply", HOSTILE.values(), ids=HOSTILE)
def test_hostile_replies(reply: str, tmp_path: Path) -> None:
    stays_inert(RepairTexts(), reply, tmp_path)


def test_names_are_inert() -> None:
    for query in RepairTexts().queries(BRACES):
        assert BRACES.node(query.class_id).name in query.text
    assert one_reply(RepairTexts(), "- red", BRACES).texts("x") == [
        "a photo of a {item} {name} {0}, which has red."
    ]


@pytest.mark.parametrize("mode, count", [("add", 2), ("replace", 1)])
def test_the_loop_takes_them(mode: Literal["add", "replace"], count: int) -> None:
    """``programs.repair`` asks through this member and puts the texts where ``mode`` says."""
    animals = Taxonomy.from_names(["cat", "dog"])
    rng = np.random.default_rng(0)
    known: dict[str, list[float]] = {}

    def encode(texts: list[str]) -> Any:
        for text in texts:
            known.setdefault(text, list(rng.normal(size=4)))
        made = np.array([known[text] for text in texts], np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    asked: list[str] = []

    def ask(class_ids: tuple[str, ...]) -> PromptSet:
        member = only(*class_ids)
        queries = list(member.asked(animals))
        asked.extend(query.class_id for query in queries)
        return member.collect(animals, [(query, "- a long tail") for query in queries])

    X = rng.normal(size=(8, 4)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    start = PromptSet.from_templates(animals, ["a {}"])
    found = repair(start, X, lambda p: class_texts(p, animals, encode), ask, q=1, mode=mode)
    assert len(asked) == 1
    texts = found.prompts.texts(asked[0])
    assert texts[-1] == f"a photo of a {asked[0]}, which is a long tail."
    assert len(texts) == count
