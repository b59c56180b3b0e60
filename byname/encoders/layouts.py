"""Recognising the layouts of encoder folders, and reading what they say about themselves."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

from byname.encoders.base import EncoderInfo
from byname.encoders.files import start_of, weights_beside
from byname.errors import EncoderError
from byname.files import read_json
from byname.images.preprocess import Preprocess

__all__ = ["Layout", "is_complete", "read_layout"]

Interpolation = Literal["bicubic", "bilinear", "lanczos", "nearest"]
PIL_FILTERS: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
# Full precision first; the others are what a folder may hold instead.
SCALE = "byname.json"
SUFFIXES = ("", "_fp16", "_quantized", "_int8", "_uint8")
# Steps of image processors that are understood, or that change no RGB image.
SWITCHES = re.compile("do_(resize|center_crop|rescale|normalize|convert_rgb|reduce_labels)")
REQUIRED = {
    "byname": ("visual.onnx", "textual.onnx", "tokenizer.json", "preprocess.json"),
    "transformers": (
        "onnx/vision_model.onnx",
        "onnx/text_model.onnx",
        "tokenizer.json",
        "config.json",
        "preprocessor_config.json",
    ),
    "open_clip": (
        "visual/model.onnx",
        "textual/model.onnx",
        "visual/preprocess_cfg.json",
        "textual/tokenizer.json",
        "config.json",
    ),
}


@dataclass(frozen=True)
class Layout:
    """What is needed to run the two towers of a folder.

    ``causal`` None means that the folder does not say. ``mask_padding`` is False for models that
    were trained to attend to padding. ``scale_stated`` is False where the folder leaves out the
    trained scale and bias, and those of CLIP stand in for them.
    """

    kind: str
    folder: Path
    visual: Path
    textual: Path
    tokenizer: Path
    described_by: tuple[Path, ...]
    preprocess: Preprocess
    context: int
    pad: int | str
    id: str
    licence: str
    source: str
    causal: bool | None = None
    mask_padding: bool = True
    canonical: bool = False
    activation: Literal["softmax", "sigmoid"] = "softmax"
    logit_scale: float = 100.0
    logit_bias: float = 0.0
    scale_stated: bool = True

    def content_files(self) -> list[Path]:
        """Every file that decides what the vectors are, weights stored beside a model included."""
        towers = [
            path
            for model in (self.visual, self.textual)
            for path in (model, *weights_beside(model))
        ]
        return [*towers, self.tokenizer, *self.described_by]

    def info(self, dim: int, context: int, weights_sha256: str = "") -> EncoderInfo:
        """The card of the encoder."""
        return EncoderInfo(
            id=self.id,
            dim=dim,
            preprocess=self.preprocess,
            logit_scale=self.logit_scale,
            logit_bias=self.logit_bias,
            activation=self.activation,
            context_length=context,
            licence=self.licence,
            source=self.source,
            weights_sha256=weights_sha256,
        )


def is_complete(folder: Path) -> bool:
    """Whether a folder has all files of one layout."""
    return any(not _missing(folder, kind) for kind in REQUIRED)


def read_layout(folder: Path) -> Layout:
    """Guess the layout of a folder and read its descriptions.

    Raises
    ------
    EncoderError
        If files are missing, naming them, the layout that was guessed and what the folder holds;
        or if a description cannot be used.
    """
    if not folder.is_dir():
        raise EncoderError(
            f"open the encoder folder '{folder}'",
            "there is no such folder",
            "Check the path; an encoder folder holds visual.onnx, textual.onnx, tokenizer.json "
            "and preprocess.json.",
        )
    missing = {kind: _missing(folder, kind) for kind in REQUIRED}
    kind = min(REQUIRED, key=lambda k: len(missing[k]) / len(REQUIRED[k]))
    if missing[kind]:
        _raise_missing(folder, kind, missing[kind])
    readers = {
        "byname": _read_byname,
        "transformers": _read_transformers,
        "open_clip": _read_open_clip,
    }
    try:
        layout = readers[kind](folder)
        _check_numbers(layout)
        return layout
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        if isinstance(error, EncoderError):
            raise
        raise EncoderError(
            f"open the encoder folder '{folder}'",
            f"a description in it does not fit ({type(error).__name__}: {error})",
            f"Compare its JSON files with the {kind} layout in docs/formats.md.",
        ) from None


def _check_numbers(layout: Layout) -> None:
    """Refuse numbers that fit no encoder here, where the file that gives them is known."""
    try:
        layout.info(dim=1, context=layout.context)
    except EncoderError as error:
        described = layout.described_by[0]
        raise EncoderError(f"use '{described}'", error.seen, error.do) from None


def _missing(folder: Path, kind: str) -> list[str]:
    return [name for name in REQUIRED[kind] if _variant(folder, name) is None]


def _variant(folder: Path, name: str) -> Path | None:
    """The file itself, or a reduced-precision one of its name."""
    path = folder / name
    suffixes = SUFFIXES if name.startswith("onnx/") else SUFFIXES[:1]
    for suffix in suffixes:
        candidate = path.with_name(f"{path.stem}{suffix}{path.suffix}")
        if candidate.is_file():
            return candidate
    return None


def _raise_missing(folder: Path, kind: str, missing: list[str]) -> NoReturn:
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    shown = ", ".join(found[:8]) + (f", and {len(found) - 8} more" if len(found) > 8 else "")
    if len(missing) == len(REQUIRED[kind]):
        known = "; ".join(f"{k}: {', '.join(files)}" for k, files in REQUIRED.items())
        raise EncoderError(
            f"open the encoder folder '{folder}'",
            f"no layout fits; it holds {shown or 'no files'}",
            f"Known layouts: {known}.",
        )
    raise EncoderError(
        f"open the encoder folder '{folder}'",
        f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing from what looks like "
        f"the {kind} layout; it holds {shown}",
        "Add the missing files, or download or export the encoder again.",
    )


def _read_byname(folder: Path) -> Layout:
    described = folder / "preprocess.json"
    card = _json(described, "size", "mean", "std")
    size = _whole(card["size"], "size")
    return Layout(
        kind="byname",
        folder=folder,
        visual=folder / "visual.onnx",
        textual=folder / "textual.onnx",
        tokenizer=folder / "tokenizer.json",
        described_by=(described,),
        preprocess=_preprocess(
            size,
            _whole(card.get("resize", size), "resize"),
            str(card.get("resize_mode", "shortest")),
            card,
        ),
        context=_whole(card.get("context_length", 77), "context_length"),
        pad=_whole(card.get("pad_id", 0), "pad_id"),
        id=str(card.get("id") or f"onnx:{folder.name}"),
        licence=str(card.get("licence") or _licence(folder)),
        source=str(card.get("source") or folder),
        causal=None if card.get("causal") is None else bool(card["causal"]),
        activation=card.get("activation", "softmax"),
        logit_scale=float(card.get("logit_scale", 100.0)),
        logit_bias=float(card.get("logit_bias", 0.0)),
        scale_stated="logit_scale" in card and "logit_bias" in card,
    )


def _read_transformers(folder: Path) -> Layout:
    config_path, pre_path = folder / "config.json", folder / "preprocessor_config.json"
    config = _json(config_path)
    text = config.get("text_config") or {}
    tokenizer_config = folder / "tokenizer_config.json"
    siglip = str(config.get("model_type", "")).startswith("siglip")
    visual, textual = _towers(folder)
    return Layout(
        kind="transformers",
        folder=folder,
        visual=visual,
        textual=textual,
        tokenizer=folder / "tokenizer.json",
        described_by=_present(config_path, pre_path, tokenizer_config, folder / SCALE),
        preprocess=_transformers_preprocess(pre_path),
        # both families leave the number out of config.json where it is their default
        context=int(text.get("max_position_embeddings", 64 if siglip else 77)),
        pad=_pad_token(tokenizer_config) or int(text.get("pad_token_id", 1)),
        id=f"onnx:{folder.name}",
        licence=_licence(folder),
        source=str(folder),
        causal=False if siglip else None,
        mask_padding=not siglip,
        activation="sigmoid" if siglip else "softmax",
        **_scale(folder),
    )


def _read_open_clip(folder: Path) -> Layout:
    config_path, pre_path = folder / "config.json", folder / "visual/preprocess_cfg.json"
    config, card = _json(config_path), _json(pre_path, "size", "mean", "std")
    config = config.get("model_cfg") or config
    text = config.get("text_cfg") or {}
    size = _square(card["size"])
    seen = (config.get("vision_cfg") or {}).get("image_size") or size
    if _square(seen) != size:
        raise ValueError(f"preprocess_cfg.json has size {size}, config.json image_size {seen}")
    not_causal = bool(text.get("no_causal_mask")) or text.get("pool_type") == "last"
    sigmoid = "init_logit_bias" in config
    tokenizer_config = folder / "textual/tokenizer_config.json"
    return Layout(
        kind="open_clip",
        folder=folder,
        visual=folder / "visual/model.onnx",
        textual=folder / "textual/model.onnx",
        tokenizer=folder / "textual/tokenizer.json",
        described_by=_present(config_path, pre_path, tokenizer_config, folder / SCALE),
        preprocess=_preprocess(size, size, str(card.get("resize_mode", "shortest")), card),
        context=int(text.get("context_length", 77)),
        pad=_pad_token(tokenizer_config) or int(text.get("pad_id", 0)),
        id=f"onnx:{folder.name}",
        licence=_licence(folder),
        source=str(folder),
        causal=False if not_causal else None,
        mask_padding=not sigmoid,
        canonical=(text.get("tokenizer_kwargs") or {}).get("clean") == "canonicalize",
        activation="sigmoid" if sigmoid else "softmax",
        **_scale(folder),
    )


def _present(*paths: Path) -> tuple[Path, ...]:
    return tuple(path for path in paths if path.is_file())


def _scale(folder: Path) -> dict[str, Any]:
    """The trained scale and bias, which these layouts have no place for, from a file of ours."""
    if not (folder / SCALE).is_file():
        return {"scale_stated": False}
    card = _json(folder / SCALE, "logit_scale", "logit_bias")
    return {name: float(card[name]) for name in ("logit_scale", "logit_bias")}


def _towers(folder: Path) -> tuple[Path, Path]:
    """Both towers in the same precision where there is such a pair."""
    for suffix in SUFFIXES:
        pair = [folder / f"onnx/{tower}_model{suffix}.onnx" for tower in ("vision", "text")]
        if all(path.is_file() for path in pair):
            return pair[0], pair[1]
    visual, textual = (_variant(folder, f"onnx/{tower}_model.onnx") for tower in ("vision", "text"))
    return cast(Path, visual), cast(Path, textual)


def _transformers_preprocess(path: Path) -> Preprocess:
    card = _json(path, "size")
    size, crop = card["size"], card.get("crop_size")
    for name in card:
        if name.startswith("do_") and not SWITCHES.fullmatch(name) and _switch(card, name, False):
            raise ValueError(f"{name} is not supported")
    cropped = _switch(card, "do_center_crop", crop is not None)
    if not _switch(card, "do_resize", True):
        raise ValueError("do_resize is false")
    scale = float(card.get("rescale_factor", 1 / 255))
    if not _switch(card, "do_rescale", True) or not math.isclose(scale, 1 / 255, rel_tol=1e-4):
        raise ValueError("pixels are not rescaled by 1/255")
    shortest = isinstance(size, int) or "shortest_edge" in size
    if shortest and not cropped:
        raise ValueError("the short side is resized without a centre crop, which is no square")
    target = size if isinstance(size, int) else size.get("shortest_edge") or _square(size)
    target = _whole(target, "size")
    side = _square(crop) if cropped else target
    if not shortest and side != target:
        raise ValueError(f"a square of {target} is cropped to {side}")
    number = _whole(card.get("resample", 3), "resample")
    if number not in PIL_FILTERS:
        raise ValueError(f"resample {number} is not supported")
    values = dict(card, interpolation=PIL_FILTERS[number], crop_rounding="floor")
    if _switch(card, "do_normalize", True):
        card = _json(path, "image_mean", "image_std")
        values |= {"mean": card["image_mean"], "std": card["image_std"]}
    else:
        values |= {"mean": [0, 0, 0], "std": [1, 1, 1]}
    return _preprocess(side, target, "shortest" if shortest else "squash", values)


def _preprocess(size: int, resize: int, mode: str, card: Mapping[str, Any]) -> Preprocess:
    # Preprocess checks its own values; only what it does not know is checked here
    if str(card.get("crop", "center")) not in ("center", "none"):
        raise ValueError(f"crop {card['crop']!r} is not supported")
    return Preprocess(
        size=size,
        resize=resize,
        mode=cast(Literal["shortest", "squash"], mode),
        interpolation=cast(Interpolation, card.get("interpolation", "bicubic")),
        mean=card["mean"],
        std=card["std"],
        crop_rounding=cast(Literal["round", "floor"], card.get("crop_rounding", "round")),
    )


def _square(size: Any) -> int:
    """224, [224, 224] and {"height": 224, "width": 224} all mean 224."""
    sides = [size["height"], size["width"]] if isinstance(size, Mapping) else size
    sides = [sides] if isinstance(sides, int) else list(sides)
    if len(set(sides)) != 1:
        raise ValueError(f"the input {size} is not a square")
    return _whole(sides[0], "size")


def _whole(value: Any, name: str) -> int:
    """A whole number as JSON has it; 18.9 and "18" are none."""
    if type(value) is int or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise ValueError(f"{name} is {value!r}, not a whole number")


def _switch(card: Mapping[str, Any], name: str, default: bool) -> bool:
    """true or false; null counts as false, as in the library that writes it."""
    value = card.get(name, default)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, neither true nor false")
    return bool(value)


def _pad_token(tokenizer_config: Path) -> str | None:
    token = _json(tokenizer_config).get("pad_token") if tokenizer_config.is_file() else None
    found = token.get("content") if isinstance(token, dict) else token
    if not isinstance(found, str | None):
        raise ValueError(f"pad_token is {token!r:.60}, not a text")
    return found


def _json(path: Path, *required: str) -> dict[str, Any]:
    asked = f"read '{path}'"
    value = read_json(path, EncoderError, asked, "Get the file again from its source.")
    if not isinstance(value, dict):
        raise EncoderError(asked, "it is not a JSON object", "Get the file again.")
    if lacking := [name for name in required if name not in value]:
        raise EncoderError(
            asked, f"it lacks {' and '.join(lacking)}", "Add what the model was trained with."
        )
    return value


def _licence(folder: Path) -> str:
    """From the head of a model card, or the first line of a licence file."""
    head = start_of(folder / "README.md", 4000)
    if head.startswith("---") and (found := re.search(r"^license:\s*(\S+)", head, re.M)):
        return found[1].strip("\"'")
    for path in sorted(folder.glob("LICENSE*")):
        lines = start_of(path, 2000).split("\n")
        if first := next((line.strip() for line in lines if line.strip()), ""):
            return first[:60]
    return "unknown"
