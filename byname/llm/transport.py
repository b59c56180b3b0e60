"""One request over HTTP: bounded in time and in size, and never sent on to another place."""

from __future__ import annotations

import asyncio
import email.utils
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import httpx

from byname import __version__
from byname.errors import UsageError
from byname.llm.address import Key, LLMError, is_loopback, one_line
from byname.llm.wire import Mode

__all__ = ["AgainError", "Settings", "fetch", "open_client", "retry_after"]

MAX_BYTES = 2 * 2**20
"""Largest body that is read; a reply has a few kilobytes."""
# What comes out of httpx for odd addresses beside its own errors.
_OTHER = (ExceptionGroup, ValueError, OverflowError, RuntimeError, httpx.InvalidURL)


@dataclass(frozen=True)
class Settings:
    """How a server is asked; see :class:`byname.llm.LLM`."""

    url: str
    mode: Mode
    concurrency: int
    timeout: float
    retries: int
    schema: Literal["auto", "on", "off"]
    backoff: float
    key: Key


class AgainError(Exception):
    """A request that may go well another time.

    ``wait`` is how many seconds the server wants to be left alone, ``busy`` whether it has too
    much to do, ``reached`` whether it can have seen the request at all.
    """

    def __init__(
        self, reason: str, *, wait: float | None = None, busy: bool = False, reached: bool = True
    ) -> None:
        super().__init__(reason)
        self.reason, self.wait, self.busy, self.reached = reason, wait, busy, reached


def open_client(settings: Settings) -> httpx.AsyncClient:
    """A client that follows no redirects, so that the key goes to no other place.

    Raises
    ------
    UsageError
        For proxy and certificate settings in the environment that cannot be used.
    """
    limit = settings.concurrency
    try:
        return httpx.AsyncClient(
            headers={
                # Nothing is compressed, so that a small body cannot become a large one.
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "User-Agent": f"byname/{__version__}",
                **settings.key.headers(),
            },
            timeout=httpx.Timeout(settings.timeout, connect=min(settings.timeout, 15.0)),
            limits=httpx.Limits(max_connections=limit, max_keepalive_connections=limit),
            follow_redirects=False,
            # Proxies come from the environment, and none stands before this machine itself.
            trust_env=not is_loopback(httpx.URL(settings.url).host),
        )
    except (httpx.InvalidURL, ValueError, ImportError, OSError):
        # Not shown: the address of a proxy may hold a password.
        seen = "the proxy or certificate settings in the environment cannot be used"
        raise UsageError(
            f"ask the LLM at {settings.url}", seen, "Look at HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE."
        ) from None


async def fetch(
    client: httpx.AsyncClient,
    settings: Settings,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
) -> tuple[int, httpx.Headers, bytes]:
    """Status, headers and whole body of one answer.

    Raises
    ------
    AgainError
        For an answer that does not come, not in time, not whole, or is too large.
    LLMError
        For an address that nothing can be sent to.
    """
    # ASCII alone: half characters from somebody's class names cannot be sent as UTF-8.
    content = json.dumps(body).encode() if body is not None else None
    data = bytearray()
    try:
        # httpx's own limits begin anew with each byte that a slow server sends.
        async with (
            asyncio.timeout(settings.timeout),
            client.stream(method, settings.url + path, content=content) as response,
        ):
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > MAX_BYTES:
                    raise AgainError(f"an answer of more than {MAX_BYTES:,} bytes")
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        why = one_line(error, hide=settings.key.hide) or "no connection"
        raise AgainError(f"it cannot be reached: {why}", reached=False) from None
    except (TimeoutError, httpx.TimeoutException):
        raise AgainError(f"no whole answer within {settings.timeout:g} s") from None
    except (httpx.HTTPError, OSError) as error:
        why = one_line(error, hide=settings.key.hide) or type(error).__name__
        raise AgainError(f"the connection broke: {why}") from None
    except _OTHER as error:
        first: BaseException = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        why = one_line(first, hide=settings.key.hide) or type(first).__name__
        raise LLMError(
            f"ask the LLM at {settings.url}",
            f"nothing can be sent there: {why}",
            "Check the address, and the proxy that is set.",
        ) from None
    return response.status_code, response.headers, bytes(data)


def retry_after(value: str) -> float | None:
    """Seconds that a ``Retry-After`` asks for, given as such or as a date; None for neither.

    Examples
    --------
    >>> retry_after("3"), retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), retry_after("soon")
    (3.0, 0.0, None)
    """
    if re.fullmatch(r"\s*\d{1,9}(\.\d*)?\s*", value):
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
