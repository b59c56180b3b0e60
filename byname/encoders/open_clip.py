"""Models of the open_clip library: by architecture and tag, from a file, a folder or the hub."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byname.encoders.base import EncoderInfo
from byname.encoders.files import sha256_of
from byname.encoders.layouts import _json, _licence, _preprocess, _square
from byname.encoders.open_clip_text import (
    need_text_config,
    text_call,
    text_tokens,
    vocabulary_of,
)
from byname.encoders.torch_base import Model, TorchEncoder, need, tower
from byname.encoders.torch_card import trained_scale
from byname.errors import BynameError, EncoderError, EncoderUnavailableError, UnsafeFileError
from byname.files import names_file

__all__ = ["load_open_clip"]

FORMS = "ARCH/TAG, ARCH@FILE, ARCH/TAG@FILE, hf-hub:REPO or local-dir:FOLDER"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
# In the order in which a folder is searched.
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
)
RECIPE = ("mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True)
class _Found:
    """What a spec stands for: an architecture, where its weights lie, and what goes with them."""

    model: str  # as open_clip's create_model wants it
    config: dict[str, Any]
    weights: Path
    folder: Path | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    quick_gelu: bool | None = None
    source: str = "unknown"


def load_open_clip(
    spec: str, *, device: str = "cpu", precision: str = "fp32", threads: int | None = None
) -> TorchEncoder:
    """The encoder of ``open_clip:SPEC``.

    Parameters
    ----------
    spec : str
        ``ARCH/TAG`` (pretrained weights by open_clip's own names), ``ARCH@FILE`` (a checkpoint:
        safetensors, or .pt, .pth and .bin that hold tensors only), ``ARCH/TAG@FILE`` (the same,
        with pixel normalisation and activation of the tag), ``ARCH@hf-hub:OWNER/NAME/FILE``,
        ``hf-hub:OWNER/NAME``, ``local-dir:FOLDER`` (a folder with open_clip_config.json).
    device, precision, threads
        As in :class:`~byname.encoders.torch_base.TorchEncoder`.

    Raises
    ------
    EncoderError
        For an unknown architecture or tag, or a checkpoint of another architecture.
    EncoderUnavailableError
        If torch or open_clip cannot be imported, or the weights cannot be had.
    UnsafeFileError
        For a checkpoint that holds anything but tensors.
    """
    asked = f"open_clip:{spec}"
    need("torch", asked)
    need("torchvision", asked)
    library = need("open_clip", asked)
    found = _find(library, spec, asked)
    need_text_config(found.config, asked)
    model = _build(library, found, asked)
    _load_weights(library, model, found.weights, asked)
    parts = _describe(library, model, found, asked)
    return TorchEncoder(parts, device=device, precision=precision, threads=threads)


def _find(library: Any, spec: str, asked: str) -> _Found:
    from byname.encoders.hub import fetch, names_repository

    if spec.startswith("local-dir:"):
        return _in_folder(Path(spec.removeprefix("local-dir:")), asked)
    if spec.startswith("hf-hub:"):
        repo = spec.removeprefix("hf-hub:")
        if not names_repository(repo):
            raise _unknown(asked, f"'{repo}' is no repository")
        return _in_folder(fetch(repo, asked, "open_clip"), asked, f"https://huggingface.co/{repo}")
    name, _, file = spec.partition("@")
    arch, _, tag = name.partition("/")
    config = library.get_model_config(arch)
    if config is None:
        close = difflib.get_close_matches(arch, library.list_models(), 3, 0.5)
        guess = f"Did you mean {' or '.join(close)}? " if close else ""
        raise _unknown(
            asked, f"open_clip {library.__version__} has no architecture '{arch}'", guess
        )
    card = _tag(library, arch, tag, asked) if tag else {}
    recipe = {key: card[key] for key in RECIPE if key in card}
    gelu = bool(card.get("quick_gelu", False)) if tag else None
    if file:
        path = _checkpoint(file, asked, f"open_clip:{name}")
    elif tag:
        path = _download(library, card, asked)
    else:
        raise _unknown(asked, "it names no weights", "Without weights it knows nothing. ")
    return _Found(arch, config, path, None, recipe, gelu, str(card.get("hf_hub") or path))


def _unknown(asked: str, seen: str, hint: str = "") -> EncoderError:
    return EncoderError(f"use encoder '{asked}'", seen, f"{hint}Write open_clip: and {FORMS}.")


def _tag(library: Any, arch: str, tag: str, asked: str) -> dict[str, Any]:
    card = library.get_pretrained_cfg(arch, tag)
    if not card:
        tags = library.list_pretrained_tags_by_model(arch)
        raise _unknown(
            asked,
            f"open_clip {library.__version__} has no weights '{tag}' for {arch}",
            f"It has {', '.join(tags) or 'none'}. ",
        )
    return dict(card)


def _download(library: Any, card: Mapping[str, Any], asked: str) -> Path:
    """Weights of a tag, from the hub where they lie there."""
    from byname.encoders.hub import fetch_file

    if hub := card.get("hf_hub"):
        repo, _, name = str(hub).rpartition("/")
        names = [name] if name else list(WEIGHTS[:2] + WEIGHTS[3:])
        if name.endswith((".bin", ".pth", ".pt")):
            names.insert(0, f"{name.rpartition('.')[0]}.safetensors")
        certain = name or names[0]
        then = f"use '{asked}@FOLDER/{certain}'"
        return fetch_file(repo, names, asked, then, certain=certain)
    url = str(card.get("url"))
    try:
        return Path(library.download_pretrained(dict(card)))
    except Exception as error:  # noqa: BLE001 - whatever urllib and the library raise
        raise EncoderUnavailableError(
            f"fetch encoder '{asked}'",
            f"its weights could not be downloaded ({type(error).__name__}: {error!s:.160})",
            f"On a machine with a network run 'curl -LO {url}', bring the file here and use "
            f"'{asked}@FILE'.",
        ) from None


def _checkpoint(file: str, asked: str, name: str) -> Path:
    if file.startswith("hf-hub:"):
        from byname.encoders.hub import fetch_file

        parts = file.removeprefix("hf-hub:").split("/", 2)
        if len(parts) != 3:
            raise _unknown(asked, f"'{file}' names no file", "Write hf-hub:OWNER/NAME/FILE. ")
        then = f"use '{name}@FOLDER/{parts[2]}'"
        return fetch_file("/".join(parts[:2]), [parts[2]], asked, then)
    path = Path(file)
    if not names_file(file) or path.suffix not in SUFFIXES:
        seen = f"'{file}' ends in none of {', '.join(SUFFIXES)}"
        raise _unknown(asked, seen if names_file(file) else f"there is no file '{file}'")
    return path


def _in_folder(folder: Path, asked: str, source: str | None = None) -> _Found:
    described = folder / "open_clip_config.json"
    use = f"use encoder '{asked}'"
    if not described.is_file():
        seen = "has no open_clip_config.json" if folder.is_dir() else "does not exist"
        raise EncoderError(
            use, f"'{folder}' {seen}", "Give the folder of an open_clip repository of the hub."
        )
    card = _json(described, "model_cfg")
    for name in ("model_cfg", "preprocess_cfg"):
        part = card.get(name, {})
        if not isinstance(part, dict) and not (part is None and name == "preprocess_cfg"):
            raise EncoderError(
                f"read '{described}'",
                f"its {name} is {part!r:.60}, expected a JSON object",
                "Get the file again from the model's source.",
            )
    weights = next((p for name in WEIGHTS if (p := folder / name).is_file()), None)
    if weights is None:
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:8])
        raise EncoderError(
            use,
            f"'{folder}' holds no weights that are known; it holds {held}",
            f"Expected {', '.join(WEIGHTS)}.",
        )
    recipe = dict(card.get("preprocess_cfg") or {})
    recipe = {key: recipe[key] for key in RECIPE if key in recipe}
    return _Found(
        f"local-dir:{folder}",
        dict(card["model_cfg"]),
        weights,
        folder,
        recipe,
        source=source or str(folder),
    )


def _build(library: Any, found: _Found, asked: str) -> Any:
    """The architecture with random weights."""
    from byname.encoders.hub import offline

    changed = {} if found.quick_gelu is None else {"quick_gelu": found.quick_gelu}
    try:
        with _silent(), offline():
            return library.create_model(
                found.model,
                pretrained=None,
                load_weights=False,
                pretrained_text=False,
                force_preprocess_cfg=found.recipe or None,
                **changed,
            )
    # timm, transformers and the library raise whatever a config leads to
    except Exception as error:  # noqa: BLE001
        raise EncoderError(
            f"use encoder '{asked}'",
            f"open_clip {library.__version__} cannot build it ({type(error).__name__}: "
            f"{error!s:.200})",
            "Its configuration is damaged, or needs another version: pip install --upgrade "
            "open_clip_torch timm",
        ) from None


@contextmanager
def _silent() -> Iterator[None]:
    """Without the library's warning that weights are random: they are loaded in the next step."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _load_weights(library: Any, model: Any, path: Path, asked: str) -> None:
    use = f"use encoder '{asked}'"
    if path.suffix != ".safetensors":
        _check_pickle(path)
    try:
        _check_shapes(model, path, use)
        library.load_checkpoint(model, str(path), strict=True, weights_only=True)
    except RuntimeError as error:
        # torch lists every tensor on lines of their own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise EncoderError(
            use,
            f"the tensors in '{path}' do not fit it ({' '.join(lines[1:2] or lines[:1])[:240]})",
            "The checkpoint belongs to another architecture: name the one that it was trained as.",
        ) from None
    except Exception as error:  # safetensors has a class of its own, and there are KeyErrors
        if isinstance(error, BynameError):
            raise
        raise EncoderError(
            use,
            f"'{path}' cannot be read as a checkpoint ({type(error).__name__}: {error!s:.160})",
            "The file is damaged or holds something else: get it again from its source.",
        ) from None


def _check_shapes(model: Any, path: Path, use: str) -> None:
    """Refuse what the library would resize unasked: position embeddings of another size."""
    factory = importlib.import_module("open_clip.factory")
    state = factory.convert_state_dict(model, factory.load_state_dict(str(path), weights_only=True))
    own = model.state_dict()
    if "positional_embedding" in state and "positional_embedding" not in own:
        state = factory.convert_to_custom_text_state_dict(state)
    for name in sorted(own.keys() & state.keys()):
        here, there = tuple(own[name].shape), tuple(state[name].shape)
        # the library takes both forms of a single number
        if here != there and own[name].numel() * state[name].numel() != 1:
            raise EncoderError(
                use,
                f"the tensors in '{path}' do not fit it (size mismatch: {name} is {there} there "
                f"and {here} in the model)",
                "The checkpoint belongs to another architecture, or to another size of image or "
                "text: name the one that it was trained as.",
            )


def _check_pickle(path: Path) -> None:
    """Refuse what torch's restricted unpickler refuses, before the library opens the file."""
    torch = need("torch", str(path))
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - pickle, zip and torch errors share no base class
        first = str(error).strip().splitlines() or [""]
        raise UnsafeFileError(
            f"read '{path}'",
            f"it is no checkpoint of tensors only ({type(error).__name__}: {first[0][:160]})",
            "Nothing in it was executed. If you trust it, save its state dict as safetensors.",
        ) from None


def _describe(library: Any, model: Any, found: _Found, asked: str) -> Model:
    text_config = dict(found.config.get("text_cfg") or {})
    text = getattr(model, "text", model)
    context = int(getattr(model, "context_length", None) or text.context_length)
    beside = found.folder or found.weights.parent
    tokens, tokenizer_json, pad = text_tokens(library, beside, text_config, context, asked)
    card = dict(model.visual.preprocess_cfg)
    try:
        size = _square(card["size"])
        preprocess = _preprocess(size, size, str(card.get("resize_mode", "shortest")), card)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, BynameError):
            raise
        raise EncoderError(
            f"use encoder '{asked}'", f"its preprocessing does not fit ({error})", ""
        ) from None
    bias = getattr(model, "logit_bias", None)
    scale = trained_scale(model.logit_scale.item(), asked)
    facts = [found.config, found.quick_gelu, tokenizer_json, pad, bias is None]
    described = json.dumps(facts, sort_keys=True)
    weights = hashlib.sha256(f"{sha256_of([found.weights])}|{described}".encode()).hexdigest()
    info = EncoderInfo(
        id=asked,
        dim=int(found.config["embed_dim"]),
        preprocess=preprocess,
        logit_scale=scale,
        logit_bias=0.0 if bias is None else bias.item(),
        activation="softmax" if bias is None else "sigmoid",
        context_length=context,
        licence=_licence(found.weights.parent),
        source=found.source,
        weights_sha256=weights,
    )
    return Model(
        info=info,
        visual=tower(model, lambda m, pixels: m.encode_image(pixels)),
        textual=tower(model, text_call(model, tokens, context, pad)),
        tokens=tokens,
        tokenizer_json=tokenizer_json,
        pad_id=pad,
        vocabulary=vocabulary_of(text),
        may_cut=bias is None,
    )
