"""Ctrl-C and SIGTERM: the batch in hand is finished and journalled, then the run ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType
from typing import Any

__all__ = ["Stopped", "finishing", "telling"]

PATIENCE = 2.0  # seconds; some send two signals at once, and mean one
_active: list[_Finish] = []
_tell: ContextVar[Callable[[], None] | None] = ContextVar("_tell", default=None)


class Stopped(KeyboardInterrupt):
    """A run that was asked to stop, and has: whatever was finished is on disk.

    A ``KeyboardInterrupt``, so that no handler of errors takes it for one.
    """


class _Finish:
    """Handler of the signals; asked as a function, it says whether one came."""

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self._before: dict[int, Any] = {}
        self._first: float | None = None
        self._number = 0
        self._error: BaseException | None = None

    def __call__(self) -> bool:
        return self._first is not None

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            # None is a handler that was not set from Python, which could not be set again
            if before not in (signal.SIG_IGN, None):
                self._before[number] = before
                signal.signal(number, self.heard)

    def restore(self) -> None:
        for number, before in self._before.items():
            # Somebody else's handler stays. "==": each look at a bound method makes another one.
            if signal.getsignal(number) == self.heard:
                signal.signal(number, before)

    def heard(self, number: int, frame: FrameType | None) -> None:
        """Have the handler of before decide what is meant, and keep the exception it raises."""
        before = self._before[number]
        impatient = self._first is not None and time.monotonic() - self._first > PATIENCE
        if before == signal.SIG_DFL:
            if impatient:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            self._note(number, None)
            return
        try:
            before(number, frame)
        except BaseException as error:
            if impatient:
                raise
            self._note(0, error)

    def _note(self, number: int, error: BaseException | None) -> None:
        if self._first is None:
            self._first, self._number, self._error = time.monotonic(), number, error
            # A line on a stream that is being written to may be refused.
            with suppress(RuntimeError, OSError):
                self._told()

    def end(self) -> None:
        """Do now what the first signal would have done; return where that is to stop."""
        if self._number:
            signal.raise_signal(self._number)
        if self._error is not None and not isinstance(self._error, KeyboardInterrupt):
            raise self._error


@contextmanager
def telling(told: Callable[[], None]) -> Iterator[None]:
    """Inside, each :func:`finishing` calls this at the first signal, for a line to the user.

    Examples
    --------
    >>> with telling(lambda: print("a moment")), finishing() as stop:
    ...     stop()
    False
    """
    token = _tell.set(told)
    try:
        yield
    finally:
        _tell.reset(token)


@contextmanager
def finishing(told: Callable[[], None] | None = None) -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C or SIGTERM is only noted; yields a function that says whether.

    The work asks that function at its own good moments and raises :class:`Stopped`. Where it ends
    without, ``Stopped`` is raised at the end of the block, so that no signal is lost. A second
    signal, after two seconds, does what it would have done outside. Signals that are ignored (as
    under nohup) stay so; in another thread than the main one, where signals cannot be handled, the
    function always says no; a block inside another one shares its signals.

    Parameters
    ----------
    told : callable, optional
        Called at the first signal; by default, what :func:`telling` was given.

    Raises
    ------
    Stopped
        If a signal came.

    Examples
    --------
    >>> with finishing() as stop:
    ...     stop()
    False
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    if _active:
        yield _active[-1]
        return
    finish = _Finish(told or _tell.get() or (lambda: None))
    _active.append(finish)
    try:
        finish.listen()
        yield finish
    except Stopped:
        _leave(finish)
        finish.end()
        raise
    finally:
        _leave(finish)
    if finish():
        finish.end()
        raise Stopped


def _leave(finish: _Finish) -> None:
    finish.restore()
    if finish in _active:
        _active.remove(finish)
