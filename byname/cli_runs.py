"""``byname plan``, ``run``, ``run-shard``, ``status`` and ``merge``: the options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from byname.cli_options import (
    BatchSize,
    Device,
    EncoderName,
    ImageColumn,
    Precision,
    Quiet,
    Threads,
)

__all__ = ["register"]

Run = Annotated[Path, typer.Argument(help="A run folder, made by 'byname plan'.")]
Engine = Annotated[str, typer.Option(help="local: processes here; ray: pip install 'byname[ray]'.")]
Workers = Annotated[int, typer.Option(help="Processes, each with the encoder loaded.", min=1)]
Readers = Annotated[
    int | None,
    typer.Option(help="Threads of a worker that read; default processors / workers.", min=1),
]
FileTimeout = Annotated[
    float, typer.Option(help="Seconds to read and decode one file; then it is an error.", min=0.1)
]
Gpus = Annotated[
    float | None, typer.Option(help="GPUs that Ray reserves for a worker, such as 0.5.", min=0)
]
Cpus = Annotated[
    float | None, typer.Option(help="Processors that Ray reserves for a worker.", min=0)
]
Retry = Annotated[bool, typer.Option("--retry-errors", help="Try images with errors again.")]


def plan(
    images: Annotated[str, typer.Argument(help="Folder, glob, list file, .tar or one image.")],
    run: Annotated[Path, typer.Argument(help="Folder to make: it will hold the vectors.")],
    encoder: EncoderName = None,
    precision: Precision = None,
    shard_size: Annotated[int, typer.Option(help="Images a shard.", min=1, max=2**20)] = 1024,
    image_column: ImageColumn = None,
    quiet: Quiet = False,
) -> None:
    """Cut images into shards, for 'byname run': encoding that can be stopped and shared."""
    from byname import commands_runs

    commands_runs.plan(
        images,
        run,
        encoder=encoder,
        image_column=image_column,
        precision=precision,
        shard_size=shard_size,
        quiet=quiet,
    )


def run(
    run: Run,
    engine: Engine = "local",
    workers: Workers = 1,
    threads: Threads = None,
    batch_size: BatchSize = 32,
    readers: Readers = None,
    file_timeout: FileTimeout = 60.0,
    device: Device = "cpu",
    gpus: Gpus = None,
    cpus: Cpus = None,
    retry_errors: Retry = False,
    quiet: Quiet = False,
) -> None:
    """Make all shards of a run that are not complete; the same command goes on after any end."""
    from byname import commands_runs

    how = commands_runs.How(
        engine,
        workers,
        threads,
        batch_size,
        readers,
        file_timeout,
        device,
        retry_errors,
        quiet,
        gpus,
        cpus,
    )
    commands_runs.run(run, how)


def run_shard(
    run: Run,
    shards: Annotated[
        list[str], typer.Argument(help="Numbers from 0, or ranges: $SLURM_ARRAY_TASK_ID, 0-99.")
    ],
    of: Annotated[
        int | None,
        typer.Option(help="The number is a task of so many, which share all shards.", min=1),
    ] = None,
    workers: Workers = 1,
    threads: Threads = None,
    batch_size: BatchSize = 32,
    readers: Readers = None,
    file_timeout: FileTimeout = 60.0,
    device: Device = "cpu",
    retry_errors: Retry = False,
    quiet: Quiet = False,
) -> None:
    """Make some shards of a run, as one task of many, for instance of a Slurm array."""
    from byname import commands_runs

    how = commands_runs.How(
        "local",
        workers,
        threads,
        batch_size,
        readers,
        file_timeout,
        device,
        retry_errors,
        quiet,
    )
    commands_runs.run_some(run, shards, of, how)


def status(
    run: Run,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    check: Annotated[bool, typer.Option("--check", help="Read all parts, compare sums.")] = False,
) -> None:
    """Say how far a run is. Exit code: 0 where it is complete, 3 where it is not."""
    from byname import commands_runs

    code = commands_runs.status(run, as_json=as_json, check=check)
    if code:
        raise typer.Exit(code)


def merge(
    run: Run,
    output: Annotated[Path, typer.Option("-o", "--output", help="A .parquet file.")],
    quiet: Quiet = False,
) -> None:
    """Write all vectors of a complete run to one file of embeddings."""
    from byname import commands_runs

    commands_runs.merge(run, output, quiet)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(plan)
    app.command()(run)
    app.command("run-shard")(run_shard)
    app.command()(status)
    app.command()(merge)
