"""``byname diagnose``: the options."""

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

Images = Annotated[str | None, typer.Argument(help="Unlabeled images in any form, or embeddings.")]
TaskFile = Annotated[
    Path | None,
    typer.Option(help="A ready task, an .npz file, in place of images; labels are not read."),
]
Classes = Annotated[
    str | None, typer.Option("--classes", "-c", help="File with the classes, or a,b,c.")
]
TaxonomyFile = Annotated[str | None, typer.Option(help="Tree over the classes of the task.")]
AsJson = Annotated[bool, typer.Option("--json", help="Everything, as JSON.")]
ShowAll = Annotated[bool, typer.Option("--all", help="All classes, not the worst 20.")]


def diagnose(
    images: Images = None,
    task: TaskFile = None,
    classes: Classes = None,
    taxonomy: TaxonomyFile = None,
    encoder: EncoderName = None,
    recipe: RecipeName = "ensemble",
    template: Templates = None,
    prompts: Prompts = None,
    allow_missing: AllowMissing = False,
    with_: With = None,
    weigh: Stage = None,
    score: Stage = None,
    refine: Stage = None,
    lineage: Lineage = None,
    image_column: ImageColumn = None,
    as_json: AsJson = False,
    show_all: ShowAll = False,
    batch_size: BatchSize = 32,
    threads: Threads = None,
    device: Device = "cpu",
    precision: Precision = None,
    no_cache: NoCache = False,
    quiet: Quiet = False,
) -> None:
    """Say which classes will fail, how often, and what to do, without labels."""
    from byname import commands_study

    commands_study.run_diagnose(
        images,
        task=task,
        taxonomy=taxonomy,
        as_json=as_json,
        show_all=show_all,
        image_column=image_column,
        quiet=quiet,
        options={
            "classes": classes,
            "encoder": encoder,
            "recipe": recipe,
            "templates": template or None,
            "prompts": prompts,
            "allow_missing": allow_missing,
            "extra": with_ or None,
            "weigh": weigh,
            "score": score,
            "refine": refine,
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
    app.command()(diagnose)
