"""Files written whole, and files from outside that are anything but what they should be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from byname import files
from byname.errors import EncoderError, OutputError, PromptError
from byname.files import (
    atomic_path,
    guess_delimiter,
    parse_json,
    read_json,
    read_text,
    write_text,
)

# Atomic writes


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_result_has_a_new_files_rights(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "a") as temporary:
            temporary.write_text("x")
        assert os.umask(0o027) == 0o027  # a library does not change it, not even for a moment
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "\N{CAT FACE}" * 63, "-rf *"])
def test_any_name_a_file_can_have(tmp_path: Path, name: str) -> None:
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_text_is_written_whole_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "a\r\né\n", "write it")
    assert path.read_bytes() == "a\r\né\n".encode()
    with pytest.raises(OutputError) as caught:
        write_text(tmp_path / "no" / "a.txt", "x", "write the notes")
    assert str(caught.value) == (
        "cannot write the notes: No such file or directory. "
        "Choose a folder that exists and is writable."
    )
    with pytest.raises(UnicodeEncodeError):
        write_text(path, chr(0xD800), "write it")
    assert path.read_bytes() == "a\r\né\n".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


# Reading


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (None, "No such file or directory"),
        (b"ab\xff", "byte 0xff at offset 2 is not UTF-8"),
        (b"x" * 33, "it has more than 32 bytes"),
        (b"{", "it is not JSON (Expecting property name"),
        (b"[" * 32, "it is not JSON (Expecting value"),
    ],
)
def test_trouble_is_one_error_of_the_class_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes | None, seen: str
) -> None:
    monkeypatch.setattr(files, "MAX_TEXT_BYTES", 32)
    if data is not None:
        (tmp_path / "a").write_bytes(data)
    for kind in (EncoderError, PromptError):
        with pytest.raises(kind) as caught:
            read_json(tmp_path / "a", kind, "read it", "Do this.")
        assert str(caught.value).startswith(f"cannot read it: {seen}")
        assert str(caught.value).endswith(". Do this.")


def test_text_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("\ufeff[1]".encode())
    assert read_text(tmp_path / "a", EncoderError, "", "") == "[1]"
    assert read_json(tmp_path / "a", EncoderError, "", "") == [1]


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, b"[" * 200_000])
def test_deep_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"^it is nested too deeply$"):
        parse_json(text)


# Tables


@pytest.mark.parametrize(
    ("text", "suffix", "wanted"),
    [
        ("id,name\n", ".csv", ","),
        ("id;name\n", ".csv", ";"),
        ("id\tname\n", ".csv", "\t"),
        ("\n\r\n\tname\n", ".csv", "\t"),
        ("id;na,me\n", ".csv", ","),
        ('id;"na,me"\n', ".csv", ";"),
        ("name\na;b\n", ".csv", ","),
        ("id\tname;alias;more\n", ".csv", ";"),
        ("id,name\n", ".tsv", "\t"),
        ("", ".csv", ","),
    ],
)
def test_the_delimiter_is_that_of_the_header(text: str, suffix: str, wanted: str) -> None:
    assert guess_delimiter(text, suffix) == wanted
