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
Labels = Annotated[
    str | None,
    typer.Option(help="File with the true classes, or 'folder': shown beside what is expected."),
]
WithLabels = Annotated[bool, typer.Option("--with-labels", help="The same from those of the task.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write a page (.html) or all of it (.json).")
]
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
    labels: Labels = None,
    with_labels: WithLabels = False,
    output: Output = None,
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
    given = dict(locals())
    from byname import commands_study

    own = ("images", "task", "taxonomy", "labels", "with_labels", "output", "as_json", "show_all")
    shared = {name: given.pop(name) for name in (*own, "image_column", "quiet")}
    given["templates"], given["extra"] = given.pop("template") or None, given.pop("with_") or None
    given["cache"] = not given.pop("no_cache")
    given["lineage"] = [c.strip() for c in lineage.split(",")] if lineage else None
    commands_study.run_diagnose(**shared, options=given)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(diagnose)
