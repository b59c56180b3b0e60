"""``byname serve``: the options."""

from __future__ import annotations

from typing import Annotated

import typer

from byname.cli_options import Device, EncoderName, Lineage, NoCache, Quiet, RecipeName, Threads

__all__ = ["register"]

Images = Annotated[str | None, typer.Argument(help="Images to begin with, in any form.")]
Classes = Annotated[str, typer.Option("--classes", "-c", help="File with the classes, or a,b,c.")]
Host = Annotated[str, typer.Option(help="Address to listen at; others than this machine see it.")]
Port = Annotated[int, typer.Option(help="Port; 0 takes any free one.", min=0, max=65535)]
MaxUpload = Annotated[int, typer.Option(help="Size of one image, in MB.", min=1, max=500)]
MaxImages = Annotated[int, typer.Option(help="Images held at once.", min=1, max=100_000)]
AllowHost = Annotated[
    list[str] | None, typer.Option(help="Another name of this machine; may be repeated.")
]


def serve(
    classes: Classes,
    images: Images = None,
    encoder: EncoderName = None,
    recipe: RecipeName = "ensemble",
    lineage: Lineage = None,
    host: Host = "127.0.0.1",
    port: Port = 8765,
    allow_host: AllowHost = None,
    max_upload_mb: MaxUpload = 20,
    max_images: MaxImages = 10_000,
    threads: Threads = None,
    device: Device = "cpu",
    no_cache: NoCache = False,
    quiet: Quiet = False,
) -> None:
    """Open a page on this machine: drop images, edit class names, see the scores at once."""
    from byname import commands_serve

    commands_serve.run_serve(
        images,
        classes=classes,
        lineage=[c.strip() for c in lineage.split(",")] if lineage else None,
        encoder=encoder,
        recipe=recipe,
        host=host,
        port=port,
        allow_host=allow_host or [],
        max_upload_mb=max_upload_mb,
        max_images=max_images,
        threads=threads,
        device=device,
        cache=not no_cache,
        quiet=quiet,
    )


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(serve)
