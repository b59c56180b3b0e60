"""A torch model as an encoder folder: two ONNX graphs, a tokenizer, a description, a report."""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import json
import os
import re
import secrets
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.encoders.export_graphs import image_tower, need_onnx, text_tower, write_graph
from byname.encoders.export_parity import TEXTS, Parity, compare
from byname.encoders.layouts import is_complete
from byname.encoders.onnx import OnnxEncoder
from byname.encoders.tokens import TextTokenizer
from byname.errors import BynameError, EncoderError, OutputError, UsageError, some
from byname.progress import tell

__all__ = ["Exported", "check_encoder", "check_opset", "check_target", "export_encoder"]

OPSETS = (17, 25)
UNLIMITED = 512  # an encoder folder states a length
# What an export writes; --overwrite deletes no more.
_OURS = re.compile(
    r"(visual|textual)\.onnx(\.data)?|(tokenizer|preprocess|parity)\.json|README\.md|LICENSE"
)


@dataclass(frozen=True)
class Exported:
    """What became of an export.

    Parameters
    ----------
    folder : path
    bytes : int
        Size of the folder.
    parity : Parity
        How close the graphs are to torch.
    cut : bool
        Whether texts run at their own length; else they are padded to the context.
    exporters : dict
        Which of torch's exporters made each graph.
    """

    folder: Path
    bytes: int
    parity: Parity
    cut: bool
    exporters: dict[str, str]


def export_encoder(
    encoder: Any,
    folder: str | Path,
    *,
    images: NDArray[np.uint8] | None = None,
    opset: int = 18,
    overwrite: bool = False,
    force: bool = False,
) -> Exported:
    """Write an encoder folder for ``load_encoder("onnx:FOLDER")``, whole or not at all.

    Parameters
    ----------
    encoder : TorchEncoder
    folder : path
        Must not exist, or be empty, unless ``overwrite``.
    images : array of uint8, shape (N, S, S, 3), optional
        Real images, resized and cropped, for the comparison with torch.
    opset : int
        Version of ONNX's operators.
    overwrite : bool
        Replace an older encoder folder; a folder of anything else is never touched.
    force : bool
        Keep the folder even where its vectors differ from torch's.

    Raises
    ------
    UsageError
        For a folder that is there, or an encoder without a torch model.
    EncoderError
        Where torch cannot export the model, or the vectors differ.
    OutputError
        Where the folder cannot be written.

    Examples
    --------
    >>> from byname.encoders import load_encoder
    >>> export_encoder(load_encoder("mini"), "mini-onnx")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    byname.errors.UsageError: cannot export encoder 'mini': it has no torch model. ...
    """
    check_encoder(encoder)
    target = check_target(Path(folder), overwrite)
    asked = f"export encoder '{encoder.info.id}' to '{folder}'"
    need_onnx(asked)
    check_opset(opset)
    temporary = target.with_name(f".{target.name[:40]}.{secrets.token_hex(6)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        done = _fill(encoder, temporary, images, opset, force, asked)
        _put_in_place(temporary, check_target(target, overwrite))  # it may hold more by now
    except BynameError:
        raise
    except OSError as error:
        do = "Choose a folder that is writable, on a disk with enough room."
        raise OutputError(asked, error.strerror or str(error), do) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return replace(done, folder=Path(folder))


def _fill(
    encoder: Any,
    folder: Path,
    images: NDArray[np.uint8] | None,
    opset: int,
    force: bool,
    asked: str,
) -> Exported:
    """Write everything, open it as a user would, compare, and report."""
    tell("write the graphs")
    exporters = _write(encoder, folder, opset, asked)
    exported = OnnxEncoder(folder)
    tell("compare with torch")
    parity = compare(encoder, exported, images)
    if not parity.passed and not force:
        raise _different(parity, asked)
    _write_report(encoder, folder, parity, exporters, opset)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return Exported(folder, size, parity, exported._texts.cut, exporters)


def check_encoder(encoder: Any) -> None:
    """Refuse what cannot be exported, before any work is done.

    Raises
    ------
    UsageError
        For an encoder without torch modules, image tower or ``tokenizer.json``.
    """
    asked = f"export encoder '{encoder.info.id}'"
    if getattr(encoder, "textual", None) is None:
        already = "It is an ONNX encoder already. " if isinstance(encoder, OnnxEncoder) else ""
        raise UsageError(
            asked,
            "it has no torch model",
            f"{already}Exported are encoders of the forms open_clip:ARCH/PRETRAINED and "
            "transformers:NAME_OR_FOLDER.",
        )
    if getattr(encoder, "visual", None) is None or encoder.info.preprocess is None:
        raise UsageError(
            asked, "it has no image tower", "Only encoders of images and texts are exported."
        )
    if encoder.tokenizer_json is None:
        raise UsageError(
            asked,
            "its tokenizer cannot be written as a tokenizer.json",
            "Use it through torch, as it is.",
        )


def check_target(folder: Path, overwrite: bool) -> Path:
    """The resolved folder, if an export may take its place.

    Raises
    ------
    UsageError
        Where something is in the way.
    """
    asked = f"export to '{folder}'"
    target = folder.resolve()
    if target == Path.cwd():
        raise UsageError(
            asked, "it is the current folder, or no name at all", "Give a folder of its own."
        )
    if not os.path.lexists(target):
        return target
    if not target.is_dir():
        raise UsageError(asked, "it is a file", "Give a folder.")
    held = sorted(path.name for path in target.iterdir())
    if not held:
        return target
    if not is_complete(target):
        raise UsageError(
            asked,
            f"the folder is not empty and holds no encoder but {some(held)}",
            "Give a folder that does not exist yet.",
        )
    if not overwrite:
        raise UsageError(asked, "there is an encoder already", "Add --overwrite to replace it.")
    if others := [name for name in held if not _is_ours(target / name)]:
        raise UsageError(
            asked,
            f"beside an encoder it holds {some(others)}, which would be lost",
            "Move that away, or give another folder.",
        )
    return target


def _is_ours(path: Path) -> bool:
    named = _OURS.fullmatch(path.name) is not None
    return named and path.is_file() and not path.is_symlink()


def check_opset(opset: int) -> None:
    """Refuse a version of ONNX's operators that no exporter here writes.

    Raises
    ------
    UsageError
    """
    low, high = OPSETS
    if not low <= opset <= high:
        raise UsageError(
            f"export with opset {opset}", f"it is not within {low} to {high}", "Leave it at 18."
        )


def _write(encoder: Any, folder: Path, opset: int, asked: str) -> dict[str, str]:
    """Everything but the report."""
    context = encoder.info.context_length or UNLIMITED
    _check_tokenizer(encoder, context, asked)
    visual, textual = (_on_cpu(module) for module in (encoder.visual, encoder.textual))
    rows = encoder.tokenize(TEXTS)
    masked = encoder.mask_padding and not _mask_is_idle(textual, rows, encoder.pad_id, context)
    made = {}
    towers = {
        "visual": image_tower(visual, encoder.info.preprocess),
        "textual": text_tower(
            textual, rows, encoder.pad_id, context, free=encoder.causal, masked=masked
        ),
    }
    for name, tower in towers.items():
        made[name] = write_graph(tower, folder / f"{name}.onnx", opset, asked)
    _text(folder / "tokenizer.json", encoder.tokenizer_json)
    _json(folder / "preprocess.json", _description(encoder, context))
    _text(folder / "LICENSE", _licence(encoder))
    return made


def _description(encoder: Any, context: int) -> dict[str, Any]:
    """The card that is read back; no date in it, so that the same model gives the same bytes."""
    info, pixels = encoder.info, encoder.info.preprocess
    return {
        "size": pixels.size,
        "resize": pixels.resize,
        "resize_mode": pixels.mode,
        "interpolation": pixels.interpolation,
        "crop": "center" if pixels.mode == "shortest" else "none",
        "crop_rounding": pixels.crop_rounding,
        "mean": list(pixels.mean),
        "std": list(pixels.std),
        "context_length": context,
        "pad_id": encoder.pad_id,
        "causal": bool(encoder.causal),
        "logit_scale": info.logit_scale,
        "logit_bias": info.logit_bias,
        "activation": info.activation,
        "licence": info.licence,
        "source": info.source,
        "model": info.id,
    }


def _check_tokenizer(encoder: Any, context: int, asked: str) -> None:
    """The tokenizer.json must give the rows that the model's own tokenizer gives."""
    tokens = TextTokenizer(encoder.tokenizer_json, context)
    if tokens.rows(TEXTS) != encoder.tokenize(TEXTS):
        raise EncoderError(
            asked,
            "its tokenizer.json gives other tokens than the model's own tokenizer",
            "Use it through torch, as it is.",
        )


def _mask_is_idle(textual: Any, rows: Any, pad: int, context: int) -> bool:
    """Whether a mask over the padding changes nothing, as in causal towers."""
    torch = importlib.import_module("torch")
    ids = torch.full((len(rows), context), pad, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
    with torch.no_grad():
        with_mask, without = (textual(ids, m).double() for m in (mask, torch.ones_like(mask)))
    return bool((with_mask - without).abs().max() <= 1e-4 * with_mask.abs().max())


def _on_cpu(module: Any) -> Any:
    """The module in float32 on the CPU; a copy where it is not, so that the encoder stays so."""
    torch = importlib.import_module("torch")
    tensors = [*module.parameters(), *module.buffers()]
    plain = all(
        t.device.type == "cpu" and (t.dtype == torch.float32 or not t.dtype.is_floating_point)
        for t in tensors
    )
    return module if plain else copy.deepcopy(module).cpu().float()


def _different(parity: Parity, asked: str) -> EncoderError:
    worst = parity.worst()
    return EncoderError(
        asked,
        f"its vectors differ from torch's: cosine {worst.cosine:.6f} for {worst.what} (at least "
        f"{parity.least} is wanted)",
        "Nothing was kept. Try another --opset or another torch; --force keeps the folder.",
    )


def _write_report(
    encoder: Any, folder: Path, parity: Parity, exporters: dict[str, str], opset: int
) -> None:
    packages = ("byname", "torch", "onnx", "onnxruntime")
    found = {name: _version(name) for name in packages}
    _json(
        folder / "parity.json",
        {
            "format": "byname-parity/1",
            "model": encoder.info.id,
            "opset": opset,
            "exporters": exporters,
            "versions": found,
            **parity.record(),
        },
    )
    info = encoder.info
    # "license:" at the head is what model hubs read
    _text(
        folder / "README.md",
        f"---\nlicense: {json.dumps(info.licence.lower())}\n---\n\n# {info.id}\n\n"
        f"Exported from {info.source} by byname {found['byname']}, for use without torch:\n\n"
        "```\nbyname classify PHOTOS --classes CLASSES --encoder onnx:THIS_FOLDER\n```\n\n"
        f"- `visual.onnx`: uint8 pixels (B, {info.preprocess.size}, {info.preprocess.size}, 3), "
        f"resized and cropped as `preprocess.json` says, to vectors (B, {info.dim}).\n"
        "- `textual.onnx`: tokens of `tokenizer.json` to vectors.\n"
        "- Vectors are as the projection gives them: divide each by its length.\n"
        f"- Least cosine to torch: {parity.worst().cosine:.7f} ({parity.worst().what}); all in "
        "`parity.json`.\n"
        f"- Licence of the weights: {info.licence}.\n",
    )


def _licence(encoder: Any) -> str:
    info = encoder.info
    return (
        f"{info.licence}\n\nThe weights in this folder were converted from {info.source}.\n"
        f"Their licence, as stated by the loader: {info.licence}. Its full text is there.\n"
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _put_in_place(temporary: Path, target: Path) -> None:
    """The new folder under its name; an older one goes only when the new one is there."""
    if not target.exists():
        temporary.rename(target)
        return
    old = target.with_name(f"{temporary.name}.old")
    target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")


def _json(path: Path, value: dict[str, Any]) -> None:
    _text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
