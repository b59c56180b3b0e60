"""Models of the transformers library, from a folder or from the hub; never code of a repository."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byname.encoders.attention import FAMILIES as FAMILIES_WITH_CLS
from byname.encoders.attention import AttentiveEncoder
from byname.encoders.base import EncoderInfo
from byname.encoders.clap import ClapEncoder
from byname.encoders.files import sha256_of
from byname.encoders.layouts import _json, _licence
from byname.encoders.tokens import TextTokenizer
from byname.encoders.torch_base import PROBE, Model, TorchEncoder, features_of, need, tower
from byname.encoders.torch_card import pad_word, trained_scale
from byname.encoders.torch_text import ListTokenizer, Tokens, with_cleaning
from byname.encoders.transformers_pixels import pixel_recipe
from byname.errors import EncoderError
from byname.files import names_folder, read_text

__all__ = ["load_transformers"]

CONVERT = (
    "A pickled pytorch_model.bin is never read, since it may run code. If you trust it, convert "
    "it: python -c \"import transformers as t; t.AutoModel.from_pretrained('FOLDER')"
    ".save_pretrained('FOLDER')\""
)


@dataclass(frozen=True)
class _Family:
    """What the config of a model does not say.

    ``context``: tokens that it was trained with, where positions for more exist. ``reads_padding``:
    trained without a mask, on full rows. ``offset``: positions that are not for tokens.
    """

    model: str
    context: int | None = None
    reads_padding: bool = False
    offset: bool = False


FAMILIES = {
    "clip": _Family("CLIPModel"),
    "metaclip_2": _Family("MetaClip2Model"),
    "siglip": _Family("SiglipModel", reads_padding=True),
    "align": _Family("AlignModel", 64),
    "chinese_clip": _Family("ChineseCLIPModel", 52),
    "altclip": _Family("AltCLIPModel", 77, offset=True),
    "clap": _Family("ClapModel", 77, offset=True),
}
# What older versions of the library also stored, and no vector depends on.
BUFFERS = ("position_ids", "token_type_ids", "relative_position_index", "num_batches_tracked")
POOLER = ".pooler.dense."  # of text towers that the library builds without one
TOKENIZER_FILES = ("vocab.*", "merges.txt", "*.model", "tokenizer*.json", "special_tokens_map.json")
POSITIONS = {"siglip": 64, "clip": 77, "metaclip_2": 77}  # left out of a config where default
GEMMA_VOCABULARY = 256_000  # SigLIP 2; the first SigLIP has 32,000 tokens


def load_transformers(
    name: str, *, device: str = "cpu", precision: str = "fp32", threads: int | None = None
) -> TorchEncoder:
    """The encoder of ``transformers:NAME_OR_FOLDER``.

    Parameters
    ----------
    name : str
        A folder with config.json, safetensors weights, tokenizer and preprocessor_config.json; or
        a repository of the hub.
    device, precision, threads
        As in :class:`~byname.encoders.torch_base.TorchEncoder`.

    Returns
    -------
    TorchEncoder
        A :class:`~byname.encoders.clap.ClapEncoder` for CLAP.

    Raises
    ------
    EncoderError
        For a folder that is incomplete, pickled, of another kind of model, or inconsistent.
    EncoderUnavailableError
        If torch or transformers is missing, or the repository cannot be had.

    Examples
    --------
    >>> load_transformers("/no/such/folder")
    Traceback (most recent call last):
    byname.errors.EncoderError: cannot use encoder 'transformers:/no/such/folder': there is no \
such folder. Give a folder, or the NAME of a repository such as openai/clip-vit-base-patch32.
    """
    asked = f"transformers:{name}"
    folder = _folder(name, asked)
    config = _config(folder, asked)
    need("torch", asked)
    if importlib.util.find_spec("torchvision") is not None:
        need("torchvision", asked)  # transformers imports it where it is, and fails with it
    library = need("transformers", asked)
    model = _read_model(library, folder, config, asked)
    parts = _describe(library, model, folder, config, asked)
    how: dict[str, Any] = {"device": device, "precision": precision, "threads": threads}
    encoder: TorchEncoder
    if config["model_type"] in FAMILIES_WITH_CLS:
        crop = pixel_recipe(folder, asked)[1]
        encoder = AttentiveEncoder(parts, layers=model.vision_model, crop=crop, **how)
    elif config["model_type"] == "clap":
        encoder = ClapEncoder(parts, **how)
        encoder.connect(library, model, folder)
    else:
        encoder = TorchEncoder(parts, **how)
    _check_end_token(encoder, model, config, asked)
    return encoder


def _folder(name: str, asked: str) -> Path:
    from byname.encoders.hub import fetch, names_repository

    if names_folder(name):
        return Path(name)
    if not names_repository(name):
        raise EncoderError(
            f"use encoder '{asked}'",
            "there is no such folder",
            "Give a folder, or the NAME of a repository such as openai/clip-vit-base-patch32.",
        )
    return fetch(name, asked, "transformers")


def _config(folder: Path, asked: str) -> dict[str, Any]:
    """config.json of a supported model beside safetensors weights."""
    use = f"use encoder '{asked}'"
    if (folder / "adapter_config.json").is_file():
        raise EncoderError(
            use,
            f"'{folder}' holds adapter_config.json: changes to the weights of another model",
            "Merge the two with peft (merge_and_unload), save_pretrained the whole model, and give "
            "that folder.",
        )
    if not (folder / "config.json").is_file():
        held = sorted(p.name for p in folder.iterdir())
        raise EncoderError(
            use,
            f"'{folder}' has no config.json; it holds {', '.join(held[:8]) or 'no files'}",
            "Give the folder that save_pretrained wrote, or that 'hf download' filled.",
        )
    config = _json(folder / "config.json")
    kind = config.get("model_type")
    if kind == "siglip2":
        raise EncoderError(
            use,
            "it is the NaFlex variant of SigLIP 2, which takes images of any shape",
            "Use one of a fixed size, such as google/siglip2-base-patch16-224.",
        )
    if not isinstance(kind, str) or kind not in FAMILIES:
        code = (
            ", and it brings code of its own, which byname never runs"
            if config.get("auto_map")
            else ""
        )
        raise EncoderError(
            use,
            f"its model_type is {kind!r:.60}{code}",
            f"Supported: {', '.join(FAMILIES)}. Other models can be exported to ONNX: onnx:FOLDER.",
        )
    if not _weights(folder):
        pickled = any(folder.glob("pytorch_model*.bin"))
        seen = "its weights are pickled" if pickled else f"'{folder}' has no *.safetensors weights"
        raise EncoderError(use, seen, CONVERT if pickled else "Download the folder again.")
    return config


def _weights(folder: Path) -> list[Path]:
    whole = folder / "model.safetensors"
    return [whole] if whole.is_file() else sorted(folder.glob("model-*-of-*.safetensors"))


def _read_model(library: Any, folder: Path, config: dict[str, Any], asked: str) -> Any:
    use = f"use encoder '{asked}'"
    name = FAMILIES[config["model_type"]].model
    kind = getattr(library, name, None)
    if kind is None:
        raise EncoderError(
            use, f"transformers {library.__version__} has no {name}", "Install a newer one."
        )
    try:
        with _silent(library):
            model, report = kind.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    # the library, safetensors and JSON raise classes without a common base
    except Exception as error:  # noqa: BLE001
        raise EncoderError(
            use,
            f"its weights do not fit its config.json ({type(error).__name__}: {error!s:.200})",
            "The file is damaged or belongs to another model: get the folder again.",
        ) from None
    _check_report(report, use)
    return model


def _check_report(report: dict[str, Any], use: str) -> None:
    """Every tensor of the file has its place, and every place its tensor."""
    lacking = sorted(k for k in report["missing_keys"] if not k.endswith("position_ids"))
    other = sorted(map(str, report["mismatched_keys"]))
    # a config with fewer layers would run without them
    beyond = sorted(
        k for k in report["unexpected_keys"] if not k.endswith(BUFFERS) and POOLER not in k
    )
    if lacking or other or beyond:
        raise EncoderError(
            use,
            f"its weights do not fit its config.json: {len(lacking)} tensors are missing, "
            f"{len(other)} have another shape and {len(beyond)} have no place in the model, the "
            f"first is {[*lacking, *other, *beyond][0]:.100}",
            "The weights belong to another architecture: get the folder again from its source.",
        )


@contextmanager
def _silent(library: Any) -> Iterator[None]:
    """No bar and no report on standard error while weights are read."""
    logs = library.utils.logging
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()


def _describe(library: Any, model: Any, folder: Path, config: dict[str, Any], asked: str) -> Model:
    kind, text = config["model_type"], model.config.text_config
    family = FAMILIES[kind]
    context = int(getattr(text, "max_position_embeddings", POSITIONS.get(kind, 77)))
    if family.offset:  # positions of RoBERTa are counted from behind the padding token
        context -= int(getattr(text, "pad_token_id", 1) or 0) + 1
    context = min(context, family.context or context)
    tokens, tokenizer_json = _tokens(library, folder, config, context, asked)
    preprocess = crop = None
    if kind != "clap":
        preprocess, crop = pixel_recipe(folder, asked)
    pad = _pad_id(folder, tokens, text)
    scale, bias = _scale(model, asked)
    files = [*_weights(folder), folder / "config.json"]
    words = tokenizer_json or _hash_of_tokenizer(folder)
    described = f"{sha256_of(files)}|{words}|{preprocess}|{crop}|{pad}|{family}"
    info = EncoderInfo(
        id=asked,
        dim=int(getattr(model.config, "projection_dim", 0) or text.hidden_size),
        preprocess=preprocess,
        logit_scale=scale,
        logit_bias=bias,
        activation="sigmoid" if kind == "siglip" else "softmax",
        context_length=context,
        licence=_licence(folder),
        source=str(folder),
        weights_sha256=hashlib.sha256(described.encode()).hexdigest(),
    )
    return Model(
        info=info,
        visual=None if preprocess is None else tower(model, _image_call(crop)),
        textual=tower(model, _text_unmasked if family.reads_padding else _text_masked),
        tokens=tokens,
        tokenizer_json=tokenizer_json,
        pad_id=pad,
        vocabulary=int(text.vocab_size),
        may_cut=not family.reads_padding,
        mask_padding=not family.reads_padding,
    )


def _image_call(crop: int | None) -> Any:
    def call(model: Any, pixels: Any) -> Any:
        if crop is not None:
            start = (pixels.shape[-1] - crop) // 2
            pixels = pixels[..., start : start + crop, start : start + crop]
        return features_of(model.get_image_features(pixel_values=pixels))

    return call


def _text_masked(model: Any, ids: Any, mask: Any) -> Any:
    return features_of(model.get_text_features(input_ids=ids, attention_mask=mask))


def _text_unmasked(model: Any, ids: Any, mask: Any) -> Any:
    return features_of(model.get_text_features(input_ids=ids))


def _hash_of_tokenizer(folder: Path) -> str:
    found = {path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)}
    return sha256_of(sorted(found))


def _scale(model: Any, asked: str) -> tuple[float, float]:
    """Scale and bias of the logits, from the model's own parameters."""
    if hasattr(model, "temperature"):  # ALIGN divides
        return trained_scale(model.temperature.item(), asked, divides=True), 0.0
    scale = model.logit_scale if hasattr(model, "logit_scale") else model.logit_scale_a
    bias = model.logit_bias.item() if hasattr(model, "logit_bias") else 0.0
    return trained_scale(scale.item(), asked), bias


def _tokens(
    library: Any, folder: Path, config: dict[str, Any], context: int, asked: str
) -> tuple[Tokens, str | None]:
    path = folder / "tokenizer.json"
    do = "Get the tokenizer files again from the model's source."
    if path.is_file():
        content = read_text(path, EncoderError, f"read '{path}'", do)
    else:
        try:
            slow = library.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # noqa: BLE001 - many classes, all mean "no tokenizer"
            raise EncoderError(
                f"use encoder '{asked}'",
                f"'{folder}' holds no usable tokenizer ({type(error).__name__}: {error!s:.200})",
                do,
            ) from None
        if not slow.is_fast:
            return ListTokenizer(lambda texts: slow(texts)["input_ids"], context), None
        content = slow.backend_tokenizer.to_str()
    if config["model_type"] == "siglip":
        # both versions were trained on lower case, the first one without punctuation; not every
        # tokenizer.json says so, and doing it twice changes nothing
        text = config.get("text_config") or {}
        second = int(text.get("vocab_size", 32_000)) >= GEMMA_VOCABULARY
        content = with_cleaning(content, "lower" if second else "canonicalize", str(path))
    return TextTokenizer(content, context, name=str(path)), content


def _pad_id(folder: Path, tokens: Tokens, text: Any) -> int:
    """Number of the padding token: the tokenizer's word for it, else the number in the config."""
    word = pad_word(folder / "tokenizer_config.json")
    if word is not None and isinstance(tokens, TextTokenizer):
        found = tokens.token_id(word)
        if found is not None:
            return found
    return int(getattr(text, "pad_token_id", 0) or 0)


def _check_end_token(encoder: TorchEncoder, model: Any, config: dict[str, Any], asked: str) -> None:
    """CLIP reads the vector at the end token: a tokenizer with another one spoils every text."""
    if config["model_type"] not in ("clip", "metaclip_2"):
        return
    empty, *rows = encoder.tokenize(["", *PROBE])
    if len(empty) != 2 or any(row[-1:] != empty[-1:] for row in rows):
        raise EncoderError(
            f"use encoder '{asked}'",
            f"its tokenizer sets no start and end around a text: an empty one gives {empty!s:.60}",
            "Its tokenizer.json lacks a post_processor, or belongs to another model: get it from "
            "where the weights come from.",
        )
    row = rows[0]
    # 2 stands for "the largest number in the row" in configs of the first years
    end = getattr(model.config.text_config, "eos_token_id", 2)
    right = row[-1] == max(row) if end == 2 else row[-1] == end
    if not right:
        raise EncoderError(
            f"use encoder '{asked}'",
            f"its tokenizer ends a text with the number {row[-1]}, and the model reads its vector "
            f"at {'the largest number' if end == 2 else end}",
            "The tokenizer belongs to another model: get it from where the weights come from.",
        )
