"""What an engine tells while it works, whichever engine it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from byname.runs.job import Done

__all__ = ["Advance", "Done", "Event", "Heard", "Note"]


@dataclass(frozen=True)
class Advance:
    """So many more images are done; ``encoded`` says whether just now."""

    images: int
    encoded: bool


@dataclass(frozen=True)
class Note:
    """Something that a person should know and that does not end the run, as one sentence."""

    text: str


Event: TypeAlias = Advance | Done | Note
Heard: TypeAlias = Callable[[Event], None]
"""Called by an engine, always from the thread that called the engine."""
