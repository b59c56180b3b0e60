"""The search for templates: fitness, what is dropped, ties, what the LLM sees, going on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import OutputError, PromptError, UsageError
from byname.ops import unit
from byname.programs.glov import (
    Glov,
    GlovSettings,
    Trial,
    fitness,
    meta_prompt,
    ranking,
    read_proposals,
)
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from tests.reference.glov import confidence, zpe

NAMES = ["cat", "dog", "cow"]
TAXONOMY = Taxonomy.from_names(NAMES)
CENTRES = unit(np.random.default_rng(0).standard_normal((3, 8)))
X = unit(np.repeat(CENTRES, 20, axis=0) + 0.2 * np.random.default_rng(1).standard_normal((60, 8)))


def encode(texts: list[str]) -> Any:
    """The more "!" a text has the nearer it lies to its class; all else is the same."""
    noise = np.random.default_rng(5).standard_normal((3, 8))
    rows = []
    for text in texts:
        k = next(k for k, name in enumerate(NAMES) if name in text)
        rows.append(unit(CENTRES[k] + noise[k] / (1 + text.count("!"))))
    return np.array(rows, np.float32)


def search(path: Path | None = None, start: Any = ("a {}",), **change: Any) -> Glov:
    given = GlovSettings(**{"rounds": 3, "top": 2, **change})
    return Glov(TAXONOMY, X, encode, given, start=start, path=path)


class Say:
    """Answers by list, one a round; remembers what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, question: str) -> Any:
        self.asked.append(question)
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, BaseException):
            raise answer
        return answer


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 4), st.floats(0.5, 50), st.floats(0, 2))
def test_fitness(seed: int, K: int, scale: float, penalty: float) -> None:
    rng = np.random.default_rng(seed)
    A, W = unit(rng.standard_normal((9, 5))), unit(rng.standard_normal((K, 5)))
    assert fitness(A, W, "zpe", scale=scale) == pytest.approx(zpe(A, W, scale), abs=1e-9)
    made = fitness(A, W, "confidence", scale=scale, penalty=penalty)
    assert made == pytest.approx(confidence(A, W, scale, penalty), abs=1e-9)
    order, turn = rng.permutation(9), rng.permutation(K)
    for kind in ("zpe", "confidence"):
        assert fitness(A[order], W[turn], kind) == pytest.approx(fitness(A, W, kind), abs=1e-9)


def test_fitness_of_real_vectors_in_blocks(shared: Path, monkeypatch: Any) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    A, W = task.images[:60], task.texts[3]
    wanted = zpe(A, W, 100.0), confidence(A, W, 100.0, 1.0)
    monkeypatch.setattr("byname.programs.glov_fitness._BLOCK", 7)
    assert fitness(A, W, "zpe") == pytest.approx(wanted[0], abs=1e-4)
    assert fitness(A.astype(np.float16), W, "zpe") == pytest.approx(wanted[0], abs=1e-2)
    assert fitness(A, W, "confidence") == pytest.approx(wanted[1], abs=1e-4)


def test_what_fitness_rewards() -> None:
    assert fitness(X, CENTRES[:1], "zpe") == pytest.approx(0, abs=1e-6)
    assert fitness(X, CENTRES[:1], "confidence") == 1.0
    one_for_all = np.stack([X.mean(axis=0), -X.mean(axis=0), -X.mean(axis=0)])
    assert fitness(X, one_for_all, "confidence") < fitness(X, CENTRES, "confidence")
    sure = fitness(X, one_for_all, "confidence", penalty=0.0)
    assert sure > fitness(X, one_for_all, "confidence") + 0.5


def test_the_best_template_is_found() -> None:
    ask = Say(["one {} !", "nothing"], ["1. a {}\n2. two {} !!!"], ["- your {} !!"])
    run = search()
    prompts = run.run(ask)
    assert prompts.texts("cat") == ["two cat !!!", "your cat !!"]
    assert [t.template for t in run.trials] == ["a {}", "one {} !", "two {} !!!", "your {} !!"]
    assert [t.round for t in run.trials] == [0, 1, 2, 3]
    assert run.round == 3
    assert dict(run.dropped_) == {"no single {}": 1, "duplicate": 1}
    assert prompts.provenance.generator == "glov[fitness=zpe]"


def test_what_is_dropped() -> None:
    long = "{} " + "x" * 198
    ask = Say(
        [
            f"no slot\nmy {{}} and {{}}\n{long}\nA {{}}\n  my   {{}} \nMY {{}}",
            "the {}\u202e!\n\ud800 {}",
            "1 {}\n2 {}\n3 {}\n4 {}\n5 {}",
        ]
    )
    run = search(rounds=1)
    run.run(ask)
    assert [t.template for t in run.trials] == ["a {}", "my {}", "1 {}", "2 {}", "3 {}", "4 {}"]
    assert dict(run.dropped_) == {
        "no single {}": 2,
        "too long": 1,
        "duplicate": 2,
        "unprintable": 2,
        "more than asked for": 1,
    }


def test_other_braces_are_plain_text() -> None:
    odd = "{0.__class__} {name!r} %s {} {{x}}"
    run = search(rounds=1, top=9)
    prompts = run.run(Say([odd]))
    assert "{0.__class__} {name!r} %s cat {{x}}" in prompts.texts("cat")


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ('["a {}, big", 3, "the {}"]', ["a {}, big", "the {}"]),
        ('```json\n["a {}"]\n```', ["a {}"]),
        ("(1) a {}, big\n2) **the** {}\n• `my` {}", ["a {}, big", "**the** {}", "my` {}"]),
        ("“a {}”\n\n'b {}'", ["a {}", "b {}"]),
        ("{}", ["{}"]),
        ("[" * 100_000, ["[" * 100_000]),
        ("", []),
    ],
)
def test_replies(reply: str, found: list[str]) -> None:
    assert read_proposals(reply) == found


def test_ties_are_all_kept() -> None:
    run = search(rounds=1, top=2)
    prompts = run.run(Say(["b {} !\nc {} !\nd {} !!\ne {} !"]))
    assert prompts.texts("cow") == ["d cow !!", "b cow !", "c cow !", "e cow !"]
    same = search(rounds=1, top=1, start=["a {}", "my {}"]).run(Say([]))
    assert len(same.texts("cat")) == 2


def test_ranking_does_not_depend_on_the_order_of_finding() -> None:
    trials = [Trial(f"{c} {{}}", v, 0) for c, v in zip("abcd", (1.0, 2.0, 2.0, 0.5), strict=True)]
    assert ranking(trials) == ranking(trials[::-1])
    assert [t.template[0] for t in ranking(trials)] == ["b", "c", "a", "d"]


def test_what_the_llm_is_shown() -> None:
    trials = [Trial(f"t{i} {{}}", float(i), 0) for i in range(8)]
    text = meta_prompt(NAMES, trials, GlovSettings(shown=2, task="aerial photos"), 4)
    lines = text.split("\n")
    at = [next(i for i, x in enumerate(lines) if x.endswith(f"t{i_} {{}}")) for i_ in (7, 6, 1, 0)]
    assert at == sorted(at)
    assert lines[at[0]] == "7.0000  t7 {}"
    assert not any(f"t{i} " in text for i in (2, 3, 4, 5))
    assert "aerial photos" in text
    assert "cat, dog, cow" in text
    assert "Round 4 of 30" in text
    few = meta_prompt(["a\nb"], trials[:2], GlovSettings(), 1)
    assert "a b" in few
    assert "worst templates so far" not in few
    tied = [Trial(f"t{i} {{}}", 1.0, 0) for i in range(50)]
    assert meta_prompt(NAMES, tied, GlovSettings(shown=2), 1).count("1.0000") == 8


def test_every_round_asks_something_else() -> None:
    ask = Say()
    search().run(ask)
    assert len(set(ask.asked)) == len(ask.asked) == 3


def test_nothing_is_lost_when_stopped(tmp_path: Path) -> None:
    path = tmp_path / "glov.json"
    answers = ["one {} !"], ["two {} !!"], ["three {} !!!"]
    first = search(path)
    with pytest.raises(KeyboardInterrupt):
        first.run(Say(*answers[:2], KeyboardInterrupt()))
    assert first.round == 2
    assert first.prompts().texts("dog") == ["two dog !!", "one dog !"]
    held = json.loads(path.read_text())
    assert [t["template"] for t in held["trials"]] == ["a {}", "one {} !", "two {} !!"]
    again = search(path)
    asked = Say(answers[2])
    assert again.run(asked).texts("dog") == ["three dog !!!", "two dog !!"]
    assert len(asked.asked) == 1
    whole = search()
    whole.run(Say(*answers))
    assert whole.trials == again.trials
    assert first.run(Say(answers[2])).texts("dog") == ["three dog !!!", "two dog !!"]


def test_a_finished_search_asks_nobody_and_may_be_made_longer(tmp_path: Path) -> None:
    path = tmp_path / "glov.json"
    search(path, rounds=1).run(Say(["one {} !"]))
    ask = Say()
    assert search(path, rounds=1).run(ask).texts("cat") == ["one cat !", "a cat"]
    assert not ask.asked
    assert search(path, rounds=2).run(Say(["two {} !!"])).texts("cat")[0] == "two cat !!"


def test_files_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "glov.json"
    search(path).run(Say())
    good = path.read_text()
    for change in ({"fitness": "confidence"}, {"top": 1}):
        with pytest.raises(PromptError, match="other images, classes, start or settings"):
            search(path, **change)
    with pytest.raises(PromptError, match="other images"):
        Glov(TAXONOMY, X[1:], encode, search().settings, start=("a {}",), path=path)
    bad = json.loads(good)
    bad["trials"][0]["template"] = "no slot"
    for text in ("{}", "[]", "nonsense", '{"format": "x"}', json.dumps(bad)):
        path.write_text(text)
        with pytest.raises(PromptError):
            search(path)
    with pytest.raises(OutputError, match="write the search"):
        search(tmp_path / "none" / "x.json").run(Say())


def test_no_label_no_order(tmp_path: Path) -> None:
    ask = ["one {} !", "two {} !!"]
    one = search(rounds=1)
    one.run(Say(ask))
    other = Glov(TAXONOMY, X[::-1], encode, one.settings, start=("a {}",))
    other.run(Say(ask[::-1]))
    assert other.prompts() == one.prompts()
    assert sorted(t.fitness for t in other.trials) == sorted(t.fitness for t in one.trials)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"proposals": 0}, "proposals is 0"),
        ({"top": 0}, "top is 0"),
        ({"shown": 0}, "shown is 0"),
        ({"longest": 0}, "longest is 0"),
        ({"fitness": "accuracy"}, "Use zpe or confidence"),
        ({"penalty": -1.0}, "penalty is -1.0"),
    ],
)
def test_settings(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GlovSettings(**change)


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="no images"):
        Glov(TAXONOMY, X[:0], encode)
    with pytest.raises(PromptError, match="0 times"):
        search(start=["a photo"])
    with pytest.raises(PromptError, match="empty"):
        search(start=[])
    with pytest.raises(UsageError, match="nothing was tried"):
        search().prompts()


def test_a_file_that_no_search_has_written(tmp_path: Path) -> None:
    path = tmp_path / "glov.json"
    search(path).run(Say(["one {} !"], ["two {} !!"]))
    good = json.loads(path.read_text())
    assert search(path).round == 3
    first: list[dict[str, Any]] = [
        {"fitness": x} for x in (10**400, float("nan"), float("inf"), "7", True)
    ]
    first += [{"round": x} for x in (1, -1, True, "0")] + [{"template": "b {}"}, {"more": 1}]
    last: list[dict[str, Any]] = [{"round": x} for x in (0, 4, 1.5)]
    texts = ("a\n{}", "\x1b[31m{}", "a" * 300 + "{}", "x", "{} {}", None, "A {}", "ONE {} !")
    last += [{"template": x} for x in texts]
    top: list[dict[str, Any]] = [{"round": x} for x in (float("inf"), -5, 99, 2.7, "2", True)]
    top += [{"trials": []}, {"trials": good["trials"] * 2}, {"trials": [1]}, {"settings": {}}]
    top += [{"dropped": {"x": -3}}, {"dropped": [1]}, {"dropped": {"x": float("inf")}}]
    for place, changes in ((0, first), (-1, last), (None, top)):
        for change in changes:
            bad = json.loads(json.dumps(good))
            (bad if place is None else bad["trials"][place]).update(change)
            path.write_text(json.dumps(bad))
            with pytest.raises(PromptError, match="changed by hand"):
                search(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 2.5}, "rounds is 2.5"),
        ({"rounds": "3"}, "rounds is '3'"),
        ({"penalty": "1"}, "penalty is '1'"),
        ({"penalty": float("nan")}, "penalty is nan"),
    ],
)
def test_settings_that_are_no_numbers(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GlovSettings(**change)


def test_images_and_scale_are_checked() -> None:
    spoilt = X.copy()
    spoilt[3, 1] = np.nan
    with pytest.raises(UsageError, match="row 3 of the images"):
        Glov(TAXONOMY, spoilt, encode)
    with pytest.raises(UsageError, match=r"shape \(8,\)"):
        Glov(TAXONOMY, X[0], encode)
    for scale in (0, -1.0, np.nan, np.inf):
        with pytest.raises(UsageError, match="scale is"):
            Glov(TAXONOMY, X, encode, scale=scale)
    with pytest.raises(UsageError, match="one row of 5 finite numbers"):
        Glov(TAXONOMY, X[:, :5], encode).run(Say())
    with pytest.raises(UsageError, match="one row of 8 finite numbers"):
        Glov(TAXONOMY, X, lambda texts: encode(texts) * np.nan).run(Say())


def test_fitness_of_what_is_none() -> None:
    with pytest.raises(UsageError, match="kind is 'zpee'"):
        fitness(X, CENTRES, "zpee")  # type: ignore[arg-type]
    for images, classes in ((X[:0], CENTRES), (X, CENTRES[:0])):
        with pytest.raises(UsageError, match=f"{len(images)} images and {len(classes)} classes"):
            fitness(images, classes)


def test_the_mean_image_is_a_float64_one() -> None:
    # In float32 a sum of rows this far from zero depends on their order.
    rng = np.random.default_rng(0)
    A = (rng.standard_normal((50_000, 4)) * 0.01 + [1.0, 1.0, -1.0, 0.5]).astype(np.float32)
    W = np.eye(4, dtype=np.float32)
    L = 100 * A.astype(np.float64)
    assert fitness(A, W) == pytest.approx((L - L.mean(axis=0)).max(axis=1).mean(), abs=2e-5)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("4:3 photo of {}", ["4:3 photo of {}"]),
        ("1.5x zoom of {}", ["1.5x zoom of {}"]),
        ("1.a {}\n2: b {}\n3) 5 photos of {}", ["a {}", "b {}", "5 photos of {}"]),
        ("1. **a photo of {}**\n_b {}_", ["a photo of {}", "b {}"]),
        ("**the** {} **here**", ["**the** {} **here**"]),
        ('{"templates": ["a {}", {"t": "b {}"}], "n": 2}', ["a {}", "b {}"]),
        ("[]", []),
    ],
)  # fmt: skip
def test_replies_as_llms_write_them(reply: str, found: list[str]) -> None:
    assert read_proposals(reply) == found


@pytest.mark.parametrize("said", [None, [None], 3])
def test_replies_that_are_none(said: Any) -> None:
    run = search()
    with pytest.raises(UsageError, match="read the replies of round 1: ask gave"):
        run.run(lambda question: said)
    assert run.round == 0


def test_the_output_file_is_tried_before_anything_is_encoded(tmp_path: Path) -> None:
    def never(texts: list[str]) -> Any:
        raise AssertionError("encoded")

    with pytest.raises(OutputError, match="write the search"):
        Glov(TAXONOMY, X, never, path=tmp_path / "none" / "x.json").run(Say())
    assert list(tmp_path.iterdir()) == []
