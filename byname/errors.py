"""One exception tree. Every message says what was asked, what was seen, and what to do.

``BynameError`` subclasses other than ``ImageError`` stop a command before any work starts;
``ImageError`` concerns one file and becomes one row of the output.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "BynameError",
    "CacheError",
    "EmbeddingsError",
    "EncoderError",
    "EncoderMemoryError",
    "EncoderUnavailableError",
    "ImageError",
    "NeedsError",
    "OutputError",
    "PromptError",
    "RecipeError",
    "RunError",
    "SourceError",
    "TaxonomyError",
    "UnsafeFileError",
    "UsageError",
    "quoted",
    "some",
]


class BynameError(Exception):
    """Base of everything byname raises on purpose.

    Parameters
    ----------
    asked : str
        What was asked for, as the continuation of "cannot": ``"read the classes in 'a.csv'"``.
    seen : str
        What was found instead.
    do : str, optional
        What the user can do about it, one or more whole sentences.
    """

    def __init__(self, asked: str, seen: str, do: str = "") -> None:
        self.asked, self.seen, self.do = asked, seen, do
        super().__init__(asked, seen, do)

    def __str__(self) -> str:
        text = f"cannot {self.asked}: {self.seen.rstrip('.')}."
        return f"{text} {self.do}" if self.do else text


class UsageError(BynameError, ValueError):
    """An argument that does not fit."""


class TaxonomyError(BynameError, ValueError):
    """A list or tree of classes that cannot be used."""


class SourceError(BynameError, ValueError):
    """Images that cannot be listed: a missing folder, an empty folder, an unreadable list."""


class ImageError(BynameError, OSError):
    """One image that cannot be read or decoded; becomes a row with an error."""

    def __str__(self) -> str:
        return self.seen


class PromptError(BynameError, ValueError):
    """A prompt set or template that cannot be used."""


class EmbeddingsError(BynameError, ValueError):
    """Stored vectors that cannot be used: wrong width, unknown keys, a foreign file."""


class EncoderError(BynameError, ValueError):
    """An encoder that is unknown, incomplete or inconsistent."""


class EncoderMemoryError(EncoderError):
    """An encoder for which memory does not suffice; fewer images at once may do."""


class EncoderUnavailableError(EncoderError):
    """An encoder that is known but cannot be had here: no network, a missing extra."""


class UnsafeFileError(BynameError, ValueError):
    """A file refused because reading it could execute code or exceeds its declared bounds."""


class RecipeError(BynameError, ValueError):
    """An unknown recipe, stage member or parameter."""


class NeedsError(BynameError, ValueError):
    """A stage member that needs an input this run does not have."""


class OutputError(BynameError, OSError):
    """A place that cannot be written to."""

    def __str__(self) -> str:
        return BynameError.__str__(self)


class RunError(BynameError, RuntimeError):
    """A run that cannot go on, or does not fit what is asked."""


class CacheError(BynameError, OSError):
    """A cache folder that cannot be used."""

    def __str__(self) -> str:
        return BynameError.__str__(self)


def some(items: Sequence[str], most: int = 5) -> str:
    """The first items, and how many more there are.

    Examples
    --------
    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest} more" if rest > 0 else "")


def quoted(names: Sequence[str], most: int = 5) -> str:
    """As :func:`some`, each name in quotes.

    Examples
    --------
    >>> quoted(["cat"])
    "'cat'"
    """
    return some([repr(name) for name in names], most)
