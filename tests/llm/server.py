"""An HTTP server on loopback that answers like a language model's, and misbehaves by a plan."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from byname.queries import Query

Plan = Callable[[str, int], str]
"""Text of a question and how often it was asked before, to what the server does."""

BROKEN = ["429", "500", "503", "cut", "half", "no choices", "null", "list", "html", "502", "reset"]
SLOW = ["hang", "slow"]
SOFT = ["empty", "refusal"]


def right(text: str) -> str:
    """The answer to a question, so that a test can tell whether it got its own."""
    return f"It looks like {text[::-1]}."


def questions(n: int, **options: Any) -> list[Query]:
    texts = (f"What does thing {i} look like?" for i in range(n))
    return [Query.make(f"c{i}", "", "look", text, **options) for i, text in enumerate(texts)]


def chaos(seed: int, slow: float = 0.003) -> Plan:
    """Up to four broken answers, and up to two useless ones, before the good one."""

    def plan(text: str, before: int) -> str:
        rng = random.Random(f"{seed} {text}")
        steps = [rng.choice(BROKEN) for _ in range(rng.choice([0] * 16 + [1, 1, 2, 4]))]
        steps += [rng.choice(SOFT) for _ in range(rng.choice([0] * 18 + [1, 2]))]
        steps += [name for name in SLOW if rng.random() < slow]
        rng.shuffle(steps)
        return steps[before] if before < len(steps) else "good"

    return plan


@dataclass
class Asked:
    """One request, and whether a good answer to it was written in full."""

    text: str
    did: str
    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: float = field(default_factory=time.monotonic)
    delivered: bool = False


class Server:
    """``with Server(plan) as server:`` serves at ``server.url``, and keeps ``server.asked``.

    What the plan gives is "good", a name in BROKEN, SLOW or SOFT, or JSON text as
    ``"STATUS body"`` to be sent as it is. ``refuse`` gives the same for a request's body, or "".
    """

    def __init__(
        self,
        plan: Plan = lambda text, before: "good",
        *,
        delay: float = 0.0,
        models: list[str] | None = None,
        retry_after: str = "0.02",
        refuse: Callable[[dict[str, Any]], str] = lambda body: "",
    ) -> None:
        self.refuse = refuse
        self.plan, self.delay, self.retry_after = plan, delay, retry_after
        self.models = ["test-model"] if models is None else models
        self.asked: list[Asked] = []
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self._times: Counter[str] = Counter()

    def __enter__(self) -> Server:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                data = json.dumps({"data": [{"id": name} for name in server.models]}).encode()
                _send(self, 200, data)

            def do_POST(self) -> None:
                with suppress(OSError):
                    server.post(self)

        class Quiet(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.http.shutdown()
        self.http.server_close()

    def post(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        text = body["messages"][0]["content"] if "messages" in body else body["prompt"]
        with self.lock:
            did = self.refuse(body) or self.plan(text, self._times[text])
            self._times[text] += 1
            one = Asked(text, did, handler.path, body, dict(handler.headers))
            self.asked.append(one)
        time.sleep(self.delay)
        if did == "good":
            _send(handler, 200, reply(body, right(text)))
            one.delivered = True
        elif did[:3].isdigit() and " " in did:
            status, _, rest = did.partition(" ")
            _send(handler, int(status), rest.encode())
        else:
            self.misbehave(handler, did, body)

    def misbehave(self, handler: BaseHTTPRequestHandler, did: str, body: dict[str, Any]) -> None:
        good = reply(body, right("?"))
        page = b"<!DOCTYPE html><html><body>Bad gateway</body></html>"
        if did in ("429", "500", "503"):
            wait = {} if did == "500" else {"Retry-After": self.retry_after}
            _send(handler, int(did), b'{"error": {"message": "not now"}}', wait)
        elif did == "hang":
            self.ended.wait(20)
            handler.close_connection = True
        elif did == "cut":
            _send(handler, 200, good[:-20], length=len(good))
            handler.close_connection = True
        elif did == "slow":
            _send(handler, 200, b"", length=len(good))
            for byte in good:
                handler.wfile.write(bytes([byte]))
                if self.ended.wait(0.05):
                    break
            handler.close_connection = True
        elif did == "reset":
            handler.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            handler.connection.close()
            handler.close_connection = True
        else:
            status, data = {
                "half": (200, good[: len(good) // 2]),
                "empty": (200, reply(body, "")),
                "refusal": (200, reply(body, "I'm sorry, but I can't help with that.")),
                "no choices": (200, b'{"choices": []}'),
                "null": (200, b'{"choices": [{"message": {"content": null}, "text": null}]}'),
                "list": (200, b'[{"choices": []}]'),
                "html": (200, page),
                "502": (502, page),
            }[did]
            _send(handler, status, data)

    def times(self) -> Counter[str]:
        """How often each question was asked."""
        return Counter(one.text for one in self.asked)

    def asked_again_after_an_answer(self) -> list[str]:
        """Questions asked when a good answer to them had been written in full before."""
        seen: set[str] = set()
        again = []
        for one in self.asked:
            if one.text in seen:
                again.append(one.text)
            if one.delivered:
                seen.add(one.text)
        return again


def reply(body: dict[str, Any], text: str, finish: str = "stop") -> bytes:
    """A whole answer to a request, chat or completion."""
    message = {"message": {"role": "assistant", "content": text}}
    said: dict[str, Any] = message if "messages" in body else {"text": text}
    choice = {"index": 0, "finish_reason": finish, **said}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return json.dumps({"model": body["model"], "choices": [choice], "usage": usage}).encode()


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    data: bytes,
    headers: dict[str, str] | None = None,
    length: int | None = None,
) -> None:
    head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(data) if length is None else length}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    handler.wfile.write(head.encode() + b"\r\n" + data)
