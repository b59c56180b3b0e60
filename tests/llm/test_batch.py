from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from byname.errors import OutputError, PromptError, UsageError
from byname.llm import read_batch, write_batch
from tests.llm.server import questions


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def answer(custom_id: str, body: Any, status: int = 200) -> dict[str, Any]:
    response = {"status_code": status, "request_id": "r", "body": body}
    return {"id": "b", "custom_id": custom_id, "response": response, "error": None}


def chat(text: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_there_and_back(tmp_path: Path) -> None:
    asked = questions(5, samples=3, form="list", stop=".", max_tokens=9)
    made = write_batch(asked * 2, tmp_path / "b.jsonl", model="gpt-4o-mini")
    assert (made.paths, made.requests) == ((tmp_path / "b.jsonl",), 15)
    sent = lines(tmp_path / "b.jsonl")
    assert [row["custom_id"] for row in sent[:4]] == [
        *(f"{asked[0].id}-{n}" for n in range(3)),
        f"{asked[1].id}-0",
    ]
    assert {(row["method"], row["url"]) for row in sent} == {("POST", "/v1/chat/completions")}
    body = sent[0]["body"]
    assert (body["model"], body["max_tokens"], body["stop"]) == ("gpt-4o-mini", 9, ".")
    assert body["messages"] == [{"role": "user", "content": asked[0].text}]
    assert body["response_format"]["type"] == "json_schema"
    back = [answer(row["custom_id"], chat(f"reply {row['custom_id'][-1]}")) for row in sent]
    found = read_batch(written(tmp_path / "out.jsonl", back[::-1]))
    assert (len(found), found.failed) == (15, [])
    assert list(found) == [(q.id, f"reply {n}") for q in asked[::-1] for n in range(3)]


def test_other_modes(tmp_path: Path) -> None:
    asked = questions(1, form="list")
    write_batch(asked, tmp_path / "c.jsonl", model="m", mode="completion")
    (row,) = lines(tmp_path / "c.jsonl")
    assert (row["url"], row["body"]["prompt"]) == ("/v1/completions", asked[0].text)
    write_batch(asked, tmp_path / "d.jsonl", model="m", schema="off")
    assert "response_format" not in lines(tmp_path / "d.jsonl")[0]["body"]
    write_batch(asked, tmp_path / "e.jsonl", model="gpt-5-mini")
    body = lines(tmp_path / "e.jsonl")[0]["body"]
    assert {"max_tokens", "temperature"}.isdisjoint(body)
    assert "max_completion_tokens" in body


def test_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byname.llm.batch.MAX_REQUESTS", 4)
    path, parts = tmp_path / "b.jsonl", [tmp_path / f"b-000{n}.jsonl" for n in (1, 2, 3)]
    made = write_batch(questions(10), path, model="m")
    assert (list(made.paths), made.requests) == (parts, 10)
    assert [len(lines(part)) for part in parts] == [4, 4, 2]
    assert not path.exists()
    monkeypatch.setattr("byname.llm.batch.MAX_FILE_BYTES", 700)
    with pytest.warns(UserWarning, match=r"b-0003\.jsonl' is of an earlier batch"):
        made = write_batch(questions(4), path, model="m")
    assert all(part.stat().st_size <= 700 for part in made.paths)
    assert sum(len(lines(part)) for part in made.paths) == 4
    monkeypatch.undo()
    with pytest.warns(UserWarning, match=r"b-0001\.jsonl' is of an earlier batch"):
        assert write_batch(questions(4), path, model="m").paths == (path,)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--llm-model"):
        write_batch(questions(1), tmp_path / "b.jsonl", model="")
    with pytest.raises(UsageError, match="there are no questions"):
        write_batch([], tmp_path / "b.jsonl", model="m")
    with pytest.raises(OutputError, match="write the batch"):
        write_batch(questions(1), tmp_path / "none" / "b.jsonl", model="m")
    assert list(tmp_path.iterdir()) == []


def test_lines_without_a_reply_are_reported(tmp_path: Path) -> None:
    ids = [f"{q.id}-0" for q in questions(9)]
    error = {"error": {"message": "Too long", "code": "context_length_exceeded"}}
    rows = [
        answer(ids[0], chat("good")),
        answer(ids[1], error, 400),
        answer(ids[2], chat(" ")),
        answer(ids[3], {"choices": []}),
        answer(ids[4], None),
        {"custom_id": ids[5], "response": None, "error": {"message": "batch_expired"}},
        {"custom_id": ids[6], "response": None, "error": None},
        answer("somebody's", chat("other")),
        {"response": {}},
        answer(ids[0], chat("again")),
        answer(ids[7], {"choices": [{"text": "completion"}]}),
    ]
    found = read_batch(written(tmp_path / "o.jsonl", rows))
    assert found.replies == [(ids[0][:16], "good"), (ids[7][:16], "completion")]
    assert found.failed == [
        (ids[1], "HTTP 400: Too long"),
        (ids[2], "an empty reply"),
        (ids[3], "no choices in the answer"),
        (ids[4], "JSON that is no object"),
        (ids[5], "batch_expired"),
        (ids[6], "no response"),
        ("somebody's", "its custom_id is none of byname's"),
        ("line 9", "its custom_id is none of byname's"),
        (ids[0], "it stands there twice; the first one counts"),
    ]


@pytest.mark.parametrize(
    "data, seen",
    [
        (b'\n{"custom_id": "a", "resp', "line 2 is not JSON"),
        (b"\xff\xfe", "line 1 is not JSON"),
        (b"[1]", "line 1 is no object"),
        (b'{"a":' * 100_000, "line 1 is not JSON .it is nested too deeply"),
        (b'{"custom_id": "a-0", "method": "POST", "body": {}}', "line 1 is a request"),
    ],
)
def test_files_that_are_no_batch(data: bytes, seen: str, tmp_path: Path) -> None:
    (tmp_path / "o.jsonl").write_bytes(data)
    with pytest.raises(PromptError, match=seen):
        read_batch(tmp_path / "o.jsonl")


def test_odd_files(tmp_path: Path) -> None:
    (tmp_path / "o.jsonl").write_bytes(b"\xef\xbb\xbf\r\n\r\n")
    assert read_batch(tmp_path / "o.jsonl").replies == []
    with pytest.raises(PromptError, match="No such file"):
        read_batch(tmp_path / "none.jsonl")


def test_samples_that_are_there_are_not_written(tmp_path: Path) -> None:
    asked = questions(3, samples=3)
    rows = [answer(f"{asked[0].id}-{n}", chat(f"r{n}")) for n in (2, 0)]
    rows += [answer(f"{asked[1].id}-{n}", chat("r")) for n in range(3)]
    found = read_batch(written(tmp_path / "o.jsonl", rows))
    assert found.replies[:2] == [(asked[0].id, "r0"), (asked[0].id, "r2")]
    assert found.counts == {asked[0].id: 2, asked[1].id: 3}
    made = write_batch(asked, tmp_path / "b.jsonl", model="m", have=found.counts)
    assert made.requests == 4
    ids = [row["custom_id"] for row in lines(tmp_path / "b.jsonl")]
    assert ids == [f"{asked[0].id}-2", *(f"{asked[2].id}-{n}" for n in range(3))]


def test_an_error_without_words(tmp_path: Path) -> None:
    path = written(tmp_path / "o.jsonl", [answer("a" * 16 + "-0", {}, 500)])
    assert read_batch(path).failed == [("a" * 16 + "-0", "HTTP 500")]
