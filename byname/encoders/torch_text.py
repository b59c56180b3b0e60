"""Tokenizers for torch models, so that a ``tokenizer.json`` says all there is to say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from byname.errors import EncoderError

__all__ = ["Clean", "ListTokenizer", "Tokens", "clip_tokenizer", "with_cleaning"]

Clean = Literal["whitespace", "lower", "canonicalize"]
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
PUNCTUATION = r"[!-/:-@\[-`{-~]"  # string.punctuation as ranges of ASCII


class Tokens(Protocol):
    """What turns texts into token numbers: ``TextTokenizer``, or a ``ListTokenizer``."""

    def rows(self, texts: Sequence[str]) -> list[list[int]]: ...
    def counts(self, texts: Sequence[str]) -> list[int]: ...


@dataclass(frozen=True)
class ListTokenizer:
    """A tokenizer of another library, as a function from texts to uncut rows of numbers.

    Parameters
    ----------
    encode : callable
        Texts to token numbers, markers included, neither cut nor padded.
    context : int or None
        Longest row; in a longer one the end token takes the last place.
    """

    encode: Callable[[list[str]], list[list[int]]]
    context: int | None

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, uncut."""
        return [len(row) for row in self.encode(list(texts))]

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Token numbers, cut so that the end token stays the last one.

        Examples
        --------
        >>> ListTokenizer(lambda texts: [[1, *map(ord, t), 2] for t in texts], 4).rows(["abc", "a"])
        [[1, 97, 98, 2], [1, 97, 2]]
        """
        limit = self.context
        return [
            row if limit is None or len(row) <= limit else [*row[: limit - 1], row[-1]]
            for row in self.encode(list(texts))
        ]


def with_cleaning(content: str, clean: Clean, name: str) -> str:
    """A ``tokenizer.json`` that first cleans the text, as training did outside of it.

    Parameters
    ----------
    content : str
    clean : {"whitespace", "lower", "canonicalize"}
        Collapse white space; and lower the case; and drop punctuation, "_" being a blank.
    name : str
        How to call the file in messages.

    Raises
    ------
    EncoderError
        If it is not a tokenizer.

    Examples
    --------
    >>> from tokenizers import Tokenizer, models
    >>> plain = Tokenizer(models.WordLevel({"a cat": 0}, unk_token="a cat")).to_str()
    >>> made = Tokenizer.from_str(with_cleaning(plain, "canonicalize", "tokenizer.json"))
    >>> made.normalizer.normalize_str(" A_Cat, ")
    'a cat'
    """
    from tokenizers import Regex, Tokenizer, normalizers

    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # noqa: BLE001 - tokenizers raises bare Exception
        raise EncoderError(
            f"read '{name}'",
            f"it is not a tokenizer ({error!s:.200})",
            "Get the file again from the model's source.",
        ) from None
    steps: list[Any] = []
    if clean == "canonicalize":
        steps += [normalizers.Replace("_", " "), normalizers.Replace(Regex(PUNCTUATION), "")]
    if clean != "whitespace":
        steps.append(normalizers.Lowercase())
    steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    if tokenizer.normalizer is not None:
        steps.append(tokenizer.normalizer)
    tokenizer.normalizer = normalizers.Sequence(steps)
    return str(tokenizer.to_str())


def clip_tokenizer(merges: Sequence[tuple[str, str]]) -> str:
    """OpenAI's byte-pair tokenizer as a ``tokenizer.json``.

    Parameters
    ----------
    merges : sequence of pairs
        In order of rank. Vocabulary: the 256 bytes, the same at the end of a word, the merges, and
        the two markers.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    bytes_ = _byte_letters()
    words = [*bytes_, *(b + "</w>" for b in bytes_), *(a + b for a, b in merges)]
    start, end = "<|startoftext|>", "<|endoftext|>"
    vocabulary = {word: i for i, word in enumerate([*words, start, end])}
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary,
            list(merges),
            unk_token=end,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True)
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, letters])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])],
    )
    return str(tokenizer.to_str())


def _byte_letters() -> list[str]:
    """A printable letter for each byte, in the order of the vocabulary: printable bytes first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
