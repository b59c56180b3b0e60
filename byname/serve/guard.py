"""Who may ask, and what every answer carries: hosts, origins, the token, the headers.

A page of another site can make the browser send requests here. It cannot read the answers, unless
its own name is made to point at this machine (DNS rebinding): then the ``Host`` header holds that
name, and is refused. The token is in no cookie, so that a browser never adds it by itself.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from byname.serve.problems import Problem, Reply, refusal

__all__ = ["HEADERS", "TOKEN_HEADER", "Guard", "allowed_hosts", "unexpected"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN_HEADER = b"x-byname-token"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_log = logging.getLogger("byname.serve")


def allowed_hosts(port: int, host: str = "127.0.0.1", more: Iterable[str] = ()) -> frozenset[str]:
    """What the Host header may say.

    Parameters
    ----------
    port : int
    host : str
        What the server is bound to; it is allowed where it is one address or name.
    more : iterable of str
        Further names, with or without a port.

    Examples
    --------
    >>> sorted(allowed_hosts(8765, more=["pc.local"]))[-2:]
    ['pc.local', 'pc.local:8765']
    """
    names = {"127.0.0.1", "localhost", "[::1]"}
    if host not in ("0.0.0.0", "::", ""):
        names.add(f"[{host}]" if ":" in host else host)
    found = {f"{name}:{port}" for name in names} | (names if port == 80 else set())
    for name in more:
        found |= {name, f"{name}:{port}"}
    return frozenset(name.strip().lower() for name in found)


class Guard:
    """Stands before an application (ASGI) and lets through what may come through.

    Parameters
    ----------
    app : ASGI application
    hosts : frozenset of str
        See :func:`allowed_hosts`.
    token : str
        What requests below ``/api`` must carry.
    """

    def __init__(self, app: App, *, hosts: frozenset[str], token: str) -> None:
        self.app, self.hosts, self.token = app, hosts, token.encode()
        self.origins = {f"{scheme}://{name}" for name in hosts for scheme in ("http", "https")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, pass on, and put the headers on whatever is answered."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        begun = False

        async def guarded(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                kept = [(k, v) for k, v in message.get("headers", ()) if k.decode() not in HEADERS]
                ours = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
                message = {**message, "headers": [*kept, *ours]}
            await send(message)

        try:
            self._check(scope)
        except Problem as problem:
            await _send(refusal(problem), guarded)
            return
        try:
            await self.app(scope, receive, guarded)
        except Exception:  # noqa: BLE001 - whatever it is, the client gets an answer
            # The client learns that it happened and not where; the terminal learns all.
            _log.exception("an error inside byname serve")
            if not begun:
                await _send(refusal(unexpected()), guarded)

    def _check(self, scope: Scope) -> None:
        given: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            given.setdefault(name.lower(), []).append(value)
        hosts = [_said(value) for value in given.get(b"host", [])]
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            raise Problem(
                403,
                "answer this request",
                "it was sent to a host name that is not allowed here",
                "Use the address that byname serve printed, or allow a name with --allow-host.",
            )
        for value in given.get(b"origin", []):
            if _said(value) not in self.origins:
                seen = "it comes from a page of another site"
                do = "Use the page at the address that byname serve printed."
                raise Problem(403, "answer this request", seen, do)
        if scope["path"].startswith("/api"):
            tokens = given.get(TOKEN_HEADER, [])
            if len(tokens) != 1 or not secrets.compare_digest(tokens[0], self.token):
                raise Problem(
                    401,
                    "answer this request",
                    "it carries no token, or a wrong one",
                    "Open the whole address that byname serve printed, with ?token=...",
                )


def _said(value: bytes) -> str:
    """A header's value. Only blanks and tabs may stand around it: others are part of it."""
    return value.decode("latin-1").strip(" \t").lower()


def unexpected() -> Problem:
    """What the client is told of an error of ours: that it happened, and not where."""
    seen = "an unexpected error inside byname"
    do = "Look at the terminal where byname serve runs, and report it as a bug."
    return Problem(500, "answer this request", seen, do)


async def _send(reply: Reply, send: Send) -> None:
    headers = {"content-type": reply.kind, "content-length": str(len(reply.body)), **reply.headers}
    start = {"type": "http.response.start", "status": reply.status}
    await send({**start, "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()]})
    await send({"type": "http.response.body", "body": reply.body})
