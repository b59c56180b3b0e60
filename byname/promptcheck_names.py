"""Whether a text names a class: whole words in any case, with or without accents and plurals."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from byname.taxonomy import Taxonomy

__all__ = ["ClassNames", "Phrases", "words_of"]

_WORD = re.compile(r"[^\W_]+")
# Scripts without spaces between words, where a name may stand anywhere.
_NO_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


def words_of(text: str) -> list[str]:
    """The words of a text, in a form that is the same for "Crêpes" and "crepe".

    Examples
    --------
    >>> words_of("Two crème brûlées, berries & glasses")
    ['two', 'creme', 'brulee', 'berry', 'glass']
    """
    plain = text if text.isascii() else unicodedata.normalize("NFC", text)
    return [_stem(word) for word in _WORD.findall(plain)]


@lru_cache(maxsize=1 << 17)
def _stem(word: str) -> str:
    """Lower case, without accents, singular."""
    if not word.isascii():
        split = unicodedata.normalize("NFKD", word)
        word = "".join(c for c in split if not "\u0300" <= c <= "\u036f")
    word = word.casefold()
    # Both sides are cut alike, so that it does no harm that "iris" becomes "iri".
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")):
        word = word[:-1]
    if len(word) > 3 and word.endswith("ie"):
        return word[:-2] + "y"
    if len(word) > 3 and word.endswith(("fe", "ve")):  # knife, knives, leaf, leaves
        return word[:-2] + "f"
    ends = ("sse", "use", "she", "che", "xe", "ze", "oe")
    return word[:-1] if len(word) > 3 and word.endswith(ends) else word


class Phrases:
    """Phrases of one or several words, found in a text in one pass over its words.

    Examples
    --------
    >>> sorted(Phrases({"hot dog": [0], "dog": [1]}).found(words_of("two Hot-Dogs")))
    [0, 1]
    """

    def __init__(self, phrases: dict[str, list[int]]) -> None:
        self._by_first: dict[str, dict[tuple[str, ...], list[int]]] = {}
        for phrase, owners in phrases.items():
            words = tuple(words_of(phrase))
            # "cup cake" is found as "cupcake" as well.
            for form in {words, ("".join(words),)} if words else ():
                known = self._by_first.setdefault(form[0], {}).setdefault(form, [])
                known.extend(owner for owner in owners if owner not in known)
        self._lengths = {first: {*map(len, forms)} for first, forms in self._by_first.items()}

    def found(self, words: Sequence[str]) -> set[int]:
        """Owners of all phrases that stand in the words."""
        made: set[int] = set()
        for i, word in enumerate(words):
            if known := self._by_first.get(word):
                for length in self._lengths[word]:
                    made.update(known.get(tuple(words[i : i + length]), ()))
        return made


class ClassNames:
    """Which classes a text names.

    A text names a class by its whole name or one of its aliases. The last word of a longer name
    ("eggs benedict") is enough where no other class has it anywhere in its names: "cake" does not
    do for "carrot cake" beside "chocolate cake".
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._ids = {class_id: k for k, class_id in enumerate(taxonomy.class_ids)}
        names = [(node.name, *node.aliases) for node in taxonomy.classes]
        whole: dict[str, list[int]] = {}
        users: dict[str, set[int]] = {}
        for k, given in enumerate(names):
            for name in given:
                whole.setdefault(name, []).append(k)
                for word in words_of(name):
                    users.setdefault(word, set()).add(k)
        self._whole = Phrases(whole)
        self._heads: list[set[str]] = [
            {
                words[-1]
                for words in map(words_of, given)
                if len(words) > 1 and len(words[-1]) > 2 and len(users[words[-1]]) == 1
            }
            for given in names
        ]
        self._inside = [[n.casefold() for n in given if _NO_SPACES.search(n)] for given in names]
        # Names without any letter or digit ("!") cannot be looked for.
        self._silent = [not any(map(words_of, given)) for given in names]

    def named(self, class_id: str, text: str, words: Sequence[str]) -> tuple[bool, set[int]]:
        """Whether the text names the class, and the indices of the other classes it names.

        Parameters
        ----------
        class_id : str
        text : str
        words : sequence of str
            Those of the text, by :func:`words_of`.
        """
        k = self._ids[class_id]
        found = self._whole.found(words)
        own = k in found or self._silent[k] or not self._heads[k].isdisjoint(words)
        if not own and self._inside[k]:
            own = _any_in(self._inside[k], text.casefold())
        return own, found - {k}


def _any_in(names: Iterable[str], text: str) -> bool:
    return any(name in text for name in names)
