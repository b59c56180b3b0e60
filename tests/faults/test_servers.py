"""Images on a web server that stumbles, stalls, lies and dies: rows with errors, or none at all."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from byname.embeddings import Embeddings
from tests.faults import world
from tests.faults.conftest import Runs

pytest.importorskip("fsspec", reason="the extra [remote] is not installed")
pytest.importorskip("aiohttp", reason="the extra [remote] is not installed")
N = 40
TROUBLE = {
    "0003.jpg": "missing",
    "0007.jpg": "always 503",
    "0011.jpg": "stalls",
    "0015.jpg": "cut",
    "0021.jpg": "a page",
    "0026.jpg": "closes at once",
}
PASSING = {"0005.jpg": "503 once", "0017.jpg": "closes once", "0023.jpg": "slow"}


class Server(BaseHTTPRequestHandler):
    """Serves the photos of a folder, each in its own way."""

    folder: Path
    asked: Counter[str]
    end: threading.Event
    mended = False

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self.answer(200, (self.folder / Path(self.path).name).read_bytes(), only_head=True)

    def do_GET(self) -> None:
        name = Path(self.path).name
        self.asked[name] += 1
        first = self.asked[name] == 1
        how = "" if self.mended else (TROUBLE | PASSING).get(name, "")
        data = (self.folder / name).read_bytes()
        if how == "missing":
            self.answer(404, b"")
        elif how == "always 503" or (how == "503 once" and first):
            self.answer(503, b"busy")
        elif how == "closes at once" or (how == "closes once" and first):
            self.close_connection = True
        elif how == "stalls":
            self.answer(200, data, stop=500)
            self.end.wait(30)
        elif how == "cut":
            self.answer(200, data, stop=500)
            self.close_connection = True
        elif how == "a page":
            self.answer(200, b"<html>Please log in</html>")
        else:
            time.sleep(0.4 if how == "slow" else 0)
            self.answer(200, data)

    def answer(
        self, status: int, data: bytes, *, only_head: bool = False, stop: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if not only_head:
            self.wfile.write(data[:stop])
            self.wfile.flush()


LATE = "reading it took longer than 4 s"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    world.photos(tmp_path / "photos", N)
    Server.folder, Server.asked, Server.mended = tmp_path / "photos", Counter(), False
    Server.end = threading.Event()
    made = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    made.daemon_threads = True
    made.block_on_close = False
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    Server.end.set()
    made.shutdown()
    made.server_close()


def test_a_server_that_stumbles_costs_only_what_it_does_not_give(
    runs: Runs, server: str, tmp_path: Path
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{server}/{i:04d}.jpg\n" for i in range(N)), encoding="utf-8")
    run, began = runs.plan(listed), time.monotonic()
    runs.go_on(run, timeout=4)
    assert time.monotonic() - began < 60
    found = Embeddings.load(runs.merge(run))
    errors = {key.rpartition("/")[2]: why for key, why in found.errors.items()}
    assert set(errors) == set(TROUBLE)
    assert len(found) == N - len(TROUBLE)
    assert errors["0003.jpg"] == "it is not there (not found)"
    # the reader of URLs gives up a little before the limit of the file, if it comes to its turn
    assert errors["0011.jpg"] in ("the server does not answer in time", LATE)
    assert all(why.strip() and "\n" not in why for why in errors.values())
    Server.mended = True
    Server.end.set()
    runs.go_on(run, retry_errors=True)
    mended = Embeddings.load(runs.merge(run))
    assert not mended.errors
    local = runs.plan(tmp_path / "photos", "local")
    runs.go_on(local)
    wanted = Embeddings.load(runs.merge(local))
    assert [key.rpartition("/")[2] for key in mended.keys] == list(wanted.keys)
    assert (mended.vectors == wanted.vectors).all()
