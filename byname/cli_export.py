"""``byname export``: the options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from byname.cli_options import Quiet, Threads

__all__ = ["register"]

EncoderArgument = Annotated[
    str,
    typer.Argument(
        help="open_clip:ARCH/PRETRAINED, transformers:NAME_OR_FOLDER, or a preset of these."
    ),
]
Folder = Annotated[Path, typer.Argument(help="Encoder folder to make.")]
Check = Annotated[
    str | None,
    typer.Option(help="Images to compare with torch on, up to 64; else the demo's photos."),
]
Opset = Annotated[int, typer.Option(help="Version of ONNX's operators.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an older encoder folder.")]
Force = Annotated[
    bool, typer.Option("--force", help="Keep the folder even where its vectors differ.")
]


def export(
    encoder: EncoderArgument,
    folder: Folder,
    check: Check = None,
    opset: Opset = 18,
    overwrite: Overwrite = False,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Turn a torch model into an encoder folder that runs without torch, and compare the two."""
    from byname import commands_export

    commands_export.run(
        encoder,
        folder,
        check=check,
        opset=opset,
        overwrite=overwrite,
        force=force,
        threads=threads,
        quiet=quiet,
    )


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(export)
