"""Labels: how tables are read, how they are joined with images, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from byname.errors import UsageError
from byname.labels import class_folders, folder_labels, labels_of, match_labels, read_labels
from byname.taxonomy import Node, Taxonomy

CATS = Taxonomy.from_names(["cat", "dog", "Red Apple"])
TREE = Taxonomy(
    [
        Node("fruit", "fruit"),
        Node("veg", "veg"),
        Node("fruit.apple", "apple", "fruit"),
        Node("fruit.pepper", "pepper", "fruit"),
        Node("veg.pepper", "pepper", "veg"),
    ]
)


def write(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "file_name,class_id\na.jpg,cat\nb.jpg,dog\n",
        "\ufeffclass_id;file_name\ncat;a.jpg\ndog;b.jpg\n",
        "split\tfilename\tlabel\ntest\ta.jpg\tcat\ntest\t./b.jpg\tdog\n",
        "File_Name,Label\na.jpg,cat\nb.jpg,dog\n",
        'image,class\r\n"a.jpg", cat \r\nb.jpg,dog\r\n\r\nc.jpg,\r\n',
    ],
)
def test_tables(tmp_path: Path, text: str) -> None:
    assert read_labels(write(tmp_path, text)) == {"a.jpg": "cat", "b.jpg": "dog"}


def test_ids_go_before_names(tmp_path: Path) -> None:
    path = write(tmp_path, "name,class_id,file_name\nCat,c1,sub\\a.jpg\n")
    assert read_labels(path) == {"sub/a.jpg": "c1"}


@pytest.mark.parametrize(
    "text, message",
    [
        ("image_id,class_id\na,b\n", r"no column file_name or .*its columns: image_id, class_id"),
        ("file_name,target\na,b\n", r"no column class_id or label .* or id .*first line names"),
        ("", "its columns: none"),
        ("file_name,class_id\n", "no row with a file and a class"),
        ("file_name,class_id\na,cat\na,dog\n", "'a' is 'cat' and 'dog'"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_labels(write(tmp_path, text))


def test_a_row_number_is_no_class(tmp_path: Path) -> None:
    numbered = Taxonomy([Node("0", "cat"), Node("1", "dog")])
    text = "id,file_name,label\n0,a.jpg,dog\n1,b.jpg,cat\n"
    assert read_labels(write(tmp_path, text), numbered) == {"a.jpg": "dog", "b.jpg": "cat"}
    alone = write(tmp_path, "id,file_name\n0,a.jpg\n")
    assert read_labels(alone, numbered) == {"a.jpg": "0"}


def test_columns_that_contradict_each_other(tmp_path: Path) -> None:
    numbered = Taxonomy([Node("0", "cat"), Node("1", "dog")])
    agreed = "class_id,label,name,file_name\n0,CAT,tom,a.jpg\n1,dog,0,b.jpg\n1\n"
    path = write(tmp_path, agreed.replace("dog,0", "dog,"))
    assert read_labels(path, numbered) == {"a.jpg": "0", "b.jpg": "1"}
    path = write(tmp_path, agreed.replace("CAT", "dog"))
    assert read_labels(path) == {"a.jpg": "0", "b.jpg": "1"}  # without classes nothing is known
    with pytest.raises(UsageError) as error:
        read_labels(path, numbered)
    assert (
        "the columns 'class_id' and 'label' name different classes in 1 of 3 rows, first for "
        "'a.jpg': class_id '0' and label 'dog'. Keep the column"
    ) in str(error.value)
    groups = write(tmp_path, "class_id,label,file_name\nfruit.pepper,fruit,a\nveg.pepper,veg,b\n")
    assert len(read_labels(groups, TREE, level=1)) == 2
    with pytest.raises(UsageError, match=r"'class_id' and 'label' .* in 1 of 1 rows"):
        read_labels(write(tmp_path, "class_id,label,file_name\nveg,apple,a\n"), TREE, level=1)


def test_unreadable_tables(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="Is a directory"):
        read_labels(tmp_path)
    (tmp_path / "x.csv").write_bytes(b"file_name,class_id\n\xff\xfe,1")
    with pytest.raises(UsageError, match="it is not UTF-8 text"):
        read_labels(tmp_path / "x.csv")


def test_full_names_go_before_base_names() -> None:
    keys = ["x/a.jpg", "y/a.jpg", "y/b.jpg", "c.jpg"]
    labels = {"x/a.jpg": "cat", "a.jpg": "dog", "photos/b.jpg": "dog", "z/c.jpg": "cat"}
    found = match_labels(keys, labels, CATS)
    # y/a.jpg: other files bear its base name, so nothing is guessed.
    assert found.rows.tolist() == [0, 2, 3]
    assert found.labels.tolist() == [0, 1, 0]
    assert found.without == ("y/a.jpg",)


def test_a_base_name_of_several_labels_is_not_guessed() -> None:
    labels = {"z/a.jpg": "cat", "w/a.jpg": "dog", "b.jpg": "dog"}
    found = match_labels(["x/a.jpg", "x/b.jpg"], labels, CATS)
    assert (found.rows.tolist(), found.without) == ([1], ("x/a.jpg",))


def test_ids_names_and_paths() -> None:
    keys = [f"{i}.jpg" for i in range(4)]
    given = dict(zip(keys, ["fruit.pepper", "apple", "veg/veg.pepper", "veg.pepper"], strict=True))
    assert match_labels(keys, given, TREE).labels.tolist() == [1, 0, 2, 2]
    assert match_labels(["a"], {"a": "red-apple"}, CATS).labels.tolist() == [2]
    assert match_labels(["a"], {"a": "Red Apple"}, CATS).labels.tolist() == [2]


def test_labels_are_written_as_freely_as_the_keys_of_prompt_files() -> None:
    keys = ["1", "2", "3", "4"]
    given = {"1": "red apple", "2": "RED-APPLE", "3": "Red Apple"}
    assert match_labels(["1", "3"], given, CATS).labels.tolist() == [2, 2]
    with pytest.raises(UsageError, match="1 of 2 name no class: 'RED-APPLE'"):
        match_labels(["1", "2"], given, CATS)  # ids are taken as they are
    given = dict(zip(keys, ["fruit/pepper", "Apple", "veg/pepper", "fruit/apple"], strict=True))
    assert match_labels(keys, given, TREE).labels.tolist() == [1, 0, 2, 0]
    with pytest.raises(UsageError, match="several classes bear the name 'Pepper'"):
        match_labels(["1"], {"1": "Pepper"}, TREE)


def test_what_may_be_a_class_or_another_group_is_refused() -> None:
    crossed = Taxonomy(
        [
            Node("citrus", "Citrus"),
            Node("o", "Orange", "citrus"),
            Node("orange", "colour"),
            Node("r", "rust", "orange"),
        ]
    )
    found = match_labels(["a", "b"], {"a": "orange", "b": "citrus"}, crossed, level=1)
    assert found.labels.tolist() == [1, 0]  # all are ids
    with pytest.raises(UsageError, match="several classes bear the name 'orange'"):
        match_labels(["a", "b"], {"a": "orange", "b": "CITRUS"}, crossed, level=1)


def test_labels_of_a_level() -> None:
    keys = ["1", "2", "3"]
    found = match_labels(keys, {"1": "fruit.apple", "2": "veg.pepper", "3": "veg"}, TREE, level=1)
    assert found.labels.tolist() == [0, 1, 1]
    with pytest.raises(UsageError, match="1 of 3 name no class: 'veg'"):
        match_labels(keys, {"1": "apple", "2": "veg.pepper", "3": "veg"}, TREE)


def test_a_name_of_several_classes_is_refused() -> None:
    with pytest.raises(UsageError, match="several classes bear the name 'pepper'"):
        match_labels(["a"], {"a": "pepper"}, TREE)


def test_unknown_classes_are_named_and_other_files_do_not_matter() -> None:
    labels = {"a": "cat", "b": "cow", "c": "cow", "d": "pig", "other": "unheard of"}
    with pytest.raises(UsageError, match=r"3 of 4 name no class: 'cow', 'pig'\. Labels are ids"):
        match_labels(list("abcd"), labels, CATS)


def test_no_overlap() -> None:
    with pytest.raises(UsageError, match=r"none of the 2 images is among the 1 labels .*'x\.jpg'"):
        match_labels(["a.jpg", "b.jpg"], {"x.jpg": "cat"}, CATS)
    with pytest.raises(UsageError, match="none of the 0 images"):
        match_labels([], {"x.jpg": "cat"}, CATS)


def test_folders() -> None:
    keys = ["cat/1.jpg", "train/dog/2.jpg", "3.jpg"]
    assert folder_labels(keys) == {"cat/1.jpg": "cat", "train/dog/2.jpg": "dog"}
    found = match_labels(keys, folder_labels(keys), CATS)
    assert found.labels.tolist() == [0, 1]
    assert found.without == ("3.jpg",)


def test_folders_that_are_none() -> None:
    with pytest.raises(UsageError, match=r"no image lies in a folder of its class .*'1.jpg'") as e:
        folder_labels(["1.jpg", "2.jpg"])
    assert "or give --labels FILE.csv" in str(e.value)
    with pytest.raises(UsageError, match=r"or give --support FILE\.csv"):
        folder_labels(["1.jpg"], "--support")


def test_folders_that_name_no_class() -> None:
    keys = ["cat/1.jpg", "new/2.jpg", "red apple/3.jpg", "old/4.jpg", "new/5.jpg"]
    kept, others = class_folders(folder_labels(keys), CATS)
    assert kept == {"cat/1.jpg": "cat", "red apple/3.jpg": "red apple"}
    assert others == {"new": 2, "old": 1}
    with pytest.raises(UsageError, match="3 of 5 name no class: 'new', 'old'"):
        labels_of("folder", keys, CATS)
    with pytest.raises(UsageError, match="3 of 5 name no class: 'new', 'old'"):
        match_labels(keys, folder_labels(keys), CATS)
    with pytest.raises(UsageError, match="none of them names a class: 'new'"):
        class_folders({"new/2.jpg": "new"}, CATS)
    # What may be several classes is no mere folder: match_labels refuses it.
    assert class_folders({"pepper/1.jpg": "pepper"}, TREE) == ({"pepper/1.jpg": "pepper"}, {})
