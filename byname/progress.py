"""What long work tells of itself, wherever it is done; nobody hears it unless somebody listens.

The command line listens and draws a bar (:mod:`byname.console`); a library's user hears nothing.
What is told by threads that work beside the caller is not heard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias, TypeVar

__all__ = ["Listener", "bars_are_welcome", "counted", "listening", "tell"]

T = TypeVar("T")
Listener: TypeAlias = Callable[[str, int, int | None], None]
"""Called with what is being done, how much of it is done, and of how much (None: not known)."""

_listener: ContextVar[tuple[Listener, bool] | None] = ContextVar("byname_listener", default=None)


@contextmanager
def listening(listener: Listener, *, bars: bool = True) -> Iterator[None]:
    """Have ``listener`` called with what the work inside the block tells.

    Parameters
    ----------
    listener : callable
        In place of one that listens already.
    bars : bool
        Whether other packages may draw bars of their own meanwhile.

    Examples
    --------
    >>> heard = []
    >>> with listening(lambda what, done, total: heard.append((what, done, total))):
    ...     tell("refine", 3, 7)
    >>> heard
    [('refine', 3, 7)]
    """
    token = _listener.set((listener, bars))
    try:
        yield
    finally:
        _listener.reset(token)


def tell(what: str, done: int = 0, total: int | None = None) -> None:
    """Say what is being done, and how far; cheap where nobody listens.

    Examples
    --------
    >>> tell("nobody listens")
    """
    if (heard := _listener.get()) is not None:
        heard[0](what, done, total)


def counted(what: str, items: Iterable[T], total: int | None = None) -> Iterator[T]:
    """The items, telling before each how many are done, and at the end that all are.

    Examples
    --------
    >>> heard = []
    >>> with listening(lambda what, done, total: heard.append(done)):
    ...     list(counted("letters", "ab"))
    ['a', 'b']
    >>> heard
    [0, 1, 2]
    """
    known = total if total is not None or not isinstance(items, Sized) else len(items)
    done = 0
    for item in items:
        tell(what, done, known)
        yield item
        done += 1
    tell(what, done, done if known is None else known)


def bars_are_welcome() -> bool:
    """Whether other packages may draw bars: not where who listens draws none.

    Examples
    --------
    >>> bars_are_welcome()
    True
    """
    return (heard := _listener.get()) is None or heard[1]
