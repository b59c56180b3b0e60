"""``byname fewshot``: the options."""

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
    Templates,
    Threads,
)

__all__ = ["register"]


Classes = Annotated[str, typer.Option("--classes", "-c", help="File with the classes, or a,b,c.")]
SupportFile = Annotated[
    str,
    typer.Option(
        "--support",
        help="CSV with file_name and class_id of the images that you have labelled, or the word "
        "folder: those in a folder of their class; folders that name none have no labels.",
    ),
]
Method = Annotated[
    str, typer.Option("--method", "-m", help="gaussian, linear, transclip, tip-adapter or coder.")
]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", help=".csv, .jsonl or .parquet; else a table.")
]
Strength = Annotated[
    float | None,
    typer.Option(
        help="How much the labelled images count: alpha of gaussian, tip-adapter and coder, weight "
        "of the penalty of linear, gamma of transclip; else chosen on the labelled images."
    ),
]
Beta = Annotated[
    float | None,
    typer.Option(
        help="How sharply votes fall with distance, of tip-adapter and coder; else chosen on the "
        "labelled images, for the --strength that is given or together with it."
    ),
]


def fewshot(
    images: Annotated[str, typer.Argument(help="Images in any form, or embeddings.")],
    classes: Classes,
    support: SupportFile,
    method: Method = "gaussian",
    output: Output = None,
    strength: Strength = None,
    beta: Beta = None,
    k: Annotated[int, typer.Option("-k", help="Ranks per image.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Of the folds it is chosen on.", min=0)] = 0,
    encoder: EncoderName = None,
    template: Templates = None,
    prompts: Prompts = None,
    allow_missing: AllowMissing = False,
    lineage: Lineage = None,
    image_column: ImageColumn = None,
    batch_size: BatchSize = 32,
    threads: Threads = None,
    device: Device = "cpu",
    precision: Precision = None,
    no_cache: NoCache = False,
    quiet: Quiet = False,
) -> None:
    """Label the other images, where you have labelled some yourself."""
    from byname import commands_fewshot

    commands_fewshot.run_fewshot(
        images,
        output,
        support=support,
        how=commands_fewshot.How(method, strength, beta, seed),
        k=k,
        image_column=image_column,
        quiet=quiet,
        options={
            "classes": classes,
            "encoder": encoder,
            "templates": template or None,
            "prompts": prompts,
            "allow_missing": allow_missing,
            "lineage": [c.strip() for c in lineage.split(",")] if lineage else None,
            "batch_size": batch_size,
            "threads": threads,
            "device": device,
            "precision": precision,
            "cache": not no_cache,
        },
    )


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(fewshot)
