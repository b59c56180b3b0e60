"""``byname prompts import, export, check, merge, show``: the options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from byname.cli_options import AllowMissing, Lineage

__all__ = ["register"]

File = Annotated[Path, typer.Argument(help="Prompt file in any format.")]
Files = Annotated[list[Path], typer.Argument(help="Prompt files in any format.")]
Classes = Annotated[
    str | None,
    typer.Option("--classes", "-c", help="File with the classes, or a,b; else the file's keys."),
]
FileFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="byname, cupl, descriptors, haprompts, chils, hie, templates; else a guess.",
    ),
]
Source = Annotated[str | None, typer.Option("--from", help="Format of FILE; else a guess.")]
Target = Annotated[
    str, typer.Option("--format", help="cupl, csv, html or jsonl; else by the suffix.")
]
Json = Annotated[Path, typer.Option("-o", "--output", help="Prompt file to write: .json.")]
Cleaned = Annotated[
    Path | None, typer.Option("-o", "--output", help="Write the cleaned set: .json.")
]
Written = Annotated[Path, typer.Option("-o", "--output", help="File to write.")]
By = Annotated[str, typer.Option(help="Keys of cupl: name, path or id.")]
IgnoreExtra = Annotated[
    bool, typer.Option("--ignore-extra", help="Skip keys of the file that are no class.")
]
EncoderName = Annotated[
    str | None,
    typer.Option("--encoder", "-e", help="Check lengths with the tokenizer of this encoder."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Every finding, as JSON.")]
Words = Annotated[Path | None, typer.Option(help="Own words to mark, one a line: a text file.")]
Drop = Annotated[
    list[str] | None,
    typer.Option(
        help="Drop texts with this finding, not only note, mend or cut them; may be repeated."
    ),
]
ModerationUrl = Annotated[
    str | None,
    typer.Option(help="Ask a moderation endpoint too: https://api.openai.com/v1. [BYNAME_LLM_KEY]"),
]
ModerationModel = Annotated[str, typer.Option(help="Model of the moderation endpoint.")]
Mix = Annotated[
    str, typer.Option(help="count: texts keep their weights; equal: each file weighs the same.")
]
OneClass = Annotated[str | None, typer.Option("--class", help="Id or name of the class to show.")]
Count = Annotated[int, typer.Option("-n", help="Texts of a class.", min=1)]


def import_(
    file: File,
    output: Json,
    file_format: FileFormat = None,
    classes: Classes = None,
    lineage: Lineage = None,
    allow_missing: AllowMissing = False,
    ignore_extra: IgnoreExtra = False,
) -> None:
    """Make a prompt file of another project's texts."""
    from byname import commands_promptfiles as work

    work.import_file(
        file,
        output,
        format=file_format,
        classes=classes,
        lineage=_columns(lineage),
        allow_missing=allow_missing,
        ignore_extra=ignore_extra,
    )


def export(
    file: File,
    output: Written,
    target: Target = "",
    source: Source = None,
    by: By = "name",
    classes: Classes = None,
    lineage: Lineage = None,
) -> None:
    """Write a prompt file for other programs, or as a page to read."""
    from byname import commands_promptfiles as work

    work.export_file(
        file,
        output,
        format=target,
        source=source,
        by=by,
        classes=classes,
        lineage=_columns(lineage),
    )


def check(
    file: File,
    classes: Classes = None,
    lineage: Lineage = None,
    file_format: FileFormat = None,
    encoder: EncoderName = None,
    as_json: AsJson = False,
    words: Words = None,
    moderation_url: ModerationUrl = None,
    moderation_model: ModerationModel = "",
    drop: Drop = None,
    output: Cleaned = None,
) -> None:
    """Say what is wrong with the texts; with -o, write them without it. Findings are no error."""
    from byname import commands_promptfiles as work

    work.check_file(
        file,
        classes=classes,
        lineage=_columns(lineage),
        format=file_format,
        encoder=encoder,
        as_json=as_json,
        words=words,
        moderation_url=moderation_url,
        moderation_model=moderation_model,
        drop=tuple(kind.replace("-", "_").replace(" ", "_") for kind in drop or ()),
        output=output,
    )


def merge(
    files: Files,
    output: Json,
    mix: Mix = "count",
    classes: Classes = None,
    lineage: Lineage = None,
    file_format: FileFormat = None,
) -> None:
    """Join prompt files; each text is kept."""
    from byname import commands_promptfiles as work

    work.merge_files(
        files, output, mix=mix, classes=classes, lineage=_columns(lineage), format=file_format
    )


def show(
    file: File,
    class_key: OneClass = None,
    count: Count = 5,
    classes: Classes = None,
    lineage: Lineage = None,
    file_format: FileFormat = None,
) -> None:
    """Show where the texts come from, and those of a class."""
    from byname import commands_promptfiles as work

    work.show_file(
        file,
        class_key=class_key,
        count=count,
        classes=classes,
        lineage=_columns(lineage),
        format=file_format,
    )


def register(app: typer.Typer) -> None:
    """Add the verbs to ``byname prompts``."""
    app.command("import")(import_)
    for verb in (export, check, merge, show):
        app.command()(verb)


def _columns(text: str | None) -> tuple[str, ...] | None:
    return tuple(c.strip() for c in text.split(",") if c.strip()) if text else None
