"""The text side of open_clip models: their tokenizers, and their towers at any length."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from byname.encoders.tokens import TextTokenizer
from byname.encoders.torch_base import PROBE, need
from byname.encoders.torch_card import pad_of_tokenizer_json, pad_word
from byname.encoders.torch_text import Tokens, clip_tokenizer, with_cleaning
from byname.errors import EncoderError, EncoderUnavailableError
from byname.files import names_folder, read_text

__all__ = ["need_text_config", "text_call", "text_tokens", "vocabulary_of"]

ENDS = ("argmax", "eos")  # pools that read the end token
MERGES = 49_152 - 256 - 2  # of OpenAI's vocabulary file, which lists more


def text_tokens(
    library: Any, beside: Path, text: Mapping[str, Any], context: int, asked: str
) -> tuple[Tokens, str, int]:
    """Tokenizer of a model, its ``tokenizer.json``, and the number that pads.

    Parameters
    ----------
    library : module
        open_clip.
    beside : Path
        Folder of the weights: a tokenizer.json there comes first.
    text : mapping
        The ``text_cfg`` of the model.
    context : int
    asked : str

    Raises
    ------
    EncoderError
        For a tokenizer that a tokenizer.json cannot express.
    EncoderUnavailableError
        If it lies in a repository that cannot be had.
    """
    options = dict(text.get("tokenizer_kwargs") or {})
    name, mode = text.get("hf_tokenizer_name"), text.get("tokenizer_mode")
    if mode or options.get("strip_sep_token"):
        raise EncoderError(
            f"use encoder '{asked}'",
            f"its tokenizer has the option {mode or 'strip_sep_token'}, which is not supported",
            "Export it to ONNX with its own library, and use onnx:FOLDER.",
        )
    if not name:
        content = clip_tokenizer(_merges(library))
        content = with_cleaning(content, options.get("clean", "lower"), "tokenizer.json")
        return TextTokenizer(content, context), content, 0
    path = _tokenizer_file(beside, str(name), asked)
    do = "Get the file again from the model's source."
    content = read_text(path, EncoderError, f"read '{path}'", do)
    content = with_cleaning(content, options.get("clean", "whitespace"), str(path))
    tokens = TextTokenizer(content, context, name=str(path))
    return tokens, content, _pad_id(path, content, tokens, text, asked)


def _pad_id(
    path: Path, content: str, tokens: TextTokenizer, text: Mapping[str, Any], asked: str
) -> int:
    word = pad_word(path.with_name("tokenizer_config.json"))
    pad = None if word is None else tokens.token_id(word)
    pad = pad_of_tokenizer_json(content, tokens) if pad is None else pad
    pad = text.get("pad_id") if pad is None else pad
    if pad is not None:
        return int(pad)
    causal = not text.get("no_causal_mask") and text.get("pool_type", "argmax") in ENDS
    if causal and not text.get("hf_model_name"):
        return 0  # read by nothing: it stands behind the end token
    raise EncoderError(
        f"use encoder '{asked}'",
        f"its text tower reads padding, and neither '{path}' nor tokenizer_config.json beside it "
        "says which token pads",
        "Put tokenizer_config.json of the model's source beside it.",
    )


def need_text_config(config: Mapping[str, Any], asked: str) -> None:
    """The configuration of a text tower that open_clip builds after another repository.

    Raises
    ------
    EncoderUnavailableError
        If that repository is neither in the hub's cache nor can be had.
    """
    from byname.encoders.hub import fetch_file

    text = config.get("text_cfg")
    name = text.get("hf_model_name") if isinstance(text, dict) else None
    if not isinstance(name, str) or names_folder(name):
        return
    try:
        fetch_file(name, ["config.json"], asked, "")
    except EncoderUnavailableError as error:
        raise EncoderUnavailableError(
            f"use encoder '{asked}'",
            f"its text tower is built after a second repository, {name}: {error.seen}",
            f"On a machine with a network run 'hf download {name} config.json', and bring its "
            f"folder models--{name.replace('/', '--')} into the hub's cache here (HF_HUB_CACHE)",
        ) from None


def _tokenizer_file(beside: Path, name: str, asked: str) -> Path:
    from byname.encoders.hub import cached_file, fetch_file

    if (path := beside / "tokenizer.json").is_file():
        return path
    if names_folder(name) and (path := Path(name) / "tokenizer.json").is_file():
        return path
    then = "put it, and tokenizer_config.json of the same place, beside the weights"
    both = "tokenizer.json tokenizer_config.json"
    path = fetch_file(name, ["tokenizer.json"], asked, then, certain=both)
    if cached_file(name, ["tokenizer_config.json"]) is None:
        fetch_file(name, ["tokenizer_config.json"], asked, then, certain=both)
    return path


def _merges(library: Any) -> list[tuple[str, str]]:
    """OpenAI's merges, which open_clip brings."""
    path = Path(library.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : MERGES + 1]
    return [(left, right) for left, _, right in (line.partition(" ") for line in lines)]


def vocabulary_of(text: Any) -> int | None:
    """Rows of the token embedding; None where the tower does not say."""
    table = getattr(text, "token_embedding", None)
    found = getattr(text, "vocab_size", None) if table is None else table.num_embeddings
    return None if found is None else int(found)


def text_call(model: Any, tokens: Tokens, context: int, pad: int) -> Callable[..., Any]:
    """How the text tower is called.

    open_clip's causal towers take rows of the full context only. Where the same weights give the
    same vectors for rows of any length, which is tried here, they are called that way: texts cost
    a fifth.
    """
    text = getattr(model, "text", model)
    kind = getattr(model, "text_pool_type", None) or getattr(text, "pool_type", None)
    known = ("token_embedding", "positional_embedding", "transformer", "ln_final")
    free = (
        all(hasattr(text, part) for part in known)
        and getattr(text, "attn_mask", None) is not None
        and getattr(text, "cls_emb", None) is None
        and kind == "argmax"
    )
    if free and _agrees(model, tokens, context, pad):
        return _at_any_length
    return _at_full_length


def _at_full_length(model: Any, ids: Any, mask: Any) -> Any:
    return model.encode_text(ids)


def _at_any_length(model: Any, ids: Any, mask: Any) -> Any:
    text = getattr(model, "text", model)
    length = ids.shape[1]
    kind = text.transformer.get_cast_dtype()
    x = text.token_embedding(ids).to(kind) + text.positional_embedding[:length].to(kind)
    x = text.ln_final(text.transformer(x, attn_mask=text.attn_mask[:length, :length]))
    # the end token has the largest number
    ends = ids.argmax(dim=-1)[:, None, None].expand(-1, 1, x.shape[-1])
    x = x.gather(1, ends)[:, 0]
    projection = text.text_projection
    if projection is None:
        return x
    return projection(x) if callable(projection) else x @ projection


def _agrees(model: Any, tokens: Tokens, context: int, pad: int) -> bool:
    torch = need("torch", "open_clip")
    rows = [row + [pad] * (context - len(row)) for row in tokens.rows(PROBE)]
    ids = torch.tensor(rows)
    model.eval()
    try:
        with torch.inference_mode():
            want, got = model.encode_text(ids), _at_any_length(model, ids, None)
    except (RuntimeError, AttributeError, TypeError, IndexError):
        return False
    return bool((want - got).abs().max() <= 1e-4 * want.abs().max())
