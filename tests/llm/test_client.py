"""The client's manners: limits, errors, pauses, and what it leaves out for servers that refuse."""

from __future__ import annotations

import asyncio
import email.utils
import json
import socket
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from byname.errors import UsageError
from byname.llm import LLM, LLMError, ReplyCache
from byname.llm.transport import MAX_BYTES, retry_after
from byname.queries import Query, is_refusal
from tests.llm.server import Plan, Server, questions, reply, right


def ask(server: Server, asked: list[Query], **options: Any) -> Any:
    problem = {k: options.pop(k) for k in ("problem", "progress") if k in options}
    given = {"backoff": 0.001, "timeout": 5.0, **options}
    return LLM(server.url, given.pop("model", "m"), **given).ask(asked, **problem)


def fault(status: int, message: str = "no", **more: Any) -> str:
    return f"{status} {json.dumps({'error': {'message': message, **more}})}"


def always(did: str) -> Plan:
    return lambda text, before: did


def good(text: str) -> str:
    return "200 " + reply({"messages": [], "model": "m"}, text).decode()


# -- what is sent


@pytest.mark.parametrize(
    "mode, path", [("chat", "/v1/chat/completions"), ("completion", "/v1/completions")]
)
def test_what_is_sent(mode: str, path: str) -> None:
    (one,) = questions(1, stop="\n\n", temperature=0.3, max_tokens=77)
    with Server() as server:
        found = ask(server, [one], mode=mode)
    assert found.replies == {one.id: [right(one.text)]}
    assert (found.calls, found.prompt_tokens, found.completion_tokens) == (1, 7, 3)
    (sent,) = server.asked
    assert sent.path == path
    assert {k: v for k, v in sent.body.items() if k not in ("messages", "prompt")} == {
        "model": "m",
        "stop": "\n\n",
        "temperature": 0.3,
        "max_tokens": 77,
    }
    assert "Authorization" not in sent.headers


@pytest.mark.parametrize("cut", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_addresses(cut: str) -> None:
    with Server() as server:
        llm = LLM(server.url.removesuffix("/v1") + cut)
        assert llm.ask(questions(1)).calls == 1
        assert llm.url == server.url


def test_samples_are_requests_of_their_own(tmp_path: Path) -> None:
    asked = questions(3, samples=4)
    with Server() as server:
        found = ask(server, asked, cache=ReplyCache(tmp_path))
        assert {len(r) for r in found.replies.values()} == {4}
        assert len(server.asked) == 12
        more = ask(server, questions(3, samples=5), cache=ReplyCache(tmp_path))
        assert (more.cached, more.calls) == (12, 3)


def test_the_same_question_about_two_classes_is_asked_once() -> None:
    text = "What does a crane look like?"
    asked = [Query.make(name, "", "look", text) for name in ("crane-bird", "crane-tool")]
    with Server() as server:
        llm = LLM(server.url, "m")
        plan, found = llm.plan(asked * 2), llm.ask(asked * 2)
    assert (plan.queries, plan.calls) == (2, 1)
    assert found.replies == {q.id: [right(text)] for q in asked}
    assert found.calls == 1


def test_a_proxy_is_not_used_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Server() as server:
        assert ask(server, questions(1)).calls == 1


def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://user:secret@proxy")
    with pytest.raises(UsageError, match="the proxy or certificate settings") as caught:
        LLM("http://llm.example.org/v1", "m").ask(questions(1))
    assert "secret" not in str(caught.value)


def test_inside_a_running_loop() -> None:
    async def notebook() -> Any:
        with Server() as server:
            return ask(server, questions(5))

    assert len(asyncio.run(notebook()).replies) == 5


def test_options() -> None:
    for name, value in [
        ("mode", "talk"),
        ("schema", "maybe"),
        ("concurrency", 0),
        ("timeout", 0),
        ("timeout", float("nan")),
        ("retries", -1),
        ("max_calls", -1),
        ("backoff", -1),
    ]:
        options: dict[str, Any] = {name: value}
        with pytest.raises(UsageError, match=f"{name} is {value!r}"):
            LLM("http://localhost:1", "m", **options)


# -- models


def test_the_only_model_is_taken() -> None:
    with Server(models=["only"]) as server:
        found = LLM(server.url).ask(questions(1))
        assert (found.model, server.asked[0].body["model"]) == ("only", "only")


@pytest.mark.parametrize(
    "models, seen", [([], "it has 0"), ([f"m{i}" for i in range(12)], "m0, .*m9 and 2 more")]
)
def test_several_models(models: list[str], seen: str) -> None:
    with Server(models=models) as server, pytest.raises(LLMError, match=seen) as caught:
        LLM(server.url).plan(questions(1))
    assert "--llm-model" in str(caught.value)


# -- the guard


def test_plan(tmp_path: Path) -> None:
    asked = questions(10, max_tokens=100)
    with Server() as server:
        ask(server, asked[:4], cache=ReplyCache(tmp_path))
        llm = LLM(server.url, "m", cache=ReplyCache(tmp_path))
        plan = llm.plan(asked)
        assert (plan.queries, plan.calls, plan.cached) == (10, 6, 4)
        assert plan.completion_tokens == 600
        assert plan.prompt_tokens == sum(-(-len(q.text) // 4) + 8 for q in asked[4:])
        assert LLM(server.url, "m", cache=ReplyCache(tmp_path), fresh=True).plan(asked).calls == 10
        assert len(server.asked) == 4, "planning asks nothing"


def test_too_many_calls_are_refused_before_the_first() -> None:
    with Server() as server:
        with pytest.raises(UsageError, match="11 calls are needed, and at most 10 are allowed"):
            ask(server, questions(11), max_calls=10)
        assert server.asked == []
        assert ask(server, questions(10), max_calls=10).calls == 10


def test_retries_stop_at_the_limit_and_replies_are_kept(tmp_path: Path) -> None:
    asked = questions(10)
    with Server(lambda text, before: "good" if before else "500") as server:
        found = ask(server, asked, max_calls=15, cache=ReplyCache(tmp_path), concurrency=2)
        assert found.calls == len(server.asked) == 15
        assert 5 <= len(found.replies) == 10 - len(found.missing) < 10
        assert {why for _, why in found.missing} == {"not asked: the limit of 15 calls is reached"}
        rest = ask(server, asked, max_calls=15, cache=ReplyCache(tmp_path))
        assert (rest.missing, rest.cached) == ([], len(found.replies))


def test_fresh_asks_again_and_keeps_the_new(tmp_path: Path) -> None:
    (one,) = questions(1)
    with Server(lambda text, before: good(f"Reply {before}.")) as server:
        for options, expected in [
            ({}, "Reply 0."),
            ({}, "Reply 0."),
            ({"fresh": True}, "Reply 1."),
            ({}, "Reply 1."),
        ]:
            found = ask(server, [one], cache=ReplyCache(tmp_path), **options)
            assert found.replies == {one.id: [expected]}


# -- useless replies


@pytest.mark.parametrize("did", ["empty", "refusal"])
def test_useless_replies_are_asked_for_twice_more_and_kept(did: str, tmp_path: Path) -> None:
    (one,) = questions(1)
    with Server(always(did)) as server:
        found = ask(server, [one], cache=ReplyCache(tmp_path))
        assert (found.calls, len(found.replies[one.id]), found.missing) == (3, 1, [])
        assert ask(server, [one], cache=ReplyCache(tmp_path)).calls == 0


def test_the_callers_problem_counts() -> None:
    (one,) = questions(1, form="list")
    said: list[str] = []

    def problem(query: Query, text: str) -> str:
        said.append(text)
        return "" if "2" in text else "no list"

    with Server(lambda text, before: good(f"item {before}")) as server:
        found = ask(server, [one], problem=problem)
    assert (found.replies[one.id], said) == (["item 2"], ["item 0", "item 1", "item 2"])


def test_a_withheld_reply_is_a_refusal() -> None:
    held = {"message": {"content": "It is a"}, "finish_reason": "content_filter"}
    refusal = {"message": {"content": None, "refusal": "I won't."}, "finish_reason": "stop"}
    for plan in (
        always("200 " + json.dumps({"choices": [held]})),
        always("200 " + json.dumps({"choices": [refusal]})),
        always(fault(400, "Filtered.", code="content_filter")),
    ):
        (one,) = questions(1)
        with Server(plan) as server:
            found = ask(server, [one])
        assert is_refusal(found.replies[one.id][0])
        assert found.calls == 3


def test_hostile_replies_stay_text(tmp_path: Path) -> None:
    said = 'a\ud800b\x00\x1b[31m\u202e<script>{name}\n"\\ ' + "x" * 2**20
    (one,) = questions(1)
    with Server(always(good(said))) as server:
        found = ask(server, [one], cache=ReplyCache(tmp_path))
        again = ask(server, [one], cache=ReplyCache(tmp_path))
    assert found.replies == again.replies == {one.id: [said.replace("\ud800", "\ufffd")]}
    json.dumps(found.replies, ensure_ascii=False).encode()


def test_hostile_questions_are_sent() -> None:
    one = Query.make("c", "", "look", 'half \ud800, "quoted"\x00')
    with Server() as server:
        assert ask(server, [one]).calls == 1
    assert server.asked[0].text == one.text


# -- servers that refuse


def refusing(*told: tuple[str, str], status: int = 400) -> Any:
    """Finds fault with fields of the body."""
    return lambda body: next((fault(status, said) for name, said in told if name in body), "")


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize("concurrency", [1, 8])
def test_schema_falls_back(concurrency: int, status: int) -> None:
    asked = questions(20, form="list")
    said = "'response_format': Input should be 'text' or 'json_object', not 'json_schema'"
    refuse = refusing(("response_format", said), status=status)
    with Server(refuse=refuse) as server, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = ask(server, asked, concurrency=concurrency)
    assert found.replies == {q.id: [right(q.text)] for q in asked}
    assert sum("response_format" in one.body for one in server.asked) <= concurrency
    assert ["JSON schema" in str(w.message) for w in told] == [True]


@pytest.mark.parametrize(
    "form, names", [("list", ["items"]), ("two_lists", ["a", "b"]), ("text", None)]
)
def test_schema_is_sent(form: Any, names: list[str] | None) -> None:
    with Server() as server:
        ask(server, questions(1, form=form))
        ask(server, questions(1, form=form), mode="completion")
        ask(server, questions(1, form=form), schema="off")
    first, *others = (one.body.get("response_format") for one in server.asked)
    assert others == [None, None]
    if names is None:
        assert first is None
    else:
        assert first is not None
        assert first["type"] == "json_schema"
        assert first["json_schema"]["strict"] is True
        assert first["json_schema"]["schema"]["required"] == names


def test_schema_on_does_not_fall_back() -> None:
    plan = always(fault(400, "response_format is not supported"))
    with Server(plan) as server, pytest.raises(LLMError, match="response_format is not"):
        ask(server, questions(1, form="list"), schema="on")


def test_newer_models_are_asked_in_their_manner() -> None:
    refuse = refusing(
        ("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        ("temperature", "Unsupported value: 'temperature' does not support 0.7 with this model."),
        ("stop", "Unsupported parameter: 'stop' is not supported with this model."),
    )
    asked = questions(10, temperature=0.7, stop=" like ")
    with Server(refuse=refuse) as server, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = ask(server, asked, concurrency=1)
    assert found.replies == {q.id: ["It looks"] for q in asked}, "cut here at the stop text"
    assert (found.calls, len(told)) == (13, 3)
    assert set(server.asked[-1].body) == {"model", "messages", "max_completion_tokens"}


@pytest.mark.parametrize(
    "status, do", [(401, "BYNAME_LLM_KEY"), (403, "BYNAME_LLM_KEY"), (404, "'m'"), (400, "model")]
)
def test_final_errors(status: int, do: str) -> None:
    with Server(always(fault(status, "Go\n away"))) as server:
        with pytest.raises(LLMError, match=f"HTTP {status}: Go away") as caught:
            ask(server, questions(100), concurrency=4)
        assert len(server.asked) <= 4
    assert server.url in str(caught.value)
    assert do in caught.value.do


def test_an_error_in_the_middle_keeps_what_came(tmp_path: Path) -> None:
    asked = questions(10)
    last = asked[-1].text

    def plan(text: str, before: int) -> str:
        return fault(402, "pay") if text == last else "good"

    with Server(plan) as server, pytest.raises(LLMError, match="HTTP 402: pay") as caught:
        ask(server, asked, concurrency=1, cache=ReplyCache(tmp_path))
    assert len(caught.value.answers.replies) == 9
    assert len(caught.value.answers.missing) == 1


def test_an_empty_account_is_not_asked_again() -> None:
    plan = always(fault(429, "You exceeded your quota", code="insufficient_quota"))
    with Server(plan) as server, pytest.raises(LLMError, match="exceeded your quota"):
        ask(server, questions(1))
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4097 tokens",
        "the request exceeds the available context size, try increasing it",
    ],
)
def test_a_question_that_is_too_long_is_missing(message: str) -> None:
    asked = questions(30)
    with Server(lambda text, before: "good" if " 7 " in text else fault(400, message)) as server:
        found = ask(server, asked)
    assert list(found.replies) == [asked[7].id]
    assert len(found.missing) == 29
    assert all(why.startswith("too long for the model") for _, why in found.missing)


def test_a_redirect_is_not_followed() -> None:
    with Server(always("307 {}")) as server, pytest.raises(LLMError, match="it redirects to"):
        ask(server, questions(1))


# -- servers that are broken


def test_a_server_that_is_down() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(LLMError, match="it cannot be reached") as caught:
        LLM(url, "m", backoff=0.001, retries=2).ask(questions(500))
    assert url in str(caught.value)
    assert len(caught.value.answers.missing) == 500
    with pytest.raises(LLMError, match="it cannot be reached"):
        LLM(url, backoff=0.001, retries=2).ask(questions(5))


def test_twenty_failures_in_a_row_end_the_run() -> None:
    asked = questions(100)
    with Server(lambda text, before: "500" if " 1" not in text else "good") as server:
        with pytest.raises(LLMError, match="20 questions in a row") as caught:
            ask(server, asked, retries=1, concurrency=1)
        assert len(caught.value.answers.replies) == 11
        assert server.url in str(caught.value)


def test_a_question_that_fails_is_missing_with_its_reason() -> None:
    asked = questions(12)
    with Server(lambda text, before: "502" if " 7 " in text else "good") as server:
        found = ask(server, asked, retries=3)
    assert [(q.id, why) for q, why in found.missing] == [
        (asked[7].id, "failed 4 times, at last: HTTP 502: an HTML page")
    ]
    assert len(found.replies) == 11


def test_too_large_a_body_is_not_read() -> None:
    with Server(always(good("x" * (MAX_BYTES + 10)))) as server:
        found = ask(server, questions(1), retries=1)
    assert "more than 2,097,152 bytes" in found.missing[0][1]


@pytest.mark.parametrize("did", ["hang", "slow"])
def test_the_time_limit_is_for_the_whole_request(did: str) -> None:
    with Server(always(did)) as server:
        started = time.monotonic()
        found = ask(server, questions(1), timeout=0.3, retries=1)
        assert 0.5 < time.monotonic() - started < 5
    assert "no whole answer within 0.3 s" in found.missing[0][1]


def test_retry_after_slows_all_workers() -> None:
    def plan(text: str, before: int) -> str:
        return "429" if len(server.asked) == 20 else "good"

    with Server(plan, retry_after="1", delay=0.002) as server:
        found = ask(server, questions(60), concurrency=4)
    assert len(found.replies) == 60
    at = next(one.at for one in server.asked if one.did == "429")
    meanwhile = [one for one in server.asked if at + 0.2 < one.at < at + 0.9]
    assert meanwhile == [], "while the server wants a pause, nobody asks"


def test_retry_after_dates() -> None:
    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 25 < (retry_after(soon) or 0) <= 30
    assert retry_after("9" * 8) == 99_999_999
    assert [retry_after(text) for text in ("", "nan", "-1", "inf", "x" * 999)] == [None] * 5


# -- the key

KEY = "sk-planted/key+4711=abcdef"


def test_a_planted_key_is_nowhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("BYNAME_LLM_KEY", KEY)
    caplog.set_level("DEBUG")
    told: list[str] = []
    asked = questions(6, form="list")

    def plan(text: str, before: int) -> str:
        if " 5 " in text:
            return fault(500, f"Bearer {KEY}")
        return good(f"- the key {KEY}") if before else fault(400, f"response_format: {KEY}")

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with Server(plan) as server:
            llm = LLM(server.url, "m", cache=ReplyCache(tmp_path), backoff=0.001, retries=1)
            found = llm.ask(asked[:1] + asked[5:])
            told += [repr(llm), str(vars(llm)), str(found)]
            assert {one.headers["Authorization"] for one in server.asked} == {f"Bearer {KEY}"}
        assert found.replies[asked[0].id] == ["- the key [key]"]
        for status in (400, 401, 404, 429):
            said = f"bad key {KEY} sk-plant****cdef {json.dumps(KEY)}"
            with Server(always(fault(status, said, code=KEY))) as server:
                llm = LLM(server.url, "m", cache=ReplyCache(tmp_path), backoff=0.001, retries=0)
                try:
                    told.append(str(llm.ask(asked[1:2])))
                except LLMError as error:
                    told += [str(error), repr(error), str(error.answers)]
                assert "[key]" in told[-1] + told[-2] + told[-3]
            with Server(models=[KEY, "b"]) as server:
                with pytest.raises(LLMError) as caught:
                    LLM(server.url).plan(asked)
                told.append(str(caught.value))
    out, err = capfd.readouterr()
    told += [out, err, caplog.text, *(str(w.message) for w in warned)]
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.name == "replies.sqlite" for file in files)
    everything = "\n".join(told).encode() + b"".join(file.read_bytes() for file in files)
    for form in (KEY, KEY[:8], KEY[-8:], "sk-plant"):
        assert form.encode() not in everything
