from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.llm.address import Key
from byname.llm.wire import BadReplyError, Manner, complaint, read_reply
from byname.queries import is_refusal

JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "text", "usage", "error", "finish_reason"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def chat(content: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content}, **more}]}


@given(held=JSON)
def test_any_json_is_a_reply_or_a_bad_one(held: Any) -> None:
    try:
        said = read_reply(held).text
    except BadReplyError as error:
        said = str(error)
    assert said.encode().decode() == said, "no half of a surrogate pair gets through"


@given(held=JSON | st.binary())
def test_any_body_is_a_complaint(held: Any) -> None:
    text = complaint(held).text
    assert "\n" not in text
    assert len(text) <= 300


@pytest.mark.parametrize(
    "held, text",
    [
        (chat("It is red."), "It is red."),
        (chat([{"type": "text", "text": "It "}, {"text": "is red."}]), "It is red."),
        (chat("<think>Hm,\nred?</think>\n\nIt is red."), "It is red."),
        (chat("<think>cut here"), ""),
        (chat("It says <think>."), "It says <think>."),
        (chat(None, finish_reason="length"), ""),
        (chat(""), ""),
        ({"choices": [{"text": " It is red."}]}, " It is red."),
        ({"choices": [{"text": "a\ud83d b"}]}, "a\ufffd b"),
    ],
)
def test_replies(held: Any, text: str) -> None:
    assert read_reply(held).text == text


@pytest.mark.parametrize(
    "held, seen",
    [
        ([], "no object"),
        ({}, "no choices"),
        ({"choices": []}, "no choices"),
        ({"choices": {}}, "no choices"),
        ({"choices": ["a"]}, "no choices"),
        ({"error": {"message": "overloaded"}}, "no choices in the answer: overloaded"),
        (chat(None), "without text"),
        (chat(3), "without text"),
        (chat([3]), "without text"),
        ({"choices": [{}]}, "without text"),
        ({"choices": [{"message": "a"}]}, "without text"),
    ],
)
def test_bad_replies(held: Any, seen: str) -> None:
    with pytest.raises(BadReplyError, match=seen):
        read_reply(held)


def test_refusals() -> None:
    for held in (
        chat("It is", finish_reason="content_filter"),
        chat(None, finish_reason="content_filter"),
    ):
        assert is_refusal(read_reply(held).text)
    held = {"choices": [{"message": {"content": None, "refusal": "I will not."}}]}
    assert read_reply(held).text == "I'm sorry: I will not."


def test_tokens() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": "many"}
    reply = read_reply({**chat("a"), "usage": usage, "model": "m-1"})
    assert (reply.prompt_tokens, reply.completion_tokens, reply.model) == (5, 0, "m-1")


@pytest.mark.parametrize(
    "body, kind, text",
    [
        (b'{"error": "model not found"}', "", "model not found"),
        (b'{"detail": "Not Found"}', "", "Not Found"),
        (b'{"detail": [{"loc": ["body"]}]}', "", "[{'loc': ['body']}]"),
        (b'{"object": "error", "message": "bad"}', "", "bad"),
        (b"<html><body>nginx</body></html>", "", "an HTML page"),
        (b"upstream\nis\x1b[31m gone", "", "upstream is [31m gone"),
        (b"", "", ""),
        (b'{"error": {"message": "x", "code": "context_length_exceeded"}}', "context", "x"),
        (b'{"error": {"message": "x", "type": "exceed_context_size_error"}}', "context", "x"),
        (b'{"error": {"message": "x", "code": "insufficient_quota"}}', "quota", "x"),
        (b'{"error": {"message": "x", "code": "content_filter"}}', "filter", "x"),
    ],
)
def test_complaints(body: bytes, kind: str, text: str) -> None:
    assert (complaint(body).kind, complaint(body).text) == (kind, text)


@pytest.mark.parametrize(
    "model, newer",
    [("o3-mini", True), ("gpt-5", True), ("openai/gpt-5.1", True), ("gpt-4o", False)],
)
def test_manners(model: str, newer: bool) -> None:
    assert (Manner.of(model, True).tokens == "max_completion_tokens") is newer


def test_errors_that_are_null() -> None:
    assert complaint({"error": None, "message": "x"}).text == "x"
    assert complaint(b'{"error": null}').text == ""
    assert complaint({"error": {"message": None, "code": None}}).text == ""


def test_the_key_is_hidden_before_a_complaint_is_cut() -> None:
    key = Key("sk-planted-4711-abcdefghijkl")
    for before in range(130, 151):
        said = "x " * before + "sk-planted-4711-abcdefghijkl"
        for body in (json.dumps({"error": {"message": said}}).encode(), said.encode()):
            assert "sk-" not in complaint(body, key.hide).text
    coded = {"error": {"message": "m", "code": "x" * 290 + "sk-planted-4711-abcdefghijkl"}}
    assert "sk-" not in complaint(coded, key.hide).text
