"""The example prompt files are what their script makes, and what byname asks for today."""

from __future__ import annotations

import hashlib
import runpy
import sys
from collections import Counter
from pathlib import Path

import pytest

from byname.prompts.haprompts import HAPrompts
from byname.promptset import PromptSet
from byname.promptset_io import read_prompts
from byname.taxonomy import Taxonomy
from byname.taxonomy_io import read_taxonomy

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "grocery"
FILES = ("haprompts", "coder")
MOST_WORDS = 60  # the text towers cut at 77 tokens


@pytest.fixture(scope="module")
def classes(shared: Path) -> Path:
    return shared / "grocery" / "classes.csv"


@pytest.fixture(scope="module")
def taxonomy(classes: Path) -> Taxonomy:
    return read_taxonomy(classes)


def test_the_files_are_what_the_script_makes(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["make_prompts.py", str(classes), str(tmp_path)])
    runpy.run_path(str(FOLDER / "make_prompts.py"), run_name="__main__")
    for name in FILES:
        made, kept = (PromptSet.load(f / f"{name}.json") for f in (tmp_path, FOLDER))
        assert made.classes == kept.classes, f"run make_prompts.py again for {name}.json"
        assert made.pairs == kept.pairs
        for field in ("generator", "model", "date", "queries_sha256"):
            assert getattr(made.provenance, field) == getattr(kept.provenance, field)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("c.txt", "nowhere"), "no such folder"), (("gone.csv",), "no such file")],
)
def test_wrong_arguments_of_the_script_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.txt").write_text("cat\n")
    monkeypatch.setattr(sys, "argv", ["make_prompts.py", *arguments])
    with pytest.raises(SystemExit, match=words):
        runpy.run_path(str(FOLDER / "make_prompts.py"), run_name="__main__")


def test_haprompts_answers_each_query_of_today_once(taxonomy: Taxonomy) -> None:
    made = PromptSet.load(FOLDER / "haprompts.json")
    queries = list(HAPrompts(variant="full").queries(taxonomy))
    asked = Counter((q.class_id, q.kind, q.about) for q in queries)
    answered = Counter((c, p.kind, p.about) for c, texts in made.classes.items() for p in texts)
    assert answered == asked
    ids = "".join(f"{query.id}\n" for query in queries)
    assert made.provenance.queries_sha256 == hashlib.sha256(ids.encode()).hexdigest()


@pytest.mark.parametrize("name", FILES)
def test_every_class_has_texts_of_a_fair_length(name: str, taxonomy: Taxonomy) -> None:
    made = read_prompts(FOLDER / f"{name}.json", taxonomy)
    assert list(made.classes) == list(taxonomy.class_ids)
    texts = [text for c in made.classes for text in made.texts(c)]
    texts += [text for pair in made.pairs for text in pair.texts]
    assert all(0 < len(text.split()) <= MOST_WORDS for text in texts)
    assert {x for pair in made.pairs for x in (pair.a, pair.b)} <= set(made.classes)
    assert all(pair.texts for pair in made.pairs)
