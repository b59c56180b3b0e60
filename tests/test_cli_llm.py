"""``byname prompts make`` with a server: real HTTP on loopback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from byname.cache import cache_root
from tests.llm.server import Server, reply, right
from tests.test_cli_prompts import Run, lines, run  # noqa: F401 - the fixture

HAPROMPTS = ("prompts", "make", "--style", "haprompts", "-c", "tree.json")
KEY = "sk-planted-7f3a9c"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYNAME_LLM_KEY", KEY)


def everything_written(*folders: Path) -> bytes:
    return b"".join(p.read_bytes() for f in folders for p in f.rglob("*") if p.is_file())


def test_asked_once_and_never_again(run: Run, tmp_path: Path) -> None:  # noqa: F811
    with Server() as server:
        told = run(*HAPROMPTS, "--llm-url", server.url, "-o", "p.json")
        assert (told.code, told.out) == (0, "")
        assert "test-model: 14 calls, 0 replies from the cache" in told.err
        assert "14 texts of 3 classes -> p.json" in told.err
        assert len(server.asked) == 14
        again = run(*HAPROMPTS, "--llm-url", server.url, "-o", "q.json")
        assert "test-model: 0 calls, 14 replies from the cache" in again.err
        assert len(server.asked) == 14
        fresh = run(*HAPROMPTS, "--llm-url", server.url, "-o", "q.json", "--fresh")
        assert (fresh.code, len(server.asked)) == (0, 28)
        assert all(one.headers["Authorization"] == f"Bearer {KEY}" for one in server.asked)
        asked = {one.text for one in server.asked}
    made = json.loads(Path("p.json").read_text())
    texts = {p["text"] for prompts in made["classes"].values() for p in prompts}
    assert texts == {right(text) for text in asked}
    assert made["provenance"]["model"] == "test-model"
    assert Path("p.json").read_bytes() == Path("q.json").read_bytes()


def test_dry_run_counts_calls_and_tokens(run: Run) -> None:  # noqa: F811
    with Server() as server:
        told = run(*HAPROMPTS, "--llm-url", server.url, "--dry-run")
        assert told.out.splitlines()[-1] == "queries: 14"
        assert "calls: 14 (0 replies in the cache)" in told.out
        assert "at most 2100 in the replies" in told.out
        assert server.asked == []
        run(*HAPROMPTS, "--variant", "path", "--llm-url", server.url, "-o", "p.json")
        told = run(*HAPROMPTS, "--llm-url", server.url, "--dry-run")
        assert "calls: 5 (9 replies in the cache)" in told.out
    told = run("prompts", "make", "--style", "cupl", "-c", "cat,dog", "--dry-run")
    assert told.out.splitlines()[-2:] == ["calls: 60", "queries: 6"]


def test_the_guard_stops_before_any_call(run: Run) -> None:  # noqa: F811
    with Server() as server:
        told = run(*HAPROMPTS, "--llm-url", server.url, "--max-calls", "13", "-o", "p.json")
        assert told.code == 2
        assert "14 calls are needed, and at most 13 are allowed" in told.err
        assert server.asked == []
    assert not Path("p.json").exists()


def test_missing_replies_are_told_and_asked_for_again(run: Run) -> None:  # noqa: F811
    broken = {"on": True}

    def plan(text: str, before: int) -> str:
        too_long = '400 {"error": {"code": "context_length_exceeded", "message": "context"}}'
        return too_long if broken["on"] and "milk" in text else "good"

    with Server(plan) as server:
        told = run(*HAPROMPTS, "--llm-url", server.url, "-o", "p.json")
        assert told.code == 2
        assert "no texts for 1 of 3 classes: 'dairy.milk'" in told.err
        assert "4 replies are missing, first for 'dairy.milk': too long for the model" in told.err
        broken["on"] = False
        before = len(server.asked)
        told = run(*HAPROMPTS, "--llm-url", server.url, "-o", "p.json")
        assert told.code == 0
        assert all("milk" in one.text for one in server.asked[before:])


def test_two_rounds(run: Run) -> None:  # noqa: F811
    asked = ("prompts", "make", "--style", "sounds[n=2]", "-c", "dog,rain")
    with Server() as server:
        told = run(*asked, "--llm-url", server.url, "-o", "p.json")
        assert told.code == 0, told.err
        assert len(server.asked) == 4  # a reply is one description, which is asked about once
    assert run(*asked, "--emit", "q1.jsonl").code == 0
    Path("r1.jsonl").write_text(
        "".join(json.dumps({"id": q["id"], "reply": "- a\n- b"}) + "\n" for q in lines("q1.jsonl"))
    )
    told = run(*asked, "--replies", "r1.jsonl", "--emit", "q2.jsonl")
    assert told.err == "4 queries -> q2.jsonl\n"
    Path("r2.jsonl").write_text(
        "".join(
            json.dumps({"id": q["id"], "reply": "- far away"}) + "\n" for q in lines("q2.jsonl")
        )
    )
    told = run(*asked, "--replies", "r1.jsonl", "--replies", "r2.jsonl", "-o", "p.json")
    assert told.code == 0, told.err
    assert "far away" in Path("p.json").read_text()


def test_batch_files(run: Run) -> None:  # noqa: F811
    told = run(*HAPROMPTS, "--emit-batch", "b.jsonl", "--llm-model", "gpt-x")
    assert "14 requests in 1 file" in told.err
    out = []
    for item in lines("b.jsonl"):
        text = item["body"]["messages"][0]["content"]
        body = json.loads(reply(item["body"], right(text)))
        out.append({"custom_id": item["custom_id"], "response": {"status_code": 200, "body": body}})
    Path("o.jsonl").write_text("".join(json.dumps(line) + "\n" for line in reversed(out[1:])))
    told = run(*HAPROMPTS, "--ingest-batch", "o.jsonl", "-o", "p.json", "--model", "gpt-x")
    assert told.code == 0, told.err
    assert "warning: 1 of 14 queries lack replies" in told.err
    assert "13 texts of 3 classes" in told.err


def test_only_some_classes(run: Run) -> None:  # noqa: F811
    told = run(*HAPROMPTS, "--only", "Lemon", "--dry-run")
    assert told.out.splitlines()[-1] == "queries: 5"
    found = {"classes": {"fruit.apple": {"flag": "weak"}, "dairy.milk": {"flag": ""}}}
    Path("d.json").write_text(json.dumps(found))
    with Server() as server:
        told = run(
            "prompts", "make", "--style", "repair", "-c", "tree.json", "--only", "d.json",
            "--llm-url", server.url, "-o", "p.json",
        )  # fmt: skip
    assert told.code == 0, told.err
    assert list(json.loads(Path("p.json").read_text())["classes"]) == ["fruit.apple"]
    assert "'x' is no class" in run(*HAPROMPTS, "--only", "x", "--dry-run").err
    Path("d.json").write_text("{}")
    assert "it is no diagnosis" in run(*HAPROMPTS, "--only", "d.json", "--dry-run").err
    found["classes"]["fruit.apple"]["flag"] = ""
    Path("d.json").write_text(json.dumps(found))
    assert "that it will fail" in run(*HAPROMPTS, "--only", "d.json", "--dry-run").err


@pytest.mark.parametrize(
    "plan, words",
    [
        ("401 " + json.dumps({"error": {"message": f"wrong key {KEY}"}}), "BYNAME_LLM_KEY"),
        ("404 " + json.dumps({"error": {"message": f"no {KEY}"}}), "Check the address and the mod"),
        ("200 " + reply({"model": KEY, "prompt": ""}, f"red {KEY}").decode(), ""),
    ],
)
def test_the_key_goes_nowhere_but_to_the_server(
    run: Run, tmp_path: Path, plan: str, words: str  # noqa: F811
) -> None:  # fmt: skip
    with Server(lambda text, before: plan) as server:
        told = run(*HAPROMPTS, "--llm-url", server.url, "--llm-mode", "completion", "-o", "p.json")
        assert server.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    assert words in told.err
    written = everything_written(tmp_path, cache_root())
    assert b"red [key]" in written or words
    assert KEY not in told.out + told.err
    assert KEY.encode() not in written


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--llm-url", "http://u:pw@localhost/v1", "-o", "p.json"), "BYNAME_LLM_KEY"),
        (("--llm-url", "localhost", "-o", "p.json"), "http"),
        (("--llm-url", "http://127.0.0.1:9/v1", "--llm-mode", "talk", "-o", "p.json"), "chat"),
        (("--llm-url", "http://127.0.0.1:9/v1", "--emit", "q.jsonl"), "--emit asks nobody"),
        (("--llm-url", "http://127.0.0.1:9/v1"), "no output was given"),
        (("--emit-batch", "b.jsonl"), "Add --llm-model NAME"),
        (("--ingest-batch", "none.jsonl", "-o", "p.json"), "cannot read the batch output"),
        (("--only", "lemon", "--style", "templates", "-o", "p.json"), "it asks nobody"),
    ],
)
def test_bad_arguments(run: Run, arguments: tuple[str, ...], words: str) -> None:  # noqa: F811
    told = run(*HAPROMPTS, *arguments)
    assert (told.code, told.out) == (2, "")
    assert words in told.err
    assert not Path("p.json").exists()


def test_samples_that_are_missing_are_asked_for_on_the_next_run(run: Run) -> None:  # noqa: F811
    with Server() as server:
        for samples, calls in ((2, 12), (5, 30)):
            style = ("prompts", "make", "--style", f"cupl[samples={samples}]", "-c", "cat,dog")
            assert run(*style, "--llm-url", server.url, "-o", "p.json").code == 0
            assert len(server.asked) == calls


def test_missing_samples_only_are_asked_for(run: Run) -> None:  # noqa: F811
    cupl = ("prompts", "make", "--style", "cupl[samples=3]", "-c", "cat,dog")
    run(*cupl, "--emit", "q.jsonl")
    first, second, *_ = lines("q.jsonl")
    answers = [(first, "It is a cat."), (first, ""), (second, "It is big."), (second, "It is red.")]
    Path("r.jsonl").write_text(
        "".join(json.dumps({"id": q["id"], "reply": text}) + "\n" for q, text in answers)
    )
    told = run(*cupl, "--replies", "r.jsonl", "--emit", "left.jsonl")
    assert "warning: 1 reply is blank" in told.err
    assert [q["samples"] for q in lines("left.jsonl")] == [2, 1, 3, 3, 3, 3]
    told = run(*cupl, "--replies", "r.jsonl", "-o", "p.json")
    assert "warning: 6 of 6 queries lack replies" in told.err
    told = run(*cupl, "--replies", "r.jsonl", "--emit-batch", "b.jsonl", "--llm-model", "m")
    assert "15 requests in 1 file" in told.err
    with Server() as server:
        told = run(*cupl, "--replies", "r.jsonl", "--llm-url", server.url, "--dry-run")
        assert "calls: 15 (0 replies in the cache)" in told.out
        told = run(*cupl, "--replies", "r.jsonl", "--llm-url", server.url, "-o", "p.json")
        assert (told.code, len(server.asked)) == (0, 15), told.err
    made = json.loads(Path("p.json").read_text())
    assert {"It is a cat.", "It is big.", "It is red."} <= {
        p["text"] for prompts in made["classes"].values() for p in prompts
    }


def test_the_guard_holds_over_all_rounds(run: Run) -> None:  # noqa: F811
    sounds = ("prompts", "make", "--style", "sounds[n=2]", "-c", "cat,dog,cow")
    with Server() as server:
        told = run(*sounds, "--llm-url", server.url, "--max-calls", "5", "-o", "p.json")
        assert told.code == 0, told.err
        assert len(server.asked) == 5
        assert "1 reply is missing" in told.err
        assert "the limit of 5 calls is reached" in told.err
        told = run(*sounds, "--llm-url", server.url, "--dry-run")
        assert "calls: 1 (5 replies in the cache)" in told.out, "the second round is known"
        told = run(*sounds, "--llm-url", server.url, "--dry-run", "--max-calls", "0")
        assert "more calls than --max-calls 0" in told.out
        run(*sounds, "--llm-url", server.url, "-o", "p.json")
        assert len(server.asked) == 6


@pytest.mark.parametrize("option", ["--emit", "-o"])
def test_a_folder_is_no_output(run: Run, option: str) -> None:  # noqa: F811
    Path("f.json").mkdir()
    told = run(*HAPROMPTS, option, "f.json")
    assert (told.code, "it is a folder" in told.err) == (2, True)


def test_only_by_quoted_names(run: Run) -> None:  # noqa: F811
    Path("c.csv").write_text('id,name\na,"Fish, smoked"\nb,Ham\n')
    asked = ("prompts", "make", "--style", "descriptors", "-c", "c.csv", "--dry-run", "--only")
    assert run(*asked, '"Fish, smoked",Ham').out.splitlines()[-1] == "queries: 2"
    assert "it names no class" in run(*asked, ",").err
    assert "there is no such file" in run(*asked, "none.json").err
