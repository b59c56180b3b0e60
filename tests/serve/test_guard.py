"""Hosts, origins, tokens, and the headers of every answer."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from byname.serve.guard import HEADERS, Guard, allowed_hosts

Message = dict[str, Any]


def ask(guard: Guard, path: str = "/", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """What the guard answers; ``a_b`` stands for the header ``a-b``."""
    sent: list[Message] = []

    async def send(message: Any) -> None:
        sent.append(dict(message))

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    given = [(k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in headers.items()]
    scope = {"type": "http", "path": path, "method": "GET", "headers": given}
    anyio.run(guard, scope, receive, send)
    found = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], found, sent[1]["body"]


async def fine(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"cache-control", b"public"), (b"x-own", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"fine"})


async def broken(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("a secret path")


@pytest.fixture
def guard() -> Guard:
    return Guard(fine, hosts=allowed_hosts(8765, more=["pc.local"]), token="t")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST:8765", "[::1]:8765", "pc.local:8765"]
)
def test_own_hosts_may_ask(guard: Guard, host: str) -> None:
    assert ask(guard, host=host)[::2] == (200, b"fine")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "127.0.0.1",
        "127.0.0.1:80",
        "localhost.evil:8765",
        "",
        "localhost:8765\xa0",
        "\x85localhost:8765",
        "\x1flocalhost:8765",
    ],  # blanks only to Python
)
def test_other_hosts_are_refused(guard: Guard, host: str) -> None:
    status, headers, body = ask(guard, host=host)
    assert status == 403
    assert headers["content-type"] == "application/json"
    assert b'"asked"' in body
    assert b"evil" not in body


def test_no_host_and_two_hosts_are_refused(guard: Guard) -> None:
    assert ask(guard)[0] == 403
    assert ask(guard, host="localhost:8765", Host="evil.example")[0] == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "file://"])
def test_pages_of_others_are_refused(guard: Guard, origin: str) -> None:
    assert ask(guard, host="127.0.0.1:8765", origin=origin)[0] == 403


def test_its_own_page_may_ask(guard: Guard) -> None:
    assert ask(guard, host="localhost:8765", origin="http://localhost:8765")[0] == 200


@pytest.mark.parametrize("token", ["", "x", "tt", "T"])
def test_a_wrong_token_is_refused(guard: Guard, token: str) -> None:
    assert ask(guard, "/api/state", host="localhost:8765", x_byname_token=token)[0] == 401
    assert ask(guard, "/api", host="localhost:8765", x_byname_token=token)[0] == 401


def test_the_right_token_is_let_through(guard: Guard) -> None:
    assert ask(guard, "/api/state", host="localhost:8765", x_byname_token="t")[0] == 200
    assert ask(guard, "/api/state", host="localhost:8765")[0] == 401


def test_headers_are_on_every_answer(guard: Guard) -> None:
    for headers in (
        ask(guard, host="localhost:8765")[1],
        ask(guard, host="evil.example")[1],
        ask(guard, "/api/state", host="localhost:8765")[1],
        ask(Guard(broken, hosts=guard.hosts, token="t"), host="localhost:8765")[1],
    ):
        assert {name: headers[name] for name in HEADERS} == HEADERS


def test_an_error_of_ours_tells_the_client_nothing(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    status, _, body = ask(Guard(broken, hosts=guard.hosts, token="t"), host="localhost:8765")
    assert status == 500
    assert b"secret" not in body
    assert "a secret path" in caplog.text


def test_the_bound_address_is_allowed_and_wildcards_are_not() -> None:
    assert "10.0.0.7:9" in allowed_hosts(9, "10.0.0.7")
    assert not any("0.0.0.0" in name for name in allowed_hosts(9, "0.0.0.0"))
    assert "localhost" in allowed_hosts(80)
    assert "localhost" not in allowed_hosts(81)


def test_web_sockets_are_closed(guard: Guard) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    anyio.run(guard, {"type": "websocket", "path": "/", "headers": []}, None, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
