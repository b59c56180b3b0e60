"""Files out of a multipart body: bounded, whatever is said about lengths."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from byname.serve.problems import Problem
from byname.serve.uploads import Limits, Upload, clean_name, read_json_bytes, read_uploads

pytest.importorskip("python_multipart", reason="needs the extra: pip install 'byname[serve]'")

KIND = "multipart/form-data; boundary=XX"
LIMITS = Limits(file=1000, parts=5)


def part(name: str, data: bytes, field: str = "files") -> bytes:
    head = f'--XX\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + data + b"\r\n"


def read(body: bytes, kind: str = KIND, limits: Limits = LIMITS, size: int = 10**9) -> list[Upload]:
    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    async def run() -> list[Upload]:
        return [one async for one in read_uploads(stream(), kind, limits)]

    return anyio.run(run)


@pytest.mark.parametrize("size", [1, 7, 100, 10**6])
def test_files_come_whole_in_pieces_of_any_size(size: int) -> None:
    body = part("a.jpg", b"\r\n--X" * 20) + part("b.png", b"") + b"--XX--\r\n"
    assert read(body, size=size) == [Upload("a.jpg", b"\r\n--X" * 20), Upload("b.png", b"")]


def test_a_file_that_is_too_large_is_dropped_and_the_next_is_read() -> None:
    body = part("a", b"x" * 1001) + part("b", b"y" * 1000) + b"--XX--\r\n"
    assert read(body) == [Upload("a", None), Upload("b", b"y" * 1000)]


def test_a_request_that_is_too_large_ends() -> None:
    with pytest.raises(Problem) as caught:
        read(part("a", b"x" * (LIMITS.body + 1)), size=100_000)
    assert caught.value.status == 413


def test_too_many_parts_end_it() -> None:
    with pytest.raises(Problem) as caught:
        read(part("a", b"") * 6 + b"--XX--\r\n")
    assert (caught.value.status, "5 parts" in caught.value.seen) == (400, True)


def test_fields_that_are_no_files_are_not_kept_but_counted() -> None:
    field = b'--XX\r\nContent-Disposition: form-data; name="other"\r\n\r\n1\r\n'
    assert read(field + part("b", b"2") + b"--XX--\r\n") == [Upload("b", b"2")]
    with pytest.raises(Problem, match="5 parts"):
        read(field * 6 + b"--XX--\r\n")
    with pytest.raises(Problem, match="another name") as caught:
        read(part("a", b"1", "other") + b"--XX--\r\n")
    assert caught.value.status == 400


@pytest.mark.parametrize("given", ["a%22; x=%22b.jpg", 'a\\"; x=\\"b.jpg'])
def test_quotes_in_a_file_name_are_those_of_the_file(given: str) -> None:
    assert [one.name for one in read(part(given, b"1") + b"--XX--\r\n")] == ['a"; x="b.jpg']


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        part("a", b"cut"),
        part("a", b"cut")[:-5],
        b"--XX\r\nContent-Disposition\r\n\r\n",
        b"--XX\r\n" + b"A: b\r\n" * 5000,
        b"--XX\r\nA: " + b"x" * 100_000,
    ],
)
def test_damaged_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        read(body)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "kind", ["", "image/jpeg", "multipart/form-data", "multipart/form-data; boundary=" + "x" * 300]
)
def test_other_types_are_refused(kind: str) -> None:
    with pytest.raises(Problem) as caught:
        read(b"--XX--\r\n", kind)
    assert caught.value.status == 415


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("C:\\Windows\\x.jpg", "x.jpg"),
        ("..", ".."),
        ("a\nb\x00c.jpg", "a b c.jpg"),
        ("<img src=x onerror=alert(1)>.jpg", "<img src=x onerror=alert(1)>.jpg"),
        ("", "image"),
        ("x" * 999, "x" * 200),
    ],
)
def test_names_are_only_for_showing(given: str, kept: str) -> None:
    assert clean_name(given) == kept


def test_bodies_of_json_are_bounded_too() -> None:
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"12345"

    async def run(most: int) -> bytes:
        return await read_json_bytes(stream(), most)

    assert anyio.run(run, 15) == b"123451234512345"
    with pytest.raises(Problem):
        anyio.run(run, 14)
