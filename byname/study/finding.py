"""One thing that was found, in words, with what it is about and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

__all__ = ["SHOWN", "Finding", "Level", "by_level"]

Level = Literal["problem", "warning", "note"]
SHOWN = 20  # images or texts that a finding names; ``count`` says how many there are


@dataclass(frozen=True)
class Finding:
    """What was found.

    Parameters
    ----------
    kind : str
        Its name for programs, such as ``"never_predicted"``; one kind, one check.
    level : {"problem", "warning", "note"}
        A problem makes answers wrong; a warning may; a note is to know.
    what : str
        One sentence for people, with its numbers.
    next : str
        A command, or a comment that begins with ``#``; "" where there is nothing to do.
    classes, images, texts : tuple of str
        Ids of classes, file names, and sentences that it is about; the first ``SHOWN``.
    count : int
        How many images, texts or classes it is about.
    values : dict of str to float
        Its numbers by name.

    Examples
    --------
    >>> Finding("greyscale", "note", "3 of 9 images are grey.", count=3).to_dict()["level"]
    'note'
    """

    kind: str
    level: Level
    what: str
    next: str = ""
    classes: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    count: int = 0
    values: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        made = asdict(self)
        return made | {name: list(made[name]) for name in ("classes", "images", "texts")}


def by_level(found: Iterable[Finding]) -> list[Finding]:
    """Problems first, then warnings, then notes; each in the given order.

    Examples
    --------
    >>> found = [Finding("a", "note", "."), Finding("b", "problem", ".")]
    >>> [one.kind for one in by_level(found)]
    ['b', 'a']
    """
    order = get_args(Level)
    return sorted(found, key=lambda one: order.index(one.level))
