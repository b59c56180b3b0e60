"""``byname prompts``: texts of the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["prompts_app"]

prompts_app = typer.Typer(help="Make prompt files: what is said of each class.")


@prompts_app.callback()
def _root() -> None:
    pass


@prompts_app.command()
def make(
    classes: Annotated[str, typer.Option("--classes", "-c", help="File with the classes, or a,b.")],
    style: Annotated[
        str, typer.Option(help="A prompts member; see 'byname list members'.")
    ] = "haprompts",
    variant: Annotated[
        str | None, typer.Option(help="lp, ap, comp, path, full, or a union: lp+path.")
    ] = None,
    lineage: Annotated[
        str | None, typer.Option(help="Columns that make the tree, root first: group,coarse,name.")
    ] = None,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="Classes without siblings: compare higher up.")
    ] = False,
    dedup: Annotated[
        bool, typer.Option("--dedup", help="Compare a class with each name once, never its own.")
    ] = False,
    wording: Annotated[Path | None, typer.Option(help="Own questions, a JSON file.")] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="Pairs of classes to tell apart (atg): CSV with columns a,b, or JSON."),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Drop look-alikes too close to another class for this encoder (atg)."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the queries.")] = False,
    emit: Annotated[Path | None, typer.Option(help="Write the queries: a .jsonl file.")] = None,
    replies: Annotated[
        Path | None, typer.Option(help="Answers to the queries: lines with id and reply.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Prompt file to write: .json.")
    ] = None,
    model: Annotated[str, typer.Option(help="Who answered, for the record.")] = "",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="A template for classes without texts.")
    ] = False,
) -> None:
    """Plan the questions of a style, write them, or make a prompt file of their answers."""
    from byname import commands_prompts

    commands_prompts.make(
        classes,
        style=style,
        options={"variant": variant, "fallback": fallback, "dedup": dedup},
        lineage=tuple(c.strip() for c in lineage.split(",") if c.strip()) if lineage else None,
        wording=wording,
        pairs=pairs,
        encoder=encoder,
        dry_run=dry_run,
        emit=emit,
        replies=replies,
        output=output,
        model=model,
        allow_missing=allow_missing,
    )
