"""From what the user writes to an encoder."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import os
import warnings
from pathlib import Path
from typing import Any, cast

from byname.encoders.base import Encoder
from byname.encoders.layouts import SCALE, is_complete, read_layout
from byname.encoders.presets import DEFAULT, PRESETS, Preset, matching
from byname.errors import EncoderError, EncoderUnavailableError
from byname.files import names_folder

__all__ = ["list_encoders", "load_encoder"]

FORMS = (
    "onnx:FOLDER, precomputed:FOLDER, onnx-hub:REPO, transformers:REPO_OR_FOLDER, "
    "open_clip:ARCH/TAG, open_clip:ARCH@FILE, open_clip:hf-hub:REPO, open_clip:local-dir:FOLDER"
)


def load_encoder(
    spec: str | Path | Encoder | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    cache_dir: Path | None = None,
    precision: str | None = None,
) -> Encoder:
    """The encoder that a name, a folder or a prefix stands for.

    Parameters
    ----------
    spec : str, path, Encoder or None
        A preset (``"mini"``, ``"clip-vit-b-32"``), ``"onnx:FOLDER"`` or an existing folder,
        ``"precomputed:FOLDER"``, ``"onnx-hub:REPO"``, ``"transformers:REPO_OR_FOLDER"``,
        ``"open_clip:..."`` (see ``load_open_clip``); an encoder is returned as it is. None stands
        for the environment variable ``BYNAME_ENCODER``, and without it for the default preset.
    device : str
        ``"cpu"`` or ``"cuda"``; torch models also take ``"mps"``.
    threads : int, optional
        All cores by default.
    cache_dir : path, optional
        Where converted models are kept; ``BYNAME_CACHE`` or the user's cache folder by default.
    precision : str, optional
        ``"fp32"``, ``"bf16"`` or ``"fp16"`` for torch models; ``"fp32"`` or ``"int8"`` for ONNX
        folders, where int8 still has to pass ``byname.encoders.precision.settle``.

    Raises
    ------
    EncoderError
        For an unknown name, an empty precision, or a folder that does not hold a usable encoder.
    EncoderUnavailableError
        For a known encoder whose weights cannot be had here. No other encoder is taken instead.

    Examples
    --------
    >>> load_encoder("mini").info.dim
    1000
    """
    if isinstance(spec, Encoder):
        return spec
    how = _How(device, threads, cache_dir, precision)
    if isinstance(spec, Path):
        return _from_folder(spec, str(spec), how)
    name = (spec or os.environ.get("BYNAME_ENCODER") or DEFAULT).strip()
    if name in PRESETS:
        return _from_preset(PRESETS[name], how)
    if (encoder := _from_prefix(name, how)) is not None:
        return encoder
    if names_folder(name):
        return _from_folder(Path(name), name, how)
    close = difflib.get_close_matches(name, PRESETS, 3, 0.5)
    guess = f"Did you mean {' or '.join(close)}? " if close else ""
    raise EncoderError(
        f"use encoder '{name}'",
        "there is no encoder and no folder of that name",
        f"{guess}'byname list encoders' shows the {len(PRESETS)} that are known by name, such as "
        f"{DEFAULT} and mini; or {FORMS}.",
    )


def list_encoders(pattern: str = "*") -> list[dict[str, Any]]:
    """The presets that a pattern names, one dictionary each.

    Parameters
    ----------
    pattern : str
        Matched against the names ("siglip*"); or a family ("metaclip") or a domain
        ("remote-sensing") in full.

    Returns
    -------
    list of dict
        ``id, size_mb, licence, input_size, dim, offline, source, note, family, domain, context,
        logit_scale``, None for what is not known; ``offline`` says whether it is usable here
        without a network.

    Examples
    --------
    >>> [e["id"] for e in list_encoders("clip-vit-*")]
    ['clip-vit-b-32', 'clip-vit-b-16', 'clip-vit-l-14', 'clip-vit-l-14-336']
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
            "family": p.family,
            "domain": p.domain,
            "context": p.context,
            "logit_scale": p.logit_scale,
        }
        for p in matching(pattern)
    ]


@dataclasses.dataclass(frozen=True)
class _How:
    """Where and how an encoder shall run."""

    device: str
    threads: int | None
    cache_dir: Path | None
    precision: str | None

    def __post_init__(self) -> None:
        if self.precision is not None and not self.precision.strip():
            raise EncoderError(
                f"use an encoder in precision '{self.precision}'",
                "it is empty",
                "Leave it out, or give fp32 or int8.",
            )


def _offline(preset: Preset) -> bool:
    from byname.encoders.hub import cached_file, cached_folder

    if preset.spec == "mini":
        from byname.encoders.mini import mini_available

        return mini_available()
    kind, _, rest = preset.spec.partition(":")
    if kind in ("transformers", "open_clip") and not all(
        importlib.util.find_spec(module) for module in ("torch", kind)
    ):
        return False
    if kind == "onnx-hub":
        return cached_folder(rest) is not None
    if kind == "transformers":
        return cached_folder(rest, "transformers") is not None
    if kind != "open_clip":
        return False
    if rest.startswith("hf-hub:"):
        return cached_folder(rest.removeprefix("hf-hub:"), "open_clip") is not None
    repo = preset.source.removeprefix("https://huggingface.co/")
    if (file := rest.partition("@hf-hub:")[2]) != "":
        return cached_file(repo, [file.removeprefix(f"{repo}/")]) is not None
    from byname.encoders.open_clip import WEIGHTS

    return cached_file(repo, WEIGHTS) is not None


def _from_prefix(name: str, how: _How) -> Encoder | None:
    """The encoder of ``KIND:REST``; None where the name has no known prefix."""
    kind, colon, rest = name.partition(":")
    if not colon:
        return None
    forms = [form for form in FORMS.split(", ") if form.startswith(f"{kind}:")]
    if forms and not rest.strip():
        raise EncoderError(
            f"use encoder '{name}'", f"nothing follows '{kind}:'", f"Write {' or '.join(forms)}."
        )
    if kind == "onnx":
        return _onnx(Path(rest), how)
    if kind == "onnx-hub":
        return _from_hub(rest, name, how)
    if kind == "precomputed":
        from byname.encoders.precomputed import PrecomputedEncoder

        return PrecomputedEncoder.from_path(Path(rest))
    if kind == "transformers":
        from byname.encoders.transformers import load_transformers

        return load_transformers(
            rest, device=how.device, threads=how.threads, precision=how.precision or "fp32"
        )
    if kind == "open_clip":
        from byname.encoders.open_clip import load_open_clip

        return load_open_clip(
            rest, device=how.device, threads=how.threads, precision=how.precision or "fp32"
        )
    return None


def _from_folder(folder: Path, asked: str, how: _How) -> Encoder:
    if not folder.is_dir():
        raise EncoderError(
            f"use encoder '{asked}'", "there is no such folder", f"Give a folder, or {FORMS}."
        )
    if (folder / "texts.npy").is_file():
        return cast(Encoder, _from_prefix(f"precomputed:{folder}", how))
    # an ONNX export may lie beside the weights that it was made of, and needs no torch
    if not is_complete(folder):
        if (folder / "open_clip_config.json").is_file():
            return cast(Encoder, _from_prefix(f"open_clip:local-dir:{folder}", how))
        if any(any(folder.glob(p)) for p in ("model*.safetensors", "pytorch_model*.bin")):
            return cast(Encoder, _from_prefix(f"transformers:{folder}", how))
    return _onnx(folder, how)


def _from_preset(preset: Preset, how: _How) -> Encoder:
    if preset.spec == "mini":
        from byname.encoders.mini import MiniEncoder

        _refuse_precision("mini", how)
        return MiniEncoder(threads=how.threads, device=how.device, cache_dir=how.cache_dir)
    if not preset.spec:
        raise EncoderUnavailableError(
            f"use encoder '{preset.name}'", preset.note, f"It comes from {preset.source}."
        )
    if preset.spec.startswith("onnx-hub:"):
        encoder: Encoder | None = _from_hub(preset.spec.partition(":")[2], preset.name, how)
    else:
        encoder = _from_prefix(preset.spec, how)
    assert encoder is not None, preset.spec
    if preset.dim is not None and encoder.info.dim != preset.dim:
        raise EncoderError(
            f"use encoder '{preset.name}'",
            f"its vectors have width {encoder.info.dim}, expected {preset.dim}",
            "The repository has changed: tell byname's developers.",
        )
    changes: dict[str, Any] = {"id": preset.name, "source": preset.source}
    if preset.licence != "unknown":
        changes["licence"] = preset.licence
    encoder.info = dataclasses.replace(encoder.info, **changes)
    return encoder


def _from_hub(repo: str, asked: str, how: _How) -> Encoder:
    from byname.encoders.hub import fetch

    known = next((p for p in PRESETS.values() if p.spec == f"onnx-hub:{repo}"), None)
    try:
        folder = fetch(repo, asked)
    except EncoderUnavailableError as error:
        if known is None or not known.logit_bias:
            raise
        do = f"{error.do} The folder lacks the trained scale: {_scale_file(known)}."
        raise EncoderUnavailableError(error.asked, error.seen, do) from None
    encoder = _onnx(folder, how, warn=known is None)
    changes: dict[str, Any] = {"id": asked, "source": f"https://huggingface.co/{repo}"}
    if known is not None:  # these exports do not carry the trained scale; the table does
        changes |= {"logit_scale": known.logit_scale, "logit_bias": known.logit_bias}
    encoder.info = dataclasses.replace(encoder.info, **changes)
    return encoder


def _scale_file(known: Preset | None = None) -> str:
    """How to give the scale and bias that a folder lacks."""
    scale, bias = ("SCALE", "BIAS") if known is None else (known.logit_scale, known.logit_bias)
    return f'write {{"logit_scale": {scale}, "logit_bias": {bias}}} to {SCALE} in it'


def _warn_of_scale(folder: Path) -> None:
    layout = read_layout(folder)
    if layout.scale_stated or layout.activation != "sigmoid":
        return
    if layout.kind == "byname":
        do = "add logit_scale and logit_bias to its preprocess.json"
    else:
        known = " and ".join(
            f"{p.logit_scale} and {p.logit_bias} for {p.name}"
            for p in PRESETS.values()
            if p.logit_bias and p.logit_scale is not None
        )
        do = f"{_scale_file()}, with the numbers of the model ({known})"
    warnings.warn(
        f"'{folder}' does not hold the scale and bias that the sigmoid was trained with: the order "
        f"of the answers is right, probabilities and thresholds are not; {do}",
        stacklevel=3,
    )


def _refuse_precision(name: str, how: _How) -> None:
    if how.precision not in (None, "fp32"):
        raise EncoderError(
            f"run '{name}' in precision '{how.precision}'",
            "it runs in one precision only",
            "Leave the precision out.",
        )


def _onnx(folder: Path, how: _How, warn: bool = True) -> Encoder:
    try:
        from byname.encoders.onnx import OnnxEncoder
    except ModuleNotFoundError as error:
        raise EncoderUnavailableError(
            f"use encoder 'onnx:{folder}'",
            f"the package '{error.name}' is missing",
            "Install byname again: pip install --upgrade byname",
        ) from None
    encoder = OnnxEncoder(
        folder,
        threads=how.threads,
        device=how.device,
        precision=how.precision or "fp32",
        cache_dir=how.cache_dir,
    )
    if warn:
        _warn_of_scale(folder)
    return encoder
