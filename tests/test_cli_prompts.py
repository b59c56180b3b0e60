"""``byname prompts make`` as a user meets it, and prompt files in ``byname classify``."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byname import Classifier
from byname.errors import NeedsError
from tests.commands import Result, Run, call
from tests.helpers import FakeEncoder, make_photos

MAKE = ("prompts", "make", "--style", "haprompts")
TREE = {"name": "all", "children": [
    {"name": "fruit", "children": [{"name": "lemon"}, {"name": "apple"}]},
    {"name": "dairy", "children": [{"name": "milk"}]},
]}  # fmt: skip


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    Path("tree.json").write_text(json.dumps(TREE))
    return partial(call, capfd, monkeypatch)


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    "variant, n", [("lp", 2), ("ap", 3), ("comp", 5), ("path", 9), ("full", 14), ("lp+path", 11)]
)
def test_dry_run_ends_with_the_number(run: Run, variant: str, n: int) -> None:
    told = run(*MAKE, "--variant", variant, "--classes", "tree.json", "--dry-run")
    assert (told.code, told.err) == (0, "")
    assert told.out.splitlines()[-1] == f"queries: {n}"


def test_dry_run_shows_kinds_and_options(run: Run) -> None:
    told = run(*MAKE, "--variant", "lp", "-c", "tree.json", "--dry-run")
    assert told.out.splitlines() == [
        "leaf_peer: 2",
        "fallback: off, it would change the number by +1 (classes without a sibling: 1)",
        "dedup: off, it would change the number by +0 (repeated or equal names)",
        "queries: 2",
    ]
    told = run(*MAKE, "--variant", "lp", "-c", "tree.json", "--fallback", "--dry-run")
    assert told.out.splitlines()[-1] == "queries: 3"
    assert run("prompts", "make", "-c", "tree.json", "--dry-run").out.endswith("queries: 14\n")


def test_the_published_counts(run: Run, shared: Path) -> None:
    tree = shared / "taxonomies" / "imagenet-998.json"
    told = run(*MAKE, "--variant", "comp", "--dedup", "-c", tree, "--dry-run")
    assert "dedup: on, it changes the number by -58 (repeated or equal names)" in told.out
    assert told.out.splitlines()[-1] == "queries: 38050"


def test_queries_out_replies_in_and_classify(run: Run) -> None:
    assert run(*MAKE, "-c", "tree.json", "--emit", "q.jsonl").err == "14 queries -> q.jsonl\n"
    asked = lines("q.jsonl")
    names = "id class_id class_name about about_name kind text stop temperature max_tokens form"
    names += " samples"
    assert " ".join(asked[0]) == names
    assert asked[0]["class_name"] == "lemon"
    assert asked[0]["about_name"] == "apple"
    with Path("r.jsonl").open("w", encoding="utf-8") as file:
        for i, query in enumerate(reversed(asked)):
            print(json.dumps({**query, "reply": f"reply {i} \u00fc"}), file=file)
    told = run(*MAKE, "-c", "tree.json", "--replies", "r.jsonl", "-o", "p.json", "--model", "me")
    assert told == (0, "", "14 texts of 3 classes -> p.json\n")
    made = json.loads(Path("p.json").read_text(encoding="utf-8"))
    assert made["provenance"]["model"] == "me"
    assert made["provenance"]["generator"] == "haprompts"
    lemon = asked[0]["class_id"]
    assert made["classes"][lemon][0]["text"] == "reply 13 \u00fc"
    for recipe in ("haprompts", "hie"):
        model = Classifier("tree.json", FakeEncoder(), recipe, prompts="p.json")
        assert model.predict(np.eye(2, 8)).shape == (2,)
        assert len(model.prompts_.classes[lemon]) == 5
    assert model._texts.level is not None
    assert model._texts.level.max() == 2


@pytest.fixture
def replies(run: Run) -> list[dict[str, Any]]:
    """The queries of ``path``, with a reply each."""
    run(*MAKE, "-c", "tree.json", "--variant", "path", "--emit", "q.jsonl")
    return [{"id": q["id"], "reply": f"text {i}", "of": q["class_name"]}
            for i, q in enumerate(lines("q.jsonl"))]  # fmt: skip


def collect(run: Run, given: list[Any], *more: str) -> Result:
    Path("r.jsonl").write_text("".join(json.dumps(item) + "\n" for item in given))
    output = () if "-o" in more else ("-o", "p.json")
    return run(
        *MAKE, "-c", "tree.json", "--variant", "path", "--replies", "r.jsonl", *output, *more
    )


def test_unanswered_queries(run: Run, replies: list[dict[str, Any]]) -> None:
    told = collect(run, replies[1:])
    assert told.code == 0
    assert "warning: 1 of 9 queries lack replies" in told.err
    some = [item for item in replies if item["of"] != "milk"]
    told = collect(run, some)
    assert told.code == 2
    assert told.err.splitlines()[-1] == (
        "error: cannot match the prompts with the classes: no texts for 1 of 3 classes: "
        "'dairy.milk'. Answer their queries (again: --fresh --only THEM), or add --allow-missing "
        "to give them a template."
    )
    told = collect(run, some, "--allow-missing")
    assert told.code == 0
    assert "warning: 1 of 3 classes have no texts and get 'a photo of a {}.'" in told.err
    made = json.loads(Path("p.json").read_text())
    assert [p["text"] for p in made["classes"]["dairy.milk"]] == ["a photo of a milk."]


def test_replies_that_say_nothing_are_dropped_and_counted(
    run: Run, replies: list[dict[str, Any]]
) -> None:
    replies[0]["reply"], replies[1]["reply"], replies[2]["reply"] = "1", " ", "same"
    replies[5]["reply"] = replies[4]["reply"]
    told = collect(run, replies)
    assert "dropped replies: 1 number, 1 duplicate" in told.err
    assert "warning: 1 reply is blank" in told.err
    assert "6 texts of 3 classes -> p.json" in told.err


def test_replies_to_unknown_queries(run: Run, replies: list[dict[str, Any]]) -> None:
    replies[2]["id"], replies[4]["id"] = "00ff", "11ff"
    told = collect(run, replies)
    assert told.code == 2
    assert told.err == (
        "error: cannot use the replies: 2 of 9 answer no query of these classes, first '00ff' on "
        "line 3 of 'r.jsonl'. Use the classes, --style, its options, --pairs and --wording that "
        "the queries were written with.\n"
    )
    assert not Path("p.json").exists()


def test_malformed_lines_are_named(run: Run) -> None:
    Path("r.jsonl").write_text('{"id": "a", "reply": "b"}\n{"id": \n')
    told = run(*MAKE, "-c", "tree.json", "--replies", "r.jsonl", "-o", "p.json")
    assert (told.code, "line 2 is not JSON" in told.err) == (2, True)


def test_an_own_wording(run: Run) -> None:
    Path("w.json").write_text('{"leaf_peer": "{name} or {peer}?"}')
    arguments = (*MAKE, "-c", "tree.json", "--variant", "lp", "--wording", "w.json")
    assert run(*arguments, "--emit", "q.jsonl").code == 0
    assert [q["text"] for q in lines("q.jsonl")] == ["lemon or apple?", "apple or lemon?"]
    Path("w.json").write_text('{"leaf_peer": "{name}?"}')
    told = run(*arguments, "--dry-run")
    assert told.err == (
        "error: cannot use the wording in 'w.json': leaf_peer/text lacks {peer}. "
        "Write {peer} and {name} where the names go.\n"
    )
    Path("w.json").write_text("{")
    assert (
        "cannot read the wording in 'w.json': it is not JSON" in run(*arguments, "--emit", "q").err
    )


BAD: list[tuple[tuple[str, ...], str]] = [
    ((), "none is given. Name a server: --llm-url"),
    (("--variant", "lpp"), "'lpp' is none. Known: lp, ap"),
    (("--replies", "r.jsonl"), "no output was given. Add -o prompts.json."),
    (("--emit", "q.jsonl", "--dry-run"), "--dry-run and --emit were given. Choose one."),
    (("--emit", "q.jsonl", "-o", "p.json"), "--emit makes no prompt file. Leave -o out."),
    (("--emit", "no/q.jsonl"), "'no' does not exist"),
    (("--replies", "none.jsonl", "-o", "p.json"), "none.jsonl': No such file"),
    (("--replies", "r.jsonl", "-o", "p.csv"), "prompt files end in .json"),
    (("--wording", "none.json", "--dry-run"), "'none.json': No such file"),
    (("--style", "templates", "--wording", "w.json", "--dry-run"), "its wording is fixed"),
    (("--style", "templates", "--dedup", "--dry-run"), "it has no parameter 'dedup'"),
    (("--style", "mean", "--dry-run"), "'mean' is a weigh member"),
    (("--style", "templates"), "no output was given"),
    (("--style", "hap", "--dry-run"), "cannot use 'hap' as the prompts stage: there is no member"),
    (("--style", "hap", "--dry-run"), "Did you mean haprompts?"),
    (("--style", "zzz", "--dry-run"), "cannot use 'zzz' as"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[" ".join(b[0]) for b in BAD])
def test_bad_arguments(run: Run, arguments: tuple[str, ...], words: str) -> None:
    told = run("prompts", "make", "-c", "tree.json", *arguments)
    assert told.code == 2
    assert told.err.startswith("error: ")
    assert words in told.err
    assert len(told.err.splitlines()) == 1


def given(run: Run, *arguments: str, reply: str) -> Result:
    """Every query of a style answered in the same way."""
    run("prompts", "make", *arguments, "--emit", "q.jsonl")
    told = [json.dumps({"id": q["id"], "reply": reply}) for q in lines("q.jsonl")]
    Path("r.jsonl").write_text("\n".join(told))
    return run("prompts", "make", *arguments, "--replies", "r.jsonl", "-o", "p.json")


@pytest.mark.parametrize(
    "style, reply, seen",
    [
        ("contrast", "A:\n- red", "1 reply makes no text: dropped answers: 1 pair with one side"),
        ("descriptors", "I don't know.", "2 replies make no text: dropped replies: 2 refusal"),
        ("cupl", "Here you are:", "6 replies make no text: dropped answers: 6 no sentence"),
    ],
)
def test_replies_without_any_text_write_nothing(
    run: Run, style: str, reply: str, seen: str
) -> None:
    told = given(run, "--style", style, "-c", "cat,dog", reply=reply)
    assert (told.code, seen in told.err) == (2, True)
    assert "another model" in told.err
    assert not Path("p.json").exists()


def test_answers_that_are_lost_are_told(run: Run) -> None:
    told = given(run, "--style", "sounds", "-c", "cat,dog", reply="- ?")
    assert (told.code, "dropped answers: 2 no list" in told.err) == (0, True)
    told = given(run, "--style", "concept", "-c", "cat,dog", reply="I'm sorry, no.")
    assert told.code == 0
    assert "dropped replies: 1 refusal" in told.err
    assert "warning: no concept was found; the texts are those of the plain template" in told.err
    told = given(run, "--style", "concept", "-c", "cat,dog", reply="pets")
    assert "concept" not in told.err


def test_wordings_are_checked_when_they_are_read(run: Run) -> None:
    Path("w.json").write_text('{"path_0": {"text": "\\ud800 {leaf}"}}')
    for style in ("haprompts", "atg", "contexts", "states"):
        told = run(
            "prompts", "make", "--style", style, "-c", "cat,dog", "--wording", "w.json", "--dry-run"
        )
        assert told.code == 2
        assert "'w.json'" in told.err
        assert "which is no whole character" in told.err
    fixed = ("--style", "wordnet[lexicon=none-such:1]", "--wording", "w.json", "--dry-run")
    told = run("prompts", "make", "-c", "cat,dog", *fixed)
    assert (told.code, "its wording is fixed" in told.err) == (2, True)


def test_styles_that_ask_nobody(run: Run) -> None:
    arguments = ("prompts", "make", "-c", "tree.json", "--style", "templates[set=short]")
    assert run(*arguments, "--dry-run").out == "texts: 21\nqueries: 0\n"
    assert run(*arguments, "-o", "p.json").code == 0
    made = json.loads(Path("p.json").read_text())
    assert made["provenance"]["generator"] == "templates[set=short]"


def test_classify_with_prompts_for_some_classes(run: Run) -> None:
    make_photos(Path("photos"), 1)
    Path("p.json").write_text('{"lemon": ["a lemon"], "apple": ["an apple"]}')
    arguments = ("classify", "photos", "-c", "tree.json", "--prompts", "p.json", "-e", "none-such")
    told = run(*arguments)
    assert (told.code, "no texts for 1 of 3 classes: 'dairy.milk'" in told.err) == (2, True)
    assert "--allow-missing" in told.err
    told = run(*arguments, "--allow-missing")
    assert "warning: 1 of 3 classes have no texts" in told.err
    assert "none-such" in told.err.splitlines()[-1], "the prompts were accepted"


def test_the_classifier_fills_in_or_names_what_is_missing(run: Run) -> None:
    Path("p.json").write_text('{"lemon": ["a lemon"], "apple": ["an apple"]}')
    model = Classifier("tree.json", FakeEncoder(), prompts="p.json", allow_missing=True)
    with pytest.warns(UserWarning, match="1 of 3 classes have no texts"):
        model.prepare()
    assert model.prompts_.texts("dairy.milk") == ["a photo of a milk."]
    assert model._texts.level is None
    with pytest.raises(NeedsError, match="--style haprompts"):
        Classifier("tree.json", FakeEncoder(), "haprompts").prepare()
    with pytest.raises(NeedsError, match="it needs 'level'"):
        Classifier(["a", "b"], FakeEncoder(), "hie", prompts="templates").predict(np.eye(2, 8))


ATG = ("prompts", "make", "--style", "atg[kinds=name+analogous]", "-c", "cat,dog,car")


def answered(run: Run, *more: str) -> list[dict[str, Any]]:
    run(*ATG, "--emit", "q.jsonl", *more)
    told = {"analogous": "- tiger", "one-to-one": "A:\n- whiskers\nB:\n- barking"}
    found = lines("q.jsonl")
    Path("r.jsonl").write_text(
        "".join(json.dumps({"id": q["id"], "reply": told[q["kind"]]}) + "\n" for q in found)
    )
    return found


def test_pairs_from_a_file(run: Run) -> None:
    Path("pairs.csv").write_text("a,b\nCat,dog\n")
    asked = answered(run, "--pairs", "pairs.csv")
    assert [(q["class_id"], q["about"]) for q in asked][-1] == ("cat", "dog")
    told = run(*ATG, "--pairs", "pairs.csv", "--replies", "r.jsonl", "-o", "p.json")
    assert told.code == 0
    pairs = json.loads(Path("p.json").read_text())["pairs"]
    assert [(p["a"], p["b"]) for p in pairs] == [("cat", "dog"), ("dog", "cat")]


def test_look_alikes_are_filtered_with_an_encoder(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OneForAll:
        def encode_texts(self, texts: Any) -> Any:
            return np.ones((len(texts), 2)) / 2**0.5

    loaded = []

    def load(name: str) -> OneForAll:
        loaded.append(name)
        return OneForAll()

    monkeypatch.setattr("byname.commands_prompts.load_encoder", load)
    answered(run)
    told = run(*ATG, "--replies", "r.jsonl", "-o", "p.json")
    assert "look-alikes were not filtered: give --encoder" in told.err
    assert "6 texts of 3 classes" in told.err
    told = run(*ATG, "--replies", "r.jsonl", "-o", "p.json", "--encoder", "some")
    assert loaded == ["some"]
    assert "not filtered" not in told.err
    assert "3 texts of 3 classes" in told.err
    made = json.loads(Path("p.json").read_text())
    assert made["provenance"]["answers_dropped"]["too close"] == 3


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((*MAKE, "-c", "tree.json", "--pairs", "p.csv", "--dry-run"), "--pairs with 'haprompts'"),
        ((*MAKE, "-c", "tree.json", "--encoder", "mini"), "--encoder with 'haprompts'"),
        ((*ATG, "--encoder", "mini", "--emit", "q.jsonl"), "there are no replies yet"),
        ((*ATG, "--pairs", "none.csv", "--dry-run"), "cannot read the pairs in 'none.csv'"),
    ],
)
def test_options_of_atg(run: Run, arguments: tuple[str, ...], words: str) -> None:
    told = run(*arguments)
    assert told.code == 2
    assert words in told.err
