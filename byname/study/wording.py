"""Names inside the sentences and commands of findings: short, and on one line."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from byname.study.subject import Subject

__all__ = ["classes", "listed", "one_line", "option", "quoted"]

LONG = 60  # characters of a name inside a sentence


def one_line(text: str) -> str:
    """Without line breaks: one would end a comment.

    Examples
    --------
    >>> one_line("a\\nb")
    'a b'
    """
    return " ".join(text.split())


def quoted(name: str) -> str:
    """A name in quotes, cut where it is long.

    Examples
    --------
    >>> quoted("red  apple")
    "'red apple'"
    """
    text = one_line(name)
    return f"'{text}'" if len(text) <= LONG else f"'{text[: LONG - 3]}...'"


def listed(said: Sequence[str], most: int = 3) -> str:
    """The first of them, and how many more there are.

    Examples
    --------
    >>> listed(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    more = f" and {len(said) - most} more" if len(said) > most else ""
    return ", ".join(said[:most]) + more


def classes(subject: Subject, ids: Iterable[str]) -> str:
    """The names of classes, for a sentence."""
    return listed([quoted(subject.taxonomy.node(i).name) for i in ids])


def option(command: str, name: str) -> str | None:
    """The word after an option of a command.

    Examples
    --------
    >>> option("byname diagnose photos --classes 'my classes.csv'", "--classes")
    'my classes.csv'
    """
    words = shlex.split(command)
    places = [i for i, word in enumerate(words[:-1]) if word == name]
    return words[places[-1] + 1] if places else None
