"""The limit of calls over several rounds, what is not kept, and odd names and addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from byname.errors import UsageError
from byname.llm import LLM, LLMError, ReplyCache
from byname.queries import is_refusal
from tests.llm.server import Server, questions, right
from tests.llm.test_client import KEY, ask

# -- the limit, over several rounds


def test_the_limit_is_for_all_rounds(tmp_path: Path) -> None:
    asked = questions(12)
    with Server() as server:
        llm = LLM(server.url, "m", max_calls=8, cache=ReplyCache(tmp_path), concurrency=1)
        with pytest.raises(UsageError, match="12 calls are needed, and at most 8"):
            llm.ask(asked)
        assert (llm.calls, server.asked) == (0, [])
        assert llm.ask(asked[:5]).calls == llm.calls == 5
        later = llm.ask(asked)
        assert (later.calls, later.cached, llm.calls, len(server.asked)) == (3, 5, 8, 8)
        assert len(later.replies) == 8
        assert [q for q, _ in later.missing] == asked[8:]
        assert {why for _, why in later.missing} == {"not asked: the limit of 8 calls is reached"}
        assert llm.ask(asked).calls == 0
        assert len(server.asked) == 8


@pytest.mark.parametrize("after", ["limit", "502"])
@pytest.mark.parametrize("did", ["empty", "refusal"])
def test_useless_replies_that_could_not_be_asked_again_are_not_kept(
    did: str, after: str, tmp_path: Path
) -> None:
    (one,) = questions(1)
    kept = ReplyCache(tmp_path)

    def plan(text: str, before: int) -> str:
        return did if before == 0 or after == "limit" else "502"

    with Server(plan) as server:
        options = {"max_calls": 2} if after == "limit" else {"retries": 0}
        assert len(ask(server, [one], cache=kept, **options).replies[one.id]) == 1
        assert LLM(server.url, "m", cache=kept).plan([one]).calls == 1


def test_a_useless_reply_is_asked_again_by_the_next_run(tmp_path: Path) -> None:
    (one,) = questions(1)
    with Server(lambda text, before: "refusal" if before < 2 else "good") as server:
        first = ask(server, [one], cache=ReplyCache(tmp_path), max_calls=2)
        assert is_refusal(first.replies[one.id][0])
        second = ask(server, [one], cache=ReplyCache(tmp_path), max_calls=2)
        assert (second.calls, second.replies) == (1, {one.id: [right(one.text)]})


def test_samples_that_are_there_are_not_asked(tmp_path: Path) -> None:
    asked = questions(3, samples=3)
    have = {asked[0].id: 2, asked[1].id: 7, asked[2].id: -1}
    with Server() as server:
        llm = LLM(server.url, "m", cache=ReplyCache(tmp_path))
        plan, found = llm.plan(asked, have=have), llm.ask(asked, have=have)
        assert (plan.queries, plan.calls, found.calls, found.missing) == (2, 4, 4, [])
        assert {key: len(r) for key, r in found.replies.items()} == {asked[0].id: 1, asked[2].id: 3}
        again = llm.ask(asked[:1])
        assert (again.calls, again.cached) == (2, 1), "the last sample was asked, and kept"
        assert llm.ask(asked[:1], have={asked[0].id: 2}).calls == 0


# -- names and addresses that servers and people give


@pytest.mark.parametrize(
    "name, seen",
    [
        ("m\x1b[31m\n", "control characters"),
        (" ", "empty"),
        ("m" * 201, "longer than 200"),
        ("m-sk-planted/key+4711=abcdef", "holds the key"),
        ("m-sk-planted/key", "holds the key"),
    ],
)
def test_odd_names_of_the_only_model(name: str, seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYNAME_LLM_KEY", KEY)
    with Server(models=[name]) as server, pytest.raises(LLMError, match=seen) as caught:
        LLM(server.url).ask(questions(1))
    assert "--llm-model" in str(caught.value)
    assert "planted" not in str(caught.value)
    assert str(caught.value).isprintable()
    with Server(models=[name, "a\nb"]) as server, pytest.raises(LLMError, match="has 2") as caught:
        LLM(server.url).ask(questions(1))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "error",
    [
        ExceptionGroup("several", [OverflowError("getsockaddrarg: port must be 0-65535")]),
        UnicodeError("label too long"),
        httpx.InvalidURL("odd"),
    ],
)
def test_other_errors_of_the_transport(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(httpx.AsyncClient, "stream", stream)
    for model in ("m", None):
        with pytest.raises(LLMError, match="nothing can be sent there: ") as caught:
            LLM("http://localhost:1", model).ask(questions(3))
        assert "http://localhost:1" in str(caught.value)
        assert "Check the address" in str(caught.value)
