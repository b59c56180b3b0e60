"""Templates in what an LLM replies, and which of them can be used."""

from __future__ import annotations

import re
from typing import Any

from byname.files import parse_json

__all__ = ["problem", "read_proposals"]

# "1. a {}" is numbered; "1.5x zoom of {}" and "4:3 photo of {}" are not.
_BULLET = re.compile(r"^\s*(?:[-*+•–—]\s+|\(?\d{1,3}[.):]\s*(?!\d))")
_FENCE = re.compile(r"^\s*```\w*\s*$", re.M)
_MARKED = re.compile(r"(\*\*|__|\*|_)(.+)\1")
_EDGES = " \t\"'`“”‘’"


def read_proposals(reply: str) -> list[str]:
    """The lines of a reply that may be templates: bullets, numbers, quotes and fences taken off.

    JSON lists and objects are read as such, and the texts in them taken. What else is said
    stays in and is sorted out by its lack of ``{}``. Nothing of a reply is ever formatted or
    evaluated.

    Examples
    --------
    >>> read_proposals('Sure:\\n1. "a photo of a {}, outside."\\n- `art of {}`')
    ['Sure:', 'a photo of a {}, outside.', 'art of {}']
    """
    text = _FENCE.sub("", reply).strip()
    try:
        held = parse_json(text)
    except ValueError:
        held = None
    lines = _texts(held)
    if not lines and not isinstance(held, list):
        lines = text.splitlines()
    return [x for line in lines if (x := _bare(" ".join(line.split())))]


def problem(template: str, longest: int) -> str | None:
    """Why a template cannot be used, in a few words; None where it can.

    Examples
    --------
    >>> problem("a photo", 200), problem("a {}", 3), problem("a {}", 200)
    ('no single {}', 'too long', None)
    """
    if template.count("{}") != 1:
        return "no single {}"
    if len(template) > longest:
        return "too long"
    return None if template.isprintable() else "unprintable"


def _texts(held: Any) -> list[str]:
    """All texts of lists and objects in each other, in their order; keys are none."""
    found: list[str] = []
    left = [held] if isinstance(held, list | dict) else []
    while left:
        x = left.pop()
        if isinstance(x, str):
            found.append(x)
        elif isinstance(x, list | dict):
            left += reversed(x if isinstance(x, list) else x.values())
    return found


def _bare(line: str) -> str:
    line = _BULLET.sub("", line, count=1).strip(_EDGES)
    marked = _MARKED.fullmatch(line)
    return marked[2].strip(_EDGES) if marked and marked[1] not in marked[2] else line
