"""Patterns of paths: ``*``, ``**``, ``[a-z]``, ``{a,b}`` and ``{000..012}``."""

# Paths are text here: pathlib drops './' from names, and is slow for a million files.
# ruff: noqa: PTH207

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from byname.errors import SourceError
from byname.images.refs import unicode_name
from byname.images.walk import Walk

__all__ = ["BRACE", "MAGIC", "braces", "expand", "fixed_part", "matches"]

MAGIC = re.compile(r"[*?\[]")
BRACE = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


def fixed_part(text: str, start: int = 0) -> int:
    """Length of the folders before the first magic character behind ``start``."""
    found = (MAGIC.search(text, start), BRACE.search(text, start))
    magic = min(m.start() for m in found if m)
    return text.rfind("/", 0, magic) + 1


def expand(pattern: str, asked: str, outer: Walk) -> Iterator[str]:
    """Paths that match a glob. Behind the first ``**`` the walk is ours, as glob's own goes round
    in circles where links do."""
    if not MAGIC.search(pattern):
        if not os.path.lexists(pattern):
            seen = f"'{unicode_name(pattern)}' does not exist"
            raise SourceError(asked, seen, "Check the numbers in the braces.")
        yield pattern
        return
    parts = pattern.split("/")
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    at = parts.index("**")
    head = "/".join(parts[:at]) + "/" * (at > 0)
    for start in glob.iglob(head) if MAGIC.search(head) else [head]:
        walk = Walk()
        try:
            found = [ref.path for ref in walk.images(start or ".")]
        except OSError:
            continue
        outer.trouble += walk.trouble
        for path in (*found, *(packed for _, packed in (*walk.tars, *walk.tables))):
            inner = path[len(start or "./") :].replace(os.sep, "/")
            if matches(inner.split("/"), parts[at:]):
                yield start + inner


def matches(names: list[str], patterns: list[str]) -> bool:
    """Whether the parts of a path match those of a pattern, ``**`` standing for any number."""
    if not patterns:
        return not names
    if patterns[0] == "**":
        if len(patterns) == 1:
            return True
        return any(matches(names[i:], patterns[1:]) for i in range(len(names)))
    return bool(names) and fnmatchcase(names[0], patterns[0]) and matches(names[1:], patterns[1:])


def braces(text: str) -> Iterator[str]:
    """Expand ``{000..012}`` and ``{a,b}``, as a shell does."""
    found = BRACE.search(text)
    if not found:
        yield text
        return
    if found[3] is not None:
        choices: Iterable[str] = found[3].split(",")
    else:
        first, last, width = int(found[1]), int(found[2]), len(found[1])
        choices = (f"{number:0{width}d}" for number in range(first, last + 1))
    for choice in choices:
        yield from braces(text[: found.start()] + choice + text[found.end() :])
