"""Images behind URLs: fsspec's memory, and a web server of our own that may misbehave."""

from __future__ import annotations

import io
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byname.errors import ImageError
from byname.images import cells, remote
from byname.images.refs import ImageRef
from byname.images.sources import open_source

from .samples import keys, refusal, write_tar

fsspec = pytest.importorskip("fsspec", reason="needs the extra 'remote'")


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, empty."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


def tar_bytes(tmp_path: Path, **files: bytes) -> bytes:
    """A tar of images of those names."""
    named = {f"{name}.jpg": data for name, data in files.items()}
    return write_tar(tmp_path / "made.tar", {**named, "a.json": b"{}"}).read_bytes()


def parquet_bytes(rows: list[bytes]) -> bytes:
    """A Parquet file with those images."""
    stream = io.BytesIO()
    pq.write_table(pa.table({"image": rows}), stream, row_group_size=10)
    return stream.getvalue()


# Memory


def test_a_folder(memory: Any) -> None:
    for name in ("b/c.JPG", "b/a.png", ".hidden/x.jpg", "notes.txt", "z.webp"):
        memory.pipe(f"/bucket/photos/{name}", name.encode())
    memory.pipe("/bucket/other.jpg", b"-")
    for spec in ("memory://bucket/photos", "memory://bucket/photos/"):
        source = open_source(spec)
        assert keys(source) == ["b/a.png", "b/c.JPG", "z.webp"]
        assert [ref.read() for ref in source.refs] == [b"b/a.png", b"b/c.JPG", b"z.webp"]
        assert (source.kind, source.root) == ("folder", "memory://bucket/photos")
    assert source.refs[0].size == 7
    assert source.refs[0].mtime_ns > 0
    assert keys(open_source("memory://bucket/photos/**/*.png")) == ["b/a.png"]
    assert keys(open_source("memory://bucket/*.jpg")) == ["other.jpg"]
    assert keys(open_source("memory://bucket/{other,photos/z}.{jpg,webp}")) == [
        *("other.jpg", "other.webp", "photos/z.jpg", "photos/z.webp"),
    ]
    assert "no image is there, only 1 other file (1 .txt)" in refusal(
        "memory://bucket/photos/*.txt"
    )
    assert "nothing is there" in refusal("memory://bucket/none")
    assert "nothing is there" in refusal("memory://bucket/*.gif")


def test_one_image(memory: Any) -> None:
    memory.pipe("/b/a.jpg", b"abc")
    (ref,) = open_source("memory://b/a.jpg").refs
    assert (ref.key, ref.read(), ref.size) == ("a.jpg", b"abc", 3)
    with pytest.raises(ImageError, match=r"^the file is larger, more than the limit of 2$"):
        ref.read(limit=2)
    memory.rm("/b/a.jpg")
    with pytest.raises(ImageError, match=r"^it is not there \(not found\)$"):
        ref.read()
    assert "it is not there" in refusal("memory://b/a.jpg")


def test_tars(memory: Any, tmp_path: Path) -> None:
    for n in range(2):
        memory.pipe(f"/b/s-{n}.tar", tar_bytes(tmp_path, x=b"x%d" % n, y=bytes(1000)))
    memory.pipe("/b/README.md", b"")
    source = open_source("memory://b/s-0.tar")
    assert (keys(source), source.kind, source.by_place) == (["x.jpg", "y.jpg"], "tar", True)
    assert [ref.read() for ref in source.refs] == [b"x0", bytes(1000)]
    for spec in ("memory://b", "memory://b/*.tar", "memory://b/s-{0..1}.tar"):
        source = open_source(spec)
        assert keys(source) == ["s-0.tar/x.jpg", "s-0.tar/y.jpg", "s-1.tar/x.jpg", "s-1.tar/y.jpg"]
        assert source.refs[2].read() == b"x1"
    memory.pipe("/b/s-0.tar", b"short")
    with pytest.raises(ImageError, match="it is truncated: 0 of its 2 bytes are there"):
        open_source("memory://b/s-1.tar").refs[0].read() and source.refs[0].read()
    assert "it is not a tar" in refusal("memory://b/s-0.tar")
    assert "it is compressed" in refusal("memory://b/s-0.tar.gz")


def test_tables(memory: Any) -> None:
    cells._reset()
    rows = [b"%02d" % i for i in range(40)]
    memory.pipe("/b/data/t.parquet", parquet_bytes(rows))
    source = open_source("memory://b/data/t.parquet")
    assert keys(source) == [f"t.parquet#{i:08d}" for i in range(40)]
    assert [ref.read() for ref in source.refs] == rows
    several = open_source("memory://b/data")
    assert keys(several) == keys(source)
    assert several.refs[7].read() == rows[7]
    memory.pipe("/b/data/t.parquet", b"other")
    cells._reset()
    with pytest.raises(ImageError, match="has changed since it was listed"):
        source.refs[0].read()
    assert "Check that it is a whole Parquet file" in refusal("memory://b/data/t.parquet")


def test_a_store_that_fails_is_asked_again_later(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells._reset()
    monkeypatch.setattr(remote, "BACK_OFF", 0)
    monkeypatch.setattr(cells, "REMOTE_BUFFER", 1)
    rows = [random.Random(i).randbytes(100_000) for i in range(40)]
    memory.pipe("/b/t.parquet", parquet_bytes(rows))
    refs = open_source("memory://b/t.parquet").refs
    assert refs[0].read() == rows[0]
    fetch, asked = remote._fetch, []

    def failing(*of: Any) -> bytes:
        asked.append(of)
        raise ConnectionResetError("SECRET")

    for of in (refs[10:20], open_source("memory://b/t.parquet").refs[20:30]):
        monkeypatch.setattr(remote, "_fetch", failing)
        for ref in of:
            with pytest.raises(ImageError, match=r"^it cannot be read \(ConnectionResetError\)$"):
                ref.read()
        assert 0 < len(asked) <= 2 * remote.ATTEMPTS
        asked.clear()
        monkeypatch.setattr(remote, "_fetch", fetch)
        with pytest.raises(ImageError, match=r"ConnectionResetError"):
            of[0].read()
        with monkeypatch.context() as later:
            later.setattr(time, "monotonic", partial(max, time.monotonic() + 60, 0.0))
            assert [ref.read() for ref in of] == rows[of[0].offset :][:10]
    cells._reset()
    refs = open_source("memory://b/t.parquet").refs
    memory.store.clear()
    started = Counter[str]()
    info = type(memory).info

    def counted(self: Any, path: str, **options: Any) -> Any:
        started[path] += 1
        return info(self, path, **options)

    monkeypatch.setattr(type(memory), "info", counted)
    for ref in refs:
        with pytest.raises(ImageError, match="it is not there"):
            ref.read()
    assert sum(started.values()) == 1


@pytest.mark.parametrize("kind", ["txt", "csv", "parquet"])
def test_lists(memory: Any, kind: str) -> None:
    entries = ["in/a.jpg", "./b.jpg", "/etc/hosts", "../up.jpg", "file:///etc/hosts", "in/../b.jpg"]
    memory.pipe("/b/l/in/a.jpg", b"a")
    memory.pipe("/b/l/b.jpg", b"b")
    memory.pipe("/b/up.jpg", b"up")
    stream = io.BytesIO()
    if kind == "parquet":
        pq.write_table(pa.table({"path": entries}), stream)
    else:
        stream.write(("path\n" * (kind == "csv") + "\n".join(entries)).encode())
    memory.pipe(f"/b/l/l.{kind}", stream.getvalue())
    source = open_source(f"memory://b/l/l.{kind}")
    assert source.kind == "list"
    found = {}
    for ref in source.refs:
        try:
            found[ref.key] = ref.read()
        except ImageError as error:
            found[ref.key] = str(error).encode()
    assert (found["in/a.jpg"], found["b.jpg"]) == (b"a", b"b")
    assert found["/etc/hosts"] == b"it is not there (not found)"
    assert found["../up.jpg"] == found["in/../b.jpg"] == b"a refused URL"
    assert found["file:///etc/hosts"] == b"URLs of the kind file:// are not read from a list"


# A web server


class Web(BaseHTTPRequestHandler):
    """Answers by the first word of the path; counts its requests."""

    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[Counter[str]] = Counter()
    sent: ClassVar[int] = 0

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        how, _, name = path[1:].partition("/")
        type(self).asked[path] += 1
        data = self.files.get(name, b"")
        if how == "status":
            status = int(name.partition(".")[0])
            again = self.asked[path] > 2 and "passing" in name
            return self.say(200 if again else status, b"late" if again else b"", body)
        if how == "away":
            return self.say(302, b"", body, Location="file:///etc/hostname")
        if how == "moved":
            return self.say(302, b"", body, Location=f"/ok/{name}?signed=1")
        if how == "endless":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while body:
                self.wfile.write(b"10000\r\n" + bytes(2**16) + b"\r\n")
            return None
        if how == "drip":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while body:
                self.wfile.write(b"1\r\nx\r\n")
                time.sleep(0.05)
            return None
        if how == "short":  # says more than it sends
            self.close_connection = True
            return self.say(200, data, body, length=len(data) + 10)
        if how == "slow":
            time.sleep(1.0)
        if name not in self.files:
            return self.say(404, b"", body)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted and how == "ok":
            first, last = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
            return self.say(
                206, data[first:last], body, **{"Content-Range": f"bytes {first}-{last - 1}/*"}
            )
        return self.say(200, data, body)

    def say(self, status: int, data: bytes, body: bool, length: int = -1, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if length < 0 else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)
            type(self).sent += len(data)

    def log_message(self, *_: object) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    """Clients that hang up are no news."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Its address."""
    pytest.importorskip("aiohttp", reason="needs the extra 'remote'")
    web = Quiet(("127.0.0.1", 0), Web)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    web.server_close()


@pytest.fixture
def web(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the server, without a file on it."""
    Web.files, Web.sent = {}, 0
    Web.asked.clear()
    monkeypatch.setattr(remote, "BACK_OFF", 0.01)
    return server


def why(url: str, **options: Any) -> str:
    """The error of reading a URL; its secret is never in it."""
    with pytest.raises(ImageError) as caught:
        ImageRef("k", url + "?signature=SECRET", **options).read(limit=100_000)
    for text in (str(caught.value), repr(caught.value)):
        assert "SECRET" not in text
        assert "127.0.0.1" not in text
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return str(caught.value)


def test_an_image_takes_one_request(web: str) -> None:
    Web.files = {"a b.jpg": b"", "a.jpg": b"image", "moved.jpg": b"there"}
    assert ImageRef("k", f"{web}/ok/a.jpg?signature=x").read() == b"image"
    assert Web.asked == {"/ok/a.jpg": 1}
    assert ImageRef("k", f"{web}/moved/moved.jpg").read() == b"there"
    assert open_source(f"{web}/ok/a.jpg").refs[0].size == 5


def test_what_a_server_may_do(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Web.files = {"a.jpg": b"image"}
    assert why(f"{web}/ok/none.jpg") == "it is not there (not found)"
    assert Web.asked["/ok/none.jpg"] == 1  # nothing that could pass
    assert why(f"{web}/status/403.jpg") == "no permission to read it"
    assert why(f"{web}/status/418.jpg") == "the server answers with status 418"
    assert why(f"{web}/status/503.jpg") == "the server answers with status 503"
    assert Web.asked["/status/503.jpg"] == remote.ATTEMPTS
    assert ImageRef("k", f"{web}/status/503.passing.jpg").read() == b"late"
    assert "cannot be read" in why(f"{web}/away/a.jpg")
    assert "cannot be read" in why(f"{web}/short/a.jpg")
    assert "cannot be read" in why("http://127.0.0.1:1/a.jpg")
    monkeypatch.setattr(remote, "SILENT_SECONDS", 0.2)
    assert why(f"{web}/slow/a.jpg") == "the server does not answer in time"


def test_a_server_that_drips_has_its_time(web: str) -> None:
    start = time.monotonic()
    with pytest.raises(ImageError, match="the server does not answer in time"):
        ImageRef("k", f"{web}/drip/a.jpg").read(seconds=0.5)
    assert time.monotonic() - start < 5
    with pytest.raises(TimeoutError):
        remote.info_of(remote.file_system(web), f"{web}/slow/a.jpg", 0.1)


@pytest.mark.parametrize(
    "told",
    [
        {"size": 10**30, "Last-Modified": "Mon, 01 Jan 2020 00:00:00 +9999999999999999999"},
        {"size": True, "Last-Modified": "Mon, 99 Jan 99999999999999999999 00:00:00"},
        {"size": -1, "LastModified": "0001-01-01T00:00:00+23:59"},
        {"size": "5", "mtime": float("nan")},
    ],
)
def test_what_a_server_says_of_a_file_is_not_believed(told: dict[str, object]) -> None:
    assert remote.place_of(told) == (-1, 0)


def test_a_server_that_never_ends(web: str) -> None:
    start = time.monotonic()
    assert why(f"{web}/endless/a.jpg") == "the file is larger, more than the limit of 100,000"
    assert why(f"{web}/endless/a.jpg", offset=10, length=100) == (
        "the server gives whole files only, no parts of them"
    )
    assert time.monotonic() - start < 10


def test_a_tar_on_a_server_is_not_read_whole(web: str, tmp_path: Path) -> None:
    whole = tar_bytes(tmp_path, a=b"a" * 50, big=bytes(3_000_000), z=b"z")
    Web.files = {"s.tar": whole}
    source = open_source(f"{web}/ok/s.tar?signature=SECRET")
    assert keys(source) == ["a.jpg", "big.jpg", "z.jpg"]
    assert source.root == f"{web}/ok/s.tar"
    assert Web.sent < 500_000
    assert [len(ref.read()) for ref in source.refs] == [50, 3_000_000, 1]
    text = refusal(f"{web}/whole/s.tar?signature=SECRET")
    assert "the server gives whole files only, no parts of them. Check the URL and the" in text
    assert "SECRET" not in text
    assert "it is not there" in refusal(f"{web}/ok/none.tar")
    assert "it is not there" in refusal(f"{web}/ok/none.parquet")
    assert "it is not there" in refusal(f"{web}/ok/none.txt")
    assert "it is not there" in refusal(f"{web}/ok/none.jpg")


def test_a_table_on_a_server(web: str) -> None:
    rows = [b"%02d" % i * 500 for i in range(40)]
    Web.files = {"t.parquet": parquet_bytes(rows)}
    source = open_source(f"{web}/ok/t.parquet?signature=SECRET")
    assert keys(source)[0] == "t.parquet#00000000"
    assert [ref.read() for ref in source.refs] == rows
    Web.files = {"t.parquet": bytes(100_000) + Web.files["t.parquet"]}
    text = refusal(f"{web}/whole/t.parquet")
    assert "whole files only, no parts of them. Check the URL and the credentials, or down" in text


def test_a_folder_on_a_server(web: str) -> None:
    page = '<a href="../">up</a><a href="x.jpg">x</a><a href="http://else/y.jpg">y</a>'
    page += '<a href="/ok/dir/z.png">z</a><a href="file:///etc/a.jpg">f</a><a href="?C=N">n</a>'
    Web.files = {"dir/": page.encode(), "dir/x.jpg": b"x", "dir/z.png": b"z"}
    source = open_source(f"{web}/ok/dir/")
    assert keys(source) == ["x.jpg", "z.png"]
    assert [ref.read() for ref in source.refs] == [b"x", b"z"]


def test_a_list_on_a_server(web: str) -> None:
    Web.files = {"d/l.txt": b"a.jpg\n/etc/hosts\n", "d/a.jpg": b"a"}
    source = open_source(f"{web}/ok/d/l.txt?signature=SECRET")
    assert keys(source) == ["/etc/hosts", "a.jpg"]
    assert source.refs[1].read() == b"a"
    with pytest.raises(ImageError, match="it is not there"):
        source.refs[0].read()
