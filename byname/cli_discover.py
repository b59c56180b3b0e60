"""``byname discover``: the options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from byname.cli_options import (
    BatchSize,
    Device,
    EncoderName,
    ImageColumn,
    NoCache,
    Precision,
    Quiet,
    Threads,
)

__all__ = ["register"]


Vocabulary = Annotated[
    str, typer.Option(help="Words that may be the names: a file with one a line, or a,b,c.")
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="The names, as .csv, .txt or .json, for --classes."),
]
Assignments = Annotated[
    Path | None, typer.Option(help="CSV with file_name, class_id, label and error of each image.")
]
Number = Annotated[
    int | None, typer.Option("-k", "--clusters", help="Clusters; else estimated.", min=1)
]
Low = Annotated[int | None, typer.Option(help="Least number to estimate; 2.", min=2)]
High = Annotated[
    int | None, typer.Option(help="Largest number to estimate; 500 at most by default.", min=2)
]
Merge = Annotated[
    float | None, typer.Option(help="Words at least this alike are one; 0.95 is a start.")
]
Templates = Annotated[
    list[str] | None, typer.Option(help="Own template with {} for the word; may be repeated.")
]


def discover(
    images: Annotated[str, typer.Argument(help="Images in any form, or embeddings.")],
    vocabulary: Vocabulary,
    output: Output = None,
    assignments: Assignments = None,
    clusters: Number = None,
    low: Low = None,
    high: High = None,
    merge: Merge = None,
    rounds: Annotated[int, typer.Option(help="Rounds of votes.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Of the clusters.", min=0)] = 0,
    template: Templates = None,
    encoder: EncoderName = None,
    image_column: ImageColumn = None,
    batch_size: BatchSize = 32,
    threads: Threads = None,
    device: Device = "cpu",
    precision: Precision = None,
    no_cache: NoCache = False,
    quiet: Quiet = False,
) -> None:
    """Find the names themselves: clusters of the images choose words out of a vocabulary."""
    from byname import commands_discover

    given = {"k": clusters, "bounds": (low, high), "merge": merge, "rounds": rounds, "seed": seed}
    commands_discover.run_discover(
        images,
        output,
        assignments,
        image_column=image_column,
        quiet=quiet,
        settings=given,
        options={
            "classes": vocabulary,
            "encoder": encoder,
            "templates": template or None,
            "batch_size": batch_size,
            "threads": threads,
            "device": device,
            "precision": precision,
            "cache": not no_cache,
        },
    )


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(discover)
