"""Texts to vectors: through the cache, and for every input that a recipe looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from byname.cache import TextCache, working_dir
from byname.classtexts import NULL_TEXTS, class_texts
from byname.embeddings import Embeddings
from byname.encoders import Encoder
from byname.errors import BynameError, EncoderError
from byname.promptset import PromptSet
from byname.recipes import Recipe
from byname.stage import STAGES, ClassTexts, SecondTexts
from byname.taskfile import PLAIN_TEMPLATE
from byname.taxonomy import Taxonomy
from byname.wrapped import LogVarEncoder

__all__ = ["Encode", "Second", "inputs_of", "maker_of", "text_vectors", "texts_of"]

Encode = Callable[[list[str]], NDArray[np.float32]]
Second = Callable[[list[str], bool], SecondTexts | None]
"""Texts, and whether they must be had, through the second encoder, if it knows texts."""


def text_vectors(
    encoder: Encoder, cache: bool, progress: Callable[[int, int], None] = lambda done, total: None
) -> Encode:
    """What encodes texts; with ``cache``, each of them once in all runs."""
    info = encoder.info
    if not (cache and info.weights_sha256):
        return encoder.encode_texts
    store = TextCache(working_dir(), info.text_fingerprint(), info.dim)
    return partial(store.encode, encode=encoder.encode_texts, progress=progress)


def maker_of(stored: Embeddings, load: Callable[[str], Encoder]) -> Encoder:
    """The encoder that stored vectors name, where it can be loaded and is the same one.

    Raises
    ------
    EncoderError
        With what to do instead, where there are no texts for these vectors.
    """
    asked = "encode texts for the vectors given as 'second'"
    name, seen = stored.encoder, "their file names no encoder"
    if name:
        try:
            found = load(name)
        except BynameError as error:
            seen = f"'{name}', which made them, cannot be loaded ({error.seen})"
        else:
            made_by = found.info.image_fingerprint()
            if found.info.dim == stored.dim and stored.fingerprint in ("", made_by):
                return found
            seen = f"they were made by another '{name}' than is here"
    seen = f"there are image vectors but no texts: {seen}"
    raise EncoderError(asked, seen, "Give second=ENCODER, with the images themselves.")


def inputs_of(recipe: Recipe) -> tuple[frozenset[str], frozenset[str]]:
    """What the members of a recipe need, and what they use where it is given."""
    made = [m for m in map(recipe.create, STAGES) if m is not None]
    needs = frozenset[str]().union(*(m.needs for m in made))
    return needs, frozenset[str]().union(*(getattr(m, "uses", ()) for m in made))


def texts_of(
    prompts: PromptSet,
    taxonomy: Taxonomy,
    encoder: Encoder,
    needs: frozenset[str],
    uses: frozenset[str],
    *,
    cache: bool,
    progress: Callable[[int, int], None],
    second: Second | None = None,
) -> ClassTexts:
    """The texts of all classes, with what the members of a recipe need or use of them.

    Parameters
    ----------
    prompts : PromptSet
    taxonomy : Taxonomy
    encoder : Encoder
    needs, uses : frozenset of str
        What its members need, and what they look at where it is given. Texts of pairs, of inner
        nodes and of no class can be many: they are encoded for those who look at them.
    cache : bool
    progress : callable
        Called with how many of how many new texts are encoded.
    second : callable, optional
        The texts of the second encoder.
    """
    wanted = needs | uses
    leaves = set(taxonomy.class_ids)
    above = [n for n in taxonomy.nodes if n.id not in leaves and n != taxonomy.root]
    asked: list[str] = []
    encode = text_vectors(encoder, cache, progress)

    def noted(texts: Sequence[str]) -> NDArray[np.float32]:
        asked[:] = texts
        return encode(asked)

    made = class_texts(
        prompts,
        taxonomy,
        noted,
        scale=encoder.info.logit_scale,
        bias=encoder.info.logit_bias,
        pairs="pairs" in wanted,
        inner=[(n.id, PLAIN_TEMPLATE.replace("{}", n.name)) for n in above]
        if "inner" in wanted
        else (),
        null=NULL_TEXTS if "null" in wanted else (),
    )
    asked = asked[: len(made.class_index)]
    if second is not None and "second_texts" in wanted:
        made = replace(made, second_texts=second(asked, "second_texts" in needs))
    if "text_log_var" in wanted and "texts" in encoder.gives_log_var:
        found = text_vectors(LogVarEncoder(encoder), cache)(asked)
        made = replace(made, text_log_var=LogVarEncoder.log_var(found))
    return made
