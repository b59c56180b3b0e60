"""Texts to token rows: cut so that the end token stays, grouped so that nothing is padded."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from byname.errors import EncoderError

__all__ = ["TextTokenizer", "groups_of_equal_length"]

_NO_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))


class TextTokenizer:
    """A ``tokenizer.json`` with its own padding and truncation switched off.

    Parameters
    ----------
    content : str
        Content of the file.
    context : int or None
        Longest row, markers included; None where unlimited.
    canonical : bool
        Lower the case and drop punctuation first, as the models trained on WebLI expect.
    name : str
        How to call the file in messages.
    """

    def __init__(
        self,
        content: str,
        context: int | None,
        canonical: bool = False,
        name: str = "tokenizer.json",
    ) -> None:
        from tokenizers import Tokenizer

        self._context, self._canonical, self._name = context, canonical, name
        with self._guarded("it is not a tokenizer"):
            self._tokenizer = Tokenizer.from_str(content)
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
            empty = self._tokenizer.encode("").ids
        self._end = empty[-1:]  # nothing where the tokenizer adds no markers

    @contextmanager
    def _guarded(self, seen: str) -> Iterator[None]:
        """What tokenizers raises as an EncoderError: bare exceptions, and panics that are none."""
        try:
            yield
        except BaseException as error:
            if not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
                raise
            raise EncoderError(
                f"read '{self._name}'",
                f"{seen} ({error!s:.200})",
                "Get the file again from the model's source.",
            ) from None

    def token_id(self, token: str) -> int | None:
        """Number of a token; None where the vocabulary lacks it."""
        with self._guarded(f"it cannot look up {token!r:.60}"):
            found = self._tokenizer.token_to_id(token)
        return None if found is None else int(found)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, uncut, markers included."""
        return [len(row) for row in self._encode(texts)]

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Token numbers of each text, cut to the context; the end token stays the last one."""
        limit = self._context
        return [
            row if limit is None or len(row) <= limit else row[: limit - len(self._end)] + self._end
            for row in self._encode(texts)
        ]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if self._canonical:
            texts = [" ".join(t.translate(_NO_PUNCTUATION).lower().split()) for t in texts]
        with self._guarded("it cannot cut the texts into tokens"):
            return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]


def groups_of_equal_length(
    lengths: Sequence[int], batch: int, tokens: int | None = None
) -> Iterator[NDArray[np.intp]]:
    """Index groups, shortest texts first, at most ``batch`` texts and ``tokens`` tokens in each.

    Within a group nothing needs padding, so that the vector of a text cannot depend on the texts
    that happen to be encoded with it.

    Examples
    --------
    >>> [group.tolist() for group in groups_of_equal_length([3, 2, 3, 3], batch=2)]
    [[1], [0, 2], [3]]
    """
    array = np.asarray(lengths, int)
    for length in np.unique(array):
        same = np.flatnonzero(array == length)
        step = batch if tokens is None else max(1, min(batch, tokens // max(int(length), 1)))
        yield from (same[i : i + step] for i in range(0, len(same), step))
