"""``byname repair``: the options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from byname import cli_llm_options as llm
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

Votes = Annotated[
    str, typer.Option(help="Where photos lie is seen in the refined answers, or in those of texts.")
]


def repair(
    images: Annotated[str, typer.Argument(help="Unlabeled images in any form, or embeddings.")],
    classes: Annotated[str, typer.Option("--classes", "-c", help="File with the classes, or a,b.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Prompt file to write: .json.")
    ] = None,
    prompts: Prompts = None,
    template: Templates = None,
    allow_missing: AllowMissing = False,
    rounds: Annotated[int, typer.Option(help="Rounds at most.", min=1)] = 30,
    votes: Votes = "refined",
    refine: Annotated[str, typer.Option(help="Refine member between the rounds.")] = "transclip",
    llm_url: llm.LLMUrl = None,
    llm_model: llm.LLMModel = None,
    llm_mode: llm.LLMMode = "chat",
    llm_schema: llm.LLMSchema = "auto",
    llm_key_env: llm.LLMKeyEnv = None,
    concurrency: llm.Concurrency = 8,
    timeout: llm.Timeout = 120.0,
    max_calls: llm.MaxCalls = 5000,
    fresh: llm.Fresh = False,
    encoder: EncoderName = None,
    lineage: Lineage = None,
    image_column: ImageColumn = None,
    batch_size: BatchSize = 32,
    threads: Threads = None,
    device: Device = "cpu",
    precision: Precision = None,
    no_cache: NoCache = False,
    quiet: Quiet = False,
) -> None:
    """Ask an LLM what tells confused classes apart, in rounds, by your unlabeled images."""
    from byname import commands_prompts, commands_repair

    how = commands_prompts.asking(
        llm_url, llm_model, llm_mode, llm_schema, llm_key_env, concurrency, timeout, max_calls,
        fresh=fresh, quiet=quiet,
    )  # fmt: skip
    answered = commands_repair.run_repair(
        images,
        output,
        image_column=image_column,
        quiet=quiet,
        settings={"rounds": rounds, "votes": votes},
        options={
            "classes": classes, "encoder": encoder, "recipe": "mean_similarity", "refine": refine,
            "templates": template or None, "prompts": prompts, "allow_missing": allow_missing,
            "lineage": [c.strip() for c in lineage.split(",")] if lineage else None,
            "batch_size": batch_size, "threads": threads, "device": device,
            "precision": precision, "cache": not no_cache,
        },
        how=how,
    )  # fmt: skip
    if not answered:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(repair)
