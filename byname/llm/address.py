"""Where a server is, and the key to it, which is sent to that server and shown to nobody."""

from __future__ import annotations

import base64
import html
import ipaddress
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Any, NoReturn
from unicodedata import category
from urllib.parse import quote

import httpx

from byname.errors import BynameError, UsageError

__all__ = ["Key", "LLMError", "as_it_is", "base_url", "find_key", "is_loopback", "one_line"]

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

    __slots__ = ("_forms", "_value", "_whole")

    def __init__(self, value: str = "") -> None:
        self._value = value
        # As other text may hold it: as it is, and in JSON, HTML and addresses.
        forms = {value, json.dumps(value)[1:-1], html.escape(value), quote(value, safe="")}
        packed = _base64_forms(value) if len(value) >= 8 else set()
        patterns = [re.escape(form) for form in sorted(forms | packed, key=len, reverse=True)]
        if len(value) >= 8:  # servers show the ends of a key, with stars or dots between
            masked = r"[^\s\"'<>*…]{0,200}(?:[*…]|\.\.\.)[^\s\"'<>]{0,200}"
            patterns.append(re.escape(value[:3]) + masked)
            patterns.append(r"(?:\*\*|…|\.\.\.)" + re.escape(value[-4:]))
        any_case = re.IGNORECASE if len(value) >= 8 else 0
        self._forms = re.compile("|".join(patterns), any_case) if value else None
        secret = len(value) >= 8 and value not in _NO_SECRETS
        self._whole = (value, *(packed if len(value) >= 20 else ())) if secret else ()

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
        """Text of an error, with "[key]" for the key, its forms, and long beginnings and ends.

        Characters that are not seen, with which a key could be broken up, are left out.
        """
        if self._forms is None:
            return text
        text = self._forms.sub("[key]", _seen(text))
        if len(self._value) < _RUN:
            return text
        size, back = len(text), self._value[::-1]
        ends = ((size - b, size - a) for a, b in _runs(text[::-1], back))
        parts, at = [], 0
        for start, end in sorted([*_runs(text, self._value), *ends]):
            if start >= at:
                parts += [text[at:start], "[key]"]
            at = max(at, end)
        return "".join([*parts, text[at:]])

    def hide_in_reply(self, text: str) -> str:
        """Text of a reply, which is kept as it is but for the whole key.

        Keys such as "none" or "not-needed", which servers without keys are given, stay.
        """
        for form in self._whole:
            text = text.replace(form, "[key]")
        return text

    def is_in(self, text: str) -> bool:
        """Whether a short text, such as a name, would show the key or much of it."""
        long = len(self._value) >= 20 and self.hide(text) != _seen(text)
        return long or self.hide_in_reply(text) != text


_RUN = 8  # as many characters of a key's beginning or end are too many
_NO_SECRETS = frozenset(
    ("not-needed", "not-required", "no-key-required", "sk-no-key-required", "lm-studio")
)
"""Keys that documentation names for servers that want none."""


def _base64_forms(value: str) -> set[str]:
    """The characters that base64 has for the value, wherever in a longer text it begins."""
    forms = set()
    for before, start in enumerate((0, 2, 3)):
        data = bytes(before) + value.encode()
        packed = base64.b64encode(data).decode()[start : 8 * len(data) // 6]
        forms |= {packed, packed.translate(str.maketrans("+/", "-_"))}
    return forms


def _seen(text: str) -> str:
    """The text without control and zero-width characters."""
    if text.isprintable():
        return text
    return "".join(c for c in text if c in "\n\r\t" or category(c) not in ("Cc", "Cf"))


def _runs(text: str, value: str) -> Iterator[tuple[int, int]]:
    """Where the text has the beginning of the value, in any case, and how far."""
    head = re.compile(re.escape(value[:_RUN]), re.IGNORECASE)
    at = 0
    while found := head.search(text, at):
        start = found.start()
        same = zip(text[start : start + len(value)], value, strict=False)
        shared = takewhile(lambda pair: pair[0].lower() == pair[1].lower(), same)
        at = max(found.end(), start + sum(1 for _ in shared))
        yield start, at


_LOOKED_AT = 100_000  # characters of a foreign text that may come to be shown


def as_it_is(text: str) -> str:
    """Hides nothing."""
    return text


def one_line(text: object, most: int = 300, hide: Callable[[str], str] = as_it_is) -> str:
    """Foreign text for a message: one line, nothing that a terminal obeys, and not too long.

    ``hide`` takes the key out, before the text is cut and again after.

    Examples
    --------
    >>> one_line("a\\n\\x1b[31mb")
    'a [31mb'
    """
    shown = "".join(c if c.isprintable() else " " for c in hide(str(text)[:_LOOKED_AT])[: 4 * most])
    shown = hide(" ".join(shown.split()))
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
        host, port = parsed.host, parsed.port  # names in other scripts are decoded here
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise UsageError(f"use the LLM address {one_line(url)!r}", one_line(error), do) from None
    if parsed.scheme not in ("http", "https") or not host:
        seen = "it does not begin with http:// or https:// and a host"
        raise UsageError(f"use the LLM address {one_line(url)!r}", seen, do)
    if port is not None and not 1 <= port <= 65535:
        seen = f"there is no port {port}"
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


def _variable(name: str) -> str:
    """The name of a variable, unless it may be the key itself, given by mistake."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,60}", name)
    begun = re.match(r"(?:sk|gsk|hf|xai|ghp|pplx|r8)[_-]", name)
    random = len(name) > 20 and re.search(r"\d", name) and re.search(r"[a-z]", name)
    return repr(name) if plain and not begun and not random else "the name given"


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
                f"take the LLM key from {_variable(key_env)}",
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
