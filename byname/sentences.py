"""How a phrase about a class becomes a sentence: used where texts are made and where they are read.

Pure text; the rules are those of the published methods whose files users bring along.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from byname.errors import RecipeError

__all__ = ["check_template", "descriptor_sentence", "sentence_ends"]

# Whole words only: "a-frame roof", "used-car smell" and "candles" do not begin with one.
_IS = re.compile(r"(?:an?|used)(?![\w'’-])", re.IGNORECASE)
_VERB = re.compile(r"(?:has|often|typically|may|can)(?![\w'’-])", re.IGNORECASE)
# The released code looks at letters: it has "which is avocado" and "which candles".
_IS_LETTERS, _VERB_LETTERS = ("a", "used"), ("has", "often", "typically", "may", "can")
# Look-behinds have a fixed width each, so abbreviations stand together by their lengths.
_END = re.compile(
    r"(?<![.!?])(?<!\b[A-Z])(?<!\b[A-Z]\.[A-Z])(?<!\b(?:Dr|Mr|Ms|St|Mt|Ft|vs|cf|al|no|ca))"
    r"(?<!\b(?:Mrs|e\.g|i\.e|etc|spp|Fig|fig|Col|Gen|Rev|Sgt))(?<!\b(?:Prof|Capt))(?<!\bapprox)"
    r"(?<!\d)[.!?]+[\"'”’)\]*_]*(?=\s+[^\sa-z])"
    r"|(?<=\d)[.!?][\"'”’)\]*_]*(?=\s+[A-Z])|[。！？]"
)
_POINT = re.compile(r"[.!?。！？]")


def sentence_ends(text: str, names: Sequence[str] = ()) -> list[int]:
    """Where sentences end that another follows; abbreviations and initials end none.

    Parameters
    ----------
    text : str
    names : sequence of str
        A full stop inside of one of these ("St. Bernard", "Yahoo!") ends none either.

    Examples
    --------
    >>> text = "Seen by Dr. A. Fox, e.g. In May. It is red."
    >>> [text[:end] for end in sentence_ends(text)]
    ['Seen by Dr. A. Fox, e.g. In May.']
    >>> sentence_ends("Seen at Yahoo! Mail"), sentence_ends("Seen at Yahoo! Mail", ["yahoo! mail"])
    ([14], [])
    """
    for name in names:
        if _POINT.search(name):
            own = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
            text = own.sub(lambda found: "x" * len(found[0]), text)
    return [found.end() for found in _END.finditer(text)]


def check_template(template: str) -> None:
    """Refuse a template that does not hold ``{}`` exactly once.

    Raises
    ------
    RecipeError

    Examples
    --------
    >>> check_template("a photo of a {}.")
    """
    if template.count("{}") != 1:
        raise RecipeError(
            f"use the template {template!r}",
            f"it holds {{}} {template.count('{}')} times",
            "Write {} once, where the class goes: 'a photo of a {}.'",
        )


def descriptor_sentence(
    name: str,
    descriptor: str,
    *,
    prefix: str = "",
    suffix: str = "",
    include_name: bool = True,
    compat: bool = False,
) -> str:
    """The sentence of a descriptor: "{name}, which {verb} {descriptor}".

    The verb is "is" before a descriptor that begins with the word a, an or used; there is none
    before has, often, typically, may or can; and it is "has" before anything else.

    Parameters
    ----------
    name, descriptor : str
        Inert: braces and markup stay as they are, runs of space become one.
    prefix, suffix : str
        What stands before and after. A space is put behind a prefix that does not end in one, and
        before a suffix that begins with a letter or a digit.
    include_name : bool
        Without it, the descriptor alone stands between prefix and suffix.
    compat : bool
        Look at the first letters and not at the word, and at their case, as the released code of
        DCLIP does.

    Returns
    -------
    str

    Examples
    --------
    >>> descriptor_sentence("hen", "red comb"), descriptor_sentence("hen", "a beak")
    ('hen, which has red comb', 'hen, which is a beak')
    >>> descriptor_sentence("hen", "often brown", prefix="photo of a", suffix=".")
    'photo of a hen, which often brown.'
    >>> descriptor_sentence("bowl", "avocado"), descriptor_sentence("bowl", "avocado", compat=True)
    ('bowl, which has avocado', 'bowl, which is avocado')
    """
    said = descriptor = " ".join(descriptor.split())
    if include_name:
        if compat:
            is_a = descriptor.startswith(_IS_LETTERS)
            has_verb = descriptor.startswith(_VERB_LETTERS)
        else:
            is_a, has_verb = bool(_IS.match(descriptor)), bool(_VERB.match(descriptor))
        verb = "is " if is_a else "" if has_verb else "has "
        said = f"{' '.join(name.split())}, which {verb}{descriptor}"
    before = f"{prefix} " if prefix and not prefix[-1].isspace() else prefix
    after = f" {suffix}" if suffix[:1].isalnum() else suffix
    return f"{before}{said}{after}"
