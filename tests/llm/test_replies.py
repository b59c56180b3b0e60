from __future__ import annotations

import sqlite3
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.cache import KINDS
from byname.llm.replies import ReplyCache, StoredReply, reply_key
from byname.queries import Query

ANY_TEXT = st.text(st.characters())  # halves of characters and control characters among them


def keys(n: int, start: int = 0) -> list[bytes]:
    return [i.to_bytes(32, "big") for i in range(start, start + n)]


def stored(cache: ReplyCache, n: int) -> dict[bytes, str]:
    return {key: reply.text for key, reply in cache.lookup(keys(n)).items()}


def no_warnings() -> Any:
    return warnings.catch_warnings(action="error")


def test_the_key_is_made_of_all_that_a_reply_depends_on() -> None:
    def key(url: str = "u", model: str = "m", mode: str = "chat", n: int = 0, **more: Any) -> bytes:
        given = {"class_id": "c", "about": "", "kind": "k", "text": "t", **more}
        return reply_key(url, model, mode, Query.make(**given), n)

    others = [
        key(url="v"),
        key(model="n"),
        key(mode="completion"),
        key(n=1),
        key(text="u"),
        key(stop="."),
        key(temperature=0.5),
        key(max_tokens=5),
        key(form="list"),
        key(text="\ud800"),
    ]
    assert len({key(), *others}) == 11
    assert key(class_id="d", about="e", kind="f") == key()


def test_a_half_full_cache_of_50000(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path)
    cache.lookup([])
    with sqlite3.connect(cache.path) as db:
        rows = [(key, b"reply %d" % i, "stop", "m", 1.0) for i, key in enumerate(keys(25_000))]
        db.executemany("INSERT INTO replies VALUES (?, ?, ?, ?, ?)", rows)
    db.close()
    found = cache.lookup(keys(50_000))
    assert len(found) == 25_000
    assert found[keys(1, 24_999)[0]] == StoredReply("reply 24999", "stop", "m", 1.0)
    cache.close()


@given(text=ANY_TEXT, finish=st.sampled_from(["", "stop"]))
def test_any_text_comes_back(text: str, finish: str, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("c")
    cache, other = ReplyCache(folder), ReplyCache(folder)
    cache.put(b"k", StoredReply(text, finish, "m"))
    found = other.lookup([b"k"])[b"k"]
    assert (found.text, found.finish, found.model) == (text, finish, "m")
    assert found.time > 1e9
    cache.close()
    other.close()


def test_it_lies_where_the_cache_is_cleared(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path)
    assert list(tmp_path.iterdir()) == [], "nothing is made before it is needed"
    cache.put(b"k", StoredReply("a"))
    cache.close()
    assert cache.path == tmp_path / "replies" / "replies.sqlite"
    assert "replies" in KINDS


@pytest.mark.parametrize("damage", ["no database", "broken page", "other table"])
def test_a_damaged_file_is_set_aside(damage: str, tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path)
    for key in keys(300):
        cache.put(key, StoredReply("x" * 300))
    cache.close()
    whole = cache.path.read_bytes()
    if damage == "no database":
        cache.path.write_bytes(b"hello" * 5000)
    elif damage == "broken page":
        cache.path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    else:
        with sqlite3.connect(cache.path) as db:
            db.execute("DROP TABLE replies")
            db.execute("CREATE TABLE replies (other)")
        db.close()
    was = cache.path.read_bytes()
    cache = ReplyCache(tmp_path)
    with pytest.warns(UserWarning, match=r"now 'replies\.sqlite\.damaged-1'"):
        assert cache.lookup(keys(300)) == {}
    assert cache.path.with_name("replies.sqlite.damaged-1").read_bytes() == was
    with no_warnings():
        cache.put(b"k", StoredReply("new"))
        assert cache.lookup([b"k"])[b"k"].text == "new"
        cache.close()
    cache.path.write_bytes(b"hello" * 5000)
    with pytest.warns(UserWarning, match="damaged-2"):
        ReplyCache(tmp_path).put(b"k", StoredReply("a"))


def test_two_that_meet_a_damaged_file_set_it_aside_once(tmp_path: Path) -> None:
    first, second = ReplyCache(tmp_path), ReplyCache(tmp_path)
    first.put(b"k", StoredReply("a"))
    first.close()
    first.path.write_bytes(b"hello" * 5000)
    second._opened = (first.path.stat().st_dev, first.path.stat().st_ino)
    with pytest.warns(UserWarning, match="damaged-1"):
        first.put(b"k", StoredReply("b"))
    with no_warnings():
        assert second._set_aside(), "what it saw damaged is gone already"
        assert second.lookup([b"k"])[b"k"].text == "b"
    assert len(list(first.path.parent.glob("*.damaged-*"))) == 1


def test_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "replies").write_text("a file")
    cache = ReplyCache(tmp_path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for key in keys(10):
            cache.put(key, StoredReply("a"))
        assert stored(cache, 20) == dict.fromkeys(keys(10), "a"), "they stay in memory"
        cache.close()
    assert ["Replies cannot be kept in" in str(w.message) for w in told] == [True]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byname.llm.replies._PAUSE", 0.0)
    cache = ReplyCache(tmp_path)
    cache.put(keys(1)[0], StoredReply("a"))
    assert cache._db is not None
    cache._db.execute("PRAGMA max_page_count=4")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for key in keys(20, 1):
            cache.put(key, StoredReply("x" * 1000))
    assert ["is full" in str(w.message) for w in told] == [True]
    assert len(cache.lookup(keys(21))) == 21
    cache._db.execute("PRAGMA max_page_count=4000")  # somebody made room
    cache.close()
    assert len(ReplyCache(tmp_path).lookup(keys(21))) == 21


def test_a_folder_that_is_read_only_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ReplyCache(tmp_path)
    cache.put(b"k", StoredReply("a"))
    cache.close()

    def refused(path: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    # The rights of a folder do not bind those who run tests as root.
    monkeypatch.setattr("byname.llm.replies._making", refused)
    cache = ReplyCache(tmp_path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert cache.lookup([b"k"])[b"k"].text == "a"
        cache.put(b"l", StoredReply("b"))
    assert ["Permission denied" in str(w.message) for w in told] == [True]
    assert cache.lookup([b"l"])[b"l"].text == "b"
    cache.close()
