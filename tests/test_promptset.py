from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from byname.errors import OutputError, PromptError
from byname.promptset import Pair, Prompt, PromptSet, Provenance
from byname.taxonomy import Node, Taxonomy

TAXONOMY = Taxonomy.from_names(["cat", "dog"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def test_every_template_is_filled_with_every_name() -> None:
    made = PromptSet.from_templates(TAXONOMY, ["a {}", "the {}, {small}"], generator="me")
    assert made.texts("cat") == ["a cat", "the cat, {small}"]
    assert [(p.kind, p.template) for p in made.classes["dog"]] == [("template", 0), ("template", 1)]
    assert made.provenance.generator == "me"
    assert list(made.classes) == ["cat", "dog"]


def test_a_name_with_braces_is_put_in_as_it_is() -> None:
    taxonomy = Taxonomy([Node("x", "{} {0}")])
    assert PromptSet.from_templates(taxonomy, ["a {}"]).texts("x") == ["a {} {0}"]


def test_classes_of_one_name_stay_apart() -> None:
    taxonomy = Taxonomy([Node("a", "crane"), Node("b", "crane")])
    assert list(PromptSet.from_templates(taxonomy, ["a {}"]).classes) == ["a", "b"]


@pytest.mark.parametrize(
    "templates, message",
    [
        ([], "cannot make prompts: the list of templates is empty. Give at least one."),
        (["a photo"], "cannot use the template 'a photo': it holds {} 0 times. Write {} once"),
        (["{} {}"], "cannot use the template '{} {}': it holds {} 2 times. Write {} once"),
    ],
)
def test_templates_that_do_not_fit(templates: list[str], message: str) -> None:
    with pytest.raises(PromptError) as error:
        PromptSet.from_templates(TAXONOMY, templates)
    assert str(error.value).startswith(message)


@given(
    st.dictionaries(
        TEXT,
        st.lists(st.builds(Prompt, text=TEXT, about=TEXT, weight=st.floats(0, 9)), max_size=3),
        max_size=3,
    )
)
def test_what_is_saved_is_loaded(classes: dict[str, list[Prompt]]) -> None:
    made = PromptSet(classes=classes, provenance=Provenance(generator="g", extra="kept"))
    assert PromptSet.model_validate_json(made.model_dump_json(indent=1)) == made


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    made = PromptSet(
        classes={"Ü": [Prompt(text="ein Ü", kind="attribute", about="form", weight=0.5)]},
        pairs=(Pair(a="Ü", b="x", texts=("rounder",)),),
    )
    made.save(tmp_path / "p.json")
    raw = (tmp_path / "p.json").read_bytes().decode("utf-8")
    assert '"text": "ein Ü"' in raw
    assert raw.endswith("}\n")
    assert PromptSet.load(tmp_path / "p.json") == made
    assert PromptSet.load(str(tmp_path / "p.json")) == made


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.json"
    made = PromptSet(classes={"a": [Prompt(text="t")]})
    made.save(path)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError) as error:
        made.save(path)
    assert str(error.value) == (
        f"cannot write the prompts to '{path}': No space left on device. "
        "Choose a folder that exists and is writable."
    )
    assert PromptSet.load(path) == made
    assert list(tmp_path.iterdir()) == [path]


def test_unseen_characters_are_saved_as_escapes(tmp_path: Path) -> None:
    text = "a cat \u202egnp.exe\u202c \u2066x\u2069 \u200b\x07\x7f \U000e0041 \ufffa é 猫"
    made = PromptSet(
        classes={"c\u200ft": (Prompt(text=text, about=text),)},
        pairs=(Pair(a="a\u2067", b="b", texts=(text,)),),
        provenance=Provenance(generator=text),
    )
    made.save(tmp_path / "p.json")
    raw = (tmp_path / "p.json").read_text(encoding="utf-8")
    assert {c for c in raw if not c.isprintable()} == {"\n"}
    assert "\\u202egnp.exe" in raw
    assert "é 猫" in raw
    assert PromptSet.load(tmp_path / "p.json") == made


def test_fifty_thousand_texts_are_saved_and_loaded_fast(tmp_path: Path) -> None:
    texts = tuple(Prompt(text=f"A photo of ça \u202e number {i}. " * 3) for i in range(50_000))
    start = time.process_time()
    PromptSet(classes={"a": texts}).save(tmp_path / "p.json")
    assert PromptSet.load(tmp_path / "p.json").classes["a"] == texts
    assert time.process_time() - start < 3


def test_a_byte_order_mark_and_half_characters(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(b'\xef\xbb\xbf{"classes": {"a": [{"text": "x\\ud800y \\ud83d\\ude00"}]}}')
    assert PromptSet.load(path).texts("a") == ["x\ufffdy \U0001f600"]
    path.write_bytes(b'{"classes": {"a": [{"text": "x"}], "a": [{"text": "y"}]}}')
    with pytest.raises(PromptError, match="the key 'a' stands twice"):
        PromptSet.load(path)
    path.write_bytes(b'{"classes": {"a\\ud800": [{"text": "x"}], "a\\udfff": [{"text": "y"}]}}')
    with pytest.raises(PromptError, match="two keys differ only in halves of characters"):
        PromptSet.load(path)


@pytest.mark.parametrize(
    "content, seen",
    [
        (b"", "it is not JSON: "),
        (b"{", "it is not JSON: "),
        (b"\xff\xfe{}", "it is not JSON: "),
        (b"[]", "at the file: "),
        (b"{}", "at classes: Field required"),
        (b'{"classes": {"a": ["text"]}}', "at classes/a/0: "),
        (b'{"classes": {"a": [{"text": ""}]}}', "at classes/a/0/text: String should have at least"),
        (b'{"classes": {"a": [{"text": "t", "weight": -1}]}}', "at classes/a/0/weight: "),
        (b'{"classes": {"a": [{"text": "t", "weigth": 1}]}}', "at classes/a/0/weigth: Extra"),
        (b'{"format": "cupl/7", "classes": {}}', "at format: Input should be 'byname-prompts/1'"),
    ],
)
def test_files_of_another_shape(tmp_path: Path, content: bytes, seen: str) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(content)
    with pytest.raises(PromptError) as error:
        PromptSet.load(path)
    assert str(error.value).startswith(f"cannot read the prompts in '{path}': {seen}")
    assert 'The format is {"format": "byname-prompts/1"' in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PromptError) as error:
        PromptSet.load(tmp_path / "none.json")
    assert str(error.value).endswith("none.json': No such file or directory. Check the path.")
    with pytest.raises(PromptError, match="Is a directory"):
        PromptSet.load(tmp_path)


def test_infinite_weights_are_refused() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Prompt(text="t", weight=float("inf"))


def test_align_takes_the_order_of_the_taxonomy() -> None:
    made = PromptSet(classes={"dog": [Prompt(text="d")], "cat": [Prompt(text="c")]})
    assert list(made.align(TAXONOMY).classes) == ["cat", "dog"]
    assert list(made.classes) == ["dog", "cat"]


@pytest.mark.parametrize(
    "classes, seen",
    [
        (["cat"], "no texts for 'dog'."),
        (["cat", "dog", "cow"], "texts for unknown classes 'cow'."),
        (["cow"], "no texts for 'cat', 'dog' and texts for unknown classes 'cow'."),
        (
            ["cat", "dog", *"abcdefg"],
            "texts for unknown classes 'a', 'b', 'c', 'd', 'e' and 2 more.",
        ),
    ],
)
def test_align_lists_what_does_not_match(classes: list[str], seen: str) -> None:
    made = PromptSet(classes={i: [Prompt(text=i)] for i in classes})
    with pytest.raises(PromptError) as error:
        made.align(TAXONOMY)
    assert str(error.value).startswith(f"cannot match the prompts with the classes: {seen}")
    assert str(error.value).endswith(
        "Ids must be equal; 'byname taxonomy convert FILE classes.csv' lists yours."
    )


def test_align_counts_a_class_with_an_empty_list_as_missing() -> None:
    with pytest.raises(PromptError, match="no texts for 'dog'"):
        PromptSet(classes={"cat": [Prompt(text="c")], "dog": []}).align(TAXONOMY)


def test_summary_counts() -> None:
    made = PromptSet(classes={"a": [Prompt(text="t"), Prompt(text="u", kind="part")], "b": []})
    assert made.summary() == {"classes": 2, "texts": 2, "kinds": {"text": 1, "part": 1}}
    assert json.dumps(made.summary())
