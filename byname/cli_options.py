"""Options that several verbs share, so that they are called and explained alike."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "AllowMissing",
    "BatchSize",
    "Device",
    "EncoderName",
    "ImageColumn",
    "Lineage",
    "NoCache",
    "Precision",
    "Prompts",
    "Quiet",
    "RecipeName",
    "Stage",
    "Templates",
    "Threads",
    "With",
]

EncoderName = Annotated[
    str | None, typer.Option("--encoder", "-e", help="See 'byname list encoders'. [BYNAME_ENCODER]")
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="A template for classes without texts.")
]
Lineage = Annotated[
    str | None, typer.Option(help="Columns that make the tree, root first: group,coarse,name.")
]
ImageColumn = Annotated[
    str | None, typer.Option(help="Column of a list file that names the images.")
]
BatchSize = Annotated[int, typer.Option(help="Images encoded together.", min=1)]
Threads = Annotated[int | None, typer.Option(help="Threads of the encoder; default all.", min=1)]
Device = Annotated[str, typer.Option(help="cpu, or cuda where it is; torch models also mps.")]
Precision = Annotated[
    str | None,
    typer.Option(
        help="ONNX folders: fp32, or int8, kept only where it agrees with fp32 on your images. "
        "torch models: fp32, bf16, fp16."
    ),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Use and keep no vectors of other runs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no summary.")]
With = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        help="A further input, KIND=VALUE: second=ENCODER, views=uniform[n=8], captions=FILE, "
        "class_probs=FILE, reference=IMAGES, support=FOLDER. Repeatable; see docs/formats.md.",
    ),
]
Prompts = Annotated[
    str | None, typer.Option(help="A prompts member, a file, or templates+FILE.json.")
]
RecipeName = Annotated[str, typer.Option("--recipe", "-r", help="See 'byname list recipes'.")]
Stage = Annotated[str | None, typer.Option(help="Stage member.")]
Templates = Annotated[
    list[str] | None, typer.Option(help="Own template with {} for the name; may be repeated.")
]
