"""``byname repair``: texts for the classes that photos lie between, asked of an LLM in rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from byname.asking import Asking, open_llm, writing
from byname.classifier import Classifier
from byname.console import (
    Counter,
    collect_warnings,
    progress_bar,
    query_progress,
    say,
    text_progress,
    working,
)
from byname.errors import UsageError
from byname.images.sources import Source
from byname.inputs import open_images
from byname.llm.client import LLM
from byname.programs.gta import Gta, GtaSettings, ask_llm, gta
from byname.queries import Query
from byname.rows import check_output
from byname.stage import Array
from byname.textvectors import texts_of

__all__ = ["run_repair"]


def run_repair(
    images: str,
    output: Path | None,
    *,
    image_column: str | None,
    quiet: bool,
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
    how: Asking,
) -> bool:
    """Arguments first, then the vectors, then the rounds; the texts are written at the end.

    Returns whether any pair was answered, or none had to be asked about.
    """
    chosen = GtaSettings(**settings)
    if output is None:
        raise UsageError("repair the texts", "no output was given", "Add -o prompts.json.")
    check_output(output, suffixes=(".json",))
    llm = open_llm(how)
    with collect_warnings():
        model, X = _vectors(images, image_column, quiet, options)
        replying = _Replying(llm, quiet)
        ask = ask_llm(model.taxonomy_, replying)
        vectors = partial(
            texts_of,
            taxonomy=model.taxonomy_,
            encoder=model.encoder_,
            needs=frozenset(),
            uses=frozenset(),
            cache=options["cache"],
            progress=lambda done, total: None,
        )
        refine = options["refine"]
        with working(quiet):
            found = gta(
                model.prompts_, X, vectors, ask, model.recipe_, refine=refine, settings=chosen
            )
    _tell(found, quiet)
    say(f"{llm.model}: {llm.calls} call{'s' * (llm.calls != 1)}")
    replying.warn()
    with writing(output) as temporary:
        found.prompts.save(temporary)
    new = sum(step.texts for step in found.steps if step.reason is None)
    say(f"{new} new text{'s' * (new != 1)} -> {output}")
    answered = [len(step.asked) > len(step.unanswered) for step in found.steps]
    return any(answered) or not answered


def _vectors(
    images: str, image_column: str | None, quiet: bool, options: Mapping[str, Any]
) -> tuple[Classifier, Array]:
    """The classifier with its texts, and the vectors of the images that can be read."""
    model, counter = Classifier(**options), Counter()
    source = open_images(images, image_column=image_column)
    if isinstance(source, Source):
        for text in source.warnings:
            say(f"warning: {text}")
    with text_progress(quiet) as advance_texts:
        model.prepare(advance_texts, images=source)
    with progress_bar(counter, len(source), quiet, bool(options["cache"])) as advance:
        model.progress = advance
        given = model.gather(source)
    for name, why in given.embeddings.errors.items():
        say(f"warning: '{name}' is left out: {why}")
    return model, given.batch.X


@dataclass
class _Replying:
    """Asks the LLM, and keeps what it did not answer."""

    llm: LLM
    quiet: bool
    missing: list[tuple[Query, str]] = field(default_factory=list)

    def __call__(
        self, queries: Sequence[Query], problem: Callable[[Query, str], str]
    ) -> Mapping[str, Sequence[str]]:
        with query_progress(self.quiet) as progress:
            found = self.llm.ask(queries, problem=problem, progress=progress)
        self.missing += found.missing
        return found.replies

    def warn(self) -> None:
        """Say how many replies did not come, and why the first did not."""
        if self.missing:
            query, reason = self.missing[0]
            number = "1 reply is" if len(self.missing) == 1 else f"{len(self.missing)} replies are"
            pair = f"{query.class_id!r} / {query.about!r}"
            say(f"warning: {number} missing, first for {pair}: {reason}")


def _tell(found: Gta, quiet: bool) -> None:
    """What each round did, and why it ended."""
    for number, step in enumerate(found.steps, 1):
        if not quiet:
            asked = ", ".join(f"{a} / {b}" for a, b in step.asked)
            did = f"{step.texts} texts, {step.changed_share:.1%} of the answers changed"
            say(f"round {number}: {asked}: {step.reason or did}")
    say(f"ended: {found.ended}")
