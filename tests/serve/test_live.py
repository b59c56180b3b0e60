"""A real server in a process of its own: many clients, odd requests, and its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.marks import needs_mini, write_photo
from tests.serve.conftest import photo

pytest.importorskip("uvicorn", reason="needs the extra: pip install 'byname[serve]'")
pytest.importorskip("python_multipart", reason="needs the extra: pip install 'byname[serve]'")
pytest.importorskip("threadpoolctl", reason="needs the extra: pip install 'byname[serve]'")
pytestmark = [pytest.mark.slow, needs_mini]


@dataclass
class Served:
    process: subprocess.Popen[str]
    address: str
    port: int
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Byname-Token": self.token}


def start(*arguments: str) -> Served:
    command = [sys.executable, "-m", "byname", "serve", "-e", "mini", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, process.stderr.read() if process.stderr else ""
    address, _, token = line.partition("/?token=")
    return Served(process, address, int(address.rpartition(":")[2]), token)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i, colour in enumerate([(200, 30, 30), (30, 200, 30), (30, 30, 200)]):
        write_photo(folder / f"{i}.jpg", colour)
    (folder / "bad.jpg").write_bytes(b"%PDF")
    return folder


@pytest.fixture
def served(photos: Path) -> Iterator[Served]:
    found = start(str(photos), "-c", "cat,dog,red apple", "--recipe", "plain", "--quiet")
    yield found
    found.process.kill()
    found.process.wait()


def wait_for(served: Served, images: int) -> None:
    for _ in range(300):
        state = httpx.get(f"{served.address}/api/state", headers=served.headers).json()
        if state["images"] >= images:
            return
        time.sleep(0.1)
    raise AssertionError(state)


def test_fifty_uploads_at_once_are_all_answered(served: Served) -> None:
    wait_for(served, 3)
    slowest = [0.0]
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            begin = time.perf_counter()
            httpx.get(f"{served.address}/api/progress", headers=served.headers, timeout=60)
            slowest[0] = max(slowest[0], time.perf_counter() - begin)
            time.sleep(0.05)

    def send(i: int) -> int:
        files = {"files": (f"{i}.png", photo(i), "image/png")}
        url = f"{served.address}/api/images"
        return httpx.post(url, files=files, headers=served.headers, timeout=120).status_code

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(50) as pool:
        codes = list(pool.map(send, range(50)))
    done.set()
    watcher.join()
    assert set(codes) <= {200, 429}
    assert codes.count(200) > 0
    wait_for(served, 3 + codes.count(200))
    assert slowest[0] < 5  # the loop is not blocked by the work


def raw(served: Served, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as link:
        link.sendall(request)
        found = b""
        while part := link.recv(65536):
            found += part
    return found


def test_requests_by_hand(served: Served) -> None:
    close = b"Connection: close\r\n"
    host = f"Host: 127.0.0.1:{served.port}\r\n".encode() + close
    token = f"X-Byname-Token: {served.token}\r\n".encode()
    assert b" 403 " in raw(served, b"GET / HTTP/1.1\r\nHost: evil.example\r\n" + close + b"\r\n")
    assert b" 404 " in raw(served, b"GET /static/../app.py HTTP/1.1\r\n" + host + b"\r\n")
    assert b" 404 " in raw(served, b"GET /../../etc/passwd HTTP/1.1\r\n" + host + b"\r\n")
    chunked = b"POST /api/score HTTP/1.1\r\n" + host + token + b"Transfer-Encoding: chunked\r\n\r\n"
    assert b" 200 " in raw(served, chunked + b"2\r\n{}\r\n0\r\n\r\n")
    lied = b"POST /api/score HTTP/1.1\r\n" + host + token + b"Content-Length: 9999999999\r\n\r\n{}"
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as link:
        link.sendall(lied)  # and nothing more: others are answered meanwhile
        state = httpx.get(f"{served.address}/api/state", headers=served.headers)
    assert state.status_code == 200
    assert "server" not in state.headers


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly(photos: Path, how: signal.Signals) -> None:
    found = start(str(photos), "-c", "cat,dog", "--recipe", "plain")
    wait_for(found, 3)
    found.process.send_signal(how)
    out, err = found.process.communicate(timeout=30)
    assert found.process.returncode == 0
    assert "Traceback" not in err
    assert err.strip().endswith("stopped")
    assert "1 image could not be read" in err
    assert out == ""
