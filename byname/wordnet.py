"""Senses of names out of WordNet, through the library ``wn`` and the data that it has installed."""

from __future__ import annotations

import sqlite3
from typing import Any

from byname.errors import NeedsError
from byname.prompts.wordnet import Lookup, Sense

__all__ = ["wordnet_lookup"]

_INSTALL = "pip install 'byname[wordnet]'"
_DOWNLOAD = "python -m wn download oewn:2024"
_ASKED = "look names up in WordNet"


def wordnet_lookup(lexicon: str | None = None) -> Lookup:
    """A function from a name to its senses as a noun, those of the name as it is written first.

    Nothing is downloaded. A name that WordNet does not have is tried without its plural ending.

    Parameters
    ----------
    lexicon : str, optional
        Such as ``"oewn:2024"``; by default the English one, where one alone is installed.

    Raises
    ------
    NeedsError
        Where ``wn`` or its data are missing or damaged, there is no such lexicon, or several fit.

    Examples
    --------
    >>> wordnet_lookup("oewn:2024")("crane")  # doctest: +SKIP
    [Sense(id='oewn-02012849-n', ...), ...]
    """
    try:
        import wn
        from wn.morphy import Morphy
    except ImportError:
        raise NeedsError(
            _ASKED, "the library 'wn' is not installed", f"Type: {_INSTALL}; {_DOWNLOAD}"
        ) from None
    try:
        chosen = _lexicon(wn, lexicon)
        exact = wn.Wordnet(lexicon=chosen)
        # Without a wordnet of its own it only strips endings, which costs nothing at the start.
        stripped = wn.Wordnet(lexicon=chosen, lemmatizer=Morphy())
    except (wn.Error, sqlite3.Error, OSError) as error:
        raise _broken(error) from None

    def look_up(name: str) -> list[Sense]:
        try:
            words = exact.words(name, pos="n") or stripped.words(name, pos="n")
            # "turkey" also finds the country, in the order of the data.
            words = sorted(words, key=lambda word: str(word.lemma()) != name)
            synsets = {synset.id: synset for word in words for synset in word.synsets()}
            return [_sense(synset) for synset in synsets.values()]
        except (wn.Error, sqlite3.Error, OSError) as error:
            raise _broken(error) from None

    return look_up


def _broken(error: Exception) -> NeedsError:
    seen = f"its data cannot be read: {str(error) or type(error).__name__}"
    return NeedsError(_ASKED, seen, f"Install the data again: {_DOWNLOAD}")


def _lexicon(wn: Any, wanted: str | None) -> str:
    """The specifier of the one lexicon to use."""
    known = wn.lexicons()
    installed = [lexicon.specifier() for lexicon in known]
    if wanted:
        fitting = [lexicon.specifier() for lexicon in wn.lexicons(lexicon=wanted)]
    else:
        fitting = [x.specifier() for x in known if x.language.split("-")[0] == "en"]
    if len(fitting) == 1:
        return str(fitting[0])
    if not fitting:
        what = f"the lexicon '{wanted}'" if wanted else "an English lexicon"
        raise NeedsError(
            _ASKED,
            f"{what} is not installed; installed: {', '.join(installed) or 'none'}",
            f"Type: python -m wn download {wanted or 'oewn:2024'}",
        )
    raise NeedsError(
        _ASKED,
        f"several lexicons fit: {', '.join(fitting)}",
        f"Name one: wordnet[lexicon={fitting[-1]}]",
    )


def _sense(synset: Any) -> Sense:
    above = synset.closure("hypernym", "instance_hypernym")
    return Sense(
        id=synset.id,
        lemmas=tuple(map(str, synset.lemmas())),
        definition=synset.definition() or "",
        hypernyms=tuple(dict.fromkeys(str(name) for node in above for name in node.lemmas())),
    )
