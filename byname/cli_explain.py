"""``byname explain``: the options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from byname.cli_options import (
    AllowMissing,
    BatchSize,
    Device,
    EncoderName,
    ImageColumn,
    Lineage,
    NoCache,
    Precision,
    Prompts,
    Quiet,
    RecipeName,
    Stage,
    Templates,
    Threads,
    With,
)

__all__ = ["register"]


def explain(
    images: Annotated[str, typer.Argument(help="Images in any form, or embeddings.")],
    classes: Annotated[
        str, typer.Option("--classes", "-c", help="File with the classes, or a,b,c.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A .jsonl file, one line an image.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Id of the class to compare with; else the runner-up.")
    ] = None,
    top: Annotated[int, typer.Option(help="Texts of each class to show.", min=1)] = 5,
    encoder: EncoderName = None,
    recipe: RecipeName = "ensemble",
    template: Templates = None,
    prompts: Prompts = None,
    allow_missing: AllowMissing = False,
    weigh: Stage = None,
    score: Stage = None,
    refine: Stage = None,
    lineage: Lineage = None,
    image_column: ImageColumn = None,
    with_: With = None,
    batch_size: BatchSize = 32,
    threads: Threads = None,
    device: Device = "cpu",
    precision: Precision = None,
    no_cache: NoCache = False,
    quiet: Quiet = False,
) -> None:
    """Say why each image got its label: what each text adds, and what the runner-up lacks."""
    from byname import commands_explain

    commands_explain.run_explain(
        images,
        output,
        against=against,
        top=top,
        image_column=image_column,
        quiet=quiet,
        options={
            "classes": classes,
            "encoder": encoder,
            "recipe": recipe,
            "templates": template or None,
            "prompts": prompts,
            "allow_missing": allow_missing,
            "weigh": weigh,
            "score": score,
            "refine": refine,
            "lineage": [c.strip() for c in lineage.split(",")] if lineage else None,
            "extra": with_ or None,
            "batch_size": batch_size,
            "threads": threads,
            "device": device,
            "precision": precision,
            "cache": not no_cache,
        },
    )


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(explain)
