"""Where a server is, and the key to it, which is sent to that server and shown to nobody."""

from __future__ import annotations

import html
import ipaddress
import json
import os
import re
import warnings
from typing import Any, NoReturn
from urllib.parse import quote

import httpx

from byname.errors import BynameError, UsageError

__all__ = ["Key", "LLMError", "base_url", "find_key", "is_loopback", "one_line"]

_ENDINGS = ("/chat/completions", "/completions", "/models")
_HOME = (".local", ".lan", ".internal", ".home.arpa")


class LLMError(BynameError, RuntimeError):
    """A server of a language model that cannot be used.

    ``answers`` holds what a run had got before, where it was one.
    """

    answers: Any = None

    def __str__(self) -> str:
        return BynameError.__str__(self)


class Key:
    """A key that no repr, error or pickle shows.

    Examples
    --------
    >>> key = Key("sk-1234567890")
    >>> key, key.hide("wrong: sk-1234567890"), key.hide("wrong: sk-1****890")
    ([key], 'wrong: [key]', 'wrong: [key]')
    """

    __slots__ = ("_forms", "_value")

    def __init__(self, value: str = "") -> None:
        self._value = value
        # As other text may hold it: as it is, and in JSON, HTML and addresses.
        forms = {value, json.dumps(value)[1:-1], html.escape(value), quote(value, safe="")}
        patterns = [re.escape(form) for form in sorted(forms, key=len, reverse=True)]
        if len(value) >= 8:  # servers show the ends of a key, with stars between
            patterns.append(re.escape(value[:3]) + r"[^\s\"'<>*]*\*[^\s\"'<>]*")
        self._forms = re.compile("|".join(patterns)) if value else None

    def __repr__(self) -> str:
        return "[key]" if self._value else "[no key]"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not pickled")

    def headers(self) -> dict[str, str]:
        """What a request must say to be let in."""
        return {"Authorization": f"Bearer {self._value}"} if self._value else {}

    def hide(self, text: str) -> str:
        """The text with "[key]" wherever it holds the key."""
        return self._forms.sub("[key]", text) if self._forms else text

    def hide_in_reply(self, text: str) -> str:
        """As :meth:`hide`; keys such as "none", which servers without keys are given, may stay."""
        return self.hide(text) if len(self._value) >= 8 else text


def one_line(text: object, most: int = 300) -> str:
    """Foreign text for a message: one line, nothing that a terminal obeys, and not too long.

    Examples
    --------
    >>> one_line("a\\n\\x1b[31mb")
    'a [31mb'
    """
    shown = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * most])
    shown = " ".join(shown.split())
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def base_url(url: str) -> str:
    """The address that ``/chat/completions`` is put after, without a slash at its end.

    An address without a path gets ``/v1``.

    Raises
    ------
    UsageError
        For other schemes, user names, passwords and query strings.

    Examples
    --------
    >>> base_url("http://localhost:8000"), base_url("https://api.openai.com/v1/")
    ('http://localhost:8000/v1', 'https://api.openai.com/v1')
    """
    do = "Give it as http://localhost:8000/v1 or https://api.openai.com/v1."
    # An address that holds a secret is not shown.
    if re.search(r"[?#]|//[^/]*@", url) or "@" in url.split("/")[0]:
        seen = "it holds a user name, a password, a query or a fragment"
        raise UsageError("use this LLM address", seen, "Put the key in BYNAME_LLM_KEY.")
    try:
        parsed = httpx.URL(url.strip())
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise UsageError(f"use the LLM address {one_line(url)!r}", one_line(error), do) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        seen = "it does not begin with http:// or https:// and a host"
        raise UsageError(f"use the LLM address {one_line(url)!r}", seen, do)
    text = str(parsed).rstrip("/")
    for ending in _ENDINGS:
        text = text.removesuffix(ending).rstrip("/")
    return f"{text}/v1" if httpx.URL(text).path in ("", "/") else text


def is_loopback(host: str) -> bool:
    """Whether a host is this machine.

    Examples
    --------
    >>> is_loopback("localhost"), is_loopback("127.0.0.2"), is_loopback("api.openai.com")
    (True, True, False)
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _is_near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return is_loopback(host) or "." not in host or host.endswith(_HOME)


def find_key(url: str, key_env: str | None = None) -> Key:
    """The key for the server at a :func:`base_url`, from the environment.

    ``key_env`` names the variable. Without it: ``BYNAME_LLM_KEY`` for any server, else
    ``OPENAI_API_KEY``, for https://api.openai.com alone.

    Raises
    ------
    UsageError
        For a ``key_env`` that is not set, and for a key that no header can hold.
    """
    where = httpx.URL(url)
    names = [key_env] if key_env else ["BYNAME_LLM_KEY"]
    if not key_env and (where.scheme, where.host) == ("https", "api.openai.com"):
        names.append("OPENAI_API_KEY")
    name = next((name for name in names if os.environ.get(name)), None)
    if name is None:
        if key_env:
            raise UsageError(
                f"take the LLM key from {one_line(key_env)!r}",
                "the environment holds no such variable",
                "Give the variable's name, never the key itself.",
            )
        return Key()
    value = os.environ[name]
    if not all("!" <= c <= "~" for c in value):
        raise UsageError(
            f"use the key in {name}",
            "it holds a space, a line end or another character that no key has",
            "Set it again, without anything around it.",
        )
    if where.scheme == "http" and not _is_near(where.host):
        warnings.warn(
            f"The key in {name} goes to {where.host} without encryption: use https.", stacklevel=4
        )
    return Key(value)
