from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from byname.controls import CONTROLS, control_contenders, control_rows, descriptors_of
from byname.embeddings import Embeddings
from byname.encoders import PrecomputedEncoder
from byname.errors import PromptError, UsageError
from byname.evaluate import evaluate_images, prepare_models
from byname.ops import unit
from byname.promptset import Prompt, PromptSet
from byname.taxonomy import Taxonomy

NAMES = ["cat", "dog", "owl"]
SAID = {"cat": ("whiskers", "soft paws"), "dog": ("a wet nose",), "owl": ("large round eyes",)}


def prompts(said: Any = SAID) -> PromptSet:
    return PromptSet(
        classes={
            name: tuple(Prompt(text=f"{name}: {d}", kind="descriptor", about=d) for d in given)
            for name, given in said.items()
        }
    )


def test_descriptors_are_what_the_texts_are_about() -> None:
    more = prompts().classes["cat"] + (Prompt(text="a cat", kind="template"),)
    given = PromptSet(classes={**prompts().classes, "cat": more})
    assert descriptors_of(given, Taxonomy.from_names(NAMES)) == SAID


def test_a_class_without_descriptors_is_named() -> None:
    given = prompts({**SAID, "dog": ()})
    with pytest.raises(PromptError, match=r"1 classes have none, the first is 'dog'\. Give a file"):
        descriptors_of(given, Taxonomy.from_names(NAMES))


def test_each_control_and_seed_is_a_row() -> None:
    made = control_contenders(Taxonomy.from_names(NAMES), SAID, seeds=2)
    assert next(iter(made)) == "described"
    assert len(made) == 1 + 2 * 4
    assert {c.recipe.weigh for c in made.values()} == {"mean_similarity"}
    assert made["swapped/0"].origin == "waffle_controls.swapped"
    alone = control_contenders(Taxonomy.from_names(["cat"]), {"cat": ("x", "y")}, seeds=1)
    assert "swapped/0" not in alone, "one class has nobody to swap with"
    with pytest.raises(UsageError, match=r"seeds is 0\. Give 1 or more"):
        control_contenders(Taxonomy.from_names(NAMES), SAID, seeds=0)


def test_through_the_whole_path() -> None:
    taxonomy, rng = Taxonomy.from_names(NAMES), np.random.default_rng(0)
    contenders = control_contenders(taxonomy, SAID, seeds=2)
    texts = sorted(
        {
            p.text
            for c in contenders.values()
            if isinstance(c.prompts, PromptSet)
            for given in c.prompts.classes.values()
            for p in given
        }
    )
    encoder = PrecomputedEncoder.from_arrays(texts, unit(rng.standard_normal((len(texts), 8))))
    models = prepare_models(contenders, {"classes": taxonomy, "encoder": encoder})
    X = np.asarray(unit(rng.standard_normal((12, 8))), np.float32)
    found = Embeddings(tuple(f"{i:02}.jpg" for i in range(12)), X)
    table = evaluate_images(found, np.arange(12) % 3, models, "top1", draws=0)
    rows = control_rows(table)
    assert [row.control for row in rows] == list(CONTROLS)
    assert [row.seeds for row in rows] == [1, 2, 2, 2, 2]
    base = rows[1]
    for row in rows:
        values = [
            v["top1"]["value"] for n, v in table.items() if n.partition("/")[0] == row.control
        ]
        assert row.mean == pytest.approx(np.mean(values))
        assert row.gain == pytest.approx(row.mean - base.mean)


def test_a_table_without_the_base() -> None:
    with pytest.raises(UsageError, match="the table has no 'shared_random'"):
        control_rows({"described": {"top1": {"value": 1.0}}})
