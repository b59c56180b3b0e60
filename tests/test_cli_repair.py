"""``byname repair``: rounds with a real server on loopback, what is written, bad arguments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from byname.ops import unit
from tests.helpers import make_photos
from tests.llm.server import Server
from tests.test_cli_prompts import Run, run  # noqa: F401 - the fixture

NEW = {"cat": "a photo of a cat with slit eyes.", "dog": "a photo of a dog with a wet nose."}
ANSWER = "200 " + json.dumps(
    {
        "model": "test-model",
        "choices": [
            {
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "A:\n- slit eyes\nB:\n- a wet nose"},
            }
        ],
    }
)
SILENT = ANSWER.replace("A:\\n- slit eyes\\nB:\\n- a wet nose", "Let me think about it first")


@pytest.fixture
def job(tmp_path: Path) -> list[str]:
    """Twelve photos, four of them right between cat and dog by the plain texts."""
    photos = make_photos(tmp_path / "photos", 12)
    keys = sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.png"))
    E = np.eye(6)
    kinds = np.stack([E[0], E[1], unit(E[0] + E[1]), E[2]])
    images = unit(kinds[np.repeat(np.arange(4), 3)] + 0.01 * E[np.arange(12) % 6])
    texts = {"a cat": E[0], "a dog": E[1], "a owl": E[2]}
    texts |= {NEW["cat"]: E[0] + 0.3 * E[3], NEW["dog"]: E[1] + 0.2 * E[0]}
    folder = tmp_path / "encoder"
    folder.mkdir()
    np.save(folder / "texts.npy", unit(np.stack(list(texts.values()))).astype(np.float32))
    (folder / "texts.json").write_text(json.dumps(list(texts)))
    np.save(folder / "images.npy", images.astype(np.float32))
    (folder / "images.json").write_text(json.dumps(keys))
    options = ["-c", "cat,dog,owl", "-e", f"precomputed:{folder}", "--template", "a {}"]
    return ["repair", str(photos), *options, "--refine", "none", "--votes", "texts"]


def test_new_texts_are_written_and_asked_for_once(run: Run, job: list[str]) -> None:  # noqa: F811
    with Server(lambda text, before: ANSWER) as server:
        told = run(*job, "--llm-url", server.url, "-o", "p.json")
        assert told.code == 0, told.err
        assert len(server.asked) == 1
        assert "cat" in server.asked[0].text
        assert "dog" in server.asked[0].text
        assert "round 1: cat / dog: 2 texts" in told.err
        assert "ended: no new pair of classes has images between it" in told.err
        assert "2 new texts -> p.json" in told.err
        again = run(*job, "--llm-url", server.url, "-o", "q.json", "-q")
        assert len(server.asked) == 1
        assert "test-model: 0 calls" in again.err
        assert "round 1" not in again.err
    held = json.loads(Path("p.json").read_text())["classes"]
    assert [p["text"] for p in held["cat"]] == ["a cat", NEW["cat"]]
    assert [p["text"] for p in held["owl"]] == ["a owl"]
    assert Path("p.json").read_bytes() == Path("q.json").read_bytes()
    done = run("classify", job[1], *job[2:6], "--prompts", "p.json", "-o", "-", "-q")
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 13


def test_an_llm_that_says_nothing_of_use(run: Run, job: list[str]) -> None:  # noqa: F811
    with Server(lambda text, before: SILENT) as server:
        told = run(*job, "--llm-url", server.url, "-o", "p.json")
    assert told.code == 1, told.err
    assert "round 1: cat / dog: no usable text came" in told.err
    assert "pairs without a usable answer: 1 of 1" in told.err
    assert "missing" not in told.err
    assert "0 new texts -> p.json" in told.err
    held = json.loads(Path("p.json").read_text())["classes"]
    assert {i: [p["text"] for p in told] for i, told in held.items()} == {
        "cat": ["a cat"],
        "dog": ["a dog"],
        "owl": ["a owl"],
    }


def test_replies_that_do_not_come_are_told(run: Run, job: list[str]) -> None:  # noqa: F811
    with Server(lambda text, before: "no choices") as server:
        told = run(*job, "--llm-url", server.url, "-o", "p.json", "-q")
    assert told.code == 1
    assert "warning: 1 reply is missing, first for 'cat' / 'dog': " in told.err
    assert "ended: no new pair of classes has images between it; pairs without" in told.err
    assert "0 new texts -> p.json" in told.err
    assert "Traceback" not in told.err


def test_no_question_is_no_failure(tmp_path: Path, run: Run, job: list[str]) -> None:  # noqa: F811
    vectors = np.eye(6, dtype=np.float32)[np.arange(12) % 3]
    np.save(tmp_path / "encoder" / "images.npy", vectors)
    with Server(lambda text, before: "no choices") as server:
        told = run(*job, "--llm-url", server.url, "-o", "p.json")
        assert (told.code, len(server.asked)) == (0, 0), told.err
    assert "ended: no new pair of classes has images between it\n" in told.err


@pytest.mark.parametrize(
    ("more", "seen"),
    [
        (["-o", "p.json"], "no server was given"),
        (["--llm-url", "http://localhost:9/v1"], "no output was given. Add -o prompts.json"),
        (["--llm-url", "http://localhost:9/v1", "-o", "p.csv"], "p.csv"),
        (["--llm-url", "http://localhost:9/v1", "-o", "p.json", "--votes", "x"], "votes is 'x'"),
    ],
)
def test_bad_arguments(run: Run, job: list[str], more: list[str], seen: str) -> None:  # noqa: F811
    told = run(*[a for a in job if a not in ("--votes", "texts")], *more)
    assert told.code == 2
    assert seen in told.err
    assert not Path("p.json").exists()


def test_a_server_that_is_down_writes_nothing(run: Run, job: list[str]) -> None:  # noqa: F811
    with Server(lambda text, before: '401 {"error": {"message": "no"}}') as server:
        told = run(*job, "--llm-url", server.url, "-o", "p.json")
    assert told.code != 0
    assert not Path("p.json").exists()
