"""``byname evaluate``: the options."""

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
    Quiet,
    Threads,
    With,
)

__all__ = ["register"]


Images = Annotated[str | None, typer.Argument(help="Labelled images in any form, or embeddings.")]
TaskFile = Annotated[
    Path | None, typer.Option(help="A ready task, an .npz file, in place of images.")
]
Recipes = Annotated[
    str, typer.Option("--recipes", "-r", help="plain,ensemble,cpe[...],cpe@templates+TEXTS.json")
]
Output = Annotated[
    str | None,
    typer.Option("-o", "--output", help=".json, .csv or .md; - for CSV on stdout."),
]
Classes = Annotated[
    str | None, typer.Option("--classes", "-c", help="File with the classes, or a,b,c.")
]
Labels = Annotated[
    str | None,
    typer.Option("--labels", help="CSV with file_name and class_id; or the word folder."),
]
TaxonomyFile = Annotated[
    str | None, typer.Option(help="Tree over the classes of the task; a file.")
]
Metrics = Annotated[
    str | None, typer.Option(help="top1,worst10,severity,... See docs/evaluate.md.")
]
Draws = Annotated[int, typer.Option(help="Draws of the bootstrap; 0: none.", min=0)]
Seed = Annotated[int, typer.Option(help="Of the draws.", min=0)]
Differences = Annotated[
    bool, typer.Option("--differences", help="Add paired differences from the baseline.")
]
Baseline = Annotated[
    str | None,
    typer.Option(help="Recipe that others are compared with; else plain, else the first."),
]
Level = Annotated[
    str | None, typer.Option(help="Answer and score on this level: its name or depth.")
]
Templates = Annotated[
    list[str] | None, typer.Option(help="Own template for all recipes; may be repeated.")
]
Prompts = Annotated[
    str | None, typer.Option(help="A prompts member, or a prompt file, for all recipes.")
]


def evaluate(
    images: Images = None,
    task: TaskFile = None,
    recipes: Recipes = "plain,ensemble",
    output: Output = None,
    classes: Classes = None,
    labels: Labels = None,
    taxonomy: TaxonomyFile = None,
    metrics: Metrics = None,
    draws: Draws = 1000,
    seed: Seed = 0,
    differences: Differences = False,
    baseline: Baseline = None,
    level: Level = None,
    encoder: EncoderName = None,
    template: Templates = None,
    prompts: Prompts = None,
    allow_missing: AllowMissing = False,
    with_: With = None,
    lineage: Lineage = None,
    image_column: ImageColumn = None,
    batch_size: BatchSize = 32,
    threads: Threads = None,
    device: Device = "cpu",
    no_cache: NoCache = False,
    quiet: Quiet = False,
) -> None:
    """Compare recipes on labelled images: accuracy, worst classes, severity, calibration."""
    from byname import commands_evaluate
    from byname.scoring import METRICS

    scoring = {"draws": draws, "seed": seed, "differences": differences, "baseline": baseline}
    commands_evaluate.run(
        images,
        output,
        task=task,
        taxonomy=taxonomy,
        labels=labels,
        recipes=recipes,
        metric_names=",".join(METRICS) if metrics is None else metrics,
        image_column=image_column,
        quiet=quiet,
        scoring=scoring,
        options={
            "classes": classes,
            "encoder": encoder,
            "templates": template or None,
            "prompts": prompts,
            "allow_missing": allow_missing,
            "extra": with_ or None,
            "level": level,
            "lineage": [c.strip() for c in lineage.split(",")] if lineage else None,
            "batch_size": batch_size,
            "threads": threads,
            "device": device,
            "cache": not no_cache,
        },
    )


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(evaluate)
