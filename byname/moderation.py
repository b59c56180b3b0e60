"""Texts that a person should look at: a list of words, and a moderation endpoint."""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from byname.errors import PromptError, UsageError
from byname.files import parse_json, read_text

__all__ = ["Moderator", "Verdict", "default_words", "read_words"]

KEY = "BYNAME_LLM_KEY"
OPENAI_KEY, OPENAI_HOST = "OPENAI_API_KEY", "api.openai.com"
MAX_ANSWER = 4 * 2**20
MAX_SECONDS = 120.0  # for one answer, however slowly it drips
TRIES = 3


class Verdict(NamedTuple):
    """What an endpoint says of a text: categories it is flagged for, or why it said nothing."""

    categories: tuple[str, ...] = ()
    error: str = ""


@cache
def default_words() -> tuple[str, ...]:
    """The words that come with byname: ``prompts/data/moderation.txt``.

    Examples
    --------
    >>> "submissive" in default_words()
    True
    """
    file = resources.files("byname.prompts") / "data" / "moderation.txt"
    return _lines(file.read_text(encoding="utf-8"))


def read_words(path: str | Path) -> tuple[str, ...]:
    """Own words, one word or phrase a line; blank lines and lines that start with "#" are skipped.

    Raises
    ------
    PromptError
        For a file that cannot be read or holds no words.
    """
    asked, do = f"read the words in '{path}'", "Give a text file with one word or phrase a line."
    words = _lines(read_text(Path(path), PromptError, asked, do))
    if not words:
        raise PromptError(asked, "it holds none", do)
    return words


def _lines(text: str) -> tuple[str, ...]:
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


class Moderator:
    """An OpenAI-compatible moderation endpoint: ``POST {url}/moderations``.

    The key comes from the environment: ``BYNAME_LLM_KEY``, or ``OPENAI_API_KEY`` for
    ``https://api.openai.com`` only. It is put in one header and nowhere else. An endpoint that
    fails is no error: its texts are not moderated, and the verdict says why.

    Parameters
    ----------
    url : str
        Such as "https://api.openai.com/v1".
    model : str, optional
        Left to the endpoint if "".
    batch : int
        Texts a request.
    timeout : float
        Seconds.
    client : httpx.Client, optional
        Used in place of an own one, and not closed.

    Raises
    ------
    UsageError
        For an address that is none, and a key that cannot be sent.

    Examples
    --------
    >>> Moderator("localhost")
    Traceback (most recent call last):
    byname.errors.UsageError: cannot use the moderation endpoint 'localhost': it is no http \
address. Give one such as https://api.openai.com/v1.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str = "",
        batch: int = 32,
        timeout: float = 30.0,
        client: httpx.Client | None = None,
    ) -> None:
        do = "Give one such as https://api.openai.com/v1."
        try:
            parts = urlsplit(url.strip())
            shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else url
            path = parts.path.rstrip("/").removesuffix("/moderations") + "/moderations"
            query = f"?{parts.query}" if parts.query else ""
            port = parts.port  # raises for a number that is none
            self.url = str(httpx.URL(f"{parts.scheme}://{parts.netloc}{path}{query}"))
        except (ValueError, httpx.InvalidURL):
            raise UsageError("use the moderation endpoint", "its address is none", do) from None
        asked = f"use the moderation endpoint '{shown}'"
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise UsageError(asked, "it is no http address", do)
        if parts.username or parts.password:
            raise UsageError(asked, "it holds a password", f"Set {KEY} instead.")
        self._model, self._batch = model, batch
        self._headers = _headers(parts.hostname, parts.scheme, asked)
        self._own = client is None
        self._client = client or httpx.Client(timeout=timeout, follow_redirects=False)
        self._wait = time.sleep

    def close(self) -> None:
        """Close the connections."""
        if self._own:
            self._client.close()

    def __call__(self, texts: Sequence[str]) -> list[Verdict]:
        """A verdict for each text, in order. After three batches that fail in a row, or an answer
        that no other will follow (401, 403, 404), the rest is not asked for.
        """
        made: list[Verdict] = []
        failed = 0
        for start in range(0, len(texts), self._batch):
            part = texts[start : start + self._batch]
            verdicts, error, final = self._ask(part)
            failed = 0 if verdicts is not None else failed + 1
            made += verdicts if verdicts is not None else [Verdict(error=error)] * len(part)
            if final or failed == 3:
                rest = len(texts) - len(made)
                return made + [Verdict(error=f"{error}; no more was asked")] * rest
        return made

    def _ask(self, texts: Sequence[str]) -> tuple[list[Verdict] | None, str, bool]:
        """Verdicts, or why there are none and whether that will stay so."""
        body: dict[str, Any] = {"input": list(texts)} | (
            {"model": self._model} if self._model else {}
        )
        error = ""
        for attempt in range(TRIES):
            try:
                status, answer, after = self._post(body)
            except (httpx.HTTPError, OSError) as caught:
                # Their own texts may hold the address with what the user wrote into it.
                error = f"no answer ({type(caught).__name__})"
                status, answer, after = 0, b"", ""
            if status == 200:
                key = self._headers.get("authorization", "").removeprefix("Bearer ")
                verdicts, error = _verdicts(answer, len(texts), key)
                return verdicts, error, False
            if status and status != 429 and status < 500:
                return None, f"the endpoint answers with status {status}", status in (401, 403, 404)
            error = f"the endpoint answers with status {status}" if status else error
            if attempt + 1 < TRIES:
                self._wait(min(float(after), 20.0) if after.isdigit() else 0.5 * 2**attempt)
        return None, error, False

    def _post(self, body: dict[str, Any]) -> tuple[int, bytes, str]:
        """Status, answer and Retry-After; the answer is bounded in size and time."""
        started, answer = time.monotonic(), bytearray()
        content = json.dumps(body).encode()
        with self._client.stream("POST", self.url, content=content, headers=self._headers) as reply:
            for part in reply.iter_bytes():
                answer += part
                if len(answer) > MAX_ANSWER or time.monotonic() - started > MAX_SECONDS:
                    raise httpx.ReadTimeout("the answer does not end")
            return reply.status_code, bytes(answer), reply.headers.get("retry-after", "")


def _headers(host: str, scheme: str, asked: str) -> dict[str, str]:
    names = [KEY, *([OPENAI_KEY] if (scheme, host) == ("https", OPENAI_HOST) else [])]
    headers = {"content-type": "application/json"}
    for name in names:
        key = os.environ.get(name, "").strip()
        if not key:
            continue
        if not (key.isascii() and key.isprintable()):
            raise UsageError(asked, f"the key in {name} cannot be sent", "Set it anew.")
        if scheme == "http" and not _near(host):
            raise UsageError(
                asked, f"the key in {name} would go over plain http", "Use https, or unset the key."
            )
        return headers | {"authorization": f"Bearer {key}"}
    return headers


def _near(host: str) -> bool:
    """This machine or its own network."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or "." not in host or host.endswith((".local", ".internal"))
    return address.is_private or address.is_loopback


def _verdicts(answer: bytes, count: int, key: str) -> tuple[list[Verdict] | None, str]:
    """Verdicts, or why there are none. A server that sends the key back does not get it shown."""
    try:
        raw = parse_json(answer)
    except ValueError:
        return None, "the endpoint's answer is not JSON"
    results = raw.get("results") if isinstance(raw, dict) else None
    if not isinstance(results, list) or len(results) != count:
        return None, "the endpoint's answer has not one result for each text"
    made = []
    for result in results:
        if not isinstance(result, dict) or not isinstance(result.get("flagged"), bool):
            return None, "a result of the endpoint says nothing of 'flagged'"
        told = result.get("categories")
        names = [k for k, v in told.items() if v is True] if isinstance(told, dict) else []
        names = [(name.replace(key, "[key]") if key else name)[:60] for name in names]
        made.append(Verdict(tuple(names or ["flagged"]) if result["flagged"] else ()))
    return made, ""
