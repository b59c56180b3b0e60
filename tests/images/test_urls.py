"""URLs as text: what is read, and what is shown of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.errors import ImageError
from byname.images.sources import item_keys, open_source
from byname.images.urls import is_url, key_of_url, listed_url, public_url, scheme_of

from .samples import keys, put, refusal


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://host/a/b.jpg", "https://host/a/b.jpg"),
        ("https://me:wo/rd@host/a.jpg", "https://..."),
        ("https://me:wo?rd@host/a.jpg", "https://..."),
        ("https://host:80/@me/a.jpg", "https://host:80/@me/a.jpg"),
        ("http://[::1]:80/a.jpg", "http://[::1]:80/a.jpg"),
        ("https://me:word@host:80/a.jpg?X-Amz-Signature=s#f", "https://host:80/a.jpg"),
        ("http://host?secret=1", "http://host"),
        ("http://a@b@host/x@y.jpg", "http://host/x@y.jpg"),
        ("s3://bucket/a#1.jpg?versionId=3", "s3://bucket/a#1.jpg"),
        ("s3://key:secret@bucket/a.jpg", "s3://bucket/a.jpg"),
        ("abfs://box@account.dfs.core.windows.net/a.jpg", None),
    ],
)
def test_what_is_shown_of_a_url(url: str, public: str | None) -> None:
    assert public_url(url) == (public or url)
    assert key_of_url(url) == (public or url)


@pytest.mark.parametrize(
    "text",
    [
        *("file:///etc/passwd", "FILE:///etc/passwd", "local:///a.jpg", "memory://a.jpg"),
        *("sftp://h/a.jpg", "ftp://h/a.jpg", "http://h/a.zip::file:///etc/a.jpg", "github://a/b"),
        *("http::file://a/b.jpg", "https://[::1]/a::file:///b", "refused://x", "data://x"),
    ],
)
def test_what_no_list_may_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "l.txt").write_text(f"{text}\n")
    (ref,) = open_source(tmp_path / "l.txt").refs
    with pytest.raises(ImageError, match=r"are not read from a list|does not exist|a refused URL"):
        ref.read()
    if is_url(text):
        assert scheme_of(listed_url(text)) == "refused"


def test_what_a_list_may_name() -> None:
    for text in ("https://[::1]:80/a.jpg", "s3://b/a.jpg", "hf://datasets/u/d/a.jpg", "gcs://b/a"):
        assert listed_url(text) == text
    assert listed_url("S3://B/A.jpg") == "s3://B/A.jpg"  # as the libraries know it


@given(st.text(max_size=40))
def test_any_text(text: str) -> None:
    for url in (text, f"http://{text}", f"file://{text}", f"x::{text}"):
        if is_url(url):
            assert is_url(public_url(url))
            assert scheme_of(listed_url(url)) in ("refused", scheme_of(url))


def test_a_list_of_urls_is_listed_without_a_request(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    lines = ["https://h/b.jpg?sig=1", "a.jpg", "https://h/get?id=1", "https://h/get?id=2"]
    (tmp_path / "l.txt").write_text("\n".join([*lines, lines[0]]))
    source = open_source(tmp_path / "l.txt")
    plain, one, two, last = keys(source)
    assert (plain, last) == ("a.jpg", "https://h/get#" + last[-12:])
    assert one == "https://h/b.jpg"
    assert two.startswith("https://h/get#")
    assert [ref.path for ref in source.refs if ref.key == one] == [lines[0]]
    assert {ref.path for ref in source.refs} >= set(lines) - {"a.jpg"}
    assert source.warnings == (
        "1 entries repeat the name of an earlier one and were left out (first: 'https://h/b.jpg')",
    )
    assert sorted(item_keys(lines)) == sorted(keys(open_source(lines)))
    assert item_keys(lines)[0] == "https://h/b.jpg"


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    put(tmp_path, "a b/c.jpg")
    assert open_source(f"file://{tmp_path}/a%20b") == open_source(tmp_path / "a b")
    assert "it does not exist" in refusal(f"file://{tmp_path}/a%20b/d")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert refusal("s3://me:word@b/f?x=1") == (
        "cannot read 's3://b/f': fsspec is not installed. Install it with: pip install "
        "'byname[remote]'."
    )
    (tmp_path / "l.txt").write_text("https://h/a.jpg?sig=1\n")
    (ref,) = open_source(tmp_path / "l.txt").refs
    with pytest.raises(
        ImageError, match=r"fsspec is not installed.*pip install 'byname\[remote\]'"
    ):
        ref.read()


def test_other_schemes_are_refused() -> None:
    text = refusal("sftp://me:word@h/f")
    assert text.startswith("cannot read 'sftp://h/f': URLs of the kind sftp:// are not read. Give ")
    assert "::" in refusal("s3://b/a.zip::file:///etc")
