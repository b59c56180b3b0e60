"""``byname export``: a torch model as an encoder folder, and how close it is to torch."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.console import collect_warnings, say, table, working
from byname.demo import write_demo
from byname.encoders import load_encoder
from byname.encoders.export import (
    Exported,
    check_encoder,
    check_opset,
    check_target,
    export_encoder,
)
from byname.encoders.export_graphs import need_onnx
from byname.encoders.presets import PRESETS
from byname.errors import EncoderUnavailableError, ImageError, SourceError, UsageError, some
from byname.images.load import load_pixels
from byname.images.preprocess import Preprocess
from byname.images.sources import Source, open_source

__all__ = ["run"]

MOST_IMAGES = 64
NO_MODEL = "it has no torch model"


def run(
    encoder: str,
    folder: Path,
    *,
    check: str | None,
    opset: int,
    overwrite: bool,
    force: bool,
    threads: int | None,
    quiet: bool,
) -> None:
    """What is cheap to refuse is refused before the model is loaded."""
    _check_name(encoder)
    check_target(folder, overwrite)
    check_opset(opset)
    need_onnx(f"export to '{folder}'")
    source = None if check is None else open_source(check)
    with collect_warnings():
        model: Any = load_encoder(encoder, threads=threads)
        check_encoder(model)
        images = _real_images(source, model.info.preprocess)
        if not quiet:
            say(f"exporting {model.info.id}; a large model takes minutes")
        with working(quiet):
            exported = export_encoder(
                model, folder, images=images, opset=opset, overwrite=overwrite, force=force
            )
    _show(exported, model.info.licence, model.info.source)


def _check_name(encoder: str) -> None:
    """Refuse what is no torch model by its name, before it is downloaded."""
    if not encoder.strip():
        raise UsageError("export an encoder", "its name is empty", "See 'byname list encoders'.")
    spec = PRESETS[encoder].spec if encoder in PRESETS else encoder
    if spec.partition(":")[0] in ("mini", "onnx", "onnx-hub", "precomputed"):
        raise UsageError(
            f"export encoder '{encoder}'",
            f"it has no torch model, it stands for '{spec}'" if spec != encoder else NO_MODEL,
            "It runs without torch already. Exported are encoders of the forms "
            "open_clip:ARCH/PRETRAINED and transformers:NAME_OR_FOLDER.",
        )


def _show(exported: Exported, licence: str, source: str) -> None:
    columns = ("compared with torch", "vectors", "max abs", "least cosine", "top-1 agreement")
    table(
        "",
        columns,
        [
            (
                row.what,
                row.rows,
                f"{row.max_abs:.1e}",
                f"{row.cosine:.7f}",
                "" if row.top1 is None else f"{row.top1:.1%}",
            )
            for row in exported.parity.rows
        ],
    )
    if not exported.parity.passed:
        say("warning: the vectors differ from torch's; kept because of --force")
    texts = "run at their own length" if exported.cut else "are always padded to the full length"
    print(f"'{exported.folder}': {_size(exported.bytes)}; texts {texts}")
    print(f"licence of the weights: {licence} ({source})")
    print("next:")
    # a leading "~" or a blank would be lost to the shell
    place = shlex.quote(f"onnx:{exported.folder}")
    print(f"  byname classify PHOTOS --classes CLASSES --encoder {place}")


def _real_images(source: Source | None, preprocess: Preprocess) -> NDArray[np.uint8] | None:
    """Up to 64 of the user's images, evenly chosen; else the demo's photos where they are."""
    if source is not None:
        return _load(source, preprocess)
    with tempfile.TemporaryDirectory(prefix="byname-") as folder:
        try:
            write_demo(Path(folder))
        except EncoderUnavailableError:
            say(
                "no real images to compare with: give some by --check IMAGES, or install "
                "byname[demo]"
            )
            return None
        return _load(open_source(str(Path(folder) / "photos")), preprocess)


def _load(source: Source, preprocess: Preprocess) -> NDArray[np.uint8]:
    step = max(1, -(-len(source) // MOST_IMAGES))
    pixels, errors = [], []
    for ref in source.refs[::step]:
        try:
            pixels.append(load_pixels(ref.read(), preprocess))
        except ImageError as error:
            errors.append(f"'{ref.key}' ({error})")
    if errors:
        say(f"warning: not compared: {some(errors, 3)}")
    if not pixels:
        raise SourceError(
            f"compare on the images in '{source.root}'", _none(errors), "Give readable images."
        )
    return np.stack(pixels)


def _none(errors: Sequence[str]) -> str:
    return f"none of {len(errors)} could be read" if errors else "there is none"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
