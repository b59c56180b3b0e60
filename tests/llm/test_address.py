from __future__ import annotations

import base64
import json
import pickle
import re
import time
import warnings

import pytest

from byname.errors import UsageError
from byname.llm.address import Key, base_url, find_key, one_line

KEY = "sk-planted-4711"
OPENAI = "https://api.openai.com/v1"


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BYNAME_LLM_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "given, expected",
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        (" http://LOCALHOST:8000/v1/ ", "http://localhost:8000/v1"),
        ("https://api.openai.com:443/v1", OPENAI),
        ("https://h/openai/v1/chat/completions", "https://h/openai/v1"),
        ("https://h/v1beta/openai/", "https://h/v1beta/openai"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_addresses(given: str, expected: str) -> None:
    assert base_url(given) == expected


@pytest.mark.parametrize(
    "given", ["localhost:8000", "ftp://h/v1", "http://", "", "file:///etc", "http://h:x/", "http:"]
)
def test_no_addresses(given: str) -> None:
    with pytest.raises(UsageError, match="Give it as http://localhost:8000/v1"):
        base_url(given)


@pytest.mark.parametrize(
    "given", [f"http://u:{KEY}@h/v1", f"http://h/v1?key={KEY}", f"http://h/v1#{KEY}", f"{KEY}@h"]
)
def test_addresses_with_secrets(given: str) -> None:
    with pytest.raises(UsageError, match="Put the key in BYNAME_LLM_KEY") as caught:
        base_url(given)
    assert KEY not in str(caught.value)


def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(url: str, key_env: str | None = None) -> str:
        return find_key(url, key_env).headers().get("Authorization", "none")

    assert found(OPENAI) == "none"
    monkeypatch.setenv("OPENAI_API_KEY", "openai")
    assert found(OPENAI) == "Bearer openai"
    for other in (
        "http://localhost:8000/v1",
        "https://api.openai.com.evil.org/v1",
        "https://evil.org/api.openai.com",
        "http://api.openai.com/v1",
    ):
        assert found(other) == "none"
    monkeypatch.setenv("BYNAME_LLM_KEY", "ours")
    assert found(OPENAI) == found("https://other.org/v1") == "Bearer ours"
    monkeypatch.setenv("MINE", "mine")
    assert found(OPENAI, "MINE") == "Bearer mine"
    monkeypatch.setenv("MINE", "")
    with pytest.raises(UsageError, match="no such variable"):
        find_key(OPENAI, "MINE")


@pytest.mark.parametrize("end", ["\n", " ", "é", "\x7f", "\r\nX: y"])
def test_keys_that_no_header_holds(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYNAME_LLM_KEY", KEY + end)
    with pytest.raises(UsageError, match="the key in BYNAME_LLM_KEY") as caught:
        find_key(OPENAI)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url, warned",
    [
        ("http://llm.example.org/v1", True),
        ("http://8.8.8.8/v1", True),
        ("https://llm.example.org/v1", False),
        ("http://192.168.1.5:8000/v1", False),
        ("http://localhost:8000/v1", False),
        ("http://ollama:11434/v1", False),
        ("http://[::1]:1/v1", False),
    ],
)
def test_keys_in_the_clear(url: str, warned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYNAME_LLM_KEY", KEY)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        find_key(url)
    assert [KEY in str(w.message) for w in told] == [False] * warned


def test_a_key_is_hidden() -> None:
    key = Key('sk-"quoted"/4711')
    assert repr(key) == "[key]"
    for shown in ('sk-"quoted"/4711', json.dumps('sk-"quoted"/4711'), "sk-%22quoted%22%2F4711"):
        assert "4711" not in key.hide(f"it is {shown} there")
    assert Key(KEY).hide("sk-pl***711 is bad, sk-pl**") == "[key] is bad, [key]"
    assert (bool(Key()), Key().hide("a"), Key().headers()) == (False, "a", {})
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)


def test_keys_that_are_words_stay_in_replies() -> None:
    assert Key("none").hide_in_reply("It has none.") == "It has none."
    assert Key(KEY).hide_in_reply(f"It is {KEY}.") == "It is [key]."


def test_one_line() -> None:
    assert one_line("a\n\x1b[31mb\u202ec\x00") == "a [31mb c"
    assert len(one_line("x" * 10**6)) == 300


@pytest.mark.parametrize("word", ["not-needed", "lm-studio"])
def test_keys_of_servers_without_keys_stay_in_replies(word: str) -> None:
    text = f"It is **{word}** here, and not*so* there."
    assert Key(word).hide_in_reply(text) == text


def test_replies_are_changed_for_the_whole_key_alone() -> None:
    text = "It has **the-best** ears, the* and the... tail."
    assert Key("the-secret").hide_in_reply(text) == text
    long = Key("sk-planted-4711-abcdefghijkl")
    text = "sk-planted** and sk-planted-4711"
    assert long.hide_in_reply(text) == text
    for before in ("", "a", "ab"):
        packed = base64.b64encode(f"{before}sk-planted-4711-abcdefghijkl".encode()).decode()
        assert packed[6:-4] not in long.hide_in_reply(f"It is {packed}.")


def test_what_errors_show_of_a_key() -> None:
    value = "sk-planted-4711-abcdefghijkl"
    key = Key(value)
    packed = base64.b64encode(value.encode()).decode()
    for shown in (
        value.upper(),
        value[:12],
        value[-9:],
        value[5:].title(),
        f"{value[:6]}...{value[-6:]}",
        f"{value[:4]}…{value[-4:]}",
        f"*****{value[-4:]}",
        f"{value[:9]}\u200b{value[9:]}",
        f"{value[:5]}\x00{value[5:7]}\u2060{value[7:]}",
        value + value[-8:],
        packed,
        packed.rstrip("="),
    ):
        told = key.hide(f"it is {shown} there")
        assert "[key]" in told
        assert re.fullmatch(r"it is \**(\[key\])+\w?=* there", told)
    assert key.hide("a sk-plan of 4711") == "a sk-plan of 4711"


@pytest.mark.parametrize("part", ["sk-", "sk-planted-", "*", "a", "abcdefghijkl", "\u200b", ". "])
def test_hiding_takes_linear_time(part: str) -> None:
    key = Key("sk-planted-4711-abcdefghijkl")
    text = part * (2_000_000 // len(part))
    started = time.process_time()
    key.hide_in_reply(text)
    one_line(text, hide=key.hide)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("before", [*range(276, 301, 3), *range(1160, 1204, 4), 30_000])
def test_a_key_is_hidden_before_the_text_is_cut(before: int) -> None:
    key = Key("sk-planted-4711-abcdefghijkl")
    for fill in ("x", " ", "\n"):
        told = one_line(fill * before + " sk-planted-4711-abcdefghijkl", hide=key.hide)
        assert "sk-" not in told
        assert len(told) <= 300


@pytest.mark.parametrize(
    "name, shown",
    [
        ("MY_KEY", "'MY_KEY'"),
        ("my_key_2", "'my_key_2'"),
        (KEY, "the name given"),
        ("sk_live_abc", "the name given"),
        ("gsk_abcdef", "the name given"),
        ("aB3" * 20, "the name given"),
        ("A" * 62, "the name given"),
    ],
)
def test_a_key_given_for_its_variables_name(name: str, shown: str) -> None:
    with pytest.raises(UsageError, match="no such variable") as caught:
        find_key(OPENAI, name)
    assert f"from {shown}:" in str(caught.value)


@pytest.mark.parametrize(
    "given",
    ["http://xn--/v1", "http://h:99999/v1", "http://h:0/v1", "http://" + "a" * 70 + ".\u2603"],
)
def test_addresses_that_nobody_can_have(given: str) -> None:
    with pytest.raises(UsageError, match="Give it as http://localhost:8000/v1") as caught:
        base_url(given)
    assert given[:16] in str(caught.value)
