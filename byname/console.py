"""What the command line prints: tables, progress, warnings, errors."""

from __future__ import annotations

import re
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from byname.bars import Display, Row
from byname.progress import listening
from byname.runs.shard import Progress as ProgressCallback
from byname.runs.stop import telling

__all__ = [
    "Counter",
    "collect_warnings",
    "console",
    "errors",
    "farewell",
    "keep",
    "plain",
    "progress_bar",
    "query_progress",
    "say",
    "steps",
    "table",
    "text_progress",
    "working",
]

# A pipe has no width of its own: rows are then printed whole, for grep and cut.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One line for the user, on standard error, so that standard output stays data."""
    errors.print(plain(text), markup=False)


def plain(text: object) -> str:
    """Names and file names are inert: control characters cannot reach the terminal."""
    return "".join(
        c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(text)
    )


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; numbers to the right."""
    rows = [list(row) for row in rows]
    drawn = Table(title=escape(title) if title else None, title_justify="left", header_style="bold")
    for i, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(r[i], int | float) for r in rows)
        side: Literal["left", "right"] = "right" if numeric else "left"
        drawn.add_column(escape(plain(name)), justify=side, overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(plain(_cell(x))) for x in row))
    console.print(drawn)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else str(value)


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Print each warning once, as one line, and keep them for the run's record."""
    kept: list[str] = []

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        text = str(message)
        if text not in kept and issubclass(category, UserWarning):
            kept.append(text)
            say(f"warning: {text}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield kept


class Counter:
    """How many images were encoded, and the time that all images took."""

    def __init__(self) -> None:
        self.encoded = 0
        self.seconds = 0.0


_display = Display(errors, say)
_kept: list[str] = []


def keep(text: str | None) -> None:
    """Note what stays although the run is stopped; None for nothing any more."""
    _kept[:] = [] if text is None else [*(t for t in _kept if t != text), text]


def farewell(command: Sequence[str]) -> str:
    """One line for a run that was stopped: what is kept, and how to go on.

    Examples
    --------
    >>> farewell(["byname", "classify", "my photos"])
    "stopped before the end, nothing is half-written; start again: byname classify 'my photos'"
    """
    # a password in an address is not for a log
    again = re.sub(r"//[^/@\s]*@", "//...@", shlex.join(command))
    if _kept:
        return f"stopped; {' and '.join(_kept)}; go on: {again}"
    return f"stopped before the end, nothing is half-written; start again: {again}"


@contextmanager
def progress_bar(
    counter: Counter, total: int, quiet: bool, cache: bool = True
) -> Iterator[ProgressCallback]:
    """A bar for images: count, rate of those that are encoded, and remaining time.

    Without ``cache`` the vectors are kept only until all are there. Who asks it to stop is told
    that the batch in hand comes first.
    """
    start = time.perf_counter()
    row = Row("images", total)
    with _listened(row, quiet) as draw, telling(_stopping):

        def advance(done: int, encoded: bool) -> None:
            if encoded:
                counter.encoded += done
            if done and encoded:
                keep("finished images are kept")
            row.add(done, encoded)
            draw()

        try:
            yield advance
        finally:
            counter.seconds += time.perf_counter() - start
        if not cache:
            keep(None)


def _stopping() -> None:
    say("stopping as soon as the batches in hand are finished; once more ends it at once")


@contextmanager
def text_progress(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar for texts; it appears with the first block, so that a warm cache shows none."""
    with _counted("texts", quiet) as advance:
        yield advance


@contextmanager
def query_progress(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar for queries to an LLM; it appears at once, for the first answer may take long."""
    keep("what was answered is kept")
    with _counted("queries", quiet) as advance:
        yield advance


@contextmanager
def _counted(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    row = Row(what)
    with _listened(row, quiet) as draw:

        def advance(done: int, total: int) -> None:
            row.update(done, total)
            draw()

        yield advance


@contextmanager
def steps(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for work in several steps: called with the step, and how many of how many are done.

    Below it stands what the step itself tells.
    """
    row = Row("")
    with _listened(row, quiet) as draw:

        def advance(what: str, done: int, total: int) -> None:
            row.what = plain(what)
            row.update(done, total)
            draw()

        yield advance


@contextmanager
def working(quiet: bool) -> Iterator[None]:
    """A bar for whatever the work inside the block tells (:mod:`byname.progress`)."""
    with _listener(quiet):
        yield


@contextmanager
def _listened(row: Row, quiet: bool) -> Iterator[Callable[[], None]]:
    """Show a row, and below it what is told meanwhile."""
    if quiet:
        with _listener(quiet):
            yield lambda: None
        return
    with _display.open(row) as draw, _listener(quiet):
        yield draw


@contextmanager
def _listener(quiet: bool) -> Iterator[None]:
    if quiet:
        with listening(lambda what, done, total: None, bars=False):
            yield
        return
    row = Row("")
    whole, since = (
        "",
        0.0,
    )  # the last work told without a total, which goes on when its parts are done
    with _display.open(row) as draw:

        def heard(what: str, done: int, total: int | None) -> None:
            nonlocal whole, since
            what = plain(what)
            if what != row.what or done < row.done:
                row.turn(what)
            row.update(done, total)
            if total is None or not what:
                whole, since = what, row.began
            elif done >= total:
                row.turn(whole)
                row.began, row.shown = since, True
            row.shown = row.shown and bool(row.what)
            draw()

        with listening(heard, bars=_display.draws):
            yield
