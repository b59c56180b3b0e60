"""The command line: verbs only, no logic."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from byname import (
    __version__,
    cli_controls,
    cli_discover,
    cli_evaluate,
    cli_explain,
    cli_export,
    cli_fewshot,
    cli_repair,
    cli_runs,
    cli_serve,
    cli_study,
)
from byname.cli_options import (
    AllowMissing,
    BatchSize,
    Device,
    EncoderName,
    ImageColumn,
    Lineage,
    NoCache,
    Precision,
    Quiet,
    Threads,
    With,
)
from byname.cli_prompts import prompts_app

__all__ = ["app", "main"]

app = typer.Typer(
    help="Label images by the names of their classes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
taxonomy_app = typer.Typer(
    help="Check, describe and convert class lists and trees.", no_args_is_help=True
)
app.add_typer(taxonomy_app, name="taxonomy")
app.add_typer(prompts_app, name="prompts")
cli_evaluate.register(app)
cli_export.register(app)
cli_study.register(app)
cli_explain.register(app)
cli_controls.register(app)
cli_discover.register(app)
cli_fewshot.register(app)
cli_repair.register(app)
cli_runs.register(app)
cli_serve.register(app)

Images = Annotated[
    str, typer.Argument(help="Folder, glob, list file, .tar, one image, or embeddings.")
]
Output = Annotated[
    str | None,
    typer.Option("-o", "--output", help=".csv, .jsonl or .parquet; - for CSV on stdout."),
]
Classes = Annotated[str, typer.Option("--classes", "-c", help="File with the classes, or a,b,c.")]
Decide = Annotated[str | None, typer.Option(help="Stage member: reject[min_probability=0.6].")]
Level = Annotated[str | None, typer.Option(help="Answer on this level: its name or depth.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"byname {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(help="Your own members: a .py file or a module, which is run. Repeatable."),
    ] = None,
) -> None:
    from byname.plugins import load_plugin

    for name in plugin or ():
        load_plugin(name)


@app.command()
def classify(
    images: Images,
    classes: Classes,
    output: Output = None,
    encoder: EncoderName = None,
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="See 'byname list recipes'.")
    ] = "ensemble",
    k: Annotated[int, typer.Option("-k", help="Ranks per image.", min=1)] = 1,
    template: Annotated[
        list[str] | None, typer.Option(help="Own template with {} for the name; may be repeated.")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(help="A member, a prompt file, or templates+file.json.")
    ] = None,
    allow_missing: AllowMissing = False,
    weigh: Annotated[str | None, typer.Option(help="Stage member.")] = None,
    score: Annotated[str | None, typer.Option(help="Stage member.")] = None,
    refine: Annotated[str | None, typer.Option(help="Stage member.")] = None,
    decide: Decide = None,
    level: Level = None,
    with_: With = None,
    lineage: Lineage = None,
    image_column: ImageColumn = None,
    batch_size: BatchSize = 32,
    threads: Threads = None,
    device: Device = "cpu",
    precision: Precision = None,
    no_cache: NoCache = False,
    quiet: Quiet = False,
) -> None:
    """Label every image with the best of the classes."""
    from byname import commands

    stages = {"weigh": weigh, "score": score, "refine": refine, "decide": decide}
    commands.classify(
        images,
        output,
        k=k,
        image_column=image_column,
        quiet=quiet,
        options={
            "classes": classes,
            "encoder": encoder,
            "recipe": recipe,
            "templates": template or None,
            "prompts": prompts,
            "allow_missing": allow_missing,
            **stages,
            "level": level,
            "extra": with_ or None,
            "lineage": _columns(lineage),
            "batch_size": batch_size,
            "threads": threads,
            "device": device,
            "precision": precision,
            "cache": not no_cache,
        },
    )


@app.command()
def embed(
    images: Images,
    output: Annotated[Path, typer.Option("-o", "--output", help="A .parquet file.")],
    encoder: EncoderName = None,
    image_column: ImageColumn = None,
    batch_size: BatchSize = 32,
    threads: Threads = None,
    device: Device = "cpu",
    precision: Precision = None,
    no_cache: NoCache = False,
    quiet: Quiet = False,
) -> None:
    """Write the vectors of every image, for 'byname classify FILE.parquet'."""
    from byname import commands

    commands.embed(
        images,
        output,
        encoder=encoder,
        image_column=image_column,
        batch_size=batch_size,
        threads=threads,
        device=device,
        precision=precision,
        cache=not no_cache,
        quiet=quiet,
    )


@app.command()
def demo(
    recipe: Annotated[str, typer.Option("--recipe", "-r")] = "ensemble",
    keep: Annotated[
        Path | None, typer.Option(help="Write the demo's photos and classes here.")
    ] = None,
) -> None:
    """Label some photos that come with scikit-image and scikit-learn, offline."""
    from byname.demo import run_demo

    run_demo(recipe, keep)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="encoders, recipes or members.")] = "recipes",
    pattern: Annotated[str, typer.Argument(help="Only names like this: 'siglip*'.")] = "*",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List encoders, recipes or stage members."""
    from byname import commands

    commands.list_things(what, pattern, as_json)


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete it.")] = False,
    kind: Annotated[str | None, typer.Option(help="Only this part: runs, texts, mini.")] = None,
) -> None:
    """Show the cache, or clear it; deleting it is always safe."""
    from byname import commands

    commands.cache(clear, kind)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json")] = False,
    no_network: Annotated[bool, typer.Option("--no-network", help="Do not ask the hub.")] = False,
) -> None:
    """Say what is installed, reachable and fast here."""
    from byname import commands

    commands.doctor(as_json, network=not no_network)


@app.command("sort")
def sort_(
    rows: Annotated[Path, typer.Argument(help="Output of 'byname classify'.")],
    into: Annotated[Path, typer.Option("--into", help="Folder that gets a folder per class.")],
    images: Annotated[
        str | None, typer.Option(help="Folder or URL of the photos, if they moved.")
    ] = None,
    how: Annotated[str, typer.Option(help="link, hardlink or copy.")] = "link",
    by: Annotated[str, typer.Option(help="Name the folders by label or by id.")] = "label",
    quiet: Quiet = False,
) -> None:
    """Link or copy the photos into a folder per class."""
    from byname import commands

    commands.sort(rows, into, images, how, by, quiet)


@taxonomy_app.command("check")
def taxonomy_check(classes: Annotated[str, typer.Argument()], lineage: Lineage = None) -> None:
    """Read a class list or tree and say what is wrong or doubtful with it."""
    from byname import commands

    commands.taxonomy_check(classes, _columns(lineage))


@taxonomy_app.command("stats")
def taxonomy_stats(
    classes: Annotated[str, typer.Argument()],
    lineage: Lineage = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Counts of leaves, nodes and heights, and the histogram of LCA heights."""
    from byname import commands

    commands.taxonomy_stats(classes, _columns(lineage), as_json)


@taxonomy_app.command("convert")
def taxonomy_convert(
    classes: Annotated[str, typer.Argument()],
    output: Annotated[Path, typer.Argument(help=".csv, .tsv, .json, .nwk or .txt")],
    lineage: Lineage = None,
) -> None:
    """Write a class list or tree in another format."""
    from byname import commands

    commands.taxonomy_convert(classes, _columns(lineage), output)


def _columns(text: str | None) -> tuple[str, ...] | None:
    return tuple(c.strip() for c in text.split(",") if c.strip()) if text else None


INTERRUPTED = 128 + signal.SIGINT
PATIENCE = 2.0  # seconds; some send two signals at once, and mean one
_signals: list[tuple[int, float]] = []


def _stop(number: int, _: object) -> None:
    """End by an exception, so that what is open is closed; whom that takes too long asks again."""
    now = time.monotonic()
    if not _signals:
        _signals.append((number, now))
        raise KeyboardInterrupt
    if now - _signals[0][1] > PATIENCE:
        _end_at_once(128 + number)


def _end_at_once(code: int) -> None:
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h")  # a bar hides the cursor
    os.write(2, b"ended at once\n")
    os._exit(code)


def _listen() -> None:
    """Ctrl-C and SIGTERM, unless the caller has had them ignored, as nohup and "&" do."""
    _signals.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def main() -> None:
    """Entry point: an error of the user's is one line and exit code 2, never a traceback.

    Ctrl-C and SIGTERM are one line that says how to go on, and 130 or 143.
    """
    _listen()
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # so newer versions of typer say it
            code = _stopped()
    except (KeyboardInterrupt, typer.Abort):
        code = _stopped()
    except BrokenPipeError:
        # The reader of our output has gone: not an error, and nobody is left to tell.
        sys.stderr.close()
        code = 1
    except Exception as error:  # noqa: BLE001 - _report raises again what is not the user's
        # A library may have made an error of its own of the interrupt.
        code = _stopped() if _signals else _report(error)
    sys.exit(code if isinstance(code, int) else 0)


def _stopped() -> int:
    try:
        from byname.console import farewell, say

        say(farewell(["byname", *sys.argv[1:]]))
    except Exception:  # noqa: BLE001 - a library that was interrupted while it was loaded
        os.write(2, b"stopped before the end, nothing is half-written\n")
    return 128 + _signals[0][0] if _signals else INTERRUPTED


def _report(error: Exception) -> int:
    from byname.console import say
    from byname.errors import BynameError

    if isinstance(error, BynameError):
        say(f"error: {error}")
        return 2
    # Typer's usage errors; newer versions carry their own copy of click's classes.
    shown = getattr(error, "format_message", None)
    if shown is not None:
        context = getattr(error, "ctx", None)
        hint = ". Put a glob in quotes." if "unexpected extra argument" in shown() else ""
        say(f"error: {shown()}{hint} See '{context.command_path if context else 'byname'} --help'.")
        return 2
    raise error


if __name__ == "__main__":
    main()
