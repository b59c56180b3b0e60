"""``byname controls``: do descriptors help by their meaning? A table over labelled images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from byname import commands_evaluate
from byname.console import say
from byname.console import table as print_table
from byname.controls import control_contenders, control_rows, descriptors_of
from byname.promptset_io import load_prompts
from byname.taxonomy_io import read_taxonomy

__all__ = ["run_controls"]

METRIC = "top1"
MEANING = {
    "described": "the descriptors as they are",
    "shared_random": "random descriptors, the same for all classes",
    "per_class_random": "random descriptors, others for each class",
    "swapped": "the descriptors of another class",
    "scrambled": "its own, the words in random order",
}


def run_controls(
    images: str,
    output: str | None,
    *,
    descriptors: str,
    seeds: int,
    labels: str,
    image_column: str | None,
    quiet: bool,
    options: Mapping[str, Any],
) -> None:
    """Texts of every control first, then vectors, then one line a control."""
    taxonomy = read_taxonomy(options["classes"], lineage=options["lineage"])
    prompts = load_prompts(descriptors, taxonomy)
    contenders = control_contenders(taxonomy, descriptors_of(prompts, taxonomy), seeds=seeds)
    table = commands_evaluate.run(
        images,
        output,
        task=None,
        taxonomy=None,
        labels=labels,
        recipes=contenders,
        metric_names=METRIC,
        image_column=image_column,
        quiet=quiet,
        scoring={"draws": 0, "seed": 0, "differences": False, "baseline": None},
        options={**options, "templates": None, "prompts": None, "level": None, "extra": None},
        show=False,
    )
    rows = [
        (
            row.control,
            MEANING[row.control],
            f"{100 * row.mean:.2f}" + (f" ± {100 * row.deviation:.2f}" if row.seeds > 1 else ""),
            f"{100 * row.gain:+.2f}",
        )
        for row in control_rows(table, METRIC)
    ]
    print_table("", ("control", "texts", "top-1 %", "over shared_random"), rows)
    if not quiet:
        say("the semantic gain is what 'described' has over 'shared_random'")
