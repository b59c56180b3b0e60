"""``byname prompts``: texts of the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from byname import cli_llm_options as llm
from byname.cli_options import AllowMissing, Lineage, Quiet
from byname.cli_promptfiles import register

__all__ = ["prompts_app"]

prompts_app = typer.Typer(help="Make prompt files: what is said of each class.")

Classes = Annotated[str, typer.Option("--classes", "-c", help="File with the classes, or a,b.")]
Style = Annotated[str, typer.Option(help="A prompts member; see 'byname list members'.")]
Variant = Annotated[
    str | None, typer.Option(help="haprompts: lp, ap, comp, path, full, lp+path; cupl: base, full.")
]
Fallback = Annotated[
    bool, typer.Option("--fallback", help="Classes without siblings: compare higher up.")
]
Dedup = Annotated[
    bool, typer.Option("--dedup", help="Compare a class with each name once, never its own.")
]
WordingFile = Annotated[Path | None, typer.Option("--wording", help="Own questions, a JSON file.")]
Pairs = Annotated[
    Path | None,
    typer.Option(help="Pairs to tell apart (atg, contrast): CSV with columns a,b, or JSON."),
]
Only = Annotated[
    str | None,
    typer.Option(help="Ask about these classes: a,b, or a file of 'byname diagnose --json'."),
]
Encoder = Annotated[
    str | None,
    typer.Option(help="Drop look-alikes too close to another class for this encoder (atg)."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only count the queries, calls and tokens.")
]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Prompt file to write: .json.")]


@prompts_app.callback()
def _root() -> None:
    pass


@prompts_app.command()
def make(
    classes: Classes,
    style: Style = "haprompts",
    variant: Variant = None,
    lineage: Lineage = None,
    fallback: Fallback = False,
    dedup: Dedup = False,
    wording: WordingFile = None,
    pairs: Pairs = None,
    only: Only = None,
    encoder: Encoder = None,
    dry_run: DryRun = False,
    output: Output = None,
    allow_missing: AllowMissing = False,
    llm_url: llm.LLMUrl = None,
    llm_model: llm.LLMModel = None,
    llm_mode: llm.LLMMode = "chat",
    llm_schema: llm.LLMSchema = "auto",
    llm_key_env: llm.LLMKeyEnv = None,
    concurrency: llm.Concurrency = 8,
    timeout: llm.Timeout = 120.0,
    max_calls: llm.MaxCalls = 5000,
    fresh: llm.Fresh = False,
    emit: llm.Emit = None,
    replies: llm.Replies = None,
    emit_batch: llm.EmitBatch = None,
    ingest_batch: llm.IngestBatch = None,
    model: llm.ModelName = "",
    quiet: Quiet = False,
) -> None:
    """Ask an LLM about the classes, or write the questions, and make a prompt file."""
    from byname import commands_prompts as work

    how = work.asking(
        llm_url, llm_model, llm_mode, llm_schema, llm_key_env, concurrency, timeout, max_calls,
        fresh=fresh, quiet=quiet,
    )  # fmt: skip
    files = work.Files(emit, emit_batch, tuple(replies or ()), tuple(ingest_batch or ()), output)
    work.make(
        classes,
        style=style,
        options={"variant": variant, "fallback": fallback, "dedup": dedup},
        files=files,
        how=how,
        lineage=tuple(c.strip() for c in lineage.split(",") if c.strip()) if lineage else None,
        wording=wording,
        pairs=pairs,
        only=only,
        encoder=encoder,
        dry_run=dry_run,
        record=model,
        allow_missing=allow_missing,
    )


register(prompts_app)
