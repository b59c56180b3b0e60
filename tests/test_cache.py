"""The cache folder, atomic writes, and the store of text vectors."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from byname.cache import (
    TextCache,
    cache_dir,
    cache_entries,
    clear_cache,
    working_dir,
)
from byname.errors import CacheError
from tests.helpers import DIM, FakeEncoder, as_nobody, open_to_all

Encode = Callable[[Sequence[str]], NDArray[np.float32]]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recorder(calls: list[list[str]]) -> Encode:
    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        calls.append(list(texts))
        return FakeEncoder().encode_texts(texts)

    return encode


# The folder


def test_the_folder_is_made(base: Path) -> None:
    assert cache_dir() == base
    assert base.is_dir()


def test_without_the_variable_it_is_the_systems_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYNAME_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in cache_dir().parents


@pytest.mark.parametrize("below", ["", "sub/folder"])
def test_a_file_in_its_place(base: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    base.write_text("not a folder")
    monkeypatch.setenv("BYNAME_CACHE", str(base / below))
    with pytest.raises(CacheError) as caught:
        cache_dir()
    text = str(caught.value)
    assert text.startswith(f"cannot use the cache folder '{base / below}': ")
    assert text.endswith(". Set BYNAME_CACHE to a folder that you can write to.")
    assert "None" not in text


def test_a_read_only_folder_of_an_unprivileged_user(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base.mkdir()
    base.chmod(0o555)
    open_to_all(base)
    monkeypatch.setattr(tempfile, "tempdir", None)

    def action() -> None:
        with pytest.raises(CacheError, match="no permission to write there"):
            cache_dir()
        with pytest.warns(UserWarning, match="Going on without a cache"):
            (working_dir() / "a").write_text("works")

    as_nobody(action)


def test_working_dir_falls_back_once_and_says_so(base: Path) -> None:
    base.write_text("not a folder")
    with pytest.warns(UserWarning, match="cannot use the cache folder .* Going on without a cache"):
        first = working_dir()
    with pytest.warns(UserWarning, match="Going on without a cache"):
        assert working_dir() == first
    assert first.is_dir()
    assert base.read_text() == "not a folder"


def test_working_dir_is_the_cache_where_that_works(base: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert working_dir() == base


# Texts


def test_only_unknown_texts_are_encoded_each_once_in_order(base: Path) -> None:
    calls: list[list[str]] = []
    store = TextCache(base, "f", DIM)
    texts = ["a dog", "a cat", "a dog", "", "a cat"]
    first = store.encode(texts, recorder(calls))
    assert sorted(calls[0]) == ["", "a cat", "a dog"]
    assert np.array_equal(first, FakeEncoder().encode_texts(texts))
    second = TextCache(base, "f", DIM).encode(["a bird", *texts], recorder(calls))
    assert calls[1:] == [["a bird"]]
    assert np.array_equal(second[1:], first)
    assert second.dtype == np.float32


def test_no_texts(base: Path) -> None:
    calls: list[list[str]] = []
    assert TextCache(base, "f", DIM).encode([], recorder(calls)).shape == (0, DIM)
    assert calls == []


def test_each_block_is_kept_even_if_the_next_one_fails(base: Path) -> None:
    calls: list[list[str]] = []
    seen: list[tuple[int, int]] = []
    texts = [f"text {i:02d}" for i in range(10)]

    def failing(texts: Sequence[str]) -> NDArray[np.float32]:
        if calls:
            raise KeyboardInterrupt
        return recorder(calls)(texts)

    with pytest.raises(KeyboardInterrupt):
        TextCache(base, "f", DIM).encode(texts, failing, lambda *x: seen.append(x), block=4)
    assert seen == [(4, 10)]
    again = TextCache(base, "f", DIM).encode(texts, recorder(calls), block=4)
    assert [len(c) for c in calls] == [4, 4, 2]
    assert sorted(text for call in calls for text in call) == texts
    assert np.array_equal(again, FakeEncoder().encode_texts(texts))


@pytest.mark.parametrize("damage", ["text", "cut", "middle"])
def test_a_damaged_file_is_replaced(base: Path, damage: str) -> None:
    texts = [f"text {i}" for i in range(300)]
    store = TextCache(base, "f", DIM)
    wanted = store.encode(texts, FakeEncoder().encode_texts)
    data = store.path.read_bytes()
    if damage == "text":
        store.path.write_text("this is no database, and it is long enough to be looked at" * 9)
    elif damage == "cut":
        store.path.write_bytes(data[: len(data) // 2])
    else:
        store.path.write_bytes(data[:4096] + b"\xff" * 8192 + data[12288:])
    calls: list[list[str]] = []
    assert np.array_equal(store.encode(texts, recorder(calls)), wanted)
    assert calls
    calls.clear()
    assert np.array_equal(store.encode(texts, recorder(calls)), wanted)
    assert calls == []


def test_a_folder_in_the_files_place_costs_only_speed(base: Path) -> None:
    (base / "texts" / "f.sqlite").mkdir(parents=True)
    (base / "other").mkdir()
    (base / "other" / "texts").write_text("a file where the folder should be")
    for place in (base, base / "other"):
        calls: list[list[str]] = []
        for _ in range(2):
            assert TextCache(place, "f", DIM).encode(["a"], recorder(calls)).shape == (1, DIM)
        assert calls == [["a"], ["a"]]


@pytest.mark.parametrize("value", [b"", b"12345", bytes(4 * DIM + 4), "text", None, 7])
def test_values_of_another_width_are_ignored(base: Path, value: object) -> None:
    store = TextCache(base, "f", DIM)
    wanted = store.encode(["a"], FakeEncoder().encode_texts)
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE v SET x = ?", (value,))
    db.close()
    calls: list[list[str]] = []
    assert np.array_equal(store.encode(["a"], recorder(calls)), wanted)
    assert calls == [["a"]]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.text(st.characters(codec=None), max_size=5), max_size=8))
def test_any_texts(tmp_path: Path, texts: list[str]) -> None:
    store, calls = TextCache(tmp_path, "any", DIM), []
    found = store.encode(texts, recorder(calls), block=3)
    assert np.array_equal(found, FakeEncoder().encode_texts(texts))
    calls.clear()
    assert np.array_equal(store.encode(texts, recorder(calls)), found)
    assert calls == []


def test_lone_surrogates_and_look_alikes_are_different_texts(base: Path) -> None:
    texts = ["\ud800", "\udcff", "é", "e\u0301", "\x00", "\\ud800"]
    found = TextCache(base, "f", DIM).encode(texts, FakeEncoder().encode_texts)
    assert len(np.unique(found, axis=0)) == len(texts)


def test_more_texts_than_one_query_can_name(base: Path) -> None:
    texts = [str(i) for i in range(1201)]
    store, calls = TextCache(base, "f", DIM), []
    first = store.encode(texts, FakeEncoder().encode_texts)
    assert np.array_equal(store.encode(texts[::-1], recorder(calls)), first[::-1])
    assert calls == []


def test_two_processes_at_once(base: Path) -> None:
    code = """
import sys
from pathlib import Path
from byname.cache import TextCache
from tests.helpers import DIM, FakeEncoder
shift = int(sys.argv[2])
texts = [f"text {i + shift}" for i in range(300)]
found = TextCache(Path(sys.argv[1]), "f", DIM).encode(texts, FakeEncoder().encode_texts, block=5)
assert (found == FakeEncoder().encode_texts(texts)).all()
"""
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(base), str(shift)])
        for shift in (0, 0, 150)
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    calls: list[list[str]] = []
    TextCache(base, "f", DIM).encode([f"text {i}" for i in range(450)], recorder(calls))
    assert calls == []


# Showing and clearing


def test_entries_and_clearing(base: Path) -> None:
    (base / "runs" / "a").mkdir(parents=True)
    (base / "runs" / "a" / "x").write_bytes(bytes(10))
    (base / "texts").mkdir()
    (base / "texts" / "y").write_bytes(bytes(3))
    assert [(e.kind, e.files, e.bytes) for e in cache_entries()] == [
        ("runs", 1, 10),
        ("texts", 1, 3),
    ]
    assert clear_cache("texts") == 3
    assert [e.kind for e in cache_entries()] == ["runs"]
    with pytest.raises(CacheError) as caught:
        clear_cache("text")
    assert str(caught.value) == (
        "cannot clear 'text': the cache holds no such part. It holds: runs."
    )
    assert clear_cache() == 10
    assert clear_cache() == 0
    with pytest.raises(CacheError, match="It holds: nothing"):
        clear_cache("runs")


def test_replies_go_only_when_named(base: Path) -> None:
    (base / "replies").mkdir(parents=True)
    (base / "replies" / "replies.sqlite").write_bytes(b"paid")
    assert clear_cache() == 0
    assert clear_cache("replies") == 4


def test_clearing_never_deletes_what_is_not_bynames(base: Path) -> None:
    (base / "thesis").mkdir(parents=True)
    (base / "thesis" / "chapter.tex").write_text("years of work")
    (base / "runs").mkdir()
    assert clear_cache() == 0
    assert [p.name for p in base.iterdir()] == ["thesis"]
    with pytest.raises(CacheError, match="no such part"):
        clear_cache("thesis")


def test_what_cannot_be_deleted_is_said(base: Path, tmp_path: Path) -> None:
    base.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (base / "runs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError) as caught:
        clear_cache()
    assert str(caught.value).startswith(f"cannot delete '{base / 'runs'}': ")
    assert "None" not in str(caught.value)


def test_a_file_that_vanishes_meanwhile_is_not_counted(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (base / "runs").mkdir(parents=True)
    (base / "runs" / "x").symlink_to(base / "gone")
    assert [(e.files, e.bytes) for e in cache_entries()] == [(0, 0)]
