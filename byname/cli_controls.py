"""``byname controls``: the options."""

from __future__ import annotations

from typing import Annotated

import typer

from byname.cli_options import (
    BatchSize,
    Device,
    EncoderName,
    ImageColumn,
    Lineage,
    NoCache,
    Quiet,
    Threads,
)

__all__ = ["register"]


def controls(
    images: Annotated[str, typer.Argument(help="Labelled images in any form, or embeddings.")],
    descriptors: Annotated[
        str, typer.Option(help="Prompt file with descriptors, made by 'byname prompts make'.")
    ],
    classes: Annotated[
        str, typer.Option("--classes", "-c", help="File with the classes, or a,b,c.")
    ],
    labels: Annotated[
        str, typer.Option("--labels", help="CSV with file_name and class_id; or the word folder.")
    ],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="All rows, as .json, .csv or .md.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Random draws of each control.", min=1)] = 7,
    encoder: EncoderName = None,
    lineage: Lineage = None,
    image_column: ImageColumn = None,
    batch_size: BatchSize = 32,
    threads: Threads = None,
    device: Device = "cpu",
    no_cache: NoCache = False,
    quiet: Quiet = False,
) -> None:
    """Compare descriptors with the same texts robbed of their meaning (WaffleCLIP's controls)."""
    from byname import commands_controls

    commands_controls.run_controls(
        images,
        output,
        descriptors=descriptors,
        seeds=seeds,
        labels=labels,
        image_column=image_column,
        quiet=quiet,
        options={
            "classes": classes,
            "encoder": encoder,
            "allow_missing": False,
            "lineage": [c.strip() for c in lineage.split(",")] if lineage else None,
            "batch_size": batch_size,
            "threads": threads,
            "device": device,
            "cache": not no_cache,
        },
    )


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(controls)
