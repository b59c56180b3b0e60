"""The repair loop: who is asked about, what is merged, and when it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byname.classtexts import class_texts
from byname.errors import PromptError, UsageError
from byname.ops import unit
from byname.programs.repair import ask_file, repair
from byname.promptset import Prompt, PromptSet
from byname.stage import ClassTexts
from byname.taxonomy import Taxonomy

NAMES = ["cat", "dog", "cow", "hen"]
TAXONOMY = Taxonomy.from_names(NAMES)


class World:
    """Images of four classes; the texts about "hen" point at "cow" until better ones come."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.centres = unit(rng.standard_normal((4, 16)))
        self.truth = np.repeat(np.arange(4), 30)
        self.X = unit(self.centres[self.truth] + 0.15 * rng.standard_normal((120, 16)))
        self.prompts = PromptSet.from_templates(TAXONOMY, ["a {}", "one {}", "the {}"])
        self.asked: list[tuple[str, ...]] = []

    def encode(self, texts: Any) -> Any:
        made = []
        for text in texts:
            k = next(k for k, name in enumerate(NAMES) if name in text)
            k = 2 if text.endswith("hen") else k
            noise = np.random.default_rng(len(text) + 7 * ord(text[0])).standard_normal(16)
            made.append(unit(self.centres[k] + 0.05 * noise))
        return np.array(made, np.float32)

    def texts_of(self, prompts: PromptSet) -> ClassTexts:
        return class_texts(prompts, TAXONOMY, self.encode)

    def ask(self, class_ids: tuple[str, ...]) -> PromptSet:
        self.asked.append(class_ids)
        good = {i: (Prompt(text=f"{i}, a thing of its own"),) for i in TAXONOMY.class_ids}
        return PromptSet(classes=good)

    def accuracy(self, found: Any) -> float:
        return float((np.asarray(self.X @ found.pipeline.W_.T).argmax(1) == self.truth).mean())


def test_only_the_worst_are_asked_about_and_changed() -> None:
    world = World()
    found = repair(world.prompts, world.X, world.texts_of, world.ask, q=1, mode="replace")
    (step,) = found.steps
    assert len(world.asked) == 1
    assert world.asked[0] == step.asked == step.answered
    assert len(step.asked) == 1
    assert step.asked[0] in {"cow", "hen"}
    for i in set(NAMES) - set(step.asked):
        assert found.prompts.classes[i] == world.prompts.classes[i]
    assert set(step.cmm_before) == set(step.cmm_after) == set(NAMES)
    assert step.changed_share == len(step.changed) / 120


def test_new_texts_repair_the_class() -> None:
    world = World()
    before = repair(world.prompts, world.X, world.texts_of, lambda ids: PromptSet(classes={}))
    after = repair(world.prompts, world.X, world.texts_of, world.ask, q=2, mode="replace")
    assert world.accuracy(before) < 0.9
    assert world.accuracy(after) == 1
    assert set(after.steps[0].asked) == {"cow", "hen"}
    assert after.prompts.texts("hen") == ["hen, a thing of its own"]
    assert before.prompts == world.prompts


def test_added_texts_stand_beside_the_old_ones() -> None:
    world = World()
    found = repair(world.prompts, world.X, world.texts_of, world.ask, q=2, rounds=5)
    assert found.prompts.texts("hen") == ["a hen", "one hen", "the hen", "hen, a thing of its own"]
    again = [i for ids in world.asked for i in ids]
    assert len(again) == len(set(again)), "nobody is asked about twice"


def test_it_ends_when_nobody_answers() -> None:
    world = World()
    silent = PromptSet(classes={})
    found = repair(world.prompts, world.X, world.texts_of, lambda ids: silent, rounds=9)
    (step,) = found.steps
    assert step.answered == ()
    assert step.changed_share == 0
    assert step.cmm_before == step.cmm_after


def test_never_predicted_classes_have_no_margin() -> None:
    world = World()
    only = world.X[world.truth < 2]
    found = repair(world.prompts, only, world.texts_of, world.ask, q=2)
    assert set(found.steps[0].asked) == {"cow", "hen"}
    assert found.steps[0].cmm_before["cow"] is None


def test_texts_out_of_a_file(tmp_path: Path) -> None:
    world = World()
    path = tmp_path / "texts.json"
    world.ask(()).save(path)
    found = repair(world.prompts, world.X, world.texts_of, ask_file(path), q=2, mode="replace")
    assert world.accuracy(found) == 1
    with pytest.raises(PromptError, match="read the prompts in"):
        ask_file(tmp_path / "no.json")


def test_wrong_arguments_are_named() -> None:
    world = World()
    with pytest.raises(UsageError, match="mode is 'mix', rounds 1"):
        repair(world.prompts, world.X, world.texts_of, world.ask, mode="mix")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="rounds 0"):
        repair(world.prompts, world.X, world.texts_of, world.ask, rounds=0)
    with pytest.raises(UsageError, match="there are no images"):
        repair(world.prompts, world.X[:0], world.texts_of, world.ask)
