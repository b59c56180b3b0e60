"""Replies that hold lists, in whatever form people and LLMs write them."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

from byname.queries import is_refusal

__all__ = ["parse_list", "parse_two_lists"]

_BULLET = re.compile(r"^\s*(?:[-*+_•·‣◦–—]+\s*|\(?\d{1,3}[.)]+\s+)(?=\S)")
_MARKS = re.compile(r"\*\*|__|`")
_NOTHING = frozenset({"none", "n/a", "na", "nothing", "no synonyms", "no other name", "-"})
_EDGES = " \t\"'“”‘’.,;:"
_FENCE = re.compile(r"```\w*[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.S)
# A string that is not closed is taken to its end too: to begin again inside of it is quadratic.
_STRING = re.compile(r'("(?:[^"\\]|\\.)*+("?))(\s*+:)?', re.S)


def parse_list(reply: str) -> list[str]:
    """The items of a list: its order kept, repetitions and empty items dropped.

    Where any line is a bullet or is numbered, only such lines count, so that an introduction or a
    closing remark is no item. Otherwise each line is one, and a single line is split at
    semicolons, else at commas. JSON gives the texts in its lists and objects, also where it was
    cut off or stands in a code fence. "none", refusals and marks without any letter or digit are
    no items.

    Examples
    --------
    >>> parse_list("Here you are:\\n1. long ears\\n2. **a short tail**\\n3. long ears")
    ['long ears', 'a short tail']
    >>> parse_list("couch, settee and divan.")
    ['couch', 'settee', 'divan']
    """
    text = reply.strip()
    if is_refusal(text):
        return []
    if (held := _json(text)) is not None:
        return _distinct(_texts(held))
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    bulleted = [_BULLET.sub("", line, count=1) for line in lines if _bullet(line)]
    if bulleted:
        found = bulleted
    elif len(lines) == 1:
        found = _split(lines[0])
    else:
        found = [line for line in lines if not line.endswith(":")]
    return _distinct(found)


def parse_two_lists(reply: str, a: str, b: str) -> tuple[list[str], list[str]]:
    """The items said of A and those said of B.

    A line that says "A:", "For B:", "**zebra**:" or the like opens a side, and what follows on the
    same line is its first item or, if it is a list, its items. A colon after anything else
    belongs to the item. What stands before the first such line is no item.

    Parameters
    ----------
    reply : str
    a, b : str
        Names of the two; "A" and "B" are understood as well.

    Returns
    -------
    two lists of str

    Examples
    --------
    >>> parse_two_lists("For river:\\n- flow: visible\\n- long\\nFor lake: still, round", "river",
    ...                 "lake")
    (['flow: visible', 'long'], ['still', 'round'])
    """
    held = _json(reply.strip())
    if isinstance(held, dict):
        keys = {str(key).strip().casefold(): value for key, value in held.items()}
        one, two = (
            keys.get(said.casefold(), keys.get(letter)) for said, letter in ((a, "a"), (b, "b"))
        )
        return _distinct(_texts(one)), _distinct(_texts(two))
    sides: tuple[list[str], list[str]] = ([], [])
    bulleted: tuple[list[bool], list[bool]] = ([], [])
    side = -1
    for line in filter(None, map(str.strip, reply.splitlines())):
        rest, bullet = line, _bullet(line)
        opened = _heading(line, a, b)
        if opened is not None:
            side, rest = opened
            found = [rest] if bullet else _split(rest)
        else:
            found = [_BULLET.sub("", line, count=1)]
        if side >= 0:
            sides[side].extend(found)
            bulleted[side].extend([bullet or opened is not None] * len(found))
    result = []
    for items, marked in zip(sides, bulleted, strict=True):
        chosen = [item for item, mark in zip(items, marked, strict=True) if mark]
        result.append(_distinct(chosen or items))
    return result[0], result[1]


def _json(text: str) -> Any:
    """What a reply that is JSON holds, as far as it goes; None for any other reply."""
    fenced = _FENCE.search(text)
    text = (fenced[1] if fenced else text).strip()
    if not text.startswith(("{", "[")):
        return None
    with suppress(ValueError, RecursionError):
        return json.loads(text, strict=False)
    # Cut off: the strings that are whole, keys left out. "[a] is ..." is no JSON at all.
    found = []
    for item, closed, key in _STRING.findall(text):
        with suppress(ValueError):
            found += [json.loads(item, strict=False)] if closed and not key else []
    return found or None


def _texts(held: Any) -> list[str]:
    """Every text in lists and objects, however deep, in order; keys are none."""
    found: list[str] = []
    left = [held]
    while left:
        item = left.pop()
        if isinstance(item, str):
            # Half a surrogate pair, which JSON can name, is no text that could be written.
            found.append(item.encode("utf-8", "replace").decode())
        elif isinstance(item, list | dict):
            left.extend(reversed(list(item.values() if isinstance(item, dict) else item)))
    return found


def _bullet(line: str) -> bool:
    # "**Zebra**:" is bold and no bullet.
    return bool(_BULLET.match(line)) and not line.startswith(("**", "__"))


def _heading(line: str, a: str, b: str) -> tuple[int, str] | None:
    """Which side a line opens, and what follows on it; None for any other line."""
    plain = _MARKS.sub("", _BULLET.sub("", line, count=1) if _bullet(line) else line)
    head, colon, rest = plain.lstrip("# ").partition(":")
    label = head.strip(_EDGES + "#[]").casefold()
    names = (a.casefold(), b.casefold())
    # "A" alone on a line is a heading too; a name without colon could as well be an item.
    if not colon:
        bare = plain.strip("# ()[].").casefold()
        return ("ab".index(bare), "") if bare in ("a", "b") else None
    for said in (label, *_variants(label)):
        if said in names:
            return names.index(said), rest
        if said in ("a", "b"):
            return "ab".index(said), rest
    return None


def _variants(label: str) -> list[str]:
    """ "differences for the lake (B)" as "lake (b)", "lake" and "b"."""
    short = re.sub(r"^(?:[\w ]*\b)?for\s+", "", label)
    found = [short, re.sub(r"^(?:an?|the)\s+", "", short)]
    # No regular expression: on "((((..." or many spaces its time grows with their square.
    last = found[-1]
    if last.endswith(")") and 0 < (at := last.find("(", 1)) < len(last) - 2:
        found += [last[:at].rstrip(), last[at + 1 : -1]]
    return [text.strip(_EDGES + "()") for text in found]


def _split(line: str) -> list[str]:
    if ";" in line:
        return line.split(";")
    parts = line.split(",")
    if len(parts) == 1 or not all(part.strip() for part in parts[:-1]):
        return [line]
    last = re.split(r"^(?:and|or) | (?:and|or) ", " ".join(parts[-1].split()))
    return [*parts[:-1], *last]


def _distinct(found: list[str]) -> list[str]:
    kept: dict[str, str] = {}
    for item in found:
        text = " ".join(_MARKS.sub("", item).split()).strip(_EDGES)
        said = any(map(str.isalnum, text)) and text.casefold() not in _NOTHING
        if said and not is_refusal(item):
            kept.setdefault(text.casefold(), text)
    return list(kept.values())
