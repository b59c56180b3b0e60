"""What the command line prints: tables, progress, warnings, errors."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from byname.runs.shard import Progress as ProgressCallback

__all__ = [
    "Counter",
    "collect_warnings",
    "console",
    "errors",
    "progress_bar",
    "query_progress",
    "say",
    "steps",
    "table",
    "text_progress",
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


class Counter:
    """How many images were encoded, and the time that all images took."""

    def __init__(self) -> None:
        self.encoded = 0
        self.seconds = 0.0


@contextmanager
def progress_bar(counter: Counter, total: int, quiet: bool) -> Iterator[ProgressCallback]:
    """A bar with count, rate and remaining time on standard error, if that is a terminal."""
    start = time.perf_counter()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        disable=quiet or not errors.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task("images", total=total, rate="")

        def advance(done: int, encoded: bool) -> None:
            counter.encoded += done if encoded else 0
            seconds = time.perf_counter() - start
            rate = f"{counter.encoded / seconds:.1f}/s" if counter.encoded else ""
            bar.update(task, advance=done, rate=rate)

        try:
            yield advance
        finally:
            counter.seconds += time.perf_counter() - start


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


@contextmanager
def text_progress(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar for texts; it appears with the first block, so that a warm cache shows none."""
    with _counted("texts", quiet) as advance:
        yield advance


@contextmanager
def query_progress(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar for queries to an LLM."""
    with _counted("queries", quiet) as advance:
        yield advance


@contextmanager
def _counted(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        disable=quiet or not errors.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


@contextmanager
def steps(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for work in several steps: called with the step, and how many of how many are done."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        disable=quiet or not errors.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None, visible=False)

        def advance(what: str, done: int, total: int) -> None:
            bar.update(task, description=plain(what), completed=done, total=total, visible=True)

        yield advance
