"""A shard whose worker died: what to try next, and which file to blame in the end.

A worker that dies without a word (a signal, a crash inside a library, the system out of memory)
says nothing of the reason. Once is no reason at all. Who dies again where nothing got further is
tried with a note of what is in hand; a file that is in hand at two deaths is given up.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byname.errors import RunError
from byname.runs.events import Note
from byname.runs.plan import Plan

__all__ = ["Case", "blame"]

PATIENCE = 2  # deaths without progress, before care is taken; and deaths that make a culprit
BLIND = 3  # deaths in careful mode without a hint
BROKEN = 3  # images that kill the encoder, where it has never encoded one
_HAND = re.compile(r"(load|encode) (\d+)(?: (\d+))?\s*", re.ASCII)


@dataclass
class Case:
    """What is known of one shard while it is being made.

    Parameters
    ----------
    folder : Path
        Of the run.
    index : int

    Attributes
    ----------
    given_up : dict of int to str
        Positions that killed a worker again and again, and what their rows say.

    Examples
    --------
    >>> case = Case(Path("run"), 3)
    >>> case.begin()
    {'shard': 3}
    >>> case.died("signal 9"), case.died("signal 9")
    (None, None)
    >>> case.begin()["careful"].endswith("part-00003.inhand")
    True
    """

    folder: Path
    index: int
    given_up: dict[int, str] = field(default_factory=dict)
    encoding: int = 0  # of those given up, how many died with the encoder
    _now: int = 0
    _best: int = 0
    _told: int = 0
    _quiet: int = 0
    _blind: int = 0
    _careful: bool = False
    _alone: bool = False
    _suspects: Counter[tuple[str, int]] = field(default_factory=Counter)

    @property
    def note(self) -> Path:
        """The file that says what is in hand."""
        return self.folder / f"part-{self.index:05d}.inhand"

    def begin(self) -> dict[str, Any]:
        """What to tell a worker that is to make it."""
        self._now = 0
        told: dict[str, Any] = {"shard": self.index}
        if self._careful:
            with suppress(OSError):
                self.note.unlink(missing_ok=True)
            told["careful"] = str(self.note)
        if self._alone:
            told["batch_size"] = 1
        if self.given_up:
            told["give_up"] = {str(position): why for position, why in self.given_up.items()}
        return told

    def advance(self, images: int) -> int:
        """So many images are done in this attempt; how many of them are news."""
        self._now += images
        news = max(0, self._now - self._told)
        self._told += news
        return news

    def died(self, why: str) -> int | None:
        """The worker died; the position of the file that is given up for it, if one is.

        Raises
        ------
        RunError
            Where there is nothing left to try.
        """
        further = self._now > self._best
        self._best = max(self._best, self._now)
        if not self._careful:
            self._quiet = 0 if further else self._quiet + 1
            self._careful = self._quiet >= PATIENCE
            return None
        found = _HAND.fullmatch(self._in_hand())
        if found is None:
            self._blind = 0 if further else self._blind + 1
            if self._blind >= BLIND:
                raise RunError(
                    f"make shard {self.index} of the run '{self.folder}'",
                    f"its worker dies each time ({why}), with no file in hand",
                    "Look whether memory or disk are full; the same command goes on.",
                )
            return None
        kind, first, last = found[1], int(found[2]), int(found[3] or found[2])
        if kind == "encode" and first != last and not self._alone:
            self._alone = True
            return None
        self._suspects[kind, first] += 1
        if self._suspects[kind, first] < PATIENCE:
            return None
        doing = "reading" if kind == "load" else "encoding"
        self.given_up[first] = f"the process died while {doing} it ({why})"
        self.encoding += kind == "encode"
        return first

    def close(self) -> None:
        """Nothing is in hand any more."""
        if self._careful:
            with suppress(OSError):
                self.note.unlink(missing_ok=True)

    def _in_hand(self) -> str:
        try:
            return self.note.read_text(encoding="utf-8", errors="replace")[:100]
        except OSError:
            return ""


def blame(
    cases: Mapping[int, Case], index: int, why: str, encoded: int, folder: Path
) -> Note | None:
    """What to tell of a worker that died on a shard; None where the encoder dies with every image.

    ``encoded`` is how many images were encoded so far in this run, in whatever shard.

    Raises
    ------
    RunError
        Where there is nothing left to try.
    """
    case = cases[index]
    culprit = case.died(why)
    if not encoded and sum(one.encoding for one in cases.values()) >= BROKEN:
        return None
    if culprit is None:
        return Note(f"a worker died on shard {index} ({why}); it is tried again")
    name = Plan.open(folder).shard(index)[culprit].key
    return Note(f"'{name}' is given up: {case.given_up[culprit]}")
