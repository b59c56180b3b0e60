"""The GTA rounds: who is asked, what is kept, rubbish, silence, and when it ends."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from byname.classtexts import class_texts
from byname.errors import UsageError
from byname.llm.client import LLM
from byname.llm.replies import ReplyCache
from byname.ops import softmax, unit
from byname.programs.gta import GtaSettings, ask_llm, confused_pairs, gta
from byname.promptset import Prompt, PromptSet
from byname.stage import ClassTexts
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from tests.llm.server import Server

GOOD = "A:\n- its own look\nB:\n- another look"
NO_PAIR = "no new pair of classes has images between it"


def noise(text: str, D: int) -> Any:
    seed = np.frombuffer(text.encode(), np.uint8)
    return unit(np.random.default_rng(seed).standard_normal(D))


class World:
    """The vectors of a task; made-up texts of a class lie between its texts and its images."""

    def __init__(self, shared: Path, name: str) -> None:
        self.task = task = Task.load(shared / "rs19" / f"{name}.npz")
        self.taxonomy, self.X, self.labels = task.taxonomy, task.batch().X, task.labels
        self.names = {node.name: k for k, node in enumerate(self.taxonomy.classes)}
        texts = task.texts_for("templates")
        K, D = texts.n_classes, self.X.shape[1]
        self.text = unit(
            np.array([texts.vectors[texts.class_index == k].mean(0) for k in range(K)])
        )
        image = unit(np.array([self.X[self.labels == k].mean(0) for k in range(K)]))
        self.image = unit(image - image.mean(axis=0))  # what is of the class, and not of images
        self.middle, self.D = self.text.mean(axis=0), D
        self.prompts = PromptSet.from_templates(self.taxonomy, ["a {}."])
        self.asked: list[Any] = []

    def vector(self, text: str) -> Any:
        found = re.fullmatch(r"a (?:photo of a )?(.*?)(?: with (.*))?\.", text)
        assert found
        k = self.names[found[1]]
        if found[2] is None:
            return self.text[k]
        if "look" in found[2]:
            return unit(self.text[k] + 0.5 * self.image[k] + 0.1 * noise(text, self.D))
        return unit(self.middle + 2 * noise(text, self.D))

    def texts_of(self, prompts: PromptSet) -> ClassTexts:
        made = lambda texts: np.array([self.vector(t) for t in texts], np.float32)  # noqa: E731
        return class_texts(prompts, self.taxonomy, made)

    def replying(self, reply: Any) -> Any:
        def replies(queries: Any, problem: Any) -> Any:
            self.asked += [(query.class_id, query.about) for query in queries]
            said = [reply(len(self.asked)) if callable(reply) else reply for _ in queries]
            return {q.id: [r] for q, r in zip(queries, said, strict=True) if r is not None}

        return ask_llm(self.taxonomy, replies)

    def run(self, reply: Any, **settings: Any) -> Any:
        how = GtaSettings(**settings)
        return gta(self.prompts, self.X, self.texts_of, self.replying(reply), settings=how)

    def top1(self, found: Any) -> float:
        S = found.pipeline.scores(self.task.batch())
        return float(100 * (S.argmax(axis=1) == self.labels).mean())


STRIPES = "A:\n- purple stripes\nB:\n- a loud voice"


@pytest.fixture(scope="module")
def world(shared: Path) -> World:
    return World(shared, "clip-vit-b-32")


@pytest.fixture
def fresh(world: World) -> World:
    world.asked.clear()
    return world


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.sampled_from([0.05, 0.4, 1.0]), st.sampled_from([0.1, 0.5]))
def test_pairs_agree_with_a_loop(seed: int, share: float, gap: float) -> None:
    S = np.random.default_rng(seed).standard_normal((60, 5)) * 2
    votes: dict[tuple[int, int], list[float]] = {}
    for row in softmax(S):
        b, a = np.argsort(row)[-2:].tolist()
        if row[a] - row[b] < gap and {a, b} != {0, 1}:
            votes.setdefault((min(a, b), max(a, b)), []).append(row[a] - row[b])
    ranked = sorted(votes, key=lambda pair: (-len(votes[pair]), sum(votes[pair]), pair))
    expected = ranked[: int(np.ceil(share * len(ranked)))]
    assert confused_pairs(S, gap=gap, share=share, without=[(0, 1)]) == expected


def test_the_order_of_classes_does_not_choose_pairs() -> None:
    S = np.random.default_rng(3).standard_normal((200, 6))
    order = np.array([3, 1, 5, 0, 2, 4])
    other = confused_pairs(S[:, order], share=0.5)
    found = [tuple(sorted((int(order[a]), int(order[b])))) for a, b in other]
    assert found == confused_pairs(S, share=0.5)
    assert len(found) > 3


def test_one_class_and_no_image_between() -> None:
    assert confused_pairs(np.zeros((5, 1))) == []
    assert confused_pairs(np.eye(3) * 50) == []
    assert confused_pairs(np.zeros((0, 3))) == []


def test_good_texts_are_kept_and_help(fresh: World) -> None:
    before = fresh.top1(fresh.run(None))
    fresh.asked.clear()
    found = fresh.run(GOOD)
    assert before == pytest.approx(90.35, abs=0.15)
    assert fresh.top1(found) > before + 4
    asked = [pair for step in found.steps for pair in step.asked]
    assert len(set(map(frozenset, asked))) == len(asked) == len(fresh.asked)
    for step in found.steps:
        assert (step.reason is None) or step.changed_share == 0
    kept = sum(step.texts for step in found.steps if step.reason is None)
    texts = [p for i in found.prompts.classes for p in found.prompts.classes[i]]
    assert len(texts) == 19 + kept
    touched = {i for pair in asked for i in pair}
    for i in set(fresh.taxonomy.class_ids) - touched:
        assert found.prompts.classes[i] == fresh.prompts.classes[i]


@pytest.mark.parametrize(
    "reply", [None, "", "I cannot help with that.", "A:\n- its own look", "12", "{]", STRIPES]
)
def test_nothing_and_rubbish_leave_the_texts_as_they_were(fresh: World, reply: Any) -> None:
    found = fresh.run(reply, votes="texts", patience=3, rounds=8)
    assert found.prompts == fresh.prompts
    assert len(found.steps) == 3
    assert {step.reason for step in found.steps} == {"no usable text came"}
    assert {step.changed_share for step in found.steps} == {0.0}
    assert any(step.left_out for step in found.steps) == (reply == STRIPES)
    ended = "3 rounds in a row changed nothing"
    if reply == STRIPES:  # answers, but of no use
        assert found.ended == ended
        assert not any(step.unanswered for step in found.steps)
    else:
        asked = [pair for step in found.steps for pair in step.asked]
        assert [pair for step in found.steps for pair in step.unanswered] == asked
        assert (
            found.ended == f"{ended}; pairs without a usable answer: {len(asked)} of {len(asked)}"
        )


def test_pairs_that_are_not_answered_are_told_apart(fresh: World) -> None:
    """The first question has no reply; of texts without pairs the classes tell."""
    said = iter([None])
    found = fresh.run(lambda number: next(said, GOOD), votes="texts", rounds=2)
    assert [len(step.unanswered) for step in found.steps] == [1, 0]
    assert found.steps[0].unanswered == found.steps[0].asked[:1]
    assert found.ended.startswith("the rounds are used up; pairs without a usable answer: 1 of ")

    def ask(pairs: Any) -> PromptSet:
        name = fresh.taxonomy.node(pairs[0][1]).name
        texts = [Prompt(text=f"a photo of a {name} with its own look.")]
        return PromptSet(classes={pairs[0][1]: texts})

    found = gta(fresh.prompts, fresh.X, fresh.texts_of, ask, settings=GtaSettings(rounds=1))
    assert found.steps[0].unanswered == found.steps[0].asked[1:]


def test_a_round_that_makes_neighbours_disagree_is_undone(fresh: World) -> None:
    """All texts of two classes swapped look like texts of the pair, but scatter the answers."""
    bad = World.__new__(World)
    bad.__dict__.update(fresh.__dict__)
    rng = np.random.default_rng(0)
    spread = unit(rng.standard_normal((19, fresh.D)))

    def vector(text: str) -> Any:
        if "look" in text:  # near to its class, and pulled to one side, as no image is
            return unit(World.vector(fresh, text.split(" with")[0] + ".") + 0.6 * spread[0])
        return World.vector(fresh, text)

    bad.vector = vector  # type: ignore[method-assign]
    found = bad.run(GOOD, votes="texts", rounds=2)
    undone = [step for step in found.steps if step.reason]
    assert undone
    assert all("neighbours agree less than before" in str(step.reason) for step in undone)
    kept = sum(step.texts for step in found.steps if step.reason is None)
    assert sum(map(len, found.prompts.classes.values())) == 19 + kept


def test_it_ends_where_no_image_lies_between(shared: Path) -> None:
    found = World(shared, "clip-vit-l-14").run(GOOD)
    assert (found.steps, found.ended) == ((), NO_PAIR)


def test_rounds_are_used_up_and_what_ask_raises_is_passed_on(fresh: World) -> None:
    assert fresh.run(GOOD, rounds=1).ended == "the rounds are used up"

    def down(pairs: Any) -> PromptSet:
        raise ConnectionError("down")

    with pytest.raises(ConnectionError, match="down"):
        gta(fresh.prompts, fresh.X, fresh.texts_of, down)


def test_texts_of_other_classes_and_known_texts_are_ignored(fresh: World) -> None:
    def ask(pairs: Any) -> PromptSet:
        asked = {i for pair in pairs for i in pair}
        given: dict[str, Any] = {i: fresh.prompts.classes[i] for i in asked}
        other = next(i for i in fresh.taxonomy.class_ids if i not in asked)
        return PromptSet(classes={**given, other: [Prompt(text="a photo of nothing.")]})

    found = gta(fresh.prompts, fresh.X, fresh.texts_of, ask)
    assert found.prompts == fresh.prompts


def test_classes_of_one_name_are_not_asked_about() -> None:
    crane = Taxonomy.from_names(["crane", "dog"])
    same = PromptSet.from_templates(crane, ["a {}."])
    silent = ask_llm(crane, lambda queries, problem: {})
    assert silent((("crane", "dog"),)).classes == {}
    assert same.texts("crane") == ["a crane."]


def test_a_real_client_asks_once_and_goes_on_from_its_cache(fresh: World, tmp_path: Path) -> None:
    answer = (
        '200 {"model": "test-model", "choices": [{"finish_reason": "stop", "message": '
        '{"role": "assistant", "content": "A:\\n- its own look\\nB:\\n- another look"}}]}'
    )
    found = []
    with Server(lambda text, before: answer) as server:
        for _ in range(2):
            llm = LLM(server.url, "test-model", cache=ReplyCache(tmp_path), schema="off")
            ask = ask_llm(
                fresh.taxonomy,
                lambda queries, problem, llm=llm: llm.ask(queries, problem=problem).replies,  # type: ignore[misc]
            )
            settings = GtaSettings(rounds=2)
            found.append(gta(fresh.prompts, fresh.X, fresh.texts_of, ask, settings=settings))
            assert len(server.asked) == 2
    assert found[0].prompts == found[1].prompts
    assert found[0].prompts != fresh.prompts


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"rounds": 0}, "rounds is 0. It must be 1 or more."),
        ({"gap": 0.0}, "gap is 0.0. It must be above 0, at most 1."),
        ({"share": 2.0}, "share is 2.0. It must be above 0, at most 1."),
        ({"votes": "all"}, "votes is 'all'. It must be 'refined' or 'texts'."),
        ({"patience": 0}, "patience is 0. It must be 1 or more."),
    ],
)
def test_wrong_settings_are_named(change: Any, seen: str) -> None:
    with pytest.raises(UsageError) as error:
        GtaSettings(**change)
    assert str(error.value) == f"cannot run the GTA rounds: {seen}"


def test_without_images(fresh: World) -> None:
    with pytest.raises(UsageError, match="there are no images"):
        gta(fresh.prompts, fresh.X[:0], fresh.texts_of, lambda pairs: fresh.prompts)
