"""What a torch model says of itself outside of its weights: scale of the logits, padding."""

from __future__ import annotations

import json
import math
from pathlib import Path

from byname.encoders.layouts import _pad_token
from byname.encoders.tokens import TextTokenizer
from byname.errors import EncoderError

__all__ = ["pad_of_tokenizer_json", "pad_word", "trained_scale"]

PAD_WORDS = ("<pad>", "[PAD]")


def trained_scale(value: float, asked: str, *, divides: bool = False) -> float:
    """The factor of the logits.

    Parameters
    ----------
    value : float
        The trained parameter: the logarithm of the factor.
    asked : str
    divides : bool
        The parameter is a temperature: the factor is its inverse.

    Raises
    ------
    EncoderError
        If no usable factor comes out.

    Examples
    --------
    >>> trained_scale(0.0, "any"), trained_scale(0.5, "any", divides=True)
    (1.0, 2.0)
    """
    try:
        scale = 1 / value if divides else math.exp(value)
    except (OverflowError, ZeroDivisionError):
        scale = math.inf
    if not (math.isfinite(scale) and scale > 0):
        raise EncoderError(
            f"use encoder '{asked}'",
            f"its {'temperature' if divides else 'logit_scale'} is {value:g}, which gives no scale "
            "of the logits",
            "The weights are damaged: get them again from their source.",
        )
    return scale


def pad_word(tokenizer_config: Path) -> str | None:
    """The padding token by tokenizer_config.json; None where that does not say.

    Raises
    ------
    EncoderError
        If it is something other than a text.
    """
    try:
        return _pad_token(tokenizer_config)
    except ValueError as error:
        raise EncoderError(
            f"read '{tokenizer_config}'",
            "its " + str(error).replace(", not a text", ", expected a text"),
            "Get the file again from the model's source.",
        ) from None


def pad_of_tokenizer_json(content: str, tokens: TextTokenizer) -> int | None:
    """The padding token by a tokenizer.json: of its padding section, or a special <pad> token.

    A <pad> that is merely in the vocabulary says nothing: SigLIP has one, and pads with </s>.
    """
    card = json.loads(content)
    padding = card.get("padding") or {}
    word = padding.get("pad_token")
    if isinstance(word, str) and (found := tokens.token_id(word)) is not None:
        return found
    special = {t["content"] for t in card.get("added_tokens") or [] if t.get("special")}
    return next((tokens.token_id(word) for word in PAD_WORDS if word in special), None)
