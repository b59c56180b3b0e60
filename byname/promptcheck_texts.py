"""What may be wrong with one text, whatever class it is of, and how it is mended."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from byname.queries import clean_reply, is_refusal
from byname.sentences import sentence_ends

__all__ = ["Action", "Flaw", "fit", "flaws", "one_line"]

Action = Literal["drop", "cut", "fix", "note"]
LONG = 30  # words from which on a text without a last stop counts as cut by a limit of tokens

# Control characters but for tab and line ends; marks and overrides of direction; characters of no
# width; tags; halves of characters. Joiners stay between letters that need them (Persian, Hindi,
# emoji): right after an ASCII character they do nothing.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
    "|(?:(?<=[\x00-\x7f])|^)[\u200c\u200d]+"
)
_SPACES = re.compile(r"\s+")
_MARK_ONLY = re.compile(r"[\s\d.()\[\]:;,#*•·‣◦\-–—+_]*")
# An item's number: at the start of a line or after a colon it opens a list ...
_FIRST = re.compile(r"(?:^|(?<=\n)|(?<=:)[ \t])[ \t]*\(?1[.)][ \t]+(?=\S)")
# ... and after the end of a sentence only if a second one follows.
_FIRST_INLINE = re.compile(r"(?:(?<=[.;!?])|^)[ \t]+\(?1[.)][ \t]+(?=\S)")
_SECOND = re.compile(r"(?<!\S)\(?2[.)](?!\S)")
_ENDED = re.compile(r"[.!?…。！？][\"'”’)\]*]*$")
_CLAUSE = re.compile(r"(?=[,;:]\s|\s[-–—]\s|\s\(|[，；：、])")
_WORD = re.compile(r"(?=\s)")
# What digits of a class's own name are while numbers are looked for.
_PRIVATE = "".join(chr(0xE000 + digit) for digit in range(10))
_PRIVATE_SET = frozenset(_PRIVATE)
_HIDE = str.maketrans("0123456789", _PRIVATE)
_SHOW = str.maketrans(_PRIVATE, "0123456789")


class Flaw(NamedTuple):
    """What is wrong with a text, and the text after it is mended; "" if it is dropped."""

    kind: str
    action: Action
    detail: str
    new: str


def flaws(text: str, number_is_name: bool = False, names: tuple[str, ...] = ()) -> Iterator[Flaw]:
    """What is wrong with a text itself; each flaw starts from the text that the one before left.

    Parameters
    ----------
    text : str
    number_is_name : bool
        The class is called by a number, so that a number is no rest of a list.
    names : tuple of str
        What the class is called: "Boeing 747" does not end in the number of a list, and "Sorry,
        Wrong Number" may open a text.

    Examples
    --------
    >>> [(flaw.kind, flaw.new) for flaw in flaws("It has:\\n\\n1. A red comb\\n2. Spurs")]
    [('enumeration', 'A red comb')]
    >>> [(flaw.kind, flaw.action) for flaw in flaws("1")]
    [('number', 'drop')]
    """
    if (seen := _HIDDEN.sub("", text)) != text:
        codes = sorted({f"U+{ord(c):04X}" for c in "".join(_HIDDEN.findall(text))})
        yield Flaw("hidden", "fix", " ".join(codes[:5]), seen)
        text = seen
    if not text.strip():
        yield Flaw("empty", "drop", "", "")
        return
    if not number_is_name:
        kept = "" if _MARK_ONLY.fullmatch(text) else _mended(text, names, clean_reply)
        if not kept:
            yield Flaw("number", "drop", "a number, a mark or a heading alone", "")
            return
        if kept != text.strip():
            yield Flaw("number", "cut", "ends in the number of a list", kept)
            text = kept
    if is_refusal(text, names):
        yield Flaw("refusal", "drop", "", "")
        return
    if not number_is_name and (kept := _mended(text, names, _before_list)) != text:
        yield Flaw("enumeration", "cut" if kept else "drop", "a numbered list", kept)
        if not kept:
            return
        text = kept
    if (kept := _SPACES.sub(" ", text).strip()) != text:
        yield Flaw("space", "fix", "line ends or runs of space", kept)
        text = kept
    if not _ENDED.search(text) and len(text.split()) >= LONG and (ends := sentence_ends(text)):
        yield Flaw("unfinished", "cut", "the last sentence is cut off", text[: ends[-1]])


def _mended(text: str, names: tuple[str, ...], rule: Callable[[str], str]) -> str:
    """What a rule makes of a text; it does not see the digits of the names."""
    own = _with_digits(names)
    if own is None or not _PRIVATE_SET.isdisjoint(text):
        return rule(text)
    return rule(own.sub(lambda found: found[0].translate(_HIDE), text)).translate(_SHOW)


@lru_cache(maxsize=1 << 14)
def _with_digits(names: tuple[str, ...]) -> re.Pattern[str] | None:
    """Finds those names that hold digits, as whole words."""
    found = sorted({name for name in names if re.search("[0-9]", name)}, key=len, reverse=True)
    if not found:
        return None
    ways = "|".join(r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", n))) for n in found)
    return re.compile(rf"(?<!\w)(?:{ways})(?!\w)", re.IGNORECASE)


def one_line(text: str, most: int) -> str:
    """The text without hidden characters and line ends, cut after ``most`` characters.

    Examples
    --------
    >>> one_line("fur\\u202e of\\n a cat", 9)
    'fur of a'
    """
    told = _SPACES.sub(" ", _HIDDEN.sub("", text)).strip()
    return told if len(told) <= most else told[: most + 1].rpartition(" ")[0] or told[:most]


def _before_list(text: str) -> str:
    """What stands before a numbered list; its first item where that is nothing or a heading."""
    first = _FIRST.search(text)
    if first is None:
        first = _FIRST_INLINE.search(text)
        if first is None or not _SECOND.search(text, first.end()):
            return text
    head = text[: first.start()].strip()
    if head.endswith(":"):
        ends = sentence_ends(head)
        head = head[: ends[-1]] if ends else ""
    if len(head.split()) >= 3:
        return head
    second = _SECOND.search(text, first.end())
    item = text[first.end() : second.start() if second else None].strip()
    # An item of a word or two says nothing without its heading.
    return item if len(item.split()) >= 3 else ""


def fit(
    texts: Sequence[str], count: Callable[[Sequence[str]], Sequence[int]], context: int
) -> list[str]:
    """Each text cut so that it has at most ``context`` tokens: at the last sentence that fits, else
    clause, else word, else character; "" if not even one character fits.

    Parameters
    ----------
    texts : sequence of str
    count : callable
        Tokens of each of many texts, markers included.
    context : int

    Examples
    --------
    >>> def words(texts):
    ...     return [len(text.split()) for text in texts]
    >>> fit(["It is red. It barks, and runs.", "red, with a tail"], words, 3)
    ['It is red.', 'red']
    """
    made = [""] * len(texts)
    # No token spans this many characters on average, so that a huge text is not counted whole.
    heads = [text[: 64 * context] for text in texts]
    left = list(range(len(texts)))
    for cuts in (_sentences, _clauses, _words, _characters):
        places = {i: cuts(heads[i]) for i in left}
        best = _longest({i: p for i, p in places.items() if p}, heads, count, context)
        for i, end in best.items():
            made[i] = heads[i][:end].rstrip(" \t\r\n,;:，；：、-–—")
        left = [i for i in left if not made[i]]
        if not left:
            break
    return made


def _sentences(head: str) -> list[int]:
    return sentence_ends(head)


def _clauses(head: str) -> list[int]:
    return [found.start() for found in _CLAUSE.finditer(head) if found.start()]


def _words(head: str) -> list[int]:
    return [found.start() for found in _WORD.finditer(head) if found.start()]


def _characters(head: str) -> list[int]:
    return list(range(1, len(head) + 1))


def _longest(
    places: dict[int, list[int]],
    heads: Sequence[str],
    count: Callable[[Sequence[str]], Sequence[int]],
    context: int,
) -> dict[int, int]:
    """The last place of each text at which what stands before fits, by halving for all at once."""
    low = dict.fromkeys(places, -1)  # fits, or none
    high = {i: len(ends) for i, ends in places.items()}
    while open_ := [i for i in places if high[i] - low[i] > 1]:
        middle = {i: (low[i] + high[i]) // 2 for i in open_}
        counted = count([heads[i][: places[i][middle[i]]] for i in open_])
        for i, tokens in zip(open_, counted, strict=True):
            (low if tokens <= context else high)[i] = middle[i]
    return {i: places[i][k] for i, k in low.items() if k >= 0}
