"""What the command line's verbs do."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from byname.cache import PAID, cache_dir, cache_entries, clear_cache
from byname.commands_classify import (
    classify,
    described,
    opened_for,
    read_or_fail,
    say_notes,
    summarise,
    with_extras,
)
from byname.console import (
    Counter,
    collect_warnings,
    console,
    keep,
    progress_bar,
    say,
    working,
)
from byname.console import table as print_table
from byname.doctor import examine
from byname.embeddings import Embeddings
from byname.encoders import list_encoders, load_encoder
from byname.errors import UsageError
from byname.inputs import as_embeddings, settled
from byname.provenance import run_record
from byname.recipes import list_recipes
from byname.rows import check_output, write_record
from byname.runs.local import kept_until_written
from byname.sorter import sort_photos
from byname.stage import members
from byname.taxonomy_io import read_taxonomy, write_taxonomy
from byname.taxonomy_io import taxonomy_stats as stats_of

__all__ = [
    "cache",
    "classify",
    "doctor",
    "embed",
    "list_things",
    "say_notes",
    "sort",
    "taxonomy_check",
    "taxonomy_convert",
    "taxonomy_stats",
    "with_extras",
]


def embed(
    images: str,
    output: Path,
    *,
    encoder: str | None,
    image_column: str | None,
    batch_size: int,
    threads: int | None,
    device: str,
    cache: bool,
    quiet: bool,
    precision: str | None = None,
) -> None:
    """``byname embed``."""
    start, counter = time.perf_counter(), Counter()
    with collect_warnings() as warned, kept_until_written():
        check_output(output, suffixes=(".parquet",))
        source = opened_for(images, image_column)
        if isinstance(source, Embeddings):
            raise UsageError(f"embed '{images}'", "it holds vectors already", "Classify it.")
        model = load_encoder(encoder, device=device, threads=threads, precision=precision)
        model, verdict = settled(model, source)
        if verdict is not None and verdict.kept and not quiet:
            say(f"note: {verdict.in_words()}")
        with progress_bar(counter, len(source), quiet, cache) as advance:
            found = as_embeddings(
                source,
                model,
                batch_size=batch_size,
                cache=cache,
                on_disk=True,
                progress=advance,
            )
        seconds = {"images": counter.seconds, "total": time.perf_counter() - start}
        counts = {
            "images": len(found) + len(found.errors),
            "errors": len(found.errors),
            "rejected": 0,
            "encoded": counter.encoded,
            "from_cache": len(found) - counter.encoded,
        }
        record = run_record(
            encoder=model,
            images=described(source),
            counts=counts,
            seconds=seconds,
            warnings=warned,
            verdict=verdict,
        )
        found.save(output)
        write_record(output, record)
    if not quiet:
        summarise(counts, seconds, output)
    read_or_fail(counts)


def list_things(what: str, pattern: str, as_json: bool) -> None:
    """``byname list``."""
    columns: tuple[str, ...]
    if what == "encoders":
        rows = list_encoders(pattern)
        columns = ("id", "size_mb", "licence", "input_size", "dim", "offline", "note")
    elif what == "recipes":
        rows = [r for r in list_recipes() if fnmatch(str(r["name"]), pattern)]
        columns = ("name", "title", "stages", "needs", "paper")
    elif what == "members":
        rows = [
            {
                "name": name,
                "stage": member.stage,
                "parameters": ", ".join(member().spec_all()),
                "what": (member.__doc__ or "").strip().splitlines()[0],
            }
            for name, member in members().items()
            if fnmatch(name, pattern)
        ]
        columns = ("name", "stage", "parameters", "what")
    else:
        raise UsageError(
            f"list '{what}'", "there is no such list", "Use encoders, recipes, members."
        )
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    if what == "recipes" and [row["name"] for row in rows] == [pattern]:
        _show_card(rows[0])
        return
    if what == "encoders" and not rows:
        say(
            f"no encoder matches '{pattern}': give a name or a part of it with stars ('siglip*'), "
            "a family ('metaclip') or a domain ('medicine')"
        )
        return
    if not rows:
        say(f"no {what.removesuffix('s')} is called '{pattern}': 'byname list {what}' shows all")
        return
    unknown = "?" if what == "encoders" else None
    cells = [[_in_words(row.get(c, ""), unknown) for c in columns] for row in rows]
    print_table("", columns, cells)
    if what == "encoders":
        say(
            "offline = usable now without a network; ? = not known; --json has family, domain and "
            "context too"
        )


def _show_card(row: Mapping[str, Any]) -> None:
    """One recipe in full: what it is, computes and needs, and where its defaults come from."""
    print(f"{row['name']}: {row['title']}")
    for key in ("paper", "stages", "needs", "formula", "defaults", "tuned", "notes"):
        text = _in_words(row[key])
        if text:
            shown = "chosen with labels" if key == "tuned" else key
            lines = str(text).splitlines()
            print(f"\n{shown}")
            print("\n".join(f"    {line}".rstrip() for line in lines))


def _in_words(value: Any, unknown: str | None = None) -> Any:
    """Stages as "a > b > c", a list as "a, b"; ``unknown`` for None."""
    if value is None:
        return unknown
    if isinstance(value, Mapping):
        return " > ".join(str(v) for v in value.values() if v)
    return ", ".join(value) if isinstance(value, list | tuple | frozenset | set) else value


def cache(clear: bool, kind: str | None) -> None:
    """``byname cache``."""
    if clear:
        print(f"freed {clear_cache(kind) / 1e6:.1f} MB")
        if kind is None and any(entry.kind == PAID for entry in cache_entries()):
            say("replies of language models are kept: byname cache --clear --kind replies")
        return
    rows = [(e.kind, e.files, round(e.bytes / 1e6, 1)) for e in cache_entries()]
    print_table("", ("part", "files", "MB"), rows)
    print(cache_dir())


def doctor(as_json: bool, *, network: bool) -> None:
    """``byname doctor``."""
    report = examine(network=network)
    if as_json:
        print(json.dumps(report, indent=1))
        return
    rows = [(name, value) for name, value in report["versions"].items()]
    rows += [("processors", report["processors"])]
    for extra, missing in report["extras"].items():
        text = f"missing: {', '.join(missing)}; pip install 'byname[{extra}]'" if missing else "yes"
        rows.append((f"extra [{extra}]", text))
    rows.append(("encoders usable offline", ", ".join(report["encoders_offline"]) or "none"))
    rows += [(f"cache: {name}", value) for name, value in report["cache"].items()]
    rows += [(f"hub: {name}", value) for name, value in report.get("hub", {}).items()]
    rows += [(f"speed: {name}", value) for name, value in report["speed"].items()]
    print_table("", ("what", "found"), rows)


def sort(
    rows: Path, into: Path, images: str | Path | None, how: str, by: str, quiet: bool = False
) -> None:
    """``byname sort``."""
    for value, allowed in ((how, ("link", "hardlink", "copy")), (by, ("label", "id"))):
        if value not in allowed:
            raise UsageError("sort", f"'{value}' is not one of {', '.join(allowed)}")
    keep("the photos placed so far stay")
    with working(quiet):
        counts = sort_photos(rows, into, images=images, how=how, by=by)  # type: ignore[arg-type]
    print(", ".join(f"{n} {name}" for name, n in counts.items()) or "nothing to sort")


def taxonomy_check(classes: str, lineage: tuple[str, ...] | None) -> None:
    """``byname taxonomy check``: errors are raised, warnings are printed."""
    with working(quiet=False):
        taxonomy = read_taxonomy(classes, lineage=lineage)
    for text in taxonomy.warnings:
        print(f"warning: {text}")
    print(f"{len(taxonomy)} classes, height {int(taxonomy.heights[0])}: usable")


def taxonomy_stats(classes: str, lineage: tuple[str, ...] | None, as_json: bool) -> None:
    """``byname taxonomy stats``."""
    with working(quiet=False):
        found = stats_of(read_taxonomy(classes, lineage=lineage))
    if as_json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    rows = [(name, json.dumps(value, ensure_ascii=False)) for name, value in found.items()]
    print_table("", ("what", "value"), rows)


def taxonomy_convert(classes: str, lineage: tuple[str, ...] | None, output: Path) -> None:
    """``byname taxonomy convert``."""
    check_output(output, suffixes=(".csv", ".tsv", ".json", ".nwk", ".txt"))
    with working(quiet=False):
        taxonomy = read_taxonomy(classes, lineage=lineage)
        write_taxonomy(taxonomy, output)
    console.print(f"{len(taxonomy)} classes -> {output}", markup=False)
