"""From what the user writes to an encoder."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import os
from pathlib import Path
from typing import Any

from byname.encoders.base import Encoder
from byname.encoders.presets import DEFAULT, PRESETS, Preset
from byname.errors import EncoderError, EncoderUnavailableError
from byname.files import names_folder

__all__ = ["list_encoders", "load_encoder"]

FORMS = "onnx:FOLDER, precomputed:FOLDER, onnx-hub:REPO"


def load_encoder(
    spec: str | Path | Encoder | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    cache_dir: Path | None = None,
) -> Encoder:
    """The encoder that a name, a folder or a prefix stands for.

    Parameters
    ----------
    spec : str, path, Encoder or None
        A preset (``"mini"``, ``"clip-vit-b-32"``), ``"onnx:FOLDER"`` or an existing folder,
        ``"precomputed:FOLDER"``, ``"onnx-hub:REPO"``; an encoder is returned as it is. None stands
        for the environment variable ``BYNAME_ENCODER``, and without it for the default preset.
    device : {"cpu", "cuda"}
    threads : int, optional
        All cores by default.
    cache_dir : path, optional
        Where converted models are kept; ``BYNAME_CACHE`` or the user's cache folder by default.

    Raises
    ------
    EncoderError
        For an unknown name, or a folder that does not hold a usable encoder.
    EncoderUnavailableError
        For a known encoder whose weights cannot be had here. No other encoder is taken instead.

    Examples
    --------
    >>> load_encoder("mini").info.dim
    1000
    """
    if isinstance(spec, Encoder):
        return spec
    if isinstance(spec, Path):
        return _from_folder(spec, str(spec), device, threads)
    name = (spec or os.environ.get("BYNAME_ENCODER") or DEFAULT).strip()
    kind, colon, rest = name.partition(":")
    if name in PRESETS:
        return _from_preset(PRESETS[name], device, threads, cache_dir)
    if colon and kind == "onnx":
        return _onnx(Path(rest), device, threads)
    if colon and kind == "onnx-hub":
        return _from_hub(rest, name, device, threads)
    if colon and kind == "precomputed":
        from byname.encoders.precomputed import PrecomputedEncoder

        return PrecomputedEncoder.from_path(Path(rest))
    if names_folder(name):
        return _from_folder(Path(name), name, device, threads)
    close = difflib.get_close_matches(name, PRESETS, 3, 0.5)
    guess = f"Did you mean {' or '.join(close)}? " if close else ""
    raise EncoderError(
        f"use encoder '{name}'",
        "there is no encoder and no folder of that name",
        f"{guess}Known: {', '.join(PRESETS)}; or {FORMS}.",
    )


def list_encoders(pattern: str = "*") -> list[dict[str, Any]]:
    """The presets whose name matches, one dictionary each.

    Returns
    -------
    list of dict
        ``id, size_mb, licence, input_size, dim, offline, source, note``; ``offline`` says whether
        it is usable here without a network.

    Examples
    --------
    >>> [e["id"] for e in list_encoders("clip-*")]
    ['clip-vit-b-32', 'clip-vit-b-16', 'clip-vit-l-14']
    """
    return [
        {
            "id": p.name,
            "size_mb": p.size_mb,
            "licence": p.licence,
            "input_size": p.input_size,
            "dim": p.dim,
            "offline": _offline(p),
            "source": p.source,
            "note": p.note,
        }
        for p in PRESETS.values()
        if fnmatch.fnmatchcase(p.name, pattern)
    ]


def _offline(preset: Preset) -> bool:
    if preset.spec == "mini":
        from byname.encoders.mini import mini_available

        return mini_available()
    from byname.encoders.hub import cached_folder

    return cached_folder(preset.spec.partition(":")[2]) is not None


def _from_folder(folder: Path, asked: str, device: str, threads: int | None) -> Encoder:
    if not folder.is_dir():
        raise EncoderError(
            f"use encoder '{asked}'", "there is no such folder", f"Give a folder, or {FORMS}."
        )
    if (folder / "texts.npy").is_file():
        from byname.encoders.precomputed import PrecomputedEncoder

        return PrecomputedEncoder.from_path(folder)
    return _onnx(folder, device, threads)


def _from_preset(
    preset: Preset, device: str, threads: int | None, cache_dir: Path | None
) -> Encoder:
    if preset.spec == "mini":
        from byname.encoders.mini import MiniEncoder

        return MiniEncoder(threads=threads, device=device, cache_dir=cache_dir)
    encoder = _from_hub(preset.spec.partition(":")[2], preset.name, device, threads)
    if encoder.info.dim != preset.dim:
        raise EncoderError(
            f"use encoder '{preset.name}'",
            f"its vectors have width {encoder.info.dim}, expected {preset.dim}",
            "The repository has changed: tell byname's developers.",
        )
    # ONNX exports do not carry the trained scale and rarely a licence; the table does
    encoder.info = dataclasses.replace(
        encoder.info,
        id=preset.name,
        logit_scale=preset.logit_scale,
        logit_bias=preset.logit_bias,
        licence=preset.licence,
        source=preset.source,
    )
    return encoder


def _from_hub(repo: str, asked: str, device: str, threads: int | None) -> Encoder:
    from byname.encoders.hub import fetch

    folder = fetch(repo, asked)
    encoder = _onnx(folder, device, threads)
    encoder.info = dataclasses.replace(
        encoder.info, id=asked, source=f"https://huggingface.co/{repo}"
    )
    return encoder


def _onnx(folder: Path, device: str, threads: int | None) -> Encoder:
    try:
        from byname.encoders.onnx import OnnxEncoder
    except ModuleNotFoundError as error:
        raise EncoderUnavailableError(
            f"use encoder 'onnx:{folder}'",
            f"the package '{error.name}' is missing",
            "Install byname again: pip install --upgrade byname",
        ) from None
    return OnnxEncoder(folder, threads=threads, device=device)
