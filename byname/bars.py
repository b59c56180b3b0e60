"""Bars on a terminal; elsewhere, where nobody watches, a line now and then that work goes on.

As pip does it: a log gets no bars, which would be thousands of lines, but a step that takes longer
than ``EVERY`` seconds says so, since a silent job looks like a dead one and some are killed for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.text import Text

__all__ = ["EVERY", "Display", "Row", "clock", "pace"]

EVERY = 30.0
"""Seconds between two lines where there is no terminal."""
WIDTH = 24
SOON = 0.5  # seconds before which a rate says nothing
RECENT = 20.0  # seconds that a forecast looks back


def clock(seconds: float) -> str:
    """A time as people read it.

    Examples
    --------
    >>> clock(7.4), clock(80), clock(3700)
    ('0:07', '1:20', '1:01:40')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def pace(rate: float) -> str:
    """So many a second; a minute, where that is less than one a second.

    Examples
    --------
    >>> pace(1234.5), pace(12.34), pace(0.05)
    ('1,234/s', '12.3/s', '3.0/min')
    """
    if rate >= 1:
        return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.1f}/s"
    return f"{60 * rate:.1f}/min"


@dataclass
class Row:
    """One thing that is being done.

    Parameters
    ----------
    what : str
    total : int or None
        How much there is to do, if known.
    shown : bool
        Whether there is anything to show yet.

    Examples
    --------
    >>> row = Row("images")
    >>> row.update(10, 40)
    >>> row.shown, row.counts()
    (True, '10 of 40')
    """

    what: str
    total: int | None = None
    shown: bool = False
    done: int = 0
    worked: int = 0
    began: float = field(default_factory=lambda: time.perf_counter())
    since: float = field(default_factory=lambda: time.perf_counter())
    lately: tuple[tuple[float, int], ...] = ()  # how much was done when

    def turn(self, what: str) -> None:
        """Begin with something else."""
        self.what, self.total, self.done, self.worked, self.shown = what, None, 0, 0, False
        self.lately = ()
        self.began = self.since = time.perf_counter()

    def update(self, done: int, total: int | None) -> None:
        """So much of so much; what was done when it was first told cost no time of this run."""
        if self.shown:
            self.worked += max(0, done - self.done)
        else:
            self.since = time.perf_counter()
            self.lately = ()
        self.done, self.total, self.shown = done, total, True
        self._note()

    def add(self, done: int, work: bool) -> None:
        """So much more; without ``work`` it was known before, and says nothing of the pace."""
        if work:
            self.worked += done
        elif not self.worked:
            self.since = time.perf_counter()
            self.lately = ()
        self.done, self.shown = self.done + done, True
        self._note()

    def _note(self) -> None:
        """Keep how much was done when, over the last seconds; another thread may be looking."""
        now, noted = time.perf_counter(), self.lately
        if not noted or now - noted[-1][0] >= RECENT / 40:
            noted = (*noted, (now, self.done))
        while len(noted) > 2 and now - noted[1][0] > RECENT:
            noted = noted[1:]
        self.lately = noted

    def counts(self) -> str:
        """How much of how much."""
        if self.total is None:
            return f"{self.done:,}" if self.done else ""
        return f"{self.done:,} of {self.total:,}"

    def rate(self) -> float | None:
        """How much a second; None where that is not known yet."""
        seconds = time.perf_counter() - self.since
        return self.worked / seconds if self.worked and seconds > SOON else None

    def left(self) -> float | None:
        """Seconds until the end, if the pace stays; None where that is not known.

        The pace of the last seconds, and of all that is done: copies, and what is known when its
        turn comes, will be among the rest as well.
        """
        noted = self.lately
        if self.rate() is None or self.total is None or self.total <= self.done or not noted:
            return None
        (then, before), now = noted[0], time.perf_counter()
        if self.done == before or now <= then:
            then, before = self.since, self.done - self.worked
        return (self.total - self.done) / (self.done - before) * (now - then)

    def line(self) -> str:
        """The same as a line of text."""
        rate, left = self.rate(), self.left()
        parts = [self.counts(), "" if rate is None else pace(rate)]
        parts.append(f"{clock(time.perf_counter() - self.began)} so far")
        parts.append("" if left is None else f"about {clock(left)} left")
        return f"{self.what}: " + ", ".join(part for part in parts if part)


class _Words(ProgressColumn):
    """A column of text, out of the row of the task."""

    def __init__(self, words: Callable[[Row], str], style: str = "") -> None:
        super().__init__()
        self._words, self._style = words, style

    def render(self, task: Task) -> Text:
        """The words; names in them are no markup."""
        words = self._words(task.fields["row"])
        return Text(words, style=self._style, no_wrap=True, overflow="ellipsis")


def _told_rate(row: Row) -> str:
    rate = row.rate()
    return "" if rate is None else pace(rate)


def _told_left(row: Row) -> str:
    left = row.left()
    return "" if left is None else f"{clock(left)} left"


class Display:
    """All rows of this process, in the order in which they were opened.

    Parameters
    ----------
    console : Console
        On standard error.
    say : callable
        Prints a line there.
    """

    def __init__(self, console: Console, say: Callable[[str], None]) -> None:
        self._console, self._say = console, say
        self._rows: dict[int, tuple[Row, TaskID | None]] = {}
        self._bars: Progress | None = None
        self._ended: threading.Event | None = None
        self._lock = threading.RLock()

    @property
    def draws(self) -> bool:
        """Whether bars can be seen; no setting of colours makes a log a terminal."""
        console = self._console
        return console.file.isatty() and console.is_terminal and not console.is_dumb_terminal

    @contextmanager
    def open(self, row: Row) -> Iterator[Callable[[], None]]:
        """Show a row inside the block; what is yielded is called after each change of it."""
        draws = self.draws
        with self._lock:
            self._rows[id(row)] = (row, None)
            if not draws and self._ended is None:
                self._ended = threading.Event()
                threading.Thread(target=self._tick, args=(self._ended,), daemon=True).start()
        try:
            yield (lambda: self._draw(row)) if draws else (lambda: None)
        finally:
            self._close(row)

    def _draw(self, row: Row) -> None:
        with self._lock:
            if not any(other.shown for other, _ in self._rows.values()):
                self._stop()  # others may write there now, or draw bars of their own
                return
            bars = self._bars = self._bars or self._started()
            _, task = self._rows[id(row)]
            if task is None:
                task = bars.add_task("", total=row.total, visible=False, row=row)
                self._rows[id(row)] = (row, task)
            if row.total is None:
                bars.tasks[bars.task_ids.index(task)].total = None  # update() takes None for "same"
            bars.update(task, total=row.total, completed=row.done, visible=row.shown)

    def _started(self) -> Progress:
        bars = Progress(
            _Words(lambda row: row.what),
            BarColumn(WIDTH),
            _Words(Row.counts, "green"),
            _Words(_told_rate),
            _Words(lambda row: clock(time.perf_counter() - row.began), "yellow"),
            _Words(_told_left, "cyan"),
            console=self._console,
            transient=True,
            redirect_stdout=False,  # it is data, and may be going elsewhere
        )
        bars.start()
        return bars

    def _close(self, row: Row) -> None:
        with self._lock:
            _, task = self._rows.pop(id(row))
            if self._bars is not None and task is not None:
                self._bars.remove_task(task)
            if not any(other.shown for other, _ in self._rows.values()):
                self._stop()
            if not self._rows and self._ended is not None:
                self._ended.set()
                self._ended = None

    def _stop(self) -> None:
        bars, self._bars = self._bars, None
        self._rows = {key: (row, None) for key, (row, _) in self._rows.items()}
        if bars is not None:
            bars.stop()

    def _tick(self, ended: threading.Event) -> None:
        while not ended.wait(EVERY):
            with self._lock:
                rows = [row for row, _ in self._rows.values() if row.shown]
            if rows and not ended.is_set():
                self._say("; ".join(row.line() for row in rows))
