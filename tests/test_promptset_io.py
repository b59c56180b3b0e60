from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from byname.errors import PromptError
from byname.promptset import Prompt, PromptSet
from byname.promptset_io import fill_missing, read_pairs, read_prompts, read_replies
from byname.taxonomy import Node, Taxonomy
from byname.taxonomy_io import read_taxonomy

FLAT = Taxonomy([Node("1", "Cat"), Node("2", "dog")])
CRANES = Taxonomy(
    [
        Node("b", "birds"),
        Node("x", "crane", "b"),
        Node("t", "tools"),
        Node("y", "crane", "t"),
        Node("z", "saw", "t"),
    ]
)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def call(content: Any) -> Path:
        path = tmp_path / "p.json"
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return path

    return call


def texts(made: PromptSet) -> dict[str, list[str]]:
    return {class_id: made.texts(class_id) for class_id in made.classes}


@pytest.mark.parametrize(
    "content",
    [
        {"2": ["d"], "1": ["c", "k"]},
        {"dog": ["d"], "Cat": ["c", "k"]},
        {"DOG": ["d"], "cat": ["c", "k"]},
        {"dog": ["d"], "1": ["c", "k"]},
        {
            "format": "byname-prompts/1",
            "classes": {"2": [{"text": "d"}], "1": [{"text": "c"}, {"text": "k"}]},
        },
    ],
)
def test_by_id_or_name_in_the_order_of_the_classes(write: Any, content: Any) -> None:
    made = read_prompts(write(content), FLAT)
    assert list(made.classes) == ["1", "2"]
    assert texts(made) == {"1": ["c", "k"], "2": ["d"]}, "a class with a single text is fine"


def test_names_that_several_classes_bear_are_given_by_path(write: Any) -> None:
    content = {"birds/crane": ["grey"], "tools/crane": ["steel"], "saw": ["toothed"]}
    assert texts(read_prompts(write(content), CRANES))["y"] == ["steel"]
    by_ids = {"b/x": ["grey"], "t/y": ["steel"], "SAW": ["toothed"]}
    assert texts(read_prompts(write(by_ids), CRANES))["x"] == ["grey"]


def test_levels(write: Any) -> None:
    made = read_prompts(write({"cat": [["a", "b"], ["c"]], "dog": ["d"]}), FLAT)
    assert [(p.text, p.level) for p in made.classes["1"]] == [("a", 0), ("b", 0), ("c", 1)]
    assert [p.level for p in made.classes["2"]] == [-1]


def test_an_id_is_never_taken_for_the_name_of_another_class(write: Any) -> None:
    crossed = Taxonomy([Node("a", "b"), Node("b", "c")])
    assert texts(read_prompts(write({"a": ["x"], "b": ["y"]}), crossed)) == {"a": ["x"], "b": ["y"]}
    with pytest.raises(PromptError, match="several classes fit a key: 'b' may be 'b', 'c'"):
        read_prompts(write({"c": ["x"], "b": ["y"]}), crossed)


@pytest.mark.parametrize(
    "content, seen",
    [
        ({"crane": ["x"], "saw": ["y"]}, "several classes fit a key: 'crane' may be 'birds/crane'"),
        (
            {"x": ["a"], "y": ["b"], "saw": ["c"], "axe": ["d"], "b": ["e"]},
            "there are no classes 'axe', 'b'. Keys are ids, names or paths",
        ),
        ({"x": ["a"], "y": ["b"], "saw": ["c"], "Saw": ["d"]}, "'saw' and 'Saw' are one class"),
        ({"x": ["a"], "y": "b", "z": ["c"]}, "'y' has a str, not a list"),
        ({"x": ["a"], "y": ["b", " "], "z": ["c"]}, "text 2 of 'y' is empty. Write it"),
        ({"x": ["a"], "y": [7], "z": ["c"]}, "text 1 of 'y' is a int, not a text"),
        ({"x": [["a"], [""]], "y": ["b"], "z": ["c"]}, "text 1 of 'x', level 1, is empty"),
        ({"x": ["a", ["b"]], "y": ["b"], "z": ["c"]}, "text 2 of 'x' is a list, not a text"),
        (["a"], "it holds a list, not an object"),
        ("", "it is not JSON: Expecting value"),
        ('{"x": ["a"], "x": ["b"]}', "the key 'x' stands twice. Join the two"),
        ("[" * 100_000, "it is not JSON"),
        (
            {"format": "byname-prompts/1", "classes": {"x": [{"text": " "}]}},
            "text 1 of 'x' is empty",
        ),
        ({"format": "byname-prompts/2", "classes": {}}, "at format: "),
    ],
)
def test_files_that_do_not_fit(write: Any, content: Any, seen: str) -> None:
    path = write(content)
    with pytest.raises(PromptError) as error:
        read_prompts(path, CRANES)
    assert str(error.value).startswith(f"cannot read the prompts in '{path}': {seen}")


@pytest.mark.parametrize("content", [{"Cat": ["c"]}, {"Cat": ["c"], "dog": []}])
def test_classes_without_texts(write: Any, content: Any) -> None:
    with pytest.raises(PromptError) as error:
        read_prompts(write(content), FLAT)
    assert str(error.value) == (
        "cannot match the prompts with the classes: no texts for 1 of 2 classes: '2'. "
        "Write texts for them, or add --allow-missing to give them a template."
    )
    with pytest.warns(UserWarning, match=r"1 of 2 classes have no texts and get 'a photo of a"):
        made = read_prompts(write(content), FLAT, allow_missing=True)
    assert texts(made) == {"1": ["c"], "2": ["a photo of a dog."]}
    assert made.classes["2"][0].kind == "template"


def test_allowing_missing_classes_allows_no_unknown_ones() -> None:
    made = PromptSet(classes={"1": [Prompt(text="c")], "cow": [Prompt(text="m")]})
    with pytest.raises(PromptError, match="texts for unknown classes 'cow'"):
        fill_missing(made, FLAT, allow_missing=True)


def test_nothing_is_said_where_nothing_is_missing(write: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = read_prompts(write({"cat": ["c"], "dog": ["d"]}), FLAT, allow_missing=True)
    assert texts(made) == {"1": ["c"], "2": ["d"]}


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(b'{"cat": ["\xe9"]}')
    with pytest.raises(PromptError, match="it is not JSON: 'utf-8' codec"):
        read_prompts(path, FLAT)
    with pytest.raises(PromptError, match=r"No such file or directory\. Check the path\."):
        read_prompts(tmp_path / "none.json", FLAT)
    path.write_bytes(b"\xef\xbb\xbf" + b'{"cat": ["c"], "dog": ["d"]}')
    assert read_prompts(path, FLAT).texts("1") == ["c"]


@pytest.mark.parametrize("name", ["cupl", "haprompts", "descriptors-as-sentences"])
def test_published_files_by_name(shared: Path, name: str) -> None:
    taxonomy = read_taxonomy(shared / "taxonomies" / "food-101.json")
    path = shared / "prompts" / f"{name}-food-101.json"
    made = read_prompts(path, taxonomy)
    raw = json.loads(path.read_text())
    assert list(made.classes) == list(taxonomy.class_ids)
    for node in taxonomy.classes:
        assert made.texts(node.id) == raw[node.name]


# -- replies


def test_replies_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('\ufeff{"id": "a", "reply": "x", "cost": 3}\n\n{"reply": "", "id": "b"}\r\n')
    assert list(read_replies(path)) == [(1, "a", "x"), (3, "b", "")]


@pytest.mark.parametrize(
    "line, seen",
    [
        (b"{", "line 2 is not JSON: "),
        (b"\xff", "line 2 is not JSON: "),
        (b"[1]", "line 2 is no object"),
        (b'{"reply": "x"}', "line 2 holds no 'id'"),
        (b'{"id": "a"}', "line 2 holds no 'reply'"),
        (b'{"id": "a", "reply": null}', "line 2 has a 'reply' of no text"),
        (b'{"id": 3, "reply": "x"}', "line 2 has a 'id' of no text"),
    ],
)
def test_lines_of_another_shape(tmp_path: Path, line: bytes, seen: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"id": "a", "reply": "x"}\n' + line)
    with pytest.raises(PromptError) as error:
        list(read_replies(path))
    assert str(error.value).startswith(f"cannot read the replies in '{path}': {seen}")


def pairs_file(*pairs: tuple[str, str, list[str]]) -> dict[str, Any]:
    classes = {node_id: [{"text": "t"}] for node_id in CRANES.class_ids}
    told = [{"a": a, "b": b, "texts": texts} for a, b, texts in pairs]
    return {"format": "byname-prompts/1", "classes": classes, "pairs": told}


@pytest.mark.parametrize(
    "pair, seen",
    [
        (("x", "y", ["fine", " "]), "a text of 'x' against 'y' is empty. Write it"),
        (("x", "y", [""]), "at pairs/0/texts/0: String should have at least 1 character"),
        (("x", "nil", ["t"]), "pairs name unknown classes 'nil'"),
    ],
)
def test_pairs_that_do_not_fit(write: Any, pair: Any, seen: str) -> None:
    with pytest.raises(PromptError) as error:
        read_prompts(write(pairs_file(pair)), CRANES)
    assert seen in str(error.value)


def test_pairs_in_one_direction_are_told(write: Any) -> None:
    one_way = write(pairs_file(("x", "y", ["t"]), ("x", "z", ["t"]), ("y", "x", ["t"])))
    with pytest.warns(UserWarning, match="1 of 3 pairs have texts in one direction .*x against z"):
        assert len(read_prompts(one_way, CRANES).pairs) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both = read_prompts(write(pairs_file(("x", "y", ["t"]), ("y", "x", ["t"]))), CRANES)
    assert len(both.pairs) == 2


@pytest.mark.parametrize(
    "name, text",
    [
        ("p.csv", "a,b\nx,Saw\ny,z\n"),
        ("p.csv", "note;b;a\n1;z;x\n2;z;y\n"),
        ("p.json", '[["x", "saw"], {"a": "y", "b": "z"}]'),
    ],
)
def test_pairs_by_id_or_name(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_pairs(tmp_path / name, CRANES) == [("x", "z"), ("y", "z")]


@pytest.mark.parametrize(
    "name, text, seen",
    [
        ("p.csv", "a,c\nx,y\n", r"its columns are ['a', 'c']. Give a CSV file"),
        ("p.csv", "", "its columns are none"),
        ("p.csv", "a,b\n", "it holds no pair"),
        ("p.csv", "a,b\nx\n", "'' of pair 1 is no class"),
        ("p.csv", "a,b\nx,crane\n", "'crane' of pair 1 may be 'x', 'y'"),
        ("p.csv", "a,b\nx,y\nz,saw\n", "pair 2 is 'z' twice"),
        ("p.json", '[["x"]]', "pair 1 is not two texts"),
        ("p.json", '{"a": "x"}', "pair 1 is not two texts"),
        ("p.json", "{", "it is not JSON"),
        ("none.csv", None, "No such file"),
    ],
)
def test_pairs_files_that_do_not_fit(
    tmp_path: Path, name: str, text: str | None, seen: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(PromptError) as error:
        read_pairs(tmp_path / name, CRANES)
    assert str(error.value).startswith(f"cannot read the pairs in '{tmp_path / name}': {seen}")
